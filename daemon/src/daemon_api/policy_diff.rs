//! `policy diff`: what a document would change, before anything moves.

use std::sync::Arc;

use avalon_protocol::{
    control::{
        ApiError, LimitItem, PolicyDiffList, PolicyDiffNode, PolicyDiffReply, PolicyDiffSite,
        PolicyDiffVersion, PolicyRequest,
    },
    id::SiteName,
    policy::Listed,
};

use super::{DaemonApi, catalog_failed, policy::refused};
use crate::{
    core::blocking,
    policy::{DiffError, Greeted, Line, PolicyDiff},
};

impl DaemonApi {
    pub(super) async fn policy_diffed(&self, request: PolicyRequest) -> Result<PolicyDiffReply, ApiError> {
        let (core, greeted) = (Arc::clone(&self.core), self.greeted());
        let compared = blocking(move || {
            let diff = core.policy_diff(&request.document, request.replaces, &greeted)?;
            Ok((diff, core.limits.list()))
        });
        let (diff, limits) = compared.await.map_err(|error| match error {
            DiffError::Refused(error) => refused(&error),
            DiffError::Catalog(error) => catalog_failed(&self.core.ledger, &error),
        })?;
        let recent = self.replicator.board.active().iter().map(|job| job.bytes_per_second).sum();
        Ok(reply(&diff, &self.core.me.site, &limits, recent))
    }

    /// Returns what the nodes that are connected serve.
    pub(super) fn greeted(&self) -> Greeted {
        let links = self.net.links();
        links.iter().map(|link| (link.node().clone(), link.hello().projects.clone())).collect()
    }
}

fn reply(diff: &PolicyDiff, here: &SiteName, limits: &[LimitItem], recent: f64) -> PolicyDiffReply {
    let totals = &diff.totals;
    let others = totals.sites.keys().filter(|site| *site != here).collect();
    let line = Line { here, others, limits, recent };
    let sites = totals.sites.iter().map(|(site, changes)| {
        let (bytes_per_second, speed) = line.speed(site);
        #[expect(clippy::cast_precision_loss, reason = "an estimate for people")]
        let bytes = changes.copying.to_copy.bytes as f64;
        PolicyDiffSite {
            site: site.to_string(),
            server_is_assumed: !diff.mirrored.contains(site),
            copying: changes.copying,
            could_free: changes.free,
            bytes_per_second,
            speed,
            seconds: bytes_per_second.filter(|rate| *rate > 0.0).map(|rate| bytes / rate),
        }
    });
    let nodes = totals.nodes.iter();
    PolicyDiffReply {
        schema: "avalonctl.policy-diff/1".into(),
        in_effect: diff.in_effect,
        projects: diff.projects.iter().map(ToString::to_string).collect(),
        looked_at: totals.looked_at,
        sites: sites.collect(),
        nodes: nodes
            .map(|(node, copying)| PolicyDiffNode { node: node.to_string(), copying: *copying })
            .collect(),
        could_free: totals.free,
        under_replicated: list(&totals.under_replicated),
        kept_nowhere: list(&totals.kept_nowhere),
        not_known: list(&totals.not_known),
        conflicts: totals.conflicts,
        warnings: diff.warnings.clone(),
    }
}

fn list(listed: &Listed) -> PolicyDiffList {
    let first = listed.first.iter().map(|((already, version), case)| PolicyDiffVersion {
        reference: version.to_string(),
        already: *already,
        copies: case.copies,
        min_copies: case.min_copies,
        rule: case.rule.as_ref().map(ToString::to_string),
    });
    PolicyDiffList { then: listed.then, now: listed.now, first: first.collect() }
}
