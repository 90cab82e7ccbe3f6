//! The gate in front of every request: who calls, whether they may, and what the audit has of it.

use std::sync::Arc;

use avalon_protocol::{
    audit::{AuditAction, AuditActor, AuditFact, AuditOutcome},
    control::{ApiError, ErrorCode},
};
use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::StatusCode,
    middleware::Next,
    response::{IntoResponse as _, Response},
};

use super::{
    caller::Peer,
    error::Failure,
    extract::MAX_BODY_BYTES,
    roles::{ApiRole, ApiRoles},
    rules::{Rule, rule_of},
    tcp::Token,
};
use crate::{
    audit::{Audit, Sum, Unwritten},
    publish::author,
};

/// What decides.
#[derive(Debug, Clone)]
pub struct Gate {
    /// Of callers on the socket.
    pub roles: Arc<ApiRoles>,
    /// Of callers on TCP, where that is configured.
    pub token: Option<Arc<Token>>,
    /// Where it is written.
    pub audit: Audit,
}

/// What of a request's body is written: names of things and what is done to them. Of anything else only that it was there,
/// for it may be long, or a secret.
const WRITTEN: [&str; 30] = [
    "refs",
    "ref",
    "paths",
    "project",
    "comment",
    "author",
    "dry_run",
    "reason",
    "keep",
    "force",
    "do",
    "prio",
    "jobs",
    "rate",
    "direction",
    "site",
    "class",
    "when",
    "replaces",
    "pin",
    "unpin",
    "round",
    "number",
    "silo",
    "frames",
    "node",
    "role",
    "ttl_seconds",
    "projects",
    "addresses",
];

/// Lets a request through, or says why not.
pub(super) async fn pass(State(gate): State<Gate>, request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    // A path that is not of this API is answered as such to whoever may read.
    let read = Rule { role: ApiRole::Read, dry_run: ApiRole::Read, action: None, has_json: false };
    let rule = path.as_deref().map_or(read, |path| rule_of(request.method(), path));
    let (actor, role) = match gate.who(&request) {
        Ok(known) => known,
        Err((actor, why)) => return gate.refuse(&request, actor, rule, why),
    };
    let (request, body) = match rule.has_json {
        true => match with_body(request).await {
            Ok(read) => read,
            Err(failure) => return failure.into_response(),
        },
        false => (request, Bytes::new()),
    };
    let json = serde_json::from_slice::<serde_json::Value>(&body).unwrap_or_default();
    let is_dry = json.get("dry_run").and_then(serde_json::Value::as_bool) == Some(true);
    let needed = if is_dry { rule.dry_run } else { rule.role };
    if role.is_none_or(|role| role < needed) {
        let has = role.map_or("no role at all".to_owned(), |role| format!("the role {}", role.word()));
        let why = format!("this needs the role {}, and {actor} has {has}", needed.word());
        return gate.refuse(&request, actor, rule, why);
    }
    let Some(action) = rule.action else { return next.run(request).await };
    let fact = describe(&request, &json, actor, action);
    if needed == ApiRole::Admin
        && let Err(unwritten) = gate.audit.record(fact.clone()).await
    {
        return not_written(&unwritten).into_response();
    }
    let mut pending = Pending { audit: gate.audit.clone(), fact: Some(fact) };
    let response = next.run(request).await;
    pending.answered(response.status(), response.extensions().get::<ErrorCode>().copied());
    response
}

impl Gate {
    /// Returns who calls and what they may do; nobody who may do anything with the reason.
    fn who(&self, request: &Request) -> Result<(AuditActor, Option<ApiRole>), (AuditActor, String)> {
        let unknown = AuditActor::User { uid: u32::MAX, name: "unknown".into() };
        match request.extensions().get::<ConnectInfo<Peer>>().map(|info| &info.0) {
            Some(Peer::Local { caller, groups }) => {
                let actor = AuditActor::User { uid: caller.uid, name: author::name_of(caller.uid) };
                Ok((actor, self.roles.of(caller, groups)))
            }
            Some(Peer::Tcp { .. }) => match &self.token {
                Some(token) => match token.check(request.headers()) {
                    Ok(role) => Ok((AuditActor::Token, Some(role))),
                    Err(why) => Err((AuditActor::Token, why.to_owned())),
                },
                None => Err((AuditActor::Token, "the local API is not on TCP".into())),
            },
            Some(Peer::Unknown) | None => Err((unknown, "the system does not say who is calling".into())),
        }
    }

    /// What is refused is summed up, so that nobody fills the audit by asking.
    fn refuse(&self, request: &Request, actor: AuditActor, rule: Rule, why: String) -> Response {
        tracing::warn!(%actor, method = %request.method(), why, "a call of the local API is refused");
        let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
        let about = path.map(|path| format!("{} {path}", request.method()));
        let action = rule.action.unwrap_or(AuditAction::Read);
        self.audit.add(Sum { actor, action, outcome: AuditOutcome::Denied, project: None, about }, 0);
        let hint = "ask somebody who may: avalond's configuration names the groups, in [api]";
        Failure::from(ApiError::new(ErrorCode::Denied, why).with_hint(hint)).into_response()
    }
}

/// Reads the body, which is bounded, and puts it back.
async fn with_body(request: Request) -> Result<(Request, Bytes), Failure> {
    let (head, body) = request.into_parts();
    let bytes = to_bytes(body, MAX_BODY_BYTES).await.map_err(|error| {
        let message = format!("cannot read the body, which may have {MAX_BODY_BYTES} bytes: {error}");
        Failure::bad_request(StatusCode::PAYLOAD_TOO_LARGE, message)
    })?;
    Ok((Request::from_parts(head, Body::from(bytes.clone())), bytes))
}

fn not_written(unwritten: &Unwritten) -> Failure {
    let code = if unwritten.is_no_space { ErrorCode::DiskFull } else { ErrorCode::Internal };
    let message = format!("nothing was done, because {unwritten}");
    ApiError::new(code, message)
        .with_hint("avalonctl status says what is wrong; try again when it is mended")
        .into()
}

/// Says what is asked for.
fn describe(
    request: &Request,
    json: &serde_json::Value,
    actor: AuditActor,
    action: AuditAction,
) -> AuditFact {
    let target = request.uri().path_and_query().map_or("", |target| target.as_str());
    let mut fact = AuditFact::new(actor, action, AuditOutcome::Asked);
    fact = fact.detail("call", format!("{} {target}", request.method()));
    let mut others = Vec::new();
    for (key, value) in json.as_object().into_iter().flatten() {
        let texts = |value: &serde_json::Value| -> Vec<String> {
            let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            list.iter().map(|item| item.as_str().map_or_else(|| item.to_string(), str::to_owned)).collect()
        };
        match key.as_str() {
            "refs" | "ref" | "paths" => fact.about.extend(texts(value)),
            "project" => fact.project = value.as_str().map(str::to_owned),
            "document" => {
                let hash = blake3::hash(value.as_str().unwrap_or_default().as_bytes());
                fact = fact.detail("document_blake3", hash.to_hex().to_string());
            }
            key if WRITTEN.contains(&key) => fact = fact.detail(key, texts(value).join(" ")),
            key => others.push(key.to_owned()),
        }
    }
    if others.is_empty() { fact } else { fact.detail("also", others.join(" ")) }
}

/// A call that is under way; when the caller hangs up, that is written.
struct Pending {
    audit: Audit,
    fact: Option<AuditFact>,
}

impl Pending {
    fn answered(&mut self, status: StatusCode, code: Option<ErrorCode>) {
        let Some(mut fact) = self.fact.take() else { return };
        fact.outcome = match status {
            status if status.is_success() => AuditOutcome::Done,
            StatusCode::FORBIDDEN => AuditOutcome::Denied,
            _ => AuditOutcome::Failed,
        };
        if let Some(code) = code {
            fact = fact.detail("error", code.to_string());
        }
        self.audit.note(fact);
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(fact) = self.fact.take() {
            self.audit.note(fact.detail("answer", "the caller was gone before it"));
        }
    }
}
