//! Publishing at a node with a real ledger, whose state directory or catalog fails.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::Duration,
};

use avalon_protocol::{
    control::{ErrorCode, EventKind, Severity},
    hash::ObjectHash,
    manifest::{Completeness, Manifest},
    mode::ProjectMode,
    own_feed::Writing,
    rel_path::RelPath,
    settle::{EndMark, SeenFile},
    template::FileRole,
    version_fold::Standing,
};
use avalon_store::{catalog::LocalChange, fs::FileStat, ledger::LedgerError};
use tokio::{sync::oneshot, time::timeout};

use super::{
    hash::NamedFile,
    publisher,
    record::{Purpose, RecordError, Remedy, WholeVersion, record},
    settle::{PublishDetails, PublishOutcome, Rewrites, Settled, SettledFile},
};
use crate::{
    config::{Config, NetworkConfig},
    fixture::{Node, Studio, manifest, project, version},
    log::ErrorChain,
    tasks::Tasks,
};

/// Only hung code waits that long.
const PATIENCE: Duration = Duration::from_secs(20);
/// Time to let a task hear of something.
const BREATH: Duration = Duration::from_millis(20);
const DIR: &str = "assets/robot/publish/modelDefault/v002";
/// More than one block: a block list of it is kept when it is hashed.
const BYTES: usize = 3 << 20;

fn config() -> Config {
    Config {
        certificate_validity: avalon_certs::NODE_VALIDITY,
        max_feed_bytes: 4 << 30,
        file: "avalond.toml".into(),
        state_dir: "state".into(),
        listen: "127.0.0.1:0".parse().unwrap(),
        socket: "control.sock".into(),
        socket_group: None,
        api: Default::default(),
        audit_keep: None,
        shutdown_timeout: PATIENCE,
        knowledge: Default::default(),
        projects: Vec::new(),
        peers: Vec::new(),
        settle_quiet: Duration::from_secs(5),
        scan_interval: Duration::from_secs(600),
        network: NetworkConfig { interval: Duration::from_secs(60), quiet: Duration::from_secs(40) },
        scrub: Default::default(),
        limits: Vec::new(),
        hooks: Vec::new(),
        log_level: "info".into(),
    }
}

/// Writes a version with one file and returns it as the settler hands it over.
fn write(node: &Node) -> Settled {
    let path = node.dir.join(DIR).join("modelDefault.abc");
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::File::create(&path).unwrap().write_all(&vec![7; BYTES]).unwrap();
    let stat = FileStat::from(&fs::metadata(&path).unwrap()).identity();
    let dir: RelPath = DIR.parse().unwrap();
    let file = SeenFile {
        path: "modelDefault.abc".parse().unwrap(),
        size: stat.size,
        mtime_ns: stat.mtime_ns,
        ctime_ns: stat.ctime_ns,
        inode: stat.inode,
        end_mark: EndMark::Unknown,
    };
    Settled {
        fields: node.project().templates().invert_dir(&dir).unwrap().fields,
        dir,
        completeness: Completeness::Quiet,
        purpose: Purpose::Publish,
        files: vec![SettledFile { file, representation: "abc".parse().unwrap(), role: FileRole::Entry }],
        warnings: Vec::new(),
        details: None,
        replies: Vec::new(),
    }
}

/// Makes of a version that settled what is recorded.
fn whole(node: &Node, settled: &Settled) -> WholeVersion {
    WholeVersion {
        version: node.project().templates().invert_dir(&settled.dir).unwrap(),
        files: settled.files.iter().map(|file| file.file.clone()).collect(),
        completeness: Completeness::Quiet,
        purpose: Purpose::Publish,
        about: Default::default(),
    }
}

/// Lets time go on until something is so.
async fn until(node: &Node, what: &str, is_so: impl Fn() -> bool) {
    for _ in 0..500 {
        if is_so() {
            return;
        }
        node.clock.advance(Duration::from_millis(500));
        timeout(BREATH, std::future::pending::<()>()).await.ok();
    }
    panic!("not {what}: {:?}, {:?}", node.core.health.items(), node.project().pending())
}

/// A file in the place of each directory for manifests.
fn block_manifests(node: &Node) -> Vec<PathBuf> {
    let manifests = node.dir.ancestors().nth(2).map(|at| at.join("state/manifests")).unwrap();
    let taken: Vec<_> = (0..=255_u8).map(|n| manifests.join(format!("{n:02x}"))).collect();
    taken.iter().for_each(|path| drop(fs::File::create_new(path).unwrap()));
    taken
}

#[tokio::test]
async fn a_version_that_cannot_be_recorded_is_pending_and_told_of_until_it_can() {
    let (studio, tasks) = (Studio::new(), Tasks::new());
    let node = studio.node("srv@london", ProjectMode::OnDemand);
    let taken = block_manifests(&node);
    let _handle = publisher::start(&node.core, node.project(), &config(), &tasks);
    write(&node);
    let failed = || node.core.health.items().into_iter().find(|health| health.code == "publish-failed");
    until(&node, "told of", || failed().is_some()).await;
    let told = failed().unwrap();
    assert_eq!(told.severity, Severity::Error);
    assert!(told.message.contains(DIR) && told.message.contains("cannot be stored"), "{told:?}");
    assert!(told.hint.is_some_and(|hint| hint.contains("tried again")));
    let pending = node.project().pending();
    assert_eq!(pending.len(), 1);
    assert!(pending[0].why[0].contains("cannot be stored"), "{pending:?}");
    taken.iter().for_each(|path| fs::remove_file(path).unwrap());
    until(&node, "recorded", || node.core.ledger.version(&version(2)).unwrap().is_some()).await;
    until(&node, "well again", || failed().is_none() && node.project().pending().is_empty()).await;
    tasks.shutdown(PATIENCE, &node.clock).await;
}

#[tokio::test]
async fn without_a_catalog_a_version_is_not_hashed() {
    let studio = Studio::new();
    let node = studio.node("srv@london", ProjectMode::OnDemand);
    node.publishes(&manifest(1, b"x"));
    let (node, gate) = studio.without_catalog(node);
    let settled = write(&node);
    let whole = whole(&node, &settled);
    let recorded = record(&node.core, node.project(), whole).await;
    assert!(matches!(recorded, Err(RecordError::Catalog { .. })), "{recorded:?}");
    assert!(node.core.blocks.get(&ObjectHash::of(&vec![7; BYTES]), BYTES as u64).is_none());
    gate.open();
}

#[tokio::test]
async fn a_file_that_the_disk_lost_is_not_recorded_until_it_is_written_again() {
    let studio = Studio::new();
    let node = studio.node("srv@london", ProjectMode::OnDemand);
    let settled = write(&node);
    // As after a failed fsync: what was read then is not what the disk gives back.
    let path: RelPath = format!("{DIR}/modelDefault.abc").parse().unwrap();
    let stat = node.project().dir().unwrap().stat(&path).unwrap().unwrap();
    let (inside, object) = ("modelDefault.abc".parse().unwrap(), ObjectHash::of(b"what was written"));
    let before = NamedFile { inside, path, object, stat, is_fresh: true };
    node.project().unsynced().note([&before]);
    for _ in 0..2 {
        let refused = record(&node.core, node.project(), whole(&node, &settled)).await.unwrap_err();
        assert!(ErrorChain(&refused).to_string().contains("write it again"), "{refused:?}");
        assert_eq!((refused.remedy(), refused.code()), (Remedy::Person, ErrorCode::Damaged));
    }
    assert!(node.core.ledger.version(&version(2)).unwrap().is_none());
    record(&node.core, node.project(), whole(&node, &write(&node))).await.unwrap();
    assert!(node.core.ledger.version(&version(2)).unwrap().is_some());
}

#[tokio::test]
async fn what_is_found_rotten_when_it_is_recorded_is_not_held_from_then_on_and_is_to_be_repaired() {
    let studio = Studio::new();
    let node = studio.node("srv@london", ProjectMode::OnDemand);
    let whole = || {
        let dir: RelPath = DIR.parse().unwrap();
        let stat = fs::metadata(node.dir.join(DIR).join("modelDefault.abc")).unwrap();
        let stat = FileStat::from(&stat).identity();
        WholeVersion {
            version: node.project().templates().invert_dir(&dir).unwrap(),
            files: vec![SeenFile {
                path: "modelDefault.abc".parse().unwrap(),
                size: stat.size,
                mtime_ns: stat.mtime_ns,
                ctime_ns: stat.ctime_ns,
                inode: stat.inode,
                end_mark: EndMark::Unknown,
            }],
            completeness: Completeness::Quiet,
            purpose: Purpose::Publish,
            about: Default::default(),
        }
    };
    write(&node);
    let recorded = record(&node.core, node.project(), whole()).await.unwrap();
    // As a disk does it while the catalog is lost.
    let path = node.dir.join(DIR).join("modelDefault.abc");
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let mtime = file.metadata().unwrap().modified().unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"rot", 9).unwrap();
    file.set_modified(mtime).unwrap();
    let (project, inside) = (project(), format!("{DIR}/modelDefault.abc").parse().unwrap());
    node.core.ledger.update_local_wait(vec![LocalChange::Remove { project, path: inside }]).unwrap();
    let before = node.core.events.last_id();
    for _ in 0..2 {
        let refused = record(&node.core, node.project(), whole()).await.unwrap_err();
        assert!(matches!(refused, RecordError::Damaged { .. }), "{refused:?}");
    }
    let fold = node.core.ledger.version(&version(2)).unwrap().unwrap();
    assert!(!fold.holds(&node.core.me, &recorded.manifest), "nobody is to count on it");
    let (since, _) = node.core.events.since(before);
    let count = |is: fn(&EventKind) -> bool| since.iter().filter(|event| is(&event.kind)).count();
    assert_eq!(count(|kind| matches!(kind, EventKind::Dropped { .. })), 1);
    assert_eq!(count(|kind| matches!(kind, EventKind::Damaged { .. })), 1);
    assert!(node.core.health.items().iter().any(|item| item.code == "damaged"));
    assert_eq!(timeout(PATIENCE, node.core.damaged.asked()).await.unwrap(), version(2));
    assert!(timeout(BREATH, node.core.damaged.asked()).await.is_err(), "it is asked for once");
}

#[tokio::test]
async fn what_was_being_placed_before_the_state_was_put_back_is_nobodys_work_until_a_person_says_so() {
    let studio = Studio::new();
    let node = studio.node("srv@london", ProjectMode::OnDemand);
    let settled = write(&node);
    let whole = |rewrites| WholeVersion {
        about: PublishDetails { rewrites, ..PublishDetails::default() },
        ..whole(&node, &settled)
    };
    // A generation that no record of this state names, cut off while its files went into the directory.
    let area = node.dir.join(".avalon/incoming").join(manifest(7, b"of a peer").id().to_string());
    fs::create_dir_all(&area).unwrap();
    let place = |dir: &str| {
        let mut file = fs::File::create(area.join("place")).unwrap();
        file.write_all(dir.as_bytes()).unwrap();
    };
    let recorded = async |rewrites| record(&node.core, node.project(), whole(rewrites)).await;
    place(DIR);
    let refused = recorded(Rewrites::Hold).await.unwrap_err();
    assert!(matches!(refused, RecordError::Incoming { .. }), "{refused:?}");
    place("assets/robot/publish/modelDefault/v003");
    recorded(Rewrites::Hold).await.unwrap();
    assert!(node.core.ledger.version(&version(2)).unwrap().is_some());
    place(DIR);
    recorded(Rewrites::Accept).await.unwrap();
}

#[tokio::test]
async fn what_grew_while_the_nodes_own_records_came_back_is_no_second_first_generation() {
    let studio = Studio::new();
    let node = studio.node("srv@london", ProjectMode::OnDemand);
    let mut settled = write(&node);
    let first = record(&node.core, node.project(), whole(&node, &settled)).await.unwrap();
    let peer = studio.node("ws1@montreal", ProjectMode::Mirror);
    peer.hears(&node);
    let bytes = node.core.ledger.manifest_bytes(first.manifest).unwrap().unwrap();
    let node = studio.without_state(node);
    let path = node.dir.join(DIR).join("modelDefault.part2.abc");
    fs::File::create(&path).unwrap().write_all(b"more").unwrap();
    let stat = FileStat::from(&fs::metadata(&path).unwrap()).identity();
    settled.files.push(SettledFile {
        file: SeenFile {
            path: "modelDefault.part2.abc".parse().unwrap(),
            size: stat.size,
            mtime_ns: stat.mtime_ns,
            ctime_ns: stat.ctime_ns,
            inode: stat.inode,
            end_mark: EndMark::Unknown,
        },
        ..settled.files[0].clone()
    });
    // It is concluded what is here before anything came back, and waits to be written.
    node.core.ledger.hold_all();
    let whole_here = whole(&node, &settled);
    let stored = node.dir.ancestors().nth(2).map(|at| at.join("state/manifests")).unwrap();
    let comes_back = async {
        until(&node, "concluded", || walk(&stored).iter().any(|path| path.is_file())).await;
        node.takes_back(&peer);
        node.core.ledger.put_manifest(&Manifest::decode(&bytes).unwrap()).unwrap();
        node.core.ledger.set_writing(&project(), Writing::Free);
    };
    let (refused, ()) = tokio::join!(record(&node.core, node.project(), whole_here), comes_back);
    let refused = refused.unwrap_err();
    assert!(
        matches!(refused, RecordError::Ledger { source: LedgerError::CameBack { .. }, .. }),
        "{refused:?}"
    );
    assert_eq!((refused.remedy(), refused.code()), (Remedy::Settle, ErrorCode::NotWhole));
    let grown = record(&node.core, node.project(), whole(&node, &settled)).await.unwrap();
    assert_eq!(grown.generation, 2);
    let fold = node.core.ledger.version(&version(2)).unwrap().unwrap();
    assert_eq!(fold.standing(version(2).slot), Standing::Head(grown.manifest));
    assert_eq!(fold.generation(&grown.manifest).unwrap().predecessor, Some(first.manifest));
}

/// Returns everything beneath a directory.
fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| walk(&path).into_iter().chain([path.clone()])).collect()
}

#[tokio::test]
async fn what_is_known_is_asked_again_when_the_catalog_is_built() {
    let studio = Studio::new();
    let node = studio.node("srv@london", ProjectMode::OnDemand);
    node.publishes(&manifest(1, b"x"));
    let (node, gate) = studio.without_catalog(node);
    let settled = write(&node);
    let (known, dir) = (publisher::recorded(&node.core, node.project()), settled.dir);
    let mut answered = tokio::task::spawn_blocking(move || known(&dir, 1));
    assert!(timeout(BREATH, &mut answered).await.is_err(), "answered without a catalog");
    gate.open();
    assert_eq!(timeout(PATIENCE, answered).await.unwrap().unwrap(), []);
}

#[tokio::test]
async fn a_version_that_is_handed_over_waits_for_the_catalog() {
    let (studio, tasks) = (Studio::new(), Tasks::new());
    let node = studio.node("srv@london", ProjectMode::OnDemand);
    node.publishes(&manifest(1, b"x"));
    let (node, gate) = studio.without_catalog(node);
    let (reply, mut answered) = oneshot::channel();
    let settled = Settled { replies: vec![reply], ..write(&node) };
    let handle = publisher::start(&node.core, node.project(), &config(), &tasks);
    let (core, there, tasks_there) = (node.core.clone(), node.project().clone(), tasks.clone());
    tasks.spawn("publish", async move {
        publisher::publish(&core, &there, &handle, &tasks_there, settled).await;
    });
    assert!(timeout(BREATH * 5, &mut answered).await.is_err(), "answered without a catalog");
    gate.open();
    let outcome = timeout(PATIENCE, answered).await.unwrap().unwrap();
    assert!(matches!(outcome, PublishOutcome::Published(_)), "{outcome:?}");
    tasks.shutdown(PATIENCE, &node.clock).await;
}
