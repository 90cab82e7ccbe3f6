//! Which versions are looked at when, and what follows.

use avalon_protocol::{
    settle::{DirSnapshot, EndMark},
    template::{DEFAULT_PUBLISH, Template},
};

use super::{super::super::scan::VersionDirFound, *};

const NOW: SystemTime = SystemTime::UNIX_EPOCH;

fn templates() -> TemplateSet {
    TemplateSet::new(vec![Template::parse(DEFAULT_PUBLISH).unwrap()]).unwrap()
}

fn version(number: u32) -> VersionDir {
    templates().invert_dir(&format!("a/b/publish/c/v{number:03}").parse().unwrap()).unwrap()
}

fn file(inode: u64) -> SeenFile {
    SeenFile {
        path: "c.abc".parse().unwrap(),
        size: 1,
        mtime_ns: 0,
        ctime_ns: 0,
        inode,
        end_mark: EndMark::Unknown,
    }
}

/// Does the look as if the version held one file.
fn see(mut look: Look, now_ms: u64, inode: u64) -> Looked {
    let snapshot = DirSnapshot { files: vec![file(inode)], ..DirSnapshot::default() };
    let verdict = look.settle.observe(now_ms, &snapshot);
    Looked { dir: look.dir, settle: look.settle, asked: look.asked, seen: Seen::Decided(verdict) }
}

fn report(versions: u32) -> ScanReport {
    let found = |number| VersionDirFound { dir: version(number).dir, files_total: 1, files_changed: 1 };
    ScanReport { versions: (0..versions).map(found).collect(), ..ScanReport::default() }
}

#[test]
fn a_large_first_scan_settles_in_turns_and_leaves_nothing_out() {
    let (mut versions, templates) = (Versions::new(SettleConfig::default()), templates());
    versions.scanned(&report(1000), &templates, 0, NOW);
    let (mut now_ms, mut settled) = (0, BTreeSet::new());
    for _ in 0..10 {
        while let Some(look) = versions.take_look(now_ms) {
            let looked = see(look, now_ms, 1);
            settled.extend(versions.looked(looked, &templates, now_ms).map(|settled| settled.dir));
            assert!(versions.settling <= MAX_SETTLING);
        }
        now_ms += 5_000;
    }
    assert_eq!(settled.len(), 1000);
    assert_eq!((versions.settling, versions.queue.len(), versions.backlog.len()), (0, 0, 0));
}

#[test]
fn versions_that_wait_for_somebody_do_not_hold_up_the_others() {
    let (mut versions, templates) = (Versions::new(SettleConfig::default()), templates());
    versions.scanned(&report(600), &templates, 0, NOW);
    let mut looks = 0;
    while let Some(mut look) = versions.take_look(0) {
        let mut open = file(1);
        open.end_mark = EndMark::Open;
        let snapshot = DirSnapshot { files: vec![open], ..DirSnapshot::default() };
        let seen = Seen::Decided(look.settle.observe(0, &snapshot));
        let looked = Looked { dir: look.dir, settle: look.settle, asked: look.asked, seen };
        assert!(versions.looked(looked, &templates, 0).is_none());
        looks += 1;
    }
    assert_eq!((looks, versions.pending().len()), (600, 600));
}

#[test]
fn what_is_touched_while_somebody_looks_is_looked_at_again() {
    let (mut versions, templates) = (Versions::new(SettleConfig::default()), templates());
    versions.touched(version(1), 0, NOW);
    let look = versions.take_look(DEBOUNCE_MS).unwrap();
    versions.touched(version(1), 300, NOW);
    let gone = Looked { dir: look.dir, settle: look.settle, asked: look.asked, seen: Seen::Gone };
    assert!(versions.looked(gone, &templates, 400).is_none());
    assert!(versions.take_look(300 + DEBOUNCE_MS).is_some());
}

/// A version that was handed over, and the catalog does not know it yet.
fn handed_over(templates: &TemplateSet) -> Versions {
    let mut versions = Versions::new(SettleConfig::default());
    versions.touched(version(1), 0, NOW);
    let look = versions.take_look(DEBOUNCE_MS).unwrap();
    assert!(versions.looked(see(look, 250, 1), templates, 250).is_none());
    let look = versions.take_look(5_250).unwrap();
    assert!(versions.looked(see(look, 5_250, 1), templates, 5_250).is_some());
    versions
}

/// Puts the very files back and returns whether they are handed over.
fn is_noticed(versions: &mut Versions, templates: &TemplateSet, now_ms: u64) -> bool {
    versions.touched(version(1), now_ms, NOW);
    let Some(look) = versions.take_look(now_ms + DEBOUNCE_MS) else { return false };
    assert!(versions.looked(see(look, now_ms + 250, 1), templates, now_ms + 250).is_none());
    let Some(look) = versions.take_look(now_ms + 5_250) else { return false };
    versions.looked(see(look, now_ms + 5_250, 1), templates, now_ms + 5_250).is_some()
}

fn gone(look: Look) -> Looked {
    Looked { dir: look.dir, settle: look.settle, asked: look.asked, seen: Seen::Gone }
}

#[test]
fn what_was_seen_gone_while_it_was_touched_is_handed_over_when_it_is_back() {
    let templates = templates();
    let mut versions = handed_over(&templates);
    versions.touched(version(1), 6_000, NOW);
    let look = versions.take_look(6_250).unwrap();
    versions.touched(version(1), 6_260, NOW);
    assert!(versions.looked(gone(look), &templates, 6_270).is_none());
    assert!(is_noticed(&mut versions, &templates, 10_000));
}

#[test]
fn what_a_scan_does_not_find_is_handed_over_when_it_is_back() {
    let templates = templates();
    let mut versions = handed_over(&templates);
    versions.scanned(&report(0), &templates, 6_000, NOW);
    let look = versions.take_look(6_000).expect("a look at what the scan did not find");
    assert!(versions.looked(gone(look), &templates, 6_000).is_none());
    assert!(is_noticed(&mut versions, &templates, 10_000));
}

#[test]
fn what_is_touched_while_the_last_look_runs_is_not_whole_yet() {
    let (mut versions, templates) = (Versions::new(SettleConfig::default()), templates());
    versions.touched(version(1), 0, NOW);
    let look = versions.take_look(DEBOUNCE_MS).unwrap();
    assert!(versions.looked(see(look, 250, 1), &templates, 250).is_none());
    let look = versions.take_look(5_250).unwrap();
    versions.touched(version(1), 5_260, NOW);
    assert!(versions.looked(see(look, 5_250, 1), &templates, 5_270).is_none());
    let look = versions.take_look(10_260).unwrap();
    assert!(versions.looked(see(look, 10_260, 1), &templates, 10_260).is_some());
}

#[test]
fn who_asks_while_somebody_looks_is_answered_by_the_next_look() {
    let (mut versions, templates) = (Versions::new(SettleConfig::default()), templates());
    versions.touched(version(1), 0, NOW);
    let look = versions.take_look(DEBOUNCE_MS).unwrap();
    let (reply, mut answered) = oneshot::channel();
    versions.asked(version(1), PublishDetails::default(), reply, (300, NOW));
    assert!(versions.looked(see(look, 300, 1), &templates, 300).is_none());
    assert!(answered.try_recv().is_err());
    let look = versions.take_look(300).unwrap();
    let settled = versions.looked(see(look, 300, 1), &templates, 300).unwrap();
    assert_eq!((settled.completeness, settled.replies.len()), (Completeness::Explicit, 1));
}

#[test]
fn a_burst_of_events_is_one_look() {
    let mut versions = Versions::new(SettleConfig::default());
    for now_ms in 0..100 {
        versions.touched(version(1), now_ms, NOW);
    }
    assert_eq!(versions.next_look_ms(), Some(DEBOUNCE_MS));
    assert!(versions.take_look(DEBOUNCE_MS - 1).is_none());
    assert!(versions.take_look(DEBOUNCE_MS).is_some());
    assert!(versions.take_look(DEBOUNCE_MS * 100).is_none());
}
