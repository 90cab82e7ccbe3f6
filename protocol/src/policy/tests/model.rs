//! A second, plain reading of the rules, and random documents and versions: what the code is compared with.

use proptest::{option, prelude::*, sample::select};

use super::{DAY_MS, Version};
use crate::{
    id::{NodeId, VersionId, VersionSlot},
    policy::Keep,
};

/// One rule as it is generated.
#[derive(Debug, Clone)]
pub(super) struct ModelRule {
    /// Names of fields, and the patterns for each.
    pub(super) fields: Vec<(&'static str, Vec<&'static str>)>,
    pub(super) hero: Option<bool>,
    pub(super) latest: Option<u32>,
    pub(super) older_days: Option<u64>,
    pub(super) younger_days: Option<u64>,
    pub(super) places: Vec<&'static str>,
    pub(super) keep: Keep,
    pub(super) min_copies: Option<u32>,
    pub(super) when: Option<&'static str>,
}

/// What is generated: rules over the groups of [`GROUPS`].
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) rules: Vec<ModelRule>,
    pub(super) keep: Keep,
    pub(super) min_copies: u32,
}

/// Groups in two orders that mean the same.
pub(super) const GROUPS: [&str; 2] = [
    "[groups]\ng = [\"x\", \"n1@y\"]\nh = [\"@g\", \"z\"]\n",
    "[groups]\nh = [\"z\", \"@g\"]\ng = [\"n1@y\", \"x\"]\n",
];
pub(super) const SITES: [&str; 4] = ["x", "y", "z", "w"];
pub(super) const NODES: [&str; 8] = ["n1@x", "n2@x", "n1@y", "n2@y", "n1@z", "n2@z", "n1@w", "n2@w"];
const PLACES: [&str; 9] = ["x", "y", "z", "n1@x", "n1@y", "n2@z", "*", "@g", "@h"];
const GLOBS: [&str; 8] = ["a", "b", "ab", "a*", "*b", "?", "a?", "*"];
const TEXTS: [&str; 5] = ["a", "b", "ab", "ba", "abb"];
const FIELDS: [&str; 8] =
    ["project", "silo", "asset", "subset", "representation", "family", "author", "metadata.task"];

pub(super) fn models() -> impl Strategy<Value = Model> {
    let rules = prop::collection::vec(rules(), 0..6);
    (rules, keeps(), 1..4u32).prop_map(|(rules, keep, min_copies)| Model { rules, keep, min_copies })
}

fn keeps() -> impl Strategy<Value = Keep> {
    select(vec![Keep::Here, Keep::OnDemand, Keep::Never])
}

fn rules() -> impl Strategy<Value = ModelRule> {
    let globs = prop::collection::vec(select(GLOBS.to_vec()), 1..3);
    let fields = prop::collection::btree_map(select(FIELDS.to_vec()), globs, 0..3);
    let numbers = (option::weighted(0.1, any::<bool>()), option::weighted(0.3, 1..4u32));
    let ages = (option::weighted(0.2, 1..4u64), option::weighted(0.2, 1..5u64));
    let places = prop::collection::vec(select(PLACES.to_vec()), 1..4);
    let when = option::weighted(0.3, select(vec!["sat,sun", "22:00-06:00", "mon 10:00-11:00"]));
    (fields, numbers, ages, places, keeps(), option::weighted(0.4, 1..5u32), when).prop_map(
        |(fields, (hero, latest), (older_days, younger_days), places, keep, min_copies, when)| ModelRule {
            fields: fields.into_iter().collect(),
            hero,
            latest: latest.filter(|_| hero != Some(true)),
            older_days: older_days.filter(|older| younger_days.is_none_or(|younger| *older < younger)),
            younger_days,
            places,
            keep,
            min_copies,
            when: when.filter(|_| keep == Keep::Here),
        },
    )
}

pub(super) fn versions() -> impl Strategy<Value = Version> {
    let text = || select(TEXTS.to_vec());
    let some = || option::weighted(0.8, text());
    let ids = (text(), text(), text(), text(), 0..6u32, any::<bool>());
    (
        ids,
        prop::collection::vec(text(), 0..3),
        0..6 * DAY_MS,
        (some(), some(), some()),
        prop::bool::weighted(0.85),
    )
        .prop_map(
            |(
                (project, asset, subset, author, rank, is_number),
                names,
                published_at_ms,
                (silo, family, task),
                here,
            )| Version {
                id: VersionId {
                    project: project.parse().unwrap(),
                    asset: asset.parse().unwrap(),
                    subset: subset.parse().unwrap(),
                    slot: if is_number || rank > 2 { VersionSlot::Number(9) } else { VersionSlot::Hero },
                },
                rank,
                representations: names.iter().map(|name| name.parse().unwrap()).collect(),
                author: author.to_owned(),
                published_at_ms,
                silo: silo.map(|silo| silo.parse().unwrap()),
                metadata: [("family", family), ("task", task)]
                    .into_iter()
                    .filter_map(|(key, value)| Some((key.to_owned(), value?.to_owned())))
                    .collect(),
                manifest_is_here: here,
            },
        )
}

impl Model {
    /// Writes it down; the names of the rules are their places in the list.
    pub(super) fn to_toml(&self, groups: &str) -> String {
        let head = format!("schema = \"avalon.policy/1\"\n{groups}[defaults]\nkeep = \"{}\"\n", self.keep);
        let rules: String = self.rules.iter().enumerate().map(|(index, rule)| rule.to_toml(index)).collect();
        format!("{head}min_copies = {}\n{rules}", self.min_copies)
    }

    /// Returns the rule that decides at a node; `Err` when that is not known.
    pub(super) fn winner(&self, node: &NodeId, version: &Version, now_ms: u64) -> Result<Option<usize>, ()> {
        self.first(version, now_ms, |rule| rule.names(node))
    }

    /// Returns the rule that gives the minimum.
    pub(super) fn copies(&self, version: &Version, now_ms: u64) -> Result<Option<usize>, ()> {
        self.first(version, now_ms, |rule| rule.min_copies.is_some())
    }

    fn first(
        &self,
        version: &Version,
        now_ms: u64,
        of: impl Fn(&ModelRule) -> bool,
    ) -> Result<Option<usize>, ()> {
        for (index, rule) in self.rules.iter().enumerate().filter(|(_, rule)| of(rule)) {
            match rule.matches(version, now_ms) {
                Some(true) => return Ok(Some(index)),
                Some(false) => {}
                None => return Err(()),
            }
        }
        Ok(None)
    }
}

impl ModelRule {
    fn to_toml(&self, index: usize) -> String {
        let quoted =
            |words: &[&str]| words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ");
        let mut wanted: Vec<String> =
            self.fields.iter().map(|(field, globs)| format!("{field} = [{}]", quoted(globs))).collect();
        wanted.extend(self.hero.map(|hero| format!("hero = {hero}")));
        wanted.extend(self.latest.map(|latest| format!("latest = {latest}")));
        wanted.extend(self.older_days.map(|days| format!("older_than = \"{days}d\"")));
        wanted.extend(self.younger_days.map(|days| format!("younger_than = \"{}h\"", days * 24)));
        if wanted.is_empty() {
            wanted.push("project = \"*\"".into());
        }
        let mut text = format!("[[rule]]\nname = \"{index}\"\nmatch = {{ {} }}\n", wanted.join(", "));
        text.push_str(&format!("sites = [{}]\nkeep = \"{}\"\n", quoted(&self.places), self.keep));
        text.extend(self.min_copies.map(|copies| format!("min_copies = {copies}\n")));
        text.extend(self.when.map(|when| format!("when = {when:?}\n")));
        text
    }

    pub(super) fn names(&self, node: &NodeId) -> bool {
        let node = node.to_string();
        let names = |place: &&str| match *place {
            "*" => true,
            "@g" => node.ends_with("@x") || node == "n1@y",
            "@h" => node.ends_with("@x") || node == "n1@y" || node.ends_with("@z"),
            place if place.contains('@') => node == place,
            site => node.ends_with(&format!("@{site}")),
        };
        self.places.iter().any(names)
    }

    pub(super) fn matches(&self, version: &Version, now_ms: u64) -> Option<bool> {
        let age = now_ms.saturating_sub(version.published_at_ms);
        let is_hero = version.id.slot == VersionSlot::Hero;
        let plain = [
            self.hero.is_none_or(|hero| hero == is_hero),
            self.latest.is_none_or(|latest| is_hero || version.rank < latest),
            self.older_days.is_none_or(|days| age >= days * DAY_MS),
            self.younger_days.is_none_or(|days| age < days * DAY_MS),
        ];
        let fields = self.fields.iter().map(|(field, globs)| {
            let values = values(version, field)?;
            Some(
                values
                    .iter()
                    .any(|value| globs.iter().any(|glob| is_match(glob.as_bytes(), value.as_bytes()))),
            )
        });
        let fields: Vec<Option<bool>> = fields.collect();
        if plain.contains(&false) || fields.contains(&Some(false)) {
            return Some(false);
        }
        (!fields.contains(&None)).then_some(true)
    }
}

fn values(version: &Version, field: &str) -> Option<Vec<String>> {
    let metadata = |key: &str| version.metadata.get(key).cloned().into_iter().collect::<Vec<String>>();
    let of_manifest = |values: Vec<String>| version.manifest_is_here.then_some(values);
    match field {
        "project" => Some(vec![version.id.project.to_string()]),
        "asset" => Some(vec![version.id.asset.to_string()]),
        "subset" => Some(vec![version.id.subset.to_string()]),
        "author" => Some(vec![version.author.clone()]),
        "representation" => Some(version.representations.iter().map(ToString::to_string).collect()),
        "silo" => of_manifest(version.silo.iter().map(ToString::to_string).collect()),
        "family" => of_manifest(metadata("family")),
        "metadata.task" => of_manifest(metadata("task")),
        other => panic!("{other}"),
    }
}

/// Wildcards, by trying everything.
fn is_match(glob: &[u8], text: &[u8]) -> bool {
    match (glob.split_first(), text.split_first()) {
        (None, rest) => rest.is_none(),
        (Some((b'*', after)), _) => (0..=text.len()).any(|taken| is_match(after, &text[taken..])),
        (Some((wanted, glob)), Some((found, text))) => {
            (*wanted == b'?' || wanted == found) && is_match(glob, text)
        }
        (Some(_), None) => false,
    }
}
