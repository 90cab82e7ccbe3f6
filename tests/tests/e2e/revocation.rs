//! Whoever is revoked, or was certified by who is, is cut off in the middle of what it does, within seconds.

use std::{
    fs,
    time::{Duration, Instant},
};

use avalon_protocol::{
    access::Role,
    control::{ErrorCode, PeerState, PeerStatus},
    exit_code::ExitCode,
    hash::ObjectHash,
    mode::ProjectMode,
    wire::{FetchObjects, Request, Want},
};
use avalon_tests::daemons::{Studio, daemon::Daemon, raw::RawPeer, tree};

use crate::support::{HOME, LONDON, MODEL, MONTREAL, model, publish_model, studio};

/// How long it may take until who is revoked is cut off.
const CUT_OFF: Duration = Duration::from_secs(5);
const TD: &str = "td@london";
const BYTES: u64 = 64 << 20;

fn is_connected(at: &Daemon, node: &str) -> bool {
    let online =
        |peer: &PeerStatus| peer.state == PeerState::Online && format!("{}@{}", peer.node, peer.site) == node;
    at.api().status().peers.iter().any(online)
}

/// An admin's node, a site that issues, another site, and a machine that the first one certified, connected with both sites.
struct Scene {
    _studio: Studio,
    td: Daemon,
    _london: Daemon,
    montreal: Daemon,
    home: Daemon,
}

impl Scene {
    fn new() -> Self {
        let studio = studio();
        let td = studio.on_demand(TD, &[]);
        let mut london = studio.node_as(LONDON, Role::Site, ProjectMode::OnDemand);
        studio.delegate(LONDON, &london.config.identity_dir());
        london.config.peers = vec![td.listen()];
        london.start();
        let mut montreal = studio.node_as(MONTREAL, Role::Site, ProjectMode::Mirror);
        montreal.config.peers = vec![td.listen(), london.listen()];
        montreal.start();
        let mut home = studio.node_as(HOME, Role::Workstation, ProjectMode::OnDemand);
        fs::remove_dir_all(home.config.identity_dir()).unwrap();
        studio.issue_by(LONDON, &london.config.identity_dir(), HOME, &home.config.identity_dir());
        home.config.peers = vec![london.listen(), montreal.listen()];
        home.start();
        for office in [&london, &montreal] {
            office.until_connected(HOME);
        }
        Self { _studio: studio, td, _london: london, montreal, home }
    }

    /// Home is amid fetching a version from montreal.
    fn fetches_from_montreal(&self) -> String {
        let Self { montreal, home, .. } = self;
        let dir = montreal.path(&format!("{MODEL}/v001"));
        tree::write_noise(&dir.join("modelDefault.usdc"), 7, BYTES);
        assert_eq!(montreal.api().publish(&dir).error, None);
        home.until("it knows the version", |api| api.locate_one(&model(1)).map(drop));
        montreal.ctl(&["limit", "set", "1MiB/s", "--direction", "send", "--json"]).good();
        home.api().pull(&model(1)).unwrap();
        let job = home.api().job_of(&model(1)).id;
        home.until("some of it has come", |_| (self.present(&job) > 0).then_some(()));
        job
    }

    fn present(&self, job: &str) -> u64 {
        self.home.api().job(job).map_or(0, |job| job.bytes_present)
    }

    /// Nobody talks to home any more, and montreal said that something is revoked. Returns how long that took.
    fn is_cut_off(&self, begun: Instant) -> Duration {
        let Self { montreal, home, .. } = self;
        montreal.until("it let go of it", |_| (!is_connected(montreal, HOME)).then_some(()));
        let took = begun.elapsed();
        home.until("it knows why", |api| {
            let told = |peer: &PeerStatus| {
                peer.state != PeerState::Online
                    && peer.detail.as_deref().is_some_and(|detail| detail.contains("revoked"))
            };
            api.status().peers.iter().any(told).then_some(())
        });
        took
    }
}

#[test]
fn who_is_revoked_is_cut_off_from_a_transfer_within_seconds() {
    let scene = Scene::new();
    let job = scene.fetches_from_montreal();
    let begun = Instant::now();
    scene.td.ctl(&["node", "revoke", HOME]).expect(ExitCode::Ok);
    let took = scene.is_cut_off(begun);
    println!("revoked amid a transfer, and cut off at another site after {} ms", took.as_millis());
    assert!(took < CUT_OFF, "{took:?}");
    assert!(scene.present(&job) < BYTES, "it was amid it");
}

#[test]
fn whom_a_revoked_node_certified_is_cut_off_from_a_transfer_within_seconds() {
    let scene = Scene::new();
    let job = scene.fetches_from_montreal();
    let begun = Instant::now();
    scene.td.ctl(&["node", "revoke", LONDON]).expect(ExitCode::Ok);
    let took = scene.is_cut_off(begun);
    println!("its issuer revoked amid a transfer, cut off at another site after {} ms", took.as_millis());
    assert!(took < CUT_OFF, "{took:?}");
    assert!(scene.present(&job) < BYTES, "it was amid it");
    assert!(!is_connected(&scene.montreal, LONDON));
    // Who was certified by the authority itself stays.
    assert!(is_connected(&scene.montreal, TD));
}

/// Has the CA put all that it issued to a node on its next list, and publishes that at an admin's node.
fn revokes_by_list(studio: &Studio, at: &Daemon, node: &str) -> String {
    let ca = studio.authority_dir();
    let made = at.ctl(&["ca", "revoke", "--dir", ca.to_str().unwrap(), "--node", node, "--json"]).good();
    let list = made["list"].as_str().unwrap().to_owned();
    at.ctl(&["node", "revoke", "--list", &list]).expect(ExitCode::Ok);
    list
}

fn until_revoked(at: &Daemon, node: &str) {
    at.until(&format!("{node} is revoked"), |_| {
        let reply = at.ctl(&["node", "list", "--json"]).good();
        let nodes = reply["nodes"].as_array().unwrap().clone();
        nodes.iter().any(|item| item["node"] == node && !item["revoked"].is_null()).then_some(())
    });
}

#[test]
fn a_list_of_the_ca_reaches_everybody_cuts_off_who_is_on_it_and_survives_restarts() {
    let studio = studio();
    let mut td = studio.on_demand(TD, &[]);
    let mut montreal = studio.node_as(MONTREAL, Role::Site, ProjectMode::OnDemand);
    montreal.config.peers = vec![td.listen()];
    montreal.start();
    let mut home = studio.node_as(HOME, Role::Workstation, ProjectMode::OnDemand);
    home.config.peers = vec![montreal.listen()];
    home.start();
    montreal.until_connected(HOME);
    montreal.until_connected(TD);
    publish_model(&home, 1, b"before");
    td.until("it knows the version", |api| api.locate_one(&model(1)).map(drop));
    let begun = Instant::now();
    let list = revokes_by_list(&studio, &td, HOME);
    montreal.until("it let go of it", |_| (!is_connected(&montreal, HOME)).then_some(()));
    let took = begun.elapsed();
    println!("on a list, and cut off at another site after {} ms", took.as_millis());
    assert!(took < CUT_OFF, "{took:?}");
    // Old ones, and those that a site's node brings, are refused.
    td.ctl(&["node", "revoke", "--list", &list]).expect(ExitCode::Usage);
    montreal.ctl(&["node", "revoke", "--list", &list]).expect(ExitCode::Denied);
    for node in [&td, &montreal] {
        until_revoked(node, HOME);
        assert!(node.api().locate_one(&model(1)).is_some(), "what was said before stands");
    }
    td.kill9();
    assert_eq!(montreal.terminate().code(), Some(0));
    montreal.start();
    until_revoked(&montreal, HOME);
    home.until("it is refused", |api| {
        let told =
            |peer: &PeerStatus| peer.detail.as_deref().is_some_and(|detail| detail.contains("revoked"));
        api.status().peers.iter().any(told).then_some(())
    });
    assert!(!is_connected(&montreal, HOME));
}

#[test]
fn a_node_that_is_cut_off_records_nothing_after_a_while_and_goes_on_when_it_hears_again() {
    let studio = studio();
    let mut td = studio.on_demand(TD, &[]);
    let mut home = studio.node_as(HOME, Role::Workstation, ProjectMode::OnDemand);
    home.config.peers = vec![td.listen()];
    home.config.extra =
        "knowledge_max_age = \"1s\"\nrevocation_grace = \"1s\"\nserve_when_old = false\n".into();
    home.start();
    home.until_connected(TD);
    let content = b"with the others";
    publish_model(&home, 1, content);
    let guest = studio.dir().join("guest");
    studio.issue_as("ws2@home", Role::Workstation, &guest);
    let gives = |home: &Daemon| {
        let (object, size) = (ObjectHash::of(content), content.len() as u64);
        let want = Want { object, size, first_block: 0, blocks: 1, with_list: false };
        let request =
            Request::Objects(FetchObjects { project: "lantern".parse().unwrap(), wants: vec![want] });
        let (peer, _) = RawPeer::greet(&guest, &home.listen(), &["lantern"]);
        peer.ask(&request).windows(content.len()).any(|part| part == content)
    };
    assert!(gives(&home));
    // The same port again, so that it is found.
    td.config.listen = td.listen();
    assert_eq!(td.terminate().code(), Some(0));
    home.until("it refuses", |api| {
        let health = api.status().health;
        health
            .iter()
            .any(|item| item.code == "rights-knowledge-old" && item.message.contains("records nothing new"))
            .then_some(())
    });
    let dir = home.path(&format!("{MODEL}/v002"));
    tree::write(&dir.join("modelDefault.usdc"), b"alone");
    let item = home.api().publish(&dir);
    assert_eq!(item.error, Some(ErrorCode::RightsTooOld), "{item:?}");
    let said = home.ctl(&["retire", &model(1), "-m", "wrong"]);
    assert!(said.code != 0 && format!("{said:?}").contains("has not heard for too long"), "{said:?}");
    let age = home.api().status().knowledge_age_seconds;
    assert!(age >= 2.0, "{age}");
    assert!(!gives(&home), "its configuration says that it serves nobody then");
    td.start();
    home.until("it records again", |api| {
        let item = api.publish(&dir);
        item.error.is_none().then_some(())
    });
    assert!(!home.api().has_health("rights-knowledge-old") && gives(&home));
    // An admin's node alone is not cut off from itself.
    assert_eq!(td.api().status().knowledge_age_seconds, 0.0);
}
