//! What tests in this crate share: a signer that only pretends, and small manifests and records.

use std::collections::BTreeMap;

use avalon_protocol::{
    access::Role,
    feed::FeedId,
    hash::{ManifestId, ObjectHash},
    id::{NodeId, VersionId, VersionSlot},
    manifest::{Completeness, FileEntry, Manifest, ManifestDraft, Representation},
    record::{Held, Published, Record},
    signing::{
        CertificateId, CertificateList, Certified, PublicKey, RecordSigner, RecordTrust, Signature,
        UntrustedCertificate, UntrustedList,
    },
};

/// Signs by hashing with a secret that stands in the certificate: enough to tell right from wrong.
#[derive(Debug, Clone)]
pub(crate) struct Toy(pub(crate) Vec<u8>);

impl Toy {
    pub(crate) fn of(node: &str) -> Self {
        Self(format!("{node} key").into_bytes())
    }
}

impl RecordSigner for Toy {
    fn sign(&self, message: &[u8]) -> Signature {
        toy_signature(&toy_key(&self.0), message)
    }
    fn certificate(&self) -> &[u8] {
        &self.0
    }
}

/// Trusts every [`Toy`] that names the right node. Its certificate may end with its role, otherwise it is an admin's; a number in it says from
/// when on it is valid.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ToyTrust;

impl RecordTrust for ToyTrust {
    fn prove(&self, certificate: &[u8], owner: &NodeId) -> Result<Certified, UntrustedCertificate> {
        if certificate.starts_with(owner.to_string().as_bytes()) {
            let text = String::from_utf8_lossy(certificate);
            let role = Role::ALL.into_iter().find(|role| text.ends_with(role.as_str()));
            let valid_from_s = text.split(' ').find_map(|word| word.parse().ok()).unwrap_or(0);
            let (key, role) = (toy_key(certificate), role.unwrap_or(Role::Admin));
            Ok(Certified { key, role, valid_from_s, certificates: [Some(toy_id(certificate)), None] })
        } else {
            Err(UntrustedCertificate { owner: owner.clone(), reason: "other name".into() })
        }
    }
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        *signature == toy_signature(key, message)
    }
    /// `list <number>`, and a line for each certificate: since when it is revoked, and its text.
    fn certificate_list(&self, der: &[u8]) -> Result<CertificateList, UntrustedList> {
        let text = String::from_utf8_lossy(der);
        let untrusted = || UntrustedList { reason: "it is no toy".into() };
        let (number, rest) =
            text.strip_prefix("list ").and_then(|text| text.split_once('\n')).ok_or_else(untrusted)?;
        let revoked = rest.lines().filter_map(|line| line.split_once(' '));
        let revoked = revoked.map(|(since, one)| (toy_id(one.as_bytes()), since.parse().unwrap())).collect();
        Ok(CertificateList { number: number.parse().map_err(|_| untrusted())?, made_at_ms: 0, revoked })
    }
}

fn toy_id(certificate: &[u8]) -> CertificateId {
    CertificateId::of(&PublicKey::from_bytes([0; 32]), certificate)
}

fn toy_key(certificate: &[u8]) -> PublicKey {
    PublicKey::from_bytes(*blake3::hash(certificate).as_bytes())
}

fn toy_signature(key: &PublicKey, message: &[u8]) -> Signature {
    let mut bytes = [0; 64];
    blake3::Hasher::new_keyed(key.as_bytes()).update(message).finalize_xof().fill(&mut bytes);
    Signature::from_bytes(bytes)
}

pub(crate) fn feed(node: &str) -> FeedId {
    FeedId { project: "lantern".parse().unwrap(), node: node.parse().unwrap() }
}

pub(crate) fn version(number: u32) -> VersionId {
    VersionId {
        project: "lantern".parse().unwrap(),
        asset: "robot".parse().unwrap(),
        subset: "modelDefault".parse().unwrap(),
        slot: VersionSlot::Number(number),
    }
}

/// A manifest of version `number` in `robot/v<number>` with these files, which were modified at `1000 + index` seconds.
pub(crate) fn manifest(number: u32, files: &[(&str, &[u8])]) -> Manifest {
    let entries = (0i64..).zip(files).map(|(index, (path, content))| FileEntry {
        path: path.parse().unwrap(),
        size: content.len() as u64,
        hash: ObjectHash::of(content),
        mtime_ns: (1000 + index) * 1_000_000_000,
        representation: 0,
    });
    let draft = ManifestDraft {
        version: version(number),
        silo: None,
        generation: 1,
        predecessor: None,
        dir: format!("robot/v{number:03}").parse().unwrap(),
        representations: vec![Representation {
            name: "abc".parse().unwrap(),
            entry: files[0].0.parse().unwrap(),
        }],
        files: entries.collect(),
        completeness: Completeness::Explicit,
        author: "anna".into(),
        comment: String::new(),
        published_at_ms: 1_763_800_000_000,
        inputs: Vec::new(),
        metadata: BTreeMap::new(),
    };
    draft.finish().unwrap()
}

/// The record that publishes a manifest.
pub(crate) fn published(manifest: &Manifest) -> Record {
    Record::Published(Published {
        version: manifest.version().clone(),
        manifest: manifest.id(),
        content: manifest.content(),
        generation: manifest.draft().generation,
        predecessor: manifest.draft().predecessor,
        files: manifest.files().len() as u64,
        bytes: manifest.total_bytes(),
        representations: manifest.representations().iter().map(|r| r.name.clone()).collect(),
        author: manifest.draft().author.clone(),
        published_at_ms: manifest.draft().published_at_ms,
    })
}

pub(crate) fn held(number: u32, manifest: u8) -> Held {
    Held { version: version(number), manifest: ManifestId::from_bytes([manifest; 32]) }
}
