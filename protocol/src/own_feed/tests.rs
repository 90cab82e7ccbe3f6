//! Who may write when: the table that decision 0014 is about.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn project() -> ProjectName {
    "lantern".parse().unwrap()
}

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn restored() -> Signs {
    Signs::Restored { why: "other files".into() }
}

/// A node with three records, started at 10 s.
fn start(signs: Signs) -> OwnFeeds {
    OwnFeeds::new([(project(), 3)], signs, false, 10 * SECOND)
}

fn at(feeds: &OwnFeeds, seconds: u32) -> Writing {
    feeds.writing(&project(), 10 * SECOND + SECOND * seconds)
}

#[test]
fn who_is_alone_writes_at_once() {
    for signs in [Signs::None, Signs::New] {
        let feeds = OwnFeeds::new([(project(), 3)], signs, true, SECOND);
        assert_eq!(feeds.writing(&project(), SECOND), Writing::Free);
    }
}

#[test]
fn who_was_restored_to_a_time_before_anybody_was_known_hears_who_dials_in_a_moment() {
    let mut feeds = OwnFeeds::new([(project(), 3)], restored(), true, 10 * SECOND);
    assert_eq!(
        (at(&feeds, 0), at(&feeds, 4), at(&feeds, 5)),
        (Writing::Waits, Writing::Waits, Writing::Free)
    );
    feeds.heard(&project(), &node("b@x"), 5, 12 * SECOND);
    assert_eq!((at(&feeds, 4), at(&feeds, 6)), (Writing::Waits, Writing::Refused));
    feeds.advanced(&project(), 5);
    assert_eq!(at(&feeds, 6), Writing::Free);
}

#[test]
fn nobody_to_ask_is_waited_for_a_moment_and_then_only_a_state_without_signs_is_written() {
    let expected =
        [(Signs::None, Writing::Free), (Signs::New, Writing::Refused), (restored(), Writing::Refused)];
    for (signs, afterwards) in expected {
        let feeds = start(signs);
        assert_eq!(
            (at(&feeds, 0), at(&feeds, 4), at(&feeds, 5)),
            (Writing::Waits, Writing::Waits, afterwards)
        );
        assert_eq!(feeds.next_change(10 * SECOND), Some(15 * SECOND));
        assert_eq!(feeds.next_change(15 * SECOND), None);
    }
}

#[test]
fn a_peer_that_has_no_more_lets_it_write() {
    for (signs, soon) in
        [(Signs::None, Writing::Free), (Signs::New, Writing::Free), (restored(), Writing::Waits)]
    {
        let mut feeds = start(signs);
        feeds.greeted(&node("b@x"));
        feeds.heard(&project(), &node("b@x"), 3, 11 * SECOND);
        assert_eq!((at(&feeds, 1), at(&feeds, 5)), (soon, Writing::Free));
        feeds.gone(&node("b@x"), 17 * SECOND);
        assert_eq!(at(&feeds, 6), Writing::Free, "it has been asked");
    }
}

#[test]
fn what_a_peer_has_more_is_taken_first() {
    for signs in [Signs::None, Signs::New, restored()] {
        let mut feeds = start(signs);
        feeds.heard(&project(), &node("a@x"), 3, 10 * SECOND);
        feeds.heard(&project(), &node("b@x"), 7, 11 * SECOND);
        assert_eq!(
            (at(&feeds, 2), at(&feeds, 6)),
            (Writing::Waits, Writing::Refused),
            "whoever else has less"
        );
        feeds.came(&project(), &node("b@x"), 5, 20 * SECOND);
        assert_eq!(at(&feeds, 10), Writing::Refused);
        feeds.came(&project(), &node("b@x"), 7, 21 * SECOND);
        assert_eq!(at(&feeds, 11), Writing::Free);
    }
}

#[test]
fn a_peer_that_comes_later_and_has_more_stops_the_writing_again() {
    let mut feeds = start(Signs::None);
    assert_eq!(at(&feeds, 6), Writing::Free);
    feeds.heard(&project(), &node("b@x"), 7, 17 * SECOND);
    assert_eq!(at(&feeds, 7), Writing::Refused);
    assert_eq!(feeds.ahead(&project(), 17 * SECOND).collect::<Vec<_>>(), [(&node("b@x"), 7)]);
    feeds.gone(&node("b@x"), 17 * SECOND);
    assert_eq!(at(&feeds, 8), Writing::Free);
}

#[test]
fn a_peer_that_says_more_than_it_gives_is_believed_for_a_while() {
    let mut feeds = start(Signs::None);
    feeds.heard(&project(), &node("liar@x"), u64::MAX, 11 * SECOND);
    feeds.came(&project(), &node("b@x"), 4, 20 * SECOND);
    assert_eq!((at(&feeds, 39), at(&feeds, 40)), (Writing::Refused, Writing::Free));
    assert_eq!(feeds.next_change(25 * SECOND), Some(50 * SECOND));
}

#[test]
fn a_new_node_whose_peers_do_not_share_the_project_writes_after_the_grace() {
    let mut feeds = start(Signs::New);
    feeds.greeted(&node("b@x"));
    assert_eq!((at(&feeds, 1), at(&feeds, 5)), (Writing::Waits, Writing::Free));
    let mut feeds = start(restored());
    feeds.greeted(&node("b@x"));
    assert_eq!(at(&feeds, 5), Writing::Refused, "a restored one only by a peer that can know");
}

#[test]
fn what_is_known_to_have_been_there_is_waited_for_whatever_peers_say() {
    let mut feeds = start(restored());
    feeds.had(&project(), 9);
    feeds.greeted(&node("srv@montreal"));
    feeds.heard(&project(), &node("srv@montreal"), 0, Duration::ZERO);
    assert_eq!(
        (at(&feeds, 2), at(&feeds, 3600)),
        (Writing::Waits, Writing::Refused),
        "it has no more, and that is not all"
    );
    feeds.advanced(&project(), 8);
    assert_eq!((at(&feeds, 3600), feeds.lacks(&project())), (Writing::Refused, Some(9)));
    feeds.advanced(&project(), 9);
    assert_eq!((at(&feeds, 3600), feeds.lacks(&project())), (Writing::Free, None));
    let mut feeds = start(restored());
    feeds.had(&project(), 1000);
    assert_eq!(
        feeds.revoking(&project(), Duration::from_secs(3600)),
        Writing::Refused,
        "no second history for that either"
    );
    feeds.release(&project());
    assert_eq!(at(&feeds, 3600), Writing::Free, "a person may know that nobody has it");
}

#[test]
fn a_person_can_say_that_nothing_is_to_be_waited_for() {
    let mut feeds = start(restored());
    feeds.heard(&project(), &node("gone@x"), 9, 10 * SECOND);
    feeds.release(&project());
    assert_eq!(at(&feeds, 5), Writing::Free);
}

#[test]
fn a_peer_that_gave_nothing_is_not_believed_on_its_next_connections_until_it_gives_something() {
    let (liar, mut feeds) = (node("liar@x"), start(Signs::None));
    // Gone before its time is over, each time: what it was believed for is added up.
    let mut now = 20 * SECOND;
    let mut held = Duration::ZERO;
    for _ in 0..10 {
        feeds.heard(&project(), &liar, 9, now);
        held += if feeds.writing(&project(), now) == Writing::Refused { 29 * SECOND } else { Duration::ZERO };
        feeds.gone(&liar, now + 29 * SECOND);
        now += 40 * SECOND;
    }
    assert_eq!(held, 58 * SECOND, "29 s, and another second of the second time");
    feeds.heard(&project(), &liar, 9, now);
    assert_eq!(feeds.writing(&project(), now), Writing::Free);
    assert_eq!(feeds.next_change(now), None);
    // Others are believed, and what they give does not make its word good.
    feeds.heard(&project(), &node("b@x"), 5, now);
    assert_eq!(feeds.ahead(&project(), now).collect::<Vec<_>>(), [(&node("b@x"), 5)]);
    feeds.came(&project(), &node("b@x"), 5, now);
    assert_eq!(feeds.writing(&project(), now), Writing::Free);
    feeds.came(&project(), &liar, 6, now);
    assert_eq!(feeds.writing(&project(), now), Writing::Refused, "it has given something");
}

#[test]
fn what_this_node_writes_itself_makes_nobodys_word_good() {
    let mut feeds = start(Signs::None);
    feeds.heard(&project(), &node("liar@x"), 99, 20 * SECOND);
    feeds.advanced(&project(), 4);
    assert_eq!((at(&feeds, 39), at(&feeds, 40)), (Writing::Refused, Writing::Free));
}

#[test]
fn a_release_outlives_the_next_connection_of_who_said_more() {
    let mut feeds = start(Signs::None);
    feeds.heard(&project(), &node("liar@x"), 9, 20 * SECOND);
    feeds.release(&project());
    feeds.gone(&node("liar@x"), 21 * SECOND);
    feeds.heard(&project(), &node("liar@x"), 9, 22 * SECOND);
    assert_eq!(at(&feeds, 12), Writing::Free);
}

#[test]
fn no_more_peers_are_remembered_than_a_studio_has() {
    let mut feeds = start(Signs::None);
    feeds.heard(&project(), &node("liar@x"), 9, 20 * SECOND);
    feeds.gone(&node("liar@x"), 60 * SECOND);
    for number in 0..2 * MAX_DOUBTED {
        let peer = node(&format!("n{number}@x"));
        feeds.heard(&project(), &peer, 9, 70 * SECOND);
        feeds.gone(&peer, 71 * SECOND);
    }
    assert_eq!(feeds.feeds[&project()].spent.len(), MAX_DOUBTED);
    feeds.heard(&project(), &node("liar@x"), 9, 80 * SECOND);
    assert_eq!(feeds.writing(&project(), 80 * SECOND), Writing::Free, "the worst stay");
}

#[test]
fn who_is_to_be_revoked_does_not_keep_it_from_being_written() {
    let revoking = |feeds: &OwnFeeds, seconds| feeds.revoking(&project(), 10 * SECOND + seconds * SECOND);
    let mut feeds = start(Signs::None);
    assert_eq!((revoking(&feeds, 0), revoking(&feeds, 5)), (Writing::Waits, Writing::Free));
    feeds.heard(&project(), &node("thief@x"), u64::MAX, 20 * SECOND);
    assert_eq!(at(&feeds, 10), Writing::Refused);
    // As long as records take that are really there, and not a moment longer, however often it connects.
    assert_eq!((revoking(&feeds, 14), revoking(&feeds, 15)), (Writing::Waits, Writing::Free));
    assert_eq!(feeds.next_change(20 * SECOND), Some(25 * SECOND));
    feeds.gone(&node("thief@x"), 30 * SECOND);
    feeds.heard(&project(), &node("thief@x"), u64::MAX, 31 * SECOND);
    assert_eq!((at(&feeds, 21), revoking(&feeds, 21)), (Writing::Refused, Writing::Free));
    // A restored admin hears who is there first; a claim alone never refuses it.
    let mut feeds = start(restored());
    feeds.heard(&project(), &node("b@x"), 3, 11 * SECOND);
    feeds.heard(&project(), &node("thief@x"), 9, 11 * SECOND);
    assert_eq!((revoking(&feeds, 30), revoking(&feeds, 31)), (Writing::Waits, Writing::Free));
    assert_eq!(start(restored()).revoking(&project(), 20 * SECOND), Writing::Refused, "nobody was asked");
}
