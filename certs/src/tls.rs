//! The TLS that nodes speak: version 1.3, both sides proved by the studio's authority, nothing remembered.
//!
//! No 0-RTT, because it can be replayed. No tickets and no resumption, because a resumed connection is not verified
//! again and a revoked node could return. Peers are named by their certificates; addresses and host names prove nothing.
//! The configurations serve quinn, whose helpers would turn early data on.

use std::sync::Arc;

use avalon_protocol::id::{NodeId, StudioName};
use rustls::{
    ClientConfig, Error, RootCertStore, ServerConfig,
    client::{Resumption, WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    server::{
        NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier, danger::ClientCertVerifier,
    },
    version::TLS13,
};
use rustls_pki_types::CertificateDer;
use thiserror::Error as ThisError;

use crate::{
    certificate::{CertificateError, Chain, NodeCertificate},
    identity::Identity,
    join::{JOIN_ALPN, OpenInvites},
    revocation::Revocations,
    verifier::{AdmittingVerifier, StudioVerifier},
};

/// The application protocol of peers; one that names neither it nor that of joining is refused.
pub const ALPN: &[u8] = b"avalon/1";

/// The server name to dial when only an address is known: any node of the studio may answer.
pub const ANY_NODE: &str = "any-node.avalon.internal";

/// Why a TLS configuration could not be made. None of these depends on a peer.
#[derive(Debug, ThisError)]
#[non_exhaustive]
pub enum TlsError {
    /// The authority's certificate does not serve as a trust anchor.
    #[error("the CA certificate of studio {studio} cannot be a trust anchor")]
    Anchor {
        /// The studio.
        studio: StudioName,
        /// What rustls said.
        #[source]
        source: Error,
    },
    /// The check of peers could not be made.
    #[error("could not set up the check of peers' certificates")]
    Verifier {
        /// What rustls said.
        #[source]
        source: VerifierBuilderError,
    },
    /// rustls refuses the version, the certificate or the key.
    #[error("could not set up TLS as {node}")]
    Config {
        /// The node that this is.
        node: NodeId,
        /// What rustls said.
        #[source]
        source: Error,
    },
}

/// Whom a node lets past the handshake, beside its studio.
#[derive(Debug, Clone, Default)]
pub struct Admission {
    /// Whom it does not let in any more; asked on both sides.
    pub revocations: Revocations,
    /// Who may join with an invite of this node. Without, nobody may, and the protocol for it is not offered.
    pub invites: Option<Arc<dyn OpenInvites>>,
}

/// Makes the configuration for accepting peers of whom none is revoked.
///
/// # Errors
/// As [`server_config_for`].
pub fn server_config(identity: &Identity) -> Result<ServerConfig, TlsError> {
    server_config_for(identity, &Admission::default())
}

/// Makes the configuration for accepting peers; who has neither a certificate of the studio nor an open invite is refused.
///
/// Both protocols are on one endpoint and TLS lets a verifier not see which one is meant; so compare it with who it is, by
/// [`peer_certificate`] and [`joiner`](crate::join::joiner), before a byte is exchanged. Time is rustls's own clock;
/// tests replace `time_provider`.
///
/// # Errors
/// [`TlsError`] when the identity does not serve, which [`Identity::load`] should have found.
pub fn server_config_for(identity: &Identity, admission: &Admission) -> Result<ServerConfig, TlsError> {
    let provider = provider();
    let failed = |source| TlsError::Config { node: identity.node().clone(), source };
    let webpki = WebPkiClientVerifier::builder_with_provider(roots(identity)?, Arc::clone(&provider))
        .build()
        .map_err(|source| TlsError::Verifier { source })?;
    let studio: StudioVerifier<dyn ClientCertVerifier> =
        StudioVerifier::new(identity.authority(), webpki, &admission.revocations);
    let mut alpn_protocols = vec![ALPN.to_vec()];
    let verifier: Arc<dyn ClientCertVerifier> = match &admission.invites {
        Some(invites) => {
            alpn_protocols.push(JOIN_ALPN.to_vec());
            Arc::new(AdmittingVerifier { studio, invites: Arc::clone(invites) })
        }
        None => Arc::new(studio),
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(failed)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(identity.certificate_chain().to_vec(), identity.private_key())
        .map_err(failed)?;
    config.alpn_protocols = alpn_protocols;
    config.max_early_data_size = 0;
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    Ok(config)
}

/// Makes the configuration for dialling peers of whom none is revoked.
///
/// # Errors
/// As [`client_config_for`].
pub fn client_config(identity: &Identity) -> Result<ClientConfig, TlsError> {
    client_config_for(identity, &Revocations::default())
}

/// Makes the configuration for dialling peers.
///
/// Dial with [`dns_name`](crate::certificate::dns_name) of the node that must answer, or with [`ANY_NODE`]. A server
/// name of any other form, such as an IP address, expects nobody in particular either; ask [`peer_node`] who answered.
/// The name is not sent, so that an observer does not learn it.
///
/// # Errors
/// [`TlsError`] when the identity does not serve, which [`Identity::load`] should have found.
pub fn client_config_for(identity: &Identity, revocations: &Revocations) -> Result<ClientConfig, TlsError> {
    let provider = provider();
    let failed = |source| TlsError::Config { node: identity.node().clone(), source };
    let webpki = WebPkiServerVerifier::builder_with_provider(roots(identity)?, Arc::clone(&provider))
        .build()
        .map_err(|source| TlsError::Verifier { source })?;
    let verifier: StudioVerifier<dyn ServerCertVerifier> =
        StudioVerifier::new(identity.authority(), webpki, revocations);
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(failed)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_auth_cert(identity.certificate_chain().to_vec(), identity.private_key())
        .map_err(failed)?;
    finish_client(&mut config, ALPN);
    Ok(config)
}

/// Sets what every client of ours has.
pub(crate) fn finish_client(config: &mut ClientConfig, alpn: &[u8]) {
    config.alpn_protocols = vec![alpn.to_vec()];
    config.enable_early_data = false;
    config.resumption = Resumption::disabled();
    config.enable_sni = false;
}

/// Returns the node that a verified connection's certificates name, as from `quinn::Connection::peer_identity`.
///
/// Call it only with the certificates of a finished handshake: it reads and does not verify.
///
/// # Errors
/// As [`peer_certificate`].
pub fn peer_node(chain: &[CertificateDer<'_>]) -> Result<NodeId, CertificateError> {
    Ok(peer_certificate(chain)?.node)
}

/// Returns what the certificate of a verified connection's peer says: node, role, and when it ends.
///
/// Call it only with the certificates of a finished handshake: it reads and does not verify.
///
/// # Errors
/// [`CertificateError`], which a finished handshake of ours excludes unless the peer is [joining](crate::join::joiner).
pub fn peer_certificate(chain: &[CertificateDer<'_>]) -> Result<NodeCertificate, CertificateError> {
    NodeCertificate::parse(Chain::from_certificates(chain)?.leaf())
}

/// ring, with every TLS 1.3 suite that it has; quinn needs `TLS13_AES_128_GCM_SHA256` for its first packets.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn roots(identity: &Identity) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    roots
        .add(identity.authority().der().clone())
        .map_err(|source| TlsError::Anchor { studio: identity.studio().clone(), source })?;
    Ok(Arc::new(roots))
}

#[cfg(test)]
mod tests;
