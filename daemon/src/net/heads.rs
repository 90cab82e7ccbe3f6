//! What peers said that they have of each feed: one that has less than it had was restored, or its disk lost something.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use avalon_protocol::{feed::FeedId, id::NodeId};

/// The most that each peer ever had, for as long as this daemon runs; over its connections.
#[derive(Debug, Default)]
pub(crate) struct PeerHeads {
    known: Mutex<HashMap<(NodeId, FeedId), Known>>,
}

#[derive(Debug, Default)]
struct Known {
    most: u64,
    is_back: bool,
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
    /// Hears how many records a peer has of a feed. Of its own feed it had `here`, which were here before it said so.
    pub(crate) fn heard(&self, peer: &NodeId, feed: &FeedId, has: u64, here: u64) -> Option<HeadNews> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (peer.clone(), feed.clone());
        let known = known.entry(key).or_default();
        let had = if feed.node == *peer { known.most.max(here) } else { known.most };
        known.most = had.max(has);
        match (has < had, std::mem::replace(&mut known.is_back, has < had)) {
            (true, _) => Some(HeadNews::FellBack { had, has }),
            (false, true) => Some(HeadNews::CaughtUp),
            (false, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_has_less_than_it_had_is_told_until_it_has_it_again() {
        let heads = PeerHeads::default();
        let peer: NodeId = "b@x".parse().unwrap();
        let feed = |node: &str| FeedId { project: "lantern".parse().unwrap(), node: node.parse().unwrap() };
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
}
