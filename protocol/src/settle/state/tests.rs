//! When a version is whole, and what it waits for until then.

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
            Verdict::Wait { until_ms, why } | Verdict::Grows { until_ms, why, .. } => {
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
fn where_writers_are_elsewhere_what_no_end_mark_proves_is_quiet_for_longer() {
    let config = SettleConfig { unproved_quiet: Duration::from_secs(40), ..SettleConfig::default() };
    let mut publish = Publish { settle: Settle::new(config), ..Publish::new() };
    publish.write_marked("a.usdc", 10, EndMark::Closed);
    publish.look();
    publish.pass(6);
    assert!(matches!(publish.look(), Verdict::Whole { .. }), "its end mark proves it");
    publish.write("b.bgeo", 10);
    assert_eq!(publish.why(), ["changed 0 s ago; waiting for 40 s of quiet"]);
    publish.pass(39);
    assert_eq!(publish.why(), ["changed 39 s ago; waiting for 40 s of quiet"]);
    publish.write("c.bgeo", 0);
    publish.look();
    publish.pass(41);
    assert_eq!(publish.why(), ["c.bgeo is empty; waiting for 60 s of quiet"]);
    publish.pass(20);
    assert!(matches!(publish.look(), Verdict::Whole { .. }));

    let mut render = Publish { settle: Settle::new(config), ..Publish::new() };
    render.block("a.lock", BlockerKind::Lock);
    (1001..=1003).for_each(|frame| render.write(&format!("b.{frame}.dpx"), 10));
    (1001..=1003).for_each(|frame| render.write_marked(&format!("c.{frame}.exr"), 10, EndMark::Closed));
    render.look();
    render.pass(6);
    assert_eq!(render.flowing().len(), 3, "the closed ones");
    render.pass(40);
    assert_eq!(render.flowing().len(), 6);
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
        ["beauty.exr/beauty.1004.exr is empty", "frame 1003 of beauty.exr/beauty.[1001-1004].exr is missing"]
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
                Verdict::Grows { until_ms, why, files } => {
                    prop_assert!(until_ms > publish.now_ms && !why.is_empty() && !asked);
                    prop_assert!(!publish.disk.blockers.is_empty() && gaps(&files).is_empty());
                    prop_assert!(files.iter().all(|file| file.end_mark != EndMark::Open && file.size > 0));
                }
                Verdict::Empty => asked = false,
                Verdict::Refused { .. } => prop_assert!(false, "nothing to refuse"),
            }
        }
    }
}

impl Publish {
    /// Looks, and returns the names of the files that may flow.
    fn flowing(&mut self) -> Vec<String> {
        match self.look() {
            Verdict::Grows { until_ms, why, files } => {
                assert!(until_ms > self.now_ms && !why.is_empty());
                files.iter().map(|file| file.path.to_string()).collect()
            }
            _ => Vec::new(),
        }
    }
}

fn frames(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("b.exr/b.{number}.exr")).collect()
}

#[test]
fn frames_that_are_done_flow_while_a_lock_is_there_and_nothing_else_does() {
    let mut publish = Publish::new();
    publish.block(".publish.lock", BlockerKind::Lock);
    publish.write("thumbnail.jpg", 10);
    publish.write("b.exr/b.1001.exr", 10);
    publish.look();
    publish.pass(3);
    publish.write("b.exr/b.1002.exr", 10);
    publish.write("b.exr/b.1003.exr", 10);
    publish.look();
    publish.pass(3);
    assert_eq!(publish.flowing(), frames([]), "one is quiet, the others were written 3 s ago");
    publish.pass(3);
    assert_eq!(publish.flowing(), frames(1001..=1003));
    publish.pass(3);
    assert_eq!(publish.flowing(), frames([]), "nothing twice");
    publish.write("b.exr/b.1004.exr", 10);
    publish.look();
    publish.pass(6);
    assert_eq!(publish.flowing(), frames([]), "not for each frame");
    publish.pass(15);
    publish.write_marked("b.exr/b.1005.exr", 10, EndMark::Open);
    publish.write("b.exr/b.1006.exr", 10);
    publish.look();
    publish.pass(6);
    assert_eq!(publish.flowing(), frames(1001..=1004), "none after one that is not closed");
    publish.write_marked("b.exr/b.1005.exr", 20, EndMark::Closed);
    publish.write("b.exr/b.1008.exr", 10);
    publish.look();
    publish.pass(60);
    assert_eq!(publish.flowing(), frames(1001..=1006), "none after one that is missing");
    publish.unblock();
    publish.write("b.exr/b.1007.exr", 10);
    publish.look();
    publish.pass(6);
    let Verdict::Whole { files, .. } = publish.look() else { panic!("nobody is at work") };
    assert_eq!(files.len(), 9);
}

#[test]
fn nothing_flows_without_a_lock_beside_a_backup_or_when_somebody_writes_or_has_asked() {
    let locked = |more: &dyn Fn(&mut Publish)| {
        let mut publish = Publish::new();
        publish.block("a.lock", BlockerKind::Lock);
        frames(1001..=1003).iter().for_each(|frame| publish.write(frame, 10));
        more(&mut publish);
        publish.look();
        publish.pass(6);
        publish.flowing().len()
    };
    assert_eq!(locked(&|_| ()), 3);
    assert_eq!(locked(&|publish| publish.block("b.tmp", BlockerKind::Temp)), 3, "the next frame is written");
    assert_eq!(locked(&|publish| publish.block("b.bak", BlockerKind::Backup)), 0);
    assert_eq!(locked(&|publish| publish.disk.open_writers = Some(true)), 0);
    assert_eq!(locked(&|publish| publish.settle.request_explicit()), 0);
    assert_eq!(locked(&|publish| publish.unblock()), 0);
}

#[test]
fn a_render_of_a_night_flows_in_about_a_hundred_generations() {
    let mut publish = Publish::new();
    publish.block("a.lock", BlockerKind::Lock);
    let mut generations = 0;
    for frame in 0..1000 {
        publish.write(&format!("b.{:04}.exr", frame + 1), 10);
        for _ in 0..3 {
            publish.pass(10);
            generations += u32::from(!publish.flowing().is_empty());
        }
    }
    assert!((60..200).contains(&generations), "{generations} in 8 hours");
}
