//! What farms, pipelines and producers use: hooks, material from clients, packages, reports.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use avalon_protocol::{control::EventKind, exit_code::ExitCode, mode::ProjectMode};
use avalon_tests::daemons::{Studio, daemon::Daemon, tree};
use serde_json::Value;

use crate::support::{BEAUTY, LONDON, MONTREAL, model, publish_beauty, publish_model, studio};

fn program(path: &Path, text: &str) {
    tree::write(path, format!("#!/bin/sh\n{text}\n").as_bytes());
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// A node with a hook that writes a line for each run into a file, and then fails or hangs if it is told so.
fn hooked(studio: &Studio, node: &str, mode: ProjectMode, peers: &[&Daemon], more: &str) -> Daemon {
    let mut daemon = studio.node(node, mode);
    daemon.config.peers = peers.iter().map(|peer| peer.listen()).collect();
    let (hook, said) = (daemon.config.dir.join("hook"), daemon.config.dir.join("said"));
    program(&hook, &format!("echo \"$1 $2 $AVALON_SITE\" >> {}; {more}", said.display()));
    daemon.config.extra = format!(
        "[[hook]]\non = [\"published\", \"placed\", \"conflict\"]\nrun = [\"{}\", \"{{event}}\", \"{{ref}}\"]\ntimeout = \"1s\"\n\
         match = {{ asset = [\"robot\", \"prop*\"] }}\n",
        hook.display()
    );
    daemon.start();
    daemon
}

fn said(daemon: &Daemon) -> String {
    fs::read_to_string(daemon.config.dir.join("said")).unwrap_or_default()
}

#[test]
fn hooks_run_for_what_they_match_and_hinder_nothing_when_they_fail_or_hang() {
    let studio = studio();
    let london = hooked(&studio, LONDON, ProjectMode::OnDemand, &[], "exit 1");
    let montreal = hooked(&studio, MONTREAL, ProjectMode::Mirror, &[&london], "sleep 1000");
    publish_beauty(&london, "v001");
    for version in 1..=3 {
        publish_model(&london, version, &[u8::try_from(version).unwrap()]);
        montreal.until_complete_at(&model(version), MONTREAL);
    }
    let expected: String = (1..=3).map(|version| format!("published {} london\n", model(version))).collect();
    london.until("three hooks", |_| (said(&london) == expected).then_some(()));
    london.until("somebody is told", |api| api.has_health("hook-fails").then_some(()));
    // Those that hang are killed, and told as well.
    montreal.until("three hooks", |_| (said(&montreal).lines().count() == 3).then_some(()));
    montreal.until("somebody is told", |api| api.has_health("hook-fails").then_some(()));
    assert!(said(&montreal).lines().all(|line| line.starts_with("placed lantern:robot/modelDefault@v00")));
    assert!(montreal.log().contains("killed after 1 s"));
}

#[test]
fn a_hook_hears_of_a_conflict() {
    let studio = studio();
    let london = hooked(&studio, LONDON, ProjectMode::OnDemand, &[], "true");
    let mut montreal = studio.node(MONTREAL, ProjectMode::Mirror);
    montreal.start();
    publish_model(&london, 1, b"one");
    publish_model(&montreal, 1, b"another");
    montreal.terminate();
    montreal.config.peers = vec![london.listen()];
    montreal.config.write();
    montreal.start();
    let line = format!("conflict {} london\n", model(1));
    london.until("the hook", |_| said(&london).contains(&line).then_some(()));
}

#[test]
fn a_hook_that_others_can_change_is_refused_with_file_line_and_reason() {
    let studio = studio();
    let mut london = studio.node(LONDON, ProjectMode::OnDemand);
    let hook = london.config.dir.join("hook");
    program(&hook, "true");
    london.config.extra = format!("[[hook]]\non = [\"published\"]\nrun = [\"{}\"]\n", hook.display());
    london.config.write();
    assert_eq!(london.check_config().0, 0);
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o777)).unwrap();
    let (code, why) = london.check_config();
    let line = london.config.text().lines().position(|line| line.starts_with("run =")).unwrap() + 1;
    assert_ne!(code, 0);
    assert!(why.contains(&format!("avalond.toml:{line}: hook.run: ")) && why.contains("chmod go-w"), "{why}");
}

fn json(said: &avalon_tests::daemons::daemon::Said) -> Value {
    serde_json::from_str(said.stdout.lines().last().unwrap()).unwrap()
}

#[test]
fn material_comes_in_verified_goes_round_and_leaves_as_a_package_that_plain_tools_accept() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    // The silo of the shot is known by its other publishes.
    publish_beauty(&london, "v001");
    let from = london.config.dir.join("from client");
    let frames = ["plate.1001.exr", "plate.1002.exr"];
    frames.iter().zip(1..).for_each(|(name, seed)| tree::write(&from.join(name), &tree::noise(seed, 50_000)));
    let sums = Command::new("sha256sum").args(frames).current_dir(&from).output().unwrap();
    tree::write(&from.join("SHA256SUMS"), &sums.stdout);
    let path = from.to_str().unwrap();
    let ingest = [
        "ingest",
        path,
        "--as",
        "sh010/plateMain",
        "--representation",
        "exr",
        "-m",
        "first delivery",
        "--json",
    ];
    let dry = json(&london.ctl(&[&ingest[..], &["-n"]].concat()).expect(ExitCode::Ok));
    assert_eq!((&dry["ref"], &dry["dry_run"]), (&"lantern:sh010/plateMain@v001".into(), &true.into()));
    assert!(!london.path("film/sh010/publish/plateMain").exists());
    let ingested = json(&london.ctl(&ingest).expect(ExitCode::Ok));
    assert_eq!((&ingested["verified"], &ingested["files"]), (&2.into(), &2.into()), "{ingested}");
    assert_eq!(
        json(&london.ctl(&ingest).expect(ExitCode::Ok))["ref"],
        "lantern:sh010/plateMain@v002",
        "the next number"
    );
    tree::write(&from.join(frames[0]), b"damaged on the way");
    london.ctl(&ingest).expect(ExitCode::Integrity);
    let plates = london.path("film/sh010/publish/plateMain");
    let mut names: Vec<_> =
        fs::read_dir(&plates).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["v001", "v002"], "nothing of the third is left");

    let plate = "lantern:sh010/plateMain@v001";
    montreal.ctl(&["wait", plate, "--site", "montreal", "--timeout", "1m"]).expect(ExitCode::Ok);
    tree::assert_equal(&plates.join("v001"), &montreal.path("film/sh010/publish/plateMain/v001"));
    let info = montreal.ctl(&["info", plate, "--json"]).good();
    assert_eq!(
        (&info["comment"], &info["metadata"]["ingested_from"]),
        (&"first delivery".into(), &path.into())
    );
    assert_eq!(info["metadata"]["ingested_verified"], "2 by SHA256SUMS");
    assert_eq!(info["problems"], Value::Array(Vec::new()), "{info}");

    let to = montreal.config.dir.join("package");
    let deliver = ["deliver", "sh010/*@v001", "--to", to.to_str().unwrap(), "--json"];
    montreal.until_complete_at("lantern:sh010/beauty@v001", MONTREAL);
    let delivered = json(&montreal.ctl(&deliver).expect(ExitCode::Ok));
    assert_eq!(
        (&delivered["files"], delivered["versions"].as_array().unwrap().len()),
        (&26.into(), 2),
        "{delivered}"
    );
    let checked = Command::new("sha256sum")
        .args(["--check", "--strict", "SHA256SUMS"])
        .current_dir(&to)
        .output()
        .unwrap();
    assert!(checked.status.success(), "{checked:?}");
    tree::assert_equal(
        &to.join("lantern").join(BEAUTY).join("v001"),
        &montreal.path(&format!("{BEAUTY}/v001")),
    );
    // Not at london yet, of which nobody pulled: it says so, or fetches first.
    publish_model(&montreal, 1, b"a model");
    london.until("london knows it", |api| api.locate_one(&model(1)).map(drop));
    london.until_connected(MONTREAL);
    let to = london.config.dir.join("package");
    let deliver = ["deliver", "robot/modelDefault", "--to", to.to_str().unwrap()];
    let refused = london.ctl(&deliver).expect(ExitCode::NotFound);
    assert!(refused.stderr.contains("AVL-0403") && refused.stderr.contains("--pull"), "{refused:#?}");
    london.ctl(&[&deliver[..], &["--pull"]].concat()).expect(ExitCode::Ok);
    assert_eq!(
        fs::read(to.join("lantern/assets/robot/publish/modelDefault/v001/modelDefault.usdc")).unwrap(),
        b"a model"
    );

    let report = json(&montreal.ctl(&["report", "--by", "project", "--json"]).expect(ExitCode::Ok));
    let row = &report["rows"][0];
    assert_eq!(
        (&row["name"], &row["versions"], &row["placed_versions"]),
        (&"lantern".into(), &4.into(), &3.into()),
        "{report}"
    );
    let csv = montreal.ctl(&["report", "--by", "site", "--format", "csv"]).expect(ExitCode::Ok);
    let mut lines = csv.stdout.split("\r\n");
    assert!(lines.next().unwrap().starts_with("site,versions,files,bytes,placed_versions"), "{csv:#?}");
    assert!(
        lines.next().unwrap().starts_with("london,3,")
            && lines.next().unwrap().starts_with("montreal,1,1,7,3,"),
        "{csv:#?}"
    );
}

#[test]
fn what_a_hook_does_is_no_reason_to_wait_for_a_stop() {
    let studio = studio();
    let mut london = hooked(&studio, LONDON, ProjectMode::OnDemand, &[], "exec sleep 1000");
    let mut events = london.events();
    publish_model(&london, 1, b"one");
    events.wait("published", |kind| matches!(kind, EventKind::Published { .. }).then_some(()));
    london.until("it runs", |_| (!said(&london).is_empty()).then_some(()));
    assert!(london.terminate().success());
}
