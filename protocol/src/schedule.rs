//! Which stream brings which blocks of a version. Pure: the shell reports what arrives and when.
//!
//! Every stream asks for about as much as it brings in a second, so that all end at about the same time, whatever their
//! sources can do. When nothing is left to ask for, a stream that is done takes over the tail of the one that would be the
//! last; that one stops where its own part now ends. So nothing is asked for twice but what was on its way. Streams over one
//! connection share its line: what one of them stops bringing sooner, the others bring faster, so they take over nothing from each
//! other, unless one is late.

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
    /// The connection that it runs over; its own where nobody said.
    line: Option<u32>,
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

    /// Says which connection a stream runs over, by any number.
    pub fn runs_over(&mut self, id: StreamId, line: u32) {
        self.streams.entry(id).or_default().line = Some(line);
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
        let (my_rate, line) = self.streams.get(&id).map_or((0.0, None), |stream| (stream.rate, stream.line));
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
        let others = self.streams.iter().filter(|(other, stream)| {
            let shares_line = line.is_some() && stream.line == line;
            **other != id && !shares_line && !stream.missing.is_empty()
        });
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
            self.streams.insert(id, Stream { line: stream.line, ..Stream::default() });
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
mod tests;
