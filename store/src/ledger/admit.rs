//! Which records count, by what the studio's feeds say.
//!
//! What the catalog has was judged by the studio's records up to its cursors in their feeds. When those say more, verdicts about
//! older records may change; then it is built anew, because a fold does not take back what it took.

use std::sync::{Arc, PoisonError};

use avalon_protocol::{
    access::{Admission, AdmissionReader, Extract, Role},
    feed::{FeedHead, FeedId, Group},
    id::ProjectName,
    record::{RawRecord, Record},
    signing::Signer,
};

use super::{
    LedgerError, LedgerEvent, RebuildError, own_signer,
    shared::Shared,
    writer::{Applied, Writer},
};
use crate::{
    catalog::{CatalogError, CatalogStore, Cause, Judge, Value, cursor_key},
    error_chain::ErrorChain,
    feed::{FeedFileError, FeedIndex, body_of},
};

/// How many bytes of a feed are read at a time.
const READ_BYTES: usize = 4 << 20;

fn unreadable(feed: &FeedId, source: FeedFileError) -> RebuildError {
    RebuildError::Feed { feed: feed.clone(), source: source.into() }
}

/// Says whether a group may change which records count. What others than admins write there changes nothing, and must not make
/// work.
pub(super) fn is_about_rights(shared: &Shared, group: &Group) -> bool {
    let said = |record| {
        matches!(record, Record::Policy(_) | Record::Revoked(_) | Record::Judged(_) | Record::Crl(_))
    };
    group.feed.project.is_studio()
        && shared.feed(&group.feed).is_some_and(|index| signer_of(&index, group).role == Role::Admin)
        && group.records.iter().any(|raw| Record::in_feed(raw, &group.feed.project).is_ok_and(said))
}

/// Calls `each` with the groups of a feed from `from_seq` up to `end`, both where groups begin, until it returns false.
fn visit(
    index: &FeedIndex,
    from_seq: u64,
    end: u64,
    each: &mut dyn FnMut(&Group) -> bool,
) -> Result<(), RebuildError> {
    let mut from_seq = from_seq;
    while from_seq < end {
        let groups = index.read(from_seq, READ_BYTES).map_err(|error| unreadable(index.feed(), error))?;
        if groups.is_empty() {
            return Ok(());
        }
        for group in &groups {
            let damaged = || FeedFileError::NotABoundary { feed: index.feed().clone(), seq: from_seq };
            let (body, head) =
                body_of(group).ok_or_else(damaged).map_err(|error| unreadable(index.feed(), error))?;
            if body.first_seq >= end || !each(&body) {
                return Ok(());
            }
            from_seq = head.next_seq;
        }
    }
    Ok(())
}

/// Reads what the studio's feeds say about rights, each up to the record that `end` returns; so far other feeds are known too.
fn read(
    shared: &Shared,
    extract: Option<Extract>,
    end: &dyn Fn(&FeedIndex) -> Result<u64, RebuildError>,
) -> Result<Admission, RebuildError> {
    let mut reader = AdmissionReader::default();
    for index in shared.feeds_of(&ProjectName::studio()) {
        if !index.has_role(Role::Admin) {
            continue;
        }
        let end_seq = end(&index)?;
        for (from_seq, signer) in index.signers().into_iter().filter(|(from_seq, _)| *from_seq < end_seq) {
            reader.signed_from(index.feed(), from_seq, &signer);
        }
        visit(&index, 0, end_seq, &mut |group| {
            let signer = signer_of(&index, group);
            for (seq, raw) in (group.first_seq..).zip(&group.records).filter(|_| signer.role == Role::Admin) {
                match Record::in_feed(raw, &group.feed.project) {
                    Ok(Record::Crl(crl)) => {
                        if let Some(list) = shared.lists.read(&crl.der, &*shared.trust, (&group.feed, seq)) {
                            reader.add_list(&group.feed, seq, signer, (crl.at_ms, list));
                        }
                    }
                    Ok(record) => reader.add(&group.feed, seq, signer, record),
                    Err(_) => {}
                }
            }
            true
        })?;
    }
    if let Some(extract) = extract {
        reader.add_extract(extract);
    }
    let chain_of = |feed: &FeedId, seq: u64| {
        let is_known = shared.feed(feed).is_some_and(|index| end(&index).is_ok_and(|end| seq <= end));
        if is_known { shared.chain_before(feed, seq) } else { None }
    };
    Ok(if shared.is_vendor { reader.finish_of_vendor(&chain_of) } else { reader.finish(&chain_of) })
}

/// Under what a group is signed; of what cannot be told, the role that may least.
pub(super) fn signer_of(index: &FeedIndex, group: &Group) -> Signer {
    index.signer_at(group.first_seq).unwrap_or(Role::Vendor.into())
}

fn cursor_of(store: &dyn CatalogStore, feed: &FeedId) -> Result<u64, RebuildError> {
    Ok(FeedHead::load(store, &cursor_key(feed))?.unwrap_or(FeedHead::EMPTY).next_seq)
}

/// Returns by what the records that a store has were judged.
pub(super) fn judged_by(shared: &Shared, store: &dyn CatalogStore) -> Result<Admission, RebuildError> {
    read(shared, shared.extract(), &|index| cursor_of(store, index.feed()))
}

/// Says whether a record that the store has would be judged otherwise by what the studio's feeds say now. Calls `meanwhile` now and then.
pub(super) fn has_changed(
    shared: &Shared,
    store: &dyn CatalogStore,
    (then, now): (&Admission, &Admission),
    meanwhile: &mut dyn FnMut(),
) -> Result<bool, RebuildError> {
    for index in shared.all_feeds() {
        meanwhile();
        let feed = index.feed();
        let Some(from_seq) = then.differs_from(now, feed).filter(|_| !feed.project.is_studio()) else {
            continue;
        };
        let mut has_changed = false;
        // A place need not be where a group begins: what lies before it is judged as before.
        visit(&index, 0, cursor_of(store, feed)?, &mut |group| {
            if group.first_seq + (group.records.len() as u64) <= from_seq {
                return true;
            }
            let signer = signer_of(&index, group);
            has_changed = (group.first_seq..).zip(&group.records).any(|(seq, raw)| {
                Record::in_feed(raw, &feed.project).is_ok_and(|record| {
                    let [then, now] = [then, now].map(|one| Judge { admission: one, signer });
                    then.admits(feed, seq, &record).is_ok() != now.admits(feed, seq, &record).is_ok()
                })
            });
            !has_changed
        })?;
        if has_changed {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Reads anew which records count; says whether others do than before.
pub(super) fn refresh(shared: &Shared) -> Result<bool, RebuildError> {
    let _one_at_a_time = shared.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
    let now = read(shared, shared.extract(), &|index| Ok(index.head().next_seq))?;
    let is_news = now != *shared.admission();
    if is_news {
        tracing::info!(
            revoked = now.revoked().len(),
            grants = now.policy().grants().len(),
            "rights have changed"
        );
        shared.set_admission(Arc::new(now));
    }
    Ok(is_news)
}

impl Writer {
    /// Refuses what would count nowhere, because this node lacks the right to it. What it holds it may always say: nobody waits for
    /// an answer to that.
    pub(super) fn may_say(&self, feed: &FeedId, records: &[RawRecord]) -> Result<(), LedgerError> {
        let admission = self.shared.admission();
        let mut signer = None;
        let next_seq = self.feeds.get(feed).map_or(0, |file| file.head().next_seq);
        for raw in records {
            let Ok(record) = Record::in_feed(raw, &feed.project) else { continue };
            if matches!(
                record,
                Record::Key(_) | Record::AuditHead(_) | Record::Placed(_) | Record::Dropped(_)
            ) {
                continue;
            }
            let signer = *signer.get_or_insert_with(|| own_signer(&self.signer, &*self.trust, &feed.node));
            admission.admits(feed, next_seq, signer, &record).map_err(|action| LedgerError::NotAllowed {
                node: feed.node.clone(),
                action,
                project: feed.project.clone(),
            })?;
        }
        Ok(())
    }

    /// Lets take effect what groups that are durable say about rights, and tells of it; whatever it takes to judge what is in the catalog
    /// anew comes after that. Says whether they say anything about rights.
    pub(super) fn heed(&mut self, applied: &Applied) -> bool {
        let admission = self.shared.admission();
        let is_about = |(body, head): &(Group, FeedHead)| {
            is_about_rights(&self.shared, body) || admission.contradicts(&body.feed, body.first_seq, head)
        };
        let is_about_rights = applied.iter().any(is_about);
        if is_about_rights {
            match refresh(&self.shared) {
                Ok(true) => (self.on_change)(LedgerEvent::Rights),
                Ok(false) => {}
                Err(error) => {
                    tracing::error!(error = %ErrorChain(&error), "what changes who may do what cannot be read");
                    self.is_to_judge_anew = true;
                }
            }
        }
        self.announce(applied, FeedId::is_of_studio);
        is_about_rights
    }

    /// Finds out whether what the store has is judged otherwise by now. An error when it has to be built anew for that.
    pub(super) fn judge_anew(
        &mut self,
        store: &dyn CatalogStore,
        is_about_rights: bool,
    ) -> Result<(), CatalogError> {
        if is_about_rights && !self.is_to_judge_anew {
            // What is of no use already is built by the new rights; its cursors stay.
            self.is_to_judge_anew = self.shared.damage().is_some() || self.is_judged_otherwise(store);
        }
        // Cursors that go on would hide that rows wait to be judged anew, also from the next start.
        if !self.is_to_judge_anew {
            return Ok(());
        }
        // Manifests of records that begin to count were not taken.
        self.is_missing_unknown = true;
        Err(CatalogError::damaged(store.generation(), Cause::Rights))
    }

    pub(super) fn is_judged_otherwise(&mut self, store: &dyn CatalogStore) -> bool {
        let (shared, now) = (Arc::clone(&self.shared), self.shared.admission());
        let changed = shared.long_work(|| {
            let then = judged_by(&shared, store)?;
            self.amid(|writer| has_changed(&shared, store, (&then, &now), &mut || writer.serve_urgent()))
        });
        match changed {
            // What came amid that changed them again.
            Ok(false) => now != self.shared.admission(),
            Ok(true) => true,
            Err(error) => {
                tracing::error!(error = %ErrorChain(&error), "what changes who may do what cannot be read");
                true
            }
        }
    }

    /// Goes by what was told of the policy, in the place of what was told before.
    pub(super) fn go_by(&mut self, extract: Extract) -> Result<(), RebuildError> {
        let (shared, store) = (Arc::clone(&self.shared), self.shared.store());
        // By what was told before.
        let then = judged_by(&shared, &*store);
        let before = shared.extract();
        shared.set_extract(Some(extract));
        match refresh(&shared) {
            Ok(true) => (self.on_change)(LedgerEvent::Rights),
            Ok(false) => return Ok(()),
            Err(error) => {
                shared.set_extract(before);
                return Err(error);
            }
        }
        let now = shared.admission();
        let is_same = !self.is_to_judge_anew
            && shared.damage().is_none()
            && shared
                .long_work(|| has_changed(&shared, &*store, (&then?, &now), &mut || {}))
                .is_ok_and(|changed| !changed);
        if !is_same {
            (self.is_to_judge_anew, self.is_missing_unknown) = (true, true);
            shared.note_damage(&CatalogError::damaged(store.generation(), Cause::Rights));
        }
        Ok(())
    }
}
