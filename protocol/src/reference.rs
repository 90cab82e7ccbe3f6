//! [`Reference`], how a person or a script names versions: `lantern:robot/modelDefault/abc@v002`.
//!
//! Grammar: `[project:]asset/subset[/representation][@version]`. The version is `v012`, `12`, `hero`, `*` (every
//! version) or `latest`, which is also meant when none is written. Asset, subset and representation may hold `*` (any
//! text) and `?` (one character). Without a project, every project that the reader knows is meant.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::id::{AssetName, InvalidId, ProjectName, RepresentationName, SubsetName, VersionId, VersionSlot};

/// Names one version, or several by globs.
///
/// `Display` is the canonical form, which parses back to the same value; `@latest` is left out of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    /// The project, or `None` for every project.
    pub project: Option<ProjectName>,
    /// The assets.
    pub asset: Pattern,
    /// The subsets of those assets.
    pub subset: Pattern,
    /// The representations, or `None` for the whole version.
    pub representation: Option<Pattern>,
    /// Which versions of those subsets.
    pub version: VersionSelector,
}

impl Reference {
    /// Reads a reference as `ls` takes it: a bare `asset` stands for `asset/*`.
    ///
    /// # Errors
    /// [`InvalidReference`] as for `FromStr`.
    pub fn parse_listing(text: &str) -> Result<Self, InvalidReference> {
        parse(text, WithoutSubset::MeansAll).map_err(|problem| InvalidReference::new(text, problem))
    }

    /// Says whether project, asset and subset match; the version and the representation are not looked at.
    ///
    /// Whether a version is the latest cannot be said of one version alone: [`Self::select`] decides that.
    pub fn matches(&self, id: &VersionId) -> bool {
        self.project.as_ref().is_none_or(|project| *project == id.project)
            && self.asset.matches(id.asset.as_str())
            && self.subset.matches(id.subset.as_str())
    }

    /// Says whether it names at most one version in a project: no glob, and not `@*`.
    pub fn is_exact(&self) -> bool {
        let globs = self.asset.is_glob()
            || self.subset.is_glob()
            || self.representation.as_ref().is_some_and(Pattern::is_glob);
        !globs && self.version != VersionSelector::All
    }

    /// Returns the versions meant among those given, sorted, each once.
    ///
    /// `latest` is the highest number of each subset. `hero` is not a number: a subset that has only a hero has no
    /// latest.
    pub fn select<'a>(&self, ids: impl Iterator<Item = &'a VersionId>) -> Vec<VersionId> {
        let matching = ids.filter(|id| self.matches(id));
        let mut selected: Vec<VersionId> = match self.version {
            VersionSelector::All => matching.cloned().collect(),
            VersionSelector::Slot(slot) => matching.filter(|id| id.slot == slot).cloned().collect(),
            VersionSelector::Latest => latest(matching),
        };
        selected.sort();
        selected.dedup();
        selected
    }
}

fn latest<'a>(ids: impl Iterator<Item = &'a VersionId>) -> Vec<VersionId> {
    let mut highest: BTreeMap<_, (u32, &VersionId)> = BTreeMap::new();
    for id in ids {
        let VersionSlot::Number(number) = id.slot else { continue };
        let best = highest.entry((&id.project, &id.asset, &id.subset)).or_insert((number, id));
        if number > best.0 {
            *best = (number, id);
        }
    }
    highest.into_values().map(|(_, id)| id.clone()).collect()
}

/// Which versions of a subset a [`Reference`] means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum VersionSelector {
    /// The highest number.
    Latest,
    /// That one.
    Slot(VersionSlot),
    /// All, written `@*`: for commands that list. A command that moves data should refuse it or ask.
    All,
}

/// A name in which `*` stands for any text and `?` for one character; it must cover the whole name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Pattern(String);

impl Pattern {
    /// Returns the text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Says whether it holds `*` or `?`.
    pub fn is_glob(&self) -> bool {
        self.0.contains(['*', '?'])
    }

    /// Says whether `name` matches, in at most pattern length times name length steps.
    pub fn matches(&self, name: &str) -> bool {
        glob_matches(&self.0, name, |_| true)
    }
}

/// Says whether a text matches a pattern whole; `?` takes one character that `one` allows.
pub(crate) fn glob_matches(pattern: &str, text: &str, one: fn(char) -> bool) -> bool {
    let (mut pattern, mut rest) = (pattern, text);
    // Where to go on after the last `*`, and what it has not yet swallowed: earlier stars need no second try.
    let mut retry: Option<(&str, &str)> = None;
    loop {
        let (wanted, found) = (pattern.chars().next(), rest.chars().next());
        match (wanted, found) {
            (Some('*'), _) => {
                pattern = after_first(pattern);
                retry = Some((pattern, rest));
            }
            (Some(w), Some(f)) if (w == '?' && one(f)) || (w == f && w != '?') => {
                pattern = after_first(pattern);
                rest = after_first(rest);
            }
            (None, None) => return true,
            _ => match retry {
                Some((after_star, swallowed)) if !swallowed.is_empty() => {
                    pattern = after_star;
                    rest = after_first(swallowed);
                    retry = Some((after_star, rest));
                }
                _ => return false,
            },
        }
    }
}

fn after_first(text: &str) -> &str {
    let mut chars = text.chars();
    chars.next();
    chars.as_str()
}

impl FromStr for Pattern {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        const RULE: &str = "1 to 128 of a-z, A-Z, 0-9, '_', '.' and '-', with '*' and '?' as wildcards";
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-' | b'*' | b'?');
        let is_name = || text.parse::<AssetName>().is_ok();
        let fits = (1..=128).contains(&text.len()) && text.bytes().all(allowed);
        if fits && (text.contains(['*', '?']) || is_name()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidId::new("name or pattern", text, RULE))
        }
    }
}

impl TryFrom<String> for Pattern {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<Pattern> for String {
    fn from(pattern: Pattern) -> Self {
        pattern.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! pattern_from_name {
    ($($name:ty),*) => {$(
        impl From<&$name> for Pattern {
            /// Matches that name only.
            fn from(name: &$name) -> Self {
                Self(name.as_str().to_owned())
            }
        }
    )*};
}
pattern_from_name!(AssetName, SubsetName, RepresentationName);

impl From<&VersionId> for Reference {
    /// Names that version, whole.
    fn from(id: &VersionId) -> Self {
        Self {
            project: Some(id.project.clone()),
            asset: Pattern::from(&id.asset),
            subset: Pattern::from(&id.subset),
            representation: None,
            version: VersionSelector::Slot(id.slot),
        }
    }
}

/// Why a text is not a [`Reference`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{text:?} is not a reference; write [project:]asset/subset[/representation][@version], for example \
     robot/modelDefault@v002"
)]
pub struct InvalidReference {
    /// The rejected text, shortened to 200 characters.
    pub text: String,
    /// What is wrong with it.
    #[source]
    pub problem: ReferenceProblem,
}

impl InvalidReference {
    fn new(text: &str, problem: ReferenceProblem) -> Self {
        Self { text: text.chars().take(200).collect(), problem }
    }
}

/// What is wrong with a refused [`Reference`].
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReferenceProblem {
    /// An asset alone.
    #[error("the subset is missing; to mean all subsets of the asset, write asset/*")]
    NoSubset,
    /// More than asset, subset and representation.
    #[error("it has more than three parts between '/'")]
    TooManyParts,
    /// The project breaks its rule; globs are not taken there.
    #[error("the project before ':' is not valid")]
    Project(#[source] InvalidId),
    /// The asset, subset or representation breaks its rule.
    #[error("one of its names is not valid")]
    Part(#[source] InvalidId),
    /// The text after `@` is not a version.
    #[error("the version {0:?} is none of v012, 12, latest, hero and *")]
    Version(String),
}

/// What an asset without a subset means.
enum WithoutSubset {
    IsRefused,
    MeansAll,
}

fn parse(text: &str, without_subset: WithoutSubset) -> Result<Reference, ReferenceProblem> {
    let (names, version) = match text.split_once('@') {
        Some((names, version)) => (names, parse_version(version)?),
        None => (text, VersionSelector::Latest),
    };
    let (project, names) = match names.split_once(':') {
        Some((project, names)) => (Some(project.parse().map_err(ReferenceProblem::Project)?), names),
        None => (None, names),
    };
    let mut parts = names.split('/');
    let pattern = |part: &str| part.parse().map_err(ReferenceProblem::Part);
    let asset = pattern(parts.next().unwrap_or_default())?;
    let subset = match (parts.next(), without_subset) {
        (Some(subset), _) => pattern(subset)?,
        (None, WithoutSubset::MeansAll) => Pattern("*".to_owned()),
        (None, WithoutSubset::IsRefused) => return Err(ReferenceProblem::NoSubset),
    };
    let representation = parts.next().map(pattern).transpose()?;
    if parts.next().is_some() {
        return Err(ReferenceProblem::TooManyParts);
    }
    Ok(Reference { project, asset, subset, representation, version })
}

fn parse_version(text: &str) -> Result<VersionSelector, ReferenceProblem> {
    match text {
        "latest" => Ok(VersionSelector::Latest),
        "*" => Ok(VersionSelector::All),
        _ => text
            .parse()
            .map(VersionSelector::Slot)
            .map_err(|_| ReferenceProblem::Version(text.chars().take(80).collect())),
    }
}

impl FromStr for Reference {
    type Err = InvalidReference;
    fn from_str(text: &str) -> Result<Self, InvalidReference> {
        parse(text, WithoutSubset::IsRefused).map_err(|problem| InvalidReference::new(text, problem))
    }
}

impl TryFrom<String> for Reference {
    type Error = InvalidReference;
    fn try_from(text: String) -> Result<Self, InvalidReference> {
        text.parse()
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(project) = &self.project {
            write!(f, "{project}:")?;
        }
        write!(f, "{}/{}", self.asset, self.subset)?;
        if let Some(representation) = &self.representation {
            write!(f, "/{representation}")?;
        }
        match self.version {
            VersionSelector::Latest => Ok(()),
            VersionSelector::Slot(slot) => write!(f, "@{slot}"),
            VersionSelector::All => f.write_str("@*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use proptest::prelude::*;

    use super::*;

    fn id(text: &str) -> VersionId {
        let (project, rest) = text.split_once(':').unwrap();
        let (asset, rest) = rest.split_once('/').unwrap();
        let (subset, slot) = rest.split_once('@').unwrap();
        VersionId {
            project: project.parse().unwrap(),
            asset: asset.parse().unwrap(),
            subset: subset.parse().unwrap(),
            slot: slot.parse().unwrap(),
        }
    }

    fn select(reference: &str, ids: &[&str]) -> Vec<String> {
        let ids: Vec<VersionId> = ids.iter().map(|text| id(text)).collect();
        let reference: Reference = reference.parse().unwrap();
        reference.select(ids.iter()).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_spelling_has_one_canonical_form() {
        for (text, canonical) in [
            ("robot/modelDefault", "robot/modelDefault"),
            ("robot/modelDefault@latest", "robot/modelDefault"),
            ("robot/modelDefault@2", "robot/modelDefault@v002"),
            ("lantern:robot/modelDefault/abc@v002", "lantern:robot/modelDefault/abc@v002"),
            ("sh0?0/*@hero", "sh0?0/*@hero"),
            ("*/*/tar.gz@*", "*/*/tar.gz@*"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!(reference.to_string(), canonical);
            assert_eq!(canonical.parse::<Reference>().unwrap(), reference);
        }
    }

    #[test]
    fn what_is_not_a_reference_is_refused_with_the_reason() {
        let problem = |text: &str| text.parse::<Reference>().unwrap_err().problem;
        assert_eq!(problem("robot"), ReferenceProblem::NoSubset);
        assert_eq!(problem("a/b/c/d"), ReferenceProblem::TooManyParts);
        assert_eq!(problem("a/b@v2@v3"), ReferenceProblem::Version("v2@v3".into()));
        assert_eq!(problem("a/b@"), ReferenceProblem::Version(String::new()));
        assert!(matches!(problem("l*:a/b"), ReferenceProblem::Project(_)));
        for bad in ["", "/", "a/", "/b", "a b/c", "../etc", "a/..", "a/b/", "a:b:c/d", "é/x", "a/[bc]"] {
            let found = problem(bad);
            assert!(
                matches!(found, ReferenceProblem::Part(_) | ReferenceProblem::NoSubset),
                "{bad}: {found:?}"
            );
        }
    }

    #[test]
    fn error_keeps_the_text_and_shows_the_grammar_with_an_example() {
        let error = "robot@x".parse::<Reference>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "\"robot@x\" is not a reference; write [project:]asset/subset[/representation][@version], \
             for example robot/modelDefault@v002"
        );
        let cause = error.source().unwrap().to_string();
        assert_eq!(cause, "the version \"x\" is none of v012, 12, latest, hero and *");
    }

    #[test]
    fn only_a_listing_takes_an_asset_without_a_subset() {
        let listing = |text| Reference::parse_listing(text).unwrap().to_string();
        assert_eq!(listing("robot"), "robot/*");
        assert_eq!(listing("lantern:sh*@3"), "lantern:sh*/*@v003");
        assert_eq!(listing("robot/model*"), "robot/model*");
        assert!(Reference::parse_listing("").is_err());
    }

    #[test]
    fn pattern_covers_the_whole_name() {
        for (pattern, name, expected) in [
            ("robot", "robot", true),
            ("robot", "robots", false),
            ("obot", "robot", false),
            ("sh*", "sh010", true),
            ("*010", "sh010", true),
            ("*0*0", "sh010", true),
            ("s*1*2", "sh010", false),
            ("sh0?0", "sh010", true),
            ("sh0?0", "sh00", false),
            ("*", "x", true),
            ("**?", "x", true),
            ("a*b*c", "aXbXbXc", true),
        ] {
            assert_eq!(pattern.parse::<Pattern>().unwrap().matches(name), expected, "{pattern} {name}");
        }
        // Exponential matchers do not come back from this one.
        assert!(!"*a".repeat(60).parse::<Pattern>().unwrap().matches(&"a".repeat(59)));
    }

    #[test]
    fn latest_is_the_highest_number_of_each_subset_and_never_hero() {
        let known = [
            "lantern:robot/model@v009",
            "lantern:robot/model@v010",
            "lantern:robot/model@hero",
            "lantern:robot/look@hero",
            "lantern:sh010/anim@v001",
            "comet:robot/model@v002",
        ];
        assert_eq!(select("robot/*", &known), ["comet:robot/model@v002", "lantern:robot/model@v010"]);
        assert_eq!(select("lantern:*/*", &known), ["lantern:robot/model@v010", "lantern:sh010/anim@v001"]);
        assert_eq!(select("*/*@hero", &known), ["lantern:robot/look@hero", "lantern:robot/model@hero"]);
        assert_eq!(select("lantern:robot/model@9", &known), ["lantern:robot/model@v009"]);
        assert_eq!(select("lantern:robot/model@*", &known).len(), 3);
        assert!(select("robot/look", &known).is_empty());
    }

    #[test]
    fn exact_means_one_version_at_most() {
        for (text, expected) in [
            ("a/b", true),
            ("a/b@3", true),
            ("a/b/abc@hero", true),
            ("a/b@*", false),
            ("a/*", false),
            ("a/b/?", false),
        ] {
            assert_eq!(text.parse::<Reference>().unwrap().is_exact(), expected, "{text}");
        }
        let version = id("lantern:robot/model@v002");
        let reference = Reference::from(&version);
        assert!(reference.is_exact());
        assert_eq!(reference.to_string(), version.to_string());
    }

    #[test]
    fn json_goes_through_the_same_check() {
        let reference: Reference = serde_json::from_str("\"lantern:robot/*@2\"").unwrap();
        assert_eq!(serde_json::to_string(&reference).unwrap(), "\"lantern:robot/*@v002\"");
        assert!(serde_json::from_str::<Reference>("\"robot\"").is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_has_a_stable_canonical_form(text in "[a-c*?/:@v0-9. ]{0,16}") {
            if let Ok(reference) = text.parse::<Reference>() {
                let canonical = reference.to_string();
                prop_assert_eq!(canonical.parse::<Reference>().unwrap(), reference);
            }
        }

        #[test]
        fn matcher_agrees_with_globset(pattern in "[ab*?]{1,8}", name in "[ab]{1,10}") {
            let ours = pattern.parse::<Pattern>().unwrap().matches(&name);
            let theirs = globset::Glob::new(&pattern).unwrap().compile_matcher().is_match(&name);
            prop_assert_eq!(ours, theirs);
        }
    }
}
