//! What the two programs are made of, as a bill of materials in the form of CycloneDX 1.5: every crate that is compiled into
//! them, with its licence and the hash that `Cargo.lock` pins it to.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    error::Error,
    fs,
    path::Path,
    process::Command,
};

use cargo_metadata::{DependencyKind, Metadata, MetadataCommand, Package, PackageId};
use serde::Deserialize;
use serde_json::{Value, json};

/// The programs that are installed.
const PROGRAMS: [&str; 2] = ["avalond", "avalonctl"];

#[derive(Deserialize)]
struct Lock {
    package: Vec<Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: String,
    version: String,
    checksum: Option<String>,
}

/// Reads the workspace in this directory, for the system that it runs on. Needs no network where it was compiled once.
///
/// # Errors
/// When cargo fails, or `Cargo.lock` cannot be read.
pub fn of_workspace(root: &Path) -> Result<Value, Box<dyn Error + Send + Sync>> {
    let mut command = MetadataCommand::new();
    command.manifest_path(root.join("Cargo.toml"));
    // Of other systems' crates not even the licence may be on this machine.
    command.other_options(["--locked", "--offline", "--filter-platform", &host()?].map(str::to_owned));
    let metadata = command.exec()?;
    let lock: Lock = toml::from_str(&fs::read_to_string(root.join("Cargo.lock"))?)?;
    let pinned = lock.package.into_iter().filter_map(|it| Some(((it.name, it.version), it.checksum?)));
    Ok(bill(&metadata, &pinned.collect()))
}

/// The system that is compiled for here.
fn host() -> Result<String, Box<dyn Error + Send + Sync>> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = String::from_utf8(Command::new(rustc).arg("-vV").output()?.stdout)?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.ok_or("rustc does not say what it compiles for")?.to_owned())
}

fn bill(metadata: &Metadata, pinned: &BTreeMap<(String, String), String>) -> Value {
    let uses = compiled_in(metadata);
    let mut components = Vec::new();
    let mut dependencies = Vec::new();
    let mut parts: Vec<(&Package, &BTreeSet<PackageId>)> =
        uses.iter().map(|(id, uses)| (&metadata[id], uses)).collect();
    parts.sort_by_key(|(package, _)| (package.name.to_string(), package.version.clone()));
    for (package, uses) in parts {
        let of_lock = (package.name.to_string(), package.version.to_string());
        let hashes: Vec<Value> = pinned
            .get(&of_lock)
            .map(|sha256| json!({"alg": "SHA-256", "content": sha256}))
            .into_iter()
            .collect();
        let licences: Vec<Value> =
            package.license.iter().map(|text| json!({"expression": spdx(text)})).collect();
        let is_program = PROGRAMS.contains(&package.name.as_str());
        components.push(json!({
            "type": if is_program { "application" } else { "library" },
            "bom-ref": purl(package),
            "name": package.name,
            "version": package.version.to_string(),
            "purl": purl(package),
            "hashes": hashes,
            "licenses": licences,
        }));
        let depends_on: BTreeSet<String> = uses.iter().map(|id| purl(&metadata[id])).collect();
        dependencies.push(json!({"ref": purl(package), "dependsOn": depends_on}));
    }
    json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "application", "name": "avalon-sync", "version": env!("CARGO_PKG_VERSION")}},
        "components": components,
        "dependencies": dependencies,
    })
}

/// What the programs need to be compiled here, and what each part of it needs. Tests are no part of it.
fn compiled_in(metadata: &Metadata) -> BTreeMap<PackageId, BTreeSet<PackageId>> {
    let nodes = metadata.resolve.iter().flat_map(|resolve| &resolve.nodes);
    let needs: BTreeMap<&PackageId, BTreeSet<PackageId>> = nodes
        .map(|node| {
            let of_build = node
                .deps
                .iter()
                .filter(|dep| dep.dep_kinds.iter().any(|kind| kind.kind != DependencyKind::Development));
            (&node.id, of_build.map(|dep| dep.pkg.clone()).collect())
        })
        .collect();
    let programs = metadata.packages.iter().filter(|package| PROGRAMS.contains(&package.name.as_str()));
    let mut open: Vec<PackageId> = programs.map(|package| package.id.clone()).collect();
    let mut found = BTreeMap::new();
    while let Some(id) = open.pop() {
        let uses = needs.get(&id).cloned().unwrap_or_default();
        if let Entry::Vacant(slot) = found.entry(id) {
            open.extend(uses.iter().cloned());
            slot.insert(uses);
        }
    }
    found
}

fn purl(package: &Package) -> String {
    format!("pkg:cargo/{}@{}", package.name, package.version)
}

/// Older crates write `MIT/Apache-2.0`, which SPDX does not know.
fn spdx(licence: &str) -> String {
    licence.replace('/', " OR ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_crate_of_the_programs_is_there_once_with_licence_and_hash_and_no_tool_of_tests() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let bill = of_workspace(root).unwrap();
        let components = bill["components"].as_array().unwrap();
        let names: BTreeSet<&str> = components.iter().map(|it| it["name"].as_str().unwrap()).collect();
        for fixed in [
            "avalond",
            "avalonctl",
            "notify",
            "tokio",
            "blake3",
            "quinn",
            "rustls",
            "sled",
            "serde",
            "walkdir",
        ] {
            assert!(names.contains(fixed), "{fixed}");
        }
        assert!(!names.contains("avalon-tests") && !names.contains("proptest"));
        let refs: BTreeSet<&str> = components.iter().map(|it| it["bom-ref"].as_str().unwrap()).collect();
        assert_eq!(refs.len(), components.len());
        for component in components {
            assert!(!component["licenses"].as_array().unwrap().is_empty(), "{component}");
            let name = component["name"].as_str().unwrap();
            let is_ours = name.starts_with("avalon");
            let hashes = component["hashes"].as_array().unwrap();
            assert_eq!(hashes.is_empty(), is_ours, "{component}");
            assert!(hashes.iter().all(|hash| hash["content"].as_str().unwrap().len() == 64));
        }
        let dependencies = bill["dependencies"].as_array().unwrap();
        let needed = dependencies.iter().flat_map(|it| it["dependsOn"].as_array().unwrap());
        assert!(needed.map(|it| it.as_str().unwrap()).all(|it| refs.contains(it)));
    }
}
