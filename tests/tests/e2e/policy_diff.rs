//! What a policy would change is told before anything moves, and is what then happens.

use std::{collections::BTreeMap, fs};

use avalon_protocol::exit_code::ExitCode;
use avalon_tests::daemons::{
    Studio,
    daemon::{Daemon, Said},
};
use serde_json::{Value, json};

use crate::support::{LONDON, MONTREAL, model, publish_model, studio};

/// A document with one rule that keeps models at these sites.
fn document(sites: &str, min_copies: u32) -> String {
    let head = "schema = \"avalon.policy/1\"\n[defaults]\nkeep = \"on-demand\"\nmin_copies = 1\n";
    let rule = "[[rule]]\nname = \"models\"\nmatch = { silo = \"assets\" }\n";
    format!("{head}{rule}sites = [{sites}]\nkeep = \"here\"\nmin_copies = {min_copies}\n")
}

fn policy(studio: &Studio, daemon: &Daemon, words: &[&str], document: &str) -> Said {
    let path = studio.dir().join("studio.toml");
    fs::write(&path, document).unwrap();
    daemon.ctl(&[&["policy"], words, &[path.to_str().unwrap()]].concat())
}

/// What a diff says by site.
fn sites(diff: &Value) -> BTreeMap<String, Value> {
    assert_eq!(diff["schema"], "avalonctl.policy-diff/1");
    let sites = diff["sites"].as_array().unwrap().iter();
    sites.map(|site| (site["site"].as_str().unwrap().to_owned(), site.clone())).collect()
}

fn until_in_effect(daemon: &Daemon, serial: u64) {
    daemon.until(&format!("policy {serial} is in effect"), |api| {
        let policy: avalon_protocol::control::PolicyReply = api.get("/v1/policy").ok()?;
        (policy.policy.in_effect && policy.policy.serial == serial).then_some(())
    });
}

#[test]
fn what_a_policy_would_change_is_told_before_anything_moves_and_then_happens() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    london.until_connected(MONTREAL);
    // Nothing comes by itself from here on.
    let head = document("\"london\"", 1);
    policy(&studio, &london, &["apply"], &head).expect(ExitCode::Ok);
    until_in_effect(&montreal, 1);
    let contents = [vec![1; 300_000], vec![2; 200_000]];
    for (version, content) in (1..).zip(&contents) {
        publish_model(&london, version, content);
    }
    montreal.until("both versions are known", |api| (api.list().versions.len() == 2).then_some(()));
    london.ctl(&["limit", "set", "100kB/s", "--direction", "send", "--json"]).good();

    let wanted = document("\"montreal\"", 1);
    let diff = policy(&studio, &london, &["diff", "--json"], &wanted).good();
    let there = &sites(&diff)["montreal"];
    let both = json!({"versions": 2, "bytes": 500_000});
    let none = json!({"versions": 0, "bytes": 0});
    assert_eq!(there["copying"], json!({"to_copy": both, "anyway": none, "no_longer": none}));
    assert_eq!(
        (&there["speed"], &there["seconds"], &there["server_is_assumed"]),
        (&json!("send-limit"), &json!(5.0), &json!(false))
    );
    assert_eq!(sites(&diff)["london"]["could_free"]["then"], both, "when montreal has them");
    assert_eq!(diff["nodes"][0]["node"], MONTREAL);
    assert_eq!((&diff["in_effect"], &diff["warnings"]), (&json!(1), &json!([])));
    assert_eq!(policy(&studio, &london, &["apply", "-n", "--json"], &wanted).good(), diff);
    let shown = policy(&studio, &london, &["diff"], &wanted).expect(ExitCode::Ok);
    assert!(shown.stdout.contains("montreal\t2\t500000\t500000\t0\t5\t0\n"), "{shown:?}");

    // A dry run moves nothing; nor do names that nobody knows stop anybody.
    let far = policy(&studio, &london, &["diff", "--json"], &document("\"montreal\", \"tokyo\"", 2)).good();
    assert!(far["warnings"][0]["reason"].as_str().unwrap().contains("no site `tokyo`"), "{far}");
    assert_eq!(far["under_replicated"]["then"]["versions"], 0, "london holds what it published");
    let three =
        policy(&studio, &london, &["diff", "--json"], &document("\"montreal\", \"tokyo\", \"lyon\"", 3));
    let few = &three.good()["under_replicated"];
    assert_eq!(
        few["first"][0],
        json!({"ref": model(1), "already": false, "copies": 2, "min_copies": 3, "rule": "models (line 5)"})
    );
    policy(&studio, &london, &["diff"], "keep = [").expect(ExitCode::Error);
    policy(&studio, &london, &["apply", "-n", "--replaces", "0"], &wanted).expect(ExitCode::Error);
    assert_eq!(london.ctl(&["policy", "history", "--json"]).good()["policies"].as_array().unwrap().len(), 1);
    assert!(!montreal.path("assets").exists(), "nothing has come");

    london.ctl(&["limit", "clear", "--all", "--json"]).good();
    policy(&studio, &london, &["apply"], &wanted).expect(ExitCode::Ok);
    (1..=2).for_each(|version| london.until_complete_at(&model(version), MONTREAL));
    let then = policy(&studio, &london, &["diff", "--json"], &wanted).good();
    assert_eq!(
        sites(&then)["montreal"]["copying"],
        json!({"to_copy": none, "anyway": none, "no_longer": none})
    );
    assert_eq!(sites(&then)["london"]["could_free"], json!({"then": both, "now": both}));
}
