//! Runs one seed: takes the next event, lets the node that it is about handle it, and checks what came of it.

mod judge;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use avalon_protocol::id::VersionId;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;

use crate::{
    env::Env,
    event::{Deed, Event, Fault, NodeIndex, Wake},
    event_log::{EventLog, Recording},
    invariant::{Checked, Checker, Scope, Violation},
    link::Network,
    node::SimNode,
    scenario::Scenario,
};

/// How long after the last fault and the last deed everything may take to be where it belongs, in virtual milliseconds.
pub const CONVERGENCE_LIMIT_MS: u64 = 120_000;
/// More steps than any honest run needs: beyond it, nodes keep each other busy for nothing.
const STEP_LIMIT: u64 = 300_000;
/// After how many steps all of a node is checked, not only what was touched.
const FULL_CHECK_EVERY: u64 = 256;

/// What a run that kept every promise was like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// How many steps it took.
    pub steps: u64,
    /// How long it took from the last fault until everything was where it belongs, in virtual milliseconds.
    pub converged_after_ms: u64,
    /// The hash over all steps.
    pub trace: blake3::Hash,
    /// How often each kind of thing happened.
    pub counts: BTreeMap<&'static str, u64>,
}

/// A promise that was broken, and where.
#[derive(Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The step.
    pub step: u64,
    /// Virtual time in milliseconds.
    pub at_ms: u64,
    /// Which promise.
    pub violation: Violation,
    /// Everything that happened, if it was recorded.
    pub log: EventLog,
}

/// The simulated studio.
#[derive(Debug)]
pub struct World {
    env: Env,
    nodes: Vec<SimNode>,
    checker: Checker,
    /// Who asked for what; whoever's machine restarts asks again.
    pulls: BTreeMap<NodeIndex, BTreeSet<VersionId>>,
    quiet_ms: u64,
    converged: bool,
}

/// Runs a seed to its end.
///
/// # Errors
/// [`Failure`] at the first broken promise.
pub fn run(seed: u64, recording: Recording) -> Result<Report, Box<Failure>> {
    let mut world = World::new(seed, recording);
    loop {
        let checked = world.step();
        if let Err(violation) = checked {
            let (step, at_ms) = (world.env.log.steps(), world.env.now_ms);
            return Err(Box::new(Failure { seed, step, at_ms, violation, log: world.env.log }));
        }
        if world.converged {
            let log = &world.env.log;
            return Ok(Report {
                seed,
                steps: log.steps(),
                converged_after_ms: world.env.now_ms - world.quiet_ms,
                trace: log.trace(),
                counts: log.counts().clone(),
            });
        }
    }
}

impl World {
    /// Builds the studio of a seed, with all its nodes running.
    pub fn new(seed: u64, recording: Recording) -> Self {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        let scenario = Scenario::draw(&mut dice);
        let names = Arc::new(scenario.nodes.iter().map(|plan| plan.id.clone()).collect::<Vec<_>>());
        let mut env = Env::new(dice, Network::new(scenario.lines), EventLog::new(recording));
        let mut nodes: Vec<SimNode> = scenario
            .nodes
            .iter()
            .enumerate()
            .map(|(index, plan)| SimNode::new(index, plan, names.clone()))
            .collect();
        nodes.iter_mut().for_each(|node| node.start(&mut env));
        let quiet_ms = scenario.agenda.iter().map(|(at_ms, _)| *at_ms).max().unwrap_or(0);
        scenario.agenda.into_iter().for_each(|(at_ms, event)| env.at(at_ms, event));
        env.at(quiet_ms + 1, Event::Judge);
        Self { env, nodes, checker: Checker::default(), pulls: BTreeMap::new(), quiet_ms, converged: false }
    }

    /// Lets the next event happen and checks all promises.
    ///
    /// # Errors
    /// The [`Violation`] that it led to.
    pub fn step(&mut self) -> Checked {
        let Some(event) = self.next() else {
            return Err(Violation::new("goes_on", "nothing is going to happen any more"));
        };
        self.env.log.step(self.env.now_ms, &event);
        if self.env.log.steps() > STEP_LIMIT {
            return Err(Violation::new("comes_to_rest", format!("{STEP_LIMIT} steps and no end")));
        }
        match event {
            Event::Deed { node, deed } => self.deed(node, deed)?,
            Event::Fault(fault) => self.fault(fault)?,
            Event::Wake { node, wake, .. } => {
                self.tempt(node, &wake);
                self.nodes[node].woken(wake, &mut self.env);
                self.check(node)?;
            }
            Event::Established { connection, node } => {
                self.nodes[node].established(connection, &mut self.env);
                self.check(node)?;
            }
            Event::Arrived { connection, node, stream, piece, last } => {
                self.nodes[node].arrived(connection, stream, &piece.0, last, &mut self.env);
                self.check(node)?;
            }
            Event::Ended { connection, node, .. } => self.ended(connection, node)?,
            Event::Idle { connection, stalls } => self.env.idle(connection, stalls),
            Event::Judge => self.judge()?,
            Event::Due { .. } => {}
        }
        Ok(())
    }

    /// Returns the next event that still means something.
    fn next(&mut self) -> Option<Event> {
        loop {
            let event = self.env.pop()?;
            if let Event::Wake { node, boot, .. } = &event {
                let node = &self.nodes[*node];
                if !node.is_up() || node.who.boot != *boot {
                    continue;
                }
            }
            if let Some(event) = self.env.admit(event) {
                return Some(event);
            }
        }
    }

    /// Lets a node crash now and then just when it has something half done.
    fn tempt(&mut self, node: NodeIndex, wake: &Wake) {
        let percent = match wake {
            Wake::PlaceNext(_) => 5,
            Wake::Gathered(_) | Wake::Sealed(_) | Wake::Commit(_) | Wake::IncomingSynced { .. } => 1,
            _ => return,
        };
        if self.env.fault(percent) {
            let (off_ms, on_ms) = (self.env.between(0..=15), self.env.between(20..=4000));
            self.env.after(off_ms, Event::Fault(Fault::Crash { node }));
            self.env.after(on_ms, Event::Fault(Fault::Restart { node }));
        }
    }

    fn check(&mut self, index: NodeIndex) -> Checked {
        let touched = std::mem::take(&mut self.nodes[index].touched);
        let said = std::mem::take(&mut self.env.said);
        let everything = self.env.log.steps().is_multiple_of(FULL_CHECK_EVERY);
        let scope = if everything { Scope::Everything } else { Scope::Touched };
        self.checker.check(&self.nodes[index], touched, &said, &self.nodes, scope)
    }

    fn deed(&mut self, node: NodeIndex, deed: Deed) -> Checked {
        if let Deed::Pull { version } = &deed {
            self.pulls.entry(node).or_default().insert(version.clone());
        }
        self.nodes[node].deed(deed, &mut self.env);
        self.check(node)
    }

    fn ended(&mut self, connection: u64, node: NodeIndex) -> Checked {
        let Some(peer) = self.env.network.connection(connection).map(|c| c.other(node)) else {
            return Ok(());
        };
        if self.env.ended(connection, node) {
            self.nodes[node].ended(connection, peer, &mut self.env);
        }
        self.check(node)
    }

    fn fault(&mut self, fault: Fault) -> Checked {
        match fault {
            Fault::Part { partition, island } => self.env.part(partition, &island),
            Fault::Heal { partition } => self.env.heal(partition),
            Fault::Cut { random } => {
                let living = self.env.network.living();
                let chosen = usize::try_from(random % (living.len().max(1) as u64)).expect("an index");
                living.get(chosen).into_iter().for_each(|id| self.env.cut(*id));
            }
            Fault::Crash { node } => {
                self.nodes[node].crash(&mut self.env);
                self.env.network.down.insert(node);
                self.check(node)?;
            }
            Fault::Restart { node } => self.restart(node)?,
            Fault::End => {
                self.env.faults = false;
                self.env.heal_all();
                for node in 0..self.nodes.len() {
                    self.restart(node)?;
                }
            }
        }
        Ok(())
    }

    fn restart(&mut self, node: NodeIndex) -> Checked {
        if self.nodes[node].is_up() {
            return Ok(());
        }
        self.env.network.down.remove(&node);
        self.nodes[node].start(&mut self.env);
        for version in self.pulls.get(&node).into_iter().flatten() {
            let delay_ms = self.env.between(200..=2000);
            self.env.after(delay_ms, Event::Deed { node, deed: Deed::Pull { version: version.clone() } });
        }
        self.check(node)
    }
}
