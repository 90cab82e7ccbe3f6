//! `avalonctl wait REF --site S`: returns when the versions are complete at a site, for pipelines and farms.

use std::time::Duration;

use avalon_protocol::{
    control::{ErrorCode, EventKind, HoldingState, NodeHolding, WhereItem, WhereReply},
    exit_code::ExitCode,
    id::SiteName,
};
use clap::Args;
use serde::Serialize;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    args::time_span,
    client::{ClientError, EventStream},
    command::where_is,
    context::{Context, said},
    escape::escape,
    failure::Failure,
    measure::duration,
};

/// How often to ask when no event says that something changed.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// How long a daemon may be gone, as for a restart, before waiting makes no sense.
const RESTART_LIMIT: Duration = Duration::from_secs(60);

/// Arguments of `wait`.
#[derive(Debug, Args)]
pub(crate) struct WaitArgs {
    /// Which versions.
    #[arg(value_name = "REF")]
    reference: String,
    /// At which site: any node of it counts.
    #[arg(long, value_name = "SITE")]
    site: SiteName,
    /// Wait as well until they are known here, for jobs that are queued before the publish is.
    #[arg(long)]
    appear: bool,
    /// Give up after this time, such as 30m, with exit code 10.
    #[arg(long, value_name = "TIME", value_parser = time_span)]
    timeout: Option<Duration>,
}

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
enum Line<'a> {
    Progress {
        #[serde(rename = "ref")]
        reference: &'a str,
        site: &'a SiteName,
        files_present: u64,
        files_total: u64,
    },
    Summary {
        schema: &'static str,
        site: &'a SiteName,
        versions: Vec<Arrived<'a>>,
        seconds: f64,
        ok: bool,
    },
}

#[derive(Serialize)]
struct Arrived<'a> {
    #[serde(rename = "ref")]
    reference: &'a str,
    manifest: &'a str,
    /// A node of the site that has all of it.
    node: Option<&'a str>,
    complete: bool,
}

/// Waits.
pub(crate) async fn run(context: &Context<'_>, args: &WaitArgs) -> Result<ExitCode, Failure> {
    let started = Instant::now();
    let deadline = args.timeout.map(|timeout| started + timeout);
    let mut waiting = Waiting { context, args, events: None, seen: Vec::new(), gone_since: None };
    // Connected before the first question, so that nothing is missed in between.
    waiting.events = Some(context.client.events(None).await?);
    let mut reply = asked(context, args).await?;
    waiting.notice(&reply);
    if reply.versions.is_empty() {
        context.output.talk(&format!("nothing named {} is known here yet", escape(&args.reference)));
    } else if !reply.versions.iter().any(|version| version.nodes.iter().any(|node| is_at(node, &args.site))) {
        context.output.talk(&format!("no node of site {} is known yet", args.site));
    }
    let mut ticks = interval(ASK_AGAIN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let exit = loop {
        let is_there = |version| holder(version, &args.site).is_some();
        if !reply.versions.is_empty() && reply.versions.iter().all(is_there) {
            break ExitCode::Ok;
        }
        tokio::select! {
            () = news(&mut waiting.events) => {}
            _ = ticks.tick() => {}
            () = at(deadline) => break ExitCode::TimedOut,
            () = context.interrupt.wait() => break ExitCode::Interrupted,
        }
        if let Some(newer) = waiting.ask().await? {
            waiting.notice(&newer);
            reply = newer;
        }
    };
    summary(context, args, &reply, started.elapsed().as_secs_f64(), exit);
    if exit == ExitCode::TimedOut {
        return Err(timed_out(args, &reply));
    }
    Ok(exit)
}

/// Asks where the versions are; none are no error when they are to appear.
async fn asked(context: &Context<'_>, args: &WaitArgs) -> Result<WhereReply, Failure> {
    match where_is::ask(context, &args.reference).await {
        Err(failure) if args.appear && failure.report().code == ErrorCode::NotFound => {
            Ok(WhereReply { schema: String::new(), versions: Vec::new() })
        }
        answered => answered,
    }
}

struct Waiting<'a> {
    context: &'a Context<'a>,
    args: &'a WaitArgs,
    events: Option<EventStream>,
    /// How many files each version had at the site when it was last told.
    seen: Vec<(String, u64)>,
    gone_since: Option<Instant>,
}

impl Waiting<'_> {
    /// Asks again; `None` while the daemon restarts.
    async fn ask(&mut self) -> Result<Option<WhereReply>, Failure> {
        if self.events.is_none() {
            self.events = self.context.client.events(None).await.ok();
        }
        match asked(self.context, self.args).await {
            Ok(reply) => {
                self.gone_since = None;
                Ok(Some(reply))
            }
            Err(Failure::Client(error)) if self.may_come_back(&error) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    fn may_come_back(&mut self, error: &ClientError) -> bool {
        let since = *self.gone_since.get_or_insert_with(Instant::now);
        error.is_unreachable() && since.elapsed() < RESTART_LIMIT
    }

    /// Tells what has changed.
    fn notice(&mut self, reply: &WhereReply) {
        for version in &reply.versions {
            let best = best(version, &self.args.site);
            let (present, total) = best.map_or((0, 0), |node| (node.files_present, node.files_total));
            let known = self.seen.iter_mut().find(|(reference, _)| *reference == version.reference);
            match known {
                Some((_, seen)) if *seen == present => continue,
                Some((_, seen)) => *seen = present,
                None => self.seen.push((version.reference.clone(), present)),
            }
            let (reference, site) = (version.reference.as_str(), &self.args.site);
            if self.context.output.is_json() {
                self.context.output.json(&Line::Progress {
                    reference,
                    site,
                    files_present: present,
                    files_total: total,
                });
            } else {
                let line = format!("{}  {present} of {total} files at {site}", escape(reference));
                self.context.output.talk(&line);
            }
        }
    }
}

/// Waits for an event after which the answer may be another one; for ever without a stream.
async fn news(events: &mut Option<EventStream>) {
    let Some(stream) = events else { return std::future::pending().await };
    loop {
        match stream.next_event().await {
            Ok(Some(event)) if changes_holdings(&event.kind) => return,
            Ok(Some(_other)) => {}
            Ok(None) | Err(_) => break,
        }
    }
    // The daemon stops. The next tick connects anew.
    *events = None;
    std::future::pending().await
}

fn changes_holdings(event: &EventKind) -> bool {
    matches!(
        event,
        EventKind::Published { .. }
            | EventKind::Announced { .. }
            | EventKind::Placed { .. }
            | EventKind::HeldElsewhere { .. }
            | EventKind::Dropped { .. }
    )
}

/// Waits until then; for ever without a time.
pub(crate) async fn at(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

fn is_at(node: &NodeHolding, site: &SiteName) -> bool {
    node.site == site.as_str()
}

fn holder<'a>(version: &'a WhereItem, site: &SiteName) -> Option<&'a NodeHolding> {
    version.nodes.iter().find(|node| is_at(node, site) && node.state == HoldingState::Complete)
}

fn best<'a>(version: &'a WhereItem, site: &SiteName) -> Option<&'a NodeHolding> {
    version.nodes.iter().filter(|node| is_at(node, site)).max_by_key(|node| node.files_present)
}

fn summary(context: &Context<'_>, args: &WaitArgs, reply: &WhereReply, seconds: f64, exit: ExitCode) {
    let arrived = reply.versions.iter().map(|version| {
        let node = holder(version, &args.site).map(|node| node.node.as_str());
        Arrived { reference: &version.reference, manifest: &version.manifest, node, complete: node.is_some() }
    });
    if context.output.is_json() {
        let (schema, site, ok) = ("avalonctl.wait/1", &args.site, exit == ExitCode::Ok);
        context.output.json(&Line::Summary { schema, site, versions: arrived.collect(), seconds, ok });
    } else if exit == ExitCode::Ok {
        for version in arrived {
            let node = version.node.unwrap_or_default();
            context.output.data(&format!("{}\t{}@{}", escape(version.reference), escape(node), args.site));
        }
    }
}

fn timed_out(args: &WaitArgs, reply: &WhereReply) -> Failure {
    let missing = reply.versions.iter().filter(|version| holder(version, &args.site).is_none());
    let mut missing: Vec<&str> = missing.map(|version| version.reference.as_str()).collect();
    if reply.versions.is_empty() {
        missing.push(&args.reference);
    }
    let waited = duration(args.timeout.unwrap_or_default().as_secs_f64());
    let message = format!("not complete at {} after {waited}: {}", args.site, missing.join(", "));
    let hint = format!("ask what it waits for: avalonctl why {} --site {}", args.reference, args.site);
    said(ErrorCode::TimedOut, message, &hint)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake::{FakeDaemon, Line, event};

    fn holdings(site: &str, state: HoldingState, files_present: u64) -> WhereReply {
        WhereReply {
            schema: "avalonctl.where/1".into(),
            versions: vec![WhereItem {
                reference: "lantern:robot/modelDefault@v002".into(),
                generation: 1,
                manifest: "m2".into(),
                inputs: vec![],
                conflict: false,
                nodes: vec![NodeHolding {
                    node: "srv".into(),
                    site: site.into(),
                    state,
                    files_present,
                    files_total: 5,
                    verified: None,
                }],
            }],
        }
    }

    const WAIT: [&str; 4] = ["wait", "robot/modelDefault", "--site", "montreal"];

    #[test]
    fn it_returns_when_an_event_says_that_the_site_has_it() {
        let daemon = FakeDaemon::start();
        daemon.on("GET /v1/where", &holdings("montreal", HoldingState::Partial, 2));
        daemon.on("GET /v1/where", &holdings("montreal", HoldingState::Complete, 5));
        daemon.events(&[event(
            4,
            EventKind::HeldElsewhere {
                reference: "lantern:robot/modelDefault@v002".into(),
                manifest: "m2".into(),
                node: "srv".into(),
            },
        )]);
        let ran = daemon.run(&[&WAIT[..], &["--json"]].concat());
        let lines = ran.json_lines();
        assert_eq!((ran.exit, lines.len()), (0, 3), "{ran:?}");
        assert_eq!((&lines[0]["type"], &lines[0]["files_present"]), (&json!("progress"), &json!(2)));
        let summary = lines.last().unwrap();
        assert_eq!((&summary["type"], &summary["schema"]), (&json!("summary"), &json!("avalonctl.wait/1")));
        assert_eq!(summary["versions"][0]["node"], "srv");
        assert_eq!(daemon.requests()[0], "GET /v1/events");
    }

    #[test]
    fn what_is_there_already_returns_at_once() {
        let daemon = FakeDaemon::start();
        daemon.on("GET /v1/where", &holdings("montreal", HoldingState::Complete, 5));
        let ran = daemon.run(&WAIT);
        assert_eq!((ran.exit, ran.stdout.as_str()), (0, "lantern:robot/modelDefault@v002\tsrv@montreal\n"));
    }

    #[test]
    fn the_time_ends_and_other_sites_do_not_count() {
        let daemon = FakeDaemon::start();
        daemon.on("GET /v1/where", &holdings("london", HoldingState::Complete, 5));
        let ran = daemon.run(&[&WAIT[..], &["--timeout", "20ms"]].concat());
        assert_eq!((ran.exit, ran.stdout.as_str()), (10, ""));
        assert!(ran.stderr.contains("no node of site montreal is known yet\n"), "{ran:?}");
        let said = "error[AVL-1001]: not complete at montreal after 0.0s: lantern:robot/modelDefault@v002\n  \
                    hint: ask what it waits for: avalonctl why robot/modelDefault --site montreal\n";
        assert!(ran.stderr.ends_with(said), "{ran:?}");
    }

    #[test]
    fn what_is_not_known_yet_is_an_error_or_waited_for() {
        let unknown = avalon_protocol::control::ApiError::new(ErrorCode::NotFound, "nothing named that");
        let daemon = FakeDaemon::start();
        daemon.refuse("GET /v1/where", &unknown);
        assert_eq!(daemon.run(&WAIT).exit, 4);
        let appear = [&WAIT[..], &["--appear"]].concat();
        let ran = daemon.run(&[&appear[..], &["--timeout", "20ms"]].concat());
        assert!(ran.exit == 10 && ran.stderr.contains("is known here yet"), "{ran:?}");
        let daemon = FakeDaemon::start();
        daemon.refuse("GET /v1/where", &unknown);
        daemon.on("GET /v1/where", &holdings("montreal", HoldingState::Complete, 5));
        daemon.events(&[event(
            4,
            EventKind::Announced {
                reference: "lantern:robot/modelDefault@v002".into(),
                manifest: "m2".into(),
                node: "srv@london".into(),
            },
        )]);
        let ran = daemon.run(&appear);
        assert_eq!((ran.exit, ran.stdout.as_str()), (0, "lantern:robot/modelDefault@v002\tsrv@montreal\n"));
    }

    #[test]
    fn it_can_be_interrupted() {
        let daemon = FakeDaemon::start();
        daemon.on("GET /v1/where", &holdings("montreal", HoldingState::Queued, 0));
        assert_eq!(Line { is_interrupted: true, ..daemon.line(&WAIT) }.run().exit, 130);
    }
}
