//! Content at the pace of the limits, out and in.

use std::collections::VecDeque;

use avalon_protocol::{
    block::BLOCK_BYTES,
    wire::{Base, FetchEncoded, Want},
};
use bytes::Bytes;
use futures_util::FutureExt as _;

use super::{
    piece_fit::body_bytes,
    stream::{Inbound, Outbound, StreamFault},
    throttle::{Flow, Throttle},
};

/// Parts of a request that are under way at once: the next is asked for before the first has come, so that the line is
/// never idle for a round trip.
pub(super) const PARTS_AHEAD: usize = 2;

/// An answer whose content waits for the limits on what is sent.
#[derive(Debug)]
pub(super) struct Paced<'a> {
    throttle: &'a Throttle,
    flow: Flow<'a>,
    out: &'a mut Outbound,
}

impl<'a> Paced<'a> {
    pub(super) fn new(throttle: &'a Throttle, flow: Flow<'a>, out: &'a mut Outbound) -> Self {
        Self { throttle, flow, out }
    }

    /// Sends what is not content; no limit applies.
    pub(super) async fn frame(&mut self, bytes: Bytes) -> Result<(), StreamFault> {
        self.out.push(bytes).await
    }

    /// Sends content when the limits allow. Ends early when the peer wants no more, however long the limits keep it: an
    /// answer that waits takes the place of another one.
    pub(super) async fn content(&mut self, mut bytes: Bytes) -> Result<(), StreamFault> {
        while !bytes.is_empty() {
            let mut pass = std::pin::pin!(self.throttle.pass(self.flow, bytes.len() as u64));
            let granted = match (&mut pass).now_or_never() {
                Some(granted) => granted,
                None => {
                    // What was let through before does not wait for what is not.
                    self.out.flush().await?;
                    tokio::select! {
                        granted = pass => granted,
                        fault = self.out.stopped() => return Err(fault),
                    }
                }
            };
            let granted = usize::try_from(granted).unwrap_or(usize::MAX).min(bytes.len());
            self.out.push(bytes.split_to(granted)).await?;
        }
        Ok(())
    }
}

/// Reads exactly `bytes` bytes of content as the limits on what is received allow.
pub(super) async fn read(
    throttle: &Throttle,
    flow: Flow<'_>,
    answer: &mut Inbound,
    bytes: usize,
) -> Result<Bytes, StreamFault> {
    let mut granted = 0;
    while granted < bytes {
        let more = throttle.pass(flow, (bytes - granted) as u64).await;
        granted = granted.saturating_add(usize::try_from(more).unwrap_or(usize::MAX)).min(bytes);
        if granted < bytes && !answer.fill(granted).await? {
            return Err(StreamFault::Ended);
        }
    }
    answer.exact(bytes).await
}

/// Cuts a request into parts of about `bytes` of content each, at least a block, in the same order. A want with a base
/// stays whole: what comes of it is expected to be small.
pub(super) fn parts(fetch: FetchEncoded, bytes: u64) -> VecDeque<FetchEncoded> {
    let FetchEncoded { project, priority, compress, wants, bases } = fetch;
    let empty = || FetchEncoded {
        project: project.clone(),
        priority,
        compress,
        wants: Vec::new(),
        bases: Vec::new(),
    };
    let mut bases = bases.into_iter().peekable();
    let (mut parts, mut part, mut part_bytes) = (VecDeque::new(), empty(), 0);
    for (want, number) in wants.into_iter().zip(0u32..) {
        let base = bases.next_if(|base| base.want == number);
        let step = if base.is_some() { want.blocks } else { (bytes / BLOCK_BYTES).max(1) };
        for want in ranges(want, step) {
            let want_bytes = if base.is_some() { 0 } else { body_bytes(&want) };
            if !part.wants.is_empty() && part_bytes + want_bytes > bytes {
                parts.push_back(std::mem::replace(&mut part, empty()));
                part_bytes = 0;
            }
            let number = u32::try_from(part.wants.len()).unwrap_or(u32::MAX);
            part.bases.extend(base.map(|base| Base { want: number, ..base }));
            part.wants.push(want);
            part_bytes += want_bytes;
        }
    }
    if !part.wants.is_empty() {
        parts.push_back(part);
    }
    parts
}

/// Cuts a want into ranges of `step` blocks; the block list comes with the first.
fn ranges(want: Want, step: u64) -> impl Iterator<Item = Want> {
    let end = want.first_block.saturating_add(want.blocks);
    let count = want.blocks.div_ceil(step.max(1)).max(1);
    (0..count).map(move |index| {
        let first_block = want.first_block.saturating_add(index.saturating_mul(step));
        let blocks = step.min(end.saturating_sub(first_block));
        Want { first_block, blocks, with_list: want.with_list && index == 0, ..want }
    })
}

#[cfg(test)]
mod tests {
    use avalon_protocol::{hash::ObjectHash, plan::Priority};

    use super::*;

    fn want(byte: u8, blocks: u64, with_list: bool) -> Want {
        let object = ObjectHash::from_bytes([byte; 32]);
        Want { object, size: blocks * BLOCK_BYTES, first_block: 0, blocks, with_list }
    }

    fn fetch(wants: Vec<Want>, bases: Vec<Base>) -> FetchEncoded {
        let project = "lantern".parse().unwrap();
        FetchEncoded { project, priority: Priority::Publish, compress: true, wants, bases }
    }

    #[test]
    fn parts_ask_for_the_same_in_the_same_order() {
        let small = |byte: u8| Want { size: 100_000, ..want(byte, 1, false) };
        let list_only = Want { size: 100 * BLOCK_BYTES, blocks: 0, ..want(7, 0, true) };
        let base = Base { want: 4, object: ObjectHash::of(b"base"), size: 1000 };
        let all = vec![small(1), small(2), want(3, 5, true), list_only, want(5, 9, true), small(6)];
        let parts = parts(fetch(all, vec![base]), 2 * BLOCK_BYTES);
        let shape = |part: &FetchEncoded| -> Vec<(u8, u64, u64, bool)> {
            let wants = part.wants.iter();
            wants
                .map(|want| (want.object.as_bytes()[0], want.first_block, want.blocks, want.with_list))
                .collect()
        };
        let shapes: Vec<_> = parts.iter().map(shape).collect();
        assert_eq!(
            shapes,
            [
                vec![(1, 0, 1, false), (2, 0, 1, false)],
                vec![(3, 0, 2, true)],
                vec![(3, 2, 2, false)],
                vec![(3, 4, 1, false), (7, 0, 0, true), (5, 0, 9, true), (6, 0, 1, false)],
            ]
        );
        let bases: Vec<_> = parts.iter().flat_map(|part| part.bases.clone()).collect();
        assert_eq!(bases, [Base { want: 2, ..base }]);
    }

    #[test]
    fn a_part_is_at_least_a_block_however_slow_the_limit() {
        let parts = parts(fetch(vec![want(1, 3, false)], Vec::new()), 10);
        assert_eq!(parts.len(), 3);
        assert!(parts.iter().all(|part| part.wants[0].blocks == 1));
    }
}
