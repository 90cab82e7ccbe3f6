//! Sources of any speed, that fail, or that are late.

use std::collections::BTreeSet;

use super::*;

const MIB: u64 = 1 << 20;

fn object(number: u64) -> ObjectHash {
    ObjectHash::of(&number.to_le_bytes())
}

fn large(blocks: u64) -> Want {
    Want { object: object(0), size: blocks * BLOCK_BYTES, first_block: 0, blocks, with_list: false }
}

fn small(number: u64) -> Want {
    Want { object: object(number), size: 8192, first_block: 0, blocks: 1, with_list: false }
}

/// One source: its bytes per second, its round trip, and what it is to send.
struct Source {
    rate: f64,
    sending: VecDeque<(Want, u64)>,
    free_at: f64,
    dies_at: f64,
}

struct Run {
    seconds: f64,
    /// Blocks that arrived, and those that arrived again.
    arrived: BTreeSet<(ObjectHash, u64)>,
    twice: u64,
    wasted: u64,
}

/// Plays sources of given rates until everything is here, block by block.
fn play(wants: Vec<Want>, rates: &[(f64, f64)]) -> Run {
    let total: u64 = wants.iter().map(|want| want.blocks).sum();
    let mut schedule = Schedule::new(wants);
    let mut sources: Vec<Source> = rates
        .iter()
        .map(|(rate, dies_at)| Source {
            rate: *rate,
            sending: VecDeque::new(),
            free_at: 0.0,
            dies_at: *dies_at,
        })
        .collect();
    let mut run = Run { seconds: 0.0, arrived: BTreeSet::new(), twice: 0, wasted: 0 };
    let time = |seconds: f64| Duration::from_secs_f64(seconds);
    for step in 0.. {
        assert!(step < 1_000_000, "it does not end");
        for (id, source) in (0u32..).zip(&mut sources) {
            if source.sending.is_empty() && source.free_at <= run.seconds && run.seconds < source.dies_at {
                for want in schedule.ask(id, time(run.seconds)) {
                    source.sending.extend((0..want.blocks).map(|block| (want, want.first_block + block)));
                }
                source.free_at = run.seconds;
            }
        }
        if run.arrived.len() as u64 == total {
            assert!(schedule.is_done());
            return run;
        }
        // The next block that arrives anywhere.
        let next =
            (0u32..).zip(&sources).filter(|(_, source)| !source.sending.is_empty()).map(|(id, source)| {
                let (want, block) = source.sending[0];
                let bytes = block_range(want.size, block);
                (id, source.free_at + (bytes.end - bytes.start) as f64 / source.rate)
            });
        let Some((id, at)) = next.min_by(|a, b| a.1.total_cmp(&b.1)) else {
            run.seconds += 0.01;
            continue;
        };
        run.seconds = run.seconds.max(at);
        let source = &mut sources[id as usize];
        if run.seconds >= source.dies_at {
            source.sending.clear();
            schedule.fail(id);
            continue;
        }
        let (want, block) = source.sending.pop_front().unwrap();
        source.free_at = at;
        if !run.arrived.insert((want.object, block)) {
            run.twice += 1;
        }
        let bytes = block_range(want.size, block);
        if schedule.arrived(id, &want.object, (block, 1), bytes.end - bytes.start, time(at)) == Next::Stop {
            // What is on its way when the stop arrives: a block.
            run.wasted += u64::from(!source.sending.is_empty());
            source.sending.clear();
        }
    }
    unreachable!()
}

#[test]
fn sources_of_any_speed_end_together() {
    let rates = [10.0 * MIB as f64, 3.0 * MIB as f64, 30.0 * MIB as f64];
    let run = play(vec![large(512)], &rates.map(|rate| (rate, f64::MAX)));
    let ideal = 512.0 / 43.0;
    assert!(run.seconds < ideal * 1.05, "{} s instead of {ideal} s", run.seconds);
    assert_eq!(run.twice, 0);
    assert!(run.wasted <= 12, "{}", run.wasted);
}

#[test]
fn what_a_source_that_fails_had_to_bring_is_brought_by_others() {
    let wants: Vec<Want> = (1..3000).map(small).chain([large(64)]).collect();
    let run = play(wants, &[(20.0 * MIB as f64, 1.0), (20.0 * MIB as f64, f64::MAX)]);
    assert_eq!(run.twice, 0);
    let ideal = (64.0 + 3000.0 * 8192.0 / MIB as f64 - 20.0) / 20.0;
    assert!(run.seconds < ideal * 1.1 + 0.5, "{} s instead of {ideal} s", run.seconds);
}

#[test]
fn one_stream_alone_brings_everything_once_and_in_order() {
    let run = play((1..100).map(small).chain([large(100)]).collect(), &[(5.0 * MIB as f64, f64::MAX)]);
    assert_eq!((run.twice, run.wasted), (0, 0));
}

#[test]
fn a_robbed_stream_stops_where_its_part_ends() {
    let mut schedule = Schedule::new([large(8)]);
    let ms = Duration::from_millis;
    let first = schedule.ask(0, ms(0));
    assert_eq!(first[0].blocks, 4, "no rate is known yet");
    let second = schedule.ask(1, ms(0));
    assert_eq!((second[0].first_block, second[0].blocks), (4, 4));
    // Stream 1 has brought all of its part before stream 0 has brought a block.
    for block in 4..8 {
        assert_eq!(schedule.arrived(1, &object(0), (block, 1), MIB, ms(400)), Next::Read);
    }
    assert_eq!(schedule.arrived(0, &object(0), (0, 1), MIB, ms(1000)), Next::Read);
    let robbed = schedule.ask(1, ms(1000));
    assert_eq!((robbed[0].first_block, robbed[0].blocks), (2, 2));
    assert_eq!(schedule.arrived(0, &object(0), (1, 1), MIB, ms(2000)), Next::Stop);
    assert!(!schedule.is_done());
    schedule.arrived(1, &object(0), (2, 2), 2 * MIB, ms(2000));
    assert!(schedule.is_done());
    assert!(schedule.ask(0, ms(2000)).is_empty());
}

#[test]
fn a_stream_that_is_late_keeps_not_even_the_block_that_is_half_here() {
    let mut schedule = Schedule::new([large(8)]);
    let second = Duration::from_secs(1);
    schedule.ask(0, Duration::ZERO);
    schedule.ask(1, Duration::ZERO);
    for block in 0..3 {
        schedule.arrived(0, &object(0), (block, 1), MIB, second);
    }
    for block in 4..8 {
        schedule.arrived(1, &object(0), (block, 1), MIB, second);
    }
    // A block took it a third of a second.
    assert!(schedule.ask(1, second * 7).is_empty(), "it may still come");
    let rest = schedule.ask(1, second * 8);
    assert_eq!((rest[0].first_block, rest[0].blocks), (3, 1));
    assert_eq!(schedule.arrived(1, &object(0), (3, 1), MIB, second * 9), Next::Read);
    assert!(schedule.is_done() && schedule.is_released(0) && !schedule.is_released(1));
    assert_eq!(schedule.arrived(0, &object(0), (3, 1), MIB, second * 10), Next::Stop);
}

#[test]
fn a_stream_that_has_brought_nothing_is_late_after_half_a_minute() {
    let mut schedule = Schedule::new([large(8)]);
    let second = Duration::from_secs(1);
    schedule.ask(0, Duration::ZERO);
    schedule.ask(1, Duration::ZERO);
    for block in 4..8 {
        schedule.arrived(1, &object(0), (block, 1), MIB, second);
    }
    let robbed = schedule.ask(1, second);
    assert_eq!(robbed[0].first_block, 1, "all but what may be half here");
    for block in 1..4 {
        schedule.arrived(1, &object(0), (block, 1), MIB, second * 2);
    }
    assert!(schedule.ask(1, second * 30).is_empty());
    assert_eq!(schedule.ask(1, second * 31)[0].first_block, 0);
}

#[test]
fn what_was_never_asked_for_is_given_back_and_the_rate_kept() {
    let mut schedule = Schedule::new([large(9)]);
    let second = Duration::from_secs(1);
    schedule.ask(0, Duration::ZERO);
    for block in 0..4 {
        schedule.arrived(0, &object(0), (block, 1), MIB, second);
    }
    let ahead = schedule.ask(0, second);
    schedule.give_back(0);
    assert!(!schedule.is_done());
    assert_eq!(schedule.ask(0, second), ahead, "as much as before, and the same");
}

#[test]
fn the_next_request_goes_out_before_the_last_has_come() {
    let mut schedule = Schedule::new([large(100)]);
    schedule.ask(0, Duration::ZERO);
    assert!(!schedule.is_nearly_done(0, Duration::from_millis(80)), "its rate is not known");
    for block in 0..3 {
        schedule.arrived(0, &object(0), (block, 1), MIB, Duration::from_millis(10 * (block + 1)));
    }
    assert!(schedule.is_nearly_done(0, Duration::from_millis(80)));
    assert!(!schedule.is_nearly_done(0, Duration::from_millis(5)));
}

#[test]
fn streams_of_one_connection_take_over_nothing_from_each_other_unless_one_is_late() {
    let mut schedule = Schedule::new([large(12)]);
    let second = Duration::from_secs(1);
    (0..3).for_each(|id| schedule.runs_over(id, id / 2));
    let asked: Vec<_> = (0..3).map(|id| schedule.ask(id, Duration::ZERO)).collect();
    assert_eq!(asked.iter().map(|wants| wants[0].blocks).collect::<Vec<_>>(), [4, 4, 4]);
    for want in [&asked[1][0], &asked[2][0]] {
        let id = if want.first_block == 4 { 1 } else { 2 };
        schedule.arrived(id, &want.object, (want.first_block, want.blocks), 4 * BLOCK_BYTES, second);
    }
    assert!(schedule.ask(1, second).is_empty(), "stream 0 has all of the line now");
    assert!(!schedule.ask(1, second * 31).is_empty(), "but it brings nothing");
    schedule.fail(1);
    assert!(!schedule.ask(2, second * 31).is_empty(), "another line takes over what is left");
}
