//! `avalonctl demo`, as a newcomer runs it.

use std::process::Command;

use avalon_protocol::exit_code::ExitCode;
use avalon_tests::daemons::daemon::run;

use crate::support::{programs, show};

fn demo(args: &[&str]) -> serde_json::Value {
    let programs = programs();
    let mut command = Command::new(&programs.avalonctl);
    command.args(["demo", "--once", "--json"]).args(args).env("AVALOND", &programs.avalond);
    run(&mut command).expect(ExitCode::Ok).json()
}

#[test]
fn the_demo_ends_well_with_a_generated_show() {
    let summary = demo(&[]);
    assert_eq!((&summary["type"], &summary["schema"]), (&"summary".into(), &"avalonctl.demo/1".into()));
    assert_eq!((&summary["mismatches"], &summary["ok"]), (&0.into(), &true.into()), "{summary}");
    assert!(summary["versions"].as_u64() > Some(0) && summary["bytes"].as_u64() > Some(0), "{summary}");
}

#[test]
fn the_demo_ends_well_with_a_show_of_ones_own() {
    let show = show();
    let summary = demo(&["--source", show.to_str().unwrap()]);
    assert_eq!((&summary["versions"], &summary["files"]), (&3.into(), &49.into()), "{summary}");
    assert_eq!((&summary["mismatches"], &summary["ok"]), (&0.into(), &true.into()), "{summary}");
}
