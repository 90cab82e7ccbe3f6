//! How many bytes cross the wire for a second version when the first is there: ours against `rsync -z` with the same base.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use super::{
    Options,
    contender::Load,
    ends::{Ends, FAR, NEAR},
    ours::{daemon, publish, pull},
    programs,
    report::{self, Figures, Of},
    rsync,
};
use crate::{
    daemons::{Studio, tree},
    netem::{Pipe, Topology, may_emulate},
};

/// Where the show has the versions of its model.
const MODEL: &str = "assets/robot/publish/modelDefault";
/// The size of a generated file, as the show's own.
const GENERATED_BYTES: usize = 2_000_000;

/// Runs the shape: one table for each file, each with a subset of its own.
pub fn run(options: &Options) -> ExitCode {
    if !may_emulate() {
        return ExitCode::from(2);
    }
    let generated = tempfile::tempdir().expect("the disk has room");
    let source = options
        .source
        .clone()
        .map_or_else(|| generate(generated.path(), options.seed), |dir| dir.join(MODEL));
    let (old, new) = (source.join("v001"), source.join("v002"));
    let mut names: Vec<String> = fs::read_dir(&new)
        .unwrap_or_else(|error| panic!("--source has no {MODEL}/v002: {}: {error}", new.display()))
        .map(|entry| entry.expect("it was listed").file_name().to_string_lossy().into_owned())
        .filter(|name| old.join(name).is_file())
        .collect();
    names.sort();
    for name in names {
        measure(&name, &old.join(&name), &new.join(&name), options);
    }
    ExitCode::SUCCESS
}

/// Writes files whose second version has 1 % of its numbers changed and some inserted, as an exporter's has.
fn generate(dir: &Path, seed: u64) -> PathBuf {
    let noise = tree::noise(seed, GENERATED_BYTES / 8);
    let text = |changed: bool| {
        let line = |(number, bytes): (usize, &[u8])| {
            let [a, b, c] = [0, 1, 2].map(|at| f64::from(bytes[at]) / 255.0);
            let moved = if changed && number % 100 == 0 { 0.125 } else { 0.0 };
            let inserted = if changed && number % 5000 == 0 { "# moved\n" } else { "" };
            format!("{inserted}v {:.6} {b:.6} {c:.6}\n", a + moved)
        };
        noise.chunks_exact(3).enumerate().map(line).collect::<String>()
    };
    tree::write(&dir.join("v001/model.obj"), text(false).as_bytes());
    tree::write(&dir.join("v002/model.obj"), text(true).as_bytes());
    dir.to_owned()
}

fn measure(name: &str, old: &Path, new: &Path, options: &Options) {
    let mut figures: Vec<Figures> = Vec::new();
    for round in 1..=options.rounds {
        // Nodes of their own: to those of an earlier round version 2 is content that they have.
        let measured = one_round(name, old, new, options);
        if round == 1 {
            figures.extend(measured);
        } else {
            for (all, one) in figures.iter_mut().zip(measured) {
                all.times.extend(one.times);
                all.wire_bytes.extend(one.wire_bytes);
            }
        }
    }
    let bytes = fs::metadata(new).expect("it was listed").len();
    let note = format!(
        "{name}, {bytes} bytes, version 1 is there; ratios are of wire bytes, packet headers included"
    );
    report::print("delta", &note, Load { files: 1, bytes_each: bytes }, None, Of::WireBytes, &figures);
}

fn one_round(name: &str, old: &Path, new: &Path, options: &Options) -> Vec<Figures> {
    let links = tempfile::tempdir().expect("a directory for links");
    let studio = Studio::new(programs(links.path()));
    let open = Topology { leaves: Vec::new(), seed: options.seed };
    // As fast as the machine: only the bytes count.
    let ends = Ends::over(&open.with(NEAR, Pipe::OPEN, Pipe::OPEN).with(FAR, Pipe::OPEN, Pipe::OPEN));
    let near = daemon(&studio, &ends, NEAR, "ws1@london", &[]);
    let far = daemon(&studio, &ends, FAR, "srv@montreal", &[&near]);
    far.until_connected("ws1@london");
    // The second version may have the size and the time of the first: rsync would not look at it.
    let plain = rsync::daemon(&ends, studio.dir(), "rsync", &["-I"]);
    let packed = rsync::daemon(&ends, studio.dir(), "rsync-z", &["-I", "-z"]);
    let baselines: Vec<_> = plain.into_iter().chain(packed).collect();
    let mut figures = vec![Figures::new("ours")];
    figures.extend(baselines.iter().map(|rsync| Figures::new(super::contender::Contender::name(rsync))));
    let subset = "model";
    let put = |version: &str, from: &Path| {
        let dir = near.path(&format!("assets/robot/publish/{subset}/{version}"));
        // An entry that Avalon would load: named for the subset.
        let ending = name.rsplit('.').next().unwrap_or(name);
        tree::copy_file(from, &dir.join(format!("{subset}.{ending}")));
        (dir, publish(&near, &far, &studio, subset, version))
    };
    let (old_dir, first) = put("v001", old);
    assert!(pull(&far, &studio, &first, options.limit).is_some(), "{}", far.log());
    let (new_dir, second) = put("v002", new);
    let before = ends.wire_bytes(&[NEAR, FAR]);
    let time = pull(&far, &studio, &second, options.limit);
    let after = ends.wire_bytes(&[NEAR, FAR]);
    figures[0].times.extend(time);
    figures[0].wire_bytes.extend(before.zip(after).map(|(before, after)| after - before));
    tree::assert_equal(&new_dir, &far.path(&format!("assets/robot/publish/{subset}/v002")));
    for (rsync, figures) in baselines.iter().zip(&mut figures[1..]) {
        let target = studio.dir().join(format!("base-{}", figures.name));
        tree::copy(&old_dir, &target);
        let before = ends.wire_bytes(&[NEAR, FAR]);
        figures.times.extend(rsync.copy(&new_dir, &target, options.limit));
        let after = ends.wire_bytes(&[NEAR, FAR]);
        figures.wire_bytes.extend(before.zip(after).map(|(before, after)| after - before));
        super::ends::remove(&target);
    }
    figures
}
