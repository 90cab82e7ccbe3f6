//! Three sources with lines of 100 Mbit/s each, one receiver that could take more than all of them.

use std::{process::ExitCode, time::Duration};

use super::{
    Options,
    contender::Load,
    ends::{Ends, FAR, NEAR, settle_disk},
    ours::{daemon, publish, pull, write_version},
    programs,
    report::{self, Figures, Of},
    rsync,
};
use crate::{
    daemons::{Studio, tree},
    netem::{Pipe, Topology, may_emulate},
};

const LOAD: Load = Load { files: 1, bytes_each: 128 << 20 };
const SOURCE_MBIT: u64 = 100;
const SOURCES: [(&str, &str); 3] =
    [(NEAR, "ws1@london"), ("second", "srv@bristol"), ("third", "srv@archive")];
const ROUND_TRIP: Duration = Duration::from_millis(20);

/// Runs the shape.
pub fn run(options: &Options) -> ExitCode {
    if !may_emulate() {
        return ExitCode::from(2);
    }
    let links = tempfile::tempdir().expect("a directory for links");
    let studio = Studio::new(programs(links.path()));
    let line = Pipe::alike(SOURCE_MBIT, ROUND_TRIP, 0.0);
    let leaves = Topology { leaves: Vec::new(), seed: options.seed };
    // The lines are as fast to a source as from it; the receiver's own is not what limits.
    let topology = SOURCES.iter().fold(leaves, |topology, (leaf, _)| topology.with(leaf, line, Pipe::OPEN));
    let receiver = Pipe { rate: None, ..line };
    let ends = Ends::over(&topology.with(FAR, receiver, Pipe::OPEN));
    let first = daemon(&studio, &ends, NEAR, SOURCES[0].1, &[]);
    let second = daemon(&studio, &ends, SOURCES[1].0, SOURCES[1].1, &[&first]);
    let third = daemon(&studio, &ends, SOURCES[2].0, SOURCES[2].1, &[&first]);
    let far = daemon(&studio, &ends, FAR, "ws2@montreal", &[&first, &second, &third]);
    SOURCES.iter().for_each(|(_, node)| far.until_connected(node));
    let baseline = rsync::daemon(&ends, studio.dir(), "rsync-one-source", &[]);
    let mut figures = vec![Figures::new("ours")];
    figures.extend(baseline.iter().map(|_| Figures::new("rsync-one-source")));
    let everyone: Vec<&str> = SOURCES.iter().map(|(leaf, _)| *leaf).chain([FAR]).collect();
    for round in 1..=options.rounds {
        let subset = format!("cache{round}");
        let source = write_version(&first, &subset, options.seed + round as u64, LOAD);
        let reference = publish(&first, &far, &studio, &subset, "v001");
        for other in [&second, &third] {
            other.until("the version is known", |api| api.locate_one(&reference));
            assert!(pull(other, &studio, &reference, options.limit).is_some(), "{}", other.log());
        }
        for (_, node) in SOURCES {
            far.until_complete_at(&reference, node);
        }
        settle_disk();
        let before = ends.wire_bytes(&everyone);
        let time = pull(&far, &studio, &reference, options.limit);
        let after = ends.wire_bytes(&everyone);
        if time.is_some() {
            tree::assert_equal(&source, &far.path(&format!("assets/robot/publish/{subset}/v001")));
        }
        figures[0].times.extend(time);
        figures[0].wire_bytes.extend(before.zip(after).map(|(before, after)| after - before));
        if let Some(baseline) = &baseline {
            let target = studio.dir().join("copy");
            settle_disk();
            figures[1].times.extend(baseline.copy(&source, &target, options.limit));
            super::ends::remove(&target);
        }
    }
    let note =
        format!("{} MiB from three sources of {SOURCE_MBIT} Mbit/s, {ROUND_TRIP:?}", LOAD.bytes() >> 20);
    let limit = SOURCES.len() as f64 * SOURCE_MBIT as f64 * 1e6 / 8.0;
    report::print("multi-source", &note, LOAD, Some(limit), Of::Speed, &figures);
    ExitCode::SUCCESS
}
