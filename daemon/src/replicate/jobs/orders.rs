//! [`Orders`]: what people said about the queue: pauses, and what goes first. Kept in `queue.json` in the state directory, so
//! that a restart does not bring what somebody paused.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use avalon_protocol::{
    control::{Health, Prio, Severity},
    frames::FrameWish,
    id::{ProjectName, VersionId},
};
use avalon_store::fs::Dir;
use serde::{Deserialize, Serialize};

use crate::{
    clock::time_of_ms,
    health::HealthBoard,
    log::ErrorChain,
    state_file::{StateFile, StateFileError},
};

const NAME: &str = "queue.json";
const SCHEMA: &str = "avalond.queue/1";

/// The health code of a file that cannot be read.
const UNREADABLE: &str = "queue-unreadable";
/// The health code of a node that fetches nothing.
const PAUSED: &str = "fetching-paused";

/// Who paused something, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Paused {
    /// The user.
    pub by: String,
    /// In milliseconds since 1970.
    pub at_ms: u64,
}

impl std::fmt::Display for Paused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "paused by {} since {}", self.by, time_of_ms(self.at_ms))
    }
}

/// What was said about one version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Order {
    /// It is not to be fetched for now.
    pub paused: Option<Paused>,
    /// When its turn comes.
    pub prio: Option<Prio>,
    /// Some frames of it are wanted.
    #[serde(default)]
    pub frames: Option<FrameWish>,
}

/// All that was said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Book {
    /// Nothing is to be fetched for now.
    pub paused: Option<Paused>,
    /// About single versions.
    pub versions: BTreeMap<VersionId, Order>,
}

impl Book {
    /// Returns who paused a version, or all.
    pub fn paused(&self, version: &VersionId) -> Option<&Paused> {
        let of_version = self.versions.get(version).and_then(|order| order.paused.as_ref());
        self.paused.as_ref().or(of_version)
    }
}

#[derive(Serialize, Deserialize)]
struct Stored {
    paused: Option<Paused>,
    versions: Vec<(VersionId, Order)>,
}

/// What people said about the queue of this node.
#[derive(Debug)]
pub struct Orders {
    file: StateFile,
    health: HealthBoard,
    book: Mutex<Book>,
}

impl Orders {
    /// Takes what was said before. A file that cannot be read is a matter of health, not of the start. Blocks.
    pub fn open(dir: &Dir, health: &HealthBoard) -> Self {
        let file = StateFile::new(dir, NAME, SCHEMA);
        let read = file.read::<Stored>().unwrap_or_else(|error| {
            tracing::warn!(error = %ErrorChain(&error), "what was said about the queue is not known");
            health.raise(unreadable(&error));
            None
        });
        let book = read.map_or_else(Book::default, |stored| Book {
            paused: stored.paused,
            versions: stored.versions.into_iter().collect(),
        });
        let orders = Self { file, health: health.clone(), book: Mutex::new(book) };
        orders.tell(&orders.lock());
        orders
    }

    /// Returns all that holds.
    pub fn book(&self) -> Book {
        self.lock().clone()
    }

    /// Returns who paused a version, or all.
    pub fn paused(&self, version: &VersionId) -> Option<Paused> {
        self.lock().paused(version).cloned()
    }

    /// Returns what was said about the order of a version.
    pub fn prio(&self, version: &VersionId) -> Option<Prio> {
        self.lock().versions.get(version)?.prio
    }

    /// Returns which frames of a version are wanted.
    pub fn frames(&self, version: &VersionId) -> Option<FrameWish> {
        self.lock().versions.get(version)?.frames.clone()
    }

    /// Returns the versions of a project of which frames are wanted.
    pub fn with_frames(&self, project: &ProjectName) -> Vec<VersionId> {
        let book = self.lock();
        let wanted =
            book.versions.iter().filter(|(id, order)| id.project == *project && order.frames.is_some());
        wanted.map(|(id, _)| id.clone()).collect()
    }

    /// Changes what holds, once it is on disk. Blocks.
    ///
    /// # Errors
    /// [`StateFileError`]; nothing has changed.
    pub fn change(&self, change: impl FnOnce(&mut Book)) -> Result<(), StateFileError> {
        let mut book = self.lock();
        let mut changed = book.clone();
        change(&mut changed);
        changed.versions.retain(|_, order| *order != Order::default());
        if changed == *book {
            return Ok(());
        }
        let versions = changed.versions.iter().map(|(version, order)| (version.clone(), order.clone()));
        self.file.write(&Stored { paused: changed.paused.clone(), versions: versions.collect() })?;
        *book = changed;
        self.health.clear(UNREADABLE);
        self.tell(&book);
        Ok(())
    }

    /// Says whether anything was said about a version.
    pub fn has(&self, version: &VersionId) -> bool {
        self.lock().versions.contains_key(version)
    }

    fn tell(&self, book: &Book) {
        let Some(paused) = &book.paused else { return self.health.clear(PAUSED) };
        self.health.raise(Health {
            code: PAUSED.into(),
            severity: Severity::Warning,
            message: format!("this node fetches nothing: {paused}"),
            hint: Some("go on: avalonctl resume".into()),
        });
    }

    fn lock(&self) -> MutexGuard<'_, Book> {
        // A change is made on a copy.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unreadable(error: &StateFileError) -> Health {
    Health {
        code: UNREADABLE.into(),
        severity: Severity::Warning,
        message: format!("what was said about the queue is not known any more: {}", ErrorChain(error)),
        hint: Some("pause what is to be paused again: avalonctl queue; the file is replaced then".into()),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "a damaged file needs no durability")]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{clock::ManualClock, events::EventBus, fixture::version};

    fn board() -> HealthBoard {
        HealthBoard::new(EventBus::new(Arc::new(ManualClock::new())))
    }

    #[test]
    fn what_was_said_holds_over_a_restart_until_it_is_taken_back() {
        let temp = tempfile::tempdir().unwrap();
        let (dir, health) = (Dir::open(temp.path()).unwrap(), board());
        let orders = Orders::open(&dir, &health);
        let anna = Paused { by: "anna".into(), at_ms: 1_763_800_000_000 };
        let frames = FrameWish { frames: "1001-1050x10".parse().unwrap(), representation: None };
        let of_one =
            Order { paused: Some(anna.clone()), prio: Some(Prio::Low), frames: Some(frames.clone()) };
        orders
            .change(|book| book.versions.extend([(version(1), of_one), (version(2), Order::default())]))
            .unwrap();
        let again = Orders::open(&dir, &health);
        assert_eq!((again.paused(&version(1)), again.paused(&version(2))), (Some(anna.clone()), None));
        assert_eq!((again.prio(&version(1)), again.has(&version(2))), (Some(Prio::Low), false));
        assert_eq!(
            (again.frames(&version(1)), again.with_frames(&version(1).project)),
            (Some(frames), vec![version(1)])
        );
        assert!(health.items().is_empty());
        again.change(|book| book.paused = Some(anna.clone())).unwrap();
        let health = board();
        let again = Orders::open(&dir, &health);
        assert_eq!(again.paused(&version(2)), Some(anna));
        assert_eq!(health.items()[0].code, PAUSED, "nobody wonders why nothing comes");
        again.change(|book| *book = Book::default()).unwrap();
        assert!(health.items().is_empty() && Orders::open(&dir, &health).book() == Book::default());
    }

    #[test]
    fn a_file_that_is_damaged_is_told_and_replaced_by_what_is_said_next() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join(NAME), "{").unwrap();
        let (dir, health) = (Dir::open(temp.path()).unwrap(), board());
        let orders = Orders::open(&dir, &health);
        assert_eq!(health.items()[0].code, UNREADABLE);
        let order = Order { prio: Some(Prio::Now), ..Order::default() };
        orders.change(|book| drop(book.versions.insert(version(1), order))).unwrap();
        assert!(health.items().is_empty());
        assert_eq!(Orders::open(&dir, &health).prio(&version(1)), Some(Prio::Now));
    }
}
