//! The arrows between the crates, and what each of them may not touch. `docs/architecture.md` says why.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use cargo_metadata::{Metadata, MetadataCommand, PackageId};

/// Which of our crates each may use. An arrow that does not stand here is a failure.
const ARROWS: [(&str, &[&str]); 6] = [
    ("avalon-protocol", &[]),
    ("avalon-certs", &["avalon-protocol"]),
    ("avalon-store", &["avalon-protocol"]),
    ("avalond", &["avalon-protocol", "avalon-certs", "avalon-store"]),
    ("avalonctl", &["avalon-protocol", "avalon-certs"]),
    ("avalon-tests", &["avalon-protocol", "avalon-certs", "avalon-store", "avalond", "avalonctl"]),
];

/// What a crate must not contain, however deep: the one that decides does no IO, the one for trust knows no disk layout,
/// the one for the disk knows no network.
const FORBIDDEN: [(&str, &[&str]); 4] = [
    (
        "avalon-protocol",
        &[
            "tokio", "quinn", "sled", "rustls", "walkdir", "notify", "mio", "rustix", "socket2", "rand",
            "tempfile",
        ],
    ),
    ("avalon-certs", &["tokio", "quinn", "sled", "axum", "notify", "openssl", "native-tls", "aws-lc-rs"]),
    ("avalon-store", &["tokio", "quinn", "rustls", "axum", "notify", "rcgen"]),
    ("avalonctl", &["quinn", "sled", "notify", "axum"]),
];

/// The top level of the repository. Tool configuration is in dotfiles.
const TOP_LEVEL: [&str; 10] =
    ["Cargo.toml", "Cargo.lock", "README.md", "daemon", "protocol", "ctl", "store", "certs", "tests", "docs"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace").to_owned()
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).current_dir(root()).output();
    let output = output.unwrap_or_else(|error| panic!("{program} {arguments:?}: {error}"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Returns what is built on this system, without asking the network.
fn metadata() -> Metadata {
    let versions = run(&std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into()), &["-vV"]);
    let host = versions.lines().find_map(|line| line.strip_prefix("host: ")).expect("rustc names its host");
    let mut command = MetadataCommand::new();
    command.manifest_path(root().join("Cargo.toml"));
    command.other_options(["--offline", "--locked", "--filter-platform", host].map(str::to_owned));
    command.exec().expect("cargo metadata")
}

fn names(metadata: &Metadata) -> BTreeMap<&PackageId, &str> {
    metadata.packages.iter().map(|package| (&package.id, package.name.as_str())).collect()
}

/// Returns the names of what a crate needs to be built, however deep; not what only its tests need.
fn needed<'a>(metadata: &'a Metadata, crate_name: &str) -> BTreeSet<&'a str> {
    let names = names(metadata);
    let nodes = &metadata.resolve.as_ref().expect("a resolved graph").nodes;
    let edges: BTreeMap<&PackageId, Vec<&PackageId>> = nodes
        .iter()
        .map(|node| {
            let normal = node.deps.iter().filter(|dependency| {
                dependency.dep_kinds.iter().any(|kind| kind.kind == cargo_metadata::DependencyKind::Normal)
            });
            (&node.id, normal.map(|dependency| &dependency.pkg).collect())
        })
        .collect();
    let start = nodes.iter().find(|node| names[&node.id] == crate_name).expect("a crate of the workspace");
    let (mut found, mut open) = (BTreeSet::new(), vec![&start.id]);
    while let Some(package) = open.pop() {
        for next in &edges[package] {
            if found.insert(*next) {
                open.push(next);
            }
        }
    }
    found.into_iter().map(|package| names[package]).collect()
}

#[test]
fn the_crates_use_each_other_only_along_the_arrows() {
    let metadata = metadata();
    let names = names(&metadata);
    let members: BTreeSet<&str> = metadata.workspace_members.iter().map(|id| names[id]).collect();
    assert_eq!(members, ARROWS.iter().map(|(name, _)| *name).collect(), "a crate without arrows");
    for (name, allowed) in ARROWS {
        let package = metadata.packages.iter().find(|package| package.name == name).expect("a member");
        for dependency in package.dependencies.iter().map(|dependency| dependency.name.as_str()) {
            let ours = members.contains(dependency);
            assert!(!ours || allowed.contains(&dependency), "{name} must not use {dependency}");
        }
    }
}

#[test]
fn no_crate_contains_what_it_must_not_touch() {
    let metadata = metadata();
    for (name, forbidden) in FORBIDDEN {
        let needed = needed(&metadata, name);
        assert!(needed.len() > 3, "{name} needs only {needed:?}: the graph is not what this test thinks");
        let found: Vec<_> = forbidden.iter().filter(|forbidden| needed.contains(**forbidden)).collect();
        assert!(found.is_empty(), "{name} contains {found:?}");
    }
}

/// Returns the lines of code of every source file beneath a directory, with their places; comments are left out.
fn code_lines(directory: &str) -> Vec<(String, String)> {
    let files = walkdir::WalkDir::new(root().join(directory)).sort_by_file_name().into_iter();
    let files = files.map(|entry| entry.expect("a readable tree").into_path());
    let mut lines = Vec::new();
    for file in files.filter(|file| file.extension().is_some_and(|extension| extension == "rs")) {
        let text = fs::read_to_string(&file).expect("UTF-8");
        let place = file.strip_prefix(root()).expect("beneath the root").display().to_string();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        lines.extend(code.map(|line| (place.clone(), line.trim().to_owned())));
    }
    assert!(lines.len() > 100, "{directory} has no code");
    lines
}

#[test]
fn one_file_names_sled() {
    let crates = ["protocol", "certs", "store", "daemon", "ctl"];
    for (place, line) in crates.iter().flat_map(|name| code_lines(&format!("{name}/src"))) {
        // The module `catalog::sled` has the name of the crate; tests of the catalog and its ledger damage a database.
        let module = line.contains("sled::SledStore") || line.contains("sled::{SledStore");
        let at_home = matches!(
            &*place,
            "store/src/catalog/sled.rs" | "store/src/catalog/tests.rs" | "store/src/ledger/tests/failing.rs"
        );
        let inside = place.starts_with("store/src/catalog/") && module;
        assert!(at_home || inside || !line.contains("sled::"), "{place} names sled: {line}");
    }
}

#[test]
fn the_protocol_names_no_file_socket_or_clock() {
    for (place, line) in code_lines("protocol/src") {
        for forbidden in [
            "std::fs",
            "std::net",
            "std::thread",
            "std::env",
            "std::process",
            "SystemTime::now",
            "Instant::now",
        ] {
            assert!(!line.contains(forbidden), "{place} names {forbidden}: {line}");
        }
    }
}

#[test]
fn no_crate_allows_unsafe_code() {
    let forbids = |text: &str| text.lines().any(|line| line.trim() == "unsafe_code = \"forbid\"");
    let workspace = fs::read_to_string(root().join("Cargo.toml")).expect("the workspace");
    let (_, lints) = workspace.split_once("[workspace.lints.rust]").expect("lints of the workspace");
    let (lints, _) = lints.split_once("[").expect("more lints");
    assert!(forbids(lints), "the workspace does not forbid unsafe code");
    for (name, _) in ARROWS {
        let directory = name.trim_start_matches("avalon-").trim_start_matches("avalon");
        let directory = if directory == "d" { "daemon" } else { directory };
        let text = fs::read_to_string(root().join(directory).join("Cargo.toml")).expect("a manifest");
        let inherits = text.contains("[lints]\nworkspace = true");
        assert!(inherits || forbids(&text), "{name} does not forbid unsafe code");
    }
}

#[test]
fn the_top_level_is_fixed() {
    let tracked = run("git", &["ls-files"]);
    let found: BTreeSet<&str> = tracked.lines().filter_map(|path| path.split('/').next()).collect();
    let other: Vec<_> =
        found.iter().filter(|name| !name.starts_with('.') && !TOP_LEVEL.contains(name)).collect();
    assert!(other.is_empty(), "{other:?} do not belong at the top level");
}
