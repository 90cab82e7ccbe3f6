use avalon_protocol::control::{
    ApiError, ErrorCode, EventKind, JobState, JobStatus, MissingInput, MissingReason, PlanState, PullReply,
};
use serde_json::{Value, json};

use crate::fake::{FakeDaemon, Line, event, item, job, pull_reply, run};

const REFERENCE: &str = "lantern:robot/modelDefault@v002";
const PATH: &str = "/srv/projects/lantern/assets/robot/publish/modelDefault/v002";

/// A daemon that fetches one version as job 7f3a; the job's end is told by an event.
fn fetching(end: JobStatus) -> FakeDaemon {
    fetching_as(&pull_reply(&[item(PlanState::Fetch, Some("7f3a"))]), end)
}

fn fetching_as(reply: &PullReply, end: JobStatus) -> FakeDaemon {
    let item = item(PlanState::Fetch, Some("7f3a"));
    let daemon = FakeDaemon::start();
    daemon.on("POST /v1/pull", reply);
    daemon.on("GET /v1/jobs/7f3a", &job(&item, JobState::Running));
    daemon.events(&[
        event(8, EventKind::Job { job: job(&item, JobState::Running) }),
        event(9, EventKind::Job { job: end }),
    ]);
    daemon
}

fn ended(state: JobState) -> JobStatus {
    job(&item(PlanState::Fetch, Some("7f3a")), state)
}

fn failed(code: ErrorCode, reason: &str) -> JobStatus {
    JobStatus { error: Some(code), reason: Some(reason.into()), ..ended(JobState::Failed) }
}

/// A daemon that answers a pull with an item and knows no jobs.
fn planning(state: PlanState, job: Option<&str>) -> FakeDaemon {
    let daemon = FakeDaemon::start();
    daemon.on("POST /v1/pull", &pull_reply(&[item(state, job)]));
    daemon
}

#[test]
fn a_version_is_followed_to_its_end_and_its_path_is_the_data() {
    let daemon = fetching(ended(JobState::Done));
    let ran = daemon.run(&["pull", "robot/modelDefault", "--project", "lantern", "--no-progress"]);
    assert_eq!((ran.exit, ran.stdout.as_str()), (0, format!("{REFERENCE}\t{PATH}\n").as_str()), "{ran:?}");
    assert_eq!(
        ran.stderr,
        format!("{REFERENCE}  5 files, 2.0 GiB, 512.0 MiB already here\n  from montreal\n")
    );
    let requests = daemon.requests();
    assert_eq!(requests[0], "GET /v1/events", "the stream is open before anything is asked for");
    let body: Value = serde_json::from_str(requests[1].strip_prefix("POST /v1/pull ").unwrap()).unwrap();
    assert_eq!(body, json!({"refs": ["robot/modelDefault"], "project": "lantern", "dry_run": false}));
}

#[test]
fn at_a_terminal_it_is_said_in_words() {
    let ran = fetching(ended(JobState::Done)).run_at_terminal(&["pull", "robot/modelDefault", "-q"]);
    assert_eq!(
        ran.stdout,
        format!(
            "✔ {REFERENCE} ready in 13s  →  {PATH}  (verified, 1.5 GiB transferred, 512.0 MiB found here, 256.0 MiB as differences)\n"
        )
    );
    assert_eq!(ran.stderr, "");
    let ran = planning(PlanState::Here, None).run_at_terminal(&["pull", "robot/modelDefault", "-q"]);
    assert_eq!(ran.stdout, format!("✔ {REFERENCE} is here already  →  {PATH}\n"));
}

#[test]
fn json_ends_with_the_summary_that_scripts_rely_on() {
    let ran = fetching(ended(JobState::Done)).run(&["pull", "robot/modelDefault", "--json"]);
    let lines = ran.json_lines();
    let (summary, progress) = lines.split_last().unwrap();
    assert_eq!(
        *summary,
        json!({
            "type": "summary",
            "schema": "avalonctl.pull/1",
            "versions": [{
                "ref": REFERENCE, "manifest": "m2", "path": PATH, "files": 5, "bytes": 2_147_483_648_u64,
                "bytes_received": 1_610_612_736, "bytes_local": 536_870_912, "bytes_delta": 268_435_456,
                "bytes_compressed": 0, "bytes_raw": 1_342_177_280, "seconds": 13.1, "sources": ["montreal"],
            }],
            "failed": [],
            "pending": [],
        })
    );
    assert!(!progress.is_empty() && progress.iter().all(|line| line["type"] == "progress"), "{progress:?}");
    assert_eq!(progress[0]["bytes_total"], 2_147_483_648_u64);
    assert_eq!((ran.exit, ran.stderr.as_str()), (0, ""));
}

#[test]
fn a_dry_run_shows_the_plan_and_asks_for_nothing_else() {
    let daemon = planning(PlanState::Fetch, None);
    let ran = daemon.run(&["pull", "-n", "robot/*"]);
    let shown = format!("{REFERENCE}\tfetch\t5\t2147483648\t1610612736\tmontreal\n");
    assert_eq!((ran.exit, ran.stdout), (0, shown));
    assert_eq!(ran.stderr, "1.5 GiB to fetch; nothing was done\n");
    assert_eq!(daemon.requests().len(), 1);
    assert!(daemon.requests()[0].contains("\"dry_run\":true"));
    let plan = daemon.run(&["pull", "-n", "robot/*", "--json"]).json();
    assert_eq!(
        (&plan["schema"], &plan["versions"][0]["state"]),
        (&json!("avalonctl.pull-plan/1"), &json!("fetch"))
    );
}

#[test]
fn without_a_reachable_holder_it_says_who_has_it_and_that_it_is_queued() {
    let ran = planning(PlanState::NoSource, Some("7f3a")).run(&["pull", "robot/modelDefault"]);
    assert_eq!(ran.exit, 6);
    assert_eq!(
        ran.stderr,
        format!(
            "error[AVL-0601]: no reachable node holds {REFERENCE} (held by montreal; wanted: 1.5 GiB)\n  \
             hint: it is queued as job 7f3a and starts when a holder is back; wait for it: avalonctl pull {REFERENCE} \
             --timeout 1h; give it up: avalonctl cancel 7f3a\n"
        )
    );
    let ran = planning(PlanState::NoSource, Some("7f3a")).run(&["pull", "robot/modelDefault", "--json"]);
    assert_eq!((ran.exit, ran.error().code, ran.error().exit), (6, ErrorCode::NoSource, 6));
    assert_eq!(ran.json_lines().last().unwrap()["failed"][0]["code"], "AVL-0601");
}

#[test]
fn with_a_timeout_it_waits_for_a_holder_and_then_leaves_the_job_to_the_daemon() {
    let waiting = item(PlanState::NoSource, Some("7f3a"));
    let daemon = planning(PlanState::NoSource, Some("7f3a"));
    let reason = Some("montreal is offline".to_owned());
    daemon.on("GET /v1/jobs/7f3a", &JobStatus { reason, ..job(&waiting, JobState::Waiting) });
    let ran = daemon.run(&["pull", "robot/modelDefault", "--timeout", "300ms", "-q"]);
    assert_eq!(ran.exit, 10);
    assert_eq!(
        ran.stderr,
        format!(
            "error[AVL-1001]: 1 version not here after 0.3s: {REFERENCE} (montreal is offline)\n  \
             hint: job 7f3a goes on in the daemon; to give it up: avalonctl cancel 7f3a\n"
        )
    );
    let ran = daemon.run(&["pull", "robot/modelDefault", "--timeout", "1ms", "--json"]);
    let summary = ran.json_lines().pop().unwrap();
    assert_eq!((&summary["pending"][0]["job"], ran.exit), (&json!("7f3a"), 10));
}

#[test]
fn sites_that_disagree_are_an_integrity_error() {
    let ran = planning(PlanState::Conflict, None).run(&["pull", "robot/modelDefault"]);
    assert_eq!(ran.exit, 8);
    let said =
        format!("error[AVL-0802]: sites published different content as {REFERENCE}; nothing was fetched\n");
    assert!(ran.stderr.starts_with(&said), "{ran:?}");
}

#[test]
fn what_the_policy_keeps_away_is_not_allowed_and_names_the_rule() {
    let ran = planning(PlanState::Forbidden, None).run(&["pull", "robot/modelDefault"]);
    assert_eq!(ran.exit, 9);
    assert!(
        ran.stderr
            .starts_with(&format!("error[AVL-0901]: {REFERENCE} was not fetched: rule rigs (line 3)\n")),
        "{ran:?}"
    );
}

#[test]
fn the_kind_of_error_that_ended_the_job_decides_the_exit_code() {
    for (code, reason, exit) in
        [(ErrorCode::DiskFull, "the disk is full", 7), (ErrorCode::Damaged, "block 3 does not match", 8)]
    {
        let ran = fetching(failed(code, reason)).run(&["pull", "robot/modelDefault", "-q"]);
        assert_eq!((ran.exit, ran.stdout.as_str()), (exit, ""));
        assert!(
            ran.stderr.starts_with(&format!("error[{code}]: {REFERENCE} was not fetched: {reason}\n")),
            "{ran:?}"
        );
    }
    let ran = fetching(ended(JobState::Cancelled)).run(&["pull", "robot/modelDefault", "-q"]);
    assert_eq!(ran.exit, 1);
    assert!(ran.stderr.contains("was cancelled") && ran.stderr.contains("avalonctl why"), "{ran:?}");
}

#[test]
fn some_here_and_some_not_is_partial() {
    let daemon = FakeDaemon::start();
    let here = item(PlanState::Here, None);
    let elsewhere = item(PlanState::NoSource, Some("8c11"));
    daemon.on("POST /v1/pull", &pull_reply(&[here, elsewhere]));
    let ran = daemon.run(&["pull", "robot/*", "--json"]);
    assert_eq!(ran.exit, 3);
    let summary = ran.json_lines().pop().unwrap();
    assert_eq!(summary["versions"].as_array().unwrap().len(), 1);
    assert_eq!(summary["failed"][0]["job"], "8c11");
}

#[test]
fn detached_it_prints_the_jobs_and_returns() {
    let daemon = planning(PlanState::Fetch, Some("7f3a"));
    let ran = daemon.run(&["pull", "robot/modelDefault", "--detach", "-q"]);
    assert_eq!((ran.exit, ran.stdout), (0, format!("7f3a\t{REFERENCE}\n")));
    assert_eq!(daemon.requests().len(), 2, "events and pull");
}

#[test]
fn interrupted_it_says_that_the_job_goes_on_and_how_to_cancel_it() {
    let running = item(PlanState::Fetch, Some("7f3a"));
    let daemon = planning(PlanState::Fetch, Some("7f3a"));
    daemon.on("GET /v1/jobs/7f3a", &job(&running, JobState::Running));
    let line = Line { is_interrupted: true, ..daemon.line(&["pull", "robot/modelDefault"]) };
    let ran = line.run();
    assert_eq!(ran.exit, 130);
    let said = format!("{REFERENCE} goes on in the daemon; to give it up: avalonctl cancel 7f3a\n");
    assert!(ran.stderr.ends_with(&said), "{ran:?}");
}

#[test]
fn a_job_that_a_restarted_daemon_forgot_is_asked_for_again() {
    let daemon = planning(PlanState::Fetch, Some("7f3a"));
    daemon.refuse("GET /v1/jobs/7f3a", &ApiError::new(ErrorCode::NotFound, "no job 7f3a"));
    daemon.on("POST /v1/pull", &pull_reply(&[item(PlanState::Here, None)]));
    let ran = daemon.run(&["pull", "robot/modelDefault", "-q"]);
    assert_eq!((ran.exit, ran.stdout), (0, format!("{REFERENCE}\t{PATH}\n")));
    let pulls: Vec<_> = daemon.requests().into_iter().filter(|request| request.starts_with("POST")).collect();
    assert!(pulls[1].contains(REFERENCE), "{pulls:?}");
}

#[test]
fn a_bad_reference_is_refused_before_the_daemon_is_asked() {
    let ran = run(&["pull", "robot", "--socket", "/nowhere.sock"]);
    assert_eq!(ran.exit, 2);
    assert_eq!(
        ran.stderr,
        "error[AVL-0202]: \"robot\" is not a reference: the subset is missing; to mean all subsets of the asset, write \
         asset/*\n  hint: write [project:]asset/subset[/representation][@version], for example \
         robot/modelDefault@v002\n"
    );
    assert_eq!(run(&["pull"]).exit, 2, "clap's own");
    assert_eq!(run(&["pull", "a/b", "--timeout", "5"]).exit, 2, "a time has a unit");
}

/// One version is here, one input is not published.
fn with_inputs(state: PlanState) -> PullReply {
    PullReply {
        missing: vec![MissingInput {
            input: "/mnt/wood.exr".into(),
            needed_by: "lantern:robot/look@v001".into(),
            why: MissingReason::NotPublished,
        }],
        disk_free_bytes: Some(4 << 30),
        recent_bytes_per_second: Some(157_286_400.0),
        ..pull_reply(&[
            item(PlanState::Here, None),
            item(state, (state == PlanState::Fetch).then_some("7f3a")),
        ])
    }
}

#[test]
fn with_inputs_the_whole_is_told_before_anything_is_asked_for_and_what_is_missing_at_the_end() {
    let daemon = fetching_as(&with_inputs(PlanState::Fetch), ended(JobState::Done));
    let ran = daemon.run(&["pull", "sh010/layout", "--with-inputs", "--no-progress"]);
    assert_eq!((ran.exit, ran.stdout.lines().count()), (3, 2), "{ran:?}");
    let said: Vec<&str> = ran.stderr.lines().collect();
    assert_eq!(
        said,
        [
            "2 versions with inputs, 10 files, 4.0 GiB; 2.5 GiB here already, 1.5 GiB to fetch, about 10s at 150.0 \
             MiB/s; 4.0 GiB free on the disk",
            &format!("{REFERENCE}  5 files, 2.0 GiB, 512.0 MiB already here"),
            "  from montreal",
            "  missing: /mnt/wood.exr (needed by lantern:robot/look@v001) is not published",
            "error[AVL-0402]: 1 input cannot be fetched: /mnt/wood.exr (needed by lantern:robot/look@v001) is not published",
            "  hint: whoever has them publishes them; list all: avalonctl inputs REF --recursive",
        ]
    );
    let asked: Vec<String> =
        daemon.requests().into_iter().filter(|asked| asked.starts_with("POST")).collect();
    let dry = |asked: &String| asked.contains("\"dry_run\":true") && asked.contains("\"with_inputs\":true");
    assert_eq!(asked.iter().map(dry).collect::<Vec<_>>(), [true, false]);
    assert!(asked[1].contains("\"with_inputs\":true"));
}

#[test]
fn with_inputs_json_lists_what_is_missing_and_all_here_with_something_missing_is_partial() {
    let daemon = FakeDaemon::start();
    daemon.on("POST /v1/pull", &with_inputs(PlanState::Here));
    let ran = daemon.run(&["pull", "sh010/layout", "--with-inputs", "--json"]);
    let summary = ran.json_lines().pop().unwrap();
    assert_eq!((ran.exit, &summary["missing"][0]["why"]), (3, &json!("not-published")), "{ran:?}");
    let plan = daemon.run(&["pull", "-n", "sh010/layout", "--with-inputs", "--json"]).json();
    assert_eq!(plan["missing"][0]["needed_by"], "lantern:robot/look@v001");
    assert_eq!((&plan["disk_free_bytes"], &plan["missing_more"]), (&json!(4_294_967_296_u64), &json!(0)));
    let words = daemon.run(&["pull", "-n", "sh010/layout", "--with-inputs"]).stderr;
    assert!(words.starts_with("2 versions with inputs, 10 files, 4.0 GiB, all here\n  missing: "), "{words}");
}

#[test]
fn without_a_known_rate_the_time_is_unknown_and_without_room_nothing_is_asked_for() {
    let daemon = FakeDaemon::start();
    let known = PullReply { recent_bytes_per_second: None, missing: vec![], ..with_inputs(PlanState::Fetch) };
    daemon.on("POST /v1/pull", &PullReply { disk_free_bytes: Some(1 << 30), ..known });
    let ran = daemon.run(&["pull", "sh010/layout", "--with-inputs"]);
    assert_eq!(ran.exit, 7);
    assert!(
        ran.stderr.contains(", time unknown: nothing was fetched lately; 1.0 GiB free on the disk\n"),
        "{ran:?}"
    );
    let refused =
        "error[AVL-0701]: 1.5 GiB are to be fetched, and 1.0 GiB are free on the disk; nothing was fetched\n";
    assert!(ran.stderr.contains(refused), "{ran:?}");
    assert_eq!(daemon.requests().iter().filter(|asked| asked.starts_with("POST")).count(), 1);
}
