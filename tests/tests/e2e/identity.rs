//! Keys and certificates: each defect has its own message, and the exit code says that it is about trust.

use std::{fs, os::unix::fs::PermissionsExt as _, time::Duration};

use avalon_protocol::{exit_code::ExitCode, mode::ProjectMode};
use avalon_tests::daemons::{Studio, daemon::Daemon, now};

use crate::support::{HOME, LONDON, programs, studio};

#[track_caller]
fn check(daemon: &mut Daemon, words: &[&str]) {
    let (code, said) = daemon.start_in_vain();
    assert_eq!(code, i32::from(ExitCode::Denied.code()), "{said}");
    for word in words {
        assert!(said.contains(word), "{word:?} in: {said}");
    }
    assert!(!daemon.config.socket.exists());
}

/// A node whose identity a test breaks.
fn broken(studio: &Studio, how: impl FnOnce(&Daemon)) -> Daemon {
    let daemon = studio.node(LONDON, ProjectMode::OnDemand);
    how(&daemon);
    daemon
}

fn file(daemon: &Daemon, name: &str) -> std::path::PathBuf {
    daemon.config.identity_dir().join(name)
}

#[test]
fn files_that_are_missing_are_named_with_the_command_that_makes_them() {
    let studio = studio();
    for (name, words) in [
        ("node.key", ["there is no private key", "avalonctl ca issue"]),
        ("node.pem", ["there is no certificate", "avalonctl ca issue"]),
        ("ca.pem", ["there is no studio CA certificate", "copy ca.pem"]),
    ] {
        let mut daemon = broken(&studio, |daemon| fs::remove_file(file(daemon, name)).unwrap());
        check(&mut daemon, &words);
    }
}

#[test]
fn a_key_that_others_may_read_is_refused() {
    let studio = studio();
    for mode in [0o640, 0o604] {
        let mut daemon = broken(&studio, |daemon| {
            fs::set_permissions(file(daemon, "node.key"), fs::Permissions::from_mode(mode)).unwrap();
        });
        check(&mut daemon, &["can be read by other users", &format!("mode {mode:04o}"), "chmod 600"]);
    }
}

#[test]
fn a_certificate_that_expired_or_is_not_valid_yet_says_when() {
    let studio = studio();
    let year = Duration::from_secs(366 * 24 * 3600);
    let mut old = broken(&studio, |daemon| {
        fs::remove_dir_all(daemon.config.identity_dir()).unwrap();
        studio.issue(LONDON, &daemon.config.identity_dir(), now() - 12 * year);
    });
    check(&mut old, &["the certificate of srv@london expired on", "renew it with"]);
    let mut early = broken(&studio, |daemon| {
        fs::remove_dir_all(daemon.config.identity_dir()).unwrap();
        studio.issue(LONDON, &daemon.config.identity_dir(), now() + year);
    });
    check(&mut early, &["is not valid before", "check the clock"]);
}

#[test]
fn a_foreign_certificate_another_key_and_a_damaged_file_are_told_apart() {
    let studio = studio();
    let other = Studio::named(programs(), "southlight");
    let elsewhere = other.node(LONDON, ProjectMode::OnDemand);
    let mut foreign = broken(&studio, |daemon| {
        for name in ["node.pem", "node.key"] {
            fs::copy(file(&elsewhere, name), file(daemon, name)).unwrap();
        }
    });
    check(&mut foreign, &["was not issued by the CA of studio northlight"]);
    let twin = studio.node(LONDON, ProjectMode::OnDemand);
    let mut mismatch = broken(&studio, |daemon| {
        fs::copy(file(&twin, "node.key"), file(daemon, "node.key")).unwrap();
    });
    check(&mut mismatch, &["does not belong to the certificate beside it"]);
    let mut damaged = broken(&studio, |daemon| fs::write(file(daemon, "node.pem"), b"-----BEGIN").unwrap());
    check(&mut damaged, &["node.pem is damaged"]);
    let mut swapped = broken(&studio, |daemon| {
        fs::copy(file(daemon, "node.pem"), file(daemon, "ca.pem")).unwrap();
    });
    check(&mut swapped, &["is not the certificate of a studio CA"]);
}

#[test]
fn an_identity_of_the_command_line_starts_a_daemon() {
    let studio = studio();
    let mut daemon = broken(&studio, |daemon| fs::remove_dir_all(daemon.config.identity_dir()).unwrap());
    let ca = daemon.config.dir.join("ca");
    let (ca, out) = (ca.to_str().unwrap(), daemon.config.identity_dir());
    daemon.ctl(&["ca", "init", "--studio", "eastlight", "--dir", ca]).expect(ExitCode::Ok);
    let issue =
        ["ca", "issue", "--dir", ca, "--node", "ws1", "--site", "home", "--out", out.to_str().unwrap()];
    daemon.ctl(&issue).expect(ExitCode::Ok);
    daemon.start();
    let status = daemon.api().status();
    assert_eq!(
        format!("{}@{} of {}", status.node, status.site, status.studio),
        format!("{HOME} of eastlight")
    );
}
