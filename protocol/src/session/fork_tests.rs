//! Feeds with two histories, and what a peer says of this node's own.

use super::*;
use crate::{
    hash::ChainHash,
    mode::ProjectMode,
    wire::{PROTOCOL_MAX, PROTOCOL_MIN, ServedProject},
};

const ME: &str = "ws1@london";
const PEER: &str = "srv@montreal";

fn hello(node: &str, instance: u64) -> Hello {
    Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        features: 0,
        build: "test".into(),
        studio: "northlight".parse().unwrap(),
        node: node.parse().unwrap(),
        instance,
        projects: vec![ServedProject { name: "a".parse().unwrap(), mode: ProjectMode::OnDemand }],
    }
}

fn feed(node: &str) -> FeedId {
    FeedId { project: "a".parse().unwrap(), node: node.parse().unwrap() }
}

fn head(next_seq: u64, byte: u8) -> FeedHead {
    FeedHead { next_seq, chain: ChainHash::from_bytes([byte; 32]) }
}

fn heads(of: &[(&str, FeedHead)]) -> Control {
    let heads = of.iter().map(|(node, head)| (node.parse().unwrap(), *head)).collect();
    Control::Heads(ProjectHeads { project: "a".parse().unwrap(), heads })
}

fn records(node: &str, first_seq: u64) -> Control {
    let groups = vec![SealedGroup::unsigned(&feed(node), first_seq, 1)];
    Control::Records(Records { feed: feed(node), groups, manifests: vec![] })
}

fn greeted(ours: &[(&str, FeedHead)], frozen: &[(&str, u64)]) -> Session {
    let ours = ours.iter().map(|(node, head)| (feed(node), *head));
    let (mut session, _) = Session::new(hello(ME, 1), PEER.parse().unwrap(), ours);
    for (node, from) in frozen {
        assert_eq!(session.frozen(&feed(node), *from), [], "nobody has greeted");
    }
    session.received(Control::Hello(hello(PEER, 2)));
    session
}

fn proofs(effects: &[Effect]) -> Vec<(FeedId, u64)> {
    let proof = |effect: &Effect| match effect {
        Effect::ProveFork { feed, peer_has } => Some((feed.clone(), *peer_has)),
        _ => None,
    };
    effects.iter().filter_map(proof).collect()
}

#[test]
fn what_a_peer_has_of_the_own_feed_is_told_once_and_what_it_has_more_is_taken() {
    for (said, expected) in [(vec![(ME, head(9, 9))], 9), (vec![], 0)] {
        let mut session = greeted(&[(ME, head(3, 3))], &[]);
        let effects = session.received(heads(&said));
        let own = Effect::OwnFeed { project: "a".parse().unwrap(), next_seq: expected };
        assert!(effects.contains(&own), "{effects:?}");
        let again = session.received(heads(&[(ME, head(9, 9))]));
        assert!(!again.iter().any(|effect| matches!(effect, Effect::OwnFeed { .. })), "{again:?}");
        let effects = session.received(records(ME, 3));
        assert!(matches!(&effects[..], [Effect::StoreGroups(_)]), "its own records come back: {effects:?}");
    }
}

#[test]
fn a_fork_is_told_once_and_shown_once_however_it_is_found() {
    let own = || greeted(&[(ME, head(5, 5))], &[]);
    let mut by_heads = own();
    assert_eq!(proofs(&by_heads.received(heads(&[(ME, head(5, 77))]))), [(feed(ME), 5)]);
    let mut by_reading = own();
    by_reading.received(heads(&[(ME, head(4, 77))]));
    assert_eq!(proofs(&by_reading.groups_read(&feed(ME), 4, vec![], vec![])), [(feed(ME), 4)]);
    let mut by_records = own();
    by_records.received(heads(&[(ME, head(9, 77))]));
    assert_eq!(proofs(&by_records.groups_forked(&feed(ME))), [(feed(ME), 9)]);
    for mut session in [by_heads, by_reading, by_records] {
        assert_eq!(session.groups_forked(&feed(ME)), []);
        assert_eq!(session.groups_read(&feed(ME), 4, vec![], vec![]), []);
    }
}

#[test]
fn after_a_fork_only_what_may_prove_it_is_looked_at() {
    let mut session = greeted(&[(ME, head(5, 5))], &[]);
    session.received(heads(&[(ME, head(5, 77))]));
    assert_eq!(session.received(records(ME, 6)), [], "it was on its way");
    for first_seq in [0, 4, 5] {
        assert!(matches!(&session.received(records(ME, first_seq))[..], [Effect::StoreGroups(_)]));
    }
}

#[test]
fn a_proof_from_earlier_or_from_somebody_else_is_passed_on_to_who_has_enough_to_understand_it() {
    let other = "ws7@london";
    let mut level = greeted(&[(other, head(5, 5))], &[(other, 4)]);
    assert_eq!(proofs(&level.received(heads(&[(other, head(5, 5))]))), [(feed(other), 5)]);
    assert_eq!(proofs(&level.frozen(&feed(other), 4)), [], "once");
    // Who has less gets what we have first.
    let mut behind = greeted(&[(other, head(5, 5))], &[(other, 4)]);
    let effects = behind.received(heads(&[(other, head(2, 2))]));
    assert_eq!(proofs(&effects), []);
    assert_eq!(effects.last(), Some(&Effect::ReadGroups { feed: feed(other), from_seq: 2 }));
    let group = SealedGroup::unsigned(&feed(other), 2, 3);
    let effects = behind.groups_read(&feed(other), 5, vec![group], vec![]);
    assert!(matches!(&effects[..], [Effect::Send(_), Effect::ProveFork { peer_has: 5, .. }]), "{effects:?}");
    // Found while connected.
    let mut later = greeted(&[(other, head(5, 5))], &[]);
    later.received(heads(&[(other, head(5, 5))]));
    assert_eq!(proofs(&later.frozen(&feed(other), 4)), [(feed(other), 5)]);
    let shown = later.proof_read(&feed(other), vec![SealedGroup::unsigned(&feed(other), 4, 1)]);
    assert!(matches!(&shown[..], [Effect::Send(Control::Records(_))]));
}

#[test]
fn a_proof_is_not_passed_on_about_projects_that_are_not_shared() {
    let mut session = greeted(&[], &[]);
    let secret = FeedId { project: "b".parse().unwrap(), node: ME.parse().unwrap() };
    assert_eq!(session.frozen(&secret, 0), []);
}
