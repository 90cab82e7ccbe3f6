//! Keeping what was said while rights change: up to where each feed is judged by which rights.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use avalon_protocol::{
    access::{Admission, Rights, Role},
    feed::{FeedHead, FeedId, Group},
    hash::ChainHash,
    id::{NodeId, ProjectName},
    limits::RECORDS_FRAME_TARGET_BYTES,
    record::{Judged, Record},
    signing::{CertificateList, Signer},
};
use avalon_store::ledger::LedgerError;
use tokio_util::sync::CancellationToken;

use crate::{
    core::{Core, blocking},
    log::ErrorChain,
};

/// How often it is looked whether a grant has ended, at most: clocks are set, and machines sleep.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

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
        let mut judging = Judging::new(self, self.now_ms());
        // In the studio's own feeds a certificate says who may what, and no policy.
        for (feed, head) in self.all_feeds().into_iter().filter(|(feed, _)| !feed.is_of_studio()) {
            judging.ended(&feed, head);
            judging.now(&feed, head);
        }
        judging.judged
    }

    /// Says of a node that is to be revoked up to where its feeds are known. Of its feed of the studio also when there is none: whoever
    /// has its key could begin one with any time in it. Blocks.
    pub(super) fn judge_node(&self, node: &NodeId) -> Vec<Record> {
        let mut judging = Judging::new(self, self.now_ms());
        let of_node =
            self.all_feeds().into_iter().filter(|(feed, _)| feed.node == *node && !feed.is_of_studio());
        for (feed, head) in of_node {
            judging.ended(&feed, head);
            judging.now(&feed, head);
        }
        let of_studio = FeedId { project: ProjectName::studio(), node: node.clone() };
        let heads = self.ledger.heads(&of_studio.project).into_iter();
        let head =
            heads.filter(|(known, _)| known == node).map(|(_, head)| head).next().unwrap_or(FeedHead::EMPTY);
        let role = self.role_in(&of_studio, head).unwrap_or(Role::Vendor);
        let (rights, chain) = (Admission::rights_of_studio(role), Some(head.chain));
        let at_ms = judging.now_ms;
        judging.judged.push(Judged { feed: of_studio, next_seq: head.next_seq, rights, at_ms, chain });
        judging.judged.into_iter().map(Record::Judged).collect()
    }

    /// Says of every feed that is signed under a certificate on a list up to where it counts: before the first record that says it is not older
    /// than the revocation. In the studio's own feeds also where it ends.
    pub(super) fn judge_listed(&self, list: &CertificateList) -> Vec<Record> {
        let mut judging = Judging::new(self, self.now_ms());
        for (feed, head) in self.all_feeds().into_iter().filter(|(feed, _)| feed.node != self.me) {
            match feed.project.is_studio() {
                true => judging.end_certificates(&feed, head, list),
                false => judging.since_listed(&feed, head, list),
            }
        }
        judging.judged.into_iter().map(Record::Judged).collect()
    }

    /// Says of every feed whose author had a grant that has ended: what was said before its end counts. Blocks.
    pub fn judge_ended(&self) -> Vec<Record> {
        let mut judging = Judging::new(self, self.now_ms());
        for (feed, head) in self.all_feeds().into_iter().filter(|(feed, _)| feed.node != self.me) {
            judging.ended(&feed, head);
        }
        judging.judged.into_iter().map(Record::Judged).collect()
    }

    fn all_feeds(&self) -> Vec<(FeedId, FeedHead)> {
        let of_project = |project: ProjectName| {
            let heads = self.ledger.heads(&project).into_iter();
            heads.map(move |(node, head)| (FeedId { project: project.clone(), node }, head))
        };
        self.feed_projects().flat_map(of_project).collect()
    }

    /// The role under which a feed was signed last.
    fn role_in(&self, feed: &FeedId, head: FeedHead) -> Option<Role> {
        self.ledger.role_at(feed, head.next_seq.checked_sub(1)?)
    }

    /// Returns which records of a feed are signed under what, in order.
    fn signed(&self, feed: &FeedId, head: FeedHead) -> Vec<(Range<u64>, Signer)> {
        let signers = self.ledger.signers(feed);
        let ends = signers.iter().skip(1).map(|(from_seq, _)| *from_seq).chain([head.next_seq]);
        let ranges = signers.iter().zip(ends).map(|((from_seq, signer), end)| (*from_seq..end, *signer));
        // What came meanwhile is not looked at.
        ranges
            .map(|(range, signer)| (range.start..range.end.min(head.next_seq), signer))
            .filter(|(range, _)| !range.is_empty())
            .collect()
    }

    /// Returns the first of these records of a feed that says it is not older than `at_ms`.
    fn first_said(&self, feed: &FeedId, among: Range<u64>, at_ms: u64) -> Result<Option<u64>, LedgerError> {
        let mut from_seq = 0;
        while from_seq < among.end {
            let groups = self.ledger.read_groups(feed, from_seq, RECORDS_FRAME_TARGET_BYTES)?;
            let bodies = groups.iter().filter_map(|group| postcard::from_bytes::<Group>(&group.body).ok());
            let before = from_seq;
            for body in bodies {
                let found = (body.first_seq..).zip(&body.records).find(|(seq, raw)| {
                    let record = Record::in_feed(raw, &feed.project).ok();
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

/// Judged records in the making. No place is named twice: of two that name one, what both allow would count.
struct Judging<'a> {
    core: &'a Core,
    admission: Arc<Admission>,
    now_ms: u64,
    /// Up to where each feed is judged by these records, and when that was said.
    last: BTreeMap<FeedId, (u64, u64)>,
    judged: Vec<Judged>,
}

impl<'a> Judging<'a> {
    fn new(core: &'a Core, now_ms: u64) -> Self {
        let admission = core.ledger.admission();
        Self { core, admission, now_ms, last: BTreeMap::new(), judged: Vec::new() }
    }

    fn last(&self, feed: &FeedId) -> (u64, u64) {
        let known = || self.admission.last_judged(feed);
        self.last.get(feed).copied().or_else(known).unwrap_or((0, 0))
    }

    /// Judges a feed at each end of a grant that its author had since it was judged last.
    fn ended(&mut self, feed: &FeedId, head: FeedHead) {
        let Some(role) = self.core.role_in(feed, head) else { return };
        if feed.project.is_studio() || self.admission.is_revoked(&feed.node) {
            return;
        }
        let (admission, (_, mut since_ms)) = (Arc::clone(&self.admission), self.last(feed));
        let end_after =
            |since| admission.policy().first_end_ms(&feed.node, role, &feed.project, since, self.now_ms);
        let mut ends = Vec::new();
        while let Some(end_ms) = end_after(since_ms) {
            ends.push(end_ms);
            since_ms = end_ms;
        }
        for end_ms in ends {
            match self.core.first_said(feed, self.last(feed).0..head.next_seq, end_ms) {
                Ok(first) => {
                    let before = end_ms.saturating_sub(1);
                    let rights = |role| admission.rights(&feed.node, role, &feed.project, before);
                    self.judge((feed, head), first.unwrap_or(head.next_seq), &rights, end_ms);
                }
                Err(error) => {
                    tracing::warn!(%feed, error = %ErrorChain(&error), "what was said before a grant ended cannot be read");
                    return;
                }
            }
        }
    }

    /// Says where a studio feed ends for what is signed under certificates on a list: behind what is here of it. Where an older list ended one,
    /// it stays so.
    fn end_certificates(&mut self, feed: &FeedId, head: FeedHead, list: &CertificateList) {
        let admission = Arc::clone(&self.admission);
        let known_end = |id| admission.listed().and_then(|listed| listed.end_of(&feed.node, id));
        let mut ends = BTreeMap::new();
        for (range, signer) in self.core.signed(feed, head) {
            for id in signer.certificates.into_iter().flatten().filter(|id| list.revoked.contains_key(id)) {
                ends.insert(id, (known_end(id).unwrap_or(range.end).min(head.next_seq), signer.role));
            }
        }
        let places: BTreeMap<u64, Role> = ends.into_values().collect();
        for (next_seq, role) in places {
            let (rights, chain) =
                (Admission::rights_of_studio(role), self.core.ledger.chain_before(feed, next_seq));
            self.judged.push(Judged { feed: feed.clone(), next_seq, rights, at_ms: self.now_ms, chain });
        }
    }

    /// Judges what stands in a feed under each certificate that is newly on a list: what lies before its first record that is not older than
    /// the revocation by what its author may do now. Of the rest under that certificate nothing counts.
    fn since_listed(&mut self, feed: &FeedId, head: FeedHead, list: &CertificateList) {
        let is_news = |signer: &Signer| self.admission.listed_since(signer).is_none();
        let signed = self.core.signed(feed, head).into_iter().filter(|(_, signer)| is_news(signer));
        let since = |signer: &Signer| {
            signer.certificates.iter().flatten().filter_map(|id| list.revoked.get(id)).min().copied()
        };
        let revoked: Vec<_> = signed.filter_map(|(range, signer)| Some((range, since(&signer)?))).collect();
        if revoked.is_empty() {
            return;
        }
        self.ended(feed, head);
        let (admission, now_ms) = (Arc::clone(&self.admission), self.now_ms);
        let rights = |role| admission.rights(&feed.node, role, &feed.project, now_ms);
        for (range, since_ms) in revoked {
            match self.core.first_said(feed, self.last(feed).0.max(range.start)..range.end, since_ms) {
                Ok(None) => self.judge((feed, head), range.end, &rights, now_ms),
                Ok(Some(first)) => {
                    self.judge((feed, head), first, &rights, now_ms);
                    // Of what is signed under it later nothing is known yet.
                    if range.end < head.next_seq {
                        self.judge((feed, head), range.end, &|_| Rights::NONE, now_ms);
                    }
                }
                // What it says is judged by times alone.
                Err(error) => {
                    tracing::warn!(%feed, error = %ErrorChain(&error), "what was said under a revoked certificate cannot be read");
                }
            }
        }
    }

    /// Judges what stands in a feed by now by what its author may do now.
    fn now(&mut self, feed: &FeedId, head: FeedHead) {
        let (admission, now_ms) = (Arc::clone(&self.admission), self.now_ms);
        let rights = |role| match admission.takes_word() {
            true => Rights::ALL,
            false => admission.rights(&feed.node, role, &feed.project, now_ms),
        };
        self.judge((feed, head), head.next_seq, &rights, now_ms);
    }

    /// Judges what stands in a feed before `next_seq` and was not judged: by these rights of the role that its certificate had, and by none where
    /// that is on a list.
    fn judge(
        &mut self,
        (feed, head): (&FeedId, FeedHead),
        next_seq: u64,
        rights: &dyn Fn(Role) -> Rights,
        at_ms: u64,
    ) {
        let (from_seq, _) = self.last(feed);
        let mut places: Vec<(u64, Rights)> = Vec::new();
        for (range, signer) in self.core.signed(feed, head) {
            let end = range.end.min(next_seq);
            if end <= from_seq.max(range.start) {
                continue;
            }
            let rights = match self.admission.listed_since(&signer) {
                Some(_) => Rights::NONE,
                None => rights(signer.role),
            };
            match places.last_mut().filter(|(_, before)| *before == rights) {
                Some((place, _)) => *place = end,
                None => places.push((end, rights)),
            }
        }
        places.into_iter().for_each(|(place, rights)| self.push((feed, head), place, rights, at_ms));
    }

    fn push(&mut self, (feed, head): (&FeedId, FeedHead), next_seq: u64, rights: Rights, at_ms: u64) {
        self.last.insert(feed.clone(), (next_seq, at_ms));
        let chain: Option<ChainHash> = match next_seq == head.next_seq {
            true => Some(head.chain),
            false => self.core.ledger.chain_before(feed, next_seq),
        };
        self.judged.push(Judged { feed: feed.clone(), next_seq, rights, at_ms, chain });
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
