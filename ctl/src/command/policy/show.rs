//! `avalonctl policy show`: the document that stands, or one of the history.

use avalon_protocol::{
    control::{PolicyReply, route},
    exit_code::ExitCode,
};
use clap::Args;

use super::state;
use crate::{context::Context, escape::escape, failure::Failure};

/// Arguments of `policy show`.
#[derive(Debug, Args)]
pub(super) struct ShowArgs {
    /// Another one than the policy that stands; `policy history` lists them.
    #[arg(long)]
    serial: Option<u64>,
}

/// Shows a policy: the document on stdout, so that it can go to a file, and what is to know about it on stderr.
pub(super) async fn run(context: &Context<'_>, args: &ShowArgs) -> Result<ExitCode, Failure> {
    let serial = args.serial.map(|serial| serial.to_string());
    let reply: PolicyReply = context.client.get(route::POLICY, &[("serial", serial.as_deref())]).await?;
    let output = context.output;
    if output.is_json() {
        output.json(&reply);
        return Ok(ExitCode::Ok);
    }
    let PolicyReply { policy, document, problem, .. } = &reply;
    let (author, node) = (escape(&policy.author), escape(&policy.node));
    let what =
        format!("policy {}, applied by {author} at {node}, {}", policy.serial, escape(&policy.applied));
    output.talk(&format!("{what}: {}", state(policy)));
    if !policy.comment.is_empty() {
        output.talk(&format!("  {}", escape(&policy.comment)));
    }
    if let Some(problem) = problem {
        output.talk(&format!("  not understood here: {}", escape(problem)));
    }
    if output.stdout_is_terminal() {
        // It came from another node, and must not act on the terminal.
        document.lines().for_each(|line| output.data(&escape(line)));
    } else {
        output.bytes(document.as_bytes());
    }
    Ok(ExitCode::Ok)
}

#[cfg(test)]
mod tests {
    use avalon_protocol::control::{ApiError, ErrorCode};

    use super::super::fixture;
    use crate::fake::FakeDaemon;

    #[test]
    fn the_document_goes_to_stdout_as_it_is() {
        let daemon = FakeDaemon::start();
        daemon.on("GET /v1/policy", &fixture::reply(3));
        let ran = daemon.run(&["policy", "show"]);
        assert_eq!((ran.exit, ran.stdout.as_str()), (0, "# nights\nkeep = \"\u{1b}[2J\"\n"));
        assert_eq!(
            ran.stderr,
            "policy 3, applied by anna at srv@london, 2026-11-22T10:00:00Z: in effect\n  nights\n"
        );
        let ran = daemon.run_at_terminal(&["policy", "show", "-q"]);
        assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("# nights\nkeep = \"\\u{1b}[2J\"\n", ""));
        let json = daemon.run(&["policy", "show", "--json"]).json();
        assert_eq!((&json["schema"], &json["in_effect"]), (&"avalonctl.policy-show/1".into(), &3.into()));
        daemon.run(&["policy", "show", "--serial", "2"]);
        assert_eq!(daemon.requests().pop().unwrap(), "GET /v1/policy?serial=2");
    }

    #[test]
    fn one_that_is_not_understood_says_why_and_none_is_an_error() {
        let daemon = FakeDaemon::start();
        let mut reply = fixture::reply(4);
        (reply.policy.in_effect, reply.policy.understood) = (false, false);
        reply.problem = Some("line 1:10: `schema` is \"avalon.policy/9\"".into());
        daemon.on("GET /v1/policy", &reply);
        let ran = daemon.run(&["policy", "show"]);
        assert!(ran.stderr.contains("stands, not in effect here"), "{ran:?}");
        assert!(ran.stderr.contains("not understood here: line 1:10: `schema`"), "{ran:?}");
        let none = FakeDaemon::start();
        none.refuse("GET /v1/policy", &ApiError::new(ErrorCode::NotFound, "no policy was applied"));
        assert_eq!(none.run(&["policy", "show"]).exit, 4);
    }
}
