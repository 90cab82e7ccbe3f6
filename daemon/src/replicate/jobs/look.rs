//! Looking at versions: those of which there is news, those that time or another policy may concern, and all of a project.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use avalon_protocol::{
    id::{ProjectName, VersionId},
    plan::{Decision, Priority},
    version_fold::VersionFold,
};
use avalon_store::catalog::CatalogError;

use super::{
    changes::Due,
    replicator::{Replicator, wish_of},
};
use crate::{
    core::{Core, blocking},
    log::ErrorChain,
    policy::{Ranks, Verdict},
};

/// How many versions are read from the catalog at a time.
const PAGE: usize = 500;
/// The longest wait for a time at which the policy says something else: the wall clock may be set.
const LOOK_AT_CLOCK: Duration = Duration::from_secs(60);

impl Replicator {
    /// Decides anew about versions of which there is news, and acts on it.
    pub(super) async fn look_at_all(&mut self, versions: Vec<VersionId>, priority: Priority) {
        let (core, wanted) = (Arc::clone(&self.core), self.wanted.clone());
        let judged = blocking(move || {
            let mut ranks = Ranks::default();
            let folds = versions.into_iter().map(|version| {
                let fold = core.ledger.version(&version)?.unwrap_or_default();
                Ok((version, fold))
            });
            judge(&core, folds, &wanted, &mut ranks)
        });
        match judged.await {
            Ok(judged) => {
                for (version, verdict) in judged {
                    self.act(version, verdict, priority).await;
                }
            }
            Err(error) => unreadable(&error),
        }
    }

    pub(super) async fn look_at_project(&mut self, project: &ProjectName) {
        let mut after: Option<VersionId> = None;
        loop {
            let (core, name, wanted) = (Arc::clone(&self.core), project.clone(), self.wanted.clone());
            let from = after.clone();
            let page = blocking(move || {
                let page = core.ledger.versions(&name, None, from.as_ref(), PAGE)?;
                judge(&core, page.into_iter().map(Ok), &wanted, &mut Ranks::default())
            });
            let page = match page.await {
                Ok(page) => page,
                Err(error) => return unreadable(&error),
            };
            after = page.last().map(|(version, _)| version.clone());
            self.act_on_news(page).await;
            if after.is_none() {
                return;
            }
        }
    }

    /// Acts on decisions about versions of which most are as they were.
    async fn act_on_news(&mut self, judged: Vec<(VersionId, Verdict)>) {
        for (version, verdict) in judged {
            let is_news =
                matches!(verdict.decision, Decision::Fetch(_) | Decision::Conflict(_) | Decision::Move(_));
            if is_news || self.queue.current(&version).is_some() {
                self.act(version, verdict, Priority::Backfill).await;
            } else if let Some(at_ms) = verdict.next_change_ms {
                self.changes.note(at_ms, version);
            }
        }
    }

    /// Looks at every version: another policy holds.
    pub(super) async fn look_at_everything(&mut self) {
        self.changes.clear();
        let projects: Vec<ProjectName> = self.core.projects.keys().cloned().collect();
        for project in projects {
            self.look_at_project(&project).await;
        }
    }

    /// Looks at all versions of one subset of which there is news.
    pub(super) async fn look_at_older(&mut self) {
        let Some((_, version)) = self.ranks_changed.pop_first() else { return };
        let (core, wanted) = (Arc::clone(&self.core), self.wanted.clone());
        let judged = blocking(move || {
            let versions = core.ledger.subset_versions(&version)?;
            judge(&core, versions.into_iter().map(Ok), &wanted, &mut Ranks::default())
        });
        match judged.await {
            Ok(judged) => self.act_on_news(judged).await,
            Err(error) => unreadable(&error),
        }
    }

    /// Returns how long to wait until time changes what the policy says.
    pub(super) fn next_change(&self) -> Option<Duration> {
        let at_ms = self.changes.next_ms()?;
        Some(Duration::from_millis(at_ms.saturating_sub(self.core.now_ms())).min(LOOK_AT_CLOCK))
    }

    pub(super) async fn look_at_due(&mut self) {
        match self.changes.take(self.core.now_ms()) {
            Due::Versions(versions) => self.look_at_all(versions, Priority::Backfill).await,
            Due::Everything => self.look_at_everything().await,
        }
    }
}

/// Decides about versions; those of one subset should follow each other. Blocks.
fn judge(
    core: &Core,
    versions: impl Iterator<Item = Result<(VersionId, VersionFold), CatalogError>>,
    wanted: &BTreeSet<VersionId>,
    ranks: &mut Ranks,
) -> Result<Vec<(VersionId, Verdict)>, CatalogError> {
    let judged = versions.map(|known| {
        let (version, fold) = known?;
        let wish = wish_of(core, wanted, &version);
        let verdict = core.decide(&version, &fold, wish, ranks)?;
        Ok((version, verdict))
    });
    judged.collect()
}

pub(super) fn unreadable(error: &CatalogError) {
    tracing::warn!(error = %ErrorChain(error), "cannot read the catalog; versions are looked at later");
}
