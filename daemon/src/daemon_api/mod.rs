//! What the daemon answers to the local API: the words of [`avalon_protocol::control`], filled from the ledger, the jobs
//! and the network. One file per group of questions.

mod audit;
mod catalog;
mod conflict;
mod destination;
mod feeds;
mod find;
mod frames;
mod inputs;
mod invite;
mod nodes;
mod page;
mod lifetime;
mod limit;
mod policy;
mod policy_diff;
mod problems;
mod publish;
mod pull;
mod queue;
mod report;
mod reserve;
mod show;
mod space;
mod status;
mod suggest;
mod verify;
mod why;

use std::{sync::Arc, time::Duration};

use avalon_protocol::control::{
    ApiError, AuditHeadsReply, AuditVerifyReply, CatalogStatsReply, ConflictsReply, DestinationReply,
    DropReply, DropRequest, ErrorCode, FeedRequest, FeedsReply, InfoReply, InputsReply, InviteReply,
    InviteRequest, InvitesReply, JobStatus, LifetimeReply, LifetimeRequest, LimitRequest, LimitsReply,
    ListReply, NodesReply, PinRequest, PinsReply, PolicyAppliedReply, PolicyDiffReply, PolicyHistoryReply,
    PolicyReply, PolicyRequest, ProblemsReply, PublishReply, PublishRequest, PullReply, PullRequest,
    QueueReply, QueueRequest, RebuildReply, ReportReply, ReserveReply, ReserveRequest, ResolveReply,
    ResolveRequest, RevokeReply, RevokeRequest, StatusReply, VerifyReply, VerifyRequest, VerifyStatus,
    WhereReply, WhyReply,
};
use avalon_store::{
    catalog::CatalogError,
    ledger::{Ledger, RebuildProgress},
};
use futures_util::future::BoxFuture;

use crate::{
    api::{
        AuditQuery, ByteStream, Caller, DestinationQuery, InputsQuery, Lifetime, LocalApi, PolicyQuery,
        RefQuery, ReportQuery, WhyQuery,
    },
    certificate::CertificateEnd,
    core::Core,
    events::EventBus,
    join::Joining,
    log::ErrorChain,
    net::Net,
    project::Project,
    publish::settle::SettlerHandle,
    replicate::jobs::{Job, ReplicatorHandle},
    scrub::Scrubber,
    space::Dropper,
};

/// The daemon behind the local API.
#[derive(Debug)]
pub struct DaemonApi {
    core: Arc<Core>,
    net: Net,
    replicator: ReplicatorHandle,
    dropper: Dropper,
    scrubber: Scrubber,
    settlers: Vec<(Arc<Project>, SettlerHandle)>,
    certificate_expires: CertificateEnd,
    joining: Joining,
    started: Duration,
}

impl DaemonApi {
    /// Takes what the answers are made of.
    pub fn new(
        core: &Arc<Core>,
        net: &Net,
        replicator: &ReplicatorHandle,
        (dropper, scrubber): (Dropper, Scrubber),
        settlers: Vec<(Arc<Project>, SettlerHandle)>,
        certificate_expires: CertificateEnd,
        joining: Joining,
    ) -> Self {
        Self {
            core: Arc::clone(core),
            net: net.clone(),
            replicator: replicator.clone(),
            dropper,
            scrubber,
            settlers,
            certificate_expires,
            joining,
            started: core.clock.monotonic(),
        }
    }

    fn find_job(&self, id: &str) -> Result<Arc<Job>, ApiError> {
        self.replicator.board.get(id).ok_or_else(|| {
            ApiError::new(ErrorCode::NotFound, format!("there is no job {id}"))
                .with_hint("list them: avalonctl status")
        })
    }
}

/// Says that the catalog does not answer, and how far it is if it is being built anew.
fn catalog_failed(ledger: &Ledger, error: &CatalogError) -> ApiError {
    let reason = match ledger.rebuild_progress() {
        Some(RebuildProgress { records, total_records, files: 0 }) => {
            format!("the catalog is being built anew, {records} of {total_records} records are in it")
        }
        Some(RebuildProgress { files, .. }) => {
            format!("the catalog is being built anew, all records are in it, {files} files were looked at")
        }
        None => format!("the catalog cannot be read: {}", ErrorChain(error)),
    };
    ApiError::new(ErrorCode::Internal, reason)
        .with_hint("nothing is lost; try again in a moment, avalonctl status says what is wrong")
}

fn stopping() -> ApiError {
    ApiError::new(ErrorCode::Stopping, "the daemon is stopping")
}

impl LocalApi for DaemonApi {
    fn status(&self) -> BoxFuture<'_, StatusReply> {
        Box::pin(self.status_reply())
    }

    fn list(&self, query: RefQuery) -> BoxFuture<'_, Result<ListReply, ApiError>> {
        Box::pin(self.list_reply(query))
    }

    fn locate(&self, query: RefQuery) -> BoxFuture<'_, Result<WhereReply, ApiError>> {
        Box::pin(self.where_reply(query))
    }

    fn info(&self, query: RefQuery) -> BoxFuture<'_, Result<InfoReply, ApiError>> {
        Box::pin(self.info_reply(query))
    }

    fn why(&self, query: WhyQuery) -> BoxFuture<'_, Result<WhyReply, ApiError>> {
        Box::pin(self.why_reply(query))
    }

    fn inputs(&self, query: InputsQuery) -> BoxFuture<'_, Result<InputsReply, ApiError>> {
        Box::pin(self.inputs_reply(query))
    }

    fn destination(&self, query: DestinationQuery) -> BoxFuture<'_, Result<DestinationReply, ApiError>> {
        Box::pin(self.destination_reply(query))
    }

    fn report(&self, query: ReportQuery) -> BoxFuture<'_, Result<ReportReply, ApiError>> {
        Box::pin(self.report_reply(query))
    }

    fn problems(&self, query: RefQuery) -> BoxFuture<'_, Result<ProblemsReply, ApiError>> {
        Box::pin(self.problems_reply(query))
    }

    fn publish(
        &self,
        request: PublishRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<PublishReply, ApiError>> {
        Box::pin(self.publish_reply(request, caller))
    }

    fn pull(&self, request: PullRequest, _caller: Caller) -> BoxFuture<'_, Result<PullReply, ApiError>> {
        Box::pin(self.pull_reply(request))
    }

    fn lifetime(
        &self,
        what: Lifetime,
        request: LifetimeRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<LifetimeReply, ApiError>> {
        Box::pin(self.lifetime_reply(what, request, caller))
    }

    fn conflicts(&self, query: RefQuery) -> BoxFuture<'_, Result<ConflictsReply, ApiError>> {
        Box::pin(self.conflicts_reply(query))
    }

    fn resolve(
        &self,
        request: ResolveRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<ResolveReply, ApiError>> {
        Box::pin(self.resolve_reply(request, caller))
    }

    fn reserve(&self, request: ReserveRequest) -> BoxFuture<'_, Result<ReserveReply, ApiError>> {
        Box::pin(self.reserve_reply(request))
    }

    fn drop_versions(
        &self,
        request: DropRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<DropReply, ApiError>> {
        Box::pin(self.drop_reply(request, caller))
    }

    fn verify_files(
        &self,
        request: VerifyRequest,
        _caller: Caller,
    ) -> BoxFuture<'_, Result<VerifyStatus, ApiError>> {
        Box::pin(self.verify_begun(request))
    }

    fn verifying<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<VerifyStatus, ApiError>> {
        Box::pin(std::future::ready(self.verify_status(id)))
    }

    fn end_verify<'a>(
        &'a self,
        id: &'a str,
        _caller: Caller,
    ) -> BoxFuture<'a, Result<VerifyStatus, ApiError>> {
        Box::pin(std::future::ready(self.verify_ended(id)))
    }

    fn pins(&self) -> BoxFuture<'_, Result<PinsReply, ApiError>> {
        Box::pin(std::future::ready(self.pins_reply()))
    }

    fn set_pins(&self, request: PinRequest, caller: Caller) -> BoxFuture<'_, Result<PinsReply, ApiError>> {
        Box::pin(self.pins_set(request, caller))
    }

    fn jobs(&self) -> BoxFuture<'_, Vec<JobStatus>> {
        Box::pin(std::future::ready(self.replicator.board.all()))
    }

    fn job<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<JobStatus, ApiError>> {
        Box::pin(std::future::ready(self.find_job(id).map(|job| job.status())))
    }

    fn cancel<'a>(&'a self, id: &'a str, _caller: Caller) -> BoxFuture<'a, Result<JobStatus, ApiError>> {
        Box::pin(async move {
            let known = self.find_job(id)?;
            self.replicator.cancel(id).await.map_err(|_| stopping())?;
            Ok(known.status())
        })
    }

    fn queue(&self) -> BoxFuture<'_, QueueReply> {
        Box::pin(std::future::ready(self.queue_reply()))
    }

    fn change_queue(
        &self,
        request: QueueRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<QueueReply, ApiError>> {
        Box::pin(self.queue_changed(request, caller))
    }

    fn limits(&self) -> BoxFuture<'_, LimitsReply> {
        Box::pin(self.limits_reply())
    }

    fn set_limit(
        &self,
        request: LimitRequest,
        _caller: Caller,
    ) -> BoxFuture<'_, Result<LimitsReply, ApiError>> {
        Box::pin(self.limit_set(request))
    }

    fn clear_limits(
        &self,
        id: Option<String>,
        _caller: Caller,
    ) -> BoxFuture<'_, Result<LimitsReply, ApiError>> {
        Box::pin(self.limits_cleared(id))
    }

    fn policy(&self, query: PolicyQuery) -> BoxFuture<'_, Result<PolicyReply, ApiError>> {
        Box::pin(self.policy_reply(query))
    }

    fn policy_history(&self) -> BoxFuture<'_, PolicyHistoryReply> {
        Box::pin(std::future::ready(self.policy_history_reply()))
    }

    fn apply_policy(
        &self,
        request: PolicyRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<PolicyAppliedReply, ApiError>> {
        Box::pin(self.policy_applied(request, caller))
    }

    fn diff_policy(&self, request: PolicyRequest) -> BoxFuture<'_, Result<PolicyDiffReply, ApiError>> {
        Box::pin(self.policy_diffed(request))
    }

    fn nodes(&self) -> BoxFuture<'_, NodesReply> {
        Box::pin(self.nodes_reply())
    }

    fn revoke_node(
        &self,
        request: RevokeRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<RevokeReply, ApiError>> {
        Box::pin(self.node_revoked(request, caller))
    }

    fn feeds(&self) -> FeedsReply {
        self.feeds_reply()
    }

    fn change_feed(
        &self,
        request: FeedRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<FeedsReply, ApiError>> {
        Box::pin(async move { self.feed_changed(request, &caller).await })
    }

    fn invites(&self) -> BoxFuture<'_, Result<InvitesReply, ApiError>> {
        Box::pin(std::future::ready(Ok(self.invites_reply())))
    }

    fn invite(
        &self,
        request: InviteRequest,
        _caller: Caller,
    ) -> BoxFuture<'_, Result<InviteReply, ApiError>> {
        Box::pin(self.invite_made(request))
    }

    fn revoke_invite(&self, id: String, _caller: Caller) -> BoxFuture<'_, Result<InvitesReply, ApiError>> {
        Box::pin(self.invite_revoked(id))
    }

    fn rebuild(&self) -> BoxFuture<'_, Result<RebuildReply, ApiError>> {
        Box::pin(self.rebuild_reply())
    }

    fn verify(&self) -> BoxFuture<'_, Result<VerifyReply, ApiError>> {
        Box::pin(self.verify_reply())
    }

    fn export(&self) -> BoxFuture<'_, Result<ByteStream, ApiError>> {
        Box::pin(self.export_text())
    }

    fn import(&self, text: ByteStream) -> BoxFuture<'_, Result<RebuildReply, ApiError>> {
        Box::pin(self.import_reply(text))
    }

    fn stats(&self) -> BoxFuture<'_, Result<CatalogStatsReply, ApiError>> {
        Box::pin(self.stats_reply())
    }

    fn audit(&self, query: AuditQuery) -> BoxFuture<'_, Result<ByteStream, ApiError>> {
        Box::pin(std::future::ready(self.audit_text(query)))
    }

    fn audit_verify(&self) -> BoxFuture<'_, Result<AuditVerifyReply, ApiError>> {
        Box::pin(self.audit_checked())
    }

    fn audit_heads(&self, node: Option<String>) -> BoxFuture<'_, Result<AuditHeadsReply, ApiError>> {
        Box::pin(self.audit_heads_reply(node))
    }

    fn events(&self) -> EventBus {
        self.core.events.clone()
    }
}
