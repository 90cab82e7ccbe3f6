//! Whose signatures count in feeds: those of nodes whose certificates the studio's authority issued, at whatever time.
//!
//! A record stays true after the certificate that signed it has expired, so times are not looked at. Whether a node may
//! publish into a project, and whether its key was revoked, is decided elsewhere.

use std::{error::Error, sync::Arc, time::UNIX_EPOCH};

use avalon_protocol::{
    id::NodeId,
    signing::{
        CertificateList, Certified, PublicKey, RecordTrust, Signature, UntrustedCertificate, UntrustedList,
    },
};
use ring::signature::{ED25519, UnparsedPublicKey};

use crate::{
    certificate::{AuthorityCertificate, Chain},
    revocation::{self, RevocationList},
};

/// Trusts what one studio's authority issued.
#[derive(Debug, Clone)]
pub struct StudioTrust {
    authority: Arc<AuthorityCertificate>,
}

impl StudioTrust {
    /// Trusts an authority.
    pub fn new(authority: Arc<AuthorityCertificate>) -> Self {
        Self { authority }
    }
}

impl RecordTrust for StudioTrust {
    fn prove(&self, certificate: &[u8], owner: &NodeId) -> Result<Certified, UntrustedCertificate> {
        let untrusted = |reason| UntrustedCertificate { owner: owner.clone(), reason };
        let proven = Chain::from_bytes(certificate).and_then(|chain| self.authority.prove(&chain));
        let proven = proven.map_err(|error| untrusted(with_causes(&error)))?;
        let certificates = revocation::ids_of(&proven, &self.authority);
        let facts = proven.node;
        if facts.node == *owner {
            let valid_from = facts.valid_from.duration_since(UNIX_EPOCH).unwrap_or_default();
            let (key, role, valid_from_s) = (facts.public_key, facts.role, valid_from.as_secs());
            Ok(Certified { key, role, valid_from_s, certificates })
        } else {
            Err(untrusted(format!("the certificate names {}", facts.node)))
        }
    }

    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, key.as_bytes()).verify(message, signature.as_bytes()).is_ok()
    }

    fn certificate_list(&self, der: &[u8]) -> Result<CertificateList, UntrustedList> {
        let list = RevocationList::verify(der, &self.authority, None);
        list.map(|list| list.to_protocol()).map_err(|error| UntrustedList { reason: with_causes(&error) })
    }
}

/// Writes an error and its causes on one line; the reason crosses into a crate that does not know their types.
fn with_causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use avalon_protocol::signing::RecordSigner;

    use super::*;
    use crate::fixture::{Studio, day_one, node, sign, what};

    #[test]
    fn what_a_node_signs_its_studio_verifies() {
        let studio = Studio::new("a");
        let (writer, reader) = (studio.identity("ws12@london"), studio.identity("nas@montreal"));
        let (signer, trust) = (writer.signer(), reader.trust());
        let key = trust.prove(signer.certificate(), writer.node()).unwrap().key;
        let signature = signer.sign(b"head of the chain");
        assert!(trust.verify(&key, b"head of the chain", &signature));

        assert!(!trust.verify(&key, b"head of the chaim", &signature));
        for position in 0..64 {
            let mut bytes = *signature.as_bytes();
            bytes[position] ^= 1;
            assert!(!trust.verify(&key, b"head of the chain", &Signature::from_bytes(bytes)), "{position}");
        }
        let other = trust.prove(reader.signer().certificate(), reader.node()).unwrap().key;
        assert!(!trust.verify(&other, b"head of the chain", &signature));
        assert!(!trust.verify(&PublicKey::from_bytes([0; 32]), b"", &Signature::from_bytes([0; 64])));
    }

    #[test]
    fn a_record_outlives_the_certificate_that_signed_it() {
        let studio = Studio::new("a");
        let mut request = what("ws12@london");
        request.validity = Duration::from_secs(1);
        let past = day_one() - Duration::from_secs(1_000_000_000);
        let long_ago = sign(&studio.authority, &request, past).unwrap();
        let trust = studio.identity("nas@montreal").trust();
        assert!(trust.prove(&long_ago.chain.to_bytes(), &node("ws12@london")).is_ok());
    }

    #[test]
    fn certificates_of_another_studio_or_node_are_refused_with_the_reason() {
        let studio = Studio::new("a");
        let trust = studio.identity("nas@montreal").trust();
        let owner = node("ws12@london");
        let reason = |certificate: &[u8]| trust.prove(certificate, &owner).unwrap_err().reason;

        for name in ["a", "b"] {
            let foreign = Studio::new(name).identity("ws12@london");
            assert_eq!(
                reason(foreign.signer().certificate()),
                "the certificate was not issued by the CA of studio a"
            );
        }
        let other = studio.identity("ws13@london");
        assert_eq!(reason(other.signer().certificate()), "the certificate names ws13@london");
        assert!(reason(b"").starts_with("the certificate cannot be read: "));
    }

    #[test]
    fn no_bit_of_a_certificate_can_be_changed() {
        let studio = Studio::new("a");
        let identity = studio.identity("ws12@london");
        let trust = identity.trust();
        let good = identity.certificate_chain()[0].to_vec();
        assert!(trust.prove(&good, identity.node()).is_ok());
        for position in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[position] ^= 1 << bit;
                assert!(trust.prove(&bad, identity.node()).is_err(), "bit {bit} of byte {position}");
            }
        }
    }
}
