//! What holds for every document, version, node and time.

use std::collections::BTreeSet;

use proptest::{prelude::*, sample::Index, strategy::ValueTree as _};

use super::{
    DAY_MS, Version, at,
    model::{GROUPS, Model, NODES, SITES, models, versions},
};
use crate::{
    id::NodeId,
    policy::{Criteria, Field, Keep, NotKnownYet, Now, Policy, Problem, Ruling, Studio},
};

fn nodes() -> Vec<NodeId> {
    NODES.iter().map(|node| node.parse().unwrap()).collect()
}

/// Takes away what makes a random document refused, until it is not.
pub(super) fn accepted(mut model: Model) -> (Model, Policy) {
    loop {
        let text = model.to_toml(GROUPS[0]);
        let refused = match Policy::parse(&text) {
            Ok(policy) => return (model, policy),
            Err(refused) => refused,
        };
        let problem = &refused.problems[0];
        match rule_of(&text, problem).filter(|_| is_dead(problem)) {
            Some(index) => drop(model.rules.remove(index)),
            None => {
                assert!(is_copies(problem), "{problem} in {text}");
                model.min_copies = 1;
                model.rules.iter_mut().for_each(|rule| rule.min_copies = rule.min_copies.map(|_| 1));
            }
        }
    }
}

fn is_dead(problem: &Problem) -> bool {
    problem.reason.contains("can never apply")
}

fn is_copies(problem: &Problem) -> bool {
    problem.reason.contains("`min_copies` is")
}

/// Returns which rule stands around a problem's line; `None` for the defaults.
fn rule_of(text: &str, problem: &Problem) -> Option<usize> {
    let lines = text.lines().take(usize::try_from(problem.line).unwrap());
    lines.filter(|line| *line == "[[rule]]").count().checked_sub(1)
}

fn problems(text: &str, studio: Option<&Studio>) -> Vec<Problem> {
    Policy::check(text, studio).map_or_else(|refused| refused.problems, |_| Vec::new())
}

fn times() -> impl Strategy<Value = u64> {
    0..12 * DAY_MS
}

/// A ruling without what depends on lines and time.
fn timeless(ruling: Result<Ruling, NotKnownYet>) -> Result<Ruling, String> {
    ruling
        .map(|ruling| Ruling { next_change_ms: None, because: None, copies_because: None, ..ruling })
        .map_err(|error| error.fact)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_first_rule_that_matches_wins_at_every_node(model in models(), version in versions(), now in times()) {
        let (model, policy) = accepted(model);
        for node in nodes() {
            let found = policy.decide(&node, &version.facts(), at(now));
            let expected = (model.winner(&node, &version, now), model.copies(&version, now));
            let (Ok(winner), Ok(copies)) = expected else {
                prop_assert!(found.is_err(), "{found:?}");
                continue;
            };
            let found = found.unwrap();
            let name = |index: Option<usize>| index.map(|index| index.to_string());
            prop_assert_eq!(found.because.map(|rule| rule.name.to_string()), name(winner));
            prop_assert_eq!(found.copies_because.map(|rule| rule.name.to_string()), name(copies));
            prop_assert_eq!(found.keep, winner.map_or(model.keep, |index| model.rules[index].keep));
            let copies = copies.and_then(|index| model.rules[index].min_copies);
            prop_assert_eq!(found.min_copies, copies.unwrap_or(model.min_copies));
        }
    }

    #[test]
    fn asking_twice_and_explaining_give_the_same(model in models(), version in versions(), now in times()) {
        let (_, policy) = accepted(model);
        for node in nodes() {
            let ruling = policy.decide(&node, &version.facts(), at(now));
            prop_assert_eq!(&policy.decide(&node, &version.facts(), at(now)), &ruling);
            let explained = policy.explain(&node, &version.facts(), at(now));
            prop_assert_eq!(&explained.ruling, &ruling);
            if let Ok(Ruling { because: Some(rule), .. }) = ruling {
                prop_assert_eq!(explained.tried.last().map(|tried| tried.line), Some(rule.line));
            }
        }
    }

    #[test]
    fn a_rule_that_is_reported_dead_never_wins_and_gives_no_minimum(
        model in models(), versions in prop::collection::vec(versions(), 20), now in times()
    ) {
        let text = model.to_toml(GROUPS[0]);
        for problem in problems(&text, None).iter().filter(|problem| is_dead(problem)) {
            let dead = rule_of(&text, problem);
            for version in &versions {
                prop_assert_ne!(model.copies(version, now), Ok(dead), "{}", problem);
                for node in nodes() {
                    prop_assert_ne!(model.winner(&node, version, now), Ok(dead), "{}", problem);
                }
            }
        }
    }

    #[test]
    fn a_minimum_that_is_reported_is_never_reached_by_the_policy(
        model in models(), versions in prop::collection::vec(versions(), 20), now in times(), known in any::<bool>()
    ) {
        // Sites that no rule names stand for those of a studio of which nothing is known.
        let studio = Studio::of_sites(SITES.iter().map(|site| site.parse().unwrap()));
        let text = model.to_toml(GROUPS[0]);
        for problem in problems(&text, known.then_some(&studio)).iter().filter(|problem| is_copies(problem)) {
            let rule = rule_of(&text, problem);
            let wanted = rule.map_or(model.min_copies, |index| model.rules[index].min_copies.unwrap());
            for version in versions.iter().filter(|version| model.copies(version, now) == Ok(rule)) {
                let keeps = |node: &NodeId| match model.winner(node, version, now) {
                    Ok(winner) => winner.map_or(model.keep, |index| model.rules[index].keep) == Keep::Here,
                    Err(()) => false,
                };
                let sites: BTreeSet<_> =
                    nodes().into_iter().filter(|node| keeps(node)).map(|node| node.site).collect();
                prop_assert!(sites.len() < wanted as usize, "{} {:?}", problem, sites);
            }
        }
    }

    #[test]
    fn the_order_of_groups_and_of_what_they_name_does_not_matter(
        model in models(), version in versions(), now in times()
    ) {
        let (mut model, one) = accepted(model);
        model.rules.iter_mut().for_each(|rule| rule.places.reverse());
        let other = Policy::parse(&model.to_toml(GROUPS[1])).unwrap();
        for node in nodes() {
            let ruling = |policy: &Policy| policy.decide(&node, &version.facts(), at(now));
            prop_assert_eq!(ruling(&one), ruling(&other));
        }
    }

    #[test]
    fn nothing_changes_before_the_next_change(
        model in models(), version in versions(), now in times(), part in 0.0..1.0f64
    ) {
        let (_, policy) = accepted(model);
        for node in nodes() {
            let decide = |now: Now| policy.decide(&node, &version.facts(), now);
            let Ok(ruling) = decide(at(now)) else { continue };
            prop_assert!(ruling.next_change_ms.is_none_or(|next| next > now));
            let until = ruling.next_change_ms.unwrap_or(now + 30 * DAY_MS);
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "small")]
            let between = now + ((until - 1 - now) as f64 * part) as u64;
            for later in [between, until - 1] {
                let (before, after) = (timeless(Ok(ruling.clone())), timeless(decide(at(later))));
                prop_assert_eq!(before, after, "{} {}", now, later);
            }
        }
    }

    #[test]
    fn a_match_that_is_widened_never_matches_less(
        model in models(), version in versions(), now in times(), pick in any::<Index>()
    ) {
        let (_, policy) = accepted(model);
        for rule in policy.rules() {
            let before = rule.criteria.matches(&version.facts(), now);
            for wider in widened(&rule.criteria, pick) {
                let after = wider.matches(&version.facts(), now);
                prop_assert!(before != Some(true) || after == Some(true), "{:?} {:?}", rule.criteria, wider);
            }
        }
    }

    #[test]
    fn what_follows_and_what_excludes_is_never_wrong(
        model in models(), versions in prop::collection::vec(versions(), 10), now in times()
    ) {
        let (_, policy) = accepted(model);
        let all: Vec<&Criteria> = policy.rules().iter().map(|rule| &rule.criteria).collect();
        for (one, other, version) in all.iter().flat_map(|one| all.iter().map(move |other| (one, other)))
            .flat_map(|(one, other)| versions.iter().map(move |version| (one, other, version)))
        {
            let matches = |criteria: &Criteria| criteria.matches(&version.facts(), now) == Some(true);
            prop_assert!(!one.implies(other) || !matches(one) || matches(other));
            prop_assert!(!one.excludes(other) || !matches(one) || !matches(other));
        }
    }

    #[test]
    fn a_policy_that_is_written_out_again_is_the_same(model in models()) {
        let (_, policy) = accepted(model);
        let again = Policy::parse(&written(&policy)).unwrap();
        prop_assert_eq!(written(&again), written(&policy));
        prop_assert_eq!(again.rules().len(), policy.rules().len());
        for (again, before) in again.rules().iter().zip(policy.rules()) {
            prop_assert_eq!((&again.criteria, again.keep, &again.when), (&before.criteria, before.keep, &before.when));
            prop_assert_eq!((again.min_copies, &again.places.nodes), (before.min_copies, &before.places.nodes));
        }
    }

    #[test]
    fn no_text_makes_it_panic(
        text in "(\\[\\[rule\\]\\]|\\[groups\\]|[a-z]{1,5}|match|sites|=|\\{|\\}|\\[|\\]|\"[@*a-z]{0,4}\"|[0-9]|\n| |\\PC){0,60}",
        model in models(), from in any::<Index>(), length in 0..40usize
    ) {
        problems(&text, None);
        problems(&format!("schema = \"avalon.policy/1\"\n{text}"), Some(&Studio::default()));
        // A document with a piece cut out.
        let whole: Vec<char> = model.to_toml(GROUPS[0]).chars().collect();
        let from = from.index(whole.len());
        let cut: String = whole[..from].iter().chain(whole.iter().skip(from + length)).collect();
        problems(&cut, Some(&Studio::default()));
    }
}

/// Criteria that ask for less: one thing dropped, one list longer, one number larger.
fn widened(criteria: &Criteria, pick: Index) -> Vec<Criteria> {
    let mut wider = vec![
        Criteria { hero: None, ..criteria.clone() },
        Criteria { latest: criteria.latest.map(|latest| latest + 1), ..criteria.clone() },
        Criteria { older_than: None, ..criteria.clone() },
        Criteria { younger_than: None, ..criteria.clone() },
    ];
    let fields: Vec<Field> = criteria.fields.keys().cloned().collect();
    if !fields.is_empty() {
        let field = pick.get(&fields);
        let (mut dropped, mut longer) = (criteria.clone(), criteria.clone());
        dropped.fields.remove(field);
        let other = criteria.fields.values().next_back().unwrap().clone();
        longer.fields.get_mut(field).unwrap().extend(other);
        wider.extend([dropped, longer]);
    }
    wider
}

/// Writes a policy as a document, groups resolved.
fn written(policy: &Policy) -> String {
    let defaults = policy.defaults();
    let mut text = format!(
        "schema = \"avalon.policy/1\"\n[defaults]\nkeep = \"{}\"\nmin_copies = {}\n",
        defaults.keep, defaults.min_copies
    );
    let list =
        |words: Vec<String>| words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
    for rule in policy.rules() {
        text.push_str(&format!("[[rule]]\nname = {:?}\nkeep = \"{}\"\n", rule.name, rule.keep));
        let mut places: Vec<String> = rule.places.everywhere.then(|| "*".to_owned()).into_iter().collect();
        places.extend(rule.places.sites.iter().map(ToString::to_string));
        places.extend(rule.places.nodes.iter().map(ToString::to_string));
        text.push_str(&format!("sites = [{}]\n", list(places)));
        text.extend(rule.min_copies.map(|copies| format!("min_copies = {copies}\n")));
        if let Some(when) = &rule.when {
            text.push_str(&format!("when = [{}]\n", list(when.0.iter().map(ToString::to_string).collect())));
        }
        text.push_str("[rule.match]\n");
        for (field, globs) in &rule.criteria.fields {
            let field = field.to_string().replace(' ', ".");
            text.push_str(&format!(
                "{field} = [{}]\n",
                list(globs.iter().map(ToString::to_string).collect())
            ));
        }
        text.extend(rule.criteria.hero.map(|hero| format!("hero = {hero}\n")));
        text.extend(rule.criteria.latest.map(|latest| format!("latest = {latest}\n")));
        text.extend(rule.criteria.older_than.map(|age| format!("older_than = \"{age}\"\n")));
        text.extend(rule.criteria.younger_than.map(|age| format!("younger_than = \"{age}\"\n")));
    }
    text
}

#[test]
fn random_documents_are_of_all_kinds() {
    // The properties above say nothing unless documents are taken, dead rules found and minimums refused now and then.
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let (mut taken, mut dead, mut copies, mut known) = (0, 0, 0, 0);
    for _ in 0..300 {
        let tree = |runner: &mut _| models().new_tree(runner).unwrap().current();
        let model = tree(&mut runner);
        let version: Version = versions().new_tree(&mut runner).unwrap().current();
        let found = problems(&model.to_toml(GROUPS[0]), None);
        taken += usize::from(found.is_empty() && model.rules.len() > 2);
        dead += usize::from(found.iter().any(is_dead));
        copies += usize::from(found.iter().any(is_copies));
        known += usize::from(matches!(model.winner(&nodes()[0], &version, 0), Ok(Some(_))));
    }
    assert!(taken > 20 && dead > 20 && copies > 20 && known > 20, "{taken} {dead} {copies} {known}");
}
