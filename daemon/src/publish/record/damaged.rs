//! Published files that their disk damaged are never published as something new.

use std::{collections::BTreeMap, sync::Arc};

use avalon_protocol::{
    manifest::{FileEntry, Manifest},
    rel_path::RelPath,
};
use avalon_store::fs::FileIdentity;

use super::{super::hash::NamedFile, RecordError, Recording};
use crate::{
    core::blocking,
    scrub::{self, Rotten},
};

/// What is damaged of a version.
#[derive(Debug, Default)]
pub(super) struct Damaged {
    /// Where, in order.
    pub(super) paths: Vec<RelPath>,
    /// What is to be noted, and of which generation: nobody knew it yet, or this node still says that it holds it.
    news: Option<(Arc<Manifest>, Vec<Rotten>)>,
}

impl Recording<'_> {
    /// Returns the files that their disk damaged and that nobody wrote since: they would go everywhere as the next state of a hero.
    pub(super) async fn damaged(&self, dir: &RelPath) -> Damaged {
        let project = self.project.name().clone();
        let (core, fold, base) = (Arc::clone(self.core), self.fold.clone(), self.base.clone());
        let (dir, named) = (dir.clone(), self.named.clone());
        blocking(move || {
            let entries: BTreeMap<&RelPath, &FileEntry> =
                base.iter().flat_map(|base| base.files()).map(|file| (&file.path, file)).collect();
            let (mut paths, mut rotten) = (Vec::new(), Vec::new());
            let mut is_news = base.as_ref().is_some_and(|base| fold.holds(&core.me, &base.id()));
            for file in &named {
                let Ok(path) = dir.join(&file.inside) else { continue };
                let identity = file.stat.identity();
                let entry = entries.get(&file.inside);
                let known = || core.ledger.local_file(&project, &path).ok().flatten();
                let is_marked = core.damaged.has(&project, &path, identity);
                let is_damaged = is_marked
                    || entry.is_some_and(|entry| has_rotted(file, entry))
                        && known().is_none_or(|known| known.identity() == identity);
                if !is_damaged {
                    continue;
                }
                is_news |= !is_marked;
                if let Some(entry) = entry {
                    rotten.push(Rotten { path: path.clone(), object: entry.hash, stat: file.stat });
                }
                paths.push(path);
            }
            let news = base.filter(|_| is_news && !rotten.is_empty()).map(|base| (Arc::new(base), rotten));
            Damaged { paths, news }
        })
        .await
    }

    /// Notes it as when it is found by reading, tells it, and says why nothing is published.
    pub(super) async fn refuse_damaged(self, damaged: Damaged) -> RecordError {
        let Damaged { paths, news } = damaged;
        let noted = match news {
            Some((base, rotten)) => scrub::note_rotten(self.core, self.project, base, rotten).await,
            None => Ok(()),
        };
        let (core, version, files) = (Arc::clone(self.core), self.version.clone(), paths.clone());
        blocking(move || scrub::tell_damaged(&core, &version, &files)).await;
        match noted {
            Ok(()) => RecordError::Damaged { version: self.version, damaged: paths },
            Err(source) => RecordError::Ledger { version: self.version, source },
        }
    }
}

/// Says whether a file has the size and the time of a published one, and other bytes. Where the catalog knows it as it was before somebody
/// wrote it, somebody did, and kept its time; without such a row, as after the catalog was lost, nobody is taken to have.
fn has_rotted(file: &NamedFile, entry: &FileEntry) -> bool {
    let FileIdentity { size, mtime_ns, .. } = file.stat.identity();
    (size, mtime_ns) == (entry.size, entry.mtime_ns) && file.object != entry.hash
}
