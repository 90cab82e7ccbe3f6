//! Invites and what is certified by them, with a clock that only tests move.

use std::{sync::Arc, time::Duration};

use avalon_certs::{
    Chain, IssueRequest, IssuingAuthority, NODE_VALIDITY, NodeKey,
    join::{OpenInvites as _, SeedKeyHash},
};
use avalon_protocol::{
    access::{InviteId, Role, Seed},
    control::InviteState,
    id::NodeId,
    mode::ProjectMode,
    wire::{JoinCertify, Joined},
};
use avalon_store::fs::Dir;

use super::{
    invites::{InviteError, Invites, NewInvite},
    issuer::{Refusal, StudioIssuer},
};
use crate::{
    clock::Clock as _,
    events::EventBus,
    fixture::{Node, Studio},
    health::HealthBoard,
};

fn key(number: u8) -> SeedKeyHash {
    SeedKeyHash::of(&Seed::from_bytes([number; 32])).unwrap()
}

struct Office {
    studio: Studio,
    node: Node,
    invites: Invites,
    issuer: Arc<StudioIssuer>,
}

impl Office {
    fn new() -> Self {
        let studio = Studio::new();
        let node = studio.node("srv@london", ProjectMode::Mirror);
        let dir = studio.dir.path().join("issuing");
        let me = node.core.me.clone();
        studio.authority.delegate_into(&me, NODE_VALIDITY, &dir, studio.clock.now()).unwrap();
        let authority = IssuingAuthority::open(&dir).unwrap().unwrap();
        let invites = open(&studio);
        let issuer =
            StudioIssuer::new(&node.core, authority, &invites, vec!["mtl:4700".into()], NODE_VALIDITY);
        Self { studio, node, invites, issuer: Arc::new(issuer) }
    }

    fn now_s(&self) -> u64 {
        self.node.core.now_ms() / 1000
    }

    fn invite(&self, number: u8, change: impl FnOnce(&mut NewInvite)) {
        let mut new = NewInvite {
            id: InviteId::from_bytes([number; 5]),
            key: key(number),
            site: "van".parse().unwrap(),
            role: Role::Workstation,
            node: None,
            projects: vec!["lantern".parse().unwrap()],
            expires_at_s: self.now_s() + 3600,
        };
        change(&mut new);
        self.invites.add(new).unwrap();
    }

    fn join(&self, number: u8, name: &str, own: &NodeKey) -> Result<Joined, Refusal> {
        let request = own.request(&"boss@london".parse().unwrap()).unwrap().der().to_vec();
        self.issuer.certify(&key(number), &JoinCertify { node: name.parse().unwrap(), request })
    }

    fn state(&self, number: u8) -> InviteState {
        let id = InviteId::from_bytes([number; 5]).to_string();
        self.invites.list().into_iter().find(|item| item.id == id).unwrap().state
    }
}

fn open(studio: &Studio) -> Invites {
    let clock = Arc::new(studio.clock.clone());
    let health = HealthBoard::new(EventBus::new(clock.clone()));
    Invites::open(&Dir::open(studio.dir.path()).unwrap(), clock, &health)
}

fn own_key() -> NodeKey {
    NodeKey::generate().unwrap()
}

fn id(text: &str) -> NodeId {
    text.parse().unwrap()
}

#[tokio::test]
async fn an_invite_lets_one_machine_in_under_the_name_and_role_that_it_says() {
    let office = Office::new();
    office.invite(1, |new| new.role = Role::Farm);
    let own = own_key();
    let joined = office.join(1, "r1", &own).unwrap();
    assert_eq!((&joined.node, joined.role), (&id("r1@van"), Role::Farm));
    assert_eq!(joined.peers, ["mtl:4700"]);
    let chain = Chain::from_bytes(&joined.certificate).unwrap();
    let dir = office.studio.dir.path().join("joined");
    let root = office.issuer.authority.authority().der().clone();
    let facts = avalon_certs::install(&dir, &own, &chain, root, office.studio.clock.now()).unwrap();
    assert_eq!((facts.node, facts.role), (id("r1@van"), Role::Farm));
    assert_eq!(office.state(1), InviteState::Used);
    assert!(matches!(office.join(1, "r2", &own_key()), Err(Refusal::Invite(InviteError::Closed))));

    // An invite that names a node lets in nobody else, whatever is asked for.
    office.invite(2, |new| new.node = Some("ws7".parse().unwrap()));
    assert_eq!(office.join(2, "boss", &own_key()).unwrap().node, id("ws7@van"));
    office.invite(3, |new| new.role = Role::Vendor);
    assert_eq!(office.join(3, "v1", &own_key()).unwrap().peers, Vec::<String>::new());
}

#[tokio::test]
async fn an_answer_that_was_lost_is_given_again_to_the_same_key_and_for_a_while() {
    let office = Office::new();
    office.invite(1, |_| {});
    let own = own_key();
    let first = office.join(1, "ws1", &own).unwrap();
    // Also after a restart: it was on disk before it left.
    let again = open(&office.studio);
    assert!(again.is_open(&key(1)));
    assert_eq!(again.list()[0].state, InviteState::Used);
    assert_eq!(office.join(1, "other", &own).unwrap(), first);
    office.studio.clock.advance(Duration::from_secs(601));
    assert!(!office.invites.is_open(&key(1)));
    assert!(matches!(office.join(1, "ws1", &own), Err(Refusal::Invite(InviteError::Closed))));
}

#[tokio::test]
async fn a_name_is_given_once() {
    let office = Office::new();
    (1..=4).for_each(|number| office.invite(number, |_| {}));
    office.join(1, "ws1", &own_key()).unwrap();
    let taken = |number, name| matches!(office.join(number, name, &own_key()), Err(Refusal::Taken { .. }));
    assert!(taken(2, "ws1"));
    assert_eq!(office.state(2), InviteState::Open, "a wrong name does not cost the invite");
    // So is that of this node.
    assert!(office.issuer.is_known(&id("srv@london")));
    assert!(!office.issuer.is_known(&id("ws9@van")));
    office.invite(5, |new| new.node = Some("ws5".parse().unwrap()));
    assert!(taken(3, "ws5"), "it is promised");
    assert!(office.join(5, "any", &own_key()).is_ok());
    assert!(office.join(4, "ws2", &own_key()).is_ok());
}

#[tokio::test]
async fn what_is_revoked_expired_or_unknown_lets_nobody_in() {
    let office = Office::new();
    office.invite(1, |_| {});
    office.invite(2, |_| {});
    assert!(office.invites.is_open(&key(1)) && !office.invites.is_open(&key(9)));
    let revoked = office.invites.revoke(InviteId::from_bytes([1; 5])).unwrap();
    assert_eq!(revoked.state, InviteState::Revoked);
    assert!(matches!(office.invites.revoke(InviteId::from_bytes([1; 5])), Err(InviteError::Unknown { .. })));
    office.studio.clock.advance(Duration::from_secs(3600));
    assert_eq!(office.state(2), InviteState::Expired);
    for number in [1, 2, 9] {
        assert!(!office.invites.is_open(&key(number)));
        assert!(office.join(number, "ws1", &own_key()).is_err(), "{number}");
    }
}

#[tokio::test]
async fn a_request_that_is_none_costs_nothing_and_is_refused() {
    let office = Office::new();
    office.invite(1, |_| {});
    for request in [vec![], vec![0x30; 5000], own_key().request(&id("a@b")).unwrap().der()[1..].to_vec()] {
        let ask = JoinCertify { node: "ws1".parse().unwrap(), request };
        assert!(matches!(office.issuer.certify(&key(1), &ask), Err(Refusal::Request(_))));
    }
    assert_eq!(office.state(1), InviteState::Open);
}

#[tokio::test]
async fn only_hashes_of_secrets_are_on_disk_and_a_damaged_file_opens_no_invite() {
    let office = Office::new();
    office.invite(1, |_| {});
    let path = office.studio.dir.path().join("invites.json");
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains(&"01".repeat(32)), "{text}");
    #[expect(clippy::disallowed_methods, reason = "a damaged file needs no durability")]
    std::fs::write(&path, &text[..text.len() / 2]).unwrap();
    let reopened = open(&office.studio);
    assert!(!reopened.is_open(&key(1)) && reopened.list().is_empty());
}

#[tokio::test]
async fn so_many_invites_are_open_and_no_more() {
    let office = Office::new();
    (1..=64).for_each(|number| office.invite(number, |_| {}));
    let one_more = NewInvite {
        id: InviteId::from_bytes([65; 5]),
        key: key(65),
        site: "van".parse().unwrap(),
        role: Role::Farm,
        node: None,
        projects: Vec::new(),
        expires_at_s: office.now_s() + 60,
    };
    assert!(matches!(office.invites.add(one_more.clone()), Err(InviteError::TooMany)));
    office.invites.revoke(InviteId::from_bytes([1; 5])).unwrap();
    assert!(office.invites.add(one_more).is_ok());
}

#[tokio::test]
async fn a_renewal_keeps_name_and_role() {
    let office = Office::new();
    let studio = &office.studio;
    let peer = |role| {
        let own = own_key();
        let request = own.request(&id("boss@london")).unwrap();
        let request = avalon_certs::CertificateRequest::parse(request.der()).unwrap();
        let what = IssueRequest::new(id("ws1@home"), role);
        studio.authority.sign(&request, &what, studio.clock.now()).unwrap().facts
    };
    let own = own_key();
    let request = own.request(&id("boss@london")).unwrap();
    let renewed = office.issuer.renew_own(&peer(Role::Vendor), request.der()).unwrap();
    let chain = Chain::from_bytes(&renewed).unwrap();
    let facts = avalon_certs::peer_certificate(&chain.certificates()).unwrap();
    assert_eq!((facts.node, facts.role), (id("ws1@home"), Role::Vendor));
    assert!(office.issuer.renew_own(&peer(Role::Admin), request.der()).is_err());
}
