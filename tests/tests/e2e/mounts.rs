//! Volumes that come, go, fill up and turn read-only under a running daemon. Each is mounted for the daemon alone.

use std::process::{Command, Stdio};

use avalon_protocol::{
    control::{EventKind, Presence, ProjectState},
    exit_code::ExitCode,
    mode::ProjectMode,
};
use avalon_tests::daemons::{
    Studio,
    daemon::{Daemon, may_mount},
    fuse::Fuse,
    tree,
};

use crate::support::{LONDON, MODEL, MONTREAL, model, publish_model, studio};

/// The line of shell that puts the state directory on a volume of its own, with what it holds.
fn state_on_tmpfs(daemon: &Daemon, size: &str) -> String {
    let state = daemon.config.state_dir.display();
    format!(
        "cp -a {state} {state}.copy && mount -t tmpfs -o size={size} tmpfs {state} && cp -a {state}.copy/. {state}/"
    )
}

/// Makes an ext4 image in the node's directory and returns the line of shell that mounts it at `dir`.
fn ext4(daemon: &Daemon, dir: &str) -> Option<String> {
    let image = daemon.config.dir.join("image");
    std::fs::File::create(&image).unwrap().set_len(32 << 20).unwrap();
    let made = Command::new("mkfs.ext4").arg("-q").arg(&image).status();
    if !made.is_ok_and(|status| status.success()) {
        println!("SKIPPED: mkfs.ext4 does not work here");
        return None;
    }
    let mount = format!("mount -o loop {} {dir}", image.display());
    let tried = Command::new("unshare").args(["--mount", "sh", "-c", &mount]).status();
    if !tried.is_ok_and(|status| status.success()) {
        println!("SKIPPED: no loop device can be mounted here");
        return None;
    }
    Some(mount)
}

/// London with three versions, and montreal that mirrors them onto a volume that `mount` puts at `dir`.
fn mirrored(studio: &Studio, at_root: bool) -> Option<(Daemon, Daemon, String, String)> {
    if !may_mount() {
        return None;
    }
    let london = studio.on_demand(LONDON, &[]);
    let mut montreal = studio.node(MONTREAL, ProjectMode::Mirror);
    montreal.config.peers = vec![london.listen()];
    let project = montreal.config.project_dir().display().to_string();
    let dir = if at_root { montreal.config.root.display().to_string() } else { project.clone() };
    let mount = ext4(&montreal, &dir)?;
    // Only the volume has the project when it is mounted at the root.
    let script =
        if at_root { format!("rmdir {project} && {mount} && mkdir {project}") } else { mount.clone() };
    montreal.set_mounts(&script);
    montreal.start();
    for version in 1..=3 {
        publish_model(&london, version, &[version as u8; 1000]);
        montreal.until_complete_at(&model(version), MONTREAL);
    }
    Some((london, montreal, dir, mount))
}

fn complete(daemon: &Daemon) -> usize {
    let versions = daemon.api().list().versions.into_iter();
    versions.filter(|version| version.here == Presence::Complete).count()
}

#[test]
fn a_volume_of_the_root_that_is_unmounted_pauses_the_project_and_nothing_counts_as_deleted() {
    let studio = studio();
    let Some((london, mut montreal, dir, mount)) = mirrored(&studio, true) else { return };
    let mut events = montreal.events();
    montreal.in_its_mounts(&format!("umount -l {dir}")).expect(ExitCode::Ok);
    montreal.until("it is paused", |api| {
        (api.status().projects[0].state == ProjectState::Paused && api.has_health("root-missing"))
            .then_some(())
    });
    publish_model(&london, 4, b"four");
    montreal.until("it is known", |api| api.locate_one(&model(4)));
    assert_eq!(complete(&montreal), 3, "it still counts as held");
    montreal.in_its_mounts(&format!("test -z \"$(ls -A {dir})\"")).expect(ExitCode::Ok);

    montreal.in_its_mounts(&mount).expect(ExitCode::Ok);
    montreal.until_complete_at(&model(4), MONTREAL);
    assert_eq!(complete(&montreal), 4);
    montreal.until("it is well again", |api| (!api.has_health("root-missing")).then_some(()));
    let file = montreal.path(&format!("{MODEL}/v004/modelDefault.usdc"));
    assert_eq!(
        std::fs::read(montreal.seen_by_it(&file)).unwrap(),
        b"four",
        "on the volume that is there now"
    );
    events.drain();
    assert_eq!(events.count(|kind| matches!(kind, EventKind::Dropped { .. })), 0);
}

#[test]
fn an_empty_mount_point_is_not_taken_for_a_deletion_and_gets_nothing() {
    let studio = studio();
    let Some((london, mut montreal, dir, mount)) = mirrored(&studio, false) else { return };
    let mut events = montreal.events();
    montreal.in_its_mounts(&format!("umount -l {dir}")).expect(ExitCode::Ok);
    montreal.until("somebody hears of it", |api| api.has_health("many-versions-gone").then_some(()));
    publish_model(&london, 4, b"four");
    montreal.until("it is known", |api| api.locate_one(&model(4)));
    assert_eq!(complete(&montreal), 3, "it still counts as held");

    montreal.in_its_mounts(&mount).expect(ExitCode::Ok);
    montreal.until_complete_at(&model(4), MONTREAL);
    assert_eq!(complete(&montreal), 4);
    montreal.until("it is well again", |api| (!api.has_health("many-versions-gone")).then_some(()));
    let file = montreal.path(&format!("{MODEL}/v004/modelDefault.usdc"));
    assert_eq!(
        std::fs::read(montreal.seen_by_it(&file)).unwrap(),
        b"four",
        "on the volume that is there now"
    );
    montreal.in_its_mounts(&format!("umount -l {dir} && test ! -e {dir}/assets")).expect(ExitCode::Ok);
    events.drain();
    assert_eq!(events.count(|kind| matches!(kind, EventKind::Dropped { .. })), 0);
}

#[test]
fn a_full_state_directory_takes_no_records_of_peers_and_all_of_them_when_there_is_room() {
    if !may_mount() {
        return;
    }
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let mut montreal = studio.node(MONTREAL, ProjectMode::Mirror);
    montreal.config.peers = vec![london.listen()];
    montreal.set_mounts(&state_on_tmpfs(&montreal, "16m"));
    montreal.start();
    publish_model(&london, 1, b"one");
    montreal.until_complete_at(&model(1), MONTREAL);
    let state = montreal.config.state_dir.display().to_string();
    montreal
        .in_its_mounts(&format!("cat /dev/zero > {state}/fill 2> {state}.said; true"))
        .expect(ExitCode::Ok);
    for version in 2..=6 {
        publish_model(&london, version, &[version as u8; 100]);
    }
    let health = montreal.until("somebody hears of it", |api| {
        api.status().health.into_iter().find(|health| health.code == "records-not-stored")
    });
    assert!(health.message.contains("No space left") && health.hint.is_some(), "{health:?}");
    assert_eq!(complete(&montreal), 1, "what was there before is there");
    montreal.in_its_mounts(&format!("rm {state}/fill")).expect(ExitCode::Ok);
    for version in 2..=6 {
        montreal.until_complete_at(&model(version), MONTREAL);
    }
    montreal.until("it is well again", |api| (!api.has_health("records-not-stored")).then_some(()));
    assert_eq!(montreal.ctl(&["catalog", "verify", "--json"]).good()["ok"], true);
}

#[test]
fn a_state_directory_that_turns_read_only_loses_nothing_and_works_again_after_a_restart() {
    if !may_mount() {
        return;
    }
    let studio = studio();
    let mut london = studio.node(LONDON, ProjectMode::OnDemand);
    let state = london.config.state_dir.display().to_string();
    let Some(mount) = ext4(&london, &state) else { return };
    // An error of the file system makes it read-only, as one of the disk does.
    let mount = mount.replace("-o loop", "-o loop,errors=remount-ro");
    london.set_mounts(&format!(
        "cp -a {state} {state}.copy && {mount} && cp -a {state}.copy/. {state}/ && sync"
    ));
    london.start();
    publish_model(&london, 1, b"one");
    let fail = format!(
        "device=$(findmnt -no SOURCE {state}) && ! echo test > /sys/fs/ext4/${{device#/dev/}}/trigger_fs_error; \
         ! touch {state}/new"
    );
    london.in_its_mounts(&fail).expect(ExitCode::Ok);
    let dir = london.path(&format!("{MODEL}/v002"));
    tree::write(&dir.join("modelDefault.usdc"), b"two");
    let item = london.api().publish(&dir);
    assert!(item.error.is_some() && format!("{item:?}").contains("Read-only file system"), "{item:?}");
    assert!(london.api().locate_one(&model(2)).is_none(), "what was not acknowledged is not shown");
    assert!(london.api().locate_one(&model(1)).is_some());
    london.terminate();

    let image = london.config.dir.join("image");
    // 1: what was wrong was mended.
    let checked = Command::new("e2fsck")
        .arg("-fy")
        .arg(&image)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(checked.code().is_some_and(|code| code <= 1), "{checked}");
    london.set_mounts(&mount);
    london.start();
    assert_eq!(london.api().publish(&dir).error, None);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    for version in 1..=2 {
        montreal.until_complete_at(&model(version), MONTREAL);
    }
    assert_eq!(london.ctl(&["catalog", "verify", "--json"]).good()["ok"], true);
}

#[test]
fn a_state_directory_on_a_file_system_in_user_space_is_refused() {
    if !may_mount() {
        return;
    }
    let studio = studio();
    let mut london = studio.node(LONDON, ProjectMode::OnDemand);
    let state = london.config.state_dir.display().to_string();
    let Some(fuse) = Fuse::open() else { return };
    london.set_device(fuse.device());
    london.set_mounts(&Fuse::mount(&state));
    fuse.serve();
    let (code, said) = london.start_in_vain();
    assert_eq!(code, i32::from(ExitCode::Error.code()), "{said}");
    let words =
        format!("the state directory {state} lies on FUSE; set state_dir to a directory on a local disk");
    assert!(said.contains(&words), "{said}");
    // On its own disk it starts.
    london.set_mounts("true");
    london.start();
}
