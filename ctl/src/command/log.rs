//! `avalonctl log`: what happened lately, and with `-f` what happens.

use std::time::Duration;

use avalon_protocol::{
    control::{Event, EventKind, JobState, PeerState, Severity},
    exit_code::ExitCode,
};
use clap::Args;
use jiff::{SignedDuration, Timestamp};
use tokio::time::timeout;

use crate::{
    client::EventStream,
    context::Context,
    escape::escape,
    failure::Failure,
    measure::{count, duration, percent, size},
    sse::Message,
};

/// How long the daemon may be silent before what it had kept counts as told. It sends that at once, from memory.
const BACKLOG_PAUSE: Duration = Duration::from_millis(300);

/// Arguments of `log`.
#[derive(Debug, Args)]
pub(crate) struct LogArgs {
    /// Go on until interrupted.
    #[arg(short, long)]
    follow: bool,
    /// Only what came after event number N, or in the last 2h.
    #[arg(long, value_name = "N|TIME", value_parser = since)]
    since: Option<Since>,
}

#[derive(Debug, Clone, Copy)]
enum Since {
    Number(u64),
    Ago(SignedDuration),
}

fn since(text: &str) -> Result<Since, String> {
    if let Ok(number) = text.parse() {
        return Ok(Since::Number(number));
    }
    text.parse()
        .map(Since::Ago)
        .map_err(|_| "write the number of an event, or a time such as 2h or 30m".to_owned())
}

/// Shows events.
pub(crate) async fn run(context: &Context<'_>, args: &LogArgs) -> Result<ExitCode, Failure> {
    let first = match args.since {
        Some(Since::Number(number)) => number,
        _ => 0,
    };
    let earliest = match args.since {
        Some(Since::Ago(ago)) => Timestamp::now().checked_sub(ago).ok(),
        _ => None,
    };
    let mut events = context.client.events(Some(first)).await?;
    let mut last = None;
    loop {
        let message = tokio::select! {
            message = next(&mut events, args.follow) => message?,
            () = context.interrupt.wait() => return Ok(ExitCode::Interrupted),
        };
        let Some(message) = message else {
            if !args.follow {
                return Ok(ExitCode::Ok);
            }
            // The daemon cuts off who reads too slowly, and keeps what came meanwhile.
            events = context.client.events(Some(last.unwrap_or(first))).await?;
            continue;
        };
        show(context, &message, &mut last, earliest);
        if context.output.is_closed() {
            return Ok(ExitCode::Ok);
        }
    }
}

/// Returns the next message; `None` when all that was kept has come and nobody wants to follow, or the daemon stops.
async fn next(events: &mut EventStream, is_following: bool) -> Result<Option<Message>, Failure> {
    if is_following {
        return Ok(events.next().await?);
    }
    match timeout(BACKLOG_PAUSE, events.next()).await {
        Ok(message) => Ok(message?),
        Err(_quiet) => Ok(None),
    }
}

fn show(context: &Context<'_>, message: &Message, last: &mut Option<u64>, earliest: Option<Timestamp>) {
    let event = message.decode();
    if let Some(event) = &event {
        let missed = last.map_or(0, |last| event.id.saturating_sub(last + 1));
        if missed > 0 {
            context
                .output
                .talk(&format!("{} lost: the daemon was faster than this reader", count(missed, "event")));
        }
        *last = Some(event.id);
        let time = event.time.parse::<Timestamp>().ok();
        if earliest.zip(time).is_some_and(|(earliest, time)| time < earliest) {
            return;
        }
    }
    match event {
        // As it came: an event of a newer daemon is for the script to understand.
        _ if context.output.is_json() => context.output.data(&message.data.replace('\n', " ")),
        Some(event) => context.output.data(&format!("{}  {}", escape(&event.time), escape(&line(&event)))),
        None => context.output.detail(&format!("unknown event: {}", escape(&message.data))),
    }
}

/// Says what happened in one line.
pub(crate) fn line(event: &Event) -> String {
    match &event.kind {
        EventKind::Published { reference, generation, files, bytes, author, .. } => {
            let files = count(*files, "file");
            format!("published  {reference}  generation {generation}, {files}, {} by {author}", size(*bytes))
        }
        EventKind::ProblemsFound { reference, problems, .. } => {
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            format!("problems  {reference}  {}", problems.join("; "))
        }
        EventKind::Announced { reference, node, .. } => format!("announced  {reference}  by {node}"),
        EventKind::Placed { reference, files, bytes, seconds, .. } => {
            let files = count(*files, "file");
            format!("placed  {reference}  {files}, {} in {}", size(*bytes), duration(*seconds))
        }
        EventKind::HeldElsewhere { reference, node, .. } => format!("held  {reference}  at {node}"),
        EventKind::Dropped { reference, by: Some(by), .. } => format!("dropped  {reference} by {by}"),
        EventKind::Dropped { reference, .. } => format!("dropped  {reference}"),
        EventKind::Damaged { reference, files, .. } => format!("damaged  {reference}  {}", files.join(", ")),
        EventKind::Retired { reference, author, comment, node } => {
            format!("retired  {reference}  by {author} at {node}: {comment}")
        }
        EventKind::Restored { reference, author, node } => {
            format!("restored  {reference}  by {author} at {node}")
        }
        EventKind::Resolved { reference, keep, author, node } => {
            format!("resolved  {reference}  by {author} at {node}: {keep} keeps the number")
        }
        EventKind::Conflict { reference, manifests } => {
            format!(
                "conflict  {reference}  {} of different content",
                count(manifests.len() as u64, "generation")
            )
        }
        EventKind::PolicyApplied { serial, author, comment, node, .. } => {
            let comment = if comment.is_empty() { String::new() } else { format!(": {comment}") };
            format!("policy applied  {serial}  by {author} at {node}{comment}")
        }
        EventKind::NodeRevoked { node } => format!("revoked  {node}"),
        EventKind::NotAllowed { node, project, action } => {
            format!("not allowed  {node} may not {action} in {project}; what it said there has no effect")
        }
        EventKind::Job { job } => {
            let reason = job.reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
            let part = percent(job.bytes_present, job.bytes_total);
            format!("job {}  {}  {}, {part} %{reason}", job.id, job.reference, job_state(job.state))
        }
        EventKind::Pending { project, dir, why } => format!("pending  {project}/{dir}  {}", why.join("; ")),
        EventKind::Refused { reference, messages } => {
            format!("refused  {reference}  {}", messages.join("; "))
        }
        EventKind::Peer { node, state, detail } => {
            let detail = detail.as_deref().map(|detail| format!(": {detail}")).unwrap_or_default();
            format!("peer  {node}  {}{detail}", peer_state(*state))
        }
        EventKind::Problem { health } => {
            format!("{}  {}  {}", severity(health.severity), health.code, health.message)
        }
        EventKind::Solved { code } => format!("solved  {code}"),
        EventKind::Reloaded { changes } if changes.is_empty() => "reloaded  nothing changed".to_owned(),
        EventKind::Reloaded { changes } => format!("reloaded  {}", changes.join("; ")),
    }
}

/// Returns the word for where a job stands.
pub(crate) fn job_state(state: JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Waiting => "waiting",
        JobState::Paused => "paused",
        JobState::Running => "running",
        JobState::Placing => "placing",
        JobState::Done => "done",
        JobState::Failed => "failed",
        JobState::Cancelled => "cancelled",
    }
}

/// Returns the word for the state of a connection.
pub(crate) fn peer_state(state: PeerState) -> &'static str {
    match state {
        PeerState::Online => "online",
        PeerState::Connecting => "connecting",
        PeerState::Offline => "offline",
        PeerState::Refused => "refused",
    }
}

/// Returns the word for how bad something is.
pub(crate) fn severity(severity: Severity) -> &'static str {
    match severity {
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake::{FakeDaemon, Line, event};

    fn busy() -> FakeDaemon {
        let reference = || "lantern:robot/modelDefault@v002".to_owned();
        let daemon = FakeDaemon::start();
        daemon.events(&[
            event(
                3,
                EventKind::Published {
                    reference: reference(),
                    manifest: "m2".into(),
                    generation: 1,
                    files: 5,
                    bytes: 2048,
                    author: "anna\u{7}".into(),
                    completeness: "quiet".into(),
                },
            ),
            event(
                7,
                EventKind::HeldElsewhere {
                    reference: reference(),
                    manifest: "m2".into(),
                    node: "montreal".into(),
                },
            ),
        ]);
        daemon
    }

    #[test]
    fn what_was_kept_is_shown_and_lost_events_are_told() {
        let daemon = busy();
        let ran = daemon.run(&["log"]);
        assert_eq!(
            ran.stdout,
            "2026-11-22T10:00:00Z  published  lantern:robot/modelDefault@v002  generation 1, 5 files, 2.0 KiB by \
             anna\\u{7}\n2026-11-22T10:00:00Z  held  lantern:robot/modelDefault@v002  at montreal\n"
        );
        assert_eq!(
            (ran.exit, ran.stderr.as_str()),
            (0, "3 events lost: the daemon was faster than this reader\n")
        );
        assert_eq!(daemon.requests(), ["GET /v1/events?since=0"]);
    }

    #[test]
    fn json_has_one_event_per_line() {
        let ran = busy().run(&["log", "--json", "--since", "2"]);
        let events = ran.json_lines();
        assert_eq!((&events[0]["id"], &events[0]["event"]), (&json!(3), &json!("published")));
        assert_eq!((&events[1]["event"], events.len()), (&json!("held-elsewhere"), 2));
    }

    #[test]
    fn since_takes_a_number_or_a_time() {
        let daemon = busy();
        daemon.run(&["log", "--since", "12"]);
        assert_eq!(daemon.requests().pop().unwrap(), "GET /v1/events?since=12");
        // The events above are older than that.
        let ran = busy().run(&["log", "--since", "1ms"]);
        assert_eq!(
            (ran.exit, ran.stdout.is_empty()),
            (0, Timestamp::now() > "2026-11-22T10:00:01Z".parse().unwrap())
        );
        assert_eq!(busy().run(&["log", "--since", "yesterday"]).exit, 2);
    }

    #[test]
    fn following_goes_on_until_interrupted() {
        let ran = Line { is_interrupted: true, ..busy().line(&["log", "-f"]) }.run();
        assert_eq!(ran.exit, 130);
    }
}
