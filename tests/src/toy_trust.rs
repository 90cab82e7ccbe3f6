//! Signatures that are cheap and still tell right from wrong: keyed BLAKE3 with the certificate's hash as the key.
//! Whoever knows a certificate could sign with it; the simulated liar does not try that.

use avalon_protocol::{
    access::Role,
    id::NodeId,
    signing::{
        CertificateList, Certified, PublicKey, RecordSigner, RecordTrust, Signature, UntrustedCertificate,
        UntrustedList,
    },
};

/// Signs for one node.
#[derive(Debug, Clone)]
pub struct ToySigner {
    certificate: Vec<u8>,
}

impl ToySigner {
    /// Issues certificate number `issue` to a node.
    pub fn new(node: &NodeId, issue: u32) -> Self {
        Self { certificate: format!("{node} {issue}").into_bytes() }
    }
}

impl RecordSigner for ToySigner {
    fn sign(&self, message: &[u8]) -> Signature {
        signature(&key(&self.certificate), message)
    }

    fn certificate(&self) -> &[u8] {
        &self.certificate
    }
}

/// Trusts every certificate that starts with the name of its node.
#[derive(Debug, Clone, Copy)]
pub struct ToyTrust;

impl RecordTrust for ToyTrust {
    fn prove(&self, certificate: &[u8], owner: &NodeId) -> Result<Certified, UntrustedCertificate> {
        match certificate.strip_prefix(owner.to_string().as_bytes()) {
            Some([b' ', ..]) => Ok(Certified {
                key: key(certificate),
                role: Role::Admin,
                valid_from_s: 0,
                certificates: [None; 2],
            }),
            _ => Err(UntrustedCertificate { owner: owner.clone(), reason: "it names another node".into() }),
        }
    }

    fn verify(&self, key: &PublicKey, message: &[u8], claimed: &Signature) -> bool {
        *claimed == signature(key, message)
    }

    fn certificate_list(&self, _: &[u8]) -> Result<CertificateList, UntrustedList> {
        Err(UntrustedList { reason: "no CA signs for toys".into() })
    }
}

fn key(certificate: &[u8]) -> PublicKey {
    PublicKey::from_bytes(*blake3::hash(certificate).as_bytes())
}

fn signature(key: &PublicKey, message: &[u8]) -> Signature {
    let mut bytes = [0; 64];
    blake3::Hasher::new_keyed(key.as_bytes()).update(message).finalize_xof().fill(&mut bytes);
    Signature::from_bytes(bytes)
}
