//! Reading certificates, hostile ones too.

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    SanType,
};

use avalon_protocol::access::Role;

use super::*;
use crate::fixture::{Studio, day_one, node};

#[test]
fn an_issued_certificate_names_its_studio_and_node() {
    let studio = Studio::new("lantern-films");
    let identity = studio.identity("ws12@london");
    let (name, id) = node_of_certificate(&identity.certificate_chain()[0]).unwrap();
    assert_eq!((name.as_str(), id), ("lantern-films", node("ws12@london")));
}

#[test]
fn certificates_that_the_authority_would_not_write_are_refused() {
    let studio = Studio::new("a");
    let uri = |text: &str| SanType::URI(text.try_into().unwrap());
    let dns = |text: &str| SanType::DnsName(text.try_into().unwrap());
    let mut unknown = CustomExtension::from_oid_content(&[1, 2, 3, 4], vec![5, 0]);
    unknown.set_criticality(true);
    type Change = Box<dyn FnOnce(&mut CertificateParams)>;
    let names = |names: Vec<SanType>| -> Change { Box::new(move |params| params.subject_alt_names = names) };
    let good_dns = || dns("ws12.london.avalon.internal");
    let cases: Vec<(&str, Change)> = vec![
        ("no name", names(vec![])),
        ("no name", names(vec![uri("https://a/london/ws12"), good_dns()])),
        ("2 names", names(vec![uri("avalon://a/london/ws12"), uri("AVALON://a/london/ws13"), good_dns()])),
        ("name", names(vec![uri("AVALON://a/london/ws12"), good_dns()])),
        ("name", names(vec![uri("avalon://a/london/ws12/x"), good_dns()])),
        ("name", names(vec![uri("avalon://a/london"), good_dns()])),
        ("name", names(vec![uri("avalon://a/../ws12"), good_dns()])),
        ("dns", names(vec![uri("avalon://a/london/ws12")])),
        ("dns", names(vec![uri("avalon://a/london/ws12"), dns("ws13.london.avalon.internal")])),
        ("dns", names(vec![uri("avalon://a/london/ws12"), good_dns(), dns("x.example.net")])),
        ("studio", names(vec![uri("avalon://b/london/ws12"), good_dns()])),
        ("usage", Box::new(|params| params.extended_key_usages.clear())),
        ("usage", Box::new(|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::Any])),
        ("kind", Box::new(|params| params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained))),
        ("kind", Box::new(|params| params.key_usages.push(KeyUsagePurpose::KeyCertSign))),
        ("kind", Box::new(|params| params.key_usages.push(KeyUsagePurpose::CrlSign))),
        ("form", Box::new(move |params| params.custom_extensions.push(unknown))),
        ("role", names(vec![uri("avalon://a/london/ws12"), uri("avalon-role:boss"), good_dns()])),
        ("role", names(vec![uri("avalon://a/london/ws12"), uri("avalon-role:Admin"), good_dns()])),
        ("role", names(vec![uri("avalon://a/london/ws12"), uri("avalon-role:"), good_dns()])),
        ("role", names(vec![uri("avalon://a/london/ws12"), uri("Avalon-Role:admin"), good_dns()])),
        (
            "role",
            names(vec![
                uri("avalon://a/london/ws12"),
                uri("avalon-role:vendor"),
                uri("AVALON-ROLE:admin"),
                good_dns(),
            ]),
        ),
        ("form", names(vec![uri("avalon://a/london/ws12"), uri("avalon-power:all"), good_dns()])),
    ];
    for (expected, change) in cases {
        let (certificate, _) = studio.certify_odd(change);
        let error = studio.authority.certificate().issued(certificate.der()).unwrap_err();
        let found = match &error {
            CertificateError::NoName => "no name",
            CertificateError::AmbiguousName { found: 2 } => "2 names",
            CertificateError::InvalidName { .. } => "name",
            CertificateError::WrongDnsName { .. } => "dns",
            CertificateError::OtherStudio { .. } => "studio",
            CertificateError::WrongUsage => "usage",
            CertificateError::WrongKind { .. } => "kind",
            CertificateError::Form { .. } => "form",
            CertificateError::InvalidRole { .. } => "role",
            other => panic!("{other:?}"),
        };
        assert_eq!(found, expected, "{error}");
    }
}

#[test]
fn a_certificate_of_before_there_were_roles_is_that_of_a_site() {
    let studio = Studio::new("a");
    let (certificate, _) = studio.certify_odd(|params| {
        params
            .subject_alt_names
            .retain(|name| *name != SanType::URI("avalon-role:workstation".try_into().unwrap()));
        assert_eq!(params.subject_alt_names.len(), 2);
    });
    assert_eq!(studio.authority.certificate().issued(certificate.der()).unwrap().role, Role::Site);
}

#[test]
fn an_authority_cannot_stand_for_a_node() {
    let studio = Studio::new("a");
    let authority = studio.authority.certificate();
    assert!(authority.issued(authority.der()).is_err());
    assert!(node_of_certificate(authority.der()).is_err());
}

#[test]
fn hostile_bytes_cost_an_error_and_nothing_else() {
    let studio = Studio::new("a");
    let identity = studio.identity("ws12@london");
    let good = identity.certificate_chain()[0].to_vec();
    for length in 0..good.len() {
        assert!(node_of_certificate(&good[..length]).is_err(), "cut at {length}");
    }
    let longer = [good.as_slice(), &[0]].concat();
    assert!(matches!(node_of_certificate(&longer), Err(CertificateError::Form { .. })));
    let huge = vec![0x30; MAX_CERTIFICATE_BYTES + 1];
    assert!(matches!(node_of_certificate(&huge), Err(CertificateError::TooLarge { .. })));
    let nested = [0x30, 0x80].repeat(MAX_CERTIFICATE_BYTES / 2);
    assert!(node_of_certificate(&nested).is_err());
    let panicking: Result<(), _> = read(&good, |_| panic!("a parser that breaks"));
    assert_eq!(panicking, Err(CertificateError::ParserPanicked));
}

#[test]
fn times_are_written_in_utc() {
    assert_eq!(utc(day_one()), "2027-01-15 08:00:00 UTC");
    assert_eq!(utc(std::time::UNIX_EPOCH), "1970-01-01 00:00:00 UTC");
}
