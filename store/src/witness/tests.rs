//! Restores as people do them, and starts that are none.

use std::{fs, io::Write as _, path::Path, sync::Arc, time::Duration};

use avalon_protocol::record::Record;

use super::*;
use crate::{
    ledger::{CatalogCare, Ledger, LedgerConfig},
    toy::{self, Toy, ToyTrust},
};

const ME: &str = "ws1@london";

/// What one run of a daemon does.
fn run(path: &Path, records: u8, end: Option<Moment>) -> Signs {
    let state = StateDir::open(path).unwrap();
    let me: NodeId = ME.parse().unwrap();
    let config = LedgerConfig {
        me: me.clone(),
        signer: Arc::new(Toy::of(ME)),
        trust: Arc::new(ToyTrust),
        projects: vec![(toy::feed(ME).project, None)],
        on_change: Arc::new(|_| {}),
        now: Arc::new(|| Duration::ZERO),
        extract: None,
        max_feed_bytes: u64::MAX,
        care: CatalogCare::default(),
    };
    let (ledger, _) = Ledger::open(&state, config).unwrap();
    let project = toy::feed(ME).project;
    let heads = |ledger: &Ledger| {
        let own = ledger.heads(&project).into_iter().find(|(node, _)| *node == me);
        own.map(|(_, head)| (project.clone(), head)).into_iter().collect::<Vec<_>>()
    };
    let signs = check(&state, &me, &heads(&ledger));
    write(&state, &me, &heads(&ledger), Moment::Start).unwrap();
    for number in 0..records {
        ledger.commit_wait(&project, vec![Record::Placed(toy::held(1, number))], vec![], 1).unwrap();
    }
    let last = heads(&ledger);
    ledger.close().unwrap();
    if end == Some(Moment::Stop) {
        write(&state, &me, &last, Moment::Stop).unwrap();
    }
    signs
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (entry, to) = (entry.as_ref().unwrap(), to.join(entry.as_ref().unwrap().file_name()));
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

fn is_restored(signs: &Signs) -> bool {
    matches!(signs, Signs::Restored { .. })
}

#[test]
fn a_new_node_and_one_that_starts_again_show_no_signs_however_it_ended() {
    let temp = tempfile::tempdir().unwrap();
    let state = temp.path().join("state");
    assert_eq!(run(&state, 0, Some(Moment::Stop)), Signs::New);
    assert_eq!(run(&state, 2, Some(Moment::Stop)), Signs::None, "a witness of nothing is one");
    for end in [None, Some(Moment::Stop), Some(Moment::Stop), None, None] {
        assert_eq!(run(&state, 2, end), Signs::None, "{end:?}");
    }
}

#[test]
fn a_backup_shows_wherever_and_however_it_is_put_back() {
    for end in [Some(Moment::Stop), None] {
        let temp = tempfile::tempdir().unwrap();
        let (state, backup, elsewhere) =
            (temp.path().join("state"), temp.path().join("backup"), temp.path().join("elsewhere"));
        run(&state, 2, end);
        copy(&state, &backup);
        run(&state, 2, Some(Moment::Stop));
        copy(&backup, &elsewhere);
        assert!(is_restored(&run(&elsewhere, 0, None)), "another directory");
        // The feeds alone.
        fs::rename(state.join("feeds"), temp.path().join("feeds")).unwrap();
        copy(&backup.join("feeds"), &state.join("feeds"));
        assert!(is_restored(&run(&state, 0, None)), "another directory beside the same witness");
        // Everything, in the place of what was there.
        fs::remove_dir_all(&state).unwrap();
        copy(&backup, &state);
        assert!(is_restored(&run(&state, 0, None)));
    }
}

#[test]
fn a_backup_that_is_copied_over_the_same_files_shows_by_their_ctime() {
    let temp = tempfile::tempdir().unwrap();
    let (state, backup) = (temp.path().join("state"), temp.path().join("backup"));
    run(&state, 2, Some(Moment::Stop));
    copy(&state, &backup);
    run(&state, 2, Some(Moment::Stop));
    copy(&backup, &state);
    assert!(is_restored(&run(&state, 0, None)));
}

#[test]
fn a_backup_of_a_running_daemon_that_is_copied_over_the_same_files_shows_after_a_kill() {
    let temp = tempfile::tempdir().unwrap();
    let (state, backup) = (temp.path().join("state"), temp.path().join("backup"));
    run(&state, 2, None);
    copy(&state, &backup);
    // Within the same run, so that the witness is the same: only the anchor can tell.
    copy(&backup, &state);
    assert!(is_restored(&run(&state, 0, None)));
    assert_eq!(run(&state, 1, None), Signs::None, "and once it is known to be the newest no more");
}

#[test]
fn a_backup_shows_where_only_files_that_look_changed_are_put_back() {
    let temp = tempfile::tempdir().unwrap();
    let (state, backup) = (temp.path().join("state"), temp.path().join("backup"));
    run(&state, 2, None);
    copy(&state, &backup);
    run(&state, 2, None);
    // As `rsync --inplace` does; the anchor of the backup is not there any more.
    for name in ["witness.json", "witness-a.anchor", "witness-b.anchor"] {
        let (from, to) = (backup.join(name), state.join(name));
        if fs::read(&from).ok() != fs::read(&to).ok() && from.exists() {
            fs::copy(from, to).unwrap();
        }
    }
    assert!(is_restored(&run(&state, 0, None)));
}

#[test]
fn a_crash_between_anchor_and_witness_is_no_restore() {
    let temp = tempfile::tempdir().unwrap();
    let state = temp.path().join("state");
    run(&state, 2, None);
    let old = ANCHORS.iter().find(|name| state.join(name).exists()).unwrap();
    let other = ANCHORS.iter().find(|name| *name != old).unwrap();
    fs::File::create(state.join(other)).unwrap();
    assert_eq!(run(&state, 0, None), Signs::None, "the next one was made already");
    fs::File::create(state.join(ANCHORS.iter().find(|name| !state.join(name).exists()).unwrap())).unwrap();
    assert_eq!(run(&state, 0, None), Signs::None, "the last one was not removed yet");
}

#[test]
fn without_a_witness_or_with_a_damaged_one_records_count_as_restored() {
    let temp = tempfile::tempdir().unwrap();
    let state = temp.path().join("state");
    run(&state, 2, Some(Moment::Stop));
    let path = state.join(NAME);
    for damaged in [
        None,
        Some("{"),
        Some("{\"schema\": \"avalond.witness/9\", \"moment\": \"stop\", \"directory\": 1, \"feeds\": {}}"),
    ] {
        fs::remove_file(&path).unwrap();
        damaged
            .into_iter()
            .for_each(|text| fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap());
        assert!(is_restored(&run(&state, 0, Some(Moment::Stop))), "{damaged:?}");
    }
    fs::remove_dir_all(state.join("feeds/lantern")).unwrap();
    assert!(is_restored(&run(&state, 0, None)), "it lost its feeds");
}
