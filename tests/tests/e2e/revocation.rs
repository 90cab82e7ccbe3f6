//! Whoever is revoked, or was certified by who is, is cut off in the middle of what it does, within seconds.

use std::{
    fs,
    time::{Duration, Instant},
};

use avalon_protocol::{
    access::Role,
    control::{PeerState, PeerStatus},
    exit_code::ExitCode,
    mode::ProjectMode,
};
use avalon_tests::daemons::{Studio, daemon::Daemon, tree};

use crate::support::{HOME, LONDON, MODEL, MONTREAL, model, studio};

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
