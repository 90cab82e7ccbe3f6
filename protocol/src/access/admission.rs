//! Which records of a feed count: what a node states without having the right to states nothing.
//!
//! Rights change, and records stay. So a record is not judged by what its author may do today, but by what they were allowed where
//! it stands in their feed: whoever changes rights records, for each feed, up to where the old ones count
//! ([`Judged`]). What lies beyond the last such place is judged by the policy that stands, at the time that the record itself names;
//! the end of a grant so takes nothing back. All nodes that have the same records come to the same verdicts, whatever their clocks say.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{Action, Elsewhere, Listed, Rights, Role, standing::Standing};
use crate::{
    feed::{FeedHead, FeedId},
    hash::ChainHash,
    id::NodeId,
    policy::Access,
    record::{Judged, Record},
    signing::{CertificateId, Signer},
};

/// Says which records count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admission {
    pub(super) policy: Arc<Access>,
    pub(super) standing: Standing,
    /// Which certificates the studio's CA revoked.
    pub(super) listed: Option<Arc<Listed>>,
    /// Up to which record of a feed which rights count.
    judged: BTreeMap<FeedId, BTreeMap<u64, Place>>,
    /// Nothing is known of grants, so others have judged.
    pub(super) takes_word: bool,
    pub(super) elsewhere: BTreeSet<Elsewhere>,
    /// Which chain hashes studio feeds have at places, as whoever judged them says.
    studio_chains: BTreeMap<NodeId, BTreeMap<u64, BTreeSet<ChainHash>>>,
}

/// A place in a feed up to which it was judged.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    rights: Rights,
    /// When that was said, in milliseconds since 1970.
    at_ms: u64,
    /// The chain hash that the feed has there, as whoever judged it says.
    chains: BTreeSet<ChainHash>,
}

impl Admission {
    /// By a policy alone.
    pub fn new(policy: Arc<Access>) -> Self {
        Self { policy, ..Self::default() }
    }

    /// Adds by which rights a feed is judged up to where. Of two that name one place, what both allow counts.
    pub(super) fn judge_by(&mut self, judged: &Judged) {
        let of_feed = self.judged.entry(judged.feed.clone()).or_default();
        let Judged { feed: _, next_seq, rights, at_ms, chain } = judged;
        let new = || Place { rights: *rights, at_ms: *at_ms, chains: BTreeSet::new() };
        let place = of_feed.entry(*next_seq).or_insert_with(new);
        place.rights = place.rights.and(*rights);
        place.at_ms = place.at_ms.max(*at_ms);
        place.chains.extend(chain);
    }

    /// Adds of which history of a studio feed somebody spoke.
    pub(super) fn note_chain(&mut self, judged: &Judged) {
        if let Some(chain) = judged.chain.filter(|_| judged.feed.project.is_studio()) {
            let of_node = self.studio_chains.entry(judged.feed.node.clone()).or_default();
            of_node.entry(judged.next_seq).or_default().insert(chain);
        }
    }

    /// Says whether a node is not trusted any more.
    pub fn is_revoked(&self, node: &NodeId) -> bool {
        self.standing.revoked().contains_key(node)
    }

    /// Returns what a node may do in a project at this moment; nothing once it is revoked. `role` is that of its certificate. In the
    /// studio's own project: who may see every other one gets its records.
    pub fn rights(&self, node: &NodeId, role: Role, project: &crate::id::ProjectName, now_ms: u64) -> Rights {
        match self.is_revoked(node) {
            true => Rights::NONE,
            false if project.is_studio() => self.policy.rights_everywhere(node, role, now_ms),
            false => self.policy.rights(node, role, project, now_ms),
        }
    }

    /// Returns which certificates the studio's CA revoked, by the list that counts.
    pub fn listed(&self) -> Option<&Arc<Listed>> {
        self.listed.as_ref()
    }

    /// Returns since when what somebody signs under is revoked by the studio's CA, in milliseconds since 1970, if it is.
    pub fn listed_since(&self, signer: &Signer) -> Option<u64> {
        self.listed.as_ref()?.since(signer)
    }

    /// Says whether a record counts that stands at `seq` in a feed, under this certificate; a role alone says that it is on no list.
    ///
    /// # Errors
    /// The right that its author lacked.
    pub fn admits(
        &self,
        feed: &FeedId,
        seq: u64,
        signer: impl Into<Signer>,
        record: &Record,
    ) -> Result<(), Action> {
        let signer = signer.into();
        let Some((action, said_at_ms)) = needs(record) else { return Ok(()) };
        let is_admitted = match feed.project.is_studio() {
            true => self.admits_of_studio(&feed.node, seq, &signer, record),
            // The CA stands above whoever judged it.
            false if self.is_listed_by(&signer, said_at_ms) => false,
            false if self.takes_word => true,
            false => {
                let rights = self.judged_by(feed, seq);
                rights.unwrap_or_else(|| self.rights_when(feed, &signer, said_at_ms)).allows(action)
            }
        };
        if is_admitted { Ok(()) } else { Err(action) }
    }

    fn revoked_certificates(&self) -> Option<&BTreeMap<CertificateId, u64>> {
        self.listed.as_ref().map(|listed| &listed.list().revoked)
    }

    fn is_listed_by(&self, signer: &Signer, said_at_ms: Option<u64>) -> bool {
        let since_ms = self.listed_since(signer);
        since_ms.is_some_and(|since_ms| said_at_ms.is_some_and(|said| said >= since_ms))
    }

    /// In the studio's own feeds certificates count, and who is trusted; no policy, and nobody's word about itself.
    fn admits_of_studio(&self, node: &NodeId, seq: u64, signer: &Signer, record: &Record) -> bool {
        if !Self::rights_of_studio(signer.role).allows(Action::Admin) {
            return false;
        }
        let said_at_ms = Self::said_at_ms(record);
        if self.listed.as_ref().is_some_and(|listed| !listed.stands(node, seq, signer, said_at_ms)) {
            return false;
        }
        let stands = self.standing.stands(node, seq, said_at_ms);
        match record {
            Record::Judged(judged) if judged.feed.node == *node => false,
            // Who revoke each other are all revoked: nobody has to say who was first.
            Record::Revoked(revoked) => stands || self.standing.are_in_ring(node, &revoked.node),
            _ => stands,
        }
    }

    /// Returns from which record of a feed on a verdict by `other` may be another one; none when all are the same.
    pub fn differs_from(&self, other: &Self, feed: &FeedId) -> Option<u64> {
        if feed.project.is_studio() {
            return (self.standing != other.standing || self.listed != other.listed).then_some(0);
        }
        let empty = BTreeMap::new();
        let [ours, theirs] = [self, other].map(|one| one.judged.get(feed).unwrap_or(&empty));
        let same = ours.iter().zip(theirs).take_while(|(one, other)| one == other).count();
        let since = |one: &Self| one.revoked().get(&feed.node).copied();
        let is_same = ours.len() == same
            && theirs.len() == same
            && since(self) == since(other)
            && self.policy == other.policy;
        // The CA's lists count before every place.
        if self.takes_word != other.takes_word || self.revoked_certificates() != other.revoked_certificates()
        {
            return Some(0);
        }
        if is_same {
            return None;
        }
        // What lies before a place that both know is judged by that place.
        Some(same.checked_sub(1).and_then(|last| ours.keys().nth(last)).copied().unwrap_or(0))
    }

    /// Says whether some of what judges a feed was said of another history than this one, of which the group that begins at `first_seq`
    /// ends at `head`: then all is to be read again.
    pub fn contradicts(&self, feed: &FeedId, first_seq: u64, head: &FeedHead) -> bool {
        let Some(behind) = first_seq.checked_add(1).filter(|behind| *behind <= head.next_seq) else {
            return false;
        };
        let differs = |chains: &BTreeSet<ChainHash>| chains.iter().any(|chain| *chain != head.chain);
        if feed.project.is_studio() {
            let places = self.studio_chains.get(&feed.node);
            let mut places = places.into_iter().flat_map(|places| places.range(behind..=head.next_seq));
            return places.any(|(_, chains)| differs(chains));
        }
        let mut places =
            self.judged.get(feed).into_iter().flat_map(|places| places.range(behind..=head.next_seq));
        places.any(|(_, place)| differs(&place.chains))
    }

    /// Returns what was said about another history of a feed than the one here.
    pub fn elsewhere(&self) -> &BTreeSet<Elsewhere> {
        &self.elsewhere
    }

    /// Returns before which record a feed was judged last, and when that was said, in milliseconds since 1970.
    pub fn last_judged(&self, feed: &FeedId) -> Option<(u64, u64)> {
        self.judged.get(feed)?.iter().next_back().map(|(next_seq, place)| (*next_seq, place.at_ms))
    }

    /// Returns what a node with this role may say in the studio's own feeds, by its certificate alone: a policy cannot say who applies
    /// policies, or two that were applied apart could not be compared.
    pub fn rights_of_studio(role: Role) -> Rights {
        if role == Role::Admin { Rights::ALL } else { Rights::NONE }
    }

    /// Returns when a record says that it was said, in milliseconds since 1970, if its rights depend on it.
    pub fn said_at_ms(record: &Record) -> Option<u64> {
        needs(record)?.1
    }

    /// Returns by which policy it is.
    pub fn policy(&self) -> &Arc<Access> {
        &self.policy
    }

    /// Says whether every record of a project counts, because nobody said here who may what, or only in part.
    pub fn takes_word(&self) -> bool {
        self.takes_word
    }

    /// Returns who is not trusted any more, and since when, in milliseconds since 1970.
    pub fn revoked(&self) -> &BTreeMap<NodeId, u64> {
        self.standing.revoked()
    }

    fn judged_by(&self, feed: &FeedId, seq: u64) -> Option<Rights> {
        let of_feed = self.judged.get(feed)?;
        // The first place behind the record.
        of_feed.range(seq.checked_add(1)?..).next().map(|(_, place)| place.rights)
    }

    /// What the policy says, at the time that a record names, and not before its feed was judged last: what came behind that place
    /// can name any time. One that names none is judged as if no grant had ended.
    fn rights_when(&self, feed: &FeedId, signer: &Signer, said_at_ms: Option<u64>) -> Rights {
        let judged_ms = self.last_judged(feed).map(|(_, at_ms)| at_ms);
        let at_ms = said_at_ms.max(judged_ms);
        let revoked = self.revoked().get(&feed.node).copied().into_iter().chain(self.listed_since(signer));
        if revoked.min().is_some_and(|revoked_ms| at_ms.is_none_or(|at| at >= revoked_ms)) {
            return Rights::NONE;
        }
        let at_ms = at_ms.filter(|_| said_at_ms.is_some()).unwrap_or(0);
        self.policy.rights(&feed.node, signer.role, &feed.project, at_ms)
    }
}

/// Returns what a record needs its author to be allowed, and when it was said, in milliseconds since 1970.
fn needs(record: &Record) -> Option<(Action, Option<u64>)> {
    match record {
        // Who the author is, and what it keeps in its own audit log, is nobody else's.
        Record::Key(_) | Record::Issued(_) | Record::AuditHead(_) => None,
        // Who holds less than before says so, whatever they may do.
        Record::Dropped(_) => None,
        Record::Published(published) => Some((Action::Publish, Some(published.published_at_ms))),
        Record::Placed(_) => Some((Action::See, None)),
        Record::Retired(retired) => Some((Action::Retire, Some(retired.at_ms))),
        Record::Restored(restored) => Some((Action::Retire, Some(restored.at_ms))),
        Record::Resolved(resolved) => Some((Action::Retire, Some(resolved.said().at_ms))),
        Record::Policy(policy) => Some((Action::Admin, Some(policy.applied_at_ms()))),
        Record::Revoked(revoked) => Some((Action::Admin, Some(revoked.at_ms))),
        Record::Judged(judged) => Some((Action::Admin, Some(judged.at_ms))),
        Record::Crl(crl) => Some((Action::Admin, Some(crl.at_ms))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        access::{AdmissionReader, Extract},
        policy::Policy,
        record::{
            Revoked,
            tests::{published, resolved, retired, revoked},
        },
    };

    const DAY_MS: u64 = 24 * 3600 * 1000;
    /// When the records of these tests were made.
    const THEN_MS: u64 = 1_763_800_000_000;

    fn access(grants: &str) -> Arc<Access> {
        let text =
            format!("schema = \"avalon.policy/1\"\n[defaults]\nkeep = \"here\"\nmin_copies = 1\n{grants}");
        Arc::new(Policy::parse(&text).unwrap().access().clone())
    }

    fn grant(actions: &str, until: &str) -> String {
        let until = if until.is_empty() { String::new() } else { format!("until = {until}\n") };
        format!("[[grant]]\nto = \"ws1@van\"\nprojects = \"lantern\"\nactions = [{actions}]\n{until}")
    }

    fn feed() -> FeedId {
        FeedId { project: "lantern".parse().unwrap(), node: "ws1@van".parse().unwrap() }
    }

    fn publish() -> Record {
        Record::Published(published(1, 1, 2, 1, None))
    }

    /// What the studio's feeds come to, where these are said by admins, each in the place that stands in front.
    fn read(said: &[(&str, u64, Record)]) -> Admission {
        let mut reader = AdmissionReader::default();
        said.iter()
            .for_each(|(node, seq, record)| reader.add(&studio(node), *seq, Role::Admin, record.clone()));
        reader.finish(&|_, _| None)
    }

    fn studio(node: &str) -> FeedId {
        FeedId { project: crate::id::ProjectName::studio(), node: node.parse().unwrap() }
    }

    fn applied(serial: u64, grants: &str) -> Record {
        let head = "schema = \"avalon.policy/1\"\n[defaults]\nkeep = \"here\"\nmin_copies = 1\n";
        Record::Policy(crate::record::tests::applied(serial, &format!("{head}{grants}")))
    }

    fn judged(feed: FeedId, next_seq: u64, rights: Rights) -> Record {
        Record::Judged(Judged { feed, next_seq, rights, at_ms: THEN_MS, chain: None })
    }

    fn revoked_at(node: &str, at_ms: u64) -> Record {
        let Record::Revoked(revoked) = revoked(node) else { panic!() };
        Record::Revoked(Revoked { at_ms, ..revoked })
    }

    fn admits(admission: &Admission, seq: u64, record: &Record) -> Result<(), Action> {
        admission.admits(&feed(), seq, Role::Vendor, record)
    }

    #[test]
    fn what_is_said_without_the_right_states_nothing() {
        let admission = Admission::new(access(&grant("\"pull\", \"retire\"", "")));
        assert_eq!(admits(&admission, 3, &publish()), Err(Action::Publish));
        assert_eq!(admits(&admission, 3, &retired(1, "eve")), Ok(()));
        let admission = Admission::new(access(&grant("\"publish\"", "")));
        assert_eq!(admits(&admission, 3, &publish()), Ok(()));
        for record in [retired(1, "eve"), resolved(1, 7, &[(8, 3)])] {
            assert_eq!(admits(&admission, 3, &record), Err(Action::Retire));
        }
        let elsewhere = FeedId { project: "comet".parse().unwrap(), ..feed() };
        assert_eq!(admission.admits(&elsewhere, 3, Role::Vendor, &publish()), Err(Action::Publish));
    }

    #[test]
    fn in_the_studios_feeds_only_who_is_admin_by_certificate_says_something() {
        let grants = "[[grant]]\nto = \"ws1@van\"\nprojects = \"*\"\nactions = \"admin\"\n[roles]\nvendor = [\"ws2@van\"]\n";
        let policy = applied(1, grants);
        let mut said = vec![("a@x", 0, policy.clone())];
        let admission = read(&said);
        for record in [revoked("ws1@london"), policy.clone()] {
            for node in ["ws1@van", "ws2@van"] {
                assert_eq!(admission.admits(&studio(node), 1, Role::Site, &record), Err(Action::Admin));
                assert_eq!(admission.admits(&studio(node), 1, Role::Admin, &record), Ok(()));
            }
        }
        // Whoever is revoked says nothing more there, but that who revoked it is revoked.
        said.push(("a@x", 1, judged(studio("ws1@van"), 2, Rights::ALL)));
        said.push(("a@x", 2, revoked("ws1@van")));
        let admission = read(&said);
        let admits = |seq, record: &Record| admission.admits(&studio("ws1@van"), seq, Role::Admin, record);
        for record in [policy, revoked("ws1@london"), judged(feed(), 9, Rights::ALL)] {
            assert!(matches!(record, Record::Judged(_)) || admits(1, &record).is_ok());
            assert_eq!(admits(2, &record), Err(Action::Admin), "{record:?}");
        }
        assert_eq!(admits(2, &revoked("a@x")), Ok(()));
        said.push(("ws1@van", 2, revoked("a@x")));
        let admission = read(&said);
        assert!(
            admission.is_revoked(&"a@x".parse().unwrap())
                && admission.is_revoked(&"ws1@van".parse().unwrap())
        );
        assert_eq!(admission.admits(&studio("ws1@van"), 2, Role::Admin, &revoked("a@x")), Ok(()));
    }

    #[test]
    fn what_a_revoked_admin_judges_afterwards_does_not_count_and_neither_does_what_one_judges_of_itself() {
        let eve = || FeedId { node: "eve@x".parse().unwrap(), ..feed() };
        let publishes = |admission: &Admission, feed: &FeedId, seq| {
            admission.admits(feed, seq, Role::Workstation, &publish()).is_ok()
        };
        let mut said = vec![
            ("a@x", 0, applied(1, "")),
            ("a@x", 1, judged(eve(), 3, Rights::ALL)),
            ("a@x", 2, judged(studio("eve@x"), 5, Rights::ALL)),
            ("a@x", 3, revoked_at("eve@x", THEN_MS)),
        ];
        let admission = read(&said);
        assert!(publishes(&admission, &eve(), 2) && !publishes(&admission, &eve(), 3));
        // Behind that: of itself, so that it would count for longer, of its other feeds, and of others.
        said.push(("eve@x", 5, judged(studio("eve@x"), 99, Rights::ALL)));
        said.push(("eve@x", 6, judged(eve(), 99, Rights::ALL)));
        said.push(("eve@x", 7, judged(feed(), 99, Rights::NONE)));
        said.push(("eve@x", 8, applied(7, &grant("\"see\"", ""))));
        said.push(("eve@x", 9, revoked_at("b@x", 0)));
        assert_eq!(read(&said), {
            let mut same = admission.clone();
            same.standing = read(&said).standing;
            same
        });
        assert_eq!(read(&said).revoked(), admission.revoked());
        // Before it, of another feed, it stands; of itself it does not.
        said.push(("eve@x", 4, judged(feed(), 9, Rights::NONE)));
        said.push(("eve@x", 3, judged(eve(), 50, Rights::ALL)));
        let later = read(&said);
        assert!(!publishes(&later, &feed(), 8) && !publishes(&later, &eve(), 3));
        said.reverse();
        assert_eq!(read(&said), later);
    }

    #[test]
    fn what_was_judged_of_another_history_says_nothing_about_this_one() {
        let [ours, theirs] = [1, 2].map(|byte| ChainHash::from_bytes([byte; 32]));
        let known =
            |feed: &FeedId, next_seq: u64| (feed.project == feed_project() && next_seq <= 9).then_some(ours);
        let read = |chain, next_seq| {
            let mut reader = AdmissionReader::default();
            let said = Judged { feed: feed(), next_seq, rights: Rights::ALL, at_ms: THEN_MS, chain };
            reader.add(&studio("a@x"), 0, Role::Admin, applied(1, &grant("\"see\"", "")));
            reader.add(&studio("a@x"), 1, Role::Admin, Record::Judged(said));
            reader.finish(&known)
        };
        let counts = |admission: &Admission| admits(admission, 3, &publish()).is_ok();
        for (chain, is_ours) in [(None, true), (Some(ours), true), (Some(theirs), false)] {
            let admission = read(chain, 9);
            assert_eq!((counts(&admission), admission.elsewhere().len()), (is_ours, usize::from(!is_ours)));
        }
        // Of what is not here it counts until the feed comes there otherwise.
        let admission = read(Some(theirs), 12);
        assert!(counts(&admission) && admission.elsewhere().is_empty());
        let contradicts = |next_seq, chain| admission.contradicts(&feed(), 9, &FeedHead { next_seq, chain });
        assert!(contradicts(12, ours) && contradicts(14, ours));
        assert!(!contradicts(11, ours) && !contradicts(12, theirs));
        // So it is where a studio feed ends.
        let said = Judged {
            feed: studio("eve@x"),
            next_seq: 12,
            rights: Rights::ALL,
            at_ms: THEN_MS,
            chain: Some(theirs),
        };
        let admission = self::read(&[("a@x", 0, Record::Judged(said))]);
        let contradicts =
            |next_seq, chain| admission.contradicts(&studio("eve@x"), 9, &FeedHead { next_seq, chain });
        assert!(contradicts(12, ours) && contradicts(14, ours));
        assert!(!contradicts(11, ours) && !contradicts(12, theirs));
    }

    fn feed_project() -> crate::id::ProjectName {
        feed().project
    }

    #[test]
    fn a_grant_that_ended_takes_back_nothing_and_allows_nothing_new() {
        // The records say that they were made on 22 November 2025.
        let before = Admission::new(access(&grant("\"publish\"", "2025-11-22")));
        assert_eq!(admits(&before, 3, &publish()), Ok(()));
        let ended = Admission::new(access(&grant("\"publish\"", "2025-11-21")));
        assert_eq!(admits(&ended, 3, &publish()), Err(Action::Publish));
        assert_eq!(ended.rights(&feed().node, Role::Vendor, &feed().project, THEN_MS), Rights::NONE);
    }

    #[test]
    fn what_was_said_before_rights_were_taken_stands_and_what_was_refused_then_stays_refused() {
        let mut admission = Admission::new(access(&grant("\"see\"", "")));
        let judged = |next_seq, actions: &[Action]| {
            let rights = Rights::of(actions.iter().copied());
            Judged { feed: feed(), next_seq, rights, at_ms: 0, chain: None }
        };
        admission.judge_by(&judged(10, &[Action::Pull]));
        admission.judge_by(&judged(20, &[Action::Publish]));
        let verdicts: Vec<bool> =
            [0, 9, 10, 19, 20].map(|seq| admits(&admission, seq, &publish()).is_ok()).into();
        assert_eq!(verdicts, [false, false, true, true, false]);
        // Two who change rights at once name one place.
        admission.judge_by(&judged(20, &[Action::Pull]));
        assert_eq!(admits(&admission, 12, &publish()), Err(Action::Publish));
    }

    #[test]
    fn of_who_is_revoked_what_was_said_before_stands() {
        let policy = || ("a@x", 0, applied(1, &grant("\"publish\"", "")));
        let admission = read(&[policy(), ("a@x", 1, revoked_at("ws1@van", THEN_MS + DAY_MS))]);
        assert_eq!(admits(&admission, 3, &publish()), Ok(()), "it says that it is older");
        assert!(admission.is_revoked(&feed().node));
        assert_eq!(admission.rights(&feed().node, Role::Admin, &feed().project, 0), Rights::NONE);
        // Whoever revokes it says up to where each feed is known: then no claimed time counts.
        let judged = judged(feed(), 3, Rights::ALL);
        let admission = read(&[policy(), ("a@x", 1, judged), ("a@x", 2, revoked_at("ws1@van", THEN_MS))]);
        assert_eq!(admits(&admission, 2, &publish()), Ok(()));
        assert_eq!(admits(&admission, 3, &publish()), Err(Action::Publish));
    }

    #[test]
    fn the_order_in_which_records_come_does_not_matter() {
        let mut said = vec![
            ("a@x", 1, judged(feed(), 5, Rights::ALL)),
            ("a@x", 2, judged(feed(), 5, Rights::NONE)),
            ("b@x", 3, judged(feed(), 9, Rights::ALL)),
            ("a@x", 4, revoked("ws1@van")),
            ("b@x", 5, revoked_at("ws1@van", THEN_MS + 1)),
            ("b@x", 6, revoked_at("a@x", THEN_MS)),
        ];
        let one = read(&said);
        said.reverse();
        let other = read(&said);
        assert_eq!(one, other);
        assert_eq!(one.differs_from(&other, &feed()), None);
        assert_eq!(one.differs_from(&Admission::default(), &feed()), Some(0));
        said.push(("b@x", 4, judged(feed(), 12, Rights::ALL)));
        let more = read(&said);
        assert_eq!(
            (more.differs_from(&other, &feed()), more.last_judged(&feed())),
            (Some(9), Some((12, THEN_MS)))
        );
    }

    #[test]
    fn what_was_told_of_the_policy_judges_until_the_feeds_say_more() {
        let read = |told: u64| {
            let mut reader = AdmissionReader::default();
            reader.add(&studio("a@x"), 0, Role::Admin, applied(3, ""));
            let Record::Judged(before) = judged(feed(), 4, Rights::ALL) else { panic!() };
            let policy = access(&grant("\"pull\"", ""));
            reader.add_extract(Extract { serial: told, policy, judged: vec![before] });
            reader.finish_of_vendor(&|_, _| None)
        };
        let may = |one: &Admission| one.rights(&feed().node, Role::Vendor, &feed().project, 0);
        for old in [2, 3] {
            assert_eq!((read(old).takes_word(), may(&read(old))), (false, Rights::NONE));
        }
        let newer = read(4);
        assert!(!newer.takes_word() && may(&newer).allows(Action::Pull));
        assert_eq!(admits(&newer, 3, &publish()), Ok(()), "what counted before still does");
        assert_eq!(admits(&newer, 4, &publish()), Err(Action::Publish));
        let told_nothing = AdmissionReader::default().finish_of_vendor(&|_, _| None);
        assert_eq!((told_nothing.takes_word(), admits(&told_nothing, 4, &publish())), (true, Ok(())));
    }
}
