//! [`Settle`], the state machine of one version directory.

use std::time::Duration;

use super::{
    Blocker, DirSnapshot, EndMark, NameProblem, SeenFile, WaitReason, Warning,
    reason::{empty_files, gaps, new_gaps, signs_of_work},
};
use crate::manifest::Completeness;

/// How long nothing may change before a version is believed to be done: longer than a program pauses between two files
/// of one publish, short enough that nobody wonders.
pub const DEFAULT_QUIET: Duration = Duration::from_secs(5);

/// The same while a file has no bytes: it was probably just created, and over NFS its bytes may take their time.
pub const EMPTY_FILE_QUIET: Duration = Duration::from_secs(60);

/// How often a version that waits for something other than time is looked at again, at the latest: the watcher tells of
/// changes on a local disk, and on a network mount it does not.
const MAX_RECHECK_MS: u64 = 60_000;
/// And at the earliest.
const MIN_RECHECK_MS: u64 = 1_000;

/// How patient a [`Settle`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SettleConfig {
    /// How long nothing may change.
    pub quiet: Duration,
    /// How long nothing may change while a file is empty; counts only when it is longer than `quiet`.
    pub empty_file_quiet: Duration,
}

impl Default for SettleConfig {
    fn default() -> Self {
        Self { quiet: DEFAULT_QUIET, empty_file_quiet: EMPTY_FILE_QUIET }
    }
}

/// Decides when one version directory is whole.
///
/// The caller looks at the directory when it likes, hands in what it saw, and looks again at `until_ms` or when something
/// is touched. Time is in milliseconds of one monotonic clock. A version is [`Verdict::Whole`] when, in this order,
///
/// 1. it holds a file (else [`Verdict::Empty`]);
/// 2. nothing in it is impossible to publish (else [`Verdict::Refused`]);
/// 3. no lock, temporary file or backup is in it, no process writes it, and no file lacks the end mark of its format;
/// 4. its sequences have no gap but what was missing already when it was recorded; a constant step is none, nor are UDIM
///    tiles;
/// 5. nothing changed for the quiet period: no path, size, time or inode of a file, no lock, and nothing was touched.
///    While a file is empty, that is the longer period for empty files; then it is published with a warning.
///
/// The quiet period runs from when this machine *saw* the state first. The age of a file proves nothing: a hard link and
/// `cp -p` keep the old time of modification.
///
/// An explicit request stands for 4 and 5: somebody says that it is whole. It does not stand for 3: the version then waits
/// for the lock to go or the file to be closed, and is whole at once when that happens; a half-written file is published
/// for nobody. Rule 2 ends the request.
///
/// Waiting for 3 and 4 has no end of its own; [`WaitReason`] says what is lacking.
#[derive(Debug, Clone)]
pub struct Settle {
    config: SettleConfig,
    /// The files of the last look, in the order of their paths.
    files: Vec<SeenFile>,
    blockers: Vec<Blocker>,
    /// When the state was first seen as it is, or last touched.
    changed_ms: Option<u64>,
    request: Request,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Request {
    None,
    Explicit,
}

/// What to do with a version directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Look again.
    Wait {
        /// When, if nothing is touched before; later than now.
        until_ms: u64,
        /// What is lacking, at least one thing.
        why: Vec<WaitReason>,
    },
    /// Publish it.
    Whole {
        /// The strongest signal that says so.
        completeness: Completeness,
        /// Its files, in the order of their paths.
        files: Vec<SeenFile>,
        /// What a person should hear about it.
        warnings: Vec<Warning>,
    },
    /// It cannot be published before somebody changes something.
    Refused {
        /// What, at least one thing.
        problems: Vec<NameProblem>,
    },
    /// There is nothing in it.
    Empty,
}

impl Settle {
    /// Starts to decide about a directory of which nothing is known.
    pub fn new(config: SettleConfig) -> Self {
        Self { config, files: Vec::new(), blockers: Vec::new(), changed_ms: None, request: Request::None }
    }

    /// Changes how patient it is, from the next look on.
    pub fn configure(&mut self, config: SettleConfig) {
        self.config = config;
    }

    /// Notes that the watcher saw something happen in the directory; the quiet period starts again.
    pub fn touched(&mut self, now_ms: u64) {
        self.changed_ms = Some(now_ms);
    }

    /// Notes that somebody said that the version is whole. It counts until the version is whole, refused or empty.
    pub fn request_explicit(&mut self) {
        self.request = Request::Explicit;
    }

    /// Returns the files of the last look, in the order of their paths.
    pub fn files(&self) -> &[SeenFile] {
        &self.files
    }

    /// Decides, given what the directory looks like now.
    pub fn observe(&mut self, now_ms: u64, snapshot: &DirSnapshot) -> Verdict {
        let changed_ms = self.note(now_ms, snapshot);
        if self.files.is_empty() && self.blockers.is_empty() && snapshot.problems.is_empty() {
            *self = Self::new(self.config);
            return Verdict::Empty;
        }
        if !snapshot.problems.is_empty() {
            self.request = Request::None;
            return Verdict::Refused { problems: snapshot.problems.clone() };
        }
        let mut why = signs_of_work(&self.files, snapshot);
        let gaps = gaps(&self.files);
        if self.request == Request::None {
            why.extend(new_gaps(&gaps, &snapshot.recorded).into_iter().map(WaitReason::Gap));
        }
        let helps = if why.is_empty() { Helps::Time } else { Helps::Somebody };
        if self.request == Request::None {
            why.extend(self.not_quiet(now_ms, changed_ms));
        }
        if why.is_empty() {
            return self.whole(gaps);
        }
        Verdict::Wait { until_ms: self.next_look(now_ms, changed_ms, helps), why }
    }

    /// Remembers what was seen and returns since when it has been so.
    fn note(&mut self, now_ms: u64, snapshot: &DirSnapshot) -> u64 {
        let mut files: Vec<&SeenFile> = snapshot.files.iter().collect();
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let mut blockers = snapshot.blockers.clone();
        blockers.sort();
        let same_files = files.len() == self.files.len()
            && files.iter().zip(&self.files).all(|(now, before)| now.is_unchanged(before));
        let since = self.changed_ms.filter(|_| same_files && blockers == self.blockers).unwrap_or(now_ms);
        // Kept also when unchanged: an end mark may be written within one tick of the file system's clock.
        self.files = files.into_iter().cloned().collect();
        self.blockers = blockers;
        self.changed_ms = Some(since);
        since
    }

    /// Returns the period for which nothing may change, given what is there.
    fn quiet(&self) -> Duration {
        match empty_files(&self.files) {
            Some(_) => self.config.quiet.max(self.config.empty_file_quiet),
            None => self.config.quiet,
        }
    }

    fn not_quiet(&self, now_ms: u64, changed_ms: u64) -> Option<WaitReason> {
        let ago = Duration::from_millis(now_ms.saturating_sub(changed_ms));
        if ago >= self.quiet() {
            return None;
        }
        match empty_files(&self.files) {
            Some((path, others)) if ago >= self.config.quiet => {
                Some(WaitReason::EmptyFile { path, others, quiet: self.quiet() })
            }
            _ => Some(WaitReason::Changing { ago, quiet: self.config.quiet }),
        }
    }

    fn next_look(&self, now_ms: u64, changed_ms: u64, helps: Helps) -> u64 {
        let quiet_ms = millis(self.quiet());
        let quiet_end = changed_ms.saturating_add(quiet_ms);
        match helps {
            Helps::Time => quiet_end.max(now_ms + 1),
            Helps::Somebody => {
                let age_ms = now_ms.saturating_sub(changed_ms);
                let pause_ms =
                    (age_ms / 2).max(millis(self.config.quiet)).clamp(MIN_RECHECK_MS, MAX_RECHECK_MS);
                now_ms.saturating_add(pause_ms)
            }
        }
    }

    fn whole(&mut self, gaps: Vec<super::FrameGap>) -> Verdict {
        let has = |mark| self.files.iter().any(|file| file.end_mark == mark);
        let completeness = match self.request {
            Request::Explicit => Completeness::Explicit,
            Request::None if has(EndMark::Closed) && !has(EndMark::Open) => Completeness::EndMarks,
            Request::None => Completeness::Quiet,
        };
        let empty = empty_files(&self.files).map(|(path, others)| Warning::EmptyFile { path, others });
        let warnings = empty.into_iter().chain(gaps.into_iter().map(Warning::Gap)).collect();
        self.request = Request::None;
        Verdict::Whole { completeness, files: self.files.clone(), warnings }
    }
}

/// What ends a wait.
enum Helps {
    Time,
    Somebody,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::{BlockerKind, ProblemKind},
        *,
    };

    const QUIET_MS: u64 = 5_000;

    /// A directory that is written while virtual time goes on.
    struct Publish {
        settle: Settle,
        now_ms: u64,
        disk: DirSnapshot,
        inodes: u64,
    }

    impl Publish {
        fn new() -> Self {
            Self {
                settle: Settle::new(SettleConfig::default()),
                now_ms: 1_000_000,
                disk: DirSnapshot::default(),
                inodes: 0,
            }
        }

        /// Writes a file with the times of now.
        fn write(&mut self, path: &str, size: u64) {
            self.write_marked(path, size, EndMark::Unknown);
        }

        fn write_marked(&mut self, path: &str, size: u64, end_mark: EndMark) {
            let now_ns = i64::try_from(self.now_ms).unwrap() * 1_000_000;
            self.link(path, size, now_ns);
            self.disk.files.last_mut().unwrap().end_mark = end_mark;
        }

        /// Links a file of any age into the directory.
        fn link(&mut self, path: &str, size: u64, mtime_ns: i64) {
            self.remove(path);
            self.inodes += 1;
            self.disk.files.push(SeenFile {
                path: path.parse().unwrap(),
                size,
                mtime_ns,
                ctime_ns: mtime_ns,
                inode: self.inodes,
                end_mark: EndMark::Unknown,
            });
        }

        fn remove(&mut self, path: &str) {
            self.disk.files.retain(|file| file.path.as_str() != path);
        }

        fn block(&mut self, path: &str, kind: BlockerKind) {
            self.disk.blockers.push(Blocker { path: path.parse().unwrap(), kind, age_hours: 0, who: None });
        }

        fn unblock(&mut self) {
            self.disk.blockers.clear();
        }

        fn pass(&mut self, seconds: u64) {
            self.now_ms += seconds * 1_000;
        }

        fn look(&mut self) -> Verdict {
            self.settle.observe(self.now_ms, &self.disk)
        }

        /// Looks and returns why the version waits, each reason as people read it.
        fn why(&mut self) -> Vec<String> {
            match self.look() {
                Verdict::Wait { until_ms, why } => {
                    assert!(until_ms > self.now_ms, "a wait must not spin");
                    why.iter().map(ToString::to_string).collect()
                }
                other => panic!("expected to wait, got {other:?}"),
            }
        }

        fn whole(&mut self) -> (Completeness, Vec<String>, Vec<String>) {
            match self.look() {
                Verdict::Whole { completeness, files, warnings } => (
                    completeness,
                    files.iter().map(|file| file.path.to_string()).collect(),
                    warnings.iter().map(ToString::to_string).collect(),
                ),
                other => panic!("expected a whole version, got {other:?}"),
            }
        }
    }

    fn frame(number: u32) -> String {
        format!("beauty.exr/beauty.{number}.exr")
    }

    #[test]
    fn a_version_is_whole_after_the_quiet_period_and_not_before() {
        let mut publish = Publish::new();
        publish.write("model.obj", 10);
        assert_eq!(publish.why(), ["changed 0 s ago; waiting for 5 s of quiet"]);
        publish.pass(4);
        assert_eq!(publish.why(), ["changed 4 s ago; waiting for 5 s of quiet"]);
        let Verdict::Wait { until_ms, .. } = publish.look() else { panic!("must wait") };
        assert_eq!(until_ms, 1_000_000 + QUIET_MS);
        publish.now_ms = until_ms;
        assert_eq!(publish.whole(), (Completeness::Quiet, vec!["model.obj".into()], vec![]));
    }

    #[test]
    fn files_that_come_slowly_and_out_of_order_are_one_whole_version_at_the_end() {
        // Benchmark shape B7: once a gap shows, no pause lets the version out. Two frames alone can be on any step.
        let mut publish = Publish::new();
        for (number, pause_s) in [(1001, 4), (1006, 4), (1003, 120), (1002, 120), (1005, 600)] {
            publish.write(&frame(number), 100);
            publish.why();
            publish.pass(pause_s);
        }
        assert_eq!(publish.why(), ["frame 1004 of beauty.exr/beauty.[1001-1006].exr is missing"]);
        publish.write(&frame(1004), 100);
        publish.look();
        publish.pass(5);
        assert_eq!(publish.whole().1.len(), 6);
    }

    #[test]
    fn a_file_that_grows_or_is_replaced_starts_the_quiet_period_again() {
        let mut publish = Publish::new();
        publish.write("a.vdb", 1);
        publish.look();
        for size in 2..6 {
            publish.pass(4);
            publish.disk.files[0].size = size;
            publish.why();
        }
        publish.pass(4);
        publish.disk.files[0].inode = 99;
        publish.why();
        publish.pass(4);
        publish.disk.files[0].mtime_ns += 1;
        publish.why();
        publish.pass(5);
        publish.whole();
    }

    #[test]
    fn a_touch_starts_the_quiet_period_again() {
        let mut publish = Publish::new();
        publish.write("a.vdb", 1);
        publish.look();
        publish.pass(4);
        publish.settle.touched(publish.now_ms);
        publish.pass(4);
        publish.why();
        publish.pass(1);
        publish.whole();
    }

    #[test]
    fn a_hard_link_with_an_old_time_waits_as_long_as_any_file() {
        let mut publish = Publish::new();
        publish.link("a.abc", 1, 1_000);
        publish.why();
        publish.pass(5);
        publish.link("b.abc", 1, 2_000);
        publish.why();
        publish.pass(5);
        assert_eq!(publish.whole().1, ["a.abc", "b.abc"]);
    }

    #[test]
    fn a_hero_that_is_swapped_is_whole_once_its_backup_is_gone() {
        // Benchmark shape B8.
        let mut publish = Publish::new();
        publish.write("model_hero.abc", 5);
        publish.look();
        publish.pass(5);
        publish.whole();
        publish.disk = DirSnapshot::default();
        publish.block("hero.BACKUP1", BlockerKind::Backup);
        publish.write("model_hero.abc", 5);
        publish.look();
        publish.pass(600);
        assert_eq!(
            publish.why(),
            [
                "being replaced: backup hero.BACKUP1 is still there, less than an hour old; remove it if no publish is running"
            ]
        );
        publish.unblock();
        assert_eq!(publish.why(), ["changed 0 s ago; waiting for 5 s of quiet"]);
        publish.pass(5);
        publish.whole();
    }

    #[test]
    fn a_progressive_render_is_whole_once_its_lock_is_gone() {
        // Benchmark shape B9: at every moment the frames are contiguous, the lock alone tells.
        let mut publish = Publish::new();
        publish.block(".publish.lock", BlockerKind::Lock);
        for number in 1001..=1100 {
            publish.write(&frame(number), 7);
            publish.why();
            publish.pass(3);
        }
        publish.pass(3_600);
        assert_eq!(
            publish.why(),
            ["locked by .publish.lock, less than an hour old; remove it if no publish is running"]
        );
        publish.unblock();
        publish.why();
        publish.pass(5);
        assert_eq!(publish.whole().1.len(), 100);
    }

    #[test]
    fn a_lock_alone_is_waited_for_and_nothing_at_all_is_empty() {
        let mut publish = Publish::new();
        assert_eq!(publish.look(), Verdict::Empty);
        publish.block(".publish.lock", BlockerKind::Lock);
        publish.why();
        publish.unblock();
        assert_eq!(publish.look(), Verdict::Empty);
    }

    #[test]
    fn a_gap_that_was_recorded_is_not_waited_for_and_another_one_is() {
        let mut publish = Publish::new();
        let inside = |number| frame(number).parse().unwrap();
        publish.disk.recorded = [1001, 1002, 1004].map(inside).into();
        for number in [1001, 1002, 1004, 1005] {
            publish.write(&frame(number), 7);
        }
        publish.look();
        publish.pass(5);
        assert_eq!(publish.whole().2.len(), 1, "it is told of");
        publish.remove(&frame(1002));
        publish.look();
        publish.pass(5);
        assert_eq!(publish.why(), ["frames 1002-1003 of beauty.exr/beauty.[1001-1005].exr are missing"]);
    }

    #[test]
    fn renders_on_twos_and_udim_tiles_have_no_gap() {
        let mut publish = Publish::new();
        for number in (1001..1021).step_by(2) {
            publish.write(&frame(number), 7);
        }
        for tile in [1001, 1002, 1011, 1012] {
            publish.write(&format!("robot_diffuse.{tile}.exr"), 7);
        }
        publish.look();
        publish.pass(5);
        assert_eq!(publish.whole().1.len(), 14);
    }

    #[test]
    fn equal_names_in_two_directories_are_two_sequences() {
        let mut publish = Publish::new();
        for number in [1001, 1002, 1003] {
            publish.write(&format!("left/a.{number}.exr"), 7);
            publish.write(&format!("right/a.{}.exr", number + 10), 7);
        }
        publish.look();
        publish.pass(5);
        publish.whole();
    }

    #[test]
    fn a_file_without_its_end_mark_is_waited_for_however_long_it_is_quiet() {
        let mut publish = Publish::new();
        publish.write_marked("model.abc", 100, EndMark::Open);
        publish.look();
        publish.pass(10_000);
        assert_eq!(publish.why(), ["model.abc is not closed yet"]);
        // The mark is one byte: size and, within a tick of the clock, times stay.
        publish.disk.files[0].end_mark = EndMark::Closed;
        assert_eq!(publish.whole().0, Completeness::EndMarks);
    }

    #[test]
    fn an_open_writer_is_waited_for() {
        let mut publish = Publish::new();
        publish.write("a.vdb", 1);
        publish.disk.open_writers = Some(true);
        publish.look();
        publish.pass(60);
        assert_eq!(publish.why(), ["a process has a file of it open for writing"]);
        publish.disk.open_writers = Some(false);
        publish.whole();
    }

    #[test]
    fn an_empty_file_is_believed_after_the_longer_period_with_a_warning() {
        let mut publish = Publish::new();
        publish.write("model.obj", 10);
        publish.write("model.mtl", 0);
        publish.look();
        publish.pass(5);
        assert_eq!(publish.why(), ["model.mtl is empty; waiting for 60 s of quiet"]);
        publish.pass(54);
        publish.why();
        publish.pass(1);
        assert_eq!(publish.whole().2, ["model.mtl is empty"]);
    }

    #[test]
    fn an_explicit_request_stands_for_quiet_gaps_and_empty_files() {
        let mut publish = Publish::new();
        publish.write(&frame(1001), 7);
        publish.write(&frame(1002), 7);
        publish.write(&frame(1004), 0);
        publish.settle.request_explicit();
        let (completeness, files, warnings) = publish.whole();
        assert_eq!((completeness, files.len()), (Completeness::Explicit, 3));
        assert_eq!(
            warnings,
            [
                "beauty.exr/beauty.1004.exr is empty",
                "frame 1003 of beauty.exr/beauty.[1001-1004].exr is missing"
            ]
        );
        assert_eq!(publish.why().len(), 2, "a request counts once");
    }

    #[test]
    fn an_explicit_request_waits_for_locks_and_open_files_and_then_holds_at_once() {
        let mut publish = Publish::new();
        publish.block(".publish.lock", BlockerKind::Lock);
        publish.write_marked("model.abc", 100, EndMark::Open);
        publish.settle.request_explicit();
        assert_eq!(
            publish.why(),
            [
                "locked by .publish.lock, less than an hour old; remove it if no publish is running",
                "model.abc is not closed yet"
            ]
        );
        publish.pass(1);
        publish.unblock();
        publish.write_marked("model.abc", 120, EndMark::Closed);
        assert_eq!(publish.whole().0, Completeness::Explicit);
    }

    #[test]
    fn a_problem_refuses_and_ends_an_explicit_request() {
        let mut publish = Publish::new();
        publish.write("model.abc", 100);
        let problem = NameProblem { name: "latest.abc".into(), kind: ProblemKind::Symlink };
        publish.disk.problems.push(problem.clone());
        publish.settle.request_explicit();
        assert_eq!(publish.look(), Verdict::Refused { problems: vec![problem] });
        publish.disk.problems.clear();
        publish.why();
    }

    #[test]
    fn a_wait_for_somebody_is_looked_at_ever_less_often_but_at_least_every_minute() {
        let mut publish = Publish::new();
        publish.block(".publish.lock", BlockerKind::Lock);
        let mut pause_ms = 0;
        for _ in 0..40 {
            let Verdict::Wait { until_ms, .. } = publish.look() else { panic!("must wait") };
            assert!(until_ms - publish.now_ms >= pause_ms);
            pause_ms = until_ms - publish.now_ms;
            publish.now_ms = until_ms;
        }
        assert_eq!(pause_ms, MAX_RECHECK_MS);
    }

    #[derive(Debug, Clone)]
    enum Step {
        Write { number: u32, size: u64, mark: EndMark },
        Remove { number: u32 },
        Lock,
        Unlock,
        Touch,
        Explicit,
        Pass { ms: u64 },
    }

    fn step() -> impl Strategy<Value = Step> {
        let mark = prop_oneof![Just(EndMark::Closed), Just(EndMark::Open), Just(EndMark::Unknown)];
        prop_oneof![
            3 => (1001u32..1006, 0u64..3, mark).prop_map(|(number, size, mark)| Step::Write { number, size, mark }),
            1 => (1001u32..1006).prop_map(|number| Step::Remove { number }),
            1 => Just(Step::Lock),
            1 => Just(Step::Unlock),
            1 => Just(Step::Touch),
            1 => Just(Step::Explicit),
            4 => prop_oneof![1u64..QUIET_MS, Just(QUIET_MS), Just(60_000)].prop_map(|ms| Step::Pass { ms }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_whole_has_no_sign_of_work_and_was_quiet_or_asked_for(steps in prop::collection::vec(step(), 1..60)) {
            let mut publish = Publish::new();
            let (mut changed_ms, mut asked) = (publish.now_ms, false);
            for step in steps {
                let before = publish.disk.clone();
                match step {
                    Step::Write { number, size, mark } => publish.write_marked(&frame(number), size, mark),
                    Step::Remove { number } => publish.remove(&frame(number)),
                    Step::Lock => publish.block(".publish.lock", BlockerKind::Lock),
                    Step::Unlock => publish.unblock(),
                    Step::Touch => { publish.settle.touched(publish.now_ms); changed_ms = publish.now_ms; }
                    Step::Explicit => { publish.settle.request_explicit(); asked = true; }
                    Step::Pass { ms } => publish.now_ms += ms,
                }
                if publish.disk != before {
                    changed_ms = publish.now_ms;
                }
                match publish.look() {
                    Verdict::Whole { completeness, files, .. } => {
                        prop_assert!(publish.disk.blockers.is_empty());
                        prop_assert!(files.iter().all(|file| file.end_mark != EndMark::Open));
                        prop_assert_eq!(files.len(), publish.disk.files.len());
                        if completeness != Completeness::Explicit {
                            prop_assert!(publish.now_ms - changed_ms >= QUIET_MS);
                            prop_assert!(gaps(&files).is_empty());
                        }
                        prop_assert_eq!(completeness == Completeness::Explicit, asked);
                        asked = false;
                    }
                    Verdict::Wait { until_ms, why } => {
                        prop_assert!(until_ms > publish.now_ms && !why.is_empty());
                    }
                    Verdict::Empty => asked = false,
                    Verdict::Refused { .. } => prop_assert!(false, "nothing to refuse"),
                }
            }
        }
    }
}
