//! One direction of a link as a pure queue: a serialiser, a buffer with tail drop, random loss, and a delay. Time comes in.

use std::{collections::VecDeque, time::Duration};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

/// A buffer is never smaller than this, however short the link: a few milliseconds of a studio's line.
const LEAST_QUEUE_BYTES: u64 = 256 * 1024;

/// How one direction of a link behaves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pipe {
    /// Bytes of IP packets in a second; nothing for as fast as the machine.
    pub rate: Option<u64>,
    /// How long a packet travels after its last byte was sent.
    pub delay: Duration,
    /// How many bytes may wait to be sent; what comes then is dropped. Nothing for `Pipe::default_queue`.
    pub queue: Option<u64>,
    /// The share of packets that is lost on the way, from 0 to 1; 1 cuts the link.
    pub loss: f64,
}

impl Pipe {
    /// Passes everything at once.
    pub const OPEN: Self = Self { rate: None, delay: Duration::ZERO, queue: None, loss: 0.0 };

    /// Makes one direction of a link that is alike both ways: `mbit` million bits in a second, `rtt` there and back.
    pub fn alike(mbit: u64, rtt: Duration, loss: f64) -> Self {
        Self { rate: Some(mbit * 1_000_000 / 8), delay: rtt / 2, queue: None, loss }
    }

    /// Returns the buffer in bytes: one bandwidth-delay product, the delay being the same both ways.
    fn default_queue(&self) -> u64 {
        let product = self.rate.unwrap_or(0) as f64 * self.delay.as_secs_f64() * 2.0;
        LEAST_QUEUE_BYTES.max(product as u64)
    }
}

/// What became of the packets of one direction. Bytes are those of IP packets.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Counters {
    /// Packets that came to the sending end.
    pub offered_packets: u64,
    /// Their bytes: what the sender put on the wire.
    pub offered_bytes: u64,
    /// Packets that travelled.
    pub passed_packets: u64,
    /// Their bytes.
    pub passed_bytes: u64,
    /// Packets that found the buffer full.
    pub full: u64,
    /// Packets that were lost by chance.
    pub lost: u64,
}

/// One direction of a link. Times are nanoseconds since any moment, and do not go back.
#[derive(Debug)]
pub struct Line {
    pipe: Pipe,
    /// When the last byte of all that was taken will have been sent.
    sent_at: u64,
    travelling: VecDeque<(u64, Vec<u8>)>,
    random: ChaCha8Rng,
    counters: Counters,
}

impl Line {
    /// Makes a line that draws its losses from `seed`.
    pub fn new(pipe: Pipe, seed: u64) -> Self {
        let random = ChaCha8Rng::seed_from_u64(seed);
        Self { pipe, sent_at: 0, travelling: VecDeque::new(), random, counters: Counters::default() }
    }

    /// Changes how it behaves, for packets that come from now on.
    pub fn change(&mut self, pipe: Pipe) {
        self.pipe = pipe;
    }

    /// Takes a packet; gives it back when it is dropped.
    pub fn offer(&mut self, now: u64, packet: Vec<u8>) -> Option<Vec<u8>> {
        let bytes = packet.len() as u64;
        self.counters.offered_packets += 1;
        self.counters.offered_bytes += bytes;
        if let Some(rate) = self.pipe.rate {
            let waits = u128::from(self.sent_at.saturating_sub(now)) * u128::from(rate) / 1_000_000_000;
            if waits + u128::from(bytes) > u128::from(self.pipe.queue.unwrap_or(self.pipe.default_queue())) {
                self.counters.full += 1;
                return Some(packet);
            }
            self.sent_at = self.sent_at.max(now) + bytes * 1_000_000_000 / rate.max(1);
        } else {
            self.sent_at = self.sent_at.max(now);
        }
        // It is lost behind the serialiser: a real link has spent the time on it.
        if self.pipe.loss > 0.0 && self.random.random::<f64>() < self.pipe.loss {
            self.counters.lost += 1;
            return Some(packet);
        }
        let delay = u64::try_from(self.pipe.delay.as_nanos()).unwrap_or(u64::MAX / 4);
        self.travelling.push_back((self.sent_at + delay, packet));
        None
    }

    /// Returns the next packet that has arrived by `now`, and when it did.
    pub fn take(&mut self, now: u64) -> Option<(u64, Vec<u8>)> {
        if self.travelling.front()?.0 > now {
            return None;
        }
        let (at, packet) = self.travelling.pop_front()?;
        self.counters.passed_packets += 1;
        self.counters.passed_bytes += packet.len() as u64;
        Some((at, packet))
    }

    /// Returns when the next packet arrives.
    pub fn next(&self) -> Option<u64> {
        self.travelling.front().map(|(at, _)| *at)
    }

    /// Returns what became of all packets so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn pipe() -> Pipe {
        Pipe { rate: Some(1_000_000), delay: Duration::from_millis(40), queue: Some(10_000), loss: 0.0 }
    }

    #[test]
    fn a_packet_arrives_after_its_bytes_were_sent_and_the_delay() {
        let mut line = Line::new(pipe(), 1);
        assert_eq!(line.offer(0, vec![0; 1000]), None);
        assert_eq!(line.offer(0, vec![0; 500]), None);
        assert_eq!(line.next(), Some(41 * MS));
        assert_eq!(line.take(41 * MS - 1), None);
        assert_eq!(line.take(60 * MS).unwrap().0, 41 * MS);
        assert_eq!(line.take(60 * MS).unwrap().0, 41 * MS + MS / 2);
        assert_eq!(line.next(), None);
    }

    #[test]
    fn what_comes_to_a_full_buffer_is_dropped_and_the_rate_is_kept_to_the_byte() {
        let mut line = Line::new(pipe(), 1);
        // Twice the rate for 10 seconds.
        for number in 0..20_000 {
            line.offer(number * MS / 2, vec![0; 1000]);
        }
        while line.take(10_000 * MS + 40 * MS).is_some() {}
        let seen = line.counters();
        assert_eq!(seen.passed_bytes, 10_000_000);
        assert_eq!(seen.offered_packets, 20_000);
        // At the end 10,000 bytes still wait.
        assert_eq!(seen.full, 20_000 - 10_000 - 9);
    }

    #[test]
    fn losses_are_as_many_as_asked_for_and_the_same_for_the_same_seed() {
        let lost = |seed| {
            let mut line = Line::new(Pipe { rate: None, loss: 0.01, ..pipe() }, seed);
            (0..100_000).for_each(|now| drop(line.offer(now, vec![0; 100])));
            line.counters().lost
        };
        assert!((850..1150).contains(&lost(1)), "{}", lost(1));
        assert_eq!(lost(1), lost(1));
        assert_ne!(lost(1), lost(2));
    }

    #[test]
    fn a_loss_of_one_cuts_the_line() {
        let mut line = Line::new(pipe(), 1);
        line.change(Pipe { loss: 1.0, ..pipe() });
        (0..100).for_each(|number| drop(line.offer(number * MS, vec![0; 100])));
        assert_eq!(line.counters().lost, 100);
        assert_eq!(line.next(), None);
    }

    #[test]
    fn the_buffer_holds_one_bandwidth_delay_product_unless_said_otherwise() {
        let pipe = Pipe::alike(500, Duration::from_millis(80), 0.0);
        assert_eq!(pipe.default_queue(), 5_000_000);
        assert_eq!(Pipe::alike(500, Duration::from_millis(1), 0.0).default_queue(), LEAST_QUEUE_BYTES);
    }
}
