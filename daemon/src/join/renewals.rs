//! How often a node may have its certificate renewed: each renewal costs a signature, an fsync and a line of the audit. Pure.

use std::{collections::BTreeMap, time::Duration};

use avalon_protocol::id::NodeId;

/// How many renewals a node has at once after a rest: what came of one may be lost on its way.
const BURST: u32 = 4;
/// How long it takes to have another one, at most; less where certificates are short.
const EVERY: Duration = Duration::from_secs(15 * 60);
/// Nodes that are remembered: far more than a studio has certificates.
const MAX_NODES: usize = 1024;

/// What each node had lately, for as long as this daemon runs.
#[derive(Debug)]
pub(super) struct Renewals {
    every: Duration,
    /// When each node would have had a rest.
    rested_at: BTreeMap<NodeId, Duration>,
}

impl Renewals {
    /// For certificates that are valid for so long.
    pub(super) fn new(validity: Duration) -> Self {
        Self { every: EVERY.min(validity / 4), rested_at: BTreeMap::new() }
    }

    /// Counts a renewal.
    ///
    /// # Errors
    /// How long to wait before the next, which nothing is counted for.
    pub(super) fn take(&mut self, node: &NodeId, now: Duration) -> Result<(), Duration> {
        self.rested_at.retain(|_, at| *at > now);
        if self.rested_at.len() >= MAX_NODES && !self.rested_at.contains_key(node) {
            return Err(self.every);
        }
        let rested_at = self.rested_at.get(node).copied().unwrap_or(now).max(now) + self.every;
        let most = now + self.every * BURST;
        if rested_at > most {
            return Err(rested_at - most);
        }
        self.rested_at.insert(node.clone(), rested_at);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_gets_a_few_renewals_and_then_one_now_and_then() {
        let mut renewals = Renewals::new(Duration::from_secs(90 * 24 * 3600));
        let (node, now) = ("ws1@home".parse().unwrap(), Duration::from_secs(100));
        for _ in 0..BURST {
            assert_eq!(renewals.take(&node, now), Ok(()));
        }
        for _ in 0..1000 {
            assert_eq!(renewals.take(&node, now), Err(EVERY), "what is refused does not count");
        }
        assert_eq!(renewals.take(&"ws2@home".parse().unwrap(), now), Ok(()), "others do not wait for it");
        assert_eq!(renewals.take(&node, now + EVERY), Ok(()));
        assert_eq!(renewals.take(&node, now + EVERY), Err(EVERY));
        for number in 0..2 * MAX_NODES {
            renewals.take(&format!("n{number}@x").parse().unwrap(), now).ok();
        }
        assert_eq!(renewals.rested_at.len(), MAX_NODES);
        renewals.take(&node, now + EVERY * 10).unwrap();
        assert_eq!(renewals.rested_at.len(), 1);
        // Certificates of seconds are renewed every few seconds.
        let mut short = Renewals::new(Duration::from_secs(6));
        assert!((0..100).all(|number| short.take(&node, Duration::from_secs(4 * number)).is_ok()));
    }
}
