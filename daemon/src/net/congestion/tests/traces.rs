//! How the controller does on links: how full it keeps them, what it queues, and what it leaves to others.

use quinn::congestion::Controller as _;

use super::{
    flow::Controller,
    link::{Link, Path},
};

const OCEAN: Path = Path { mbit_s: 500, rtt_ms: 80, lost_of_100_000: 0, queue_percent: 100 };

/// Runs one flow, and returns how much of the link it used after `warm_ms` and how long the queue was, in round trips.
fn alone(path: Path, warm_ms: u64, ms: u64) -> (f64, f64) {
    let mut link = Link::new(path);
    link.ours(0);
    link.run_to(warm_ms);
    let used = link.run_to(ms)[0];
    println!("{path:?}: {used:.3} of the link, queue {:.3}", link.mean_queue());
    (used, link.mean_queue())
}

/// Checks that one flow uses `least` of the link.
fn fills(path: Path, least: f64) {
    let (used, queue) = alone(path, 2_000, 8_000);
    assert!(used >= least, "{used} of {path:?}");
    assert!(queue < 0.5, "{queue} round trips of queue on {path:?}");
}

#[test]
fn a_clean_ocean_link_is_filled() {
    fills(OCEAN, 0.95);
}

#[test]
fn an_ocean_link_that_loses_a_thousandth_is_filled() {
    fills(Path { lost_of_100_000: 100, ..OCEAN }, 0.95);
}

#[test]
fn an_ocean_link_that_loses_a_hundredth_is_filled() {
    fills(Path { lost_of_100_000: 1_000, ..OCEAN }, 0.93);
}

#[test]
fn a_link_around_the_world_that_loses_a_hundredth_is_filled() {
    let (used, queue) = alone(Path { rtt_ms: 200, lost_of_100_000: 1_000, ..OCEAN }, 4_000, 12_000);
    assert!(used >= 0.92 && queue < 0.5, "{used}, queue {queue}");
}

#[test]
fn a_link_in_the_house_is_filled() {
    // With a queue of a bandwidth-delay product: 43 packets.
    let (used, _) = alone(Path { rtt_ms: 1, queue_percent: 300, ..OCEAN }, 1_000, 4_000);
    assert!(used >= 0.95, "{used}");
    let (used, _) = alone(Path { rtt_ms: 1, lost_of_100_000: 1_000, ..OCEAN }, 1_000, 4_000);
    assert!(used >= 0.80, "{used}");
}

#[test]
fn a_link_with_a_short_queue_is_filled() {
    let (used, queue) = alone(Path { queue_percent: 20, ..OCEAN }, 2_000, 8_000);
    assert!(used >= 0.93 && queue < 0.2, "{used}, queue {queue}");
}

#[test]
fn a_slow_link_is_filled() {
    let (used, queue) = alone(Path { mbit_s: 10, rtt_ms: 30, ..OCEAN }, 2_000, 20_000);
    assert!(used >= 0.95 && queue < 0.7, "{used}, queue {queue}");
}

#[test]
fn the_start_takes_few_round_trips() {
    let mut link = Link::new(OCEAN);
    link.ours(0);
    let used = link.run_to(2_000)[0];
    assert!(used >= 0.6, "{used} of the first two seconds");
}

#[test]
fn a_link_that_falls_to_a_fifth_and_comes_back_is_followed() {
    let mut link = Link::new(OCEAN);
    link.ours(0);
    link.run_to(3_000);
    link.path.mbit_s = 100;
    link.run_to(6_000);
    let lost = link.flows[0].lost;
    let slow = link.run_to(9_000)[0];
    let lost = (link.flows[0].lost - lost) as f64 / (slow * 3.0 * 12_500_000.0);
    let queue = link.mean_queue();
    link.path.mbit_s = 500;
    link.run_to(12_000);
    let fast = link.run_to(15_000)[0];
    println!("{slow} {lost} {queue} {fast}");
    assert!(slow >= 0.93 && lost < 0.03 && queue < 0.6, "{slow} used, {lost} lost, queue {queue}");
    assert!(fast >= 0.93, "{fast}");
}

#[test]
fn two_flows_share_evenly() {
    let mut unfair = false;
    for queue_percent in [20, 100, 300] {
        let mut link = Link::new(Path { queue_percent, mbit_s: 100, ..OCEAN });
        link.ours(0);
        link.ours(3_000);
        link.run_to(15_000);
        let used = link.run_to(30_000);
        let share = used[1] / (used[0] + used[1]);
        println!("{queue_percent}: {used:?}, {share:.2}, queue {:.2}", link.mean_queue());
        unfair |= !(0.35..=0.65).contains(&share) || used[0] + used[1] < 0.85;
    }
    assert!(!unfair, "the shares are printed above");
}

#[test]
fn cubic_and_this_leave_each_other_a_quarter() {
    let mut unfair = false;
    for (rtt_ms, queue_percent) in [(40, 50), (80, 50), (80, 100), (20, 200)] {
        let mut link = Link::new(Path { rtt_ms, queue_percent, mbit_s: 100, ..OCEAN });
        link.ours(0);
        link.cubic(0);
        link.run_to(15_000);
        let used = link.run_to(50_000);
        let share = used[0] / (used[0] + used[1]);
        println!("{rtt_ms} {queue_percent}: {used:?}, {share:.2}");
        unfair |= !(0.25..=0.75).contains(&share);
    }
    assert!(!unfair, "the shares are printed above");
}

#[test]
fn a_flow_with_little_to_say_keeps_its_estimate() {
    let mut link = Link::new(OCEAN);
    link.ours(0);
    link.run_to(3_000);
    link.has_only(0, 2_000_000);
    link.run_to(10_000);
    let Controller::Ours(ours) = &link.flows[0].controller else { panic!("it is ours") };
    let (window, kept) = (ours.window(), ours.model.bandwidth());
    assert!(kept > 56_000_000, "{kept} bytes/s are left of 62,500,000");
    assert!(window >= OCEAN.bandwidth_delay() * 8 / 10, "a window of {window}");
}

#[test]
fn loss_that_does_not_answer_is_taken_for_usual() {
    for (lost_of_100_000, least) in [(3_000, 0.93), (8_000, 0.88)] {
        for (rtt_ms, mbit_s) in [(80, 500), (20, 100)] {
            let (used, queue) = alone(Path { lost_of_100_000, rtt_ms, mbit_s, ..OCEAN }, 5_000, 20_000);
            assert!(used >= least && queue < 0.5, "{used} at {lost_of_100_000}, queue {queue}");
        }
    }
}

#[test]
fn loss_that_has_ended_is_not_usual_any_more() {
    let mut link = Link::new(Path { mbit_s: 100, lost_of_100_000: 5_000, queue_percent: 50, ..OCEAN });
    link.ours(0);
    link.ours(0);
    link.run_to(15_000);
    link.path.lost_of_100_000 = 0;
    link.run_to(25_000);
    let lost = |link: &Link| link.flows.iter().map(|flow| flow.lost).sum::<u64>() as f64;
    let before = lost(&link);
    let used = link.run_to(45_000);
    let lost = (lost(&link) - before) / (20.0 * 12_500_000.0);
    println!("{used:?}, {lost:.4} lost");
    assert!(
        lost < 0.01,
        "{lost} of what the link can is lost in queues, 10 s after the link lost its last packet by chance"
    );
    assert!(used[0] + used[1] >= 0.9, "{used:?}");
}

#[test]
fn the_first_bbr_leaves_this_no_less_than_it_leaves_cubic() {
    let mut unfair = false;
    for (rtt_ms, queue_percent) in [(20, 100), (80, 50), (80, 100)] {
        let beside_bbr = |add: fn(&mut Link, u64) -> usize| {
            let mut link = Link::new(Path { rtt_ms, queue_percent, mbit_s: 100, ..OCEAN });
            add(&mut link, 0);
            link.bbr1(0);
            link.run_to(15_000);
            let used = link.run_to(50_000);
            used[0] / (used[0] + used[1])
        };
        let (ours, cubic) = (beside_bbr(Link::ours), beside_bbr(Link::cubic));
        println!("{rtt_ms} {queue_percent}: ours {ours:.3}, CUBIC {cubic:.3}");
        unfair |= ours < cubic;
    }
    assert!(!unfair, "the shares are printed above");
}
