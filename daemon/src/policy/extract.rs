//! The extract of the policy that a node is sent which may not see every project, and goes by.
//!
//! It is no record: whoever may tell it is an admin's or a site's node, and what it says is kept in a file. A newer policy in the studio's
//! feeds, once they come, counts over it.

use std::sync::{Arc, PoisonError};

use avalon_protocol::{id::NodeId, policy::Policy, wire::PolicyExtract};
use avalon_store::{fs::Dir, ledger::Ledger};

use super::StudioPolicy;
use crate::{core::Core, health::HealthBoard, log::ErrorChain, state_file::StateFile};

const FILE: &str = "policy-extract.json";
const SCHEMA: &str = "avalond.policy-extract/1";

/// An extract that was read.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pub(super) extract: PolicyExtract,
    pub(super) policy: Arc<Policy>,
}

impl StudioPolicy {
    /// Goes by the extract that an earlier run kept, and keeps what comes there. Blocks.
    pub fn open_extract(&self, root: &Dir, ledger: &Ledger, board: &HealthBoard) {
        let file = StateFile::new(root, FILE, SCHEMA);
        match file.read::<PolicyExtract>() {
            Ok(Some(extract)) => match Policy::parse_extract(&extract.document) {
                Ok(policy) => self.hold(Held { extract, policy: Arc::new(policy) }, ledger, board),
                Err(error) => {
                    tracing::warn!(error = %error, "the extract of the policy is not understood; another one comes")
                }
            },
            Ok(None) => {}
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "the extract of the policy cannot be read; another one comes");
            }
        }
        self.extract_file.set(file).ok();
    }

    /// Returns the serial of what this node goes by; 0 without a policy.
    pub fn serial(&self) -> u64 {
        let held = self.held().map_or(0, |held| held.extract.serial);
        self.view().fold.in_effect().map_or(0, |stands| stands.id.serial).max(held)
    }

    pub(super) fn held(&self) -> Option<Held> {
        self.extract.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hold(&self, held: Held, ledger: &Ledger, board: &HealthBoard) {
        ledger.go_by(held.extract.serial, Arc::new(held.policy.access().clone()));
        *self.extract.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
        let reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        self.show(reading, board);
    }
}

impl Core {
    /// Goes by what a peer says of the policy, unless something newer is known. Says whether it does. Blocks, for long the first
    /// time at a node that judged by itself so far: then the catalog is built anew.
    pub fn take_extract(&self, extract: PolicyExtract, from: &NodeId) -> bool {
        let is_known = self.policy.held().is_some_and(|held| held.extract == extract);
        if is_known || extract.serial < self.policy.serial() {
            return false;
        }
        let policy = match Policy::parse_extract(&extract.document) {
            Ok(policy) => Arc::new(policy),
            Err(error) => {
                tracing::warn!(peer = %from, error = %error, "what a peer says of the policy is not understood");
                return false;
            }
        };
        tracing::info!(peer = %from, serial = extract.serial, "going by an extract of the policy");
        let before = self.ledger.admission();
        self.policy.hold(Held { extract: extract.clone(), policy }, &self.ledger, &self.health);
        if before.takes_word() != self.ledger.admission().takes_word()
            && let Err(error) = self.ledger.rebuild(Box::new(drop))
        {
            tracing::warn!(error = %ErrorChain(&error), "the catalog is not built by the new rights yet");
        }
        // Last: a crash before has it sent and done again.
        if let Some(Err(error)) = self.policy.extract_file.get().map(|file| file.write(&extract)) {
            tracing::warn!(error = %ErrorChain(&error), "the extract of the policy is not kept over a restart");
        }
        true
    }
}
