//! One bottleneck in virtual time: a rate, a queue with a limit, a delay, and loss by a seeded die.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore as _, SeedableRng as _},
};

use super::{
    super::Congestion,
    bbr1::Bbr1,
    cubic::Cubic,
    flow::{Controller, Flow, MTU},
};

#[derive(Debug, Clone, Copy)]
pub(super) struct Path {
    pub(super) mbit_s: u64,
    pub(super) rtt_ms: u64,
    /// Packets lost of 100,000, by chance.
    pub(super) lost_of_100_000: u32,
    /// The queue's limit in percent of the bandwidth-delay product.
    pub(super) queue_percent: u64,
}

impl Path {
    pub(super) fn rtt(self) -> Duration {
        Duration::from_millis(self.rtt_ms)
    }

    fn bytes_s(self) -> u64 {
        self.mbit_s * 125_000
    }

    pub(super) fn bandwidth_delay(self) -> u64 {
        self.bytes_s() * self.rtt_ms / 1000
    }
}

/// A link and the flows over it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) path: Path,
    pub(super) flows: Vec<Flow>,
    start: Instant,
    now: Instant,
    /// When the queue will be empty.
    free: Instant,
    /// In the order of arrival: all flows have the same delay.
    under_way: VecDeque<(Instant, usize, u64)>,
    limit: u64,
    die: ChaCha8Rng,
    /// The integral of the queue over time, in seconds of delay times packets, and packets.
    queued: (f64, u64),
}

impl Link {
    pub(super) fn new(path: Path) -> Self {
        #[expect(clippy::disallowed_methods, reason = "an instant to count from; time is virtual")]
        let start = Instant::now();
        Self {
            path,
            flows: Vec::new(),
            start,
            now: start,
            free: start,
            under_way: VecDeque::new(),
            limit: path.bandwidth_delay() * path.queue_percent / 100,
            die: ChaCha8Rng::seed_from_u64(7),
            queued: (0.0, 0),
        }
    }

    pub(super) fn ours(&mut self, starts_ms: u64) -> usize {
        let seed = self.flows.len() as u64;
        let ours = Controller::Ours(Box::new(Congestion::new(seed, MTU as u16)));
        self.add(ours, starts_ms)
    }

    pub(super) fn cubic(&mut self, starts_ms: u64) -> usize {
        self.add(Controller::Cubic(Cubic::new(MTU)), starts_ms)
    }

    pub(super) fn bbr1(&mut self, starts_ms: u64) -> usize {
        let starts = self.start + Duration::from_millis(starts_ms);
        self.add(Controller::Bbr1(Box::new(Bbr1::new(MTU, starts))), starts_ms)
    }

    fn add(&mut self, controller: Controller, starts_ms: u64) -> usize {
        let starts = self.start + Duration::from_millis(starts_ms);
        self.flows.push(Flow::new(controller, starts, self.path.rtt()));
        self.flows.len() - 1
    }

    /// Runs until `ms` after the start; returns what each flow delivered meanwhile, as a part of what the link can.
    pub(super) fn run_to(&mut self, ms: u64) -> Vec<f64> {
        let end = self.start + Duration::from_millis(ms);
        let before: Vec<u64> = self.flows.iter().map(|flow| flow.delivered).collect();
        let began = self.now;
        self.queued = (0.0, 0);
        loop {
            let arrival = self.under_way.front().map(|(at, ..)| *at);
            let wake = self.flows.iter().filter_map(|flow| flow.wakes).min();
            let next = arrival.into_iter().chain(wake).min().unwrap_or(end);
            if next >= end {
                break;
            }
            self.now = next;
            if arrival == Some(next)
                && let Some((_, flow, number)) = self.under_way.pop_front()
            {
                self.flows[flow].on_arrival(next, number);
                self.send(flow);
            } else {
                for flow in 0..self.flows.len() {
                    if self.flows[flow].wakes.is_some_and(|at| at <= next) {
                        self.send(flow);
                    }
                }
            }
        }
        self.now = end;
        let possible = self.path.bytes_s() as f64 * (end - began).as_secs_f64();
        let after = self.flows.iter().map(|flow| flow.delivered);
        after.zip(before).map(|(after, before)| (after - before) as f64 / possible).collect()
    }

    /// From now on the application of `flow` has `rate` bytes/s and no more.
    pub(super) fn has_only(&mut self, flow: usize, rate: u64) {
        self.flows[flow].has_only(self.now, rate);
    }

    /// The mean delay in the queue since the last run began, in round trips.
    pub(super) fn mean_queue(&self) -> f64 {
        self.queued.0 / self.queued.1.max(1) as f64 / self.path.rtt().as_secs_f64()
    }

    fn send(&mut self, flow: usize) {
        let Self { path, now, free, under_way, limit, die, queued, flows, .. } = self;
        let now = *now;
        flows[flow].send(now, |number| {
            let delay = free.saturating_duration_since(now);
            queued.0 += delay.as_secs_f64();
            queued.1 += 1;
            let backlog = (delay.as_secs_f64() * path.bytes_s() as f64) as u64;
            let lost = die.next_u32() % 100_000 < path.lost_of_100_000;
            if backlog + MTU > *limit || lost {
                return;
            }
            *free = now.max(*free) + Duration::from_nanos(MTU * 1_000_000_000 / path.bytes_s());
            under_way.push_back((*free + path.rtt(), flow, number));
        });
    }
}
