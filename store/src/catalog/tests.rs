//! Every store against the model.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::sync_channel,
    },
    time::Duration,
};

use proptest::prelude::*;

use super::{
    sled::{SledStore, cache_bytes, greatest_db, put_aside},
    *,
};

fn open(path: &Path) -> SledStore {
    SledStore::open(path, 1).unwrap()
}

fn all_rows(store: &dyn CatalogStore, table: Table) -> Vec<Row> {
    store.scan(table, &[], None, MAX_PAGE_ROWS).unwrap()
}

#[derive(Debug, Clone)]
enum Op {
    Commit(Vec<(usize, Vec<u8>, Option<Vec<u8>>)>),
    Get(usize, Vec<u8>),
    Scan(usize, Vec<u8>, Option<Vec<u8>>, usize),
    Verify,
    Reopen,
}

/// Keys that are prefixes of each other and meet often.
fn key() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(prop::sample::select(vec![0u8, 1, 255]), 0..4)
}

fn op() -> impl Strategy<Value = Op> {
    let change = (0usize..5, key(), prop::option::of(prop::collection::vec(any::<u8>(), 0..40)));
    prop_oneof![
        6 => prop::collection::vec(change, 1..8).prop_map(Op::Commit),
        3 => (0usize..5, key()).prop_map(|(table, key)| Op::Get(table, key)),
        3 => (0usize..5, key(), prop::option::of(key()), 0usize..6).prop_map(|(t, p, a, n)| Op::Scan(t, p, a, n)),
        1 => Just(Op::Verify),
        1 => Just(Op::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn the_engine_does_what_the_model_does(ops in prop::collection::vec(op(), 1..40)) {
        let temp = tempfile::tempdir().unwrap();
        let mut store = open(temp.path());
        let model = MemStore::default();
        for op in ops {
            match op {
                Op::Commit(changes) => {
                    let mut set = WriteSet::default();
                    for (table, key, value) in changes {
                        match value {
                            Some(value) => set.put(Table::ALL[table], key, value),
                            None => set.remove(Table::ALL[table], key),
                        }
                    }
                    store.commit(&set).unwrap();
                    model.commit(&set).unwrap();
                }
                Op::Get(table, key) => {
                    let table = Table::ALL[table];
                    prop_assert_eq!(store.get(table, &key).unwrap(), model.get(table, &key).unwrap());
                }
                Op::Scan(table, prefix, after, limit) => {
                    let scan = |store: &dyn CatalogStore| {
                        store.scan(Table::ALL[table], &prefix, after.as_deref(), limit).unwrap()
                    };
                    prop_assert_eq!(scan(&store), scan(&model));
                }
                Op::Verify => prop_assert_eq!(store.verify().unwrap(), model.verify().unwrap()),
                Op::Reopen => {
                    drop(store);
                    store = open(temp.path());
                }
            }
            for table in Table::ALL {
                prop_assert_eq!(store.sum(table), model.sum(table));
                prop_assert_eq!(store.row_count(table), model.row_count(table));
            }
        }
        for table in Table::ALL {
            prop_assert_eq!(all_rows(&store, table), all_rows(&model, table));
        }
        prop_assert_eq!(store.verify().unwrap(), model.verify().unwrap());
    }
}

fn put(keys: impl IntoIterator<Item = u32>, value: &[u8]) -> WriteSet {
    let mut set = WriteSet::default();
    keys.into_iter().for_each(|key| set.put(Table::Versions, key.to_be_bytes().to_vec(), value.to_vec()));
    set
}

#[test]
fn versions_of_each_project_are_counted_and_once_more_in_a_catalog_of_an_earlier_version() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path());
    let key = |project: &str, number: u8| [project.as_bytes(), &[0], b"sh010", &[0, number]].concat();
    let mut set = WriteSet::default();
    (0..5).for_each(|number| set.put(Table::Versions, key("lantern", number), vec![number]));
    (0..3).for_each(|number| set.put(Table::Versions, key("lan", number), vec![number]));
    set.put(Table::LocalFiles, key("lantern", 9), vec![]);
    store.commit(&set).unwrap();
    let mut set = WriteSet::default();
    set.put(Table::Versions, key("lantern", 1), vec![7]);
    set.remove(Table::Versions, key("lantern", 2));
    set.remove(Table::Versions, key("lantern", 20));
    (0..3).for_each(|number| set.remove(Table::Versions, key("lan", number)));
    store.commit(&set).unwrap();
    let counts = |store: &SledStore| {
        store.verify().unwrap();
        ["lantern", "lan", "nobody"].map(|name| store.versions_in(&name.parse().unwrap()).unwrap())
    };
    assert_eq!(counts(&store), [4, 0, 0]);
    drop(store);
    assert_eq!(counts(&open(temp.path())), [4, 0, 0]);
    tamper(temp.path(), |db| {
        let row = db.get([0]).unwrap().unwrap();
        let (payload, _) = envelope::open(0, &[], &row).unwrap();
        let (sums, versions) = tally::Tally::from_bytes(payload).unwrap();
        assert!(versions.is_some());
        let before = postcard::to_stdvec(&(FORMAT, sums)).unwrap();
        db.insert([0], envelope::seal(0, &[], &before).0).unwrap();
    });
    assert_eq!(counts(&open(temp.path())), [4, 0, 0]);
}

#[test]
fn verifying_while_commits_go_on_finds_nothing_wrong() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path());
    store.commit(&put(0..20_000, b"first")).unwrap();
    std::thread::scope(|scope| {
        let verifying = scope.spawn(|| (0..5).all(|_| store.verify().is_ok()));
        for round in 0..200u32 {
            store.commit(&put((round * 37 % 500)..(round * 37 % 500 + 40), &round.to_le_bytes())).unwrap();
            let mut set = put(30_000 + round..30_002 + round, b"new");
            set.remove(Table::Versions, (round * 91).to_be_bytes().to_vec());
            store.commit(&set).unwrap();
        }
        assert!(verifying.join().unwrap());
    });
}

/// Changes the rows behind the store's back, with the engine itself.
pub(crate) fn tamper(path: &Path, change: impl FnOnce(&::sled::Db)) {
    // The store that was dropped may hold the lock a little longer.
    let db = loop {
        match ::sled::Config::new().path(path).open() {
            Err(error) if error.to_string().contains("could not acquire lock") => std::thread::yield_now(),
            db => break db.unwrap(),
        }
    };
    change(&db);
    db.flush().unwrap();
}

fn check_noticed(change: impl FnOnce(&::sled::Db), expected: &Cause) {
    let temp = tempfile::tempdir().unwrap();
    open(temp.path()).commit(&put(0..100, b"value")).unwrap();
    tamper(temp.path(), change);
    let store = open(temp.path());
    for _ in 0..2 {
        match store.verify() {
            Err(CatalogError::Damaged { generation: 1, cause }) => assert_eq!(&cause, expected),
            other => panic!("{other:?}"),
        }
    }
    assert!(store.get(Table::Cursors, b"any").is_err(), "a store that failed once is of no use");
}

#[test]
fn lost_added_altered_and_swapped_rows_are_noticed() {
    let key = |number: u32| [&[Table::Versions.tag()][..], &number.to_be_bytes()].concat();
    let rows = Cause::Rows { table: Table::Versions };
    let row = Cause::Row { table: Table::Versions };
    check_noticed(|db| drop(db.remove(key(50)).unwrap()), &rows);
    check_noticed(|db| drop(db.insert(key(50), b"\x01\x05\0\0\0valueXXXXXXXX".to_vec()).unwrap()), &row);
    check_noticed(
        |db| {
            let value = db.get(key(50)).unwrap().unwrap();
            db.insert(key(51), value).unwrap();
        },
        &row,
    );
    check_noticed(|db| drop(db.insert(b"\x77stray", b"x").unwrap()), &Cause::StrayRow);
}

#[test]
fn a_damaged_row_is_an_error_at_the_read_and_ends_the_generation() {
    let temp = tempfile::tempdir().unwrap();
    open(temp.path()).commit(&put(0..10, b"value")).unwrap();
    tamper(temp.path(), |db| drop(db.insert(b"\x01\0\0\0\x05", b"junk").unwrap()));
    let store = open(temp.path());
    assert!(store.get(Table::Versions, &4u32.to_be_bytes()).unwrap().is_some());
    assert!(store.get(Table::Versions, &5u32.to_be_bytes()).is_err());
    assert!(store.get(Table::Versions, &4u32.to_be_bytes()).is_err());
    assert!(store.commit(&put(0..1, b"x")).is_err() && store.sync().is_err());
}

#[test]
fn a_failed_fsync_ends_the_generation_and_is_not_tried_again() {
    let temp = tempfile::tempdir().unwrap();
    let tries = Arc::new(AtomicU64::new(0));
    let fsync = {
        let tries = Arc::clone(&tries);
        // The disk fails once and says that all is well afterwards, as Linux does.
        move |real: Fsync| -> Fsync {
            Box::new(move || match tries.fetch_add(1, Ordering::Relaxed) {
                0 => Err(std::io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())),
                _ => real(),
            })
        }
    };
    let store = SledStore::open_with(temp.path(), 1, fsync).unwrap();
    store.commit(&put(0..10, b"value")).unwrap();
    let text = "Input/output error (os error 5)".to_owned();
    let check = |error: CatalogError| match error {
        CatalogError::Damaged { generation: 1, cause } => {
            assert_eq!(cause, Cause::Fsync { text: text.clone() })
        }
        other => panic!("{other:?}"),
    };
    (0..2).for_each(|_| check(store.sync().unwrap_err()));
    check(store.get(Table::Versions, &1u32.to_be_bytes()).unwrap_err());
    check(store.scan(Table::Versions, &[], None, 1).unwrap_err());
    check(store.commit(&put(0..1, b"x")).unwrap_err());
    check(store.verify().unwrap_err());
    check(store.disk_bytes().unwrap_err());
    drop(store);
    assert_eq!(tries.load(Ordering::Relaxed), 1);
}

#[test]
fn a_generation_whose_directory_is_gone_is_not_made_again() {
    let temp = tempfile::tempdir().unwrap();
    let directory = temp.path().join("gen-1");
    assert_eq!(SledStore::open(&directory, 1).unwrap_err(), Cause::Absent);
    assert!(!directory.exists());
}

#[test]
fn a_generation_whose_files_are_removed_under_a_reader_gives_right_rows_or_a_clear_error() {
    let temp = tempfile::tempdir().unwrap();
    let directory = temp.path().join("gen-1");
    std::fs::create_dir(&directory).unwrap();
    // The engine keeps pages of that size in files of their own, which it opens by name.
    let value = vec![7; 3 << 20];
    let store = open(&directory);
    store.commit(&put(0..5000, b"value")).unwrap();
    store.commit(&put(5000..5001, &value)).unwrap();
    drop(store);
    assert!(std::fs::read_dir(directory.join("blobs")).unwrap().next().is_some());
    let store = open(&directory);
    std::fs::remove_dir_all(&directory).unwrap();
    let mut failed = None;
    for key in (0..=5000).chain(0..50) {
        match store.get(Table::Versions, &u32::to_be_bytes(key)) {
            Ok(Some(found)) => {
                assert!(failed.is_none() && found == if key == 5000 { &*value } else { b"value" })
            }
            Ok(None) => panic!("row {key} is gone"),
            Err(CatalogError::Damaged { generation: 1, cause }) => {
                assert_eq!(*failed.get_or_insert_with(|| cause.clone()), cause);
            }
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(matches!(failed, Some(Cause::Engine { .. } | Cause::Panic { .. })), "{failed:?}");
    drop(store);
    assert!(!directory.exists());
}

#[test]
fn a_generation_that_stays_open_elsewhere_is_an_error() {
    let temp = tempfile::tempdir().unwrap();
    let _store = open(temp.path());
    assert!(matches!(SledStore::open(temp.path(), 1), Err(Cause::Engine { .. })));
}

#[test]
fn the_cache_is_small_for_a_small_catalog_and_never_large() {
    let mib = |bytes: u64| bytes << 20;
    assert_eq!((cache_bytes(0), cache_bytes(mib(128))), (mib(8), mib(8)));
    assert_eq!(cache_bytes(mib(512)), mib(32));
    assert_eq!((cache_bytes(mib(1024)), cache_bytes(mib(100_000))), (mib(64), mib(64)));
}

#[test]
fn a_generation_gets_the_cache_of_the_greatest_beside_it() {
    let temp = tempfile::tempdir().unwrap();
    let [old, new] = ["gen-1", "gen-2"].map(|name| temp.path().join(name));
    assert_eq!(greatest_db(&old), 0);
    for (directory, bytes) in [(&old, 3000), (&new, 20)] {
        std::fs::create_dir(directory).unwrap();
        std::fs::File::create(directory.join("db")).unwrap().set_len(bytes).unwrap();
    }
    assert_eq!((greatest_db(&old), greatest_db(&new)), (3000, 3000));
}

#[test]
fn what_the_engine_replaced_is_freed_though_nobody_calls_any_more() {
    let temp = tempfile::tempdir().unwrap();
    let store = open(temp.path());
    let (freed, is_freed) = sync_channel(1);
    put_aside(move || freed.send(()).unwrap());
    store.commit(&put(0..1, b"value")).unwrap();
    assert!(is_freed.recv_timeout(Duration::from_secs(60)).is_ok());
}
