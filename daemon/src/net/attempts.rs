//! Which attempts to connect are gone into, before anything is known of who makes them. Pure.
//!
//! Each costs a handshake: two signatures here, and memory until it is done or given up. What one address may have of
//! them is bounded, so that a stranger who leaves a thousand half open takes nothing from others. An address is an
//! IPv4 address or the first 64 bits of an IPv6 one, which is what one machine or one router has.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

/// Handshakes that are worked on at once, of all addresses.
pub(crate) const MAX_HANDSHAKES: usize = 128;

/// From so many on, an address must first prove that it is there: a forged one costs no signature then.
const RETRY_FROM: usize = 16;

/// Handshakes of one address at once: a site's machines behind one router that start together.
pub(crate) const MAX_OF_ADDRESS: usize = 16;

/// How many attempts of one address are gone into in a second, and how many at once after a rest.
const PER_SECOND: f64 = 10.0;
const BURST: f64 = 40.0;

/// Addresses that are remembered at most.
const MAX_ADDRESSES: usize = 4096;

/// What is done with an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Gone into; [`Attempts::ended`] is to be called when the handshake is over.
    Accept,
    /// It must come again with a proof that its address is its own.
    Retry,
    /// Told that there is no room.
    Refuse,
}

#[derive(Debug)]
struct Address {
    handshakes: usize,
    tokens: f64,
    at: Duration,
}

/// The handshakes under way, and what each address had lately.
#[derive(Debug, Default)]
pub(crate) struct Attempts {
    handshakes: usize,
    addresses: HashMap<IpAddr, Address>,
}

impl Attempts {
    /// Decides about an attempt from `address`, which is `validated` when it proved to be there.
    pub(crate) fn look_at(&mut self, address: IpAddr, validated: bool, now: Duration) -> Verdict {
        let key = key(address);
        if !self.addresses.contains_key(&key) && !self.make_room(now) {
            return Verdict::Refuse;
        }
        let fresh = || Address { handshakes: 0, tokens: BURST, at: now };
        let known = self.addresses.entry(key).or_insert_with(fresh);
        known.refill(now);
        let has_room = known.handshakes < MAX_OF_ADDRESS && known.tokens >= 1.0;
        if !validated && (self.handshakes >= RETRY_FROM || !has_room) {
            return Verdict::Retry;
        }
        if !has_room || self.handshakes >= MAX_HANDSHAKES {
            return Verdict::Refuse;
        }
        // An address that is not proved may be forged: whose it is must not pay for it.
        if validated {
            known.tokens -= 1.0;
        }
        known.handshakes += 1;
        self.handshakes += 1;
        Verdict::Accept
    }

    /// Hears that a handshake is done or given up.
    pub(crate) fn ended(&mut self, address: IpAddr) {
        self.handshakes = self.handshakes.saturating_sub(1);
        if let Some(known) = self.addresses.get_mut(&key(address)) {
            known.handshakes = known.handshakes.saturating_sub(1);
        }
    }

    /// Forgets addresses that rested, when there are many; says whether there is room for another one.
    fn make_room(&mut self, now: Duration) -> bool {
        if self.addresses.len() >= MAX_ADDRESSES {
            self.addresses.retain(|_, known| {
                known.refill(now);
                known.handshakes > 0 || known.tokens < BURST
            });
        }
        self.addresses.len() < MAX_ADDRESSES
    }
}

impl Address {
    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.tokens = (self.tokens + passed * PER_SECOND).min(BURST);
        self.at = now;
    }
}

fn key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_address_cannot_take_the_handshakes_of_others() {
        let mut attempts = Attempts::default();
        let verdicts: Vec<_> = (0..1000).map(|_| attempts.look_at(ip("10.0.0.9"), true, NOW)).collect();
        let accepted = verdicts.iter().filter(|verdict| **verdict == Verdict::Accept).count();
        assert_eq!(accepted, MAX_OF_ADDRESS);
        assert!(verdicts[MAX_OF_ADDRESS..].iter().all(|verdict| *verdict == Verdict::Refuse));
        assert_eq!(attempts.look_at(ip("10.0.0.1"), true, NOW), Verdict::Accept);
        attempts.ended(ip("10.0.0.9"));
        assert_eq!(attempts.look_at(ip("10.0.0.9"), true, NOW), Verdict::Accept);
    }

    #[test]
    fn under_load_an_address_has_to_prove_itself_first() {
        let mut attempts = Attempts::default();
        for number in 0..RETRY_FROM {
            let address = IpAddr::from([10, 0, 1, u8::try_from(number).unwrap()]);
            assert_eq!(attempts.look_at(address, false, NOW), Verdict::Accept);
        }
        assert_eq!(attempts.look_at(ip("10.0.0.1"), false, NOW), Verdict::Retry);
        assert_eq!(attempts.look_at(ip("10.0.0.1"), true, NOW), Verdict::Accept);
    }

    #[test]
    fn handshakes_in_a_row_are_bounded_by_time_and_forged_ones_cost_their_address_nothing() {
        let mut attempts = Attempts::default();
        let mut try_once = |address: &str, validated, now| {
            let verdict = attempts.look_at(ip(address), validated, now);
            if verdict == Verdict::Accept {
                attempts.ended(ip(address));
            }
            verdict
        };
        for _ in 0..40 {
            assert_eq!(try_once("10.0.0.9", true, NOW), Verdict::Accept);
        }
        assert_eq!(try_once("10.0.0.9", true, NOW), Verdict::Refuse);
        assert_eq!(try_once("10.0.0.9", false, NOW), Verdict::Retry);
        assert_eq!(try_once("10.0.0.9", true, NOW + Duration::from_millis(150)), Verdict::Accept);
        for _ in 0..1000 {
            assert_eq!(try_once("10.0.0.8", false, NOW), Verdict::Accept);
        }
        assert_eq!(try_once("10.0.0.8", true, NOW), Verdict::Accept);
    }

    #[test]
    fn the_addresses_of_one_ipv6_network_count_as_one_and_few_are_remembered() {
        let mut attempts = Attempts::default();
        for number in 0..MAX_OF_ADDRESS {
            let verdict = attempts.look_at(ip(&format!("2001:db8::{number:x}")), true, NOW);
            assert_eq!(verdict, Verdict::Accept);
        }
        assert_eq!(attempts.look_at(ip("2001:db8::ffff"), true, NOW), Verdict::Refuse);
        assert_eq!(attempts.look_at(ip("2001:db8:1::1"), true, NOW), Verdict::Accept);
        assert_eq!(key(ip("::ffff:10.0.0.1")), ip("10.0.0.1"));
        for number in 0..3 * MAX_ADDRESSES {
            let number = u32::try_from(number).unwrap();
            let later = NOW + Duration::from_secs(10);
            attempts.look_at(IpAddr::from((0x0a00_0000 + number).to_be_bytes()), true, later);
            attempts.ended(IpAddr::from((0x0a00_0000 + number).to_be_bytes()));
        }
        assert!(attempts.addresses.len() <= MAX_ADDRESSES);
    }
}
