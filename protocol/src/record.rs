//! Records: the facts that a node states about a project. They live in feeds and are never changed.
//!
//! On disk and on the wire a record is a [`RawRecord`]: kind, payload version, payload. A reader keeps and passes on
//! what it does not understand, so an old node can carry the records of a new one.

mod lifetime;
mod trust;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use self::{
    lifetime::{InvalidResolution, Note, NoteTooLong, Resolved, Restored, Retired, Said},
    trust::{Crl, Issued, Judged, Revoked},
};
use crate::{
    audit::AuditHead,
    hash::{ContentId, ManifestId},
    id::{ProjectName, RepresentationName, VersionId},
    limits::MAX_RECORD_BYTES,
    studio::AppliedPolicy,
};

/// A record as it is stored and sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawRecord {
    /// What it states; see [`Record`] for the numbers.
    pub kind: u16,
    /// Which layout the payload has.
    pub version: u16,
    /// The fields, in postcard.
    pub payload: Vec<u8>,
}

impl RawRecord {
    /// Says whether it takes a node or a certificate out of the studio.
    pub fn is_revocation(&self) -> bool {
        matches!(self.kind, Record::REVOKED | Record::CRL)
    }
}

/// A record that this version understands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// Kind 1: the certificate whose key signs this feed from here on, in DER. The first record of every feed.
    Key(Key),
    /// Kind 2: a generation of a version exists and this node holds all of it.
    Published(Published),
    /// Kind 3: this node holds all of a generation that was published, verified and durable.
    Placed(Held),
    /// Kind 4: this node no longer holds a generation.
    Dropped(Held),
    /// Kind 5: the studio's policy is this document from now on. Only in the studio's own feeds.
    Policy(AppliedPolicy),
    /// Kind 6: a version is out of use. Nothing is removed by that.
    Retired(Retired),
    /// Kind 7: a version that was taken out of use is in use again.
    Restored(Restored),
    /// Kind 8: of several contents under one number, one keeps it and the others get numbers of their own.
    Resolved(Resolved),
    /// Kind 9: a node does not belong to the studio any more. Only in the studio's own feeds.
    Revoked(Revoked),
    /// Kind 10: by which rights a feed is judged up to where. Only in the studio's own feeds.
    Judged(Judged),
    /// Kind 11: the studio's CA revoked certificates, by a list that it signed. Only in the studio's own feeds.
    Crl(Crl),
    /// Kind 12: a name was given to a node. Only in the studio's own feeds.
    Issued(Issued),
    /// Kind 16: how far this node's audit goes. Only in the studio's own feeds.
    AuditHead(AuditHead),
}

/// The payload of [`Record::Key`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Key {
    /// The node's certificate in DER.
    pub certificate: Vec<u8>,
}

/// The payload of [`Record::Published`]: enough to list the version without its manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Which version.
    pub version: VersionId,
    /// The manifest that describes this generation.
    pub manifest: ManifestId,
    /// What it consists of, whoever published it.
    pub content: ContentId,
    /// 1 for the first.
    pub generation: u32,
    /// The manifest of the generation before.
    pub predecessor: Option<ManifestId>,
    /// The number of files.
    pub files: u64,
    /// Their size together, in bytes.
    pub bytes: u64,
    /// The names of its representations.
    pub representations: Vec<RepresentationName>,
    /// Who published it.
    pub author: String,
    /// When, in milliseconds since 1970, by the publishing node's clock: for people, and for the ages in a policy.
    pub published_at_ms: u64,
}

/// The payload of [`Record::Placed`] and [`Record::Dropped`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Which version.
    pub version: VersionId,
    /// Which generation of it.
    pub manifest: ManifestId,
}

/// Why a raw record is not usable.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RecordError {
    /// This version does not know the kind or the payload's layout; the record is kept and passed on.
    #[error("the record has kind {kind} version {version}, which this version does not know")]
    Unknown {
        /// Its kind.
        kind: u16,
        /// Its layout.
        version: u16,
    },
    /// The payload does not parse or is over the limit.
    #[error("the payload of a record of kind {kind} is damaged")]
    Damaged {
        /// Its kind.
        kind: u16,
    },
    /// The feed is about another project than the record, or of another kind; the record is kept and passed on, and
    /// states nothing.
    #[error("a record of kind {kind} states nothing in a feed about {project}")]
    Elsewhere {
        /// Its kind.
        kind: u16,
        /// What the feed is about.
        project: ProjectName,
    },
}

impl Record {
    const KEY: u16 = 1;
    const PUBLISHED: u16 = 2;
    const PLACED: u16 = 3;
    const DROPPED: u16 = 4;
    const POLICY: u16 = 5;
    const RETIRED: u16 = 6;
    const RESTORED: u16 = 7;
    const RESOLVED: u16 = 8;
    const REVOKED: u16 = 9;
    const JUDGED: u16 = 10;
    const CRL: u16 = 11;
    const ISSUED: u16 = 12;
    const AUDIT_HEAD: u16 = 16;

    /// Writes the record in the newest layout.
    pub fn to_raw(&self) -> RawRecord {
        let mut version = 1;
        let (kind, payload) = match self {
            Self::Key(key) => (Self::KEY, postcard::to_stdvec(key)),
            Self::Published(published) => (Self::PUBLISHED, postcard::to_stdvec(published)),
            Self::Placed(held) => (Self::PLACED, postcard::to_stdvec(held)),
            Self::Dropped(held) => (Self::DROPPED, postcard::to_stdvec(held)),
            Self::Policy(policy) => (Self::POLICY, postcard::to_stdvec(policy)),
            Self::Retired(retired) => (Self::RETIRED, postcard::to_stdvec(retired)),
            Self::Restored(restored) => (Self::RESTORED, postcard::to_stdvec(restored)),
            Self::Resolved(resolved) => (Self::RESOLVED, postcard::to_stdvec(resolved)),
            Self::Revoked(revoked) => (Self::REVOKED, postcard::to_stdvec(revoked)),
            Self::Judged(judged) => {
                let (newest, payload) = judged.to_payload();
                version = newest;
                (Self::JUDGED, payload)
            }
            Self::Crl(crl) => (Self::CRL, postcard::to_stdvec(crl)),
            Self::Issued(issued) => (Self::ISSUED, postcard::to_stdvec(issued)),
            Self::AuditHead(head) => (Self::AUDIT_HEAD, postcard::to_stdvec(head)),
        };
        #[expect(clippy::expect_used, reason = "plain data into a vector: postcard has nothing to fail on")]
        let payload = payload.expect("a record always serialises");
        RawRecord { kind, version, payload }
    }

    /// Reads a raw record that stands in a feed about `project`, for what it states there: versions in a project's own
    /// feeds, what concerns the studio in the studio's, keys in all. Whoever goes by a record reads it so.
    ///
    /// # Errors
    /// As [`Record::from_raw`]; [`RecordError::Elsewhere`] when it states nothing there, which is the author's fault.
    pub fn in_feed(raw: &RawRecord, project: &ProjectName) -> Result<Self, RecordError> {
        let record = Self::from_raw(raw)?;
        let states = match (&record, record.version()) {
            (_, Some(version)) => version.project == *project && !project.is_studio(),
            (
                Self::Policy(_)
                | Self::Revoked(_)
                | Self::Judged(_)
                | Self::Crl(_)
                | Self::Issued(_)
                | Self::AuditHead(_),
                None,
            ) => project.is_studio(),
            (_, None) => true,
        };
        match states {
            true => Ok(record),
            false => Err(RecordError::Elsewhere { kind: raw.kind, project: project.clone() }),
        }
    }

    /// Reads a raw record, wherever it stands.
    ///
    /// # Errors
    /// [`RecordError::Unknown`] is not a fault: keep the record and skip it. [`RecordError::Damaged`] is the
    /// author's.
    pub fn from_raw(raw: &RawRecord) -> Result<Self, RecordError> {
        let damaged = |_| RecordError::Damaged { kind: raw.kind };
        if raw.payload.len() > MAX_RECORD_BYTES {
            return Err(RecordError::Damaged { kind: raw.kind });
        }
        match (raw.kind, raw.version) {
            (Self::KEY, 1) => postcard::from_bytes(&raw.payload).map(Self::Key).map_err(damaged),
            (Self::PUBLISHED, 1) => postcard::from_bytes(&raw.payload).map(Self::Published).map_err(damaged),
            (Self::PLACED, 1) => postcard::from_bytes(&raw.payload).map(Self::Placed).map_err(damaged),
            (Self::DROPPED, 1) => postcard::from_bytes(&raw.payload).map(Self::Dropped).map_err(damaged),
            (Self::POLICY, 1) => postcard::from_bytes(&raw.payload).map(Self::Policy).map_err(damaged),
            (Self::RETIRED, 1) => postcard::from_bytes(&raw.payload).map(Self::Retired).map_err(damaged),
            (Self::RESTORED, 1) => postcard::from_bytes(&raw.payload).map(Self::Restored).map_err(damaged),
            (Self::RESOLVED, 1) => postcard::from_bytes(&raw.payload).map(Self::Resolved).map_err(damaged),
            (Self::REVOKED, 1) => postcard::from_bytes(&raw.payload).map(Self::Revoked).map_err(damaged),
            (Self::JUDGED, 1 | 2) => {
                Judged::from_payload(raw.version, &raw.payload).map(Self::Judged).map_err(damaged)
            }
            (Self::CRL, 1) => {
                Crl::from_payload(&raw.payload).map(Self::Crl).ok_or(RecordError::Damaged { kind: raw.kind })
            }
            (Self::ISSUED, 1) => postcard::from_bytes(&raw.payload).map(Self::Issued).map_err(damaged),
            (Self::AUDIT_HEAD, 1) => postcard::from_bytes(&raw.payload).map(Self::AuditHead).map_err(damaged),
            (kind, version) => Err(RecordError::Unknown { kind, version }),
        }
    }

    /// Returns the version that it is about, if it is about one.
    pub fn version(&self) -> Option<&VersionId> {
        match self {
            Self::Key(_)
            | Self::Policy(_)
            | Self::Revoked(_)
            | Self::Judged(_)
            | Self::Crl(_)
            | Self::Issued(_)
            | Self::AuditHead(_) => None,
            Self::Published(published) => Some(&published.version),
            Self::Placed(held) | Self::Dropped(held) => Some(&held.version),
            Self::Retired(retired) => Some(&retired.version),
            Self::Restored(restored) => Some(&restored.version),
            Self::Resolved(resolved) => Some(resolved.version()),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        access::{Action, Rights},
        feed::FeedId,
        hash::{AuditHash, ChainHash},
        id::VersionSlot,
    };

    pub(crate) fn version(number: u32) -> VersionId {
        VersionId {
            project: "lantern".parse().unwrap(),
            asset: "robot".parse().unwrap(),
            subset: "modelDefault".parse().unwrap(),
            slot: VersionSlot::Number(number),
        }
    }

    pub(crate) fn published(
        number: u32,
        manifest: u8,
        content: u8,
        generation: u32,
        before: Option<u8>,
    ) -> Published {
        Published {
            version: version(number),
            manifest: ManifestId::from_bytes([manifest; 32]),
            content: ContentId::from_bytes([content; 32]),
            generation,
            predecessor: before.map(|b| ManifestId::from_bytes([b; 32])),
            files: 2,
            bytes: 1000,
            representations: vec!["abc".parse().unwrap()],
            author: "anna".into(),
            published_at_ms: 1_763_800_000_000,
        }
    }

    pub(crate) fn applied(serial: u64, document: &str) -> AppliedPolicy {
        AppliedPolicy::new(serial, document.into(), "anna".into(), "nights".into(), 1_763_800_000_000)
            .unwrap()
    }

    pub(crate) fn said(author: &str, comment: &str) -> Said {
        let note = |text: &str| Note::try_from(text.to_owned()).unwrap();
        Said { author: note(author), comment: note(comment), at_ms: 1_763_800_000_000 }
    }

    pub(crate) fn retired(round: u32, author: &str) -> Record {
        let Said { author, comment, at_ms } = said(author, "wrong scale");
        Record::Retired(Retired { version: version(1), round, author, comment, at_ms })
    }

    pub(crate) fn restored(round: u32, author: &str) -> Record {
        let Said { author, at_ms, .. } = said(author, "");
        Record::Restored(Restored { version: version(1), round, author, at_ms })
    }

    pub(crate) fn revoked(node: &str) -> Record {
        let Said { author, at_ms, .. } = said("anna", "");
        let comment = Note::try_from("left".to_owned()).unwrap();
        Record::Revoked(Revoked { node: node.parse().unwrap(), author, comment, at_ms })
    }

    pub(crate) fn resolved(round: u32, keep: u8, moved: &[(u8, u32)]) -> Record {
        let id = |byte: u8| ManifestId::from_bytes([byte; 32]);
        let moved = moved.iter().map(|(byte, number)| (id(*byte), *number)).collect();
        Record::Resolved(Resolved::new(version(1), round, id(keep), moved, said("ben", "")).unwrap())
    }

    pub(crate) fn crl(der: &[u8], at_ms: u64) -> Record {
        let Said { author, comment, .. } = said("anna", "left");
        Record::Crl(Crl { der: der.to_vec(), author, comment, at_ms })
    }

    fn issued() -> Record {
        Record::Issued(Issued { node: "ws1@home".parse().unwrap(), at_ms: 1_763_800_000_000 })
    }

    fn audit_head() -> Record {
        Record::AuditHead(AuditHead {
            entries: 300,
            hash: AuditHash::from_bytes([7; 32]),
            at_ms: 1_763_800_000_000,
        })
    }

    const GOLDEN: &[&str] = &[
        "1 1 03010203",
        concat!(
            "2 1 076c616e7465726e05726f626f740c6d6f64656c44656661756c7404763030320707070707070707070707",
            "070707070707070707070707070707070707070707080808080808080808080808080808080808080808080808",
            "0808080808080808010002e807010361626304616e6e6180ccb0d5aa33",
        ),
        concat!(
            "3 1 076c616e7465726e05726f626f740c6d6f64656c44656661756c7404763030320707070707070707070707",
            "070707070707070707070707070707070707070707",
        ),
        concat!(
            "4 1 076c616e7465726e05726f626f740c6d6f64656c44656661756c7404763030320707070707070707070707",
            "070707070707070707070707070707070707070707",
        ),
        concat!(
            "5 1 031b736368656d61203d20226176616c6f6e2e706f6c6963792f31220a04616e6e61066e696768747380ccb0d5aa",
            "33",
        ),
        concat!(
            "6 1 076c616e7465726e05726f626f740c6d6f64656c44656661756c7404763030310204616e6e610b77726f6e6720",
            "7363616c6580ccb0d5aa33",
        ),
        "7 1 076c616e7465726e05726f626f740c6d6f64656c44656661756c740476303031020362656e80ccb0d5aa33",
        concat!(
            "8 1 076c616e7465726e05726f626f740c6d6f64656c44656661756c74047630303101070707070707070707070707",
            "070707070707070707070707070707070707070702080808080808080808080808080808080808080808080808080808",
            "0808080808030909090909090909090909090909090909090909090909090909090909090909040362656e0080ccb0d5",
            "aa33",
        ),
        "9 1 0a777331406c6f6e646f6e04616e6e61046c65667480ccb0d5aa33",
        "10 1 076c616e7465726e0877733140686f6d65ac020780ccb0d5aa33",
        concat!(
            "10 2 076c616e7465726e0877733140686f6d65ac020780ccb0d5aa3305050505050505050505050505050505050505",
            "05050505050505050505050505",
        ),
        "11 1 040102030404616e6e61046c65667480ccb0d5aa33",
        "12 1 0877733140686f6d6580ccb0d5aa33",
        "16 1 ac02070707070707070707070707070707070707070707070707070707070707070780ccb0d5aa33",
    ];

    /// Frozen: a change here means a new payload version, not a new expectation.
    #[test]
    fn golden_bytes_of_all_payloads() {
        let held = Held { version: version(2), manifest: ManifestId::from_bytes([7; 32]) };
        let judged = Judged {
            feed: FeedId { project: "lantern".parse().unwrap(), node: "ws1@home".parse().unwrap() },
            next_seq: 300,
            rights: Rights::of([Action::Pull, Action::Publish]),
            at_ms: 1_763_800_000_000,
            chain: None,
        };
        let all = [
            Record::Key(Key { certificate: vec![1, 2, 3] }),
            Record::Published(published(2, 7, 8, 1, None)),
            Record::Placed(held.clone()),
            Record::Dropped(held),
            Record::Policy(applied(3, "schema = \"avalon.policy/1\"\n")),
            retired(2, "anna"),
            restored(2, "ben"),
            resolved(1, 7, &[(8, 3), (9, 4)]),
            revoked("ws1@london"),
            Record::Judged(judged.clone()),
            Record::Judged(Judged { chain: Some(ChainHash::from_bytes([5; 32])), ..judged }),
            crl(&[1, 2, 3, 4], 1_763_800_000_000),
            issued(),
            audit_head(),
        ];
        let lines: Vec<String> = all
            .iter()
            .map(|record| {
                let raw = record.to_raw();
                assert_eq!(Record::from_raw(&raw).as_ref(), Ok(record));
                format!("{} {} {}", raw.kind, raw.version, hex::encode(raw.payload))
            })
            .collect();
        assert_eq!(lines, GOLDEN);
    }

    #[test]
    fn a_list_of_revoked_certificates_has_a_bound() {
        let read = |bytes: usize| Record::from_raw(&crl(&vec![7; bytes], 0).to_raw());
        assert!(read(crate::limits::MAX_CRL_BYTES).is_ok());
        assert_eq!(read(crate::limits::MAX_CRL_BYTES + 1), Err(RecordError::Damaged { kind: 11 }));
        assert!(crl(&[1], 0).to_raw().is_revocation(), "it waits for nobody's word");
    }

    #[test]
    fn a_record_states_something_only_in_a_feed_of_its_own_kind() {
        let studio = ProjectName::studio();
        let [lantern, comet] = ["lantern", "comet"].map(|name| name.parse::<ProjectName>().unwrap());
        let held = |project: &ProjectName| Held {
            version: VersionId { project: project.clone(), ..version(2) },
            manifest: ManifestId::from_bytes([7; 32]),
        };
        let states = |record: &Record, project| match Record::in_feed(&record.to_raw(), project) {
            Ok(read) => read == *record,
            Err(RecordError::Elsewhere { project: named, .. }) => named != *project,
            Err(error) => panic!("{error}"),
        };
        let published = Record::Published(published(2, 7, 8, 1, None));
        let [retired, restored, resolved] =
            [retired(1, "anna"), restored(1, "anna"), resolved(1, 7, &[(8, 3)])];
        for record in [
            published,
            Record::Placed(held(&lantern)),
            Record::Dropped(held(&lantern)),
            retired,
            restored,
            resolved,
        ] {
            assert!(states(&record, &lantern) && !states(&record, &comet) && !states(&record, &studio));
        }
        assert!(!states(&Record::Placed(held(&studio)), &studio), "there are no versions of it");
        for record in [Record::Policy(applied(1, "")), issued(), audit_head()] {
            assert!(states(&record, &studio) && !states(&record, &lantern));
        }
        let key = Record::Key(Key { certificate: vec![1] });
        assert!(states(&key, &studio) && states(&key, &lantern));
    }

    #[test]
    fn unknown_kinds_are_told_apart_from_damage() {
        let raw = RawRecord { kind: 900, version: 1, payload: vec![] };
        assert_eq!(Record::from_raw(&raw), Err(RecordError::Unknown { kind: 900, version: 1 }));
        let raw = RawRecord { kind: 3, version: 1, payload: vec![0xff; 4] };
        assert_eq!(Record::from_raw(&raw), Err(RecordError::Damaged { kind: 3 }));
    }
}
