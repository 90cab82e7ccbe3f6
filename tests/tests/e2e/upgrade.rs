//! Another version on the other side, or before this one: on disk and on the line.

use std::fs;

use avalon_protocol::{
    control::{LimitsReply, Presence, route},
    mode::ProjectMode,
    wire::{Control, FRAME_HEADER_BYTES, FrameHeader, Framed as _, Hello, PROTOCOL_MAX, PROTOCOL_MIN},
};
use avalon_tests::{
    daemons::{Studio, daemon::Daemon},
    recorded::{Answer, Recording, Talk, WRITER, from_hex, lasting, to_hex},
};
use walkdir::WalkDir;

use crate::support::{MONTREAL, model, programs, publish_model, studio};

fn control(frame: &[u8]) -> Control {
    let (header, payload) = frame.split_first_chunk::<FRAME_HEADER_BYTES>().unwrap();
    Control::from_payload(FrameHeader::parse(*header).unwrap().kind, payload).unwrap()
}

/// Dials a node with the name of the recorded one.
fn dial(studio: &Studio, node: &Daemon) -> Talk {
    let identity = studio.dir().join("recorded-identity");
    studio.issue(WRITER, &identity, avalon_tests::daemons::now());
    Talk::dial(&identity, &node.listen())
}

#[test]
fn a_node_goes_on_with_the_state_that_each_earlier_version_wrote() {
    for recording in Recording::all() {
        let studio = recording.studio(programs());
        let mut london = recording.take_up(&studio);
        london.start();
        let told = &recording.told;
        london.until("all is known and here", |api| {
            let list = api.list();
            let is_here = list.versions.iter().all(|item| item.here == Presence::Complete);
            (is_here && lasting(&list) == lasting(&told.list)).then_some(())
        });
        let limits: LimitsReply = london.api().get(route::LIMITS).unwrap();
        assert_eq!(limits.limits, told.limits.limits);
        assert_eq!(london.api().policy().unwrap().policy.serial, told.policy_serial);
        // It writes on where the other version ended, and others take both.
        publish_model(&london, 4, b"by this version");
        let montreal = studio.mirror(MONTREAL, &[&london]);
        // What is out of use is not fetched by itself.
        for version in 2..=4 {
            montreal.until_complete_at(&model(version), MONTREAL);
        }
        let known = lasting(&montreal.api().list());
        assert!(lasting(&told.list).iter().all(|line| known.contains(line)), "{known:#?}");
        london.restart();
        assert_eq!(london.api().list().versions.len(), told.list.versions.len() + 1);
        assert_eq!(london.api().info(&model(1)).unwrap().retired.unwrap().comment, "wrong scale");
    }
}

#[test]
fn what_a_peer_of_each_earlier_version_says_is_understood() {
    for recording in Recording::all() {
        let studio = recording.studio(programs());
        let montreal = studio.mirror(MONTREAL, &[]);
        let mut london = dial(&studio, &montreal);
        london.say(&recording.said());
        let Control::Hello(hello) = control(&london.hear()) else { panic!("no greeting") };
        assert!(hello.protocol_min <= 1, "it says that it still speaks the first");
        montreal.until("all that was said is known", |api| {
            (lasting(&api.list()) == lasting(&recording.told.list)).then_some(())
        });
        montreal.until("the policy is in effect", |api| {
            (api.policy()?.policy.serial == recording.told.policy_serial).then_some(())
        });
    }
}

#[test]
fn what_a_peer_of_each_earlier_version_asks_is_answered_as_it_was() {
    for recording in Recording::all() {
        let studio = recording.studio(programs());
        let mut london = recording.take_up(&studio);
        london.start();
        london.until("all is here", |api| {
            api.list().versions.iter().all(|item| item.here == Presence::Complete).then_some(())
        });
        let identity = studio.dir().join("peer");
        studio.issue("nas@montreal", &identity, avalon_tests::daemons::now());
        let mut peer = Talk::dial(&identity, &london.listen());
        let Control::Hello(recorded) = control(&recording.said()[0]) else { panic!("no greeting") };
        let hello = Hello { node: "nas@montreal".parse().unwrap(), instance: 7, ..recorded };
        peer.say(&[Control::Hello(hello).to_frame()]);
        drop(peer.hear());
        for Answer { what, request, answer } in &recording.told.answers {
            let now = peer.ask(&from_hex(request));
            assert_eq!(to_hex(&now), *answer, "{what}, of {}", recording.told.version);
        }
    }
}

#[test]
fn with_a_newer_version_that_still_speaks_ours_all_goes_on_and_another_hears_who_must_upgrade() {
    let recording = Recording::all().pop().unwrap();
    let studio = recording.studio(programs());
    let montreal = studio.mirror(MONTREAL, &[]);
    let mut said = recording.said();
    let Control::Hello(ours) = control(&said[0]) else { panic!("no greeting") };
    let newer = Hello { protocol_min: PROTOCOL_MAX + 1, protocol_max: PROTOCOL_MAX + 2, ..ours.clone() };
    let mut talk = dial(&studio, &montreal);
    talk.say(&[Control::Hello(newer).to_frame()]);
    let ended = talk.ended();
    let expected = format!(
        "{WRITER} speaks protocol {} to {}, this version {PROTOCOL_MIN} to {PROTOCOL_MAX}; upgrade the older side",
        PROTOCOL_MAX + 1,
        PROTOCOL_MAX + 2
    );
    assert_eq!(ended.reason, expected);
    // What a newer build can do beyond this is in its features; this version passes over those that it does not know.
    let newer = Hello { protocol_max: PROTOCOL_MAX + 1, features: u64::MAX << 16, instance: 9, ..ours };
    said[0] = Control::Hello(newer).to_frame();
    let mut talk = dial(&studio, &montreal);
    talk.say(&said);
    montreal.until("all that was said is known", |api| {
        (lasting(&api.list()) == lasting(&recording.told.list)).then_some(())
    });
}

#[test]
fn a_feed_of_a_newer_version_is_left_as_it_is_and_the_start_says_what_to_do() {
    let studio = studio();
    let mut london = studio.node("srv@london", ProjectMode::Mirror);
    london.start();
    publish_model(&london, 1, b"model");
    assert_eq!(london.terminate().code(), Some(0));
    let feeds = london.config.state_dir.join("feeds");
    let segments = WalkDir::new(&feeds).into_iter().map(|entry| entry.unwrap().into_path());
    let segments: Vec<_> =
        segments.filter(|path| path.extension().is_some_and(|extension| extension == "alog")).collect();
    assert!(!segments.is_empty());
    for segment in &segments {
        let mut bytes = fs::read(segment).unwrap();
        // The format, behind the four letters.
        bytes[4..8].copy_from_slice(&2_u32.to_le_bytes());
        fs::write(segment, bytes).unwrap();
    }
    let before: Vec<_> = segments.iter().map(|segment| fs::read(segment).unwrap()).collect();
    let (code, said) = london.start_in_vain();
    assert!(code != 0 && said.contains("format 2") && said.contains("upgrade"), "{code}: {said}");
    let after: Vec<_> = segments.iter().map(|segment| fs::read(segment).unwrap()).collect();
    assert!(before == after, "nothing was cut off");
}
