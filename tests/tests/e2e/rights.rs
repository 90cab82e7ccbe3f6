//! Who may do what: only admins change it, and whoever is revoked is out at once and everywhere.

use std::{fs, path::PathBuf, time::Instant};

use avalon_protocol::{access::Role, control::PeerState, exit_code::ExitCode, mode::ProjectMode};
use avalon_tests::daemons::{Studio, daemon::Daemon, tree};
use serde_json::Value;

use crate::support::{HOME, LONDON, MODEL, MONTREAL, model, publish_model, studio};

/// Starts a node whose certificate has this role.
fn node(studio: &Studio, name: &str, role: Role, mode: ProjectMode, peers: &[&Daemon]) -> Daemon {
    let mut daemon = studio.node(name, mode);
    fs::remove_dir_all(daemon.config.identity_dir()).unwrap();
    studio.issue_as(name, role, &daemon.config.identity_dir());
    daemon.config.peers = peers.iter().map(|peer| peer.listen()).collect();
    daemon.start();
    daemon
}

fn policy(studio: &Studio, grants: &str) -> PathBuf {
    let path = studio.dir().join("studio.toml");
    let text =
        format!("schema = \"avalon.policy/1\"\n[defaults]\nkeep = \"on-demand\"\nmin_copies = 1\n{grants}");
    fs::write(&path, text).unwrap();
    path
}

fn apply(studio: &Studio, at: &Daemon, grants: &str) {
    let path = policy(studio, grants);
    at.ctl(&["policy", "apply", path.to_str().unwrap(), "-m", "rights"]).expect(ExitCode::Ok);
}

/// What a node says of another one.
fn seen(at: &Daemon, node: &str) -> Option<Value> {
    let reply = at.ctl(&["node", "list", "--json"]).good();
    reply["nodes"].as_array().unwrap().iter().find(|item| item["node"] == node).cloned()
}

fn until_revoked(at: &Daemon, node: &str) {
    at.until(&format!("{node} is revoked"), |_| {
        seen(at, node).filter(|item| !item["revoked"].is_null()).map(drop)
    });
}

fn is_connected(at: &Daemon, node: &str) -> bool {
    let online = |peer: &avalon_protocol::control::PeerStatus| {
        peer.state == PeerState::Online && format!("{}@{}", peer.node, peer.site) == node
    };
    at.api().status().peers.iter().any(online)
}

#[test]
fn who_is_revoked_amid_a_transfer_is_out_everywhere_and_gets_nothing_more() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    let home = node(&studio, HOME, Role::Workstation, ProjectMode::OnDemand, &[&london, &montreal]);
    publish_model(&home, 1, b"made at home");
    montreal.until_complete_at(&model(1), MONTREAL);
    let dir = london.path(&format!("{MODEL}/v002"));
    tree::write_noise(&dir.join("modelDefault.usdc"), 7, 64 << 20);
    assert_eq!(london.api().publish(&dir).error, None);
    montreal.until_complete_at(&model(2), MONTREAL);
    home.until("it knows the version", |api| api.locate_one(&model(2)).map(drop));
    // Slow enough to be amid it, at whichever end.
    for office in [&london, &montreal] {
        office.ctl(&["limit", "set", "1MiB/s", "--direction", "send", "--json"]).good();
    }
    home.api().pull(&model(2)).unwrap();
    let job = home.api().job_of(&model(2)).id;
    let present = |api: &avalon_tests::daemons::api::Api| api.job(&job).map_or(0, |job| job.bytes_present);
    home.until("some of it has come", |api| (present(api) > 0).then_some(()));

    // Its own operator cannot, and neither can a machine that is no admin's.
    home.ctl(&["node", "revoke", LONDON]).expect(ExitCode::Denied);
    london.ctl(&["node", "revoke", LONDON]).expect(ExitCode::Usage);
    let begun = Instant::now();
    let said = london.ctl(&["node", "revoke", HOME, "-m", "stolen on the train"]).expect(ExitCode::Ok);
    assert_eq!(said.stdout.trim(), "ws1@home is revoked");
    for office in [&london, &montreal] {
        office.until("it let go of it", |_| (!is_connected(office, HOME)).then_some(()));
        until_revoked(office, HOME);
    }
    println!("revoked and cut off at two sites after {} ms", begun.elapsed().as_millis());
    home.until("nobody talks to it", |api| {
        api.status().peers.iter().all(|peer| peer.state != PeerState::Online).then_some(())
    });
    let left = present(&home.api());
    assert!(left < 64 << 20, "it was amid it");
    home.until("it knows why", |api| {
        let told = |peer: &avalon_protocol::control::PeerStatus| {
            peer.detail.as_deref().is_some_and(|detail| detail.contains("revoked"))
        };
        api.status().peers.iter().any(told).then_some(())
    });
    // What it said before stands; what it says now reaches nobody.
    let late = home.path(&format!("{MODEL}/v003"));
    tree::write(&late.join("modelDefault.usdc"), b"made afterwards");
    // It is refused where the revocation has come to the node itself, before it was cut off.
    home.api().publish(&late);
    publish_model(&london, 4, b"made in london");
    montreal.until_complete_at(&model(4), MONTREAL);
    assert!(montreal.api().locate_one(&model(3)).is_none());
    assert_eq!(
        montreal.api().locate(&model(1)).unwrap().versions[0].manifest,
        london.api().locate(&model(1)).unwrap().versions[0].manifest
    );
    assert_eq!(present(&home.api()), left, "not one byte more");
    assert!(home.api().locate_one(&model(4)).is_none());
    london.ctl(&["node", "revoke", HOME]).expect(ExitCode::Usage);
}

#[test]
fn a_revocation_outlives_restarts_and_reaches_who_was_away() {
    let studio = studio();
    let mut london = studio.on_demand(LONDON, &[]);
    let mut montreal = studio.mirror(MONTREAL, &[&london]);
    let _home = node(&studio, HOME, Role::Workstation, ProjectMode::OnDemand, &[&london, &montreal]);
    london.until_connected(HOME);
    montreal.until_connected(HOME);
    assert_eq!(montreal.terminate().code(), Some(0));
    london.ctl(&["node", "revoke", HOME]).expect(ExitCode::Ok);
    london.kill9();
    london.start();
    until_revoked(&london, HOME);
    // It hears of it from london, though home may be there first.
    montreal.start();
    until_revoked(&montreal, HOME);
    montreal.until("it let go of it", |_| (!is_connected(&montreal, HOME)).then_some(()));
    // Home itself may not have noticed yet that london was killed.
    assert!(!is_connected(&london, HOME));
}

#[test]
fn only_an_admins_node_applies_a_policy_and_what_others_write_all_the_same_has_no_effect() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let home = node(&studio, HOME, Role::Workstation, ProjectMode::OnDemand, &[&london]);
    let path = policy(&studio, "");
    let said = home.ctl(&["policy", "apply", path.to_str().unwrap()]).expect(ExitCode::Denied);
    assert!(
        said.stderr.contains("ws1@home may not apply policies") && said.stderr.contains("--role admin"),
        "{said:?}"
    );
    assert!(home.api().policy().is_none());
    apply(&studio, &london, "");
    home.until("it has the policy", |api| api.policy().map(drop));
}

#[test]
fn work_from_before_a_right_was_taken_stays_and_what_comes_after_is_refused_with_the_reason() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let home = node(&studio, HOME, Role::Workstation, ProjectMode::OnDemand, &[&london]);
    publish_model(&home, 1, b"before");
    london.until("it knows the version", |api| api.locate_one(&model(1)).map(drop));
    apply(
        &studio,
        &london,
        "[[grant]]\nto = \"role:workstation\"\nprojects = \"*\"\nactions = [\"see\", \"pull\"]\n",
    );
    home.until("it may not publish", |_| {
        let item = seen(&home, HOME)?;
        (item["rights"]["lantern"] == serde_json::json!(["see", "pull"])).then_some(())
    });
    let dir = home.path(&format!("{MODEL}/v002"));
    tree::write(&dir.join("modelDefault.usdc"), b"after");
    let item = home.api().publish(&dir);
    assert!(item.error.is_some() && item.messages.concat().contains("publish"), "{item:?}");
    for at in [&london, &home] {
        assert!(at.api().locate_one(&model(1)).is_some(), "what was said before stands");
        assert!(at.api().locate_one(&model(2)).is_none());
    }
    // Granted again, it goes on.
    apply(
        &studio,
        &london,
        "[[grant]]\nto = \"role:workstation\"\nprojects = \"*\"\nactions = [\"pull\", \"publish\"]\n",
    );
    home.until("it may publish", |api| (api.publish(&dir).error.is_none()).then_some(()));
    london.until("it knows the version", |api| api.locate_one(&model(2)).map(drop));
}
