//! What a version has to be for a rule to match it.

use std::{collections::BTreeMap, fmt};

use super::{age::Age, facts::VersionFacts, glob::Glob, problem::listed};

/// A property of a version that is text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// The project.
    Project,
    /// The silo; not every project has them.
    Silo,
    /// The asset or shot.
    Asset,
    /// The subset.
    Subset,
    /// The name of any of its representations. A version is placed whole, so a rule about a representation is about versions
    /// that have it.
    Representation,
    /// Any of its families.
    Family,
    /// Who published it.
    Author,
    /// What the pipeline keeps under a key, such as the task or the status.
    Metadata(String),
}

impl Field {
    /// Says whether every version has exactly one value, however it was published.
    pub(super) fn is_always_one(&self) -> bool {
        matches!(self, Self::Project | Self::Asset | Self::Subset | Self::Author)
    }

    /// Says whether no version has two values.
    pub(super) fn is_at_most_one(&self) -> bool {
        !matches!(self, Self::Representation | Self::Family)
    }
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Project => "project",
            Self::Silo => "silo",
            Self::Asset => "asset",
            Self::Subset => "subset",
            Self::Representation => "representation",
            Self::Family => "family",
            Self::Author => "author",
            Self::Metadata(key) => return write!(f, "metadata {key}"),
        })
    }
}

/// The `match` of a rule. All that is given must hold; without anything, every version matches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Criteria {
    /// For each property, the patterns of which one has to match.
    pub fields: BTreeMap<Field, Vec<Glob>>,
    /// Whether it is the hero.
    pub hero: Option<bool>,
    /// It is among so many newest numbers of its subset. A hero stands for the version that the studio works with, so it is
    /// always among them, and it does not count.
    pub latest: Option<u32>,
    /// It was published at least so long ago.
    pub older_than: Option<Age>,
    /// It was published less long ago.
    pub younger_than: Option<Age>,
}

/// One thing that `match` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Criterion<'c> {
    /// One of the patterns matches one of the values.
    Field(&'c Field, &'c [Glob]),
    /// It is the hero, or it is not.
    Hero(bool),
    /// It is among so many newest.
    Latest(u32),
    /// It is at least so old.
    OlderThan(Age),
    /// It is younger.
    YoungerThan(Age),
}

impl Criteria {
    /// Returns what is asked for, one by one.
    pub fn iter(&self) -> impl Iterator<Item = Criterion<'_>> {
        let fields = self.fields.iter().map(|(field, globs)| Criterion::Field(field, globs));
        let numbers = [
            self.hero.map(Criterion::Hero),
            self.latest.map(Criterion::Latest),
            self.older_than.map(Criterion::OlderThan),
            self.younger_than.map(Criterion::YoungerThan),
        ];
        fields.chain(numbers.into_iter().flatten())
    }

    /// Says whether a version matches; `None` when that depends on something that is not known. What is known can suffice
    /// to say no.
    pub fn matches(&self, facts: &VersionFacts<'_>, now_ms: u64) -> Option<bool> {
        let mut all = Some(true);
        for criterion in self.iter() {
            match criterion.holds(facts, now_ms) {
                Some(true) => {}
                Some(false) => return Some(false),
                None => all = None,
            }
        }
        all
    }

    /// Says whether a version can match at any time, by everything but its age.
    pub(super) fn matches_but_for_age(&self, facts: &VersionFacts<'_>) -> bool {
        let others = self.iter().filter(|criterion| !criterion.is_age());
        others.into_iter().all(|criterion| criterion.holds(facts, 0) != Some(false))
    }

    /// Returns the ages at which a version begins or ceases to match.
    pub(super) fn ages(&self) -> impl Iterator<Item = Age> {
        [self.older_than, self.younger_than].into_iter().flatten()
    }
}

impl Criterion<'_> {
    /// Says whether it holds for a version; `None` when that is not known.
    pub fn holds(&self, facts: &VersionFacts<'_>, now_ms: u64) -> Option<bool> {
        match self {
            Self::Field(field, globs) => {
                let values = facts.values(field)?;
                Some(values.iter().any(|value| globs.iter().any(|glob| glob.matches(value))))
            }
            Self::Hero(wanted) => Some(facts.is_hero() == *wanted),
            Self::Latest(count) => Some(facts.is_hero() || facts.rank < *count),
            Self::OlderThan(age) => Some(facts.age_ms(now_ms) >= age.as_ms()),
            Self::YoungerThan(age) => Some(facts.age_ms(now_ms) < age.as_ms()),
        }
    }

    /// Says why it does not hold, for people: `family is camera, not rig or model`.
    pub(super) fn why_not(&self, facts: &VersionFacts<'_>, now_ms: u64) -> String {
        match self {
            Self::Field(field, globs) => {
                let wanted: Vec<String> = globs.iter().map(|glob| shown(glob.as_str())).collect();
                let wanted = listed(&wanted, "or");
                let found: Vec<String> =
                    facts.values(field).unwrap_or_default().iter().map(|value| shown(value)).collect();
                if found.is_empty() {
                    return format!("it has no {field}, and {wanted} is wanted");
                }
                format!("{field} is {}, not {wanted}", listed(&found, "and"))
            }
            Self::Hero(true) => "it is a number, not the hero".to_owned(),
            Self::Hero(false) => "it is the hero, not a number".to_owned(),
            Self::Latest(count) => {
                format!("{} versions are newer, and it has to be among the latest {count}", facts.rank)
            }
            Self::OlderThan(age) => {
                format!("it is {} old, not {age} or more", Age::measured(facts.age_ms(now_ms)))
            }
            Self::YoungerThan(age) => {
                format!("it is {} old, not less than {age}", Age::measured(facts.age_ms(now_ms)))
            }
        }
    }

    /// Says what has to be known to say whether it holds.
    pub(super) fn asks_for(&self) -> String {
        match self {
            Self::Field(field, _) => field.to_string(),
            Self::Hero(_) | Self::Latest(_) => "number".to_owned(),
            Self::OlderThan(_) | Self::YoungerThan(_) => "age".to_owned(),
        }
    }

    fn is_age(&self) -> bool {
        matches!(self, Self::OlderThan(_) | Self::YoungerThan(_))
    }
}

/// An empty text is shown as such.
fn shown(text: &str) -> String {
    if text.is_empty() { "empty".to_owned() } else { text.to_owned() }
}
