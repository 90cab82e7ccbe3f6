//! Whether a version may go from here at all, as far as this node alone can say; what other sites hold comes after.

use std::{collections::BTreeSet, sync::Arc};

use avalon_protocol::{
    drop::{GiveUp, Guard},
    hash::ManifestId,
    id::{NodeId, VersionId},
    manifest::Manifest,
    mode::ProjectMode,
    plan::{Stance, rank_sources},
    policy::{Keep, RuleRef},
    version_fold::{DEFAULT_UNDO_MS, Standing, VersionFold},
};
use avalon_store::catalog::CatalogError;

use super::open_files::OpenFiles;
use crate::{core::Core, log::ErrorChain, policy::Ranks, project::Project, replicate::jobs::JobBoard};

/// Why a version is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Somebody said so.
    Command,
    /// Room is needed.
    Room,
}

/// Why a version stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stays {
    /// The kind of reason; nothing when it is not here, or an error prevents it.
    pub guard: Option<Guard>,
    /// In words.
    pub reason: String,
    /// What other nodes said, if they were asked.
    pub asked: Option<GiveUp>,
}

impl Stays {
    pub(super) fn because(guard: Guard, reason: impl Into<String>) -> Self {
        Self { guard: Some(guard), reason: reason.into(), asked: None }
    }

    pub(super) fn failed(reason: impl Into<String>) -> Self {
        Self { guard: None, reason: reason.into(), asked: None }
    }
}

impl From<CatalogError> for Stays {
    fn from(error: CatalogError) -> Self {
        Self::failed(format!("the catalog cannot be read: {}", ErrorChain(&error)))
    }
}

/// A version that may go, if enough other sites prove that they have it.
#[derive(Debug, Clone)]
pub(super) struct Droppable {
    /// The newest generation that is held.
    pub(super) manifest: Arc<Manifest>,
    /// All generations that this node says it holds: all are dropped.
    pub(super) held: Vec<ManifestId>,
    /// How many other sites have to prove it.
    pub(super) min_copies: u32,
    /// Who records it, in the order in which they are asked.
    pub(super) holders: Vec<NodeId>,
}

/// What does not change from one version to the next.
#[derive(Debug, Clone, Copy)]
pub(super) struct Judging<'a> {
    pub(super) core: &'a Core,
    pub(super) board: &'a JobBoard,
    pub(super) open: &'a OpenFiles,
    pub(super) purpose: Purpose,
}

impl Judging<'_> {
    /// Judges a version. Blocks.
    pub(super) fn judge(&self, version: &VersionId) -> Result<Droppable, Stays> {
        let fold = self.core.ledger.version(version)?.unwrap_or_default();
        self.judge_fold(version, &fold, &mut Ranks::default())
    }

    pub(super) fn judge_fold(
        &self,
        version: &VersionId,
        fold: &VersionFold,
        ranks: &mut Ranks,
    ) -> Result<Droppable, Stays> {
        let core = self.core;
        let project = core.project(&version.project);
        let project = project.ok_or_else(|| Stays::failed("this node does not serve the project"))?;
        let held: Vec<ManifestId> = fold.held_by(&core.me).collect();
        let number = |id: &ManifestId| fold.generation(id).map(|generation| generation.generation);
        let newest = held.iter().copied().max_by_key(number);
        let Some(newest) = newest else { return Err(Stays::failed("it is not here")) };
        match fold.standing(version.slot) {
            Standing::Head(head) if fold.same_as(&head, &newest) => {}
            Standing::Conflict(_) => {
                let reason =
                    "sites published different content under its number, and somebody has to decide first";
                return Err(Stays::because(Guard::Conflict, reason));
            }
            Standing::Head(_) | Standing::Unknown => {
                return Err(Stays::because(Guard::Coming, "a newer generation of it is on its way"));
            }
        }
        if core.space.pins().contains(version) {
            return Err(Stays::because(Guard::Pinned, self.pinned(version)));
        }
        if let Some(retirement) = fold.retired() {
            let undo_ms = core.policy.in_effect().map_or(DEFAULT_UNDO_MS, |policy| policy.undo_ms());
            if !retirement.is_past_undo(undo_ms, core.now_ms()) {
                let reason = "it is retired, and may be brought back until its undo window ends";
                return Err(Stays::because(Guard::Kept, reason));
            }
        }
        let min_copies = self.policy(project, version, fold, ranks)?;
        if self.board.of_version(version).is_some() {
            return Err(Stays::because(Guard::Coming, "it is being fetched"));
        }
        let manifest = match core.ledger.manifest(newest) {
            Ok(Some(manifest)) => Arc::new(manifest),
            Ok(None) => return Err(Stays::failed("its manifest is not here")),
            Err(error) => return Err(Stays::failed(ErrorChain(&error).to_string())),
        };
        self.files(project, &manifest)?;
        let holders: BTreeSet<NodeId> = fold.holders(&newest);
        Ok(Droppable { manifest, held, min_copies, holders: rank_sources(&core.me, &holders) })
    }

    fn pinned(&self, version: &VersionId) -> String {
        match self.core.space.pins().get(version) {
            Some(pin) => format!("{} pinned it; to release it: avalonctl unpin {version}", pin.by),
            None => "nobody knows what is pinned here; mend pins.json".to_owned(),
        }
    }

    /// Asks the policy, or the node's own mode, whether it belongs here; returns how many copies are asked for.
    fn policy(
        &self,
        project: &Project,
        version: &VersionId,
        fold: &VersionFold,
        ranks: &mut Ranks,
    ) -> Result<u32, Stays> {
        // What was retired does not come by itself, wherever it belongs.
        let is_retired = fold.retired().is_some();
        let Some(policy) = self.core.policy.in_effect() else {
            return match project.mode() {
                ProjectMode::Mirror if !is_retired => Err(Stays::because(
                    Guard::Kept,
                    format!("this node mirrors project {} and would fetch it again", project.name()),
                )),
                ProjectMode::Mirror | ProjectMode::OnDemand => Ok(1),
            };
        };
        let judged = self.core.with_facts(version, fold, ranks, |facts, now| {
            let ruling = policy.decide(&self.core.me, facts, now);
            let lacks = ruling.is_err() && facts.manifest.is_none();
            let ruling = ruling.map(|ruling| {
                let is_last = ruling.keep_last.is_some_and(|last| facts.is_hero() || facts.rank < last);
                (ruling, is_last)
            });
            (ruling, lacks)
        })?;
        let (ruling, is_last) = match judged {
            None => return Err(Stays::because(Guard::NotKnown, "nobody has published it yet")),
            Some(Err(unknown)) => return Err(Stays::because(Guard::NotKnown, unknown.to_string())),
            Some(Ok(judged)) => judged,
        };
        let copies = ruling.min_copies.max(1);
        let by = by_rule(ruling.because.as_ref());
        let (keep, keep_last) = (ruling.keep, ruling.keep_last);
        let stance = Stance::of(project.mode(), Some(&Ok(ruling)));
        let belongs = matches!(stance, Stance::Keep | Stance::Later) && !is_retired;
        match self.purpose {
            Purpose::Command if belongs => Err(Stays::because(
                Guard::Kept,
                format!("the studio's policy keeps it here, {by}; it would come again"),
            )),
            Purpose::Room if belongs && keep_last.is_none() => {
                Err(Stays::because(Guard::Kept, format!("the studio's policy keeps it here, {by}")))
            }
            Purpose::Room if is_last && keep != Keep::Never && !is_retired => Err(Stays::because(
                Guard::Kept,
                format!("it is among the last {} that stay, {by}", keep_last.unwrap_or_default()),
            )),
            Purpose::Command | Purpose::Room => Ok(copies),
        }
    }

    /// Looks whether the files are in use, or somebody's work.
    fn files(&self, project: &Project, manifest: &Manifest) -> Result<(), Stays> {
        let dir = project.dir().filter(|_| project.is_current() && !project.is_doubted());
        let paused =
            || Stays::failed(format!("project {} is paused, or its volume is missing", project.name()));
        let dir = dir.ok_or_else(paused)?;
        if project.pending().iter().any(|pending| pending.dir == manifest.dir().as_str()) {
            let reason = "something changes in its directory; it is not whole, or it grows";
            return Err(Stays::because(Guard::Coming, reason));
        }
        let recent_ms = u64::try_from(project.space().evict_after.as_millis()).unwrap_or(u64::MAX);
        let not_after_ms = self.core.now_ms().saturating_sub(recent_ms);
        for file in manifest.files() {
            let Ok(path) = manifest.dir().join(&file.path) else { continue };
            let Ok(Some(stat)) = dir.stat(&path) else {
                return Err(Stays::because(Guard::Changed, format!("{path} is not there any more")));
            };
            if self.open.contains(&path, &stat) {
                return Err(Stays::because(Guard::Open, format!("a program has {path} open")));
            }
            if stat.size != file.size {
                return Err(Stays::because(Guard::Changed, format!("{path} is not what was published")));
            }
            if self.purpose == Purpose::Room
                && recent_ms > 0
                && let Ok(Some(used_ms)) = dir.last_used_ms(&path)
                && used_ms > not_after_ms
            {
                return Err(Stays::because(Guard::Recent, format!("{path} was used a short while ago")));
            }
        }
        Ok(())
    }
}

/// Returns when a version was last used, as far as its files say. Blocks.
pub(super) fn last_used_ms(project: &Project, manifest: &Manifest) -> u64 {
    let Some(dir) = project.dir() else { return u64::MAX };
    let paths = manifest.files().iter().filter_map(|file| manifest.dir().join(&file.path).ok());
    paths.filter_map(|path| dir.last_used_ms(&path).ok().flatten()).max().unwrap_or(0)
}

fn by_rule(rule: Option<&RuleRef>) -> String {
    rule.map_or_else(|| "by its defaults".to_owned(), |rule| format!("by rule {rule}"))
}
