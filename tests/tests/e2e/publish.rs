//! When a version counts as whole, and how it is noticed.

use std::{
    fs,
    io::Write as _,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use avalon_protocol::control::{ErrorCode, EventKind, PublishState};
use avalon_tests::daemons::{events::Events, now, tree};

use crate::support::{BEAUTY, BEAUTY_V1, LONDON, MODEL, MONTREAL, model, publish_model, show, studio};

const FRAMES: &str = "film/sh010/publish/beauty/v001/beauty.exr";

/// Waits until the version directory is pending for a reason with these words, and without those.
fn pending(events: &mut Events, with: &str, without: Option<&str>) {
    events.wait(&format!("pending: {with}"), |kind| match kind {
        EventKind::Pending { dir, why, .. } if dir == &format!("{BEAUTY}/v001") => {
            let why = why.join("; ");
            (why.contains(with) && !without.is_some_and(|without| why.contains(without))).then_some(())
        }
        _ => None,
    });
}

fn is_published(kind: &EventKind) -> bool {
    matches!(kind, EventKind::Published { reference, .. } if reference == BEAUTY_V1)
}

#[test]
fn a_slow_publish_is_announced_once_and_only_when_whole() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    montreal.until_connected(LONDON);
    let (mut events, mut there) = (london.events(), montreal.events());
    let frame = |number: u32| format!("beauty.{number}.exr");
    let write = |number: u32| {
        let content = fs::read(show().join(FRAMES).join(frame(number))).unwrap();
        tree::write(&london.path(FRAMES).join(frame(number)), &content);
    };
    let lock = london.path(&format!("{BEAUTY}/v001/.publish.lock"));
    tree::write(&lock, b"anna");
    // Out of order, with a pause in which the quiet period passes, and a gap after the first: what comes in order flows while
    // the lock is there.
    [1005, 1001].into_iter().for_each(write);
    pending(&mut events, "locked by .publish.lock", None);
    [1003, 1004].into_iter().for_each(write);
    pending(&mut events, "1002", None);
    let said = london.ctl(&["why", "lantern:sh010/beauty@v001", "--json"]).good();
    assert_eq!(said["answers"][0]["state"], "not-published");
    assert!(said["answers"][0]["because"].to_string().contains("1002"), "{said}");
    // A frame that is half written, under another name and in its place.
    let whole = fs::read(show().join(FRAMES).join(frame(1002))).unwrap();
    let mut growing = fs::File::create(london.path(FRAMES).join("beauty.1002.exr.tmp")).unwrap();
    growing.write_all(&whole[..whole.len() / 2]).unwrap();
    pending(&mut events, "temporary file", None);
    fs::remove_file(&lock).unwrap();
    pending(&mut events, "temporary file", Some("locked"));
    growing.write_all(&whole[whole.len() / 2..]).unwrap();
    drop(growing);
    events.drain();
    assert_eq!(events.count(is_published), 0, "not before it is whole");
    fs::rename(london.path(FRAMES).join("beauty.1002.exr.tmp"), london.path(FRAMES).join(frame(1002)))
        .unwrap();
    assert_eq!(events.published(BEAUTY_V1), 1);
    there.placed(BEAUTY_V1);
    tree::assert_equal(&london.path(""), &montreal.path(""));
    assert_eq!(tree::read(&montreal.path("")).len(), 5, "and no lock");
    // What is published after it shows that nothing of it was announced again.
    publish_model(&london, 1, b"later");
    there.placed(&model(1));
    events.published(&model(1));
    assert_eq!(events.count(is_published), 1);
    let announced =
        |kind: &EventKind| matches!(kind, EventKind::Announced { reference, .. } if reference == BEAUTY_V1);
    assert_eq!(there.count(announced), 1);
    let status = london.api().status();
    assert!(status.projects[0].pending.is_empty(), "{:?}", status.projects);
}

#[test]
fn a_hard_linked_publish_with_old_times_is_noticed_without_a_scan() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let mut events = london.events();
    let work = london.path("film/sh010/work/render/beauty.exr");
    tree::copy(&show().join(FRAMES), &work);
    fs::create_dir_all(london.path(FRAMES)).unwrap();
    for entry in fs::read_dir(&work).unwrap() {
        let entry = entry.unwrap();
        let old = now() - Duration::from_secs(365 * 24 * 3600);
        fs::File::options().write(true).open(entry.path()).unwrap().set_modified(old).unwrap();
        fs::hard_link(entry.path(), london.path(FRAMES).join(entry.file_name())).unwrap();
    }
    assert_eq!(events.published(BEAUTY_V1), 1);
    assert_eq!(london.api().list().versions[0].files, 24);
    // A release of the work files is no change of the published ones.
    fs::remove_dir_all(&work).unwrap();
    publish_model(&london, 1, b"later");
    events.published(&model(1));
    let refused = |kind: &EventKind| matches!(kind, EventKind::Refused { .. });
    assert_eq!((events.count(is_published), events.count(refused)), (1, 0));
}

#[test]
fn a_version_and_a_whole_asset_that_are_renamed_into_place_are_noticed_without_a_scan() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    let mut events = london.events();
    let stage = london.path("film/sh010/work/stage/v001");
    tree::copy(&show().join(FRAMES), &stage.join("beauty.exr"));
    fs::create_dir_all(london.path(BEAUTY)).unwrap();
    fs::rename(&stage, london.path(&format!("{BEAUTY}/v001"))).unwrap();
    events.published(BEAUTY_V1);
    let outside = london.config.dir.join("outside/robot");
    tree::write(&outside.join("publish/modelDefault/v001/modelDefault.usdc"), b"one");
    tree::write(&outside.join("publish/modelDefault/v002/modelDefault.usdc"), b"two");
    fs::create_dir_all(london.path("assets")).unwrap();
    fs::rename(&outside, london.path("assets/robot")).unwrap();
    montreal.until_complete_at(&model(1), MONTREAL);
    montreal.until_complete_at(&model(2), MONTREAL);
    montreal.until_complete_at(BEAUTY_V1, MONTREAL);
    tree::assert_equal(&london.path("assets"), &montreal.path("assets"));
}

#[test]
fn a_file_that_a_program_has_open_for_writing_is_not_published_however_quiet_it_is() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let mut events = london.events();
    let path = london.path(&format!("{MODEL}/v001/modelDefault.usdc"));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let mut file = fs::File::create(&path).unwrap();
    file.write_all(b"the first half").unwrap();
    events.wait("pending because of the writer", |kind| match kind {
        EventKind::Pending { why, .. } => {
            why.iter().any(|why| why.contains("open for writing")).then_some(())
        }
        _ => None,
    });
    let item = london.api().publish(path.parent().unwrap());
    assert_eq!(item.error, Some(ErrorCode::NotWhole), "{item:?}");
    file.write_all(b" and the second").unwrap();
    drop(file);
    events.published(&model(1));
    let info = london.api().info(&model(1)).unwrap();
    assert_eq!(info.files[0].bytes, 29);
    let published = |kind: &EventKind| matches!(kind, EventKind::Published { .. });
    assert_eq!(events.count(published), 1);
}

/// Appends to a file until it is told to stop.
fn append(path: &Path, stop: &AtomicBool) {
    let mut file = fs::File::options().append(true).open(path).unwrap();
    let piece = tree::noise(3, 64 << 10);
    for _ in 0..4_000 {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        file.write_all(&piece).unwrap();
        thread::yield_now();
    }
}

#[test]
fn a_file_that_changes_while_it_is_hashed_is_published_only_as_it_is_in_the_end() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    let mut events = london.events();
    let dir = london.path(&format!("{MODEL}/v001"));
    let file = dir.join("modelDefault.usdc");
    tree::write(&file, &tree::noise(2, 32 << 20));
    let stop = AtomicBool::new(false);
    let item = thread::scope(|scope| {
        scope.spawn(|| append(&file, &stop));
        let item = london.api().publish(&dir);
        stop.store(true, Ordering::Relaxed);
        item
    });
    match item.state {
        // It waited until the writer had closed the file.
        PublishState::Published | PublishState::Unchanged => {}
        PublishState::Refused => assert_eq!(item.error, Some(ErrorCode::NotWhole), "{item:?}"),
    }
    events.published(&model(1));
    montreal.until_complete_at(&model(1), MONTREAL);
    let info = london.api().info(&model(1)).unwrap();
    let now_there = tree::read(&dir);
    assert_eq!(info.files[0].hash, now_there[Path::new("modelDefault.usdc")].hash.to_string());
    tree::assert_equal(&london.path(""), &montreal.path(""));
    let published = |kind: &EventKind| matches!(kind, EventKind::Published { .. });
    events.drain();
    assert_eq!(events.count(published), 1);
}

#[test]
fn an_explicit_publish_of_many_versions_answers_for_each() {
    let studio = studio();
    let mut london = studio.node(LONDON, avalon_protocol::mode::ProjectMode::OnDemand);
    // Nothing is published by itself.
    london.config.quiet = "1h".into();
    london.start();
    for version in 1..=3 {
        let dir = london.path(&format!("{MODEL}/v{version:03}"));
        tree::write(&dir.join("modelDefault.usdc"), &[version; 10]);
    }
    let everything = london.path("assets");
    let said = london.ctl(&["publish", everything.to_str().unwrap(), "--json"]).good();
    assert_eq!(said["schema"], "avalonctl.publish/1", "{said}");
    let states: Vec<&str> =
        said["versions"].as_array().unwrap().iter().map(|v| v["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["published"; 3]);
    let again = london.ctl(&["publish", london.path(&format!("{MODEL}/v002")).to_str().unwrap(), "--json"]);
    assert_eq!(again.good()["versions"][0]["state"], "unchanged");
    let nowhere = london.ctl(&["publish", london.config.dir.to_str().unwrap()]);
    nowhere.expect(avalon_protocol::exit_code::ExitCode::Usage);
}
