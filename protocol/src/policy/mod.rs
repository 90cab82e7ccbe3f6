//! The studio's policy: a TOML document that says what goes where, its checks, and what it means for one version at one
//! node. Pure: the facts of the version, the node and the time come in, a [`Ruling`] comes out, with the rule and its line.
//!
//! The document goes through [`Policy::check`], which finds every problem, not only the first. Whoever has a [`Policy`] need
//! not check again. [`Policy::decide`] then says what holds: of the rules that name a node, the first that matches the
//! version. `docs/policy.md` is the guide for who writes one.

mod problem;
mod reader;
mod glob;
mod grants;
mod age;
mod places;
mod criteria;
mod read_match;
mod rule;
mod checks;
mod document;
mod extract;
mod facts;
mod decide;
mod explain;
mod imply;
mod numbers;
mod overlap;
mod copies;
mod effect;
mod diff;
#[cfg(test)]
mod tests;

pub use self::{
    age::Age,
    checks::CheckRules,
    criteria::{Criteria, Criterion, Field},
    decide::{Named, NotKnownYet, Now, RuleRef, Ruling},
    diff::{Amount, Case, Copying, Crew, Diff, Freeing, Judged, Listed, MOST_NAMED, SiteDiff, Totals},
    document::{MAX_DOCUMENT_BYTES, MAX_RULES, Policy, SCHEMA},
    effect::{Member, Whereabouts},
    explain::{Explanation, Outcome, Tried},
    facts::{ManifestFacts, VersionFacts},
    glob::Glob,
    grants::{Access, Grant},
    places::{Places, Studio},
    problem::{Problem, Refused},
    reader::MAX_LIST,
    rule::{Defaults, Keep, Rule, Urgency, Windows},
};
