//! The watcher against a real tree, and against a system that refuses.

use std::fs;

use avalon_protocol::template::{DEFAULT_PUBLISH, Template};
use notify::event::Flag;

use super::*;

/// Only hung code waits that long.
const PATIENCE: Duration = Duration::from_secs(20);
const MODEL: &str = "assets/robot/publish/model";

/// A project that is watched by the system.
struct Project {
    temp: tempfile::TempDir,
    changes: mpsc::Receiver<RawChange>,
    watcher: Option<ProjectWatcher>,
}

fn templates() -> Arc<TemplateSet> {
    Arc::new(TemplateSet::new(vec![Template::parse(DEFAULT_PUBLISH).unwrap()]).unwrap())
}

impl Project {
    /// A project with the version `v001` of a model, watched with room for `capacity` changes.
    async fn watched(capacity: usize) -> Self {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path().join("lantern");
        fs::create_dir_all(root.join(MODEL).join("v001")).unwrap();
        let (sender, changes) = mpsc::channel(capacity);
        let watcher = ProjectWatcher::start(root, templates(), sender).unwrap();
        let mut project = Self { temp, changes, watcher: Some(watcher) };
        assert_eq!(project.next().await, RawChange::Rescan(RescanReason::Started));
        project
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.temp.path().join("lantern").join(inside)
    }

    fn write(&self, inside: &str) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::File::create(path).unwrap();
    }

    async fn next(&mut self) -> RawChange {
        tokio::time::timeout(PATIENCE, self.changes.recv()).await.unwrap().unwrap()
    }

    /// Waits until `path` is touched and returns what was touched up to then.
    async fn touched_until(&mut self, path: &str) -> Vec<String> {
        let mut touched = Vec::new();
        while touched.last().map(String::as_str) != Some(path) {
            match self.next().await {
                RawChange::Touched(path) => touched.push(path.to_string()),
                other => panic!("expected {path} to be touched, got {other:?}"),
            }
        }
        touched
    }
}

#[tokio::test]
async fn a_hard_link_is_noticed() {
    let mut project = Project::watched(1000).await;
    project.write("assets/robot/work/stage/a.abc");
    let published = format!("{MODEL}/v001/a.abc");
    fs::hard_link(project.path("assets/robot/work/stage/a.abc"), project.path(&published)).unwrap();
    project.touched_until(&published).await;
}

#[tokio::test]
async fn a_directory_that_is_renamed_into_place_is_noticed_with_all_that_is_in_it() {
    let mut project = Project::watched(1000).await;
    project.write(".avalon/incoming/1/tex/a.exr");
    let version = format!("{MODEL}/v002");
    fs::rename(project.path(".avalon/incoming/1"), project.path(&version)).unwrap();
    let touched = project.touched_until(&format!("{version}/tex")).await;
    assert!(touched.contains(&version), "{touched:?}");
    project.write(&format!("{version}/tex/b.exr"));
    project.touched_until(&format!("{version}/tex/b.exr")).await;
}

#[tokio::test]
async fn what_is_written_before_its_new_directory_is_watched_is_noticed() {
    let mut project = Project::watched(1000).await;
    project.write("film/sh010/publish/beauty/v001/beauty.exr/beauty.1001.exr");
    project.touched_until("film/sh010/publish/beauty/v001/beauty.exr").await;
}

#[tokio::test]
async fn work_areas_and_reading_are_not_noticed() {
    let mut project = Project::watched(1000).await;
    let file = format!("{MODEL}/v001/a.abc");
    project.write(&file);
    project.touched_until(&file).await;
    project.write("assets/robot/work/model/a.ma");
    project.write(".avalon/incoming/a");
    fs::read(project.path(&file)).unwrap();
    fs::read_dir(project.path(MODEL)).unwrap().count();
    let marker = format!("{MODEL}/v001/marker");
    project.write(&marker);
    let mut touched = project.touched_until(&marker).await;
    // The directories that appeared in watched ones are told, what happens in them is not.
    touched.retain(|path| {
        !["assets/robot/work", ".avalon", file.as_str(), marker.as_str()].contains(&path.as_str())
    });
    assert_eq!(touched, [""; 0]);
}

#[tokio::test]
async fn a_hero_that_is_swapped_is_watched_on_and_its_backup_is_not() {
    let mut project = Project::watched(1000).await;
    let hero = format!("{MODEL}/hero");
    for round in 0..3 {
        fs::create_dir(project.path(&hero)).unwrap();
        let file = format!("{hero}/{round}.abc");
        project.write(&file);
        project.touched_until(&hero).await;
        let again = format!("{hero}/again{round}.abc");
        project.write(&again);
        project.touched_until(&again).await;
        let backup = format!("{MODEL}/hero.BACKUP{round}");
        fs::rename(project.path(&hero), project.path(&backup)).unwrap();
        project.touched_until(&backup).await;
        project.write(&format!("{backup}/late.abc"));
    }
    let marker = format!("{MODEL}/v001/marker");
    project.write(&marker);
    let touched = project.touched_until(&marker).await;
    assert!(!touched.iter().any(|path| path.ends_with("late.abc")), "{touched:?}");
}

#[tokio::test]
async fn a_version_that_is_renamed_away_and_back_is_watched_on() {
    let mut project = Project::watched(1000).await;
    let (version, aside) = (format!("{MODEL}/v001"), format!("{MODEL}/aside"));
    for round in 0..20 {
        fs::rename(project.path(&version), project.path(&aside)).unwrap();
        fs::rename(project.path(&aside), project.path(&version)).unwrap();
        let marker = format!("{MODEL}/marker{round}");
        project.write(&marker);
        project.touched_until(&marker).await;
        let file = format!("{version}/{round}.abc");
        project.write(&file);
        project.touched_until(&file).await;
    }
}

#[tokio::test]
async fn a_file_whose_name_cannot_be_published_touches_its_directory() {
    let mut project = Project::watched(1000).await;
    project.write(&format!("{MODEL}/v001/a:b.abc"));
    project.touched_until(&format!("{MODEL}/v001")).await;
}

#[tokio::test]
async fn a_root_that_is_renamed_away_is_gone() {
    let mut project = Project::watched(1000).await;
    fs::rename(project.path(""), project.temp.path().join("elsewhere")).unwrap();
    while project.next().await != RawChange::RootGone {}
    assert!(tokio::time::timeout(PATIENCE, project.changes.recv()).await.unwrap().is_none(), "it ended");
}

#[tokio::test]
async fn a_root_that_is_missing_is_an_error_that_names_it() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().join("lantern");
    let (sender, _changes) = mpsc::channel(1);
    let error = ProjectWatcher::start(root.clone(), templates(), sender).unwrap_err();
    assert!(matches!(&error, WatchError::RootMissing { root: named } if *named == root));
}

#[tokio::test]
async fn a_receiver_that_is_too_slow_gets_a_rescan_for_what_it_missed() {
    let mut project = Project::watched(1).await;
    for number in 0..50 {
        project.write(&format!("{MODEL}/v001/{number}.abc"));
    }
    while project.next().await != RawChange::Rescan(RescanReason::Backlog) {}
}

#[tokio::test]
async fn the_thread_ends_with_the_watcher() {
    let mut project = Project::watched(1000).await;
    drop(project.watcher.take());
    while tokio::time::timeout(PATIENCE, project.changes.recv()).await.unwrap().is_some() {}
}

#[tokio::test]
async fn an_overflow_sets_all_watches_anew_and_asks_for_a_rescan() {
    let temp = tempfile::tempdir().unwrap();
    let root = temp.path().to_owned();
    let (inbox, notices) = std_mpsc::sync_channel(1000);
    let lost = Arc::new(AtomicBool::new(false));
    let handler = Handler { inbox, lost: lost.clone() };
    let (changes, mut received) = mpsc::channel(1000);
    let mut worker = Worker {
        tree: WatchTree::new(root.clone(), templates(), handler.clone()).unwrap(),
        notices,
        lost,
        stop: Arc::default(),
        outbox: Outbox { changes, owed: Vec::new(), is_closed: false },
    };
    fs::create_dir_all(root.join(MODEL)).unwrap();
    let overflow = notify::Event::new(EventKind::Other).set_flag(Flag::Rescan);
    notify::EventHandler::handle_event(&mut handler.clone(), Ok(overflow));
    let batch: Vec<Notice> = worker.notices.try_iter().filter(|n| matches!(n, Notice::Overflow)).collect();
    assert!(worker.handle(batch));
    assert_eq!(received.recv().await, Some(RawChange::Rescan(RescanReason::Overflow)));
    fs::create_dir(root.join(MODEL).join("v001")).unwrap();
    // The old watches may still have told of the directories above.
    let is_version = |notice: &Notice| matches!(notice, Notice::Moved(path) if path.ends_with("model/v001"));
    while !is_version(&worker.notices.recv_timeout(PATIENCE).unwrap()) {}
}

#[test]
fn events_that_do_not_fit_are_remembered_as_lost() {
    let (inbox, _notices) = std_mpsc::sync_channel(1);
    let lost = Arc::new(AtomicBool::new(false));
    let mut handler = Handler { inbox, lost: lost.clone() };
    for _ in 0..2 {
        assert!(!lost.load(Ordering::Acquire));
        let event = notify::Event::new(EventKind::Any).add_path("a".into());
        notify::EventHandler::handle_event(&mut handler, Ok(event));
    }
    assert!(lost.load(Ordering::Acquire));
}

#[test]
fn of_what_a_slow_receiver_is_owed_the_strongest_rescan_and_the_last_limit_are_left() {
    let (changes, _received) = mpsc::channel(1);
    let mut outbox = Outbox { changes, owed: Vec::new(), is_closed: false };
    let limit = |needed| RawChange::LimitReached { watched: 1, needed };
    let touched = || RawChange::Touched("a".parse().unwrap());
    // The first one fits.
    for change in [touched(), touched(), limit(2), RawChange::Rescan(RescanReason::Started), limit(3)] {
        outbox.send(change);
    }
    outbox.send(touched());
    assert_eq!(outbox.owed, [RawChange::Rescan(RescanReason::Started), limit(3)]);
}
