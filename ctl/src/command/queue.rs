//! `avalonctl queue`, `pause`, `resume` and `prio`: what is coming, in its order, and what people say about that.

use avalon_protocol::{
    control::{JobStatus, Prio, QueueChange, QueueReply, QueueRequest, route},
    exit_code::ExitCode,
};
use clap::{Args, ValueEnum};

use crate::{
    command::log::job_state,
    context::Context,
    escape::escape,
    failure::Failure,
    measure::{count, duration, percent, rate, size},
    output::Output,
    table::{Cell, print},
};

/// Arguments of `queue`.
#[derive(Debug, Args)]
pub(crate) struct QueueArgs {
    /// Show at most so many jobs; 0 shows all.
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 50)]
    lines: usize,
}

/// Arguments of `pause`.
#[derive(Debug, Args)]
pub(crate) struct PauseArgs {
    /// Jobs, by their ids or the references of what they bring, globs too. Without any, this node fetches nothing more.
    #[arg(value_name = "JOB|REF")]
    jobs: Vec<String>,
}

/// Arguments of `resume`.
#[derive(Debug, Args)]
pub(crate) struct ResumeArgs {
    /// Jobs, by their ids or the references of what they bring, globs too. Without any, all that is paused goes on.
    #[arg(value_name = "JOB|REF")]
    jobs: Vec<String>,
}

/// Arguments of `prio`.
#[derive(Debug, Args)]
pub(crate) struct PrioArgs {
    /// Where they go.
    #[arg(value_name = "PRIORITY")]
    prio: PrioWord,
    /// Jobs, by their ids or the references of what they bring, globs too.
    #[arg(value_name = "JOB|REF", required = true)]
    jobs: Vec<String>,
}

/// Where a job goes in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum PrioWord {
    /// As if somebody waited for it: before all that comes by itself.
    Now,
    /// Before all else that comes by itself.
    High,
    /// As the policy says.
    Normal,
    /// After everything else.
    Low,
}

impl From<PrioWord> for Prio {
    fn from(word: PrioWord) -> Self {
        match word {
            PrioWord::Now => Self::Now,
            PrioWord::High => Self::High,
            PrioWord::Normal => Self::Normal,
            PrioWord::Low => Self::Low,
        }
    }
}

/// Shows the jobs that have not ended.
pub(crate) async fn queue(context: &Context<'_>, args: &QueueArgs) -> Result<ExitCode, Failure> {
    let reply: QueueReply = context.client.get(route::QUEUE, &[]).await?;
    if context.output.is_json() {
        context.output.json(&reply);
        return Ok(ExitCode::Ok);
    }
    tell_paused(context.output, &reply);
    if reply.jobs.is_empty() {
        context.output.talk("nothing is coming");
        return Ok(ExitCode::Ok);
    }
    let shown = if args.lines == 0 { reply.jobs.len() } else { args.lines };
    let rows = reply.jobs.iter().take(shown).map(row).collect();
    let header = ["TURN", "JOB", "VERSION", "STATE", "ORDER", "DONE", "SIZE", "RATE", "ETA", "NOTE"];
    print(context.output, &header, rows);
    let more = u64::try_from(reply.jobs.len().saturating_sub(shown)).unwrap_or(u64::MAX);
    if more > 0 {
        context.output.talk(&format!("and {}; all of them: avalonctl queue -n 0", count(more, "more job")));
    }
    Ok(ExitCode::Ok)
}

/// Pauses jobs, or all fetching.
pub(crate) async fn pause(context: &Context<'_>, args: PauseArgs) -> Result<ExitCode, Failure> {
    let all = args.jobs.is_empty();
    let reply = change(context, QueueChange::Pause, args.jobs).await?;
    tell(context, &reply, |output| {
        if all {
            output.talk("this node fetches nothing more until: avalonctl resume");
            output.talk("what came stays; other nodes still get what they ask this one for");
        } else {
            tell_each(output, &reply, "is paused");
        }
    })
}

/// Lets jobs, or everything, go on.
pub(crate) async fn resume(context: &Context<'_>, args: ResumeArgs) -> Result<ExitCode, Failure> {
    let all = args.jobs.is_empty();
    let reply = change(context, QueueChange::Resume, args.jobs).await?;
    tell(context, &reply, |output| {
        if all {
            let jobs = u64::try_from(reply.jobs.len()).unwrap_or(u64::MAX);
            output.talk(&format!("fetching goes on, {} to do", count(jobs, "job")));
        } else {
            tell_each(output, &reply, "goes on");
            tell_paused(output, &reply);
        }
    })
}

/// Changes the order of jobs.
pub(crate) async fn prio(context: &Context<'_>, args: PrioArgs) -> Result<ExitCode, Failure> {
    let reply = change(context, QueueChange::Prio { prio: args.prio.into() }, args.jobs).await?;
    tell(context, &reply, |output| {
        for job in &reply.jobs {
            let place = match job.position {
                Some(position) => format!("number {position} in the queue"),
                None => job_state(job.state).to_owned(),
            };
            output.talk(&format!("{} is {place} now", escape(&job.reference)));
        }
    })
}

async fn change(
    context: &Context<'_>,
    change: QueueChange,
    jobs: Vec<String>,
) -> Result<QueueReply, Failure> {
    let request = QueueRequest { change, jobs, project: context.project.clone() };
    Ok(context.client.post(route::QUEUE, &request).await?)
}

fn tell(context: &Context<'_>, reply: &QueueReply, in_words: impl Fn(&Output)) -> Result<ExitCode, Failure> {
    if context.output.is_json() {
        context.output.json(reply);
    } else {
        in_words(context.output);
    }
    Ok(ExitCode::Ok)
}

fn tell_each(output: &Output, reply: &QueueReply, what: &str) {
    for job in &reply.jobs {
        output.talk(&format!("{} {what}", escape(&job.reference)));
    }
}

fn tell_paused(output: &Output, reply: &QueueReply) {
    if let Some(paused) = &reply.paused {
        let (by, since) = (escape(&paused.by), escape(&paused.since));
        output.talk(&format!(
            "this node fetches nothing: paused by {by} since {since}; go on: avalonctl resume"
        ));
    }
}

fn row(job: &JobStatus) -> Vec<Cell> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let turn = or_dash(job.position.map(|position| position.to_string()));
    let part = format!("{}%", percent(job.bytes_present, job.bytes_total));
    let eta = or_dash(job.eta_seconds.map(duration));
    let order = match job.prio {
        Some(prio) => prio_word(prio).to_owned(),
        None => or_dash(job.class.map(|class| class.to_string())),
    };
    let note = job.reason.clone().unwrap_or_else(|| {
        if job.sources.is_empty() { String::new() } else { format!("from {}", job.sources.join(", ")) }
    });
    vec![
        Cell::number(&turn, &turn),
        Cell::text(&job.id),
        Cell::text(&job.reference),
        Cell::text(job_state(job.state)),
        Cell::text(order),
        Cell::number(&part, &part),
        Cell::number(job.bytes_total, size(job.bytes_total)),
        Cell::number(job.bytes_per_second, rate(job.bytes_per_second)),
        Cell::number(&eta, &eta),
        Cell::text(note),
    ]
}

fn prio_word(prio: Prio) -> &'static str {
    match prio {
        Prio::Now => "now",
        Prio::High => "high",
        Prio::Normal => "normal",
        Prio::Low => "low",
    }
}

#[cfg(test)]
mod tests {
    use avalon_protocol::{
        control::{ApiError, ErrorCode, JobState, PausedItem, PlanState},
        limit::Class,
    };

    use super::*;
    use crate::fake::{FakeDaemon, item, job};

    fn reply(jobs: Vec<JobStatus>, paused: bool) -> QueueReply {
        let paused = paused.then(|| PausedItem { by: "anna".into(), since: "2026-11-22T10:00:00Z".into() });
        QueueReply { schema: "avalonctl.queue/1".into(), paused, jobs }
    }

    fn queued(position: u64) -> JobStatus {
        let queued = job(&item(PlanState::Fetch, Some("7f-2")), JobState::Queued);
        JobStatus { position: Some(position), class: Some(Class::Backfill), ..queued }
    }

    #[test]
    fn the_queue_is_shown_in_its_order_with_what_somebody_said_about_it() {
        let daemon = FakeDaemon::start();
        let running = job(&item(PlanState::Fetch, Some("7f-1")), JobState::Running);
        let low = JobStatus { prio: Some(Prio::Low), ..queued(2) };
        daemon.on("GET /v1/queue", &reply(vec![running, queued(1), low], true));
        let ran = daemon.run_at_terminal(&["queue", "-n", "3"]);
        let lines: Vec<&str> = ran.stdout.lines().collect();
        assert_eq!(
            lines[0],
            "TURN  JOB   VERSION                          STATE    ORDER     DONE  SIZE     RATE         ETA  NOTE"
        );
        assert!(
            lines[1].starts_with("   -  7f-1  lantern:robot/modelDefault@v002  running  -          50%"),
            "{lines:?}"
        );
        assert!(lines[2].contains("queued   backfill"), "{lines:?}");
        assert!(lines[3].starts_with("   2  7f-2") && lines[3].contains("queued   low"), "{lines:?}");
        assert!(ran.stderr.contains("this node fetches nothing: paused by anna since"), "{ran:?}");
        let ran = daemon.run(&["queue", "-n", "1"]);
        assert_eq!(ran.stdout.lines().count(), 1);
        assert!(ran.stderr.ends_with("and 2 more jobs; all of them: avalonctl queue -n 0\n"), "{ran:?}");
        assert_eq!(daemon.run(&["queue", "--json"]).json()["jobs"][2]["prio"], "low");
    }

    #[test]
    fn jobs_or_all_are_paused_and_go_on() {
        let daemon = FakeDaemon::start();
        daemon.on("POST /v1/queue", &reply(vec![queued(1)], false));
        let ran = daemon.run(&["pause", "7f-2", "--project", "lantern"]);
        assert_eq!((ran.exit, ran.stderr.as_str()), (0, "lantern:robot/modelDefault@v002 is paused\n"));
        let asked = r#"POST /v1/queue {"do":"pause","jobs":["7f-2"],"project":"lantern"}"#;
        assert_eq!(daemon.requests(), [asked]);
        assert!(daemon.run(&["pause"]).stderr.contains("until: avalonctl resume"));
        assert!(daemon.run(&["resume"]).stderr.contains("fetching goes on, 1 job to do"));
        assert!(daemon.run(&["resume", "7f-2"]).stderr.contains("goes on"));
    }

    #[test]
    fn one_job_of_a_paused_node_does_not_go_on_and_that_is_said() {
        let daemon = FakeDaemon::start();
        daemon.on("POST /v1/queue", &reply(vec![queued(1)], true));
        assert!(daemon.run(&["resume", "7f-2"]).stderr.contains("this node fetches nothing"));
    }

    #[test]
    fn a_job_is_moved_and_its_new_place_is_told() {
        let daemon = FakeDaemon::start();
        daemon.on("POST /v1/queue", &reply(vec![queued(1)], false));
        let ran = daemon.run(&["prio", "now", "robot/*"]);
        assert_eq!(ran.stderr, "lantern:robot/modelDefault@v002 is number 1 in the queue now\n");
        let asked = r#"POST /v1/queue {"do":"prio","prio":"now","jobs":["robot/*"],"project":null}"#;
        assert_eq!(daemon.requests(), [asked]);
        assert_eq!(daemon.run(&["prio", "now"]).exit, 2, "which ones?");
        assert_eq!(daemon.run(&["prio", "soon", "x"]).exit, 2);
        let daemon = FakeDaemon::start();
        daemon.refuse("POST /v1/queue", &ApiError::new(ErrorCode::NotFound, "no job brings x"));
        assert_eq!(daemon.run(&["prio", "low", "x"]).exit, 4);
    }
}
