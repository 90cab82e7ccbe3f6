//! What a disk does to files that are held: it is found, told, neither served nor counted, and repaired from another site.

use std::{
    fs,
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::Path,
};

use avalon_protocol::{
    control::{HoldingState, ScrubState},
    exit_code::ExitCode,
    id::{ProjectName, VersionId, VersionSlot},
    mode::ProjectMode,
    rel_path::RelPath,
};
use avalon_store::{
    catalog::{LocalChange, LocalFile},
    fs::Dir,
};
use avalon_tests::daemons::{Studio, daemon::Daemon, tree};
use walkdir::WalkDir;

use crate::support::{HOME, LONDON, MODEL, MONTREAL, model, open_ledger, publish_model, studio};

const BYTES: usize = 3 << 20;

/// Changes one byte of a file and puts its time back, as some programs do.
fn flip(path: &Path, at: u64) {
    let mut file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mtime = file.metadata().unwrap().modified().unwrap();
    let mut byte = [0];
    file.seek(SeekFrom::Start(at)).unwrap();
    file.read_exact(&mut byte).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(&[byte[0] ^ 0x20]).unwrap();
    file.set_modified(mtime).unwrap();
}

/// Changes one byte of a file of a daemon that is stopped, as a disk does: whoever looks sees the file that the catalog knows. What
/// writes to a file changes its ctime, so here the catalog is told the one that it has now.
fn rot(daemon: &Daemon, inside: &str, at: u64) {
    flip(&daemon.path(inside), at);
    let (project, path): (ProjectName, RelPath) = ("lantern".parse().unwrap(), inside.parse().unwrap());
    let now = Dir::open(&daemon.config.project_dir()).unwrap().stat(&path).unwrap().unwrap();
    let (_state, ledger) = open_ledger(daemon);
    let known = ledger.local_file(&project, &path).unwrap().unwrap();
    let file = LocalFile::new(known.hash, &now, known.manifest);
    ledger.update_local_wait(vec![LocalChange::Put { project, path, file }]).unwrap();
    ledger.close().unwrap();
}

/// As [`rot`] for one that runs again afterwards.
fn rots(daemon: &mut Daemon, inside: &str, at: u64) {
    assert_eq!(daemon.terminate().code(), Some(0));
    rot(daemon, inside, at);
    daemon.start();
}

fn in_trash(daemon: &Daemon) -> Vec<Vec<u8>> {
    let trash = daemon.path(".avalon/trash");
    if !trash.exists() {
        return Vec::new();
    }
    let files = WalkDir::new(trash).into_iter().map(Result::unwrap);
    let files = files.filter(|entry| entry.file_type().is_file());
    files.map(|entry| fs::read(entry.path()).unwrap()).collect()
}

/// London, which repairs nothing by itself, with a version of two files that montreal holds too.
fn two_sites(studio: &Studio, scrub: &str) -> (Daemon, Daemon) {
    let mut london = studio.node(LONDON, ProjectMode::OnDemand);
    london.config.extra = format!("[scrub]\n{scrub}\n");
    london.start();
    let montreal = studio.mirror(MONTREAL, &[&london]);
    let small = london.path(&format!("{MODEL}/v001/modelDefault.abc"));
    tree::write(&small, &tree::noise(7, BYTES));
    publish_model(&london, 1, &tree::noise(1, BYTES));
    london.until_complete_at(&model(1), MONTREAL);
    (london, montreal)
}

fn verified(daemon: &Daemon, reference: &str) -> Option<String> {
    let item = daemon.api().locate_one(reference).unwrap();
    item.nodes.into_iter().find(|node| node.site == daemon.api().status().site)?.verified
}

#[test]
fn rot_is_found_told_and_repaired_from_another_site_by_one_command() {
    let studio = studio();
    let (mut london, montreal) = two_sites(&studio, "repair = false");
    let said = london.ctl(&["verify", &model(1), "--json"]).good();
    assert_eq!((&said["versions_done"], said["bytes_done"].as_u64()), (&1.into(), Some(2 * BYTES as u64)));
    let first = verified(&london, &model(1)).expect("it was verified");
    london.restart();
    assert_eq!(verified(&london, &model(1)), Some(first), "a restart forgets nothing");

    let inside = format!("{MODEL}/v001/modelDefault.usdc");
    let file = london.path(&inside);
    rots(&mut london, &inside, 2 << 20);
    london.until_connected(MONTREAL);
    let said = london.ctl(&["verify", "lantern", "--json"]).expect(ExitCode::Integrity).json();
    assert_eq!(said["damaged"].as_array().unwrap().len(), 1, "{said}");
    assert_eq!(
        (&said["damaged"][0]["damage"], &said["damaged"][0]["repair"]),
        (&"rot".into(), &"none".into())
    );
    assert!(london.api().has_health("damaged"));
    montreal.until("nobody counts on london", |api| {
        let item = api.locate_one(&model(1))?;
        let london = item.nodes.iter().find(|node| node.site == "london")?;
        (london.state != HoldingState::Complete).then_some(())
    });
    let damaged = fs::read(&file).unwrap();
    assert!(damaged != tree::noise(1, BYTES) && in_trash(&london).is_empty(), "it was only told");
    // Somebody who wants it gets it from where it is good.
    let home = studio.on_demand(HOME, &[&london, &montreal]);
    home.until_connected(LONDON);
    home.until_connected(MONTREAL);
    home.until_complete_at(&model(1), MONTREAL);
    home.ctl(&["pull", &model(1)]).expect(ExitCode::Ok);
    tree::assert_equal(&montreal.path(""), &home.path(""));

    let said = london.ctl(&["verify", &model(1), "--repair", "--json"]).good();
    assert_eq!(said["damaged"][0]["repair"], "repaired", "{said}");
    london.until_complete_at(&model(1), LONDON);
    tree::assert_equal(&montreal.path(""), &london.path(""));
    assert_eq!(in_trash(&london), [damaged], "what rotted is kept");
    assert!(!london.api().has_health("damaged"), "{:?}", london.api().status().health);
    let job = london.api().job_of(&model(1));
    assert!(
        job.bytes_received <= BYTES as u64 + (BYTES as u64 >> 3),
        "the good file did not come again: {job:?}"
    );
    let said = london.ctl(&["verify"]);
    assert_eq!((said.code, said.stdout.as_str()), (0, ""), "{said:?}");
}

#[test]
fn without_another_copy_the_file_stays_and_so_does_what_is_told_until_it_is_put_back() {
    let studio = studio();
    let mut london = studio.on_demand(LONDON, &[]);
    let dir = publish_model(&london, 1, &tree::noise(1, BYTES));
    let file = dir.join("modelDefault.usdc");
    rots(&mut london, &format!("{MODEL}/v001/modelDefault.usdc"), 12_345);
    let damaged = fs::read(&file).unwrap();
    for _ in 0..2 {
        let said = london.ctl(&["verify", "--repair", "--json"]).expect(ExitCode::Integrity).json();
        assert_eq!(said["damaged"][0]["repair"], "no-copy", "{said}");
        let health = london.api().status().health;
        let item = health.iter().find(|item| item.code == "damaged").unwrap_or_else(|| panic!("{health:?}"));
        assert!(item.hint.as_ref().unwrap().contains("no other node is known to have it"), "{item:?}");
        assert_eq!(fs::read(&file).unwrap(), damaged);
        assert!(in_trash(&london).is_empty());
        // It is told again after a restart, and never becomes a publish of its own.
        london.restart();
        london.until("it is told again", |api| api.has_health("damaged").then_some(()));
    }
    assert_eq!(london.api().locate_one(&model(1)).unwrap().generation, 1);
    // Somebody puts it right.
    flip(&file, 12_345);
    london.ctl(&["verify"]).expect(ExitCode::Ok);
    london.until_complete_at(&model(1), LONDON);
    london.until("it is well again", |api| (!api.has_health("damaged")).then_some(()));
}

#[test]
fn a_hero_that_rots_is_no_new_generation() {
    let studio = studio();
    let mut london = studio.on_demand(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    let (name, mut events) = ("lantern:robot/modelDefault@hero", london.events());
    let inside = format!("{MODEL}/hero/modelDefault.usdc");
    let file = london.path(&inside);
    tree::write(&file, &tree::noise(3, BYTES));
    assert_eq!(events.published(name), 1);
    london.until_complete_at(name, MONTREAL);
    rots(&mut london, &inside, 99);
    london.ctl(&["verify"]).expect(ExitCode::Integrity);
    // The next start reads what the catalog does not know any more.
    london.restart();
    london.until("it is told again", |api| api.has_health("damaged").then_some(()));
    london.until_connected(MONTREAL);
    let said = london.ctl(&["verify", "--repair", "--json"]).good();
    assert_eq!(said["damaged"][0]["repair"], "repaired", "{said}");
    assert_eq!(in_trash(&london).len(), 1);
    london.until_complete_at(name, LONDON);
    assert_eq!(fs::read(&file).unwrap(), tree::noise(3, BYTES));
    assert_eq!(london.api().locate_one(name).unwrap().generation, 1, "what rotted went nowhere");
    tree::assert_equal(&london.path(""), &montreal.path(""));
}

#[test]
fn what_rots_together_with_the_catalog_and_the_manifests_or_the_own_feed_is_nobodys_work() {
    for lost in ["manifests", "feeds/lantern/srv@london"] {
        let studio = studio();
        let mut london = studio.on_demand(LONDON, &[]);
        let montreal = studio.mirror(MONTREAL, &[&london]);
        let (hero, mut events) = ("lantern:robot/modelDefault@hero", london.events());
        let rotten = [format!("{MODEL}/hero/modelDefault.usdc"), format!("{MODEL}/v001/modelDefault.usdc")];
        tree::write(&london.path(&rotten[0]), &tree::noise(3, BYTES));
        assert_eq!(events.published(hero), 1);
        publish_model(&london, 1, &tree::noise(1, BYTES));
        for reference in [hero, &model(1)] {
            london.until_complete_at(reference, MONTREAL);
        }
        london.config.peers = vec![montreal.listen()];
        assert_eq!(london.terminate().code(), Some(0));
        rotten.iter().for_each(|inside| flip(&london.path(inside), 99));
        fs::remove_dir_all(london.config.state_dir.join("catalog")).unwrap();
        let files = WalkDir::new(london.config.state_dir.join(lost)).into_iter().map(Result::unwrap);
        for file in files.filter(|entry| entry.file_type().is_file()) {
            flip(file.path(), file.metadata().unwrap().len() / 2);
        }
        london.start();
        london.until_connected(MONTREAL);
        // By itself, where the files are read to be recorded. Where the records come back, they are believed until a reading.
        let is_by_itself = lost == "manifests";
        london.until("all is good again", |_| {
            let is_read = is_by_itself || london.ctl(&["verify", "--repair"]).code == 0;
            (is_read && rotten.iter().all(|inside| !is_rotten(&london.path(inside)))).then_some(())
        });
        [hero, &model(1)].iter().for_each(|reference| london.until_complete_at(reference, LONDON));
        london.ctl(&["verify"]).expect(ExitCode::Ok);
        assert_eq!(in_trash(&london).len(), 2, "{lost}: what rotted is kept");
        for reference in [hero, &model(1)] {
            let item = montreal.api().locate_one(reference).unwrap();
            assert_eq!((item.generation, item.conflict), (1, false), "{lost}: {reference} went nowhere");
        }
        assert!(!london.log().contains("tell: published"), "{lost}: {}", london.log());
        tree::assert_equal(&london.path(""), &montreal.path(""));
    }
}

fn is_rotten(path: &Path) -> bool {
    ![1, 3].iter().any(|seed| fs::read(path).unwrap() == tree::noise(*seed, BYTES))
}

#[test]
fn what_a_program_wrote_that_keeps_the_time_of_a_file_is_a_persons_and_nothing_replaces_it() {
    let studio = studio();
    let (london, montreal) = two_sites(&studio, "interval = \"2s\"\nrate = \"1GB/s\"");
    let file = london.path(&format!("{MODEL}/v001/modelDefault.usdc"));
    flip(&file, 77);
    let written = fs::read(&file).unwrap();
    london.until("it is told", |api| api.has_health("rewritten").then_some(()));
    let said = london.ctl(&["verify", "--repair", "--json"]);
    assert!(!said.stdout.contains("\"rot\""), "{said:?}");
    assert!(!london.api().has_health("damaged") && in_trash(&london).is_empty());
    assert_eq!(fs::read(&file).unwrap(), written);
    // A hero that such a program wrote is the next state of it.
    let (name, mut events) = ("lantern:robot/modelDefault@hero", london.events());
    let hero = london.path(&format!("{MODEL}/hero/modelDefault.usdc"));
    tree::write(&hero, &tree::noise(3, BYTES));
    assert_eq!(events.published(name), 1);
    flip(&hero, 5);
    assert_eq!(events.published(name), 2);
    montreal.until("it has the second", |_| {
        fs::read(montreal.path(&format!("{MODEL}/hero/modelDefault.usdc")))
            .ok()
            .filter(|read| *read == fs::read(&hero).unwrap())
    });
}

#[test]
fn what_is_due_is_read_by_itself_and_the_times_are_shown() {
    let studio = studio();
    let (mut london, montreal) = two_sites(&studio, "interval = \"2s\"\nrate = \"1GB/s\"");
    publish_model(&london, 2, &tree::noise(2, BYTES));
    london.until_complete_at(&model(2), MONTREAL);
    london.until("both were read", |_| verified(&london, &model(1)).and(verified(&london, &model(2))));
    let scrub = london.api().status().scrub.unwrap();
    assert!(scrub.versions_verified >= 2 && scrub.bytes_verified >= 3 * BYTES as u64, "{scrub:?}");
    assert_ne!(scrub.state, ScrubState::Off);
    let table = london.ctl(&["where", &model(1)]).expect(ExitCode::Ok).stdout;
    let at = verified(&london, &model(1)).unwrap();
    let (day, _) = at.split_once('T').unwrap();
    assert!(table.lines().any(|line| line.contains("london") && line.contains(day)), "{table}");
    let first = verified(&london, &model(1)).unwrap();
    london.until("it is read again", |_| verified(&london, &model(1)).filter(|now| *now > first));
    // While nobody watches, as a disk does it: found at the start or by the next reading, and repaired without a word.
    london.terminate();
    let inside = format!("{MODEL}/v001/modelDefault.usdc");
    let file = london.path(&inside);
    rot(&london, &inside, 5);
    london.start();
    london.until_connected(MONTREAL);
    london.until("it is good again", |_| (fs::read(&file).unwrap() == tree::noise(1, BYTES)).then_some(()));
    london.until_complete_at(&model(1), LONDON);
    assert_eq!(in_trash(&london).len(), 1);
    tree::assert_equal(&montreal.path(""), &london.path(""));
}

#[test]
fn a_repair_that_was_asked_for_before_a_restart_is_begun_after_it() {
    let studio = studio();
    let (mut london, montreal) = two_sites(&studio, "repair = false");
    let inside = format!("{MODEL}/v001/modelDefault.usdc");
    rots(&mut london, &inside, 2 << 20);
    london.until_connected(MONTREAL);
    london.ctl(&["verify", &model(1)]).expect(ExitCode::Integrity);
    assert!(is_rotten(&london.path(&inside)), "nobody asked for it");
    assert_eq!(london.terminate().code(), Some(0));
    // As a daemon leaves it that was to repair it, and ended before.
    let marks = london.config.state_dir.join("damaged.json");
    let mut kept: serde_json::Value = serde_json::from_slice(&fs::read(&marks).unwrap()).unwrap();
    let version = VersionId {
        project: "lantern".parse().unwrap(),
        asset: "robot".parse().unwrap(),
        subset: "modelDefault".parse().unwrap(),
        slot: VersionSlot::Number(1),
    };
    assert_eq!(version.to_string(), model(1));
    kept["files"][0]["repair"] = serde_json::to_value(version).unwrap();
    fs::write(&marks, kept.to_string()).unwrap();
    london.config.extra = "[scrub]\nrepair = true\n".to_owned();
    london.start();
    london.until("it is put right by itself", |_| (!is_rotten(&london.path(&inside))).then_some(()));
    london.until("that is told", |api| (!api.has_health("damaged")).then_some(()));
    tree::assert_equal(&montreal.path(MODEL), &london.path(MODEL));
}

#[test]
fn rot_that_is_found_while_the_own_feed_is_held_is_recorded_and_repaired_when_the_hold_ends() {
    let studio = studio();
    let (mut london, mut montreal) = two_sites(&studio, "repair = true");
    let inside = format!("{MODEL}/v001/modelDefault.usdc");
    montreal.terminate();
    london.terminate();
    rot(&london, &inside, 2 << 20);
    // As a backup leaves it: nobody knows how far the own feed went.
    fs::remove_file(london.config.state_dir.join("witness.json")).unwrap();
    london.start();
    london.until("nothing is recorded", |api| api.has_health("feed-held").then_some(()));
    london.ctl(&["verify", &model(1)]);
    assert!(is_rotten(&london.path(&inside)) && london.api().has_health("feed-held"));
    london.until("it is told before it can be recorded", |api| api.has_health("damaged").then_some(()));
    montreal.start();
    london.until("it is put right by itself", |_| (!is_rotten(&london.path(&inside))).then_some(()));
    london.until_complete_at(&model(1), LONDON);
    assert!(london.log().contains("files are damaged on this node's disk"), "{}", london.log());
}
