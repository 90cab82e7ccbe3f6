//! Every request of the API: its path, its description and the call that answers it.

use std::{any::Any, io, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use avalon_protocol::control::{
    ApiError, AuditHeadsReply, AuditVerifyReply, CatalogStatsReply, ConflictsReply, DestinationReply,
    DropReply, DropRequest, FeedRequest, FeedsReply, InfoReply, InputsReply, InviteReply, InviteRequest,
    InvitesReply, JobStatus, LifetimeReply, LifetimeRequest, LimitRequest, LimitsReply, ListReply,
    NodesReply, PinRequest, PinsReply, PolicyAppliedReply, PolicyDiffReply, PolicyHistoryReply, PolicyReply,
    PolicyRequest, ProblemsReply, PublishReply, PublishRequest, PullReply, PullRequest, QueueReply,
    QueueRequest, RebuildReply, ReportReply, ReserveReply, ReserveRequest, ResolveReply, ResolveRequest,
    RevokeReply, RevokeRequest, StatusReply, VerifyReply, VerifyRequest, VerifyStatus, WhereReply, WhyReply,
    route,
};
use axum::{
    Json, Router,
    body::Body as HttpBody,
    extract::{DefaultBodyLimit, Request, State},
    http::header::CONTENT_TYPE,
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use futures_util::{FutureExt as _, StreamExt as _, TryStreamExt as _};
use serde::Serialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::{
    AuditQuery, Caller, DestinationQuery, Gate, InputsQuery, Lifetime, LocalApi, PolicyQuery, RefQuery,
    ReportQuery, WhyQuery,
    error::{Failure, no_such_method, no_such_route},
    events,
    extract::{Answer, Body, Id, MAX_BODY_BYTES, Params, answer},
    gate::pass,
    openapi::openapi_json,
};

/// The path of one job.
pub(super) const JOB: &str = "/v1/jobs/{id}";

/// The path of one reading.
pub(super) const VERIFYING: &str = "/v1/verify/{id}";

/// The path of one limit.
pub(super) const LIMIT: &str = "/v1/limits/{id}";

/// The path of one invite.
pub(super) const INVITE: &str = "/v1/invites/{id}";

/// What handlers work with.
#[derive(Clone)]
pub(super) struct Shared {
    /// What answers.
    pub(super) api: Arc<dyn LocalApi>,
    /// Ends what would not end by itself.
    pub(super) stop: CancellationToken,
    /// How often a quiet stream shows that it lives.
    pub(super) keep_alive: Duration,
}

type Api = State<Shared>;

/// Returns all routes.
pub(super) fn router(shared: Shared, gate: Gate) -> Router {
    Router::new()
        .route(route::STATUS, get(status))
        .route(route::VERSIONS, get(list))
        .route(route::WHERE, get(locate))
        .route(route::INFO, get(info))
        .route(route::WHY, get(why))
        .route(route::INPUTS, get(inputs))
        .route(route::PROBLEMS, get(problems))
        .route(route::DESTINATION, get(destination))
        .route(route::REPORT, get(report))
        .route(route::PUBLISH, post(publish))
        .route(route::PULL, post(pull))
        .route(route::RETIRE, post(retire))
        .route(route::RESTORE, post(restore))
        .route(route::ACCEPT, post(accept))
        .route(route::CONFLICTS, get(conflicts))
        .route(route::RESOLVE, post(resolve))
        .route(route::RESERVE, post(reserve))
        .route(route::DROP, post(drop_versions))
        .route(route::PINS, get(pins).post(set_pins))
        .route(route::VERIFY, post(verify_files))
        .route(VERIFYING, get(verifying).delete(end_verify))
        .route(route::JOBS, get(jobs))
        .route(JOB, get(job).delete(cancel))
        .route(route::QUEUE, get(queue).post(change_queue))
        .route(route::LIMITS, get(limits).post(set_limit).delete(clear_limits))
        .route(LIMIT, delete(clear_limit))
        .route(route::POLICY, get(policy).post(apply_policy))
        .route(route::POLICY_HISTORY, get(policy_history))
        .route(route::FEEDS, get(feeds).post(change_feed))
        .route(route::INVITES, get(invites).post(invite))
        .route(INVITE, delete(revoke_invite))
        .route(route::NODES, get(nodes))
        .route(route::NODES_REVOKE, post(revoke_node))
        .route(route::EVENTS, get(events::stream))
        .route(route::CATALOG_REBUILD, post(rebuild))
        .route(route::CATALOG_VERIFY, post(verify))
        .route(route::CATALOG_STATS, get(stats))
        .route(route::CATALOG_EXPORT, get(export))
        .route(route::CATALOG_IMPORT, post(import))
        .route(route::AUDIT, get(audit))
        .route(route::AUDIT_VERIFY, get(audit_verify))
        .route(route::AUDIT_HEADS, get(audit_heads))
        .route(route::OPENAPI, get(openapi))
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(from_fn_with_state(gate, pass))
        .layer(from_fn(survive))
        .with_state(shared)
}

/// How the daemon is.
#[utoipa::path(get, tag = "daemon", path = route::STATUS, responses((status = 200, body = StatusReply)))]
pub(super) async fn status(State(shared): Api) -> Json<StatusReply> {
    Json(shared.api.status().await)
}

/// The versions that a reference names; all of the project without one.
#[utoipa::path(get, tag = "versions", path = route::VERSIONS, params(RefQuery), responses(
    (status = 200, body = ListReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn list(State(shared): Api, query: RefQuery) -> Answer<ListReply> {
    answer(shared.api.list(query).await)
}

/// Who holds the versions that a reference names.
#[utoipa::path(get, tag = "versions", path = route::WHERE, params(RefQuery), responses(
    (status = 200, body = WhereReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn locate(State(shared): Api, query: RefQuery) -> Answer<WhereReply> {
    answer(shared.api.locate(query).await)
}

/// All about one version.
#[utoipa::path(get, tag = "versions", path = route::INFO, params(RefQuery), responses(
    (status = 200, body = InfoReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn info(State(shared): Api, query: RefQuery) -> Answer<InfoReply> {
    answer(shared.api.info(query).await)
}

/// Why the versions that a reference names are at a site, are not, or are not yet.
#[utoipa::path(get, tag = "versions", path = route::WHY, params(WhyQuery), responses(
    (status = 200, body = WhyReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn why(State(shared): Api, query: WhyQuery) -> Answer<WhyReply> {
    answer(shared.api.why(query).await)
}

/// What the versions that a reference names were made from.
#[utoipa::path(get, tag = "versions", path = route::INPUTS, params(InputsQuery), responses(
    (status = 200, body = InputsReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn inputs(State(shared): Api, Params(query): Params<InputsQuery>) -> Answer<InputsReply> {
    answer(shared.api.inputs(query).await)
}

/// What checks find in the versions that a reference names; in the newest of every subset and the heroes without one.
#[utoipa::path(get, tag = "versions", path = route::PROBLEMS, params(RefQuery), responses(
    (status = 200, body = ProblemsReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn problems(State(shared): Api, query: RefQuery) -> Answer<ProblemsReply> {
    answer(shared.api.problems(query).await)
}

/// Where a version that is to be made lies. Nothing is reserved by asking.
#[utoipa::path(get, tag = "versions", path = route::DESTINATION, params(DestinationQuery), responses(
    (status = 200, body = DestinationReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn destination(
    State(shared): Api,
    Params(query): Params<DestinationQuery>,
) -> Answer<DestinationReply> {
    answer(shared.api.destination(query).await)
}

/// What was published at any node, and what came to this one.
#[utoipa::path(get, tag = "versions", path = route::REPORT, params(ReportQuery), responses(
    (status = 200, body = ReportReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn report(State(shared): Api, Params(query): Params<ReportQuery>) -> Answer<ReportReply> {
    answer(shared.api.report(query).await)
}

/// Publishes what is on disk; answers when all is recorded.
#[utoipa::path(post, tag = "versions", path = route::PUBLISH, request_body = PublishRequest, responses(
    (status = 200, body = PublishReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn publish(
    State(shared): Api,
    caller: Caller,
    Body(request): Body<PublishRequest>,
) -> Answer<PublishReply> {
    answer(shared.api.publish(request, caller).await)
}

/// Starts to fetch versions; answers at once.
#[utoipa::path(post, tag = "versions", path = route::PULL, request_body = PullRequest, responses(
    (status = 200, body = PullReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn pull(
    State(shared): Api,
    caller: Caller,
    Body(request): Body<PullRequest>,
) -> Answer<PullReply> {
    answer(shared.api.pull(request, caller).await)
}

/// Takes versions out of use; answers when it is recorded. Nothing is removed.
#[utoipa::path(post, tag = "versions", path = route::RETIRE, request_body = LifetimeRequest, responses(
    (status = 200, body = LifetimeReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn retire(
    State(shared): Api,
    caller: Caller,
    Body(request): Body<LifetimeRequest>,
) -> Answer<LifetimeReply> {
    answer(shared.api.lifetime(Lifetime::Retire, request, caller).await)
}

/// Brings versions back into use, or puts back what stands over files that were changed in place at this node.
#[utoipa::path(post, tag = "versions", path = route::RESTORE, request_body = LifetimeRequest, responses(
    (status = 200, body = LifetimeReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn restore(
    State(shared): Api,
    caller: Caller,
    Body(request): Body<LifetimeRequest>,
) -> Answer<LifetimeReply> {
    answer(shared.api.lifetime(Lifetime::Restore, request, caller).await)
}

/// Makes the files that were changed in place at this node the next generation of their version.
#[utoipa::path(post, tag = "versions", path = route::ACCEPT, request_body = LifetimeRequest, responses(
    (status = 200, body = LifetimeReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn accept(
    State(shared): Api,
    caller: Caller,
    Body(request): Body<LifetimeRequest>,
) -> Answer<LifetimeReply> {
    answer(shared.api.lifetime(Lifetime::Accept, request, caller).await)
}

/// The versions of which sites published different content under one number; of all projects without a reference.
#[utoipa::path(get, tag = "versions", path = route::CONFLICTS, params(RefQuery), responses(
    (status = 200, body = ConflictsReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn conflicts(State(shared): Api, query: RefQuery) -> Answer<ConflictsReply> {
    answer(shared.api.conflicts(query).await)
}

/// Decides which of several contents keeps its number; answers when it is recorded. The nodes that hold the others renumber
/// them.
#[utoipa::path(post, tag = "versions", path = route::RESOLVE, request_body = ResolveRequest, responses(
    (status = 200, body = ResolveReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn resolve(
    State(shared): Api,
    caller: Caller,
    Body(request): Body<ResolveRequest>,
) -> Answer<ResolveReply> {
    answer(shared.api.resolve(request, caller).await)
}

/// Asks the nodes that the policy names for a number that nobody else publishes under; answers when it belongs to this node.
#[utoipa::path(post, tag = "versions", path = route::RESERVE, request_body = ReserveRequest, responses(
    (status = 200, body = ReserveReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn reserve(State(shared): Api, Body(request): Body<ReserveRequest>) -> Answer<ReserveReply> {
    answer(shared.api.reserve(request).await)
}

/// Drops versions at this node, after other sites proved that they have them; answers when all are dropped or refused.
#[utoipa::path(post, tag = "space", path = route::DROP, request_body = DropRequest, responses(
    (status = 200, body = DropReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn drop_versions(
    State(shared): Api,
    caller: Caller,
    Body(request): Body<DropRequest>,
) -> Answer<DropReply> {
    answer(shared.api.drop_versions(request, caller).await)
}

/// The versions that are pinned at this node.
#[utoipa::path(get, tag = "space", path = route::PINS, responses(
    (status = 200, body = PinsReply), (status = "5XX", body = ApiError)))]
pub(super) async fn pins(State(shared): Api) -> Answer<PinsReply> {
    answer(shared.api.pins().await)
}

/// Pins or unpins versions at this node, kept over restarts; answers with those that were changed.
#[utoipa::path(post, tag = "space", path = route::PINS, request_body = PinRequest, responses(
    (status = 200, body = PinsReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn set_pins(
    State(shared): Api,
    caller: Caller,
    Body(request): Body<PinRequest>,
) -> Answer<PinsReply> {
    answer(shared.api.set_pins(request, caller).await)
}

/// Begins to read all bytes of versions that this node holds, to find what is damaged; answers at once.
#[utoipa::path(post, tag = "space", path = route::VERIFY, request_body = VerifyRequest, responses(
    (status = 200, body = VerifyStatus), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn verify_files(
    State(shared): Api,
    caller: Caller,
    Body(request): Body<VerifyRequest>,
) -> Answer<VerifyStatus> {
    answer(shared.api.verify_files(request, caller).await)
}

/// How such a reading stands, and what it has found.
#[utoipa::path(get, tag = "space", path = VERIFYING, params(("id" = String, Path, description = "Its id.")), responses(
    (status = 200, body = VerifyStatus), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn verifying(State(shared): Api, Id(id): Id) -> Answer<VerifyStatus> {
    answer(shared.api.verifying(&id).await)
}

/// Ends a reading; what it has found stays found.
#[utoipa::path(delete, tag = "space", path = VERIFYING, params(("id" = String, Path, description = "Its id.")), responses(
    (status = 200, body = VerifyStatus), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn end_verify(State(shared): Api, caller: Caller, Id(id): Id) -> Answer<VerifyStatus> {
    answer(shared.api.end_verify(&id, caller).await)
}

/// All jobs.
#[utoipa::path(get, tag = "jobs", path = route::JOBS, responses((status = 200, body = Vec<JobStatus>)))]
pub(super) async fn jobs(State(shared): Api) -> Json<Vec<JobStatus>> {
    Json(shared.api.jobs().await)
}

/// One job.
#[utoipa::path(get, tag = "jobs", path = JOB, params(("id" = String, Path, description = "The job's id.")), responses(
    (status = 200, body = JobStatus), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn job(State(shared): Api, Id(id): Id) -> Answer<JobStatus> {
    answer(shared.api.job(&id).await)
}

/// Cancels a job.
#[utoipa::path(delete, tag = "jobs", path = JOB, params(("id" = String, Path, description = "The job's id.")), responses(
    (status = 200, body = JobStatus), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn cancel(State(shared): Api, caller: Caller, Id(id): Id) -> Answer<JobStatus> {
    answer(shared.api.cancel(&id, caller).await)
}

/// The jobs that have not ended, in the order in which they come.
#[utoipa::path(get, tag = "jobs", path = route::QUEUE, responses((status = 200, body = QueueReply)))]
pub(super) async fn queue(State(shared): Api) -> Json<QueueReply> {
    Json(shared.api.queue().await)
}

/// Pauses jobs, lets them go on or changes their order; kept over restarts. Answers with the jobs that it is about.
#[utoipa::path(post, tag = "jobs", path = route::QUEUE, request_body = QueueRequest, responses(
    (status = 200, body = QueueReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn change_queue(
    State(shared): Api,
    caller: Caller,
    Body(request): Body<QueueRequest>,
) -> Answer<QueueReply> {
    answer(shared.api.change_queue(request, caller).await)
}

/// The limits on the content that this node sends and receives.
#[utoipa::path(get, tag = "limits", path = route::LIMITS, responses((status = 200, body = LimitsReply)))]
pub(super) async fn limits(State(shared): Api) -> Json<LimitsReply> {
    Json(shared.api.limits().await)
}

/// Sets a limit, kept over restarts; answers with what was set.
#[utoipa::path(post, tag = "limits", path = route::LIMITS, request_body = LimitRequest, responses(
    (status = 200, body = LimitsReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn set_limit(
    State(shared): Api,
    caller: Caller,
    Body(request): Body<LimitRequest>,
) -> Answer<LimitsReply> {
    answer(shared.api.set_limit(request, caller).await)
}

/// Clears all limits that were set so; answers with what was cleared.
#[utoipa::path(delete, tag = "limits", path = route::LIMITS, responses(
    (status = 200, body = LimitsReply), (status = "5XX", body = ApiError)))]
pub(super) async fn clear_limits(State(shared): Api, caller: Caller) -> Answer<LimitsReply> {
    answer(shared.api.clear_limits(None, caller).await)
}

/// Clears a limit that was set so.
#[utoipa::path(delete, tag = "limits", path = LIMIT, params(("id" = String, Path, description = "The limit's id.")), responses(
    (status = 200, body = LimitsReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn clear_limit(State(shared): Api, caller: Caller, Id(id): Id) -> Answer<LimitsReply> {
    answer(shared.api.clear_limits(Some(id), caller).await)
}

/// The studio's policy that stands, or one of the history.
#[utoipa::path(get, tag = "policy", path = route::POLICY, params(PolicyQuery), responses(
    (status = 200, body = PolicyReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn policy(State(shared): Api, query: PolicyQuery) -> Answer<PolicyReply> {
    answer(shared.api.policy(query).await)
}

/// The answer to a policy: what was done, or what would come of it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(super) enum PolicyAnswer {
    /// It was applied.
    Applied(PolicyAppliedReply),
    /// It was a dry run.
    Diff(Box<PolicyDiffReply>),
}

/// Applies a policy to the whole studio; answers when it is recorded. With `dry_run` it only says what would change.
#[utoipa::path(post, tag = "policy", path = route::POLICY, request_body = PolicyRequest, responses(
    (status = 200, body = PolicyAnswer), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn apply_policy(
    State(shared): Api,
    caller: Caller,
    Body(request): Body<PolicyRequest>,
) -> Answer<PolicyAnswer> {
    if request.dry_run {
        let diff = shared.api.diff_policy(request).await;
        return answer(diff.map(|diff| PolicyAnswer::Diff(Box::new(diff))));
    }
    answer(shared.api.apply_policy(request, caller).await.map(PolicyAnswer::Applied))
}

/// All policies that were applied, the newest first.
#[utoipa::path(get, tag = "policy", path = route::POLICY_HISTORY, responses((status = 200, body = PolicyHistoryReply)))]
pub(super) async fn policy_history(State(shared): Api) -> Json<PolicyHistoryReply> {
    Json(shared.api.policy_history().await)
}

/// The feeds that are kept here, and those with two histories.
#[utoipa::path(get, tag = "daemon", path = route::FEEDS, responses((status = 200, body = FeedsReply)))]
pub(super) async fn feeds(State(shared): Api) -> Json<FeedsReply> {
    Json(shared.api.feeds())
}

/// Lets this node write its own feed as it is, or notes that somebody has dealt with a feed that has two histories.
#[utoipa::path(post, tag = "daemon", path = route::FEEDS, request_body = FeedRequest, responses(
    (status = 200, body = FeedsReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn change_feed(
    State(shared): Api,
    caller: Caller,
    Body(request): Body<FeedRequest>,
) -> Answer<FeedsReply> {
    answer(shared.api.change_feed(request, caller).await)
}

/// The invites of this node, the newest first.
#[utoipa::path(get, tag = "access", path = route::INVITES, responses(
    (status = 200, body = InvitesReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn invites(State(shared): Api) -> Answer<InvitesReply> {
    answer(shared.api.invites().await)
}

/// Makes an invite by which one machine can join the studio; the answer has its token, this once.
#[utoipa::path(post, tag = "access", path = route::INVITES, request_body = InviteRequest, responses(
    (status = 200, body = InviteReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn invite(
    State(shared): Api,
    caller: Caller,
    Body(request): Body<InviteRequest>,
) -> Answer<InviteReply> {
    answer(shared.api.invite(request, caller).await)
}

/// Takes an open invite back.
#[utoipa::path(delete, tag = "access", path = INVITE, params(("id" = String, Path, description = "The invite's id.")), responses(
    (status = 200, body = InvitesReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn revoke_invite(State(shared): Api, caller: Caller, Id(id): Id) -> Answer<InvitesReply> {
    answer(shared.api.revoke_invite(id, caller).await)
}

/// The nodes of the studio, and what they may do.
#[utoipa::path(get, tag = "access", path = route::NODES, responses((status = 200, body = NodesReply)))]
pub(super) async fn nodes(State(shared): Api) -> Json<NodesReply> {
    Json(shared.api.nodes().await)
}

/// Revokes a node: from then on no node of the studio talks to it.
#[utoipa::path(post, tag = "access", path = route::NODES_REVOKE, request_body = RevokeRequest, responses(
    (status = 200, body = RevokeReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn revoke_node(
    State(shared): Api,
    caller: Caller,
    Body(request): Body<RevokeRequest>,
) -> Answer<RevokeReply> {
    answer(shared.api.revoke_node(request, caller).await)
}

/// Makes the catalog anew from the feeds.
#[utoipa::path(post, tag = "catalog", path = route::CATALOG_REBUILD, responses(
    (status = 200, body = RebuildReply), (status = "5XX", body = ApiError)))]
pub(super) async fn rebuild(State(shared): Api) -> Answer<RebuildReply> {
    answer(shared.api.rebuild().await)
}

/// Compares the catalog with the feeds.
#[utoipa::path(post, tag = "catalog", path = route::CATALOG_VERIFY, responses(
    (status = 200, body = VerifyReply), (status = "5XX", body = ApiError)))]
pub(super) async fn verify(State(shared): Api) -> Answer<VerifyReply> {
    answer(shared.api.verify().await)
}

/// How large the catalog is.
#[utoipa::path(get, tag = "catalog", path = route::CATALOG_STATS, responses(
    (status = 200, body = CatalogStatsReply), (status = "5XX", body = ApiError)))]
pub(super) async fn stats(State(shared): Api) -> Answer<CatalogStatsReply> {
    answer(shared.api.stats().await)
}

/// The catalog as text, one JSON object on each line; the last has the hash of the others. One that ends early is not whole.
#[utoipa::path(get, tag = "catalog", path = route::CATALOG_EXPORT, responses(
    (status = 200, content_type = "application/jsonl", body = String), (status = "5XX", body = ApiError)))]
pub(super) async fn export(State(shared): Api) -> Result<Response, Failure> {
    let text = shared.api.export().await?;
    Ok(([(CONTENT_TYPE, "application/jsonl")], HttpBody::from_stream(text)).into_response())
}

/// Makes the catalog anew from such a text. It is kept on the state directory's volume until its end has come; the catalog
/// in use stays when it is refused.
#[utoipa::path(post, tag = "catalog", path = route::CATALOG_IMPORT,
    request_body(content = String, content_type = "application/jsonl"), responses(
    (status = 200, body = RebuildReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn import(State(shared): Api, request: Request) -> Answer<RebuildReply> {
    let text = request.into_body().into_data_stream().map_err(io::Error::other).boxed();
    answer(shared.api.import(text).await)
}

/// Entries of the audit, one JSON object on each line, as they stand in its files.
#[utoipa::path(get, tag = "audit", path = route::AUDIT, params(AuditQuery), responses(
    (status = 200, content_type = "application/jsonl", body = String), (status = "4XX", body = ApiError),
    (status = "5XX", body = ApiError)))]
pub(super) async fn audit(
    State(shared): Api,
    Params(query): Params<AuditQuery>,
) -> Result<Response, Failure> {
    let text = shared.api.audit(query).await?;
    Ok(([(CONTENT_TYPE, "application/jsonl")], HttpBody::from_stream(text)).into_response())
}

/// Checks all of the audit, with the heads that this node has published of it.
#[utoipa::path(get, tag = "audit", path = route::AUDIT_VERIFY, responses(
    (status = 200, body = AuditVerifyReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn audit_verify(State(shared): Api) -> Answer<AuditVerifyReply> {
    answer(shared.api.audit_verify().await)
}

/// The heads that a node has published of its audit, as far as this node knows.
#[utoipa::path(get, tag = "audit", path = route::AUDIT_HEADS, params(AuditQuery), responses(
    (status = 200, body = AuditHeadsReply), (status = "4XX", body = ApiError), (status = "5XX", body = ApiError)))]
pub(super) async fn audit_heads(
    State(shared): Api,
    Params(query): Params<AuditQuery>,
) -> Answer<AuditHeadsReply> {
    answer(shared.api.audit_heads(query.node).await)
}

/// The description of this API in OpenAPI 3.
#[utoipa::path(get, tag = "daemon", path = route::OPENAPI, responses((status = 200, content_type = "application/json")))]
pub(super) async fn openapi() -> Response {
    ([(CONTENT_TYPE, "application/json")], openapi_json()).into_response()
}

/// Answers for a handler that panicked, so that the caller hears of it and the daemon goes on.
async fn survive(request: Request, next: Next) -> Response {
    let what = format!("{} {}", request.method(), request.uri().path());
    match AssertUnwindSafe(next.run(request)).catch_unwind().await {
        Ok(response) => response,
        Err(panic) => {
            tracing::error!(
                request = what,
                panic = text_of(panic.as_ref()),
                "a request panicked; this is a bug"
            );
            Failure::internal(format!("{what} failed because of a bug in the daemon")).into_response()
        }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&'static str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}
