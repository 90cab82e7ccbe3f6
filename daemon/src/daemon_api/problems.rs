//! `problems`: what checks find in versions, as every site computes it from their manifests.

use std::sync::Arc;

use avalon_protocol::{
    check::CheckProblem,
    control::{ApiError, ProblemsReply, VersionProblems},
    id::VersionId,
    manifest::Manifest,
    version_fold::VersionFold,
};
use avalon_store::catalog::CatalogError;

use super::{DaemonApi, catalog_failed, find::Found, show::head_of};
use crate::{
    api::RefQuery,
    clock::time_of_ms,
    core::{Core, blocking},
    policy::Ranks,
};

/// What is checked when no reference is given: what people work with.
const NEWEST_OF_ALL: &str = "*/*";

impl DaemonApi {
    pub(super) async fn problems_reply(&self, query: RefQuery) -> Result<ProblemsReply, ApiError> {
        let found = self.find_checked(&query).await?;
        let core = Arc::clone(&self.core);
        let reply = blocking(move || check_all(&core, &found)).await;
        reply.map_err(|error| catalog_failed(&self.core.ledger, &error))
    }

    /// Returns the versions that a reference names; without one the newest of every subset, and the heroes.
    async fn find_checked(&self, query: &RefQuery) -> Result<Found, ApiError> {
        if let Some(text) = query.reference.as_deref().filter(|text| !text.is_empty()) {
            return self.find(&self.parse(text)?, query.project.as_deref()).await;
        }
        let all = self.find_listed(query).await?;
        let newest = self.parse(NEWEST_OF_ALL)?;
        let published = all.into_iter().filter(|(_, fold)| !fold.generations().is_empty());
        let published: Found = published.collect();
        let mut chosen = Vec::new();
        for project in self.core.projects.keys() {
            let of_project = published.iter().map(|(version, _)| version).filter(|v| v.project == *project);
            chosen.extend(newest.select(of_project));
        }
        let is_chosen = |version: &VersionId| {
            version.slot == avalon_protocol::id::VersionSlot::Hero || chosen.contains(version)
        };
        Ok(published.into_iter().filter(|(version, _)| is_chosen(version)).collect())
    }

    /// Returns what checks find in a manifest that was read already; nothing while the catalog does not answer.
    pub(super) async fn problems_of(
        &self,
        version: &VersionId,
        fold: &VersionFold,
        manifest: &Arc<Manifest>,
    ) -> Vec<CheckProblem> {
        let (core, manifest) = (Arc::clone(&self.core), Arc::clone(manifest));
        let (version, fold) = (version.clone(), fold.clone());
        let found = blocking(move || core.problems(&version, &fold, &manifest, &mut Ranks::default()));
        found.await.unwrap_or_default()
    }
}

fn check_all(core: &Core, found: &Found) -> Result<ProblemsReply, CatalogError> {
    let mut reply = ProblemsReply {
        schema: "avalonctl.problems/1".into(),
        versions: Vec::new(),
        checked: 0,
        unknown: Vec::new(),
    };
    let mut ranks = Ranks::default();
    for (version, fold) in found {
        let Some((head, _)) = head_of(version, fold) else { continue };
        let Some(manifest) = core.ledger.manifest(head).ok().flatten() else {
            reply.unknown.push(version.to_string());
            continue;
        };
        reply.checked += 1;
        let problems = core.problems(version, fold, &manifest, &mut ranks)?;
        if !problems.is_empty() {
            let draft = manifest.draft();
            reply.versions.push(VersionProblems {
                reference: version.to_string(),
                generation: draft.generation,
                manifest: head.to_string(),
                author: draft.author.clone(),
                published: time_of_ms(draft.published_at_ms),
                problems,
            });
        }
    }
    Ok(reply)
}
