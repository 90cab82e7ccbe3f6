//! A workstation at home that gets what it asks for.

use avalon_protocol::{control::JobState, exit_code::ExitCode};
use avalon_tests::daemons::{Studio, daemon::Daemon, tree};
use serde_json::Value;

use crate::support::{
    BEAUTY, BEAUTY_V1, BEAUTY_V2, HOME, LONDON, MODEL, model, publish_beauty, publish_model, studio,
};

/// London with two versions of a sequence and a model, and home that knows of them.
fn london_and_home(studio: &Studio) -> (Daemon, Daemon) {
    let london = studio.on_demand(LONDON, &[]);
    let home = studio.on_demand(HOME, &[&london]);
    publish_beauty(&london, "v001");
    publish_beauty(&london, "v002");
    publish_model(&london, 1, &tree::noise(1, 100_000));
    home.until("home knows all", |api| (api.list().versions.len() == 3).then_some(()));
    home.until_connected(LONDON);
    (london, home)
}

fn refs(summary: &Value) -> Vec<&str> {
    summary["versions"].as_array().unwrap().iter().map(|version| version["ref"].as_str().unwrap()).collect()
}

#[test]
fn pull_brings_an_exact_version_and_its_last_line_is_the_summary() {
    let studio = studio();
    let (london, home) = london_and_home(&studio);
    let said = home.ctl(&["pull", "sh010/beauty@v001", "--json"]);
    for line in said.stdout.lines() {
        serde_json::from_str::<Value>(line).unwrap();
    }
    let summary = said.good();
    assert_eq!((&summary["type"], &summary["schema"]), (&"summary".into(), &"avalonctl.pull/1".into()));
    let version = &summary["versions"][0];
    let path = home.path(&format!("{BEAUTY}/v001"));
    assert_eq!(version["ref"], BEAUTY_V1);
    assert_eq!(version["path"], path.to_str().unwrap());
    assert_eq!(version["files"], 24);
    let bytes = version["bytes"].as_u64().unwrap();
    let count = |name: &str| version[name].as_u64().unwrap();
    let ways = count("bytes_local") + count("bytes_delta") + count("bytes_compressed") + count("bytes_raw");
    assert_eq!(ways, bytes, "every byte came in one way: {summary}");
    assert!(count("bytes_received") > 0, "{summary}");
    assert!(version["seconds"].as_f64().unwrap() > 0.0);
    assert_eq!(version["sources"], serde_json::json!([LONDON]));
    tree::assert_equal(&london.path(&format!("{BEAUTY}/v001")), &path);
    assert!(!home.path(&format!("{BEAUTY}/v002")).exists(), "only what was asked for");

    let again = home.ctl(&["pull", "sh010/beauty@v001", "--json"]).good();
    let here = &again["versions"][0];
    assert_eq!((&here["ref"], &here["bytes_received"]), (&BEAUTY_V1.into(), &0.into()), "{again}");
    let human = home.ctl(&["pull", "sh010/beauty@v001"]).expect(ExitCode::Ok);
    assert!(format!("{}{}", human.stdout, human.stderr).contains("here"), "{human:#?}");
}

#[test]
fn pull_takes_latest_and_globs() {
    let studio = studio();
    let (_london, home) = london_and_home(&studio);
    let latest = home.ctl(&["pull", "sh010/beauty", "--json"]).good();
    assert_eq!(refs(&latest), [BEAUTY_V2]);
    assert!(!home.path(&format!("{BEAUTY}/v001")).exists());
    let all = home.ctl(&["pull", "sh010/*@*", "robot/modelDefault@latest", "--json"]).good();
    let mut found = refs(&all);
    found.sort_unstable();
    assert_eq!(found, [model(1).as_str(), BEAUTY_V1, BEAUTY_V2]);
    let none_missing = home.api().list().versions;
    assert!(
        none_missing.iter().all(|v| v.here == avalon_protocol::control::Presence::Complete),
        "{none_missing:?}"
    );
}

#[test]
fn a_dry_run_moves_nothing_and_detach_does_not_wait() {
    let studio = studio();
    let (london, home) = london_and_home(&studio);
    home.ctl(&["pull", "-n", "sh010/beauty@v001", "--json"]).expect(ExitCode::Ok);
    assert!(!home.path("film").exists());
    assert!(home.api().jobs().is_empty());
    home.ctl(&["pull", "sh010/beauty@v001", "--detach", "--json"]).expect(ExitCode::Ok);
    home.until_complete_at(BEAUTY_V1, HOME);
    tree::assert_equal(&london.path(&format!("{BEAUTY}/v001")), &home.path(&format!("{BEAUTY}/v001")));
}

#[test]
fn where_ls_info_and_status_say_in_json_what_scripts_rely_on() {
    let studio = studio();
    let (_london, home) = london_and_home(&studio);

    let item = home.ctl(&["where", "sh010/beauty@v001", "--json"]).good();
    assert_eq!(item["schema"], "avalonctl.where/1");
    let version = &item["versions"][0];
    assert_eq!((&version["ref"], &version["generation"]), (&BEAUTY_V1.into(), &1.into()));
    assert_eq!(version["manifest"].as_str().unwrap().len(), 64, "{version}");
    let of = |node: &str| {
        let nodes = version["nodes"].as_array().unwrap();
        nodes.iter().find(|n| n["node"] == node).cloned().unwrap_or_else(|| panic!("{node} in {version}"))
    };
    assert_eq!(
        of("srv"),
        serde_json::json!({"node": "srv", "site": "london", "state": "complete", "files_present": 24, "files_total": 24})
    );
    assert_eq!(
        of("ws1"),
        serde_json::json!({"node": "ws1", "site": "home", "state": "none", "files_present": 0, "files_total": 24})
    );

    let list = home.ctl(&["ls", "--json"]).good();
    assert_eq!(list["schema"], "avalonctl.ls/1");
    let beauty = list["versions"].as_array().unwrap().iter().find(|v| v["ref"] == BEAUTY_V2).unwrap();
    assert_eq!(beauty["representations"], serde_json::json!(["exr"]));
    assert_eq!((&beauty["files"], &beauty["here"]), (&24.into(), &"none".into()));
    assert!(beauty["bytes"].as_u64().unwrap() > 500_000);

    let info = home.ctl(&["info", "robot/modelDefault@v001", "--json"]).good();
    assert_eq!(info["schema"], "avalonctl.info/1");
    assert_eq!((&info["author"], &info["comment"]), (&"anna".into(), &"from a test".into()));
    assert_eq!(info["files"][0]["path"], "modelDefault.usdc");
    let hash = blake3::hash(&tree::noise(1, 100_000)).to_string();
    assert_eq!(info["files"][0]["hash"], hash.as_str(), "the name that b3sum prints");

    let status = home.ctl(&["status", "--json"]).good();
    assert_eq!(status["schema"], "avalonctl.status/1");
    assert_eq!((&status["node"], &status["site"]), (&"ws1".into(), &"home".into()));
    let peer = &status["peers"][0];
    assert_eq!(
        (&peer["node"], &peer["site"], &peer["state"]),
        (&"srv".into(), &"london".into(), &"online".into())
    );
    assert_eq!((&status["jobs"], &status["health"]), (&serde_json::json!([]), &serde_json::json!([])));
}

#[test]
fn what_is_not_there_ends_with_the_code_for_it_and_says_what_to_try() {
    let studio = studio();
    let (mut london, mut home) = london_and_home(&studio);
    let typo = home.ctl(&["pull", "robot/modelDefalt"]).expect(ExitCode::NotFound);
    assert!(typo.stderr.contains("did you mean robot/modelDefault?"), "{typo:#?}");
    let unknown = home.ctl(&["where", "robot/modelDefault@v099", "--json"]).expect(ExitCode::NotFound);
    assert!(unknown.stdout.contains("AVL-0401") || unknown.stderr.contains("AVL-0401"), "{unknown:#?}");
    home.ctl(&["pull", "no such thing"]).expect(ExitCode::Usage);

    london.terminate();
    home.until("london is gone", |api| {
        let online = avalon_protocol::control::PeerState::Online;
        api.status().peers.iter().all(|peer| peer.state != online).then_some(())
    });
    let nobody = home.ctl(&["pull", "robot/modelDefault"]).expect(ExitCode::NoSource);
    assert!(nobody.stderr.contains(LONDON), "names who holds it: {nobody:#?}");
    let late = home.ctl(&["pull", "robot/modelDefault", "--timeout", "300ms"]);
    late.expect(ExitCode::TimedOut);
    // The job goes on by itself when the holder is back.
    london.start();
    home.until_complete_at(&model(1), HOME);

    home.terminate();
    let away = home.ctl(&["ls"]).expect(ExitCode::DaemonUnreachable);
    assert!(away.stderr.contains(home.config.socket.to_str().unwrap()), "{away:#?}");
}

#[test]
fn a_pull_that_is_cancelled_leaves_nothing_behind_and_can_be_asked_for_again() {
    const BYTES: u64 = 40 << 20;
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let home = studio.on_demand(HOME, &[&london]);
    let dir = london.path(&format!("{MODEL}/v001"));
    tree::write_noise(&dir.join("modelDefault.usdc"), 4, BYTES);
    assert_eq!(london.api().publish(&dir).error, None);
    home.until("home knows it", |api| api.locate_one(&model(1)));
    home.until_connected(LONDON);
    home.ctl(&["limit", "set", "4MiB/s"]).expect(ExitCode::Ok);
    let id = home.api().pull(&model(1)).unwrap().versions[0].job.clone().unwrap();
    home.until("bytes are here", |api| api.job(&id).filter(|job| job.bytes_present > 0));
    let cancelled = home.ctl(&["cancel", &id, "--json"]).good();
    assert_eq!(cancelled["schema"], "avalonctl.cancel/1", "{cancelled}");
    let job = home.until("it is cancelled", |api| api.job(&id).filter(|job| job.state.is_final()));
    assert_eq!(job.state, JobState::Cancelled, "{job:?}");
    assert!(!home.path(MODEL).exists());
    home.until("what came is removed", |_| {
        let areas = std::fs::read_dir(home.path(".avalon/incoming")).unwrap().count();
        (areas == 0).then_some(())
    });
    home.ctl(&["limit", "clear", "--all"]).expect(ExitCode::Ok);
    let summary = home.ctl(&["pull", &model(1), "--json"]).good();
    let received = summary["versions"][0]["bytes_received"].as_u64().unwrap();
    assert!(received >= BYTES, "{received} after {job:?}");
    tree::assert_equal(&london.path(""), &home.path(""));
}
