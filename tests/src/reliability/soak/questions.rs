//! Somebody who asks every daemon all the time, and expects an answer of each that is up.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use avalon_protocol::control::route;
use serde::de::IgnoredAny;

use crate::daemons::{
    PROJECT,
    api::{Api, ApiFailure},
    config::NodeConfig,
};

/// How long there is nothing to ask.
const PAUSE: Duration = Duration::from_millis(100);

/// What was asked.
#[derive(Debug, Default, Clone)]
pub(super) struct Answers {
    /// How long each answer took, in milliseconds.
    pub(super) took_ms: Vec<f64>,
    /// Those that did not come though the daemon was up.
    pub(super) unanswered: Vec<String>,
}

/// Asks in a thread of its own.
#[derive(Debug)]
pub(super) struct Questions {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    /// Of each node: odd while it is down or stands still, and another number after each such time.
    epochs: Vec<AtomicU64>,
    /// What is asked for by name.
    reference: Mutex<String>,
    answers: Mutex<Answers>,
    has_ended: AtomicBool,
}

impl Questions {
    /// Begins to ask nodes, all of which are up.
    pub(super) fn start(configs: Vec<NodeConfig>) -> Self {
        let shared = Arc::new(Shared {
            epochs: configs.iter().map(|_| AtomicU64::new(0)).collect(),
            reference: Mutex::default(),
            answers: Mutex::default(),
            has_ended: AtomicBool::new(false),
        });
        let there = Arc::clone(&shared);
        let thread = thread::spawn(move || there.ask_all(&configs));
        Self { shared, thread: Some(thread) }
    }

    /// Expects no answer of a node from now on, or answers again.
    pub(super) fn turn(&self, node: usize) {
        self.shared.epochs[node].fetch_add(1, Ordering::SeqCst);
    }

    /// Asks for this version from now on.
    pub(super) fn ask_for(&self, reference: &str) {
        reference.clone_into(&mut self.shared.reference.lock().unwrap());
    }

    /// Ends, and returns what came.
    pub(super) fn stop(mut self) -> Answers {
        self.end();
        std::mem::take(&mut self.shared.answers.lock().unwrap())
    }

    fn end(&mut self) {
        self.shared.has_ended.store(true, Ordering::SeqCst);
        let ended = self.thread.take().map(JoinHandle::join);
        if ended.is_some_and(|ended| ended.is_err()) {
            let mut answers = self.shared.answers.lock().unwrap_or_else(PoisonError::into_inner);
            answers.unanswered.push("an answer was none that can be read".to_owned());
        }
    }
}

impl Drop for Questions {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn ask_all(&self, configs: &[NodeConfig]) {
        let mut number = 0;
        while !self.has_ended.load(Ordering::SeqCst) {
            thread::sleep(PAUSE);
            number += 1;
            let node = number % configs.len();
            let reference = self.reference.lock().unwrap().clone();
            let asset = reference.split('/').next().unwrap_or_default();
            let target = match number / configs.len() % 6 {
                0 => route::STATUS.to_owned(),
                1 => format!("{}?ref={asset}", route::VERSIONS),
                2 => format!("{}?ref={reference}", route::WHERE),
                3 => format!("{}?ref={reference}", route::INFO),
                4 => format!("{}?project={PROJECT}&limit=500", route::VERSIONS),
                _ => route::JOBS.to_owned(),
            };
            self.ask(node, &configs[node], &target);
        }
    }

    fn ask(&self, node: usize, config: &NodeConfig, target: &str) {
        let epoch = || self.epochs[node].load(Ordering::SeqCst);
        let before = epoch();
        if before % 2 == 1 {
            return;
        }
        let begun = Instant::now();
        let answer = Api::new(&config.socket).get::<IgnoredAny>(target);
        // What was asked of a daemon that went down meanwhile counts neither way.
        if epoch() != before {
            return;
        }
        let mut answers = self.answers.lock().unwrap();
        match answer {
            // A refusal is an answer, too.
            Ok(_) | Err(ApiFailure::Refused(_)) => answers.took_ms.push(begun.elapsed().as_secs_f64() * 1e3),
            Err(ApiFailure::Unreachable(error)) => {
                answers.unanswered.push(format!("{} {target}: {error}", config.node));
            }
        }
    }
}
