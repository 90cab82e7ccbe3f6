//! Who may ask what over the socket, and what the audit has of it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
};

use avalon_protocol::{exit_code::ExitCode, mode::ProjectMode};
use avalon_tests::daemons::daemon::{Daemon, Said, is_root, run};

use crate::support::{LONDON, MONTREAL, model, publish_model, studio};

/// The group of the socket, and those of the roles.
const SOCKET: u32 = 62_000;
const READ: u32 = 62_001;
const OPERATE: u32 = 62_002;
const ADMIN: u32 = 62_003;

/// Runs `avalonctl` as a user with these groups and no right of root.
fn ctl_as(node: &Daemon, avalonctl: &Path, uid: u32, groups: &[u32], args: &[&str]) -> Said {
    let list = groups.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let mut command = Command::new("setpriv");
    command.arg(format!("--reuid={uid}")).arg(format!("--regid={uid}")).arg(format!("--groups={list}"));
    command.args(["--inh-caps=-all", "--bounding-set=-all"]);
    run(command.arg(avalonctl).arg("--socket").arg(&node.config.socket).args(args))
}

fn audit(node: &Daemon) -> Vec<serde_json::Value> {
    let exported = node.ctl(&["audit", "export"]).expect(ExitCode::Ok);
    exported.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn users_may_what_their_groups_say_and_what_is_refused_is_in_the_audit() {
    if !is_root() {
        return;
    }
    let studio = studio();
    let mut london = studio.node(LONDON, ProjectMode::OnDemand);
    london.config.extra = format!(
        "socket_group = \"{SOCKET}\"\n[api]\nread_groups = [\"{READ}\"]\noperate_groups = [\"{OPERATE}\"]\n\
         admin_groups = [\"{ADMIN}\"]\n"
    );
    london.config.write();
    fs::set_permissions(london.config.dir.parent().unwrap(), Permissions::from_mode(0o711)).unwrap();
    let avalonctl = london.config.dir.join("avalonctl");
    fs::copy(env!("CARGO_BIN_EXE_e2e-avalonctl"), &avalonctl).unwrap();
    london.start();
    publish_model(&london, 1, b"one");
    let ask = |uid, groups: &[u32], args: &[&str]| ctl_as(&london, &avalonctl, uid, groups, args).code;
    let look = ["ls", "--project", "lantern"];
    let work = ["reserve", "robot/modelDefault", "--project", "lantern"];
    let pin = ["pin", "robot/modelDefault@v001", "--project", "lantern"];
    let rule = ["catalog", "rebuild"];
    let read = ["audit", "tail"];
    let denied = i32::from(ExitCode::Denied.code());
    for (uid, groups, expected) in [
        (61_501, &[SOCKET, READ][..], [true, false, false, false]),
        (61_502, &[SOCKET, OPERATE], [true, true, false, false]),
        (61_503, &[SOCKET, ADMIN], [true, true, true, true]),
        (61_504, &[SOCKET], [false, false, false, false]),
        (0, &[], [true, true, true, true]),
    ] {
        for (args, may) in [&look[..], &pin, &rule, &read].into_iter().zip(expected) {
            assert_eq!(ask(uid, groups, args) != denied, may, "{uid} {groups:?} {args:?}");
        }
    }
    assert_eq!(ask(61_504, &[SOCKET], &work), denied);
    assert_ne!(ask(61_505, &[ADMIN], &look), 0, "the socket is not for whoever is not in its group");

    let entries = audit(&london);
    let of = |uid: u64, action: &str, outcome: &str| {
        entries.iter().any(|entry| {
            entry["actor"]["uid"] == uid && entry["action"] == action && entry["outcome"] == outcome
        })
    };
    assert!(of(61_501, "pin", "denied") && of(61_502, "pin", "done") && of(61_504, "read", "denied"));
    assert!(
        of(61_502, "catalog", "denied") && of(61_503, "catalog", "asked") && of(61_503, "catalog", "done")
    );
    assert!(!of(61_501, "pin", "done") && !of(61_502, "catalog", "asked"));
    london.ctl(&["audit", "verify"]).expect(ExitCode::Ok);
}

#[test]
fn the_audit_says_who_published_who_was_served_and_is_whole_after_a_kill() {
    let studio = studio();
    let mut london = studio.on_demand(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    publish_model(&london, 1, b"one");
    montreal.until_complete_at(&model(1), MONTREAL);
    let placed = montreal.until("it is in the audit", |_| {
        audit(&montreal).into_iter().find(|entry| entry["action"] == "place")
    });
    assert_eq!(placed["actor"]["kind"], "daemon");
    assert_eq!(london.terminate().code(), Some(0));
    // What was summed up is written at the stop.
    let dir = london.config.state_dir.join("audit");
    let copy = ["audit", "export", "--dir", dir.to_str().unwrap()];
    let exported = montreal.ctl(&copy).expect(ExitCode::Ok);
    let entries: Vec<serde_json::Value> =
        exported.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let find = |action: &str| entries.iter().find(|entry| entry["action"] == action).unwrap();
    let served = find("serve");
    assert_eq!((&served["actor"]["kind"], &served["actor"]["node"]), (&"peer".into(), &MONTREAL.into()));
    assert_eq!(served["project"], "lantern");
    let published: Vec<_> = entries.iter().filter(|entry| entry["action"] == "publish").collect();
    assert!(published.iter().any(|entry| entry["actor"]["kind"] == "user"), "who asked: {published:?}");
    assert!(
        published.iter().any(|entry| entry["actor"]["kind"] == "daemon"),
        "what came of it: {published:?}"
    );
    assert_eq!(find("stop")["actor"]["kind"], "daemon");

    london.start();
    london.kill9();
    london.start();
    london.ctl(&["audit", "verify"]).expect(ExitCode::Ok);
    let file = dir.join("audit-000000000000.jsonl");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("\"publish\"", "\"retired\"", 1)).unwrap();
    let said = london.ctl(&["audit", "verify"]).expect(ExitCode::Integrity);
    assert!(said.stdout.contains("audit-000000000000.jsonl:"), "{said:?}");
    assert_eq!(london.terminate().code(), Some(0));
    london.start();
    london.until("it is told", |api| api.has_health("audit-damaged").then_some(()));
}
