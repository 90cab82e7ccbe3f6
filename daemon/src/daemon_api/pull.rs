//! `pull`: what would come, from where, and the jobs that bring it.

use std::{collections::BTreeSet, sync::Arc};

use avalon_protocol::{
    control::{ApiError, ErrorCode, PlanState, PullItem, PullReply, PullRequest},
    hash::{ManifestId, ObjectHash},
    id::VersionId,
    manifest::Manifest,
    plan::{Decision, Wish, rank_sources},
    version_fold::VersionFold,
};

use super::{DaemonApi, catalog_failed, show::head_of, stopping};
use crate::{
    core::blocking,
    policy::{Ranks, forbids},
    publish::lost,
    replicate::jobs::Pulled,
};

impl DaemonApi {
    pub(super) async fn pull_reply(&self, request: PullRequest) -> Result<PullReply, ApiError> {
        let mut wanted: Vec<VersionId> = Vec::new();
        for text in &request.refs {
            let reference = self.parse(text)?;
            let found = self.find(&reference, request.project.as_deref()).await?;
            wanted.extend(found.into_iter().map(|(version, _)| version));
        }
        let mut seen = BTreeSet::new();
        wanted.retain(|version| seen.insert(version.clone()));
        let pulled: Vec<Option<Pulled>> = if request.dry_run {
            wanted.iter().map(|_| None).collect()
        } else {
            for version in &wanted {
                let settler = self.settlers.iter().find(|(project, _)| *project.name() == version.project);
                if let Some((_, settler)) = settler {
                    lost::look_at(&self.core, settler, version).await;
                }
            }
            let pulled = self.replicator.pull(wanted.clone()).await.map_err(|_| stopping())?;
            pulled.into_iter().map(Some).collect()
        };
        let mut versions = Vec::with_capacity(wanted.len());
        for (version, pulled) in wanted.into_iter().zip(pulled) {
            versions.extend(self.pull_item(version, pulled).await?);
        }
        Ok(PullReply { versions })
    }

    async fn pull_item(
        &self,
        version: VersionId,
        pulled: Option<Pulled>,
    ) -> Result<Option<PullItem>, ApiError> {
        let fold = self.fold_of(&version).await?;
        let Some((head, conflict)) = head_of(&version, &fold) else { return Ok(None) };
        let Some(generation) = fold.generation(&head) else { return Ok(None) };
        let here = fold.holds(&self.core.me, &head)
            || pulled.as_ref().is_some_and(|pulled| matches!(pulled.decision, Decision::Have(_)));
        let forbidden = match &pulled {
            Some(pulled) => match &pulled.decision {
                Decision::Forbidden(rule) => Some(forbids(&version, rule.as_ref())),
                _ => None,
            },
            None => self.forbidden(&version, &fold).await?,
        };
        let holders = rank_sources(&self.core.me, &fold.holders(&head));
        let connected = holders.iter().filter(|node| self.net.link(node).is_some());
        let sources: Vec<String> = connected.map(ToString::to_string).collect();
        let state = match (conflict, here, sources.is_empty()) {
            (_, true, _) => PlanState::Here,
            (true, false, _) => PlanState::Conflict,
            _ if forbidden.is_some() => PlanState::Forbidden,
            (false, false, true) => PlanState::NoSource,
            (false, false, false) => PlanState::Fetch,
        };
        if let Some(project) = self.core.project(&version.project)
            && state == PlanState::Here
            && project.dir().is_none()
        {
            let path = project.path().display();
            let reason = format!(
                "{version} is held here, but project {} is paused: {path} is missing",
                project.name()
            );
            return Err(ApiError::new(ErrorCode::ProjectPaused, reason)
                .with_hint(format!("mount or create {path}; it goes on by itself")));
        }
        let (path, bytes_local) = self.here_already(&version, head, &fold).await;
        Ok(Some(PullItem {
            reference: version.to_string(),
            state,
            job: pulled.and_then(|pulled| pulled.job).map(|job| job.id.clone()),
            manifest: head.to_string(),
            path,
            files: generation.files,
            bytes: generation.bytes,
            bytes_here: if here { generation.bytes } else { bytes_local },
            sources,
            holders: holders.iter().map(ToString::to_string).collect(),
            reason: forbidden.filter(|_| state == PlanState::Forbidden),
        }))
    }

    /// Says why the policy would not let a version come here, if it would not.
    async fn forbidden(&self, version: &VersionId, fold: &VersionFold) -> Result<Option<String>, ApiError> {
        let (core, id, fold) = (Arc::clone(&self.core), version.clone(), fold.clone());
        let verdict = blocking(move || core.decide(&id, &fold, Wish::Pulled, &mut Ranks::default())).await;
        Ok(match verdict.map_err(|error| catalog_failed(&self.core.ledger, &error))?.decision {
            Decision::Forbidden(rule) => Some(forbids(version, rule.as_ref())),
            _ => None,
        })
    }

    /// Returns where a version is or will be, and how many bytes of it are on this machine already: files of the same
    /// content count, wherever they lie.
    async fn here_already(
        &self,
        version: &VersionId,
        head: ManifestId,
        fold: &VersionFold,
    ) -> (Option<String>, u64) {
        let Some(project) = self.core.project(&version.project) else { return (None, 0) };
        let root = project.path().clone();
        let held = fold.holds(&self.core.me, &head);
        let ledger = self.core.ledger.clone();
        blocking(move || {
            let Ok(Some(manifest)) = ledger.manifest(head) else { return (None, 0) };
            let path = root.join(manifest.dir().as_str()).display().to_string();
            if held {
                return (Some(path), manifest.total_bytes());
            }
            let is_here = |object: &ObjectHash| ledger.locate(object).is_ok_and(|places| !places.is_empty());
            (Some(path), bytes_where(&manifest, is_here))
        })
        .await
    }
}

fn bytes_where(manifest: &Manifest, is_here: impl Fn(&ObjectHash) -> bool) -> u64 {
    manifest.files().iter().filter(|file| is_here(&file.hash)).map(|file| file.size).sum()
}
