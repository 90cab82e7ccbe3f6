//! Why a version is to be at a node, or not: each rule in turn, with the first reason why it did not win.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    decide::{NotKnownYet, Now, Ruling, not_known},
    document::Policy,
    facts::VersionFacts,
    rule::Rule,
};
use crate::id::NodeId;

/// A ruling, and the way to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// The rules that were asked, in their order; the last is the one that decided, unless the defaults did.
    pub tried: Vec<Tried>,
    /// What came out.
    pub ruling: Result<Ruling, NotKnownYet>,
}

/// A rule that was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tried {
    /// Its name.
    pub rule: String,
    /// The line on which it begins.
    pub line: u32,
    /// What it answered.
    pub outcome: Outcome,
}

/// What a rule answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// It decides.
    Wins,
    /// It is not about this node, or not about this version.
    Passes {
        /// The first reason, such as `family is camera, not rig or model`.
        reason: String,
    },
    /// It cannot be said yet, so nothing behind it was asked.
    NotKnown {
        /// What has to be known.
        fact: String,
    },
}

impl Policy {
    /// Says what holds for a version at a node as [`Policy::decide`] does, and what each rule had to do with it.
    pub fn explain(&self, node: &NodeId, facts: &VersionFacts<'_>, now: Now) -> Explanation {
        let mut tried = Vec::new();
        for rule in self.rules() {
            let outcome = ask(rule, node, facts, now);
            let is_last = !matches!(outcome, Outcome::Passes { .. });
            tried.push(Tried { rule: rule.name.to_string(), line: rule.line, outcome });
            if is_last {
                break;
            }
        }
        Explanation { tried, ruling: self.decide(node, facts, now) }
    }
}

fn ask(rule: &Rule, node: &NodeId, facts: &VersionFacts<'_>, now: Now) -> Outcome {
    if !rule.places.contains(node) {
        return Outcome::Passes { reason: format!("it is for {}, not {node}", rule.places.words()) };
    }
    match rule.criteria.matches(facts, now.ms) {
        Some(true) => Outcome::Wins,
        None => Outcome::NotKnown { fact: not_known(rule, facts, now).fact },
        Some(false) => {
            let failed = rule.criteria.iter().find(|criterion| criterion.holds(facts, now.ms) == Some(false));
            let reason = failed.map_or_else(String::new, |criterion| criterion.why_not(facts, now.ms));
            Outcome::Passes { reason }
        }
    }
}
