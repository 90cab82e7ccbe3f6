//! Which attempts to connect are gone into, before anything is known of who makes them. Pure.
//!
//! Each costs a handshake: two signatures here, and memory until it is done or given up. What one address may have of
//! them is bounded, so that a stranger who leaves a thousand half open takes nothing from others. An address is an
//! IPv4 address or the first 64 bits of an IPv6 one, which is what one machine or one router has; the first 48, which is what
//! one customer of a provider may have, count together, for four times as much.
//!
//! An address that did not prove to be there may be forged. Those have a few places of their own, and whoever finds them taken is
//! asked for the proof, which costs nothing here: whoever forges the address of a site takes none of its places.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

/// Handshakes that are worked on at once, of all addresses that proved to be there.
pub(crate) const MAX_HANDSHAKES: usize = 128;

/// Handshakes at once with those that did not. From so many of all kinds on, an address must first prove that it is there: a forged
/// one costs no signature then.
const RETRY_FROM: usize = 16;

/// How many of those are gone into in a second, and how many at once after a rest.
const UNPROVED_PER_SECOND: f64 = 50.0;
const UNPROVED_BURST: f64 = 100.0;

/// Handshakes of one address at once: a site's machines behind one router that start together.
pub(crate) const MAX_OF_ADDRESS: usize = 16;

/// How many attempts of one address are gone into in a second, and how many at once after a rest.
const PER_SECOND: f64 = 10.0;
const BURST: f64 = 40.0;

/// How many times as much all addresses of one IPv6 network of 48 bits may have.
const OF_NETWORK: u8 = 4;

/// Addresses that are remembered at most; forged ones never are.
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

/// An address, or the network that it is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Origin {
    Address(IpAddr),
    Network(Ipv6Addr),
}

#[derive(Debug)]
struct Had {
    handshakes: usize,
    tokens: Tokens,
}

/// The handshakes under way, and what each address had lately.
#[derive(Debug)]
pub(crate) struct Attempts {
    proved: usize,
    unproved: usize,
    unproved_tokens: Tokens,
    origins: HashMap<Origin, Had>,
}

impl Default for Attempts {
    fn default() -> Self {
        let unproved_tokens = Tokens::new(UNPROVED_PER_SECOND, UNPROVED_BURST, Duration::ZERO);
        Self { proved: 0, unproved: 0, unproved_tokens, origins: HashMap::new() }
    }
}

impl Attempts {
    /// Decides about an attempt from `address`, which is `validated` when it proved to be there.
    pub(crate) fn look_at(&mut self, address: IpAddr, validated: bool, now: Duration) -> Verdict {
        if validated { self.look_at_proved(address, now) } else { self.look_at_unproved(address, now) }
    }

    /// Whose address it really is must not pay for it.
    fn look_at_unproved(&mut self, address: IpAddr, now: Duration) -> Verdict {
        let has_room = self.proved + self.unproved < RETRY_FROM
            && origins(address)
                .all(|origin| self.origins.get_mut(&origin).is_none_or(|had| had.may(origin, now)));
        if !has_room || !self.unproved_tokens.take(now) {
            return Verdict::Retry;
        }
        self.unproved += 1;
        Verdict::Accept
    }

    fn look_at_proved(&mut self, address: IpAddr, now: Duration) -> Verdict {
        for origin in origins(address) {
            if !self.origins.contains_key(&origin) && !self.make_room(now) {
                return Verdict::Refuse;
            }
            if !self.origins.entry(origin).or_insert_with(|| Had::new(origin, now)).may(origin, now) {
                return Verdict::Refuse;
            }
        }
        if self.proved >= MAX_HANDSHAKES {
            return Verdict::Refuse;
        }
        for origin in origins(address) {
            if let Some(had) = self.origins.get_mut(&origin) {
                had.handshakes += 1;
                had.tokens.take(now);
            }
        }
        self.proved += 1;
        Verdict::Accept
    }

    /// Hears that a handshake is done or given up.
    pub(crate) fn ended(&mut self, address: IpAddr, validated: bool) {
        if !validated {
            self.unproved = self.unproved.saturating_sub(1);
            return;
        }
        self.proved = self.proved.saturating_sub(1);
        for origin in origins(address) {
            if let Some(had) = self.origins.get_mut(&origin) {
                had.handshakes = had.handshakes.saturating_sub(1);
            }
        }
    }

    /// Forgets addresses that rested, when there are many; says whether there is room for another one.
    fn make_room(&mut self, now: Duration) -> bool {
        if self.origins.len() >= MAX_ADDRESSES {
            self.origins.retain(|_, had| had.handshakes > 0 || !had.tokens.is_full(now));
        }
        self.origins.len() < MAX_ADDRESSES
    }
}

impl Had {
    fn new(origin: Origin, now: Duration) -> Self {
        let times = f64::from(origin.times());
        Self { handshakes: 0, tokens: Tokens::new(PER_SECOND * times, BURST * times, now) }
    }

    fn may(&mut self, origin: Origin, now: Duration) -> bool {
        self.handshakes < MAX_OF_ADDRESS * usize::from(origin.times()) && self.tokens.is_there(now)
    }
}

/// What may be done so often in a second, and so often at once after a rest.
#[derive(Debug)]
struct Tokens {
    per_second: f64,
    burst: f64,
    left: f64,
    at: Duration,
}

impl Tokens {
    fn new(per_second: f64, burst: f64, now: Duration) -> Self {
        Self { per_second, burst, left: burst, at: now }
    }

    fn refill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.left = (self.left + passed * self.per_second).min(self.burst);
        self.at = now;
    }

    fn is_there(&mut self, now: Duration) -> bool {
        self.refill(now);
        self.left >= 1.0
    }

    fn is_full(&mut self, now: Duration) -> bool {
        self.refill(now);
        self.left >= self.burst
    }

    fn take(&mut self, now: Duration) -> bool {
        let is_there = self.is_there(now);
        if is_there {
            self.left -= 1.0;
        }
        is_there
    }
}

impl Origin {
    fn times(self) -> u8 {
        match self {
            Self::Address(_) => 1,
            Self::Network(_) => OF_NETWORK,
        }
    }
}

/// Returns what an attempt from an address counts for.
fn origins(address: IpAddr) -> impl Iterator<Item = Origin> {
    let (address, network) = match address.to_canonical() {
        IpAddr::V4(address) => (IpAddr::V4(address), None),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            let network = Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0);
            (IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0)), Some(Origin::Network(network)))
        }
    };
    [Some(Origin::Address(address)), network].into_iter().flatten()
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
        attempts.ended(ip("10.0.0.9"), true);
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
                attempts.ended(ip(address), validated);
            }
            verdict
        };
        for _ in 0..40 {
            assert_eq!(try_once("10.0.0.9", true, NOW), Verdict::Accept);
        }
        assert_eq!(try_once("10.0.0.9", true, NOW), Verdict::Refuse);
        assert_eq!(try_once("10.0.0.9", false, NOW), Verdict::Retry);
        assert_eq!(try_once("10.0.0.9", true, NOW + Duration::from_millis(150)), Verdict::Accept);
        for number in 0..1000 {
            let expected = if number < 100 { Verdict::Accept } else { Verdict::Retry };
            assert_eq!(try_once("10.0.0.8", false, NOW), expected);
        }
        assert_eq!(try_once("10.0.0.8", true, NOW), Verdict::Accept);
    }

    #[test]
    fn who_forges_the_address_of_a_site_does_not_lock_it_out() {
        let mut attempts = Attempts::default();
        let site = ip("192.0.2.7");
        for number in 0..10_000 {
            let expected = if number < RETRY_FROM { Verdict::Accept } else { Verdict::Retry };
            assert_eq!(attempts.look_at(site, false, NOW), expected, "{number}");
        }
        assert!(attempts.origins.is_empty(), "forged addresses are not remembered");
        // None of those handshakes ends before its deadline. The site shows that it is there, and has all of its places.
        for _ in 0..MAX_OF_ADDRESS {
            assert_eq!(attempts.look_at(site, false, NOW), Verdict::Retry);
            assert_eq!(attempts.look_at(site, true, NOW), Verdict::Accept);
        }
        assert_eq!(attempts.look_at(site, true, NOW), Verdict::Refuse);
        for _ in 0..RETRY_FROM {
            attempts.ended(site, false);
        }
        assert_eq!((attempts.proved, attempts.unproved), (MAX_OF_ADDRESS, 0));
    }

    #[test]
    fn the_networks_of_one_customer_count_together() {
        let mut attempts = Attempts::default();
        let accepted = (0..1000u16).filter(|number| {
            attempts.look_at(ip(&format!("2001:db8:0:{number:x}::1")), true, NOW) == Verdict::Accept
        });
        assert_eq!(accepted.count(), MAX_OF_ADDRESS * usize::from(OF_NETWORK));
        assert_eq!(attempts.look_at(ip("2001:db8:1::1"), true, NOW), Verdict::Accept);
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
        let of_mapped: Vec<_> = origins(ip("::ffff:10.0.0.1")).collect();
        assert_eq!(of_mapped, [Origin::Address(ip("10.0.0.1"))]);
        for number in 0..3 * MAX_ADDRESSES {
            let number = u32::try_from(number).unwrap();
            let later = NOW + Duration::from_secs(10);
            attempts.look_at(IpAddr::from((0x0a00_0000 + number).to_be_bytes()), true, later);
            attempts.ended(IpAddr::from((0x0a00_0000 + number).to_be_bytes()), true);
        }
        assert!(attempts.origins.len() <= MAX_ADDRESSES);
    }
}
