//! Chains over an issuing node, and everything that looks like one.

use std::{fs, time::Duration};

use avalon_protocol::signing::{RecordSigner as _, RecordTrust as _};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};
use rustls_pki_types::CertificateDer;

use super::*;
use crate::{
    authority::{Authority, BACKDATE, ISSUING_VALIDITY, NODE_VALIDITY, Period, issuing_params},
    certificate::CertificateError,
    fixture::{Studio, certify_by, day_one, mode, node, overwrite, request, what},
    identity::NodeKey,
};

/// An issuing certificate of `srv@london` after `change`, as no version of this program would make it, with its key.
fn odd(
    studio: &Studio,
    change: impl FnOnce(&mut CertificateParams),
) -> (CertificateDer<'static>, Issuer<'static, KeyPair>) {
    let key = PrivateKey::generate().unwrap();
    let period = Period::backdated(day_one(), day_one() + ISSUING_VALIDITY);
    let mut params = issuing_params(studio.authority.studio(), &node("srv@london"), period).unwrap();
    change(&mut params);
    let made = params.signed_by(key.pair(), &studio.authority.issuer).unwrap();
    let issuer = Issuer::from_ca_cert_der(made.der(), key.into_pair()).unwrap();
    (made.der().clone(), issuer)
}

/// A leaf by that issuer, after `change`.
fn leaf(
    studio: &Studio,
    issuer: &Issuer<'static, KeyPair>,
    change: impl FnOnce(&mut CertificateParams),
) -> CertificateDer<'static> {
    let key = PrivateKey::generate().unwrap();
    certify_by(&studio.authority, issuer, key.pair(), change).der().clone()
}

fn prove(studio: &Studio, chain: &[&CertificateDer<'static>]) -> Result<NodeId, CertificateError> {
    let certificates: Vec<_> = chain.iter().map(|der| (*der).clone()).collect();
    let chain = Chain::from_certificates(&certificates)?;
    assert_eq!(Chain::from_bytes(&chain.to_bytes()), Ok(chain.clone()));
    studio.authority.certificate().prove(&chain).map(|proven| proven.node.node)
}

#[test]
fn what_an_issuing_node_signs_is_of_the_studio() {
    let studio = Studio::new("a");
    let issuer = studio.delegate("srv@london");
    assert_eq!(issuer.node(), &node("srv@london"));
    let identity = studio.delegated_identity(&issuer, "ws1@home");
    assert_eq!((identity.node(), identity.role()), (&node("ws1@home"), Role::Workstation));
    assert_eq!(identity.certificate_chain().len(), 2);
    let (signer, reader) = (identity.signer(), studio.identity("nas@montreal").trust());
    let key = reader.prove(signer.certificate(), identity.node()).unwrap().key;
    assert!(reader.verify(&key, b"head", &signer.sign(b"head")));
    assert!(reader.prove(signer.certificate(), &node("srv@london")).is_err());
}

#[test]
fn no_bit_of_a_chain_in_a_feed_can_be_changed() {
    let studio = Studio::new("a");
    let issuer = studio.delegate("srv@london");
    let identity = studio.delegated_identity(&issuer, "ws1@home");
    let (good, trust) = (identity.signer().certificate().to_vec(), identity.trust());
    assert!(trust.prove(&good, identity.node()).is_ok());
    for position in 0..good.len() {
        assert!(trust.prove(&good[..position], identity.node()).is_err(), "cut at {position}");
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[position] ^= 1 << bit;
            assert!(trust.prove(&bad, identity.node()).is_err(), "bit {bit} of byte {position}");
        }
    }
    let longer = [good.as_slice(), &[0]].concat();
    assert!(trust.prove(&longer, identity.node()).is_err());
}

#[test]
fn the_form_in_feeds_is_bounded_and_has_one_spelling() {
    for bytes in
        [&[][..], &[1], &[1, 0], &[1, 0, 0, 0, 0], &[1, 0xff, 0xff, 0x30], &[1, 0, 1, 0x30], &[2, 0, 1, 0x30]]
    {
        let chain = Chain::from_bytes(bytes);
        let studio = Studio::new("a");
        let refused = chain.and_then(|chain| studio.authority.certificate().prove(&chain)).is_err();
        assert!(refused, "{bytes:?}");
    }
    let huge = vec![0x30; crate::certificate::MAX_CERTIFICATE_BYTES + 1];
    assert!(matches!(Chain::from_bytes(&huge), Err(CertificateError::TooLarge { .. })));
}

#[test]
fn only_the_two_chains_are_taken() {
    use CertificateError as E;
    let (studio, other) = (Studio::new("a"), Studio::new("a"));
    let issuer = studio.delegate("srv@london");
    let issuing = CertificateDer::from(issuer.certificate_der().to_vec());
    let good = leaf(&studio, &issuer.issuer, |_| {});
    assert_eq!(prove(&studio, &[&good, &issuing]), Ok(node("ws12@london")));
    let (direct, root) = (studio.certify_odd(|_| {}).0.der().clone(), studio.authority.certificate().der());

    assert_eq!(prove(&studio, &[]), Err(E::Absent));
    assert!(matches!(prove(&studio, &[&good]), Err(E::Foreign { .. })), "the issuer is missing");
    assert!(matches!(prove(&studio, &[&issuing]), Err(E::WrongKind { .. })), "an issuer is no node");
    assert!(matches!(prove(&studio, &[&issuing, &issuing]), Err(E::NotByIssuer { .. })), "twice the issuer");
    assert!(matches!(prove(&studio, &[&good, &good]), Err(E::Foreign { .. })), "twice the node");
    assert!(matches!(prove(&studio, &[&issuing, &good]), Err(E::Foreign { .. })), "the wrong order");
    assert!(matches!(prove(&studio, &[&direct, &issuing]), Err(E::NotByIssuer { .. })), "not by that issuer");
    assert!(matches!(prove(&studio, &[&direct, &direct]), Err(E::WrongKind { .. })), "a node issues nothing");
    assert!(prove(&studio, &[&direct, root]).is_err(), "the authority comes from the disk, not from a peer");
    assert_eq!(prove(&studio, &[&good, &issuing, root]), Err(E::Chain { found: 3 }));
    assert!(matches!(prove(&other, &[&good, &issuing]), Err(E::Foreign { .. })), "another studio's");
    // Another studio of the same name certifies the same key.
    let crossed = other.delegate("srv@london");
    let crossed_leaf = leaf(&other, &crossed.issuer, |_| {});
    assert!(matches!(prove(&studio, &[&crossed_leaf, &issuing]), Err(E::NotByIssuer { .. })), "cross-signed");
}

#[test]
fn issuing_certificates_that_the_authority_would_not_write_are_refused() {
    let studio = Studio::new("a");
    type Change = Box<dyn FnOnce(&mut CertificateParams)>;
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let dns = |text: &str| SanType::DnsName(text.try_into().unwrap());
    let cases: Vec<(&str, Change)> = vec![
        ("pathlen 1", Box::new(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(1)))),
        ("no pathlen", Box::new(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        ("no CA", Box::new(|params| params.is_ca = IsCa::ExplicitNoCa)),
        ("no usage", Box::new(|params| params.key_usages.clear())),
        ("no CRLs", Box::new(|params| params.key_usages.truncate(1))),
        ("signs too", Box::new(|params| params.key_usages.push(KeyUsagePurpose::DigitalSignature))),
        (
            "for connections",
            Box::new(|params| {
                params.extended_key_usages =
                    vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
            }),
        ),
        (
            "a TLS name",
            Box::new(move |params| params.subject_alt_names.push(dns("srv.london.avalon.internal"))),
        ),
        ("a role", Box::new(move |params| params.subject_alt_names.push(uri("avalon-role:site")))),
        ("no name", Box::new(|params| params.subject_alt_names.clear())),
        ("a studio's name", Box::new(move |params| params.subject_alt_names = vec![uri("avalon://a")])),
        (
            "another studio",
            Box::new(move |params| params.subject_alt_names = vec![uri("avalon://b/london/srv")]),
        ),
    ];
    for (what, change) in cases {
        let (der, issuer) = odd(&studio, change);
        let refused = prove(&studio, &[&leaf(&studio, &issuer, |_| {}), &der]);
        assert!(refused.is_err(), "{what}");
        assert!(studio.authority.certificate().issued(&der).is_err(), "{what} as a node's");
    }
    let (der, issuer) = odd(&studio, |_| {});
    assert!(prove(&studio, &[&leaf(&studio, &issuer, |_| {}), &der]).is_ok(), "without a change it is good");
}

#[test]
fn an_issuing_node_makes_no_admins_no_issuers_and_nothing_that_outlives_it() {
    use CertificateError as E;
    let studio = Studio::new("a");
    let issuer = studio.delegate("srv@london");
    let issuing = CertificateDer::from(issuer.certificate_der().to_vec());
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let by_force = |change: fn(&mut CertificateParams)| {
        prove(&studio, &[&leaf(&studio, &issuer.issuer, change), &issuing])
    };
    let key = NodeKey::generate().unwrap();
    let admin = IssueRequest { role: Role::Admin, ..what("ws12@london") };
    let refused = issuer.sign(&request(&key), &admin, day_one()).unwrap_err();
    assert!(matches!(&refused, AuthorityError::AdminByDelegate { .. }), "{refused}");
    let forged = leaf(&studio, &issuer.issuer, |params| {
        params.subject_alt_names[1] = uri("avalon-role:admin");
    });
    assert!(matches!(prove(&studio, &[&forged, &issuing]), Err(E::AdminByDelegate { .. })));
    // One that names no role counts as a site's, which it may give.
    assert!(by_force(|params| drop(params.subject_alt_names.remove(1))).is_ok());

    let sub = by_force(|params| params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0)));
    assert!(matches!(sub, Err(E::WrongKind { .. })), "{sub:?}");
    let year = rcgen::date_time_ymd(2030, 1, 1);
    let after = leaf(&studio, &issuer.issuer, |params| params.not_after = year);
    assert_eq!(prove(&studio, &[&after, &issuing]), Err(E::OutlivesIssuer));
    let before = by_force(|params| params.not_before = rcgen::date_time_ymd(2020, 1, 1));
    assert_eq!(before, Err(E::OutlivesIssuer));
}

#[test]
fn an_issuing_node_issues_within_its_time_and_no_longer() {
    let studio = Studio::new("a");
    let issuer = studio.delegate("srv@london");
    let ends = issuer.expires_at();
    assert_eq!(ends, day_one() + 4 * NODE_VALIDITY);
    let sign = |now| issuer.sign(&request(&NodeKey::generate().unwrap()), &what("ws1@home"), now);
    assert_eq!(sign(ends - Duration::from_secs(60)).unwrap().facts.expires_at, ends);
    for now in [ends, day_one() - BACKDATE - Duration::from_secs(1)] {
        let refused = sign(now).unwrap_err();
        assert!(matches!(&refused, AuthorityError::NotIssuing { .. }), "{refused}");
        assert!(refused.to_string().contains("avalonctl ca delegate"), "{refused}");
    }
    // A clock behind that of the authority makes no certificate that begins before its issuer's.
    assert!(sign(day_one() - BACKDATE).is_ok());
}

#[test]
fn delegating_is_private_and_leaves_what_it_must_not_overwrite() {
    let (studio, other) = (Studio::new("a"), Studio::new("a"));
    let out = studio.issue("srv@london");
    assert!(IssuingAuthority::open(&out).unwrap().is_none());
    studio.authority.delegate_into(&node("srv@london"), NODE_VALIDITY, &out, day_one()).unwrap();
    assert_eq!((mode(&out.join("issuing.key")), mode(&out.join("issuing.pem"))), (0o600, 0o644));
    assert!(IssuingAuthority::open(&out).unwrap().is_some());
    assert!(crate::identity::Identity::load(&out, day_one()).is_ok());

    let delegate = |authority: &Authority, id: &str| {
        authority.delegate_into(&node(id), NODE_VALIDITY, &out, day_one()).unwrap_err()
    };
    assert!(matches!(delegate(&studio.authority, "ws1@home"), AuthorityError::OtherIdentity { .. }));
    assert!(matches!(delegate(&other.authority, "srv@london"), AuthorityError::OtherAuthority { .. }));

    overwrite(&out.join("issuing.key"), &fs::read(out.join("node.key")).unwrap());
    assert!(matches!(IssuingAuthority::open(&out), Err(AuthorityError::KeyMismatch { .. })));
    overwrite(&out.join("issuing.pem"), &fs::read(out.join("node.pem")).unwrap());
    assert!(matches!(IssuingAuthority::open(&out), Err(AuthorityError::NotAuthority { .. })));
    fs::remove_file(out.join("issuing.key")).unwrap();
    assert!(matches!(IssuingAuthority::open(&out), Err(AuthorityError::Open { .. })));
}
