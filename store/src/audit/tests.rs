//! The files of an audit over stops, crashes and damage.
#![expect(clippy::disallowed_methods, reason = "damage needs no durability")]

use std::fs;

use avalon_protocol::audit::{AuditActor, AuditOutcome, Known, Verdict};
use tempfile::TempDir;

use super::*;

fn fact(number: u64) -> (String, AuditFact) {
    let anna = AuditActor::User { uid: 1001, name: "anna".into() };
    let fact =
        AuditFact::new(anna, AuditAction::Pull, AuditOutcome::Done).about(format!("robot/rig@v{number:03}"));
    (format!("2026-11-23T03:{:02}:{:02}.000Z", number / 60, number % 60), fact)
}

fn open(temp: &TempDir) -> (AuditFiles, Vec<Mended>) {
    let (files, mended) = AuditFiles::open(&Dir::open(temp.path()).unwrap(), "ws12@london").unwrap();
    (AuditFiles { segment_bytes: 2000, ..files }, mended)
}

fn check(files: &AuditFiles) -> Verdict {
    files.reader().check(&Known::default(), None, |_, _| {}).unwrap()
}

/// An audit of `entries`, of which the first of each file is its own.
fn written(temp: &TempDir, entries: u64) -> AuditFiles {
    let (mut files, mended) = open(temp);
    assert_eq!(mended, []);
    (0..entries).for_each(|number| files.append(&[fact(number)]).unwrap());
    files
}

fn last(temp: &TempDir) -> std::path::PathBuf {
    let (_, name) = AuditReader::new(&Dir::open(temp.path()).unwrap()).segments().unwrap().pop().unwrap();
    temp.path().join(name)
}

#[test]
fn the_chain_goes_on_over_files_and_restarts() {
    let temp = tempfile::tempdir().unwrap();
    let before = written(&temp, 30).written();
    let (mut files, mended) = open(&temp);
    assert_eq!((mended, files.written()), (vec![], before.clone()));
    files.append(&[fact(30), fact(31)]).unwrap();
    let verdict = check(&files);
    assert_eq!((verdict.faults.clone(), verdict.head), (vec![], (files.next, files.hash)));
    assert!(verdict.files > 2, "{verdict:?}");
    assert_eq!(verdict.lines, 32 + verdict.files);
    assert_eq!(files.next, before.entries + 2);
}

#[test]
fn a_tail_that_a_crash_tore_anywhere_is_cut_off_and_nothing_before_it() {
    let temp = tempfile::tempdir().unwrap();
    let mut files = written(&temp, 1);
    let whole = files.written();
    files.append(&[fact(1)]).unwrap();
    let good = fs::metadata(last(&temp)).unwrap().len();
    let bytes = fs::read(last(&temp)).unwrap();
    let (_, first) = whole.segment.clone().unwrap();
    for cut in first + 1..good {
        fs::write(last(&temp), &bytes[..usize::try_from(cut).unwrap()]).unwrap();
        let (reopened, mended) = open(&temp);
        let name = whole.segment.clone().unwrap().0;
        if cut == good - 1 {
            assert_eq!(mended, [Mended::Unended { file: name }], "the entry is whole");
            assert_eq!(
                (reopened.written(), fs::read(last(&temp)).unwrap()),
                (files.written(), bytes.clone())
            );
            continue;
        }
        assert_eq!(mended, [Mended::Torn { file: name, bytes: cut - first }]);
        assert_eq!(reopened.written(), whole);
    }
    let zeros = [&bytes[..], &[0; 4096]].concat();
    fs::write(last(&temp), zeros).unwrap();
    let (mut files, mended) = open(&temp);
    assert!(matches!(&mended[..], [Mended::Torn { bytes: 4096, .. }]), "{mended:?}");
    files.append(&[fact(2)]).unwrap();
    assert_eq!(check(&files).faults, []);
}

#[test]
fn a_file_that_a_crash_left_without_its_first_line_is_made_anew() {
    let temp = tempfile::tempdir().unwrap();
    for left in [&b""[..], b"{\"seq\":"] {
        let files = written(&temp, 30);
        let before = files.written();
        fs::write(temp.path().join(segment_name(before.entries)), left).unwrap();
        let (mut files, mended) = open(&temp);
        assert_eq!((mended.len(), files.written()), (1, before));
        files.append(&[fact(99)]).unwrap();
        assert_eq!(check(&files).faults, []);
        fs::remove_dir_all(temp.path()).unwrap();
        fs::create_dir(temp.path()).unwrap();
    }
}

#[test]
fn damage_is_no_torn_tail_and_stays_to_be_found() {
    let temp = tempfile::tempdir().unwrap();
    drop(written(&temp, 3));
    let mut bytes = fs::read(last(&temp)).unwrap();
    let second = bytes.iter().position(|byte| *byte == b'\n').unwrap() + 20;
    bytes[second] ^= 1;
    fs::write(last(&temp), &bytes).unwrap();
    let (mut files, mended) = open(&temp);
    assert!(matches!(&mended[..], [Mended::Damaged { line: 2, .. }]), "{mended:?}");
    files.append(&[fact(9)]).unwrap();
    let verdict = check(&files);
    assert_eq!((verdict.faults_total, verdict.faults[0].line, verdict.files), (1, 2, 2));
    assert_eq!(fs::read(temp.path().join(segment_name(0))).unwrap(), bytes, "nothing of it was touched");
}

#[test]
fn a_changed_end_is_no_torn_tail() {
    let temp = tempfile::tempdir().unwrap();
    drop(written(&temp, 3));
    let good = fs::read(last(&temp)).unwrap();
    let last_line = good[..good.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    let change = |place: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[place] = byte;
        bytes
    };
    // Another byte for the last newline; the same and another first byte; something behind that we do not write.
    let mut both = change(good.len() - 1, b' ');
    both[last_line] = b'[';
    for bytes in [change(good.len() - 1, b' '), both, [&good[..], b"junk"].concat()] {
        fs::write(last(&temp), &bytes).unwrap();
        let (mut files, mended) = open(&temp);
        assert!(matches!(&mended[..], [Mended::Damaged { .. }]), "{mended:?}");
        files.append(&[fact(9)]).unwrap();
        assert!(check(&files).faults_total > 0);
        assert_eq!(fs::read(temp.path().join(segment_name(0))).unwrap(), bytes, "nothing of it was touched");
        fs::remove_file(last(&temp)).unwrap();
    }
}

#[test]
fn what_was_acknowledged_before_a_stop_is_no_torn_tail_when_it_is_missing() {
    let temp = tempfile::tempdir().unwrap();
    let mut files = written(&temp, 3);
    files.note_end().unwrap();
    let noted = fs::read(last(&temp)).unwrap();
    files.append(&[fact(3)]).unwrap();
    let good = fs::read(last(&temp)).unwrap();
    // What came later a crash can tear.
    fs::write(last(&temp), &good[..noted.len() + 20]).unwrap();
    assert!(matches!(&open(&temp).1[..], [Mended::Torn { bytes: 20, .. }]));
    fs::write(last(&temp), &noted[..noted.len() - 20]).unwrap();
    let (_, mended) = open(&temp);
    assert!(matches!(&mended[..], [Mended::Damaged { line: 4, .. }]), "{mended:?}");
}

#[test]
fn a_file_that_a_full_disk_left_unfinished_is_made_anew_without_a_start() {
    let temp = tempfile::tempdir().unwrap();
    let mut files = written(&temp, 30);
    files.current = None;
    // As when neither the first line could be written nor the file be removed.
    fs::write(temp.path().join(segment_name(files.next)), b"{\"seq\":").unwrap();
    files.append(&[fact(30)]).unwrap();
    assert_eq!(check(&files).faults, []);
    let before = files.written();
    let (files, mended) = open(&temp);
    assert_eq!((mended, files.written()), (vec![], before));
}

#[test]
fn old_files_are_forgotten_and_the_audit_says_so() {
    let temp = tempfile::tempdir().unwrap();
    let mut files = written(&temp, 60);
    let all = files.reader().segments().unwrap();
    assert_eq!(files.forgettable("2026-11-23T03:00:00.000Z").unwrap(), None);
    let keep = files.forgettable("2026-11-23T03:00:40.000Z").unwrap().unwrap();
    let said = AuditFact::daemon(AuditAction::Forget).detail("before", keep.to_string());
    files.append(&[(fact(61).0, said)]).unwrap();
    files.forget_before(keep).unwrap();
    let verdict = check(&files);
    assert_eq!((verdict.faults, verdict.first), (vec![], keep));
    assert!(all.len() > files.reader().segments().unwrap().len());
    assert!(files.forgettable("2027").unwrap().is_some_and(|first| first < files.next), "the last one stays");
}

#[test]
fn what_cannot_be_written_leaves_nothing_and_the_chain_goes_on_when_it_can() {
    let temp = tempfile::tempdir().unwrap();
    let mut files = written(&temp, 2);
    let before = files.written();
    // A file that is open for reading only cannot be written: as a full disk, for whoever appends.
    let current = files.current.as_mut().unwrap();
    current.file = File::open(temp.path().join(&current.name)).unwrap();
    files.append(&[fact(2)]).unwrap_err();
    assert_eq!(files.written(), before);
    let current = files.current.as_mut().unwrap();
    current.file = fs::OpenOptions::new().write(true).open(temp.path().join(&current.name)).unwrap();
    current.file.write_all_at(b"{\"seq\":9", current.bytes).unwrap();
    files.append(&[fact(3)]).unwrap();
    let verdict = check(&files);
    assert_eq!((verdict.faults, verdict.files), (vec![], 2));
    assert_eq!(files.next, before.entries + 2);
}
