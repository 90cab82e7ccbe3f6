//! The feeds of one simulated node, and what it takes and refuses: the ledger's rules in the plainest way.

use std::collections::BTreeMap;

use avalon_protocol::{
    feed::{FeedError, FeedHead, FeedId, FeedReader, SealedGroup},
    fork::ForkProof,
    record::RawRecord,
};
use avalon_tests::toy_trust::{ToySigner, ToyTrust};

/// What a backup has of a node.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk {
    pub(crate) feeds: BTreeMap<FeedId, Feed>,
    pub(crate) forks: BTreeMap<FeedId, ForkProof>,
}

#[derive(Debug, Clone)]
pub(crate) struct Feed {
    pub(crate) reader: FeedReader,
    pub(crate) groups: Vec<SealedGroup>,
}

/// What became of a peer's groups.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// The feed ends there now.
    Stored(FeedHead),
    /// It has two histories.
    Forked,
    /// They do not follow, or are not signed by their node.
    Refused(String),
}

impl Disk {
    pub(crate) fn heads(&self) -> Vec<(FeedId, FeedHead)> {
        self.feeds.iter().map(|(feed, file)| (feed.clone(), file.reader.head())).collect()
    }

    pub(crate) fn records(&self, feed: &FeedId) -> u64 {
        self.feeds.get(feed).map_or(0, |file| file.reader.head().next_seq)
    }

    fn feed(&mut self, feed: &FeedId) -> &mut Feed {
        let new = || Feed { reader: FeedReader::new(feed.clone()), groups: Vec::new() };
        self.feeds.entry(feed.clone()).or_insert_with(new)
    }

    /// Writes one group with `count` records whose content is `word`.
    pub(crate) fn write(&mut self, feed: &FeedId, signer: &ToySigner, (word, count): (u64, usize)) {
        let record = RawRecord { kind: 900, version: 1, payload: word.to_le_bytes().to_vec() };
        let file = self.feed(feed);
        let group = file.reader.seal(vec![record; count], word, signer, &ToyTrust);
        file.reader.accept(&group, &ToyTrust).unwrap();
        file.groups.push(group);
    }

    /// Groups from record `from_seq` on, and where they end; none when none begins there.
    pub(crate) fn read(&self, feed: &FeedId, from_seq: u64, most: usize) -> (u64, Vec<SealedGroup>) {
        let groups = self.feeds.get(feed).map(|file| file.groups.as_slice()).unwrap_or_default();
        let starts = |group: &&SealedGroup| group.claimed_start() == Some(from_seq);
        let found = groups.iter().position(|group| starts(&group));
        let groups: Vec<SealedGroup> =
            found.map_or_else(Vec::new, |at| groups[at..].iter().take(most).cloned().collect());
        (groups.last().and_then(SealedGroup::claimed_end).unwrap_or(from_seq), groups)
    }

    /// What shows a peer with so many records that there are two histories.
    pub(crate) fn to_show(&self, feed: &FeedId, peer_has: u64) -> Vec<SealedGroup> {
        if let Some(proof) = self.forks.get(feed).filter(|proof| proof.shown_from() <= peer_has) {
            return vec![proof.ours.clone(), proof.theirs.clone()];
        }
        let around = self.around(feed, peer_has.min(self.records(feed)));
        around.into_iter().filter(|group| group.claimed_start() <= Some(peer_has)).collect()
    }

    fn around(&self, feed: &FeedId, seq: u64) -> Vec<SealedGroup> {
        let groups = self.feeds.get(feed).map(|file| file.groups.as_slice()).unwrap_or_default();
        let near = |group: &&SealedGroup| {
            group.claimed_start().unwrap() <= seq && group.claimed_end().unwrap() >= seq
        };
        groups.iter().filter(near).cloned().collect()
    }

    pub(crate) fn take(&mut self, feed: &FeedId, groups: &[SealedGroup]) -> Taken {
        for group in groups {
            if self.feeds.get(feed).is_some_and(|file| file.groups.contains(group)) {
                continue;
            }
            if self.forks.contains_key(feed) {
                return Taken::Forked;
            }
            match self.feed(feed).reader.accept(group, &ToyTrust) {
                Ok(_) => self.feed(feed).groups.push(group.clone()),
                Err(FeedError::Fork { .. }) => {
                    let ours = self.around(feed, group.claimed_start().unwrap());
                    let proof = ForkProof::find(feed, &ours, group).expect("what forks is proved");
                    self.forks.insert(feed.clone(), proof);
                    return Taken::Forked;
                }
                Err(error) => return Taken::Refused(error.to_string()),
            }
        }
        Taken::Stored(self.feeds.get(feed).map_or(FeedHead::EMPTY, |file| file.reader.head()))
    }

    /// Says whether one copy of a feed is the beginning of the other.
    pub(crate) fn agrees(&self, other: &Self, feed: &FeedId) -> bool {
        let groups = |disk: &Self| disk.feeds.get(feed).map(|file| file.groups.clone()).unwrap_or_default();
        groups(self).iter().zip(groups(other)).all(|(one, other)| *one == other)
    }
}
