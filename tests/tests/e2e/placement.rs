//! What goes where: a policy applied, changed and rolled back at four sites.

use std::{fs, os::unix::fs::PermissionsExt as _};

use avalon_protocol::{
    control::{WhyAnswer, WhyReply, WhyState, route},
    exit_code::ExitCode,
};
use avalon_tests::daemons::{Studio, daemon::Daemon, tree};

use crate::support::{
    BEAUTY_V1, BEAUTY_V2, HOME, LONDON, MONTREAL, model, publish_beauty, publish_model, studio,
};

const ARCHIVE: &str = "store@archive";

const HEAD: &str = "schema = \"avalon.policy/1\"\n[defaults]\nkeep = \"on-demand\"\nmin_copies = 1\n";

/// The newest model at montreal, everything in the archive, no film at home.
const FIRST: &str = r#"
[[rule]]
name = "no film at home"
match = { silo = "film" }
sites = ["home"]
keep = "never"
[[rule]]
name = "the newest models"
match = { asset = "robot", latest = 1 }
sites = ["montreal"]
keep = "here"
read_only = true
[[rule]]
name = "archive"
match = { project = "*" }
sites = ["archive"]
keep = "here"
"#;

/// All of montreal too.
const SECOND: &str = r#"
[[rule]]
name = "all offices"
match = { project = "*" }
sites = ["montreal", "archive"]
keep = "here"
"#;

fn apply(studio: &Studio, daemon: &Daemon, rules: &str) {
    let path = studio.dir().join("studio.toml");
    fs::write(&path, format!("{HEAD}{rules}")).unwrap();
    daemon.ctl(&["policy", "apply", path.to_str().unwrap()]).expect(ExitCode::Ok);
}

fn until_serial(daemon: &Daemon, serial: u64) {
    daemon.until("the policy is in effect", |api| {
        let policy = api.policy()?.policy;
        (policy.in_effect && policy.serial == serial).then_some(())
    });
}

fn why(daemon: &Daemon, reference: &str, site: &str) -> WhyAnswer {
    let target = format!("{}?ref={reference}&site={site}", route::WHY);
    let mut reply: WhyReply = daemon.api().get(&target).unwrap();
    assert_eq!(reply.answers.len(), 1, "{reply:?}");
    reply.answers.remove(0)
}

#[test]
fn a_policy_is_applied_changed_and_rolled_back_and_each_node_says_why() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    let archive = studio.mirror(ARCHIVE, &[&london]);
    let home = studio.on_demand(HOME, &[&london]);
    apply(&studio, &london, FIRST);
    for daemon in [&montreal, &archive, &home] {
        until_serial(daemon, 1);
    }
    publish_model(&london, 1, b"first");
    publish_beauty(&london, "v001");
    archive.until_complete_at(&model(1), ARCHIVE);
    archive.until_complete_at(BEAUTY_V1, ARCHIVE);
    montreal.until_complete_at(&model(1), MONTREAL);
    // The newest takes the place of the one before, which stays where it is.
    publish_model(&london, 2, b"second");
    montreal.until_complete_at(&model(2), MONTREAL);
    archive.until_complete_at(&model(2), ARCHIVE);

    let may_write = |daemon: &Daemon| {
        let file = daemon.path("assets/robot/publish/modelDefault/v002/modelDefault.usdc");
        fs::metadata(file).unwrap().permissions().mode() & 0o222 != 0
    };
    assert!(!may_write(&montreal) && may_write(&archive), "read-only where the rule says so");

    // Each node says what holds, of itself and of others.
    let here = why(&montreal, &model(2), "");
    assert_eq!(
        (here.state, here.rule.as_deref()),
        (WhyState::Here, Some("the newest models (line 11)")),
        "{here:?}"
    );
    let film = why(&montreal, BEAUTY_V1, "");
    assert_eq!((film.state, film.rule.as_deref()), (WhyState::OnDemand, None), "{film:?}");
    assert!(film.because[0].contains("by its defaults"), "{film:?}");
    assert_eq!(why(&london, BEAUTY_V1, "home").state, WhyState::Forbidden);
    assert_eq!(why(&london, BEAUTY_V1, "archive").state, WhyState::Here);
    london.until_connected(MONTREAL);
    let there = why(&london, BEAUTY_V1, "montreal");
    assert!(there.because.contains(&format!("{MONTREAL} is connected")), "{there:?}");
    let said = montreal.ctl(&["why", BEAUTY_V1, "--rules"]).expect(ExitCode::Ok).stdout;
    assert!(said.contains("rule the newest models (line 11) passes: asset is sh010, not robot"), "{said}");
    montreal.ctl(&["why", "robot/modelDefault", "--site", "nowhere"]).expect(ExitCode::NotFound);

    // Whoever asks gets what is on demand, and nobody what never comes.
    montreal.ctl(&["pull", BEAUTY_V1]).expect(ExitCode::Ok);
    let refused = home.ctl(&["pull", BEAUTY_V1]).expect(ExitCode::Denied);
    assert!(refused.stderr.contains("rule no film at home (line 6)"), "{refused:?}");
    assert!(!home.path("film").exists(), "nothing of it came");
    home.ctl(&["pull", &model(1)]).expect(ExitCode::Ok);

    // Changed: what was left out comes by itself.
    publish_beauty(&london, "v002");
    archive.until_complete_at(BEAUTY_V2, ARCHIVE);
    assert_eq!(why(&montreal, BEAUTY_V2, "").state, WhyState::OnDemand);
    apply(&studio, &archive, SECOND);
    montreal.until_complete_at(BEAUTY_V2, MONTREAL);
    until_serial(&home, 2);
    home.ctl(&["pull", BEAUTY_V1]).expect(ExitCode::Ok);

    // Rolled back: what is here stays, what is published now stays away.
    apply(&studio, &home, FIRST);
    until_serial(&london, 3);
    until_serial(&montreal, 3);
    until_serial(&archive, 3);
    tree::copy(
        &london.path("film/sh010/publish/beauty/v002"),
        &london.path("film/sh010/publish/beauty/v003"),
    );
    archive.until_complete_at("lantern:sh010/beauty@v003", ARCHIVE);
    assert_eq!(why(&montreal, "lantern:sh010/beauty@v003", "").state, WhyState::OnDemand);
    assert_eq!(why(&montreal, BEAUTY_V2, "").state, WhyState::Here);
    tree::assert_equal(&london.path(""), &archive.path(""));
}

#[test]
fn a_rule_that_asks_for_the_manifest_is_carried_out_when_a_large_one_has_come() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    montreal.until_connected(LONDON);
    let rule = "[[rule]]\nname = \"assets\"\nmatch = { silo = \"assets\" }\nsites = [\"montreal\"]\nkeep = \"here\"\n";
    apply(&studio, &london, rule);
    until_serial(&montreal, 1);
    // Manifests that are large do not travel with the record that names them.
    let dir = london.path("assets/robot/publish/cacheDefault/v001");
    for frame in 0..4_000 {
        tree::write(&dir.join(format!("cacheDefault.vdb/cacheDefault.{frame:04}.vdb")), &[]);
    }
    assert_eq!(london.api().publish(&dir).error, None);
    montreal.until_complete_at("lantern:robot/cacheDefault@v001", MONTREAL);
}

#[test]
fn what_belongs_here_and_is_paused_or_given_up_says_so() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    apply(&studio, &london, SECOND);
    until_serial(&montreal, 1);
    montreal.ctl(&["pause"]).expect(ExitCode::Ok);
    publish_model(&london, 1, b"first");
    let job = montreal.until("there is a job", |api| api.jobs().pop());
    let paused = why(&montreal, &model(1), "");
    assert_eq!(
        (paused.state, paused.hint.as_deref()),
        (WhyState::Coming, Some("let all go on: avalonctl resume"))
    );
    assert!(paused.because[0].starts_with("it is paused by"), "{paused:?}");
    montreal.ctl(&["cancel", &job.id]).expect(ExitCode::Ok);
    let given_up = why(&montreal, &model(1), "");
    assert_eq!((given_up.state, given_up.rule.as_deref()), (WhyState::Missing, Some("all offices (line 6)")));
}
