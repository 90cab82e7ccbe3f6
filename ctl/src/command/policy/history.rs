//! `avalonctl policy history`: who applied what, and when.

use avalon_protocol::{
    control::{PolicyHistoryReply, PolicyItem, route},
    exit_code::ExitCode,
};

use super::state;
use crate::{
    context::Context,
    failure::Failure,
    table::{self, Cell},
};

/// How much of a hash is enough to tell two policies apart.
const SHOWN_DIGITS: usize = 12;

/// Lists all policies, the newest first.
pub(super) async fn run(context: &Context<'_>) -> Result<ExitCode, Failure> {
    let reply: PolicyHistoryReply = context.client.get(route::POLICY_HISTORY, &[]).await?;
    if context.output.is_json() {
        context.output.json(&reply);
        return Ok(ExitCode::Ok);
    }
    if reply.policies.is_empty() {
        context.output.talk("no policy was applied yet; to apply one: avalonctl policy apply FILE");
    }
    let header = ["SERIAL", "APPLIED", "BY", "AT", "HASH", "STATE", "COMMENT"];
    table::print(context.output, &header, reply.policies.iter().map(row).collect());
    Ok(ExitCode::Ok)
}

fn row(policy: &PolicyItem) -> Vec<Cell> {
    let short: String = policy.hash.chars().take(SHOWN_DIGITS).collect();
    vec![
        Cell::number(policy.serial, policy.serial.to_string()),
        Cell::text(&policy.applied),
        Cell::text(&policy.author),
        Cell::text(&policy.node),
        Cell::number(&policy.hash, short),
        Cell::text(state(policy)),
        Cell::text(&policy.comment),
    ]
}

#[cfg(test)]
mod tests {
    use super::{super::fixture::item, *};
    use crate::fake::FakeDaemon;

    fn daemon(policies: Vec<PolicyItem>) -> FakeDaemon {
        let daemon = FakeDaemon::start();
        let schema = "avalonctl.policy-history/1".into();
        daemon.on("GET /v1/policy/history", &PolicyHistoryReply { schema, policies });
        daemon
    }

    #[test]
    fn policies_are_listed_with_what_became_of_them() {
        let old = PolicyItem { stands: false, in_effect: false, ..item(1) };
        let daemon = daemon(vec![item(2), old]);
        let ran = daemon.run(&["policy", "history"]);
        let hash = "ab".repeat(32);
        assert_eq!(
            ran.stdout,
            format!(
                "2\t2026-11-22T10:00:00Z\tanna\tsrv@london\t{hash}\tin effect\tnights\n\
                 1\t2026-11-22T10:00:00Z\tanna\tsrv@london\t{hash}\treplaced\tnights\n"
            )
        );
        let shown = daemon.run_at_terminal(&["policy", "history"]).stdout;
        assert!(shown.contains("SERIAL") && shown.contains("abababababab  "), "{shown}");
        assert_eq!(daemon.run(&["policy", "history", "--json"]).json()["policies"][1]["serial"], 1);
    }

    #[test]
    fn no_policies_are_told_and_print_nothing() {
        let ran = daemon(Vec::new()).run(&["policy", "history"]);
        assert_eq!((ran.exit, ran.stdout.as_str()), (0, ""));
        assert!(ran.stderr.starts_with("no policy was applied yet"), "{ran:?}");
    }
}
