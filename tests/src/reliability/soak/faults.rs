//! What goes wrong now and then, one thing at a time: it begins, and some seconds later it is over.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use rustix::process::Signal;

use super::{questions::Questions, relay::Relay, sample::Sampler};
use crate::daemons::daemon::Daemon;

/// How long a daemon stands still at most.
const STILL: Duration = Duration::from_secs(8);
/// How long a line is cut at most: longer than a connection lives without a word.
const CUT: Duration = Duration::from_secs(40);

/// What runs.
#[derive(Debug)]
enum Fault {
    /// A daemon stands still.
    Still(usize),
    /// A line is cut, by its number.
    Cut(usize),
}

/// All faults of a soak.
#[derive(Debug)]
pub(super) struct Faults {
    every: Duration,
    next: Instant,
    running: Option<(Fault, Instant)>,
    /// How many there were, by kind.
    pub(super) met: BTreeMap<String, u64>,
}

impl Faults {
    pub(super) fn new(every: Duration) -> Self {
        Self { every, next: Instant::now() + every, running: None, met: BTreeMap::new() }
    }

    /// Returns the nodes that can be asked for something.
    pub(super) fn up(&self, nodes: usize) -> Vec<usize> {
        let still = |node: &usize| matches!(self.running, Some((Fault::Still(other), _)) if other == *node);
        (0..nodes).filter(|node| !still(node)).collect()
    }

    /// Ends what is over, and begins what is due.
    pub(super) fn step(
        &mut self,
        random: &mut ChaCha8Rng,
        nodes: &mut [Daemon],
        lines: &[Relay],
        watchers: (&Sampler, &Questions),
    ) {
        if self.running.as_ref().is_some_and(|(_, until)| Instant::now() >= *until) {
            self.end(nodes, lines, watchers.1);
        }
        if self.running.is_some() || Instant::now() < self.next {
            return;
        }
        self.next = Instant::now() + self.every.mul_f64(random.random_range(0.5..1.5));
        // The first is never killed: its series is as long as the soak.
        let node = random.random_range(1..nodes.len());
        let kind = match random.random_range(0..10) {
            0..3 => {
                kill(node, nodes, watchers);
                "kill"
            }
            3..6 => {
                let node = random.random_range(0..nodes.len());
                watchers.1.turn(node);
                nodes[node].process().signal(Signal::STOP);
                let time = STILL.min(self.every).mul_f64(random.random_range(0.2..1.0));
                self.running = Some((Fault::Still(node), Instant::now() + time));
                "stop for seconds"
            }
            6..8 => {
                let line = random.random_range(0..lines.len());
                lines[line].cut(true);
                let time = CUT.min(self.every).mul_f64(random.random_range(0.2..1.0));
                self.running = Some((Fault::Cut(line), Instant::now() + time));
                "line cut"
            }
            _ => {
                let line = random.random_range(0..lines.len());
                lines[line].rebind().expect("there is a port");
                "other port"
            }
        };
        *self.met.entry(kind.to_owned()).or_default() += 1;
    }

    /// Ends what runs.
    pub(super) fn end(&mut self, nodes: &mut [Daemon], lines: &[Relay], questions: &Questions) {
        match self.running.take() {
            Some((Fault::Still(node), _)) => {
                nodes[node].process().signal(Signal::CONT);
                questions.turn(node);
            }
            Some((Fault::Cut(line), _)) => lines[line].cut(false),
            None => {}
        }
    }
}

fn kill(node: usize, nodes: &mut [Daemon], (sampler, questions): (&Sampler, &Questions)) {
    questions.turn(node);
    sampler.is_down(node);
    nodes[node].kill9();
    nodes[node].start();
    let process = nodes[node].process();
    sampler.is_up(node, process.pid(), process.log.clone());
    questions.turn(node);
}
