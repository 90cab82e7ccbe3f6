//! `conflicts` and `resolve`: contents that sites published under one number, and which keeps it.

use std::collections::BTreeSet;

use avalon_protocol::{
    access::Action,
    control::{
        ApiError, Candidate, ConflictItem, ConflictsReply, DecisionItem, ErrorCode, MovedItem, ResolveReply,
        ResolveRequest,
    },
    hash::ManifestId,
    id::{VersionId, VersionSlot},
    record::{Record, Resolved, Said},
    version_fold::{Resolution, Standing, VersionFold},
};

use super::{DaemonApi, catalog_failed, find::Hidden, lifetime::Doer};
use crate::{
    api::{Caller, RefQuery},
    clock::time_of_ms,
    core::blocking,
    numbers::Reserved,
};

/// From how many digits on the beginning of a manifest's name is one.
const MIN_PREFIX: usize = 4;

impl DaemonApi {
    pub(super) async fn conflicts_reply(&self, query: RefQuery) -> Result<ConflictsReply, ApiError> {
        let found = self.find_listed(&RefQuery { retired: true, ..query }).await?;
        let conflicts = found.iter().filter_map(|(version, fold)| {
            let Standing::Conflict(heads) = fold.standing(version.slot) else { return None };
            Some(ConflictItem {
                reference: version.to_string(),
                candidates: heads.iter().filter_map(|head| candidate(fold, head)).collect(),
                disagreement: fold.disagreement().into_iter().map(decision).collect(),
            })
        });
        Ok(ConflictsReply { schema: "avalonctl.conflicts/1".into(), conflicts: conflicts.collect() })
    }

    pub(super) async fn resolve_reply(
        &self,
        request: ResolveRequest,
        caller: Caller,
    ) -> Result<ResolveReply, ApiError> {
        let doer = Doer::new(&request.author, &request.comment, caller)?;
        let reference = self.parse(&request.reference)?;
        let mut found = self.find_also(&reference, request.project.as_deref(), Hidden::Found).await?;
        let count = found.len();
        let (Some((version, fold)), 1) = (found.pop(), count) else {
            let message = format!("{} names {count} versions, resolve takes one", request.reference);
            return Err(
                ApiError::new(ErrorCode::BadReference, message).with_hint("list them: avalonctl conflicts")
            );
        };
        let Standing::Conflict(heads) = fold.standing(version.slot) else {
            let message = format!("{version} is not in conflict");
            return Err(
                ApiError::new(ErrorCode::BadRequest, message).with_hint("list what is: avalonctl conflicts")
            );
        };
        let keep = chosen(&fold, &heads, &request.keep)?;
        let first = self.next_number(&version).await?;
        let others: Vec<ManifestId> = heads.iter().copied().filter(|head| *head != keep).collect();
        let mut moved: Vec<(ManifestId, u32)> = others.iter().copied().zip(first..).collect();
        self.core.check_may(&version.project, Action::Retire)?;
        if !request.dry_run {
            self.ask_for_numbers(&version, &mut moved).await;
        }
        let reply = ResolveReply {
            schema: "avalonctl.resolve/1".into(),
            reference: version.to_string(),
            kept: candidate(&fold, &keep).ok_or_else(|| not_held(&version))?,
            moved: moved
                .iter()
                .filter_map(|(manifest, number)| {
                    let becomes = VersionId { slot: VersionSlot::Number(*number), ..version.clone() };
                    Some(MovedItem { candidate: candidate(&fold, manifest)?, becomes: becomes.to_string() })
                })
                .collect(),
            dry_run: request.dry_run,
        };
        if !request.dry_run {
            let round = fold.resolutions().last().map_or(0, |last| last.round).saturating_add(1);
            let said = Said { author: doer.author, comment: doer.comment, at_ms: self.core.now_ms() };
            let resolved = Resolved::new(version.clone(), round, keep, moved, said);
            let resolved =
                resolved.map_err(|error| ApiError::new(ErrorCode::BadRequest, error.to_string()))?;
            self.say(&version, Record::Resolved(resolved)).await?;
        }
        Ok(reply)
    }

    /// Asks the voters for the numbers that are given, where the studio has voters. Without their answer they are given all the
    /// same: what is decided must not wait, and a number that somebody else takes meanwhile is a conflict again.
    async fn ask_for_numbers(&self, version: &VersionId, moved: &mut [(ManifestId, u32)]) {
        if !self.core.asks_for_numbers() {
            return;
        }
        let mut at_least = 1;
        for (_, number) in moved {
            let taken = self.core.take_next_number(version, at_least.max(*number)).await;
            if let Ok(Reserved { version: VersionId { slot: VersionSlot::Number(taken), .. } }) = taken {
                *number = taken;
            }
            *number = at_least.max(*number);
            at_least = number.saturating_add(1);
        }
    }

    /// Returns the lowest number that no version of the subset has, nor one that a decision gave to something, nor a higher one.
    async fn next_number(&self, version: &VersionId) -> Result<u32, ApiError> {
        let (ledger, version) = (self.core.ledger.clone(), version.clone());
        let known = blocking(move || ledger.subset_versions(&version)).await;
        let known = known.map_err(|error| catalog_failed(&self.core.ledger, &error))?;
        let numbers = known.iter().flat_map(|(version, fold)| {
            let own = match version.slot {
                VersionSlot::Number(number) => Some(number),
                VersionSlot::Hero => None,
            };
            own.into_iter().chain(fold.given_numbers())
        });
        numbers.max().unwrap_or(0).checked_add(1).ok_or_else(|| {
            ApiError::new(ErrorCode::BadRequest, "the highest number there is was given already")
        })
    }
}

fn not_held(version: &VersionId) -> ApiError {
    ApiError::new(ErrorCode::Internal, format!("what claims {version} is not known any more"))
}

/// Finds what somebody means by a site, a node, or the first digits of a manifest; it must be one of the candidates.
fn chosen(fold: &VersionFold, heads: &[ManifestId], keep: &str) -> Result<ManifestId, ApiError> {
    let is_meant = |head: &&ManifestId| {
        let holders = fold.holders(head);
        holders.iter().any(|node| node.site.to_string() == keep || node.to_string() == keep)
            || keep.len() >= MIN_PREFIX && head.to_string().starts_with(keep)
    };
    let meant: Vec<&ManifestId> = heads.iter().filter(is_meant).collect();
    match meant.as_slice() {
        [one] => Ok(**one),
        found => {
            let what = if found.is_empty() { "none" } else { "several" };
            let message = format!("{keep:?} means {what} of the contents that claim the number");
            let known: BTreeSet<String> = heads.iter().map(|head| head.short()).collect();
            let hint = format!(
                "name the site or the node that has the right one, or one of {}",
                known.into_iter().collect::<Vec<_>>().join(", ")
            );
            Err(ApiError::new(ErrorCode::BadRequest, message).with_hint(hint))
        }
    }
}

fn candidate(fold: &VersionFold, manifest: &ManifestId) -> Option<Candidate> {
    let generation = fold.generation(manifest)?;
    let holders = fold.holders(manifest);
    let sites: BTreeSet<String> = holders.iter().map(|node| node.site.to_string()).collect();
    Some(Candidate {
        manifest: manifest.to_string(),
        generation: generation.generation,
        node: generation.node.to_string(),
        author: generation.author.clone(),
        published: time_of_ms(generation.published_at_ms),
        files: generation.files,
        bytes: generation.bytes,
        holders: holders.iter().map(ToString::to_string).collect(),
        sites: sites.into_iter().collect(),
    })
}

fn decision(resolution: &Resolution) -> DecisionItem {
    DecisionItem {
        keep: resolution.keep.to_string(),
        author: resolution.author.as_str().to_owned(),
        comment: resolution.comment.as_str().to_owned(),
        node: resolution.node.to_string(),
        decided: time_of_ms(resolution.at_ms),
    }
}
