//! What a question or a change costs, counted in rows: it must not depend on how much else there is.

use avalon_protocol::{
    id::{VersionId, VersionSlot},
    record::Held,
};

use super::*;

const SUBSETS: u32 = 5;
const SLOTS: u32 = 4;

fn id(asset: u32, subset: u32, slot: u32) -> VersionId {
    VersionId {
        project: project(),
        asset: format!("sh{asset:04}").parse().unwrap(),
        subset: format!("layer{subset}").parse().unwrap(),
        slot: VersionSlot::Number(slot),
    }
}

fn held(version: VersionId) -> Record {
    Record::Placed(Held { version, manifest: ManifestId::from_bytes([1; 32]) })
}

/// Opens a ledger that knows all versions of so many assets.
fn filled(world: &World, assets: u32) -> Node {
    let node = world.open();
    let all =
        (0..assets).flat_map(|asset| (0..SUBSETS * SLOTS).map(move |n| id(asset, n / SLOTS, n % SLOTS + 1)));
    node.ledger.commit_wait(&project(), all.map(held).collect(), Vec::new(), 1000).unwrap();
    node
}

/// Returns what each of these costs in a catalog of so many assets, by name.
fn costs(assets: u32) -> Vec<(&'static str, u64)> {
    let world = World::new();
    let node = filled(&world, assets);
    let ledger = &node.ledger;
    let asset = "sh0007".parse().unwrap();
    let mut costs = Vec::new();
    let mut count = |name, ask: &dyn Fn() -> usize, expected| {
        let before = ledger.rows_read();
        assert_eq!(ask(), expected, "{name} of {assets} assets");
        costs.push((name, ledger.rows_read() - before));
    };
    let all = (assets * SUBSETS * SLOTS) as usize;
    count("count", &|| usize::try_from(ledger.version_count(&project()).unwrap()).unwrap(), all);
    count("one", &|| usize::from(ledger.version(&id(7, 3, 2)).unwrap().is_some()), 1);
    count("subset", &|| ledger.subset_versions(&id(7, 3, 2)).unwrap().len(), SLOTS as usize);
    count("asset", &|| ledger.versions(&project(), Some(&asset), None, 100).unwrap().len(), 20);
    count("page", &|| ledger.versions(&project(), None, Some(&id(7, 3, 2)), 30).unwrap().len(), 30);
    count("names", &|| ledger.assets(&project(), "sh", 8).unwrap().len(), 8);
    count("names beneath", &|| ledger.subsets(&project(), &asset, 100).unwrap().len(), SUBSETS as usize);
    let change = || {
        ledger.commit_wait(&project(), vec![held(id(7, 3, 9))], Vec::new(), 1000).unwrap();
        1
    };
    count("change", &change, 1);
    costs
}

#[test]
fn what_is_read_does_not_depend_on_how_much_there_is() {
    let (small, large) = (costs(20), costs(200));
    assert_eq!(small, large);
    let most = small.iter().max_by_key(|(_, rows)| *rows).unwrap();
    assert!(most.1 <= 31, "{small:?}");
    assert_eq!(small[0], ("count", 0));
}

#[test]
fn names_are_given_once_each_and_in_order() {
    let world = World::new();
    let node = filled(&world, 12);
    let names = |start: &str, limit| -> Vec<String> {
        node.ledger.assets(&project(), start, limit).unwrap().iter().map(ToString::to_string).collect()
    };
    assert_eq!(names("", 3), ["sh0000", "sh0001", "sh0002"]);
    assert_eq!(names("sh001", 100), ["sh0010", "sh0011"]);
    assert_eq!(names("x", 100), [""; 0]);
    let subsets = node.ledger.subsets(&project(), &"sh0003".parse().unwrap(), 100).unwrap();
    let subsets: Vec<String> = subsets.iter().map(ToString::to_string).collect();
    assert_eq!(subsets, ["layer0", "layer1", "layer2", "layer3", "layer4"]);
}
