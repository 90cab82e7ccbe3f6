//! `drop`, `pin`, `unpin`, `pins`, and how full projects are.

use std::{collections::BTreeSet, sync::Arc};

use avalon_protocol::{
    control::{
        ApiError, DropHolder, DropItem, DropReply, DropRequest, DropState, ErrorCode, PinItem, PinRequest,
        PinsReply, SpaceStatus,
    },
    drop::GiveUp,
    id::VersionId,
};

use super::DaemonApi;
use crate::{
    api::Caller,
    clock::time_of_ms,
    core::blocking,
    log::ErrorChain,
    project::Project,
    publish::author,
    space::{Freed, Pin, PinError, Purpose, Stays},
};

impl DaemonApi {
    pub(super) async fn drop_reply(
        &self,
        request: DropRequest,
        caller: Caller,
    ) -> Result<DropReply, ApiError> {
        let wanted = self.named(&request.refs, request.project.as_deref()).await?;
        let by = author::name_of(caller.uid);
        let mut versions = Vec::with_capacity(wanted.len());
        for version in wanted {
            let fold = self.fold_of(&version).await?;
            let is_here = fold.held_by(&self.core.me).next().is_some();
            let done = match (is_here, request.dry_run) {
                (false, _) => None,
                (true, true) => Some(self.dropper.would_drop(&version, Purpose::Command).await),
                (true, false) => {
                    Some(self.dropper.drop_version(version.clone(), Purpose::Command, by.clone()).await)
                }
            };
            versions.push(item(&version, done, request.dry_run));
        }
        Ok(DropReply { schema: "avalonctl.drop/1".into(), versions })
    }

    pub(super) fn pins_reply(&self) -> Result<PinsReply, ApiError> {
        let all = self.core.space.pins().all().map_err(|error| refused(&error))?;
        Ok(pins(all))
    }

    pub(super) async fn pins_set(&self, request: PinRequest, caller: Caller) -> Result<PinsReply, ApiError> {
        let wanted = self.named(&request.refs, request.project.as_deref()).await?;
        let pin = Pin { by: author::name_of(caller.uid), since_ms: self.core.now_ms() };
        let core = Arc::clone(&self.core);
        let changed = blocking(move || {
            let kept = core.space.pins();
            if request.unpin {
                let before: Vec<(VersionId, Pin)> =
                    wanted.iter().filter_map(|version| Some((version.clone(), kept.get(version)?))).collect();
                kept.remove(&wanted)?;
                return Ok(before);
            }
            let new = kept.add(&wanted, &pin)?;
            Ok(new.into_iter().map(|version| (version, pin.clone())).collect())
        });
        Ok(pins(changed.await.map_err(|error| refused(&error))?))
    }

    /// Returns the versions that references name, each once.
    async fn named(&self, refs: &[String], project: Option<&str>) -> Result<Vec<VersionId>, ApiError> {
        let (mut seen, mut wanted) = (BTreeSet::new(), Vec::new());
        for text in refs {
            let reference = self.parse(text)?;
            let found = self.find(&reference, project).await?;
            wanted.extend(found.into_iter().map(|(version, _)| version).filter(|id| seen.insert(id.clone())));
        }
        Ok(wanted)
    }

    /// Says how full a project is, where that is limited.
    pub(super) async fn space_status(&self, project: &Project) -> Option<SpaceStatus> {
        let limits = project.space();
        limits.quota_bytes.or(limits.keep_free_bytes)?;
        let dir = project.dir();
        let free = blocking(move || dir.and_then(|dir| dir.free_bytes().ok()));
        Some(SpaceStatus {
            used_bytes: self.core.space.used_bytes(project.name()),
            quota_bytes: limits.quota_bytes,
            free_bytes: free.await,
            keep_free_bytes: limits.keep_free_bytes,
        })
    }
}

fn item(version: &VersionId, done: Option<Result<Freed, Stays>>, dry_run: bool) -> DropItem {
    let nothing = DropItem {
        reference: version.to_string(),
        state: DropState::Absent,
        bytes: 0,
        files: 0,
        why: None,
        reason: None,
        min_copies: None,
        holders: Vec::new(),
    };
    match done {
        None => nothing,
        Some(Ok(freed)) => DropItem {
            state: if dry_run { DropState::WouldDrop } else { DropState::Dropped },
            bytes: freed.bytes,
            files: freed.files,
            min_copies: Some(freed.min_copies),
            holders: freed.proved.iter().map(|node| holder(node.to_string(), true, None)).collect(),
            ..nothing
        },
        Some(Err(stays)) => DropItem {
            state: DropState::Stays,
            why: Some(stays.guard.map_or("unable", |guard| guard.code()).to_owned()),
            reason: Some(stays.reason),
            min_copies: stays.asked.as_ref().map(|asked| asked.min_copies),
            holders: stays.asked.map(holders).unwrap_or_default(),
            ..nothing
        },
    }
}

fn holders(asked: GiveUp) -> Vec<DropHolder> {
    let counted = asked.counted.iter().map(|node| holder(node.to_string(), true, None));
    let doubted = asked
        .not_counted
        .iter()
        .map(|(node, doubt)| holder(node.to_string(), false, Some(doubt.to_string())));
    let not_asked = asked.not_asked.iter().map(|node| {
        holder(node.to_string(), false, Some("has it by its records and was not asked".to_owned()))
    });
    counted.chain(doubted).chain(not_asked).collect()
}

fn holder(node: String, counts: bool, detail: Option<String>) -> DropHolder {
    DropHolder { node, counts, detail }
}

fn pins(all: Vec<(VersionId, Pin)>) -> PinsReply {
    let items = all.into_iter().map(|(version, pin)| PinItem {
        reference: version.to_string(),
        by: pin.by,
        since: time_of_ms(pin.since_ms),
    });
    PinsReply { schema: "avalonctl.pins/1".into(), pins: items.collect() }
}

fn refused(error: &PinError) -> ApiError {
    ApiError::new(ErrorCode::Internal, format!("the pins stay as they were: {}", ErrorChain(error)))
        .with_hint("avalonctl status says what is wrong at this node")
}
