//! Lists of revoked certificates that were read: each is verified once, however often the studio's feeds are read.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, PoisonError},
};

use avalon_protocol::{
    feed::FeedId,
    limits::MAX_CRLS_KEPT,
    signing::{CertificateList, RecordTrust},
};

use crate::error_chain::ErrorChain;

/// How many lists that do not verify are remembered by their hashes; a revoked admin can write any number.
const MAX_REFUSED: usize = 1 << 14;
/// How many that do are remembered whole.
const MAX_READ: usize = 2 * MAX_CRLS_KEPT;

/// What was read, by the hash of its bytes.
#[derive(Debug, Default)]
pub(super) struct ReadLists(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    read: BTreeMap<[u8; 32], CertificateList>,
    refused: BTreeSet<[u8; 32]>,
}

impl ReadLists {
    /// Reads a list that stands at this place. One that the studio's CA did not sign is told once and passed over.
    pub(super) fn read(
        &self,
        der: &[u8],
        trust: &dyn RecordTrust,
        (feed, seq): (&FeedId, u64),
    ) -> Option<CertificateList> {
        let hash: [u8; 32] = blake3::hash(der).into();
        // What is under the lock is whole between two changes.
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(list) = known.read.get(&hash) {
            return Some(list.clone());
        }
        if known.refused.contains(&hash) {
            return None;
        }
        match trust.certificate_list(der) {
            Ok(list) => {
                known.read.insert(hash, list.clone());
                if known.read.len() > MAX_READ {
                    // The oldest count least; what is forgotten is only read again.
                    let oldest = known.read.iter().min_by_key(|(_, list)| list.number).map(|(hash, _)| *hash);
                    oldest.and_then(|hash| known.read.remove(&hash));
                }
                Some(list)
            }
            Err(error) => {
                // Whoever writes more than are remembered makes work, but no log.
                if known.refused.len() < MAX_REFUSED {
                    known.refused.insert(hash);
                    tracing::warn!(%feed, seq, error = %ErrorChain(&error), "a list of revoked certificates is passed over");
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use avalon_protocol::{
        id::{NodeId, ProjectName},
        signing::{Certified, PublicKey, Signature, UntrustedCertificate, UntrustedList},
    };

    use super::*;

    /// Takes what begins with 1 for a list.
    #[derive(Debug, Default)]
    struct Counting(AtomicUsize);

    impl RecordTrust for Counting {
        fn prove(&self, _: &[u8], _: &NodeId) -> Result<Certified, UntrustedCertificate> {
            unreachable!("no certificate is proved here")
        }

        fn verify(&self, _: &PublicKey, _: &[u8], _: &Signature) -> bool {
            unreachable!("nothing signed is verified here")
        }

        fn certificate_list(&self, der: &[u8]) -> Result<CertificateList, UntrustedList> {
            self.0.fetch_add(1, Ordering::Relaxed);
            match der.first() {
                Some(1) => {
                    Ok(CertificateList { number: der.len() as u64, made_at_ms: 0, revoked: BTreeMap::new() })
                }
                _ => Err(UntrustedList { reason: "not signed".into() }),
            }
        }
    }

    #[test]
    fn each_list_is_verified_once_and_what_is_remembered_is_bounded() {
        let (lists, trust) = (ReadLists::default(), Counting::default());
        let feed = FeedId { project: ProjectName::studio(), node: "td@x".parse().unwrap() };
        let read = |der: &[u8]| lists.read(der, &trust, (&feed, 0)).map(|list| list.number);
        for _ in 0..3 {
            assert_eq!((read(&[1, 1]), read(&[2])), (Some(2), None));
        }
        assert_eq!(trust.0.load(Ordering::Relaxed), 2);
        for number in 0..MAX_REFUSED + 2 {
            assert_eq!(read(&number.to_be_bytes()), None);
        }
        for len in 0..=MAX_READ {
            assert_eq!(read(&vec![1; len + 1]), Some(len as u64 + 1));
        }
        let known = lists.0.lock().unwrap();
        assert!(known.refused.len() <= MAX_REFUSED && known.read.len() <= MAX_READ);
    }
}
