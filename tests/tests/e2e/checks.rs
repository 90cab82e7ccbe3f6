//! What artists are told about what they publish, where they publish it and elsewhere.

use std::fs;

use avalon_protocol::{control::EventKind, exit_code::ExitCode};
use avalon_tests::daemons::{daemon::Daemon, tree};
use serde_json::Value;

use crate::support::{LONDON, MONTREAL, publish_model, studio};

const COMP: &str = "film/sh010/publish/comp/v001";
const COMP_V1: &str = "lantern:sh010/comp@v001";

/// A sequence with a hole and a frame that is cut off, a file without bytes, and an input that nobody has published.
fn publish_odd(daemon: &Daemon, exit: ExitCode) -> Value {
    let dir = daemon.path(COMP);
    for frame in [1001, 1002, 1004, 1005, 1006] {
        let mut picture = [&[0xff, 0xd8, 0xff][..], &tree::noise(frame, 20_000)].concat();
        picture.retain(|byte| *byte != 0xd9);
        if frame != 1005 {
            picture.extend([0xff, 0xd9]);
        }
        tree::write(&dir.join(format!("comp.jpg/comp.{frame}.jpg")), &picture);
    }
    tree::write(&dir.join("comp.nk"), b"");
    let publish = [
        "publish",
        dir.to_str().unwrap(),
        "--input",
        "robot/modelDefault@v001",
        "--meta",
        "check.odd-size=x",
        "--json",
    ];
    let published = daemon.ctl(&publish).expect(exit);
    serde_json::from_str(&published.stdout).unwrap()
}

fn codes(problems: &Value) -> Vec<&str> {
    problems.as_array().unwrap().iter().map(|problem| problem["code"].as_str().unwrap()).collect()
}

fn problems(daemon: &Daemon, reference: &str, exit: ExitCode) -> Value {
    serde_json::from_str(&daemon.ctl(&["problems", reference, "--json"]).expect(exit).stdout).unwrap()
}

#[test]
fn problems_are_told_at_the_publish_and_at_every_site_until_they_are_mended_or_turned_off() {
    let studio = studio();
    let london = studio.on_demand(LONDON, &[]);
    let montreal = studio.mirror(MONTREAL, &[&london]);
    let mut events = london.events();
    let published = publish_odd(&london, ExitCode::Partial);
    let version = &published["versions"][0];
    assert_eq!((&version["state"], &version["error"]), (&"published".into(), &Value::Null), "{published}");
    let expected = ["empty-file", "truncated-file", "missing-frames", "missing-input"];
    assert_eq!(codes(&version["problems"]), expected, "{published}");
    let told = version["problems"].to_string();
    for word in ["comp.nk", "comp.jpg/comp.1005.jpg ends before", "frame 1003", "robot/modelDefault@v001"] {
        assert!(told.contains(word), "{word}: {told}");
    }
    events.wait("the problems", |kind| match kind {
        EventKind::ProblemsFound { reference, problems, .. } if reference == COMP_V1 => {
            (problems.len() == 4).then_some(())
        }
        _ => None,
    });
    // At the other site just the same, although it never saw a file of it before.
    montreal.until_complete_at(COMP_V1, MONTREAL);
    let there = problems(&montreal, "sh010/*", ExitCode::Error);
    assert_eq!(there["versions"], problems(&london, "sh010/*", ExitCode::Error)["versions"]);
    assert_eq!(there["versions"][0]["problems"], version["problems"]);
    let info = montreal.ctl(&["info", COMP_V1, "--json"]).good();
    assert_eq!(info["problems"], version["problems"]);
    let noted: Vec<&String> = info["metadata"].as_object().unwrap().keys().collect();
    assert_eq!(
        noted,
        ["check.missing-input", "check.truncated-file"],
        "what was set under such a key is gone"
    );

    // The frame comes, and somebody publishes the model: the version grows, and less is wrong.
    publish_model(&london, 1, b"a model");
    let frame = london.path(&format!("{COMP}/comp.jpg"));
    fs::copy(frame.join("comp.1002.jpg"), frame.join("comp.1003.jpg")).unwrap();
    let again =
        london.ctl(&["publish", london.path(COMP).to_str().unwrap(), "--json"]).expect(ExitCode::Partial);
    let again: Value = serde_json::from_str(&again.stdout).unwrap();
    assert_eq!(again["versions"][0]["generation"], 2, "{again}");
    assert_eq!(codes(&again["versions"][0]["problems"]), ["empty-file", "truncated-file"]);

    // The studio does not care about the rest of it.
    let policy = london.config.dir.join("studio.toml");
    let text = "schema = \"avalon.policy/1\"\n[defaults]\nkeep = \"on-demand\"\nmin_copies = 1\n[checks]\noff = [\"empty-file\"]\n\
                [[check]]\nmatch = { subset = \"comp\" }\noff = [\"truncated-file\"]\n";
    tree::write(&policy, text.as_bytes());
    london.ctl(&["policy", "apply", policy.to_str().unwrap()]).expect(ExitCode::Ok);
    montreal.until("the policy is in effect", |api| {
        api.policy().is_some_and(|p| p.policy.in_effect).then_some(())
    });
    montreal.until("generation 2", |api| (api.info(COMP_V1).ok()?.generation == 2).then_some(()));
    let quiet = problems(&montreal, "*/*@*", ExitCode::Ok);
    assert_eq!((quiet["versions"].as_array().unwrap().len(), &quiet["checked"]), (0, &2.into()), "{quiet}");
    publish_odd(&london, ExitCode::Ok);
}
