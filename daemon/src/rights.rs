//! Who may do what: revoking nodes, keeping what was said while rights change, and closing the connections of those who are
//! revoked.
//!
//! The studio's feeds are the truth; the ledger reads them ([`Ledger::admission`](avalon_store::ledger::Ledger::admission)).
//! What is written here is written by admins alone.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use avalon_certs::Revoked as RevokedSet;
use avalon_protocol::{
    access::{Admission, Rights, Role},
    close_code::CloseCode,
    control::EventKind,
    feed::{FeedHead, FeedId, Group},
    id::{NodeId, ProjectName},
    limits::RECORDS_FRAME_TARGET_BYTES,
    record::{Judged, Note, Record, Revoked},
};
use avalon_store::ledger::{Committed, LedgerError, LedgerEvent};
use thiserror::Error;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::{
    core::{Core, blocking},
    log::ErrorChain,
    net::Net,
    tasks::Tasks,
};

/// How often it is looked whether a grant has ended, at most: clocks are set, and machines sleep.
const LOOK_EVERY: Duration = Duration::from_secs(3600);

/// Why a node was not revoked.
#[derive(Debug, Error)]
pub enum RevokeError {
    /// This node is no admin's.
    #[error("{me} may not revoke: its certificate does not have the role admin, or it is revoked")]
    NotAllowed {
        /// This node.
        me: NodeId,
    },
    /// It would lock itself out.
    #[error("{me} cannot revoke itself")]
    Itself {
        /// This node.
        me: NodeId,
    },
    /// It is revoked.
    #[error("{node} is revoked already")]
    Already {
        /// Which node.
        node: NodeId,
    },
    /// It could not be written.
    #[error("the revocation was not recorded")]
    Ledger {
        /// Why.
        #[source]
        source: LedgerError,
    },
}

impl Core {
    /// Revokes a node: durable when it returns, and on its way to all peers. What the node said before stays, as far as it is
    /// known here. Blocks.
    ///
    /// # Errors
    /// [`RevokeError`]; nothing was recorded then.
    pub fn revoke_node(&self, node: &NodeId, author: Note, comment: Note) -> Result<Committed, RevokeError> {
        let me = || self.me.clone();
        if *node == self.me {
            return Err(RevokeError::Itself { me: me() });
        }
        if self.ledger.admission().is_revoked(node) {
            return Err(RevokeError::Already { node: node.clone() });
        }
        let now_ms = self.now_ms();
        let mut judging = Judging::new(self, now_ms);
        for (feed, head) in self.all_feeds().into_iter().filter(|(feed, _)| feed.node == *node) {
            judging.ended(&feed, head);
            judging.now(&feed, head);
        }
        let mut records = judging.records;
        records.push(Record::Revoked(Revoked { node: node.clone(), author, comment, at_ms: now_ms }));
        let committed = self.ledger.commit_wait(&ProjectName::studio(), records, Vec::new(), self.now_ms());
        committed.map_err(|source| match source {
            LedgerError::NotAllowed { .. } => RevokeError::NotAllowed { me: me() },
            source => RevokeError::Ledger { source },
        })
    }

    /// Says of every feed that what stands in it by now is judged by the rights that its author has now: to go in front of what
    /// changes them. Blocks.
    pub fn judge_all(&self) -> Vec<Record> {
        let mut judging = Judging::new(self, self.now_ms());
        // In the studio's own feeds a certificate says who may what, and no policy.
        for (feed, head) in self.all_feeds().into_iter().filter(|(feed, _)| !feed.project.is_studio()) {
            judging.ended(&feed, head);
            judging.now(&feed, head);
        }
        judging.records
    }

    /// Says of every feed whose author had a grant that has ended: what was said before its end counts. Blocks.
    pub fn judge_ended(&self) -> Vec<Record> {
        let mut judging = Judging::new(self, self.now_ms());
        for (feed, head) in self.all_feeds() {
            judging.ended(&feed, head);
        }
        judging.records
    }

    fn all_feeds(&self) -> Vec<(FeedId, FeedHead)> {
        let of_project = |project: ProjectName| {
            let heads = self.ledger.heads(&project).into_iter();
            heads.map(move |(node, head)| (FeedId { project: project.clone(), node }, head))
        };
        self.feed_projects().flat_map(of_project).collect()
    }

    /// The role under which a feed was signed last.
    fn role_in(&self, feed: &FeedId, head: FeedHead) -> Option<Role> {
        self.ledger.role_at(feed, head.next_seq.checked_sub(1)?)
    }

    /// Returns the first record of a feed from `judged` on that says it is not older than `at_ms`.
    fn first_said_from(&self, feed: &FeedId, judged: u64, at_ms: u64) -> Result<Option<u64>, LedgerError> {
        let mut from_seq = 0;
        loop {
            let groups = self.ledger.read_groups(feed, from_seq, RECORDS_FRAME_TARGET_BYTES)?;
            let bodies = groups.iter().filter_map(|group| postcard::from_bytes::<Group>(&group.body).ok());
            let before = from_seq;
            for body in bodies {
                let found = (body.first_seq..).zip(&body.records).find(|(seq, raw)| {
                    let record = Record::in_feed(raw, &feed.project).ok();
                    *seq >= judged
                        && record
                            .and_then(|record| Admission::said_at_ms(&record))
                            .is_some_and(|said| said >= at_ms)
                });
                if let Some((seq, _)) = found {
                    return Ok(Some(seq));
                }
                from_seq = body.first_seq + body.records.len() as u64;
            }
            if from_seq == before {
                return Ok(None);
            }
        }
    }

    /// Brings what is asked in every handshake up to what the studio's feeds say; returns who is newly revoked.
    fn take_revoked(&self) -> Vec<NodeId> {
        let admission = self.ledger.admission();
        let before = self.revocations.now();
        let new: Vec<NodeId> =
            admission.revoked().keys().filter(|node| !before.has_node(node)).cloned().collect();
        if !new.is_empty() {
            let mut revoked = RevokedSet::clone(&before);
            new.iter().for_each(|node| revoked.add_node(node.clone()));
            self.revocations.replace(revoked);
        }
        new
    }
}

/// Judged records in the making. No place is named twice: of two that name one, what both allow would count.
struct Judging<'a> {
    core: &'a Core,
    admission: Arc<Admission>,
    now_ms: u64,
    /// Up to where each feed is judged by these records, and when that was said.
    judged: BTreeMap<FeedId, (u64, u64)>,
    records: Vec<Record>,
}

impl<'a> Judging<'a> {
    fn new(core: &'a Core, now_ms: u64) -> Self {
        let admission = core.ledger.admission();
        Self { core, admission, now_ms, judged: BTreeMap::new(), records: Vec::new() }
    }

    fn last(&self, feed: &FeedId) -> (u64, u64) {
        let known = || self.admission.last_judged(feed);
        self.judged.get(feed).copied().or_else(known).unwrap_or((0, 0))
    }

    /// Judges a feed at each end of a grant that its author had since it was judged last.
    fn ended(&mut self, feed: &FeedId, head: FeedHead) {
        let Some(role) = self.core.role_in(feed, head) else { return };
        if feed.project.is_studio() || self.admission.is_revoked(&feed.node) {
            return;
        }
        let (admission, (_, mut since_ms)) = (Arc::clone(&self.admission), self.last(feed));
        let end_after =
            |since| admission.policy().first_end_ms(&feed.node, role, &feed.project, since, self.now_ms);
        let mut ends = Vec::new();
        while let Some(end_ms) = end_after(since_ms) {
            ends.push(end_ms);
            since_ms = end_ms;
        }
        for end_ms in ends {
            match self.core.first_said_from(feed, self.last(feed).0, end_ms) {
                Ok(first) => {
                    let before = end_ms.saturating_sub(1);
                    let rights = admission.rights(&feed.node, role, &feed.project, before);
                    self.judge(feed, first.unwrap_or(head.next_seq), rights, end_ms);
                }
                Err(error) => {
                    tracing::warn!(%feed, error = %ErrorChain(&error), "what was said before a grant ended cannot be read");
                    return;
                }
            }
        }
    }

    /// Judges what stands in a feed by now by what its author may do now.
    fn now(&mut self, feed: &FeedId, head: FeedHead) {
        let Some(role) = self.core.role_in(feed, head) else { return };
        let rights = match feed.project.is_studio() {
            true => Admission::rights_of_studio(role),
            false => self.admission.rights(&feed.node, role, &feed.project, self.now_ms),
        };
        self.judge(feed, head.next_seq, rights, self.now_ms);
    }

    fn judge(&mut self, feed: &FeedId, next_seq: u64, rights: Rights, at_ms: u64) {
        if next_seq > self.last(feed).0 {
            self.judged.insert(feed.clone(), (next_seq, at_ms));
            self.records.push(Record::Judged(Judged { feed: feed.clone(), next_seq, rights, at_ms }));
        }
    }
}

/// Starts what closes the connections of revoked nodes, and what judges feeds when a grant ends. Whoever is revoked already is known
/// when it returns.
pub fn start(core: &Arc<Core>, net: &Net, ledger_events: &broadcast::Sender<LedgerEvent>, tasks: &Tasks) {
    let (core_, net, events, stop) =
        (Arc::clone(core), net.clone(), ledger_events.subscribe(), tasks.token());
    tasks.spawn("revocations", follow(core_, net, events, stop.clone()));
    tasks.spawn("ends of grants", judge_ends(Arc::clone(core), stop));
}

/// Makes known who is revoked before anybody is let in.
pub fn prepare(core: &Core) {
    core.take_revoked();
}

async fn follow(
    core: Arc<Core>,
    net: Net,
    mut ledger_events: broadcast::Receiver<LedgerEvent>,
    stop: CancellationToken,
) {
    loop {
        for node in core.take_revoked() {
            tracing::warn!(%node, "node revoked");
            core.events.emit(EventKind::NodeRevoked { node: node.to_string() });
        }
        let revoked = core.revocations.now();
        for link in net.links().into_iter().filter(|link| revoked.has_node(link.node())) {
            link.close(CloseCode::Revoked, "this node is revoked");
        }
        loop {
            let event = tokio::select! {
                () = stop.cancelled() => return,
                event = ledger_events.recv() => event,
            };
            match event {
                Ok(LedgerEvent::Advanced { feed, .. }) if feed.project.is_studio() => break,
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => break,
                Err(broadcast::error::RecvError::Closed) => return,
            }
        }
    }
}

/// Judges feeds when a grant ends, where this node is an admin's.
async fn judge_ends(core: Arc<Core>, stop: CancellationToken) {
    loop {
        let there = Arc::clone(&core);
        blocking(move || there.record_ended()).await;
        let now_ms = core.now_ms();
        let next_ms = core.ledger.admission().policy().next_end_ms(now_ms);
        let wait = next_ms.map_or(LOOK_EVERY, |next| Duration::from_millis(next - now_ms).min(LOOK_EVERY));
        tokio::select! {
            () = stop.cancelled() => return,
            () = core.clock.sleep(wait) => {}
        }
    }
}

impl Core {
    fn record_ended(&self) {
        if self.ledger.own_role() != Role::Admin || self.ledger.admission().is_revoked(&self.me) {
            return;
        }
        let records = self.judge_ended();
        if records.is_empty() {
            return;
        }
        let feeds = records.len();
        let committed = self.ledger.commit_wait(&ProjectName::studio(), records, Vec::new(), self.now_ms());
        match committed {
            Ok(_) => tracing::info!(feeds, "grants have ended; what was said before stands"),
            // It is tried again.
            Err(error) => tracing::warn!(error = %ErrorChain(&error), "the end of a grant is not recorded"),
        }
    }
}

#[cfg(test)]
mod tests {
    use avalon_protocol::{access::Action, mode::ProjectMode};

    use super::*;
    use crate::{
        fixture::{Node, Studio, draft, project, version},
        policy::Apply,
    };

    const DAY: Duration = Duration::from_hours(24);

    fn apply(node: &Node, grants: &str) {
        let document = format!(
            "schema = \"avalon.policy/1\"\n[defaults]\nkeep = \"on-demand\"\nmin_copies = 1\n{grants}"
        );
        let (author, comment) = ("anna".to_owned(), String::new());
        node.core.apply_policy(Apply { document, author, comment, replaces: None }).unwrap();
    }

    /// Publishes at the time that the clock shows.
    fn publishes(node: &Node, number: u32) {
        let mut draft = draft(number, b"x");
        draft.published_at_ms = node.core.now_ms();
        node.publishes(&draft.finish().unwrap());
    }

    /// Which of the first three versions a node knows, once it has heard of all.
    fn known(node: &Node) -> Vec<u32> {
        assert!(node.core.ledger.wait_ready());
        (1..=3).filter(|number| node.core.ledger.version(&version(*number)).unwrap().is_some()).collect()
    }

    #[test]
    fn what_was_said_before_a_grant_ended_stands_also_when_the_policy_goes_on_and_nothing_after_it_does() {
        let studio = Studio::new();
        let london = studio.node("srv@london", ProjectMode::OnDemand);
        // It goes by no policy, so it says what it likes.
        let van = studio.node_as("ws1@van", Role::Site, ProjectMode::OnDemand);
        let end = jiff::Timestamp::try_from(london.core.clock.now() + DAY).unwrap();
        apply(
            &london,
            &format!("[[grant]]\nto = \"van\"\nprojects = \"*\"\nactions = \"publish\"\nuntil = \"{end}\"\n"),
        );
        publishes(&van, 1);
        london.clock.advance(DAY);
        publishes(&van, 2);
        london.hears(&van);
        assert_eq!(known(&london), [1]);
        // When it notices, somebody has published a third.
        london.clock.advance(DAY);
        publishes(&van, 3);
        london.hears(&van);
        let judged = london.core.judge_ended();
        let Some(Record::Judged(first)) = judged.first() else { panic!("{judged:?}") };
        assert_eq!((first.next_seq, first.rights.to_string().as_str()), (2, "see, publish"));
        london.core.record_ended();
        assert_eq!(london.core.judge_ended(), [], "it is said once");
        assert_eq!(known(&london), [1]);
        // Grants that say nothing of it any more change nothing about what was said.
        apply(&london, "[[grant]]\nto = \"london\"\nprojects = \"*\"\nactions = \"publish\"\n");
        assert_eq!(known(&london), [1]);
        apply(&london, "[[grant]]\nto = \"van\"\nprojects = \"*\"\nactions = \"publish\"\n");
        assert_eq!(known(&london), [1], "what was refused then stays refused");
        publishes(&van, 3);
        london.hears(&van);
        assert_eq!(known(&london), [1, 3]);
    }

    #[test]
    fn what_counts_is_not_lost_by_ends_of_grants_that_follow_a_revocation_or_a_smaller_grant() {
        for revokes in [true, false] {
            let studio = Studio::new();
            let london = studio.node("srv@london", ProjectMode::OnDemand);
            let van = studio.node_as("ws1@van", Role::Site, ProjectMode::OnDemand);
            let end = jiff::Timestamp::try_from(london.core.clock.now() + DAY).unwrap();
            let grant = |actions: &str| {
                format!(
                    "[[grant]]\nto = \"van\"\nprojects = \"*\"\nactions = \"{actions}\"\nuntil = \"{end}\"\n"
                )
            };
            apply(&london, &grant("publish"));
            publishes(&van, 1);
            london.hears(&van);
            london.clock.advance(DAY / 2);
            if revokes {
                let note = || Note::try_from("lost".to_owned()).unwrap();
                london.core.revoke_node(&van.core.me, note(), note()).unwrap();
            } else {
                apply(&london, &grant("pull"));
            }
            london.clock.advance(DAY);
            london.core.record_ended();
            apply(&london, "");
            assert_eq!(known(&london), [1], "revoked: {revokes}");
        }
    }

    #[test]
    fn what_names_an_older_time_behind_the_place_up_to_which_it_was_judged_counts_nowhere() {
        for revokes in [true, false] {
            let studio = Studio::new();
            let london = studio.node("srv@london", ProjectMode::OnDemand);
            let van = studio.node_as("ws1@van", Role::Site, ProjectMode::OnDemand);
            let end = jiff::Timestamp::try_from(london.core.clock.now() + DAY).unwrap();
            let until = if revokes { String::new() } else { format!("until = \"{end}\"\n") };
            apply(
                &london,
                &format!("[[grant]]\nto = \"van\"\nprojects = \"*\"\nactions = \"publish\"\n{until}"),
            );
            publishes(&van, 1);
            london.hears(&van);
            let mut late = draft(2, b"x");
            late.published_at_ms = van.core.now_ms();
            london.clock.advance(DAY * 2);
            if revokes {
                let note = || Note::try_from("lost".to_owned()).unwrap();
                london.core.revoke_node(&van.core.me, note(), note()).unwrap();
            } else {
                london.core.record_ended();
            }
            van.publishes(&late.finish().unwrap());
            london.hears(&van);
            assert_eq!(known(&london), [1], "revoked: {revokes}");
        }
    }

    #[test]
    fn a_node_is_revoked_once_by_an_admin_and_not_by_itself() {
        let studio = Studio::new();
        let london = studio.node("srv@london", ProjectMode::OnDemand);
        let home = studio.node_as("ws1@home", Role::Workstation, ProjectMode::OnDemand);
        let note = || Note::try_from("lost".to_owned()).unwrap();
        let revoke = |at: &Node, node: &Node| at.core.revoke_node(&node.core.me, note(), note()).map(drop);
        publishes(&home, 1);
        london.hears(&home);
        assert!(matches!(revoke(&home, &london), Err(RevokeError::NotAllowed { .. })));
        assert!(matches!(revoke(&london, &london), Err(RevokeError::Itself { .. })));
        revoke(&london, &home).unwrap();
        assert!(matches!(revoke(&london, &home), Err(RevokeError::Already { .. })));
        assert_eq!(london.core.take_revoked(), std::slice::from_ref(&home.core.me));
        assert!(
            london.core.take_revoked().is_empty() && london.core.revocations.now().has_node(&home.core.me)
        );
        london.clock.advance(DAY);
        publishes(&home, 2);
        london.hears(&home);
        assert_eq!(known(&london), [1]);
        // Its own copy of the studio's feeds tells it.
        home.hears_of(&london, &ProjectName::studio());
        let refused = home.core.ledger.commit_wait(&project(), vec![], vec![], 0);
        assert!(refused.is_ok(), "nothing is nothing");
        let rights = home.core.ledger.admission().rights(&home.core.me, Role::Workstation, &project(), 0);
        assert!(!rights.allows(Action::See));
    }
}
