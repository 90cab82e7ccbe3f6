//! What cannot be published, and what to do about it.

use std::{fs, os::unix::fs::symlink, path::Path};

use avalon_protocol::{
    control::{ErrorCode, PublishState},
    exit_code::ExitCode,
};
use avalon_tests::daemons::{Studio, daemon::Daemon, tree};

use crate::support::{LONDON, MODEL, model, studio};

/// Checks that a version with what `make` puts into it is refused with these words, by the command line and in `status`,
/// and is published when `mend` has run.
#[track_caller]
fn check(studio: &Studio, make: impl Fn(&Path), words: &[&str], mend: impl Fn(&Path)) {
    let london: Daemon = studio.on_demand(LONDON, &[]);
    let dir = london.path(&format!("{MODEL}/v001"));
    tree::write(&dir.join("modelDefault.usdc"), b"good");
    make(&dir);
    let item = london.api().publish(&dir);
    assert_eq!((item.state, item.error), (PublishState::Refused, Some(ErrorCode::BadPath)), "{item:?}");
    let messages = item.messages.join("; ");
    for word in words {
        assert!(messages.contains(word), "{word:?} in {messages}");
    }
    let said = london.ctl(&["publish", dir.to_str().unwrap()]).expect(ExitCode::Usage);
    assert!(said.stderr.contains(words[0]), "{said:#?}");
    london.until("status says why", |api| {
        let pending = api.status().projects.remove(0).pending;
        pending.iter().any(|version| version.why.join("; ").contains(words[0])).then_some(())
    });
    assert!(london.api().list().versions.is_empty());
    let mut events = london.events();
    mend(&dir);
    events.published(&model(1));
}

#[test]
fn names_that_differ_by_case_are_refused_until_one_is_renamed() {
    check(
        &studio(),
        |dir| tree::write(&dir.join("ModelDefault.usdc"), b"other"),
        &["are one name where case", "ModelDefault.usdc"],
        |dir| fs::remove_file(dir.join("ModelDefault.usdc")).unwrap(),
    );
}

#[test]
fn names_that_differ_by_unicode_composition_are_refused() {
    check(
        &studio(),
        |dir| {
            tree::write(&dir.join("modelDefault.caf\u{e9}.txt"), b"composed");
            tree::write(&dir.join("modelDefault.cafe\u{301}.txt"), b"decomposed");
        },
        &["Unicode normal form C"],
        |dir| fs::remove_file(dir.join("modelDefault.cafe\u{301}.txt")).unwrap(),
    );
}

#[test]
fn names_that_windows_reserves_are_refused() {
    check(
        &studio(),
        |dir| tree::write(&dir.join("con.txt"), b"x"),
        &["Windows reserves the name", "con.txt"],
        |dir| fs::rename(dir.join("con.txt"), dir.join("console.txt")).unwrap(),
    );
}

#[test]
fn symbolic_links_are_refused() {
    check(
        &studio(),
        |dir| symlink("/etc/hostname", dir.join("modelDefault.txt")).unwrap(),
        &["is a symbolic link; publish the file itself", "modelDefault.txt"],
        |dir| fs::remove_file(dir.join("modelDefault.txt")).unwrap(),
    );
}
