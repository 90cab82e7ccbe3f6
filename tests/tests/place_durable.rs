//! What is durable before the files of a version move into a directory that is there, as the kernel sees it: a test runs itself under
//! `strace`.

use std::{
    env,
    fs::{self, File},
    io::Write as _,
    process::{Command, Stdio},
    sync::Arc,
};

use avalon_protocol::{
    hash::ObjectHash,
    id::{VersionId, VersionSlot},
    manifest::Manifest,
};
use avalon_store::{
    fs::Dir,
    object::incoming::Incoming,
    place::{PlaceOptions, place},
};
use avalon_tests::content::{Publish, block_list, draft, path};

/// Says to the process that is traced what it is to do.
const WHEN: &str = "AVALON_TEST_SAVED";
const FILES: [(&str, &[u8]); 3] = [("main.abc", b"main"), ("exr/f.1", b"one"), ("exr/f.2", b"two")];

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

fn manifest() -> Manifest {
    let version = VersionId {
        project: "lantern".parse().unwrap(),
        asset: "robot".parse().unwrap(),
        subset: "model".parse().unwrap(),
        slot: VersionSlot::Number(1),
    };
    let publish = Publish { version, predecessor: None, author: "anna".into(), published_at_ms: 1 };
    let files = FILES.iter().map(|(name, data)| (path(name), data.len() as u64, ObjectHash::of(data)));
    draft(publish, files).finish().unwrap()
}

/// Receives a version and places it, while somebody saves the same entry, or all of the same, into its directory.
fn receive_into_what_is_saved(when: Saved) {
    let (temp, manifest) = (tempfile::tempdir().unwrap(), Arc::new(manifest()));
    let project = Dir::open(temp.path()).unwrap();
    let save = |now: Saved| {
        let count = if when == Saved::AllOfItWhenItWasWhole { FILES.len() } else { 1 };
        for (name, data) in FILES.iter().take(count).filter(|_| now == when) {
            let path = temp.path().join(manifest.dir().as_str()).join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            File::create(path).unwrap().write_all(data).unwrap();
        }
    };
    save(Saved::BeforeItCame);
    let incoming = Incoming::open(&project, Arc::clone(&manifest)).unwrap();
    save(Saved::OnItsWay);
    for need in incoming.needs() {
        let (_, data) = FILES.iter().find(|(_, data)| ObjectHash::of(data) == need.object).unwrap();
        if need.blocks.is_none() {
            incoming.set_blocks(block_list(data)).unwrap();
        }
        incoming.write_block(&need.object, 0, data).unwrap();
    }
    let version = incoming.finish().unwrap();
    save(Saved::WhenItWasWhole);
    save(Saved::AllOfItWhenItWasWhole);
    let placement = place(version, &PlaceOptions::default()).unwrap();
    assert_eq!(placement.files().len(), FILES.len());
    assert!(Incoming::list(&project).unwrap().is_empty());
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
    let (temp, dir) = (tempfile::tempdir().unwrap(), manifest().dir().clone());
    for (number, when) in ALL.into_iter().enumerate() {
        let out = temp.path().join("calls");
        let traced = Command::new("strace")
            .args(["--follow-forks", "--decode-fds=path", "--trace=fsync,syncfs,renameat2", "--output"])
            .arg(&out)
            .arg(env::current_exe().unwrap())
            .args(["--exact", std::thread::current().name().unwrap()])
            .env(WHEN, number.to_string())
            .output()
            .unwrap();
        assert!(traced.status.success(), "{when:?}: {}", String::from_utf8_lossy(&traced.stdout));
        let calls = fs::read_to_string(&out).unwrap();
        let calls: Vec<&str> = calls.lines().collect();
        let of_main = |call: &str| call.contains("sync(") && call.contains(&format!("{dir}/main.abc>"));
        let synced = calls.iter().position(|call| of_main(call));
        let synced = synced.unwrap_or_else(|| panic!("{when:?}: main.abc was not synced: {calls:#?}"));
        let into_it = |call: &&&str| call.contains("renameat2(") && call.contains(dir.as_str());
        let moved = calls.iter().filter(into_it).count();
        assert_eq!(moved, if when == Saved::AllOfItWhenItWasWhole { 0 } else { 2 }, "{when:?}: {calls:#?}");
        let early = calls[..synced].iter().find(into_it);
        assert_eq!(early, None, "{when:?}: moved before main.abc was synced: {calls:#?}");
    }
}
