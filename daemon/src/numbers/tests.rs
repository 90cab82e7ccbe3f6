use avalon_protocol::{
    hash::ManifestId,
    mode::ProjectMode,
    record::{Note, Record, Resolved, Said},
};

use super::*;
use crate::fixture::{Node, Studio, manifest, version};

fn voter(studio: &Studio) -> Node {
    studio.node("srv@london", ProjectMode::OnDemand)
}

fn node(name: &str) -> NodeId {
    name.parse().unwrap()
}

fn ask(number: u32) -> AskNumber {
    AskNumber { version: version(number), fresh: false, serial: 0 }
}

#[test]
fn what_a_voter_promised_it_keeps_over_a_restart() {
    let studio = Studio::new();
    let london = voter(&studio);
    let (anna, ben) = (node("ws1@home"), node("ws2@van"));
    assert_eq!(london.core.vote(&ask(4), &anna), Answer::Promised);
    let (file, held) = (london.core.numbers.file.clone(), london.core.numbers.lock().clone());
    let stored: Stored = file.read().unwrap().unwrap();
    assert_eq!(stored.promises, [(version(4), anna.clone())]);
    assert_eq!(held.unwrap().promises, Promises::new(stored.promises));
    assert_eq!(london.core.vote(&ask(4), &ben), Answer::Taken { next: 5, by: anna.clone() });
    assert_eq!(london.core.vote(&ask(4), &anna), Answer::Promised);
}

#[test]
fn what_was_published_needs_no_promise_and_the_file_does_not_grow_with_the_show() {
    let studio = Studio::new();
    let london = voter(&studio);
    let (me, ben) = (london.core.me.clone(), node("ws2@van"));
    let numbers = u32::try_from(FORGET_FROM).unwrap() * 2;
    for number in 1..=numbers {
        assert_eq!(london.core.vote(&ask(number), &me), Answer::Promised);
        london.publishes(&manifest(number, b"a robot"));
    }
    let waiting = london.core.numbers.lock().clone().unwrap().promises.len();
    assert!(waiting < FORGET_FROM, "{waiting}");
    // Forgotten or not, they belong to who published them.
    for number in [1, numbers] {
        let taken = Answer::Taken { next: numbers + 1, by: me.clone() };
        assert_eq!(london.core.vote(&ask(number), &ben), taken);
    }
}

#[test]
fn who_asks_and_never_publishes_gets_so_many_and_others_get_theirs() {
    let studio = Studio::new();
    let london = voter(&studio);
    let (eve, ben) = (node("ws1@home"), node("ws2@van"));
    let many = u32::try_from(MAX_OF_NODE).unwrap();
    let given = (1..=many).map(|number| (version(number), eve.clone()));
    *london.core.numbers.lock() = Some(State { promises: Promises::new(given), ..State::default() });
    assert_eq!(london.core.vote(&ask(many + 1), &eve), Answer::Unsure);
    assert_eq!(london.core.vote(&ask(many), &eve), Answer::Promised, "that is its own");
    assert_eq!(london.core.vote(&ask(many + 1), &ben), Answer::Promised);
}

#[test]
fn a_number_that_a_decision_gave_away_belongs_to_nobody_who_asks() {
    let studio = Studio::new();
    let london = voter(&studio);
    let (one, other) = (ManifestId::from_bytes([1; 32]), ManifestId::from_bytes([2; 32]));
    let said = Said { author: Note::default(), comment: Note::default(), at_ms: 0 };
    london.says(Record::Resolved(Resolved::new(version(1), 1, one, vec![(other, 6)], said).unwrap()));
    let me = london.core.me.clone();
    for by in [node("ws2@van"), me.clone()] {
        assert_eq!(london.core.vote(&ask(6), &by), Answer::Taken { next: 7, by: me.clone() });
    }
    assert_eq!(london.core.vote(&ask(5), &node("ws2@van")), Answer::Promised);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a damaged file needs no durability")]
fn who_cannot_read_what_it_promised_promises_nothing_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(NAME), "{").unwrap();
    let studio = Studio::new();
    let london = voter(&studio);
    let health = &london.core.health;
    let numbers = Numbers::open(&Dir::open(dir.path()).unwrap(), health);
    assert!(numbers.lock().is_none());
    assert!(health.items().iter().any(|item| item.code == UNREADABLE));
}

#[test]
fn who_goes_by_an_older_policy_than_the_one_that_changed_the_voters_is_not_answered() {
    let studio = Studio::new();
    let london = voter(&studio);
    let voters = Voters { since: 3, ..Voters::default() };
    *london.core.numbers.lock() = Some(State { voters, ..State::default() });
    assert_eq!(london.core.vote(&ask(1), &node("ws1@home")), Answer::OtherPolicy);
    let newer = AskNumber { serial: 3, ..ask(1) };
    assert_eq!(london.core.vote(&newer, &node("ws1@home")), Answer::Promised);
}

#[tokio::test]
async fn without_voters_nothing_is_asked_and_nothing_reserved() {
    let studio = Studio::new();
    let london = voter(&studio);
    assert!(!london.core.asks_for_numbers());
    assert_eq!(london.core.take_number(&version(1)).await, Err(ReserveFailed::NoVoters));
}
