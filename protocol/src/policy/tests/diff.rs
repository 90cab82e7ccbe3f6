//! What another policy would change: by example, and against counting by hand.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{prelude::*, sample::select};

use super::{
    DAY_MS, Version, at,
    model::{NODES, models, versions},
    properties::accepted,
};
use crate::{
    id::{NodeId, SiteName, VersionId, VersionSlot},
    mode::ProjectMode::{Mirror, OnDemand},
    policy::{Amount, Copying, Diff, MOST_NAMED, Member, Policy, SiteDiff, Totals, Whereabouts},
};

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn site(name: &str) -> SiteName {
    name.parse().unwrap()
}

fn policy(rules: &str) -> Policy {
    let text =
        format!("schema = \"avalon.policy/1\"\n[defaults]\nkeep = \"on-demand\"\nmin_copies = 1\n{rules}");
    Policy::parse(&text).unwrap()
}

fn rule(name: &str, matches: &str, sites: &str, keep: &str) -> String {
    format!("[[rule]]\nname = {name:?}\nmatch = {{ {matches} }}\nsites = [{sites}]\nkeep = {keep:?}\n")
}

const ALL: &str = "project = \"*\"";

/// London and montreal have servers that mirror, and london a workstation; of the archive's server nothing is known.
fn studio() -> Vec<Member> {
    let members =
        [("srv@london", Some(Mirror)), ("ws1@london", Some(OnDemand)), ("srv@montreal", Some(Mirror))];
    let members = members.into_iter().chain([("srv@archive", None)]);
    members.map(|(name, mode)| Member { node: node(name), mode }).collect()
}

fn version(asset: &str, number: u32) -> Version {
    Version {
        id: VersionId {
            project: "lantern".parse().unwrap(),
            asset: asset.parse().unwrap(),
            subset: "rig".parse().unwrap(),
            slot: VersionSlot::Number(number),
        },
        rank: 0,
        representations: Vec::new(),
        author: "anna".into(),
        published_at_ms: 0,
        silo: None,
        metadata: BTreeMap::new(),
        manifest_is_here: false,
    }
}

fn held_by(holders: &[&str]) -> Whereabouts {
    let holders = holders.iter().map(|name| node(name)).collect();
    Whereabouts { bytes: 100, holders, ..Whereabouts::default() }
}

fn totals(before: Option<&Policy>, after: &Policy, all: &[(Version, Whereabouts)]) -> Totals {
    of_members(before, after, studio(), all)
}

fn of_members(
    before: Option<&Policy>,
    after: &Policy,
    members: Vec<Member>,
    all: &[(Version, Whereabouts)],
) -> Totals {
    let mut diff = Diff::new(before, after);
    let crew = diff.crew(members);
    for (version, whereabouts) in all {
        let judged = diff.judge(&crew, &version.facts(), whereabouts, at(7 * DAY_MS));
        diff.add(&crew, &version.id, whereabouts, judged);
    }
    diff.finish()
}

fn amount(versions: u64) -> Amount {
    Amount { versions, bytes: versions * 100 }
}

fn copying(totals: &Totals, name: &str) -> [u64; 3] {
    let Copying { to_copy, anyway, no_longer } = totals.sites[&site(name)].copying;
    [to_copy, anyway, no_longer].map(|amount| {
        assert_eq!(amount.bytes, amount.versions * 100);
        amount.versions
    })
}

#[test]
fn what_comes_to_a_site_is_told_beside_what_comes_anyway_and_what_comes_no_longer() {
    let before = policy(&rule("a", ALL, "\"london\", \"montreal\"", "here"));
    let after = policy(&rule("b", ALL, "\"london\", \"archive\"", "here"));
    let all =
        [(version("robot", 1), held_by(&["srv@london"])), (version("robot", 2), held_by(&["ws1@london"]))];
    let totals = totals(Some(&before), &after, &all);
    assert_eq!(totals.looked_at, amount(2));
    assert_eq!(copying(&totals, "archive"), [2, 0, 0], "its server is taken for one that mirrors");
    assert_eq!(copying(&totals, "montreal"), [0, 0, 2]);
    assert_eq!(copying(&totals, "london"), [0, 0, 0], "the workstation has it");
    let server = totals.nodes[&node("srv@london")];
    assert_eq!((server.to_copy, server.anyway), (amount(1), amount(1)), "and its server not");
    let named: Vec<String> = totals.nodes.keys().map(ToString::to_string).collect();
    assert_eq!(named, ["srv@london", "srv@montreal"], "nobody knows which node of the archive it is");
}

#[test]
fn without_a_policy_the_modes_say_what_comes() {
    let after = policy(&rule("b", ALL, "\"london\"", "here"));
    let totals = totals(None, &after, &[(version("robot", 1), held_by(&["ws1@london"]))]);
    assert_eq!((copying(&totals, "montreal"), copying(&totals, "archive")), ([0, 0, 1], [0, 0, 1]));
    assert_eq!(totals.free.now, amount(0), "nothing is removed without one");
    // The rule keeps what london holds; only what nobody keeps could go.
    assert_eq!(totals.free.then, amount(0));
}

#[test]
fn a_workstation_takes_what_names_it_and_a_paused_window_is_only_later() {
    let named = format!("{}when = [\"sat\"]\n", rule("a", ALL, "\"ws1@london\"", "here"));
    let after = policy(&named);
    let totals = totals(None, &after, &[(version("robot", 1), held_by(&["srv@montreal"]))]);
    assert_eq!(totals.nodes[&node("ws1@london")].to_copy, amount(1));
    assert_eq!(copying(&totals, "london"), [1, 1, 0], "its server has it coming now");
    assert_eq!(totals.nodes[&node("srv@london")].no_longer, amount(1));
}

#[test]
fn who_holds_an_older_generation_takes_the_newest_unless_it_may_not() {
    let (demand, never) = (policy(""), policy(&rule("no", ALL, "\"montreal\"", "never")));
    let whereabouts = Whereabouts { older: [node("srv@montreal")].into(), ..held_by(&["srv@london"]) };
    let all = [(version("robot", 1), whereabouts)];
    assert_eq!(copying(&totals(Some(&demand), &never, &all), "montreal"), [0, 0, 1]);
    assert_eq!(copying(&totals(None, &demand, &all), "montreal"), [1, 1, 0]);
}

#[test]
fn what_could_be_freed_leaves_the_minimum_at_other_sites() {
    let demand = policy("");
    let all = [(version("robot", 1), held_by(&["srv@london", "ws1@london", "srv@montreal"]))];
    let free = |after: &Policy, name: &str| {
        let totals = totals(None, after, &all);
        let SiteDiff { free, .. } = totals.sites[&site(name)];
        (free.then, totals.free.then)
    };
    // Alone, either site could empty itself; together, one copy stays.
    assert_eq!(free(&demand, "london"), (amount(2), amount(2)));
    assert_eq!(free(&demand, "montreal"), (amount(1), amount(2)));
    let two = policy(&format!("{}min_copies = 2\n", rule("two", ALL, "\"archive\", \"montreal\"", "here")));
    assert_eq!(free(&two, "london"), (amount(2), amount(2)), "the archive gets its copy before");
    assert_eq!(free(&two, "montreal"), (amount(0), amount(2)));
    let eight = policy(&format!("{}keep_last = 8\n", rule("eight", ALL, "\"london\"", "on-demand")));
    assert_eq!(free(&eight, "london").0, amount(0), "protected");
}

#[test]
fn too_few_copies_and_versions_that_nobody_keeps_are_named_with_the_rule() {
    let before = policy(&rule("a", ALL, "\"london\", \"montreal\"", "here"));
    let rules = [
        format!("{}min_copies = 2\n", rule("two", "asset = \"robot\"", "\"london\", \"tokyo\"", "here")),
        rule("rest", "asset = \"sh*\"", "\"montreal\"", "here"),
    ];
    let after = policy(&rules.concat());
    let all = [("robot", 1), ("sh010", 1), ("prop", 1)]
        .map(|(asset, number)| (version(asset, number), held_by(&["srv@london"])));
    let totals = totals(Some(&before), &after, &all);
    assert_eq!((totals.under_replicated.then, totals.under_replicated.now), (amount(1), amount(0)));
    let ((already, id), case) = totals.under_replicated.first.first_key_value().unwrap();
    assert_eq!((*already, id.to_string().as_str()), (false, "lantern:robot/rig@v001"));
    assert_eq!((case.copies, case.min_copies), (1, 2), "nobody is known at tokyo");
    assert_eq!(case.rule.as_ref().unwrap().to_string(), "two (line 5)");
    let nowhere = &totals.kept_nowhere;
    assert_eq!((nowhere.then, nowhere.now, nowhere.first.len()), (amount(1), amount(0), 1));
    assert!(nowhere.first.keys().all(|(_, id)| id.asset.as_str() == "prop"));
}

#[test]
fn what_is_not_known_or_in_conflict_is_counted_apart() {
    let after = policy(&rule("rigs", "family = \"rig\"", "\"montreal\"", "here"));
    let conflict = Whereabouts { is_conflict: true, ..held_by(&["srv@london"]) };
    let mut known = version("robot", 2);
    known.manifest_is_here = true;
    let all = [(version("robot", 1), held_by(&["srv@london"])), (known, conflict)];
    let totals = totals(None, &after, &all);
    assert_eq!((totals.not_known.then, totals.not_known.now, totals.conflicts), (amount(1), amount(0), 1));
    let case = totals.not_known.first.values().next().unwrap();
    assert_eq!(case.rule.as_ref().unwrap().to_string(), "rigs (line 5)");
    assert_eq!(copying(&totals, "montreal"), [0, 0, 0]);
    assert_eq!(totals.kept_nowhere.then, amount(0));
}

#[test]
fn names_are_few_and_what_is_new_comes_first() {
    let before = policy(&rule("a", "asset = \"z*\"", "\"london\"", "here"));
    let after = policy("");
    let all: Vec<_> = (1..=30)
        .flat_map(|number| ["a", "z"].map(|asset| (version(asset, number), held_by(&["srv@london"]))))
        .collect();
    let totals = totals(Some(&before), &after, &all);
    let first = &totals.kept_nowhere.first;
    assert_eq!((totals.kept_nowhere.then, totals.kept_nowhere.now), (amount(60), amount(30)));
    assert_eq!(first.len(), MOST_NAMED);
    assert!(first.keys().all(|(already, id)| !already && id.asset.as_str() == "z"), "{first:?}");
}

/// Versions with holders, and the members of a project with modes that are known or not.
fn placed() -> impl Strategy<Value = (Version, Whereabouts)> {
    let nodes = || prop::collection::btree_set(select(NODES.to_vec()).prop_map(node), 0..5);
    (versions(), nodes(), nodes(), prop::bool::weighted(0.1), 1..1000u64).prop_map(
        |(version, holders, mut older, is_conflict, bytes)| {
            older.retain(|node| !holders.contains(node));
            (version, Whereabouts { bytes, holders, older, is_conflict, is_retired: false })
        },
    )
}

fn crews(unknown: f64) -> impl Strategy<Value = Vec<Member>> {
    let mode = prop::option::weighted(1.0 - unknown, select(vec![Mirror, OnDemand]));
    prop::collection::vec(mode, NODES.len()).prop_map(|modes| {
        let members = NODES.iter().zip(modes);
        members.map(|(name, mode)| Member { node: node(name), mode }).collect()
    })
}

/// As real ones, versions have ids of their own.
fn apart(all: Vec<(Version, Whereabouts)>) -> Vec<(Version, Whereabouts)> {
    let mut seen = BTreeSet::new();
    all.into_iter().filter(|(version, _)| seen.insert(version.id.clone())).collect()
}

/// The most copies that can go, by trying all ways: those of `sites` only.
fn most_removed(
    policy: &Policy,
    version: &Version,
    whereabouts: &Whereabouts,
    sites: Option<&SiteName>,
) -> u64 {
    let (facts, now) = (version.facts(), at(7 * DAY_MS));
    let rulings = |node: &NodeId| policy.decide(node, &facts, now).unwrap();
    let holders: Vec<&NodeId> = whereabouts.holders.iter().collect();
    let coming = of_members(None, policy, mirrors(), &[(version.clone(), whereabouts.clone())]);
    let coming: BTreeSet<&SiteName> = coming
        .nodes
        .iter()
        .filter(|(_, copying)| copying.to_copy.versions > 0)
        .map(|(node, _)| &node.site)
        .collect();
    let left = |ways: usize| -> BTreeSet<&SiteName> {
        let stays = holders.iter().enumerate().filter(|(index, _)| ways >> index & 1 == 0);
        stays.map(|(_, node)| &node.site).chain(coming.iter().copied()).collect()
    };
    let least = left(0).len().min(rulings(&node("n1@x")).min_copies as usize);
    (0..1 << holders.len())
        .filter(|ways| {
            let goes = holders.iter().enumerate().filter(|(index, _)| ways >> index & 1 == 1);
            let mut goes = goes.map(|(_, node)| *node);
            goes.all(|node| {
                rulings(node).may_be_removed(&facts) && sites.is_none_or(|site| *site == node.site)
            }) && left(*ways).len() >= least
        })
        .map(|ways: usize| u64::from(ways.count_ones()))
        .max()
        .unwrap_or_default()
}

fn mirrors() -> Vec<Member> {
    NODES.iter().map(|name| Member { node: node(name), mode: Some(Mirror) }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn the_same_policy_changes_nothing(
        model in models(), all in prop::collection::vec(placed(), 0..30), members in crews(0.3)
    ) {
        let (_, policy) = accepted(model);
        let totals = of_members(Some(&policy), &policy, members, &apart(all));
        for copying in totals.sites.values().map(|site| site.copying).chain(totals.nodes.values().copied()) {
            prop_assert_eq!((copying.to_copy, copying.no_longer), (copying.anyway, Amount::default()));
        }
        for free in totals.sites.values().map(|site| site.free).chain([totals.free]) {
            prop_assert_eq!(free.then, free.now);
        }
        for listed in [&totals.under_replicated, &totals.kept_nowhere, &totals.not_known] {
            prop_assert_eq!(listed.then, listed.now);
            prop_assert!(listed.first.keys().all(|(already, _)| *already));
        }
    }

    #[test]
    fn totals_do_not_depend_on_the_order(
        (before, after) in (prop::option::of(models()), models()),
        (all, turned) in prop::collection::vec(placed(), 0..60)
            .prop_map(apart)
            .prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
        members in crews(0.3),
    ) {
        let (before, after) = (before.map(|model| accepted(model).1), accepted(after).1);
        let one = of_members(before.as_ref(), &after, members.clone(), &all);
        prop_assert_eq!(one, of_members(before.as_ref(), &after, members, &turned));
    }

    #[test]
    fn when_all_is_copied_nothing_is_to_copy(
        model in models(), (version, mut whereabouts) in placed(), members in crews(0.3)
    ) {
        let (_, policy) = accepted(model);
        let known = |member: Member| Member { mode: member.mode.or(Some(OnDemand)), ..member };
        let members: Vec<Member> = members.into_iter().map(known).collect();
        let first = of_members(None, &policy, members.clone(), &[(version.clone(), whereabouts.clone())]);
        let comes = first.nodes.iter().filter(|(_, copying)| copying.to_copy.versions > 0);
        whereabouts.holders.extend(comes.map(|(node, _)| node.clone()));
        whereabouts.older.retain(|node| !whereabouts.holders.contains(node));
        let then = of_members(None, &policy, members, &[(version, whereabouts)]);
        prop_assert!(then.sites.values().all(|site| site.copying.to_copy.versions == 0), "{:?}", then);
        prop_assert!(then.nodes.values().all(|copying| copying.to_copy.versions == 0), "{:?}", then);
    }

    #[test]
    fn what_could_be_freed_is_the_most_that_leaves_the_minimum(model in models(), (version, whereabouts) in placed()) {
        let (_, policy) = accepted(model);
        let totals = of_members(None, &policy, mirrors(), &[(version.clone(), whereabouts.clone())]);
        prop_assume!(totals.not_known.then.versions == 0 && !whereabouts.is_conflict);
        prop_assert_eq!(totals.free.then.versions, most_removed(&policy, &version, &whereabouts, None));
        for (name, site) in &totals.sites {
            let most = most_removed(&policy, &version, &whereabouts, Some(name));
            prop_assert_eq!(site.free.then.versions, most, "{}", name);
        }
    }
}
