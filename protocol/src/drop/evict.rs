//! What to remove first when a node needs room: what was not used for longest, of what may go at all.

use std::collections::BTreeMap;

/// How full a project is at a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pressure {
    /// Bytes of all versions of the project that the node holds.
    pub used_bytes: u64,
    /// How many there may be, if that is limited.
    pub quota_bytes: Option<u64>,
    /// Bytes that are free on the volume.
    pub free_bytes: u64,
    /// How many are to stay free, if that is asked for.
    pub keep_free_bytes: Option<u64>,
}

impl Pressure {
    /// Returns how many bytes are to be removed: nothing within the limits. Beyond one, somewhat more than is over, so that
    /// not every version that comes makes another go: down to 95 % of the quota, or up to 105 % of what is to stay free.
    pub fn excess_bytes(&self) -> u64 {
        let over = self.quota_bytes.filter(|quota| self.used_bytes > *quota);
        let over = over.map_or(0, |quota| self.used_bytes - (quota - quota / 20));
        let lacking = self.keep_free_bytes.filter(|keep| self.free_bytes < *keep);
        let lacking = lacking.map_or(0, |keep| keep.saturating_add(keep / 20) - self.free_bytes);
        over.max(lacking)
    }

    /// Returns how many bytes are to be removed before so many more are within the limits, as [`Pressure::excess_bytes`]: what
    /// belongs here, and would not be removed again, does not wait behind what may go.
    pub fn excess_bytes_for(&self, bytes: u64) -> u64 {
        let used_bytes = self.used_bytes.saturating_add(bytes);
        let free_bytes = self.free_bytes.saturating_sub(bytes);
        Self { used_bytes, free_bytes, ..*self }.excess_bytes()
    }

    /// Says whether so many bytes more are within the limits. What comes by itself waits for that.
    pub fn has_room_for(&self, bytes: u64) -> bool {
        self.quota_bytes.is_none_or(|quota| self.used_bytes.saturating_add(bytes) <= quota)
            && self.keep_free_bytes.is_none_or(|keep| self.free_bytes.saturating_sub(bytes) >= keep)
    }

    /// As [`Pressure::has_room_for`], for what would be removed here to make room: it comes only where so much room is left
    /// that the next version does not send it away again, 10 % of the quota.
    pub fn has_much_room_for(&self, bytes: u64) -> bool {
        let spare = self.quota_bytes.map_or(0, |quota| quota / 10);
        self.has_room_for(bytes.saturating_add(spare))
    }
}

/// A version that the node holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate<T> {
    /// Which one.
    pub what: T,
    /// How many bytes go with it.
    pub bytes: u64,
    /// When it was last read, written, served or pulled, in milliseconds since 1970, as far as that is known.
    pub last_used_ms: u64,
    /// It was retired: it goes before what was not.
    pub is_retired: bool,
    /// Why it stays, if it does.
    pub guard: Option<Guard>,
}

/// Why a version is not removed to make room.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Guard {
    /// Somebody pinned it.
    Pinned,
    /// It belongs here, or is among the newest that are kept: by the policy, or because the node mirrors.
    Kept,
    /// What the policy says of it is not known yet.
    NotKnown,
    /// Sites published different content under its number.
    Conflict,
    /// A program has a file of it open.
    Open,
    /// It was used a short while ago.
    Recent,
    /// It is being fetched or growing.
    Coming,
    /// Its files here are not those that were published.
    Changed,
    /// Too few other sites proved that they have it.
    TooFewCopies,
    /// An error prevents it.
    Unable,
}

impl Guard {
    /// Returns the word that scripts see.
    pub fn code(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Kept => "kept",
            Self::NotKnown => "not-known",
            Self::Conflict => "conflict",
            Self::Open => "open",
            Self::Recent => "recent",
            Self::Coming => "coming",
            Self::Changed => "changed",
            Self::TooFewCopies => "too-few-copies",
            Self::Unable => "unable",
        }
    }
}

/// What may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice<T> {
    /// In this order; no more than needed.
    pub victims: Vec<T>,
    /// How many bytes go with them.
    pub bytes: u64,
    /// What stays although there is too little room; empty when the victims make room enough.
    pub blocked: Blocked,
}

/// Versions that stay, by the reason.
pub type Blocked = BTreeMap<Guard, (u64, u64)>;

/// Chooses what goes to make room for `excess_bytes`: retired versions first, then what was not used for longest; of equals
/// the larger one, then the first in order. With 0 nothing goes.
///
/// [`Choice::blocked`] has the number of versions and of bytes for each reason.
pub fn choose<T: Ord + Clone>(candidates: &[Candidate<T>], excess_bytes: u64) -> Choice<T> {
    let mut free: Vec<&Candidate<T>> = candidates.iter().filter(|c| c.guard.is_none()).collect();
    free.sort_by(|a, b| {
        let age = (!a.is_retired, a.last_used_ms).cmp(&(!b.is_retired, b.last_used_ms));
        age.then(b.bytes.cmp(&a.bytes)).then_with(|| a.what.cmp(&b.what))
    });
    let mut choice = Choice { victims: Vec::new(), bytes: 0, blocked: Blocked::new() };
    for candidate in free {
        if choice.bytes >= excess_bytes {
            break;
        }
        choice.bytes = choice.bytes.saturating_add(candidate.bytes);
        choice.victims.push(candidate.what.clone());
    }
    if choice.bytes < excess_bytes {
        for candidate in candidates {
            let Some(guard) = candidate.guard else { continue };
            let (versions, bytes) = choice.blocked.entry(guard).or_default();
            *versions += 1;
            *bytes += candidate.bytes;
        }
    }
    choice
}

/// Chooses what goes so that the smallest of those comes that belong here and wait for room, of these sizes. Nothing goes when
/// that one has room already, or when all that may go is not enough for it.
pub fn choose_for<T: Ord + Clone>(
    candidates: &[Candidate<T>],
    pressure: &Pressure,
    waiting: impl IntoIterator<Item = u64>,
) -> Choice<T> {
    let smallest = waiting.into_iter().min();
    let excess = smallest.map_or(0, |bytes| pressure.excess_bytes_for(bytes));
    let choice = choose(candidates, excess);
    if choice.bytes >= excess { choice } else { choose(&[], 0) }
}
