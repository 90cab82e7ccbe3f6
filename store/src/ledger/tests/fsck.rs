//! What a check of the whole state directory finds.

#![expect(clippy::disallowed_methods, reason = "damage needs no durability")]

use super::{damage::filled, *};
use crate::fsck::{Checked, FindingKind, check};

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
                // What is wrong in the last group alone cannot be told from what a crash leaves; a format that nobody knows is newer.
                let may_be = [kind, FindingKind::TornEnd, FindingKind::Newer];
                assert!(found.len() == 1 && may_be.contains(&found[0]), "{node} {at}: {found:?}");
                assert!(at * 2 > length || found[0] != FindingKind::TornEnd, "{node} {at}");
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
