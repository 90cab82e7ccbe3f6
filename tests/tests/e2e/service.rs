//! As a system service: what the service manager hears, and signals.

use std::{fs, os::unix::net::UnixDatagram};

use avalon_protocol::{control::EventKind, mode::ProjectMode};
use avalon_tests::daemons::{
    PATIENCE, Studio,
    daemon::{Daemon, may_mount},
    fuse::Fuse,
};
use rustix::process::Signal;

use crate::support::{LONDON, MONTREAL, model, publish_model, studio};

/// The service manager's end of the socket.
struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    fn new(studio: &Studio, daemon: &mut Daemon) -> Self {
        let path = studio.dir().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        daemon.set_env("NOTIFY_SOCKET", path.to_str().unwrap());
        Self { socket }
    }

    /// Takes messages until one begins so, and returns all of them.
    fn until(&self, wanted: &str) -> Vec<String> {
        let mut heard = Vec::new();
        loop {
            let mut bytes = [0; 512];
            let length = self
                .socket
                .recv(&mut bytes)
                .unwrap_or_else(|error| panic!("{wanted}: {error} after {heard:?}"));
            heard.push(String::from_utf8(bytes[..length].to_vec()).unwrap());
            if heard.last().unwrap().starts_with(wanted) {
                return heard;
            }
        }
    }
}

#[test]
fn the_service_manager_hears_of_the_start_of_life_of_a_reload_and_of_the_stop() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    publish_model(&london, 1, b"one");
    let mut montreal = studio.node(MONTREAL, ProjectMode::OnDemand);
    montreal.config.peers = vec![london.listen()];
    let manager = Manager::new(&studio, &mut montreal);
    montreal.set_env("WATCHDOG_USEC", "400000");
    montreal.start();
    let heard = manager.until("READY=1");
    assert!(heard.iter().any(|message| message.starts_with("STATUS=")), "{heard:?}");
    assert!(heard.iter().any(|message| message.starts_with("EXTEND_TIMEOUT_USEC=")), "{heard:?}");
    for _ in 0..3 {
        manager.until("WATCHDOG=1");
    }
    montreal.until("the version is known", |api| api.locate_one(&model(1)));
    assert!(montreal.api().jobs().is_empty(), "on demand");

    let mut events = montreal.events();
    montreal.config.mode = ProjectMode::Mirror;
    montreal.config.write();
    montreal.process().signal(Signal::HUP);
    let reloading = manager.until("RELOADING=1");
    assert!(reloading.last().unwrap().contains("\nMONOTONIC_USEC="), "{reloading:?}");
    manager.until("READY=1");
    let changes = events.wait("reloaded", |kind| match kind {
        EventKind::Reloaded { changes } => Some(changes.join(", ")),
        _ => None,
    });
    assert!(changes.contains("mode = mirror"), "{changes}");
    montreal.until_complete_at(&model(1), MONTREAL);

    let socket = montreal.config.socket.clone();
    assert!(socket.exists());
    assert_eq!(montreal.terminate().code(), Some(0), "{}", montreal.log());
    manager.until("STOPPING=1");
    assert!(!socket.exists(), "no socket is left behind");
    assert!(!montreal.log().contains("were left"), "{}", montreal.log());
}

#[test]
fn a_changed_configuration_that_is_wrong_changes_nothing_and_is_told() {
    let studio = studio();
    let mut london = studio.on_demand(LONDON, &[]);
    let file = london.config.file();
    let good = fs::read_to_string(&file).unwrap();
    fs::write(&file, good.replace("[settle]", "[setle]")).unwrap();
    london.process().signal(Signal::HUP);
    london.until("somebody hears of it", |api| api.has_health("config-refused").then_some(()));
    let health = london.api().status().health;
    assert!(health[0].message.contains("unknown key `setle`; did you mean `settle`?"), "{health:?}");
    publish_model(&london, 1, b"it works on");
    let other_port = good.replace("127.0.0.1:0", "127.0.0.1:1");
    assert_ne!(other_port, good);
    fs::write(&file, other_port).unwrap();
    london.process().signal(Signal::HUP);
    london.until("it says what needs a restart", |api| {
        let health = api.status().health;
        health
            .iter()
            .any(|item| item.code == "config-needs-restart" && item.message.contains("node.listen"))
            .then_some(())
    });
    assert!(!london.api().has_health("config-refused"));
}

#[test]
fn a_daemon_stops_in_time_in_the_middle_of_a_transfer_and_goes_on_later() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let dir = london.path(&format!("{}/v001", crate::support::MODEL));
    avalon_tests::daemons::tree::write_noise(&dir.join("modelDefault.usdc"), 1, 150 << 20);
    assert_eq!(london.api().publish(&dir).error, None);
    let mut montreal = studio.mirror(MONTREAL, &[&london]);
    montreal.until("bytes come", |api| api.jobs().iter().any(|job| job.bytes_received > 0).then_some(()));
    assert_eq!(montreal.terminate().code(), Some(0), "{}", montreal.log());
    assert!(!montreal.log().contains("were left"), "{}", montreal.log());
    montreal.start();
    montreal.until_complete_at(&model(1), MONTREAL);
    avalon_tests::daemons::tree::assert_equal(&london.path(""), &montreal.path(""));
}

#[test]
fn a_daemon_that_is_told_to_stop_while_it_starts_ends_well_and_leaves_nothing_behind() {
    let studio = studio();
    let mut london = studio.node(LONDON, ProjectMode::OnDemand);
    let manager = Manager::new(&studio, &mut london);
    london.launch();
    manager.until("STATUS=opening the catalog");
    assert_eq!(london.terminate().code(), Some(0), "{}", london.log());
    manager.until("STOPPING=1");
    assert!(!london.config.socket.exists(), "no socket is left behind");
    london.start();
    publish_model(&london, 1, b"one");
}

#[test]
fn a_project_whose_volume_does_not_answer_does_not_keep_a_daemon_from_stopping() {
    if !may_mount() {
        return;
    }
    let studio = studio();
    let mut london = studio.node(LONDON, ProjectMode::OnDemand);
    let Some(fuse) = Fuse::open() else { return };
    let manager = Manager::new(&studio, &mut london);
    // Nobody answers on the device, as when the server of a hard mount is away.
    london.set_device(fuse.device());
    london.set_mounts(&Fuse::mount(&london.config.project_dir().display().to_string()));
    london.launch();
    manager.until("STATUS=opening the catalog");
    assert_eq!(london.terminate().code(), Some(0), "{}", london.log());
    manager.until("STOPPING=1");
    assert!(london.log().contains("told to stop while starting"), "{}", london.log());
    assert!(!london.config.socket.exists(), "no socket is left behind");
    // The lock is free: it starts with a directory that answers.
    london.set_mounts("true");
    london.start();
    publish_model(&london, 1, b"one");
}
