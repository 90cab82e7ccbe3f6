//! Asking the voters for a number.

use std::{sync::Arc, time::Duration};

use avalon_protocol::{
    id::{NodeId, VersionId, VersionSlot},
    numbers::{Answer, Outcome, Poll, Step},
    wire::AskNumber,
};
use thiserror::Error;

use super::number_of;
use crate::{
    core::{Core, blocking},
    log::ErrorChain,
};

/// How long a voter may take: whoever publishes waits for it.
const PATIENCE: Duration = Duration::from_secs(5);
/// How many numbers are asked for: others may take them at the same time.
const TRIES: usize = 32;

/// A number that belongs to this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserved {
    /// The version that may be published under it.
    pub version: VersionId,
}

/// Why no number was reserved.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReserveFailed {
    /// The policy names nobody to ask.
    #[error("the studio's policy names no voters, so that no number can be reserved")]
    NoVoters,
    /// Too few voters answered.
    #[error("too few voters answered: {} promised it{}", promised.len(), said(silent))]
    NoQuorum {
        /// Who promised it.
        promised: Vec<NodeId>,
        /// Who did not, and why.
        silent: Vec<(NodeId, String)>,
    },
    /// The number that was asked for belongs to somebody else.
    #[error("{version} belongs to {by}")]
    Taken {
        /// What was asked for.
        version: VersionId,
        /// The node that published it, or to which it was promised.
        by: NodeId,
        /// A number that is worth asking for.
        next: u32,
    },
    /// The catalog cannot be asked, others took every number that was tried, or there is none left.
    #[error("{0}")]
    Other(String),
}

fn said(silent: &[(NodeId, String)]) -> String {
    silent.iter().map(|(node, why)| format!("; {node}: {why}")).collect()
}

impl Core {
    /// Asks the voters for the number of a version, which then belongs to this node. Asking again is allowed.
    ///
    /// # Errors
    /// [`ReserveFailed`].
    pub async fn take_number(self: &Arc<Self>, version: &VersionId) -> Result<Reserved, ReserveFailed> {
        self.poll_voters(version, false).await
    }

    async fn poll_voters(
        self: &Arc<Self>,
        version: &VersionId,
        fresh: bool,
    ) -> Result<Reserved, ReserveFailed> {
        let there = Arc::clone(self);
        let (serial, groups) = blocking(move || there.voters()).await?;
        let mut poll = Poll::new(groups);
        loop {
            match poll.next() {
                Step::Ask(node) => {
                    match self.ask_voter(&node, AskNumber { version: version.clone(), fresh, serial }).await {
                        Ok(answer) => poll.answered(&node, answer),
                        Err(why) => poll.silent(&node, why),
                    }
                }
                Step::Done(Outcome::Won) => return Ok(Reserved { version: version.clone() }),
                Step::Done(Outcome::Taken { next, by }) => {
                    return Err(ReserveFailed::Taken { version: version.clone(), by, next });
                }
                Step::Done(Outcome::NoQuorum { promised, silent }) => {
                    return Err(ReserveFailed::NoQuorum { promised, silent });
                }
            }
        }
    }

    /// Asks for the lowest number above all that are known, of the subset that `version` is of. Asking again brings another one.
    ///
    /// # Errors
    /// [`ReserveFailed`]; never [`ReserveFailed::Taken`].
    pub async fn take_next_number(
        self: &Arc<Self>,
        version: &VersionId,
        at_least: u32,
    ) -> Result<Reserved, ReserveFailed> {
        let (there, of) = (Arc::clone(self), version.clone());
        let known = blocking(move || there.known_number(&of)).await;
        let known = known.map_err(|error| ReserveFailed::Other(ErrorChain(&error).to_string()))?;
        let mut number =
            known.highest.max(self.highest_pending(version)).checked_add(1).map(|n| n.max(at_least));
        for _ in 0..TRIES {
            let Some(tried) = number else {
                return Err(ReserveFailed::Other("the highest number there is was given already".into()));
            };
            let version = VersionId { slot: VersionSlot::Number(tried), ..version.clone() };
            match self.poll_voters(&version, true).await {
                Err(ReserveFailed::Taken { next, .. }) => number = tried.checked_add(1).map(|n| n.max(next)),
                done => return done,
            }
        }
        Err(ReserveFailed::Other(format!("others took {TRIES} numbers in a row; try again")))
    }

    /// Returns the highest number of a subset in whose directory somebody is at work here.
    fn highest_pending(&self, version: &VersionId) -> u32 {
        let Some(project) = self.project(&version.project) else { return 0 };
        let pending = project.pending();
        let here = pending.iter().filter_map(|pending| {
            let dir = pending.dir.parse().ok()?;
            let found = project.templates().invert_dir(&dir)?.fields.version_id(project.name());
            let is_same = (&found.asset, &found.subset) == (&version.asset, &version.subset);
            number_of(&found).filter(|_| is_same)
        });
        here.max().unwrap_or(0)
    }

    async fn ask_voter(self: &Arc<Self>, node: &NodeId, ask: AskNumber) -> Result<Answer, String> {
        if *node == self.me {
            let there = Arc::clone(self);
            return Ok(blocking(move || there.vote(&ask, &there.me)).await);
        }
        let link = self.numbers.net.get().and_then(|net| net.link(node));
        let link = link.ok_or_else(|| "it is not connected".to_owned())?;
        if !link.promises_numbers() {
            return Err("its version of avalond does not promise numbers".to_owned());
        }
        if !link.shares(&ask.version.project) {
            return Err(format!("it does not serve project {}", ask.version.project));
        }
        tokio::select! {
            answer = link.ask_number(ask) => answer.map_err(|error| ErrorChain(&error).to_string()),
            () = self.clock.sleep(PATIENCE) => Err(format!("it did not answer within {} s", PATIENCE.as_secs())),
        }
    }
}
