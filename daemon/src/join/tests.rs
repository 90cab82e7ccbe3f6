//! Invites and what is certified by them, with a clock that only tests move.

use std::{sync::Arc, time::Duration};

use avalon_certs::{
    Chain, IssueRequest, IssuingAuthority, NODE_VALIDITY, NodeKey,
    join::{OpenInvites as _, SeedKeyHash},
};
use avalon_protocol::{
    access::{InviteId, Role, Seed},
    audit::{AuditAction, AuditFact},
    control::InviteState,
    feed::{FeedId, Group},
    id::{NodeId, ProjectName},
    mode::ProjectMode,
    record::Record,
    wire::{JoinCertify, Joined, RenewAnswer, RenewLater},
};
use avalon_store::fs::Dir;

use super::{
    invites::{InviteError, Invites, NewInvite},
    issuer::{Refusal, Served, StudioIssuer},
    offline::{self, OfflineError},
};
use crate::{
    clock::Clock as _,
    events::EventBus,
    fixture::{Node, Studio},
    health::HealthBoard,
    net::Issuer as _,
    policy::Apply,
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

    /// Another node of the studio that issues.
    fn beside(&self) -> (Node, StudioIssuer) {
        let node = self.studio.node("srv@mtl", ProjectMode::Mirror);
        let dir = self.studio.dir.path().join("issuing too");
        let now = self.studio.clock.now();
        self.studio.authority.delegate_into(&node.core.me, NODE_VALIDITY, &dir, now).unwrap();
        let authority = IssuingAuthority::open(&dir).unwrap().unwrap();
        let state = Dir::open(&self.studio.dir.path().join("srv@mtl")).unwrap();
        let invites = Invites::open(&state, Arc::new(self.studio.clock.clone()), &node.core.health);
        let issuer = StudioIssuer::new(&node.core, authority, &invites, Vec::new(), NODE_VALIDITY);
        (node, issuer)
    }

    /// The names that the studio's feed says were given here.
    fn issued(&self) -> Vec<NodeId> {
        let (core, project) = (&self.node.core, ProjectName::studio());
        // Behind what was handed over.
        core.ledger.commit_wait(&project, Vec::new(), Vec::new(), 0).unwrap();
        let feed = FeedId { project, node: core.me.clone() };
        let groups = core.ledger.read_groups(&feed, 0, 1 << 20).unwrap();
        let bodies = groups.iter().map(|group| postcard::from_bytes::<Group>(&group.body).unwrap());
        let records = bodies.flat_map(|body| body.records);
        let issued = records.filter_map(|raw| match Record::from_raw(&raw) {
            Ok(Record::Issued(issued)) => Some(issued.node),
            _ => None,
        });
        issued.collect()
    }

    fn applies(&self, grants: &str) {
        let document = format!(
            "schema = \"avalon.policy/1\"\n[defaults]\nkeep = \"on-demand\"\nmin_copies = 1\n{grants}"
        );
        let (author, comment) = ("anna".to_owned(), String::new());
        self.node.core.apply_policy(Apply { document, author, comment, replaces: None }).unwrap();
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
async fn a_name_that_another_node_gave_or_that_the_studio_speaks_of_is_not_given() {
    let office = Office::new();
    (1..=3).for_each(|number| office.invite(number, |_| {}));
    office.join(1, "ws1", &own_key()).unwrap();
    // Another node that issues hears of it by the studio's feeds, before the machine has said anything.
    assert_eq!(office.issued(), [id("ws1@van")]);
    let (other, issuer) = office.beside();
    assert!(!issuer.is_known(&id("ws1@van")));
    other.hears_of(&office.node, &ProjectName::studio());
    assert!(issuer.is_known(&id("ws1@van")) && !issuer.is_known(&id("ws2@van")));
    office.issuer.tell_given();
    assert_eq!(office.issued(), [id("ws1@van")], "it is told once");

    let note = || avalon_protocol::record::Note::try_from("lost".to_owned()).unwrap();
    office.node.core.revoke_node(&id("ws8@van"), note(), note()).unwrap();
    let taken = |number, name| matches!(office.join(number, name, &own_key()), Err(Refusal::Taken { .. }));
    assert!(taken(2, "ws8"), "it was revoked");
    office.applies("[[grant]]\nto = \"ws7@van\"\nprojects = \"*\"\nactions = \"publish\"\n");
    assert!(taken(2, "ws7"), "the policy gives it something");
    office.invite(4, |new| new.node = Some("ws7".parse().unwrap()));
    assert_eq!(office.join(4, "any", &own_key()).unwrap().node, id("ws7@van"), "somebody meant this machine");
    assert!(office.join(2, "ws9", &own_key()).is_ok());
}

#[tokio::test]
async fn a_flood_of_renewals_is_answered_with_when_to_come_back_and_summed_up() {
    let office = Office::new();
    let studio = &office.studio;
    let own = own_key();
    let request = own.request(&id("ws1@home")).unwrap();
    let parsed = avalon_certs::CertificateRequest::parse(request.der()).unwrap();
    let what = IssueRequest::new(id("ws1@home"), Role::Workstation);
    let peer = studio.authority.sign(&parsed, &what, studio.clock.now()).unwrap().facts;
    let served = Served(Arc::clone(&office.issuer));
    let before = office.node.core.audit.written().unwrap().entries;
    let (mut renewed, mut later) = (0, 0);
    for _ in 0..200 {
        match served.renew(&peer, request.der()).await {
            RenewAnswer::Reply(reply) => renewed += usize::from(!reply.certificate.is_empty()),
            RenewAnswer::Later(RenewLater { wait_s }) => later += usize::from(wait_s == 900),
        }
    }
    assert_eq!((renewed, later), (4, 196));
    office.node.core.audit.record(AuditFact::daemon(AuditAction::Start)).await.unwrap();
    let entries = office.node.core.audit.written().unwrap().entries - before;
    assert!(entries <= 8, "{entries} lines for 200 requests");
    studio.clock.advance(Duration::from_secs(900));
    assert!(matches!(served.renew(&peer, request.der()).await, RenewAnswer::Reply(_)));
}

#[test]
fn a_certificate_of_another_authority_than_was_meant_is_not_taken() {
    let (studio, temp) = (Studio::new(), tempfile::tempdir().unwrap());
    let (dir, csr, pem) =
        (temp.path().join("identity"), temp.path().join("a.csr"), temp.path().join("a.pem"));
    offline::request(&dir, &id("ws1@home"), &csr).unwrap();
    let parsed = avalon_certs::CertificateRequest::parse_pem(&std::fs::read(&csr).unwrap()).unwrap();
    let what = IssueRequest::new(id("ws1@home"), Role::Workstation);
    let issued = studio.authority.sign(&parsed, &what, studio.clock.now()).unwrap();
    let bundle = issued.chain.to_bundle(studio.authority.certificate().der());
    std::io::Write::write_all(&mut std::fs::File::create(&pem).unwrap(), bundle.as_bytes()).unwrap();
    let take = |expected: Option<&str>| offline::take(&dir, &pem, expected, studio.clock.now());
    let other = take(Some(&"AB:".repeat(32))).unwrap_err();
    assert!(
        matches!(&other, OfflineError::OtherAuthority { found, .. } if *found == studio.authority.fingerprint())
    );
    let plain = studio.authority.fingerprint().replace(':', "").to_lowercase();
    let taken = take(Some(&plain)).unwrap();
    assert_eq!((taken.facts.node, taken.fingerprint), (id("ws1@home"), studio.authority.fingerprint()));
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
