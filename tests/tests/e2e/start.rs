//! What prevents a start, each with its own words; nothing is changed by it.

use std::{
    fs,
    net::UdpSocket,
    os::unix::{fs::symlink, net::UnixListener},
    process::Command,
};

use avalon_protocol::mode::ProjectMode;
use avalon_tests::daemons::{
    Studio,
    daemon::{Daemon, may_mount},
    process::Process,
};

use crate::support::{HOME, LONDON, publish_model, studio};

fn node(studio: &Studio) -> Daemon {
    studio.node(LONDON, ProjectMode::OnDemand)
}

/// Checks that a start fails with this exit code and these words, and leaves no socket behind.
#[track_caller]
fn check(daemon: &mut Daemon, exit: i32, words: &[&str]) {
    let (code, said) = daemon.start_in_vain();
    assert_eq!(code, exit, "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} in: {said}");
    }
}

/// Checks that `--check-config` says the same as a start.
#[track_caller]
fn check_config(daemon: &mut Daemon, words: &[&str]) {
    let (code, said) = daemon.check_config();
    assert_eq!(code, 2, "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} in: {said}");
    }
    check(daemon, 2, words);
    assert!(
        !daemon.config.state_dir.join("feeds").exists(),
        "nothing is written before the configuration passes"
    );
}

#[test]
fn a_state_directory_in_use_names_the_process_that_uses_it() {
    let studio = studio();
    let mut first = studio.on_demand(LONDON, &[]);
    let pid = first.process().pid();
    let mut second = studio.node(HOME, ProjectMode::OnDemand);
    second.config.state_dir.clone_from(&first.config.state_dir);
    check(&mut second, 1, &["is in use by another avalond", &format!("(process {pid})")]);
    assert!(!second.config.socket.exists());
    publish_model(&first, 1, b"the first works on");
}

#[test]
fn a_state_directory_on_a_read_only_volume_is_named() {
    let studio = studio();
    let mut daemon = node(&studio);
    daemon.start();
    daemon.terminate();
    if !may_mount() {
        return;
    }
    let state = daemon.config.state_dir.display().to_string();
    daemon.set_mounts(&format!("mount --bind {state} {state} && mount -o remount,bind,ro {state}"));
    check(&mut daemon, 1, &["is on a read-only volume"]);
}

#[test]
fn a_port_in_use_is_named() {
    let studio = studio();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut daemon = node(&studio);
    daemon.config.listen = taken.local_addr().unwrap().to_string();
    let listen = daemon.config.listen.clone();
    check(&mut daemon, 1, &[&format!("the UDP address {listen} is in use"), "listen"]);
}

#[test]
fn a_socket_path_that_is_too_long_is_found_before_anything_else() {
    let studio = studio();
    let mut daemon = node(&studio);
    daemon.config.socket = daemon.config.dir.join("x".repeat(120));
    check_config(&mut daemon, &["node.socket", "a Unix socket's path at most 107", "shorter"]);
}

#[test]
fn what_squats_the_socket_is_not_touched() {
    let studio = studio();
    let mut daemon = node(&studio);
    let socket = daemon.config.socket.clone();
    let elsewhere = daemon.config.dir.join("elsewhere");
    symlink(&elsewhere, &socket).unwrap();
    check(&mut daemon, 1, &["is a symbolic link where the socket should be"]);
    assert!(socket.is_symlink() && !elsewhere.exists());
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, b"precious").unwrap();
    check(&mut daemon, 1, &["is not a socket"]);
    assert_eq!(fs::read(&socket).unwrap(), b"precious");
    fs::remove_file(&socket).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    check(&mut daemon, 1, &["another process listens on"]);
    // One that is left of a daemon that was killed is no obstacle.
    drop(listener);
    assert!(socket.exists());
    daemon.start();
    daemon.kill9();
    assert!(socket.exists());
    daemon.start();
}

#[test]
fn an_unknown_key_is_named_with_file_line_and_the_nearest_valid_one() {
    let studio = studio();
    let mut daemon = node(&studio);
    daemon.config.extra = "lissten = \"0.0.0.0:1\"".into();
    let file = daemon.config.file();
    let place = format!("{}:6: unknown key `lissten`; did you mean `listen`?", file.display());
    check_config(&mut daemon, &[&place]);
}

#[test]
fn a_template_that_cannot_be_inverted_is_refused_with_the_reason() {
    let studio = studio();
    let mut daemon = node(&studio);
    daemon.config.template =
        Some("{root}/{project}/{asset}{subset}/v{version:0>3}/x.{representation}".into());
    check_config(&mut daemon, &["project.lantern.template cannot be used", "asset"]);
    daemon.config.template = Some("{root}/{project}/{silo}/{asset}/x.{representation}".into());
    check_config(&mut daemon, &["project.lantern.template cannot be used"]);
}

#[test]
fn a_missing_configuration_is_named() {
    let studio = studio();
    let daemon = node(&studio);
    let mut process = Process::start(
        Command::new(&studio.programs().avalond).arg("--config").arg(daemon.config.dir.join("none.toml")),
    );
    let status = process.ended();
    let said = process.log.text();
    assert_eq!(status.code(), Some(2), "{said}");
    assert!(said.contains("none.toml") && said.contains("No such file"), "{said}");
}
