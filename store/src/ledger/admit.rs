//! Which records count, by what the studio's feeds say.
//!
//! What the catalog has was judged by the studio's records up to its cursors in their feeds. When those say more, verdicts about
//! older records may change; then it is built anew, because a fold does not take back what it took.

use std::sync::Arc;

use avalon_protocol::{
    access::{Admission, AdmissionReader, Role},
    feed::{FeedHead, FeedId, Group},
    id::ProjectName,
    record::Record,
};

use super::{RebuildError, shared::Shared};
use crate::{
    catalog::{CatalogStore, Judge, Value, cursor_key},
    error_chain::ErrorChain,
    feed::{FeedFileError, FeedIndex, body_of},
};

/// How many bytes of a feed are read at a time.
const READ_BYTES: usize = 4 << 20;

fn unreadable(feed: &FeedId, source: FeedFileError) -> RebuildError {
    RebuildError::Feed { feed: feed.clone(), source: source.into() }
}

/// Says whether a group may change which records count.
pub(super) fn is_about_rights(group: &Group) -> bool {
    let said = |record| matches!(record, Record::Policy(_) | Record::Revoked(_) | Record::Judged(_));
    group.feed.project.is_studio()
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

/// Reads what the studio's feeds say about rights, each up to the record that `end` returns.
fn read(
    shared: &Shared,
    end: &dyn Fn(&FeedIndex) -> Result<u64, RebuildError>,
) -> Result<Admission, RebuildError> {
    let mut reader = AdmissionReader::default();
    for index in shared.feeds_of(&ProjectName::studio()) {
        visit(&index, 0, end(&index)?, &mut |group| {
            let role = role_of(&index, group);
            for (seq, raw) in (group.first_seq..).zip(&group.records) {
                if let Ok(record) = Record::in_feed(raw, &group.feed.project) {
                    reader.add(&group.feed, seq, role, record);
                }
            }
            true
        })?;
    }
    if let Some((serial, policy)) = shared.extract() {
        reader.add_extract(serial, policy);
    }
    Ok(if shared.is_vendor { reader.finish_of_vendor() } else { reader.finish() })
}

/// The role under which a group is signed; of what cannot be told, the one that may least.
pub(super) fn role_of(index: &FeedIndex, group: &Group) -> Role {
    index.role_at(group.first_seq).unwrap_or(Role::Vendor)
}

fn cursor_of(store: &dyn CatalogStore, feed: &FeedId) -> Result<u64, RebuildError> {
    Ok(FeedHead::load(store, &cursor_key(feed))?.unwrap_or(FeedHead::EMPTY).next_seq)
}

/// Says whether a record that the store has would be judged otherwise by what the studio's feeds say now.
pub(super) fn has_changed(shared: &Shared, store: &dyn CatalogStore) -> Result<bool, RebuildError> {
    let then = read(shared, &|index| cursor_of(store, index.feed()))?;
    let now = shared.admission();
    for index in shared.all_feeds() {
        let feed = index.feed();
        let Some(from_seq) = then.differs_from(&now, feed).filter(|_| !feed.project.is_studio()) else {
            continue;
        };
        let mut has_changed = false;
        // A place need not be where a group begins: what lies before it is judged as before.
        visit(&index, 0, cursor_of(store, feed)?, &mut |group| {
            if group.first_seq + (group.records.len() as u64) <= from_seq {
                return true;
            }
            let role = role_of(&index, group);
            has_changed = (group.first_seq..).zip(&group.records).any(|(seq, raw)| {
                Record::in_feed(raw, &feed.project).is_ok_and(|record| {
                    let [then, now] = [&then, &now].map(|one| Judge { admission: one, role });
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

/// Reads anew which records count.
pub(super) fn refresh(shared: &Shared) -> Result<(), RebuildError> {
    let now = read(shared, &|index| Ok(index.head().next_seq))?;
    if now != *shared.admission() {
        tracing::info!(
            revoked = now.revoked().len(),
            grants = now.policy().grants().len(),
            "rights have changed"
        );
        shared.set_admission(Arc::new(now));
    }
    Ok(())
}

/// As [`refresh`], where the old verdicts do until it works.
pub(super) fn refresh_or_keep(shared: &Shared) {
    if let Err(error) = refresh(shared) {
        tracing::error!(error = %ErrorChain(&error), "what changes who may do what cannot be read");
    }
}
