//! Loading identities, whole and broken ones.

use std::{fs, time::Duration};

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, SanType};

use super::*;
use crate::{
    authority::{BACKDATE, NODE_VALIDITY},
    fixture::{Studio, day_one, node, overwrite, set_mode},
};

#[test]
fn an_issued_identity_loads_and_says_who_it_is() {
    let studio = Studio::new("lantern-films");
    let dir = studio.issue("ws12@london");
    for now in [day_one() - BACKDATE, day_one(), day_one() + NODE_VALIDITY] {
        let identity = Identity::load(&dir, now).unwrap();
        assert_eq!(identity.node(), &node("ws12@london"));
        assert_eq!(identity.studio().as_str(), "lantern-films");
        assert_eq!(identity.expires_at(), day_one() + NODE_VALIDITY);
        assert_eq!(identity.authority().fingerprint(), studio.authority.fingerprint());
    }
}

#[test]
fn missing_files_are_told_apart() {
    let studio = Studio::new("a");
    let dir = studio.issue("ws12@london");
    let without = |name: &str| {
        let (path, aside) = (dir.join(name), dir.join("aside"));
        fs::rename(&path, &aside).unwrap();
        let error = Identity::load(&dir, day_one()).unwrap_err();
        fs::rename(&aside, &path).unwrap();
        error
    };
    let key = without("node.key");
    assert!(matches!(&key, IdentityError::MissingKey { .. }), "{key}");
    assert!(key.to_string().ends_with(&format!("--node NODE --site SITE --out {}`", dir.display())), "{key}");
    let certificate = without("node.pem");
    assert!(matches!(&certificate, IdentityError::MissingCertificate { .. }), "{certificate}");
    let authority = without("ca.pem");
    assert!(matches!(&authority, IdentityError::MissingAuthority { .. }), "{authority}");
    assert!(Identity::load(&dir, day_one()).is_ok());
}

#[test]
fn a_key_that_others_can_read_is_refused_with_the_command_that_mends_it() {
    let studio = Studio::new("a");
    let dir = studio.issue("ws12@london");
    let path = dir.join("node.key");
    for mode in [0o640, 0o604, 0o660, 0o610, 0o777] {
        set_mode(&path, mode);
        let error = Identity::load(&dir, day_one()).unwrap_err();
        assert!(matches!(&error, IdentityError::KeyExposed { mode: found, .. } if *found == mode), "{error}");
        assert!(error.to_string().contains(&format!("run `chmod 600 {}`", path.display())), "{error}");
    }
    set_mode(&path, 0o400);
    assert!(Identity::load(&dir, day_one()).is_ok());
}

#[test]
fn an_expired_certificate_says_when_and_how_to_renew() {
    let studio = Studio::new("a");
    let dir = studio.issue("ws12@london");
    let error = Identity::load(&dir, day_one() + NODE_VALIDITY + Duration::from_secs(1)).unwrap_err();
    let expected = format!(
        "the certificate of ws12@london expired on 2027-04-15 08:00:00 UTC; renew it with \
         `avalonctl ca issue --dir CA_DIR --node ws12 --site london --out {}`",
        dir.display()
    );
    assert_eq!(error.to_string(), expected);
    assert!(matches!(error, IdentityError::Expired { .. }));
}

#[test]
fn a_certificate_of_the_future_blames_the_clock() {
    let studio = Studio::new("a");
    let dir = studio.issue("ws12@london");
    let error = Identity::load(&dir, day_one() - BACKDATE - Duration::from_secs(1)).unwrap_err();
    assert!(matches!(&error, IdentityError::NotYetValid { .. }), "{error}");
    assert!(
        error.to_string().contains("is not valid before 2027-01-15 07:00:00 UTC; check the clock"),
        "{error}"
    );
}

#[test]
fn damaged_files_are_named() {
    let studio = Studio::new("a");
    let good = studio.issue("ws12@london");
    let certificate = fs::read(good.join("node.pem")).unwrap();
    let cases: [(&str, Vec<u8>); 6] = [
        ("node.key", b"garbage".to_vec()),
        ("node.key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n".to_vec()),
        ("node.pem", Vec::new()),
        ("node.pem", certificate.repeat(3)),
        ("ca.pem", certificate[..certificate.len() / 2].to_vec()),
        ("ca.pem", vec![b'\n'; 65 * 1024]),
    ];
    for (name, content) in cases {
        let dir = studio.issue("ws13@london");
        overwrite(&dir.join(name), &content);
        let error = Identity::load(&dir, day_one()).unwrap_err();
        assert!(matches!(&error, IdentityError::Malformed { path, .. } if path.ends_with(name)), "{error:?}");
        fs::remove_dir_all(dir).unwrap();
    }
}

#[test]
fn an_unreadable_file_is_told_from_a_missing_one() {
    let studio = Studio::new("a");
    let dir = studio.issue("ws12@london");
    fs::remove_file(dir.join("node.pem")).unwrap();
    fs::create_dir(dir.join("node.pem")).unwrap();
    let error = Identity::load(&dir, day_one()).unwrap_err();
    assert!(matches!(&error, IdentityError::Unreadable { .. }), "{error:?}");
}

#[test]
fn a_key_of_another_certificate_is_found() {
    let studio = Studio::new("a");
    let (dir, other) = (studio.issue("ws12@london"), studio.issue("ws13@london"));
    overwrite(&dir.join("node.key"), &fs::read(other.join("node.key")).unwrap());
    let error = Identity::load(&dir, day_one()).unwrap_err();
    assert!(matches!(&error, IdentityError::KeyMismatch { .. }), "{error}");
}

#[test]
fn a_certificate_of_another_authority_is_foreign_even_if_the_studio_has_the_same_name() {
    let (studio, double) = (Studio::new("a"), Studio::new("a"));
    let dir = studio.issue("ws12@london");
    overwrite(&dir.join("ca.pem"), &fs::read(double.dir.path().join("ca/ca.pem")).unwrap());
    let error = Identity::load(&dir, day_one()).unwrap_err();
    assert!(matches!(&error, IdentityError::Foreign { .. }), "{error}");
}

#[test]
fn a_nodes_certificate_is_no_authority() {
    let studio = Studio::new("a");
    let dir = studio.issue("ws12@london");
    overwrite(&dir.join("ca.pem"), &fs::read(dir.join("node.pem")).unwrap());
    let error = Identity::load(&dir, day_one()).unwrap_err();
    assert!(matches!(&error, IdentityError::NotAuthority { .. }), "{error}");
}

#[test]
fn a_certificate_must_name_exactly_one_node_and_serve_both_sides() {
    let studio = Studio::new("a");
    let dir = studio.issue("ws12@london");
    let load_odd = |change: fn(&mut rcgen::CertificateParams)| {
        let (certificate, key) = studio.certify_odd(change);
        overwrite(&dir.join("node.pem"), certificate.pem().as_bytes());
        overwrite(&dir.join("node.key"), key.serialize_pem().as_bytes());
        Identity::load(&dir, day_one())
    };
    assert!(load_odd(|_| {}).is_ok());
    let nameless = load_odd(|params| params.subject_alt_names.clear()).unwrap_err();
    assert!(matches!(&nameless, IdentityError::NoName { .. }), "{nameless}");
    let double = load_odd(|params| {
        params.subject_alt_names.push(SanType::URI("avalon://a/london/ws13".try_into().unwrap()));
    })
    .unwrap_err();
    assert!(matches!(&double, IdentityError::AmbiguousName { found: 2, .. }), "{double}");
    let one_sided = load_odd(|params| params.extended_key_usages.truncate(1)).unwrap_err();
    assert!(
        matches!(
            &one_sided,
            IdentityError::Unsuitable { source: crate::certificate::CertificateError::WrongUsage, .. }
        ),
        "{one_sided}"
    );
}

#[test]
fn only_ed25519_is_taken_as_key_and_in_the_certificate() {
    let studio = Studio::new("a");
    let dir = studio.issue("ws12@london");
    let curve = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    overwrite(&dir.join("node.pem"), studio.certify_key(&curve, |_| {}).pem().as_bytes());
    let error = Identity::load(&dir, day_one()).unwrap_err();
    assert!(matches!(&error, IdentityError::NotEd25519 { path } if path.ends_with("node.pem")), "{error}");
    overwrite(&dir.join("node.key"), curve.serialize_pem().as_bytes());
    let error = Identity::load(&dir, day_one()).unwrap_err();
    assert!(matches!(&error, IdentityError::NotEd25519 { path } if path.ends_with("node.key")), "{error}");
}

#[test]
fn debug_does_not_show_the_key() {
    let studio = Studio::new("a");
    let dir = studio.issue("ws12@london");
    let identity = Identity::load(&dir, day_one()).unwrap();
    assert_eq!(format!("{:?}", identity.signer()), "Signer(..)");
    let shown = format!("{identity:?}");
    assert!(shown.contains("key: PrivateKey(..)"), "{shown}");
    let first_bytes = format!("{:?}", &identity.private_key().secret_der()[16..24]);
    assert!(!shown.contains(first_bytes.trim_matches(['[', ']'])), "{shown}");
}
