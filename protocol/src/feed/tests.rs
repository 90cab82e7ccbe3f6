use super::*;
use crate::{
    record::{Held, tests::version},
    signing::{CertificateList, PublicKey, UntrustedList},
};

/// Signs by hashing a secret that stands in the certificate: enough to tell right from wrong.
#[derive(Debug)]
pub(super) struct Toy(pub(super) Vec<u8>);

impl RecordSigner for Toy {
    fn sign(&self, message: &[u8]) -> Signature {
        toy_signature(&toy_key(&self.0), message)
    }
    fn certificate(&self) -> &[u8] {
        &self.0
    }
}

impl RecordTrust for Toy {
    fn prove(&self, certificate: &[u8], owner: &NodeId) -> Result<Certified, UntrustedCertificate> {
        if certificate.starts_with(owner.to_string().as_bytes()) {
            let text = String::from_utf8_lossy(certificate);
            let role = Role::ALL.into_iter().find(|role| text.contains(role.as_str()));
            let valid_from_s = text.rsplit(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0);
            let (key, role) = (toy_key(certificate), role.unwrap_or(Role::Site));
            Ok(Certified { key, role, valid_from_s, certificates: [None; 2] })
        } else {
            Err(UntrustedCertificate { owner: owner.clone(), reason: "other name".into() })
        }
    }
    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        *signature == toy_signature(key, message)
    }

    fn certificate_list(&self, _: &[u8]) -> Result<CertificateList, UntrustedList> {
        Err(UntrustedList { reason: "a toy has none".into() })
    }
}

fn toy_key(certificate: &[u8]) -> PublicKey {
    PublicKey::from_bytes(*blake3::hash(certificate).as_bytes())
}

fn toy_signature(key: &PublicKey, message: &[u8]) -> Signature {
    let mut bytes = [0; 64];
    blake3::Hasher::new_keyed(key.as_bytes()).update(message).finalize_xof().fill(&mut bytes);
    Signature::from_bytes(bytes)
}

pub(super) fn feed() -> FeedId {
    FeedId { project: "lantern".parse().unwrap(), node: "ws1@london".parse().unwrap() }
}

fn signer() -> Toy {
    Toy(b"ws1@london key 1".to_vec())
}

pub(super) fn placed(byte: u8) -> RawRecord {
    let manifest = crate::hash::ManifestId::from_bytes([byte; 32]);
    Record::Placed(Held { version: version(1), manifest }).to_raw()
}

fn next(reader: &FeedReader, byte: u8) -> SealedGroup {
    reader.seal(vec![placed(byte)], 1000, &signer(), &signer())
}

#[test]
fn a_feed_starts_with_its_key_and_goes_on_without() {
    let mut reader = FeedReader::new(feed());
    let first = reader.accept(&next(&reader, 1), &signer()).unwrap();
    assert_eq!(first.records.len(), 2);
    let second = reader.accept(&next(&reader, 2), &signer()).unwrap();
    assert_eq!((second.first_seq, second.records.len()), (2, 1));
    assert_eq!(reader.head().next_seq, 3);
}

#[test]
fn a_new_certificate_of_the_same_node_takes_over() {
    let mut reader = FeedReader::new(feed());
    reader.accept(&next(&reader, 1), &signer()).unwrap();
    let renewed = Toy(b"ws1@london key 2".to_vec());
    let group = reader.seal(vec![placed(2)], 1000, &renewed, &renewed);
    assert_eq!(reader.accept(&group, &renewed).unwrap().records.len(), 2);
    let by_old_key = next(&reader, 3);
    assert_eq!(reader.accept(&by_old_key, &signer()).unwrap().records.len(), 2, "it brings its key along");
}

#[test]
fn a_certificate_that_was_replaced_gives_no_role_back() {
    let mut reader = FeedReader::new(feed());
    let roles = ["admin 1", "site 5", "admin 1", "vendor 1", "site 5", "admin 9"].map(|certificate| {
        let key = Toy(format!("ws1@london {certificate}").into_bytes());
        let group = reader.seal(vec![placed(1)], 1000, &key, &key);
        reader.accept(&group, &key).unwrap();
        assert!(reader.is_signed_by(&key, key.certificate()), "it goes on under its own key");
        reader.role().unwrap()
    });
    assert_eq!(roles, [Role::Admin, Role::Site, Role::Site, Role::Vendor, Role::Site, Role::Admin]);
}

fn check_refused(change: impl FnOnce(&mut FeedReader, &mut SealedGroup), expected: &str) {
    let mut reader = FeedReader::new(feed());
    reader.accept(&next(&reader, 1), &signer()).unwrap();
    let mut group = next(&reader, 2);
    change(&mut reader, &mut group);
    let before = reader.head();
    let error = reader.accept(&group, &signer()).unwrap_err();
    assert!(error.to_string().contains(expected), "{error}");
    assert_eq!(reader.head(), before);
}

#[test]
fn whatever_does_not_follow_is_refused_and_moves_nothing() {
    check_refused(|_, group| group.signature[3] ^= 1, "the signature of feed lantern/ws1@london at record 2");
    check_refused(|_, group| group.signature.truncate(10), "signature");
    check_refused(|_, group| *group.body.last_mut().unwrap() ^= 1, "signature");
    check_refused(|_, group| group.body.truncate(9), "damaged");
    check_refused(|_, group| group.body[0] = 9, "has format 9");
    check_refused(|reader, group| *group = next(&FeedReader::new(reader.feed.clone()), 1), "two histories");
    check_refused(
        |reader, group| {
            reader.accept(group, &signer()).unwrap();
            *group = {
                let mut ahead = reader.clone();
                ahead.head.next_seq += 5;
                next(&ahead, 3)
            }
        },
        "goes on at record 8, here it ends at 3",
    );
    check_refused(
        |_, group| {
            let other = FeedId { node: "ws2@london".parse().unwrap(), ..feed() };
            *group = next(&FeedReader::new(other), 1);
        },
        "stands in feed lantern/ws1@london",
    );
}

#[test]
fn a_damaged_copy_of_a_known_group_is_not_a_second_history() {
    let mut reader = FeedReader::new(feed());
    let first = next(&reader, 1);
    reader.accept(&first, &signer()).unwrap();
    let mut damaged = first.clone();
    *damaged.body.last_mut().unwrap() ^= 1;
    assert!(matches!(reader.accept(&damaged, &signer()), Err(FeedError::Signature { seq: 0, .. })));
    assert!(matches!(reader.accept(&first, &signer()), Err(FeedError::Fork { seq: 0, .. })));
}

#[test]
fn a_certificate_of_another_node_is_refused() {
    let mut reader = FeedReader::new(feed());
    let thief = Toy(b"ws9@london key".to_vec());
    let group = reader.seal(vec![placed(1)], 1000, &thief, &thief);
    assert!(matches!(reader.accept(&group, &thief), Err(FeedError::Certificate { .. })));
}
