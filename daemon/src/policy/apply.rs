//! Applying a policy: checked, given the next serial, and durable in this node's own feed of the studio before the answer.

use std::sync::PoisonError;

use avalon_protocol::{
    id::{NodeId, ProjectName},
    record::Record,
    studio::{AppliedPolicy, PolicyFold, PolicyId, PolicyTooLong, Stands},
};
use avalon_store::ledger::LedgerError;
use thiserror::Error;

use super::understand;
use crate::core::Core;

/// What somebody wants to apply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Apply {
    /// The document.
    pub document: String,
    /// Who applies it.
    pub author: String,
    /// What they say about it.
    pub comment: String,
    /// The serial of the policy that it is meant to replace, 0 for none; whatever stands, when it is not given.
    pub replaces: Option<u64>,
}

/// Why a policy was not applied.
#[derive(Debug, Error)]
pub enum ApplyError {
    /// The document is not a policy.
    #[error("the document is not a policy that this daemon understands: {problem}")]
    NotUnderstood {
        /// What is wrong with it.
        problem: String,
    },
    /// This node is no admin's.
    #[error("{node} may not apply policies: its certificate does not have the role admin, or it is revoked")]
    NotAllowed {
        /// This node.
        node: NodeId,
    },
    /// It does not fit into a record.
    #[error("the policy cannot be recorded")]
    TooLong {
        /// What is too long.
        #[source]
        source: PolicyTooLong,
    },
    /// Somebody else was quicker.
    #[error("policy {replaces} was to be replaced, and policy {} stands, applied by {} at {}", stands.id.serial, stands.entry.author, stands.entry.place.0)]
    Changed {
        /// What was to be replaced.
        replaces: u64,
        /// What stands.
        stands: Box<Stands>,
    },
    /// It replaces one that is not known here.
    #[error("policy {replaces} is not known at this node, the newest here is {newest}")]
    NotKnown {
        /// What was to be replaced.
        replaces: u64,
        /// The newest that is known; 0 for none.
        newest: u64,
    },
    /// There is no higher serial.
    #[error("the policy that stands has the highest serial that there is")]
    NoSerial,
    /// It could not be written.
    #[error("the policy was not recorded")]
    Ledger {
        /// Why.
        #[source]
        source: LedgerError,
    },
}

impl Core {
    /// Applies a policy and returns which it is: it is durable and shown here then, and on its way to all peers. Blocks, up to
    /// minutes while the catalog is built anew.
    ///
    /// # Errors
    /// [`ApplyError`]; nothing was applied then, though after a failed write it may turn up at the next start.
    pub fn apply_policy(&self, apply: Apply) -> Result<PolicyId, ApplyError> {
        let new = understand(&apply.document).map_err(|problem| ApplyError::NotUnderstood { problem })?;
        let _one_at_a_time = self.policy.applying.lock().unwrap_or_else(PoisonError::into_inner);
        self.refresh_policy();
        let fold = self.policy.view().fold;
        check_replaced(&fold, apply.replaces)?;
        let serial = fold.serial().checked_add(1).ok_or(ApplyError::NoSerial)?;
        let policy = AppliedPolicy::new(serial, apply.document, apply.author, apply.comment, self.now_ms());
        let policy = policy.map_err(|source| ApplyError::TooLong { source })?;
        let hash = policy.hash();
        // First up to where the old rights count: a crash in between changes no verdict.
        let mut records = match **self.ledger.admission().policy() == *new.access() {
            true => self.judge_ended(),
            false => self.judge_all(),
        };
        records.push(Record::Policy(policy));
        let committed = self.ledger.commit_wait(&ProjectName::studio(), records, Vec::new(), self.now_ms());
        let committed = committed.map_err(|source| match source {
            LedgerError::NotAllowed { node, .. } => ApplyError::NotAllowed { node },
            source => ApplyError::Ledger { source },
        })?;
        self.refresh_policy();
        tracing::debug!(serial, seq = committed.first_seq(), "policy recorded");
        Ok(PolicyId { serial, hash })
    }
}

/// Says whether the policy that is to be replaced is the one that stands.
pub(super) fn check_replaced(fold: &PolicyFold, replaces: Option<u64>) -> Result<(), ApplyError> {
    let newest = fold.serial();
    match (replaces, fold.standing()) {
        (Some(replaces), Some(stands)) if replaces < newest => {
            let stands = Box::new(stands.clone());
            Err(ApplyError::Changed { replaces, stands })
        }
        (Some(replaces), _) if replaces > newest => Err(ApplyError::NotKnown { replaces, newest }),
        _ => Ok(()),
    }
}
