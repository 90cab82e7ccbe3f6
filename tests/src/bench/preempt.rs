//! How long a waiting artist waits for the first bytes while a backfill fills the link, and for all of a small version.

use std::{
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use avalon_protocol::{control::JobStatus, mode::ProjectMode};
use serde_json::json;

use super::{
    Options,
    contender::Load,
    ends::{Ends, FAR, NEAR, until},
    ours::{daemon, write_version},
    programs, spread,
};
use crate::{
    daemons::{PROJECT, Studio},
    netem::{may_emulate, wan},
};

/// More than the link carries while the benchmark runs.
const BACKFILL: Load = Load { files: 1, bytes_each: 2 << 30 };
const WANTED: Load = Load { files: 1, bytes_each: 16 << 20 };

/// Runs the shape.
pub fn run(options: &Options) -> ExitCode {
    if !may_emulate() {
        return ExitCode::from(2);
    }
    let links = tempfile::tempdir().expect("a directory for links");
    let studio = Studio::new(programs(links.path()));
    let ends = Ends::over(&wan(500, 20, 0.0));
    let near = daemon(&studio, &ends, NEAR, "ws1@london", &[]);
    let publish = |subset: &str| {
        let mut command = Command::new(&studio.programs().avalonctl);
        command.arg("--socket").arg(&near.config.socket).args(["--quiet", "publish"]);
        command.arg(near.path(&format!("assets/robot/publish/{subset}/v001")));
        assert!(super::ends::timed(&mut command, options.limit).is_some(), "{}", near.log());
    };
    write_version(&near, "backfill", options.seed, BACKFILL);
    publish("backfill");
    for round in 1..=options.rounds {
        write_version(&near, &format!("wanted{round}"), options.seed + round as u64, WANTED);
    }
    // A mirror fetches what was published before it came: that is a backfill. It is a receiver of the artist's too.
    let mut far = studio.node("srv@montreal", ProjectMode::Mirror);
    far.config.listen = format!("{}:0", ends.address(FAR));
    far.config.peers = vec![near.listen()];
    far.set_env("AVALOND_LOG", "avalond=info");
    far.set_network(ends.namespace(FAR).expect("a link"));
    far.start();
    far.until("the backfill flows", |api| {
        api.jobs().iter().any(|job| job.bytes_received > 1 << 20).then_some(())
    });
    let (mut first, mut whole, mut flows) = (Vec::new(), Vec::new(), true);
    for round in 1..=options.rounds {
        let subset = format!("wanted{round}");
        let reference = format!("{PROJECT}:robot/{subset}@v001");
        publish(&subset);
        assert!(until(options.limit, || far.api().locate_one(&reference).is_some()), "{}", far.log());
        let start = Instant::now();
        let mut pull = Command::new(&studio.programs().avalonctl)
            .args(["--socket", &far.config.socket.to_string_lossy(), "--quiet", "pull", &reference])
            .spawn()
            .expect("avalonctl starts");
        let job = || far.api().jobs().into_iter().find(|job| job.reference == reference);
        let has_bytes = |job: &JobStatus| job.bytes_present > 0;
        if until(options.limit, || job().as_ref().is_some_and(has_bytes)) {
            first.push(start.elapsed());
        }
        let mut ended = None;
        until(options.limit, || {
            ended = pull.try_wait().expect("it is our child");
            ended.is_some()
        });
        whole.extend(ended.filter(std::process::ExitStatus::success).map(|_| start.elapsed()));
        pull.kill().and_then(|()| pull.wait()).ok();
        flows &=
            far.api().jobs().iter().any(|job| job.reference.contains("backfill") && !job.state.is_final());
    }
    print(&first, &whole, flows);
    ExitCode::SUCCESS
}

fn print(first: &[Duration], whole: &[Duration], flows: bool) {
    let ((median, least, most), (all, ..)) = (spread(first), spread(whole));
    println!("preempt: a pull of 16 MiB during a backfill of 2 GiB, 500 Mbit/s, 20 ms round trip");
    println!(
        "first bytes here: median {median:.3} s, least {least:.3}, most {most:.3}; all of it: {all:.3} s"
    );
    if !flows {
        println!("the backfill ended before the benchmark: these figures say nothing");
    }
    let value = |value: f64| if value.is_finite() { json!(value) } else { json!(null) };
    let line = json!({
        "schema": "avalon.bench/1",
        "shape": "preempt",
        "ours": { "seconds": value(median), "least": value(least), "most": value(most), "whole_seconds": value(all) },
        "baselines": {},
        "ratio": { "limit": value(median / 1.0) },
    });
    println!("{line}");
}
