//! A node's ledger in memory, with the rules of the real one: a group is written, then synced, and only then does it
//! count; the catalog is applied after the sync and can be built again from the feeds.

use std::collections::{BTreeMap, BTreeSet};

use avalon_protocol::{
    feed::{FeedError, FeedHead, FeedId, FeedReader, SealedGroup},
    id::{NodeId, VersionId, VersionSlot},
    mode::ProjectMode,
    plan::{Decision, Stance, Wish, decide},
    record::{RawRecord, Record},
    studio::PolicyFold,
    version_fold::VersionFold,
};

use crate::{
    mutation::Mutation,
    toy_trust::{ToySigner, ToyTrust},
};

/// Bytes of a group's frame beside its body and its signature.
const FRAME_BYTES: usize = 12;

/// One group of a feed with what it says.
#[derive(Debug, Clone)]
pub struct StoredGroup {
    /// Its bytes and signature.
    pub sealed: SealedGroup,
    /// The number of its first record.
    pub first_seq: u64,
    /// Where the feed ends after it.
    pub head: FeedHead,
    /// Its records.
    pub records: Vec<Record>,
}

/// One feed on one node's disk: what was written, what of it counts, and what the disk has for certain.
#[derive(Debug, Clone)]
pub struct FeedLog {
    groups: Vec<StoredGroup>,
    /// How many groups the node takes for durable.
    synced: usize,
    /// How many groups no loss of power takes. The two only differ where nodes go wrong.
    on_disk: usize,
    /// An fsync failed: nothing is written until the next start.
    closed: bool,
    /// What the last fsync should have written is nowhere but in memory, and no other fsync writes it.
    doomed: bool,
    /// Stands behind the last group that is written.
    reader: FeedReader,
}

impl FeedLog {
    fn new(feed: FeedId) -> Self {
        let reader = FeedReader::new(feed);
        Self { groups: Vec::new(), synced: 0, on_disk: 0, closed: false, doomed: false, reader }
    }

    fn write(&mut self, sealed: &SealedGroup) -> Result<(), FeedError> {
        let group = self.reader.accept(sealed, &ToyTrust)?;
        let records = group.records.iter();
        let records = records.filter_map(|raw| Record::in_feed(raw, &group.feed.project).ok()).collect();
        let (first_seq, head) = (group.first_seq, self.reader.head());
        self.groups.push(StoredGroup { sealed: sealed.clone(), first_seq, head, records });
        Ok(())
    }

    fn synced_to(&mut self, groups: usize) {
        self.synced = groups;
        if !self.doomed {
            self.on_disk = groups;
        }
    }

    /// Cuts the feed to so many groups.
    fn cut(&mut self, feed: &FeedId, groups: usize) {
        if groups >= self.groups.len() {
            return;
        }
        self.groups.truncate(groups);
        self.reader = FeedReader::new(feed.clone());
        for group in &self.groups {
            self.reader.accept(&group.sealed, &ToyTrust).expect("it was accepted before");
        }
    }

    /// Returns the groups that the node takes for durable.
    pub fn synced(&self) -> &[StoredGroup] {
        &self.groups[..self.synced]
    }

    /// Returns the groups that survive a loss of power for certain.
    pub fn on_disk(&self) -> &[StoredGroup] {
        &self.groups[..self.on_disk]
    }

    /// Says whether it takes no more groups before the next start.
    pub fn is_closed(&self) -> bool {
        self.closed
    }

    /// Returns where the synced groups end.
    pub fn head(&self) -> FeedHead {
        self.synced().last().map_or(FeedHead::EMPTY, |group| group.head)
    }
}

/// All feeds of one node and the catalog over them.
#[derive(Debug, Default, Clone)]
pub struct Ledger {
    feeds: BTreeMap<FeedId, FeedLog>,
    folds: BTreeMap<VersionId, VersionFold>,
    policy: PolicyFold,
}

impl Ledger {
    /// Returns the feeds.
    pub fn feeds(&self) -> &BTreeMap<FeedId, FeedLog> {
        &self.feeds
    }

    /// Returns the catalog: every version that a synced record names.
    pub fn folds(&self) -> &BTreeMap<VersionId, VersionFold> {
        &self.folds
    }

    /// Returns what the synced policies add up to, in the order in which they came.
    pub fn policy(&self) -> &PolicyFold {
        &self.policy
    }

    /// Returns where the synced part of each feed ends, without the feeds that have none.
    pub fn heads(&self) -> Vec<(FeedId, FeedHead)> {
        let some = self.feeds.iter().filter(|(_, log)| log.synced > 0);
        some.map(|(feed, log)| (feed.clone(), log.head())).collect()
    }

    /// Returns where the synced part of a feed ends.
    pub fn head(&self, feed: &FeedId) -> FeedHead {
        self.feeds.get(feed).map_or(FeedHead::EMPTY, FeedLog::head)
    }

    /// Decides about a version by what the catalog says.
    pub fn decide(&self, version: &VersionId, me: &NodeId, mode: ProjectMode, wish: Wish) -> Decision {
        let empty = VersionFold::default();
        let slot: VersionSlot = version.slot;
        decide(slot, self.folds.get(version).unwrap_or(&empty), me, &Stance::of(mode, None), wish)
    }

    /// Seals and writes the next group of this node's own feed; returns how many groups are written.
    pub fn append(
        &mut self,
        feed: &FeedId,
        records: Vec<RawRecord>,
        at_ms: u64,
        signer: &ToySigner,
    ) -> usize {
        let log = self.feeds.entry(feed.clone()).or_insert_with(|| FeedLog::new(feed.clone()));
        let sealed = log.reader.seal(records, at_ms, signer, &ToyTrust);
        log.write(&sealed).expect("what was sealed here follows");
        log.groups.len()
    }

    /// Returns where a feed ends with what is written and may not be durable.
    pub fn written_head(&self, feed: &FeedId) -> FeedHead {
        self.feeds.get(feed).map_or(FeedHead::EMPTY, |log| log.reader.head())
    }

    /// Says whether a feed takes no more groups before the next start.
    pub fn is_closed(&self, feed: &FeedId) -> bool {
        self.feeds.get(feed).is_some_and(FeedLog::is_closed)
    }

    /// Returns how many groups of a feed are written, synced or not.
    pub fn written(&self, feed: &FeedId) -> usize {
        self.feeds.get(feed).map_or(0, |log| log.groups.len())
    }

    /// Writes groups that a peer sent; what is there already is skipped.
    ///
    /// # Errors
    /// [`FeedError`] of the first group that does not follow; those before it stay.
    pub fn store(&mut self, feed: &FeedId, groups: &[SealedGroup]) -> Result<(), FeedError> {
        let log = self.feeds.entry(feed.clone()).or_insert_with(|| FeedLog::new(feed.clone()));
        for group in groups {
            let start = postcard::take_from_bytes::<(u16, FeedId, u64)>(&group.body);
            let first_seq = start.map_or(u64::MAX, |((_, _, first_seq), _)| first_seq);
            let known = log.groups.binary_search_by_key(&first_seq, |known| known.first_seq);
            match known {
                Ok(index) if log.groups[index].sealed.chain() == group.chain() => {}
                _ => log.write(group)?,
            }
        }
        Ok(())
    }

    /// Hears that the first `groups` groups of a feed are on disk, and applies what is new to the catalog. Returns the
    /// versions that it is about.
    pub fn sync(&mut self, feed: &FeedId, groups: usize) -> BTreeSet<VersionId> {
        let Some(log) = self.feeds.get_mut(feed) else { return BTreeSet::new() };
        let before = log.synced;
        log.synced_to(groups.clamp(before, log.groups.len()));
        let mut versions = BTreeSet::new();
        for group in &log.groups[before..log.synced] {
            versions.extend(group.records.iter().filter_map(|record| record.version().cloned()));
            apply(&mut self.folds, feed, group);
            apply_policies(&mut self.policy, feed, group);
        }
        versions
    }

    /// Returns synced groups from a record on, at most `limit`, and where they end. None when no group starts there.
    pub fn read(&self, feed: &FeedId, from_seq: u64, limit: usize) -> (u64, &[StoredGroup]) {
        let groups = self.feeds.get(feed).map_or(&[][..], FeedLog::synced);
        let Ok(first) = groups.binary_search_by_key(&from_seq, |group| group.first_seq) else {
            return (from_seq, &[]);
        };
        let read = &groups[first..groups.len().min(first + limit)];
        (read.last().map_or(from_seq, |group| group.head.next_seq), read)
    }

    /// Hears that an fsync of a feed failed: what it should have written is cut off, and the feed is closed.
    pub fn sync_failed(&mut self, feed: &FeedId, wrong: Option<Mutation>) {
        let Some(log) = self.feeds.get_mut(feed) else { return };
        if wrong == Some(Mutation::BelievesSecondSync) {
            log.doomed = true;
            return;
        }
        log.closed = true;
        log.cut(feed, log.synced);
    }

    /// Loses what the disk does not have, except for as many of the bytes written since as `survive` says of each feed, given how
    /// many there are.
    pub fn crash(&mut self, mut survive: impl FnMut(usize) -> usize) -> Lost {
        let mut lost = Lost::default();
        let mut kept = false;
        for log in self.feeds.values_mut() {
            let frame =
                |group: &StoredGroup| FRAME_BYTES + group.sealed.body.len() + group.sealed.signature.len();
            let unsynced: Vec<usize> = log.groups[log.on_disk..].iter().map(frame).collect();
            if unsynced.is_empty() {
                continue;
            }
            let mut left = if log.doomed { 0 } else { survive(unsynced.iter().sum()) };
            let whole = unsynced.iter().take_while(|bytes| {
                let is_whole = **bytes <= left;
                left -= if is_whole { **bytes } else { 0 };
                is_whole
            });
            let whole = whole.count();
            lost.torn |= whole < unsynced.len() && left > 0;
            lost.groups |= whole < unsynced.len();
            kept |= whole > 0;
            log.groups.truncate(log.on_disk + whole);
            (log.on_disk, log.doomed) = (log.groups.len(), false);
            log.synced = log.synced.min(log.on_disk);
        }
        lost.out_of_order = lost.groups && kept;
        lost
    }

    /// Forgets what is not durable: what a backup has.
    #[must_use]
    pub fn backup(&self) -> Self {
        let mut backup = self.clone();
        for log in backup.feeds.values_mut() {
            log.groups.truncate(log.on_disk);
            log.synced = log.on_disk;
        }
        backup.fold_anew();
        backup
    }

    /// Makes the catalog from the feeds alone. What a loss of power spared counts for the feed at once, and for the catalog when
    /// the node starts: whoever copies the state in between has to know.
    fn fold_anew(&mut self) {
        (self.folds, self.policy) = Default::default();
        for (feed, log) in &self.feeds {
            for group in log.synced() {
                apply(&mut self.folds, feed, group);
                apply_policies(&mut self.policy, feed, group);
            }
        }
    }

    /// Opens the feeds at a start: reads all groups again, syncs what is there, for a process that was killed had not, and brings
    /// the catalog up to date, which has as many groups of each feed as `in_catalog` says, given how many there are.
    pub fn reopen(&mut self, mut in_catalog: impl FnMut(usize) -> usize, wrong: Option<Mutation>) {
        self.folds.clear();
        // The daemon folds the policies from their feeds at every start.
        self.policy = PolicyFold::default();
        for (feed, log) in &mut self.feeds {
            let groups = std::mem::take(&mut log.groups);
            let before = std::mem::replace(log, FeedLog::new(feed.clone()));
            for group in &groups {
                log.write(&group.sealed).expect("it was accepted before");
            }
            (log.on_disk, log.doomed) = (before.on_disk, before.doomed);
            log.synced_to(log.groups.len());
            if wrong == Some(Mutation::TrustsPageCache) {
                log.on_disk = before.on_disk;
            }
            let applied = in_catalog(log.groups.len());
            let missed = if wrong == Some(Mutation::ForgetsCursor) { log.groups.len() } else { applied };
            let (had, rest) = (&log.groups[..applied], &log.groups[missed..]);
            had.iter().chain(rest).for_each(|group| apply(&mut self.folds, feed, group));
            log.groups.iter().for_each(|group| apply_policies(&mut self.policy, feed, group));
        }
    }
}

/// What a loss of power took of the feeds.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// Some groups.
    pub groups: bool,
    /// A group of which some bytes had reached the disk.
    pub torn: bool,
    /// Groups of one feed, and not those of another that were written in the same time.
    pub out_of_order: bool,
}

/// Applies a group to the folds of the versions that it names.
pub fn apply(folds: &mut BTreeMap<VersionId, VersionFold>, feed: &FeedId, group: &StoredGroup) {
    for (record, seq) in group.records.iter().zip(group.first_seq..) {
        if let Some(version) = record.version() {
            folds.entry(version.clone()).or_default().apply(&feed.node, seq, record);
        }
    }
}

/// Applies the policies in a group. Every node understands those whose text is even.
fn apply_policies(fold: &mut PolicyFold, feed: &FeedId, group: &StoredGroup) {
    for (record, seq) in group.records.iter().zip(group.first_seq..) {
        if let Record::Policy(policy) = record {
            let is_understood = !policy.document().ends_with(['1', '3', '5', '7', '9']);
            fold.apply((feed.node.clone(), seq), group.first_seq, policy, is_understood);
        }
    }
}
