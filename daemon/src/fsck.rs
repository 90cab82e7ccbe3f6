//! `avalond fsck`: what `avalonctl fsck` runs. It is here because the keys, the store and the words of the configuration are.

use std::process::ExitCode;

use avalon_certs::Identity;
use avalon_protocol::{exit_code::ExitCode as Code, shown::escape};
use avalon_store::{
    fsck::{self, Checked, Finding},
    state_dir::{StateDir, StateDirError},
};
use clap::Args;
use serde::Serialize;

use crate::{
    clock::{Clock as _, RealClock},
    config::Config,
};

/// Arguments of `fsck`.
#[derive(Debug, Args)]
pub struct FsckArgs {
    /// Answer in JSON: one object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Told<'a> {
    schema: &'static str,
    ok: bool,
    /// Whether a daemon was running meanwhile.
    running: bool,
    state_dir: String,
    feeds: u64,
    records: u64,
    manifests: u64,
    block_lists: u64,
    catalog: bool,
    findings: Vec<ToldFinding<'a>>,
}

#[derive(Serialize)]
struct ToldFinding<'a> {
    kind: &'a str,
    damage: bool,
    path: String,
    detail: &'a str,
    remedy: &'a str,
}

/// Checks the state directory that the configuration names.
///
/// # Errors
/// What prevented it.
pub fn main(config: &Config, args: &FsckArgs) -> anyhow::Result<ExitCode> {
    let path = &config.state_dir;
    let now = RealClock::new().now();
    let identity = Identity::load(&path.join("identity"), now)?;
    // Held while it is read, so that no daemon starts meanwhile. One that runs may be writing the end of a feed.
    let lock = match StateDir::open(path) {
        Ok(state) => Some(state),
        Err(StateDirError::InUse { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    let checked = fsck::check(path, identity.node(), &identity.trust(), lock.is_some())?;
    let is_running = lock.is_none();
    let is_damaged = |finding: &Finding| finding.kind.is_damage();
    let ok = !checked.findings.iter().any(is_damaged);
    if args.json {
        let told = Told {
            schema: "avalonctl.fsck/1",
            ok,
            running: is_running,
            state_dir: path.display().to_string(),
            feeds: checked.feeds,
            records: checked.records,
            manifests: checked.manifests,
            block_lists: checked.block_lists,
            catalog: checked.catalog,
            findings: checked.findings.iter().map(told).collect(),
        };
        say(&serde_json::to_string(&told)?);
    } else {
        tell(&checked, is_running);
    }
    Ok(ExitCode::from(if ok { Code::Ok } else { Code::Integrity }.code()))
}

fn told(finding: &Finding) -> ToldFinding<'_> {
    ToldFinding {
        kind: finding.kind.as_str(),
        damage: finding.kind.is_damage(),
        path: finding.path.display().to_string(),
        detail: &finding.detail,
        remedy: finding.kind.remedy(),
    }
}

fn tell(checked: &Checked, is_running: bool) {
    for finding in &checked.findings {
        let word = if finding.kind.is_damage() { "damaged" } else { "note" };
        say(&format!(
            "{word}\t{}\t{}\t{}\n\t{}",
            finding.kind.as_str(),
            escape(&finding.path.display().to_string()),
            escape(&finding.detail),
            finding.kind.remedy()
        ));
    }
    let catalog = match (checked.catalog, is_running) {
        (true, _) => "the catalog",
        (false, true) => "not the catalog, for avalond runs: avalonctl catalog verify asks it",
        (false, false) => "no catalog",
    };
    say(&format!(
        "read {} feeds with {} records, {} manifests, {} block lists and {catalog}: {}",
        checked.feeds,
        checked.records,
        checked.manifests,
        checked.block_lists,
        match checked.findings.iter().filter(|finding| finding.kind.is_damage()).count() {
            0 => "no damage".to_owned(),
            damaged => format!("{damaged} damaged"),
        }
    ));
}

#[expect(clippy::print_stdout, reason = "the answer of the program")]
fn say(line: &str) {
    println!("{line}");
}
