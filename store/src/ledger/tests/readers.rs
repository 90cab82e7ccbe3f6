//! Readers that still have a generation when another takes its place.

use std::sync::atomic::{AtomicBool, AtomicUsize};

use super::{
    damage::{filled, grow},
    engine::{Gate, StopOnDrop},
    *,
};

/// A node with several segments of rows, of which none but cursors and manifests was read yet.
fn cold() -> (World, Node, Rows) {
    let (world, _) = filled();
    grow(&world);
    let node = world.open();
    let rows = node.rows();
    drop(node);
    let care = CatalogCare { verify_at_open_rows: 0, small_bytes: 0, ..world.care };
    let world = World { care, ..world };
    // The background verification reads every row: it waits until the end.
    let (wait, gate) = Gate::new();
    let keep = Mutex::new(wait);
    let node = world.open_hooked(move |store| {
        if store.inner.generation() == 1 {
            let (gate, _keep) = (Arc::clone(&gate), keep.lock().unwrap().clone());
            store.verify = Box::new(move || {
                let _kept = &_keep;
                gate.wait();
            });
        }
    });
    (world, node, rows)
}

/// Reads every row, page by page and one by one; returns how many were right. A row may be an error, never another one.
fn check_right_or_refused(store: &dyn CatalogStore, rows: &Rows) -> usize {
    let mut right = 0;
    let refused = |error: CatalogError| match error {
        CatalogError::Damaged { generation, .. } => assert_eq!(generation, store.generation()),
        other => panic!("{other:?}"),
    };
    for ((table, key), value) in rows {
        match store.get(*table, key) {
            Ok(found) => {
                assert_eq!(found.as_ref(), Some(value), "{table}");
                right += 1;
            }
            Err(error) => refused(error),
        }
    }
    for table in Table::ALL {
        let mut after: Option<Vec<u8>> = None;
        loop {
            match store.scan(table, &[], after.as_deref(), 100) {
                Ok(page) => {
                    let Some((last, _)) = page.last() else { break };
                    after = Some(last.clone());
                    for (key, value) in page {
                        assert_eq!(rows.get(&(table, key)), Some(&value), "{table}");
                        right += 1;
                    }
                }
                Err(error) => {
                    refused(error);
                    break;
                }
            }
        }
    }
    right
}

#[test]
fn whoever_holds_a_generation_that_was_put_aside_and_removed_reads_right_rows() {
    let (world, node, rows) = cold();
    let held = node.ledger.inner.shared.store();
    node.ledger.rebuild(Box::new(|_| {})).unwrap();
    assert!(world.catalog_names().iter().any(|name| name.starts_with("bad-gen-1-")));
    node.ledger.rebuild(Box::new(|_| {})).unwrap();
    assert!(!world.catalog_names().iter().any(|name| name.contains("gen-1-")), "it is removed by now");
    assert_eq!(held.generation(), 1);
    assert_eq!(check_right_or_refused(&*held, &rows), 2 * rows.len());
    assert!(held.sync().is_ok());
    drop(held);
    assert!(!world.catalog_names().iter().any(|name| name.contains("gen-1")), "and does not come back");
}

#[test]
fn readers_see_right_rows_while_generations_are_copied_rebuilt_and_removed() {
    let (world, _) = filled();
    let world = World { care: CatalogCare { small_bytes: 0, ..world.care }, ..world };
    let node = world.open();
    let rows = node.rows();
    let (stop, right) = (AtomicBool::new(false), AtomicUsize::new(0));
    thread::scope(|scope| {
        let readers: Vec<_> = (0..2)
            .map(|_| {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let store = node.ledger.inner.shared.store();
                        right.fetch_add(check_right_or_refused(&*store, &rows), Ordering::Relaxed);
                    }
                })
            })
            .collect();
        let stopping = StopOnDrop(&stop);
        for _ in 0..4 {
            let before = node.generation();
            world.hours_pass(25);
            node.until_copied(before);
            node.ledger.rebuild(Box::new(|_| {})).unwrap();
        }
        drop(stopping);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
    });
    assert!(right.load(Ordering::Relaxed) > 0);
    assert_eq!((node.generation(), node.ledger.inner.shared.damage()), (9, None));
    node.check_rows(&rows);
}
