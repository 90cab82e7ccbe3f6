//! Stage 5: a whole version is related to what is known of it, and what is new is recorded. Previous: [`super::manifest`].
//! Next: [`crate::replicate::announce`], which hands the record to peers.
//!
//! Order: manifest durable, then the record (fsync), then the catalog, then everybody hears of it. Published files that
//! were changed in place are never published over the old: somebody hears of it and decides.

mod allowed;
mod damaged;
mod error;
mod generations;
mod held;
mod numbers;
mod related;
mod tell;

use std::{collections::BTreeSet, sync::Arc};

use avalon_protocol::{
    hash::ManifestId,
    id::{VersionId, VersionSlot},
    limits::MAX_METADATA_PAIRS,
    manifest::{Completeness, FileEntry, GROWING, Manifest, Relation},
    record::{Held, Record},
    rel_path::RelPath,
    settle::SeenFile,
    template::VersionDir,
    version_fold::{Standing, VersionFold},
};
use avalon_store::catalog::{LocalChange, LocalFile};

pub(crate) use self::generations::published;
use self::{
    allowed::{check_catalog, check_not_incoming, check_still_whole, not_granted, version_grows},
    generations::is_growing,
    related::{Related, relate_files, with_base},
};
pub use self::{
    error::{RecordError, Remedy},
    generations::{grows_here, superseded},
    numbers::NUMBER_TAKEN,
    tell::{REWRITTEN, tell_refused},
};
use super::{
    checks,
    hash::{self, NamedFile},
    inputs::{self, Publishing},
    manifest::{self, Entries, Place},
    settle::{PublishDetails, Rewrites},
};
use crate::{
    core::{Core, blocking},
    project::Project,
    scrub::DAMAGED,
};

/// A version directory that was proved whole.
#[derive(Debug, Clone)]
pub struct WholeVersion {
    /// Which directory and version.
    pub version: VersionDir,
    /// What was seen in it.
    pub files: Vec<SeenFile>,
    /// By which signal it is whole.
    pub completeness: Completeness,
    /// What to do with it.
    pub purpose: Purpose,
    /// What people say about it.
    pub about: PublishDetails,
}

/// What to do with the files of a version directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// What is new is published.
    Publish,
    /// It still waits for frames or the end of a file: whether what was recorded was changed in place is found out, and nothing published.
    Compare,
    /// These frames are done, and somebody is still at work: they are published as a generation of a version that grows, and
    /// nothing else is concluded from them.
    Grow,
}

/// What became of a version directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// Which version.
    pub version: VersionId,
    /// The manifest that stands for what lies there.
    pub manifest: ManifestId,
    /// Its generation.
    pub generation: u32,
    /// How many files it has.
    pub files: u64,
    /// Their size together in bytes.
    pub bytes: u64,
    /// Whether it was new.
    pub news: News,
    /// What a person should hear about it.
    pub messages: Vec<String>,
}

/// Whether something was new.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum News {
    /// It was published now.
    Published,
    /// It was known; that this node holds it is recorded now.
    Held,
    /// Nothing was new.
    Nothing,
}

/// Hashes a whole version, relates it and records what is new.
///
/// Holds the version's lock, so that a version that is being placed is not taken for a publish.
///
/// # Errors
/// [`RecordError`]; what is durable is said in the feed or not at all.
pub async fn record(
    core: &Arc<Core>,
    project: &Arc<Project>,
    whole: WholeVersion,
) -> Result<Recorded, RecordError> {
    let version = whole.version.fields.version_id(project.name());
    let lock = project.lock_version(&whole.version.dir).await;
    let root = project.dir().ok_or_else(|| RecordError::Paused { project: project.name().clone() })?;
    check_still_whole(&root, &whole, &version).await?;
    // A mirror fetches again what it lost by the change. That somebody accepts the change, and that nobody places anything
    // meanwhile, ends it.
    if whole.about.rewrites == Rewrites::Hold {
        check_not_incoming(core, &root, (&version, &whole.version.dir)).await?;
    }
    check_catalog(core, &version).await?;
    let named = hash::hash(core, project, &root, &whole.version.dir, &whole.files).await;
    let named = named.map_err(|source| RecordError::Hash { version: version.clone(), source })?;
    let entries = manifest::entries(project.templates(), &named);
    // A node that lost its state finds its versions before it hears that it published them itself.
    core.own.decided(project.name()).await;
    // That wait ends also where nobody can say more for now, and peers come at any time.
    let came_back = core.ledger.came_back(project.name());
    let (core_there, id, files) = (Arc::clone(core), version.clone(), entries.files.clone());
    let dir = whole.version.dir.clone();
    let related = blocking(move || relate_files(&core_there, &id, (&dir, &files))).await;
    let related = related.map_err(|source| RecordError::Catalog { version: version.clone(), source })?;
    let relation = with_base(&related, whole.about.rewrites)
        .ok_or_else(|| RecordError::NotAtHand { version: version.clone() })?;
    let Related { fold, base, .. } = related;
    let base = base.and_then(|(_, manifest)| manifest);
    let recording = Recording { core, project, version, fold, base, came_back, named };
    let recorded = match (whole.purpose, &relation) {
        (Purpose::Grow, Relation::First | Relation::Grown(_)) if version_grows(&whole) => {
            recording.act(relation, whole, entries).await
        }
        (Purpose::Grow, _) => recording.still_waits().await,
        (Purpose::Compare, Relation::First | Relation::Grown(_) | Relation::Moved(_)) => {
            recording.still_waits().await
        }
        _ => recording.act(relation, whole, entries).await,
    };
    drop(lock);
    recorded
}

struct Recording<'a> {
    core: &'a Arc<Core>,
    project: &'a Arc<Project>,
    version: VersionId,
    fold: VersionFold,
    /// The manifest of what its files are compared with, where it is at hand.
    base: Option<Manifest>,
    /// How often own records had come back before that was read.
    came_back: u64,
    named: Vec<NamedFile>,
}

impl Recording<'_> {
    async fn act(
        self,
        relation: Relation,
        whole: WholeVersion,
        entries: Entries,
    ) -> Result<Recorded, RecordError> {
        let damaged = self.damaged(&whole.version.dir).await;
        if !damaged.paths.is_empty() {
            if whole.about.rewrites != Rewrites::Accept {
                return Err(self.refuse_damaged(damaged).await);
            }
            let (core, name) = (Arc::clone(self.core), self.project.name().clone());
            blocking(move || core.damaged.forget(&name, damaged.paths.iter())).await;
        }
        match relation {
            Relation::Known(manifest) if whole.purpose == Purpose::Publish && self.grew(manifest).await => {
                match self.after(manifest) {
                    Some(place) => self.publish(place, whole, entries).await,
                    None => Err(RecordError::TooManyGenerations { version: self.version }),
                }
            }
            Relation::Known(manifest) => self.known(manifest).await,
            Relation::First => self.publish(Place { generation: 1, predecessor: None }, whole, entries).await,
            Relation::Grown(base) | Relation::Moved(base) => match self.after(base) {
                Some(place) => self.publish(place, whole, entries).await,
                None => Err(RecordError::TooManyGenerations { version: self.version }),
            },
            Relation::Part(_) => {
                let gone: Vec<ManifestId> = self.not_whole(&entries).await;
                self.drop_held(&gone).await?;
                Err(RecordError::Part { version: self.version })
            }
            Relation::Elsewhere(known) => {
                let here = whole.version.dir;
                Err(RecordError::TwoPlaces { version: self.version, known, here })
            }
            Relation::Rewritten { base, .. } if whole.about.rewrites == Rewrites::Accept => {
                self.accept(base, whole, entries).await
            }
            Relation::Rewritten { base, changed } => {
                self.drop_held(&[base]).await?;
                self.tell_rewritten(&changed);
                Err(RecordError::Rewritten { version: self.version, changed })
            }
        }
    }

    /// Says whether this node published a generation while somebody was at work: now that nobody is, the same files are
    /// published as the one that does not grow any more.
    async fn grew(&self, manifest: ManifestId) -> bool {
        let core = Arc::clone(self.core);
        let is_own = self.fold.generation(&manifest).is_some_and(|known| known.node == core.me);
        is_own && blocking(move || is_growing(&core, manifest)).await
    }

    /// Returns the manifest of the generation that a new one follows; `None` where there is none, or nobody has it any more. What was
    /// read already is not read again.
    async fn before(&self, place: Place) -> Result<Option<Arc<Manifest>>, RecordError> {
        let Some(before) = place.predecessor else { return Ok(None) };
        if let Some(base) = self.base.as_ref().filter(|base| base.id() == before) {
            return Ok(Some(Arc::new(base.clone())));
        }
        let ledger = self.core.ledger.clone();
        match blocking(move || ledger.manifest(before)).await {
            Err(source) if !source.is_damage() => {
                Err(RecordError::Before { version: self.version.clone(), source })
            }
            read => Ok(read.ok().flatten().map(Arc::new)),
        }
    }

    /// Names the representations that have files which no generation before had when it did not grow.
    fn growing(before: Option<&Manifest>, entries: &Entries) -> String {
        let grew: BTreeSet<&str> = before.into_iter().flat_map(Manifest::growing).collect();
        let known: BTreeSet<&RelPath> =
            before.into_iter().flat_map(Manifest::files).map(|file| &file.path).collect();
        let names = entries.representations.iter().enumerate().filter(|(index, representation)| {
            let of_it = |file: &&FileEntry| usize::from(file.representation) == *index;
            grew.contains(representation.name.as_str())
                || entries.files.iter().filter(of_it).any(|file| !known.contains(&file.path))
        });
        names.map(|(_, representation)| representation.name.as_str()).collect::<Vec<_>>().join(",")
    }

    /// Somebody decided that what was changed in place is what comes after `base`. It has to be what stands: else the change
    /// was made to something old, and would only claim to be newer.
    async fn accept(
        self,
        base: ManifestId,
        whole: WholeVersion,
        entries: Entries,
    ) -> Result<Recorded, RecordError> {
        let head = match self.fold.standing(self.version.slot) {
            Standing::Head(head) if self.fold.same_as(&head, &base) => head,
            _ => return Err(RecordError::Outdated { version: self.version }),
        };
        match self.after(head) {
            Some(place) => self.publish(place, whole, entries).await,
            None => Err(RecordError::TooManyGenerations { version: self.version }),
        }
    }

    /// Returns the place after a generation; none when they cannot be counted any further.
    fn after(&self, base: ManifestId) -> Option<Place> {
        let before = self.fold.generation(&base).map_or(0, |generation| generation.generation);
        let generation = before.checked_add(1)?;
        Some(Place { generation, predecessor: Some(base) })
    }

    /// Nothing was changed in place: the catalog learns how the files are now that were recorded, so that they are not
    /// read again when the next frame comes.
    async fn still_waits(self) -> Result<Recorded, RecordError> {
        let (ledger, project, named) =
            (self.core.ledger.clone(), self.project.name().clone(), self.named.clone());
        let noted = blocking(move || {
            let same = named.iter().filter_map(|file| {
                let known = ledger.local_file(&project, &file.path).ok().flatten()?;
                let is_news = known.hash == file.object && known.identity() != file.stat.identity();
                let local = LocalFile::new(file.object, &file.stat, known.manifest);
                let (project, path) = (project.clone(), file.path.clone());
                is_news.then_some(LocalChange::Put { project, path, file: local })
            });
            let news: Vec<LocalChange> = same.collect();
            if news.is_empty() { Ok(()) } else { ledger.update_local_wait(news) }
        });
        noted.await.map_err(|source| RecordError::Ledger { version: self.version.clone(), source })?;
        Err(RecordError::StillWaits { version: self.version })
    }

    /// The files are a generation that is known: this node holds it, and nothing newer any more.
    async fn known(self, manifest: ManifestId) -> Result<Recorded, RecordError> {
        let generation = self.fold.generation(&manifest);
        let (number, files, bytes) =
            generation.map_or((0, 0, 0), |known| (known.generation, known.files, known.bytes));
        let held = |manifest| Held { version: self.version.clone(), manifest };
        let mut records: Vec<Record> = self
            .fold
            .held_by(&self.core.me)
            .filter(|other| self.fold.generation(other).is_some_and(|g| g.generation > number))
            .map(|other| Record::Dropped(held(other)))
            .collect();
        let news = if self.fold.holds(&self.core.me, &manifest) { News::Nothing } else { News::Held };
        if news == News::Held {
            records.push(Record::Placed(held(manifest)));
        }
        if news == News::Held || !records.is_empty() {
            self.commit(records, self.local_changes(manifest)).await?;
        } else {
            self.note_local(manifest).await?;
        }
        self.rewritten_board().clear(REWRITTEN);
        self.rewritten_board().clear(DAMAGED);
        self.rewritten_board().clear(NUMBER_TAKEN);
        let messages = Vec::new();
        Ok(Recorded { version: self.version, manifest, generation: number, files, bytes, news, messages })
    }

    async fn publish(
        self,
        place: Place,
        whole: WholeVersion,
        entries: Entries,
    ) -> Result<Recorded, RecordError> {
        if let Some(refused) = not_granted(self.core, &self.version) {
            return Err(refused);
        }
        let completeness = whole.completeness;
        let unasked = numbers::take(self.core, &self.version, place).await?;
        let before = self.before(place).await?;
        let (mut about, mut messages) = self.about(before.clone(), &whole).await?;
        messages.extend(unasked);
        about.metadata.remove(GROWING);
        if whole.purpose == Purpose::Grow {
            about.metadata.insert(GROWING.to_owned(), Self::growing(before.as_deref(), &entries));
        }
        let manifest = manifest::manifest(
            self.project.name(),
            &whole.version,
            entries,
            place,
            completeness,
            about,
            self.core.now_ms(),
        );
        let manifest =
            manifest.map_err(|source| RecordError::Invalid { version: self.version.clone(), source })?;
        let manifest = self.store(manifest).await?;
        let published = published(&manifest);
        let local = self.local_changes(manifest.id());
        let mut records = self.superseded(&manifest).await;
        records.push(Record::Published(published));
        self.commit(records, local).await?;
        self.rewritten_board().clear(REWRITTEN);
        self.rewritten_board().clear(DAMAGED);
        self.rewritten_board().clear(NUMBER_TAKEN);
        self.tell_published(&manifest, completeness);
        Ok(Recorded {
            manifest: manifest.id(),
            generation: place.generation,
            files: manifest.files().len() as u64,
            bytes: manifest.total_bytes(),
            news: News::Published,
            version: self.version,
            messages,
        })
    }

    /// Returns what is said of the version, with what it was made from, and what a person should hear about that.
    async fn about(
        &self,
        before: Option<Arc<Manifest>>,
        whole: &WholeVersion,
    ) -> Result<(PublishDetails, Vec<String>), RecordError> {
        let root = self.project.dir();
        let root = root.ok_or_else(|| RecordError::Paused { project: self.project.name().clone() })?;
        // A hero that moved shows other files than before.
        let grown_from = before.filter(|_| self.version.slot != VersionSlot::Hero);
        let mut about = whole.about.clone();
        let publishing = Publishing {
            version: &self.version,
            dir: &whole.version.dir,
            files: &self.named,
            given: &about.inputs,
            grown_from: grown_from.clone(),
        };
        let gathered = inputs::gather(self.core, &root, &publishing).await;
        about.inputs = gathered.inputs;
        let (named, inputs) = (&self.named, &about.inputs);
        checks::note(self.core, self.project, &root, named, inputs, grown_from, &mut about.metadata).await;
        if let Some(incomplete) = gathered.incomplete
            && about.metadata.len() < MAX_METADATA_PAIRS
        {
            about.metadata.insert(inputs::INCOMPLETE.to_owned(), incomplete);
        }
        Ok((about, gathered.messages))
    }

    async fn store(&self, manifest: Manifest) -> Result<Manifest, RecordError> {
        let ledger = self.core.ledger.clone();
        let stored = blocking(move || ledger.put_manifest(&manifest).map(|_| manifest)).await;
        stored.map_err(|source| RecordError::Manifest { version: self.version.clone(), source })
    }
}
