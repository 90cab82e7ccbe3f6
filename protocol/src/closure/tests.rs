use std::convert::Infallible;

use proptest::prelude::*;

use super::*;

/// Versions by name with their inputs; each has one file of ten bytes.
#[derive(Default)]
struct Catalog {
    versions: BTreeMap<VersionId, KnownVersion>,
    asked: Vec<String>,
}

impl Catalog {
    fn new(versions: &[(&str, &[&str])]) -> Self {
        let mut catalog = Self::default();
        for (name, inputs) in versions {
            let inputs = Some(inputs.iter().map(|&input| input.to_owned()).collect());
            let known = KnownVersion { files: 1, bytes: 10, inputs, ..KnownVersion::default() };
            catalog.versions.insert(id(name), known);
        }
        catalog
    }
}

impl KnownVersions for Catalog {
    type Error = Infallible;

    fn named(&mut self, reference: &Reference) -> Result<Named, Infallible> {
        self.asked.push(reference.to_string());
        if reference.project.as_ref().is_some_and(|project| project.as_str() != "lantern") {
            return Ok(Named::OtherProject);
        }
        Ok(Named::Versions(reference.select(self.versions.keys())))
    }

    fn known(&mut self, version: &VersionId) -> Result<KnownVersion, Infallible> {
        Ok(self.versions[version].clone())
    }
}

fn id(name: &str) -> VersionId {
    let (names, slot) = name.split_once('@').unwrap();
    let (asset, subset) = names.split_once('/').unwrap();
    VersionId {
        project: "lantern".parse().unwrap(),
        asset: asset.parse().unwrap(),
        subset: subset.parse().unwrap(),
        slot: slot.parse().unwrap(),
    }
}

fn names(closure: &Closure) -> Vec<String> {
    let short = |member: &Member| member.version.to_string().replace("lantern:", "");
    closure.members.iter().map(short).collect()
}

fn of(catalog: &mut Catalog, root: &str) -> Closure {
    closure(&[id(root)], MAX_CLOSURE_DEPTH, catalog).unwrap()
}

#[test]
fn every_version_comes_once_and_after_its_inputs() {
    let mut catalog = Catalog::new(&[
        ("sh010/light@v001", &["sh010/anim@v002", "robot/look/ma@v001", "robot/look/json@v001"]),
        ("sh010/anim@v002", &["robot/rig@v003"]),
        ("robot/rig@v003", &["robot/model@v001"]),
        ("robot/look@v001", &["robot/tex", "robot/model@v001", "robot/tex@v001"]),
        ("robot/model@v001", &[]),
        ("robot/tex@v001", &[]),
        ("robot/tex@v002", &["robot/tex@v001"]),
    ]);
    let found = of(&mut catalog, "sh010/light@v001");
    assert_eq!(
        names(&found),
        [
            "robot/model@v001",
            "robot/rig@v003",
            "sh010/anim@v002",
            "robot/tex@v001",
            "robot/tex@v002",
            "robot/look@v001",
            "sh010/light@v001",
        ]
    );
    assert_eq!(found.totals(), (7, 70, 0));
    assert_eq!(found.missing, []);
    let model = &found.members[0];
    assert_eq!((model.depth, model.needed_by.as_ref()), (2, Some(&id("robot/look@v001"))));
    let asked = catalog.asked.iter().filter(|asked| asked.contains("robot/look")).count();
    assert_eq!(asked, 1, "once for two representations: {:?}", catalog.asked);
}

#[test]
fn what_cannot_be_had_is_told_with_who_needs_it_and_why() {
    let mut catalog = Catalog::new(&[
        ("sh010/light@v001", &["/mnt/wood.exr", "robot/ghost@v001", "comet:a/b", "sh010/anim@v001"]),
        ("sh010/anim@v001", &[]),
    ]);
    catalog.versions.get_mut(&id("sh010/anim@v001")).unwrap().inputs = None;
    let found = of(&mut catalog, "sh010/light@v001");
    let missing: Vec<_> = found.missing.iter().map(|missing| (missing.input.as_str(), missing.why)).collect();
    assert_eq!(
        missing,
        [
            ("/mnt/wood.exr", Lack::NotPublished),
            ("robot/ghost@v001", Lack::Unknown),
            ("comet:a/b", Lack::OtherProject),
            ("lantern:sh010/anim@v001", Lack::NoManifest),
        ]
    );
    assert_eq!(found.missing[3].needed_by, id("sh010/anim@v001"));
    assert_eq!(names(&found), ["sh010/anim@v001", "sh010/light@v001"], "it comes all the same");
}

#[test]
fn versions_that_need_each_other_and_themselves_come_once() {
    let mut catalog = Catalog::new(&[
        ("a/x@v001", &["b/x", "a/x@v001"]),
        ("b/x@v001", &["c/x@v001"]),
        ("c/x@v001", &["a/x@v001", "b/x@v001"]),
    ]);
    let found = of(&mut catalog, "a/x@v001");
    assert_eq!(names(&found), ["c/x@v001", "b/x@v001", "a/x@v001"]);
    assert_eq!(found.missing, []);
}

#[test]
fn only_the_steps_that_were_asked_for_are_gone() {
    let mut catalog = Catalog::new(&[("a/x@v001", &["b/x"]), ("b/x@v001", &["c/x"]), ("c/x@v001", &[])]);
    let found = closure(&[id("a/x@v001")], 1, &mut catalog).unwrap();
    assert_eq!(names(&found), ["b/x@v001", "a/x@v001"]);
    assert_eq!(found.missing, []);
}

#[test]
fn a_chain_and_a_crowd_beyond_the_limits_are_cut_and_that_is_told() {
    let mut catalog = Catalog::default();
    let mut put = |name: &str, inputs: Vec<String>| {
        let known = KnownVersion { inputs: Some(inputs), ..KnownVersion::default() };
        catalog.versions.insert(id(name), known);
    };
    for link in 0..100 {
        put(&format!("a/x{link}@v001"), vec![format!("a/x{}@v001", link + 1)]);
    }
    put("a/x100@v001", vec![]);
    put("b/all@v001", vec!["c/*".into()]);
    for number in 0..MAX_CLOSURE_VERSIONS {
        put(&format!("c/x{number}@v001"), vec![]);
    }
    let chain = of(&mut catalog, "a/x0@v001");
    assert_eq!(chain.members.len(), 65);
    assert_eq!(chain.missing.iter().map(|missing| missing.why).collect::<Vec<_>>(), [Lack::TooMany]);
    let crowd = of(&mut catalog, "b/all@v001");
    assert_eq!((crowd.members.len(), crowd.missing.len()), (MAX_CLOSURE_VERSIONS, 1));
}

proptest! {
    #[test]
    fn any_graph_has_a_closure_in_which_inputs_that_are_no_cycle_come_first(
        edges in prop::collection::vec(prop::collection::vec(0..12usize, 0..4), 12), is_acyclic: bool,
    ) {
        let name = |index: usize| format!("a/x{index}@v001");
        let mut catalog = Catalog::default();
        let mut all = Vec::new();
        for (from, edges) in edges.iter().enumerate() {
            let inputs: Vec<usize> = edges.iter().copied().filter(|to| !is_acyclic || *to > from).collect();
            let known = KnownVersion {
                inputs: Some(inputs.iter().map(|to| name(*to)).collect()), ..KnownVersion::default()
            };
            catalog.versions.insert(id(&name(from)), known);
            all.push(inputs);
        }
        let found = of(&mut catalog, &name(0));
        let order: Vec<VersionId> = found.members.iter().map(|member| member.version.clone()).collect();
        let place = |index: usize| order.iter().position(|version| *version == id(&name(index)));
        let unique: BTreeSet<&VersionId> = order.iter().collect();
        prop_assert_eq!(unique.len(), order.len());
        for (from, inputs) in all.iter().enumerate() {
            let Some(at) = place(from) else { continue };
            for to in inputs {
                let input = place(*to);
                prop_assert!(input.is_some(), "{} is missing", to);
                prop_assert!(!is_acyclic || input < Some(at), "{} after {}", to, from);
            }
        }
    }
}
