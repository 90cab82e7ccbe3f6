//! What is revoked: nodes by name, and certificates by the lists that the authority and issuing nodes sign.
//!
//! A list counts for what its signer issued and for nothing else. The set of all that is revoked is asked in every
//! handshake, of both sides; whoever learns more exchanges it, and closes the connections that stand.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, PoisonError, RwLock},
    time::{SystemTime, UNIX_EPOCH},
};

use avalon_protocol::{
    id::NodeId,
    signing::{CertificateId, CertificateList, PublicKey},
};
use rustls_pki_types::CertificateDer;
use thiserror::Error;
use x509_parser::{
    extensions::ParsedExtension, prelude::FromDer as _, revocation_list::CertificateRevocationList,
};

use crate::{
    authority::ToRevoke,
    certificate::{
        AuthorityCertificate, CertificateError, Chain, Proven, Signed, guarded, is_signed_by, system_time,
        unreadable,
    },
};

/// The largest list that is read: about 100,000 certificates.
pub const MAX_LIST_BYTES: usize = 4 << 20;

/// Why a list is refused.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum ListError {
    /// Larger than [`MAX_LIST_BYTES`].
    #[error("the list has {bytes} bytes, more than the limit of {MAX_LIST_BYTES}")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// Not a list of the form that is made here.
    #[error("the list of revoked certificates cannot be read")]
    Form {
        /// What is wrong with it.
        #[source]
        source: CertificateError,
    },
    /// The certificate of the issuing node that came with it is not the studio's.
    #[error("the list is signed by a node that the studio CA does not let issue")]
    Issuer {
        /// What is wrong with the certificate.
        #[source]
        source: CertificateError,
    },
    /// Signed by somebody else.
    #[error("the list is not signed by who it is said to be")]
    Foreign,
}

/// A list of revoked certificates that the studio's authority or one of its issuing nodes signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RevocationList {
    /// The node that signed it; none when the authority itself did.
    pub issuer: Option<NodeId>,
    issuer_key: PublicKey,
    /// Its number: a later list of the same signer has a higher one.
    pub number: u64,
    /// When it was made.
    pub made_at: SystemTime,
    /// When the next one is due; one that is older says nothing about what happened since.
    pub next_at: SystemTime,
    serials: BTreeMap<Vec<u8>, SystemTime>,
}

impl RevocationList {
    /// Reads a list in DER and checks that the authority signed it, or the node with the issuing certificate `issuing`.
    ///
    /// Times are not judged.
    ///
    /// # Errors
    /// [`ListError`].
    pub fn verify(
        der: &[u8],
        authority: &AuthorityCertificate,
        issuing: Option<&[u8]>,
    ) -> Result<Self, ListError> {
        if der.len() > MAX_LIST_BYTES {
            return Err(ListError::TooLarge { bytes: der.len() });
        }
        let issuing = issuing.map(|der| authority.issuing(der)).transpose();
        let issuing = issuing.map_err(|source| ListError::Issuer { source })?;
        let (issuer, subject, key) = match &issuing {
            Some(node) => (Some(node.node.clone()), node.subject(), node.public_key),
            None => (None, authority.subject(), *authority.public_key()),
        };
        let read = guarded(|| {
            let (rest, list) =
                CertificateRevocationList::from_der(der).map_err(|source| unreadable(source.into()))?;
            if !rest.is_empty() {
                return Err(CertificateError::Form { rule: "nothing follows it" });
            }
            let signed = Signed {
                raw: list.as_raw(),
                content: list.tbs_cert_list.as_ref(),
                algorithm: &list.signature_algorithm,
                inner_algorithm: Some(&list.tbs_cert_list.signature),
                signature: &list.signature_value.data,
            };
            // The signature first: what nobody vouches for is not worth interpreting.
            if !is_signed_by(&signed, &key)? || list.issuer().as_raw() != subject {
                return Ok(None);
            }
            facts(&list).map(Some)
        });
        let read = read.map_err(|source| ListError::Form { source })?;
        let (number, made_at, next_at, serials) = read.ok_or(ListError::Foreign)?;
        Ok(Self { issuer, issuer_key: key, number, made_at, next_at, serials })
    }

    /// Returns the serial numbers of the certificates that it revokes.
    pub fn serials(&self) -> impl Iterator<Item = &[u8]> {
        self.serials.keys().map(Vec::as_slice)
    }

    /// Returns what it revokes and since when, to make a longer list of.
    pub fn revoked(&self) -> Vec<ToRevoke> {
        let of =
            |(serial, since): (&Vec<u8>, &SystemTime)| ToRevoke { serial: serial.clone(), since: *since };
        self.serials.iter().map(of).collect()
    }

    /// Returns what it says, for whoever judges records.
    pub fn to_protocol(&self) -> CertificateList {
        let of = |(serial, since): (&Vec<u8>, &SystemTime)| {
            (CertificateId::of(&self.issuer_key, serial), ms_since_epoch(*since))
        };
        let revoked = self.serials.iter().map(of).collect();
        CertificateList { number: self.number, made_at_ms: ms_since_epoch(self.made_at), revoked }
    }
}

fn ms_since_epoch(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Returns which certificate of a node it is, and which that of the node that issued it, if one did.
pub(crate) fn ids_of(proven: &Proven, authority: &AuthorityCertificate) -> [Option<CertificateId>; 2] {
    let of = |issuer: &PublicKey, serial: &[u8]| CertificateId::of(issuer, plain(serial));
    let issuing = proven.issuing.as_ref().map(|issuing| of(authority.public_key(), &issuing.serial));
    [Some(of(&proven.issuer_key, &proven.node.serial)), issuing]
}

type Facts = (u64, SystemTime, SystemTime, BTreeMap<Vec<u8>, SystemTime>);

fn facts(list: &CertificateRevocationList<'_>) -> Result<Facts, CertificateError> {
    let form = |rule| CertificateError::Form { rule };
    // A list for some reasons, or of changes to another list, would look like a whole one.
    let known = list.extensions().iter().all(|extension| {
        matches!(
            extension.parsed_extension(),
            ParsedExtension::AuthorityKeyIdentifier(_) | ParsedExtension::CRLNumber(_)
        )
    });
    if !known {
        return Err(form("its extensions are known here"));
    }
    let number = list.crl_number().and_then(|number| u64::try_from(number.clone()).ok());
    let number = number.ok_or(form("it has a number of 64 bits"))?;
    let next_at = list.next_update().ok_or(form("it says when the next one is due"))?;
    let revoked = list.iter_revoked_certificates();
    let serials = revoked
        .map(|revoked| (plain(revoked.raw_serial()).to_vec(), system_time(revoked.revocation_date)))
        .collect();
    Ok((number, system_time(list.last_update()), system_time(next_at), serials))
}

/// A serial number without the zeros that DER may put in front.
pub(crate) fn plain(serial: &[u8]) -> &[u8] {
    let zeros = serial.iter().take_while(|byte| **byte == 0).count();
    serial.get(zeros..).unwrap_or_default()
}

/// All that is revoked, as a value.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revoked {
    nodes: BTreeSet<NodeId>,
    certificates: BTreeSet<CertificateId>,
}

impl Revoked {
    /// Adds a node: no certificate that names it counts any more, nor what it issued.
    pub fn add_node(&mut self, node: NodeId) {
        self.nodes.insert(node);
    }

    /// Adds what a list revokes.
    pub fn add_list(&mut self, list: &RevocationList) {
        self.certificates.extend(list.serials().map(|serial| CertificateId::of(&list.issuer_key, serial)));
    }

    /// Takes these certificates for those that are revoked, instead of all before: a newer list says it all.
    pub fn set_certificates(&mut self, certificates: impl IntoIterator<Item = CertificateId>) {
        self.certificates = certificates.into_iter().collect();
    }

    /// Says whether the same certificates are revoked as in another set.
    pub fn has_certificates_of(&self, other: &Self) -> bool {
        self.certificates == other.certificates
    }

    /// Says whether a node is revoked by name.
    pub fn has_node(&self, node: &NodeId) -> bool {
        self.nodes.contains(node)
    }

    fn has_serial(&self, issuer: &PublicKey, serial: &[u8]) -> bool {
        self.certificates.contains(&CertificateId::of(issuer, plain(serial)))
    }

    /// Checks the whole chain that a peer showed in its handshake: what was good then may be revoked by now.
    ///
    /// Call it only with the certificates of a finished handshake: times are not judged.
    ///
    /// # Errors
    /// [`CertificateError::Revoked`]; any other is excluded by a handshake of ours.
    pub fn check_chain(
        &self,
        certificates: &[CertificateDer<'_>],
        authority: &AuthorityCertificate,
    ) -> Result<(), CertificateError> {
        self.check(&authority.prove(&Chain::from_certificates(certificates)?)?, authority)
    }

    /// Checks a node's certificate and, if another node issued it, that node and its certificate.
    pub(crate) fn check(
        &self,
        proven: &Proven,
        authority: &AuthorityCertificate,
    ) -> Result<(), CertificateError> {
        let revoked = |what| Err(CertificateError::Revoked { what });
        let Proven { node, issuing, issuer_key } = proven;
        if self.has_node(&node.node) {
            return revoked(format!("node {}", node.node));
        }
        if self.has_serial(issuer_key, &node.serial) {
            return revoked(format!("the certificate of {}", node.node));
        }
        let Some(issuing) = issuing else { return Ok(()) };
        if self.has_node(&issuing.node) {
            return revoked(format!("node {}, which issued the certificate of {},", issuing.node, node.node));
        }
        if self.has_serial(authority.public_key(), &issuing.serial) {
            return revoked(format!("the issuing certificate of {}", issuing.node));
        }
        Ok(())
    }
}

/// What every handshake asks: all clones are one, and [`Revocations::replace`] changes it for all.
#[derive(Debug, Clone, Default)]
pub struct Revocations(Arc<RwLock<Arc<Revoked>>>);

impl Revocations {
    /// Takes another set; handshakes from now on go by it.
    pub fn replace(&self, revoked: Revoked) {
        // An exchange leaves nothing half done, so a thread that panicked here did no harm.
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(revoked);
    }

    /// Returns what is revoked now.
    pub fn now(&self) -> Arc<Revoked> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests;
