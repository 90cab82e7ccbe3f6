//! A daemon that is not root, as a workstation's is.

use std::{
    fs::{self, Permissions},
    os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
};

use avalon_protocol::{control::ProjectState, exit_code::ExitCode, mode::ProjectMode};
use avalon_tests::daemons::{
    daemon::{is_root, own_all},
    tree,
};

use crate::support::{LONDON, MODEL, MONTREAL, model, publish_model, studio};

/// A user that nobody is.
const USER: u32 = 61_234;

#[test]
fn a_daemon_without_any_right_of_root_publishes_and_mirrors() {
    if !is_root() {
        return;
    }
    let studio = studio();
    let mut london = studio.node(LONDON, ProjectMode::Mirror);
    london.set_user(USER);
    london.start();
    let mut montreal = studio.node(MONTREAL, ProjectMode::Mirror);
    montreal.config.peers = vec![london.listen()];
    montreal.set_user(USER + 1);
    montreal.start();
    let pid = london.process().pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    assert!(status.contains(&format!("Uid:\t{USER}\t{USER}\t{USER}\t{USER}")), "{status}");

    publish_model(&london, 1, b"one");
    montreal.until_complete_at(&model(1), MONTREAL);
    tree::assert_equal(&london.path(""), &montreal.path(""));
    let placed = fs::metadata(montreal.path(&format!("{MODEL}/v001/modelDefault.usdc"))).unwrap();
    assert_eq!(placed.uid(), USER + 1);

    let socket = fs::metadata(&london.config.socket).unwrap();
    assert!(socket.file_type().is_socket());
    assert_eq!((socket.uid(), socket.mode() & 0o777), (USER, 0o660));
    let key = fs::metadata(london.config.identity_dir().join("node.key")).unwrap();
    assert_eq!((key.uid(), key.mode() & 0o777), (USER, 0o600));
    let others = tree_of(&london.config.state_dir).into_iter().filter(|(_, uid)| *uid != USER);
    assert_eq!(others.collect::<Vec<_>>(), [], "all of the state is the user's own");
    assert_eq!(london.terminate().code(), Some(0));
    assert!(!london.config.socket.exists());
}

fn tree_of(dir: &std::path::Path) -> Vec<(std::path::PathBuf, u32)> {
    let entries = walkdir::WalkDir::new(dir).into_iter().map(Result::unwrap);
    entries.map(|entry| (entry.path().to_owned(), entry.metadata().unwrap().uid())).collect()
}

#[test]
fn a_key_or_a_state_directory_of_another_user_prevents_the_start() {
    if !is_root() {
        return;
    }
    let studio = studio();
    let mut london = studio.node(LONDON, ProjectMode::OnDemand);
    london.set_user(USER);
    let key = london.config.identity_dir().join("node.key");
    own_all(&key, 0);
    let (code, said) = london.start_in_vain();
    assert_eq!(code, i32::from(ExitCode::Denied.code()), "{said}");
    assert!(said.contains("node.key") && said.contains("Permission denied"), "{said}");
    own_all(&key, USER);
    own_all(&london.config.state_dir, 0);
    fs::set_permissions(&london.config.state_dir, Permissions::from_mode(0o755)).unwrap();
    let (code, said) = london.start_in_vain();
    assert_eq!(code, i32::from(ExitCode::Error.code()), "{said}");
    assert!(said.contains("may not be written by this user; change its owner"), "{said}");
    own_all(&london.config.state_dir, USER);
    london.start();
}

#[test]
fn a_project_that_the_user_may_not_read_is_paused_with_the_reason_until_it_may() {
    if !is_root() {
        return;
    }
    let studio = studio();
    let mut london = studio.node(LONDON, ProjectMode::OnDemand);
    london.set_user(USER);
    let project = london.config.project_dir();
    own_all(&project, 0);
    fs::set_permissions(&project, Permissions::from_mode(0o700)).unwrap();
    london.start();
    let health = london.until("somebody hears of it", |api| {
        api.status().health.into_iter().find(|health| health.code == "root-missing")
    });
    assert!(health.message.contains("Permission denied"), "{health:?}");
    assert!(health.message.contains(project.to_str().unwrap()), "{health:?}");
    let hint = health.hint.unwrap();
    assert!(hint.contains("give the daemon's user the right to read"), "{hint}");
    assert_eq!(london.api().status().projects[0].state, ProjectState::Paused);
    own_all(&project, USER);
    london.until("it is well again", |api| (!api.has_health("root-missing")).then_some(()));
    publish_model(&london, 1, b"one");
}

#[test]
fn a_mirror_that_may_not_write_its_project_says_so_and_goes_on_when_it_may() {
    if !is_root() {
        return;
    }
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let mut montreal = studio.node(MONTREAL, ProjectMode::Mirror);
    montreal.config.peers = vec![london.listen()];
    montreal.set_user(USER);
    own_all(&montreal.config.project_dir(), 0);
    fs::set_permissions(montreal.config.project_dir(), Permissions::from_mode(0o755)).unwrap();
    montreal.start();
    publish_model(&london, 1, b"one");
    let health = montreal.until("somebody hears of it", |api| {
        api.status().health.into_iter().find(|health| health.code == "root-read-only")
    });
    assert!(health.message.contains("Permission denied"), "{health:?}");
    assert!(health.hint.unwrap().contains("right to write"));
    own_all(&montreal.config.project_dir(), USER);
    montreal.until_complete_at(&model(1), MONTREAL);
    assert!(!montreal.api().has_health("root-read-only"));
}

#[test]
fn a_directory_in_a_project_that_the_user_may_not_read_is_told_and_the_rest_works() {
    if !is_root() {
        return;
    }
    let studio = studio();
    let mut london = studio.node(LONDON, ProjectMode::OnDemand);
    let closed = london.path("assets/secret");
    fs::create_dir_all(&closed).unwrap();
    london.set_user(USER);
    own_all(&closed, 0);
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    london.start();
    let health = london.until("somebody hears of it", |api| {
        api.status().health.into_iter().find(|health| health.code == "scan-problems")
    });
    assert!(health.message.contains("secret"), "{health:?}");
    let dir = london.path(MODEL);
    fs::create_dir_all(&dir).unwrap();
    own_all(&london.path("assets/robot"), USER);
    publish_model(&london, 1, b"one");
}
