//! The shapes that move one version from near to far: large or small files, on loopback or over an emulated link.

use std::{process::ExitCode, time::Duration};

use super::{
    Options,
    contender::{Contender, Load, Round},
    cpu::{Cpu, peak_bytes},
    ends::{Ends, FAR, NEAR, remove, settle_disk},
    ours::Ours,
    programs,
    raw_quinn::RawQuinn,
    report::{self, Figures, Of},
    rsync,
    syncthing::Syncthing,
};
use crate::{
    daemons::Studio,
    netem::{may_emulate, wan},
};

/// The link of the shapes that go far: Mbit/s, round trip in ms, loss.
const WAN: (u64, u64, f64) = (500, 80, 0.001);
const LARGE_LAN: Load = Load { files: 1, bytes_each: 1 << 30 };
const SMALL_LAN: Load = Load { files: 20_000, bytes_each: 8 << 10 };
const LARGE_WAN: Load = Load { files: 1, bytes_each: 256 << 20 };
const SMALL_WAN: Load = Load { files: 2_000, bytes_each: 8 << 10 };
/// Two seconds of the link: enough to leave slow start behind at 200 ms, and little enough for twelve cells.
const GRID: Load = Load { files: 1, bytes_each: 128 << 20 };

/// Whom ours is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Against {
    All,
    RsyncAndQuinn,
}

/// Runs a shape by its name; nothing when it is not one of these.
pub fn run(shape: &str, options: &Options) -> Option<ExitCode> {
    let (load, link) = match shape {
        "lan-large" => (LARGE_LAN, None),
        "lan-small" => (SMALL_LAN, None),
        "wan-large" => (LARGE_WAN, Some(WAN)),
        "wan-small" => (SMALL_WAN, Some(WAN)),
        "grid" => return Some(grid(options)),
        _ => return None,
    };
    if link.is_some() && !may_emulate() {
        return Some(ExitCode::from(2));
    }
    measure(shape, load, link, options, Against::All);
    Some(ExitCode::SUCCESS)
}

fn grid(options: &Options) -> ExitCode {
    if !may_emulate() {
        return ExitCode::from(2);
    }
    for loss in [0.0, 0.001, 0.01] {
        for rtt in [1, 20, 80, 200] {
            let name = format!("grid-{rtt}ms-{}%", loss * 100.0);
            measure(&name, GRID, Some((500, rtt, loss)), options, Against::RsyncAndQuinn);
        }
    }
    ExitCode::SUCCESS
}

fn measure(shape: &str, load: Load, link: Option<(u64, u64, f64)>, options: &Options, against: Against) {
    let links = tempfile::tempdir().expect("a directory for links");
    let studio = Studio::new(programs(links.path()));
    let ends = match link {
        Some((mbit, rtt, loss)) => Ends::over(&wan(mbit, rtt, loss)),
        None => Ends::loopback(),
    };
    let mut ours = Ours::start(&studio, &ends);
    let mut others = baselines(&studio, &ends, load, against, &options.only);
    let mut figures = vec![Figures::new("ours")];
    figures.extend(others.iter().map(|other| Figures::new(other.name())));
    for number in 1..=options.rounds {
        let source = ours.prepare(number, options.seed + number as u64, load);
        let target = studio.dir().join("copies");
        let round = Round { number, source: &source, target: target.clone(), load, limit: options.limit };
        let all = std::iter::once(&mut ours as &mut dyn Contender)
            .chain(others.iter_mut().map(|other| &mut **other as &mut dyn Contender));
        for (contender, figures) in all.zip(&mut figures) {
            settle_disk();
            let servers = contender.servers();
            let before = ends.wire_bytes(&[NEAR, FAR]);
            let cpu = Cpu::read(&servers);
            let time = contender.fetch(&round);
            let cpu = Cpu::read(&servers).since(&cpu);
            let after = ends.wire_bytes(&[NEAR, FAR]);
            if let Some(time) = time {
                println!("round {number}: {} {:.3} s, processor {cpu:.2?}", figures.name, time.as_secs_f64());
                figures.cpu.push(cpu.iter().sum());
                figures.peak_bytes = servers.iter().filter_map(|pid| peak_bytes(*pid)).collect();
                figures.times.push(time);
                figures.wire_bytes.extend(before.zip(after).map(|(before, after)| after - before));
            }
            remove(&target);
        }
    }
    let note = match link {
        Some((mbit, rtt, loss)) => format!("{mbit} Mbit/s, {rtt} ms round trip, {} % loss", loss * 100.0),
        None => "loopback".into(),
    };
    let note = format!("{} file(s) of {} bytes, {note}", load.files, load.bytes_each);
    let limit = link.map(|(mbit, ..)| mbit as f64 * 1e6 / 8.0);
    report::print(shape, &note, load, limit, Of::Speed, &figures);
}

fn baselines<'a>(
    studio: &Studio,
    ends: &'a Ends,
    load: Load,
    against: Against,
    only: &[String],
) -> Vec<Box<dyn Contender + 'a>> {
    let mut all: Vec<Box<dyn Contender + 'a>> = Vec::new();
    let mut add = |contender: Option<Box<dyn Contender + 'a>>| all.extend(contender);
    let wanted = |name: &str| only.is_empty() || only.iter().any(|start| name.starts_with(start.as_str()));
    let everybody = against == Against::All;
    if wanted("rsync") {
        add(boxed(rsync::daemon(ends, studio.dir(), "rsync", &[])));
    }
    if everybody && wanted("rsync-fsync") {
        add(boxed(rsync::daemon(ends, studio.dir(), "rsync-fsync", &["--fsync"])));
    }
    if everybody && wanted("rsync-ssh") {
        add(boxed(rsync::over_ssh(ends, studio.dir())));
    }
    if everybody && wanted("syncthing") {
        add(boxed(Syncthing::start(ends, studio.dir())));
    }
    if load.files == 1 && wanted("raw-quinn-bbr") {
        add(boxed(Some(RawQuinn::start(studio, ends, "bbr", load.bytes()))));
    }
    // CUBIC does not get far where packets are lost; it would take minutes for each round.
    if load.files == 1 && everybody && wanted("raw-quinn-cubic") {
        add(boxed(Some(RawQuinn::start(studio, ends, "cubic", load.bytes()))));
    }
    all
}

fn boxed<'a, T: Contender + 'a>(contender: Option<T>) -> Option<Box<dyn Contender + 'a>> {
    contender.map(|contender| Box::new(contender) as Box<dyn Contender + 'a>)
}

/// Whoever takes longer is left out.
pub const LIMIT: Duration = Duration::from_secs(120);
