//! A daemon that answers with fixed values and remembers what it was asked.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use avalon_protocol::{
    control::{
        ApiError, AuditHeadsReply, AuditVerifyReply, Candidate, CatalogStatsReply, ConflictsReply,
        DestinationReply, DropReply, DropRequest, FeedRequest, FeedsReply, InfoReply, InputsReply,
        InviteItem, InviteReply, InviteRequest, InviteState, InvitesReply, JobKind, JobState, JobStatus,
        LifetimeReply, LifetimeRequest, LimitRequest, LimitsReply, ListReply, NodesReply, PinRequest,
        PinsReply, PolicyAppliedReply, PolicyDiffList, PolicyDiffReply, PolicyHistoryReply, PolicyItem,
        PolicyReply, PolicyRequest, Presence, ProblemsReply, PublishReply, PublishRequest, PullReply,
        PullRequest, QueueReply, QueueRequest, RebuildReply, ReportReply, ReserveReply, ReserveRequest,
        ResolveReply, ResolveRequest, RevokeReply, RevokeRequest, StatusReply, VerifyReply, VerifyRequest,
        VerifyState, VerifyStatus, WhereReply, WhyReply,
    },
    manifest::Completeness,
    policy::{Amount, Freeing},
};
use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, ready},
};
use tokio::sync::{Notify, watch};

use crate::{
    api::{
        AuditQuery, ByteStream, Caller, DestinationQuery, InputsQuery, Lifetime, LocalApi, PolicyQuery,
        RefQuery, ReportQuery, WhyQuery,
    },
    clock::Clock,
    events::EventBus,
};

/// What it was asked.
#[derive(Debug, PartialEq, Eq, Clone)]
pub(super) enum Call {
    Query(RefQuery),
    Why(WhyQuery),
    Publish(PublishRequest, Caller),
    Pull(PullRequest, Caller),
    Lifetime(Lifetime, LifetimeRequest, Caller),
    Resolve(ResolveRequest, Caller),
    Reserve(ReserveRequest),
    Drop(DropRequest, Caller),
    SetPins(PinRequest, Caller),
    Verify(VerifyRequest, Caller),
    EndVerify(String, Caller),
    Cancel(String, Caller),
    Queue(QueueRequest, Caller),
    SetLimit(LimitRequest, Caller),
    ClearLimits(Option<String>, Caller),
    Feed(FeedRequest, Caller),
    Invite(InviteRequest, Caller),
    RevokeInvite(String, Caller),
    RevokeNode(RevokeRequest, Caller),
    Policy(PolicyQuery),
    ApplyPolicy(PolicyRequest, Caller),
    DiffPolicy(PolicyRequest),
}

pub(super) struct Fake {
    pub(super) bus: EventBus,
    pub(super) calls: Mutex<Vec<Call>>,
    /// What requests with a reference are refused with.
    pub(super) refuse: Mutex<Option<ApiError>>,
    /// Whether the list of jobs panics.
    pub(super) panic: AtomicBool,
    /// Whether the list of jobs waits.
    pub(super) hold: watch::Sender<bool>,
    /// That it waits now.
    pub(super) held: Notify,
}

impl Fake {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            bus: EventBus::new(clock),
            calls: Mutex::default(),
            refuse: Mutex::default(),
            panic: AtomicBool::new(false),
            hold: watch::Sender::new(false),
            held: Notify::new(),
        }
    }

    pub(super) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap().clone()
    }

    fn reply<T: Send + 'static>(&self, call: Call, reply: T) -> BoxFuture<'static, Result<T, ApiError>> {
        self.calls.lock().unwrap().push(call);
        let refused = self.refuse.lock().unwrap().clone();
        ready(refused.map_or(Ok(reply), Err)).boxed()
    }
}

pub(super) fn status() -> StatusReply {
    StatusReply {
        schema: "avalonctl.status/1".into(),
        node: "ws12".into(),
        site: "london".into(),
        studio: "lumen".into(),
        version: "0.1.0".into(),
        pid: 7,
        uptime_seconds: 1.5,
        listen: "127.0.0.1:4700".into(),
        certificate_expires: "2027-01-01T00:00:00Z".into(),
        knowledge_age_seconds: 0.0,
        peers: Vec::new(),
        jobs: Vec::new(),
        health: Vec::new(),
        projects: Vec::new(),
        scrub: None,
    }
}

fn verifying(id: &str) -> VerifyStatus {
    VerifyStatus {
        schema: "avalonctl.verify/1".into(),
        id: id.into(),
        state: VerifyState::Running,
        repair: false,
        versions_total: 2,
        versions_done: 1,
        bytes_total: 10,
        bytes_done: 5,
        seconds: 1.0,
        current: None,
        damaged: Vec::new(),
        damaged_more: 0,
        unread: Vec::new(),
    }
}

fn job(id: &str) -> JobStatus {
    JobStatus {
        id: id.into(),
        kind: JobKind::Pull,
        reference: "lantern:robot/modelDefault@v012".into(),
        manifest: "0".repeat(64),
        state: JobState::Running,
        reason: None,
        error: None,
        files_total: 2,
        files_present: 1,
        bytes_total: 10,
        bytes_present: 5,
        bytes_received: 5,
        bytes_local: 0,
        bytes_delta: 0,
        bytes_compressed: 0,
        bytes_raw: 5,
        bytes_per_second: 1.0,
        eta_seconds: Some(5.0),
        seconds: 5.0,
        sources: vec!["ws1@montreal".into()],
        path: None,
        class: None,
        prio: None,
        frames: None,
        position: None,
    }
}

fn no_feeds() -> FeedsReply {
    FeedsReply { schema: "avalonctl.feeds/1".into(), feeds: Vec::new() }
}

fn no_invites() -> InvitesReply {
    InvitesReply { schema: "avalonctl.invites/1".into(), invites: Vec::new() }
}

fn no_limits() -> LimitsReply {
    LimitsReply { schema: "avalonctl.limit/1".into(), limits: Vec::new() }
}

fn policy() -> PolicyItem {
    PolicyItem {
        serial: 3,
        hash: "0".repeat(64),
        bytes: 10,
        author: "anna".into(),
        comment: String::new(),
        node: "ws12@london".into(),
        applied: "2026-11-22T10:00:00Z".into(),
        stands: true,
        in_effect: true,
        understood: true,
    }
}

fn info() -> InfoReply {
    InfoReply {
        schema: "avalonctl.info/1".into(),
        reference: "lantern:robot/modelDefault@v012".into(),
        manifest: "0".repeat(64),
        generation: 1,
        completeness: Completeness::Explicit,
        author: "anna".into(),
        node: "ws12@london".into(),
        comment: String::new(),
        published: "2026-11-22T10:00:00Z".into(),
        retired: None,
        growing: Vec::new(),
        path: None,
        dir: String::new(),
        here: Presence::Complete,
        files_here: 0,
        some_here: Vec::new(),
        files: Vec::new(),
        inputs: Vec::new(),
        metadata: BTreeMap::new(),
        problems: Vec::new(),
    }
}

impl LocalApi for Fake {
    fn status(&self) -> BoxFuture<'_, StatusReply> {
        ready(status()).boxed()
    }

    fn list(&self, query: RefQuery) -> BoxFuture<'_, Result<ListReply, ApiError>> {
        self.reply(
            Call::Query(query),
            ListReply { schema: "avalonctl.ls/1".into(), versions: Vec::new(), next: None },
        )
    }

    fn locate(&self, query: RefQuery) -> BoxFuture<'_, Result<WhereReply, ApiError>> {
        self.reply(
            Call::Query(query),
            WhereReply { schema: "avalonctl.where/1".into(), versions: Vec::new() },
        )
    }

    fn info(&self, query: RefQuery) -> BoxFuture<'_, Result<InfoReply, ApiError>> {
        self.reply(Call::Query(query), info())
    }

    fn problems(&self, query: RefQuery) -> BoxFuture<'_, Result<ProblemsReply, ApiError>> {
        let reply = ProblemsReply {
            schema: "avalonctl.problems/1".into(),
            versions: Vec::new(),
            checked: 0,
            unknown: Vec::new(),
        };
        self.reply(Call::Query(query), reply)
    }

    fn destination(&self, _query: DestinationQuery) -> BoxFuture<'_, Result<DestinationReply, ApiError>> {
        let reply = DestinationReply {
            schema: "avalonctl.destination/1".into(),
            reference: String::new(),
            path: String::new(),
            entry: None,
        };
        ready(Ok(reply)).boxed()
    }

    fn report(&self, _query: ReportQuery) -> BoxFuture<'_, Result<ReportReply, ApiError>> {
        let reply = ReportReply {
            schema: "avalonctl.report-facts/1".into(),
            site: "london".into(),
            publishes: Vec::new(),
            transfers: Vec::new(),
            transfers_known_since: None,
        };
        ready(Ok(reply)).boxed()
    }

    fn inputs(&self, _query: InputsQuery) -> BoxFuture<'_, Result<InputsReply, ApiError>> {
        let reply = InputsReply {
            schema: "avalonctl.inputs/1".into(),
            versions: Vec::new(),
            missing: Vec::new(),
            missing_more: 0,
            files: 0,
            bytes: 0,
            bytes_here: 0,
        };
        ready(Ok(reply)).boxed()
    }

    fn publish(
        &self,
        request: PublishRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<PublishReply, ApiError>> {
        let reply = PublishReply { schema: "avalonctl.publish/1".into(), versions: Vec::new() };
        self.reply(Call::Publish(request, caller), reply)
    }

    fn pull(&self, request: PullRequest, caller: Caller) -> BoxFuture<'_, Result<PullReply, ApiError>> {
        self.reply(Call::Pull(request, caller), PullReply::default())
    }

    fn lifetime(
        &self,
        what: Lifetime,
        request: LifetimeRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<LifetimeReply, ApiError>> {
        let reply = LifetimeReply { schema: "avalonctl.retire/1".into(), versions: Vec::new() };
        self.reply(Call::Lifetime(what, request, caller), reply)
    }

    fn conflicts(&self, query: RefQuery) -> BoxFuture<'_, Result<ConflictsReply, ApiError>> {
        let reply = ConflictsReply { schema: "avalonctl.conflicts/1".into(), conflicts: Vec::new() };
        self.reply(Call::Query(query), reply)
    }

    fn resolve(
        &self,
        request: ResolveRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<ResolveReply, ApiError>> {
        let kept = Candidate {
            manifest: "7".repeat(64),
            generation: 1,
            node: "srv@london".into(),
            author: "anna".into(),
            published: String::new(),
            files: 1,
            bytes: 1,
            holders: Vec::new(),
            sites: Vec::new(),
        };
        let (schema, reference) = ("avalonctl.resolve/1".into(), request.reference.clone());
        let reply = ResolveReply { schema, reference, kept, moved: Vec::new(), dry_run: request.dry_run };
        self.reply(Call::Resolve(request, caller), reply)
    }

    fn reserve(&self, request: ReserveRequest) -> BoxFuture<'_, Result<ReserveReply, ApiError>> {
        let (schema, reference) = ("avalonctl.reserve/1".into(), request.reference.clone());
        self.reply(Call::Reserve(request), ReserveReply { schema, reference, number: 5 })
    }

    fn drop_versions(
        &self,
        request: DropRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<DropReply, ApiError>> {
        let reply = DropReply { schema: "avalonctl.drop/1".into(), versions: Vec::new() };
        self.reply(Call::Drop(request, caller), reply)
    }

    fn verify_files(
        &self,
        request: VerifyRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<VerifyStatus, ApiError>> {
        self.reply(Call::Verify(request, caller), verifying("1"))
    }

    fn verifying<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<VerifyStatus, ApiError>> {
        ready(Ok(verifying(id))).boxed()
    }

    fn end_verify<'a>(
        &'a self,
        id: &'a str,
        caller: Caller,
    ) -> BoxFuture<'a, Result<VerifyStatus, ApiError>> {
        self.reply(Call::EndVerify(id.to_owned(), caller), verifying(id))
    }

    fn pins(&self) -> BoxFuture<'_, Result<PinsReply, ApiError>> {
        ready(Ok(PinsReply { schema: "avalonctl.pins/1".into(), pins: Vec::new() })).boxed()
    }

    fn set_pins(&self, request: PinRequest, caller: Caller) -> BoxFuture<'_, Result<PinsReply, ApiError>> {
        let reply = PinsReply { schema: "avalonctl.pins/1".into(), pins: Vec::new() };
        self.reply(Call::SetPins(request, caller), reply)
    }

    fn jobs(&self) -> BoxFuture<'_, Vec<JobStatus>> {
        assert!(!self.panic.load(Ordering::SeqCst), "on purpose");
        let mut hold = self.hold.subscribe();
        async move {
            if *hold.borrow() {
                self.held.notify_one();
            }
            hold.wait_for(|hold| !hold).await.unwrap();
            vec![job("7")]
        }
        .boxed()
    }

    fn job<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<JobStatus, ApiError>> {
        ready(Ok(job(id))).boxed()
    }

    fn cancel<'a>(&'a self, id: &'a str, caller: Caller) -> BoxFuture<'a, Result<JobStatus, ApiError>> {
        self.reply(Call::Cancel(id.into(), caller), JobStatus { state: JobState::Cancelled, ..job(id) })
    }

    fn queue(&self) -> BoxFuture<'_, QueueReply> {
        ready(QueueReply { jobs: vec![job("7")], ..QueueReply::default() }).boxed()
    }

    fn change_queue(
        &self,
        request: QueueRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<QueueReply, ApiError>> {
        let changed = QueueReply { jobs: vec![job("7")], ..QueueReply::default() };
        self.reply(Call::Queue(request, caller), changed)
    }

    fn limits(&self) -> BoxFuture<'_, LimitsReply> {
        ready(no_limits()).boxed()
    }

    fn set_limit(
        &self,
        request: LimitRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<LimitsReply, ApiError>> {
        self.reply(Call::SetLimit(request, caller), no_limits())
    }

    fn clear_limits(
        &self,
        id: Option<String>,
        caller: Caller,
    ) -> BoxFuture<'_, Result<LimitsReply, ApiError>> {
        self.reply(Call::ClearLimits(id, caller), no_limits())
    }

    fn nodes(&self) -> BoxFuture<'_, NodesReply> {
        ready(NodesReply { schema: "avalonctl.nodes/1".into(), nodes: Vec::new() }).boxed()
    }

    fn revoke_node(
        &self,
        request: RevokeRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<RevokeReply, ApiError>> {
        let reply = RevokeReply {
            schema: "avalonctl.node-revoke/1".into(),
            node: request.node.clone(),
            list: None,
            certificates: None,
        };
        self.reply(Call::RevokeNode(request, caller), reply)
    }

    fn feeds(&self) -> FeedsReply {
        no_feeds()
    }

    fn change_feed(
        &self,
        request: FeedRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<FeedsReply, ApiError>> {
        self.reply(Call::Feed(request, caller), no_feeds())
    }

    fn invites(&self) -> BoxFuture<'_, Result<InvitesReply, ApiError>> {
        ready(Ok(no_invites())).boxed()
    }

    fn invite(&self, request: InviteRequest, caller: Caller) -> BoxFuture<'_, Result<InviteReply, ApiError>> {
        let reply = InviteReply {
            schema: "avalonctl.invite/1".into(),
            token: "avalonjoin1-a".into(),
            addresses: Vec::new(),
            invite: InviteItem {
                id: "aebagbaf".into(),
                site: request.site.clone(),
                role: request.role,
                node: None,
                projects: Vec::new(),
                state: InviteState::Open,
                made: String::new(),
                expires: String::new(),
            },
        };
        self.reply(Call::Invite(request, caller), reply)
    }

    fn revoke_invite(&self, id: String, caller: Caller) -> BoxFuture<'_, Result<InvitesReply, ApiError>> {
        self.reply(Call::RevokeInvite(id, caller), no_invites())
    }

    fn why(&self, query: WhyQuery) -> BoxFuture<'_, Result<WhyReply, ApiError>> {
        self.reply(Call::Why(query), WhyReply { schema: "avalonctl.why/1".into(), answers: Vec::new() })
    }

    fn policy(&self, query: PolicyQuery) -> BoxFuture<'_, Result<PolicyReply, ApiError>> {
        let reply = PolicyReply {
            schema: "avalonctl.policy-show/1".into(),
            policy: policy(),
            document: "# rules\n".into(),
            problem: None,
            in_effect: Some(3),
        };
        self.reply(Call::Policy(query), reply)
    }

    fn policy_history(&self) -> BoxFuture<'_, PolicyHistoryReply> {
        let schema = "avalonctl.policy-history/1".into();
        ready(PolicyHistoryReply { schema, policies: vec![policy()] }).boxed()
    }

    fn apply_policy(
        &self,
        request: PolicyRequest,
        caller: Caller,
    ) -> BoxFuture<'_, Result<PolicyAppliedReply, ApiError>> {
        let schema = "avalonctl.policy-apply/1".into();
        let reply = PolicyAppliedReply { schema, policy: policy(), replaced: 2, warnings: Vec::new() };
        self.reply(Call::ApplyPolicy(request, caller), reply)
    }

    fn diff_policy(&self, request: PolicyRequest) -> BoxFuture<'_, Result<PolicyDiffReply, ApiError>> {
        self.reply(Call::DiffPolicy(request), no_diff())
    }

    fn rebuild(&self) -> BoxFuture<'_, Result<RebuildReply, ApiError>> {
        let schema = "avalonctl.catalog-rebuild/1".into();
        ready(Ok(RebuildReply { schema, generation: 2, records: 3, replayed: 3, rows: 4, seconds: 0.1 }))
            .boxed()
    }

    fn verify(&self) -> BoxFuture<'_, Result<VerifyReply, ApiError>> {
        let schema = "avalonctl.catalog-verify/1".into();
        ready(Ok(VerifyReply { schema, ok: true, rows: 4, problems: Vec::new(), seconds: 0.1 })).boxed()
    }

    fn stats(&self) -> BoxFuture<'_, Result<CatalogStatsReply, ApiError>> {
        let schema = "avalonctl.catalog-stats/1".into();
        let stats = CatalogStatsReply {
            schema,
            generation: 1,
            versions: 2,
            manifests: 2,
            local_files: 3,
            feeds: 1,
            records: 4,
            disk_bytes: 5,
            rows: 9,
            live_bytes: 3,
            checkpoint_records: 2,
        };
        ready(Ok(stats)).boxed()
    }

    fn export(&self) -> BoxFuture<'_, Result<ByteStream, ApiError>> {
        let lines = ["{\"schema\":1}\n", "{\"rows\":0}\n"];
        let pieces = lines.map(|line| Ok(bytes::Bytes::from_static(line.as_bytes())));
        ready(Ok(futures_util::stream::iter(pieces).boxed())).boxed()
    }

    fn import(&self, text: ByteStream) -> BoxFuture<'_, Result<RebuildReply, ApiError>> {
        async move {
            let pieces: Vec<_> = text.collect().await;
            let rows = pieces.iter().map(|piece| piece.as_ref().unwrap().len() as u64).sum();
            let schema = "avalonctl.catalog-import/1".into();
            Ok(RebuildReply { schema, generation: 3, records: 3, replayed: 0, rows, seconds: 0.1 })
        }
        .boxed()
    }

    fn audit(&self, _query: AuditQuery) -> BoxFuture<'_, Result<ByteStream, ApiError>> {
        ready(Ok(futures_util::stream::empty().boxed())).boxed()
    }

    fn audit_verify(&self) -> BoxFuture<'_, Result<AuditVerifyReply, ApiError>> {
        let verdict = avalon_protocol::audit::Checker::new(&Default::default()).finish();
        ready(Ok(verdict.into())).boxed()
    }

    fn audit_heads(&self, node: Option<String>) -> BoxFuture<'_, Result<AuditHeadsReply, ApiError>> {
        let (schema, node) = ("avalonctl.audit-heads/1".into(), node.unwrap_or_default());
        ready(Ok(AuditHeadsReply { schema, node, heads: Vec::new() })).boxed()
    }

    fn events(&self) -> EventBus {
        self.bus.clone()
    }
}

fn no_diff() -> PolicyDiffReply {
    let list = PolicyDiffList { then: Amount::default(), now: Amount::default(), first: Vec::new() };
    PolicyDiffReply {
        schema: "avalonctl.policy-diff/1".into(),
        in_effect: Some(3),
        projects: vec!["lantern".into()],
        looked_at: Amount::default(),
        sites: Vec::new(),
        nodes: Vec::new(),
        could_free: Freeing::default(),
        under_replicated: list.clone(),
        kept_nowhere: list.clone(),
        not_known: list,
        conflicts: 0,
        warnings: Vec::new(),
    }
}
