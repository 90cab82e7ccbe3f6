//! How fast files are hashed with their block values, against `b3sum` and plain BLAKE3 over a mapping, warm.

use std::{
    fs,
    num::NonZeroUsize,
    process::ExitCode,
    time::{Duration, Instant},
};

use avalon_store::{fs::Dir, object::hash::Hasher};

use super::{
    Options,
    contender::Load,
    ends::{is_installed, timed},
    report::{self, Figures, Of},
};
use crate::daemons::tree;

/// One cache and many frames, each 512 MiB in all.
const LOADS: [(&str, Load); 2] = [
    ("hash-large", Load { files: 1, bytes_each: 512 << 20 }),
    ("hash-small", Load { files: 8192, bytes_each: 64 << 10 }),
];

/// Runs the shape.
pub fn run(options: &Options) -> ExitCode {
    for (shape, load) in LOADS {
        measure(shape, load, options);
    }
    ExitCode::SUCCESS
}

fn measure(shape: &str, load: Load, options: &Options) {
    let temp = tempfile::tempdir().expect("the disk has room");
    let names: Vec<String> = (0..load.files).map(|number| format!("f{number:06}")).collect();
    for (number, name) in (0..).zip(&names) {
        tree::write_noise(&temp.path().join(name), options.seed + number, load.bytes_each);
    }
    let dir = Dir::open(temp.path()).expect("it was just made");
    let paths: Vec<_> = names.iter().map(|name| name.parse().expect("a plain name")).collect();
    let threads = std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let hasher = Hasher::new(threads).expect("threads");
    let mut figures = [Figures::new("ours"), Figures::new("blake3-mmap-rayon"), Figures::new("b3sum")];
    let has_b3sum = is_installed("b3sum");
    // The first round fills the page cache and is not counted.
    for round in 0..=options.rounds {
        let mut times = [None; 3];
        times[0] = Some(clock(|| {
            let hashed = hasher.hash_files(&dir, &paths, &|_| ());
            assert!(hashed.iter().all(Result::is_ok), "the files are there");
        }));
        times[1] = Some(clock(|| {
            for name in &names {
                let mut hasher = blake3::Hasher::new();
                hasher.update_mmap_rayon(temp.path().join(name)).expect("the file is there");
                std::hint::black_box(hasher.finalize());
            }
        }));
        if has_b3sum {
            let mut command = std::process::Command::new("b3sum");
            times[2] = timed(command.current_dir(temp.path()).args(&names), options.limit);
        }
        if round > 0 {
            figures.iter_mut().zip(times).for_each(|(figures, time)| figures.times.extend(time));
        }
    }
    let note = format!("{} file(s) of {} bytes, {threads} threads, warm", load.files, load.bytes_each);
    let measured = if has_b3sum { &figures[..] } else { &figures[..2] };
    report::print(shape, &note, load, None, Of::Speed, measured);
    fs::remove_dir_all(temp.path()).ok();
}

fn clock(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}
