//! Published files that their disk damaged are never published as something new.

use std::{collections::BTreeMap, sync::Arc};

use avalon_protocol::{manifest::FileEntry, rel_path::RelPath};
use avalon_store::fs::FileIdentity;

use super::{super::hash::NamedFile, Recording};
use crate::core::blocking;

impl Recording<'_> {
    /// Returns the files that their disk damaged and that nobody wrote since: they would go everywhere as the next state of a hero.
    pub(super) async fn damaged(&self, dir: &RelPath) -> Vec<RelPath> {
        let project = self.project.name().clone();
        let (core, fold, slot) = (Arc::clone(self.core), self.fold.clone(), self.version.slot);
        let (dir, named) = (dir.clone(), self.named.clone());
        blocking(move || {
            let base =
                fold.compared_with(slot, &core.me).and_then(|id| core.ledger.manifest(id).ok().flatten());
            let entries: BTreeMap<&RelPath, &FileEntry> =
                base.iter().flat_map(|base| base.files()).map(|file| (&file.path, file)).collect();
            let (mut damaged, mut news) = (Vec::new(), Vec::new());
            for file in &named {
                let Ok(path) = dir.join(&file.inside) else { continue };
                let identity = file.stat.identity();
                if core.damaged.has(&project, &path, identity) {
                    damaged.push(path);
                    continue;
                }
                let known = || core.ledger.local_file(&project, &path).ok().flatten();
                if entries.get(&file.inside).is_some_and(|entry| has_rotted(file, entry))
                    && known().is_none_or(|known| known.identity() == identity)
                {
                    news.push((path.clone(), identity));
                    damaged.push(path);
                }
            }
            if !news.is_empty() {
                core.damaged.add(&project, news.into_iter());
            }
            damaged
        })
        .await
    }
}

/// Says whether a file has the size and the time of a published one, and other bytes. Where the catalog knows it as it was before somebody
/// wrote it, somebody did, and kept its time; without such a row, as after the catalog was lost, nobody is taken to have.
fn has_rotted(file: &NamedFile, entry: &FileEntry) -> bool {
    let FileIdentity { size, mtime_ns, .. } = file.stat.identity();
    (size, mtime_ns) == (entry.size, entry.mtime_ns) && file.object != entry.hash
}
