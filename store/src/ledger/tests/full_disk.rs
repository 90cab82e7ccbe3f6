//! A volume without room under the catalog, or under all of the state directory. Each is mounted for a process alone.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use super::*;
use crate::catalog::Cause;

/// Set in the process that has mounts of its own.
const INNER: &str = "AVALON_TEST_MAY_MOUNT";

/// Says whether this process may mount things. If not, runs this test in one that may, and says aloud when none can.
pub(super) fn may_mount(test: &str) -> bool {
    if std::env::var_os(INNER).is_some() {
        return true;
    }
    let tried = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
    if !tried.is_ok_and(|status| status.success()) {
        println!("SKIPPED: this user may not mount, so there is no volume to try it on");
        return false;
    }
    let name = format!("ledger::tests::{test}");
    let run = Command::new("unshare")
        .arg("--mount")
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", &name, "--nocapture"])
        .env(INNER, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&run.stdout);
    let errors = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success() && said.contains("1 passed"), "{said}\n{errors}");
    // It may have skipped something.
    println!("{said}");
    false
}

/// A small volume. It goes before the directory that it is mounted in.
pub(super) struct Volume(std::path::PathBuf);

impl Volume {
    pub(super) fn mount(at: &Path, kib: u32) -> Self {
        fs::create_dir_all(at).unwrap();
        let size = format!("size={kib}k,mode=700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(at).status().unwrap();
        assert!(mounted.success());
        Self(at.to_owned())
    }

    /// One that is mounted already.
    pub(super) fn mounted(at: &Path) -> Self {
        Self(at.to_owned())
    }

    /// Unmounts it, once nobody has a file in it any more.
    pub(super) fn release(&self) {
        for _ in 0..3000 {
            let tried = Command::new("umount").arg(&self.0).stderr(Stdio::null()).status().unwrap();
            if tried.success() {
                return;
            }
            thread::park_timeout(Duration::from_millis(10));
        }
        panic!("somebody still has files of a catalog that was closed");
    }

    /// Leaves no room for another name.
    fn limit_names(&self) {
        let names = walkdir::WalkDir::new(&self.0).into_iter().count();
        self.remount(&format!("nr_inodes={names}"));
    }

    fn remount(&self, options: &str) {
        let options = format!("remount,{options}");
        assert!(Command::new("mount").args(["-o", &options]).arg(&self.0).status().unwrap().success());
    }

    fn make_room(&self, kib: u32) {
        self.remount(&format!("size={kib}k"));
    }

    /// Fills it but for so many KiB.
    pub(super) fn fill(&self, but_kib: usize) {
        let mut file = fs::File::create(self.0.join("fill")).unwrap();
        let mut bytes = 0;
        while file.write_all(&[1; 4096]).is_ok() {
            bytes += 4096;
        }
        file.set_len(bytes - (but_kib as u64 * 1024)).unwrap();
    }

    pub(super) fn empty(&self) {
        fs::remove_file(self.0.join("fill")).unwrap();
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).stderr(Stdio::null()).status().ok();
    }
}

/// Commits so many records about versions of their own; returns what the ledger answered.
pub(super) fn commit(node: &Node, first: u32, count: u32) -> Result<Committed, LedgerError> {
    let records = (first..first + count).map(|number| placed(number, 1)).collect();
    node.ledger.commit_wait(&project(), records, vec![], 1000)
}

/// Everything that was acknowledged is there, in the feeds and in the catalog.
pub(super) fn check_all_there(node: &Node, acknowledged: u64) {
    let verified = node.ledger.verify();
    assert!(verified.catalog.is_none() && verified.feeds.is_empty(), "{verified:?}");
    let head = node.ledger.inner.shared.feed(&toy::feed(ME)).unwrap().head();
    assert!(head.next_seq >= acknowledged, "{} of {acknowledged}", head.next_seq);
    node.check_rows(&node.expected_rows(&[]));
}

fn is_no_space(error: &LedgerError) -> bool {
    error.is_no_space() && crate::error_chain::ErrorChain(error).to_string().contains("the disk is full")
}

#[test]
fn a_catalog_that_fills_its_volume_loses_nothing_acknowledged_and_comes_back_with_room() {
    if !may_mount(
        "full_disk::a_catalog_that_fills_its_volume_loses_nothing_acknowledged_and_comes_back_with_room",
    ) {
        return;
    }
    let world = World::new();
    let volume = Volume::mount(&world.state_path().join("catalog"), 3 << 10);
    let node = world.open();
    let (mut count, mut failure) = (0, None);
    while failure.is_none() {
        // Record 0 is the certificate.
        assert_eq!(commit(&node, count, 200).unwrap().first_seq(), u64::from(count) + 1);
        count += 200;
        failure = node.ledger.sync().err();
        assert!(count < 100_000, "3 MiB hold it all");
    }
    assert!(is_no_space(failure.as_ref().unwrap()), "{failure:?}");
    // The feeds are on another volume: writing goes on.
    for _ in 0..20 {
        commit(&node, count, 200).unwrap();
        count += 200;
    }
    let error = node.ledger.rebuild(Box::new(|_| {})).unwrap_err();
    assert!(is_no_space(&error), "{error:?}");
    let error = node.ledger.local_file(&project(), &"robot".parse().unwrap()).unwrap_err();
    assert!(error.is_no_space(), "{error:?}");
    assert_eq!(world.catalog_names(), ["CURRENT", "gen-1"], "what was begun is not in the way");

    // It is tried again after a minute, and at once when there is room: no time passes here.
    volume.make_room(64 << 10);
    for _ in 0..3 {
        commit(&node, count, 1).unwrap();
        count += 1;
    }
    assert_eq!(node.generation(), 2);
    check_all_there(&node, count.into());
    drop(node);
    let node = world.open();
    assert_eq!((&node.report.rebuilt, node.report.replayed_records), (&None, 0));
    check_all_there(&node, count.into());
    drop((node, volume));
}

#[test]
fn a_rebuild_without_room_says_so_leaves_nothing_and_works_when_there_is_room() {
    if !may_mount("full_disk::a_rebuild_without_room_says_so_leaves_nothing_and_works_when_there_is_room") {
        return;
    }
    let world = World::new();
    let volume = Volume::mount(&world.state_path().join("catalog"), 32 << 10);
    let node = world.open();
    (0..30).for_each(|round| drop(commit(&node, round * 200, 200).unwrap()));
    node.ledger.sync().unwrap();
    for but_kib in [0, 8, 64, 520, 800] {
        volume.fill(but_kib);
        let error = node.ledger.rebuild(Box::new(|_| {})).unwrap_err();
        assert!(is_no_space(&error), "{but_kib}: {error:?}");
        assert_eq!(world.catalog_names(), ["CURRENT", "fill", "gen-1"], "{but_kib}");
        volume.empty();
        node.check_rows(&node.expected_rows(&[]));
    }
    volume.limit_names();
    let error = node.ledger.rebuild(Box::new(|_| {})).unwrap_err();
    assert!(error.is_no_space(), "{error:?}");
    volume.remount("nr_inodes=1000");
    drop(node);

    // Without a catalog, and without room for one, it is built when there is room.
    volume.fill(0);
    fs::remove_dir_all(volume.0.join("gen-1")).unwrap();
    volume.fill(8);
    let node = world.open();
    assert_eq!((&node.report.rebuilding, &node.report.rebuilt), (&Some(Cause::NoSpace), &None));
    let error = node.ledger.rebuild(Box::new(|_| {})).unwrap_err();
    assert!(is_no_space(&error), "{error:?}");
    assert!(node.ledger.local_file(&project(), &"robot".parse().unwrap()).unwrap_err().is_no_space());
    commit(&node, 6000, 200).unwrap();
    assert_eq!(world.catalog_names(), ["CURRENT", "fill"]);
    volume.empty();
    node.ledger.rebuild(Box::new(|_| {})).unwrap();
    check_all_there(&node, 6200);
    drop(node);
    fs::remove_file(volume.0.join("CURRENT")).unwrap();
    let node = world.open();
    assert_eq!(node.report.rebuilt, Some(Cause::Absent));
    check_all_there(&node, 6200);
    drop((node, volume));
}

#[test]
fn a_state_directory_that_fills_up_keeps_all_that_was_acknowledged() {
    if !may_mount("full_disk::a_state_directory_that_fills_up_keeps_all_that_was_acknowledged") {
        return;
    }
    let world = World::new();
    let volume = Volume::mount(&world.state_path(), 4 << 10);
    let node = world.open();
    let (mut count, mut acknowledged, mut failures) = (0, 0, 0);
    while failures < 30 {
        match commit(&node, count, 100) {
            Ok(committed) => {
                assert!(committed.first_seq() >= acknowledged);
                acknowledged = committed.first_seq() + 100;
            }
            Err(error) => {
                assert!(error.is_no_space(), "{error:?}");
                failures += 1;
            }
        }
        count += 100;
        // The catalog writes too.
        if let Err(error) = node.ledger.sync() {
            assert!(error.is_no_space(), "{error:?}");
        }
        assert!(count < 1_000_000, "4 MiB hold it all");
    }
    assert!(acknowledged > 0);
    let head_when_full = node.ledger.inner.shared.feed(&toy::feed(ME)).unwrap().head();
    volume.make_room(64 << 10);
    let committed = commit(&node, count, 100).unwrap();
    assert_eq!((committed.first_seq(), head_when_full.next_seq), (acknowledged, acknowledged));
    node.ledger.rebuild(Box::new(|_| {})).unwrap();
    check_all_there(&node, acknowledged + 100);
    drop(node);
    check_all_there(&world.open(), acknowledged + 100);
    drop(volume);
}

/// Keeps what is said as a warning.
struct Warnings(Mutex<Vec<String>>);

impl tracing::Subscriber for Warnings {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::WARN
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, event: &tracing::Event<'_>) {
        struct Said(String);
        impl tracing::field::Visit for Said {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
                self.0.push_str(&format!("{}={value:?} ", field.name()));
            }
        }
        let mut said = Said(String::new());
        event.record(&mut said);
        self.0.lock().unwrap().push(said.0);
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[test]
fn a_copy_that_has_no_room_is_not_begun_and_says_so() {
    if !may_mount("full_disk::a_copy_that_has_no_room_is_not_begun_and_says_so") {
        return;
    }
    let warnings = Arc::new(Warnings(Mutex::default()));
    // This process has no other test.
    tracing::subscriber::set_global_default(Arc::clone(&warnings)).unwrap();
    let care = CatalogCare { small_bytes: 0, max_ratio: 1, ..CatalogCare::default() };
    let world = World { care, ..World::new() };
    let volume = Volume::mount(&world.state_path().join("catalog"), 16 << 10);
    let node = world.open();
    commit(&node, 0, 200).unwrap();
    node.ledger.sync().unwrap();
    let live = node.ledger.inner.shared.store().live_bytes();
    assert!(live > 16 << 10, "{live}");
    volume.fill(60);
    world.hours_pass(1);
    node.stays(1);
    let said = std::mem::take(&mut *warnings.0.lock().unwrap());
    let words = "catalog not copied: there is no room for a second one";
    assert!(said.iter().any(|said| said.contains(words) && said.contains("room=61440")), "{said:?}");
    assert_eq!(world.generations(), ["gen-1"]);
    volume.empty();
    world.hours_pass(23);
    node.stays(1);
    world.hours_pass(1);
    node.until_copied(1);
    assert_eq!(world.generations(), ["gen-2"]);
    check_all_there(&node, 200);
    drop((node, volume));
}
