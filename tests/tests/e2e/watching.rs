//! More happens than the system tells: its queue overflows, or another machine did it.

use std::{fs, path::PathBuf, process::Command};

use avalon_protocol::{control::EventKind, exit_code::ExitCode, mode::ProjectMode};
use avalon_tests::daemons::{
    daemon::{Daemon, may_mount},
    fuse::Fuse,
    tree,
};
use rustix::process::Signal;

use crate::support::{LONDON, MODEL, model, studio};

const VERSIONS: u32 = 12;

#[test]
fn what_happened_while_the_queue_overflowed_is_found_by_a_scan() {
    let studio = studio();
    let mut london = studio.node(LONDON, ProjectMode::OnDemand);
    let dir = |version: u32| format!("{MODEL}/v{version:03}/modelDefault.dat");
    (1..=VERSIONS).for_each(|version| fs::create_dir_all(london.path(&dir(version))).unwrap());
    london.start();
    assert!(london.process().log.wait_for("reason=Started"), "every directory is watched");
    let mut events = london.events();
    let queue: u32 =
        fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    // A file is made, written and closed: half of them fill the queue.
    let files = queue / VERSIONS * 2 / 3;
    london.process().signal(Signal::STOP);
    for version in 1..=VERSIONS {
        for file in 1..=files {
            let name = format!("modelDefault.{file:05}.dat");
            tree::write(&london.path(&dir(version)).join(name), &file.to_le_bytes());
        }
    }
    london.process().signal(Signal::CONT);
    let mut missing: Vec<String> =
        (1..=VERSIONS).map(|version| format!("lantern:robot/modelDefault@v{version:03}")).collect();
    while !missing.is_empty() {
        let published = events.wait("every version is published", |kind| match kind {
            EventKind::Published { reference, .. } => Some(reference.clone()),
            _ => None,
        });
        missing.retain(|version| *version != published);
    }
    for version in 1..=VERSIONS {
        let info = london.api().info(&format!("robot/modelDefault@v{version:03}")).unwrap();
        assert_eq!(info.files.len(), files as usize, "{version}");
    }
    assert!(london.log().contains("reason=Overflow"), "the queue was too short for that:\n{}", london.log());
}

/// What becomes the daemon where the system gives no more than so many watches; `None` where this user may not limit them.
fn with_watches(most: u32) -> Option<Vec<String>> {
    let limit = format!("echo {most} > /proc/sys/user/max_inotify_watches");
    let launcher = |script: String| {
        ["unshare", "--user", "--map-root-user", "sh", "-c"].map(str::to_owned).into_iter().chain([script])
    };
    let (program, tried) = ("unshare", launcher(limit.clone()).skip(1));
    if Command::new(program).args(tried).status().is_ok_and(|status| status.success()) {
        return Some(launcher(format!("{limit} && exec \"$0\" \"$@\"")).collect());
    }
    eprintln!("skipped: this user may not limit the watches of a process");
    None
}

#[test]
fn where_watches_do_not_suffice_new_versions_have_them_and_health_says_so() {
    let studio = studio();
    let mut london = studio.node(LONDON, ProjectMode::OnDemand);
    // Five for the way to the versions, from the project's directory on, and three for ten versions.
    let Some(launcher) = with_watches(8) else { return };
    london.set_launcher(launcher);
    let dir = |version: u32| format!("{MODEL}/v{version:03}");
    let write = |london: &Daemon, version: u32, name: &str| {
        tree::write(&london.path(&dir(version)).join(name), name.as_bytes());
    };
    (1..=10).for_each(|version| write(&london, version, "modelDefault.dat"));
    london.start();
    let told = |london: &mut Daemon, words: &str| {
        london.until("health tells it", |api| {
            let item = api.status().health.into_iter().find(|item| item.code == "watch-limit");
            item.filter(|item| item.message.contains(words))
        });
    };
    told(&mut london, "8 of 15 directories");
    (1..=10).for_each(|version| {
        london.until("it is published", |api| api.locate_one(&model(version)));
    });
    let scans = |london: &Daemon| london.log().matches("the project was scanned").count();
    let before = scans(&london);
    let grown = |london: &mut Daemon, version: u32| {
        write(london, version, "modelDefault.abc");
        london.until("it grew", |api| {
            let info = api.info(&format!("robot/modelDefault@v{version:03}")).ok()?;
            (info.files.len() == 2).then_some(())
        });
    };
    [10, 9, 8].into_iter().for_each(|version| grown(&mut london, version));
    // A new one takes the watch of the oldest that has one.
    write(&london, 11, "modelDefault.dat");
    london.until("it is published", |api| api.locate_one(&model(11)));
    grown(&mut london, 11);
    told(&mut london, "8 of 16 directories");
    assert_eq!(scans(&london), before, "all that was heard of");
    // Where watches are given back, the next scan has them taken again.
    (1..=8).for_each(|version| fs::remove_dir_all(london.path(&dir(version))).unwrap());
    london.process().signal(Signal::HUP);
    london.until("all is watched", |api| {
        let lacks = api.status().health.iter().any(|item| item.code == "watch-limit");
        (!lacks).then_some(())
    });
}

/// Puts the node's project on a file system of which the system hears nothing; returns the directory that it shows, in which
/// everybody else works.
fn on_a_server(daemon: &mut Daemon) -> Option<PathBuf> {
    if !may_mount() {
        return None;
    }
    let fuse = Fuse::open()?;
    let server = daemon.config.dir.join("server");
    fs::create_dir_all(server.join(MODEL)).unwrap();
    daemon.set_device(fuse.device());
    daemon.set_mounts(&Fuse::mount(&daemon.config.project_dir().display().to_string()));
    daemon.config.scan_extra = "network_interval = \"200ms\"\n".into();
    daemon.config.settle_extra = "network_quiet = \"400ms\"\n".into();
    fuse.serve_tree(server.clone());
    Some(server)
}

#[test]
fn what_another_machine_publishes_on_a_network_mount_is_found_and_how_soon_is_told() {
    let studio = studio();
    let mut london = studio.node(LONDON, ProjectMode::OnDemand);
    let Some(server) = on_a_server(&mut london) else { return };
    london.start();
    // The scan interval is an hour.
    let mount = london.until("the first scan is done", |api| {
        let mount = api.status().projects.remove(0).mount;
        mount.filter(|mount| mount.found_within_seconds.is_some())
    });
    assert_eq!((mount.kind.as_deref(), mount.certain), (Some("FUSE"), false), "{mount:?}");
    assert!(mount.found_within_seconds.is_some_and(|seconds| seconds < 600.0), "{mount:?}");
    let said = london.ctl(&["status"]).expect(ExitCode::Ok).stdout;
    let words = "lies on FUSE, which does not say whether other machines write there (project.network): what they \
                 publish is noticed within ";
    assert!(said.contains(words), "{said}");
    for version in 1..=2 {
        tree::write(&server.join(format!("{MODEL}/v{version:03}/modelDefault.dat")), b"made elsewhere");
        london.until("it is published", |api| api.locate_one(&model(version)));
    }
}

#[test]
fn a_file_is_published_as_the_server_has_it_and_not_as_the_system_remembers_it() {
    let studio = studio();
    let mut london = studio.node(LONDON, ProjectMode::OnDemand);
    let Some(server) = on_a_server(&mut london) else { return };
    let version = server.join(MODEL).join("v001");
    tree::write(&version.join(".publish.lock"), b"");
    tree::write(&version.join("modelDefault.dat"), b"half");
    london.start();
    london.until("it is looked at", |api| {
        let pending = api.status().projects.remove(0).pending;
        pending
            .iter()
            .any(|version| version.why.iter().any(|why| why.contains(".publish.lock")))
            .then_some(())
    });
    // From here on the size is remembered, for longer than this test takes.
    tree::write(&version.join("modelDefault.dat"), b"and the other half");
    fs::remove_file(version.join(".publish.lock")).unwrap();
    london.until("it is published", |api| api.locate_one(&model(1)));
    let info = london.api().info("robot/modelDefault@v001").unwrap();
    assert_eq!(info.files.iter().map(|file| file.bytes).collect::<Vec<_>>(), [18]);
}

#[test]
fn a_project_on_a_disk_is_scanned_like_a_network_mount_where_the_configuration_says_so() {
    let studio = studio();
    let mut london = studio.node(LONDON, ProjectMode::OnDemand);
    london.start();
    assert_eq!(london.api().status().projects[0].mount, None);
    london.config.project_extra = "network = \"always\"\n".into();
    london.config.scan_extra = "network_interval = \"200ms\"\n".into();
    london.restart();
    let mount = london.until("the first scan is done", |api| {
        let mount = api.status().projects.remove(0).mount;
        mount.filter(|mount| mount.found_within_seconds.is_some_and(|seconds| seconds < 600.0))
    });
    assert_eq!((mount.kind, mount.certain), (None, true));
}
