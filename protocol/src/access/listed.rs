//! What a list of revoked certificates, signed by the studio's CA, does to the records that were signed under them.
//!
//! The CA stands above every admin: what is on its list counts also against who brought it. An admin's node only brings it, and whoever is no
//! admin any more cannot. Of several lists the newest counts whose author could say so when it was said, by that list itself.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use crate::{
    id::NodeId,
    limits::MAX_CRLS_KEPT,
    signing::{CertificateId, CertificateList, Signer},
};

/// The list of revoked certificates that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    list: CertificateList,
    /// Who brought it.
    by: NodeId,
    /// Where whoever brought it said that a studio feed ends for what is signed under a certificate on it.
    ends: BTreeMap<Used, u64>,
}

/// A certificate in the studio feed of a node: a node goes on there under others, and each ends for itself.
pub(super) type Used = (NodeId, CertificateId);

impl Listed {
    /// Returns the list.
    pub fn list(&self) -> &CertificateList {
        &self.list
    }

    /// Returns who brought it.
    pub fn by(&self) -> &NodeId {
        &self.by
    }

    /// Returns since when what somebody signs under does not count any more, in milliseconds since 1970; nothing while it does.
    pub fn since(&self, signer: &Signer) -> Option<u64> {
        let known = signer.certificates.iter().flatten();
        known.filter_map(|id| self.list.revoked.get(id)).min().copied()
    }

    /// Returns where a node's feed of the studio ends for what it signed under a revoked certificate, if whoever brought the list said so.
    pub fn end_of(&self, node: &NodeId, certificate: CertificateId) -> Option<u64> {
        self.ends.get(&(node.clone(), certificate)).copied()
    }

    /// Returns where certificates on it end in studio feeds, as far as that was said.
    pub fn ends(&self) -> impl Iterator<Item = (&NodeId, CertificateId, u64)> {
        self.ends.iter().map(|((node, id), end)| (node, *id, *end))
    }

    /// Says whether what stands at `seq` in a node's feed of the studio was said while its certificate was good.
    pub(super) fn stands(&self, node: &NodeId, seq: u64, signer: &Signer, said_at_ms: Option<u64>) -> bool {
        let Some(since_ms) = self.since(signer) else { return true };
        let mut ends = signer.certificates.iter().flatten().filter_map(|id| self.end_of(node, *id));
        said_at_ms.is_some_and(|at_ms| at_ms < since_ms) && ends.all(|end| seq < end)
    }
}

/// A list, and where the record stands that brought it.
#[derive(Debug, Clone)]
pub(super) struct Brought {
    pub(super) by: NodeId,
    pub(super) seq: u64,
    pub(super) signer: Signer,
    pub(super) at_ms: u64,
    pub(super) list: CertificateList,
}

impl Brought {
    /// Makes it the list that counts. `began` says from which record on a certificate was used, `places` where whoever brought the list said
    /// that certificates in studio feeds end. Which of the places is that of a certificate follows from where it began: the first behind that. One that
    /// began behind all of them was never seen there by whoever brought the list.
    pub(super) fn listed(
        &self,
        began: &BTreeMap<Used, u64>,
        places: &BTreeMap<NodeId, BTreeSet<u64>>,
    ) -> Listed {
        let end_of = |node: &NodeId, from_seq: u64| {
            let places = places.get(node)?;
            // A place at the beginning is that of a history which is not here, or of a feed that there was not.
            let none = places.first().filter(|first| **first == 0);
            none.or_else(|| places.range(from_seq + 1..).next()).or_else(|| places.last()).copied()
        };
        let on_it = began.iter().filter(|((_, id), _)| self.list.revoked.contains_key(id));
        let ends = on_it.filter_map(|(used, from_seq)| Some((used.clone(), end_of(&used.0, *from_seq)?)));
        Listed { list: self.list.clone(), by: self.by.clone(), ends: ends.collect() }
    }
}

/// The lists that were brought, the newest first, and no more than are looked at.
#[derive(Debug, Default)]
pub(super) struct Lists(Vec<Brought>);

impl Lists {
    /// Adds one. The order in which they come does not matter.
    pub(super) fn add(&mut self, brought: Brought) {
        let order = |one: &Brought| {
            let facts = (Reverse(one.list.made_at_ms), one.by.clone(), one.seq);
            (Reverse(one.list.number), facts)
        };
        self.0.push(brought);
        self.0.sort_by_cached_key(order);
        // What somebody brings again and again pushes nothing out: there are as many as the CA numbered, for each admin once.
        self.0.dedup_by(|again, first| (again.list.number, &again.by) == (first.list.number, &first.by));
        let mut numbers: Vec<u64> = self.0.iter().map(|one| one.list.number).collect();
        numbers.dedup();
        if let Some(too_old) = numbers.get(MAX_CRLS_KEPT) {
            self.0.retain(|one| one.list.number > *too_old);
        }
    }

    pub(super) fn newest_first(&self) -> impl Iterator<Item = &Brought> {
        self.0.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        access::{Admission, AdmissionReader, Rights, Role},
        feed::FeedId,
        hash::ManifestId,
        id::ProjectName,
        record::{
            Held, Judged, Published, Record, Revoked,
            tests::{published, revoked, version},
        },
        signing::{CertificateId, PublicKey},
    };

    const THEN_MS: u64 = 1_763_800_000_000;

    fn studio(node: &str) -> FeedId {
        FeedId { project: ProjectName::studio(), node: node.parse().unwrap() }
    }

    fn feed() -> FeedId {
        FeedId { project: "lantern".parse().unwrap(), node: "ws1@van".parse().unwrap() }
    }

    fn judged(feed: FeedId, next_seq: u64, rights: Rights) -> Record {
        Record::Judged(Judged { feed, next_seq, rights, at_ms: THEN_MS, chain: None })
    }

    fn revoked_at(node: &str, at_ms: u64) -> Record {
        let Record::Revoked(revoked) = revoked(node) else { panic!() };
        Record::Revoked(Revoked { at_ms, ..revoked })
    }

    /// The certificate of an admin, by the number that its issuer gave it.
    fn under(serial: u8) -> Signer {
        let id = CertificateId::of(&PublicKey::from_bytes([1; 32]), &[serial]);
        Signer { role: Role::Admin, certificates: [Some(id), None] }
    }

    fn list(number: u64, revoked: &[(u8, u64)]) -> CertificateList {
        let revoked = revoked.iter().map(|(serial, since)| (under(*serial).certificates[0].unwrap(), *since));
        CertificateList { number, made_at_ms: THEN_MS, revoked: revoked.collect() }
    }

    #[test]
    fn a_list_that_is_brought_again_and_again_pushes_none_out_and_who_is_on_it_does_not_bring_it() {
        let mut reader = AdmissionReader::default();
        let seven = list(7, &[(9, THEN_MS)]);
        reader.add_list(&studio("td@x"), 0, under(1), (THEN_MS, seven.clone()));
        // Names that come first in the order, of one who is on the list, and of one who is revoked.
        for seq in 0..40 {
            reader.add_list(&studio("a@x"), seq, under(9), (THEN_MS - 1, seven.clone()));
            reader.add_list(&studio("b@x"), seq, under(2), (THEN_MS + 1, seven.clone()));
        }
        reader.add(&studio("td@x"), 1, under(1), revoked_at("b@x", THEN_MS));
        let admission = reader.finish(&|_, _| None);
        assert_eq!(admission.listed().unwrap().by().to_string(), "td@x");
    }

    #[test]
    fn each_certificate_in_a_feed_ends_for_itself() {
        let mut reader = AdmissionReader::default();
        // Eve wrote ten records under 5 and ten under 6, before each of them was lost.
        // The thief also has one that was never used before.
        for (from_seq, serial) in [(0, 5), (10, 6), (25, 5), (30, 8)] {
            reader.signed_from(&studio("eve@x"), from_seq, &under(serial));
        }
        for (seq, end) in [(0, 20), (1, 10)] {
            reader.add(&studio("a@x"), seq, under(1), judged(studio("eve@x"), end, Rights::ALL));
        }
        reader.add_list(
            &studio("a@x"),
            2,
            under(1),
            (THEN_MS, list(8, &[(5, THEN_MS), (6, THEN_MS), (8, THEN_MS)])),
        );
        // What stands there under another certificate than the list, or behind it, is no place of it.
        reader.add(&studio("a@x"), 1, under(2), judged(studio("eve@x"), 0, Rights::NONE));
        reader.add(&studio("a@x"), 3, under(1), judged(studio("eve@x"), 0, Rights::NONE));
        let admission = reader.finish(&|_, _| None);
        for (seq, serial, counts) in [
            (9, 5, true),
            (10, 5, false),
            (19, 6, true),
            (20, 6, false),
            (25, 5, false),
            (25, 7, true),
            (30, 8, false),
        ] {
            let said = revoked_at("z@x", THEN_MS - 1);
            let is_admitted = admission.admits(&studio("eve@x"), seq, under(serial), &said).is_ok();
            assert_eq!(is_admitted, counts, "record {seq} under {serial}");
        }
    }

    #[test]
    fn the_cas_word_counts_before_whoever_judged_a_feed() {
        let mut reader = AdmissionReader::default();
        reader.add(&studio("a@x"), 0, under(1), judged(feed(), 9, Rights::ALL));
        reader.add_list(&studio("a@x"), 1, under(1), (THEN_MS, list(7, &[(5, THEN_MS)])));
        let admission = reader.finish(&|_, _| None);
        let said =
            |at_ms| Record::Published(Published { published_at_ms: at_ms, ..published(1, 1, 2, 1, None) });
        for (serial, at_ms, counts) in [(5, THEN_MS - 1, true), (5, THEN_MS, false), (6, THEN_MS, true)] {
            assert_eq!(admission.admits(&feed(), 3, under(serial), &said(at_ms)).is_ok(), counts);
        }
        assert_eq!(admission.differs_from(&Admission::default(), &feed()), Some(0));
    }

    #[test]
    fn what_is_signed_under_a_revoked_certificate_ends_when_it_was_revoked_and_nothing_else_does() {
        let mut reader = AdmissionReader::default();
        reader.add_list(&studio("a@x"), 0, under(1), (THEN_MS, list(7, &[(9, THEN_MS + 1)])));
        let admission = reader.finish(&|_, _| None);
        let said =
            |at_ms| Record::Published(Published { published_at_ms: at_ms, ..published(1, 1, 2, 1, None) });
        let issued =
            Signer { certificates: [under(5).certificates[0], under(9).certificates[0]], ..under(5) };
        for (signer, at_ms, counts) in [
            (under(9), THEN_MS, true),
            (under(9), THEN_MS + 1, false),
            (under(8), THEN_MS + 1, true),
            // Whoever was certified by a node whose right to that was taken.
            (issued, THEN_MS, true),
            (issued, THEN_MS + 1, false),
        ] {
            assert_eq!(
                admission.admits(&feed(), 3, signer, &said(at_ms)).is_ok(),
                counts,
                "{signer:?} {at_ms}"
            );
        }
        let held = Held { version: version(1), manifest: ManifestId::from_bytes([1; 32]) };
        assert!(admission.admits(&feed(), 3, under(9), &Record::Placed(held)).is_err(), "it names no time");
        // In the studio's own feeds as well, also against whoever revoked it.
        for (record, counts) in [(revoked_at("a@x", THEN_MS), true), (revoked_at("a@x", THEN_MS + 1), false)]
        {
            assert_eq!(admission.admits(&studio("eve@x"), 3, under(9), &record).is_ok(), counts);
        }
    }

    #[test]
    fn the_newest_list_counts_in_whatever_order_they_come() {
        let brought = [(3, 7, 9), (0, 8, 6), (5, 6, 5)];
        for turn in 0..3 {
            let mut reader = AdmissionReader::default();
            for index in 0..3 {
                let (seq, number, serial) = brought[(index + turn) % 3];
                reader.add_list(&studio("a@x"), seq, under(1), (THEN_MS, list(number, &[(serial, 1)])));
            }
            let admission = reader.finish(&|_, _| None);
            assert_eq!(admission.listed().unwrap().list().number, 8);
            assert_eq!([9, 6, 5].map(|serial| admission.listed_since(&under(serial))), [None, Some(1), None]);
        }
    }

    #[test]
    fn a_list_counts_only_where_an_admin_could_bring_it() {
        let with = |signer: Signer, seq: u64, more: &[(&str, u64, Record)]| {
            let mut reader = AdmissionReader::default();
            for (node, seq, record) in more {
                reader.add(&studio(node), *seq, under(2), record.clone());
            }
            reader.add_list(&studio("a@x"), seq, signer, (THEN_MS, list(7, &[(9, 1)])));
            reader.finish(&|_, _| None).listed().is_some()
        };
        assert!(with(under(1), 3, &[]));
        assert!(!with(Signer { role: Role::Site, ..under(1) }, 3, &[]));
        // Behind its own end a revoked admin brings nothing.
        let gone =
            [("b@x", 0, judged(studio("a@x"), 3, Rights::ALL)), ("b@x", 1, revoked_at("a@x", THEN_MS))];
        assert!(with(under(1), 2, &gone));
        assert!(!with(under(1), 3, &gone));
        // Nor does whoever is on it.
        assert!(!with(under(9), 2, &[]));
    }

    #[test]
    fn who_is_on_a_list_takes_nobody_along_who_brings_it() {
        let mut reader = AdmissionReader::default();
        reader.add(&studio("a@x"), 0, under(1), judged(studio("eve@x"), 4, Rights::ALL));
        reader.add_list(&studio("a@x"), 1, under(1), (THEN_MS, list(7, &[(9, THEN_MS)])));
        // An older time behind the place that a named helps as little as a younger one before it.
        for (seq, at_ms) in [(4, 5), (3, THEN_MS)] {
            reader.add(&studio("eve@x"), seq, under(9), judged(studio("a@x"), 0, Rights::NONE));
            reader.add(&studio("eve@x"), seq, under(9), revoked_at("a@x", at_ms));
        }
        let admission = reader.finish(&|_, _| None);
        assert!(admission.listed().is_some());
        assert!(!admission.is_revoked(&"a@x".parse().unwrap()));
    }
}
