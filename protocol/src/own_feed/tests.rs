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
    for signs in [Signs::None, Signs::New, restored()] {
        let feeds = OwnFeeds::new([(project(), 3)], signs, true, SECOND);
        assert_eq!(feeds.writing(&project(), SECOND), Writing::Free);
    }
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
        feeds.gone(&node("b@x"));
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
        feeds.advanced(&project(), 5, 20 * SECOND);
        assert_eq!(at(&feeds, 10), Writing::Refused);
        feeds.advanced(&project(), 7, 21 * SECOND);
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
    feeds.gone(&node("b@x"));
    assert_eq!(at(&feeds, 8), Writing::Free);
}

#[test]
fn a_peer_that_says_more_than_it_gives_is_believed_for_a_while() {
    let mut feeds = start(Signs::None);
    feeds.heard(&project(), &node("liar@x"), u64::MAX, 11 * SECOND);
    feeds.advanced(&project(), 4, 20 * SECOND);
    assert_eq!((at(&feeds, 39), at(&feeds, 40)), (Writing::Refused, Writing::Free));
    assert_eq!(feeds.next_change(20 * SECOND), Some(50 * SECOND));
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
fn a_person_can_say_that_nothing_is_to_be_waited_for() {
    let mut feeds = start(restored());
    feeds.heard(&project(), &node("gone@x"), 9, 10 * SECOND);
    feeds.release(&project());
    assert_eq!(at(&feeds, 5), Writing::Free);
}
