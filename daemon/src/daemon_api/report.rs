//! `report`: what was published anywhere and what came here, for whoever adds it up.

use std::collections::BTreeSet;

use avalon_protocol::{
    control::{ApiError, ErrorCode, ReportPublish, ReportReply, ReportTransfer},
    id::{NodeId, VersionId},
    version_fold::{Generation, VersionFold},
};

use super::DaemonApi;
use crate::{
    api::{RefQuery, ReportQuery},
    clock::time_of_ms,
    core::blocking,
    log::ErrorChain,
    transfers::Transfer,
};

impl DaemonApi {
    pub(super) async fn report_reply(&self, query: ReportQuery) -> Result<ReportReply, ApiError> {
        let (since, until) = (query.since_ms, query.until_ms.unwrap_or(u64::MAX));
        let all = RefQuery { project: query.project.clone(), retired: true, ..RefQuery::default() };
        let found = self.find_listed(&all).await?;
        let publishes = found.iter().flat_map(|(version, fold)| {
            let in_time = fold
                .generations()
                .iter()
                .filter(move |(_, generation)| (since..until).contains(&generation.published_at_ms));
            in_time.map(move |(manifest, generation)| {
                published(version, fold, generation, &fold.holders(manifest))
            })
        });
        let publishes = publishes.collect();
        let log = self.core.transfers.clone();
        let known = blocking(move || log.since(since)).await;
        let known = known.map_err(|error| {
            let message = format!("the log of transfers cannot be read: {}", ErrorChain(&error));
            ApiError::new(ErrorCode::Internal, message).with_hint("check the disk of the state directory")
        })?;
        let project = query.project.filter(|project| !project.is_empty());
        let transfers =
            known.transfers.into_iter().filter(|transfer| transfer.at_ms < until).map(transferred);
        let transfers =
            transfers.filter(|t| project.as_ref().is_none_or(|project| *project == t.project)).collect();
        Ok(ReportReply {
            schema: "avalonctl.report-facts/1".into(),
            site: self.core.me.site.to_string(),
            publishes,
            transfers,
            transfers_known_since: known.since_ms.map(time_of_ms),
        })
    }
}

fn published(
    version: &VersionId,
    fold: &VersionFold,
    generation: &Generation,
    holders: &BTreeSet<NodeId>,
) -> ReportPublish {
    let before = generation.predecessor.as_ref().and_then(|before| fold.generation(before));
    let (files, bytes) = before.map_or((0, 0), |before| (before.files, before.bytes));
    let sites: BTreeSet<String> = holders.iter().map(|node| node.site.to_string()).collect();
    ReportPublish {
        reference: version.to_string(),
        project: version.project.to_string(),
        author: generation.author.clone(),
        node: generation.node.to_string(),
        site: generation.node.site.to_string(),
        published: time_of_ms(generation.published_at_ms),
        generation: generation.generation,
        files: generation.files.saturating_sub(files),
        bytes: generation.bytes.saturating_sub(bytes),
        held_at: sites.into_iter().collect(),
    }
}

fn transferred(transfer: Transfer) -> ReportTransfer {
    let project = transfer.reference.split_once(':').map(|(project, _)| project.to_owned());
    ReportTransfer {
        project: project.unwrap_or_default(),
        reference: transfer.reference,
        placed: time_of_ms(transfer.at_ms),
        files: transfer.files,
        bytes: transfer.bytes,
        bytes_received: transfer.bytes_received,
        seconds: transfer.seconds,
        sources: transfer.sources,
    }
}
