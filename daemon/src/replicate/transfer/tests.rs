//! What a job refuses before it fetches anything, and what is done with what an earlier run left.

use std::{fs, io, sync::Arc};

use avalon_protocol::{
    control::{ErrorCode, JobKind},
    hash::{ContentId, ManifestId},
    id::VersionId,
    manifest::{Manifest, ManifestDraft},
    mode::ProjectMode,
    plan::Priority,
    record::{Published, Record},
    rel_path::RelPath,
};

use avalon_protocol::{access::Role, hash::ObjectHash};
use avalon_store::{
    catalog::{LocalChange, LocalFile},
    fs::{IoError, WriteMode},
    object::incoming::{IncomingError, UnsyncedFile},
};

use super::{LeftOver, incoming_failed, left_over, run};
use crate::{
    fixture::{Node, Studio, draft, manifest, project, published, version},
    policy::Apply,
    publish::hash::NamedFile,
    replicate::{
        jobs::{Job, Occupied, Outcome},
        serve,
    },
    tasks::Tasks,
};

/// Montreal, which knows what london says of a manifest, and has the manifest.
struct Bench {
    montreal: Node,
    _london: Node,
    _studio: Studio,
}

impl Bench {
    fn new(manifest: &Manifest, said: Published) -> Self {
        let studio = Studio::new();
        let montreal = studio.node("srv@montreal", ProjectMode::OnDemand);
        let london = studio.node("srv@london", ProjectMode::OnDemand);
        london.says(Record::Published(said));
        montreal.hears(&london);
        montreal.core.ledger.put_manifest(manifest).unwrap();
        Self { montreal, _london: london, _studio: studio }
    }

    /// Runs the job of a version without any peer.
    async fn run(&self, version: VersionId, manifest: ManifestId) -> Outcome {
        self.run_job(&self.job(version, manifest, JobKind::Pull)).await
    }

    fn job(&self, version: VersionId, manifest: ManifestId, kind: JobKind) -> Arc<Job> {
        let (core, wish) = (&self.montreal.core, (kind, Priority::Waiting));
        let clock = Arc::clone(&core.clock);
        Arc::new(Job::new("t-1".into(), version, manifest, wish, clock, core.events.clone()))
    }

    async fn run_job(&self, job: &Arc<Job>) -> Outcome {
        let core = &self.montreal.core;
        let tasks = Tasks::new();
        let (net, _events) = self.montreal.net(&tasks, &[]);
        run(Arc::clone(core), net, Arc::clone(job)).await
    }

    /// Checks that the job is refused for good, with these words, and that nothing was written for it.
    #[track_caller]
    fn check_refused(&self, outcome: &Outcome, words: &str) {
        match outcome {
            Outcome::Failed { reason, code: ErrorCode::Damaged } => {
                assert!(reason.contains(words), "{reason}")
            }
            other => panic!("{other:?} instead of {words:?}"),
        }
        assert_eq!(fs::read_dir(&self.montreal.dir).unwrap().count(), 0, "nothing was written");
    }
}

#[tokio::test]
async fn a_record_that_agrees_with_its_manifest_is_fetched() {
    let manifest = manifest(1, b"one");
    let bench = Bench::new(&manifest, published(&manifest));
    let outcome = bench.run(version(1), manifest.id()).await;
    assert!(matches!(&outcome, Outcome::Waiting { code: ErrorCode::NoSource, .. }), "{outcome:?}");
    assert!(bench.montreal.dir.join(".avalon/incoming").exists());
}

#[tokio::test]
async fn nothing_is_fetched_again_while_what_lay_in_its_place_lies_there() {
    let manifest = manifest(1, b"one");
    let bench = Bench::new(&manifest, published(&manifest));
    let path = manifest.dir().join(&manifest.files()[0].path).unwrap();
    let file = bench.montreal.dir.join(path.as_str());
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::create_dir(&file).unwrap();
    let dir = bench.montreal.core.project(manifest.project()).unwrap().dir().unwrap();
    let there = dir.stat(&path).unwrap().unwrap().identity();
    for kind in [JobKind::Mirror, JobKind::Pull] {
        let job = bench.job(version(1), manifest.id(), kind);
        let occupied =
            Occupied { path: path.clone(), there, before: Vec::new(), reason: "it is taken".into() };
        job.set_occupied(Some(occupied.clone()));
        let outcome = bench.run_job(&job).await;
        match (kind, &outcome) {
            (JobKind::Mirror, Outcome::Waiting { code: ErrorCode::Conflict, reason, .. })
            | (JobKind::Pull, Outcome::Failed { code: ErrorCode::Conflict, reason }) => {
                assert_eq!(reason, "it is taken");
            }
            _ => panic!("{outcome:?}"),
        }
        assert!(!bench.montreal.dir.join(".avalon/incoming").exists());
        assert_eq!(job.occupied(), Some(occupied));
    }

    // What it might replace is known now: it is looked at anew.
    let job = bench.job(version(1), manifest.id(), JobKind::Mirror);
    let before = vec![ManifestId::from_bytes([7; 32])];
    job.set_occupied(Some(Occupied { path: path.clone(), there, before, reason: String::new() }));
    let outcome = bench.run_job(&job).await;
    assert!(matches!(&outcome, Outcome::Waiting { code: ErrorCode::NoSource, .. }), "{outcome:?}");

    // The same when the file has gone.
    let job = bench.job(version(1), manifest.id(), JobKind::Mirror);
    job.set_occupied(Some(Occupied { path, there, before: Vec::new(), reason: String::new() }));
    fs::remove_dir(&file).unwrap();
    let outcome = bench.run_job(&job).await;
    assert!(matches!(&outcome, Outcome::Waiting { code: ErrorCode::NoSource, .. }), "{outcome:?}");
    assert_eq!(job.occupied(), None);
}

#[tokio::test]
async fn a_record_that_says_another_thing_than_its_manifest_is_refused() {
    let lies: [fn(&mut Published); 3] = [
        |said| said.content = ContentId::from_bytes([7; 32]),
        |said| said.generation = 2,
        |said| said.predecessor = Some(ManifestId::from_bytes([7; 32])),
    ];
    for lie in lies {
        let manifest = manifest(1, b"one");
        let mut said = published(&manifest);
        lie(&mut said);
        let bench = Bench::new(&manifest, said);
        let outcome = bench.run(version(1), manifest.id()).await;
        bench.check_refused(&outcome, "the record of srv@london does not agree");
    }
}

#[tokio::test]
async fn a_record_whose_manifest_is_of_another_version_is_refused() {
    let own_place = draft(2, b"two");
    let false_place = ManifestDraft { dir: draft(1, b"").dir, ..own_place.clone() };
    for draft in [own_place, false_place] {
        let manifest = draft.finish().unwrap();
        let mut said = published(&manifest);
        said.version = version(1);
        let bench = Bench::new(&manifest, said);
        let outcome = bench.run(version(1), manifest.id()).await;
        bench.check_refused(&outcome, "its manifest places it at");
    }
}

#[tokio::test]
async fn a_manifest_that_lies_elsewhere_than_the_template_says_is_not_placed() {
    for dir in [
        "assets/robot/publish/modelDefault/v002",
        "assets/other/publish/modelDefault/v001",
        "assets/robot/publish/modelDefault/v001/deeper",
        "assets/robot/publish/modelDefault",
        "assets/robot/work/modelDefault/v001",
        ".avalon/trash/v001",
    ] {
        let dir = dir.parse().unwrap();
        let Ok(manifest) = (ManifestDraft { dir, ..draft(1, b"one") }).finish() else { continue };
        let bench = Bench::new(&manifest, published(&manifest));
        let outcome = bench.run(version(1), manifest.id()).await;
        bench.check_refused(&outcome, &format!("its manifest places it at {}", manifest.dir()));
    }
}

#[tokio::test]
async fn what_an_earlier_run_left_goes_on_when_it_was_pulled_stays_for_a_mirror_and_else_goes() {
    let manifest = manifest(1, b"one");
    let bench = Bench::new(&manifest, published(&manifest));
    let (montreal, core) = (&bench.montreal, &bench.montreal.core);
    assert_eq!(left_over(core, manifest.id()).await, LeftOver::Pulled(version(1)));
    montreal.project().set_mode(ProjectMode::Mirror);
    assert_eq!(left_over(core, manifest.id()).await, LeftOver::Kept);
    montreal.project().set_mode(ProjectMode::OnDemand);
    let unknown = ManifestId::from_bytes([9; 32]);
    assert_eq!(left_over(core, unknown).await, LeftOver::Kept, "its record may still come");
    montreal.places(&manifest);
    assert_eq!(left_over(core, manifest.id()).await, LeftOver::Useless, "it is here");
}

#[tokio::test]
async fn what_was_left_of_a_version_that_became_a_conflict_goes() {
    let manifest = manifest(1, b"one");
    let bench = Bench::new(&manifest, published(&manifest));
    bench.montreal.publishes(&draft(1, b"another").finish().unwrap());
    assert_eq!(left_over(&bench.montreal.core, manifest.id()).await, LeftOver::Useless);
}

/// Gives a node these grants, as the studio's policy.
fn grant(node: &Node, grants: &[(&str, &str, &str)]) {
    let grants = grants.iter().map(|(to, project, action)| {
        format!("[[grant]]\nto = \"{to}\"\nprojects = \"{project}\"\nactions = \"{action}\"\n")
    });
    let head = "schema = \"avalon.policy/1\"\n[defaults]\nkeep = \"on-demand\"\nmin_copies = 1\n";
    let document = grants.fold(head.to_owned(), |text, grant| text + &grant);
    let (author, comment) = ("anna".to_owned(), String::new());
    node.core.apply_policy(Apply { document, author, comment, replaces: None }).unwrap();
}

#[tokio::test]
async fn a_version_is_filled_from_another_project_only_if_its_author_may_have_it_from_there() {
    const SECRET: &[u8] = b"of comet alone";
    let studio = Studio::new();
    let van = studio.node_as("ws1@van", Role::Site, ProjectMode::OnDemand);
    let montreal = studio.node("srv@montreal", ProjectMode::OnDemand);
    fs::create_dir(montreal.dir.parent().unwrap().join("comet")).unwrap();
    let montreal = studio.reopen(montreal);
    let comet = "comet".parse().unwrap();
    let (dir, path) = (montreal.core.project(&comet).unwrap().dir().unwrap(), "film.mov".parse().unwrap());
    dir.write_atomic(&path, SECRET, WriteMode::Replace).unwrap();
    let file = LocalFile::new(
        ObjectHash::of(SECRET),
        &dir.stat(&path).unwrap().unwrap(),
        ManifestId::from_bytes([7; 32]),
    );
    let put = LocalChange::Put { project: comet.clone(), path, file };
    montreal.core.ledger.update_local_wait(vec![put]).unwrap();

    // It knows the hash, and has not the content.
    let manifest = manifest(1, SECRET);
    van.publishes(&manifest);
    grant(&montreal, &[("van", "lantern", "publish")]);
    montreal.hears(&van);
    montreal.core.ledger.put_manifest(&manifest).unwrap();
    let bench = Bench { montreal, _london: van, _studio: studio };
    let outcome = bench.run(version(1), manifest.id()).await;
    assert!(matches!(&outcome, Outcome::Waiting { code: ErrorCode::NoSource, .. }), "{outcome:?}");
    let core = &bench.montreal.core;
    let served = |project| {
        serve::open_reader(core, project, &ObjectHash::of(SECRET), SECRET.len() as u64).unwrap().is_some()
    };
    assert!(served(&comet) && !served(&project()), "it is served where it lies");

    grant(&bench.montreal, &[("van", "lantern", "publish"), ("van", "comet", "pull")]);
    let outcome = bench.run(version(1), manifest.id()).await;
    assert!(matches!(&outcome, Outcome::Placed), "{outcome:?}");
}

#[test]
fn a_file_in_place_that_could_not_be_synced_has_to_be_what_was_read_before_it_is_published() {
    let (studio, there) = (Studio::new(), manifest(1, b"x"));
    let node = studio.node("srv@montreal", ProjectMode::OnDemand);
    let path: RelPath = "a.abc".parse().unwrap();
    let dir = node.project().dir().unwrap();
    dir.write_atomic(&path, b"torn", WriteMode::Replace).unwrap();
    let stat = dir.stat(&path).unwrap().unwrap();
    let unsynced = |object| UnsyncedFile { path: path.clone(), object, identity: stat.identity() };
    let files = vec![unsynced(ObjectHash::of(b"good"))];
    let source = IoError::new("fsync", &node.dir, io::Error::from_raw_os_error(5));
    let error = IncomingError::FsyncInPlace { manifest: there.id(), files, source };
    let wish = (JobKind::Pull, Priority::Waiting);
    let job = Job::new(
        "t-1".into(),
        version(1),
        there.id(),
        wish,
        Arc::clone(&node.core.clock),
        node.core.events.clone(),
    );
    let outcome = incoming_failed(&node.core, &job, &error);
    assert!(matches!(outcome, Outcome::Waiting { code: ErrorCode::Damaged, .. }), "{outcome:?}");
    let read = |object| NamedFile { inside: path.clone(), path: path.clone(), object, stat, is_fresh: true };
    assert!(node.project().unsynced().has_lost(&read(ObjectHash::of(b"torn"))));
    assert!(!node.project().unsynced().has_lost(&read(ObjectHash::of(b"good"))));
}
