//! `avalonctl verify [VERSION|PROJECT...]`: all bytes of what is here are read again and compared with what was published.
//!
//! The daemon does the work. This command watches, so it can be interrupted without harm: the reading goes on.

use std::time::Duration;

use avalon_protocol::{
    control::{DamageKind, DamagedFile, RepairState, VerifyRequest, VerifyState, VerifyStatus, route},
    exit_code::ExitCode,
};
use clap::Args;
use serde_json::json;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::{
    client::percent_encode,
    context::Context,
    escape::escape,
    failure::Failure,
    measure::{count, duration, percent, rate, size},
};

/// How often the daemon is asked how far it is.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// How often progress is told.
const TELL_AGAIN: Duration = Duration::from_secs(5);

/// Arguments of `verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Which versions, with globs, or which projects; all that this node holds without.
    #[arg(value_name = "VERSION|PROJECT")]
    what: Vec<String>,
    /// Fetch again what is damaged, from a node that has it; the damaged file is kept in the trash.
    #[arg(long)]
    repair: bool,
    /// Return at once; the daemon goes on.
    #[arg(long)]
    detach: bool,
    /// End a reading that goes on.
    #[arg(long, value_name = "ID", conflicts_with_all = ["what", "repair", "detach"])]
    cancel: Option<String>,
}

/// Has versions read again.
pub(crate) async fn run(context: &Context<'_>, args: &VerifyArgs) -> Result<ExitCode, Failure> {
    if let Some(id) = &args.cancel {
        let status: VerifyStatus = context.client.delete(&target(id)).await?;
        show(context, &status);
        return Ok(ExitCode::Ok);
    }
    let request =
        VerifyRequest { refs: args.what.clone(), project: context.project.clone(), repair: args.repair };
    let mut status: VerifyStatus = context.client.post(route::VERIFY, &request).await?;
    if args.detach {
        match context.output.is_json() {
            true => context.output.json(&status),
            false => context.output.data(&escape(&status.id)),
        }
        return Ok(ExitCode::Ok);
    }
    let mut ticks = interval(ASK_AGAIN);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = Instant::now();
    while status.state == VerifyState::Running {
        tokio::select! {
            _ = ticks.tick() => status = context.client.get(&target(&status.id), &[]).await?,
            () = context.interrupt.wait() => {
                let id = escape(&status.id);
                context.output.talk(&format!("it goes on in the daemon; to end it: avalonctl verify --cancel {id}"));
                return Ok(ExitCode::Interrupted);
            }
        }
        if told.elapsed() >= TELL_AGAIN {
            told = Instant::now();
            progress(context, &status);
        }
    }
    show(context, &status);
    Ok(exit_of(&status))
}

fn target(id: &str) -> String {
    format!("{}/{}", route::VERIFY, percent_encode(id))
}

fn progress(context: &Context<'_>, status: &VerifyStatus) {
    if context.output.is_json() {
        context.output.json(&json!({
            "type": "progress",
            "versions_done": status.versions_done,
            "versions_total": status.versions_total,
            "bytes_done": status.bytes_done,
            "bytes_total": status.bytes_total,
            "damaged": status.damaged.len() as u64 + status.damaged_more,
        }));
        return;
    }
    let current =
        status.current.as_deref().map(|version| format!(", {}", escape(version))).unwrap_or_default();
    context.output.talk(&format!(
        "{} % of {}, {} of {}{current}",
        percent(status.bytes_done, status.bytes_total),
        size(status.bytes_total),
        status.versions_done,
        count(status.versions_total, "version"),
    ));
}

fn show(context: &Context<'_>, status: &VerifyStatus) {
    if context.output.is_json() {
        context.output.json(status);
        return;
    }
    for file in &status.damaged {
        context.output.data(&line(file));
    }
    if status.damaged_more > 0 {
        context.output.talk(&format!("and {} more are not listed", status.damaged_more));
    }
    for unread in &status.unread {
        context.output.talk(&format!("not verified: {}", escape(unread)));
    }
    #[expect(clippy::cast_precision_loss, reason = "a rate for people")]
    let fast = status.bytes_done as f64 / status.seconds.max(0.001);
    let ended = if status.state == VerifyState::Cancelled { "ended after" } else { "read" };
    let found = match status.damaged.len() as u64 + status.damaged_more {
        0 => "all as it was published".to_owned(),
        bad => format!("{} not as published", count(bad, "file")),
    };
    context.output.talk(&format!(
        "{ended} {}, {} in {} ({}): {found}",
        count(status.versions_done, "version"),
        size(status.bytes_done),
        duration(status.seconds),
        rate(fast),
    ));
    let can_be_fetched = |file: &DamagedFile| {
        file.repair == RepairState::None && (file.damage.is_of_disk() || file.damage == DamageKind::Missing)
    };
    if !status.repair && status.damaged.iter().any(can_be_fetched) {
        context.output.talk("to fetch again what the disk damaged: the same with --repair");
    }
}

fn line(file: &DamagedFile) -> String {
    let repair = match file.repair {
        RepairState::None => "not repaired",
        RepairState::NoCopy => "no other copy",
        RepairState::Waiting => "waits for a copy",
        RepairState::Fetching => "being fetched",
        RepairState::Repaired => "repaired",
        RepairState::Failed => "not repaired",
    };
    let why = file.reason.as_deref().unwrap_or(&file.detail);
    let (reference, path) = (escape(&file.reference), escape(&file.path));
    format!("{reference}\t{path}\t{}\t{repair}\t{}", file.damage.as_str(), escape(why))
}

fn exit_of(status: &VerifyStatus) -> ExitCode {
    let is_mended = |file: &DamagedFile| file.repair == RepairState::Repaired;
    match (status.damaged.iter().all(is_mended) && status.damaged_more == 0, status.unread.is_empty()) {
        (false, _) => ExitCode::Integrity,
        (true, false) => ExitCode::Partial,
        (true, true) => ExitCode::Ok,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::FakeDaemon;

    fn status(state: VerifyState, damaged: Vec<DamagedFile>) -> VerifyStatus {
        VerifyStatus {
            schema: "avalonctl.verify/1".into(),
            id: "7".into(),
            state,
            repair: false,
            versions_total: 2,
            versions_done: if state == VerifyState::Running { 1 } else { 2 },
            bytes_total: 2 << 20,
            bytes_done: if state == VerifyState::Running { 1 << 20 } else { 2 << 20 },
            seconds: 2.0,
            current: None,
            damaged,
            damaged_more: 0,
            unread: Vec::new(),
        }
    }

    fn rotted(repair: RepairState) -> DamagedFile {
        DamagedFile {
            reference: "lantern:robot/modelDefault@v001".into(),
            manifest: "m".into(),
            path: "assets/robot/a.abc".into(),
            damage: DamageKind::Rot,
            detail: "its bytes are not what was published".into(),
            repair,
            reason: None,
        }
    }

    #[test]
    fn it_waits_until_all_is_read_and_says_that_all_is_well() {
        let daemon = FakeDaemon::start();
        daemon.on("POST /v1/verify", &status(VerifyState::Running, vec![]));
        daemon.on("GET /v1/verify/7", &status(VerifyState::Running, vec![]));
        daemon.on("GET /v1/verify/7", &status(VerifyState::Done, vec![]));
        let ran = daemon.run(&["verify", "lantern", "robot/*"]);
        assert_eq!((ran.exit, ran.stdout.as_str()), (0, ""));
        assert_eq!(ran.stderr, "read 2 versions, 2.0 MiB in 2.0s (1.0 MiB/s): all as it was published\n");
        let asked = &daemon.requests()[0];
        assert!(asked.contains("lantern") && asked.contains("\"repair\":false"), "{asked}");
    }

    #[test]
    fn what_is_damaged_is_a_line_and_an_exit_code_unless_it_was_repaired() {
        for (repair, word, exit) in [
            (RepairState::None, "not repaired", 8),
            (RepairState::NoCopy, "no other copy", 8),
            (RepairState::Waiting, "waits for a copy", 8),
            (RepairState::Repaired, "repaired", 0),
        ] {
            let daemon = FakeDaemon::start();
            daemon.on("POST /v1/verify", &status(VerifyState::Done, vec![rotted(repair)]));
            let ran = daemon.run(&["verify"]);
            let line = format!(
                "lantern:robot/modelDefault@v001\tassets/robot/a.abc\trot\t{word}\tits bytes are not what was published\n"
            );
            assert_eq!((ran.exit, ran.stdout), (exit, line));
            let json = daemon.run(&["verify", "--json"]).json();
            assert_eq!(json["damaged"][0]["damage"], "rot");
        }
        let daemon = FakeDaemon::start();
        let unread = vec!["lantern:a/b@v001: somebody writes there".to_owned()];
        daemon.on("POST /v1/verify", &VerifyStatus { unread, ..status(VerifyState::Done, vec![]) });
        assert_eq!(daemon.run(&["verify"]).exit, 3);
    }

    #[test]
    fn it_goes_on_when_interrupted_and_can_be_ended() {
        let daemon = FakeDaemon::start();
        daemon.on("POST /v1/verify", &status(VerifyState::Running, vec![]));
        daemon.on("GET /v1/verify/7", &status(VerifyState::Running, vec![]));
        daemon.on("DELETE /v1/verify/7", &status(VerifyState::Cancelled, vec![]));
        let line = crate::fake::Line { is_interrupted: true, ..daemon.line(&["verify", "--repair"]) };
        let ran = line.run();
        assert_eq!(ran.exit, 130);
        assert!(ran.stderr.contains("avalonctl verify --cancel 7"), "{ran:?}");
        assert_eq!(daemon.run(&["verify", "--detach"]).stdout, "7\n");
        let ran = daemon.run(&["verify", "--cancel", "7"]);
        assert!(ran.stderr.starts_with("ended after 2 versions"), "{ran:?}");
    }
}
