//! The same version number at two sites that cannot see each other.

use avalon_protocol::{exit_code::ExitCode, mode::ProjectMode};
use avalon_tests::daemons::{Studio, daemon::Daemon, tree};

use crate::support::{HOME, LONDON, MODEL, MONTREAL, model, publish_model, studio};

/// Publishes at two mirrors that do not know each other, then lets them meet.
fn meet(studio: &Studio, at_london: &[u8], at_montreal: &[u8]) -> (Daemon, Daemon) {
    let london = studio.mirror(LONDON, &[]);
    let mut montreal = studio.node(MONTREAL, ProjectMode::Mirror);
    montreal.start();
    publish_model(&london, 1, at_london);
    publish_model(&montreal, 1, at_montreal);
    montreal.config.peers = vec![london.listen()];
    montreal.restart();
    // Each has the other's records when both know a later version of the other.
    publish_model(&london, 2, b"from london");
    publish_model(&montreal, 3, b"from montreal");
    montreal.until_complete_at(&model(2), MONTREAL);
    london.until_complete_at(&model(3), LONDON);
    (london, montreal)
}

#[test]
fn different_content_is_shown_as_a_conflict_and_nothing_is_overwritten() {
    let studio = studio();
    let (london, montreal) = meet(&studio, b"one", b"another");
    for (daemon, content) in [(&london, "one"), (&montreal, "another")] {
        let item = daemon.api().locate_one(&model(1)).unwrap();
        assert!(item.conflict, "{item:?}");
        let listed = daemon.api().list().versions.into_iter().find(|v| v.reference == model(1)).unwrap();
        assert!(listed.conflict, "{listed:?}");
        let file = daemon.path(&format!("{MODEL}/v001/modelDefault.usdc"));
        assert_eq!(std::fs::read_to_string(file).unwrap(), content, "what was there stays");
        assert!(daemon.api().jobs().iter().all(|job| job.reference != model(1)));
    }
    let home = studio.on_demand(HOME, &[&london]);
    home.until("home knows of the conflict", |api| api.locate_one(&model(1)).filter(|item| item.conflict));
    let said = home.ctl(&["pull", &model(1)]).expect(ExitCode::Integrity);
    assert!(said.stderr.contains("conflict") || said.stderr.contains("different"), "{said:#?}");
    assert!(!home.path(&format!("{MODEL}/v001")).exists());
    let said = home.ctl(&["why", &model(1), "--json"]).good();
    assert_eq!(said["answers"][0]["state"], "conflict");
}

#[test]
fn equal_content_is_no_conflict_and_moves_no_byte() {
    let studio = studio();
    let content = tree::noise(5, 300_000);
    let (london, montreal) = meet(&studio, &content, &content);
    for daemon in [&london, &montreal] {
        daemon.until_complete_at(&model(1), LONDON);
        daemon.until_complete_at(&model(1), MONTREAL);
        assert!(!daemon.api().locate_one(&model(1)).unwrap().conflict);
        let jobs = daemon.api().jobs();
        assert!(jobs.iter().all(|job| job.reference != model(1) || job.bytes_received == 0), "{jobs:?}");
    }
}
