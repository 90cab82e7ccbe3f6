//! `pins.json`: the versions that somebody wants to stay at this node.

use std::{
    collections::BTreeMap,
    io::Read as _,
    sync::{Mutex, MutexGuard, PoisonError},
};

use avalon_protocol::{
    control::{Health, Severity},
    id::{AssetName, ProjectName, SubsetName, VersionId, VersionSlot},
    rel_path::{InvalidPath, RelPath},
};
use avalon_store::fs::{Dir, IoError, WriteMode};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{health::HealthBoard, log::ErrorChain};

const NAME: &str = "pins.json";
const SCHEMA: &str = "avalond.pins/1";
/// Far more than it may hold: what is longer was not written by us.
const MAX_BYTES: u64 = 64 << 20;
/// Most pins of a node: more is a policy.
const MAX_PINS: usize = 100_000;
/// The health code of a file that cannot be read.
const UNREADABLE: &str = "pins-unreadable";

/// Why pins cannot be read or changed.
#[derive(Debug, Error)]
pub enum PinError {
    /// The system refuses.
    #[error("{NAME} cannot be read or written")]
    Io(#[source] IoError),
    /// Not what was written.
    #[error("{NAME} is damaged")]
    Json(#[source] serde_json::Error),
    /// Of another version of this program.
    #[error("{NAME} says {schema:?}, this version writes {SCHEMA:?}")]
    Schema {
        /// What it says.
        schema: String,
    },
    /// The file could not be read at the start, and nobody writes over it.
    #[error("{NAME} could not be read when the daemon started; mend or remove it and restart avalond")]
    Unknown,
    /// There are more than anybody means.
    #[error(
        "{MAX_PINS} versions are pinned, more are not possible; a rule of the policy keeps as many as one likes"
    )]
    TooMany,
    /// The name of the file; it is one.
    #[error("{NAME} is no name")]
    Name(#[source] InvalidPath),
}

/// Who wants a version to stay, and since when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Who pinned it.
    pub by: String,
    /// When, in milliseconds since 1970.
    pub since_ms: u64,
}

/// The pins of a node. Changes wait for the disk.
#[derive(Debug)]
pub struct Pins {
    dir: Dir,
    /// `None` when nobody knows them: then everything counts as pinned.
    kept: Mutex<Option<BTreeMap<VersionId, Pin>>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    schema: String,
    pins: Vec<StoredPin>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredPin {
    project: ProjectName,
    asset: AssetName,
    subset: SubsetName,
    version: VersionSlot,
    by: String,
    since_ms: u64,
}

impl Pins {
    /// Reads the file. One that cannot be read is a matter of health, and nothing is dropped until it is mended.
    pub(super) fn open(dir: &Dir, health: &HealthBoard) -> Self {
        let kept = read(dir).inspect_err(|error| {
            tracing::error!(error = %ErrorChain(error), "the pins are not known; nothing is dropped at this node");
            health.raise(Health {
                code: UNREADABLE.into(),
                severity: Severity::Error,
                message: format!(
                    "nobody knows what is pinned at this node, so nothing is dropped: {}",
                    ErrorChain(error)
                ),
                hint: Some(format!("mend or remove {NAME} in the state directory and restart avalond")),
            });
        });
        Self { dir: dir.clone(), kept: Mutex::new(kept.ok()) }
    }

    /// Says whether a version is to stay; also when nobody knows.
    pub fn contains(&self, version: &VersionId) -> bool {
        self.lock().as_ref().is_none_or(|kept| kept.contains_key(version))
    }

    /// Returns the pin of a version.
    pub fn get(&self, version: &VersionId) -> Option<Pin> {
        self.lock().as_ref()?.get(version).cloned()
    }

    /// Returns all, in order.
    ///
    /// # Errors
    /// [`PinError::Unknown`].
    pub fn all(&self) -> Result<Vec<(VersionId, Pin)>, PinError> {
        let kept = self.lock();
        let kept = kept.as_ref().ok_or(PinError::Unknown)?;
        Ok(kept.iter().map(|(version, pin)| (version.clone(), pin.clone())).collect())
    }

    /// Pins versions; who pinned one first stays. Durable when this returns. Returns which are new.
    ///
    /// # Errors
    /// [`PinError`]; nothing was changed.
    pub fn add(&self, versions: &[VersionId], pin: &Pin) -> Result<Vec<VersionId>, PinError> {
        self.change(|kept| {
            let new: Vec<VersionId> =
                versions.iter().filter(|version| !kept.contains_key(*version)).cloned().collect();
            kept.extend(new.iter().map(|version| (version.clone(), pin.clone())));
            if kept.len() > MAX_PINS { Err(PinError::TooMany) } else { Ok(new) }
        })
    }

    /// Unpins versions. Durable when this returns. Returns which were pinned.
    ///
    /// # Errors
    /// [`PinError`]; nothing was changed.
    pub fn remove(&self, versions: &[VersionId]) -> Result<Vec<VersionId>, PinError> {
        self.change(|kept| {
            Ok(versions.iter().filter(|version| kept.remove(*version).is_some()).cloned().collect())
        })
    }

    fn change(
        &self,
        change: impl FnOnce(&mut BTreeMap<VersionId, Pin>) -> Result<Vec<VersionId>, PinError>,
    ) -> Result<Vec<VersionId>, PinError> {
        let mut kept = self.lock();
        let mut new = kept.clone().ok_or(PinError::Unknown)?;
        let changed = change(&mut new)?;
        if !changed.is_empty() {
            write(&self.dir, &new)?;
            *kept = Some(new);
        }
        Ok(changed)
    }

    fn lock(&self) -> MutexGuard<'_, Option<BTreeMap<VersionId, Pin>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name() -> Result<RelPath, PinError> {
    NAME.parse().map_err(PinError::Name)
}

fn read(dir: &Dir) -> Result<BTreeMap<VersionId, Pin>, PinError> {
    let file = match dir.open_file(&name()?) {
        Err(error) if error.is_not_found() => return Ok(BTreeMap::new()),
        opened => opened.map_err(PinError::Io)?,
    };
    let mut bytes = Vec::new();
    file.take(MAX_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|error| PinError::Io(IoError::new("read", dir.path().join(NAME), error)))?;
    let stored: Stored = serde_json::from_slice(&bytes).map_err(PinError::Json)?;
    if stored.schema != SCHEMA {
        return Err(PinError::Schema { schema: stored.schema });
    }
    let pins = stored.pins.into_iter().map(|pin| {
        let StoredPin { project, asset, subset, version: slot, by, since_ms } = pin;
        (VersionId { project, asset, subset, slot }, Pin { by, since_ms })
    });
    Ok(pins.collect())
}

fn write(dir: &Dir, kept: &BTreeMap<VersionId, Pin>) -> Result<(), PinError> {
    let pins = kept.iter().map(|(version, pin)| StoredPin {
        project: version.project.clone(),
        asset: version.asset.clone(),
        subset: version.subset.clone(),
        version: version.slot,
        by: pin.by.clone(),
        since_ms: pin.since_ms,
    });
    let stored = Stored { schema: SCHEMA.into(), pins: pins.collect() };
    let mut bytes = serde_json::to_vec_pretty(&stored).map_err(PinError::Json)?;
    bytes.push(b'\n');
    dir.write_atomic(&name()?, &bytes, WriteMode::Replace).map_err(PinError::Io)
}

#[cfg(test)]
mod tests {
    use std::{fs, sync::Arc};

    use super::*;
    use crate::{clock::ManualClock, events::EventBus, fixture::version};

    fn board() -> HealthBoard {
        HealthBoard::new(EventBus::new(Arc::new(ManualClock::new())))
    }

    #[test]
    fn pins_outlive_a_restart_and_the_first_to_pin_stays() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, health) = (Dir::open(temp.path()).unwrap(), board());
        let pins = Pins::open(&dir, &health);
        let anna = Pin { by: "anna".into(), since_ms: 5 };
        assert_eq!(pins.add(&[version(1), version(2)], &anna).unwrap(), [version(1), version(2)]);
        let ben = Pin { by: "ben".into(), since_ms: 6 };
        assert_eq!(pins.add(&[version(2), version(3)], &ben).unwrap(), [version(3)]);
        assert_eq!(pins.remove(&[version(1), version(9)]).unwrap(), [version(1)]);
        let again = Pins::open(&dir, &health);
        assert_eq!(again.all().unwrap(), [(version(2), anna), (version(3), ben)]);
        assert!(!again.contains(&version(1)) && again.contains(&version(2)));
        assert!(health.items().is_empty());
    }

    #[test]
    fn while_nobody_knows_the_pins_everything_is_pinned_and_the_file_is_left() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, health) = (Dir::open(temp.path()).unwrap(), board());
        for text in ["{", "{\"schema\":\"avalond.pins/9\",\"pins\":[]}"] {
            dir.write_atomic(&name().unwrap(), text.as_bytes(), WriteMode::Replace).unwrap();
            let pins = Pins::open(&dir, &health);
            assert!(pins.contains(&version(1)));
            assert!(matches!(pins.all(), Err(PinError::Unknown)));
            let pin = Pin { by: String::new(), since_ms: 0 };
            assert!(matches!(pins.add(&[version(1)], &pin), Err(PinError::Unknown)));
            assert_eq!(fs::read_to_string(temp.path().join(NAME)).unwrap(), text);
        }
        assert_eq!(health.items()[0].code, UNREADABLE);
    }
}
