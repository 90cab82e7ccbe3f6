//! Whatever is called in whatever order, nothing panics and the window stays usable.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use quinn::congestion::Controller as _;

use super::super::Congestion;

#[derive(Debug, Clone)]
enum Call {
    Wait(Duration),
    Sent(u64),
    /// The packet that was sent so many departures ago, or at a time of its own.
    Ack {
        ago: usize,
        bytes: u64,
    },
    AckOf {
        offset: Duration,
        bytes: u64,
    },
    EndAcks {
        in_flight: u64,
        app_limited: bool,
    },
    Congestion {
        persistent: bool,
        lost: u64,
    },
    Mtu(u16),
}

fn bytes() -> impl Strategy<Value = u64> {
    prop_oneof![8 => 0..20_000u64, 1 => any::<u64>(), 1 => Just(u64::MAX)]
}

fn wait() -> impl Strategy<Value = Duration> {
    prop_oneof![
        4 => (0..200_000u64).prop_map(Duration::from_micros),
        2 => Just(Duration::ZERO),
        1 => (0..100_000u64).prop_map(Duration::from_secs),
    ]
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        3 => wait().prop_map(Call::Wait),
        4 => bytes().prop_map(Call::Sent),
        4 => (0..20usize, bytes()).prop_map(|(ago, bytes)| Call::Ack { ago, bytes }),
        1 => (wait(), bytes()).prop_map(|(offset, bytes)| Call::AckOf { offset, bytes }),
        4 => (bytes(), any::<bool>()).prop_map(|(in_flight, app_limited)| Call::EndAcks { in_flight, app_limited }),
        2 => (prop::bool::weighted(0.1), bytes()).prop_map(|(persistent, lost)| Call::Congestion { persistent, lost }),
        1 => any::<u16>().prop_map(Call::Mtu),
    ]
}

proptest! {
    #[test]
    fn no_order_of_calls_breaks_it(calls in prop::collection::vec(call(), 0..200), seed in any::<u64>()) {
        #[expect(clippy::disallowed_methods, reason = "an instant to count from; time is virtual")]
        let start = Instant::now();
        let mut now = start;
        let mut mtu = 1_200;
        let mut congestion = Congestion::new(seed, mtu);
        let mut departures = vec![start];
        for call in calls {
            match call {
                Call::Wait(time) => now += time,
                Call::Sent(bytes) => {
                    departures.push(now);
                    congestion.on_sent(now, bytes, departures.len() as u64);
                }
                Call::Ack { ago, bytes } => {
                    congestion.acked(departures[departures.len().saturating_sub(ago + 1)], bytes);
                }
                Call::AckOf { offset, bytes } => congestion.acked(start + offset, bytes),
                Call::EndAcks { in_flight, app_limited } => congestion.batch_ended(now, in_flight, app_limited),
                Call::Congestion { persistent, lost } => {
                    congestion.on_congestion_event(now, start, persistent, lost);
                }
                Call::Mtu(new) => {
                    mtu = new;
                    congestion.on_mtu_update(new);
                }
            }
            prop_assert!(congestion.window() >= 4 * u64::from(mtu.max(1)), "{}", congestion.window());
            prop_assert!(congestion.window() <= 1 << 30, "{}", congestion.window());
        }
    }
}
