//! `pull --frames`: some frames of a version, in a project that allows parts of versions.

use std::{collections::BTreeMap, sync::Arc};

use avalon_protocol::{
    control::{ApiError, ErrorCode, PlanState, PullItem, PullReply, PullRequest},
    frames::{FrameWish, passes},
    hash::ManifestId,
    id::{VersionId, VersionSlot},
    manifest::{FileEntry, Manifest},
};

use super::{DaemonApi, pull::bytes_of_files, queue::not_kept, stopping};
use crate::{
    core::blocking,
    log::ErrorChain,
    replicate::jobs::{Order, Pulled},
};

impl DaemonApi {
    /// Fetches some frames of versions, or says what would come.
    pub(super) async fn pull_frames(
        &self,
        request: &PullRequest,
        frames: &str,
    ) -> Result<PullReply, ApiError> {
        let frames = frames.parse().map_err(|error| bad(ErrorChain(&error).to_string()))?;
        if request.with_inputs {
            return Err(
                bad("frames of a version do not come with its inputs").with_hint("pull one or the other")
            );
        }
        let mut wanted: BTreeMap<VersionId, FrameWish> = BTreeMap::new();
        for text in &request.refs {
            let reference = self.parse(text)?;
            let representation = reference.representation.as_ref().map(|name| name.as_str().parse());
            let representation = representation
                .transpose()
                .map_err(|_| bad(format!("{text} names more than one representation")))?;
            let wish = FrameWish { frames: Clone::clone(&frames), representation };
            for (version, _) in self.find(&reference, request.project.as_deref()).await? {
                self.check_parts(&version)?;
                wanted.insert(version, wish.clone());
            }
        }
        let versions: Vec<VersionId> = wanted.keys().cloned().collect();
        let pulled: Vec<Option<Pulled>> = if request.dry_run {
            versions.iter().map(|_| None).collect()
        } else {
            let (core, orders) = (Arc::clone(&self.core), wanted.clone());
            let written = blocking(move || {
                core.orders.change(|book| {
                    for (version, wish) in orders {
                        let order: &mut Order = book.versions.entry(version).or_default();
                        order.frames = Some(wish);
                    }
                })
            });
            written.await.map_err(|error| not_kept(&error))?;
            let pulled = self.replicator.pull_frames(versions.clone()).await.map_err(|_| stopping())?;
            pulled.into_iter().map(Some).collect()
        };
        let mut reply = PullReply::default();
        for ((version, wish), pulled) in wanted.into_iter().zip(pulled) {
            let Some(item) = self.pull_item(version, pulled).await? else { continue };
            reply.versions.push(self.only_frames(item, wish).await?);
        }
        Ok(reply)
    }

    /// Parts of versions come only where the configuration says so: what exists counts as complete to Avalon's loader.
    fn check_parts(&self, version: &VersionId) -> Result<(), ApiError> {
        let name = &version.project;
        if !self.core.project(name).is_some_and(|project| project.allows_parts()) {
            let message = format!("this node does not fetch parts of versions of project {name}");
            return Err(ApiError::new(ErrorCode::Denied, message).with_hint(format!(
                "loaders take what is there for complete; where only people who know that use the files: partial = \
                 true for project {name} in the configuration, then restart"
            )));
        }
        if version.slot == VersionSlot::Hero {
            return Err(bad(format!("{version} moves; frames of it cannot be fetched"))
                .with_hint("name the version that it shows"));
        }
        Ok(())
    }

    /// Counts what is wanted only.
    async fn only_frames(&self, item: PullItem, wish: FrameWish) -> Result<PullItem, ApiError> {
        let Ok(id) = item.manifest.parse::<ManifestId>() else { return Ok(item) };
        if item.state == PlanState::Here {
            return Ok(item);
        }
        let ledger = self.core.ledger.clone();
        let counted = blocking(move || {
            let Ok(Some(manifest)) = ledger.manifest(id) else { return Ok(None) };
            let parts = passes(&manifest, &wish)?;
            let files = || parts.iter().flat_map(Manifest::files);
            let bytes: u64 = files().map(|file: &FileEntry| file.size).sum();
            Ok(Some((files().count() as u64, bytes, bytes_of_files(&ledger, files()))))
        });
        let counted = counted.await.map_err(|error: avalon_protocol::frames::NoFrames| {
            ApiError::new(ErrorCode::NotFound, format!("{}: {}", item.reference, ErrorChain(&error)))
        });
        Ok(match counted? {
            Some((files, bytes, bytes_here)) => PullItem { files, bytes, bytes_here, ..item },
            // The manifest comes first.
            None => item,
        })
    }
}

fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(ErrorCode::BadRequest, message)
}
