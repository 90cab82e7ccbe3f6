//! What a check of the whole state directory finds.

#![expect(clippy::disallowed_methods, reason = "damage needs no durability")]

use avalon_protocol::record::{Held, Note, Retired};

use super::{damage::filled, *};
use crate::{
    fsck::{Checked, FindingKind, check},
    witness,
};

fn look(world: &World) -> Checked {
    check(&world.state_path(), &ME.parse().unwrap(), &ToyTrust, true).unwrap()
}

fn kinds(checked: &Checked) -> Vec<FindingKind> {
    checked.findings.iter().map(|finding| finding.kind).collect()
}

fn with_flip(path: &Path, at: usize, then: impl FnOnce()) {
    let good = fs::read(path).unwrap();
    let mut bad = good.clone();
    bad[at] ^= 8;
    fs::write(path, &bad).unwrap();
    then();
    assert_eq!(fs::read(path).unwrap(), bad, "nothing is changed");
    fs::write(path, good).unwrap();
}

#[test]
fn a_flip_anywhere_in_feeds_and_manifests_is_found_and_nothing_is_changed() {
    let (world, _) = filled();
    let good = look(&world);
    assert_eq!(good.findings, []);
    assert!(good.feeds == 2 && good.records >= 10 && good.manifests >= 5 && good.catalog, "{good:?}");
    let mut flips = 0;
    for (node, kind) in [(ME, FindingKind::OwnFeed), (PEER, FindingKind::PeerFeed)] {
        let segment = world.state_path().join(format!("feeds/lantern/{node}/00000000.alog"));
        let length = usize::try_from(fs::metadata(&segment).unwrap().len()).unwrap();
        for at in (0..length).step_by(7) {
            with_flip(&segment, at, || {
                let found = kinds(&look(&world));
                // What is wrong in the last group looks as what a crash leaves, but for the catalog; a format that nobody knows is
                // newer.
                let may_be = [kind, FindingKind::LostEnd, FindingKind::Newer];
                assert!(found.len() == 1 && may_be.contains(&found[0]), "{node} {at}: {found:?}");
                assert!(at * 2 > length || found[0] != FindingKind::LostEnd, "{node} {at}");
            });
            flips += 1;
        }
    }
    let manifests = world.state_path().join("manifests");
    for manifest in walkdir::WalkDir::new(manifests).into_iter().map(Result::unwrap) {
        if !manifest.file_type().is_file() {
            continue;
        }
        let length = usize::try_from(manifest.metadata().unwrap().len()).unwrap();
        for at in (0..length).step_by(11) {
            with_flip(manifest.path(), at, || {
                let found = look(&world);
                assert_eq!(kinds(&found), [FindingKind::Manifest]);
                assert_eq!(found.findings[0].path, manifest.path());
            });
            flips += 1;
        }
    }
    assert!(flips > 200, "{flips}");
    assert_eq!(look(&world), good);
}

#[test]
fn torn_ends_and_what_was_put_aside_are_told_and_no_damage_and_a_wrong_current_is() {
    let (world, _) = filled();
    let own = world.state_path().join(format!("feeds/lantern/{ME}/00000000.alog"));
    let good = fs::read(&own).unwrap();
    fs::write(&own, [&good[..], &[9; 70]].concat()).unwrap();
    let length = fs::metadata(&own).unwrap().len();
    let aside = world.state_path().join(format!("feeds/lantern/bad-{PEER}.1"));
    fs::create_dir(&aside).unwrap();
    let found = look(&world);
    assert_eq!(kinds(&found), [FindingKind::TornEnd, FindingKind::PutAside]);
    assert!(found.findings.iter().all(|finding| !finding.kind.is_damage()));
    assert_eq!(found.findings[1].path, aside);
    assert_eq!(fs::metadata(&own).unwrap().len(), length, "the daemon cuts it off, not this");
    fs::write(&own, &good).unwrap();
    fs::remove_dir(&aside).unwrap();
    let current = world.state_path().join("catalog/CURRENT");
    let before = fs::read(&current).unwrap();
    for wrong in ["", "nonsense", "4711"] {
        fs::write(&current, wrong).unwrap();
        let found = look(&world);
        assert_eq!(kinds(&found), [FindingKind::Catalog], "{wrong:?}");
        assert!(found.findings[0].kind.is_damage());
    }
    fs::write(&current, before).unwrap();
    fs::remove_dir_all(world.state_path().join("catalog")).unwrap();
    assert_eq!(look(&world).findings, [], "there is none before the first start");
}

fn segment_of(world: &World, node: &str) -> std::path::PathBuf {
    world.state_path().join(format!("feeds/lantern/{node}/00000000.alog"))
}

#[test]
fn an_end_that_is_gone_is_damage_wherever_a_feed_is_cut_and_however_much_is_gone() {
    let (world, _) = filled();
    for node in [ME, PEER] {
        let segment = segment_of(&world, node);
        let good = fs::read(&segment).unwrap();
        for length in (0..good.len()).step_by(13) {
            fs::write(&segment, &good[..length]).unwrap();
            let found = look(&world);
            assert_eq!(kinds(&found), [FindingKind::LostEnd], "{node} {length}");
            assert!(found.findings[0].kind.is_damage());
            assert_eq!(found.findings[0].path, segment.parent().unwrap());
        }
        for gone in [segment.clone(), segment.parent().unwrap().to_owned()] {
            let aside = world.temp.path().join("aside");
            fs::rename(&gone, &aside).unwrap();
            assert_eq!(kinds(&look(&world)), [FindingKind::LostEnd], "{node}: {}", gone.display());
            fs::rename(&aside, &gone).unwrap();
        }
        fs::write(&segment, &good).unwrap();
    }
    assert_eq!(look(&world).findings, []);
    let aside = world.temp.path().join("aside");
    fs::rename(world.state_path().join("feeds"), &aside).unwrap();
    assert_eq!(kinds(&look(&world)), [FindingKind::LostEnd; 2], "all of them are gone");
}

#[test]
fn without_a_catalog_the_witness_knows_how_much_there_was_of_the_own_feed() {
    let (world, _) = filled();
    let node = world.open();
    let heads: Vec<_> =
        node.ledger.heads(&project()).into_iter().filter(|(node, _)| *node == ME.parse().unwrap()).collect();
    let (records, head) = (heads[0].1.next_seq, heads[0].1);
    let note = || {
        let state = &node._state;
        witness::write(state, &ME.parse().unwrap(), &[(project(), head)], witness::Moment::Start).unwrap();
    };
    // A daemon that runs: the catalog is not opened.
    let look = || check(&world.state_path(), &ME.parse().unwrap(), &ToyTrust, false).unwrap();
    let own = segment_of(&world, ME);
    let good = fs::read(&own).unwrap();
    fs::write(&own, &good[..good.len() - 5]).unwrap();
    assert_eq!(kinds(&look()), [FindingKind::TornEnd], "nothing says that there was more");
    note();
    let found = look();
    assert_eq!(kinds(&found), [FindingKind::LostEnd]);
    let detail = &found.findings[0].detail;
    assert!(
        detail.contains(&format!("the witness knows of {records}")) && detail.contains("no whole group"),
        "{detail}"
    );
    fs::write(&own, [&good[..], &[9; 70]].concat()).unwrap();
    assert_eq!(kinds(&look()), [FindingKind::TornEnd], "all that was noted is there");
    fs::write(&own, &good).unwrap();
    assert_eq!(look().findings, []);
    let file = world.state_path().join("witness.json");
    let noted = fs::read(&file).unwrap();
    fs::write(&file, &noted[1..]).unwrap();
    let found = look();
    assert_eq!(kinds(&found), [FindingKind::Witness]);
    assert!(found.findings[0].kind.is_damage() && found.findings[0].path == file);
}

#[test]
fn a_manifest_that_this_node_had_is_missed_and_one_that_never_came_or_counts_no_more_is_not() {
    let world = World::new();
    let node = world.open();
    let commit = |records| node.ledger.commit_wait(&project(), records, vec![], 1).unwrap();
    let held = |manifest: &Manifest| Held { version: manifest.version().clone(), manifest: manifest.id() };
    let [kept, dropped, out_of_use, retired, grown] =
        [1, 2, 3, 4, 5].map(|number| world.publish(&node.ledger, number));
    commit(vec![Record::Dropped(held(&dropped)), Record::Dropped(held(&out_of_use))]);
    commit(vec![retire(&out_of_use), retire(&retired)]);
    let next = toy::manifest(5, &[("a.abc", b"more")]);
    let Record::Published(mut published) = toy::published(&next) else { unreachable!("it is one") };
    (published.generation, published.predecessor) = (2, Some(grown.id()));
    node.ledger.put_manifest(&next).unwrap();
    commit(vec![Record::Published(published)]);
    // A peer published and placed what nobody sent the manifests of.
    let reader = avalon_protocol::feed::FeedReader::new(toy::feed(PEER));
    let never_came = toy::manifest(6, &[("a.abc", b"far")]);
    let group = reader.seal(
        vec![toy::published(&never_came).to_raw(), placed(7, 9).to_raw()],
        1,
        &Toy::of(PEER),
        &ToyTrust,
    );
    node.ledger.ingest_wait(toy::feed(PEER), vec![group], vec![]).unwrap();
    node.ledger.close().unwrap();
    assert_eq!(look(&world).findings, []);
    let path = |manifest: &Manifest| {
        let name = manifest.id().to_string();
        world.state_path().join("manifests").join(&name[..2]).join(name)
    };
    for (manifest, is_missed) in [
        (&kept, true),
        (&dropped, true),
        (&out_of_use, false),
        (&retired, true),
        (&grown, false),
        (&next, true),
    ] {
        let aside = world.temp.path().join("aside");
        fs::rename(path(manifest), &aside).unwrap();
        let found = look(&world);
        let expected: &[FindingKind] = if is_missed { &[FindingKind::ManifestGone] } else { &[] };
        assert_eq!(kinds(&found), expected, "{}", manifest.version());
        assert!(
            found.findings.iter().all(|finding| finding.path == path(manifest) && finding.kind.is_damage())
        );
        fs::rename(&aside, path(manifest)).unwrap();
    }
    fs::remove_dir_all(world.state_path().join("manifests")).unwrap();
    assert_eq!(kinds(&look(&world)), [FindingKind::ManifestGone; 4]);
}

fn retire(manifest: &Manifest) -> Record {
    let (author, comment) = (Note::try_from("anna".to_owned()).unwrap(), Note::default());
    Record::Retired(Retired { version: manifest.version().clone(), round: 1, author, comment, at_ms: 1 })
}
