//! What an extract says, and what it does not.

use proptest::{prelude::*, sample::select};

use super::{
    DAY_MS, at,
    model::{GROUPS, NODES, models, versions},
    properties::accepted,
};
use crate::{
    access::{Action, Role},
    id::{NodeId, ProjectName},
    policy::Policy,
};

const GRANTED: [&str; 6] = ["a", "b", "ab", "a*", "*b", "*"];
const NAMES: [&str; 5] = ["a", "b", "ab", "ba", "abb"];
const TO: [&str; 9] = ["role:vendor", "role:site", "role:farm", "x", "n1@y", "n2@z", "@g", "@h", "*"];

fn quoted(words: &[&str]) -> String {
    words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")
}

fn grants() -> impl Strategy<Value = String> {
    let some = |of: &'static [&'static str]| prop::collection::vec(select(of), 1..3);
    let actions: Vec<&str> = Action::ALL.into_iter().map(Action::as_str).collect();
    let grant = (some(&TO), some(&GRANTED), select(actions), prop::option::weighted(0.3, 1..6u32));
    let grant = grant.prop_map(|(to, projects, action, until)| {
        let until = until.map_or(String::new(), |day| format!("until = 1970-01-{day:02}\n"));
        let (to, projects) = (quoted(&to), quoted(&projects));
        format!("[[grant]]\nto = [{to}]\nprojects = [{projects}]\nactions = {action:?}\n{until}")
    });
    let roles = select(vec!["", "[roles]\nvendor = [\"n1@x\"]\nfarm = [\"@h\"]\n"]);
    (prop::collection::vec(grant, 0..4), roles).prop_map(|(grants, roles)| grants.concat() + roles)
}

fn nodes() -> impl Iterator<Item = NodeId> {
    NODES.iter().map(|node| node.parse().unwrap())
}

fn named(name: &str) -> ProjectName {
    name.parse().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn an_extract_comes_to_the_same_for_what_its_reader_may_see(
        model in models(), grants in grants(), version in versions(), now in 0..8 * DAY_MS,
        reader in select(NODES.to_vec()), role in select(Role::ALL.to_vec()),
    ) {
        let (model, _) = accepted(model);
        let document = model.to_toml(GROUPS[0]) + &grants;
        let policy = Policy::parse(&document).unwrap();
        let reader: NodeId = reader.parse().unwrap();
        let text = policy.extract(&reader, role, now).unwrap();
        let extract = Policy::parse_extract(&text).unwrap();
        let sees = |name: &str| policy.access().rights(&reader, role, &named(name), now).allows(Action::See);
        for name in NAMES.into_iter().filter(|name| sees(name)) {
            for (node, role) in nodes().flat_map(|node| Role::ALL.map(|role| (node.clone(), role))) {
                // Also at another time: records are judged by when they were made.
                for at_ms in [0, now, 9 * DAY_MS] {
                    let [whole, part] = [&policy, &extract].map(|one| one.access().rights(&node, role, &named(name), at_ms));
                    prop_assert_eq!(whole, part, "{} as {} in {} by\n{}\nof\n{}", node, role, name, text, document);
                }
            }
        }
        if sees(version.id.project.as_str()) {
            for node in nodes() {
                let [whole, part] = [&policy, &extract].map(|one| {
                    let ruling = one.decide(&node, &version.facts(), at(now));
                    // Names differ, and lines are those of the policy.
                    ruling.map(|ruling| {
                        let lines = [&ruling.because, &ruling.copies_because].map(|rule| rule.as_ref().map(|rule| rule.line));
                        (lines, ruling.keep, ruling.named, ruling.min_copies, ruling.open_now, ruling.next_change_ms)
                    })
                });
                let is_reader = node == reader;
                prop_assert!(whole.is_ok() == part.is_ok() || !is_reader);
                if let (Ok(whole), Ok(part)) = (whole, part) {
                    // What others keep does not concern it. How many copies there must be is the same at all nodes.
                    prop_assert_eq!((whole.0[1], whole.3), (part.0[1], part.3), "{}\nof\n{}", text, document);
                    prop_assert!(!is_reader || whole == part, "{}\nof\n{}", text, document);
                }
            }
        }
    }

    #[test]
    fn an_extract_names_no_project_that_its_reader_may_not_see(
        granted in prop::collection::vec(select(vec!["zebra", "zulu", "z*", "*x", "quartz", "*u*", "qu?rtz"]), 1..3),
        ruled in prop::collection::vec(select(vec!["zebra", "zulu", "onyx", "quartz", "quiz", "q*z", "z*", "*", "*lu", "o*"]), 1..4),
        others in prop::collection::vec(select(vec!["zebra", "onyx", "quiz", "*"]), 1..3),
    ) {
        let all = ["zebra", "zulu", "onyx", "quartz", "quiz"];
        let rules: String = ruled.iter().enumerate().map(|(index, glob)| format!(
            "# the rule of {glob}, as for onyx\n[[rule]] # quiz\nname = \"{index}: {glob}, quiz and zulu\"\n\
             match = {{ project = [{glob:?}, \"zulu\"], asset = \"robot{index}\" }}\nsites = \"@quartz\"\nkeep = \"here\"\n\
             [[check]]\nmatch = {{ project = {glob:?} }}\noff = \"*\"\n"
        )).collect();
        let document = format!(
            "# zebra, zulu, onyx, quartz and quiz\nschema = \"avalon.policy/1\"\n[groups]\nquartz = [\"london\"]\nonyx = [\"@quartz\"]\n\
             [defaults] # not for quiz\nkeep = \"on-demand\"\nmin_copies = 1\n{rules}\
             [[grant]]\nto = \"@onyx\"\nprojects = [{}]\nactions = \"pull\"\n\
             [[grant]] # zulu\nto = \"ws1@van\"\nprojects = [{}]\nactions = \"see\"\n",
            quoted(&others), quoted(&granted)
        );
        let policy = Policy::parse(&document).unwrap();
        let reader: NodeId = "ws1@van".parse().unwrap();
        let text = policy.extract(&reader, Role::Vendor, 0).unwrap();
        for name in all {
            let sees = policy.access().rights(&reader, Role::Vendor, &named(name), 0).allows(Action::See);
            prop_assert!(sees || !text.contains(name), "{name} in\n{text}\nof\n{document}");
        }
    }
}

#[test]
fn rules_that_concern_neither_its_reader_nor_its_projects_are_not_told() {
    let rule = |name: &str, matches: &str, sites: &str, more: &str| {
        format!(
            "[[rule]]\nname = \"{name}\"\nmatch = {{ {matches} }}\nsites = \"{sites}\"\nkeep = \"here\"\n{more}"
        )
    };
    let document = [
        "schema = \"avalon.policy/1\"\n[defaults]\nkeep = \"on-demand\"\nmin_copies = 1\n".to_owned(),
        rule("one", "asset = \"secret_*\"", "london", ""),
        rule("two", "asset = \"creature\", project = \"zebra\"", "van", ""),
        rule("three", "asset = \"robot\"", "van", ""),
        rule("four", "asset = \"final_*\"", "london", "min_copies = 1\n"),
        "[[grant]]\nto = \"van\"\nprojects = \"lantern\"\nactions = \"pull\"\n".to_owned(),
    ];
    let policy = Policy::parse(&document.concat()).unwrap();
    let text = policy.extract(&"ws1@van".parse().unwrap(), Role::Vendor, 0).unwrap();
    for left_out in ["secret_", "creature", "zebra"] {
        assert!(!text.contains(left_out), "{left_out} in\n{text}");
    }
    for told in ["robot", "final_", "project = [\"lantern\"]"] {
        assert!(text.contains(told), "{told} in\n{text}");
    }
}

#[test]
fn whoever_may_see_nothing_learns_the_defaults_and_that_there_are_grants() {
    let document = "schema = \"avalon.policy/1\"\n\n[defaults]\nkeep = \"here\"\nmin_copies = 2\n[[rule]]\nname = \"all\"\n\
                    match = { asset = \"robot\" }\nsites = \"*\"\nkeep = \"never\"\n[[grant]]\nto = \"london\"\nprojects = \"*\"\nactions = \"see\"\n";
    let policy = Policy::parse(document).unwrap();
    let text = policy.extract(&"ws1@van".parse().unwrap(), Role::Site, 0).unwrap();
    let expected = "schema = \"avalon.policy/1\"\n\n[defaults]\nkeep = \"here\"\nmin_copies = 2\n[[grant]]\nto = \"role:admin\"\nprojects = \"*\"\nactions = \"admin\"\n";
    assert_eq!(text, expected);
    let extract = Policy::parse_extract(&text).unwrap();
    let may = |node: &str| extract.access().rights(&node.parse().unwrap(), Role::Site, &named("a"), 0);
    assert_eq!(
        (may("ws1@van"), may("srv@london")),
        Default::default(),
        "not even by what a site may usually"
    );
}
