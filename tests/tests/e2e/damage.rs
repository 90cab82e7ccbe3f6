//! Damage that the system finds, and what it does about it. Of the catalog's see [`crate::catalog`].

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use avalon_protocol::{
    control::{JobState, Presence},
    exit_code::ExitCode,
    mode::ProjectMode,
};
use avalon_tests::daemons::{
    Studio,
    daemon::{Daemon, Said, run},
    tree,
};
use walkdir::WalkDir;

use crate::support::{HOME, LONDON, MODEL, MONTREAL, model, publish_model, studio};

/// Changes one byte of a file.
fn flip(path: &Path, at: u64) {
    let mut file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 0x20]).unwrap();
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = WalkDir::new(dir).into_iter().map(Result::unwrap);
    entries.filter(|entry| entry.file_type().is_file()).map(walkdir::DirEntry::into_path).collect()
}

/// The first segment of a node's feed as another node, or it itself, keeps it.
fn feed(daemon: &Daemon, node: &str) -> PathBuf {
    let dir = daemon.config.state_dir.join("feeds/lantern").join(node);
    let mut segments = files(&dir);
    segments.sort();
    segments.into_iter().next().unwrap_or_else(|| panic!("no segment in {}", dir.display()))
}

/// London with ten versions and montreal that has them.
fn filled(studio: &Studio) -> (Daemon, Daemon) {
    let london = studio.on_demand(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    for version in 1..=10 {
        publish_model(&london, version, &tree::noise(version.into(), 2_000));
    }
    for version in 1..=10 {
        montreal.until_complete_at(&model(version), MONTREAL);
        london.until_complete_at(&model(version), MONTREAL);
    }
    (london, montreal)
}

#[test]
fn bytes_that_rot_in_an_unfinished_transfer_are_fetched_again() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let dir = london.path(&format!("{MODEL}/v001"));
    tree::write_noise(&dir.join("modelDefault.usdc"), 9, 120 << 20);
    assert_eq!(london.api().publish(&dir).error, None);
    // Slow enough to be amid it.
    london.ctl(&["limit", "set", "40MiB/s"]).expect(ExitCode::Ok);
    let mut montreal = studio.mirror(MONTREAL, &[&london]);
    montreal.until("bytes come", |api| {
        api.jobs()
            .iter()
            .any(|job| job.state == JobState::Running && job.bytes_present > 8 << 20)
            .then_some(())
    });
    montreal.kill9();
    let parts = files(&montreal.path(".avalon"));
    let parts = parts.iter().filter(|path| fs::metadata(path).unwrap().len() > 1 << 20);
    let mut damaged = 0;
    for part in parts {
        for mib in [0, 3, 5, 7] {
            flip(part, (mib << 20) + 12_345);
            damaged += 1;
        }
    }
    assert!(damaged > 0, "something was there to damage");
    london.ctl(&["limit", "clear", "--all"]).expect(ExitCode::Ok);
    montreal.start();
    montreal.until_complete_at(&model(1), MONTREAL);
    tree::assert_equal(&london.path(""), &montreal.path(""));
}

#[test]
fn a_file_that_changed_behind_the_daemons_back_is_not_served_as_what_it_was() {
    let studio = studio();
    let mut london = studio.on_demand(LONDON, &[]);
    let home = studio.on_demand(HOME, &[&london]);
    let dir = publish_model(&london, 1, &tree::noise(1, 3 << 20));
    home.until("home knows it", |api| api.locate_one(&model(1)));
    london.terminate();
    // The same size and time, as a program that restores times would leave it.
    let file = dir.join("modelDefault.usdc");
    let mtime = fs::metadata(&file).unwrap().modified().unwrap();
    flip(&file, 2 << 20);
    fs::File::options().write(true).open(&file).unwrap().set_modified(mtime).unwrap();
    london.start();
    london.until("somebody hears of it", |api| api.has_health("rewritten").then_some(()));
    home.until_connected(LONDON);
    let said = home.ctl(&["pull", &model(1), "--timeout", "3s"]);
    assert_ne!(said.code, 0, "{said:?}");
    assert!(!home.path(MODEL).exists(), "nothing wrong is ever visible");
    // With the old content back, home gets it.
    flip(&file, 2 << 20);
    home.until_complete_at(&model(1), LONDON);
    home.ctl(&["pull", &model(1)]).expect(ExitCode::Ok);
    assert_eq!(
        fs::read(home.path(&format!("{MODEL}/v001/modelDefault.usdc"))).unwrap(),
        tree::noise(1, 3 << 20)
    );
}

#[test]
fn a_damaged_copy_of_a_peers_feed_is_put_aside_and_fetched_again() {
    let studio = studio();
    let (london, mut montreal) = filled(&studio);
    let before = montreal.api().list();
    montreal.terminate();
    let path = feed(&montreal, LONDON);
    flip(&path, fs::metadata(&path).unwrap().len() / 2);
    montreal.start();
    assert!(montreal.api().has_health("feed-damaged"), "{:?}", montreal.api().status().health);
    montreal.until("all is known again", |api| (api.list() == before).then_some(()));
    publish_model(&london, 11, b"later");
    montreal.until_complete_at(&model(11), MONTREAL);
    montreal.ctl(&["catalog", "verify"]).expect(ExitCode::Ok);
    tree::assert_equal(&london.path(""), &montreal.path(""));
}

/// Runs `avalonctl fsck` on a node's state.
fn fsck(studio: &Studio, daemon: &Daemon) -> Said {
    let mut command = Command::new(&studio.programs().avalonctl);
    command.env("AVALOND", &studio.programs().avalond).arg("fsck").arg("--config").arg(daemon.config.file());
    run(command.arg("--json"))
}

#[test]
fn fsck_says_what_is_damaged_and_what_mends_it_while_the_daemon_runs_and_while_not() {
    let studio = studio();
    let (london, mut montreal) = filled(&studio);
    let said = fsck(&studio, &montreal).good();
    assert_eq!(
        (&said["ok"], &said["running"], &said["catalog"]),
        (&true.into(), &true.into(), &false.into())
    );
    assert_eq!((said["feeds"].as_u64(), said["manifests"].as_u64()), (Some(2), Some(10)), "{said}");
    montreal.terminate();
    let said = fsck(&studio, &montreal).good();
    assert_eq!(
        (&said["ok"], &said["running"], &said["catalog"]),
        (&true.into(), &false.into(), &true.into())
    );
    let path = feed(&montreal, LONDON);
    flip(&path, fs::metadata(&path).unwrap().len() / 2);
    let manifest = files(&montreal.config.state_dir.join("manifests")).pop().unwrap();
    flip(&manifest, 30);
    let said = fsck(&studio, &montreal).expect(ExitCode::Integrity).json();
    let found = said["findings"].as_array().unwrap();
    let told: Vec<_> = found.iter().map(|finding| finding["kind"].as_str().unwrap()).collect();
    assert_eq!(told, ["peer-feed", "manifest"]);
    assert_eq!(found[1]["path"], manifest.to_str().unwrap());
    // It does what it was said to do.
    montreal.start();
    montreal.until("all is mended", |_| {
        let said = fsck(&studio, &montreal);
        let found = said.json()["findings"].as_array().unwrap().clone();
        (said.code == 0 && found.iter().all(|finding| finding["kind"] == "put-aside")).then_some(())
    });
    publish_model(&london, 11, b"later");
    montreal.until_complete_at(&model(11), MONTREAL);
    // What is gone it knows by what else is there.
    montreal.terminate();
    let path = feed(&montreal, MONTREAL);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(file.metadata().unwrap().len() - 1).unwrap();
    fs::remove_dir_all(montreal.config.state_dir.join("manifests")).unwrap();
    let said = fsck(&studio, &montreal).expect(ExitCode::Integrity).json();
    let found = said["findings"].as_array().unwrap();
    let damage = found.iter().filter(|finding| finding["damage"] == true);
    let kinds: Vec<_> = damage.map(|finding| finding["kind"].as_str().unwrap()).collect();
    // Of what the lost end recorded nothing is known to be here.
    assert!(kinds.len() > 5 && kinds[0] == "lost-end", "{said}");
    assert!(kinds[1..].iter().all(|kind| *kind == "manifest-gone"), "{said}");
    montreal.start();
    montreal.until("all is mended", |_| {
        let said = fsck(&studio, &montreal);
        let found = said.json()["findings"].as_array().unwrap().clone();
        (said.code == 0 && found.iter().all(|finding| finding["kind"] == "put-aside")).then_some(())
    });
}

#[test]
fn damage_in_the_own_feed_of_a_node_that_knows_nobody_prevents_the_start_and_changes_nothing() {
    let studio = studio();
    let mut london = studio.on_demand(LONDON, &[]);
    for version in 1..=10 {
        publish_model(&london, version, &tree::noise(version.into(), 2_000));
    }
    london.terminate();
    let path = feed(&london, LONDON);
    let good = fs::read(&path).unwrap();
    flip(&path, good.len() as u64 / 2);
    let damaged = fs::read(&path).unwrap();
    let (code, said) = london.start_in_vain();
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("is damaged in segment") && said.contains("srv@london"), "{said}");
    assert_eq!(fs::read(&path).unwrap(), damaged, "what a person may rescue is left alone");
    fs::write(&path, good).unwrap();
    london.start();
    assert_eq!(london.api().list().versions.len(), 10);
}

#[test]
fn a_damaged_own_feed_comes_back_from_a_peer_before_anything_is_written_there() {
    let studio = studio();
    let (mut london, mut montreal) = filled(&studio);
    // The one that knows it is away at first, and what is published meanwhile waits.
    montreal.terminate();
    london.terminate();
    let path = feed(&london, LONDON);
    flip(&path, fs::metadata(&path).unwrap().len() / 3);
    let damaged = fs::read(&path).unwrap();
    london.start();
    let health = london.api().status().health;
    let item = health.iter().find(|item| item.code == "feed-damaged").unwrap_or_else(|| panic!("{health:?}"));
    assert!(item.message.contains("this node's own feed"), "{item:?}");
    london.until("nothing is recorded", |api| {
        let held = api.status().health.into_iter().filter(|item| item.code == "feed-held");
        held.map(|item| item.message)
            .find(|message| message.contains("lantern before it has its own 11 records back"))
    });
    let later = london.path(&format!("{MODEL}/v011"));
    tree::write(&later.join("modelDefault.usdc"), b"later");
    assert!(london.api().publish(&later).error.is_some(), "it would be a second history");
    // The empty feed that is there now is not the newest state, also for the next start.
    london.restart();
    london.until("still nothing is recorded", |api| api.has_health("feed-held").then_some(()));
    assert!(london.api().publish(&later).error.is_some(), "it would be a second history");
    montreal.start();
    london.until_connected(MONTREAL);
    london.until("all is back", |api| (!api.has_health("feed-held")).then_some(()));
    london.until_complete_at(&model(10), LONDON);
    london.until_complete_at(&model(11), LONDON);
    assert_eq!(london.api().list().versions.len(), 11);
    montreal.until_complete_at(&model(11), MONTREAL);
    let aside = files(&london.config.state_dir.join("feeds/lantern/bad-srv@london.1"));
    assert_eq!(fs::read(&aside[0]).unwrap(), damaged, "what a person may rescue is kept");
    for daemon in [&mut london, &mut montreal] {
        assert!(!daemon.api().has_health("feed-fork") && !daemon.api().has_health("own-feed-fork"));
        daemon.restart();
        assert_eq!(daemon.api().list().versions.len(), 11);
    }
    tree::assert_equal(&london.path(""), &montreal.path(""));
}

#[test]
fn a_torn_end_of_the_own_feed_is_cut_off_and_the_rest_stands() {
    let studio = studio();
    let (mut london, montreal) = filled(&studio);
    london.terminate();
    let path = feed(&london, LONDON);
    let mut file = fs::File::options().append(true).open(&path).unwrap();
    file.write_all(&[1, 2, 3, 4, 5, 6, 7]).unwrap();
    drop(file);
    london.start();
    assert!(london.log().contains("torn the end of a feed"), "{}", london.log());
    assert_eq!(london.api().list().versions.len(), 10);
    publish_model(&london, 11, b"later");
    montreal.until_complete_at(&model(11), MONTREAL);
}

#[test]
fn manifests_that_are_lost_come_back_from_a_peer() {
    let studio = studio();
    let (london, mut montreal) = filled(&studio);
    montreal.terminate();
    fs::remove_dir_all(montreal.config.state_dir.join("manifests")).unwrap();
    montreal.start();
    montreal.until("every manifest is back", |api| {
        (1..=10).all(|version| api.info(&model(version)).is_ok()).then_some(())
    });
    let held = montreal.api().list().versions.iter().filter(|v| v.here == Presence::Complete).count();
    assert_eq!(held, 10);
    publish_model(&london, 11, b"later");
    montreal.until_complete_at(&model(11), MONTREAL);
}

#[test]
fn a_state_that_was_restored_from_a_backup_is_noticed_by_those_who_know_more() {
    let studio = studio();
    let mut london = studio.on_demand(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    publish_model(&london, 1, b"one");
    montreal.until_complete_at(&model(1), MONTREAL);
    london.terminate();
    let backup = london.config.dir.join("backup");
    tree::copy(&london.config.state_dir, &backup);
    london.start();
    publish_model(&london, 2, b"two");
    montreal.until_complete_at(&model(2), MONTREAL);
    london.terminate();
    fs::remove_dir_all(&london.config.state_dir).unwrap();
    tree::copy(&backup, &london.config.state_dir);
    restrict(&london);
    // Without a peer it cannot know; somebody lets it go on from where the backup was all the same.
    let peers = std::mem::take(&mut london.config.peers);
    let listen = std::mem::replace(&mut london.config.listen, "127.0.0.1:0".into());
    london.start();
    london.ctl(&["feed", "release", "lantern"]).expect(ExitCode::Ok);
    london.until("it records", |_| {
        let dir = london.path(&format!("{MODEL}/v003"));
        tree::write(&dir.join("modelDefault.usdc"), b"three");
        london.api().publish(&dir).error.is_none().then_some(())
    });
    london.terminate();
    (london.config.peers, london.config.listen) = (peers, listen);
    london.start();
    montreal.until("somebody hears of two histories", |api| api.has_health("feed-fork").then_some(()));
    london.until("it hears of them itself", |api| api.has_health("own-feed-fork").then_some(()));
    // Nothing that was there is lost or overwritten by it.
    for (version, content) in [(1, "one"), (2, "two")] {
        let file = montreal.path(&format!("{MODEL}/v{version:03}/modelDefault.usdc"));
        assert_eq!(fs::read_to_string(file).unwrap(), content);
    }
}

/// The copy of a key is as private as the key.
fn restrict(daemon: &Daemon) {
    use std::os::unix::fs::PermissionsExt as _;
    let key = daemon.config.identity_dir().join("node.key");
    fs::set_permissions(key, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn many_small_files_survive_cuts_as_well() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let dir = london.path(&format!("{MODEL}/v001"));
    let content = tree::noise(1, 9_000);
    for number in 0..3_000usize {
        tree::write(
            &dir.join(format!("modelDefault.cache/part{number}.bin")),
            &content[number % 100..number + 500],
        );
    }
    assert_eq!(london.api().publish(&dir).error, None);
    let mut montreal = studio.node(MONTREAL, ProjectMode::Mirror);
    montreal.config.peers = vec![london.listen()];
    for cut in 1..=4u64 {
        montreal.start();
        let mut events = montreal.events();
        for _ in 0..5_000 {
            if montreal.api().jobs().iter().any(|job| job.files_present > cut * 400) {
                break;
            }
            events.next_within(Duration::from_millis(2));
        }
        montreal.kill9();
    }
    montreal.start();
    montreal.until_complete_at(&model(1), MONTREAL);
    tree::assert_equal(&london.path(""), &montreal.path(""));
}
