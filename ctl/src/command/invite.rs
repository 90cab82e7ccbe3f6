//! `avalonctl invite`, `avalonctl invites`: who may join the studio by this node.

use std::time::Duration;

use avalon_protocol::{
    access::Role,
    control::{InviteItem, InviteReply, InviteRequest, InviteState, InvitesReply, route},
    exit_code::ExitCode,
    id::{NodeName, ProjectName, SiteName},
};
use clap::Args;

use crate::{
    args::time_span,
    client::percent_encode,
    context::Context,
    escape::escape,
    failure::Failure,
    table::{self, Cell},
};

/// How long an invite holds unless asked otherwise.
const TTL: &str = "1h";

/// Arguments of `invite`.
#[derive(Debug, Args)]
pub(crate) struct InviteArgs {
    /// The site that the machine joins at, such as van.
    #[arg(long, value_name = "SITE", required_unless_present = "revoke")]
    site: Option<SiteName>,
    /// What kind of node it will be: site, workstation, farm or vendor.
    #[arg(long, value_name = "ROLE", default_value_t = Role::Workstation)]
    role: Role,
    /// What it will be called; whoever joins chooses, without.
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
    /// How long the invite holds, such as 1h or 30m; at most 168h.
    #[arg(long, value_name = "TIME", value_parser = time_span, default_value = TTL)]
    ttl: Duration,
    /// A project of its first configuration; by default all that this node serves, and none for a vendor. May be repeated.
    #[arg(long = "with-project", value_name = "PROJECT")]
    projects: Vec<ProjectName>,
    /// Where this node is reached from there; by default its own address and name. May be repeated.
    #[arg(long = "address", value_name = "HOST:PORT")]
    addresses: Vec<String>,
    /// Take an open invite back.
    #[arg(long, value_name = "ID", conflicts_with_all = ["site", "node", "projects", "addresses"])]
    revoke: Option<String>,
}

/// Arguments of `invites`.
#[derive(Debug, Args)]
pub(crate) struct InvitesArgs {}

/// Makes an invite, or takes one back.
pub(crate) async fn run(context: &Context<'_>, args: InviteArgs) -> Result<ExitCode, Failure> {
    if let Some(id) = &args.revoke {
        let reply: InvitesReply =
            context.client.delete(&format!("{}/{}", route::INVITES, percent_encode(id))).await?;
        if context.output.is_json() {
            context.output.json(&reply);
        } else {
            reply.invites.iter().for_each(|it| context.output.data(&format!("invite {} is revoked", it.id)));
        }
        return Ok(ExitCode::Ok);
    }
    let request = InviteRequest {
        site: args.site.map(|site| site.to_string()).unwrap_or_default(),
        role: args.role,
        node: args.node.map(|node| node.to_string()),
        ttl_seconds: args.ttl.as_secs(),
        projects: args.projects.iter().map(ToString::to_string).collect(),
        addresses: args.addresses,
    };
    let reply: InviteReply = context.client.post(route::INVITES, &request).await?;
    if context.output.is_json() {
        context.output.json(&reply);
        return Ok(ExitCode::Ok);
    }
    let InviteReply { token, addresses, invite, .. } = reply;
    // The token alone on stdout: it can be piped to where it is to go.
    context.output.data(&escape(&token));
    let name = invite
        .node
        .as_deref()
        .map_or_else(|| format!("a {}", invite.role), |node| format!("{node}, a {}", invite.role));
    let at = addresses.join(" or ");
    context.output.talk(&format!(
        "invite {} lets {} join at {} until {}, once, by {}",
        invite.id,
        escape(&name),
        invite.site,
        invite.expires,
        escape(&at)
    ));
    context
        .output
        .talk("send the line to who sits at the new machine, by a way that nobody else reads; there:");
    context.output.talk("  avalonctl join TOKEN");
    Ok(ExitCode::Ok)
}

/// Lists the invites.
pub(crate) async fn list(context: &Context<'_>) -> Result<ExitCode, Failure> {
    let reply: InvitesReply = context.client.get(route::INVITES, &[]).await?;
    if context.output.is_json() {
        context.output.json(&reply);
        return Ok(ExitCode::Ok);
    }
    if reply.invites.is_empty() {
        context.output.talk("there are no invites; make one: avalonctl invite --site SITE");
        return Ok(ExitCode::Ok);
    }
    let header = ["ID", "STATE", "NODE", "SITE", "ROLE", "EXPIRES"];
    table::print(context.output, &header, reply.invites.iter().map(row).collect());
    Ok(ExitCode::Ok)
}

fn row(item: &InviteItem) -> Vec<Cell> {
    let state = match item.state {
        InviteState::Open => "open",
        InviteState::Used => "used",
        InviteState::Revoked => "revoked",
        InviteState::Expired => "expired",
    };
    vec![
        Cell::text(&item.id),
        Cell::text(state),
        Cell::text(item.node.as_deref().unwrap_or("-")),
        Cell::text(&item.site),
        Cell::text(item.role.to_string()),
        Cell::text(&item.expires),
    ]
}

#[cfg(test)]
mod tests {
    use avalon_protocol::control::ErrorCode;

    use super::*;
    use crate::fake::{FakeDaemon, run};

    fn item(state: InviteState) -> InviteItem {
        InviteItem {
            id: "aebagbaf".into(),
            site: "van".into(),
            role: Role::Workstation,
            node: None,
            projects: vec!["lantern".into()],
            state,
            made: "2027-01-15T08:00:00Z".into(),
            expires: "2027-01-15T09:00:00Z".into(),
        }
    }

    #[test]
    fn the_token_is_all_that_stdout_gets() {
        let daemon = FakeDaemon::start();
        let reply = InviteReply {
            schema: "avalonctl.invite/1".into(),
            token: "avalonjoin1-abc".into(),
            addresses: vec!["lon.example.net:4700".into()],
            invite: item(InviteState::Open),
        };
        daemon.answer("POST /v1/invites", 200, serde_json::to_string(&reply).unwrap());
        let ran = daemon.run(&["invite", "--site", "van"]);
        assert_eq!((ran.exit, ran.stdout.as_str()), (0, "avalonjoin1-abc\n"), "{ran:?}");
        assert!(
            ran.stderr.contains("lets a workstation join at van until 2027-01-15T09:00:00Z, once"),
            "{ran:?}"
        );
        assert!(ran.stderr.contains("avalonctl join TOKEN"), "{ran:?}");
    }

    #[test]
    fn invites_are_listed_and_taken_back() {
        let daemon = FakeDaemon::start();
        let reply = |state| {
            let reply = InvitesReply { schema: "avalonctl.invites/1".into(), invites: vec![item(state)] };
            serde_json::to_string(&reply).unwrap()
        };
        daemon.answer("GET /v1/invites", 200, reply(InviteState::Used));
        let ran = daemon.run(&["invites"]);
        assert!(ran.stdout.contains("aebagbaf") && ran.stdout.contains("used"), "{ran:?}");
        daemon.answer("DELETE /v1/invites/aebagbaf", 200, reply(InviteState::Revoked));
        let ran = daemon.run(&["invite", "--revoke", "aebagbaf"]);
        assert_eq!((ran.exit, ran.stdout.as_str()), (0, "invite aebagbaf is revoked\n"));
    }

    #[test]
    fn words_that_are_no_names_are_refused_before_anybody_is_asked() {
        for bad in [
            &["invite"][..],
            &["invite", "--site", "Van"],
            &["invite", "--site", "van", "--role", "boss"],
            &["invite", "--site", "van", "--ttl", "soon"],
            &["invite", "--site", "van", "--revoke", "aebagbaf"],
        ] {
            assert_eq!(run(bad).exit, 2, "{bad:?}");
        }
        let ran = run(&["invites", "--socket", "/nowhere", "--json"]);
        assert_eq!(ran.error().code, ErrorCode::DaemonUnreachable);
    }
}
