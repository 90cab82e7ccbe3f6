//! How much there was: what this node noted of its feeds, apart from the feeds themselves.
//!
//! The witness says how many records the own feeds had when it was written, the catalog's cursors how many of each feed were durable
//! when they were applied. Neither can be ahead of a feed that is whole: records are synced before either hears of them.

use std::collections::BTreeMap;

use avalon_protocol::{
    feed::{FeedHead, FeedId},
    id::NodeId,
};

use super::{Finding, FindingKind};
use crate::{
    catalog::{CatalogError, CatalogStore, MAX_PAGE_ROWS, Table, Value as _, feed_of_key},
    feed::TornTail,
    fs::{Dir, path_of},
    witness,
};

/// How many records feeds had, and who says so.
#[derive(Debug, Default)]
pub(super) struct KnownEnds(BTreeMap<FeedId, (u64, &'static str)>);

impl KnownEnds {
    /// Takes what the witness says of the own feeds. It is read before the feeds: a daemon that runs may write a later one.
    pub(super) fn take_witness(&mut self, root: &Dir, me: &NodeId) -> Option<Finding> {
        match witness::known_records(root) {
            Ok(known) => {
                for (project, records) in known {
                    self.note(FeedId { project, node: me.clone() }, records, "the witness");
                }
                None
            }
            Err(detail) => {
                let path = root.path().join(path_of(witness::NAME).as_str());
                Some(Finding { kind: FindingKind::Witness, path, detail })
            }
        }
    }

    /// Takes what the catalog was made from.
    pub(super) fn take_cursors(&mut self, store: &dyn CatalogStore) -> Result<(), CatalogError> {
        let mut after: Option<Vec<u8>> = None;
        loop {
            let rows = store.scan(Table::Cursors, &[], after.as_deref(), MAX_PAGE_ROWS)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            after = Some(last.clone());
            for (key, value) in rows {
                let cursor = FeedHead::from_row(store, &value)?;
                if let Some(feed) = feed_of_key(&key) {
                    self.note(feed, cursor.next_seq, "the catalog");
                }
            }
        }
    }

    fn note(&mut self, feed: FeedId, records: u64, by: &'static str) {
        let known = self.0.entry(feed).or_insert((0, by));
        if records > known.0 {
            *known = (records, by);
        }
    }

    /// Returns the feeds that have records, as far as that is known.
    pub(super) fn feeds(&self) -> impl Iterator<Item = &FeedId> {
        self.0.iter().filter(|(_, (records, _))| *records > 0).map(|(feed, _)| feed)
    }

    /// Says what is wrong with the end of a feed that has so many good records: it had more, or a crash tore what nobody counted on.
    pub(super) fn judge(
        &self,
        feed: &FeedId,
        records: u64,
        torn: Option<&TornTail>,
    ) -> Option<(FindingKind, String)> {
        let torn = torn.map(|torn| {
            format!(
                "{} bytes at the end of segment {}, from byte {} on, are no whole group",
                torn.bytes, torn.segment, torn.offset
            )
        });
        match self.0.get(feed) {
            Some((had, by)) if *had > records => {
                let rest = torn.map(|torn| format!("; {torn}")).unwrap_or_default();
                let detail = format!("it has {records} records, and {by} knows of {had}{rest}");
                Some((FindingKind::LostEnd, detail))
            }
            _ => torn.map(|torn| (FindingKind::TornEnd, torn)),
        }
    }
}
