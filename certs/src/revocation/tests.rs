//! Lists of revoked certificates, and what they reach.

use super::*;
use crate::{
    authority::{ListNumber, NODE_VALIDITY},
    certificate::Chain,
    fixture::{Studio, day_one, node},
    identity::Identity,
    issuing::IssuingAuthority,
};

fn number(number: u64) -> ListNumber {
    ListNumber { number, next_at: day_one() + NODE_VALIDITY }
}

fn proven(studio: &Studio, identity: &Identity) -> Proven {
    let chain = Chain::from_certificates(identity.certificate_chain()).unwrap();
    studio.authority.certificate().prove(&chain).unwrap()
}

fn serial(proven: &Proven) -> Vec<ToRevoke> {
    vec![ToRevoke { serial: proven.node.serial.clone(), since: day_one() }]
}

fn by_root(studio: &Studio, revoked: &[ToRevoke]) -> Vec<u8> {
    studio.authority.revocation_list(revoked, number(7), day_one()).unwrap()
}

fn by_node(issuer: &IssuingAuthority, revoked: &[ToRevoke]) -> Vec<u8> {
    issuer.revocation_list(revoked, number(8), day_one()).unwrap()
}

#[test]
fn a_list_says_who_made_it_when_and_what_is_revoked() {
    let studio = Studio::new("a");
    let (authority, issuer) = (studio.authority.certificate(), studio.delegate("srv@london"));
    let of = proven(&studio, &studio.identity("ws1@home"));
    let list = RevocationList::verify(&by_root(&studio, &serial(&of)), authority, None).unwrap();
    assert_eq!((list.issuer.as_ref(), list.number), (None, 7));
    assert_eq!((list.made_at, list.next_at), (day_one(), day_one() + NODE_VALIDITY));
    assert_eq!(list.serials().collect::<Vec<_>>(), [of.node.serial.as_slice()]);
    let empty = by_node(&issuer, &[]);
    let list = RevocationList::verify(&empty, authority, Some(issuer.certificate_der())).unwrap();
    assert_eq!((list.issuer.clone(), list.number, list.serials().count()), (Some(node("srv@london")), 8, 0));
}

#[test]
fn a_list_counts_for_what_its_signer_issued_alone() {
    let studio = Studio::new("a");
    let authority = studio.authority.certificate();
    let (issuer, second) = (studio.delegate("srv@london"), studio.delegate("nas@montreal"));
    let direct = proven(&studio, &studio.identity("ws1@home"));
    let delegated = proven(&studio, &studio.delegated_identity(&issuer, "ws2@home"));
    let check = |list: &RevocationList, proven: &Proven| {
        let mut revoked = Revoked::default();
        revoked.add_list(list);
        revoked.check(proven, authority)
    };
    let both = [serial(&direct), serial(&delegated)].concat();
    let root = RevocationList::verify(&by_root(&studio, &both), authority, None).unwrap();
    assert!(check(&root, &direct).is_err());
    assert!(check(&root, &delegated).is_ok(), "another key gave that number");
    let own =
        RevocationList::verify(&by_node(&issuer, &both), authority, Some(issuer.certificate_der())).unwrap();
    assert!(check(&own, &direct).is_ok(), "a node does not revoke what the authority issued");
    assert!(check(&own, &delegated).is_err());
    let other =
        RevocationList::verify(&by_node(&second, &both), authority, Some(second.certificate_der())).unwrap();
    assert!(check(&other, &delegated).is_ok(), "nor what another node issued");

    // The authority takes the right to issue away.
    let issuing = delegated.issuing.clone().unwrap().serial;
    let list = by_root(&studio, &[ToRevoke { serial: issuing, since: day_one() }]);
    let list = RevocationList::verify(&list, authority, None).unwrap();
    let error = check(&list, &delegated).unwrap_err();
    assert_eq!(error.to_string(), "the issuing certificate of srv@london was revoked");
    assert!(check(&list, &direct).is_ok());
}

#[test]
fn a_node_that_is_revoked_by_name_takes_what_it_issued_along() {
    let studio = Studio::new("a");
    let issuer = studio.delegate("srv@london");
    let direct = proven(&studio, &studio.identity("ws1@home"));
    let delegated = proven(&studio, &studio.delegated_identity(&issuer, "ws2@home"));
    let without = |id: &str| {
        let mut revoked = Revoked::default();
        revoked.add_node(node(id));
        let check = |proven| revoked.check(proven, studio.authority.certificate()).is_ok();
        (check(&direct), check(&delegated))
    };
    assert_eq!(without("ws9@home"), (true, true));
    assert_eq!(without("ws1@home"), (false, true));
    assert_eq!(without("ws2@home"), (true, false));
    assert_eq!(without("srv@london"), (true, false));
}

#[test]
fn lists_of_others_and_damaged_ones_are_refused() {
    let (studio, double) = (Studio::new("a"), Studio::new("a"));
    let (authority, issuer) = (studio.authority.certificate(), studio.delegate("srv@london"));
    let issuing = Some(issuer.certificate_der());
    assert_eq!(RevocationList::verify(&by_root(&double, &[]), authority, None), Err(ListError::Foreign));
    assert_eq!(RevocationList::verify(&by_root(&studio, &[]), authority, issuing), Err(ListError::Foreign));
    assert_eq!(RevocationList::verify(&by_node(&issuer, &[]), authority, None), Err(ListError::Foreign));
    let foreign = double.delegate("srv@london");
    let by_foreign = by_node(&foreign, &[]);
    let refused = RevocationList::verify(&by_foreign, authority, Some(foreign.certificate_der()));
    assert!(matches!(refused, Err(ListError::Issuer { .. })), "{refused:?}");
    let leaf = studio.identity("ws1@home").certificate_chain()[0].to_vec();
    let refused = RevocationList::verify(&by_root(&studio, &[]), authority, Some(&leaf));
    assert!(matches!(refused, Err(ListError::Issuer { .. })), "{refused:?}");

    let of = proven(&studio, &studio.identity("ws2@home"));
    let good = by_root(&studio, &serial(&of));
    for position in 0..good.len() {
        assert!(RevocationList::verify(&good[..position], authority, None).is_err(), "cut at {position}");
        for bit in 0..8 {
            let mut bad = good.clone();
            bad[position] ^= 1 << bit;
            assert!(RevocationList::verify(&bad, authority, None).is_err(), "bit {bit} of byte {position}");
        }
    }
    let longer = [good.as_slice(), &[0]].concat();
    assert!(matches!(RevocationList::verify(&longer, authority, None), Err(ListError::Form { .. })));
    let huge = vec![0x30; MAX_LIST_BYTES + 1];
    assert!(matches!(RevocationList::verify(&huge, authority, None), Err(ListError::TooLarge { .. })));
    let nested = [0x30, 0x80].repeat(MAX_LIST_BYTES / 2);
    assert!(RevocationList::verify(&nested, authority, None).is_err());
}

#[test]
fn a_long_list_is_read_whole() {
    let studio = Studio::new("a");
    let many: Vec<ToRevoke> = (0..20_000_u32)
        .map(|n| ToRevoke { serial: [&[0x40], n.to_be_bytes().as_slice()].concat(), since: day_one() })
        .collect();
    let der = by_root(&studio, &many);
    let list = RevocationList::verify(&der, studio.authority.certificate(), None).unwrap();
    assert_eq!(list.serials().count(), many.len());
}

#[test]
fn a_set_that_was_exchanged_is_that_of_every_clone() {
    let revocations = Revocations::default();
    let clone = revocations.clone();
    let mut revoked = Revoked::default();
    revoked.add_node(node("ws1@home"));
    revocations.replace(revoked.clone());
    assert!(clone.now().has_node(&node("ws1@home")));
    assert_eq!(*clone.now(), revoked);
}
