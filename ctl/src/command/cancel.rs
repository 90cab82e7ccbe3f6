//! `avalonctl cancel JOB`: gives up a job. What came so far is removed: else the next start would go on with it.

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
        _ => context.output.talk(&format!("{reference} is given up, and what came so far is removed")),
    }
    Ok(ExitCode::Ok)
}

#[cfg(test)]
mod tests {
    use avalon_protocol::control::{ApiError, PlanState};

    use super::*;
    use crate::fake::{FakeDaemon, item, job};

    #[test]
    fn a_job_is_cancelled_by_its_id() {
        let daemon = FakeDaemon::start();
        let fetching = item(PlanState::Fetch, Some("7f/3a"));
        daemon.on("DELETE /v1/jobs/7f%2F3a", &job(&fetching, JobState::Cancelled));
        let ran = daemon.run(&["cancel", "7f/3a"]);
        assert_eq!((ran.exit, ran.stdout.as_str()), (0, ""));
        assert_eq!(
            ran.stderr,
            "lantern:robot/modelDefault@v002 is given up, and what came so far is removed\n"
        );
        let json = daemon.run(&["cancel", "7f/3a", "--json"]).json();
        assert_eq!(
            (&json["schema"], &json["job"]["state"]),
            (&"avalonctl.cancel/1".into(), &"cancelled".into())
        );
        daemon.refuse("DELETE /v1/jobs/x", &ApiError::new(ErrorCode::NotFound, "there is no job \"x\""));
        let ran = daemon.run(&["cancel", "x"]);
        assert_eq!(ran.exit, 4);
        assert!(ran.stderr.ends_with("  hint: see the jobs: avalonctl status\n"));
    }
}
