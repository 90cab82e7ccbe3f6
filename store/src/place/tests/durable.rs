//! What is durable before files move, as the kernel sees it: a test runs itself under `strace`.

use std::{
    env, fs,
    io::Write as _,
    process::{Command, Stdio},
};

use super::{Incoming, PlaceOptions, Studio, VERSION_DIR, place};

/// Says to the process that is traced what it is to do.
const WHEN: &str = "AVALON_TEST_SAVED";

/// When somebody saves a file that is in the version that comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Saved {
    BeforeItCame,
    OnItsWay,
    WhenItWasWhole,
    AllOfItWhenItWasWhole,
}

const ALL: [Saved; 4] =
    [Saved::BeforeItCame, Saved::OnItsWay, Saved::WhenItWasWhole, Saved::AllOfItWhenItWasWhole];

/// Receives a version and places it, while somebody saves the same entry, or all of the same, into its directory.
fn receive_into_what_is_saved(when: Saved) {
    let mut studio = Studio::new();
    let files: [(&str, &[u8]); 3] = [("main.abc", b"main"), ("exr/f.1", b"one"), ("exr/f.2", b"two")];
    let manifest = studio.version(&files);
    let save = |now: Saved| {
        let count = if when == Saved::AllOfItWhenItWasWhole { files.len() } else { 1 };
        for (path, data) in files.iter().take(count).filter(|_| now == when) {
            let path = studio.path().join(VERSION_DIR).join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::File::create(path).unwrap().write_all(data).unwrap();
        }
    };
    save(Saved::BeforeItCame);
    let incoming = studio.open(&manifest);
    save(Saved::OnItsWay);
    studio.deliver(&incoming);
    let version = incoming.finish().unwrap();
    save(Saved::WhenItWasWhole);
    save(Saved::AllOfItWhenItWasWhole);
    let placement = place(version, &PlaceOptions::default()).unwrap();
    assert_eq!(placement.files().len(), files.len());
    assert!(Incoming::list(&studio.project).unwrap().is_empty());
}

#[test]
fn what_somebody_saved_meanwhile_is_durable_before_anything_comes_beside_it() {
    if let Ok(when) = env::var(WHEN) {
        return receive_into_what_is_saved(ALL[when.parse::<usize>().unwrap()]);
    }
    let tried = Command::new("strace").arg("true").stderr(Stdio::null()).stdout(Stdio::null()).status();
    if !tried.is_ok_and(|status| status.success()) {
        ALL.into_iter().for_each(receive_into_what_is_saved);
        println!("SKIPPED: strace is not here or may not trace");
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    for (number, when) in ALL.into_iter().enumerate() {
        let out = temp.path().join("calls");
        let traced = Command::new("strace")
            .args(["--follow-forks", "--decode-fds=path", "--trace=fsync,syncfs,renameat2,unlinkat"])
            .arg("--output")
            .arg(&out)
            .arg(env::current_exe().unwrap())
            .args(["--exact", std::thread::current().name().unwrap()])
            .env(WHEN, number.to_string())
            .output()
            .unwrap();
        assert!(traced.status.success(), "{when:?}: {}", String::from_utf8_lossy(&traced.stdout));
        let calls = fs::read_to_string(&out).unwrap();
        let calls: Vec<&str> = calls.lines().collect();
        let of_version = |call: &&str| call.contains(&format!("{VERSION_DIR}/main.abc>"));
        let synced = calls.iter().position(|call| call.contains("sync(") && of_version(call));
        let synced = synced.unwrap_or_else(|| panic!("{when:?}: main.abc was not synced: {calls:#?}"));
        let into_it = |call: &&&str| call.contains("renameat2(") && call.contains(VERSION_DIR);
        let moved = calls.iter().filter(into_it).count();
        assert_eq!(moved, if when == Saved::AllOfItWhenItWasWhole { 0 } else { 2 }, "{when:?}: {calls:#?}");
        let early = calls[..synced].iter().find(into_it);
        assert_eq!(early, None, "{when:?}: moved before main.abc was synced: {calls:#?}");
    }
}
