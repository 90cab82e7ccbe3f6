//! Room: versions are dropped when others prove that they have them, pinned, evicted by quota, and come back from the trash.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use avalon_protocol::{
    control::{DropReply, DropRequest, DropState, ErrorCode, EventKind, HoldingState, JobState, route},
    exit_code::ExitCode,
    mode::ProjectMode,
};
use avalon_tests::daemons::{Studio, daemon::Daemon, tree};
use serde_json::Value;

use crate::support::{HOME, LONDON, MODEL, MONTREAL, model, publish_model, studio};

const MIB: usize = 1 << 20;

fn dir_of(daemon: &Daemon, version: u32) -> PathBuf {
    daemon.path(&format!("{MODEL}/v{version:03}"))
}

fn is_here(daemon: &Daemon, version: u32) -> bool {
    dir_of(daemon, version).join("modelDefault.usdc").exists()
}

/// The names in a node's trash.
fn trash(daemon: &Daemon) -> Vec<String> {
    let entries = fs::read_dir(daemon.path(".avalon/trash")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

fn until_absent_at(daemon: &Daemon, reference: &str, node: &str) {
    daemon.until(&format!("{reference} is not at {node}"), |api| {
        let item = api.locate_one(reference)?;
        let holds = item.nodes.iter().any(|holding| {
            format!("{}@{}", holding.node, holding.site) == node && holding.state == HoldingState::Complete
        });
        (!holds).then_some(())
    });
}

fn dropped(said: &Value) -> &Value {
    &said["versions"][0]
}

/// Publishes versions at london, and has another node pull them.
fn published(london: &Daemon, to: &Daemon, versions: u32, bytes: usize) {
    for version in 1..=versions {
        publish_model(london, version, &tree::noise(version.into(), bytes));
        to.until("it is known", |api| api.locate_one(&model(version)));
        to.until_connected(LONDON);
        to.ctl(&["pull", &model(version)]).expect(ExitCode::Ok);
    }
    london.until_complete_at(&model(versions), &to.config.node);
}

fn write_policy(studio: &Studio, daemon: &Daemon, text: &str) {
    let path = studio.dir().join("studio.toml");
    fs::write(&path, format!("schema = \"avalon.policy/1\"\n{text}")).unwrap();
    daemon.ctl(&["policy", "apply", path.to_str().unwrap()]).expect(ExitCode::Ok);
}

#[test]
fn a_version_is_dropped_while_others_have_it_and_comes_back_from_the_trash_without_them() {
    let studio = studio();
    let mut london = studio.on_demand(LONDON, &[]);
    let home = studio.on_demand(HOME, &[&london]);
    published(&london, &home, 2, 300_000);
    let content = fs::read(dir_of(&home, 1).join("modelDefault.usdc")).unwrap();

    let would = home.ctl(&["drop", "-n", &model(1), "--json"]).good();
    assert_eq!(
        (&dropped(&would)["state"], &dropped(&would)["bytes"]),
        (&"would-drop".into(), &300_000.into())
    );
    assert!(is_here(&home, 1), "a dry run changes nothing");
    let went = home.ctl(&["drop", &model(1), "--json"]).good();
    assert_eq!(dropped(&went)["state"], "dropped");
    assert_eq!(dropped(&went)["holders"][0]["node"], LONDON);
    assert!(!dir_of(&home, 1).exists() && is_here(&home, 2));
    assert_eq!(trash(&home).len(), 1);
    until_absent_at(&london, &model(1), HOME);
    let mut events = home.events();
    let (by, bytes) = events.wait("the drop", |kind| match kind {
        EventKind::Dropped { reference, by, bytes, .. } if *reference == model(1) => {
            Some((by.clone(), *bytes))
        }
        _ => None,
    });
    assert!(by.is_some_and(|by| !by.is_empty()) && bytes == Some(300_000));
    let again = home.ctl(&["drop", &model(1), "--json"]).good();
    assert_eq!(dropped(&again)["state"], "absent");

    // What rotted in the trash is not taken from there.
    home.ctl(&["drop", &model(2)]).expect(ExitCode::Ok);
    let trashed = trash(&home).into_iter().map(|name| home.path(".avalon/trash").join(name));
    for file in trashed.map(|entry| entry.join("modelDefault.usdc")) {
        let is_second = fs::read(&file).unwrap() == tree::noise(2, 300_000);
        if is_second {
            fs::File::options().write(true).open(&file).unwrap().write_all_at(b"rot", 7).unwrap();
        }
    }
    home.ctl(&["pull", &model(2)]).expect(ExitCode::Ok);
    assert_eq!(fs::read(dir_of(&home, 2).join("modelDefault.usdc")).unwrap(), tree::noise(2, 300_000));

    // The last copy stays, whoever wants it gone.
    let refused = london.ctl(&["drop", &model(1)]).expect(ExitCode::Error);
    assert!(refused.stdout.contains("0 of 1 other site"), "{refused:?}");
    assert!(is_here(&london, 1));

    // Nobody is there any more, and it comes back.
    london.terminate();
    home.ctl(&["pull", &model(1)]);
    home.until_complete_at(&model(1), HOME);
    assert_eq!(fs::read(dir_of(&home, 1).join("modelDefault.usdc")).unwrap(), content);
    home.until("the trash is empty", |_| trash(&home).is_empty().then_some(()));
    let health = home.api().status().health;
    assert!(health.is_empty(), "{health:#?}");
}

#[test]
fn a_drop_is_refused_when_a_holder_does_not_answer_or_its_files_are_not_the_same() {
    let studio = studio();
    let mut london = studio.on_demand(LONDON, &[]);
    let home = studio.on_demand(HOME, &[&london]);
    published(&london, &home, 2, 300_000);
    let files = [1, 2].map(|version| dir_of(&london, version).join("modelDefault.usdc"));
    london.kill9();
    let refused = home.ctl(&["drop", &model(1), "--json"]).expect(ExitCode::Error).json();
    assert_eq!(
        (&dropped(&refused)["state"], &dropped(&refused)["why"]),
        (&"stays".into(), &"too-few-copies".into())
    );
    let said = dropped(&refused)["holders"][0]["detail"].as_str().unwrap();
    assert!(said.contains("did not answer"), "{refused}");

    // A bit that flips, with the times as they were, and a file that lost its end.
    let modified = fs::metadata(&files[0]).unwrap().modified().unwrap();
    let damaged = fs::File::options().write(true).open(&files[0]).unwrap();
    let byte = tree::noise(1, 300_000)[150_000] ^ 1;
    damaged.write_all_at(&[byte], 150_000).unwrap();
    damaged.set_modified(modified).unwrap();
    fs::File::options().write(true).open(&files[1]).unwrap().set_len(100).unwrap();
    london.start();
    home.until_connected(LONDON);
    for version in [1, 2] {
        let refused = home.ctl(&["drop", &model(version), "--json"]).expect(ExitCode::Error).json();
        assert_eq!(dropped(&refused)["why"], "too-few-copies", "{refused}");
        assert!(is_here(&home, version));
    }
    assert!(trash(&home).is_empty());
}

#[test]
fn as_many_copies_stay_as_the_policy_asks_for_and_what_it_keeps_is_not_dropped() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let mut montreal = studio.on_demand(MONTREAL, &[&london]);
    let home = studio.on_demand(HOME, &[&london, &montreal]);
    published(&london, &montreal, 1, 10_000);
    home.until_connected(MONTREAL);
    home.until("it is known", |api| api.locate_one(&model(1)));
    home.ctl(&["pull", &model(1)]).expect(ExitCode::Ok);
    write_policy(
        &studio,
        &london,
        "[defaults]\nkeep = \"on-demand\"\nmin_copies = 1\n[[rule]]\nname = \"two\"\nmatch = { asset = \"robot\" }\nsites = \
         [\"montreal\", \"london\"]\nkeep = \"here\"\nmin_copies = 2\n",
    );
    for daemon in [&montreal, &home] {
        daemon.until("the policy is in effect", |api| api.policy()?.policy.in_effect.then_some(()));
    }
    home.until_complete_at(&model(1), MONTREAL);
    montreal.terminate();
    let refused = home.ctl(&["drop", &model(1)]).expect(ExitCode::Error);
    assert!(refused.stdout.contains("of 2 other sites"), "{refused:?}");
    assert!(refused.stdout.contains("srv@montreal did not answer"), "{refused:?}");
    montreal.start();
    home.until_connected(MONTREAL);
    home.ctl(&["drop", &model(1)]).expect(ExitCode::Ok);
    assert!(!is_here(&home, 1) && is_here(&montreal, 1) && is_here(&london, 1));

    // A server that mirrors keeps what the rule keeps at its site.
    montreal.terminate();
    montreal.config.mode = ProjectMode::Mirror;
    montreal.start();
    let refused = montreal.ctl(&["drop", &model(1)]).expect(ExitCode::Error);
    assert!(refused.stdout.contains("by rule two (line 5); it would come again"), "{refused:?}");
}

#[test]
fn when_all_holders_drop_at_once_a_copy_stays_round_after_round() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let montreal = studio.on_demand(MONTREAL, &[&london]);
    let home = studio.on_demand(HOME, &[&london, &montreal]);
    publish_model(&london, 1, &tree::noise(1, 50_000));
    let all = [&london, &montreal, &home];
    let names = [LONDON, MONTREAL, HOME];
    for daemon in all {
        for name in names.into_iter().filter(|name| *name != daemon.config.node) {
            daemon.until_connected(name);
        }
    }
    let (mut gone, mut rounds) = (0, 0);
    for round in 0..12 {
        for daemon in all {
            daemon.until("it is known", |api| api.locate_one(&model(1)));
            daemon.ctl(&["pull", &model(1)]).expect(ExitCode::Ok);
        }
        for (daemon, name) in all.into_iter().flat_map(|daemon| names.map(|name| (daemon, name))) {
            daemon.until_complete_at(&model(1), name);
        }
        let replies: Vec<DropState> = thread::scope(|scope| {
            let asked = all.map(|daemon| {
                let api = daemon.api();
                scope.spawn(move || {
                    let request = DropRequest { refs: vec![model(1)], ..DropRequest::default() };
                    let reply: DropReply = api.post(route::DROP, &request).unwrap();
                    reply.versions[0].state
                })
            });
            asked.into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        let left = all.iter().filter(|daemon| is_here(daemon, 1)).count();
        assert!(left >= 1, "round {round}: {replies:?}");
        let went = replies.iter().filter(|state| **state == DropState::Dropped).count();
        assert_eq!(left, 3 - went, "round {round}: {replies:?}");
        gone += went;
        rounds += 1;
    }
    println!("{gone} drops in {rounds} rounds of three");
    assert!(gone >= rounds, "they do not block each other for ever");
}

/// A process that has a file open until it is told to end.
struct Reader(Child);

impl Reader {
    fn of(path: &Path) -> Self {
        let script = format!("exec 3<'{}'; echo open; read line", path.display());
        let mut child = Command::new("sh");
        let mut child =
            child.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        Self(child)
    }

    fn close(mut self) {
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn over_its_quota_a_node_drops_what_was_not_used_for_longest_and_nothing_pinned_or_open() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let mut home = studio.node(HOME, ProjectMode::OnDemand);
    home.config.peers = vec![london.listen()];
    home.start();
    published(&london, &home, 3, MIB);
    let reader = Reader::of(&dir_of(&home, 1).join("modelDefault.usdc"));
    home.ctl(&["pin", &model(2)]).expect(ExitCode::Ok);
    home.terminate();
    home.config.project_extra = "quota = \"3200KiB\"\nevict_after = \"0s\"\n".into();
    home.start();
    home.until_connected(LONDON);
    assert!(home.ctl(&["pins"]).expect(ExitCode::Ok).stdout.contains(&model(2)), "pins outlive a restart");
    let refused = home.ctl(&["drop", &model(2)]).expect(ExitCode::Error);
    assert!(refused.stdout.contains("pinned it"), "{refused:?}");
    let refused = home.ctl(&["drop", "-n", &model(1)]).expect(ExitCode::Error);
    assert!(
        refused.stdout.contains("has assets/robot/publish/modelDefault/v001/modelDefault.usdc open"),
        "{refused:?}"
    );

    // One more, and the only one that may go goes.
    publish_model(&london, 4, &tree::noise(4, MIB));
    home.until("it is known", |api| api.locate_one(&model(4)));
    home.ctl(&["pull", &model(4)]).expect(ExitCode::Ok);
    home.until("the third has gone", |_| (!is_here(&home, 3)).then_some(()));
    assert!(is_here(&home, 1) && is_here(&home, 2) && is_here(&home, 4));
    let by = home.events().wait("the eviction", |kind| match kind {
        EventKind::Dropped { by, .. } => Some(by.clone()),
        _ => None,
    });
    assert_eq!(by.as_deref(), Some("quota"));
    let space = home.until("it is counted", |api| {
        let space = api.status().projects[0].space.clone()?;
        (space.used_bytes == Some(3 << 20)).then_some(space)
    });
    assert_eq!(space.quota_bytes, Some(3200 << 10));

    // When nothing may go, somebody hears why; when it may again, it goes.
    home.ctl(&["pin", &model(4)]).expect(ExitCode::Ok);
    publish_model(&london, 5, &tree::noise(5, MIB));
    home.until("it is known", |api| api.locate_one(&model(5)));
    home.ctl(&["pin", &model(5)]).expect(ExitCode::Ok);
    home.ctl(&["pull", &model(5)]).expect(ExitCode::Ok);
    home.until("it says so", |api| api.has_health("quota-exceeded").then_some(()));
    let health = home.api().status().health;
    assert!(
        health[0].message.contains("3 pinned") && health[0].message.contains("1 open in a program"),
        "{health:?}"
    );
    reader.close();
    publish_model(&london, 6, b"small");
    home.until("it is known", |api| api.locate_one(&model(6)));
    home.ctl(&["pull", &model(6)]).expect(ExitCode::Ok);
    home.until("the first has gone", |_| (!is_here(&home, 1)).then_some(()));
    home.until("all is well", |api| (!api.has_health("quota-exceeded")).then_some(()));
}

#[test]
fn what_comes_by_itself_waits_for_room_and_what_somebody_pulls_does_not() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    for version in 1..=3 {
        publish_model(&london, version, &tree::noise(version.into(), MIB));
    }
    let mut montreal = studio.node(MONTREAL, ProjectMode::Mirror);
    montreal.config.peers = vec![london.listen()];
    montreal.config.project_extra = "quota = \"2500KiB\"\n".into();
    montreal.start();
    let waiting = montreal.until("one waits for room", |api| {
        let jobs = api.jobs();
        let done = jobs.iter().filter(|job| job.state == JobState::Done).count();
        let waiting = jobs.into_iter().find(|job| job.state == JobState::Waiting)?;
        (done == 2).then_some(waiting)
    });
    assert_eq!(waiting.error, Some(ErrorCode::DiskFull), "{waiting:?}");
    assert!(waiting.reason.unwrap().contains("no room for it within its quota"));
    montreal.ctl(&["pull", &waiting.reference]).expect(ExitCode::Ok);
    montreal.until("it says that it is full", |api| api.has_health("quota-exceeded").then_some(()));
    assert!((1..=3).all(|version| is_here(&montreal, version)), "a mirror keeps what it has");
}

#[test]
fn what_a_site_keeps_does_not_wait_for_room_behind_what_may_go() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let mut montreal = studio.node(MONTREAL, ProjectMode::Mirror);
    montreal.config.peers = vec![london.listen()];
    montreal.config.project_extra = "quota = \"2500KiB\"\nevict_after = \"0s\"\n".into();
    montreal.start();
    write_policy(
        &studio,
        &london,
        "[defaults]\nkeep = \"on-demand\"\nmin_copies = 1\n[[rule]]\nname = \"the latest\"\nmatch = { asset = \"robot\" \
         }\nsites = [\"montreal\"]\nkeep = \"here\"\nkeep_last = 1\n",
    );
    montreal.until("the policy is in effect", |api| api.policy()?.policy.in_effect.then_some(()));
    for version in 1..=3 {
        publish_model(&london, version, &tree::noise(version.into(), MIB));
        london.until_complete_at(&model(version), MONTREAL);
    }
    assert!(
        !is_here(&montreal, 1) && is_here(&montreal, 2),
        "one goes for it, the one that was not used for longest"
    );
    assert!(!montreal.api().has_health("quota-exceeded"));
}

#[test]
fn when_too_little_is_free_the_trash_goes_first_and_versions_after_it() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let mut home = studio.on_demand(HOME, &[&london]);
    published(&london, &home, 2, 20_000);
    home.ctl(&["drop", &model(1)]).expect(ExitCode::Ok);
    home.ctl(&["pin", &model(1)]).expect(ExitCode::Ok);
    assert_eq!(trash(&home).len(), 1);
    home.terminate();
    // No volume has so much.
    home.config.project_extra = "keep_free = \"500PB\"\nevict_after = \"0s\"\n".into();
    home.start();
    home.until("all that may go has gone", |_| (!is_here(&home, 2) && trash(&home).is_empty()).then_some(()));
    home.until("it says that there is too little", |api| api.has_health("quota-exceeded").then_some(()));
    home.ctl(&["pull", &model(1)]).expect(ExitCode::Ok);
    home.until("what is pinned stays", |api| {
        let health = api.status().health;
        health.iter().any(|item| item.message.contains("1 pinned")).then_some(())
    });
    assert!(is_here(&home, 1) && is_here(&london, 2));
}

#[test]
fn an_artists_own_file_in_the_directory_stays_and_the_trash_is_emptied_after_its_grace() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let mut home = studio.node(HOME, ProjectMode::OnDemand);
    home.config.peers = vec![london.listen()];
    home.config.project_extra = "trash_grace = \"2s\"\n".into();
    home.start();
    published(&london, &home, 1, 20_000);
    let own = dir_of(&home, 1).join("work/mine.psd");
    tree::write(&own, b"weeks of work");
    home.ctl(&["drop", &model(1)]).expect(ExitCode::Ok);
    assert_eq!(fs::read(&own).unwrap(), b"weeks of work");
    assert!(!is_here(&home, 1));
    home.until("the trash is empty", |_| trash(&home).is_empty().then_some(()));
    assert_eq!(fs::read(&own).unwrap(), b"weeks of work");
    home.ctl(&["pull", &model(1)]).expect(ExitCode::Ok);
    assert!(is_here(&home, 1) && own.exists());
    let health = home.api().status().health;
    assert!(health.is_empty(), "{health:#?}");
}

#[test]
fn a_daemon_that_is_killed_while_it_drops_has_the_version_or_has_it_not() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let mut home = studio.on_demand(HOME, &[&london]);
    published(&london, &home, 1, 5 * MIB);
    let mut went = 0;
    for round in 0..8u32 {
        home.until_connected(LONDON);
        home.ctl(&["pull", &model(1)]).expect(ExitCode::Ok);
        london.until_complete_at(&model(1), HOME);
        let api = home.api();
        let asked = thread::spawn(move || {
            let request = DropRequest { refs: vec![model(1)], ..DropRequest::default() };
            drop(api.post::<DropReply>(route::DROP, &request));
        });
        // Not a time: a moment early in the drop, or the moment in which the files go.
        if round % 2 == 0 {
            (0..round).for_each(|_| drop(home.api().status()));
        } else {
            while is_here(&home, 1) && !asked.is_finished() {
                thread::yield_now();
            }
        }
        home.kill9();
        asked.join().unwrap();
        home.start();
        home.until("it is one or the other", |api| {
            let item = api.locate_one(&model(1))?;
            let holds = item.nodes.iter().any(|holding| {
                format!("{}@{}", holding.node, holding.site) == HOME
                    && holding.state == HoldingState::Complete
            });
            (holds == is_here(&home, 1)).then_some(())
        });
        went += usize::from(!is_here(&home, 1));
        assert!(is_here(&london, 1));
    }
    println!("{went} of 8 were dropped before the end");
    assert!(went > 0, "some are cut when the files have gone");
}
