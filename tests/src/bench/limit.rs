//! How near to its figure a limit keeps what it limits, on either side.

use std::{
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use avalon_protocol::{
    control::{LimitRequest, LimitsReply, route},
    limit::{Direction, Rate},
};
use serde_json::{Value, json};

use super::{
    Options,
    contender::Load,
    ends::{Ends, FAR, NEAR, until},
    ours::{daemon, publish, write_version},
    programs, spread,
};
use crate::daemons::{Studio, daemon::Daemon};

/// Rates, and how much flows: seconds of it.
const RATES: [(&str, u64); 3] = [("10MiB/s", 64 << 20), ("100MiB/s", 256 << 20), ("200Mbit/s", 64 << 20)];

/// Runs the shape.
pub fn run(options: &Options) -> ExitCode {
    let links = tempfile::tempdir().expect("a directory for links");
    let studio = Studio::new(programs(links.path()));
    let ends = Ends::loopback();
    let near = daemon(&studio, &ends, NEAR, "ws1@london", &[]);
    let far = daemon(&studio, &ends, FAR, "srv@montreal", &[&near]);
    far.until_connected("ws1@london");
    println!("\nlimit: over loopback, the rate while content flows by the limit");
    let (mut number, mut rows) = (0, Vec::new());
    for (rate, bytes_each) in RATES {
        let load = Load { files: 1, bytes_each };
        for (limited, direction) in [(&near, Direction::Send), (&far, Direction::Receive)] {
            let mut ratios = Vec::new();
            set(limited, rate, direction);
            for _ in 0..options.rounds {
                number += 1;
                let subset = format!("cache{number}");
                write_version(&near, &subset, options.seed + number, load);
                let reference = publish(&near, &far, &studio, &subset, "v001");
                ratios.extend(flow((&far, &studio), &reference, (rate, load), options));
            }
            limited.ctl(&["--quiet", "limit", "clear", "--all"]);
            rows.push(row(rate, direction, &ratios));
        }
    }
    let line = json!({ "schema": "avalon.bench/1", "shape": "limit", "ours": rows, "baselines": {} });
    println!("{line}");
    ExitCode::SUCCESS
}

fn set(daemon: &Daemon, rate: &str, direction: Direction) {
    let request =
        LimitRequest { rate: rate.into(), direction: Some(direction), site: None, class: None, when: None };
    let _set: LimitsReply = daemon.api().post(route::LIMITS, &request).expect("the daemon takes the limit");
}

/// Pulls, and returns the rate of the middle part, by the limit.
fn flow(
    (far, studio): (&Daemon, &Studio),
    reference: &str,
    (rate, load): (&str, Load),
    options: &Options,
) -> Option<f64> {
    let limit = rate.parse::<Rate>().expect("a rate").bytes_per_second as f64;
    let mut samples = Vec::new();
    let start = Instant::now();
    let mut pull = Command::new(&studio.programs().avalonctl)
        .arg("--socket")
        .arg(&far.config.socket)
        .args(["--quiet", "pull", reference])
        .spawn()
        .expect("avalonctl starts");
    let ended = until(options.limit, || {
        let job = far.api().jobs().into_iter().find(|job| job.reference == reference);
        samples.extend(job.map(|job| (start.elapsed().as_secs_f64(), job.bytes_received as f64)));
        pull.try_wait().expect("it is our child").is_some()
    });
    if !ended {
        pull.kill().and_then(|()| pull.wait()).ok();
        return None;
    }
    Some(slope(&samples, load.bytes() as f64)? / limit)
}

/// The slope of the line of least squares through the samples between a tenth and nine tenths of the content, in bytes a second:
/// whole blocks are counted, several at once, and between two samples alone that is some percent.
fn slope(samples: &[(f64, f64)], all: f64) -> Option<f64> {
    let middle: Vec<_> =
        samples.iter().filter(|sample| (0.1..0.9).contains(&(sample.1 / all))).copied().collect();
    let count = middle.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| middle.iter().map(of).sum::<f64>() / count;
    let (time, bytes) = (mean(|sample| sample.0), mean(|sample| sample.1));
    let both: f64 = middle.iter().map(|sample| (sample.0 - time) * (sample.1 - bytes)).sum();
    let spread: f64 = middle.iter().map(|sample| (sample.0 - time).powi(2)).sum();
    (spread > 0.0).then_some(both / spread)
}

fn row(rate: &str, direction: Direction, ratios: &[f64]) -> Value {
    let times: Vec<_> = ratios.iter().map(|ratio| Duration::from_secs_f64(*ratio)).collect();
    let (median, least, most) = spread(&times);
    println!("{rate:>10} {direction:<8} median {median:.4}, least {least:.4}, most {most:.4}");
    json!({ "rate": rate, "direction": direction, "median": median, "least": least, "most": most })
}
