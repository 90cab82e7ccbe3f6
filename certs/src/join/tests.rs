//! What a seed comes to, and which server is the one that invited.

use std::time::Duration;

use super::*;
use crate::{
    authority::NODE_VALIDITY,
    fixture::{Studio, day_one, node},
};

fn seed(byte: u8) -> Seed {
    Seed::from_bytes([byte; 32])
}

#[test]
fn a_seed_comes_to_one_key_and_its_certificate_is_nobodys() {
    let (one, same, other) =
        (seed_key(&seed(1)).unwrap(), seed_key(&seed(1)).unwrap(), seed_key(&seed(2)).unwrap());
    assert_eq!(one.public_key(), same.public_key());
    assert_ne!(one.public_key(), other.public_key());
    // Frozen: another derivation would make open invites useless.
    let hash = SeedKeyHash::of(&seed(1)).unwrap();
    let hex: String = hash.as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "599eb59a0bd847b3cb92e346409494e06766654cfdd645d4735cce30cfba990c");

    let certificate = joining_certificate(&one).unwrap();
    assert_eq!(joiner(std::slice::from_ref(&certificate)), Some(hash));
    assert_eq!(joiner(&[certificate.clone(), certificate.clone()]), None);
    assert!(NodeCertificate::parse(&certificate).is_err());
    let studio = Studio::new("a");
    assert!(studio.authority.certificate().issued(&certificate).is_err());
}

#[test]
fn no_certificate_of_a_studio_is_read_as_a_joiners() {
    let studio = Studio::new("a");
    let issuer = studio.delegate("srv@london");
    let identity = studio.identity("ws12@london");
    for der in [
        identity.certificate_chain()[0].to_vec(),
        studio.authority.certificate().der().to_vec(),
        issuer.certificate_der().to_vec(),
    ] {
        assert!(read_joiner(&der).is_err());
    }
    let key = PrivateKey::generate().unwrap();
    let odd = |change: fn(&mut CertificateParams)| {
        let mut params = CertificateParams::new(vec![JOINING_NAME.to_owned()]).unwrap();
        change(&mut params);
        read_joiner(params.self_signed(key.pair()).unwrap().der())
    };
    assert!(odd(|_| {}).is_ok());
    let claim = |uri: &str| SanType::URI(uri.try_into().unwrap());
    assert!(odd(|params| params.subject_alt_names.clear()).is_err());
    assert!(odd(|params| params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained)).is_err());
    let mut params = CertificateParams::new(vec![JOINING_NAME.to_owned()]).unwrap();
    params.subject_alt_names.push(claim("avalon-role:admin"));
    assert!(read_joiner(params.self_signed(key.pair()).unwrap().der()).is_err());
}

#[test]
fn a_joiners_certificate_is_signed_by_its_own_key() {
    let (mine, theirs) = (seed_key(&seed(1)).unwrap(), seed_key(&seed(2)).unwrap());
    let good = joining_certificate(&mine).unwrap().to_vec();
    for position in 0..good.len() {
        let mut bad = good.clone();
        bad[position] ^= 1;
        assert!(read_joiner(&bad).is_err(), "byte {position}");
    }
    let at = good.windows(32).position(|window| window == mine.public_key().as_bytes()).unwrap();
    let mut stolen = good;
    stolen[at..at + 32].copy_from_slice(theirs.public_key().as_bytes());
    assert!(read_joiner(&stolen).is_err());
}

#[test]
fn the_server_is_held_to_the_fingerprint_of_the_token() {
    let (studio, double) = (Studio::new("a"), Studio::new("a"));
    let root = studio.authority.certificate();
    let issuer = studio.delegate("srv@london");
    let expected = root.fingerprint_bytes();
    let check = |root: &[u8], chain: &[CertificateDer<'_>], now| check_server(root, &expected, chain, now);
    for identity in [studio.identity("nas@london"), studio.delegated_identity(&issuer, "nas2@london")] {
        let (found, facts) = check(root.der(), identity.certificate_chain(), day_one()).unwrap();
        assert_eq!((&found, &facts.node), (root, identity.node()));
    }
    let identity = studio.identity("srv@london");
    let chain = identity.certificate_chain();
    let refused = check(double.authority.certificate().der(), chain, day_one()).unwrap_err();
    assert!(matches!(&refused, UntrustedServer::OtherAuthority { .. }), "{refused}");
    assert!(refused.to_string().contains(&double.authority.fingerprint()), "{refused}");
    // The right root beside the certificate of somebody else: what a man in the middle would send.
    let middle = double.identity("srv@london");
    let refused = check(root.der(), middle.certificate_chain(), day_one()).unwrap_err();
    assert!(matches!(refused, UntrustedServer::Certificate { .. }), "{refused}");
    assert!(check(root.der(), &[], day_one()).is_err());
    let late = day_one() + NODE_VALIDITY + Duration::from_secs(1);
    let refused = check(root.der(), chain, late).unwrap_err();
    assert!(refused.to_string().contains("check the clock"), "{refused}");
    assert_eq!(node("srv@london"), *identity.node());
}
