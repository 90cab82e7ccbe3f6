//! Keeping what was said while rights change: up to where each feed is judged by which rights.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use avalon_protocol::{
    access::{Admission, Rights, Role},
    feed::{FeedHead, FeedId, Group},
    hash::ChainHash,
    id::{NodeId, ProjectName},
    limits::RECORDS_FRAME_TARGET_BYTES,
    record::{Judged, Record},
    signing::{CertificateId, CertificateList, Signer},
};
use avalon_store::ledger::LedgerError;
use tokio_util::sync::CancellationToken;

use crate::{
    core::{Core, blocking},
    log::ErrorChain,
};

/// How often it is looked whether a grant has ended, at most: clocks are set, and machines sleep.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// A feed that is read under more certificates than this is judged as one: whoever changes them at every turn must not make as many records.
const MAX_PLACES: usize = 64;

impl Core {
    /// Says of every feed that what stands in it by now is judged by the rights that its author has now: to go in front of what
    /// changes them. Blocks.
    pub fn judge_all(&self) -> Vec<Record> {
        // Nobody judges itself.
        let others = self.judge_here().into_iter().filter(|judged| judged.feed.node != self.me);
        others.map(Record::Judged).collect()
    }

    /// As [`Core::judge_all`], with this node's own feeds: for what is told to nobody. Blocks.
    pub fn judge_here(&self) -> Vec<Judged> {
        let mut judging = Judging::new(self);
        // In the studio's own feeds a certificate says who may what, and no policy.
        for feed in self.all_feeds().iter().filter(|feed| !feed.id.is_of_studio()) {
            judging.ended(feed);
            judging.now(feed, judging.now_ms);
        }
        judging.judged
    }

    /// Says of a node that is to be revoked up to where its feeds are known. Of its feed of the studio also when there is none: whoever
    /// has its key could begin one with any time in it. Blocks.
    pub(super) fn judge_node(&self, node: &NodeId) -> Vec<Record> {
        let mut judging = Judging::new(self);
        let mut of_studio = KnownFeed {
            id: FeedId { project: ProjectName::studio(), node: node.clone() },
            head: FeedHead::EMPTY,
            signed: Vec::new(),
        };
        for feed in self.all_feeds().into_iter().filter(|feed| feed.id.node == *node) {
            if feed.id.is_of_studio() {
                of_studio = feed;
                continue;
            }
            judging.ended(&feed);
            judging.now(&feed, judging.now_ms);
        }
        judging.end_at(&of_studio, of_studio.head.next_seq);
        judging.judged.into_iter().map(Record::Judged).collect()
    }

    /// Says of every feed up to where what is signed under certificates on a list counts, also of those in which none of them was used yet: in a
    /// project before the first record that says it is not older than the revocation, in the studio's own feeds where it ends. Blocks.
    pub(super) fn judge_listed(&self, list: &CertificateList) -> Vec<Record> {
        let mut judging = Judging::new(self);
        judging.list = Some(list);
        // What is said behind these places is not older than the list, also where the CA's clock is ahead of this one.
        let at_ms = list.revoked.values().copied().max().unwrap_or(0).max(judging.now_ms);
        let feeds = self.all_feeds();
        for feed in feeds.iter().filter(|feed| feed.id.node != self.me) {
            if feed.id.is_of_studio() {
                judging.end_certificates(feed, list);
                continue;
            }
            judging.ended(feed);
            judging.now(feed, at_ms);
            judging.not_before(feed, at_ms);
        }
        judging.keep_ends(&feeds);
        judging.judged.into_iter().map(Record::Judged).collect()
    }

    /// Says of every feed whose author had a grant that has ended: what was said before its end counts. Blocks.
    pub fn judge_ended(&self) -> Vec<Record> {
        let mut judging = Judging::new(self);
        for feed in self.all_feeds().iter().filter(|feed| feed.id.node != self.me) {
            judging.ended(feed);
        }
        judging.judged.into_iter().map(Record::Judged).collect()
    }

    fn all_feeds(&self) -> Vec<KnownFeed> {
        let of_project = |project: ProjectName| {
            let heads = self.ledger.heads(&project).into_iter();
            heads.map(move |(node, head)| {
                KnownFeed::new(self, FeedId { project: project.clone(), node }, head)
            })
        };
        self.feed_projects().flat_map(of_project).collect()
    }
}

/// A feed as far as it is here at one moment.
struct KnownFeed {
    id: FeedId,
    head: FeedHead,
    /// Which of its records are signed under what, in order.
    signed: Vec<(Range<u64>, Signer)>,
}

impl KnownFeed {
    fn new(core: &Core, id: FeedId, head: FeedHead) -> Self {
        let signers = core.ledger.signers(&id);
        // What came meanwhile is not looked at.
        let ends = signers.iter().skip(1).map(|(from_seq, _)| (*from_seq).min(head.next_seq));
        let ends: Vec<u64> = ends.chain([head.next_seq]).collect();
        let ranges = signers.into_iter().zip(ends).map(|((from_seq, signer), end)| (from_seq..end, signer));
        Self { id, head, signed: ranges.filter(|(range, _)| !range.is_empty()).collect() }
    }

    /// The role under which it was signed last.
    fn role(&self) -> Option<Role> {
        self.signed.last().map(|(_, signer)| signer.role)
    }

    /// Returns the first of these records that says it is not older than `at_ms`.
    fn first_said(&self, core: &Core, among: Range<u64>, at_ms: u64) -> Result<Option<u64>, LedgerError> {
        // A group is signed under one certificate, so one begins where another certificate does.
        let signed = self.signed.iter().rev().find(|(range, _)| range.start <= among.start);
        let mut from_seq = signed.map_or(0, |(range, _)| range.start);
        while from_seq < among.end {
            let groups = core.ledger.read_groups(&self.id, from_seq, RECORDS_FRAME_TARGET_BYTES)?;
            let bodies = groups.iter().filter_map(|group| postcard::from_bytes::<Group>(&group.body).ok());
            let before = from_seq;
            for body in bodies {
                let found = (body.first_seq..).zip(&body.records).find(|(seq, raw)| {
                    let record = Record::in_feed(raw, &self.id.project).ok();
                    among.contains(seq)
                        && record
                            .and_then(|record| Admission::said_at_ms(&record))
                            .is_some_and(|said| said >= at_ms)
                });
                if let Some((seq, _)) = found {
                    return Ok(Some(seq));
                }
                from_seq = body.first_seq + body.records.len() as u64;
            }
            if from_seq == before {
                break;
            }
        }
        Ok(None)
    }
}

/// Judged records in the making. Where two name one place, what both allow counts.
struct Judging<'a> {
    core: &'a Core,
    admission: Arc<Admission>,
    now_ms: u64,
    /// A list that is to be brought.
    list: Option<&'a CertificateList>,
    /// Up to where each feed is judged by these records, and when that was said.
    last: BTreeMap<FeedId, (u64, u64)>,
    judged: Vec<Judged>,
}

impl<'a> Judging<'a> {
    fn new(core: &'a Core) -> Self {
        let (admission, now_ms) = (core.ledger.admission(), core.now_ms());
        Self { core, admission, now_ms, list: None, last: BTreeMap::new(), judged: Vec::new() }
    }

    fn last(&self, feed: &FeedId) -> (u64, u64) {
        let known = || self.admission.last_judged(feed);
        self.last.get(feed).copied().or_else(known).unwrap_or((0, 0))
    }

    /// Since when a certificate is on a list, in milliseconds since 1970, if it is.
    fn listed_since(&self, signer: &Signer) -> Option<u64> {
        let news = self.list.into_iter().flat_map(|list| {
            signer.certificates.iter().flatten().filter_map(|id| list.revoked.get(id).copied())
        });
        news.chain(self.admission.listed_since(signer)).min()
    }

    /// Judges a feed at each end of a grant that its author had since it was judged last.
    fn ended(&mut self, feed: &KnownFeed) {
        let (id, Some(role)) = (&feed.id, feed.role()) else { return };
        if id.project.is_studio() || self.admission.is_revoked(&id.node) {
            return;
        }
        let (admission, (_, mut since_ms)) = (Arc::clone(&self.admission), self.last(id));
        let end_after =
            |since| admission.policy().first_end_ms(&id.node, role, &id.project, since, self.now_ms);
        let mut ends = Vec::new();
        while let Some(end_ms) = end_after(since_ms) {
            ends.push(end_ms);
            since_ms = end_ms;
        }
        for end_ms in ends {
            match feed.first_said(self.core, self.last(id).0..feed.head.next_seq, end_ms) {
                Ok(first) => {
                    let before = end_ms.saturating_sub(1);
                    let rights = |role| admission.rights(&id.node, role, &id.project, before);
                    self.judge(feed, first.unwrap_or(feed.head.next_seq), &rights, end_ms);
                }
                Err(error) => {
                    tracing::warn!(feed = %id, error = %ErrorChain(&error), "what was said before a grant ended cannot be read");
                    return;
                }
            }
        }
    }

    /// Judges what stands in a feed by now by what its author may do now. Of who is revoked by name, what it said before: the rest stays open, for
    /// it may turn out that whoever revoked it was no admin any more.
    fn now(&mut self, feed: &KnownFeed, at_ms: u64) {
        let (admission, id, now_ms) = (Arc::clone(&self.admission), &feed.id, self.now_ms);
        let rights = |role| match admission.takes_word() {
            true => Rights::ALL,
            false => admission.policy().rights(&id.node, role, &id.project, now_ms),
        };
        let Some(revoked_ms) = admission.revoked().get(&id.node).copied() else {
            return self.judge(feed, feed.head.next_seq, &rights, at_ms);
        };
        let (from_seq, judged_ms) = self.last(id);
        if judged_ms >= revoked_ms {
            return;
        }
        match feed.first_said(self.core, from_seq..feed.head.next_seq, revoked_ms) {
            Ok(first) => self.judge(feed, first.unwrap_or(feed.head.next_seq), &rights, at_ms),
            // It is judged by times alone.
            Err(error) => {
                tracing::warn!(feed = %id, error = %ErrorChain(&error), "what was said before a node was revoked cannot be read");
            }
        }
    }

    /// Says that what comes behind the last place of a feed is not older than this.
    fn not_before(&mut self, feed: &KnownFeed, at_ms: u64) {
        let (next_seq, judged_ms) = self.last(&feed.id);
        if next_seq > 0 && judged_ms < at_ms {
            // Of two that name one place, what both allow counts.
            self.push(feed, next_seq, Rights::ALL, at_ms);
        }
    }

    /// Says where a studio feed ends for what is signed under certificates on a list, each behind what is here of it, and at last behind all that is
    /// here. Where an older list ended one, it stays so.
    fn end_certificates(&mut self, feed: &KnownFeed, list: &CertificateList) {
        let admission = Arc::clone(&self.admission);
        let node = &feed.id.node;
        let known_end = |id| admission.listed().and_then(|listed| listed.end_of(node, id));
        let mut ends: BTreeMap<CertificateId, u64> = BTreeMap::new();
        for (range, signer) in &feed.signed {
            for id in signer.certificates.into_iter().flatten().filter(|id| list.revoked.contains_key(id)) {
                ends.insert(id, known_end(id).unwrap_or(range.end));
            }
        }
        let is_admins = feed.signed.iter().any(|(_, signer)| signer.role == Role::Admin);
        if ends.is_empty() && !is_admins {
            return;
        }
        let mut places: BTreeSet<u64> = ends.into_values().collect();
        let last = places.last().copied().unwrap_or(0).max(feed.head.next_seq);
        places.insert(last);
        places.into_iter().for_each(|place| self.end_at(feed, place));
    }

    /// Keeps where an older list ended certificates in studio feeds that are not here.
    fn keep_ends(&mut self, feeds: &[KnownFeed]) {
        let admission = Arc::clone(&self.admission);
        let Some(listed) = admission.listed() else { return };
        let is_here =
            |node: &NodeId| feeds.iter().any(|feed| feed.id.node == *node && feed.id.is_of_studio());
        let places: BTreeSet<(&NodeId, u64)> =
            listed.ends().filter(|(node, _, _)| !is_here(node)).map(|(node, _, end)| (node, end)).collect();
        for (node, end) in places {
            let id = FeedId { project: ProjectName::studio(), node: node.clone() };
            self.end_at(&KnownFeed { id, head: FeedHead::EMPTY, signed: Vec::new() }, end);
        }
    }

    /// Says where something ends in a studio feed.
    fn end_at(&mut self, feed: &KnownFeed, next_seq: u64) {
        let rights = Admission::rights_of_studio(feed.role().unwrap_or(Role::Vendor));
        self.push(feed, next_seq, rights, self.now_ms);
    }

    /// Judges what stands in a feed before `next_seq` and was not judged: by these rights of the role that its certificate had. Of what is signed under
    /// one on a list, what was said before by them and the rest by none, as it is without a place.
    fn judge(&mut self, feed: &KnownFeed, next_seq: u64, rights: &dyn Fn(Role) -> Rights, at_ms: u64) {
        let (from_seq, judged_ms) = self.last(&feed.id);
        let mut places: Vec<(u64, Rights)> = Vec::new();
        let mut put = |end: u64, rights: Rights| match places.last_mut() {
            Some((place, before)) if *before == rights => *place = end,
            _ => places.push((end, rights)),
        };
        for (range, signer) in &feed.signed {
            let part = range.start.max(from_seq)..range.end.min(next_seq);
            if part.is_empty() {
                continue;
            }
            let first = match self.listed_since(signer) {
                None => None,
                Some(since_ms) if judged_ms >= since_ms => Some(part.start),
                Some(since_ms) => match feed.first_said(self.core, part.clone(), since_ms) {
                    Ok(first) => first,
                    // From here on it is judged by times alone.
                    Err(error) => {
                        tracing::warn!(feed = %feed.id, error = %ErrorChain(&error), "what was said under a revoked certificate cannot be read");
                        break;
                    }
                },
            };
            let good_to = first.unwrap_or(part.end);
            if part.start < good_to {
                put(good_to, rights(signer.role));
            }
            if good_to < part.end {
                put(part.end, Rights::NONE);
            }
        }
        if let (true, Some((last, _))) = (places.len() > MAX_PLACES, places.last().copied()) {
            let both = |one: Rights, (_, other): &(u64, Rights)| one.and(*other);
            places = vec![(last, places.iter().fold(Rights::ALL, both))];
        }
        places.into_iter().for_each(|(place, rights)| self.push(feed, place, rights, at_ms));
    }

    fn push(&mut self, feed: &KnownFeed, next_seq: u64, rights: Rights, at_ms: u64) {
        self.last.insert(feed.id.clone(), (next_seq, at_ms));
        let chain: Option<ChainHash> = match next_seq == feed.head.next_seq {
            true => Some(feed.head.chain),
            false => self.core.ledger.chain_before(&feed.id, next_seq),
        };
        self.judged.push(Judged { feed: feed.id.clone(), next_seq, rights, at_ms, chain });
    }
}

/// Judges feeds when a grant ends, where this node is an admin's.
pub(super) async fn judge_ends(core: Arc<Core>, stop: CancellationToken) {
    loop {
        let there = Arc::clone(&core);
        blocking(move || there.record_ended()).await;
        let now_ms = core.now_ms();
        let next_ms = core.ledger.admission().policy().next_end_ms(now_ms);
        let wait = next_ms.map_or(LOOK_EVERY, |next| Duration::from_millis(next - now_ms).min(LOOK_EVERY));
        tokio::select! {
            () = stop.cancelled() => return,
            () = core.clock.sleep(wait) => {}
        }
    }
}

impl Core {
    pub(crate) fn record_ended(&self) {
        if self.ledger.own_role() != Role::Admin || self.ledger.admission().is_revoked(&self.me) {
            return;
        }
        let records = self.judge_ended();
        if records.is_empty() {
            return;
        }
        let feeds = records.len();
        let committed = self.ledger.commit_wait(&ProjectName::studio(), records, Vec::new(), self.now_ms());
        match committed {
            Ok(_) => tracing::info!(feeds, "grants have ended; what was said before stands"),
            // It is tried again.
            Err(error) => tracing::warn!(error = %ErrorChain(&error), "the end of a grant is not recorded"),
        }
    }
}
