//! `avalonctl policy apply FILE`: makes a document the policy of the whole studio, unless another one came first.

use std::path::PathBuf;

use avalon_protocol::{
    control::{ErrorCode, PolicyAppliedReply, PolicyReply, PolicyRequest, route},
    exit_code::ExitCode,
};
use clap::Args;

use super::{check, diff};
use crate::{client::ClientError, context::Context, escape::escape, failure::Failure};

/// Arguments of `policy apply`.
#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    /// The document.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// What there is to say about it.
    #[arg(short = 'm', long, default_value = "", hide_default_value = true)]
    comment: String,
    /// Who applies it; by default your user.
    #[arg(long, default_value = "", hide_default_value = true)]
    author: String,
    /// The policy that it is meant to replace, 0 for none; if another one stands by now, nothing is applied. By default the one
    /// that stands now.
    #[arg(long, value_name = "SERIAL")]
    replaces: Option<u64>,
    /// Only say what it would change, as `policy diff`, and apply nothing.
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Applies a document.
pub(super) async fn run(context: &Context<'_>, args: ApplyArgs) -> Result<ExitCode, Failure> {
    let document = check::checked(context, &args.file)?;
    if args.dry_run {
        return diff::show_dry_run(context, document, args.replaces).await;
    }
    let replaces = match args.replaces {
        Some(serial) => serial,
        None => standing(context).await?,
    };
    let request = PolicyRequest {
        document,
        comment: args.comment,
        author: args.author,
        replaces: Some(replaces),
        dry_run: false,
    };
    let reply: PolicyAppliedReply = context.client.post(route::POLICY, &request).await?;
    if context.output.is_json() {
        context.output.json(&reply);
        return Ok(ExitCode::Ok);
    }
    let replaced = match reply.replaced {
        0 => "the first one".to_owned(),
        serial => format!("it replaces policy {serial}"),
    };
    let PolicyAppliedReply { policy, warnings, .. } = reply;
    diff::warn(context.output, &warnings);
    context.output.talk(&format!(
        "policy {} applied by {}, {replaced}",
        policy.serial,
        escape(&policy.author)
    ));
    Ok(ExitCode::Ok)
}

/// Returns the serial that stands; 0 before the first policy.
async fn standing(context: &Context<'_>) -> Result<u64, Failure> {
    let shown: Result<PolicyReply, ClientError> = context.client.get(route::POLICY, &[]).await;
    match shown {
        Ok(reply) => Ok(reply.policy.serial),
        Err(error) if error.code() == Some(ErrorCode::NotFound) => Ok(0),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use avalon_protocol::{control::ApiError, policy::Problem};

    use super::{super::fixture, *};
    use crate::fake::{FakeDaemon, Ran};

    const DOCUMENT: &str = "schema = \"avalon.policy/1\"\n[defaults]\nkeep = \"on-demand\"\nmin_copies = 1\n";

    fn apply(daemon: &FakeDaemon, document: &str, more: &[&str]) -> Ran {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("studio.toml");
        std::fs::File::create(&path).unwrap().write_all(document.as_bytes()).unwrap();
        let args: Vec<&str> =
            ["policy", "apply", path.to_str().unwrap()].iter().chain(more).copied().collect();
        daemon.run(&args)
    }

    fn applied(serial: u64) -> PolicyAppliedReply {
        let schema = "avalonctl.policy-apply/1".into();
        PolicyAppliedReply {
            schema,
            policy: fixture::item(serial),
            replaced: serial - 1,
            warnings: Vec::new(),
        }
    }

    #[test]
    fn a_document_replaces_what_stands_and_all_that_was_said_is_sent() {
        let daemon = FakeDaemon::start();
        daemon.on("GET /v1/policy", &fixture::reply(2)).on("POST /v1/policy", &applied(3));
        let ran = apply(&daemon, DOCUMENT, &["-m", "nights", "--author", "anna"]);
        assert_eq!((ran.exit, ran.stdout.as_str()), (0, ""));
        assert_eq!(ran.stderr, "policy 3 applied by anna, it replaces policy 2\n");
        let request = daemon.requests().pop().unwrap();
        let request: PolicyRequest =
            serde_json::from_str(request.strip_prefix("POST /v1/policy ").unwrap()).unwrap();
        let expected = PolicyRequest {
            document: DOCUMENT.into(),
            comment: "nights".into(),
            author: "anna".into(),
            replaces: Some(2),
            dry_run: false,
        };
        assert_eq!(request, expected);
        let json = apply(&daemon, DOCUMENT, &["--json"]).json();
        assert_eq!(
            (&json["schema"], &json["policy"]["serial"]),
            (&"avalonctl.policy-apply/1".into(), &3.into())
        );
    }

    #[test]
    fn the_first_policy_replaces_none_and_a_given_serial_is_not_asked_for() {
        let daemon = FakeDaemon::start();
        daemon.refuse("GET /v1/policy", &ApiError::new(ErrorCode::NotFound, "no policy was applied"));
        daemon.on("POST /v1/policy", &applied(1));
        assert_eq!(apply(&daemon, DOCUMENT, &[]).stderr, "policy 1 applied by anna, the first one\n");
        assert!(daemon.requests().pop().unwrap().contains("\"replaces\":0"));
        apply(&daemon, DOCUMENT, &["--replaces", "7"]);
        let requests = daemon.requests();
        assert!(requests.len() == 3 && requests[2].contains("\"replaces\":7"), "{requests:?}");
    }

    #[test]
    fn what_does_not_fit_the_studio_is_a_warning() {
        let daemon = FakeDaemon::start();
        let (line, column) = (7, 3);
        let (reason, advice) = ("the studio has no site `tokyo`".into(), "known sites: london".into());
        let warnings = vec![Problem { line, column, reason, advice }];
        daemon.on("POST /v1/policy", &PolicyAppliedReply { warnings, ..applied(1) });
        let ran = apply(&daemon, DOCUMENT, &["--replaces", "0"]);
        assert_eq!(ran.exit, 0);
        assert!(
            ran.stderr.starts_with("warning: line 7:3: the studio has no site `tokyo`; known"),
            "{ran:?}"
        );
    }

    #[test]
    fn what_is_no_policy_is_shown_with_its_line_and_never_sent() {
        let daemon = FakeDaemon::start();
        let ran = apply(&daemon, &DOCUMENT.replace("on-demand", "sometimes"), &[]);
        assert_eq!(ran.exit, 1);
        assert!(ran.stdout.contains("studio.toml:3:8: "), "{ran:?}");
        assert!(daemon.requests().is_empty());
        assert_eq!(daemon.run(&["policy", "apply", "/nothing/there.toml"]).exit, 4);
    }

    #[test]
    fn who_is_late_hears_what_to_do() {
        let daemon = FakeDaemon::start();
        let refused =
            ApiError::new(ErrorCode::PolicyChanged, "policy 1 was to be replaced, and policy 2 stands")
                .with_hint("look at it, avalonctl policy show");
        daemon.refuse("POST /v1/policy", &refused);
        let ran = apply(&daemon, DOCUMENT, &["--replaces", "1"]);
        assert_eq!(ran.exit, 1);
        assert!(ran.stderr.starts_with("error[AVL-1202]: policy 1 was to be replaced"), "{ran:?}");
        assert!(ran.stderr.contains("hint: look at it"), "{ran:?}");
    }
}
