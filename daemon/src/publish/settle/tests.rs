//! The settler with a directory on disk, a clock that tests advance, and the system's watcher or one that tests play.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};

use avalon_protocol::{
    control::ProjectState,
    manifest::Completeness,
    rel_path::RelPath,
    template::{DEFAULT_PUBLISH, FileRole, Template, TemplateSet},
};
use avalon_store::fs::{FileIdentity, FileStat};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};

use super::{
    super::record::Purpose,
    super::watch::{RawChange, RescanReason, SystemWatcher, WatchError, Watcher, Watching},
    *,
};
use crate::{clock::ManualClock, config::NetworkMode, tasks::Tasks};

/// Only hung code waits that long.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time to let the settler hear of something before the clock goes on.
const BREATH: Duration = Duration::from_millis(20);
const MODEL: &str = "assets/robot/publish/model";

/// A watcher that says what a test tells it to.
#[derive(Debug, Clone, Default)]
struct Played(Arc<Mutex<Option<mpsc::Sender<RawChange>>>>);

impl Watcher for Played {
    fn start(
        &self,
        _root: PathBuf,
        _templates: Arc<TemplateSet>,
        changes: mpsc::Sender<RawChange>,
    ) -> Result<Box<dyn Watching>, WatchError> {
        changes.try_send(RawChange::Rescan(RescanReason::Started)).unwrap();
        *self.0.lock().unwrap() = Some(changes);
        Ok(Box::new(NoLimit))
    }
}

struct NoLimit;

impl Watching for NoLimit {
    fn look_for_room(&self) {}
}

impl Played {
    async fn say(&self, change: RawChange) {
        let changes = self.0.lock().unwrap().clone().unwrap();
        changes.send(change).await.unwrap();
    }
}

/// One project with a running settler.
struct Studio {
    temp: tempfile::TempDir,
    clock: ManualClock,
    tasks: Tasks,
    handle: SettlerHandle,
    settled: mpsc::Receiver<Settled>,
    catalog: Arc<Mutex<BTreeMap<RelPath, FileIdentity>>>,
}

impl Studio {
    /// Starts a settler and waits for its first scan.
    async fn start(system: impl Watcher) -> Self {
        let mut studio = Self::start_without_project(system);
        fs::create_dir_all(studio.path(MODEL)).unwrap();
        studio.until_state(ProjectState::Watching).await;
        studio
    }

    fn start_without_project(system: impl Watcher) -> Self {
        let temp = tempfile::tempdir().unwrap();
        // The files' times are those of the system: what is old is so by its clock.
        let start = fs::metadata(temp.path()).unwrap().modified().unwrap();
        let (clock, tasks) = (ManualClock::starting_at(start), Tasks::new());
        let catalog: Arc<Mutex<BTreeMap<RelPath, FileIdentity>>> = Arc::default();
        let (known, recorded) = (catalog.clone(), catalog.clone());
        let source = ProjectSource {
            name: "lantern".parse().unwrap(),
            dir: temp.path().join("lantern"),
            templates: Arc::new(TemplateSet::new(vec![Template::parse(DEFAULT_PUBLISH).unwrap()]).unwrap()),
            known: Arc::new(move |path: &RelPath, identity: &FileIdentity| {
                known.lock().unwrap().get(path) == Some(identity)
            }),
            recorded: Arc::new(move |dir: &RelPath, limit: usize| {
                let files = recorded.lock().unwrap().clone();
                let inside =
                    files.into_iter().filter_map(|(path, file)| Some((path.strip_prefix(dir)?, file)));
                inside.take(limit).collect()
            }),
            grows: Arc::new(|_: &RelPath| false),
            network: NetworkMode::Auto,
        };
        // Scans come when a test asks for one.
        let never = Duration::from_secs(1_000_000_000);
        let config = SettlerConfig {
            rescan: never,
            rescan_unwatched: never,
            rescan_network: never,
            ..SettlerConfig::default()
        };
        let (sender, settled) = mpsc::channel(16);
        let (settler, handle) =
            Settler::new(source, config, (Arc::new(clock.clone()), Arc::new(system)), sender, tasks.token());
        tasks.spawn("settle", settler.run());
        Self { temp, clock, tasks, handle, settled, catalog }
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.temp.path().join("lantern").join(inside)
    }

    fn write(&self, inside: &str, content: &str) {
        let path = self.path(inside);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::File::create(path).unwrap().write_all(content.as_bytes()).unwrap();
    }

    fn remove(&self, inside: &str) {
        fs::remove_file(self.path(inside)).unwrap();
    }

    /// Records all files of a version as the later stages do.
    fn record(&self, settled: &Settled) {
        for file in &settled.files {
            let path = settled.dir.join(&file.file.path).unwrap();
            let stat = FileStat::from(&fs::metadata(self.path(path.as_str())).unwrap());
            self.catalog.lock().unwrap().insert(path, stat.identity());
        }
    }

    /// Lets time go on until a version is settled.
    async fn next(&mut self) -> Settled {
        for _ in 0..500 {
            self.clock.advance(Duration::from_millis(500));
            if let Ok(settled) = timeout(BREATH, self.settled.recv()).await {
                return settled.unwrap();
            }
        }
        panic!("nothing settled; pending: {:?}", self.handle.pending().borrow())
    }

    /// Lets time go on and expects that nothing is settled.
    async fn nothing_for(&mut self, seconds: u32) {
        for _ in 0..seconds {
            self.clock.advance(Duration::from_secs(1));
            if let Ok(settled) = timeout(BREATH, self.settled.recv()).await {
                panic!("settled too early: {settled:?}");
            }
        }
    }

    /// Lets time go on until a version waits for exactly these reasons.
    async fn until_pending(&mut self, dir: &str, why: &[&str]) {
        let mut pending = self.handle.pending();
        for _ in 0..500 {
            let now = pending.borrow_and_update().clone();
            if now.iter().any(|version| version.dir.as_str() == dir && version.why == why) {
                return;
            }
            self.clock.advance(Duration::from_millis(250));
            timeout(BREATH, pending.changed()).await.ok();
        }
        panic!("{dir} does not wait for {why:?}; pending: {:?}", pending.borrow())
    }

    async fn until_state(&mut self, state: ProjectState) {
        let mut health = self.handle.health();
        for _ in 0..500 {
            if health.borrow_and_update().state == state {
                return;
            }
            self.clock.advance(Duration::from_secs(1));
            timeout(BREATH, health.changed()).await.ok();
        }
        panic!("the project does not become {state:?}: {:?}", health.borrow())
    }

    async fn publish(&self, path: &str) -> PublishOutcome {
        let details = PublishDetails { comment: "done".into(), ..PublishDetails::default() };
        timeout(PATIENCE, self.handle.publish(path.parse().unwrap(), details)).await.unwrap().unwrap()
    }

    fn scans(&self) -> watch::Ref<'_, ProjectHealth> {
        self.handle.health.borrow()
    }
}

fn paths(settled: &Settled) -> Vec<&str> {
    settled.files.iter().map(|file| file.file.path.as_str()).collect()
}

fn frame(number: u32) -> String {
    format!("film/sh010/publish/beauty/v001/beauty.exr/beauty.{number}.exr")
}

#[tokio::test]
async fn a_version_is_handed_over_once_with_what_its_path_says() {
    let mut studio = Studio::start(Played::default()).await;
    studio.write(&format!("{MODEL}/v012/model.obj"), "o body");
    studio.write(&format!("{MODEL}/v012/tex/skin.exr"), "(no exr)");
    studio.handle.rescan().await.unwrap();
    let settled = studio.next().await;
    assert_eq!(settled.dir.as_str(), format!("{MODEL}/v012"));
    assert_eq!(
        settled.fields.version_id(&"lantern".parse().unwrap()).to_string(),
        "lantern:robot/model@v012"
    );
    assert_eq!(paths(&settled), ["model.obj", "tex/skin.exr"]);
    assert_eq!((settled.files[0].representation.as_str(), settled.files[0].role), ("obj", FileRole::Entry));
    assert_eq!(settled.completeness, Completeness::Quiet);
    assert!(settled.details.is_none() && settled.replies.is_empty() && settled.warnings.is_empty());
    // Not recorded yet, and looked at again: the next stage has it.
    studio.handle.rescan().await.unwrap();
    studio.nothing_for(10).await;
    studio.record(&settled);
    studio.handle.rescan().await.unwrap();
    studio.nothing_for(10).await;
    assert!(studio.handle.pending().borrow().is_empty());
}

#[tokio::test]
async fn a_version_that_is_renamed_into_place_is_noticed_without_a_scan() {
    let mut studio = Studio::start(SystemWatcher).await;
    let scanned = studio.scans().last_scan.clone();
    studio.write(".avalon/incoming/1/tex/skin.exr", "x");
    fs::rename(studio.path(".avalon/incoming/1"), studio.path(&format!("{MODEL}/v001"))).unwrap();
    assert_eq!(paths(&studio.next().await), ["tex/skin.exr"]);
    assert_eq!(studio.scans().last_scan, scanned);
}

#[tokio::test]
async fn a_file_that_is_hard_linked_into_place_is_noticed_without_a_scan() {
    let mut studio = Studio::start(SystemWatcher).await;
    let scanned = studio.scans().last_scan.clone();
    let staged = "assets/robot/work/stage/model.abc";
    studio.write(staged, "x");
    let old = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
    fs::File::options().write(true).open(studio.path(staged)).unwrap().set_modified(old).unwrap();
    fs::create_dir(studio.path(&format!("{MODEL}/v001"))).unwrap();
    fs::hard_link(studio.path(staged), studio.path(&format!("{MODEL}/v001/model.abc"))).unwrap();
    let settled = studio.next().await;
    assert_eq!((paths(&settled), settled.files[0].file.mtime_ns), (vec!["model.abc"], 1_000_000_000_000_000));
    assert_eq!(studio.scans().last_scan, scanned);
}

#[tokio::test]
async fn a_slow_publish_is_handed_over_once_and_only_when_it_is_whole() {
    let mut studio = Studio::start(SystemWatcher).await;
    let lock = "film/sh010/publish/beauty/v001/.publish.lock";
    studio.write(lock, "anna");
    for number in [1001, 1004, 1002] {
        studio.write(&frame(number), "pixels");
        studio.nothing_for(30).await;
    }
    let dir = "film/sh010/publish/beauty/v001";
    let gap = "frame 1003 of beauty.exr/beauty.[1001-1004].exr is missing";
    studio
        .until_pending(
            dir,
            &[
                "locked by .publish.lock (anna), less than an hour old; remove it if no publish is running",
                gap,
            ],
        )
        .await;
    studio.remove(lock);
    studio.until_pending(dir, &[gap]).await;
    studio.nothing_for(120).await;
    studio.write(&frame(1003), "pixels");
    assert_eq!(studio.next().await.files.len(), 4);
    studio.nothing_for(30).await;
}

#[tokio::test]
async fn a_version_that_grows_is_handed_over_again() {
    let mut studio = Studio::start(SystemWatcher).await;
    studio.write(&frame(1001), "pixels");
    assert_eq!(studio.next().await.files.len(), 1);
    studio.write(&frame(1002), "pixels");
    assert_eq!(studio.next().await.files.len(), 2);
}

#[tokio::test]
async fn a_gap_that_was_recorded_does_not_hide_that_a_frame_was_changed_in_place() {
    let mut studio = Studio::start(SystemWatcher).await;
    for number in [1001, 1002, 1004, 1005, 1006] {
        studio.write(&frame(number), "pixels");
    }
    let handle = studio.handle.clone();
    let asked = frame(1002).parse().unwrap();
    studio.tasks.spawn("publish", async move {
        handle.publish(asked, PublishDetails::default()).await.ok();
    });
    let settled = studio.next().await;
    studio.record(&settled);
    studio.write(&frame(1001), "other pixels");
    let settled = studio.next().await;
    assert_eq!((settled.files.len(), settled.purpose), (5, Purpose::Publish));
    // Frame 1003 was missing before, 1007 is missing now.
    studio.record(&settled);
    studio.write(&frame(1008), "pixels");
    let gap = "frames 1003, 1007 of beauty.exr/beauty.[1001-1008].exr are missing";
    studio.until_pending("film/sh010/publish/beauty/v001", &[gap]).await;
    studio.nothing_for(30).await;
    studio.write(&frame(1001), "yet other pixels");
    let settled = studio.next().await;
    assert_eq!((settled.files.len(), settled.purpose), (6, Purpose::Compare));
    studio.until_pending("film/sh010/publish/beauty/v001", &[gap]).await;
    studio.nothing_for(30).await;
}

#[tokio::test]
async fn lost_events_are_made_good_by_a_scan() {
    let played = Played::default();
    let mut studio = Studio::start(played.clone()).await;
    studio.write(&format!("{MODEL}/v001/model.obj"), "x");
    studio.nothing_for(20).await;
    played.say(RawChange::Rescan(RescanReason::Overflow)).await;
    assert_eq!(paths(&studio.next().await), ["model.obj"]);
}

#[tokio::test]
async fn without_a_watcher_scans_find_what_is_published() {
    let played = Played::default();
    let mut studio = Studio::start(played.clone()).await;
    studio.write(&format!("{MODEL}/v001/model.obj"), "x");
    played.say(RawChange::Stopped { why: "no more".into() }).await;
    assert_eq!(paths(&studio.next().await), ["model.obj"]);
    assert_eq!(studio.scans().watcher, WatcherState::Off { why: "no more".into() });
    played.say(RawChange::LimitReached { watched: 3, needed: 9 }).await;
    let mut health = studio.handle.health();
    let partial = WatcherState::Partial { watched: 3, needed: 9 };
    timeout(PATIENCE, health.wait_for(|health| health.watcher == partial)).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_root_that_vanishes_pauses_the_project_until_it_is_back() {
    let mut studio = Studio::start(SystemWatcher).await;
    studio.write(&format!("{MODEL}/v001/model.obj"), "x");
    let first = studio.next().await;
    studio.record(&first);
    fs::rename(studio.path(""), studio.temp.path().join("unmounted")).unwrap();
    studio.until_state(ProjectState::Paused).await;
    let why = studio.scans().detail.clone().unwrap();
    assert!(why.contains("lantern is not there"), "{why}");
    assert_eq!(studio.publish(&format!("{MODEL}/v001")).await, PublishOutcome::Paused { why });
    studio.nothing_for(10).await;
    fs::rename(studio.temp.path().join("unmounted"), studio.path("")).unwrap();
    studio.write(&format!("{MODEL}/v002/model.obj"), "x");
    assert_eq!(studio.next().await.dir.as_str(), format!("{MODEL}/v002"), "v001 is known");
    assert_eq!((studio.scans().state, studio.scans().detail.clone()), (ProjectState::Watching, None));
    studio.write(&format!("{MODEL}/v003/model.obj"), "x");
    assert_eq!(studio.next().await.dir.as_str(), format!("{MODEL}/v003"), "it is watched again");
}

#[tokio::test]
async fn another_directory_in_place_of_the_root_is_scanned_and_watched() {
    let mut studio = Studio::start(SystemWatcher).await;
    let other = studio.temp.path().join("other");
    fs::create_dir_all(other.join(MODEL).join("v007")).unwrap();
    fs::File::create(other.join(MODEL).join("v007/model.obj")).unwrap().write_all(b"x").unwrap();
    fs::rename(studio.path(""), studio.temp.path().join("unmounted")).unwrap();
    fs::rename(other, studio.path("")).unwrap();
    assert_eq!(studio.next().await.dir.as_str(), format!("{MODEL}/v007"));
    studio.write(&format!("{MODEL}/v008/model.obj"), "x");
    assert_eq!(studio.next().await.dir.as_str(), format!("{MODEL}/v008"));
}

#[tokio::test]
async fn a_project_whose_root_is_missing_at_the_start_begins_when_it_comes() {
    let mut studio = Studio::start_without_project(SystemWatcher);
    studio.until_state(ProjectState::Paused).await;
    studio.write(&format!("{MODEL}/v001/model.obj"), "x");
    assert_eq!(paths(&studio.next().await), ["model.obj"]);
}

#[tokio::test]
async fn an_explicit_publish_is_handed_over_at_once_with_what_was_said() {
    let mut studio = Studio::start(Played::default()).await;
    for number in [1001, 1002, 1004] {
        studio.write(&frame(number), "pixels");
    }
    let handle = studio.handle.clone();
    let asked = frame(1002).parse().unwrap();
    let details =
        PublishDetails { comment: "done".into(), author: "anna".into(), ..PublishDetails::default() };
    let said = details.clone();
    let (outcome, settled) = tokio::join!(timeout(PATIENCE, handle.publish(asked, details)), async {
        let mut settled = timeout(PATIENCE, studio.settled.recv()).await.unwrap().unwrap();
        let empty = PublishOutcome::Empty { dir: settled.dir.clone() };
        settled.replies.pop().unwrap().send(empty).unwrap();
        settled
    });
    assert!(matches!(outcome.unwrap().unwrap(), PublishOutcome::Empty { .. }), "what the next stage answers");
    assert_eq!((settled.completeness, settled.files.len()), (Completeness::Explicit, 3));
    assert_eq!(settled.details, Some(said));
    assert_eq!(settled.warnings.len(), 1, "the gap");
    studio.nothing_for(10).await;
}

#[tokio::test]
async fn an_explicit_publish_of_a_locked_version_says_so_and_is_kept() {
    let mut studio = Studio::start(SystemWatcher).await;
    let lock = format!("{MODEL}/v001/.publish.lock");
    studio.write(&lock, "");
    studio.write(&format!("{MODEL}/v001/model.obj"), "x");
    let dir: RelPath = format!("{MODEL}/v001").parse().unwrap();
    let why =
        vec!["locked by .publish.lock, less than an hour old; remove it if no publish is running".to_owned()];
    assert_eq!(studio.publish(dir.as_str()).await, PublishOutcome::NotWhole { dir: dir.clone(), why });
    studio.remove(&lock);
    let settled = studio.next().await;
    assert_eq!(
        (settled.completeness, settled.details.unwrap().comment.as_str()),
        (Completeness::Explicit, "done")
    );
}

#[tokio::test]
async fn a_backup_that_was_left_behind_is_waited_for_no_longer_than_an_hour() {
    let mut studio = Studio::start(SystemWatcher).await;
    let dir = format!("{MODEL}/v001");
    studio.write(&format!("{dir}/model.obj"), "x");
    studio.write(&format!("{dir}/model.obj.bak"), "x");
    let why = "being replaced: backup model.obj.bak is still there, less than an hour old; remove it if no publish is \
               running";
    let refused = studio.publish(&dir).await;
    assert!(matches!(refused, PublishOutcome::NotWhole { why: reasons, .. } if reasons == [why]));
    studio.clock.advance(Duration::from_secs(3500));
    studio.until_pending(&dir, &[why]).await;
    assert_eq!(paths(&studio.next().await), ["model.obj"], "and the backup is no part of it");
}

#[tokio::test]
async fn an_explicit_publish_of_nothing_says_so() {
    let studio = Studio::start(Played::default()).await;
    assert_eq!(studio.publish(MODEL).await, PublishOutcome::NotAVersion);
    let dir: RelPath = format!("{MODEL}/v001").parse().unwrap();
    assert_eq!(studio.publish(dir.as_str()).await, PublishOutcome::Empty { dir: dir.clone() });
    fs::create_dir(studio.path(dir.as_str())).unwrap();
    assert_eq!(studio.publish(dir.as_str()).await, PublishOutcome::Empty { dir });
}

#[tokio::test]
async fn a_version_that_cannot_be_published_is_pending_until_it_can() {
    let mut studio = Studio::start(SystemWatcher).await;
    let (dir, link) = (format!("{MODEL}/v001"), format!("{MODEL}/v001/latest.obj"));
    studio.write(&format!("{dir}/model.obj"), "x");
    std::os::unix::fs::symlink("model.obj", studio.path(&link)).unwrap();
    let why = "\"latest.obj\" is a symbolic link; publish the file itself";
    studio.until_pending(&dir, &[why]).await;
    studio.nothing_for(10).await;
    let refused = PublishOutcome::Refused {
        dir: dir.parse().unwrap(),
        messages: vec![why.to_owned()],
        code: avalon_protocol::control::ErrorCode::BadPath,
    };
    assert_eq!(studio.publish(&dir).await, refused);
    studio.remove(&link);
    assert_eq!(studio.next().await.completeness, Completeness::Quiet, "the refused request is over");
    assert!(studio.handle.pending().borrow().is_empty());
}

#[tokio::test]
async fn a_directory_that_differs_from_a_recorded_one_only_by_case_is_refused() {
    let mut studio = Studio::start(SystemWatcher).await;
    studio.write(&format!("{MODEL}/v001/model.obj"), "x");
    let first = studio.next().await;
    studio.record(&first);
    let dir = "assets/Robot/publish/model/v001";
    studio.write(&format!("{dir}/model.obj"), "x");
    let why = "\"assets/Robot\" and \"assets/robot\" are one name where case or Unicode composition is ignored; \
               rename one";
    studio.until_pending(dir, &[why]).await;
    let refused = studio.publish(dir).await;
    assert!(matches!(refused, PublishOutcome::Refused { messages, .. } if messages == [why]));
    studio.write(&format!("{MODEL}/v002/model.obj"), "x");
    assert_eq!(studio.next().await.dir.as_str(), format!("{MODEL}/v002"), "what was there first goes on");
    fs::rename(studio.path("assets/Robot"), studio.path("assets/rover")).unwrap();
    assert_eq!(studio.next().await.dir.as_str(), "assets/rover/publish/model/v001");
}

#[tokio::test]
async fn a_version_that_could_not_be_recorded_is_handed_over_again_when_asked() {
    let mut studio = Studio::start(Played::default()).await;
    studio.write(&format!("{MODEL}/v001/model.obj"), "x");
    studio.handle.rescan().await.unwrap();
    let settled = studio.next().await;
    studio.handle.reconsider(settled.dir.clone()).await.unwrap();
    assert_eq!(studio.next().await.dir, settled.dir);
}

#[tokio::test]
async fn a_hero_is_handed_over_once_its_backup_is_gone() {
    let mut studio = Studio::start(SystemWatcher).await;
    let (hero, backup) = (format!("{MODEL}/hero"), format!("{MODEL}/hero.BACKUP1"));
    studio.write(&format!("{hero}/model.obj"), "old");
    let old = studio.next().await;
    studio.record(&old);
    fs::rename(studio.path(&hero), studio.path(&backup)).unwrap();
    studio.write(&format!("{hero}/model.obj"), "newer");
    studio.until_pending(&hero, &["being replaced: backup hero.BACKUP1 is still there, less than an hour old; remove it if no publish is running"]).await;
    fs::remove_dir_all(studio.path(&backup)).unwrap();
    assert_eq!(studio.next().await.files[0].file.size, 5);
}

#[tokio::test]
async fn a_settler_stops_when_it_is_told_to() {
    let studio = Studio::start(SystemWatcher).await;
    let clock = studio.clock.clone();
    assert!(timeout(PATIENCE, studio.tasks.shutdown(PATIENCE, &clock)).await.unwrap().is_empty());
    let gone = studio.handle.publish(MODEL.parse().unwrap(), PublishDetails::default()).await;
    assert_eq!(gone, Err(SettlerStopped));
}
