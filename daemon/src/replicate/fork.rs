//! Feeds with two histories, and peers that have less than they had: what people hear of them.

use avalon_protocol::{
    control::{Health, Severity},
    feed::{FeedId, Group, SealedGroup},
    id::NodeId,
};
use avalon_store::ledger::Fork;

use crate::{clock::time_of_ms, core::Core};

/// Another node's feed has two histories.
const FEED_FORK: &str = "feed-fork";
/// One of this node's own feeds has.
const OWN_FEED_FORK: &str = "own-feed-fork";
/// A peer says so and does not prove it.
const FORK_CLAIMED: &str = "feed-fork-claimed";
/// A peer has fewer records of a feed than it had.
const PEER_FELL_BACK: &str = "peer-fell-back";

/// Tells of every feed that is known to have two histories, unless somebody has dealt with it.
pub fn tell_known(core: &Core) {
    core.ledger.forks().iter().for_each(|fork| tell_fork(core, fork));
}

/// Tells of a fork, or takes that back once somebody has dealt with it.
pub fn tell_fork(core: &Core, fork: &Fork) {
    let feed = &fork.feed;
    let board = core.health.about(&feed.to_string());
    board.clear(FORK_CLAIMED);
    let is_own = feed.node == core.me;
    let code = if is_own { OWN_FEED_FORK } else { FEED_FORK };
    if fork.settled.is_some() && !is_own {
        board.clear(code);
        return;
    }
    tracing::error!(%feed, "a feed has two histories");
    board.raise(if is_own { own_forked(fork) } else { forked(fork) });
}

fn own_forked(fork: &Fork) -> Health {
    let (feed, place) = (&fork.feed, where_they_part(fork));
    Health {
        code: OWN_FEED_FORK.into(),
        severity: Severity::Error,
        message: format!(
            "somebody else writes in the name of {}: its feed about {} has two histories{place}; it records nothing more",
            feed.node, feed.project
        ),
        hint: Some(format!(
            "a copied machine, a restored backup or a stolen key: stop the other one, then let this machine join again \
             under a new name; its files stay and are published from there. avalonctl feed show {feed}"
        )),
    }
}

fn forked(fork: &Fork) -> Health {
    let (feed, place) = (&fork.feed, where_they_part(fork));
    Health {
        code: FEED_FORK.into(),
        severity: Severity::Error,
        message: format!(
            "{} has two histories of project {}{place}; nothing more of that feed is taken from anybody",
            feed.node, feed.project
        ),
        hint: Some(format!(
            "find out which machine is the real {}, let it join again under a new name, and say so here: avalonctl feed \
             settle {feed}. What is told by both: avalonctl feed show {feed}",
            feed.node
        )),
    }
}

fn where_they_part(fork: &Fork) -> String {
    let Some(proof) = &fork.proof else { return String::new() };
    let time = |group: &SealedGroup| written_at(group).unwrap_or_else(|| "?".to_owned());
    format!(
        ", which part at record {} (written {} here, {} elsewhere)",
        proof.seq,
        time(&proof.ours),
        time(&proof.theirs)
    )
}

/// Returns when a group says that it was written.
pub fn written_at(group: &SealedGroup) -> Option<String> {
    let body: Group = postcard::from_bytes(&group.body).ok()?;
    Some(time_of_ms(body.written_at_ms))
}

/// Tells that what a peer says of a feed does not fit with what is here.
pub fn tell_mismatch(core: &Core, feed: &FeedId, peer: &NodeId) {
    if let Some(fork) = core.ledger.fork(feed) {
        tell_fork(core, &fork);
        return;
    }
    tracing::warn!(%feed, %peer, "a peer has another history of a feed, without a proof so far");
    core.health.about(&feed.to_string()).raise(Health {
        code: FORK_CLAIMED.into(),
        severity: Severity::Warning,
        message: format!("{peer} says that it has another history of feed {feed}, and has not proved it"),
        hint: Some(format!("look at {peer}: its state may be damaged, or it is not honest")),
    });
}

/// Tells that a peer has fewer records of a feed than it had, or that it has them again.
pub fn tell_fallen_back(core: &Core, peer: &NodeId, feed: &FeedId, fallen: Option<(u64, u64)>) {
    let board = core.health.about(&format!("{peer} {feed}"));
    let Some((had, has)) = fallen else {
        board.clear(PEER_FELL_BACK);
        return;
    };
    tracing::warn!(%peer, %feed, had, has, "a peer has fewer records of a feed than it had");
    let whose = if feed.node == *peer {
        "its own feed about".to_owned()
    } else {
        format!("feed {} about", feed.node)
    };
    board.raise(Health {
        code: PEER_FELL_BACK.into(),
        severity: Severity::Warning,
        message: format!("{peer} has {has} records of {whose} {} and had {had}", feed.project),
        hint: Some(format!(
            "{peer} was restored from a backup, or its disk lost something; it gets the rest from here, which ends this"
        )),
    });
}
