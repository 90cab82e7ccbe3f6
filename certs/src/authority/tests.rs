//! Making an authority and issuing.

use std::{collections::BTreeSet, fs};

use avalon_protocol::access::Role;

use super::*;
use crate::{
    fixture::{Studio, day_one, mode, node, overwrite, sign, what},
    identity::Identity,
};

#[test]
fn a_new_authority_is_on_disk_with_its_key_private_and_opens_again() {
    let studio = Studio::new("lantern-films");
    let dir = studio.dir.path().join("ca");
    assert_eq!((mode(&dir), mode(&dir.join("ca.key")), mode(&dir.join("ca.pem"))), (0o700, 0o600, 0o644));
    let names: BTreeSet<_> = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["ca.key", "ca.pem"].map(Into::into).into(), "no temporary file stays");

    let opened = Authority::open(&dir).unwrap();
    assert_eq!(opened.certificate(), studio.authority.certificate());
    assert_eq!(opened.studio().as_str(), "lantern-films");
    assert_eq!(opened.fingerprint(), studio.authority.fingerprint());
    assert!(sign(&opened, &what("ws1@paris"), day_one()).is_ok());
}

#[test]
fn a_fingerprint_is_32_pairs_of_hex_digits_and_differs_between_authorities_of_one_name() {
    let fingerprint = Studio::new("a").authority.fingerprint();
    let pairs: Vec<&str> = fingerprint.split(':').collect();
    assert_eq!(pairs.len(), 32);
    assert!(
        pairs.iter().all(|pair| pair.len() == 2 && u8::from_str_radix(pair, 16).is_ok()),
        "{fingerprint}"
    );
    assert_ne!(fingerprint, Studio::new("a").authority.fingerprint());
}

#[test]
fn an_existing_authority_is_never_overwritten() {
    let studio = Studio::new("lantern-films");
    let dir = studio.dir.path().join("ca");
    let before = (fs::read(dir.join("ca.key")).unwrap(), fs::read(dir.join("ca.pem")).unwrap());
    let again = |present: &str| {
        let error = Authority::create(&"other".parse().unwrap(), &dir, day_one()).unwrap_err();
        assert!(
            matches!(&error, AuthorityError::AlreadyExists { path } if path.ends_with(present)),
            "{error}"
        );
    };
    again("ca.key");
    assert_eq!(before, (fs::read(dir.join("ca.key")).unwrap(), fs::read(dir.join("ca.pem")).unwrap()));
    fs::remove_file(dir.join("ca.key")).unwrap();
    again("ca.pem");
    assert!(!dir.join("ca.key").exists());
}

#[test]
fn an_authority_whose_files_are_missing_or_of_two_authorities_does_not_open() {
    let studio = Studio::new("a");
    let dir = studio.dir.path().join("ca");
    let absent = Authority::open(&studio.dir.path().join("nothing")).unwrap_err();
    assert!(matches!(absent, AuthorityError::Open { source: KeyFileError::Missing { .. }, .. }), "{absent}");
    overwrite(&dir.join("ca.key"), PrivateKey::generate().unwrap().to_pem().as_bytes());
    assert!(matches!(Authority::open(&dir), Err(AuthorityError::KeyMismatch { .. })));
    overwrite(&dir.join("ca.pem"), &fs::read(studio.issue("ws12@london").join("node.pem")).unwrap());
    assert!(matches!(Authority::open(&dir), Err(AuthorityError::NotAuthority { .. })));
}

#[test]
fn an_issued_identity_is_private_and_has_a_serial_of_its_own() {
    let studio = Studio::new("a");
    let out = studio.issue("ws12@london");
    let modes = ["", "node.key", "node.pem", "ca.pem"].map(|name| mode(&out.join(name)));
    assert_eq!(modes, [0o700, 0o600, 0o644, 0o644]);
    let serial = |id: &str| sign(&studio.authority, &what(id), day_one()).unwrap().facts.serial;
    assert_eq!(serial("ws12@london").len(), 16);
    assert_ne!(serial("ws12@london"), serial("ws12@london"));
}

#[test]
fn the_same_node_is_renewed_and_another_node_is_left_alone() {
    let studio = Studio::new("a");
    let out = studio.issue("ws12@london");
    let later = day_one() + NODE_VALIDITY / 2;
    let renewed = studio.authority.issue_into(&what("ws12@london"), &out, later).unwrap();
    assert_eq!(renewed.facts.expires_at, later + NODE_VALIDITY);
    assert_eq!(Identity::load(&out, later).unwrap().expires_at(), later + NODE_VALIDITY);

    let before = fs::read(out.join("node.key")).unwrap();
    let error = studio.authority.issue_into(&what("ws13@london"), &out, day_one()).unwrap_err();
    assert!(matches!(&error, AuthorityError::OtherIdentity { found, .. } if *found == node("ws12@london")));
    let foreign = Studio::new("b").authority.issue_into(&what("ws12@london"), &out, day_one());
    assert!(matches!(foreign, Err(AuthorityError::OtherIdentity { .. })));
    assert_eq!(fs::read(out.join("node.key")).unwrap(), before);
}

#[test]
fn a_directory_with_a_key_of_unknown_owner_is_left_alone() {
    let studio = Studio::new("a");
    let out = studio.issue("ws12@london");
    fs::remove_file(out.join("node.pem")).unwrap();
    let issue = || studio.authority.issue_into(&what("ws12@london"), &out, day_one());
    assert!(matches!(issue(), Err(AuthorityError::UnknownIdentity { .. })));
    overwrite(&out.join("node.pem"), b"not a certificate");
    assert!(matches!(issue(), Err(AuthorityError::UnknownIdentity { .. })));
    // What a crash before the key leaves behind does not stand in the way.
    fs::remove_file(out.join("node.key")).unwrap();
    fs::remove_file(out.join("node.pem")).unwrap();
    assert!(issue().is_ok());
}

#[test]
fn nothing_outlives_the_authority_and_odd_times_are_refused() {
    let studio = Studio::new("a");
    let ends = studio.authority.certificate().expires_at();
    assert_eq!(ends, day_one() + AUTHORITY_VALIDITY);
    let near_end = ends - Duration::from_secs(60);
    assert_eq!(sign(&studio.authority, &what("ws1@paris"), near_end).unwrap().facts.expires_at, ends);
    let issue = |validity, now| {
        sign(&studio.authority, &IssueRequest { validity, ..what("ws1@paris") }, now).unwrap_err()
    };
    assert!(matches!(issue(NODE_VALIDITY, ends), AuthorityError::Expired { .. }));
    assert!(matches!(issue(Duration::ZERO, day_one()), AuthorityError::Validity { .. }));
    assert!(matches!(issue(Duration::MAX, day_one()), AuthorityError::Validity { .. }));
    assert!(matches!(issue(NODE_VALIDITY, UNIX_EPOCH - NODE_VALIDITY), AuthorityError::Clock));
    let far = UNIX_EPOCH + Duration::from_secs(params::LAST_TIME_SECONDS);
    let late = Authority::create(&"late".parse().unwrap(), &studio.dir.path().join("late"), far);
    assert!(matches!(late, Err(AuthorityError::Clock)));
}

#[test]
fn the_longest_names_are_issued() {
    let label = "n".repeat(63);
    let studio = Studio::new(&label);
    let issued = sign(&studio.authority, &what(&format!("{label}@{label}")), day_one()).unwrap();
    assert_eq!(issued.facts.node.to_string().len(), 127);
}

#[test]
fn keys_are_not_printed() {
    let studio = Studio::new("a");
    assert_eq!(format!("{:?}", NodeKey::generate().unwrap()), "NodeKey(PrivateKey(..))");
    assert_eq!(format!("{:?}", studio.authority), "Authority { studio: StudioName(\"a\"), .. }");
}

#[test]
fn a_role_stands_in_the_certificate_and_admin_is_among_them() {
    let studio = Studio::new("a");
    for role in Role::ALL {
        let issued =
            sign(&studio.authority, &IssueRequest { role, ..what("ws12@london") }, day_one()).unwrap();
        assert_eq!(issued.facts.role, role);
    }
}

#[test]
fn a_key_under_a_passphrase_opens_with_it_alone() {
    let dir = tempfile::tempdir().unwrap();
    let ca = dir.path().join("ca");
    let phrase = |text: &str| Passphrase::for_new_key(text).unwrap();
    let (first, second) = (phrase("correct horse battery"), phrase("staple of the drawer"));
    Authority::create_under(&"a".parse().unwrap(), &ca, Some(&first), day_one()).unwrap();
    assert!(Authority::is_encrypted(&ca).unwrap());
    assert!(!fs::read_to_string(ca.join("ca.key")).unwrap().contains("BEGIN PRIVATE KEY"));
    assert!(matches!(Authority::open(&ca), Err(AuthorityError::NeedsPassphrase { .. })));
    let wrong = Authority::open_under(&ca, Some(&second)).unwrap_err();
    assert!(matches!(wrong, AuthorityError::WrongPassphrase { .. }), "{wrong}");
    assert!(wrong.to_string().contains("does not open the key"), "{wrong}");

    let before = fs::read(ca.join("ca.key")).unwrap();
    assert!(Authority::change_passphrase(&ca, Some(&second), Some(&second)).is_err());
    assert_eq!(fs::read(ca.join("ca.key")).unwrap(), before, "a change that fails changes nothing");
    Authority::change_passphrase(&ca, Some(&first), Some(&second)).unwrap();
    assert!(Authority::open_under(&ca, Some(&first)).is_err());
    let opened = Authority::open_under(&ca, Some(&second)).unwrap();
    assert!(sign(&opened, &what("ws1@paris"), day_one()).is_ok());
    Authority::change_passphrase(&ca, Some(&second), None).unwrap();
    assert!(!Authority::is_encrypted(&ca).unwrap());
    assert!(Authority::open_under(&ca, Some(&first)).is_ok(), "one that is not needed does no harm");
    assert_eq!(mode(&ca.join("ca.key")), 0o600);
}
