//! `pull`: what would come, from where, and the jobs that bring it.

use std::{collections::BTreeSet, sync::Arc};

use avalon_protocol::{
    closure::MAX_CLOSURE_DEPTH,
    control::{ApiError, ErrorCode, JobState, JobStatus, PlanState, PullItem, PullReply, PullRequest},
    hash::{ManifestId, ObjectHash},
    id::{NodeId, ProjectName, VersionId},
    manifest::{FileEntry, Manifest},
    plan::{Decision, Wish, rank_sources},
    version_fold::VersionFold,
};
use avalon_store::{fs::Dir, ledger::Ledger};

use super::{DaemonApi, catalog_failed, inputs::missing_of, lifetime::retired_by, show::head_of, stopping};
use crate::{core::blocking, policy::Ranks, publish::lost, replicate::jobs::Pulled};

/// From how many bytes on a version says how fast the line is, and how many of the last are looked at.
const RATE_FROM_BYTES: u64 = 1 << 20;
const RATE_OF_LAST: usize = 8;

impl DaemonApi {
    pub(super) async fn pull_reply(&self, request: PullRequest) -> Result<PullReply, ApiError> {
        if let Some(frames) = &request.frames {
            return self.pull_frames(&request, frames).await;
        }
        let mut wanted: Vec<VersionId> = Vec::new();
        for text in &request.refs {
            let reference = self.parse(text)?;
            let found = self.find(&reference, request.project.as_deref()).await?;
            wanted.extend(found.into_iter().map(|(version, _)| version));
        }
        let mut seen = BTreeSet::new();
        wanted.retain(|version| seen.insert(version.clone()));
        let mut reply = PullReply::default();
        if request.with_inputs {
            let closure = self.closure_of(wanted, MAX_CLOSURE_DEPTH).await?;
            (reply.missing, reply.missing_more) = (missing_of(&closure), closure.missing_more);
            wanted = closure.members.into_iter().map(|member| member.version).collect();
            reply.disk_free_bytes = self.free_bytes(&wanted).await;
            reply.recent_bytes_per_second = recent_rate(&self.replicator.board.all());
        }
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
        for (version, pulled) in wanted.into_iter().zip(pulled) {
            reply.versions.extend(self.pull_item(version, pulled).await?);
        }
        Ok(reply)
    }

    /// Returns how much room there is on the fullest of the volumes that the versions lie on.
    async fn free_bytes(&self, versions: &[VersionId]) -> Option<u64> {
        let projects: BTreeSet<&ProjectName> = versions.iter().map(|version| &version.project).collect();
        let dirs = projects.into_iter().filter_map(|name| self.core.project(name)?.dir());
        let dirs: Vec<Dir> = dirs.collect();
        blocking(move || dirs.iter().filter_map(|dir| dir.free_bytes().ok()).min()).await
    }

    pub(super) async fn pull_item(
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
                Decision::Forbidden(rule) => Some(self.core.forbids(&version, rule.as_ref())),
                _ => None,
            },
            None => self.forbidden(&version, &fold).await?,
        };
        let holders = rank_sources(&self.core.me, &fold.holders(&head));
        let serves = |node: &&NodeId| self.net.link(node).is_some_and(|link| link.shares(&version.project));
        let connected = holders.iter().filter(serves);
        let sources: Vec<String> = connected.map(ToString::to_string).collect();
        let state = match (conflict, here, sources.is_empty()) {
            (_, true, _) => PlanState::Here,
            (true, false, _) => PlanState::Conflict,
            _ if fold.retired().is_some() => PlanState::Retired,
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
            reason: match state {
                PlanState::Forbidden => forbidden,
                PlanState::Retired => fold.retired().map(|retirement| retired_by(&version, retirement)),
                _ => None,
            },
        }))
    }

    /// Says why the policy would not let a version come here, if it would not.
    async fn forbidden(&self, version: &VersionId, fold: &VersionFold) -> Result<Option<String>, ApiError> {
        let (core, id, fold) = (Arc::clone(&self.core), version.clone(), fold.clone());
        let verdict = blocking(move || core.decide(&id, &fold, Wish::Pulled, &mut Ranks::default())).await;
        Ok(match verdict.map_err(|error| catalog_failed(&self.core.ledger, &error))?.decision {
            Decision::Forbidden(rule) => Some(self.core.forbids(version, rule.as_ref())),
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
            (Some(path), bytes_on_machine(&ledger, &manifest))
        })
        .await
    }
}

/// Returns how many bytes of a version lie somewhere on this machine already. Blocks.
pub(super) fn bytes_on_machine(ledger: &Ledger, manifest: &Manifest) -> u64 {
    bytes_of_files(ledger, manifest.files().iter())
}

/// Returns how many bytes of files lie somewhere on this machine already. Blocks.
pub(super) fn bytes_of_files<'a>(ledger: &Ledger, files: impl Iterator<Item = &'a FileEntry>) -> u64 {
    let is_here = |object: &ObjectHash| ledger.locate(object).is_ok_and(|places| !places.is_empty());
    files.filter(|file| is_here(&file.hash)).map(|file| file.size).sum()
}

/// Returns how fast content comes in: now, or when it last did.
pub(super) fn recent_rate(jobs: &[JobStatus]) -> Option<f64> {
    let now: f64 = jobs.iter().filter(|job| !job.state.is_final()).map(|job| job.bytes_per_second).sum();
    if now > 0.0 {
        return Some(now);
    }
    // Small versions say more about round trips than about the line.
    let told = |job: &&JobStatus| {
        job.state == JobState::Done && job.bytes_received >= RATE_FROM_BYTES && job.seconds > 0.0
    };
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let rates =
        jobs.iter().rev().filter(told).take(RATE_OF_LAST).map(|job| job.bytes_received as f64 / job.seconds);
    rates.reduce(f64::max)
}

#[cfg(test)]
mod tests {
    use avalon_protocol::control::JobKind;

    use super::*;

    fn job(state: JobState, bytes_received: u64, seconds: f64, bytes_per_second: f64) -> JobStatus {
        JobStatus {
            id: "7".into(),
            kind: JobKind::Pull,
            reference: "lantern:robot/modelDefault@v001".into(),
            manifest: String::new(),
            state,
            reason: None,
            error: None,
            files_total: 1,
            files_present: 1,
            bytes_total: bytes_received,
            bytes_present: bytes_received,
            bytes_received,
            bytes_local: 0,
            bytes_delta: 0,
            bytes_compressed: 0,
            bytes_raw: bytes_received,
            bytes_per_second,
            eta_seconds: None,
            seconds,
            sources: Vec::new(),
            path: None,
            class: None,
            prio: None,
            frames: None,
            position: None,
        }
    }

    #[test]
    fn the_rate_is_that_of_now_or_of_the_last_large_versions_or_not_known() {
        let small = job(JobState::Done, 1000, 0.001, 0.0);
        let failed = job(JobState::Failed, 90 << 20, 1.0, 0.0);
        assert_eq!(recent_rate(&[]), None);
        assert_eq!(recent_rate(&[small.clone(), failed.clone()]), None);
        let (slow, fast) =
            (job(JobState::Done, 20 << 20, 20.0, 0.0), job(JobState::Done, 20 << 20, 2.0, 0.0));
        assert_eq!(recent_rate(&[fast.clone(), slow, small, failed]), Some(10_485_760.0));
        let running = job(JobState::Running, 5, 1.0, 3.0);
        assert_eq!(recent_rate(&[fast, running.clone(), running]), Some(6.0));
    }
}
