//! A sender as quinn is one: its pacer, its loss detection, its order of calls.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use quinn::congestion::Controller as _;

use super::{super::Congestion, bbr1::Bbr1, cubic::Cubic};

pub(super) const MTU: u64 = 1452;
/// quinn acknowledges every second packet, and hands the controller bursts of up to ten.
const ACK_EVERY: usize = 2;
const BURST: u64 = 10;

#[derive(Debug)]
pub(super) enum Controller {
    Ours(Box<Congestion>),
    Cubic(Cubic),
    Bbr1(Box<Bbr1>),
}

#[derive(Debug, Clone, Copy)]
struct Packet {
    number: u64,
    sent: Instant,
    acked: bool,
    /// What had been delivered when it left, and when that was known.
    delivered: (u64, Instant),
}

#[derive(Debug)]
pub(super) struct Flow {
    pub(super) controller: Controller,
    pub(super) delivered: u64,
    pub(super) lost: u64,
    starts: Instant,
    /// Bytes/s that the application has to send; none for a file that never ends.
    app_rate: Option<u64>,
    app_sent: u64,
    outstanding: VecDeque<Packet>,
    arrived: Vec<u64>,
    next_number: u64,
    in_flight: u64,
    app_limited: bool,
    smoothed_rtt: Duration,
    tokens: u64,
    refilled: Instant,
    last_ack: Instant,
    last_delivery: Instant,
    pub(super) wakes: Option<Instant>,
}

impl Flow {
    pub(super) fn new(controller: Controller, starts: Instant, rtt: Duration) -> Self {
        Self {
            controller,
            delivered: 0,
            lost: 0,
            starts,
            app_rate: None,
            app_sent: 0,
            outstanding: VecDeque::new(),
            arrived: Vec::new(),
            next_number: 0,
            in_flight: 0,
            app_limited: false,
            smoothed_rtt: rtt,
            tokens: 10 * MTU,
            refilled: starts,
            last_ack: starts,
            last_delivery: starts,
            wakes: Some(starts),
        }
    }

    pub(super) fn window(&self) -> u64 {
        match &self.controller {
            Controller::Ours(ours) => ours.window(),
            Controller::Cubic(cubic) => cubic.window(),
            Controller::Bbr1(bbr) => bbr.window(),
        }
    }

    /// quinn-proto's `Pacer::delay`: when the next packet may leave, now if none.
    fn paced(&mut self, now: Instant) -> Option<Instant> {
        match &self.controller {
            Controller::Ours(_) => {}
            Controller::Cubic(_) => return None,
            Controller::Bbr1(bbr) => return self.paced_at(now, bbr.rate()),
        }
        let (window, rtt) = (self.window() as f64, self.smoothed_rtt.as_secs_f64());
        let capacity = ((window * 0.002 / rtt) as u64).clamp(10 * MTU, 256 * MTU);
        self.tokens = self.tokens.min(capacity);
        if self.tokens >= MTU {
            return None;
        }
        let refill = (window * 1.25 * (now - self.refilled).as_secs_f64() / rtt) as u64;
        self.tokens = (self.tokens + refill).min(capacity);
        self.refilled = now;
        if self.tokens >= MTU {
            return None;
        }
        let wait = (capacity - self.tokens) as f64 * rtt / window * 0.8;
        // A timer of tokio has a resolution of a millisecond.
        Some(now + Duration::from_secs_f64(wait).max(Duration::from_micros(500)))
    }

    /// The kernel's pacing: a burst of up to a millisecond at `rate` bytes/s.
    fn paced_at(&mut self, now: Instant, rate: f64) -> Option<Instant> {
        let capacity = ((rate * 0.001) as u64).max(2 * MTU);
        let refill = (rate * (now - self.refilled).as_secs_f64()) as u64;
        if refill > 0 {
            (self.tokens, self.refilled) = ((self.tokens + refill).min(capacity), now);
        }
        let missing = MTU.saturating_sub(self.tokens);
        (missing > 0).then(|| now + Duration::from_secs_f64((missing as f64 / rate).max(1e-6)))
    }

    fn has_data(&mut self, now: Instant) -> Result<(), Instant> {
        let Some(rate) = self.app_rate else { return Ok(()) };
        let due = (rate as f64 * (now - self.starts).as_secs_f64()) as u64;
        if self.app_sent + MTU <= due {
            return Ok(());
        }
        Err(now + Duration::from_secs_f64(10.0 * MTU as f64 / rate as f64))
    }

    /// From now on the application has `rate` bytes/s and no more.
    pub(super) fn has_only(&mut self, now: Instant, rate: u64) {
        (self.starts, self.app_sent, self.app_rate) = (now, 0, Some(rate));
    }

    /// Sends what may be sent; `put` puts a packet on the link.
    pub(super) fn send(&mut self, now: Instant, mut put: impl FnMut(u64)) {
        self.wakes = Some(self.last_ack.max(now) + (self.smoothed_rtt * 3).max(Duration::from_millis(100)));
        let mut burst = 0;
        self.app_limited = false;
        loop {
            // A lost tail is found by a probe that asks neither window nor pacer.
            let probe = burst == 0
                && !self.outstanding.is_empty()
                && now >= self.last_ack + (self.smoothed_rtt * 3).max(Duration::from_millis(100));
            if probe {
                self.last_ack = now;
            } else if let Err(later) = self.has_data(now) {
                self.app_limited = true;
                self.wakes = Some(later);
                break;
            } else if self.in_flight + MTU >= self.window() {
                break;
            } else if let Some(later) = self.paced(now) {
                self.wakes = Some(later);
                break;
            }
            self.tokens = self.tokens.saturating_sub(MTU);
            let delivered = if self.in_flight == 0 {
                (self.delivered, now)
            } else {
                (self.delivered, self.last_delivery)
            };
            self.outstanding.push_back(Packet {
                number: self.next_number,
                sent: now,
                acked: false,
                delivered,
            });
            put(self.next_number);
            self.next_number += 1;
            self.in_flight += MTU;
            self.app_sent += MTU;
            burst += 1;
            if burst == BURST {
                self.sent(now, burst);
                burst = 0;
            }
        }
        self.sent(now, burst);
    }

    fn sent(&mut self, now: Instant, packets: u64) {
        if let Controller::Ours(ours) = &mut self.controller
            && packets > 0
        {
            ours.on_sent(now, packets * MTU, self.next_number - 1);
        }
    }

    /// Takes the news that a packet arrived; packets arrive in order, so a gap is a loss once three have passed it.
    pub(super) fn on_arrival(&mut self, now: Instant, number: u64) {
        self.arrived.push(number);
        let gap = self.outstanding.front().is_some_and(|oldest| oldest.number + 3 <= number);
        let rare = self.in_flight <= 4 * MTU || self.app_limited;
        if self.arrived.len() < ACK_EVERY && !gap && !rare {
            return;
        }
        let mut newest_sent = None;
        for number in std::mem::take(&mut self.arrived) {
            let Some(front) = self.outstanding.front().map(|packet| packet.number) else { continue };
            let Some(packet) = self.outstanding.get_mut((number - front) as usize) else { continue };
            packet.acked = true;
            newest_sent = Some(packet.sent);
            self.delivered += MTU;
            self.in_flight -= MTU;
            self.last_delivery = now;
            let (sent, delivered) = (packet.sent, packet.delivered);
            match &mut self.controller {
                Controller::Ours(ours) => ours.acked(sent, MTU),
                Controller::Cubic(cubic) => cubic.acked(now, MTU, self.smoothed_rtt),
                Controller::Bbr1(bbr) => bbr.acked(now, MTU, sent, delivered, self.in_flight),
            }
        }
        if let Controller::Ours(ours) = &mut self.controller {
            ours.batch_ended(now, self.in_flight, self.app_limited);
        }
        self.last_ack = now;
        if let Some(sent) = newest_sent {
            self.smoothed_rtt = (self.smoothed_rtt * 7 + (now - sent)) / 8;
        }
        self.detect_losses(now, number);
    }

    fn detect_losses(&mut self, now: Instant, largest: u64) {
        let (mut lost, mut newest_sent) = (0, now);
        while let Some(oldest) = self.outstanding.front()
            && (oldest.acked || oldest.number + 3 <= largest)
        {
            if !oldest.acked {
                lost += MTU;
                newest_sent = oldest.sent;
            }
            self.outstanding.pop_front();
        }
        if lost == 0 {
            return;
        }
        self.lost += lost;
        self.in_flight -= lost;
        match &mut self.controller {
            Controller::Ours(ours) => ours.on_congestion_event(now, newest_sent, false, lost),
            Controller::Cubic(cubic) => cubic.lost(now, newest_sent),
            Controller::Bbr1(_) => {}
        }
    }
}
