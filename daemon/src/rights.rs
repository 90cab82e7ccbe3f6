//! Who may do what: revoking nodes, and keeping what was said while rights change. What a revocation does to handshakes and
//! connections is in [`revocation`](crate::revocation).
//!
//! The studio's feeds are the truth; the ledger reads them ([`Ledger::admission`](avalon_store::ledger::Ledger::admission)).
//! What is written here is written by admins alone.

mod judging;

use std::sync::Arc;

use avalon_protocol::{
    access::Role,
    id::{NodeId, ProjectName},
    limits::MAX_CRL_BYTES,
    record::{Crl, Note, Record, Revoked},
    signing::{CertificateId, CertificateList, UntrustedList},
};
use avalon_store::ledger::{Committed, LedgerError};
use thiserror::Error;

use self::judging::judge_ends;
use crate::{core::Core, tasks::Tasks};

const DAY_MS: u64 = 24 * 3600 * 1000;

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
    /// It is no list of the studio's CA.
    #[error("that is no list of revoked certificates of this studio")]
    List {
        /// What is wrong with it.
        #[source]
        source: UntrustedList,
    },
    /// A newer one counts.
    #[error("list {number} says nothing new: list {known} counts already")]
    OldList {
        /// Its number.
        number: u64,
        /// The number of the one that counts.
        known: u64,
    },
    /// It would take certificates back into the studio.
    #[error(
        "list {number} lacks {missing} of the certificates that are revoked; was it made from a copy of the CA's directory that has not all lists?"
    )]
    ShorterList {
        /// Its number.
        number: u64,
        /// How many it lacks.
        missing: usize,
    },
    /// The clock where it was made was wrong, or this one is.
    #[error("list {number} revokes certificates as of more than a day from now by this node's clock")]
    ListAhead {
        /// Its number.
        number: u64,
    },
    /// It fits into no record.
    #[error("the list is larger than the limit of {MAX_CRL_BYTES} bytes")]
    LongList,
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
        let mut records = self.judge_node(node);
        records.push(Record::Revoked(Revoked { node: node.clone(), author, comment, at_ms: now_ms }));
        let committed = self.ledger.commit_wait(&ProjectName::studio(), records, Vec::new(), self.now_ms());
        committed.map_err(|source| self.refused(source))
    }

    /// Publishes a list of revoked certificates, in DER: durable when it returns, and on its way to all peers. What was signed under them
    /// before stays, as far as it is known here.
    ///
    /// # Errors
    /// [`RevokeError`]; nothing was recorded then.
    pub fn revoke_list(
        &self,
        der: Vec<u8>,
        author: Note,
        comment: Note,
    ) -> Result<CertificateList, RevokeError> {
        if der.len() > MAX_CRL_BYTES {
            return Err(RevokeError::LongList);
        }
        let list = self.ledger.certificate_list(&der).map_err(|source| RevokeError::List { source })?;
        let own = self.ledger.own_signer();
        if own.role != Role::Admin {
            return Err(RevokeError::NotAllowed { me: self.me.clone() });
        }
        if own.certificates.iter().flatten().any(|id| list.revoked.contains_key(id)) {
            return Err(RevokeError::Itself { me: self.me.clone() });
        }
        if let Some(known) = self.ledger.admission().listed().map(|listed| listed.list().number)
            && known >= list.number
        {
            return Err(RevokeError::OldList { number: list.number, known });
        }
        if let Some(listed) = self.ledger.admission().listed() {
            let lacks = |id: &&CertificateId| !list.revoked.contains_key(id);
            let missing = listed.list().revoked.keys().filter(lacks).count();
            if missing > 0 {
                return Err(RevokeError::ShorterList { number: list.number, missing });
            }
        }
        let now_ms = self.now_ms();
        if list.revoked.values().any(|since_ms| *since_ms > now_ms.saturating_add(DAY_MS)) {
            return Err(RevokeError::ListAhead { number: list.number });
        }
        let mut records = self.judge_listed(&list);
        records.push(Record::Crl(Crl { der, author, comment, at_ms: now_ms }));
        let committed = self.ledger.commit_wait(&ProjectName::studio(), records, Vec::new(), now_ms);
        committed.map(|_| list).map_err(|source| self.refused(source))
    }

    fn refused(&self, source: LedgerError) -> RevokeError {
        match source {
            LedgerError::NotAllowed { .. } => RevokeError::NotAllowed { me: self.me.clone() },
            source => RevokeError::Ledger { source },
        }
    }
}

/// Starts what judges feeds when a grant ends.
pub fn start(core: &Arc<Core>, tasks: &Tasks) {
    tasks.spawn("ends of grants", judge_ends(Arc::clone(core), tasks.token()));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use avalon_protocol::{
        access::{Action, Role},
        feed::{FeedId, Group},
        hash::ChainHash,
        mode::ProjectMode,
    };

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
    fn who_revokes_says_where_each_feed_stood_and_in_which_history() {
        let studio = Studio::new();
        let london = studio.node("srv@london", ProjectMode::OnDemand);
        let home = studio.node_as("ws1@home", Role::Admin, ProjectMode::OnDemand);
        publishes(&london, 1);
        publishes(&home, 2);
        london.hears(&home);
        let note = || Note::try_from("lost".to_owned()).unwrap();
        london.core.revoke_node(&home.core.me, note(), note()).unwrap();
        let feed = FeedId { project: ProjectName::studio(), node: london.core.me.clone() };
        let groups = london.core.ledger.read_groups(&feed, 0, 1 << 20).unwrap();
        let bodies = groups.iter().map(|group| postcard::from_bytes::<Group>(&group.body).unwrap());
        let judged =
            bodies.flat_map(|body| body.records).filter_map(|raw| match Record::from_raw(&raw).unwrap() {
                Record::Judged(judged) => {
                    Some((judged.feed.project.to_string(), judged.next_seq, judged.chain))
                }
                _ => None,
            });
        let head = home.core.ledger.heads(&project())[0].1;
        let expected = [
            ("lantern".to_owned(), head.next_seq, Some(head.chain)),
            // It has said nothing there, so whatever turns up there counts nowhere.
            ("_studio".to_owned(), 0, Some(ChainHash::EMPTY)),
        ];
        assert_eq!(judged.collect::<Vec<_>>(), expected);
        home.core.revoke_node(&"srv@rome".parse().unwrap(), note(), note()).unwrap();
        london.hears_of(&home, &ProjectName::studio());
        assert_eq!(london.core.ledger.admission().revoked().keys().collect::<Vec<_>>(), [&home.core.me]);
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
