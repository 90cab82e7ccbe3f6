//! `avalonctl pin`, `unpin` and `pins`: what is to stay at this node, whatever room is needed.

use avalon_protocol::{
    control::{ErrorCode, PinRequest, PinsReply, route},
    exit_code::ExitCode,
};
use clap::Args;

use crate::{
    context::{Context, with_hint},
    escape::escape,
    failure::Failure,
    table::{self, Cell},
};

/// Arguments of `pin` and `unpin`.
#[derive(Debug, Args)]
pub(crate) struct PinArgs {
    /// Which versions; globs are allowed and mean what is there now.
    #[arg(value_name = "REF", required = true)]
    refs: Vec<String>,
}

/// Arguments of `pins`.
#[derive(Debug, Args)]
pub(crate) struct PinsArgs {}

/// What is done with pins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// Versions are to stay.
    Pin,
    /// They need not any more.
    Unpin,
}

/// Pins or unpins versions.
pub(crate) async fn run(context: &Context<'_>, args: &PinArgs, change: Change) -> Result<ExitCode, Failure> {
    let request = PinRequest {
        refs: args.refs.clone(),
        project: context.project.clone(),
        unpin: change == Change::Unpin,
    };
    let asked = context.client.post(route::PINS, &request).await;
    let reply: PinsReply = asked
        .map_err(|error| with_hint(error.into(), ErrorCode::NotFound, "list what exists: avalonctl ls"))?;
    if context.output.is_json() {
        context.output.json(&reply);
        return Ok(ExitCode::Ok);
    }
    let (done, none) = match change {
        Change::Pin => ("pinned", "nothing to do: all of them are pinned already"),
        Change::Unpin => ("unpinned", "nothing to do: none of them is pinned"),
    };
    if reply.pins.is_empty() {
        context.output.talk(none);
    }
    for pin in &reply.pins {
        context.output.talk(&format!("{} {done}", escape(&pin.reference)));
    }
    Ok(ExitCode::Ok)
}

/// Lists what is pinned.
pub(crate) async fn list(context: &Context<'_>) -> Result<ExitCode, Failure> {
    let reply: PinsReply = context.client.get(route::PINS, &[]).await?;
    if context.output.is_json() {
        context.output.json(&reply);
        return Ok(ExitCode::Ok);
    }
    if reply.pins.is_empty() {
        context.output.talk("nothing is pinned at this node");
    }
    let row = |pin: &avalon_protocol::control::PinItem| {
        vec![Cell::text(&pin.reference), Cell::text(&pin.by), Cell::text(&pin.since)]
    };
    table::print(context.output, &["VERSION", "BY", "SINCE"], reply.pins.iter().map(row).collect());
    Ok(ExitCode::Ok)
}

#[cfg(test)]
mod tests {
    use avalon_protocol::control::PinItem;

    use super::*;
    use crate::fake::FakeDaemon;

    fn reply(pins: &[&str]) -> PinsReply {
        let pin = |reference: &&str| PinItem {
            reference: (*reference).into(),
            by: "anna".into(),
            since: "2026-11-22T20:00:00Z".into(),
        };
        PinsReply { schema: "avalonctl.pins/1".into(), pins: pins.iter().map(pin).collect() }
    }

    #[test]
    fn versions_are_pinned_unpinned_and_listed() {
        let daemon = FakeDaemon::start();
        daemon.on("POST /v1/pins", &reply(&["lantern:robot/modelDefault@v001"]));
        let ran = daemon.run(&["pin", "robot/modelDefault@v001"]);
        assert_eq!((ran.exit, ran.stderr.as_str()), (0, "lantern:robot/modelDefault@v001 pinned\n"));
        let ran = daemon.run(&["unpin", "robot/modelDefault@v001"]);
        assert_eq!(ran.stderr, "lantern:robot/modelDefault@v001 unpinned\n");
        let asked = daemon.requests();
        assert!(asked[0].ends_with("\"unpin\":false}") && asked[1].ends_with("\"unpin\":true}"), "{asked:?}");
        daemon.on("GET /v1/pins", &reply(&["lantern:robot/modelDefault@v001"]));
        let ran = daemon.run(&["pins"]);
        assert_eq!(ran.stdout, "lantern:robot/modelDefault@v001\tanna\t2026-11-22T20:00:00Z\n");
        assert_eq!(daemon.run(&["pins", "--json"]).json()["schema"], "avalonctl.pins/1");
    }

    #[test]
    fn nothing_to_do_is_told() {
        let daemon = FakeDaemon::start();
        daemon.on("POST /v1/pins", &reply(&[]));
        daemon.on("GET /v1/pins", &reply(&[]));
        assert!(daemon.run(&["pin", "a/b"]).stderr.contains("pinned already"));
        assert!(daemon.run(&["unpin", "a/b"]).stderr.contains("none of them"));
        assert!(daemon.run(&["pins"]).stderr.starts_with("nothing is pinned"));
    }
}
