#![expect(clippy::disallowed_methods, reason = "programs are made as anybody makes them")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use avalon_protocol::{
    control::{Event, EventKind},
    mode::ProjectMode,
};

use super::{process::Run, *};
use crate::{
    clock::RealClock,
    fixture::{Node, Studio},
};

fn node() -> (Studio, Node) {
    let studio = Studio::new();
    let node = studio.node("srv@london", ProjectMode::OnDemand);
    (studio, node)
}

fn script(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn hook(program: PathBuf, args: &[&str]) -> Hook {
    Hook {
        on: [HookEvent::Published].into(),
        program,
        args: args.iter().map(|arg| Arg::parse(arg).unwrap()).collect(),
        timeout: DEFAULT_TIMEOUT,
        matching: Matching::default(),
    }
}

/// A publish with the most hostile words that a peer or an artist can choose.
fn hostile() -> Event {
    let kind = EventKind::Published {
        reference: "lantern:sh010/be-a.uty_@v001".into(),
        manifest: "0".repeat(64),
        generation: 1,
        files: 3,
        bytes: 100,
        author: "-rf; $(touch /tmp/owned) `id`\n\u{1b}[2J".into(),
        completeness: "explicit".into(),
    };
    Event { id: 1, time: "2026-11-22T10:00:00Z".into(), kind }
}

async fn ran(node: &Node, hook: &Hook, event: &Event) -> Ended {
    let kind = HookEvent::of(&event.kind).unwrap();
    let happening = Happening::of(&node.core, kind, event);
    assert!(happening.concerns(hook));
    Run::new(hook, &happening).finish(Arc::new(RealClock::new())).await
}

#[test]
fn arguments_stay_one_each_and_unknown_words_are_refused() {
    let value = |name: &str| format!("<{name}>");
    assert_eq!(Arg::parse("--ref={ref} {{x}} {path}").unwrap().with(value), "--ref=<ref> {x} <path>");
    for (text, why) in [
        ("{author}", "{author} is not known"),
        ("{ref", "single brace"),
        ("a}b", "single brace"),
        ("\0", "zero byte"),
    ] {
        let error = Arg::parse(text).unwrap_err();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn only_programs_that_nobody_else_can_change_are_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let program = script(dir.path(), "hook", "true");
    assert_eq!(check_program(&program), Ok(()));
    let refused = |path: &Path, why: &str| {
        let error = check_program(path).unwrap_err();
        assert!(error.contains(why), "{error}");
    };
    let mode = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    refused(Path::new("hook"), "not an absolute path");
    refused(&dir.path().join("../hook"), "not an absolute path");
    refused(&dir.path().join("none"), "cannot be used");
    refused(dir.path(), "is not a program");
    mode(&program, 0o644);
    refused(&program, "chmod +x");
    mode(&program, 0o775);
    refused(&program, "chmod go-w");
    mode(&program, 0o755);
    std::os::unix::fs::symlink(&program, dir.path().join("link")).unwrap();
    refused(&dir.path().join("link"), "symbolic link");
    // Who may write the directory can put another program in its place.
    mode(dir.path(), 0o777);
    refused(&program, "can be written");
    mode(dir.path(), 0o1777);
    assert_eq!(check_program(&program), Ok(()), "of a sticky directory only its owner");
}

#[tokio::test]
async fn a_hook_gets_arguments_variables_and_json_and_nothing_of_the_daemons_environment() {
    let (_studio, node) = node();
    let dir = tempfile::tempdir().unwrap();
    let program = script(dir.path(), "hook", "printf '%s|' \"$#\" \"$@\"; env | sort; cat");
    let ended =
        ran(&node, &hook(program, &["{ref}", "a {asset} $(id)", "--", "{version}"]), &hostile()).await;
    assert_eq!(ended.failed, None, "{ended:?}");
    assert!(ended.output.starts_with("4|lantern:sh010/be-a.uty_@v001|a sh010 $(id)|--|v001|"), "{ended:?}");
    let variables: Vec<&str> = ended
        .output
        .lines()
        .filter_map(|line| line.split_once('=').map(|(name, _)| name.rsplit('|').next().unwrap_or(name)))
        .filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        // The shell's own.
        .filter(|name| !["PWD", "SHLVL", "OLDPWD", "_"].contains(name))
        .collect();
    let expected = PLACEHOLDER_VARIABLES.iter().chain(&["LANG", "PATH"]).copied().collect::<Vec<_>>();
    assert_eq!(variables, expected);
    let json: serde_json::Value =
        serde_json::from_str(&ended.output[ended.output.find('{').unwrap()..]).unwrap();
    assert_eq!((&json["hook"], &json["files"]), (&"published".into(), &"3".into()));
    assert_eq!(json["detail"]["author"], "-rf; $(touch /tmp/owned) `id`\n\u{1b}[2J");
}

const PLACEHOLDER_VARIABLES: [&str; 12] = [
    "AVALON_ASSET",
    "AVALON_BYTES",
    "AVALON_EVENT",
    "AVALON_FILES",
    "AVALON_MANIFEST",
    "AVALON_NODE",
    "AVALON_PATH",
    "AVALON_PROJECT",
    "AVALON_REF",
    "AVALON_SITE",
    "AVALON_SUBSET",
    "AVALON_VERSION",
];

#[tokio::test]
async fn no_value_can_look_like_an_option() {
    let (_studio, node) = node();
    for reference in ["-rf:a/b@v001", "p:-rf/b@v001", "p:a/--x@v001", "p:a/b@-1", "; rm -rf /", "../../etc"] {
        let EventKind::Published { manifest, generation, files, bytes, author, completeness, .. } =
            hostile().kind
        else {
            unreachable!()
        };
        let reference = reference.to_owned();
        let kind =
            EventKind::Published { reference, manifest, generation, files, bytes, author, completeness };
        let event = Event { kind, ..hostile() };
        let happening = Happening::of(&node.core, HookEvent::Published, &event);
        assert!(happening.values.values().all(|value| !value.starts_with('-')), "{:?}", happening.values);
        assert_eq!(happening.reference(), "", "it is no version");
    }
}

#[tokio::test]
async fn a_hook_that_hangs_is_killed_with_all_that_it_started() {
    let (_studio, node) = node();
    let dir = tempfile::tempdir().unwrap();
    let program = script(dir.path(), "hook", "sleep 1000 & echo $!; wait");
    let hook = Hook { timeout: Duration::from_millis(500), ..hook(program, &[]) };
    let ended = ran(&node, &hook, &hostile()).await;
    assert!(ended.failed.as_ref().unwrap().contains("killed after 0.5 s"), "{ended:?}");
    let child = ended.output.trim().to_owned();
    let gone = || match fs::read_to_string(format!("/proc/{child}/stat")) {
        Ok(stat) => stat.contains(") Z "),
        Err(_) => true,
    };
    for _ in 0..1000 {
        if gone() {
            return;
        }
        tokio::task::yield_now().await;
        std::thread::yield_now();
    }
    assert!(gone(), "{child} still runs");
}

#[tokio::test]
async fn what_a_hook_writes_is_bounded_and_one_that_does_not_read_hangs_nobody() {
    let (_studio, node) = node();
    let dir = tempfile::tempdir().unwrap();
    let program = script(dir.path(), "hook", "head -c 1000000 /dev/zero | tr '\\0' x; exit 3");
    let ended = ran(&node, &hook(program.clone(), &[]), &hostile()).await;
    assert!(
        ended.output.len() == 4096 && ended.failed.as_ref().unwrap().contains("exit status: 3"),
        "{ended:?}"
    );
    // Changed since the configuration was read.
    fs::set_permissions(&program, fs::Permissions::from_mode(0o777)).unwrap();
    let ended = ran(&node, &hook(program, &[]), &hostile()).await;
    assert!(ended.failed.unwrap().contains("can be written"));
}

#[tokio::test]
async fn a_hook_is_only_about_what_it_matches() {
    let (_studio, node) = node();
    let happening = Happening::of(&node.core, HookEvent::Published, &hostile());
    let patterns =
        |text: &str| Some(vec![avalon_protocol::reference::Pattern::try_from(text.to_owned()).unwrap()]);
    let about = |matching: Matching| happening.concerns(&Hook { matching, ..hook("/bin/true".into(), &[]) });
    assert!(about(Matching { asset: patterns("sh*"), ..Matching::default() }));
    assert!(!about(Matching { asset: patterns("robot"), ..Matching::default() }));
    assert!(
        !about(Matching { representation: patterns("exr"), ..Matching::default() }),
        "it is not known to have one"
    );
    assert!(!happening.concerns(&Hook { on: [HookEvent::Placed].into(), ..hook("/bin/true".into(), &[]) }));
}
