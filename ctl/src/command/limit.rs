//! `avalonctl limit`: how much of the line content may take.

use avalon_protocol::{
    control::{ErrorCode, LimitItem, LimitOrigin, LimitRequest, LimitsReply, route},
    exit_code::ExitCode,
    limit::{Class, Direction, Rate, When},
};
use clap::{Args, Subcommand, ValueEnum};

use crate::{
    client::percent_encode,
    context::{Context, with_hint},
    escape::escape,
    failure::Failure,
    table::{self, Cell},
};

/// Arguments of `limit`.
#[derive(Debug, Args)]
pub(crate) struct LimitArgs {
    /// What to change; without it, the limits are listed.
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Set a limit; it is kept over restarts. The same one with another rate is changed.
    Set(SetArgs),
    /// Clear limits that were set by command.
    Clear(ClearArgs),
}

#[derive(Debug, Args)]
struct SetArgs {
    /// How much: 200Mbit/s, 25MB/s, 24MiB/s; 0 for nothing at all.
    #[arg(value_parser = rate)]
    rate: String,
    /// Only with this site. This node's own site is exempt unless it is named.
    #[arg(long)]
    site: Option<String>,
    /// Only of this urgency.
    #[arg(long)]
    class: Option<ClassArg>,
    /// Only this way.
    #[arg(long)]
    direction: Option<DirectionArg>,
    /// Only then: "mon-fri 09:00-19:00", "sat,sun", "22:00-06:00".
    #[arg(long, value_parser = when)]
    when: Option<String>,
}

#[derive(Debug, Args)]
struct ClearArgs {
    /// Which one, as the list shows it.
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    id: Option<String>,
    /// All that were set by command.
    #[arg(long)]
    all: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum ClassArg {
    /// Somebody waits for it.
    Waiting,
    /// Just published.
    Publish,
    /// From before.
    Backfill,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum DirectionArg {
    /// To peers.
    Send,
    /// From peers.
    Receive,
}

/// Checks a rate; the daemon reads it.
fn rate(text: &str) -> Result<String, String> {
    text.parse::<Rate>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Checks times of the week; the daemon reads them.
fn when(text: &str) -> Result<String, String> {
    text.parse::<When>().map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// Lists, sets or clears limits.
pub(crate) async fn run(context: &Context<'_>, args: LimitArgs) -> Result<ExitCode, Failure> {
    match args.action {
        None => list(context).await,
        Some(Action::Set(args)) => set(context, args).await,
        Some(Action::Clear(args)) => clear(context, &args).await,
    }
}

async fn list(context: &Context<'_>) -> Result<ExitCode, Failure> {
    let reply: LimitsReply = context.client.get(route::LIMITS, &[]).await?;
    if context.output.is_json() {
        context.output.json(&reply);
        return Ok(ExitCode::Ok);
    }
    if reply.limits.is_empty() {
        context.output.talk("no limits; to set one: avalonctl limit set 200Mbit/s");
    }
    let header = ["ID", "FROM", "RATE", "WAY", "SITE", "CLASS", "WHEN", "NOW", "LETS THROUGH"];
    table::print(context.output, &header, reply.limits.iter().map(row).collect());
    Ok(ExitCode::Ok)
}

fn row(limit: &LimitItem) -> Vec<Cell> {
    let origin = match limit.origin {
        LimitOrigin::Config => "configuration",
        LimitOrigin::Live => "command",
    };
    let megabits = limit.bytes_per_second * 8.0 / 1e6;
    vec![
        Cell::text(&limit.id),
        Cell::text(origin),
        Cell::number(limit.rate_bytes_per_second, &limit.rate),
        Cell::text(limit.direction.to_string()),
        Cell::text(limit.site.as_deref().unwrap_or("all others")),
        Cell::text(limit.class.map_or_else(|| "any".to_owned(), |class| class.to_string())),
        Cell::text(&limit.when),
        Cell::text(if limit.holds { "holds" } else { "not now" }),
        Cell::number(limit.bytes_per_second.round(), format!("{megabits:.1}Mbit/s")),
    ]
}

async fn set(context: &Context<'_>, args: SetArgs) -> Result<ExitCode, Failure> {
    let request = LimitRequest {
        rate: args.rate,
        direction: args.direction.map(|direction| match direction {
            DirectionArg::Send => Direction::Send,
            DirectionArg::Receive => Direction::Receive,
        }),
        site: args.site,
        class: args.class.map(|class| match class {
            ClassArg::Waiting => Class::Waiting,
            ClassArg::Publish => Class::Publish,
            ClassArg::Backfill => Class::Backfill,
        }),
        when: args.when,
    };
    let reply: LimitsReply = context.client.post(route::LIMITS, &request).await?;
    tell(context, &reply, "set");
    Ok(ExitCode::Ok)
}

async fn clear(context: &Context<'_>, args: &ClearArgs) -> Result<ExitCode, Failure> {
    let target = match &args.id {
        Some(id) => format!("{}/{}", route::LIMITS, percent_encode(id)),
        None => route::LIMITS.to_owned(),
    };
    let reply = context.client.delete(&target).await;
    let reply: LimitsReply = reply
        .map_err(|error| with_hint(error.into(), ErrorCode::NotFound, "see the limits: avalonctl limit"))?;
    tell(context, &reply, "cleared");
    Ok(ExitCode::Ok)
}

/// Says what was changed.
fn tell(context: &Context<'_>, reply: &LimitsReply, what: &str) {
    if context.output.is_json() {
        return context.output.json(reply);
    }
    if reply.limits.is_empty() {
        context.output.talk(&format!("no limit {what}: none was set by command"));
    }
    for limit in &reply.limits {
        context.output.talk(&format!("limit {} {what}: {}", escape(&limit.id), describe(limit)));
    }
}

fn describe(limit: &LimitItem) -> String {
    let mut text = format!("{} {}", limit.direction, limit.rate);
    if let Some(site) = &limit.site {
        let preposition = if limit.direction == Direction::Send { "to" } else { "from" };
        text.push_str(&format!(" {preposition} {}", escape(site)));
    }
    if let Some(class) = limit.class {
        text.push_str(&format!(", {class} only"));
    }
    if limit.when != "always" {
        text.push_str(&format!(", {}", escape(&limit.when)));
    }
    text
}

#[cfg(test)]
mod tests {
    use avalon_protocol::control::ApiError;

    use super::*;
    use crate::fake::FakeDaemon;

    fn item(id: &str, origin: LimitOrigin) -> LimitItem {
        LimitItem {
            id: id.into(),
            origin,
            rate: "200Mbit/s".into(),
            rate_bytes_per_second: 25_000_000,
            direction: Direction::Send,
            site: Some("montreal".into()),
            class: Some(Class::Backfill),
            when: "mon,tue 09:00-19:00".into(),
            holds: true,
            bytes_per_second: 24_900_000.0,
        }
    }

    fn reply(limits: Vec<LimitItem>) -> LimitsReply {
        LimitsReply { schema: "avalonctl.limit/1".into(), limits }
    }

    #[test]
    fn limits_are_listed_with_what_they_let_through() {
        let daemon = FakeDaemon::start();
        let all = LimitItem { site: None, class: None, holds: false, ..item("1", LimitOrigin::Live) };
        daemon.on("GET /v1/limits", &reply(vec![item("config-1", LimitOrigin::Config), all]));
        let ran = daemon.run(&["limit"]);
        assert_eq!(
            ran.stdout,
            "config-1\tconfiguration\t25000000\tsend\tmontreal\tbackfill\tmon,tue 09:00-19:00\tholds\t24900000\n\
             1\tcommand\t25000000\tsend\tall others\tany\tmon,tue 09:00-19:00\tnot now\t24900000\n"
        );
        let shown = daemon.run_at_terminal(&["limit"]).stdout;
        assert!(shown.contains("200Mbit/s") && shown.contains("199.2Mbit/s"), "{shown}");
        let json = daemon.run(&["limit", "--json"]).json();
        assert_eq!(json["schema"], "avalonctl.limit/1");
        assert_eq!(
            (&json["limits"][0]["origin"], &json["limits"][0]["class"]),
            (&"config".into(), &"backfill".into())
        );
    }

    #[test]
    fn no_limits_are_told_and_print_nothing() {
        let daemon = FakeDaemon::start();
        daemon.on("GET /v1/limits", &reply(Vec::new()));
        let ran = daemon.run(&["limit"]);
        assert_eq!((ran.stdout.as_str(), ran.exit), ("", 0));
        assert!(ran.stderr.starts_with("no limits"), "{ran:?}");
    }

    #[test]
    fn a_limit_is_set_with_all_that_it_is_for() {
        let daemon = FakeDaemon::start();
        daemon.on("POST /v1/limits", &reply(vec![item("3", LimitOrigin::Live)]));
        let mut line = vec!["limit", "set", "200Mbit/s", "--site", "montreal", "--class", "backfill"];
        line.extend(["--direction", "send", "--when", "mon-tue 09:00-19:00"]);
        let ran = daemon.run(&line);
        assert_eq!(
            ran.stderr,
            "limit 3 set: send 200Mbit/s to montreal, backfill only, mon,tue 09:00-19:00\n"
        );
        assert_eq!(
            daemon.requests(),
            [
                "POST /v1/limits {\"rate\":\"200Mbit/s\",\"direction\":\"send\",\"site\":\"montreal\",\"class\":\"backfill\",\
              \"when\":\"mon-tue 09:00-19:00\"}"
            ]
        );
    }

    #[test]
    fn what_is_written_wrongly_is_not_asked_for() {
        let daemon = FakeDaemon::start();
        for (line, expected) in [
            (vec!["limit", "set", "fast"], "write it like 200Mbit/s"),
            (vec!["limit", "set", "1MB/s", "--when", "noon"], "mon-fri 09:00-19:00"),
            (vec!["limit", "set", "1MB/s", "--class", "urgent"], "backfill"),
            (vec!["limit", "clear"], "ID"),
            (vec!["limit", "clear", "1", "--all"], "--all"),
        ] {
            let ran = daemon.run(&line);
            assert_eq!(ran.exit, 2, "{line:?}");
            assert!(ran.stderr.contains(expected), "{ran:?}");
        }
        assert!(daemon.requests().is_empty());
    }

    #[test]
    fn a_limit_is_cleared_by_its_id_or_with_all_others() {
        let daemon = FakeDaemon::start();
        daemon.on("DELETE /v1/limits/3", &reply(vec![item("3", LimitOrigin::Live)]));
        daemon.on("DELETE /v1/limits", &reply(Vec::new()));
        assert!(daemon.run(&["limit", "clear", "3"]).stderr.starts_with("limit 3 cleared: send 200Mbit/s"));
        assert_eq!(
            daemon.run(&["limit", "clear", "--all"]).stderr,
            "no limit cleared: none was set by command\n"
        );
        let refused = ApiError::new(ErrorCode::BadLimit, "limit config-1 stands in the configuration")
            .with_hint("edit the configuration and reload");
        daemon.refuse("DELETE /v1/limits/config-1", &refused);
        let ran = daemon.run(&["limit", "clear", "config-1"]);
        assert_eq!(ran.exit, 2);
        assert!(ran.stderr.contains("edit the configuration"), "{ran:?}");
    }
}
