//! `avalonctl why REF`: why a version is here, is not here, or is not here yet.

use avalon_protocol::{
    control::{ErrorCode, WhyAnswer, WhyReply, WhyState, route},
    exit_code::ExitCode,
    policy::Outcome,
    reference::Reference,
};
use clap::Args;

use crate::{
    context::{Context, with_hint},
    escape::escape,
    failure::Failure,
    measure::duration,
    output::Output,
};

/// Arguments of `why`.
#[derive(Debug, Args)]
pub(crate) struct WhyArgs {
    /// Which versions.
    #[arg(value_name = "REF")]
    reference: String,
    /// At another site, or at one of its nodes; what this node knows of it.
    #[arg(long, value_name = "SITE|NODE@SITE")]
    site: Option<String>,
    /// Show every rule of the policy that was asked, and what it answered.
    #[arg(long)]
    rules: bool,
}

/// Explains where versions are.
pub(crate) async fn run(context: &Context<'_>, args: &WhyArgs) -> Result<ExitCode, Failure> {
    let checked: Reference = args.reference.parse()?;
    let [reference, project] = context.query(Some(&args.reference));
    let query = [reference, project, ("site", args.site.as_deref())];
    let hint = format!("list what exists: avalonctl ls {}", checked.asset);
    let reply: Result<WhyReply, _> = context.client.get(route::WHY, &query).await;
    let reply = reply.map_err(|error| with_hint(error.into(), ErrorCode::NotFound, &hint))?;
    if context.output.is_json() {
        context.output.json(&reply);
        return Ok(ExitCode::Ok);
    }
    for answer in &reply.answers {
        show(context.output, answer, args.rules);
    }
    Ok(ExitCode::Ok)
}

fn show(output: &Output, answer: &WhyAnswer, rules: bool) {
    let state = match answer.state {
        WhyState::Here => "is there",
        WhyState::Coming => "is not there yet",
        WhyState::Missing => "belongs there and is not there",
        WhyState::OnDemand => "is not there: on demand",
        WhyState::Forbidden => "may not be there",
        WhyState::Retired => "is retired",
        WhyState::Conflict => "is in conflict",
        WhyState::NotPublished => "is not published yet",
        WhyState::NotKnown => "cannot be said yet",
    };
    output.data(&format!("{} at {}: {state}", escape(&answer.reference), escape(&answer.node)));
    for reason in &answer.because {
        output.data(&format!("  {}", escape(reason)));
    }
    if let Some(eta) = answer.job.as_ref().and_then(|job| job.eta_seconds) {
        output.data(&format!("  {} left at the rate of now", duration(eta)));
    }
    if rules {
        for tried in &answer.tried {
            let outcome = match &tried.outcome {
                Outcome::Wins => "decides".to_owned(),
                Outcome::Passes { reason } => format!("passes: {reason}"),
                Outcome::NotKnown { fact } => format!("cannot be asked yet: {fact}"),
            };
            output.data(&format!(
                "  rule {} (line {}) {}",
                escape(&tried.rule),
                tried.line,
                escape(&outcome)
            ));
        }
    }
    if let Some(hint) = &answer.hint {
        output.data(&format!("  next: {}", escape(hint)));
    }
}

#[cfg(test)]
mod tests {
    use avalon_protocol::policy::Tried;
    use serde_json::json;

    use super::*;
    use crate::fake::FakeDaemon;

    const REFERENCE: &str = "lantern:robot/modelDefault@v002";

    fn answer(state: WhyState) -> WhyAnswer {
        let tried = |rule: &str, line, outcome| Tried { rule: rule.into(), line, outcome };
        WhyAnswer {
            reference: REFERENCE.into(),
            node: "srv@montreal".into(),
            state,
            because: vec!["the policy says: on-demand, by rule models (line 12)".into()],
            hint: Some(format!("avalonctl pull {REFERENCE}")),
            ruling: Some("on-demand".into()),
            rule: Some("models (line 12)".into()),
            tried: vec![
                tried("rigs", 5, Outcome::Passes { reason: "subset is modelDefault, not rig*".into() }),
                tried("models", 12, Outcome::Wins),
            ],
            job: None,
            position: None,
        }
    }

    fn asked(answers: Vec<WhyAnswer>) -> FakeDaemon {
        let daemon = FakeDaemon::start();
        daemon.on("GET /v1/why", &WhyReply { schema: "avalonctl.why/1".into(), answers });
        daemon
    }

    #[test]
    fn the_answer_says_how_it_stands_why_and_what_to_do() {
        let daemon = asked(vec![answer(WhyState::OnDemand)]);
        let ran = daemon.run(&["why", "robot/modelDefault"]);
        assert_eq!(
            ran.stdout,
            format!(
                "{REFERENCE} at srv@montreal: is not there: on demand\n  \
                 the policy says: on-demand, by rule models (line 12)\n  next: avalonctl pull {REFERENCE}\n"
            )
        );
        let ran = daemon.run(&["why", "robot/modelDefault", "--rules"]);
        assert!(
            ran.stdout.contains(
                "  rule rigs (line 5) passes: subset is modelDefault, not rig*\n  rule models (line 12) decides\n"
            ),
            "{ran:?}"
        );
        let json = daemon.run(&["why", "robot/modelDefault", "--json"]).json();
        assert_eq!(
            (&json["schema"], &json["answers"][0]["state"]),
            (&json!("avalonctl.why/1"), &json!("on-demand"))
        );
    }

    #[test]
    fn the_site_is_passed_on() {
        let daemon = asked(vec![]);
        daemon.run(&["why", "robot/modelDefault", "--site", "montreal"]);
        let requests = daemon.requests();
        assert!(requests.iter().any(|request| request.contains("site=montreal")), "{requests:?}");
    }
}
