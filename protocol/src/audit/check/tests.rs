//! What is changed in an audit is found, and where.

use std::collections::BTreeSet;

use super::*;
use crate::audit::{AuditActor, AuditEntry, AuditFact, AuditOutcome, seal, segment_name};

type Files = Vec<(String, Vec<u8>)>;

/// An audit of three files.
fn audit(entries: u64) -> (Files, Vec<(u64, AuditHash)>) {
    let (mut files, mut heads, mut hash): (Files, _, _) = (Vec::new(), Vec::new(), AuditHash::START);
    for seq in 0..entries {
        let begins = seq % (entries / 3 + 1) == 0;
        let fact = if begins {
            files.push((segment_name(seq), Vec::new()));
            AuditFact::daemon(AuditAction::Begin).detail("after", hash.to_string())
        } else {
            let anna = AuditActor::User { uid: 1001, name: "anna".into() };
            let fact = AuditFact::new(anna, AuditAction::Pull, AuditOutcome::Done);
            fact.project("lantern").about(format!("robot/modelDefault@v{seq:03}"))
        };
        let at = format!("2026-11-23T03:25:{:02}.000Z", seq % 60);
        let (line, next) = seal(hash, &AuditEntry { seq, at, node: "ws12@london".into(), fact });
        hash = next;
        files.last_mut().unwrap().1.extend(line);
        heads.push((seq + 1, hash));
    }
    (files, heads)
}

fn check(files: &Files, known: &Known) -> Verdict {
    let mut checker = Checker::new(known);
    for (name, bytes) in files {
        checker.begin_file(name);
        // In pieces, as they come from a disk.
        bytes.chunks(100).for_each(|piece| checker.bytes(piece, |_, _| {}));
        checker.end_file();
    }
    checker.finish()
}

fn found(files: &Files) -> Vec<(String, u64)> {
    let verdict = check(files, &Known::default());
    verdict.faults.into_iter().map(|fault| (fault.file, fault.line)).collect()
}

/// The file and line of the byte at this place of all of them.
fn place(files: &Files, mut at: usize) -> (usize, usize, u64) {
    for (index, (_, bytes)) in files.iter().enumerate() {
        if at < bytes.len() {
            let line = bytes[..at].iter().filter(|byte| **byte == b'\n').count();
            return (index, at, line as u64 + 1);
        }
        at -= bytes.len();
    }
    panic!("beyond the end")
}

/// A small generator: each run makes the same changes.
fn numbers() -> impl Iterator<Item = usize> {
    let mut state = 0x2026_1123_u64;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(state >> 33).unwrap()
    })
}

fn lines(files: &mut Files, file: usize, change: impl FnOnce(&mut Vec<Vec<u8>>)) {
    let mut lines: Vec<Vec<u8>> =
        files[file].1.split_inclusive(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    change(&mut lines);
    files[file].1 = lines.concat();
}

#[test]
fn an_audit_that_nobody_touched_is_whole() {
    let (files, heads) = audit(40);
    let published =
        heads.iter().map(|(entries, hash)| AuditHead { entries: *entries, hash: *hash, at_ms: 0 });
    let known = Known { heads: published.collect(), running: heads.last().copied() };
    let verdict = check(&files, &known);
    assert_eq!((verdict.faults, verdict.files, verdict.lines, verdict.first), (vec![], 3, 40, 0));
    assert_eq!((verdict.head, verdict.heads_compared), (*heads.last().unwrap(), 41));
    assert_eq!(verdict.node.as_deref(), Some("ws12@london"));
}

#[test]
fn each_of_a_thousand_changed_bytes_is_found_in_its_file_and_line() {
    let (files, _) = audit(40);
    let total: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
    let mut numbers = numbers();
    let mut places = BTreeSet::new();
    for _ in 0..1000 {
        let at = numbers.next().unwrap() % total;
        let (file, within, line) = place(&files, at);
        let mut changed = files.clone();
        let byte = &mut changed[file].1[within];
        let was = *byte;
        *byte = was.wrapping_add(1 + u8::try_from(numbers.next().unwrap() % 255).unwrap());
        let found = found(&changed);
        let first =
            found.first().unwrap_or_else(|| panic!("byte {within} of file {file}: {was} is not found"));
        assert_eq!(*first, (files[file].0.clone(), line), "byte {within} was {was}");
        assert!(found.len() <= 3, "one change is not told as many: {found:?}");
        places.insert((file, line));
    }
    assert_eq!(places.len(), 40, "every line had its turn");
}

#[test]
fn a_line_that_was_removed_added_or_swapped_is_found() {
    let (files, _) = audit(40);
    for at in 0..13 {
        let mut removed = files.clone();
        lines(&mut removed, 1, |lines| drop(lines.remove(at)));
        let place = |line: usize| (files[1].0.clone(), line as u64 + 1);
        let next = if at == 13 { (files[2].0.clone(), 1) } else { place(at) };
        assert_eq!(found(&removed)[0], next, "line {at} removed");

        let mut doubled = files.clone();
        lines(&mut doubled, 1, |lines| lines.insert(at, lines[at].clone()));
        assert_eq!(found(&doubled)[0], place(at + 1), "line {at} twice");

        let mut swapped = files.clone();
        lines(&mut swapped, 1, |lines| lines.swap(at, at + 1));
        assert_eq!(found(&swapped)[0], place(at), "line {at} swapped");
    }
    let mut without = files.clone();
    without.remove(1);
    let verdict = check(&without, &Known::default());
    assert_eq!((verdict.faults[0].file.as_str(), verdict.faults[0].line), (files[2].0.as_str(), 1));
    assert!(verdict.faults[0].problem.contains("entries 14 to 27 were removed"), "{:?}", verdict.faults);
    let mut renamed = files.clone();
    renamed.swap(0, 1);
    assert!(!found(&renamed).is_empty());
}

#[test]
fn a_removed_beginning_is_found_unless_the_audit_says_that_it_was_forgotten() {
    let (files, heads) = audit(40);
    let verdict = check(&files[1..].to_vec(), &Known::default());
    assert_eq!(verdict.faults_total, 1);
    assert_eq!(verdict.faults[0].problem, "entries 0 to 13 are missing before this file");
    let mut forgot = files[1..].to_vec();
    let fact = AuditFact::daemon(AuditAction::Forget).detail("before", "14");
    let at = "2026-11-23T04:00:00.000Z".into();
    let (line, _) = seal(heads[39].1, &AuditEntry { seq: 40, at, node: "ws12@london".into(), fact });
    forgot[1].1.extend(line);
    let verdict = check(&forgot, &Known::default());
    assert_eq!((verdict.faults, verdict.first), (vec![], 14));
}

#[test]
fn an_end_that_was_removed_and_a_chain_that_was_written_anew_are_found_by_a_published_head() {
    let (files, heads) = audit(40);
    let head = |at: usize| AuditHead { entries: heads[at].0, hash: heads[at].1, at_ms: 0 };
    let known = Known { heads: vec![head(20), head(38)], running: None };
    let mut cut = files.clone();
    lines(&mut cut, 2, |lines| lines.truncate(3));
    assert_eq!(check(&cut, &Known::default()).faults, [], "the chain alone does not tell");
    let verdict = check(&cut, &known);
    assert!(verdict.faults[0].problem.contains("the end was removed"), "{:?}", verdict.faults);

    let mut hash = AuditHash::START;
    let mut anew = Files::new();
    for (name, bytes) in &files {
        let mut written = Vec::new();
        for line in bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let mut entry = AuditLine::parse(line).unwrap().entry;
            if entry.seq == 30 {
                entry.fact.actor = AuditActor::User { uid: 1002, name: "ben".into() };
            }
            if entry.fact.action == AuditAction::Begin {
                entry.fact.detail.insert("after".into(), hash.to_string());
            }
            let (line, next) = seal(hash, &entry);
            hash = next;
            written.extend(line);
        }
        anew.push((name.clone(), written));
    }
    assert_eq!(check(&anew, &Known::default()).faults, []);
    let verdict = check(&anew, &known);
    assert_eq!(verdict.faults_total, 1);
    let fault = &verdict.faults[0];
    assert_eq!((fault.file.as_str(), fault.line), (files[2].0.as_str(), 11));
    assert!(fault.problem.contains("it was rewritten"), "{fault:?}");
}

#[test]
fn what_is_no_audit_at_all_is_told_and_never_kept_in_memory() {
    let mut checker = Checker::new(&Known::default());
    checker.begin_file("audit-000000000000.jsonl");
    (0..4096).for_each(|_| checker.bytes(&[b'x'; 4096], |_, _| panic!("no line")));
    assert!(checker.partial.len() <= MAX_LINE_BYTES + 1);
    checker.end_file();
    checker.begin_file("audit-000000000001.jsonl");
    checker.end_file();
    let verdict = checker.finish();
    assert_eq!(verdict.faults.iter().map(|fault| fault.line).collect::<Vec<_>>(), [1, 0]);
}
