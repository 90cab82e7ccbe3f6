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
        let Some(message) = message else { return Ok(ExitCode::Ok) };
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
        EventKind::Announced { reference, node, .. } => format!("announced  {reference}  by {node}"),
        EventKind::Placed { reference, files, bytes, seconds, .. } => {
            let files = count(*files, "file");
            format!("placed  {reference}  {files}, {} in {}", size(*bytes), duration(*seconds))
        }
        EventKind::HeldElsewhere { reference, node, .. } => format!("held  {reference}  at {node}"),
        EventKind::Dropped { reference, .. } => format!("dropped  {reference}"),
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
