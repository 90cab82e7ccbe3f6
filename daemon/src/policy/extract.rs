//! The extract of the policy that a node is sent which may not see every project, and goes by.
//!
//! It is no record: whoever may tell it is an admin's or a site's node, and what it says is kept in a file. A newer policy in the studio's
//! feeds, once they come, counts over it.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
};

use avalon_protocol::{
    access::Extract, feed::FeedId, id::NodeId, policy::Policy, record::Judged, wire::PolicyExtract,
};
use avalon_store::fs::Dir;
use serde::{Deserialize, Serialize};

use super::StudioPolicy;
use crate::{core::Core, health::HealthBoard, log::ErrorChain, state_file::StateFile};

const FILE: &str = "policy-extract.json";
const SCHEMA: &str = "avalond.policy-extract/1";

/// An extract that was read.
#[derive(Debug, Clone)]
pub(super) struct Held {
    kept: Kept,
    pub(super) policy: Arc<Policy>,
}

/// As it is in the file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    serial: u64,
    document: String,
    /// Up to where feeds were judged by what it went by before: what counted then still does.
    #[serde(default)]
    judged: Vec<Judged>,
}

/// What an earlier run kept. The ledger is opened with it: what it judges is judged by it from the start.
#[derive(Debug)]
pub struct KeptExtract {
    file: StateFile,
    held: Option<Held>,
}

impl Held {
    pub(super) fn serial(&self) -> u64 {
        self.kept.serial
    }

    fn for_ledger(&self) -> Extract {
        let (serial, judged) = (self.kept.serial, self.kept.judged.clone());
        Extract { serial, policy: Arc::new(self.policy.access().clone()), judged }
    }
}

impl KeptExtract {
    /// Reads it. Blocks.
    pub fn read(root: &Dir) -> Self {
        let file = StateFile::new(root, FILE, SCHEMA);
        let held = match file.read::<Kept>() {
            Ok(Some(kept)) => match Policy::parse_extract(&kept.document) {
                Ok(policy) => Some(Held { kept, policy: Arc::new(policy) }),
                Err(error) => {
                    tracing::warn!(error = %error, "the extract of the policy is not understood; another one comes");
                    None
                }
            },
            Ok(None) => None,
            Err(error) => {
                tracing::warn!(error = %ErrorChain(&error), "the extract of the policy cannot be read; another one comes");
                None
            }
        };
        Self { file, held }
    }

    /// Returns what the ledger goes by.
    pub fn for_ledger(&self) -> Option<Extract> {
        self.held.as_ref().map(Held::for_ledger)
    }
}

impl StudioPolicy {
    /// Goes by the extract that an earlier run kept, and keeps what comes there. Blocks.
    pub fn open_extract(&self, kept: KeptExtract, board: &HealthBoard) {
        let KeptExtract { file, held } = kept;
        if let Some(held) = held {
            self.hold(held, board);
        }
        self.extract_file.set(file).ok();
    }

    /// Returns the serial of what this node goes by; 0 without a policy.
    pub fn serial(&self) -> u64 {
        let held = self.held().map_or(0, |held| held.serial());
        self.view().fold.in_effect().map_or(0, |stands| stands.id.serial).max(held)
    }

    pub(super) fn held(&self) -> Option<Held> {
        self.extract.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn hold(&self, held: Held, board: &HealthBoard) {
        *self.extract.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
        let reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        self.show(reading, board);
    }
}

impl Core {
    /// Goes by what a peer says of the policy, unless something newer is known. Says whether it does. Blocks.
    pub fn take_extract(&self, extract: PolicyExtract, from: &NodeId) -> bool {
        let PolicyExtract { serial, document } = extract;
        let before = self.policy.held();
        let is_known =
            before.as_ref().is_some_and(|held| (held.serial(), &held.kept.document) == (serial, &document));
        if is_known || serial < self.policy.serial() {
            return false;
        }
        let policy = match Policy::parse_extract(&document) {
            Ok(policy) => Arc::new(policy),
            Err(error) => {
                tracing::warn!(peer = %from, error = %error, "what a peer says of the policy is not understood");
                return false;
            }
        };
        let mut judged = before.as_ref().map_or_else(Vec::new, |held| held.kept.judged.clone());
        if before.is_none_or(|held| held.policy.access() != policy.access()) {
            judged.extend(self.judge_here());
        }
        let held = Held { kept: Kept { serial, document, judged: merged(judged) }, policy };
        // First of all it is kept: the next start must judge as this run does.
        if let Some(Err(error)) = self.policy.extract_file.get().map(|file| file.write(&held.kept)) {
            tracing::warn!(error = %ErrorChain(&error), "the extract of the policy cannot be kept, so the one before counts");
            return false;
        }
        if let Err(error) = self.ledger.go_by(held.for_ledger()) {
            tracing::warn!(error = %ErrorChain(&error), "the extract of the policy is not in effect yet");
            return false;
        }
        tracing::info!(peer = %from, serial, "going by an extract of the policy");
        self.policy.hold(held, &self.health);
        true
    }
}

/// Leaves out places behind which feeds were judged by the same rights again.
fn merged(judged: Vec<Judged>) -> Vec<Judged> {
    let mut of_feeds: BTreeMap<FeedId, BTreeMap<u64, Judged>> = BTreeMap::new();
    for one in judged {
        of_feeds.entry(one.feed.clone()).or_default().insert(one.next_seq, one);
    }
    let mut left: Vec<Judged> = Vec::new();
    for one in of_feeds.into_values().flat_map(BTreeMap::into_values) {
        left.pop_if(|last| last.feed == one.feed && last.rights == one.rights);
        left.push(one);
    }
    left
}

#[cfg(test)]
mod tests {
    use avalon_protocol::{access::Role, mode::ProjectMode};

    use super::*;
    use crate::fixture::{Node, Studio, manifest, version};

    fn extract(serial: u64, grants: &str) -> PolicyExtract {
        let document = format!(
            "schema = \"avalon.policy/1\"\n[defaults]\nkeep = \"on-demand\"\nmin_copies = 1\n{grants}"
        );
        PolicyExtract { serial, document }
    }

    fn grant(to: &str) -> String {
        format!("[[grant]]\nto = \"{to}\"\nprojects = \"lantern\"\nactions = \"publish\"\n")
    }

    fn known(node: &Node) -> Vec<u32> {
        assert!(node.core.ledger.wait_ready());
        (1..=4).filter(|number| node.core.ledger.version(&version(*number)).unwrap().is_some()).collect()
    }

    #[test]
    fn who_goes_by_an_extract_judges_by_it_and_keeps_what_counted_before_over_restarts() {
        let studio = Studio::new();
        let home = studio.node_as("ws1@home", Role::Workstation, ProjectMode::OnDemand);
        let vendor = studio.node_as("ws9@van", Role::Vendor, ProjectMode::OnDemand);
        let london = "srv@london".parse().unwrap();
        let says = |number| {
            home.publishes(&manifest(number, b"x"));
            vendor.hears(&home);
        };
        says(1);
        assert!(vendor.core.take_extract(extract(1, &grant("home")), &london));
        says(2);
        assert!(vendor.core.take_extract(extract(2, &grant("london")), &london));
        says(3);
        assert_eq!(known(&vendor), [1, 2]);
        assert!(!vendor.core.take_extract(extract(2, &grant("london")), &london), "it is known");
        assert!(!vendor.core.take_extract(extract(1, &grant("home")), &london), "it is older");
        let vendor = studio.reopen(vendor);
        assert_eq!((known(&vendor), vendor.core.policy.serial()), (vec![1, 2], 2));
        home.publishes(&manifest(4, b"x"));
        vendor.hears(&home);
        vendor.core.ledger.rebuild(Box::new(drop)).unwrap();
        assert_eq!(known(&vendor), [1, 2]);
    }
}
