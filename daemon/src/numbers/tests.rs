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
fn a_promise_goes_when_the_records_say_who_published_the_number() {
    let studio = Studio::new();
    let london = voter(&studio);
    let (me, ben) = (london.core.me.clone(), node("ws2@van"));
    assert_eq!(london.core.vote(&ask(1), &me), Answer::Promised);
    let first = manifest(1, b"a robot");
    london.writes(&first, b"a robot");
    london.publishes(&first);
    assert_eq!(london.core.vote(&ask(1), &ben), Answer::Taken { next: 2, by: me.clone() });
    assert_eq!(london.core.vote(&ask(2), &ben), Answer::Promised);
    let left = london.core.numbers.lock().clone().unwrap().promises;
    assert_eq!(left, Promises::new([(version(2), ben.clone())]), "the feed has the other one");
    assert_eq!(london.core.vote(&ask(1), &ben), Answer::Taken { next: 3, by: me });
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
