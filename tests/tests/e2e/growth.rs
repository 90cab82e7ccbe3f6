//! Versions that are made over a long time: what flows meanwhile, and what does not.

use std::{fs, path::Path};

use avalon_protocol::exit_code::ExitCode;
use avalon_tests::daemons::{PATIENCE, daemon::Daemon, tree};

use crate::support::{BEAUTY, BEAUTY_V1, LONDON, MODEL, MONTREAL, model, studio};

const FRAMES: u32 = 100;
const REPRESENTATION: &str = "beauty.exr";

fn frame(daemon: &Daemon, number: u32) -> std::path::PathBuf {
    daemon.path(&format!("{BEAUTY}/v001/{REPRESENTATION}/beauty.{:04}.exr", 1000 + number))
}

/// Writes a frame as renderers do: beside its name first.
fn render(daemon: &Daemon, number: u32) {
    let path = frame(daemon, number);
    let beside = path.with_extension("exr.tmp");
    tree::write(&beside, &tree::noise(u64::from(number), 2000));
    fs::rename(beside, path).unwrap();
}

/// Counts the frames that are there, and checks that they are the first ones and whole.
fn frames_at(daemon: &Daemon, from: &Daemon) -> u32 {
    let there = (1..=FRAMES).take_while(|number| frame(daemon, *number).exists()).count();
    let there = u32::try_from(there).unwrap();
    for number in 1..=there {
        assert_eq!(
            fs::read(frame(daemon, number)).unwrap(),
            fs::read(frame(from, number)).unwrap(),
            "{number}"
        );
    }
    there
}

fn growing(daemon: &Daemon) -> Vec<String> {
    daemon.api().info(BEAUTY_V1).map(|info| info.growing).unwrap_or_default()
}

#[test]
fn frames_of_a_render_flow_as_they_come_while_the_lock_is_there_and_the_last_generation_is_complete() {
    let studio = studio();
    let mut london = studio.mirror(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    let lock = london.path(&format!("{BEAUTY}/v001/.publish.lock"));
    tree::write(&lock, b"farm");
    let mut events = london.events();
    let mut seen = 0;
    // The renderer waits for nobody; here it waits now and then, so that the test sees more than the end.
    for number in 1..=FRAMES {
        render(&london, number);
        if number % 25 == 0 {
            montreal.until(&format!("{number} frames are here"), |_| {
                (frames_at(&montreal, &london) == number).then_some(())
            });
            assert_eq!(growing(&montreal), ["exr"], "at {number}");
            seen += 1;
        }
    }
    let listed = montreal.ctl(&["ls", "--all", "sh010"]).expect(ExitCode::Ok);
    assert!(listed.stdout.contains("exr still growing"), "{listed:?}");
    assert!(montreal.ctl(&["info", BEAUTY_V1]).stdout.contains("exr growing"));
    // That nobody is at work any more is noticed, also by a daemon that was not there when the lock went.
    london.terminate();
    fs::remove_file(&lock).unwrap();
    london.start();
    for daemon in [&london, &montreal] {
        daemon.until("it does not grow any more", |api| {
            api.info(BEAUTY_V1)
                .ok()
                .filter(|info| info.growing.is_empty() && info.files.len() == FRAMES as usize)
        });
        daemon.until_complete_at(BEAUTY_V1, MONTREAL);
    }
    let generation = montreal.api().locate_one(BEAUTY_V1).unwrap().generation;
    assert!(generation > seen && generation <= FRAMES, "{generation} generations");
    events.drain();
    assert_eq!(frames_at(&montreal, &london), FRAMES);
    let jobs = montreal.api().jobs();
    let received: u64 = jobs.iter().map(|job| job.bytes_received).sum();
    assert!(received < 2 * u64::from(FRAMES) * 2000, "each frame came once: {received}");
}

#[test]
fn a_publish_in_slow_motion_is_seen_nowhere_before_its_end() {
    let studio = studio();
    let london = studio.mirror(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    let dir = london.path(&format!("{MODEL}/v001"));
    // The version's document, a pause in which the quiet time passes, then files one after the other under a lock.
    tree::write(&dir.join(".publish.lock"), b"anna");
    tree::write(&dir.join("version.json"), b"{}");
    let waits = |what: &str| {
        london.until(what, |api| {
            let pending = api.status().projects.into_iter().flat_map(|project| project.pending);
            let mut of_it = pending.filter(|pending| pending.dir.ends_with("v001"));
            of_it.find(|pending| {
                // It waits for the lock alone: the quiet time has passed.
                pending.why.iter().all(|why| why.starts_with("locked by"))
            })
        });
        assert!(
            montreal.api().list().versions.is_empty() && london.api().list().versions.is_empty(),
            "{what}"
        );
        assert!(!montreal.path(&format!("{MODEL}/v001")).exists(), "{what}");
    };
    waits("only the document is there");
    let files = ["textures/a.png", "modelDefault.mtl", "modelDefault.abc"];
    for file in files {
        tree::write(&dir.join(file), file.as_bytes());
        waits(file);
    }
    tree::write(&dir.join("modelDefault.json"), b"{\"representation\": \"abc\"}");
    fs::remove_file(dir.join(".publish.lock")).unwrap();
    montreal.until_complete_at(&model(1), MONTREAL);
    let there = |file: &&str| Path::exists(&montreal.path(&format!("{MODEL}/v001/{file}")));
    assert!(files.iter().all(there));
    assert_eq!(montreal.api().locate_one(&model(1)).unwrap().generation, 1, "in one generation");
}

/// Reads as a loader does, again and again until it is told to stop: the entry first, then what belongs to it. Returns how
/// often it read, and each pair that it should never see.
fn load_again_and_again(dir: &Path, stop: &std::sync::atomic::AtomicBool) -> (u64, Vec<String>) {
    let (mut times, mut wrong, started) = (0, Vec::new(), std::time::Instant::now());
    // A test that fails does not wait for ever.
    while !stop.load(std::sync::atomic::Ordering::Acquire) && started.elapsed() < 2 * PATIENCE {
        let entry = fs::read_to_string(dir.join("modelDefault.abc"));
        let texture = fs::read_to_string(dir.join("textures/a.png"));
        match (&entry, &texture) {
            // The entry is never missing, never half of one, and what it needs is there and not older than itself.
            (Ok(entry), Ok(texture)) if entry.len() == 4 && texture.len() == 4 && entry <= texture => {}
            _ => wrong.push(format!("{entry:?} with {texture:?}")),
        }
        times += 1;
    }
    (times, wrong)
}

#[test]
fn a_hero_that_is_swapped_is_never_missing_or_torn_where_it_is_loaded() {
    let studio = studio();
    let london = studio.mirror(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    let (hero, name) = (format!("{MODEL}/hero"), "lantern:robot/modelDefault@hero");
    let write = |number: u32| {
        for file in ["textures/a.png", "modelDefault.abc"] {
            tree::write(&london.path(&hero).join(file), format!("{number:04}").as_bytes());
        }
    };
    let swap = |number: u32| {
        let backup = london.path(&format!("{MODEL}/hero.BACKUP"));
        fs::rename(london.path(&hero), &backup).unwrap();
        write(number);
        fs::remove_dir_all(&backup).unwrap();
    };
    let shown = |number: u32| {
        montreal.until(&format!("hero {number} is here"), |_| {
            let entry = fs::read_to_string(montreal.path(&hero).join("modelDefault.abc"));
            (entry.ok()? == format!("{number:04}")).then_some(())
        });
    };
    write(1);
    shown(1);
    let stop = std::sync::atomic::AtomicBool::new(false);
    let dir = montreal.path(&hero);
    let (times, wrong) = std::thread::scope(|scope| {
        let loader = scope.spawn(|| load_again_and_again(&dir, &stop));
        for number in 2..=5 {
            swap(number);
            shown(number);
        }
        stop.store(true, std::sync::atomic::Ordering::Release);
        loader.join().unwrap()
    });
    assert!(wrong.is_empty() && times > 100, "{times} times: {wrong:?}");
    montreal.until_complete_at(name, MONTREAL);
}
