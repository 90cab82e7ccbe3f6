//! What happens often is summed up: one entry a minute for each kind, with how many times and how many bytes.

use std::{collections::BTreeMap, time::Duration};

use avalon_protocol::audit::{AuditAction, AuditActor, AuditFact, AuditOutcome};

/// From the first of a kind to the entry.
const WINDOW: Duration = Duration::from_secs(60);
/// Kinds that are kept apart at a time; those beyond are summed up by actor and action alone.
const MAX_KINDS: usize = 512;
/// And actors of whom anything is kept then. Peers and users are known by certificate and kernel; there are not so many.
const MAX_ACTORS: usize = 1024;

/// A kind of what happens often.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Sum {
    /// Who does it.
    pub actor: AuditActor,
    /// What they do.
    pub action: AuditAction,
    /// What comes of it.
    pub outcome: AuditOutcome,
    /// The project, if it is about one.
    pub project: Option<String>,
    /// What it is about.
    pub about: Option<String>,
}

#[derive(Debug, Default)]
struct Tally {
    since: Duration,
    from: String,
    times: u64,
    bytes: u64,
}

/// The sums that are not written yet.
#[derive(Debug, Default)]
pub(super) struct Sums {
    tallies: BTreeMap<Sum, Tally>,
}

impl Sums {
    /// Adds to a sum; returns what is to be written at once. The first that is not allowed is, so that it is seen early.
    pub(super) fn add(&mut self, mut sum: Sum, bytes: u64, now: Duration, at: &str) -> Option<AuditFact> {
        if !self.tallies.contains_key(&sum) && self.tallies.len() >= MAX_KINDS {
            (sum.project, sum.about) = (None, None);
        }
        let is_new = !self.tallies.contains_key(&sum);
        if is_new && self.tallies.len() >= MAX_KINDS + MAX_ACTORS {
            sum.actor = AuditActor::Peer { node: "others".into() };
        }
        let first = (is_new && sum.outcome == AuditOutcome::Denied).then(|| fact(sum.clone()));
        let tally = self.tallies.entry(sum).or_insert_with(|| Tally {
            since: now,
            from: at.to_owned(),
            ..Tally::default()
        });
        // What is written at once is not counted again.
        tally.times += u64::from(first.is_none());
        tally.bytes += bytes;
        first
    }

    /// Takes the sums whose minute is over at `now`, or all.
    pub(super) fn due(&mut self, now: Option<Duration>) -> Vec<AuditFact> {
        let is_due = |tally: &Tally| now.is_none_or(|now| now.saturating_sub(tally.since) >= WINDOW);
        let due = self.tallies.extract_if(.., |_, tally| is_due(tally));
        due.filter(|(_, tally)| tally.times > 0).map(|(sum, tally)| summed(sum, &tally)).collect()
    }
}

fn fact(sum: Sum) -> AuditFact {
    let fact = AuditFact::new(sum.actor, sum.action, sum.outcome);
    AuditFact { project: sum.project, about: sum.about.into_iter().collect(), ..fact }
}

fn summed(sum: Sum, tally: &Tally) -> AuditFact {
    let fact = fact(sum).detail("times", tally.times.to_string()).detail("from", &tally.from);
    if tally.bytes > 0 { fact.detail("bytes", tally.bytes.to_string()) } else { fact }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(node: &str, about: &str, outcome: AuditOutcome) -> Sum {
        let actor = AuditActor::Peer { node: node.into() };
        let project = Some("lantern".into());
        Sum { actor, action: AuditAction::Serve, outcome, project, about: Some(about.into()) }
    }

    #[test]
    fn what_is_served_is_one_entry_a_minute_for_each_peer_and_version() {
        let mut sums = Sums::default();
        for second in 0..50 {
            let now = Duration::from_secs(second);
            assert_eq!(sums.add(sum("a@b", "v001", AuditOutcome::Done), 10, now, "t"), None);
        }
        sums.add(sum("a@b", "v002", AuditOutcome::Done), 7, Duration::from_secs(30), "t");
        assert_eq!(sums.due(Some(Duration::from_secs(59))), []);
        let due = sums.due(Some(Duration::from_secs(60)));
        let [fact] = due.as_slice() else { panic!("{due:?}") };
        assert_eq!((fact.detail["times"].as_str(), fact.detail["bytes"].as_str()), ("50", "500"));
        assert_eq!(sums.due(None).len(), 1, "the rest when the daemon stops");
        assert_eq!(sums.due(None), []);
    }

    #[test]
    fn the_first_that_is_denied_is_told_at_once_and_the_others_are_counted() {
        let mut sums = Sums::default();
        let denied = || sum("a@b", "x", AuditOutcome::Denied);
        assert!(sums.add(denied(), 0, Duration::ZERO, "t").is_some());
        assert_eq!(sums.add(denied(), 0, Duration::ZERO, "t"), None);
        assert_eq!(sums.due(None)[0].detail["times"], "1");
        sums.add(denied(), 0, Duration::ZERO, "t");
        assert_eq!(sums.due(None), [], "nothing more than what was told");
    }

    #[test]
    fn whoever_asks_for_ever_new_names_fills_neither_memory_nor_the_audit() {
        let mut sums = Sums::default();
        let mut told = 0;
        for number in 0..100_000 {
            let sum = sum("a@b", &number.to_string(), AuditOutcome::Denied);
            told += usize::from(sums.add(sum, 0, Duration::ZERO, "t").is_some());
        }
        assert_eq!((told, sums.tallies.len()), (MAX_KINDS + 1, MAX_KINDS + 1));
        assert_eq!(sums.due(None).len(), 1);
    }
}
