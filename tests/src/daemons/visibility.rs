//! Whether a version becomes visible at once: a thread looks again and again.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// Looks at a directory until it is told to stop.
#[derive(Debug)]
pub struct Visibility {
    stop: Arc<AtomicBool>,
    looking: JoinHandle<Looked>,
}

/// What was seen.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Looked {
    /// How often the directory was not there.
    pub absent: u64,
    /// How often it was there.
    pub there: u64,
    /// Every different set of names that was seen in it.
    pub sets: BTreeSet<Vec<OsString>>,
}

impl Looked {
    fn look(&mut self, dir: &Path) {
        let Ok(entries) = fs::read_dir(dir) else {
            self.absent += 1;
            return;
        };
        self.there += 1;
        let mut names: Vec<OsString> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        self.sets.insert(names);
    }
}

impl Visibility {
    /// Begins to look.
    pub fn of(dir: &Path) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (dir, stop_there): (PathBuf, _) = (dir.to_owned(), Arc::clone(&stop));
        let looking = thread::spawn(move || {
            let mut looked = Looked::default();
            // The last look is after the end, so that a starved thread sees it as well.
            let mut is_last = false;
            while !is_last {
                is_last = stop_there.load(Ordering::Acquire);
                looked.look(&dir);
                thread::yield_now();
            }
            looked
        });
        Self { stop, looking }
    }

    /// Ends, and returns what was seen.
    pub fn stop(self) -> Looked {
        self.stop.store(true, Ordering::Release);
        self.looking.join().unwrap()
    }
}
