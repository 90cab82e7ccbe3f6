//! Which nodes broke the rules, and how long each is kept off for it. Pure.
//!
//! A dialler waits by itself after a fault; here it is for those that dial us, which nobody makes wait. The wait doubles with
//! each fault, so that a bad block of an honest node costs a second and a liar gets nowhere.

use std::{collections::BTreeMap, time::Duration};

use avalon_protocol::{close_code::CloseCode, id::NodeId};

use super::closed::Closed;

/// The first wait, and the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(600);

/// After so long without another fault, they are forgotten.
pub const FAULTS_REMEMBERED: Duration = Duration::from_secs(3600);

/// Nodes that are remembered at most: far more than a studio has certificates.
const MAX_NODES: usize = 1024;

#[derive(Debug, Clone)]
struct Record {
    faults: u32,
    last: Duration,
    reason: String,
}

/// A node that is kept off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeptOff {
    pub(crate) node: NodeId,
    /// How often it broke the rules.
    pub(crate) faults: u32,
    /// How much longer.
    pub(crate) left: Duration,
    /// What the last fault was.
    pub(crate) reason: String,
}

/// What each node is remembered for; times are those of a clock that only goes forward.
#[derive(Debug, Default)]
pub(crate) struct Faults(BTreeMap<NodeId, Record>);

/// Says whether the way in which a connection ended is the peer's fault: it sent what is not allowed, or what does not verify.
pub(crate) fn is_fault(closed: &Closed) -> bool {
    let code = match closed {
        Closed::ByUs { code, .. } => code,
        Closed::ByPeer { .. } | Closed::Untrusted { .. } | Closed::Lost { .. } => return false,
    };
    matches!(code, CloseCode::Protocol | CloseCode::Feed | CloseCode::Content)
}

impl Faults {
    /// Notes a fault and returns for how long the node is kept off.
    pub(crate) fn note(&mut self, node: &NodeId, reason: &str, now: Duration) -> KeptOff {
        self.0.retain(|_, record| now.saturating_sub(record.last) < FAULTS_REMEMBERED);
        if self.0.len() >= MAX_NODES && !self.0.contains_key(node) {
            let oldest = self.0.iter().min_by_key(|(_, record)| record.last);
            if let Some(oldest) = oldest.map(|(node, _)| node.clone()) {
                self.0.remove(&oldest);
            }
        }
        let fresh = || Record { faults: 0, last: now, reason: String::new() };
        let record = self.0.entry(node.clone()).or_insert_with(fresh);
        record.faults = record.faults.saturating_add(1);
        record.last = now;
        reason.clone_into(&mut record.reason);
        KeptOff { node: node.clone(), faults: record.faults, left: record.wait(), reason: reason.to_owned() }
    }

    /// Returns how a node is kept off, if it is.
    pub(crate) fn kept_off(&self, node: &NodeId, now: Duration) -> Option<KeptOff> {
        let record = self.0.get(node)?;
        let left = (record.last + record.wait()).saturating_sub(now);
        let (faults, reason) = (record.faults, record.reason.clone());
        (!left.is_zero()).then(|| KeptOff { node: node.clone(), faults, left, reason })
    }

    /// Returns all that are kept off.
    pub(crate) fn all(&self, now: Duration) -> Vec<KeptOff> {
        self.0.keys().filter_map(|node| self.kept_off(node, now)).collect()
    }
}

impl Record {
    fn wait(&self) -> Duration {
        let doublings = 2u32.saturating_pow(self.faults.saturating_sub(1));
        FIRST_WAIT.saturating_mul(doublings).min(LONGEST_WAIT)
    }
}

impl std::fmt::Display for KeptOff {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let seconds = self.left.as_millis().div_ceil(1000);
        let faults =
            if self.faults == 1 { "a fault".into() } else { format!("{} faults, the last", self.faults) };
        write!(f, "kept off for {seconds} s after {faults}: {}", self.reason)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    #[test]
    fn each_fault_doubles_the_wait_up_to_ten_minutes() {
        let (mut faults, liar, mut now) = (Faults::default(), node("liar@london"), Duration::ZERO);
        let mut waits = Vec::new();
        for _ in 0..12 {
            let noted = faults.note(&liar, "forged", now);
            assert_eq!(faults.kept_off(&liar, now), Some(noted.clone()));
            assert_eq!(faults.kept_off(&liar, now + noted.left), None);
            waits.push(noted.left.as_secs());
            now += noted.left;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
        assert_eq!(faults.kept_off(&node("ws1@london"), now), None, "nobody else is");
        assert_eq!(
            faults.note(&liar, "forged", now).to_string(),
            "kept off for 600 s after 13 faults, the last: forged"
        );
    }

    #[test]
    fn faults_are_forgotten_and_no_more_nodes_than_a_studio_has_are_remembered() {
        let mut faults = Faults::default();
        faults.note(&node("a@x"), "x", Duration::ZERO);
        assert_eq!(faults.note(&node("a@x"), "x", Duration::from_secs(3599)).faults, 2);
        assert_eq!(faults.note(&node("a@x"), "x", Duration::from_secs(3599 + 3600)).faults, 1);
        for number in 0..2 * MAX_NODES {
            faults.note(&node(&format!("n{number}@x")), "x", Duration::from_secs(8000 + number as u64));
        }
        assert_eq!(faults.0.len(), MAX_NODES);
    }

    #[test]
    fn only_what_the_peer_did_is_its_fault() {
        for code in [CloseCode::Protocol, CloseCode::Feed, CloseCode::Content] {
            assert!(is_fault(&Closed::by_us(code, "x")));
            assert!(!is_fault(&Closed::ByPeer { code: Some(code), reason: "x".into() }));
        }
        for code in [CloseCode::Busy, CloseCode::Shutdown, CloseCode::Version, CloseCode::DuplicateNode] {
            assert!(!is_fault(&Closed::by_us(code, "x")), "{code:?}");
        }
        assert!(!is_fault(&Closed::lost("x")));
    }
}
