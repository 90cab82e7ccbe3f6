//! Roles, over TCP with tokens of each role: there a test is not the admin that it is on its own socket.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use avalon_protocol::audit::{AuditActor, AuditEntry, AuditOutcome, Known};
use avalon_store::fs::Dir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    api::{
        ApiRole, Stop, TOKEN_FILE, Token,
        routes::INVITE,
        rules::{AUDIT_ROWS, ROWS},
        serve_tcp,
    },
    audit::Audit,
    clock::ManualClock,
    events::EventBus,
    health::HealthBoard,
    tasks::Tasks,
};

struct OnTcp {
    fake: Arc<Fake>,
    address: SocketAddr,
    token: String,
    audit: Audit,
    health: HealthBoard,
    tasks: Tasks,
    dir: tempfile::TempDir,
}

impl OnTcp {
    async fn start(role: ApiRole) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("audit")).unwrap();
        let clock = Arc::new(ManualClock::new());
        let health = HealthBoard::new(EventBus::new(clock.clone()));
        let audit_dir = Dir::open(&dir.path().join("audit")).unwrap();
        let audit = Audit::open(&audit_dir, "ws12@london", None, clock.clone(), &health).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let token = Token::open(&Dir::open(dir.path()).unwrap(), role, address).unwrap();
        let gate = crate::api::Gate { token: Some(Arc::new(token)), audit: audit.clone(), ..client::gate() };
        let fake = Arc::new(Fake::new(clock.clone()));
        let stop = Stop { token: CancellationToken::new(), grace: Duration::from_secs(1), clock };
        let (tasks, served) = (Tasks::new(), serve_tcp(listener, fake.clone(), gate, stop));
        tasks.spawn("api", async move { drop(served.await) });
        let token = std::fs::read_to_string(dir.path().join(TOKEN_FILE)).unwrap().trim_end().to_owned();
        Self { fake, address, token, audit, health, tasks, dir }
    }

    /// Returns status and body, of which no more than has come with the head of a stream that does not end.
    async fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        loop {
            let mut piece = [0; 4096];
            let read = stream.read(&mut piece).await.unwrap();
            text.push_str(&String::from_utf8_lossy(&piece[..read]));
            if read == 0 || text.contains("text/event-stream") {
                break;
            }
        }
        let status = text.split(' ').nth(1).unwrap().parse().unwrap();
        let body = text.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
        (status, body)
    }

    async fn with_token(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let headers = format!("Host: {}\r\nAuthorization: Bearer {}\r\n", self.address, self.token);
        self.ask(method, path, &headers, body).await
    }

    /// Ends the audit and returns all of it.
    async fn entries(&self) -> Vec<AuditEntry> {
        self.audit.close().await;
        let entries = Mutex::new(Vec::new());
        let check = self.audit.reader().unwrap().check(&Known::default(), None, |line, _| {
            entries.lock().unwrap().push(line.entry.clone());
        });
        assert_eq!(check.unwrap().faults, []);
        entries.into_inner().unwrap()
    }
}

#[test]
fn every_request_has_a_row_of_its_own_and_none_that_changes_something_is_a_get() {
    let description: serde_json::Value = serde_json::from_str(&crate::api::openapi_json()).unwrap();
    let mut described = BTreeSet::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        described.extend(
            methods.as_object().unwrap().keys().map(|method| format!("{} {path}", method.to_uppercase())),
        );
    }
    let rows = ROWS.iter().chain(&AUDIT_ROWS);
    let named: Vec<String> = rows.clone().map(|(method, path, ..)| format!("{method} {path}")).collect();
    assert_eq!(named.len(), described.len());
    assert_eq!(named.into_iter().collect::<BTreeSet<_>>(), described);
    for (method, path, role, action) in rows {
        let only_looks = *method == axum::http::Method::GET;
        assert!(only_looks || (*role > ApiRole::Read && action.is_some()), "{method} {path}");
        let is_admin = *role == ApiRole::Admin;
        let expected = [
            route::POLICY,
            route::CATALOG_REBUILD,
            route::CATALOG_IMPORT,
            route::AUDIT,
            route::AUDIT_VERIFY,
            route::AUDIT_HEADS,
            route::INVITES,
            INVITE,
            route::NODES_REVOKE,
            route::FEEDS,
        ];
        assert_eq!(
            is_admin,
            expected.contains(path) && (![route::POLICY, route::FEEDS].contains(path) || !only_looks),
            "{method} {path}"
        );
    }
}

#[tokio::test]
async fn each_request_is_refused_to_a_lower_role_and_that_is_in_the_audit() {
    for role in [ApiRole::Read, ApiRole::Operate, ApiRole::Admin] {
        let served = OnTcp::start(role).await;
        let mut refused = BTreeSet::new();
        for (method, path, needed, _) in ROWS.iter().chain(&AUDIT_ROWS) {
            let target = path.replace("{id}", "7");
            let (status, body) = served.with_token(method.as_str(), &target, "{}").await;
            assert_eq!(status == 403, *needed > role, "{method} {path} as {role:?}: {status} {body}");
            if status == 403 {
                let error: ApiError = serde_json::from_str(&body).unwrap();
                assert_eq!((error.code, error.exit), (ErrorCode::Denied, 9));
                assert!(error.message.contains(needed.word()) && error.hint.is_some(), "{error:?}");
                refused.insert(format!("{method} {path}"));
            }
        }
        let entries = served.entries().await;
        let denied = entries.iter().filter(|entry| entry.fact.outcome == AuditOutcome::Denied);
        assert_eq!(
            denied.map(|entry| entry.fact.about[0].clone()).collect::<BTreeSet<_>>(),
            refused,
            "{role:?}"
        );
        assert!(entries[1..].iter().all(|entry| entry.fact.actor == AuditActor::Token));
        served.tasks.cancel();
    }
}

#[tokio::test]
async fn a_page_of_the_web_reaches_nothing_whatever_it_knows() {
    let served = OnTcp::start(ApiRole::Admin).await;
    let (address, bearer) = (served.address, format!("Authorization: Bearer {}\r\n", served.token));
    for headers in [
        format!("Host: rebound.example.net:{}\r\n{bearer}", address.port()),
        format!("Host: {address}\r\nOrigin: null\r\n{bearer}"),
        format!("Host: {address}\r\nOrigin: http://example.net\r\n{bearer}"),
        format!("Host: {address}\r\nSec-Fetch-Site: cross-site\r\n{bearer}"),
        format!("Host: {address}\r\nCookie: token={}\r\n", served.token),
    ] {
        for (method, path) in
            [("GET", route::VERSIONS), ("POST", route::PULL), ("OPTIONS", route::PULL), ("GET", "/v2/x")]
        {
            let (status, body) = served.ask(method, path, &headers, "{\"refs\":[\"a/b\"]}").await;
            assert_eq!(status, 403, "{method} {path} {headers}: {body}");
        }
    }
    assert_eq!(served.fake.calls(), []);
    assert_eq!(served.with_token("POST", route::PULL, "{\"refs\":[\"a/b\"]}").await.0, 200);
}

#[tokio::test]
async fn what_is_asked_is_in_the_audit_with_who_and_what_came_of_it_and_without_what_may_be_secret() {
    let served = OnTcp::start(ApiRole::Admin).await;
    let pull = r#"{"refs":["robot/rig@v001"],"project":"lantern","passphrase":"hush"}"#;
    served.with_token("POST", route::PULL, pull).await;
    served.with_token("POST", route::POLICY, r#"{"document":"x = 1","comment":"nights"}"#).await;
    *served.fake.refuse.lock().unwrap() = Some(ApiError::new(ErrorCode::NotFound, "no"));
    served.with_token("POST", route::RETIRE, r#"{"refs":["a/b"],"comment":"c"}"#).await;
    served.with_token("GET", route::STATUS, "").await;
    let entries = served.entries().await;
    let told: Vec<_> = entries.iter().map(|entry| (entry.fact.action.word(), entry.fact.outcome)).collect();
    let told: Vec<_> = told.iter().map(|(action, outcome)| (action.as_str(), *outcome)).collect();
    assert_eq!(
        told,
        [
            ("begin", AuditOutcome::Done),
            ("pull", AuditOutcome::Done),
            ("policy", AuditOutcome::Asked),
            ("policy", AuditOutcome::Done),
            ("retire", AuditOutcome::Failed),
        ]
    );
    let pull = &entries[1].fact;
    assert_eq!((pull.about.join(" ").as_str(), pull.project.as_deref()), ("robot/rig@v001", Some("lantern")));
    assert_eq!(pull.detail["also"], "passphrase");
    assert_eq!(entries[2].fact.detail["document_blake3"], blake3::hash(b"x = 1").to_hex().to_string());
    assert!(!format!("{entries:?}").contains("hush"));
}

#[tokio::test]
async fn while_the_audit_cannot_be_written_an_admin_is_refused_and_an_artist_is_not() {
    let served = OnTcp::start(ApiRole::Admin).await;
    // The first file cannot be made, as on a full disk.
    let block = served.dir.path().join("audit/audit-000000000000.jsonl");
    std::fs::create_dir(&block).unwrap();
    let (status, body) = served.with_token("POST", route::CATALOG_REBUILD, "").await;
    assert_eq!(status, 500, "{body}");
    assert!(body.contains("nothing was done, because the audit cannot be written"), "{body}");
    assert_eq!(served.with_token("POST", route::PULL, "{\"refs\":[\"a/b\"]}").await.0, 200);
    assert!(served.health.items().iter().any(|health| health.code == "audit-failed"));
    std::fs::remove_dir(&block).unwrap();
    assert_eq!(served.with_token("POST", route::CATALOG_REBUILD, "").await.0, 200);
    assert!(served.health.items().is_empty());
    let entries = served.entries().await;
    let told: Vec<_> = entries.iter().map(|entry| entry.fact.action.word()).collect();
    assert_eq!(
        told,
        ["begin", "catalog", "pull", "catalog", "catalog"],
        "what could not be written then is now"
    );
}
