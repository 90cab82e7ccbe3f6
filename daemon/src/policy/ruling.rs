//! What the policy in effect means for versions at this node, or at another one.

use std::sync::Arc;

use avalon_protocol::{
    access::Action,
    id::{NodeId, VersionId, VersionSlot},
    plan::{Decision, Stance, Wish, decide},
    policy::{ManifestFacts, NotKnownYet, Now, Policy, RuleRef, Ruling, Urgency, VersionFacts},
    version_fold::{Standing, VersionFold},
};
use avalon_store::{catalog::CatalogError, ledger::Ledger};
use jiff::tz::TimeZone;

use crate::{clock::moment_of_week, core::Core, log::ErrorChain};

/// Numbers of the versions of a subset, so that looking at them in their order reads each subset once.
#[derive(Debug, Default)]
pub struct Ranks {
    of: Option<VersionId>,
    numbers: Vec<u32>,
}

impl Ranks {
    /// Returns how many published versions of its subset have a higher number. Blocks.
    fn rank(&mut self, ledger: &Ledger, version: &VersionId) -> Result<u32, CatalogError> {
        let VersionSlot::Number(number) = version.slot else { return Ok(0) };
        let same = |of: &VersionId| {
            (&of.project, &of.asset, &of.subset) == (&version.project, &version.asset, &version.subset)
        };
        if !self.of.as_ref().is_some_and(same) {
            let versions = ledger.subset_versions(version)?;
            let published = versions.iter().filter(|(id, fold)| {
                // What is out of use makes nothing older.
                !matches!(fold.standing(id.slot), Standing::Unknown) && fold.retired().is_none()
            });
            self.numbers = published
                .filter_map(|(id, _)| match id.slot {
                    VersionSlot::Number(number) => Some(number),
                    VersionSlot::Hero => None,
                })
                .collect();
            self.of = Some(version.clone());
        }
        let newer = self.numbers.iter().filter(|other| **other > number).count();
        Ok(u32::try_from(newer).unwrap_or(u32::MAX))
    }
}

/// What this node does about a version.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// What it does.
    pub decision: Decision,
    /// The order among what comes by itself.
    pub urgency: Urgency,
    /// Whether its files are made read-only when they are placed.
    pub read_only: bool,
    /// Whether all of it comes by itself.
    pub comes_by_itself: bool,
    /// How many files the generation that is fetched has.
    pub files: u64,
    /// Their size in bytes.
    pub bytes: u64,
    /// When time alone can change it, in milliseconds since 1970.
    pub next_change_ms: Option<u64>,
}

impl Verdict {
    /// Of a project that this node does not serve.
    fn unknown() -> Self {
        Self {
            decision: Decision::Unknown,
            urgency: Urgency::Normal,
            read_only: false,
            comes_by_itself: false,
            files: 0,
            bytes: 0,
            next_change_ms: None,
        }
    }
}

impl Core {
    /// Says that the policy keeps a version away from this node: by a rule, its defaults, or because it grants nothing.
    pub fn forbids(&self, version: &VersionId, rule: Option<&RuleRef>) -> String {
        match rule {
            Some(rule) => format!("the studio's policy keeps {version} away from this node: rule {rule}"),
            None => match self.check_may(&version.project, Action::Pull) {
                Ok(()) => format!("the studio's policy keeps {version} away from this node by its defaults"),
                Err(refused) => format!("{refused}; {}", refused.hint()),
            },
        }
    }

    /// Decides about a version of a project that this node serves. Blocks.
    ///
    /// # Errors
    /// [`CatalogError`]; the catalog is being rebuilt then.
    pub fn decide(
        &self,
        id: &VersionId,
        fold: &VersionFold,
        wish: Wish,
        ranks: &mut Ranks,
    ) -> Result<Verdict, CatalogError> {
        let Some(project) = self.project(&id.project) else {
            return Ok(Verdict::unknown());
        };
        let ruling = match self.policy.in_effect() {
            Some(policy) => self.ruling(&policy, &self.me, id, fold, ranks)?,
            None => None,
        };
        let stance = match self.may(&id.project, Action::Pull) {
            true => Stance::of(project.mode(), ruling.as_ref()),
            false => Stance::Never(None),
        };
        let decision = decide(id.slot, fold, &self.me, &stance, wish);
        let alone = decide(id.slot, fold, &self.me, &stance, Wish::None);
        let ruling = ruling.and_then(Result::ok);
        let fetched = match &decision {
            Decision::Fetch(manifest) => fold.generation(manifest),
            _ => None,
        };
        Ok(Verdict {
            files: fetched.map_or(0, |generation| generation.files),
            bytes: fetched.map_or(0, |generation| generation.bytes),
            comes_by_itself: alone == decision,
            decision,
            urgency: ruling.as_ref().map_or(Urgency::Normal, |ruling| ruling.urgency),
            read_only: ruling.as_ref().is_some_and(|ruling| ruling.read_only),
            next_change_ms: ruling.and_then(|ruling| ruling.next_change_ms),
        })
    }

    /// Returns what a policy says about a version at a node; nothing for a version that nobody has published. Blocks: it may
    /// read the manifest.
    ///
    /// # Errors
    /// [`CatalogError`]; the catalog is being rebuilt then.
    pub fn ruling(
        &self,
        policy: &Policy,
        node: &NodeId,
        id: &VersionId,
        fold: &VersionFold,
        ranks: &mut Ranks,
    ) -> Result<Option<Result<Ruling, NotKnownYet>>, CatalogError> {
        self.with_facts(id, fold, ranks, |facts, now| {
            let ruling = policy.decide(node, facts, now);
            // Only what the records do not say is looked up in the manifest.
            let lacks = ruling.is_err() && facts.manifest.is_none();
            (ruling, lacks)
        })
    }

    /// Hands the facts of a version to `judge`, without those of the manifest at first, and with them if it says that they
    /// are lacking. Blocks.
    ///
    /// # Errors
    /// [`CatalogError`]; the catalog is being rebuilt then.
    pub fn with_facts<T>(
        &self,
        id: &VersionId,
        fold: &VersionFold,
        ranks: &mut Ranks,
        judge: impl Fn(&VersionFacts<'_>, Now) -> (T, bool),
    ) -> Result<Option<T>, CatalogError> {
        let head = match fold.standing(id.slot) {
            Standing::Unknown => return Ok(None),
            Standing::Head(head) => head,
            // All candidates have the same number; the first stands for them.
            Standing::Conflict(heads) => match heads.first() {
                Some(head) => *head,
                None => return Ok(None),
            },
        };
        let Some(generation) = fold.generation(&head) else { return Ok(None) };
        let mut facts = VersionFacts {
            version: id,
            rank: ranks.rank(&self.ledger, id)?,
            representations: &generation.representations,
            author: &generation.author,
            published_at_ms: generation.published_at_ms,
            manifest: None,
        };
        let now = self.policy_time();
        let (judgement, lacks) = judge(&facts, now);
        if !lacks {
            return Ok(Some(judgement));
        }
        match self.ledger.manifest(head) {
            Ok(Some(manifest)) => {
                facts.manifest = Some(ManifestFacts::of(&manifest));
                Ok(Some(judge(&facts, now).0))
            }
            Ok(None) => Ok(Some(judgement)),
            Err(error) => {
                tracing::warn!(version = %id, error = %ErrorChain(&error), "a manifest cannot be read; the policy waits for it");
                Ok(Some(judgement))
            }
        }
    }

    /// Returns the time as a policy asks for it: the wall clock of this machine.
    fn policy_time(&self) -> Now {
        Now { ms: self.now_ms(), moment: moment_of_week(&*self.clock, &TimeZone::system()) }
    }
}

impl super::StudioPolicy {
    /// Returns what this node goes by.
    pub fn in_effect(&self) -> Option<Arc<Policy>> {
        self.view.borrow().in_effect.clone()
    }
}
