//! Running one target: for some time, or once over what is kept.

use std::{
    collections::HashMap,
    panic::{self, AssertUnwindSafe},
    time::{Duration, Instant},
};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::{Meter, Outcome, SLOW_MS, Target, allowed_bytes, corpus::to_hex, mutate::mutate};

/// How many steps making one input shorter may take.
const MINIMISE_STEPS: usize = 400;

/// An input that broke a promise.
#[derive(Debug, Clone)]
pub struct Violation {
    /// The target.
    pub target: &'static str,
    /// What happened.
    pub what: String,
    /// The input.
    pub input: Vec<u8>,
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let hex = to_hex(&self.input[..self.input.len().min(4096)]);
        write!(f, "{}: {}; input of {} bytes: {hex}", self.target, self.what, self.input.len())
    }
}

/// What a run came to.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Figures {
    /// The target.
    pub target: &'static str,
    /// The seed.
    pub seed: u64,
    /// How long it ran, in seconds.
    pub seconds: u64,
    /// How many inputs were decoded.
    pub inputs: u64,
    /// How many of them were refused with a typed error.
    pub refused: u64,
    /// How many were accepted, and held to what must be true of them.
    pub accepted: u64,
    /// Different outcomes.
    pub outcomes: usize,
    /// Inputs in the corpus at the end.
    pub corpus: usize,
    /// The most memory that one input took, in bytes, and how long that input was.
    pub most_bytes: usize,
    /// Of the input that took most.
    pub most_bytes_input: usize,
    /// The longest that one input took, in milliseconds.
    pub slowest_ms: u128,
    /// Broken promises: a panic, a value that does not survive its own encoding, too much memory or time.
    pub violations: u64,
}

/// One target that runs.
pub struct Campaign<'a> {
    target: &'a Target,
    meter: &'a dyn Meter,
    rng: ChaCha8Rng,
    corpus: Vec<Vec<u8>>,
    seen: HashMap<String, usize>,
    figures: Figures,
}

impl std::fmt::Debug for Campaign<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Campaign").field("figures", &self.figures).finish_non_exhaustive()
    }
}

impl<'a> Campaign<'a> {
    /// Begins with the target's own examples and what was kept.
    ///
    /// # Errors
    /// When one of them breaks a promise.
    pub fn new(
        target: &'a Target,
        seed: u64,
        kept: Vec<Vec<u8>>,
        meter: &'a dyn Meter,
    ) -> Result<Self, Violation> {
        let figures = Figures { target: target.name, seed, ..Figures::default() };
        let rng = ChaCha8Rng::seed_from_u64(seed);
        let mut campaign = Self { target, meter, rng, corpus: Vec::new(), seen: HashMap::new(), figures };
        for input in (target.examples)().into_iter().chain(kept) {
            campaign.take(input)?;
        }
        Ok(campaign)
    }

    /// Decodes inputs until the time is over.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn run(&mut self, time: Duration) -> Result<(), Violation> {
        let start = Instant::now();
        while start.elapsed() < time {
            for _ in 0..100 {
                let input = self.next_input();
                self.take(input)?;
            }
        }
        self.figures.seconds = start.elapsed().as_secs();
        Ok(())
    }

    /// Decodes so many inputs.
    ///
    /// # Errors
    /// The first broken promise.
    pub fn run_inputs(&mut self, count: u64) -> Result<(), Violation> {
        (0..count).try_for_each(|_| {
            let input = self.next_input();
            self.take(input)
        })
    }

    /// Returns what came of it so far.
    pub fn figures(&self) -> Figures {
        Figures { outcomes: self.seen.len(), corpus: self.corpus.len(), ..self.figures.clone() }
    }

    /// Returns the inputs that are worth keeping, each made as short as its outcome allows.
    pub fn corpus(&self) -> Vec<Vec<u8>> {
        self.corpus.iter().map(|input| self.minimised(input.clone())).collect()
    }

    fn next_input(&mut self) -> Vec<u8> {
        if self.corpus.is_empty() || self.rng.random_ratio(1, 3) {
            return (self.target.made_up)(&mut self.rng);
        }
        let pick = |rng: &mut ChaCha8Rng, count: usize| match rng.random_ratio(1, 2) {
            // What was found last leads on best.
            true => count - 1 - rng.random_range(0..count.min(20)),
            false => rng.random_range(0..count),
        };
        let mut input = self.corpus[pick(&mut self.rng, self.corpus.len())].clone();
        let other = self.corpus[pick(&mut self.rng, self.corpus.len())].clone();
        mutate(&mut self.rng, &mut input, &other, self.target.most_bytes);
        input
    }

    fn take(&mut self, input: Vec<u8>) -> Result<(), Violation> {
        self.figures.inputs += 1;
        let (outcome, bytes, millis) = self.measure(&input)?;
        if bytes > self.figures.most_bytes {
            (self.figures.most_bytes, self.figures.most_bytes_input) = (bytes, input.len());
        }
        self.figures.slowest_ms = self.figures.slowest_ms.max(millis);
        let signature = match outcome {
            Outcome::Refused(shape) => {
                self.figures.refused += 1;
                format!("- {shape}")
            }
            Outcome::Accepted(shape) => {
                self.figures.accepted += 1;
                format!("+ {shape}")
            }
        };
        match self.seen.get(&signature) {
            None => {
                self.seen.insert(signature, self.corpus.len());
                self.corpus.push(input);
            }
            Some(&known) if input.len() < self.corpus[known].len() => self.corpus[known] = input,
            Some(_) => {}
        }
        Ok(())
    }

    fn measure(&self, input: &[u8]) -> Result<(Outcome, usize, u128), Violation> {
        let violation = |what| Violation { target: self.target.name, what, input: input.to_vec() };
        self.meter.reset();
        let (before, start) = (self.meter.now(), Instant::now());
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| (self.target.decode)(input)));
        let (bytes, millis) = (self.meter.peak().saturating_sub(before), start.elapsed().as_millis());
        let outcome = outcome.map_err(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            violation(format!("panic: {}", text.unwrap_or_default()))
        })?;
        if bytes > self.target.needs_bytes + allowed_bytes(input.len()) {
            return Err(violation(format!("took {bytes} bytes of memory")));
        }
        if millis > SLOW_MS {
            return Err(violation(format!("took {millis} ms")));
        }
        Ok((outcome, bytes, millis))
    }

    /// Leaves out pieces as long as the outcome stays the same.
    fn minimised(&self, mut input: Vec<u8>) -> Vec<u8> {
        let Ok((expected, ..)) = self.measure(&input) else { return input };
        let (mut piece, mut steps) = (input.len() / 2, 0);
        while piece > 0 && steps < MINIMISE_STEPS {
            let mut at = 0;
            while at < input.len() && steps < MINIMISE_STEPS {
                steps += 1;
                let mut shorter = input.clone();
                shorter.drain(at..(at + piece).min(input.len()));
                match self.measure(&shorter) {
                    Ok((outcome, ..)) if outcome == expected => input = shorter,
                    _ => at += piece,
                }
            }
            piece /= 2;
        }
        input
    }
}
