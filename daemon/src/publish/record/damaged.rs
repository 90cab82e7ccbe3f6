//! Published files that their disk damaged: told and held, and never published as something new.

use std::{collections::BTreeMap, sync::Arc};

use avalon_protocol::{
    control::EventKind,
    hash::ManifestId,
    manifest::{FileEntry, Relation},
    rel_path::RelPath,
};

use super::{RecordError, Recorded, Recording};
use crate::{core::blocking, publish::hash::NamedFile, scrub};

/// How many damaged files an event names.
const MOST_NAMED: usize = 20;

impl Recording<'_> {
    /// Returns of which generation which files have the time that it says, and other bytes. No program does that: it is what
    /// a disk does, and would go everywhere as the next state of a hero.
    pub(super) async fn damaged(&self, relation: &Relation) -> Option<(ManifestId, Vec<RelPath>)> {
        let (Relation::Rewritten { base, .. } | Relation::Moved(base)) = relation else { return None };
        let (ledger, id) = (self.core.ledger.clone(), *base);
        let base = blocking(move || ledger.manifest(id).ok().flatten()).await?;
        let now: BTreeMap<&RelPath, &NamedFile> =
            self.named.iter().map(|named| (&named.inside, named)).collect();
        let is_damaged = |file: &&FileEntry| {
            let named = now.get(&file.path);
            named.is_some_and(|named| named.object != file.hash && named.stat.mtime_ns == file.mtime_ns)
        };
        let damaged = base.files().iter().filter(is_damaged);
        let damaged: Vec<RelPath> = damaged.filter_map(|file| base.dir().join(&file.path).ok()).collect();
        (!damaged.is_empty()).then_some((id, damaged))
    }

    pub(super) async fn tell_damaged(
        self,
        damaged: (ManifestId, Vec<RelPath>),
    ) -> Result<Recorded, RecordError> {
        let (base, damaged) = damaged;
        let is_news = self.fold.holds(&self.core.me, &base);
        self.drop_held(&[base]).await?;
        if is_news {
            self.core.events.emit(EventKind::Damaged {
                reference: self.version.to_string(),
                manifest: base.to_string(),
                files: damaged.iter().take(MOST_NAMED).map(ToString::to_string).collect(),
            });
            self.core.damaged.add(self.version.clone());
        }
        let (core, version, files) = (Arc::clone(self.core), self.version.clone(), damaged.clone());
        blocking(move || scrub::tell_damaged(&core, &version, &files)).await;
        Err(RecordError::Damaged { version: self.version, damaged })
    }
}
