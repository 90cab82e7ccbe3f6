//! Names that differ only in upper and lower case. The same name twice is refused; numbered files can still be mixed so.

use std::collections::{BTreeMap, BTreeSet};

use super::{Check, CheckSeverity, Found, Seen, SeenBy};
use crate::{rel_path::RelPath, sequence::FrameName};

pub(super) const CHECK: Check =
    Check { code: "name-case", severity: CheckSeverity::Warning, seen_by: SeenBy::Manifest, run };

const HINT: &str = "rename them alike, and publish the next version";

fn run(seen: &Seen<'_>) -> Vec<Found> {
    let mut spellings: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in seen.files() {
        let Some(FrameName { prefix, suffix, .. }) = FrameName::parse(file.path.as_str()) else { continue };
        let shape = format!("{prefix}####{suffix}");
        let Ok(path) = shape.parse::<RelPath>() else { continue };
        spellings.entry(path.collision_key()).or_default().insert(shape);
    }
    let mixed = spellings.into_values().filter(|shapes| shapes.len() > 1);
    let files = mixed.map(|shapes| {
        let names: Vec<String> = shapes.into_iter().collect();
        let reason = "differ only in case: Linux takes them for two sequences, Windows and macOS for one";
        Found::new(format!("{} {reason}", names.join(" and ")), HINT)
    });
    files.chain(representations(seen)).collect()
}

fn representations(seen: &Seen<'_>) -> Vec<Found> {
    let mut names: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for representation in seen.manifest.representations() {
        let name = representation.name.as_str();
        names.entry(name.to_lowercase()).or_default().push(name);
    }
    let mixed = names.into_values().filter(|names| names.len() > 1);
    let found = mixed.map(|names| {
        Found::new(format!("the representations {} differ only in case", names.join(" and ")), HINT)
    });
    found.collect()
}
