//! The studio's own rules, without a handshake around them.

use super::*;
use crate::fixture::Studio;

#[test]
fn a_peer_shows_one_certificate() {
    let studio = Studio::new("a");
    let identity = studio.identity("ws12@london");
    let verifier = StudioVerifier::<()>::new(identity.authority(), Arc::new(()), &Revocations::default());
    let [one] = identity.certificate_chain() else { panic!("one certificate is issued") };
    assert!(verifier.check(one, &[]).is_ok());
    assert!(verifier.check(one, std::slice::from_ref(one)).is_err());
}

#[test]
fn a_verifier_that_panics_refuses_the_peer() {
    let error = guarded::<()>(|| panic!("a verifier that breaks")).unwrap_err();
    assert!(matches!(error, Error::InvalidCertificate(rustls::CertificateError::Other(_))), "{error:?}");
}
