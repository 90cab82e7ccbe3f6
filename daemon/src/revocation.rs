//! What a revocation does here: it is asked in every handshake from now on, and every connection that stands is checked again.
//!
//! The studio's feeds say who is revoked; the ledger reads them. This is the one place that follows it. A connection is checked by
//! the whole chain that its peer showed: who is connected may be revoked, or whoever issued its certificate. The set is exchanged before the
//! connections are looked at, and a connection is on the list before it asks the set, so none slips between.

use std::sync::Arc;

use avalon_certs::Revoked;
use avalon_protocol::{control::EventKind, id::NodeId};
use avalon_store::ledger::LedgerEvent;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::{
    core::{Core, blocking},
    knowledge,
    net::Net,
    policy::studio_advances,
    tasks::Tasks,
};

/// What is new since it was looked last.
#[derive(Debug, Default, PartialEq, Eq)]
struct News {
    nodes: Vec<NodeId>,
    /// The number of another list of revoked certificates, and how many it has.
    list: Option<(u64, usize)>,
}

impl News {
    fn is_empty(&self) -> bool {
        self.nodes.is_empty() && self.list.is_none()
    }
}

impl Core {
    /// Brings what is asked in every handshake up to what the studio's feeds say; returns what is new.
    fn take_revoked(&self) -> News {
        let admission = self.ledger.admission();
        let before = self.revocations.now();
        let nodes: Vec<NodeId> =
            admission.revoked().keys().filter(|node| !before.has_node(node)).cloned().collect();
        // The newest list says it all; without one nothing is revoked by a list.
        let list = admission.listed().map(|listed| listed.list());
        let mut revoked = Revoked::default();
        revoked.set_certificates(list.into_iter().flat_map(|list| list.revoked.keys().copied()));
        let is_other_list = !revoked.has_certificates_of(&before);
        // A list also says whose word about names does not count any more. Admins who revoke each other let nobody in again.
        if !is_other_list {
            revoked = Revoked::clone(&before);
        }
        admission.revoked().keys().for_each(|node| revoked.add_node(node.clone()));
        let list = list.filter(|_| is_other_list).map(|list| (list.number, list.revoked.len()));
        if *before != revoked {
            self.revocations.replace(revoked);
        }
        News { nodes, list }
    }
}

/// Makes known who is revoked before anybody is let in.
pub fn prepare(core: &Core) {
    core.take_revoked();
}

/// Starts what closes the connections of who is revoked, and what follows how old the knowledge of it is. Whoever is revoked already is
/// known before, by [`prepare`].
pub fn start(core: &Arc<Core>, net: &Net, ledger_events: &broadcast::Sender<LedgerEvent>, tasks: &Tasks) {
    let (core_, net_) = (Arc::clone(core), net.clone());
    tasks.spawn("revocations", follow(core_, net_, ledger_events.subscribe(), tasks.token()));
    let (core, net) = (Arc::clone(core), net.clone());
    tasks.spawn("knowledge of rights", knowledge::follow(core, net, tasks.token()));
}

async fn follow(
    core: Arc<Core>,
    net: Net,
    mut ledger_events: broadcast::Receiver<LedgerEvent>,
    stop: CancellationToken,
) {
    loop {
        let news = core.take_revoked();
        for node in &news.nodes {
            tracing::warn!(%node, "node revoked");
            core.events.emit(EventKind::NodeRevoked { node: node.to_string() });
        }
        if let Some((number, certificates)) = news.list {
            tracing::warn!(number, certificates, "a list of revoked certificates counts");
        }
        if !news.is_empty() {
            let net = net.clone();
            let closed = blocking(move || net.close_revoked()).await;
            tracing::info!(closed, "connections of who is revoked are closed");
        }
        if !studio_advances(&mut ledger_events, &stop).await {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use avalon_protocol::{
        access::Role,
        id::ProjectName,
        limits::MAX_CRL_BYTES,
        mode::ProjectMode,
        record::{Crl, Note, Record},
    };
    use avalon_store::ledger::LedgerError;

    use super::*;
    use crate::{
        clock::Clock as _,
        fixture::{Node, Studio, draft, project, published, version},
        policy::Apply,
        rights::RevokeError,
    };

    const LONDON: &str = "srv@london";
    const HOME: &str = "ws1@home";

    #[test]
    fn who_is_revoked_is_news_once_and_known_to_every_handshake() {
        let studio = Studio::new();
        let london = studio.node("srv@london", ProjectMode::OnDemand);
        let home = studio.node_as("ws1@home", Role::Workstation, ProjectMode::OnDemand);
        assert!(london.core.take_revoked().is_empty());
        london.core.revoke_node(&home.core.me, note(), note()).unwrap();
        assert_eq!(london.core.take_revoked().nodes, std::slice::from_ref(&home.core.me));
        assert!(london.core.take_revoked().is_empty());
        assert!(london.core.revocations.now().has_node(&home.core.me));
    }

    fn note() -> Note {
        Note::try_from("lost".to_owned()).unwrap()
    }

    /// The CA's next list, with all that it issued to a node.
    fn list_of(studio: &Studio, node: &str) -> Vec<u8> {
        let made = studio.authority.revoke(Some(&node.parse().unwrap()), &[], studio.clock.now()).unwrap();
        std::fs::read(made.path).unwrap()
    }

    fn publish(at: &Node, der: &[u8]) -> Result<u64, RevokeError> {
        at.core.revoke_list(der.to_vec(), note(), note()).map(|list| list.number)
    }

    fn publishes(node: &Node, number: u32) {
        let mut draft = draft(number, b"x");
        draft.published_at_ms = node.core.now_ms();
        node.publishes(&draft.finish().unwrap());
    }

    fn known(node: &Node) -> Vec<u32> {
        assert!(node.core.ledger.wait_ready());
        (1..=3).filter(|number| node.core.ledger.version(&version(*number)).unwrap().is_some()).collect()
    }

    #[test]
    fn a_list_reaches_others_ends_what_is_signed_under_it_and_survives_a_restart() {
        let studio = Studio::new();
        let (london, rome) =
            (studio.node(LONDON, ProjectMode::OnDemand), studio.node("srv@rome", ProjectMode::OnDemand));
        let home = studio.node_as(HOME, Role::Workstation, ProjectMode::OnDemand);
        let chain = home.identity.certificate_chain().to_vec();
        publishes(&home, 1);
        for node in [&london, &rome] {
            node.hears(&home);
        }
        studio.clock.advance(Duration::from_secs(60));
        assert_eq!(publish(&london, &list_of(&studio, HOME)).unwrap(), 1);
        studio.clock.advance(Duration::from_secs(60));
        publishes(&home, 2);
        for node in [&london, &rome] {
            node.hears(&home);
        }
        rome.hears_of(&london, &ProjectName::studio());
        let london = studio.reopen(london);
        for node in [&london, &rome] {
            assert_eq!(known(node), [1], "at {}", node.core.me);
            assert_eq!(node.core.take_revoked(), News { nodes: vec![], list: Some((1, 1)) });
            assert!(node.core.take_revoked().is_empty());
            let revoked = node.core.revocations.now();
            assert!(revoked.check_chain(&chain, node.identity.authority()).is_err());
            assert!(
                revoked.check_chain(node.identity.certificate_chain(), node.identity.authority()).is_ok()
            );
        }
        // What home itself heard keeps it from saying more.
        home.hears_of(&london, &ProjectName::studio());
        let manifest = draft(3, b"x").finish().unwrap();
        home.core.ledger.put_manifest(&manifest).unwrap();
        let record = Record::Published(published(&manifest));
        let refused = home.core.ledger.commit_wait(&project(), vec![record], vec![], 0);
        assert!(matches!(refused, Err(LedgerError::NotAllowed { .. })), "{refused:?}");
    }

    #[test]
    fn of_what_says_an_older_time_only_what_the_admin_knew_counts() {
        let studio = Studio::new();
        let london = studio.node(LONDON, ProjectMode::OnDemand);
        let home = studio.node_as(HOME, Role::Workstation, ProjectMode::OnDemand);
        let mut late = draft(2, b"x");
        late.published_at_ms = home.core.now_ms();
        publishes(&home, 1);
        london.hears(&home);
        studio.clock.advance(Duration::from_secs(60));
        publish(&london, &list_of(&studio, HOME)).unwrap();
        home.publishes(&late.finish().unwrap());
        london.hears(&home);
        assert_eq!(known(&london), [1]);
    }

    /// Lets an admin apply a policy that changes nothing about this test.
    fn apply(at: &Node, serial: u64) {
        let document = format!(
            "schema = \"avalon.policy/1\"\n[defaults]\nkeep = \"on-demand\"\nmin_copies = 1\n# {serial}\n[[grant]]\nto = \
             \"home\"\nprojects = \"*\"\nactions = \"publish\"\n"
        );
        let (author, comment) = ("anna".to_owned(), String::new());
        at.core.apply_policy(Apply { document, author, comment, replaces: None }).unwrap();
    }

    #[test]
    fn a_node_with_a_new_certificate_goes_on_and_what_a_thief_wrote_under_the_old_one_counts_nowhere() {
        let studio = Studio::new();
        let london = studio.node(LONDON, ProjectMode::OnDemand);
        let home = studio.node_as(HOME, Role::Workstation, ProjectMode::OnDemand);
        let mut late = draft(2, b"x");
        late.published_at_ms = home.core.now_ms();
        publishes(&home, 1);
        london.hears(&home);
        studio.clock.advance(Duration::from_secs(60));
        publish(&london, &list_of(&studio, HOME)).unwrap();
        // The thief, with an older time; then the owner, who does not hear of the list before.
        home.publishes(&late.finish().unwrap());
        studio.clock.advance(Duration::from_secs(60));
        let home = studio.reissue(home);
        publishes(&home, 3);
        london.hears(&home);
        assert_eq!(known(&london), [1, 3]);
        // Whatever is judged from now on, by whom and how often, it stays so.
        for serial in 1..=2 {
            apply(&london, serial);
            london.core.record_ended();
            assert_eq!(known(&london), [1, 3], "after policy {serial}");
        }
    }

    #[test]
    fn a_list_that_comes_after_the_new_certificate_takes_only_what_was_said_under_the_old_one() {
        let studio = Studio::new();
        let london = studio.node(LONDON, ProjectMode::OnDemand);
        let home = studio.node_as(HOME, Role::Workstation, ProjectMode::OnDemand);
        publishes(&home, 1);
        studio.clock.advance(Duration::from_secs(60));
        let list = list_of(&studio, HOME);
        studio.clock.advance(Duration::from_secs(60));
        // The thief.
        publishes(&home, 2);
        let home = studio.reissue(home);
        publishes(&home, 3);
        london.hears(&home);
        apply(&london, 1);
        assert_eq!(known(&london), [1, 2, 3]);
        publish(&london, &list).unwrap();
        assert_eq!(known(&london), [1, 3], "also what was judged before");
        apply(&london, 2);
        assert_eq!(known(&london), [1, 3]);
    }

    #[test]
    fn older_times_help_nobody_where_all_was_judged_before_the_list() {
        let studio = Studio::new();
        let london = studio.node(LONDON, ProjectMode::OnDemand);
        let home = studio.node_as(HOME, Role::Workstation, ProjectMode::OnDemand);
        publishes(&home, 1);
        london.hears(&home);
        apply(&london, 1);
        studio.clock.advance(Duration::from_secs(60));
        let mut late = draft(2, b"x");
        late.published_at_ms = home.core.now_ms();
        studio.clock.advance(Duration::from_secs(60));
        publish(&london, &list_of(&studio, HOME)).unwrap();
        home.publishes(&late.finish().unwrap());
        london.hears(&home);
        assert_eq!(known(&london), [1]);
    }

    #[test]
    fn what_a_revoked_admin_made_others_judge_is_open_again_when_the_ca_puts_it_on_a_list() {
        let studio = Studio::new();
        let (london, rome) =
            (studio.node(LONDON, ProjectMode::OnDemand), studio.node("srv@rome", ProjectMode::OnDemand));
        let home = studio.node_as(HOME, Role::Workstation, ProjectMode::OnDemand);
        publishes(&home, 1);
        let list = list_of(&studio, "srv@rome");
        studio.clock.advance(Duration::from_secs(60));
        // The thief has rome's key.
        rome.core.revoke_node(&home.core.me, note(), note()).unwrap();
        publishes(&home, 2);
        london.hears(&home);
        london.hears_of(&rome, &ProjectName::studio());
        apply(&london, 1);
        assert_eq!(known(&london), [1]);
        publish(&london, &list).unwrap();
        assert_eq!(known(&london), [1, 2]);
    }

    #[test]
    fn what_an_admin_wrote_between_two_lists_stands_and_whom_one_on_a_list_revoked_is_let_in_again() {
        let studio = Studio::new();
        let london = studio.node(LONDON, ProjectMode::OnDemand);
        let rome = studio.node("srv@rome", ProjectMode::OnDemand);
        let revokes =
            |at: &Node, whom: &str| drop(at.core.revoke_node(&whom.parse().unwrap(), note(), note()));
        let out = || {
            london.core.take_revoked();
            let now = london.core.revocations.now();
            ["ws1@a", "ws2@a", "ws3@a"].map(|node| now.has_node(&node.parse().unwrap()))
        };
        let of_studio = ProjectName::studio();
        revokes(&rome, "ws1@a");
        studio.clock.advance(Duration::from_secs(60));
        let first = list_of(&studio, "srv@rome");
        studio.clock.advance(Duration::from_secs(60));
        // The thief.
        revokes(&rome, "ws2@a");
        london.hears_of(&rome, &of_studio);
        assert_eq!(out(), [true, true, false]);
        publish(&london, &first).unwrap();
        assert_eq!(out(), [true, false, false], "what a listed admin said of others does not count any more");
        let rome = studio.reissue(rome);
        revokes(&rome, "ws3@a");
        london.hears_of(&rome, &of_studio);
        assert_eq!(out(), [true, false, true]);
        studio.clock.advance(Duration::from_secs(60));
        publish(&london, &list_of(&studio, "srv@rome")).unwrap();
        assert_eq!(
            out(),
            [true, false, true],
            "what was said under the second certificate in its time stands"
        );
    }

    #[test]
    fn lists_that_are_old_forged_too_long_or_not_an_admins_to_bring_are_refused() {
        let (studio, other) = (Studio::new(), Studio::new());
        let (london, rome) =
            (studio.node(LONDON, ProjectMode::OnDemand), studio.node("srv@rome", ProjectMode::OnDemand));
        let home = studio.node_as(HOME, Role::Workstation, ProjectMode::OnDemand);
        for at in [&studio, &other] {
            at.node_as("ws2@home", Role::Workstation, ProjectMode::OnDemand);
        }
        let [first, second] = ["ws2@home", "srv@rome"].map(|node| list_of(&studio, node));
        assert!(matches!(publish(&home, &first), Err(RevokeError::NotAllowed { .. })));
        assert!(matches!(publish(&rome, &second), Err(RevokeError::Itself { .. })));
        let forged = list_of(&other, "ws2@home");
        assert!(matches!(publish(&london, &forged), Err(RevokeError::List { .. })));
        assert!(matches!(publish(&london, &vec![0x30; MAX_CRL_BYTES + 1]), Err(RevokeError::LongList)));
        assert_eq!(publish(&rome, &first).unwrap(), 1);
        assert_eq!(publish(&london, &second).unwrap(), 2);
        for old in [&first, &second] {
            assert!(matches!(publish(&london, old), Err(RevokeError::OldList { known: 2, .. })));
        }
        // One that was made where the clock is ahead.
        let ahead = studio.clock.now() + Duration::from_hours(25);
        let ahead = studio.authority.revoke(None, &[vec![99]], ahead).unwrap();
        let ahead = publish(&london, &std::fs::read(ahead.path).unwrap());
        assert!(matches!(ahead, Err(RevokeError::ListAhead { number: 3 })), "{ahead:?}");
        // One of a copy of the CA's directory that does not know what the others revoked.
        let copy = studio.dir().join("copy of the CA");
        std::fs::create_dir(&copy).unwrap();
        for name in
            std::fs::read_dir(studio.dir().join("ca")).unwrap().map(|entry| entry.unwrap().file_name())
        {
            if !name.to_string_lossy().ends_with(".crl") {
                std::fs::copy(studio.dir().join("ca").join(&name), copy.join(&name)).unwrap();
            }
        }
        let copy = avalon_certs::Authority::open(&copy).unwrap();
        let lists =
            [7, 8, 9].map(|serial| copy.revoke(None, &[vec![serial]], studio.clock.now()).unwrap().path);
        let [.., short] = lists;
        let short = publish(&london, &std::fs::read(short).unwrap());
        assert!(matches!(short, Err(RevokeError::ShorterList { number: 3, missing: 2 })), "{short:?}");
        // An older one that comes later changes nothing.
        london.hears_of(&rome, &ProjectName::studio());
        assert_eq!(london.core.take_revoked().list, Some((2, 2)));
        // One that a node wrote past its own checks, or that nobody of the studio signed, says nothing to others.
        let forged = Record::Crl(Crl { der: forged, author: note(), comment: note(), at_ms: 0 });
        london.core.ledger.commit_wait(&ProjectName::studio(), vec![forged], vec![], 0).unwrap();
        assert!(london.core.take_revoked().is_empty());
    }
}
