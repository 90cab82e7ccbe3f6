//! What peers said that they have of each feed: one that has less than it had was restored, or its disk lost something.
//!
//! A peer can say anything, so what is kept and told of each is bounded. Only feeds are remembered that are here too: those it
//! cannot make up.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use avalon_protocol::{feed::FeedId, id::NodeId};

/// Feeds that are remembered for each peer: 25 nodes with 80 projects have 2,000.
const MAX_FEEDS_OF_PEER: usize = 4096;
/// Peers that are remembered: far more than a studio has certificates.
const MAX_PEERS: usize = 1024;
/// Of how many feeds people hear at a time that one peer has less of them, or another history without a proof: what is wrong with
/// all of a peer's feeds shows by some.
const MAX_TOLD_OF_PEER: usize = 8;

/// The most that each peer ever had, for as long as this daemon runs; over its connections.
#[derive(Debug, Default)]
pub(crate) struct PeerHeads {
    known: Mutex<BTreeMap<NodeId, OfPeer>>,
}

#[derive(Debug, Default)]
struct OfPeer {
    feeds: BTreeMap<FeedId, u64>,
    /// Those of which it has less than it had, as far as that was told.
    fallen: BTreeSet<FeedId>,
    /// Those of which it says that it has another history, as far as that was told.
    claimed: BTreeSet<FeedId>,
}

/// What is new about a peer's copy of a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeadNews {
    /// It has less than it had.
    FellBack { had: u64, has: u64 },
    /// It has all again.
    CaughtUp,
}

impl PeerHeads {
    /// Hears how many records a peer has of a feed that is here too. Of its own feed it had `here`, which were here before it said
    /// so.
    pub(crate) fn heard(&self, peer: &NodeId, feed: &FeedId, has: u64, here: u64) -> Option<HeadNews> {
        self.of(peer, |known| {
            if known.feeds.len() >= MAX_FEEDS_OF_PEER && !known.feeds.contains_key(feed) {
                return None;
            }
            let most = known.feeds.entry(feed.clone()).or_default();
            let had = if feed.node == *peer { (*most).max(here) } else { *most };
            *most = had.max(has);
            match has < had {
                true => insert(&mut known.fallen, feed).then_some(HeadNews::FellBack { had, has }),
                false => known.fallen.remove(feed).then_some(HeadNews::CaughtUp),
            }
        })
    }

    /// Says whether people are to hear that a peer has another history of a feed, which it has not proved.
    pub(crate) fn may_claim(&self, peer: &NodeId, feed: &FeedId) -> bool {
        self.of(peer, |known| Some(insert(&mut known.claimed, feed))).unwrap_or(false)
    }

    fn of<T>(&self, peer: &NodeId, change: impl FnOnce(&mut OfPeer) -> Option<T>) -> Option<T> {
        // Every change under the lock is whole.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MAX_PEERS && !known.contains_key(peer) {
            return None;
        }
        change(known.entry(peer.clone()).or_default())
    }
}

/// Adds a feed to those that are told, if it is there already or there is room.
fn insert(told: &mut BTreeSet<FeedId>, feed: &FeedId) -> bool {
    let has_room = told.len() < MAX_TOLD_OF_PEER || told.contains(feed);
    if has_room {
        told.insert(feed.clone());
    }
    has_room
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(node: &str) -> FeedId {
        FeedId { project: "lantern".parse().unwrap(), node: node.parse().unwrap() }
    }

    #[test]
    fn a_peer_that_has_less_than_it_had_is_told_until_it_has_it_again() {
        let heads = PeerHeads::default();
        let peer: NodeId = "b@x".parse().unwrap();
        let other = feed("c@x");
        assert_eq!(heads.heard(&peer, &other, 3, 9), None, "it gets the rest");
        assert_eq!(heads.heard(&peer, &other, 9, 9), None);
        assert_eq!(heads.heard(&peer, &other, 4, 9), Some(HeadNews::FellBack { had: 9, has: 4 }));
        assert_eq!(heads.heard(&peer, &other, 8, 9), Some(HeadNews::FellBack { had: 9, has: 8 }));
        assert_eq!(heads.heard(&peer, &other, 9, 9), Some(HeadNews::CaughtUp));
        assert_eq!(heads.heard(&peer, &other, 10, 9), None);
        // Its own feed it wrote itself: nobody can have more.
        assert_eq!(heads.heard(&peer, &feed("b@x"), 5, 7), Some(HeadNews::FellBack { had: 7, has: 5 }));
        assert_eq!(heads.heard(&peer, &feed("b@x"), 7, 7), Some(HeadNews::CaughtUp));
    }

    #[test]
    fn what_a_peer_makes_up_fills_neither_memory_nor_the_status() {
        let (heads, liar) = (PeerHeads::default(), "liar@x".parse().unwrap());
        let (mut told, mut claimed) = (0, 0);
        for number in 0..2 * MAX_FEEDS_OF_PEER {
            let feed = feed(&format!("n{number}@x"));
            assert_eq!(heads.heard(&liar, &feed, u64::MAX, 0), None);
            told += usize::from(heads.heard(&liar, &feed, 1, 0).is_some());
            claimed += usize::from(heads.may_claim(&liar, &feed));
        }
        assert_eq!((told, claimed), (MAX_TOLD_OF_PEER, MAX_TOLD_OF_PEER));
        assert!(heads.may_claim(&liar, &feed("n0@x")), "what was told can be told again");
        // One that is well again makes room, and what others say is heard.
        assert_eq!(heads.heard(&liar, &feed("n0@x"), u64::MAX, 0), Some(HeadNews::CaughtUp));
        assert!(heads.heard(&liar, &feed("n100@x"), 1, 0).is_some());
        let peer = "b@x".parse().unwrap();
        heads.heard(&peer, &feed("c@x"), 2, 0);
        assert!(heads.heard(&peer, &feed("c@x"), 1, 0).is_some());
        assert_eq!(heads.known.lock().unwrap()[&liar].feeds.len(), MAX_FEEDS_OF_PEER);
        for number in 0..2 * MAX_PEERS {
            heads.heard(&format!("p{number}@x").parse().unwrap(), &feed("c@x"), 1, 0);
        }
        assert_eq!(heads.known.lock().unwrap().len(), MAX_PEERS);
    }
}
