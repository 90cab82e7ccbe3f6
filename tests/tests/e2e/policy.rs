//! The studio's policy reaches every node, wherever it is applied, and stays.

use std::{
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use avalon_certs::Identity;
use avalon_protocol::{
    control::EventKind, exit_code::ExitCode, id::ProjectName, mode::ProjectMode, record::Record,
    studio::AppliedPolicy,
};
use avalon_store::{
    ledger::{CatalogCare, Ledger, LedgerConfig},
    state_dir::StateDir,
};
use avalon_tests::daemons::{
    Studio,
    daemon::{Daemon, Said},
};
use serde_json::{Value, json};

use crate::support::{HOME, LONDON, MONTREAL, model, publish_model, studio};

fn document(comment: &str) -> String {
    format!("# {comment}\nschema = \"avalon.policy/1\"\n[defaults]\nkeep = \"on-demand\"\nmin_copies = 1\n")
}

fn file(studio: &Studio, comment: &str) -> PathBuf {
    let path = studio.dir().join("studio.toml");
    fs::write(&path, document(comment)).unwrap();
    path
}

/// Applies a policy by the command line.
fn apply(studio: &Studio, daemon: &Daemon, comment: &str, more: &[&str]) -> Said {
    let path = file(studio, comment);
    let args = ["policy", "apply", path.to_str().unwrap(), "-m", comment];
    daemon.ctl(&[&args[..], more].concat())
}

/// Waits until the policy with this comment is in effect at a node, and returns its serial.
fn until_in_effect(daemon: &Daemon, comment: &str) -> u64 {
    daemon.until(&format!("policy {comment:?} is in effect"), |api| {
        let policy = api.policy()?.policy;
        (policy.comment == comment && policy.in_effect).then_some(policy.serial)
    })
}

fn history(daemon: &Daemon) -> Value {
    daemon.ctl(&["policy", "history", "--json"]).good()["policies"].clone()
}

#[test]
fn a_policy_reaches_all_nodes_those_that_were_cut_off_and_those_that_join_later() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let mut montreal = studio.mirror(MONTREAL, &[&london]);
    // Home reaches montreal only.
    let home = studio.on_demand(HOME, &[&montreal]);
    london.ctl(&["policy", "show"]).expect(ExitCode::NotFound);
    apply(&studio, &london, "first", &[]).expect(ExitCode::Ok);
    let shown = london.ctl(&["policy", "show"]).expect(ExitCode::Ok);
    assert_eq!(shown.stdout, document("first"), "in effect at once where it was applied");
    assert_eq!((until_in_effect(&montreal, "first"), until_in_effect(&home, "first")), (1, 1));
    // Two in a row.
    apply(&studio, &london, "second", &[]).expect(ExitCode::Ok);
    apply(&studio, &london, "third", &["--replaces", "2", "--author", "anna"]).expect(ExitCode::Ok);
    assert_eq!((until_in_effect(&montreal, "third"), until_in_effect(&home, "third")), (3, 3));
    // Who has seen the second only is refused, and hears whose stands.
    let late = apply(&studio, &home, "late", &["--replaces", "2"]).expect(ExitCode::Error);
    assert!(
        late.stderr.contains("AVL-1202") && late.stderr.contains("applied by anna at srv@london"),
        "{late:?}"
    );
    // Cut off, home goes by what it has; afterwards it gets what came meanwhile from one that passes it on.
    assert_eq!(montreal.terminate().code(), Some(0));
    home.until("it is cut off", |api| {
        let online = |peer: &_| matches!(peer, avalon_protocol::control::PeerState::Online);
        api.status().peers.iter().all(|peer| !online(&peer.state)).then_some(())
    });
    apply(&studio, &london, "fourth", &[]).expect(ExitCode::Ok);
    assert_eq!(home.api().policy().unwrap().policy.comment, "third");
    montreal.start();
    assert_eq!(until_in_effect(&home, "fourth"), 4);
    let tokyo = studio.on_demand("ws1@tokyo", &[&home]);
    assert_eq!(until_in_effect(&tokyo, "fourth"), 4);
    for node in [&montreal, &home, &tokyo] {
        assert_eq!(history(node), history(&london));
    }
    let second = tokyo.ctl(&["policy", "show", "--serial", "2"]).expect(ExitCode::Ok);
    assert_eq!(second.stdout, document("second"));
    tokyo.ctl(&["policy", "show", "--serial", "9"]).expect(ExitCode::NotFound);
    let (mut events, mut told) = (tokyo.events(), Vec::new());
    while told.len() < 4 {
        told.push(events.wait("a policy was applied", |kind| match kind {
            EventKind::PolicyApplied { serial, node, .. } => Some((*serial, node.clone())),
            _ => None,
        }));
    }
    assert_eq!(told, [1, 2, 3, 4].map(|serial| (serial, LONDON.to_owned())));
}

#[test]
fn a_policy_outlives_restarts_and_the_catalog() {
    let studio = studio();
    let mut london = studio.on_demand(LONDON, &[]);
    let mut montreal = studio.mirror(MONTREAL, &[&london]);
    apply(&studio, &london, "kept", &[]).expect(ExitCode::Ok);
    until_in_effect(&montreal, "kept");
    let before = history(&london);
    // Neither can get it from the other.
    london.kill9();
    montreal.restart();
    assert_eq!(history(&montreal), before);
    assert_eq!(montreal.terminate().code(), Some(0));
    for daemon in [&mut london, &mut montreal] {
        fs::remove_dir_all(daemon.config.state_dir.join("catalog")).unwrap();
        daemon.start();
        assert_eq!(history(daemon), before);
        assert_eq!(daemon.ctl(&["policy", "show"]).expect(ExitCode::Ok).stdout, document("kept"));
        assert_eq!(daemon.terminate().code(), Some(0));
    }
    // What is next goes on from there.
    montreal.start();
    let reply = apply(&studio, &montreal, "next", &["--json"]).good();
    assert_eq!((&reply["policy"]["serial"], &reply["replaced"]), (&json!(2), &json!(1)), "{reply}");
}

#[test]
fn a_node_without_a_project_in_common_gets_it_and_nobody_sees_a_project_of_the_studio() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    publish_model(&london, 1, b"secret");
    apply(&studio, &london, "for all", &[]).expect(ExitCode::Ok);
    let mut home = studio.node(HOME, ProjectMode::Mirror);
    home.config.project = "comet".into();
    fs::create_dir_all(home.config.project_dir()).unwrap();
    home.config.peers = vec![london.listen()];
    home.start();
    until_in_effect(&home, "for all");
    assert!(!home.config.state_dir.join("feeds/lantern").exists(), "not even the records of another project");
    for daemon in [&home, &london] {
        let status = daemon.ctl(&["status", "--json"]).good();
        assert_eq!(status["projects"].as_array().unwrap().len(), 1, "{status}");
        assert!(!status.to_string().contains("_studio"), "{status}");
        daemon.ctl(&["ls", "--project", "_studio"]).expect(ExitCode::NotFound);
        let listed = daemon.ctl(&["ls", "--json"]).stdout;
        assert!(!listed.contains("_studio"), "{listed}");
        assert!(!daemon.config.root.join("_studio").exists());
    }
    // And the other way round.
    apply(&studio, &home, "from home", &[]).expect(ExitCode::Ok);
    assert_eq!(until_in_effect(&london, "from home"), 2);
}

#[test]
fn no_project_can_have_the_studios_name() {
    let studio = studio();
    let mut london = studio.node(LONDON, ProjectMode::OnDemand);
    london.config.more_projects.push("_studio".into());
    let (code, said) = london.check_config();
    assert_eq!(code, i32::from(ExitCode::Usage.code()), "{said}");
    assert!(said.contains("project._studio.name: _studio is where nodes keep"), "{said}");
}

#[test]
fn of_two_that_were_applied_apart_all_nodes_take_the_same_and_say_so() {
    let studio = studio();
    // They hear of each other only when both have applied.
    let mut london = studio.on_demand(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[]);
    apply(&studio, &london, "of london", &["--replaces", "0"]).expect(ExitCode::Ok);
    apply(&studio, &montreal, "of montreal", &["--replaces", "0"]).expect(ExitCode::Ok);
    london.config.peers = vec![montreal.listen()];
    london.restart();
    for daemon in [&london, &montreal] {
        daemon.until("both are known", |_| (history(daemon).as_array()?.len() == 2).then_some(()));
        assert!(daemon.api().has_health("policy-applied-twice"));
    }
    assert_eq!(history(&london), history(&montreal));
    assert_eq!(london.api().policy(), montreal.api().policy());
    apply(&studio, &montreal, "agreed", &[]).expect(ExitCode::Ok);
    assert_eq!(until_in_effect(&london, "agreed"), 2);
    assert!(!london.api().has_health("policy-applied-twice"));
}

/// Writes a policy into the feed of a node that is stopped, as a newer version would.
fn write_policy(daemon: &Daemon, serial: u64, document: &str) {
    let state = StateDir::open(&daemon.config.state_dir).unwrap();
    let identity = Identity::load(&state.root.path().join("identity"), SystemTime::now()).unwrap();
    let config = LedgerConfig {
        me: identity.node().clone(),
        signer: identity.signer(),
        trust: Arc::new(identity.trust()),
        projects: Vec::new(),
        on_change: Arc::new(drop),
        now: Arc::new(Duration::default),
        extract: None,
        max_feed_bytes: u64::MAX,
        care: CatalogCare::default(),
    };
    let (ledger, _) = Ledger::open(&state, config).unwrap();
    let policy = AppliedPolicy::new(serial, document.into(), "zoe".into(), "new words".into(), 0).unwrap();
    ledger.commit_wait(&ProjectName::studio(), vec![Record::Policy(policy)], Vec::new(), 0).unwrap();
    ledger.close().unwrap();
}

#[test]
fn a_policy_of_a_newer_version_is_told_and_the_last_good_one_stays() {
    let studio = studio();
    let mut london = studio.on_demand(LONDON, &[]);
    apply(&studio, &london, "good", &[]).expect(ExitCode::Ok);
    assert_eq!(london.terminate().code(), Some(0));
    write_policy(&london, 2, "schema = \"avalon.policy/9\"\n");
    london.start();
    let montreal = studio.mirror(MONTREAL, &[&london]);
    let shown = montreal.until("it is known", |api| api.policy().filter(|shown| shown.policy.serial == 2));
    assert!(montreal.api().has_health("policy-not-understood"));
    assert_eq!((shown.policy.serial, shown.policy.understood, shown.in_effect), (2, false, Some(1)));
    assert!(shown.problem.unwrap().contains("avalon.policy/9"));
    montreal.ctl(&["status", "--check"]).expect(ExitCode::Error);
    publish_model(&london, 1, b"all the same");
    // By the defaults of the one that is in effect nothing comes by itself.
    montreal.until("it is known", |api| api.locate_one(&model(1)));
    montreal.ctl(&["pull", &model(1)]).expect(ExitCode::Ok);
    apply(&studio, &montreal, "better", &[]).expect(ExitCode::Ok);
    assert_eq!(until_in_effect(&london, "better"), 3);
    assert!(!montreal.api().has_health("policy-not-understood"));
}
