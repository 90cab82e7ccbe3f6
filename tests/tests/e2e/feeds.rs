//! Own feeds after a restore, and feeds that somebody else writes too.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use avalon_protocol::{
    control::{ErrorCode, FeedState, FeedsReply, route},
    exit_code::ExitCode,
    mode::ProjectMode,
};
use avalon_tests::daemons::{Studio, api::Api, daemon::Daemon, tree};

use crate::support::{HOME, LONDON, MODEL, MONTREAL, model, publish_model, studio};

const OF_LONDON: &str = "lantern/srv@london";

/// Puts a copy of a state directory in the place of another.
fn put_back(copy: &Path, state_dir: &Path) {
    fs::remove_dir_all(state_dir).unwrap();
    tree::copy(copy, state_dir);
    // The copy of a key is as private as the key.
    fs::set_permissions(state_dir.join("identity/node.key"), fs::Permissions::from_mode(0o600)).unwrap();
}

/// How many records a node has of london's feed, its head, and its state.
fn feed_of_london(api: &Api) -> Option<(u64, String, FeedState)> {
    let reply: FeedsReply = api.get(route::FEEDS).unwrap();
    let item = reply.feeds.into_iter().find(|item| item.feed == OF_LONDON)?;
    Some((item.records, item.head, item.state))
}

fn write_model(daemon: &Daemon, version: u32, content: &[u8]) -> std::path::PathBuf {
    let dir = daemon.path(&format!("{MODEL}/v{version:03}"));
    tree::write(&dir.join("modelDefault.usdc"), content);
    dir
}

#[test]
fn a_node_that_was_put_back_to_a_backup_takes_its_records_back_before_it_writes() {
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
    publish_model(&london, 3, b"three");
    montreal.until_complete_at(&model(3), MONTREAL);
    london.terminate();
    let before = feed_of_london(&montreal.api()).unwrap();
    put_back(&backup, &london.config.state_dir);
    london.start();
    assert!(london.log().contains("this state was restored"), "{}", london.log());
    let dir = write_model(&london, 4, b"four");
    london.until("it records again", |api| api.publish(&dir).error.is_none().then_some(()));
    montreal.until_complete_at(&model(4), MONTREAL);
    for version in 1..=4 {
        assert!(london.api().info(&model(version)).is_ok(), "version {version} is known again");
        montreal.until_complete_at(&model(version), LONDON);
    }
    let there = feed_of_london(&montreal.api()).unwrap();
    assert!(there.0 > before.0 && there.2 == FeedState::Good, "{before:?} {there:?}");
    london.until("both have one history", |api| {
        (feed_of_london(api) == feed_of_london(&montreal.api())).then_some(())
    });
    assert!(montreal.log().contains("a peer has fewer records of a feed than it had"), "{}", montreal.log());
    montreal.until("that is over", |api| (!api.has_health("peer-fell-back")).then_some(()));
    for daemon in [&london, &montreal] {
        for code in ["feed-fork", "own-feed-fork", "feed-fork-claimed", "feed-held"] {
            assert!(!daemon.api().has_health(code), "{code} at {}", daemon.config.node);
        }
    }
    // It is its own state again.
    london.restart();
    assert!(!london.log().contains("this state was restored"), "{}", london.log());
}

#[test]
fn a_restored_node_that_reaches_nobody_writes_nothing_unless_a_person_says_so() {
    let studio = studio();
    let mut london = studio.on_demand(LONDON, &[]);
    let mut montreal = studio.mirror(MONTREAL, &[&london]);
    publish_model(&london, 1, b"one");
    montreal.until_complete_at(&model(1), MONTREAL);
    london.until_complete_at(&model(1), MONTREAL);
    montreal.terminate();
    // As it was left, it goes on alone: after a moment in which a peer could have come.
    london.restart();
    publish_model(&london, 2, b"two");
    london.terminate();
    let backup = london.config.dir.join("backup");
    tree::copy(&london.config.state_dir, &backup);
    put_back(&backup, &london.config.state_dir);
    london.start();
    let dir = write_model(&london, 3, b"three");
    let error = london.api().publish(&dir).error;
    assert_eq!(error, Some(ErrorCode::FeedHeld));
    london.until("it says why", |api| api.has_health("feed-held").then_some(()));
    let said = london.ctl(&["feed"]).expect(ExitCode::Ok);
    assert!(said.stdout.contains("held"), "{said:?}");
    london.ctl(&["feed", "release", "lantern"]).expect(ExitCode::Ok);
    london.until("it records again", |api| api.publish(&dir).error.is_none().then_some(()));
    // The one that was told goes on by itself once there is a peer.
    assert!(london.api().has_health("feed-held"), "the studio's feed is held still");
    montreal.start();
    london.until("all is well", |api| (!api.has_health("feed-held")).then_some(()));
    montreal.until_complete_at(&model(3), MONTREAL);
}

/// London with two peers that know its first version, and a copy of it that reaches only the second.
struct Copied {
    london: Daemon,
    copy: Daemon,
    montreal: Daemon,
    home: Daemon,
}

impl Copied {
    fn new(studio: &Studio) -> Self {
        let mut london = studio.on_demand(LONDON, &[]);
        let mut montreal = studio.mirror(MONTREAL, &[&london]);
        let mut home = studio.mirror(HOME, &[&london]);
        publish_model(&london, 1, b"one");
        for peer in [&montreal, &home] {
            peer.until_complete_at(&model(1), peer.config.node.as_str());
            london.until_complete_at(&model(1), peer.config.node.as_str());
        }
        london.terminate();
        let mut copy = studio.node(LONDON, ProjectMode::OnDemand);
        put_back(&london.config.state_dir, &copy.config.state_dir);
        tree::copy(&london.config.project_dir(), &copy.config.project_dir());
        for (peer, of) in [(&mut montreal, &mut london), (&mut home, &mut copy)] {
            peer.config.peers.clear();
            peer.restart();
            of.config.peers = vec![peer.listen()];
        }
        Self { london, copy, montreal, home }
    }
}

#[test]
fn a_machine_that_was_copied_is_told_at_both_and_neither_writes_on() {
    let studio = studio();
    let Copied { mut london, mut copy, mut montreal, mut home } = Copied::new(&studio);
    for (daemon, peer, version) in [(&mut london, &montreal, 2), (&mut copy, &home, 3)] {
        daemon.start();
        let dir = write_model(daemon, version, format!("version {version}").as_bytes());
        daemon.until("it records", |api| api.publish(&dir).error.is_none().then_some(()));
        peer.until_complete_at(&model(version), peer.config.node.as_str());
    }
    // The two histories meet, far from both.
    home.config.peers = vec![montreal.listen()];
    home.restart();
    for daemon in [&montreal, &home] {
        daemon.until("the fork is found", |api| api.has_health("feed-fork").then_some(()));
    }
    for daemon in [&london, &copy] {
        daemon.until("it hears of it", |api| api.has_health("own-feed-fork").then_some(()));
        let dir = write_model(daemon, 4, b"four");
        let error = daemon.api().publish(&dir).error;
        assert_eq!(error, Some(ErrorCode::FeedHeld), "{}", daemon.config.node);
    }
    // What was taken stays, and the proof outlives a restart.
    let before = feed_of_london(&montreal.api()).unwrap();
    assert_eq!(before.2, FeedState::Forked);
    montreal.restart();
    assert!(montreal.api().has_health("feed-fork"), "{:?}", montreal.api().status().health);
    assert_eq!(feed_of_london(&montreal.api()).unwrap(), before);
    for (daemon, version) in [(&montreal, 2), (&home, 3)] {
        let file = daemon.path(&format!("{MODEL}/v{version:03}/modelDefault.usdc"));
        assert_eq!(fs::read_to_string(file).unwrap(), format!("version {version}"));
    }
    let said = montreal.ctl(&["feed", "show", OF_LONDON]).expect(ExitCode::Ok);
    assert!(said.stdout.contains("part at record") && said.stdout.contains("v002"), "{said:?}");
    assert!(said.stdout.contains("v003"), "{said:?}");
    montreal.ctl(&["feed", "settle", OF_LONDON, "-c", "is srv2@london now"]).expect(ExitCode::Ok);
    assert!(!montreal.api().has_health("feed-fork"));
    montreal.restart();
    assert!(!montreal.api().has_health("feed-fork"), "a person has dealt with it");
    assert_eq!(feed_of_london(&montreal.api()).map(|feed| feed.2), Some(FeedState::Settled));
    let error = london.ctl(&["feed", "settle", OF_LONDON]);
    error.expect(ExitCode::Denied);
    // Others publish as ever.
    publish_model(&home, 9, b"nine");
    montreal.until_complete_at(&model(9), MONTREAL);
}

#[test]
fn a_copy_that_meets_a_peer_of_the_first_is_refused_told_so_and_writes_nothing() {
    let studio = studio();
    let Copied { mut london, mut copy, montreal, home: _home } = Copied::new(&studio);
    london.start();
    london.until_connected(MONTREAL);
    copy.config.peers = vec![montreal.listen()];
    copy.start();
    for daemon in [&copy, &montreal] {
        daemon.until("it is told", |api| api.has_health("duplicate-node").then_some(()));
    }
    let dir = write_model(&copy, 3, b"three");
    let error = copy.api().publish(&dir).error;
    assert_eq!(error, Some(ErrorCode::FeedHeld));
    publish_model(&london, 2, b"two");
    montreal.until_complete_at(&model(2), MONTREAL);
    assert!(!montreal.api().has_health("feed-fork"));
}

#[test]
fn a_node_that_lost_its_whole_state_is_itself_again_with_a_certificate_from_the_ca_and_copies_nothing() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let mut montreal = studio.mirror(MONTREAL, &[&london]);
    for version in 1..=3 {
        publish_model(&london, version, format!("version {version}").as_bytes());
        montreal.until_complete_at(&model(version), MONTREAL);
    }
    publish_model(&montreal, 4, b"of its own");
    london.until("it knows all four", |api| api.locate_one(&model(4)).map(drop));
    let tree_before = inodes(&montreal.path(MODEL));
    montreal.kill9();
    fs::remove_dir_all(&montreal.config.state_dir).unwrap();
    // `ca issue` under the old name, and the daemon is started: that is all.
    studio.issue(MONTREAL, &montreal.config.identity_dir(), avalon_tests::daemons::now());
    montreal.start();
    for version in 1..=4 {
        montreal.until_complete_at(&model(version), MONTREAL);
        london.until_complete_at(&model(version), MONTREAL);
    }
    assert_eq!(inodes(&montreal.path(MODEL)), tree_before, "no file was written again");
    assert!(!montreal.log().contains("tell: published"), "nothing is its own work twice: {}", montreal.log());
    // It writes on where its feed ends, and nobody sees two histories.
    publish_model(&montreal, 5, b"and on");
    london.until("it knows the fifth", |api| api.locate_one(&model(5)).map(drop));
    for node in [&london, &montreal] {
        assert!(!node.api().has_health("feed-fork") && !node.api().has_health("feed-held"));
        let feeds: FeedsReply = node.api().get(route::FEEDS).unwrap();
        assert!(feeds.feeds.iter().all(|feed| feed.state == FeedState::Good), "{feeds:#?}");
    }
}

/// Which files there are, each with the inode that a new one would not have.
fn inodes(dir: &Path) -> Vec<(std::path::PathBuf, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let files = walkdir::WalkDir::new(dir).into_iter().map(Result::unwrap);
    let files = files.filter(|entry| entry.file_type().is_file());
    let mut files: Vec<_> =
        files.map(|entry| (entry.path().to_owned(), entry.metadata().unwrap().ino())).collect();
    files.sort();
    files
}
