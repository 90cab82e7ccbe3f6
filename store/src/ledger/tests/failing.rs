//! An engine that hangs, whose fsync fails, or that lost rows: given up, built anew, and nothing is lost.

use std::sync::{Mutex, atomic::AtomicBool, mpsc::channel};

use super::{
    damage::filled,
    engine::{Farewell, Gate, PATIENT, StopOnDrop, told},
    *,
};
use crate::catalog::{Cause, Fsync, Opened, Opener, open_syncing, tamper};

/// The first generation is given up at once, the next ones never.
const HASTY: fn(u64) -> Duration =
    |number| if number == 1 { Duration::from_millis(1) } else { Duration::from_hours(1) };

#[test]
fn an_engine_that_hangs_is_given_up_and_the_next_generation_is_built() {
    let (world, local) = filled();
    let (release, gate) = Gate::new();
    let (gone, closed) = channel();
    let (opened, is_open) = channel();
    let is_open = Mutex::new(is_open);
    let engine = |real: Opener| -> Opener {
        Arc::new(move |directory, number| {
            let result = real(directory, number)?;
            if number > 1 {
                return Ok(result);
            }
            opened.send(()).unwrap();
            gate.wait();
            let mut hooked = engine::Hooked::new(result.store);
            hooked.gone = Some(Farewell(gone.clone()));
            Ok(Opened { store: Arc::new(hooked), ..result })
        })
    };
    // It is given up once it has the generation open and locked.
    let deadline = move |number| {
        if number == 1 {
            told(&is_open.lock().unwrap());
        }
        HASTY(number)
    };
    let node = world.try_open_by(deadline, engine).unwrap();
    assert_eq!(node.report.rebuilt, Some(Cause::Timeout { seconds: 0 }));
    assert_eq!(node.report.replayed_records, 6 + 61);
    node.check_rows(&node.expected_rows(&local));
    let names = world.catalog_names();
    assert!(names.len() == 3 && names[1].starts_with("bad-gen-1-") && names[2] == "gen-2", "{names:?}");

    // Its generation goes away all the same.
    node.ledger.rebuild(Box::new(|_| {})).unwrap();
    let names = world.catalog_names();
    assert!(names.len() == 3 && names[1].starts_with("bad-gen-2-") && names[2] == "gen-3", "{names:?}");
    drop(release);
    // What came too late is closed.
    told(&closed);
    assert_eq!((world.catalog_names(), &*world.current()), (names, "3\n"));
    node.check_rows(&node.expected_rows(&local));
    world.publish(&node.ledger, 6);
    assert!(node.ledger.verify().catalog.is_none());
}

#[test]
fn an_engine_that_begins_to_open_after_its_deadline_makes_nothing() {
    let (world, local) = filled();
    let (release, gate) = Gate::new();
    let (tell, late) = channel();
    let engine = |real: Opener| -> Opener {
        Arc::new(move |directory, number| {
            if number > 1 {
                return real(directory, number);
            }
            gate.wait();
            let result = real(directory, number);
            tell.send(result.as_ref().map(drop).map_err(Cause::clone)).unwrap();
            result
        })
    };
    let node = world.try_open_by(HASTY, engine).unwrap();
    assert_eq!(node.report.rebuilt, Some(Cause::Timeout { seconds: 0 }));
    let names = world.catalog_names();
    drop(release);
    assert_eq!(told(&late), Err(Cause::Absent));
    assert_eq!(world.catalog_names(), names);
    node.check_rows(&node.expected_rows(&local));
}

/// Puts an fsync that fails while `broken` under generations from `first` to `last`; counts its failures.
fn failing_fsync(
    generations: std::ops::RangeInclusive<u64>,
    broken: &Arc<AtomicBool>,
    failures: &Arc<AtomicU64>,
) -> impl FnOnce(Opener) -> Opener {
    let (broken, failures) = (Arc::clone(broken), Arc::clone(failures));
    move |real| {
        Arc::new(move |directory, number| {
            if !generations.contains(&number) {
                return real(directory, number);
            }
            let (broken, failures) = (Arc::clone(&broken), Arc::clone(&failures));
            let fsync = |real: Fsync| -> Fsync {
                Box::new(move || {
                    if broken.load(Ordering::Relaxed) {
                        failures.fetch_add(1, Ordering::Relaxed);
                        return Err(rustix::io::Errno::IO.into());
                    }
                    real()
                })
            };
            open_syncing(directory, number, fsync)
        })
    }
}

fn is_fsync(error: &CatalogError, of: u64) -> bool {
    matches!(error, CatalogError::Damaged { generation, cause: Cause::Fsync { text } }
        if *generation == of && text.contains("os error 5"))
}

#[test]
fn a_failed_fsync_of_the_catalog_costs_a_rebuild_and_nothing_that_was_acknowledged() {
    let (world, _) = filled();
    let (broken, failures) = (Arc::default(), Arc::default());
    let node = world.try_open_by(PATIENT, failing_fsync(1..=1, &broken, &failures)).unwrap();
    world.publish(&node.ledger, 6);
    node.ledger.sync().unwrap();
    broken.store(true, Ordering::Relaxed);
    world.publish(&node.ledger, 7);
    let error = node.ledger.sync().unwrap_err();
    assert!(matches!(&error, LedgerError::Catalog { source } if is_fsync(source, 1)), "{error:?}");
    node.until_rebuilt(1);
    world.publish(&node.ledger, 8);
    node.ledger.sync().unwrap();
    assert_eq!(failures.load(Ordering::Relaxed), 1, "it is not tried again");
    let stats = node.ledger.stats();
    assert_eq!((stats.generation, stats.local_files, &*world.current()), (2, 16, "2\n"));
    assert!(node.ledger.verify().catalog.is_none());
    let rows = node.rows();
    drop(node);
    let node = world.open();
    assert_eq!((&node.report.rebuilt, node.report.replayed_records), (&None, 0));
    node.check_rows(&rows);
}

#[test]
fn a_generation_whose_fsync_fails_while_it_is_built_never_counts() {
    let (world, local) = filled();
    let (broken, failures) = (Arc::new(AtomicBool::new(true)), Arc::default());
    let node = world.try_open_by(PATIENT, failing_fsync(2..=9, &broken, &failures)).unwrap();
    for tries in 1..=3 {
        let error = node.ledger.rebuild(Box::new(|_| {})).unwrap_err();
        let LedgerError::Rebuild { source: RebuildError::Catalog { source } } = &error else {
            panic!("{error:?}")
        };
        assert!(is_fsync(source, 2), "{error:?}");
        assert_eq!((&*world.current(), failures.load(Ordering::Relaxed)), ("1\n", tries));
        assert_eq!(world.catalog_names(), ["CURRENT", "gen-1"], "nothing of it is left");
    }
    node.check_rows(&node.expected_rows(&local));
    broken.store(false, Ordering::Relaxed);
    node.ledger.rebuild(Box::new(|_| {})).unwrap();
    assert_eq!(node.ledger.stats().generation, 2);
    node.check_rows(&node.expected_rows(&local));
}

/// As [`filled`], with a catalog that is too large to be verified at the open.
fn large() -> (World, Vec<LocalChange>) {
    let (world, local) = filled();
    (World { care: CatalogCare { verify_at_open_rows: 3, ..world.care }, ..world }, local)
}

fn check_found_in_the_background(tampering: impl FnOnce(&::sled::Db), expected: &Cause, readers: usize) {
    let (world, local) = large();
    tamper(&world.state_path().join("catalog/gen-1"), tampering);
    let (release, gate) = Gate::new();
    let node = world.open_hooked(move |store| {
        if store.inner.generation() == 1 {
            let gate = Arc::clone(&gate);
            store.verify = Box::new(move || gate.wait());
        }
    });
    assert_eq!((node.ledger.stats().generation, &node.report.rebuilt), (1, &None), "it opens at once");
    let (stop, ledger) = (AtomicBool::new(false), node.ledger.clone());
    let path = "robot/v005/a.abc".parse().unwrap();
    let file = ledger.local_file(&project(), &path).unwrap();
    assert!(file.is_some());
    let read = || {
        while !stop.load(Ordering::Relaxed) {
            match ledger.local_file(&project(), &path) {
                Ok(found) => assert_eq!(found, file),
                Err(CatalogError::Damaged { generation, cause }) => {
                    assert_eq!((generation, &cause), (1, expected));
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    };
    thread::scope(|scope| {
        let reading: Vec<_> = (0..readers).map(|_| scope.spawn(read)).collect();
        let stopping = StopOnDrop(&stop);
        drop(release);
        node.until_rebuilt(1);
        world.publish(&node.ledger, 6);
        drop(stopping);
        reading.into_iter().for_each(|reader| reader.join().unwrap());
    });
    let local: Vec<LocalChange> = local.into_iter().chain(local_of(&world, 6)).collect();
    node.check_rows(&node.expected_rows(&local));
    assert!(world.catalog_names().iter().any(|name| name.starts_with("bad-gen-1-")), "for diagnosis");
}

fn local_of(world: &World, number: u32) -> Vec<LocalChange> {
    let text = format!("content of {number}");
    let contents = [("a.abc", text.as_bytes()), ("b.abc", &b"shared"[..])];
    world.local_changes(&toy::manifest(number, &contents))
}

fn first_key(db: &::sled::Db, table: Table) -> ::sled::IVec {
    db.scan_prefix([table.tag()]).keys().next().unwrap().unwrap()
}

#[test]
fn a_row_that_a_large_catalog_lost_is_found_in_the_background_and_comes_back() {
    check_found_in_the_background(
        |db| drop(db.remove(first_key(db, Table::LocalFiles)).unwrap()),
        &Cause::Rows { table: Table::LocalFiles },
        0,
    );
}

#[test]
fn a_row_of_a_large_catalog_that_was_altered_is_found_in_the_background_and_comes_back() {
    check_found_in_the_background(
        |db| {
            let key = first_key(db, Table::LocalFiles);
            let mut value = db.get(&key).unwrap().unwrap().to_vec();
            value[7] ^= 1;
            db.insert(key, value).unwrap();
        },
        &Cause::Row { table: Table::LocalFiles },
        2,
    );
}

#[test]
fn a_large_catalog_that_is_whole_is_verified_in_the_background_and_stays() {
    let (world, local) = large();
    let (gone, verified) = channel();
    let node = world.open_hooked(move |store| store.gone = Some(Farewell(gone.clone())));
    assert_eq!(node.report.rebuilt, None);
    // The thread that verifies lets go of the store at its end.
    while Arc::strong_count(&node.ledger.inner.shared.store()) > 2 {
        thread::yield_now();
    }
    node.ledger.sync().unwrap();
    assert_eq!(node.ledger.stats().generation, 1);
    assert_eq!(node.ledger.inner.shared.damage(), None);
    node.check_rows(&node.expected_rows(&local));
    assert_eq!(world.catalog_names(), ["CURRENT", "gen-1"]);
    drop(node);
    told(&verified);
}

#[test]
fn a_watchdog_is_told_of_long_work_and_of_its_end_also_when_it_fails_or_panics() {
    let (world, _) = filled();
    let (broken, failures) = (Arc::default(), Arc::default());
    let node = world.try_open_by(PATIENT, failing_fsync(2..=9, &broken, &failures)).unwrap();
    let rebuild = |fails: bool| {
        let seen = Arc::new(AtomicBool::new(false));
        let (tell, ledger) = (Arc::clone(&seen), node.ledger.clone());
        let result = node.ledger.rebuild(Box::new(move |_| {
            tell.store(ledger.is_at_long_work(), Ordering::Relaxed);
            assert!(!fails, "a panic that a test wants");
        }));
        (result, seen.load(Ordering::Relaxed), node.ledger.is_at_long_work())
    };
    assert!(!node.ledger.is_at_long_work());
    let (result, during, after) = rebuild(false);
    assert!(result.is_ok() && during && !after, "{result:?} {during} {after}");

    broken.store(true, Ordering::Relaxed);
    let (result, during, after) = rebuild(false);
    assert!(matches!(result, Err(LedgerError::Rebuild { .. })), "{result:?}");
    assert!(during && !after, "{during} {after}");

    let (result, during, after) = rebuild(true);
    assert!(matches!(result, Err(LedgerError::Closed)), "{result:?}");
    assert!(during && !after, "{during} {after}");
    assert!(matches!(node.ledger.sync(), Err(LedgerError::Closed)), "which the watchdog sees");
    let mending = &node.ledger.inner.shared.mending;
    assert!(mending.is_closing() && mending.next().is_none(), "nobody waits for what it built");
}
