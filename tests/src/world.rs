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
    mutation::Mutation,
    node::SimNode,
    scenario::Scenario,
    shrink::Kept,
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

/// What is told: the story of a seed, or what is left of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// The seed.
    pub seed: u64,
    /// The pieces of its story that are told; all without it.
    pub keep: Option<Kept>,
    /// In which way all nodes go wrong, if they do.
    pub wrong: Option<Mutation>,
}

impl Run {
    /// The whole story of a seed.
    pub fn new(seed: u64) -> Self {
        Self { seed, keep: None, wrong: None }
    }

    /// Returns the whole story of the seed.
    pub fn scenario(&self) -> Scenario {
        Scenario::draw(&mut self.dice(0))
    }

    /// Returns what is told of it.
    pub fn told(&self) -> Scenario {
        let whole = self.scenario();
        match &self.keep {
            Some(kept) => whole.keep(kept),
            None => whole,
        }
    }

    /// The story and what happens by chance have dice of their own, so that less of the story changes chance as little as can be.
    fn dice(&self, stream: u64) -> ChaCha8Rng {
        let mut dice = ChaCha8Rng::seed_from_u64(self.seed);
        dice.set_stream(stream);
        dice
    }
}

/// Runs a seed to its end.
///
/// # Errors
/// [`Failure`] at the first broken promise.
pub fn run(seed: u64, recording: Recording) -> Result<Report, Box<Failure>> {
    tell(&Run::new(seed), recording)
}

/// Runs a story to its end.
///
/// # Errors
/// [`Failure`] at the first broken promise.
pub fn tell(run: &Run, recording: Recording) -> Result<Report, Box<Failure>> {
    let (seed, mut world) = (run.seed, World::new(run, recording));
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
    /// Builds the studio of a story, with all its nodes running.
    pub fn new(run: &Run, recording: Recording) -> Self {
        let scenario = run.told();
        let names = Arc::new(scenario.names());
        let mut env = Env::new(run.dice(1), Network::new(scenario.lines), EventLog::new(recording));
        (env.faults, env.wrong) = (scenario.by_chance, run.wrong);
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
            Fault::Kill { node } => {
                self.nodes[node].kill(&mut self.env);
                self.env.network.down.insert(node);
                self.check(node)?;
            }
            Fault::Restart { node } => self.restart(node)?,
            Fault::Full { node } => self.nodes[node].disk.full = true,
            Fault::Room { node } => {
                self.nodes[node].has_room(&mut self.env);
                self.check(node)?;
            }
            Fault::BadSync { node } => self.nodes[node].disk.bad_sync = true,
            Fault::Clock { node, ahead_ms } => self.nodes[node].set_clock(ahead_ms, &mut self.env),
            Fault::Backup { node } => self.nodes[node].back_up(),
            Fault::Restore { node } => {
                if self.is_known_elsewhere(node) {
                    self.nodes[node].kill(&mut self.env);
                    self.env.network.down.insert(node);
                    self.nodes[node].restore(&mut self.env);
                    self.check(node)?;
                }
            }
            Fault::End => {
                self.env.faults = false;
                self.env.heal_all();
                for node in 0..self.nodes.len() {
                    self.nodes[node].disk.bad_sync = false;
                    self.nodes[node].has_room(&mut self.env);
                    self.check(node)?;
                    self.restart(node)?;
                }
            }
        }
        Ok(())
    }

    /// Says whether every other node that serves a project has all that a node recorded about it, and some other node each
    /// manifest: a restore makes no second history then, whomever it meets first, and what it takes away comes back. Others are in
    /// `sim_feeds_restored`; a manifest that was nowhere else is gone, at real nodes too.
    fn is_known_elsewhere(&self, node: NodeIndex) -> bool {
        let node = &self.nodes[node];
        node.projects.keys().all(|project| {
            let feed = node.own_feed(project);
            let head = node.disk.ledger.head(&feed);
            let mut others =
                self.nodes.iter().filter(|other| other.id != node.id && other.projects.contains_key(project));
            others.all(|other| other.disk.ledger.head(&feed) == head)
        }) && node.disk.manifests.values().all(|manifest| {
            let is_here = |other: &SimNode| other.disk.manifests.contains_key(&manifest.id());
            node.is_backed_up(&manifest.id())
                || self.nodes.iter().any(|other| other.id != node.id && is_here(other))
        })
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
