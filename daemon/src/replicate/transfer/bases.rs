//! Objects that are here already and that what is missing may resemble: the bases of deltas.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use avalon_protocol::{
    delta_base::{by_nearness, can_help, entry_key},
    hash::{ManifestId, ObjectHash},
    id::{VersionId, VersionSlot},
    manifest::Manifest,
    wire::{Base, Want},
};
use avalon_store::{
    catalog::CatalogError,
    object::{incoming::Incoming, serve::ObjectReader},
};

use crate::{
    core::{Core, blocking},
    log::ErrorChain,
    replicate::{jobs::Job, serve::open_reader},
};

/// How many other generations are looked at, the nearest first.
const GENERATIONS: usize = 4;
/// How many versions of the subset are looked through.
const VERSIONS: usize = 1000;

/// The bases of one job.
#[derive(Debug, Default)]
pub(super) struct Bases {
    by_object: HashMap<ObjectHash, (ObjectHash, u64)>,
    /// Objects whose base turned out not to be what the peer has: they come as they are.
    spoiled: Mutex<HashSet<ObjectHash>>,
}

impl Bases {
    /// Looks for the entry of the same name in other versions of the subset that this node holds, for everything that is
    /// missing. Finding none is no error.
    pub(super) async fn find(
        core: &Arc<Core>,
        job: &Job,
        manifest: &Arc<Manifest>,
        incoming: &Arc<Incoming>,
    ) -> Self {
        let (core, version) = (Arc::clone(core), job.version.clone());
        let (manifest, incoming) = (Arc::clone(manifest), Arc::clone(incoming));
        let found = blocking(move || find(&core, &version, &manifest, &incoming)).await;
        let by_object = found.unwrap_or_else(|error| {
            tracing::debug!(version = %job.version, error = %ErrorChain(&error), "no bases for deltas");
            HashMap::new()
        });
        Self { by_object, spoiled: Mutex::default() }
    }

    /// Returns the bases of some wants.
    pub(super) fn of(&self, wants: &[Want]) -> Vec<Base> {
        let spoiled = self.spoiled.lock().unwrap_or_else(PoisonError::into_inner);
        let bases =
            (0u32..).zip(wants).filter(|(_, want)| want.blocks > 0 && !spoiled.contains(&want.object));
        let bases = bases.filter_map(|(want, wanted)| {
            let (object, size) = *self.by_object.get(&wanted.object)?;
            Some(Base { want, object, size })
        });
        bases.collect()
    }

    /// Opens the base of an object.
    pub(super) fn open(&self, core: &Core, version: &VersionId, object: &ObjectHash) -> Option<ObjectReader> {
        let (base, size) = self.by_object.get(object)?;
        open_reader(core, &version.project, base, *size).ok().flatten()
    }

    /// Takes note that the base of an object is of no use. Says whether that is new.
    pub(super) fn spoil(&self, object: ObjectHash) -> bool {
        self.spoiled.lock().unwrap_or_else(PoisonError::into_inner).insert(object)
    }
}

fn find(
    core: &Core,
    version: &VersionId,
    manifest: &Manifest,
    incoming: &Incoming,
) -> Result<HashMap<ObjectHash, (ObjectHash, u64)>, CatalogError> {
    let mut missing: HashMap<ObjectHash, u64> =
        incoming.needs().into_iter().map(|need| (need.object, need.size)).collect();
    let mut bases = HashMap::new();
    for (slot, id) in generations_here(core, version)? {
        if missing.is_empty() {
            break;
        }
        let Ok(Some(other)) = core.ledger.manifest(id) else { continue };
        let entries: HashMap<String, (ObjectHash, u64)> =
            other.files().iter().map(|file| (entry_key(&file.path, slot), (file.hash, file.size))).collect();
        for file in manifest.files() {
            let Some(size) = missing.get(&file.hash) else { continue };
            let base = entries.get(&entry_key(&file.path, version.slot));
            if let Some(base) = base.filter(|base| can_help(*size, base.1)) {
                bases.insert(file.hash, *base);
                missing.remove(&file.hash);
            }
        }
    }
    Ok(bases)
}

/// Returns generations of the subset that this node holds, the nearest to `version` first; of its own slot, those that
/// came before.
fn generations_here(
    core: &Core,
    version: &VersionId,
) -> Result<Vec<(VersionSlot, ManifestId)>, CatalogError> {
    let first = VersionId { slot: VersionSlot::Number(0), ..version.clone() };
    let mut held: BTreeMap<VersionSlot, Vec<ManifestId>> = BTreeMap::new();
    let zero = core.ledger.version(&first)?.map(|fold| (first.clone(), fold));
    let rest = core.ledger.versions(&version.project, Some(&version.asset), Some(&first), VERSIONS)?;
    let same = zero.into_iter().chain(rest).take_while(|(id, _)| id.subset == version.subset);
    for (id, fold) in same {
        held.insert(id.slot, fold.held_by(&core.me).collect());
    }
    let mut slots: Vec<VersionSlot> = held.keys().copied().collect();
    by_nearness(version.slot, &mut slots);
    let generations =
        slots.into_iter().flat_map(|slot| held.get(&slot).into_iter().flatten().map(move |id| (slot, *id)));
    Ok(generations.take(GENERATIONS).collect())
}
