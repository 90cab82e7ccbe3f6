//! `avalonctl problems [REF]`: what checks found in versions.

use avalon_protocol::{
    check::{CheckProblem, CheckSeverity},
    control::{ErrorCode, ProblemsReply, route},
    exit_code::ExitCode,
    reference::Reference,
};
use clap::Args;

use crate::{
    context::{Context, with_hint},
    escape::escape,
    failure::Failure,
    measure::count,
    output::Output,
    table::{self, Cell},
};

/// Arguments of `problems`.
#[derive(Debug, Args)]
pub(crate) struct ProblemsArgs {
    /// Which versions; globs are allowed, @* for all. Without it the newest of every subset, and the heroes.
    #[arg(value_name = "REF")]
    reference: Option<String>,
}

/// Shows problems; exit code 1 when there are errors or warnings.
pub(crate) async fn run(context: &Context<'_>, args: &ProblemsArgs) -> Result<ExitCode, Failure> {
    let checked: Option<Reference> = args.reference.as_deref().map(str::parse).transpose()?;
    let reply: Result<ProblemsReply, _> =
        context.client.get(route::PROBLEMS, &context.query(args.reference.as_deref())).await;
    let asset = checked.map_or_else(String::new, |reference| format!(" {}", reference.asset));
    let hint = format!("list what exists: avalonctl ls{asset}");
    let reply = reply.map_err(|error| with_hint(error.into(), ErrorCode::NotFound, &hint))?;
    let output = context.output;
    if output.is_json() {
        output.json(&reply);
    } else {
        show(output, &reply);
    }
    let problems = reply.versions.iter().flat_map(|version| &version.problems);
    Ok(if counts(problems) { ExitCode::Error } else { ExitCode::Ok })
}

/// Says whether problems change an exit code: notes do not.
pub(crate) fn counts<'p>(problems: impl IntoIterator<Item = &'p CheckProblem>) -> bool {
    problems.into_iter().any(|problem| problem.severity > CheckSeverity::Note)
}

/// Says what is wrong and what to do, to the person at the terminal.
pub(crate) fn talk(output: &Output, problem: &CheckProblem) {
    output.talk(&format!("  {}", escape(&problem.to_string())));
    output.talk(&format!("    {}", escape(&problem.hint)));
}

fn show(output: &Output, reply: &ProblemsReply) {
    let mut rows = Vec::new();
    for version in &reply.versions {
        rows.extend(version.problems.iter().map(|problem| {
            vec![
                Cell::text(&version.reference),
                Cell::text(problem.severity.to_string()),
                Cell::text(&problem.code),
                Cell::text(&version.author),
                Cell::text(&problem.message),
            ]
        }));
    }
    table::print(output, &["VERSION", "SEVERITY", "CHECK", "BY", "WHAT"], rows);
    for reference in &reply.unknown {
        output.talk(&format!("{} cannot be checked: its manifest has not come", escape(reference)));
    }
    let (versions, with) = (count(reply.checked, "version"), reply.versions.len());
    output.talk(&format!("{versions} checked, {with} with problems"));
}

#[cfg(test)]
mod tests {
    use avalon_protocol::control::VersionProblems;

    use super::*;
    use crate::fake::FakeDaemon;

    fn reply(severity: CheckSeverity) -> ProblemsReply {
        ProblemsReply {
            schema: "avalonctl.problems/1".into(),
            versions: vec![VersionProblems {
                reference: "lantern:sh010/beauty@v001".into(),
                generation: 1,
                manifest: "m1".into(),
                author: "anna".into(),
                published: "2026-11-22T10:00:00Z".into(),
                problems: vec![CheckProblem {
                    code: "missing-frames".into(),
                    severity,
                    message: "frame 1004 is missing\u{1b}".into(),
                    hint: "render it".into(),
                }],
            }],
            checked: 3,
            unknown: vec!["lantern:robot/rig@v001".into()],
        }
    }

    #[test]
    fn problems_are_rows_and_decide_the_exit_code() {
        for (severity, exit) in
            [(CheckSeverity::Error, 1), (CheckSeverity::Warning, 1), (CheckSeverity::Note, 0)]
        {
            let daemon = FakeDaemon::start();
            daemon.on("GET /v1/problems", &reply(severity));
            let ran = daemon.run(&["problems", "sh010/beauty"]);
            assert_eq!(ran.exit, exit);
            assert_eq!(
                ran.stdout,
                format!(
                    "lantern:sh010/beauty@v001\t{severity}\tmissing-frames\tanna\tframe 1004 is missing\\u{{1b}}\n"
                )
            );
            assert_eq!(
                ran.stderr,
                "lantern:robot/rig@v001 cannot be checked: its manifest has not come\n3 versions checked, 1 with problems\n"
            );
            assert_eq!(daemon.requests(), ["GET /v1/problems?ref=sh010%2Fbeauty"]);
            let json = daemon.run(&["problems", "--json"]).json();
            assert_eq!(serde_json::from_value::<ProblemsReply>(json).unwrap(), reply(severity));
        }
    }
}
