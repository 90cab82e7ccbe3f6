//! The API over a real socket, in raw HTTP/1.1.

mod client;
mod fake;
mod gate;

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use avalon_protocol::{
    control::{
        ApiError, ErrorCode, Event, EventKind, PolicyDiffReply, PolicyReply, Prio, PublishRequest,
        QueueChange, QueueReply, RebuildReply, StatusReply, route,
    },
    limit::Class,
};

use self::{
    client::{Answer, Client, Served},
    fake::{Call, Fake},
};
use super::{RefQuery, extract, routes};
use crate::events::KEPT_EVENTS;

fn error(answer: &Answer) -> ApiError {
    assert_eq!(answer.header("content-type"), Some("application/json"), "{answer:?}");
    let error: ApiError = answer.json();
    assert_eq!((error.kind.as_str(), error.exit), ("error", error.code.exit().code()));
    error
}

#[tokio::test]
async fn replies_are_those_of_the_daemon() {
    let served = Served::start();
    let answer = served.request("GET", "/v1/status", "").await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json::<StatusReply>(), fake::status());
    for (method, path, body) in [
        ("GET", route::VERSIONS, ""),
        ("GET", route::WHERE, ""),
        ("GET", route::INFO, ""),
        ("POST", route::PUBLISH, r#"{"paths":["/srv/a"]}"#),
        ("POST", route::PULL, r#"{"refs":["a/b"]}"#),
        ("GET", route::JOBS, ""),
        ("GET", "/v1/jobs/7", ""),
        ("DELETE", "/v1/jobs/7", ""),
        ("GET", route::QUEUE, ""),
        ("POST", route::QUEUE, r#"{"do":"pause"}"#),
        ("GET", route::LIMITS, ""),
        ("POST", route::LIMITS, r#"{"rate":"200Mbit/s"}"#),
        ("DELETE", route::LIMITS, ""),
        ("DELETE", "/v1/limits/7", ""),
        ("POST", route::CATALOG_REBUILD, ""),
        ("POST", route::CATALOG_VERIFY, ""),
        ("GET", route::CATALOG_STATS, ""),
        ("POST", route::CATALOG_IMPORT, "any text"),
        ("GET", route::OPENAPI, ""),
    ] {
        let answer = served.request(method, path, body).await;
        assert_eq!(answer.status, 200, "{method} {path}: {answer:?}");
        assert_eq!(answer.header("content-type"), Some("application/json"));
        answer.json::<serde_json::Value>();
    }
}

#[tokio::test]
async fn a_catalog_goes_out_and_in_piece_by_piece_however_long_it_is() {
    let served = Served::start();
    let answer = served.request("GET", route::CATALOG_EXPORT, "").await;
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/jsonl")));
    assert_eq!(answer.header("transfer-encoding"), Some("chunked"));
    let text = "x".repeat(3 * extract::MAX_BODY_BYTES);
    let answer = served.request("POST", route::CATALOG_IMPORT, &text).await;
    assert_eq!(answer.json::<RebuildReply>().rows, text.len() as u64);
}

#[tokio::test]
async fn parameters_reach_the_daemon_decoded() {
    let served = Served::start();
    served.request("GET", "/v1/versions?ref=lantern:robot%2FmodelDefault%40v012&project=&new=1", "").await;
    served.request("GET", "/v1/where?ref=a%2F*&project=lantern", "").await;
    let query = |reference: &str, project: Option<&str>| {
        Call::Query(RefQuery {
            reference: Some(reference.into()),
            project: project.map(Into::into),
            ..RefQuery::default()
        })
    };
    let calls = [query("lantern:robot/modelDefault@v012", None), query("a/*", Some("lantern"))];
    assert_eq!(served.fake.calls(), calls);
}

#[tokio::test]
async fn the_kernel_says_who_calls() {
    let served = Served::start();
    let answer = served.request("POST", route::PUBLISH, r#"{"paths":["/srv/a"],"comment":"käse"}"#).await;
    assert_eq!(answer.status, 200);
    let calls = served.fake.calls();
    let [Call::Publish(request, caller)] = calls.as_slice() else { panic!("{calls:?}") };
    let expected: PublishRequest = serde_json::from_str(r#"{"paths":["/srv/a"],"comment":"käse"}"#).unwrap();
    assert_eq!(request, &expected);
    assert_eq!(
        (caller.uid, caller.gid),
        (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw())
    );
    assert_eq!(caller.pid, i32::try_from(std::process::id()).ok());
}

#[tokio::test]
async fn a_limit_is_set_and_cleared_by_its_id_or_with_all() {
    let served = Served::start();
    let body = r#"{"rate":"200Mbit/s","direction":"send","site":"montreal","class":"backfill"}"#;
    served.request("POST", route::LIMITS, body).await;
    served.request("DELETE", "/v1/limits/7", "").await;
    served.request("DELETE", route::LIMITS, "").await;
    let calls = served.fake.calls();
    let [Call::SetLimit(request, _), Call::ClearLimits(one, _), Call::ClearLimits(None, _)] =
        calls.as_slice()
    else {
        panic!("{calls:?}")
    };
    assert_eq!((request.class, request.when.as_deref()), (Some(Class::Backfill), None));
    assert_eq!(one.as_deref(), Some("7"));
    let answer = served.request("POST", route::LIMITS, r#"{"rate":"1MB/s","class":"urgent"}"#).await;
    assert_eq!((answer.status, error(&answer).code), (400, ErrorCode::BadRequest));
}

#[tokio::test]
async fn the_queue_is_changed_by_who_calls() {
    let served = Served::start();
    let changed = served.request("POST", route::QUEUE, r#"{"do":"prio","prio":"low","jobs":["7"]}"#).await;
    assert_eq!(changed.json::<QueueReply>().jobs.len(), 1);
    served.request("POST", route::QUEUE, r#"{"do":"pause"}"#).await;
    let calls = served.fake.calls();
    let [Call::Queue(prio, _), Call::Queue(pause, _)] = calls.as_slice() else { panic!("{calls:?}") };
    assert_eq!((prio.change, prio.jobs.len()), (QueueChange::Prio { prio: Prio::Low }, 1));
    assert_eq!((pause.change, pause.jobs.len()), (QueueChange::Pause, 0));
    let answer = served.request("POST", route::QUEUE, r#"{"do":"stop"}"#).await;
    assert_eq!((answer.status, error(&answer).code), (400, ErrorCode::BadRequest));
}

#[tokio::test]
async fn a_policy_is_asked_for_by_its_serial_and_applied_by_who_calls() {
    let served = Served::start();
    assert_eq!(served.request("GET", route::POLICY, "").await.json::<PolicyReply>().policy.serial, 3);
    served.request("GET", "/v1/policy?serial=2", "").await;
    served.request("POST", route::POLICY, r#"{"document":"x = 1","replaces":2}"#).await;
    let dry = served.request("POST", route::POLICY, r#"{"document":"x = 2","dry_run":true}"#).await;
    assert_eq!(dry.json::<PolicyDiffReply>().in_effect, Some(3));
    let calls = served.fake.calls();
    let [Call::Policy(all), Call::Policy(second), Call::ApplyPolicy(request, caller), Call::DiffPolicy(dry)] =
        calls.as_slice()
    else {
        panic!("{calls:?}")
    };
    assert_eq!(dry.document, "x = 2");
    assert_eq!((all.serial, second.serial), (None, Some(2)));
    assert_eq!((request.document.as_str(), request.replaces, request.dry_run), ("x = 1", Some(2), false));
    assert_eq!(caller.uid, rustix::process::getuid().as_raw());
    let answer = served.request("GET", "/v1/policy?serial=newest", "").await;
    assert_eq!((answer.status, error(&answer).code), (400, ErrorCode::BadRequest));
}

#[tokio::test]
async fn errors_of_the_daemon_keep_their_code_and_hint() {
    let served = Served::start();
    for code in [
        ErrorCode::NotFound,
        ErrorCode::Denied,
        ErrorCode::Conflict,
        ErrorCode::DiskFull,
        ErrorCode::Stopping,
        ErrorCode::Internal,
    ] {
        let refused = ApiError::new(code, "no").with_hint("ask");
        *served.fake.refuse.lock().unwrap() = Some(refused.clone());
        let answer = served.request("GET", "/v1/info?ref=a/b", "").await;
        assert_eq!((answer.status, error(&answer)), (code.http_status(), refused));
    }
}

#[tokio::test]
async fn unknown_paths_and_methods_are_named() {
    let served = Served::start();
    let answer = served.request("GET", "/v2/status", "").await;
    assert_eq!(answer.status, 404);
    let refused = error(&answer);
    assert_eq!(
        (refused.code, refused.message.as_str()),
        (ErrorCode::BadRequest, "this daemon has no GET /v2/status")
    );
    assert!(refused.hint.unwrap().contains(route::OPENAPI));
    let answer = served.request("DELETE", "/v1/status", "").await;
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET,HEAD")));
    assert_eq!(error(&answer).message, "/v1/status does not take DELETE");
}

#[tokio::test]
async fn a_body_that_is_wrong_is_refused_with_the_place() {
    let served = Served::start();
    for (body, message) in [
        ("", "the body is not what this request takes: EOF while parsing"),
        ("{", "the body is not what this request takes"),
        (
            r#"{"paths":["a",7]}"#,
            "the body is not what this request takes at paths[1]: invalid type: integer `7`",
        ),
        (r#"{"comment":"x"}"#, "missing field `paths`"),
        (r#"{"paths":[]} {}"#, "the body goes on after its JSON"),
        ("\u{0}\u{1}", "the body is not what this request takes"),
    ] {
        let answer = served.request("POST", route::PUBLISH, body).await;
        let refused = error(&answer);
        assert_eq!((answer.status, refused.code), (400, ErrorCode::BadRequest), "{body:?}");
        assert!(refused.message.contains(message), "{body:?}: {}", refused.message);
        assert!(refused.hint.is_some());
    }
    let answer = served.request("GET", "/v1/events?since=yesterday", "").await;
    assert_eq!((answer.status, error(&answer).code), (400, ErrorCode::BadRequest));
    assert!(served.fake.calls().is_empty());
}

#[tokio::test]
async fn a_body_is_bounded() {
    let served = Served::start();
    let body = |length: usize| format!(r#"{{"paths":["{}"]}}"#, "x".repeat(length - 14));
    let answer = served.request("POST", route::PUBLISH, &body(1 << 20)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let answer = served.request("POST", route::PUBLISH, &body((1 << 20) + 1)).await;
    assert_eq!((answer.status, error(&answer).code), (413, ErrorCode::BadRequest));
    assert_eq!(served.fake.calls().len(), 1);
}

#[tokio::test]
async fn a_panic_is_an_answer_and_not_the_end() {
    let served = Served::start();
    let mut client = served.connect().await;
    served.fake.panic.store(true, Ordering::SeqCst);
    let answer = client.request("GET", route::JOBS, "").await;
    assert_eq!((answer.status, error(&answer).code), (500, ErrorCode::Internal));
    assert!(!answer.body.contains("on purpose"), "the details are for the log");
    served.fake.panic.store(false, Ordering::SeqCst);
    assert_eq!(client.request("GET", route::JOBS, "").await.status, 200);
}

#[tokio::test]
async fn events_come_with_their_past_and_as_they_happen() {
    let served = Served::start();
    for code in ["a", "b", "c"] {
        served.emit(code);
    }
    let mut stream = served.connect().await;
    let head = stream.open("GET", "/v1/events?since=1", &[]).await;
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    let first = stream.event().await;
    let event: Event = serde_json::from_str(&first.data).unwrap();
    assert_eq!((first.id.as_str(), event.id), ("2", 2));
    assert_eq!(event.kind, EventKind::Solved { code: "b".into() });
    assert_eq!(stream.event().await.id, "3");
    served.emit("d");
    assert_eq!(stream.event().await.id, "4");
}

#[tokio::test]
async fn a_stream_without_a_start_has_only_what_is_new() {
    let served = Served::start();
    served.emit("old");
    let mut stream = served.connect().await;
    stream.open("GET", route::EVENTS, &[]).await;
    let mut again = served.connect().await;
    again.open("GET", route::EVENTS, &[("Last-Event-ID", "1")]).await;
    served.emit("new");
    assert_eq!(stream.event().await.id, "2");
    assert_eq!(again.event().await.id, "2");
}

#[tokio::test]
async fn a_slow_reader_is_cut_off_and_finds_the_rest_when_it_comes_back() {
    let served = Served::start();
    let mut stream = served.connect().await;
    stream.open("GET", "/v1/events?since=0", &[]).await;
    for _ in 0..KEPT_EVENTS {
        served.emit(&"x".repeat(200));
    }
    let mut seen = 0;
    while let Some(event) = stream.next_event().await {
        seen += 1;
        assert_eq!(event.id, seen.to_string());
    }
    assert!(stream.text().contains("\n: too slow; come back with the last id\n"));
    assert!(seen < KEPT_EVENTS);
    let mut stream = served.connect().await;
    stream.open("GET", &format!("/v1/events?since={seen}"), &[]).await;
    for id in seen + 1..=KEPT_EVENTS {
        assert_eq!(stream.event().await.id, id.to_string());
    }
}

#[tokio::test]
async fn a_quiet_stream_shows_that_it_lives() {
    let served = Served::start_lively();
    let mut stream = served.connect().await;
    stream.open("GET", route::EVENTS, &[]).await;
    stream.until("\n:\n\n").await;
}

#[tokio::test]
async fn stopping_ends_streams_and_idle_connections_and_waits_for_requests() {
    let mut served = Served::start();
    let mut stream = served.connect().await;
    stream.open("GET", route::EVENTS, &[]).await;
    let mut idle = served.connect().await;
    idle.request("GET", route::STATUS, "").await;
    let _silent = served.connect().await;
    let mut busy = served.connect().await;
    served.fake.hold.send_replace(true);
    busy.send("GET", route::JOBS, &[], "").await;
    served.fake.held.notified().await;
    served.stop.token.cancel();
    assert!(stream.next_event().await.is_none());
    assert!(Client::try_connect(&served.path).await.is_err(), "nothing more is accepted");
    served.fake.hold.send_replace(false);
    assert_eq!(busy.answer().await.status, 200);
    served.ended().await.unwrap();
}

#[tokio::test]
async fn stopping_does_not_wait_for_ever() {
    let mut served = Served::start();
    let mut busy = served.connect().await;
    served.fake.hold.send_replace(true);
    busy.send("GET", route::JOBS, &[], "").await;
    served.fake.held.notified().await;
    served.stop.token.cancel();
    let clock = served.clock.clone();
    let advance = async {
        loop {
            clock.advance(Duration::from_secs(1));
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        ended = served.ended() => ended.unwrap(),
        () = advance => unreachable!("it goes on until the server ends"),
    }
}

#[tokio::test]
async fn every_route_is_described() {
    let served = Served::start();
    let description: serde_json::Value = served.request("GET", route::OPENAPI, "").await.json();
    let paths = description["paths"].as_object().unwrap();
    let known = [
        route::STATUS,
        route::VERSIONS,
        route::WHERE,
        route::INFO,
        route::WHY,
        route::PUBLISH,
        route::PULL,
        route::DROP,
        route::PINS,
        route::VERIFY,
        routes::VERIFYING,
        route::JOBS,
        routes::JOB,
        route::QUEUE,
        route::RETIRE,
        route::RESTORE,
        route::ACCEPT,
        route::CONFLICTS,
        route::RESOLVE,
        route::RESERVE,
        route::PROBLEMS,
        route::DESTINATION,
        route::REPORT,
        route::INPUTS,
        route::LIMITS,
        routes::LIMIT,
        route::POLICY,
        route::POLICY_HISTORY,
        route::FEEDS,
        route::INVITES,
        routes::INVITE,
        route::NODES,
        route::NODES_REVOKE,
        route::EVENTS,
        route::CATALOG_REBUILD,
        route::CATALOG_VERIFY,
        route::CATALOG_STATS,
        route::CATALOG_EXPORT,
        route::CATALOG_IMPORT,
        route::AUDIT,
        route::AUDIT_VERIFY,
        route::AUDIT_HEADS,
        route::OPENAPI,
    ];
    for path in known {
        assert!(paths.contains_key(path), "{path}");
    }
    assert_eq!(paths.len(), known.len());
    assert!(Arc::strong_count(&served.fake) > 1);
    for name in ["ApiError", "Event", "PublishRequest", "StatusReply"] {
        assert!(description["components"]["schemas"][name].is_object(), "{name}");
    }
    for (path, methods) in paths {
        for method in methods.as_object().unwrap().keys() {
            let path = path.replace("{id}", "7");
            let mut client = served.connect().await;
            let status = client.open(&method.to_uppercase(), &path, &[]).await.status;
            assert!(status != 404 && status != 405, "{method} {path}: {status}");
        }
    }
}
