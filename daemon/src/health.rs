//! [`HealthBoard`]: what somebody has to look at, now.
//!
//! A part of the daemon that finds something wrong raises it here and clears it when it is well again, as often as it
//! likes; `status` shows the board, and only a change makes an event.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use avalon_protocol::control::{EventKind, Health};

use crate::events::EventBus;

/// What is wrong now. Clones are the same board, and so is what [`HealthBoard::about`] returns.
#[derive(Debug, Clone)]
pub struct HealthBoard {
    bus: EventBus,
    subject: Option<String>,
    items: Arc<Mutex<BTreeMap<Key, Health>>>,
}

/// The code, and what it is about when that can be several things.
type Key = (String, Option<String>);

impl HealthBoard {
    /// Makes a board where all is well; it tells its changes to `bus`.
    pub fn new(bus: EventBus) -> Self {
        Self { bus, subject: None, items: Arc::default() }
    }

    /// Returns the same board for what is about one thing, such as a project or a peer: two of them can raise the same
    /// code, and each clears its own.
    #[must_use]
    pub fn about(&self, subject: &str) -> Self {
        Self { subject: Some(subject.to_owned()), ..self.clone() }
    }

    /// Says that something is wrong, or is wrong in another way than before.
    pub fn raise(&self, health: Health) {
        self.raise_news(health);
    }

    /// As [`Self::raise`], and returns whether it is news.
    pub fn raise_news(&self, health: Health) -> bool {
        let key = (health.code.clone(), self.subject.clone());
        let mut items = self.lock();
        let is_news = items.get(&key) != Some(&health);
        if is_news {
            items.insert(key, health.clone());
            // Under the lock, so that events come in the order of the changes.
            self.bus.emit(EventKind::Problem { health });
        }
        is_news
    }

    /// Says that it is well again, if it was not.
    pub fn clear(&self, code: &str) {
        let mut items = self.lock();
        if items.remove(&(code.to_owned(), self.subject.clone())).is_some() {
            self.bus.emit(EventKind::Solved { code: code.to_owned() });
        }
    }

    /// Returns all that is wrong, whatever it is about: errors first, then by code and subject.
    pub fn items(&self) -> Vec<Health> {
        let mut items: Vec<Health> = self.lock().values().cloned().collect();
        items.sort_by_key(|health| Reverse(health.severity));
        items
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Key, Health>> {
        // Every change under the lock is one insertion or removal.
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use avalon_protocol::control::Severity;

    use super::*;
    use crate::clock::ManualClock;

    fn board() -> HealthBoard {
        HealthBoard::new(EventBus::new(Arc::new(ManualClock::new())))
    }

    fn health(code: &str, severity: Severity, message: &str) -> Health {
        Health { code: code.into(), severity, message: message.into(), hint: None }
    }

    fn kinds(board: &HealthBoard) -> Vec<EventKind> {
        board.bus.since(0).0.iter().map(|event| event.kind.clone()).collect()
    }

    #[test]
    fn only_changes_make_events() {
        let board = board();
        let full = health("disk-full", Severity::Warning, "2 GiB left");
        let fuller = health("disk-full", Severity::Error, "nothing left");
        board.clear("disk-full");
        board.raise(full.clone());
        board.raise(full.clone());
        board.raise(fuller.clone());
        board.clear("disk-full");
        board.clear("disk-full");
        let problem = |health| EventKind::Problem { health };
        let solved = EventKind::Solved { code: "disk-full".into() };
        assert_eq!(kinds(&board), [problem(full), problem(fuller), solved]);
        assert!(board.items().is_empty());
    }

    #[test]
    fn two_projects_can_have_the_same_trouble() {
        let board = board();
        for project in ["lantern", "harbour"] {
            board.about(project).raise(health("root-missing", Severity::Error, project));
        }
        board.clear("root-missing");
        assert_eq!(board.items().len(), 2);
        board.about("lantern").clear("root-missing");
        let left: Vec<String> = board.items().into_iter().map(|health| health.message).collect();
        assert_eq!(left, ["harbour"]);
    }

    #[test]
    fn errors_come_first() {
        let board = board();
        board.raise(health("a", Severity::Warning, ""));
        board.raise(health("b", Severity::Error, ""));
        board.raise(health("c", Severity::Warning, ""));
        board.raise(health("d", Severity::Error, ""));
        let codes: Vec<String> = board.items().into_iter().map(|health| health.code).collect();
        assert_eq!(codes, ["b", "d", "a", "c"]);
    }
}
