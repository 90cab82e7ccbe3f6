//! What another policy would change, before anything moves: one version after the other is added to totals.
//!
//! The totals do not depend on the order of the versions, and take room for the studio's nodes and a few names of versions
//! only, however many versions there are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    decide::{Now, RuleRef},
    document::Policy,
    effect::{Effect, Member, Seats, Whereabouts},
    facts::VersionFacts,
};
use crate::id::{NodeId, SiteName, VersionId};

/// How many versions are named of each kind, at most.
pub const MOST_NAMED: usize = 20;

/// So many versions, or copies of them, and their size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Amount {
    /// How many.
    pub versions: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, copies: u64, bytes: u64) {
        self.versions = self.versions.saturating_add(copies);
        self.bytes = self.bytes.saturating_add(bytes.saturating_mul(copies));
    }
}

/// What has to be copied to a site or to a node: what belongs there and is not there. Versions count whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Copying {
    /// Under the new policy.
    pub to_copy: Amount,
    /// Of that, what the policy in effect brings as well.
    pub anyway: Amount,
    /// What the policy in effect would bring, and the new one does not.
    pub no_longer: Amount,
}

impl Copying {
    fn add(&mut self, before: bool, after: bool, bytes: u64) {
        match (before, after) {
            (_, true) => {
                self.to_copy.add(1, bytes);
                if before {
                    self.anyway.add(1, bytes);
                }
            }
            (true, false) => self.no_longer.add(1, bytes),
            (false, false) => {}
        }
    }
}

/// What could be freed when all is copied, never below `min_copies` sites.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Freeing {
    /// Under the new policy.
    pub then: Amount,
    /// Under the policy in effect.
    pub now: Amount,
}

/// What changes at a site.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SiteDiff {
    /// What no node of it has and one is to have.
    pub copying: Copying,
    /// The copies that could go there, if no other site frees any.
    pub free: Freeing,
}

/// Versions of one kind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listed {
    /// Under the new policy.
    pub then: Amount,
    /// Under the policy in effect.
    pub now: Amount,
    /// Of those under the new policy at most [`MOST_NAMED`]: those that are not so under the policy in effect first (`false`), in
    /// the order of their ids.
    pub first: BTreeMap<(bool, VersionId), Case>,
}

impl Listed {
    fn add(
        &mut self,
        now: bool,
        then: bool,
        at: &Whereabouts,
        version: &VersionId,
        case: impl FnOnce() -> Case,
    ) {
        if now {
            self.now.add(1, at.bytes);
        }
        if then {
            self.then.add(1, at.bytes);
            self.first.insert((now, version.clone()), case());
            if self.first.len() > MOST_NAMED {
                self.first.pop_last();
            }
        }
    }
}

/// How one version comes to be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Case {
    /// How many sites have it in the end.
    pub copies: u32,
    /// How many have to.
    pub min_copies: u32,
    /// The rule that says so, or asks for what is not known; `None` for the defaults.
    pub rule: Option<RuleRef>,
}

/// What all versions come to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Totals {
    /// All that was looked at.
    pub looked_at: Amount,
    /// By site; each of which a node takes part.
    pub sites: BTreeMap<SiteName, SiteDiff>,
    /// By node, those only to which something has to be copied, or would have to be.
    pub nodes: BTreeMap<NodeId, Copying>,
    /// The copies that could go at all sites together.
    pub free: Freeing,
    /// Versions at fewer sites than `min_copies`.
    pub under_replicated: Listed,
    /// Versions that no rule keeps anywhere: they stay where somebody published or pulled them, at `min_copies` sites.
    pub kept_nowhere: Listed,
    /// Versions that nothing can be said about before their manifest has come; they are in no other number.
    pub not_known: Listed,
    /// Versions under whose number sites published different content: they go nowhere.
    pub conflicts: u64,
}

/// The members of a project, prepared for both policies.
#[derive(Debug)]
pub struct Crew {
    members: Vec<Member>,
    before: Seats,
    after: Seats,
}

/// What becomes of one version.
#[derive(Debug)]
pub struct Judged {
    before: Effect,
    after: Effect,
}

impl Judged {
    /// Says whether the manifest is needed to say more.
    pub fn lacks_manifest(&self) -> bool {
        self.before.not_known.is_some() || self.after.not_known.is_some()
    }
}

/// Compares a policy with the one in effect, or with none: then each node goes by its own mode.
#[derive(Debug)]
pub struct Diff<'p> {
    before: Option<&'p Policy>,
    after: &'p Policy,
    totals: Totals,
}

impl<'p> Diff<'p> {
    /// Begins with no versions.
    pub fn new(before: Option<&'p Policy>, after: &'p Policy) -> Self {
        Self { before, after, totals: Totals::default() }
    }

    /// Prepares the members of a project; their sites are in the totals from then on.
    pub fn crew(&mut self, members: Vec<Member>) -> Crew {
        for member in &members {
            self.totals.sites.entry(member.node.site.clone()).or_default();
        }
        let (before, after) = (Seats::new(self.before, &members), Seats::new(Some(self.after), &members));
        Crew { members, before, after }
    }

    /// Says what becomes of a version of that project.
    pub fn judge(&self, crew: &Crew, facts: &VersionFacts<'_>, at: &Whereabouts, now: Now) -> Judged {
        Judged {
            before: Effect::of(self.before, &crew.members, &crew.before, facts, at, now),
            after: Effect::of(Some(self.after), &crew.members, &crew.after, facts, at, now),
        }
    }

    /// Adds a version; each is to be added once.
    pub fn add(&mut self, crew: &Crew, version: &VersionId, at: &Whereabouts, judged: Judged) {
        let Judged { before, after } = judged;
        let (totals, bytes) = (&mut self.totals, at.bytes);
        totals.looked_at.add(1, bytes);
        let case = || Case {
            copies: after.copies,
            min_copies: after.min_copies,
            rule: match &after.not_known {
                Some(not_known) => Some(not_known.rule.clone()),
                None => after.copies_because.clone(),
            },
        };
        let (unknown_now, unknown_then) = (before.not_known.is_some(), after.not_known.is_some());
        totals.not_known.add(unknown_now, unknown_then, at, version, case);
        if at.is_conflict {
            totals.conflicts += 1;
            return;
        }
        if at.is_retired {
            return;
        }
        // What is known of one policy only would look like a change.
        if unknown_now || unknown_then {
            return;
        }
        for site in before.sites.union(&after.sites) {
            let (now, then) = (before.sites.contains(site), after.sites.contains(site));
            totals.sites.entry(site.clone()).or_default().copying.add(now, then, bytes);
        }
        for index in before.nodes.union(&after.nodes) {
            let Some(member) = crew.members.get(*index) else { continue };
            let (now, then) = (before.nodes.contains(index), after.nodes.contains(index));
            totals.nodes.entry(member.node.clone()).or_default().add(now, then, bytes);
        }
        for (site, copies) in &after.free {
            totals.sites.entry(site.clone()).or_default().free.then.add(*copies, bytes);
        }
        for (site, copies) in &before.free {
            totals.sites.entry(site.clone()).or_default().free.now.add(*copies, bytes);
        }
        totals.free.then.add(after.free_together, bytes);
        totals.free.now.add(before.free_together, bytes);
        totals.under_replicated.add(before.is_short(), after.is_short(), at, version, case);
        totals.kept_nowhere.add(!before.is_kept, !after.is_kept, at, version, case);
    }

    /// Returns what all of them come to.
    pub fn finish(self) -> Totals {
        self.totals
    }
}
