//! The local API: what `avalonctl`, scripts and the dashboard ask of a daemon, and what it answers.
//!
//! HTTP with JSON over a Unix socket; [`route`] lists the paths. Sizes are bytes, durations seconds, times RFC 3339 UTC.
//! Fields are only ever added; a reader ignores what it does not know.

mod access;
mod audit;
mod catalog;
mod conflict;
mod destination;
mod error;
mod event;
mod feeds;
mod inputs;
mod job;
mod lifetime;
mod limit;
mod policy;
mod problems;
mod space;
mod report;
mod reserve;
mod status;
mod verify;
mod version;
mod why;

pub use self::{
    access::{
        InviteItem, InviteReply, InviteRequest, InviteState, InvitesReply, NodeItem, NodesReply, RevokeReply,
        RevokeRequest,
    },
    audit::{AuditFault, AuditHeadItem, AuditHeadsReply, AuditVerifyReply},
    catalog::{CatalogStatsReply, RebuildReply, VerifyReply},
    conflict::{
        Candidate, ConflictItem, ConflictsReply, DecisionItem, MovedItem, ResolveReply, ResolveRequest,
    },
    destination::DestinationReply,
    error::{ApiError, ErrorCode},
    event::{Event, EventKind},
    feeds::{FeedItem, FeedRequest, FeedState, FeedsReply, ForkItem, ForkSide},
    inputs::{InputVersion, InputsReply, MissingInput, MissingReason},
    job::{
        JobKind, JobState, JobStatus, PausedItem, PlanState, Prio, PullItem, PullReply, PullRequest,
        QueueChange, QueueReply, QueueRequest,
    },
    lifetime::{LifetimeItem, LifetimeReply, LifetimeRequest, LifetimeState},
    limit::{LimitItem, LimitOrigin, LimitRequest, LimitsReply},
    policy::{
        PolicyAppliedReply, PolicyDiffList, PolicyDiffNode, PolicyDiffReply, PolicyDiffSite, PolicyDiffSpeed,
        PolicyDiffVersion, PolicyHistoryReply, PolicyItem, PolicyReply, PolicyRequest,
    },
    problems::{ProblemsReply, VersionProblems},
    report::{ReportPublish, ReportReply, ReportTransfer},
    reserve::{ReserveReply, ReserveRequest},
    space::{
        DropHolder, DropItem, DropReply, DropRequest, DropState, PinItem, PinRequest, PinsReply, SpaceStatus,
    },
    status::{
        Health, MountStatus, PeerState, PeerStatus, PendingVersion, ProjectState, ProjectStatus, Severity,
        StatusReply,
    },
    verify::{
        DamageKind, DamagedFile, RepairState, ScrubState, ScrubStatus, VerifyRequest, VerifyState,
        VerifyStatus,
    },
    version::{
        FileItem, HoldingState, InfoReply, ListReply, MAX_LISTED, NodeHolding, Presence, PublishItem,
        PublishReply, PublishRequest, PublishState, RetiredItem, VersionItem, WhereItem, WhereReply,
    },
    why::{WhyAnswer, WhyReply, WhyState},
};

/// The paths of the API.
pub mod route {
    /// GET: [`super::StatusReply`].
    pub const STATUS: &str = "/v1/status";
    /// GET `?ref=&project=&limit=&after=`: [`super::ListReply`]; without a ref all of the project.
    pub const VERSIONS: &str = "/v1/versions";
    /// GET `?ref=&project=`: [`super::WhereReply`].
    pub const WHERE: &str = "/v1/where";
    /// GET `?ref=&project=`: [`super::InfoReply`].
    pub const INFO: &str = "/v1/info";
    /// GET `?ref=&project=&site=`: [`super::WhyReply`]; of this node without a site.
    pub const WHY: &str = "/v1/why";
    /// GET `?ref=&project=&recursive=`: [`super::InputsReply`].
    pub const INPUTS: &str = "/v1/inputs";
    /// GET `?ref=&project=`: [`super::ProblemsReply`]; without a ref the newest of every subset, and the heroes.
    pub const PROBLEMS: &str = "/v1/problems";
    /// POST [`super::LifetimeRequest`]: [`super::LifetimeReply`], when it is recorded.
    pub const RETIRE: &str = "/v1/retire";
    /// POST [`super::LifetimeRequest`]: [`super::LifetimeReply`]; jobs put back what was changed.
    pub const RESTORE: &str = "/v1/restore";
    /// POST [`super::LifetimeRequest`]: [`super::LifetimeReply`], when it is recorded.
    pub const ACCEPT: &str = "/v1/accept";
    /// GET `?ref=&project=`: [`super::ConflictsReply`]; of all projects without a ref.
    pub const CONFLICTS: &str = "/v1/conflicts";
    /// POST [`super::ResolveRequest`]: [`super::ResolveReply`], when it is recorded.
    pub const RESOLVE: &str = "/v1/resolve";
    /// POST [`super::ReserveRequest`]: [`super::ReserveReply`], when the number belongs to this node.
    pub const RESERVE: &str = "/v1/reserve";
    /// GET `?ref=&project=&silo=&representation=`: [`super::DestinationReply`].
    pub const DESTINATION: &str = "/v1/destination";
    /// GET `?since_ms=&until_ms=&project=`: [`super::ReportReply`].
    pub const REPORT: &str = "/v1/report";
    /// POST [`super::PublishRequest`]: [`super::PublishReply`], when all is recorded.
    pub const PUBLISH: &str = "/v1/publish";
    /// POST [`super::PullRequest`]: [`super::PullReply`], at once; the jobs go on by themselves.
    pub const PULL: &str = "/v1/pull";
    /// POST [`super::DropRequest`]: [`super::DropReply`], when all are dropped or refused.
    pub const DROP: &str = "/v1/drop";
    /// GET, POST [`super::PinRequest`]: [`super::PinsReply`], of all pins, or of those that were changed.
    pub const PINS: &str = "/v1/pins";
    /// POST [`super::VerifyRequest`]: a [`super::VerifyStatus`], at once; GET and DELETE with `/{id}`: how it stands; DELETE ends
    /// it.
    pub const VERIFY: &str = "/v1/verify";
    /// GET: all jobs; GET and DELETE with `/{id}`: one [`super::JobStatus`]; DELETE cancels.
    pub const JOBS: &str = "/v1/jobs";
    /// GET: [`super::QueueReply`]; POST [`super::QueueRequest`]: a [`super::QueueReply`] of the jobs that it is about.
    pub const QUEUE: &str = "/v1/queue";
    /// GET, POST [`super::LimitRequest`], DELETE all that commands have set; DELETE with `/{id}`: one. Each answers
    /// [`super::LimitsReply`].
    pub const LIMITS: &str = "/v1/limits";
    /// GET `?serial=`: [`super::PolicyReply`], of the policy that stands without a serial; POST
    /// [`super::PolicyRequest`]: [`super::PolicyAppliedReply`], when it is recorded; for a dry run [`super::PolicyDiffReply`].
    pub const POLICY: &str = "/v1/policy";
    /// GET: [`super::PolicyHistoryReply`].
    pub const POLICY_HISTORY: &str = "/v1/policy/history";
    /// GET: [`super::InvitesReply`]; POST [`super::InviteRequest`]: [`super::InviteReply`], when it is kept; DELETE with
    /// `/{id}`: an [`super::InvitesReply`] of the one that was revoked.
    pub const INVITES: &str = "/v1/invites";
    /// GET: [`super::NodesReply`].
    pub const NODES: &str = "/v1/nodes";
    /// POST [`super::RevokeRequest`]: [`super::RevokeReply`], when it is recorded.
    pub const NODES_REVOKE: &str = "/v1/nodes/revoke";
    /// GET: [`super::FeedsReply`]; POST [`super::FeedRequest`]: a [`super::FeedsReply`] of the feed that it is about.
    pub const FEEDS: &str = "/v1/feeds";
    /// GET `?since=`: [`super::Event`]s as server-sent events, those after number `since` first.
    pub const EVENTS: &str = "/v1/events";
    /// POST: [`super::RebuildReply`].
    pub const CATALOG_REBUILD: &str = "/v1/catalog/rebuild";
    /// POST: [`super::VerifyReply`].
    pub const CATALOG_VERIFY: &str = "/v1/catalog/verify";
    /// GET: the catalog as text, one JSON object on each line.
    pub const CATALOG_EXPORT: &str = "/v1/catalog/export";
    /// POST such a text: [`super::RebuildReply`].
    pub const CATALOG_IMPORT: &str = "/v1/catalog/import";
    /// GET: [`super::CatalogStatsReply`].
    pub const CATALOG_STATS: &str = "/v1/catalog/stats";
    /// GET `?since_ms=&until_ms=&last=`: entries of the audit, one JSON object on each line.
    pub const AUDIT: &str = "/v1/audit";
    /// GET: [`super::AuditVerifyReply`].
    pub const AUDIT_VERIFY: &str = "/v1/audit/verify";
    /// GET `?node=`: [`super::AuditHeadsReply`]; of this node without one.
    pub const AUDIT_HEADS: &str = "/v1/audit/heads";
    /// GET: the description of this API in OpenAPI 3.
    pub const OPENAPI: &str = "/v1/openapi.json";
}
