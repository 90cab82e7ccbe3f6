use super::*;
use crate::{
    hash::ChainHash,
    mode::ProjectMode,
    wire::{PROTOCOL_MAX, PROTOCOL_MIN, ServedProject},
};

fn hello(node: &str, instance: u64, projects: &[&str]) -> Hello {
    Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        features: 0,
        build: "test".into(),
        studio: "northlight".parse().unwrap(),
        node: node.parse().unwrap(),
        instance,
        projects: projects
            .iter()
            .map(|name| ServedProject { name: name.parse().unwrap(), mode: ProjectMode::OnDemand })
            .collect(),
    }
}

fn feed(project: &str, node: &str) -> FeedId {
    FeedId { project: project.parse().unwrap(), node: node.parse().unwrap() }
}

fn head(next_seq: u64) -> FeedHead {
    let byte = u8::try_from(next_seq).unwrap();
    FeedHead { next_seq, chain: ChainHash::from_bytes([byte; 32]) }
}

fn group() -> SealedGroup {
    SealedGroup::unsigned(&feed("a", "srv@montreal"), 0, 2)
}

/// A session of ws1@london with srv@montreal, greeted.
fn ready(ours: &[(FeedId, FeedHead)]) -> Session {
    let (mut session, _) =
        Session::new(hello("ws1@london", 1, &["a", "b"]), "srv@montreal".parse().unwrap(), ours.to_vec());
    let effects = session.received(Control::Hello(hello("srv@montreal", 2, &["a", "c"])));
    assert!(matches!(effects.first(), Some(Effect::Ready(_))), "{effects:?}");
    session
}

fn heads(project: &str, heads: &[(&str, FeedHead)]) -> Control {
    let heads = heads.iter().map(|(node, head)| (node.parse().unwrap(), *head)).collect();
    Control::Heads(ProjectHeads { project: project.parse().unwrap(), heads })
}

#[test]
fn sends_what_the_peer_lacks_and_nothing_of_other_projects() {
    let mut session = ready(&[(feed("a", "ws1@london"), head(3)), (feed("b", "ws1@london"), head(9))]);
    let effects = session.received(heads("a", &[]));
    let feed = feed("a", "ws1@london");
    let nothing = Effect::PeerHead { feed: feed.clone(), head: FeedHead::EMPTY };
    let own = Effect::OwnFeed { project: feed.project.clone(), next_seq: 0 };
    assert_eq!(effects, [nothing, own, Effect::ReadGroups { feed: feed.clone(), from_seq: 0 }]);
    let effects = session.groups_read(&feed, 3, vec![group()], vec![]);
    assert!(matches!(&effects[..], [Effect::Send(Control::Records(r))] if r.feed == feed));
    assert!(session.is_level(&feed.project));
    assert!(matches!(
        &session.received(heads("b", &[]))[..],
        [Effect::Close { code: CloseCode::Protocol, .. }]
    ));
}

#[test]
fn a_record_made_while_reading_follows_without_a_gap() {
    let feed = feed("a", "ws1@london");
    let mut session = ready(&[(feed.clone(), head(1))]);
    session.received(heads("a", &[]));
    assert_eq!(session.advanced(&feed, head(2)), []);
    let effects = session.groups_read(&feed, 1, vec![group()], vec![]);
    assert_eq!(effects.last(), Some(&Effect::ReadGroups { feed, from_seq: 1 }));
}

#[test]
fn what_was_stored_is_confirmed_and_not_sent_back() {
    let mut session = ready(&[]);
    session.received(heads("a", &[("srv@montreal", head(2))]));
    let feed = feed("a", "srv@montreal");
    let records = Records { feed: feed.clone(), groups: vec![group()], manifests: vec![] };
    assert_eq!(session.received(Control::Records(records.clone())), [Effect::StoreGroups(records)]);
    let effects = session.groups_stored(&feed, head(2));
    assert!(matches!(&effects[..], [Effect::Send(Control::Heads(_))]));
    assert_eq!(session.advanced(&feed, head(2)), []);
}

#[test]
fn of_a_feed_that_is_too_long_nothing_more_is_stored_and_the_others_go_on() {
    let long = feed("a", "srv@montreal");
    let mut session = ready(&[(long.clone(), head(2))]);
    let start = |seq| SealedGroup::unsigned(&long, seq, 2);
    let records =
        |feed: &FeedId, group| Records { feed: feed.clone(), groups: vec![group], manifests: vec![] };
    session.received(heads("a", &[("srv@montreal", head(9))]));
    session.groups_too_many(&long);
    assert_eq!(session.received(Control::Records(records(&long, start(2)))), []);
    // What begins within our copy may be another history.
    let within = records(&long, start(1));
    assert_eq!(session.received(Control::Records(within.clone())), [Effect::StoreGroups(within)]);
    let other = records(&feed("a", "ws7@montreal"), group());
    assert_eq!(session.received(Control::Records(other.clone())), [Effect::StoreGroups(other)]);
}

#[test]
fn records_that_come_back_do_not_hide_what_the_peer_still_lacks() {
    let feed = feed("a", "srv@montreal");
    let mut session = ready(&[(feed.clone(), head(7))]);
    session.received(heads("a", &[]));
    session.groups_read(&feed, 2, vec![group()], vec![]);
    // The peer sends the same two records back: we have seven, it has two.
    let records = Records { feed: feed.clone(), groups: vec![group()], manifests: vec![] };
    session.received(Control::Records(records));
    session.groups_stored(&feed, head(7));
    let project = feed.project.clone();
    assert!(!session.is_level(&project));
    let effects = session.groups_read(&feed, 7, vec![group()], vec![]);
    assert!(matches!(&effects[..], [Effect::Send(Control::Records(_))]), "{effects:?}");
    assert!(session.is_level(&project));
}

#[test]
fn an_answer_that_is_late_does_not_turn_our_head_back() {
    let mut session = ready(&[]);
    let feed = feed("a", "srv@montreal");
    session.received(heads("a", &[]));
    session.received(Control::Records(Records {
        feed: feed.clone(),
        groups: vec![group()],
        manifests: vec![],
    }));
    assert_eq!(session.peer_has(&feed), Some(2));
    session.advanced(&feed, head(5));
    session.groups_read(&feed, 4, vec![group()], vec![]);
    session.groups_stored(&feed, head(2));
    let effects = session.groups_read(&feed, 4, vec![group()], vec![]);
    assert_eq!(effects.last(), Some(&Effect::ReadGroups { feed, from_seq: 4 }));
}

#[test]
fn two_histories_of_equal_length_are_a_fork_and_stop_that_feed_alone() {
    let one = feed("a", "ws1@london");
    let mut session = ready(&[(one.clone(), head(2))]);
    let other = FeedHead { chain: ChainHash::from_bytes([99; 32]), ..head(2) };
    let effects = session.received(heads("a", &[("ws1@london", other)]));
    assert!(effects.contains(&Effect::Fork(one.clone())), "{effects:?}");
    assert_eq!(session.advanced(&one, head(3)), []);
    let two = feed("a", "ws2@london");
    assert!(!session.advanced(&two, head(1)).is_empty());
}

#[test]
fn a_head_that_is_none_of_ours_is_a_fork() {
    let one = feed("a", "ws1@london");
    let mut session = ready(&[(one.clone(), head(5))]);
    session.received(heads("a", &[("ws1@london", head(4))]));
    let proof = Effect::ProveFork { feed: one.clone(), peer_has: 4 };
    assert_eq!(session.groups_read(&one, 4, vec![], vec![]), [Effect::Fork(one), proof]);
}

#[test]
fn greetings_that_do_not_fit_close_with_their_code() {
    let check = |peer: Hello, expected: CloseCode| {
        let (mut session, _) =
            Session::new(hello("ws1@london", 1, &[]), "srv@montreal".parse().unwrap(), vec![]);
        let effects = session.received(Control::Hello(peer));
        assert!(matches!(&effects[..], [Effect::Close { code, .. }] if *code == expected), "{effects:?}");
    };
    let good = hello("srv@montreal", 2, &[]);
    check(Hello { protocol_min: 7, protocol_max: 9, ..good.clone() }, CloseCode::Version);
    check(Hello { node: "other@montreal".parse().unwrap(), ..good.clone() }, CloseCode::Identity);
    check(Hello { studio: "else".parse().unwrap(), ..good }, CloseCode::Identity);
    for (instance, code) in [(1, CloseCode::SelfDial), (2, CloseCode::DuplicateNode)] {
        let (mut session, _) =
            Session::new(hello("ws1@london", 1, &[]), "ws1@london".parse().unwrap(), vec![]);
        let effects = session.received(Control::Hello(hello("ws1@london", instance, &[])));
        assert!(matches!(&effects[..], [Effect::Close { code: c, .. }] if *c == code));
    }
}

#[test]
fn messages_before_the_greeting_or_a_second_one_close() {
    let (mut session, first) =
        Session::new(hello("ws1@london", 1, &["a"]), "srv@montreal".parse().unwrap(), vec![]);
    assert!(matches!(&first[..], [Effect::Send(Control::Hello(_))]));
    assert!(matches!(&session.received(heads("a", &[]))[..], [Effect::Close { .. }]));
    let mut session = ready(&[]);
    let again = Control::Hello(hello("srv@montreal", 2, &["a"]));
    assert!(matches!(&session.received(again)[..], [Effect::Close { .. }]));
}
