//! What an export says is what an import makes of it, and nothing else is imported.

use std::io::Write as _;

use super::*;

/// A node with five versions of its own and a peer's records.
fn filled() -> (World, Node) {
    let world = World::new();
    let node = world.open();
    (1..=5).for_each(|number| drop(world.publish(&node.ledger, number)));
    let reader = avalon_protocol::feed::FeedReader::new(toy::feed(PEER));
    let group = reader.seal(vec![placed(3, 7).to_raw()], 1, &Toy::of(PEER), &ToyTrust);
    node.ledger.ingest_wait(toy::feed(PEER), vec![group], vec![]).unwrap();
    (world, node)
}

impl Node {
    fn export(&self) -> Vec<u8> {
        let mut export = self.ledger.export().unwrap();
        let mut text = Vec::new();
        while let Some(chunk) = export.next_chunk().unwrap() {
            text.extend(chunk);
        }
        text
    }

    fn import(&self, text: &[u8]) -> Result<Rebuilt, LedgerError> {
        let mut file = self.ledger.import_file().unwrap();
        file.write_all(text).unwrap();
        self.ledger.import(file)
    }

    fn sums(&self) -> Vec<crate::catalog::TableSum> {
        let store = self.ledger.inner.shared.store();
        Table::ALL.into_iter().map(|table| store.sum(table)).collect()
    }

    /// Says why an export is refused, after a look at what is left: the generation in use, and nothing else.
    fn check_refused(&self, text: &[u8]) -> String {
        let (generation, sums) = (self.ledger.stats().generation, self.sums());
        let error = self.import(text).unwrap_err();
        assert!(
            matches!(&error, LedgerError::Rebuild { source } if source.is_bad_source()),
            "{error:?} of {}",
            String::from_utf8_lossy(text)
        );
        assert_eq!((self.ledger.stats().generation, self.sums()), (generation, sums));
        crate::error_chain::ErrorChain(&error).to_string()
    }
}

/// Changes lines and gives the whole the hash that belongs to it.
fn rewritten(text: &[u8], change: impl FnOnce(&mut Vec<String>)) -> Vec<u8> {
    let text = std::str::from_utf8(text).unwrap();
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    lines.pop();
    change(&mut lines);
    let mut text = lines.join("\n") + "\n";
    let blake3 = blake3::hash(text.as_bytes()).to_hex();
    text += &format!("{{\"rows\":{},\"blake3\":\"{blake3}\"}}\n", lines.len() - 1);
    text.into_bytes()
}

#[test]
fn an_import_of_an_export_gives_the_same_tables() {
    let (world, node) = filled();
    // Known by its identity though its time is not that of the manifest: a rebuild would forget it.
    let path = "robot/v002/a.abc".parse().unwrap();
    world.tree_dir().set_mtime(&path, 77_000_000_000).unwrap();
    let mut file = node.ledger.local_file(&project(), &path).unwrap().unwrap();
    let stat = world.tree_dir().stat(&path).unwrap().unwrap();
    file = LocalFile::new(file.hash, &stat, file.manifest);
    let change = LocalChange::Put { project: project(), path, file };
    node.ledger.update_local_wait(vec![change]).unwrap();
    let (rows, sums, text) = (node.rows(), node.sums(), node.export());
    assert_eq!(node.export(), text);
    let built = node.import(&text).unwrap();
    assert_eq!(built, Rebuilt { replayed_records: 0, loaded_records: 8 });
    assert_eq!((node.ledger.stats().generation, node.sums()), (2, sums.clone()));
    assert_eq!(node.rows(), rows);
    drop(node);
    let node = world.open();
    assert_eq!((&node.report.rebuilt, node.sums()), (&None, sums));
    let lines: Vec<&str> = std::str::from_utf8(&text).unwrap().lines().collect();
    assert_eq!(lines.len(), 1 + 2 + 5 + 5 + 10 + 1);
    assert!(
        lines[0].starts_with(r#"{"schema":"avalon.catalog/1","layout":3,"node":"ws1@london""#),
        "{}",
        lines[0]
    );
    assert!(
        lines[1].starts_with(r#"{"table":"cursors","project":"lantern","node":"ws1@london","next_seq":6,"#)
    );
}

#[test]
fn what_came_after_an_export_is_applied_to_it() {
    let (world, node) = filled();
    let text = node.export();
    world.publish(&node.ledger, 6);
    let sums = node.sums();
    assert_eq!(node.import(&text).unwrap(), Rebuilt { replayed_records: 1, loaded_records: 8 });
    assert_eq!(node.sums(), sums);
    world.publish(&node.ledger, 7);
    assert!(node.ledger.verify().catalog.is_none());
}

#[test]
fn a_changed_byte_or_a_missing_end_is_refused() {
    let (_world, node) = filled();
    let text = node.export();
    for at in (0..text.len()).step_by(97).chain([text.len() - 10, text.len() - 1]) {
        let mut changed = text.clone();
        changed[at] ^= 1;
        node.check_refused(&changed);
    }
    let last_line = text[..text.len() - 1].iter().rposition(|byte| *byte == b'\n').unwrap() + 1;
    for end in [0, 1, 100, text.len() / 2, last_line, text.len() - 1] {
        node.check_refused(&text[..end]);
    }
    node.import(&text).unwrap();
}

#[test]
fn rows_that_do_not_add_up_are_refused_whatever_the_hash_says() {
    let (_world, node) = filled();
    let text = node.export();
    let missing = rewritten(&text, |lines| drop(lines.remove(4)));
    assert!(node.check_refused(&missing).ends_with("rows of table versions are missing or too many in it"));
    let doubled = rewritten(&text, |lines| lines.insert(4, lines[4].clone()));
    node.check_refused(&doubled);
    let changed = rewritten(&text, |lines| lines[4] = lines[5].clone());
    node.check_refused(&changed);
    let unknown = rewritten(&text, |lines| lines[4] = r#"{"table":"others"}"#.into());
    assert!(node.check_refused(&unknown).contains("line 5 is no row"));
    let order = rewritten(&text, |lines| lines[3..].reverse());
    assert!(node.check_refused(&order).contains("behind those of local files"));
}

#[test]
fn a_newer_schema_and_other_files_are_refused_with_what_to_do() {
    let (_world, node) = filled();
    let text = node.export();
    let newer = rewritten(&text, |lines| lines[0] = lines[0].replace("catalog/1", "catalog/2"));
    assert!(
        node.check_refused(&newer).contains("it has version 2, this avalond reads 1; upgrade avalond here")
    );
    let layout = rewritten(&text, |lines| lines[0] = lines[0].replace("\"layout\":3", "\"layout\":9"));
    assert!(node.check_refused(&layout).contains("layout 9, those of this avalond have 3; rebuild"));
    for other in ["", "\n", "{}\n", "{\"schema\":\"other/1\"}\n{}\n"] {
        node.check_refused(other.as_bytes());
    }
}

#[test]
fn an_export_of_another_node_or_of_newer_feeds_is_refused() {
    let (world, node) = filled();
    let old = world.crash_copy();
    world.publish(&node.ledger, 6);
    let newer = node.export();
    let node = old.open();
    assert!(node.check_refused(&newer).contains("it is ahead of feed lantern/ws1@london or beside it"));
}

#[test]
fn a_local_file_that_is_not_as_the_export_says_is_not_taken() {
    let (world, node) = filled();
    let text = node.export();
    fs::remove_file(world.tree.path().join("robot/v002/a.abc")).unwrap();
    node.import(&text).unwrap();
    let file = |path: &str| node.ledger.local_file(&project(), &path.parse().unwrap()).unwrap();
    assert_eq!(file("robot/v002/a.abc"), None);
    assert!(file("robot/v002/b.abc").is_some());
}

#[test]
fn an_export_is_of_one_moment_and_leaves_nothing_on_disk() {
    let (world, node) = filled();
    let names = || fs::read_dir(world.state_path().join("catalog")).unwrap().count();
    let before = names();
    let mut export = node.ledger.export().unwrap();
    world.publish(&node.ledger, 6);
    let text = String::from_utf8(export.next_chunk().unwrap().unwrap()).unwrap();
    assert!(text.contains("robot/v005/a.abc") && !text.contains("robot/v006/a.abc"));
    assert_eq!((export.next_chunk().unwrap(), names()), (None, before));
}
