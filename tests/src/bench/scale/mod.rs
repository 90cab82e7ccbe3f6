//! How large a studio one daemon carries: a catalog of many versions, built anew, opened again after a SIGKILL, asked, and told to
//! a node that is new. The growth of each figure from one size to the next shows what grows with the catalog.

mod generate;
mod measure;
pub mod watch;

use std::{io::Write as _, process::ExitCode};

use avalon_protocol::mode::ProjectMode;
use serde_json::json;

use self::{
    generate::{Plan, generate},
    measure::{Figures, measure},
};
use super::programs;
use crate::{cgroup::Cgroup, daemons::Studio};

const USAGE: &str = "\
usage: bench scale [--versions N,N] [--files-per-version N] [--records-per-group N] [--held] [--cgroup MIB] [--no-sync]
Each size has a studio of its own in the temporary directory. With --held the server holds every version: its tree has the files,
as holes, so that 1,000,000 of them need inodes and no room. --cgroup limits the memory of the daemons (version 1, root).";

struct Options {
    versions: Vec<u64>,
    files: u64,
    group: u64,
    is_held: bool,
    limit_mib: Option<u64>,
    syncs: bool,
}

impl Options {
    fn read(args: &[String]) -> Option<Self> {
        let mut options = Self {
            versions: vec![10_000, 100_000],
            files: 10,
            group: 1,
            is_held: false,
            limit_mib: None,
            syncs: true,
        };
        let mut args = args.iter();
        while let Some(name) = args.next() {
            match name.as_str() {
                "--held" => options.is_held = true,
                "--no-sync" => options.syncs = false,
                "--versions" => {
                    let sizes =
                        args.next()?.split(',').map(|size| size.parse::<u64>().ok().filter(|size| *size > 0));
                    options.versions = sizes.collect::<Option<_>>()?;
                }
                "--files-per-version" => options.files = number(args.next())?,
                "--records-per-group" => options.group = number(args.next())?,
                "--cgroup" => options.limit_mib = Some(number(args.next())?),
                _ => return None,
            }
        }
        Some(options)
    }
}

fn number(text: Option<&String>) -> Option<u64> {
    text?.parse().ok().filter(|number| *number > 0)
}

/// Runs the shape and prints its figures.
pub fn run(args: &[String]) -> ExitCode {
    let Some(options) = Options::read(args) else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    let mut all: Vec<Figures> = Vec::new();
    for versions in &options.versions {
        let plan =
            Plan { versions: *versions, files: options.files, group: options.group, held: options.is_held };
        let links = tempfile::tempdir().expect("a directory for links");
        let studio = Studio::new(programs(links.path()));
        let limit = options.limit_mib.map(|mib| Cgroup::new(mib).expect("cgroup version 1 and root"));
        let mut server = studio.node("srv@london", ProjectMode::OnDemand);
        // Reading holes again would find that they are not what was published.
        server.config.extra = "[scrub]\nenabled = false\n".into();
        eprintln!("{versions} versions: made");
        let made = generate(&studio, &server, plan);
        if let Some(limit) = &limit {
            server.set_launcher(limit.launcher());
        }
        let figures = measure(&studio, server, plan, made, limit.as_ref(), options.syncs);
        println!("{}", figures.line(plan));
        std::io::stdout().flush().ok();
        all.push(figures);
    }
    print(&all);
    ExitCode::SUCCESS
}

/// Prints a row for each figure, a column for each size, and how it grew from the first to the last.
fn print(all: &[Figures]) {
    let (Some(first), Some(last)) = (all.first(), all.last()) else { return };
    println!();
    let rows = first.rows();
    for (index, (name, _)) in rows.iter().enumerate() {
        print!("{name:<40}");
        for figures in all {
            print!(" {:>12.3}", figures.rows()[index].1);
        }
        let (least, most) = (first.rows()[index].1, last.rows()[index].1);
        if all.len() > 1 { println!(" {:>9.2} x", most / least) } else { println!() }
    }
    let growth: serde_json::Map<String, serde_json::Value> = rows
        .iter()
        .zip(last.rows())
        .map(|((name, least), (_, most))| (name.clone(), json!((most / least * 100.0).round() / 100.0)))
        .collect();
    println!("{}", json!({ "schema": "avalon.bench/1", "shape": "scale", "growth": growth }));
}
