//! Reading groups of a feed that is open, from any thread, while it grows.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, BufReader, Read as _, Seek as _, SeekFrom},
    sync::{PoisonError, RwLock},
};

use avalon_protocol::{
    access::Role,
    feed::{FeedHead, FeedId, FeedReader, Group, SealedGroup},
    hash::ChainHash,
    signing::{Certified, Signer},
};

use super::{
    FeedFileError,
    segment::{Frame, HEADER_BYTES, file_name, peek, read_frame},
};
use crate::fs::{Dir, IoError};

/// Returns the records of a group that is on disk, where it came only after a check, and the head behind it.
pub(crate) fn body_of(group: &SealedGroup) -> Option<(Group, FeedHead)> {
    let body: Group = postcard::from_bytes(&group.body).ok()?;
    let next_seq = body.first_seq + body.records.len() as u64;
    Some((body, FeedHead { next_seq, chain: group.chain() }))
}

/// How many bytes of groups are passed over at most before the wanted one.
const MARK_EVERY_BYTES: u64 = 64 << 10;

/// Where the groups of one feed lie, as far as they are durable.
#[derive(Debug)]
pub(crate) struct FeedIndex {
    feed: FeedId,
    dir: Dir,
    state: RwLock<State>,
}

#[derive(Debug, Clone)]
struct State {
    head: FeedHead,
    /// The durable length of each segment.
    lengths: Vec<u64>,
    /// Where some groups start, by the numbers of their first records; at least the first of each segment.
    marks: BTreeMap<u64, Position>,
    last_mark: Position,
    /// From which record on it is signed under which certificate.
    certified: Vec<(u64, Certified)>,
    /// From which record on which role counts: not always that of the certificate.
    roles: Vec<(u64, Role)>,
}

/// Returns what holds at a record, where each entry holds from its record on.
fn at<T>(entries: &[(u64, T)], seq: u64) -> Option<&T> {
    let behind = entries.partition_point(|(from_seq, _)| *from_seq <= seq);
    entries.get(..behind)?.last().map(|(_, entry)| entry)
}

/// A place in a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) segment: u32,
    pub(super) offset: u64,
}

impl FeedIndex {
    pub(super) fn new(feed: FeedId, dir: Dir) -> Self {
        let state = State {
            head: FeedHead::EMPTY,
            lengths: Vec::new(),
            marks: BTreeMap::new(),
            last_mark: Position { segment: 0, offset: 0 },
            certified: Vec::new(),
            roles: Vec::new(),
        };
        Self { feed, dir, state: RwLock::new(state) }
    }

    pub(crate) fn feed(&self) -> &FeedId {
        &self.feed
    }

    pub(super) fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Returns how far the feed is durable.
    pub(crate) fn head(&self) -> FeedHead {
        self.state.read().unwrap_or_else(PoisonError::into_inner).head
    }

    /// Returns how many bytes it takes on disk.
    pub(crate) fn bytes(&self) -> u64 {
        self.state.read().unwrap_or_else(PoisonError::into_inner).lengths.iter().sum()
    }

    /// Notes a segment that has only its header.
    pub(super) fn add_segment(&self) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.lengths.push(HEADER_BYTES);
    }

    /// Returns the role of the certificate under which the group with this record is signed.
    pub(crate) fn role_at(&self, seq: u64) -> Option<Role> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        at(&state.roles, seq).copied()
    }

    /// Returns under what the group with this record is signed, as far as that decides about rights.
    pub(crate) fn signer_at(&self, seq: u64) -> Option<Signer> {
        let role = self.role_at(seq)?;
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        Some(Signer { role, certificates: at(&state.certified, seq)?.certificates })
    }

    /// Returns under what it is signed from which record on, as far as that decides about rights.
    pub(crate) fn signers(&self) -> Vec<(u64, Signer)> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let roles = state.roles.iter().map(|(seq, _)| *seq);
        let starts: BTreeSet<u64> = state.certified.iter().map(|(seq, _)| *seq).chain(roles).collect();
        let signer = |seq| {
            let (role, certified) = (at(&state.roles, seq)?, at(&state.certified, seq)?);
            Some((seq, Signer { role: *role, certificates: certified.certificates }))
        };
        starts.into_iter().filter_map(signer).collect()
    }

    /// Returns under which certificates a group that begins at this record may be signed: that of the group with the record before
    /// it, and the one before that, for the group may be where that one came.
    pub(crate) fn certified_before(&self, seq: u64) -> Vec<Certified> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let before = state.certified.iter().rev().filter(|(from_seq, _)| *from_seq < seq);
        before.take(2).map(|(_, one)| *one).collect()
    }

    /// Says whether some of it is signed under a certificate with this role.
    pub(crate) fn has_role(&self, role: Role) -> bool {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.roles.iter().any(|(_, known)| *known == role)
    }

    /// Returns the chain hash behind the group with the record before `seq`; nothing when that is not here.
    pub(crate) fn chain_before(&self, seq: u64) -> Result<Option<ChainHash>, FeedFileError> {
        let head = self.head();
        if seq == 0 {
            return Ok(Some(ChainHash::EMPTY));
        }
        if seq >= head.next_seq {
            return Ok((seq == head.next_seq).then_some(head.chain));
        }
        let has_it = |group: &SealedGroup| group.claimed_start().is_some_and(|start| start < seq);
        Ok(self.around(seq)?.into_iter().find(has_it).map(|group| group.chain()))
    }

    /// Notes a durable group that takes `bytes` at `position`, after which the feed stands where `reader` does.
    pub(super) fn add_group(&self, position: Position, bytes: u64, reader: &FeedReader) {
        let head = reader.head();
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        let first_seq = state.head.next_seq;
        let far = position.offset.saturating_sub(state.last_mark.offset) >= MARK_EVERY_BYTES;
        if state.marks.is_empty() || position.segment != state.last_mark.segment || far {
            state.marks.insert(first_seq, position);
            state.last_mark = position;
        }
        let is_new = |one: &Certified| state.certified.last().is_none_or(|(_, last)| last != one);
        if let Some(one) = reader.certified().filter(is_new) {
            state.certified.push((first_seq, one));
        }
        let is_new = |role: &Role| state.roles.last().is_none_or(|(_, last)| last != role);
        if let Some(role) = reader.role().filter(is_new) {
            state.roles.push((first_seq, role));
        }
        state.head = head;
        if let Some(length) = state.lengths.last_mut() {
            *length = position.offset + bytes;
        }
    }

    /// Returns whole groups from the one that starts at `from_seq`: as many as fit into `max_bytes`, but one if there is
    /// one. At and beyond the head there is none.
    pub(crate) fn read(&self, from_seq: u64, max_bytes: usize) -> Result<Vec<SealedGroup>, FeedFileError> {
        let mut groups = Vec::new();
        let mut taken = 0;
        self.visit(from_seq, |group| {
            taken += group.body.len() + group.signature.len();
            if groups.is_empty() || taken <= max_bytes {
                groups.push(group);
                true
            } else {
                false
            }
        })?;
        Ok(groups)
    }

    /// Returns the groups around the place before record `seq`: the one that ends there and the one that begins there, or the
    /// one that it lies in. Reads from the last mark before.
    pub(crate) fn around(&self, seq: u64) -> Result<Vec<SealedGroup>, FeedFileError> {
        let mark = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            state.marks.range(..seq).next_back().map_or(0, |(first_seq, _)| *first_seq)
        };
        let mut around = Vec::new();
        self.visit(mark, |group| {
            let (Some(start), Some(end)) = (group.claimed_start(), group.claimed_end()) else { return false };
            if end >= seq && start <= seq {
                around.push(group);
            }
            start <= seq
        })?;
        Ok(around)
    }

    /// Reads everything back: returns how many groups there are.
    pub(crate) fn count_groups(&self) -> Result<u64, FeedFileError> {
        let mut previous = FeedHead::EMPTY.chain;
        let mut groups = 0;
        let mut broken = None;
        self.visit(0, |group| {
            let follows = body_of(&group).is_some_and(|(body, _)| body.previous == previous);
            previous = group.chain();
            groups += 1;
            broken = (!follows).then(|| peek(&group).map_or(0, |(_, seq)| seq));
            follows
        })?;
        match broken {
            None => Ok(groups),
            Some(seq) => Err(FeedFileError::NotABoundary { feed: self.feed.clone(), seq }),
        }
    }

    /// Calls `each` for every group from the one that starts at `from_seq`, until it returns false.
    fn visit(&self, from_seq: u64, mut each: impl FnMut(SealedGroup) -> bool) -> Result<(), FeedFileError> {
        let (head, mark, lengths) = {
            let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
            let mark = state.marks.range(..=from_seq).next_back().map(|(_, position)| *position);
            (state.head, mark, state.lengths.clone())
        };
        let Some(mark) = mark.filter(|_| from_seq < head.next_seq) else { return Ok(()) };
        let mut started = false;
        for (segment, length) in (0u32..).zip(lengths).skip(mark.segment as usize) {
            let offset = if segment == mark.segment { mark.offset } else { HEADER_BYTES };
            let done = self.visit_segment(Position { segment, offset }, length, |first_seq, group| {
                if first_seq < from_seq {
                    return Ok(true);
                }
                if first_seq > from_seq && !started {
                    return Err(FeedFileError::NotABoundary { feed: self.feed.clone(), seq: from_seq });
                }
                started = true;
                Ok(each(group))
            })?;
            if done {
                return Ok(());
            }
        }
        if started {
            Ok(())
        } else {
            Err(FeedFileError::NotABoundary { feed: self.feed.clone(), seq: from_seq })
        }
    }

    /// Calls `each` for the groups from `start` to `length`; returns true once it returned false.
    fn visit_segment(
        &self,
        start: Position,
        length: u64,
        mut each: impl FnMut(u64, SealedGroup) -> Result<bool, FeedFileError>,
    ) -> Result<bool, FeedFileError> {
        let Position { segment, mut offset } = start;
        let damaged = |offset| FeedFileError::Damaged { feed: self.feed.clone(), segment, offset };
        let name = file_name(segment);
        let io = |source| FeedFileError::Io { feed: self.feed.clone(), source };
        let mut file = self.dir.open_file(&name).map_err(io)?;
        file.seek(SeekFrom::Start(offset)).map_err(|error| io(self.io_error("seek in", segment, error)))?;
        let mut input = BufReader::with_capacity(1 << 16, file.take(length.saturating_sub(offset)));
        while offset < length {
            let frame = read_frame(&mut input).map_err(|error| io(self.io_error("read", segment, error)))?;
            let Frame::Good(group, bytes) = frame else { return Err(damaged(offset)) };
            let (_, first_seq) = peek(&group).ok_or_else(|| damaged(offset))?;
            if !each(first_seq, group)? {
                return Ok(true);
            }
            offset += bytes;
        }
        Ok(false)
    }

    pub(super) fn io_error(&self, action: &'static str, segment: u32, error: io::Error) -> IoError {
        IoError::new(action, self.dir.path().join(file_name(segment).as_str()), error)
    }
}
