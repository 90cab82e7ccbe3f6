//! Reading again: what is told of each kind of damage, what is recorded, and what is read when.

use std::{fs, io::Write as _, os::unix::fs::FileExt as _, path::PathBuf, sync::Arc, time::Duration};

use avalon_protocol::{
    control::{DamageKind, EventKind, VerifyState, VerifyStatus},
    hash::ObjectHash,
    id::VersionId,
    manifest::Manifest,
    mode::ProjectMode,
    record::{Held, Record},
};
use avalon_store::catalog::{LocalChange, LocalFile};
use tokio_util::sync::CancellationToken;

use super::{background::Aside, *};
use crate::{
    fixture::{Node, Studio, manifest, project, version},
    replicate::jobs::ReplicatorHandle,
};

const CONTENT: &[u8] = b"a robot, as it was published";

/// Publishes a file that lies in the node's tree, with the time of the manifest.
fn publish(node: &Node, number: u32) -> Manifest {
    let manifest = manifest(number, CONTENT);
    let path = manifest.dir().join(&manifest.files()[0].path).unwrap();
    node.writes(&manifest, CONTENT);
    let dir = node.project().dir().unwrap();
    dir.set_mtime(&path, manifest.files()[0].mtime_ns).unwrap();
    node.publishes(&manifest);
    let file = LocalFile::new(manifest.files()[0].hash, &dir.stat(&path).unwrap().unwrap(), manifest.id());
    let put = LocalChange::Put { project: project(), path, file };
    node.core.ledger.update_local_wait(vec![put]).unwrap();
    manifest
}

fn file_of(node: &Node, manifest: &Manifest) -> PathBuf {
    node.dir.join(manifest.dir().as_str()).join(manifest.files()[0].path.as_str())
}

/// Changes a byte as a disk does: nothing else of the file is another than before, here because the catalog is told what is there now.
fn rot(node: &Node, manifest: &Manifest) {
    let path = file_of(node, manifest);
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    let mtime = file.metadata().unwrap().modified().unwrap();
    file.write_all_at(b"A", 0).unwrap();
    file.set_modified(mtime).unwrap();
    unnoticed(node, manifest);
}

/// Makes the catalog believe that it has seen the file of a version as it is now.
fn unnoticed(node: &Node, manifest: &Manifest) {
    let entry = &manifest.files()[0];
    let path = manifest.dir().join(&entry.path).unwrap();
    let stat = node.project().dir().unwrap().stat(&path).unwrap().unwrap();
    let file = LocalFile::new(entry.hash, &stat, manifest.id());
    node.core.ledger.update_local_wait(vec![LocalChange::Put { project: project(), path, file }]).unwrap();
}

fn scrubber(node: &Node) -> (Scrubber, impl FnMut() -> Vec<VersionId>) {
    let (replicator, told) = ReplicatorHandle::recorded();
    let dir = Dir::open(node.dir.parent().unwrap()).unwrap();
    let parts = ScrubParts {
        core: Arc::clone(&node.core),
        replicator,
        settlers: Vec::new(),
        config: ScrubConfig { repair: false, ..ScrubConfig::default() },
        verified: Verified::open(&dir),
        tasks: Tasks::new(),
    };
    (Scrubber::new(parts), told)
}

/// Reads versions as for somebody, until all is read.
async fn read(node: &Node, scrubber: &Scrubber, numbers: &[u32]) -> VerifyStatus {
    let fold = |number: &u32| {
        let id = version(*number);
        let fold = node.core.ledger.version(&id).unwrap().unwrap_or_default();
        (id, fold)
    };
    let versions = numbers.iter().map(fold).collect();
    let begun = scrubber.verify(Wanted { versions, repair: false }).await;
    loop {
        let status = scrubber.run(&begun.id).unwrap();
        if status.state != VerifyState::Running {
            return status;
        }
        // Time is what the reading waits for.
        node.clock.advance(Duration::from_millis(100));
        tokio::task::yield_now().await;
    }
}

fn holds(node: &Node, manifest: &Manifest) -> bool {
    let fold = node.core.ledger.version(manifest.version()).unwrap().unwrap_or_default();
    fold.holds(&node.core.me, &manifest.id())
}

fn is_found(node: &Node, object: &ObjectHash) -> bool {
    !node.core.ledger.locate(object).unwrap().is_empty()
}

#[tokio::test]
async fn what_is_as_it_was_published_is_noted_with_the_time() {
    let studio = Studio::new();
    let node = studio.node("srv@london", ProjectMode::OnDemand);
    let manifest = publish(&node, 1);
    let (scrubber, _told) = scrubber(&node);
    assert_eq!(scrubber.verified_ms(&manifest.id()), None);
    let status = read(&node, &scrubber, &[1, 2]).await;
    assert_eq!((status.versions_total, status.versions_done, status.damaged.len()), (1, 1, 0));
    assert_eq!((status.bytes_done, status.bytes_total), (CONTENT.len() as u64, CONTENT.len() as u64));
    let at_ms = scrubber.verified_ms(&manifest.id()).unwrap();
    assert!(at_ms <= node.core.now_ms() && at_ms > 0);
    assert!(holds(&node, &manifest) && node.core.health.items().is_empty());
    let totals = scrubber.status();
    assert_eq!((totals.versions_verified, totals.bytes_verified), (1, CONTENT.len() as u64));
}

#[tokio::test]
async fn rot_is_told_and_neither_held_nor_served_from_then_on_and_nothing_is_removed() {
    let studio = Studio::new();
    let node = studio.node("srv@london", ProjectMode::OnDemand);
    let (manifest, other) = (publish(&node, 1), manifest(2, b"another"));
    rot(&node, &manifest);
    assert!(is_found(&node, &ObjectHash::of(CONTENT)));
    let (scrubber, _told) = scrubber(&node);
    let before = node.core.events.last_id();
    let status = read(&node, &scrubber, &[1]).await;
    let [damaged] = status.damaged.as_slice() else { panic!("{status:?}") };
    assert_eq!(damaged.damage, DamageKind::Rot);
    assert_eq!(damaged.path, file_of(&node, &manifest).strip_prefix(&node.dir).unwrap().to_str().unwrap());
    assert!(!holds(&node, &manifest), "no other node relies on it");
    assert!(!is_found(&node, &ObjectHash::of(CONTENT)), "nobody is given it for what it was");
    let health = node.core.health.items();
    assert_eq!(health.iter().map(|item| item.code.as_str()).collect::<Vec<_>>(), [DAMAGED]);
    assert!(health[0].hint.as_ref().unwrap().contains("no other node"), "{health:?}");
    assert_eq!(scrubber.verified_ms(&manifest.id()), None);
    assert_eq!(fs::read(file_of(&node, &manifest)).unwrap()[..2], *b"A ", "it stays where it is");
    let (since, _) = node.core.events.since(before);
    let kinds: Vec<&EventKind> = since.iter().map(|event| &event.kind).collect();
    assert!(
        kinds.iter().any(|kind| matches!(kind, EventKind::Damaged { files, .. } if files.len() == 1)),
        "{kinds:?}"
    );
    // It is looked at when somebody asks again, though it is not held.
    assert_eq!(read(&node, &scrubber, &[1]).await.damaged.len(), 1);
    drop(other);
}

#[tokio::test]
async fn what_rotted_and_then_lost_its_manifest_is_told_and_what_was_dropped_is_not() {
    let studio = Studio::new();
    let node = studio.node("srv@london", ProjectMode::OnDemand);
    let (rotten, dropped) = (publish(&node, 1), publish(&node, 2));
    rot(&node, &rotten);
    let (scrubber, _told) = scrubber(&node);
    assert_eq!(read(&node, &scrubber, &[1]).await.damaged.len(), 1);
    node.says(Record::Dropped(Held { version: version(2), manifest: dropped.id() }));
    fs::remove_file(file_of(&node, &dropped)).unwrap();
    for manifest in [&rotten, &dropped] {
        let (state, text) = (node.dir.ancestors().nth(2).unwrap().join("state"), manifest.id().to_string());
        fs::File::create(state.join("manifests").join(&text[..2]).join(&text)).unwrap();
    }
    let status = read(&node, &scrubber, &[1, 2]).await;
    let [unread] = status.unread.as_slice() else { panic!("{status:?}") };
    assert!(unread.contains("v001") && unread.contains("manifest"), "{unread}");
}

#[tokio::test]
async fn a_repair_that_nobody_can_give_yet_is_tried_until_somebody_can() {
    let studio = Studio::new();
    let node = studio.node("srv@london", ProjectMode::OnDemand);
    let published = publish(&node, 1);
    rot(&node, &published);
    let (scrubber, mut asked) = scrubber(&node);
    read(&node, &scrubber, &[1]).await;
    let path = published.dir().join(&published.files()[0].path).unwrap();
    node.core.damaged.ask_for(&version(1), [path].iter());
    // As where its volume is not mounted; and then it is, and nobody else has the version.
    node.project().pause("not mounted");
    let repairs = scrubber.clone();
    scrubber.0.tasks.spawn("repair", async move { repairs.repair_asked().await });
    let minutes = async |count: u32| {
        for _ in 0..count {
            node.clock.advance(Duration::from_secs(60));
            tokio::task::yield_now().await;
        }
    };
    minutes(3).await;
    node.project().reopen().unwrap();
    minutes(3).await;
    assert_eq!(asked(), []);
    let far = studio.node("far@montreal", ProjectMode::OnDemand);
    far.says(Record::Placed(Held { version: version(1), manifest: published.id() }));
    node.hears(&far);
    loop {
        minutes(1).await;
        let versions = asked();
        if !versions.is_empty() {
            assert_eq!(versions, [version(1)]);
            return;
        }
    }
}

#[tokio::test]
async fn each_kind_of_damage_has_its_word_and_what_a_person_did_is_no_damage() {
    let studio = Studio::new();
    let node = studio.node("srv@london", ProjectMode::OnDemand);
    let manifests: Vec<Manifest> = (1..=4).map(|number| publish(&node, number)).collect();
    let [cut, gone, written, touched] = manifests.as_slice() else { unreachable!() };
    let set_time = |manifest: &Manifest, then: std::time::SystemTime| {
        let file = fs::OpenOptions::new().write(true).open(file_of(&node, manifest)).unwrap();
        file.set_modified(then).unwrap();
    };
    let published = fs::metadata(file_of(&node, cut)).unwrap().modified().unwrap();
    fs::OpenOptions::new().write(true).open(file_of(&node, cut)).unwrap().set_len(3).unwrap();
    set_time(cut, published);
    unnoticed(&node, cut);
    fs::remove_file(file_of(&node, gone)).unwrap();
    fs::File::create(file_of(&node, written))
        .unwrap()
        .write_all(CONTENT.to_ascii_uppercase().as_slice())
        .unwrap();
    // Programs that keep a time are programs all the same.
    set_time(written, published);
    set_time(touched, published + Duration::from_secs(5));
    let (scrubber, _told) = scrubber(&node);
    let status = read(&node, &scrubber, &[1, 2, 3, 4]).await;
    let told: Vec<(&str, DamageKind)> = status
        .damaged
        .iter()
        .map(|file| (&file.reference[file.reference.len() - 4..], file.damage))
        .collect();
    assert_eq!(
        told,
        [("v001", DamageKind::Size), ("v002", DamageKind::Missing), ("v003", DamageKind::Changed)]
    );
    assert_eq!(
        manifests.iter().map(|manifest| holds(&node, manifest)).collect::<Vec<_>>(),
        [false, true, true, true]
    );
    assert!(scrubber.verified_ms(&touched.id()).is_some(), "another time and the same bytes");
    assert!(scrubber.verified_ms(&written.id()).is_none());
}

#[tokio::test]
async fn a_reading_that_is_ended_reads_no_further() {
    let studio = Studio::new();
    let node = studio.node("srv@london", ProjectMode::OnDemand);
    for number in 1..=3 {
        publish(&node, number);
    }
    let (scrubber, _told) = scrubber(&node);
    let turn = scrubber.0.turn.acquire().await.unwrap();
    let fold = |number| (version(number), node.core.ledger.version(&version(number)).unwrap().unwrap());
    let begun = scrubber.verify(Wanted { versions: (1..=3).map(fold).collect(), repair: false }).await;
    assert_eq!(begun.state, VerifyState::Running);
    let ended = scrubber.cancel(&begun.id).unwrap();
    assert_eq!((ended.state, ended.versions_done), (VerifyState::Cancelled, 0));
    drop(turn);
    while !scrubber.0.tasks.running().is_empty() {
        tokio::task::yield_now().await;
    }
    let status = scrubber.run(&begun.id).unwrap();
    assert_eq!((status.state, status.versions_done, status.bytes_done), (VerifyState::Cancelled, 0, 0));
    assert!(scrubber.cancel("77").is_none() && scrubber.run("x").is_none());
}

#[tokio::test]
async fn what_was_not_read_for_longest_comes_first_and_nothing_before_its_time() {
    let studio = Studio::new();
    let node = studio.node("srv@london", ProjectMode::OnDemand);
    let manifests: Vec<Manifest> = (1..=3).map(|number| publish(&node, number)).collect();
    let (scrubber, _told) = scrubber(&node);
    let now_ms = node.core.now_ms();
    let day = 24 * 3_600_000;
    for (manifest, days) in manifests.iter().zip([40, 50, 20]) {
        scrubber.0.verified.note(&manifest.id(), now_ms - days * day);
    }
    let none = std::collections::HashSet::new();
    let due = scrubber.due(&none).unwrap();
    let order = |due: &background::Due| due.chosen.iter().map(|(_, id)| id.clone()).collect::<Vec<_>>();
    assert_eq!(order(&due), [version(2), version(1)]);
    assert_eq!((due.count, due.oldest_ms), (2, Some(now_ms - 50 * day)));
    assert_eq!(order(&scrubber.due(&[version(2)].into()).unwrap()), [version(1)], "one is set aside");

    let (stop, mut aside) = (CancellationToken::new(), Aside::new());
    rot(&node, &manifests[0]);
    let mut pass = Box::pin(scrubber.pass(&mut aside, &stop));
    loop {
        tokio::select! {
            biased;
            _ = &mut pass => break,
            () = tokio::task::yield_now() => node.clock.advance(Duration::from_millis(100)),
        }
    }
    drop(pass);
    assert!(holds(&node, &manifests[1]) && !holds(&node, &manifests[0]), "it was read, and is damaged");
    assert!(scrubber.verified_ms(&manifests[1].id()).unwrap() >= now_ms);
    let due = scrubber.due(&none).unwrap();
    assert!(due.chosen.is_empty(), "{due:?}");
    let wait = scrubber.pass(&mut aside, &stop).await;
    assert!(wait > Duration::ZERO && wait <= Duration::from_secs(3600), "{wait:?}");
    // A clock that was ahead keeps nothing from being read.
    scrubber.0.verified.note(&manifests[2].id(), now_ms + 1000 * day);
    assert_eq!(order(&scrubber.due(&none).unwrap()), [version(3)]);
}

#[tokio::test]
async fn what_happens_by_itself_gives_its_turn_to_people() {
    let studio = Studio::new();
    let node = studio.node("srv@london", ProjectMode::OnDemand);
    let manifest = publish(&node, 1);
    let (scrubber, _told) = scrubber(&node);
    let now_ms = node.core.now_ms();
    scrubber.0.verified.note(&manifest.id(), now_ms - 40 * 24 * 3_600_000);
    assert!(scrubber.may_go_on(Reader::Itself).await);
    scrubber.0.people.fetch_add(1, Ordering::Relaxed);
    assert!(!scrubber.may_go_on(Reader::Itself).await, "it does not wait, which would keep the turn");
    let (stop, mut aside) = (CancellationToken::new(), Aside::new());
    assert!(scrubber.pass(&mut aside, &stop).await > Duration::ZERO);
    assert!(scrubber.0.turn.try_acquire().is_ok());
    scrubber.0.people.fetch_sub(1, Ordering::Relaxed);
    assert!(scrubber.may_go_on(Reader::Itself).await);
    assert_eq!(scrubber.status().state, ScrubState::Running);
}

#[tokio::test]
async fn a_held_version_whose_manifest_is_not_to_be_had_is_set_aside() {
    let studio = Studio::new();
    let node = studio.node("srv@london", ProjectMode::OnDemand);
    let manifest = publish(&node, 1);
    let (scrubber, _told) = scrubber(&node);
    scrubber.0.verified.note(&manifest.id(), node.core.now_ms() - 40 * 24 * 3_600_000);
    let (state, text) = (node.dir.ancestors().nth(2).unwrap().join("state"), manifest.id().to_string());
    fs::remove_file(state.join("manifests").join(&text[..2]).join(&text)).unwrap();
    let (stop, mut aside) = (CancellationToken::new(), Aside::new());
    scrubber.pass(&mut aside, &stop).await;
    assert!(aside.contains_key(&version(1)), "or it would be tried without end");
}
