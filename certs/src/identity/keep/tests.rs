//! Keeping identities, with crashes between any two steps.

use super::*;
use crate::{
    authority::NODE_VALIDITY,
    fixture::{Studio, day_one, mode, node, request, what},
    identity::Identity,
};

#[test]
fn a_key_that_waited_and_the_certificate_that_came_make_an_identity() {
    let studio = Studio::new("a");
    let dir = studio.dir.path().join("state/identity");
    NodeKey::generate().unwrap().wait_in(&dir).unwrap();
    assert_eq!((mode(&dir), mode(&dir.join("node.key.new"))), (0o700, 0o600));
    assert!(matches!(Identity::load(&dir, day_one()), Err(IdentityError::MissingCertificate { .. })));
    let key = NodeKey::waiting_in(&dir).unwrap();
    let issued = studio.authority.sign(&request(&key), &what("ws12@home"), day_one()).unwrap();
    let root = || studio.authority.certificate().der().clone();
    let facts = install(&dir, &key, &issued.chain, root(), day_one()).unwrap();
    assert_eq!(facts.node, node("ws12@home"));
    assert!(!has_waiting(&dir));
    assert_eq!(mode(&dir.join("node.key")), 0o600);
    assert_eq!(Identity::load(&dir, day_one()).unwrap().node(), &node("ws12@home"));
    // A second key would take the first one's place.
    let error = NodeKey::generate().unwrap().wait_in(&dir).unwrap_err();
    assert!(matches!(error, InstallError::OtherIdentity { .. }), "{error}");
}

#[test]
fn a_certificate_that_is_not_for_here_is_refused_before_anything_is_written() {
    let (studio, double) = (Studio::new("a"), Studio::new("a"));
    let dir = studio.dir.path().join("identity");
    let (key, other) = (NodeKey::generate().unwrap(), NodeKey::generate().unwrap());
    let sign =
        |key: &NodeKey| studio.authority.sign(&request(key), &what("ws12@home"), day_one()).unwrap().chain;
    let root = |studio: &Studio| studio.authority.certificate().der().clone();
    let refused = |chain: &Chain, root, now| install(&dir, &key, chain, root, now).unwrap_err();
    let error = refused(&sign(&other), root(&studio), day_one());
    assert!(matches!(error, InstallError::OtherKey), "{error}");
    let error = refused(&sign(&key), root(&double), day_one());
    assert!(matches!(error, InstallError::Certificate { .. }), "{error}");
    let error = refused(&sign(&key), sign(&key).leaf().clone(), day_one());
    assert!(matches!(error, InstallError::Certificate { .. }), "{error}");
    let error = refused(&sign(&key), root(&studio), day_one() + 2 * NODE_VALIDITY);
    assert!(error.to_string().contains("check the clock"), "{error}");
    assert!(!dir.exists());
    assert!(matches!(NodeKey::waiting_in(&dir), Err(InstallError::NoKey { .. })));
}

#[test]
fn a_renewal_that_a_crash_cut_leaves_the_old_or_the_new_identity() {
    let studio = Studio::new("a");
    let files = ["ca.pem", "node.key", "node.pem"];
    let old_dir = studio.issue("ws12@home");
    let old = Identity::load(&old_dir, day_one()).unwrap();
    let key = NodeKey::generate().unwrap();
    let new_key = key.public_key();
    let chain = studio.authority.sign(&request(&key), &what("ws12@home"), day_one()).unwrap().chain;
    // Each number of steps that were made: the waiting key, the certificate, the last rename.
    for steps in 0..=3 {
        let dir = studio.dir.path().join(format!("cut-{steps}"));
        create_private_directory(&dir).unwrap();
        for name in files {
            fs::copy(old_dir.join(name), dir.join(name)).unwrap();
        }
        if steps >= 1 {
            key.write_waiting(&dir).unwrap();
        }
        if steps >= 2 {
            let pem: String = chain.certificates().iter().map(pem_of_certificate).collect();
            write_durably(&dir.join("node.pem"), pem.as_bytes(), Access::Public, Existing::Replace).unwrap();
        }
        if steps >= 3 {
            take_place(&dir).unwrap();
        }
        let loaded = Identity::load(&dir, day_one()).unwrap();
        assert_eq!(loaded.facts.public_key == new_key, steps >= 2, "{steps}");
        assert_eq!(loaded.facts.public_key == old.facts.public_key, steps < 2, "{steps}");
        // What was mended is whole for whoever looks next, and can be renewed again.
        assert_eq!(has_waiting(&dir), steps == 1, "{steps}");
        assert!(Identity::load(&dir, day_one()).is_ok(), "{steps}");
        let again = NodeKey::generate().unwrap();
        let issued = studio.authority.sign(&request(&again), &what("ws12@home"), day_one()).unwrap();
        let renewed = loaded.renewed(&dir, again, &issued.chain, day_one()).unwrap();
        assert_eq!(renewed.facts, Identity::load(&dir, day_one()).unwrap().facts);
    }
}

#[test]
fn a_renewal_for_another_node_is_refused_and_the_old_identity_stays() {
    let studio = Studio::new("a");
    let dir = studio.issue("ws12@home");
    let identity = Identity::load(&dir, day_one()).unwrap();
    let before = fs::read(dir.join("node.pem")).unwrap();
    let key = NodeKey::generate().unwrap();
    let issued = studio.authority.sign(&request(&key), &what("ws13@home"), day_one()).unwrap();
    let error = identity.renewed(&dir, key, &issued.chain, day_one()).unwrap_err();
    assert!(matches!(error, InstallError::OtherNode { .. }), "{error}");
    assert_eq!(fs::read(dir.join("node.pem")).unwrap(), before);
}
