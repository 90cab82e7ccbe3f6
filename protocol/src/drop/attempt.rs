//! [`Attempt`]: one try to drop a version, from the first question to the permission or the reasons against it.

use std::{collections::BTreeSet, fmt};

use super::{Nonce, NotCounted, Proof};
use crate::id::{NodeId, SiteName};

/// One try of one node to drop one version. It begins when the node has entered the state
/// [dropping](super::Dropping::enter).
///
/// Whoever runs it does what [`Attempt::step`] says and tells it what comes of that; it decides, and does nothing.
#[derive(Debug, Clone)]
pub struct Attempt {
    /// At how many sites other than by this node's own copy it has to be.
    min_copies: u32,
    holders: Vec<Holder>,
    /// This node's own files are not what they should be.
    own_doubt: Option<String>,
}

#[derive(Debug, Clone)]
struct Holder {
    node: NodeId,
    nonce: Nonce,
    /// What this node computed from its own files.
    own: Option<Proof>,
    state: State,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    NotAsked,
    Asked,
    Answered {
        proof: Proof,
        min_copies: u32,
    },
    /// It proved.
    Counts {
        min_copies: u32,
    },
    Not(Doubt),
}

/// A holder that is to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ask {
    /// Whom to ask.
    pub node: NodeId,
    /// With this; the own proof is computed for [`Ask::node`] and this too.
    pub nonce: Nonce,
}

/// Why a node that records say holds the version does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Doubt {
    /// It said so.
    #[error("{0}")]
    Said(NotCounted),
    /// What it proved is not what is here.
    #[error("has other bytes than this node")]
    OtherBytes,
    /// No answer: not connected, cut off, or too slow.
    #[error("did not answer: {0}")]
    NoAnswer(String),
}

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Ask these, and compute the own proofs for them; never empty.
    Ask(Vec<Ask>),
    /// Something that was asked for has not come yet.
    Wait,
    /// The version may be dropped: record it.
    Drop(Counted),
    /// It may not.
    GiveUp(GiveUp),
}

/// Enough sites have proved that they hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Counted {
    /// The nodes that proved, in order.
    pub nodes: Vec<NodeId>,
    /// How many sites had to.
    pub min_copies: u32,
}

impl Counted {
    /// Returns the sites.
    pub fn sites(&self) -> BTreeSet<&SiteName> {
        self.nodes.iter().map(|node| &node.site).collect()
    }
}

/// Why an attempt was given up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GiveUp {
    /// How many sites would have had to prove it.
    pub min_copies: u32,
    /// The nodes that did.
    pub counted: Vec<NodeId>,
    /// Those that did not, and why.
    pub not_counted: Vec<(NodeId, Doubt)>,
    /// Those that record it and were not asked: it would not have sufficed.
    pub not_asked: Vec<NodeId>,
    /// What is wrong with this node's own files, if that was it.
    pub own: Option<String>,
}

impl GiveUp {
    /// Says whether it can come out otherwise at once: another node drops too, or was busy.
    pub fn is_race(&self) -> bool {
        let soon = |doubt: &Doubt| matches!(doubt, Doubt::Said(NotCounted::Dropping | NotCounted::Busy));
        self.own.is_none() && self.not_counted.iter().any(|(_, doubt)| soon(doubt))
    }
}

impl fmt::Display for GiveUp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(own) = &self.own {
            return write!(f, "the files here are not what they should be: {own}");
        }
        let sites: BTreeSet<&SiteName> = self.counted.iter().map(|node| &node.site).collect();
        let needed = self.min_copies;
        write!(
            f,
            "{} of {needed} other site{} proved a copy",
            sites.len(),
            if needed == 1 { "" } else { "s" }
        )?;
        let mut glue = ": ";
        for (node, doubt) in &self.not_counted {
            write!(f, "{glue}{node} {doubt}")?;
            glue = "; ";
        }
        for node in &self.not_asked {
            write!(f, "{glue}{node} has it by its records and was not asked")?;
            glue = "; ";
        }
        Ok(())
    }
}

impl Attempt {
    /// Begins an attempt at a node where the policy asks for `min_copies`; at least one other copy is always asked for.
    ///
    /// `holders` are the other nodes that record the version, in the order in which they are to be asked, each with a nonce
    /// of its own. Nobody is asked more than is needed, as long as all answer well.
    pub fn begin(min_copies: u32, holders: impl IntoIterator<Item = (NodeId, Nonce)>) -> Self {
        let mut known = BTreeSet::new();
        let holders = holders
            .into_iter()
            .filter(|(node, _)| known.insert(node.clone()))
            .map(|(node, nonce)| Holder { node, nonce, own: None, state: State::NotAsked });
        Self { min_copies: min_copies.max(1), holders: holders.collect(), own_doubt: None }
    }

    /// Says what is to be done. Those that it says are to be asked count as asked from then on.
    pub fn step(&mut self) -> Step {
        if self.own_doubt.is_some() {
            return Step::GiveUp(self.give_up());
        }
        let counted = self.counted();
        let sites: BTreeSet<&SiteName> = counted.iter().map(|node| &node.site).collect();
        let needed = usize::try_from(self.needed()).unwrap_or(usize::MAX);
        if sites.len() >= needed {
            return Step::Drop(Counted { nodes: counted, min_copies: self.needed() });
        }
        let hopeful = self.holders.iter().filter(|holder| !matches!(holder.state, State::Not(_)));
        let hopeful: BTreeSet<&SiteName> = hopeful.map(|holder| &holder.node.site).collect();
        if hopeful.len() < needed {
            // Whatever the others answer is not enough: nobody reads for nothing.
            return Step::GiveUp(self.give_up());
        }
        let ask = self.next_to_ask(needed);
        if !ask.is_empty() {
            return Step::Ask(ask);
        }
        let is_open = |holder: &Holder| matches!(holder.state, State::Asked | State::Answered { .. });
        if self.holders.iter().any(is_open) { Step::Wait } else { Step::GiveUp(self.give_up()) }
    }

    /// Takes the proof of a node, and how many copies are asked for as far as that node knows.
    pub fn answered(&mut self, node: &NodeId, proof: Proof, min_copies: u32) {
        if let Some(holder) = self.asked(node) {
            holder.state = State::Answered { proof, min_copies };
            holder.compare();
        }
    }

    /// Hears that a node does not count.
    pub fn doubted(&mut self, node: &NodeId, doubt: Doubt) {
        if let Some(holder) = self.asked(node) {
            holder.state = State::Not(doubt);
        }
    }

    /// Takes what this node computed from its own files for the nonce of `node`.
    pub fn own(&mut self, node: &NodeId, proof: Proof) {
        if let Some(holder) = self.holders.iter_mut().find(|holder| holder.node == *node) {
            holder.own = Some(proof);
            holder.compare();
        }
    }

    /// Hears that this node's own files are not what the manifest says, or cannot be read.
    pub fn own_doubted(&mut self, reason: String) {
        self.own_doubt = Some(reason);
    }

    fn asked(&mut self, node: &NodeId) -> Option<&mut Holder> {
        self.holders.iter_mut().find(|holder| holder.node == *node && holder.state == State::Asked)
    }

    /// At how many sites it has to be, as far as anybody who counts knows.
    fn needed(&self) -> u32 {
        let said = self.holders.iter().filter_map(|holder| match holder.state {
            State::Counts { min_copies } => Some(min_copies),
            _ => None,
        });
        said.fold(self.min_copies, u32::max)
    }

    fn counted(&self) -> Vec<NodeId> {
        let counts = self.holders.iter().filter(|holder| matches!(holder.state, State::Counts { .. }));
        let mut nodes: Vec<NodeId> = counts.map(|holder| holder.node.clone()).collect();
        nodes.sort();
        nodes
    }

    /// Takes as many of those not asked yet as may be needed, each for a site that nobody has proved or was asked for.
    fn next_to_ask(&mut self, needed: usize) -> Vec<Ask> {
        let may_count =
            |state: &State| matches!(state, State::Asked | State::Answered { .. } | State::Counts { .. });
        let open = self.holders.iter().filter(|holder| may_count(&holder.state));
        let mut sites: BTreeSet<SiteName> = open.map(|holder| holder.node.site.clone()).collect();
        let mut ask = Vec::new();
        for holder in self.holders.iter_mut().filter(|holder| holder.state == State::NotAsked) {
            if sites.len() >= needed {
                break;
            }
            if sites.insert(holder.node.site.clone()) {
                holder.state = State::Asked;
                ask.push(Ask { node: holder.node.clone(), nonce: holder.nonce });
            }
        }
        ask
    }

    fn give_up(&self) -> GiveUp {
        let not_counted = self.holders.iter().filter_map(|holder| match &holder.state {
            State::Not(doubt) => Some((holder.node.clone(), doubt.clone())),
            _ => None,
        });
        let others = self
            .holders
            .iter()
            .filter(|holder| !matches!(holder.state, State::Not(_) | State::Counts { .. }));
        GiveUp {
            min_copies: self.needed(),
            counted: self.counted(),
            not_counted: not_counted.collect(),
            not_asked: others.map(|holder| holder.node.clone()).collect(),
            own: self.own_doubt.clone(),
        }
    }
}

impl Holder {
    /// Holds the proof of the node against the own one, when both are here.
    fn compare(&mut self) {
        if let (State::Answered { proof, min_copies }, Some(own)) = (&self.state, self.own) {
            let min_copies = *min_copies;
            self.state =
                if *proof == own { State::Counts { min_copies } } else { State::Not(Doubt::OtherBytes) };
        }
    }
}
