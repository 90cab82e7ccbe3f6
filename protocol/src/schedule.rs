//! Which stream brings which blocks of a version. Pure: the shell reports what arrives and when.
//!
//! Every stream asks for about as much as it brings in a second, so that all end at about the same time, whatever their
//! sources can do. When nothing is left to ask for, a stream that is done takes over the tail of the one that would be the
//! last; that one stops where its own part now ends. So nothing is asked for twice but what was on its way.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::{
    block::{BLOCK_BYTES, block_range},
    hash::ObjectHash,
    limits::MAX_WANTS,
    wire::Want,
};

/// What a stream asks for at first and at least: the next request is on its way long before it has come.
const LEAST_BYTES: u64 = 4 << 20;
/// And at most, about.
const MOST_BYTES: u64 = 32 << 20;
/// How much a request brings, in time.
const REQUEST_TIME: Duration = Duration::from_secs(1);
/// A tail is taken over only when that saves more time than this.
const WORTH: Duration = Duration::from_millis(100);

/// A stream that has brought nothing for this long, and for four times as long as a block takes it, is late: all that it
/// was asked for is brought by others.
const LATE: Duration = Duration::from_secs(5);
/// The same for a stream that has brought nothing yet.
const LATE_AT_FIRST: Duration = Duration::from_secs(30);

/// Names a stream.
pub type StreamId = u32;

/// What a stream does after something arrived on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It reads on.
    Read,
    /// The rest of its answer is somebody else's now: it stops the answer, and asks for more.
    Stop,
}

/// The blocks that are missing, and who brings which.
#[derive(Debug, Default)]
pub struct Schedule {
    queue: VecDeque<Want>,
    streams: BTreeMap<StreamId, Stream>,
}

#[derive(Debug, Default)]
struct Stream {
    /// What it was asked for and has not brought, in order: of this request and of the next one, if that is sent.
    missing: VecDeque<Want>,
    /// How many bytes that is.
    missing_bytes: u64,
    /// A part of it was given to somebody else.
    robbed: bool,
    /// When it was asked, and how many bytes it has brought since.
    asked: Option<Duration>,
    brought: u64,
    /// When it last brought something, or had nothing to bring.
    heard: Duration,
    /// Bytes per second, over what it brought so far.
    rate: f64,
}

fn bytes_of(want: &Want) -> u64 {
    let last = want.first_block.saturating_add(want.blocks).saturating_sub(1);
    if want.blocks == 0 {
        return 0;
    }
    block_range(want.size, last).end - block_range(want.size, want.first_block).start
}

/// Splits a want after `blocks` blocks; only the first part brings the block list.
fn split(want: Want, blocks: u64) -> (Want, Want) {
    let head = Want { blocks, ..want };
    let tail = Want {
        first_block: want.first_block + blocks,
        blocks: want.blocks - blocks,
        with_list: false,
        ..want
    };
    (head, tail)
}

impl Schedule {
    /// Begins with everything that is missing, in the order in which it should come.
    pub fn new(wants: impl IntoIterator<Item = Want>) -> Self {
        Self { queue: wants.into_iter().collect(), streams: BTreeMap::new() }
    }

    /// Returns what a stream asks for next; nothing when no other stream can be helped either. That may change as long as
    /// others have not brought theirs.
    pub fn ask(&mut self, id: StreamId, now: Duration) -> Vec<Want> {
        let stream = self.streams.entry(id).or_default();
        if stream.missing.is_empty() {
            stream.robbed = false;
            stream.heard = now;
        }
        let wants = if self.queue.is_empty() { self.rob(id, now) } else { self.take(id) };
        let stream = self.streams.entry(id).or_default();
        if stream.asked.is_none() {
            stream.asked = Some(now);
        }
        stream.missing_bytes += wants.iter().map(bytes_of).sum::<u64>();
        stream.missing.extend(&wants);
        wants
    }

    /// Returns how many bytes a stream asks for next, about: less when less is missing, up to a block more.
    pub fn next_bytes(&self, id: StreamId) -> u64 {
        let rate = self.streams.get(&id).map_or(0.0, |stream| stream.rate);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "clamped on the next line"
        )]
        let bytes = (rate * REQUEST_TIME.as_secs_f64()) as u64;
        bytes.clamp(LEAST_BYTES, MOST_BYTES)
    }

    fn take(&mut self, id: StreamId) -> Vec<Want> {
        let goal = self.next_bytes(id);
        let (mut wants, mut sum) = (Vec::new(), 0);
        while sum < goal && wants.len() < MAX_WANTS {
            let Some(want) = self.queue.pop_front() else { break };
            let blocks = (goal - sum).div_ceil(BLOCK_BYTES);
            let want = if want.blocks > blocks && !want.with_list {
                let (head, tail) = split(want, blocks);
                self.queue.push_front(tail);
                head
            } else {
                want
            };
            sum += bytes_of(&want);
            wants.push(want);
        }
        wants
    }

    /// Takes over the tail of the stream that would end last, so that both end together, or all of one that is late.
    fn rob(&mut self, id: StreamId, now: Duration) -> Vec<Want> {
        let my_rate = self.streams.get(&id).map_or(0.0, |stream| stream.rate);
        // A stream that has not brought anything yet says nothing about its source.
        if my_rate <= 0.0 {
            return Vec::new();
        }
        let mut late = self.streams.iter_mut().filter(|(other, stream)| **other != id && stream.is_late(now));
        if let Some((_, stream)) = late.next() {
            stream.robbed = true;
            stream.missing_bytes = 0;
            return stream.missing.drain(..).collect();
        }
        let others =
            self.streams.iter().filter(|(other, stream)| **other != id && !stream.missing.is_empty());
        let last = others.max_by(|a, b| a.1.time_left().total_cmp(&b.1.time_left()));
        let Some(victim) = last.map(|(other, _)| *other) else { return Vec::new() };
        let Some(victim) = self.streams.get_mut(&victim) else { return Vec::new() };
        let share = my_rate / (my_rate + victim.rate.max(1.0));
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a share of the bytes, to the block"
        )]
        let goal = (victim.missing_bytes as f64 * share) as u64;
        let saved =
            victim.time_left() - victim.missing_bytes.saturating_sub(goal) as f64 / victim.rate.max(1.0);
        if saved < WORTH.as_secs_f64() {
            return Vec::new();
        }
        victim.give_up(goal)
    }

    /// Takes note of blocks that arrived on a stream: `blocks` of `object` from `first` on, `bytes` of content.
    pub fn arrived(
        &mut self,
        id: StreamId,
        object: &ObjectHash,
        (first, blocks): (u64, u64),
        bytes: u64,
        now: Duration,
    ) -> Next {
        let Some(stream) = self.streams.get_mut(&id) else { return Next::Stop };
        stream.brought += bytes;
        stream.heard = now;
        if let Some(asked) = stream.asked {
            let elapsed = now.saturating_sub(asked).as_secs_f64();
            #[expect(clippy::cast_precision_loss, reason = "a rate")]
            let brought = stream.brought as f64;
            stream.rate = brought / elapsed.max(0.001);
            // Of the last seconds, about: sources become slower and faster.
            if elapsed > 4.0 {
                stream.asked = Some(now.saturating_sub(Duration::from_secs(2)));
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a rate is not negative"
                )]
                let kept = (stream.rate * 2.0) as u64;
                stream.brought = kept;
            }
        }
        stream.strike(object, first, blocks);
        if stream.missing.is_empty() && stream.robbed { Next::Stop } else { Next::Read }
    }

    /// Takes note that a stream brings no blocks of an object: only its block list was asked for, or the source does not
    /// have it.
    pub fn passed_over(&mut self, id: StreamId, object: &ObjectHash) {
        if let Some(stream) = self.streams.get_mut(&id) {
            let removed: u64 =
                stream.missing.iter().filter(|want| want.object == *object).map(bytes_of).sum();
            stream.missing.retain(|want| want.object != *object);
            stream.missing_bytes -= removed;
        }
    }

    /// Says whether a stream has so little left that its next request should go out now: less than `ahead` of time.
    pub fn is_nearly_done(&self, id: StreamId, ahead: Duration) -> bool {
        let left = self.streams.get(&id).map_or(0.0, Stream::time_left);
        left <= ahead.as_secs_f64() && !self.queue.is_empty()
    }

    /// Takes back what a stream was to ask for and did not, after its request was answered: the next request was given up
    /// before it was sent.
    pub fn give_back(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.get_mut(&id) {
            stream.missing_bytes = 0;
            for want in stream.missing.drain(..).rev() {
                self.queue.push_front(want);
            }
        }
    }

    /// Takes back what a stream was asked for and has not brought.
    pub fn fail(&mut self, id: StreamId) {
        if let Some(stream) = self.streams.remove(&id) {
            for want in stream.missing.into_iter().rev() {
                self.queue.push_front(want);
            }
        }
    }

    /// Says whether everything has arrived, and what a stream still brings is of no use: others have brought its part.
    pub fn is_released(&self, id: StreamId) -> bool {
        self.is_done() && self.streams.get(&id).is_some_and(|stream| stream.robbed)
    }

    /// Says whether everything has arrived.
    pub fn is_done(&self) -> bool {
        self.queue.is_empty() && self.streams.values().all(|stream| stream.missing.is_empty())
    }
}

impl Stream {
    /// Seconds until it has brought what it was asked for; long for one that has brought nothing yet.
    fn time_left(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a time for comparing")]
        let bytes = self.missing_bytes as f64;
        bytes / self.rate.max(1.0)
    }

    fn is_late(&self, now: Duration) -> bool {
        let silence = now.saturating_sub(self.heard);
        #[expect(clippy::cast_precision_loss, reason = "a time for comparing")]
        let allowed = match self.rate > 0.0 {
            true => LATE.as_secs_f64() + 4.0 * BLOCK_BYTES as f64 / self.rate,
            false => LATE_AT_FIRST.as_secs_f64(),
        };
        !self.missing.is_empty() && silence.as_secs_f64() > allowed
    }

    fn strike(&mut self, object: &ObjectHash, first: u64, blocks: u64) {
        let Some(place) = self.missing.iter().position(|want| {
            want.object == *object
                && want.first_block <= first
                && first < want.first_block + want.blocks.max(1)
        }) else {
            return;
        };
        let Some(want) = self.missing.get_mut(place) else { return };
        let before = bytes_of(want);
        let end = want.first_block + want.blocks;
        want.first_block = (first + blocks).min(end);
        want.blocks = end - want.first_block;
        want.with_list = false;
        let after = bytes_of(want);
        if want.blocks == 0 {
            self.missing.remove(place);
        }
        self.missing_bytes -= before - after;
    }

    /// Gives up about `goal` bytes from the end, but not what may be half here already.
    fn give_up(&mut self, goal: u64) -> Vec<Want> {
        let (mut given, mut sum) = (VecDeque::new(), 0);
        while sum < goal {
            let Some(want) = self.missing.pop_back() else { break };
            let bytes = bytes_of(&want);
            let is_first = self.missing.is_empty();
            let keep = if want.with_list {
                // Its blocks mean nothing without the list, which comes in front of them.
                if sum + bytes > goal || is_first { want.blocks } else { 0 }
            } else if sum + bytes > goal || is_first {
                let spare = (goal - sum) / BLOCK_BYTES;
                want.blocks.saturating_sub(spare).max(u64::from(is_first))
            } else {
                0
            };
            if keep >= want.blocks {
                self.missing.push_back(want);
                break;
            }
            if keep > 0 {
                let (head, tail) = split(want, keep);
                self.missing.push_back(head);
                sum += bytes_of(&tail);
                given.push_front(tail);
                break;
            }
            sum += bytes;
            given.push_front(want);
        }
        self.missing_bytes -= sum;
        self.robbed |= !given.is_empty();
        given.into()
    }
}

#[cfg(test)]
mod tests {
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
                if source.sending.is_empty() && source.free_at <= run.seconds && run.seconds < source.dies_at
                {
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
            let next = (0u32..).zip(&sources).filter(|(_, source)| !source.sending.is_empty()).map(
                |(id, source)| {
                    let (want, block) = source.sending[0];
                    let bytes = block_range(want.size, block);
                    (id, source.free_at + (bytes.end - bytes.start) as f64 / source.rate)
                },
            );
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
            if schedule.arrived(id, &want.object, (block, 1), bytes.end - bytes.start, time(at)) == Next::Stop
            {
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
}
