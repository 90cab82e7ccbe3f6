//! What rules come to, one by one.

use super::{DAY_MS, Version, at};
use crate::policy::{Named, Outcome, Policy, Ruling};

const NOW: u64 = 20_000 * DAY_MS;

/// `lantern:robot/rigDefault@v003`, the newest, by anna, ten days old, with silo, family and task.
fn version() -> Version {
    let id = crate::id::VersionId {
        project: "lantern".parse().unwrap(),
        asset: "robot".parse().unwrap(),
        subset: "rigDefault".parse().unwrap(),
        slot: "v003".parse().unwrap(),
    };
    Version {
        id,
        rank: 0,
        representations: vec!["abc".parse().unwrap(), "ma".parse().unwrap()],
        author: "anna".into(),
        published_at_ms: NOW - 10 * DAY_MS,
        silo: Some("assets".parse().unwrap()),
        metadata: [("family", "rig"), ("task", "rigging")].map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
        manifest_is_here: true,
    }
}

fn policy(rules: &str) -> Policy {
    let head = "schema = \"avalon.policy/1\"\n[groups]\noffices = [\"london\", \"ws1@oslo\"]\n[defaults]\n\
                keep = \"on-demand\"\nmin_copies = 1\nkeep_last = 3\n";
    Policy::parse(&format!("{head}{rules}")).unwrap()
}

/// A rule at line 8 that keeps here what it matches.
fn matching(inner: &str) -> Policy {
    policy(&format!("[[rule]]\nname = \"r\"\nmatch = {{ {inner} }}\nsites = \"@offices\"\nkeep = \"here\"\n"))
}

fn decide(policy: &Policy, node: &str, version: &Version) -> Ruling {
    policy.decide(&node.parse().unwrap(), &version.facts(), at(NOW)).unwrap()
}

#[test]
fn everything_that_match_can_ask_for_is_asked() {
    let robot = version();
    for inner in [
        "project = \"lant*\"",
        "silo = \"assets\"",
        "asset = [\"dragon\", \"rob?t\"]",
        "subset = \"rig*\"",
        "representation = \"abc\"",
        "family = [\"rig\", \"model\"]",
        "author = \"anna\"",
        "metadata = { task = \"rig*\", family = \"rig\" }",
        "latest = 1",
        "hero = false",
        "older_than = \"10d\"",
        "younger_than = \"11d\"",
        "asset = \"robot\", family = \"rig\", latest = 2, older_than = \"1d\"",
    ] {
        assert_eq!(
            decide(&matching(inner), "srv@london", &robot).to_string(),
            "here, keeps the last 3",
            "{inner}"
        );
    }
    for (inner, reason) in [
        ("project = \"comet\"", "project is lantern, not comet"),
        ("silo = \"film\"", "silo is assets, not film"),
        ("asset = \"Robot\"", "asset is robot, not Robot"),
        ("representation = [\"exr\", \"usd\"]", "representation is abc and ma, not exr or usd"),
        ("family = [\"camera\", \"model\"]", "family is rig, not camera or model"),
        ("author = \"ann\"", "author is anna, not ann"),
        ("metadata = { status = \"final\" }", "it has no metadata status, and final is wanted"),
        ("hero = true", "it is a number, not the hero"),
        ("older_than = \"11d\"", "it is 10d old, not 11d or more"),
        ("younger_than = \"10d\"", "it is 10d old, not less than 10d"),
        ("asset = \"robot\", family = \"model\"", "family is rig, not model"),
    ] {
        let policy = matching(inner);
        assert_eq!(decide(&policy, "srv@london", &robot).because, None, "{inner}");
        let explained = policy.explain(&"srv@london".parse().unwrap(), &robot.facts(), at(NOW));
        assert_eq!(explained.tried[0].outcome, Outcome::Passes { reason: reason.into() }, "{inner}");
    }
}

#[test]
fn the_latest_are_counted_by_number_and_the_hero_is_always_among_them() {
    let policy = matching("latest = 2");
    let keep = |rank, slot: &str| {
        let mut version = Version { rank, ..version() };
        version.id.slot = slot.parse().unwrap();
        decide(&policy, "srv@london", &version).keep.to_string()
    };
    assert_eq!([keep(0, "v9"), keep(1, "v8"), keep(2, "v7")], ["here", "here", "on-demand"]);
    assert_eq!(keep(77, "hero"), "here");
    let old = Version { rank: 2, ..version() };
    let explained = policy.explain(&"srv@london".parse().unwrap(), &old.facts(), at(NOW));
    let reason = "2 versions are newer, and it has to be among the latest 2";
    assert_eq!(explained.tried[0].outcome, Outcome::Passes { reason: reason.into() });
}

#[test]
fn the_first_rule_that_names_the_node_and_matches_wins_whole() {
    let policy = policy(
        "[[rule]]\nname = \"rigs\"\nmatch = { family = \"rig\" }\nsites = [\"montreal\"]\nkeep = \"never\"\nmin_copies = 2\n\
         [[rule]]\nname = \"robot\"\nmatch = { asset = \"robot\" }\nsites = [\"@offices\", \"archive\"]\nkeep = \"here\"\n\
         priority = \"high\"\nkeep_last = 8\nread_only = true\n\
         [[rule]]\nname = \"rest\"\nmatch = { project = \"*\" }\nsites = [\"*\"]\nkeep = \"here\"\nmin_copies = 3\n",
    );
    let ruling = |node: &str| decide(&policy, node, &version());
    assert_eq!(ruling("a@montreal").to_string(), "never, 2 copies, keeps the last 3");
    assert_eq!(
        ruling("a@london").to_string(),
        "here, priority high, 2 copies, keeps the last 8, read-only",
        "the copies are those of the first rule that matches, though it is for montreal"
    );
    assert_eq!(ruling("ws1@oslo").because.unwrap().to_string(), "robot (line 14)");
    assert_eq!(ruling("ws1@oslo").copies_because.unwrap().to_string(), "rigs (line 8)");
    assert_eq!((ruling("ws1@oslo").named, ruling("a@london").named), (Named::Node, Named::Site));
    assert_eq!(ruling("ws2@oslo").to_string(), "here, 2 copies, keeps the last 3");
    let explained = policy.explain(&"ws2@oslo".parse().unwrap(), &version().facts(), at(NOW));
    let tried: Vec<String> = explained.tried.iter().map(|t| format!("{} {:?}", t.line, t.outcome)).collect();
    assert_eq!(
        tried,
        [
            "8 Passes { reason: \"it is for montreal, not ws2@oslo\" }",
            "14 Passes { reason: \"it is for @offices or archive, not ws2@oslo\" }",
            "22 Wins"
        ]
    );
}

#[test]
fn what_is_not_known_is_never_guessed_and_what_is_known_can_suffice() {
    let policy = policy(
        "[[rule]]\nname = \"dragon rigs\"\nmatch = { asset = \"dragon\", family = \"rig\" }\nsites = [\"*\"]\nkeep = \"never\"\n\
         [[rule]]\nname = \"film\"\nmatch = { silo = \"film\" }\nsites = [\"montreal\"]\nkeep = \"never\"\n",
    );
    let unseen = Version { manifest_is_here: false, ..version() };
    assert_eq!(decide(&policy, "a@london", &unseen).because, None, "no rule that could match is for london");
    let error = policy.decide(&"a@montreal".parse().unwrap(), &unseen.facts(), at(NOW)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "not known yet: rule film (line 13) asks for silo, which stands in the manifest, and that has not come"
    );
    let explained = policy.explain(&"a@montreal".parse().unwrap(), &unseen.facts(), at(NOW));
    assert_eq!(explained.tried.last().unwrap().outcome, Outcome::NotKnown { fact: "silo".into() });
    assert_eq!(explained.ruling, Err(error));
}

#[test]
fn a_window_lets_things_wait_and_does_not_choose_the_rule() {
    let policy = policy(
        "[[rule]]\nname = \"nights\"\nmatch = { asset = \"robot\" }\nsites = [\"london\"]\nkeep = \"here\"\n\
         when = [\"mon-fri 19:00-07:00\", \"sat,sun\"]\n",
    );
    let node = "srv@london".parse().unwrap();
    // 1970-01-05 was a Monday.
    let monday = |hours: u64, ms: u64| 4 * DAY_MS + hours * 3_600_000 + ms;
    let version = Version { published_at_ms: 0, ..version() };
    for (now, open, next) in [
        (monday(12, 1234), false, monday(19, 0)),
        (monday(19, 0), true, monday(24 + 7, 0)),
        // On Friday evening: the night goes over into the weekend, and that into no night.
        (monday(4 * 24 + 20, 59_999), true, monday(7 * 24, 0)),
    ] {
        let ruling = policy.decide(&node, &version.facts(), at(now)).unwrap();
        assert_eq!((ruling.keep.to_string().as_str(), ruling.open_now), ("here", open), "{now}");
        assert_eq!(ruling.next_change_ms, Some(next), "{now}");
    }
    let ruling = policy.decide(&node, &version.facts(), at(monday(12, 0))).unwrap();
    assert_eq!(ruling.to_string(), "here, not now, keeps the last 3");
}

#[test]
fn an_age_that_will_be_reached_is_when_to_look_again() {
    let policy = matching("asset = \"robot\", younger_than = \"30d\"");
    let ruling = decide(&policy, "srv@london", &version());
    assert_eq!(ruling.next_change_ms, Some(NOW + 20 * DAY_MS));
    let other = matching("asset = \"dragon\", younger_than = \"30d\"");
    assert_eq!(decide(&other, "srv@london", &version()).next_change_ms, None, "it never matches");
    let ahead = Version { published_at_ms: NOW + DAY_MS, ..version() };
    assert_eq!(
        decide(&policy, "srv@london", &ahead).keep.to_string(),
        "here",
        "a clock that is ahead makes it new"
    );
}

#[test]
fn keep_last_holds_the_newest_numbers_and_the_hero_and_lets_older_ones_go() {
    let rank = |rank| Version { rank, ..version() };
    let mut hero = rank(99);
    hero.id.slot = crate::id::VersionSlot::Hero;
    for (keep, last, may_go) in [
        // What the newest three, the fourth, and the hero may.
        ("here", Some(3), [false, true, false]),
        ("here", None, [false, false, false]),
        ("on-demand", Some(3), [false, true, false]),
        ("on-demand", None, [true, true, true]),
        ("never", None, [true, true, true]),
    ] {
        let last = last.map_or(String::new(), |last| format!("keep_last = {last}\n"));
        let head =
            format!("schema = \"avalon.policy/1\"\n[defaults]\nkeep = \"{keep}\"\nmin_copies = 1\n{last}");
        let policy = Policy::parse(&head).unwrap();
        let may = |version: &Version| decide(&policy, "srv@london", version).may_be_removed(&version.facts());
        assert_eq!([rank(2), rank(3), hero.clone()].map(|version| may(&version)), may_go, "{head}");
    }
}

#[test]
fn checks_are_off_for_all_or_for_what_matches() {
    let robot = version();
    let off =
        |rules: &str| -> Vec<&str> { policy(rules).checks().off(&robot.facts(), NOW).into_iter().collect() };
    assert_eq!(off(""), [""; 0]);
    let both =
        "[checks]\noff = \"odd-size\"\n[[check]]\nmatch = { family = \"rig\" }\noff = [\"empty-file\"]\n";
    assert_eq!(off(both), ["empty-file", "odd-size"]);
    assert_eq!(off("[[check]]\nmatch = { family = \"model\" }\noff = [\"*\"]\n"), [""; 0]);
    assert_eq!(off("[[check]]\nmatch = { latest = 1 }\noff = [\"*\"]\n").len(), crate::check::ALL.len());
    // What is not known turns nothing off.
    let unknown = Version { manifest_is_here: false, ..robot.clone() };
    assert!(policy(both).checks().off(&unknown.facts(), NOW) == ["odd-size"].into());
}
