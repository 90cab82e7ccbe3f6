//! `avalonctl cancel JOB`: gives up a job. What is here already stays for the next attempt.

use avalon_protocol::{
    control::{ErrorCode, JobState, JobStatus, route},
    exit_code::ExitCode,
};
use clap::Args;
use serde::Serialize;

use crate::{
    client::percent_encode,
    context::{Context, with_hint},
    escape::escape,
    failure::Failure,
};

/// Arguments of `cancel`.
#[derive(Debug, Args)]
pub(crate) struct CancelArgs {
    /// The job's id, as `pull` and `status` show it.
    #[arg(value_name = "JOB")]
    job: String,
}

#[derive(Serialize)]
struct Answer<'a> {
    schema: &'static str,
    job: &'a JobStatus,
}

/// Cancels a job.
pub(crate) async fn run(context: &Context<'_>, args: &CancelArgs) -> Result<ExitCode, Failure> {
    let target = format!("{}/{}", route::JOBS, percent_encode(&args.job));
    let job: JobStatus =
        context.client.delete(&target).await.map_err(|error| {
            with_hint(error.into(), ErrorCode::NotFound, "see the jobs: avalonctl status")
        })?;
    if context.output.is_json() {
        context.output.json(&Answer { schema: "avalonctl.cancel/1", job: &job });
        return Ok(ExitCode::Ok);
    }
    let reference = escape(&job.reference);
    match job.state {
        JobState::Done => context.output.talk(&format!("{reference} is here already; nothing to cancel")),
        JobState::Failed => {
            context.output.talk(&format!("{reference} had failed already; nothing to cancel"))
        }
        _ => context.output.talk(&format!("{reference} is given up; what came so far is kept")),
    }
    Ok(ExitCode::Ok)
}
