//! [`LocalApi`]: what the daemon answers, without HTTP.

use std::io;

use avalon_protocol::control::{
    ApiError, AuditHeadsReply, AuditVerifyReply, CatalogStatsReply, ConflictsReply, DestinationReply,
    DropReply, DropRequest, FeedRequest, FeedsReply, InfoReply, InputsReply, InviteReply, InviteRequest,
    InvitesReply, JobStatus, LifetimeReply, LifetimeRequest, LimitRequest, LimitsReply, ListReply,
    NodesReply, PinRequest, PinsReply, PolicyAppliedReply, PolicyDiffReply, PolicyHistoryReply, PolicyReply,
    PolicyRequest, ProblemsReply, PublishReply, PublishRequest, PullReply, PullRequest, QueueReply,
    QueueRequest, RebuildReply, ReportReply, ReserveReply, ReserveRequest, ResolveReply, ResolveRequest,
    RevokeReply, RevokeRequest, StatusReply, VerifyReply, VerifyRequest, VerifyStatus, WhereReply, WhyReply,
};
use bytes::Bytes;
use futures_util::{future::BoxFuture, stream::BoxStream};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Caller;
use crate::events::EventBus;

/// Bytes that come piece by piece, in either direction.
pub type ByteStream = BoxStream<'static, io::Result<Bytes>>;

/// What the daemon answers to the local API.
///
/// A future may be dropped half-way, when the caller hangs up or the daemon stops; what it started must be safe then.
pub trait LocalApi: Send + Sync + 'static {
    /// How the daemon is.
    fn status(&self) -> BoxFuture<'_, StatusReply>;

    /// The versions that a reference names; all of the project without one.
    fn list(&self, query: RefQuery) -> BoxFuture<'_, Result<ListReply, ApiError>>;

    /// Who holds them.
    fn locate(&self, query: RefQuery) -> BoxFuture<'_, Result<WhereReply, ApiError>>;

    /// All about one version.
    fn info(&self, query: RefQuery) -> BoxFuture<'_, Result<InfoReply, ApiError>>;

    /// Why the versions that a reference names are at a site, are not, or are not yet.
    fn why(&self, query: WhyQuery) -> BoxFuture<'_, Result<WhyReply, ApiError>>;

    /// What versions were made from.
    fn inputs(&self, query: InputsQuery) -> BoxFuture<'_, Result<InputsReply, ApiError>>;

    /// What checks find in versions.
    fn problems(&self, query: RefQuery) -> BoxFuture<'_, Result<ProblemsReply, ApiError>>;

    /// Where a version that is to be made lies.
    fn destination(&self, query: DestinationQuery) -> BoxFuture<'_, Result<DestinationReply, ApiError>>;

    /// What was published and what came here.
    fn report(&self, query: ReportQuery) -> BoxFuture<'_, Result<ReportReply, ApiError>>;

    /// Publishes what is on disk; ready when all is recorded.
    fn publish(
        &self,
        request: PublishRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<PublishReply, ApiError>>;

    /// Starts to fetch versions; ready at once.
    fn pull(&self, request: PullRequest, caller: Caller) -> BoxFuture<'_, Result<PullReply, ApiError>>;

    /// Takes versions out of use, brings them back, or accepts what was changed in place; ready when it is recorded.
    fn lifetime(
        &self,
        what: Lifetime,
        request: LifetimeRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<LifetimeReply, ApiError>>;

    /// The versions in conflict.
    fn conflicts(&self, query: RefQuery) -> BoxFuture<'_, Result<ConflictsReply, ApiError>>;

    /// Decides which of several contents keeps its number; ready when it is recorded.
    fn resolve(
        &self,
        request: ResolveRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<ResolveReply, ApiError>>;

    /// Asks the voters for a number; ready when it belongs to this node.
    fn reserve(&self, request: ReserveRequest) -> BoxFuture<'_, Result<ReserveReply, ApiError>>;

    /// Drops versions at this node; ready when all are dropped or refused.
    fn drop_versions(
        &self,
        request: DropRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<DropReply, ApiError>>;

    /// Begins to read versions again that this node holds; ready at once.
    fn verify_files(
        &self,
        request: VerifyRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<VerifyStatus, ApiError>>;

    /// How such a reading stands.
    fn verifying<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<VerifyStatus, ApiError>>;

    /// Ends one.
    fn end_verify<'a>(&'a self, id: &'a str, caller: Caller)
    -> BoxFuture<'a, Result<VerifyStatus, ApiError>>;

    /// What is pinned at this node.
    fn pins(&self) -> BoxFuture<'_, Result<PinsReply, ApiError>>;

    /// Pins or unpins versions; ready when it is kept.
    fn set_pins(&self, request: PinRequest, caller: Caller) -> BoxFuture<'_, Result<PinsReply, ApiError>>;

    /// All jobs that are known.
    fn jobs(&self) -> BoxFuture<'_, Vec<JobStatus>>;

    /// One job.
    fn job<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<JobStatus, ApiError>>;

    /// Gives a job up.
    fn cancel<'a>(&'a self, id: &'a str, caller: Caller) -> BoxFuture<'a, Result<JobStatus, ApiError>>;

    /// The jobs that have not ended, in the order in which they come.
    fn queue(&self) -> BoxFuture<'_, QueueReply>;

    /// Pauses jobs, lets them go on or changes their order; ready when that is kept and heard.
    fn change_queue(
        &self,
        request: QueueRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<QueueReply, ApiError>>;

    /// What content may take of the line.
    fn limits(&self) -> BoxFuture<'_, LimitsReply>;

    /// Sets a limit; ready when it is kept.
    fn set_limit(
        &self,
        request: LimitRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<LimitsReply, ApiError>>;

    /// Clears one limit that was set so, or all of them.
    fn clear_limits(
        &self,
        id: Option<String>,
        caller: Caller,
    ) -> BoxFuture<'_, Result<LimitsReply, ApiError>>;

    /// The policy that stands, or one of the history.
    fn policy(&self, query: PolicyQuery) -> BoxFuture<'_, Result<PolicyReply, ApiError>>;

    /// All policies that were applied.
    fn policy_history(&self) -> BoxFuture<'_, PolicyHistoryReply>;

    /// Applies a policy; ready when it is recorded.
    fn apply_policy(
        &self,
        request: PolicyRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<PolicyAppliedReply, ApiError>>;

    /// What applying a policy would change; applies nothing.
    fn diff_policy(&self, request: PolicyRequest) -> BoxFuture<'_, Result<PolicyDiffReply, ApiError>>;

    /// The nodes of the studio.
    fn nodes(&self) -> BoxFuture<'_, NodesReply>;

    /// Revokes a node; ready when that is recorded.
    fn revoke_node(
        &self,
        request: RevokeRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<RevokeReply, ApiError>>;
    /// The feeds that are kept here.
    fn feeds(&self) -> FeedsReply;

    /// Decides about a feed; ready when that is kept.
    fn change_feed(
        &self,
        request: FeedRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<FeedsReply, ApiError>>;

    /// The invites of this node.
    fn invites(&self) -> BoxFuture<'_, Result<InvitesReply, ApiError>>;

    /// Makes an invite; ready when it is kept.
    fn invite(&self, request: InviteRequest, caller: Caller) -> BoxFuture<'_, Result<InviteReply, ApiError>>;

    /// Takes an invite back; ready when that is kept.
    fn revoke_invite(&self, id: String, caller: Caller) -> BoxFuture<'_, Result<InvitesReply, ApiError>>;

    /// Makes the catalog anew from the feeds.
    fn rebuild(&self) -> BoxFuture<'_, Result<RebuildReply, ApiError>>;

    /// Compares the catalog with the feeds.
    fn verify(&self) -> BoxFuture<'_, Result<VerifyReply, ApiError>>;

    /// The catalog as text. A stream that ends with an error is no whole export.
    fn export(&self) -> BoxFuture<'_, Result<ByteStream, ApiError>>;

    /// Makes the catalog anew from such a text.
    fn import(&self, text: ByteStream) -> BoxFuture<'_, Result<RebuildReply, ApiError>>;

    /// How large the catalog is.
    fn stats(&self) -> BoxFuture<'_, Result<CatalogStatsReply, ApiError>>;

    /// Entries of the audit, as they stand in its files.
    fn audit(&self, query: AuditQuery) -> BoxFuture<'_, Result<ByteStream, ApiError>>;

    /// Checks all of the audit.
    fn audit_verify(&self) -> BoxFuture<'_, Result<AuditVerifyReply, ApiError>>;

    /// The heads that a node has published; this one without a name.
    fn audit_heads(&self, node: Option<String>) -> BoxFuture<'_, Result<AuditHeadsReply, ApiError>>;

    /// What happens.
    fn events(&self) -> EventBus;
}

/// What is done to a version after it was published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lifetime {
    /// It is taken out of use.
    Retire,
    /// It is brought back, or what stands of it put back.
    Restore,
    /// What was changed in place here becomes its next generation.
    Accept,
}

/// Which versions a request is about. What is empty counts as not given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RefQuery {
    /// A reference, as `[project:]asset/subset[/representation][@version]`; globs where a list makes sense.
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    /// The project of a reference that names none.
    pub project: Option<String>,
    /// Whether a list has versions that are out of use, too.
    #[serde(default)]
    pub retired: bool,
    /// How many versions a list has at most; 10,000 without it, and never more.
    pub limit: Option<usize>,
    /// The version behind which a list begins: what the answer before gave as `next`.
    pub after: Option<String>,
}

/// Which versions, and where. What is empty counts as not given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct WhyQuery {
    /// A reference, as `[project:]asset/subset[/representation][@version]`.
    #[serde(rename = "ref")]
    pub reference: Option<String>,
    /// The project of a reference that names none.
    pub project: Option<String>,
    /// A site, all of whose known nodes are asked about, or a `node@site`; this node without it.
    pub site: Option<String>,
}

/// Which entries of the audit a request is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct AuditQuery {
    /// From when, in milliseconds since 1970; from the beginning without it.
    pub since_ms: Option<u64>,
    /// Up to when, this not included; to the end without it.
    pub until_ms: Option<u64>,
    /// Of those the last so many; all without it.
    pub last: Option<u64>,
    /// The node whose heads are asked for; this one without it.
    pub node: Option<String>,
}

/// Which policy a request is about.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PolicyQuery {
    /// Its serial; the policy that stands without it.
    pub serial: Option<u64>,
}

/// Whose inputs a request is about. What is empty counts as not given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct InputsQuery {
    /// A reference, as `[project:]asset/subset[/representation][@version]`; globs are allowed.
    #[serde(rename = "ref", default)]
    pub reference: String,
    /// The project of a reference that names none.
    pub project: Option<String>,
    /// Whether inputs of inputs are listed, too.
    #[serde(default)]
    pub recursive: bool,
}

/// What is to be made. What is empty counts as not given.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct DestinationQuery {
    /// A reference, as `[project:]asset/subset[/representation][@version]`; without a version the next number.
    #[serde(rename = "ref", default)]
    pub reference: String,
    /// The project of a reference that names none.
    pub project: Option<String>,
    /// The silo of an asset of which nothing is published yet.
    pub silo: Option<String>,
    /// The representation whose path is asked for.
    pub representation: Option<String>,
}

/// Which time a report is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct ReportQuery {
    /// Its beginning, in milliseconds since 1970.
    #[serde(default)]
    pub since_ms: u64,
    /// Its end, which is not in it; none for now.
    pub until_ms: Option<u64>,
    /// One project; all without.
    pub project: Option<String>,
}
