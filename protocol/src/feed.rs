//! Feeds: the append-only, hash-chained, signed records of one node about one project.
//!
//! The unit is the *group*: all records that one fsync made durable. A group names its feed, where it stands in it and
//! the head before it; its own head is the hash of its bytes, so a head covers everything up to it, and one signature
//! over the head authenticates it all. [`FeedReader`] is the only judge of what may follow what; the disk, the wire and
//! the simulation all go through it.

mod reread;

pub use self::reread::FeedRereader;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{
    access::Role,
    bounded,
    hash::ChainHash,
    id::{NodeId, ProjectName},
    limits::{MAX_GROUP_BYTES, MAX_GROUP_RECORDS},
    record::{Key, RawRecord, Record},
    signing::{Certified, RecordSigner, RecordTrust, Signature, Signer, UntrustedCertificate},
};

/// Which feed: one node's statements about one project.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FeedId {
    /// The project that it is about.
    pub project: ProjectName,
    /// The node that states it.
    pub node: NodeId,
}

impl FeedId {
    /// Says whether it is one of the studio's own feeds.
    pub fn is_of_studio(&self) -> bool {
        self.project.is_studio()
    }
}

impl std::fmt::Display for FeedId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.project, self.node)
    }
}

/// How far a feed goes: the number of the next record, and the head up to there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FeedHead {
    /// How many records there are; also the number of the next.
    pub next_seq: u64,
    /// The head of the chain.
    pub chain: ChainHash,
}

impl FeedHead {
    /// The head of a feed without records.
    pub const EMPTY: Self = Self { next_seq: 0, chain: ChainHash::EMPTY };
}

/// What is hashed and signed: one commit group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// The layout; 1.
    format: u16,
    /// Which feed it belongs to.
    pub feed: FeedId,
    /// The number of its first record.
    pub first_seq: u64,
    /// The head before it.
    pub previous: ChainHash,
    /// When it was written, in milliseconds since 1970; for display only, never for order.
    pub written_at_ms: u64,
    /// The records, at least one.
    #[serde(deserialize_with = "bounded::list::<_, _, MAX_GROUP_RECORDS>")]
    pub records: Vec<RawRecord>,
}

/// A group as it is stored and sent: its bytes and the signature over their head.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SealedGroup {
    /// The group in postcard.
    pub body: Vec<u8>,
    /// Ed25519 by the feed's key over [`SIGNATURE_DOMAIN`] and the head; 64 bytes.
    pub signature: Vec<u8>,
}

impl std::fmt::Debug for SealedGroup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SealedGroup({} bytes, {:?})", self.body.len(), self.chain())
    }
}

/// What precedes the head in the signed message, so that a signature is good for nothing else.
pub const SIGNATURE_DOMAIN: &[u8] = b"avalon/v1/feed\0";

const FORMAT: u16 = 1;

/// Why a group cannot follow a feed.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum FeedError {
    /// The bytes are not a group, or break a limit.
    #[error("a group of feed {feed} is damaged")]
    Damaged {
        /// The feed that it should belong to.
        feed: FeedId,
    },
    /// Written by a newer version of this software.
    #[error("a group of feed {feed} has format {format}, this version reads {FORMAT}; upgrade avalond here")]
    NewerFormat {
        /// The feed.
        feed: FeedId,
        /// The format that it has.
        format: u16,
    },
    /// It belongs to another feed.
    #[error("a group of feed {found} stands in feed {feed}")]
    WrongFeed {
        /// The feed that it was given for.
        feed: FeedId,
        /// The feed that it names.
        found: FeedId,
    },
    /// Records between are missing.
    #[error("feed {feed} goes on at record {found}, here it ends at {expected}")]
    Gap {
        /// The feed.
        feed: FeedId,
        /// Where it should go on.
        expected: u64,
        /// Where the group starts.
        found: u64,
    },
    /// The same place in the feed has two histories: a restored backup, or a node that lies.
    #[error(
        "feed {feed} has two histories at record {seq}; its node was restored from a backup or is not honest"
    )]
    Fork {
        /// The feed.
        feed: FeedId,
        /// Where they part.
        seq: u64,
    },
    /// The first record is not a certificate.
    #[error("feed {feed} does not start with the certificate of its node")]
    NoKey {
        /// The feed.
        feed: FeedId,
    },
    /// The certificate is not the node's.
    #[error("feed {feed} carries a certificate that is refused")]
    Certificate {
        /// The feed.
        feed: FeedId,
        /// Why.
        #[source]
        source: UntrustedCertificate,
    },
    /// The signature is not the node's.
    #[error("the signature of feed {feed} at record {seq} is wrong")]
    Signature {
        /// The feed.
        feed: FeedId,
        /// The first record of the group.
        seq: u64,
    },
}

impl SealedGroup {
    /// Returns the head after this group: BLAKE3 of its bytes under a domain of its own. The bytes contain the head
    /// before, so this covers all of the feed.
    pub fn chain(&self) -> ChainHash {
        let mut hasher = blake3::Hasher::new_derive_key("avalon 2026 feed chain v1");
        ChainHash::from_bytes(*hasher.update(&self.body).finalize().as_bytes())
    }

    /// Returns the number of the record after this group, as the group says it; `None` when it does not parse. Nothing is
    /// verified.
    pub fn claimed_end(&self) -> Option<u64> {
        let body: Group = postcard::from_bytes(&self.body).ok()?;
        body.first_seq.checked_add(body.records.len() as u64)
    }

    /// Returns the number of its first record, as the group says it; `None` when it does not parse. Nothing is verified.
    pub fn claimed_start(&self) -> Option<u64> {
        let ((_format, _feed, first_seq), _) =
            postcard::take_from_bytes::<(u16, FeedId, u64)>(&self.body).ok()?;
        Some(first_seq)
    }

    /// Makes a group that nobody signed.
    #[cfg(test)]
    pub(crate) fn unsigned(feed: &FeedId, first_seq: u64, count: usize) -> Self {
        Self::unsigned_after(feed, first_seq, count, ChainHash::EMPTY)
    }

    /// As [`Self::unsigned`], after this head.
    #[cfg(test)]
    pub(crate) fn unsigned_after(feed: &FeedId, first_seq: u64, count: usize, previous: ChainHash) -> Self {
        let record = RawRecord { kind: 900, version: 1, payload: Vec::new() };
        let group = Group {
            format: FORMAT,
            feed: feed.clone(),
            first_seq,
            previous,
            written_at_ms: 0,
            records: vec![record; count],
        };
        Self { body: postcard::to_stdvec(&group).unwrap(), signature: Vec::new() }
    }
}

/// Returns the last certificate in a group.
fn certificate_in(body: &Group) -> Option<Vec<u8>> {
    let mut certificates = body.records.iter().filter_map(|raw| match Record::from_raw(raw) {
        Ok(Record::Key(Key { certificate })) => Some(certificate),
        _ => None,
    });
    certificates.next_back()
}

fn signed_message(chain: ChainHash) -> Vec<u8> {
    [SIGNATURE_DOMAIN, chain.as_bytes()].concat()
}

/// Where a feed stands: its head and the key that signs what comes next. Judges and seals groups.
#[derive(Debug, Clone)]
pub struct FeedReader {
    feed: FeedId,
    head: FeedHead,
    signed_by: Option<Certified>,
    /// The newest certificate so far; of several that begin at one time the last.
    newest: Option<Certified>,
}

impl FeedReader {
    /// Starts at the beginning of a feed.
    pub fn new(feed: FeedId) -> Self {
        Self { feed, head: FeedHead::EMPTY, signed_by: None, newest: None }
    }

    /// Returns which feed it reads.
    pub fn feed(&self) -> &FeedId {
        &self.feed
    }

    /// Returns how far it has read.
    pub fn head(&self) -> FeedHead {
        self.head
    }

    /// Returns what the certificate says that the last group was signed under; none before the first.
    pub fn certified(&self) -> Option<Certified> {
        self.signed_by
    }

    /// Says whether the node signed a group that claims a place which has been read already, under the certificate in it or else
    /// one of `known`, those that its feed had there.
    pub fn has_signed(&self, group: &SealedGroup, known: &[Certified], trust: &dyn RecordTrust) -> bool {
        let Ok(body) = self.accept_body(group) else { return false };
        let is_by = |certified: &Certified| self.check_signature(group, certified, trust).is_some();
        match certificate_in(&body) {
            Some(certificate) => trust.prove(&certificate, &self.feed.node).is_ok_and(|one| is_by(&one)),
            None => known.iter().any(is_by),
        }
    }

    /// Returns the chain hash of a group if it is signed so.
    fn check_signature(
        &self,
        group: &SealedGroup,
        certified: &Certified,
        trust: &dyn RecordTrust,
    ) -> Option<ChainHash> {
        let chain = group.chain();
        let signature: [u8; 64] = group.signature.as_slice().try_into().ok()?;
        let signature = Signature::from_bytes(signature);
        trust.verify(&certified.key, &signed_message(chain), &signature).then_some(chain)
    }

    /// Returns the role under which the last group was signed: that of its certificate; none before the first. Where the feed has a
    /// newer one, the lesser of the two roles: a certificate that was replaced gives no role back, as long as it is valid.
    pub fn role(&self) -> Option<Role> {
        self.signed_by.into_iter().chain(self.newest).map(|certified| certified.role).max()
    }

    /// Returns under what the last group was signed, as far as that decides about rights; none before the first.
    pub fn signer(&self) -> Option<Signer> {
        Some(Signer { role: self.role()?, certificates: self.signed_by?.certificates })
    }

    /// Says whether the feed's key is the one of `certificate`; if not, the next group has to start with a `Key`.
    pub fn is_signed_by(&self, trust: &dyn RecordTrust, certificate: &[u8]) -> bool {
        let certified = trust.prove(certificate, &self.feed.node);
        self.signed_by.is_some() && certified.ok() == self.signed_by
    }

    /// Checks that `group` follows, signature included, and moves on behind it.
    ///
    /// # Errors
    /// [`FeedError`]; the reader has not moved then.
    pub fn accept(&mut self, group: &SealedGroup, trust: &dyn RecordTrust) -> Result<Group, FeedError> {
        let body = self.accept_body(group)?;
        let certified = self.signed_by(&body, trust)?;
        let Some(chain) = self.check_signature(group, &certified, trust) else {
            return Err(FeedError::Signature { feed: self.feed.clone(), seq: body.first_seq });
        };
        self.check_place(&body)?;
        self.advance(&body, chain, certified);
        Ok(body)
    }

    /// Everything but the signature and whether it follows what is here.
    fn accept_body(&self, group: &SealedGroup) -> Result<Group, FeedError> {
        let feed = || self.feed.clone();
        let damaged = || FeedError::Damaged { feed: feed() };
        if group.body.len() > MAX_GROUP_BYTES {
            return Err(damaged());
        }
        let (format, _) = postcard::take_from_bytes::<u16>(&group.body).map_err(|_| damaged())?;
        if format != FORMAT {
            return Err(FeedError::NewerFormat { feed: feed(), format });
        }
        let body: Group = postcard::from_bytes(&group.body).map_err(|_| damaged())?;
        if body.feed != self.feed {
            return Err(FeedError::WrongFeed { feed: feed(), found: body.feed });
        }
        if body.records.is_empty() || body.records.len() > MAX_GROUP_RECORDS {
            return Err(damaged());
        }
        if body.first_seq > self.head.next_seq {
            let expected = self.head.next_seq;
            return Err(FeedError::Gap { feed: feed(), expected, found: body.first_seq });
        }
        Ok(body)
    }

    /// Moves on behind a group whose place was checked.
    fn advance(&mut self, body: &Group, chain: ChainHash, certified: Certified) {
        self.signed_by = Some(certified);
        self.newest =
            self.newest.filter(|newest| newest.valid_from_s > certified.valid_from_s).or(self.signed_by);
        self.head = FeedHead { next_seq: body.first_seq + body.records.len() as u64, chain };
    }

    fn check_place(&self, body: &Group) -> Result<(), FeedError> {
        // Only what the node itself signed can be a second history of it; a peer that damages what it passes on must not
        // be able to accuse it.
        if body.first_seq != self.head.next_seq || body.previous != self.head.chain {
            return Err(FeedError::Fork { feed: self.feed.clone(), seq: body.first_seq });
        }
        Ok(())
    }

    /// Returns whose key must have signed `body`: that of the last certificate in it, or the one known.
    fn signed_by(&self, body: &Group, trust: &dyn RecordTrust) -> Result<Certified, FeedError> {
        match certificate_in(body) {
            Some(certificate) => trust
                .prove(&certificate, &self.feed.node)
                .map_err(|source| FeedError::Certificate { feed: self.feed.clone(), source }),
            None => self.signed_by.ok_or_else(|| FeedError::NoKey { feed: self.feed.clone() }),
        }
    }

    /// Seals the next group of this node's own feed; the certificate goes in front when the feed does not have it yet.
    /// The reader does not move: `accept` the group once it is durable.
    pub fn seal(
        &self,
        mut records: Vec<RawRecord>,
        written_at_ms: u64,
        signer: &dyn RecordSigner,
        trust: &dyn RecordTrust,
    ) -> SealedGroup {
        if !self.is_signed_by(trust, signer.certificate()) {
            records.insert(0, Record::Key(Key { certificate: signer.certificate().to_vec() }).to_raw());
        }
        let group = Group {
            format: FORMAT,
            feed: self.feed.clone(),
            first_seq: self.head.next_seq,
            previous: self.head.chain,
            written_at_ms,
            records,
        };
        #[expect(clippy::expect_used, reason = "plain data into a vector: postcard has nothing to fail on")]
        let body = postcard::to_stdvec(&group).expect("a group always serialises");
        let mut sealed = SealedGroup { body, signature: Vec::new() };
        sealed.signature = signer.sign(&signed_message(sealed.chain())).as_bytes().to_vec();
        sealed
    }
}

#[cfg(test)]
mod tests;
