//! Looks at a site's project while versions arrive: a version must be there whole, or not at all.

use std::{cell::RefCell, fs, future::Future, path::PathBuf, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use super::{node::Node, show::ShowVersion};

/// How often to look.
const PERIOD: Duration = Duration::from_millis(5);

/// What is looked at, and what was seen.
#[derive(Debug, Default)]
pub(super) struct Visibility {
    expected: RefCell<Vec<Expected>>,
    half_seen: RefCell<Vec<String>>,
}

#[derive(Debug)]
struct Expected {
    what: String,
    dir: PathBuf,
    files: Vec<(PathBuf, u64)>,
}

impl Visibility {
    /// Looks at a version at a node from now on.
    pub(super) fn expect(&self, node: &Node, version: &ShowVersion) {
        let dir = node.project_dir().join(&version.dir);
        let files = version.files.iter().map(|file| (dir.join(&file.path), file.bytes)).collect();
        let what = format!("{} at {}", version.id, node.name);
        self.expected.borrow_mut().push(Expected { what, dir, files });
    }

    /// Returns the versions that were seen before all of them was there.
    pub(super) fn half_seen(&self) -> Vec<String> {
        self.half_seen.borrow().clone()
    }

    /// Runs something and looks meanwhile.
    pub(super) async fn during<F: Future>(&self, work: F) -> F::Output {
        tokio::select! {
            output = work => output,
            never = self.watch() => match never {},
        }
    }

    async fn watch(&self) -> std::convert::Infallible {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            self.look();
        }
    }

    /// Looks once. What has been seen, whole or not, need not be looked at again.
    fn look(&self) {
        self.expected.borrow_mut().retain(|expected| {
            if fs::symlink_metadata(&expected.dir).is_err() {
                return true;
            }
            let is_whole =
                |(path, bytes): &(PathBuf, u64)| fs::metadata(path).is_ok_and(|found| found.len() == *bytes);
            if !expected.files.iter().all(is_whole) {
                self.half_seen.borrow_mut().push(expected.what.clone());
            }
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_that_is_there_in_part_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let visibility = Visibility::default();
        for (name, bytes) in [("absent", 1), ("whole", 0), ("half", 7)] {
            let version = dir.path().join(name);
            if name != "absent" {
                fs::create_dir(&version).unwrap();
                fs::File::create(version.join("a")).unwrap();
            }
            let files = vec![(version.join("a"), bytes)];
            visibility.expected.borrow_mut().push(Expected { what: name.into(), dir: version, files });
        }
        visibility.look();
        visibility.look();
        assert_eq!(visibility.half_seen(), ["half"]);
        assert_eq!(visibility.expected.borrow().len(), 1, "only the absent one is looked at again");
    }
}
