//! What is durable before a publish is acknowledged, as the kernel sees it.

use std::{
    fs,
    process::{Command, Stdio},
};

use avalon_tests::daemons::{process::Process, tree};
use rustix::process::Signal;

use crate::support::{LONDON, MODEL, studio};

/// Says whether processes can be traced here; says so aloud when not.
fn may_trace() -> bool {
    let tried = Command::new("strace").arg("true").stderr(Stdio::null()).stdout(Stdio::null()).status();
    let may = tried.is_ok_and(|status| status.success());
    if !may {
        println!("SKIPPED: strace is not here or may not trace");
    }
    may
}

/// Publishes a version of `files` files with the daemon traced, and returns the calls that make things durable or write to
/// a feed, in their order.
fn calls(files: usize) -> Vec<String> {
    let studio = studio();
    let mut london = studio.on_demand(LONDON, &[]);
    let dir = london.path(&format!("{MODEL}/v001"));
    for number in 0..files {
        tree::write(&dir.join(format!("modelDefault.part{number:02}")), &[number as u8; 100]);
    }
    let out = studio.dir().join("calls");
    let mut strace = Process::start(
        Command::new("strace")
            .args([
                "--follow-forks",
                "--decode-fds=path",
                "--trace=fsync,fdatasync,syncfs,write,pwrite64,writev",
            ])
            .args(["--attach", &london.process().pid().to_string(), "--output"])
            .arg(&out),
    );
    assert!(strace.log.wait_for("attached"), "{}", strace.log.text());
    assert_eq!(london.api().publish(&dir).error, None);
    strace.signal(Signal::INT);
    strace.ended();
    let calls = fs::read_to_string(&out).unwrap();
    let is_sync = |call: &str| ["fsync(", "fdatasync(", "syncfs("].iter().any(|name| call.contains(name));
    let calls = calls.lines().filter(|call| is_sync(call) || call.contains("/feeds/"));
    calls.map(str::to_owned).collect()
}

#[track_caller]
fn place(calls: &[String], what: &str, wanted: impl Fn(&str) -> bool) -> usize {
    calls.iter().position(|call| wanted(call)).unwrap_or_else(|| panic!("no {what} in {calls:#?}"))
}

fn appends(call: &str) -> bool {
    call.contains("write") && call.contains("/feeds/")
}

#[test]
fn each_file_of_a_small_publish_is_synced_before_its_record_is_written() {
    if !may_trace() {
        return;
    }
    let calls = calls(3);
    let append = place(&calls, "record", appends);
    for number in 0..3 {
        let file = format!("modelDefault.part{number:02}>");
        let synced = place(&calls, "fsync of a file", |call| call.contains("sync(") && call.contains(&file));
        assert!(synced < append, "{file} in {calls:#?}");
    }
    let dir =
        place(&calls, "fsync of the directory", |call| call.contains("sync(") && call.contains("/v001>"));
    assert!(dir < append, "{calls:#?}");
    let durable = calls.iter().rposition(|call| call.contains("sync(") && call.contains("/feeds/"));
    assert!(durable.is_some_and(|durable| durable > append), "{calls:#?}");
}

#[test]
fn the_volume_of_a_large_publish_is_synced_before_its_record_is_written() {
    if !may_trace() {
        return;
    }
    let calls = calls(20);
    let append = place(&calls, "record", appends);
    let by_volume = calls.iter().position(|call| call.contains("syncfs("));
    // Where the kernel does not report the errors of that, the files are synced one by one.
    let by_file =
        calls.iter().rposition(|call| call.contains("fsync(") && call.contains("modelDefault.part"));
    let synced = by_volume.or(by_file);
    assert!(synced.is_some_and(|synced| synced < append), "{calls:#?}");
}
