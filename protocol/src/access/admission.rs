//! Which records of a feed count: what a node states without having the right to states nothing.
//!
//! Rights change, and records stay. So a record is not judged by what its author may do today, but by what they were allowed where
//! it stands in their feed: whoever changes rights records, for each feed, up to where the old ones count
//! ([`Judged`]). What lies beyond the last such place is judged by the policy that stands, at the time that the record itself names;
//! the end of a grant so takes nothing back. All nodes that have the same records come to the same verdicts, whatever their clocks say.

use std::{collections::BTreeMap, sync::Arc};

use super::{Action, Rights, Role};
use crate::{
    feed::FeedId,
    id::NodeId,
    policy::{Access, Policy},
    record::{Judged, Record, Revoked},
    studio::PolicyId,
};

/// Says which records count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Admission {
    policy: Arc<Access>,
    revoked: BTreeMap<NodeId, u64>,
    /// Up to which record of a feed which rights count, and when that was said.
    judged: BTreeMap<FeedId, BTreeMap<u64, (Rights, u64)>>,
    /// Nothing is known of grants, so others have judged.
    takes_word: bool,
}

impl Admission {
    /// By a policy alone.
    pub fn new(policy: Arc<Access>) -> Self {
        Self { policy, ..Self::default() }
    }

    /// Adds that a node is not trusted any more; the earliest time counts.
    pub fn revoke(&mut self, revoked: &Revoked) {
        let at_ms = self.revoked.entry(revoked.node.clone()).or_insert(revoked.at_ms);
        *at_ms = revoked.at_ms.min(*at_ms);
    }

    /// Adds by which rights a feed is judged up to where. Of two that name one place, what both allow counts.
    pub fn judge_by(&mut self, judged: &Judged) {
        let of_feed = self.judged.entry(judged.feed.clone()).or_default();
        let (rights, at_ms) = of_feed.entry(judged.next_seq).or_insert((judged.rights, judged.at_ms));
        *rights = rights.and(judged.rights);
        *at_ms = judged.at_ms.max(*at_ms);
    }

    /// Says whether a node is not trusted any more.
    pub fn is_revoked(&self, node: &NodeId) -> bool {
        self.revoked.contains_key(node)
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

    /// Says whether a record counts that stands at `seq` in a feed, under a certificate with this role.
    ///
    /// # Errors
    /// The right that its author lacked.
    pub fn admits(&self, feed: &FeedId, seq: u64, role: Role, record: &Record) -> Result<(), Action> {
        let Some((action, said_at_ms)) = needs(record) else { return Ok(()) };
        if self.takes_word && !feed.project.is_studio() {
            return Ok(());
        }
        let rights = match (record, self.judged_by(feed, seq)) {
            // Two admins who revoke each other are both revoked: nobody has to say who was first.
            (Record::Revoked(_) | Record::Judged(_), _) => of_studio(role),
            (_, Some(rights)) => rights,
            (_, None) => self.rights_when(feed, role, said_at_ms),
        };
        if rights.allows(action) { Ok(()) } else { Err(action) }
    }

    /// Returns from which record of a feed on a verdict by `other` may be another one; none when all are the same.
    pub fn differs_from(&self, other: &Self, feed: &FeedId) -> Option<u64> {
        let empty = BTreeMap::new();
        let [ours, theirs] = [self, other].map(|one| one.judged.get(feed).unwrap_or(&empty));
        let same = ours.iter().zip(theirs).take_while(|(one, other)| one == other).count();
        let is_same = ours.len() == same
            && theirs.len() == same
            && self.revoked.get(&feed.node) == other.revoked.get(&feed.node)
            && self.policy == other.policy;
        if self.takes_word != other.takes_word {
            return Some(0);
        }
        if is_same {
            return None;
        }
        // What lies before a place that both know is judged by that place.
        Some(same.checked_sub(1).and_then(|last| ours.keys().nth(last)).copied().unwrap_or(0))
    }

    /// Returns before which record a feed was judged last, and when that was said, in milliseconds since 1970.
    pub fn last_judged(&self, feed: &FeedId) -> Option<(u64, u64)> {
        self.judged.get(feed)?.iter().next_back().map(|(next_seq, (_, at_ms))| (*next_seq, *at_ms))
    }

    /// Returns what a node with this role may say in the studio's own feeds.
    pub fn rights_of_studio(role: Role) -> Rights {
        of_studio(role)
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
        &self.revoked
    }

    fn judged_by(&self, feed: &FeedId, seq: u64) -> Option<Rights> {
        let of_feed = self.judged.get(feed)?;
        // The first place behind the record.
        of_feed.range(seq.checked_add(1)?..).next().map(|(_, (rights, _))| *rights)
    }

    /// What the policy says, at the time that a record names, and not before its feed was judged last: what came behind that place
    /// can name any time. One that names none is judged as if no grant had ended.
    fn rights_when(&self, feed: &FeedId, role: Role, said_at_ms: Option<u64>) -> Rights {
        let judged_ms = self.last_judged(feed).map(|(_, at_ms)| at_ms);
        let at_ms = said_at_ms.max(judged_ms);
        if self.revoked.get(&feed.node).is_some_and(|revoked_ms| at_ms.is_none_or(|at| at >= *revoked_ms)) {
            return Rights::NONE;
        }
        let at_ms = at_ms.filter(|_| said_at_ms.is_some()).unwrap_or(0);
        match feed.project.is_studio() {
            true => of_studio(role),
            false => self.policy.rights(&feed.node, role, &feed.project, at_ms),
        }
    }
}

/// What a node may say in the studio's own feeds, by its certificate alone: a policy cannot say who applies policies, or two that were
/// applied apart could not be compared.
fn of_studio(role: Role) -> Rights {
    if role == Role::Admin { Rights::ALL } else { Rights::NONE }
}

/// Returns what a record needs its author to be allowed, and when it was said, in milliseconds since 1970.
fn needs(record: &Record) -> Option<(Action, Option<u64>)> {
    match record {
        // Who the author is, and what it keeps in its own audit log, is nobody else's.
        Record::Key(_) | Record::AuditHead(_) => None,
        // Who holds less than before says so, whatever they may do.
        Record::Dropped(_) => None,
        Record::Published(published) => Some((Action::Publish, Some(published.published_at_ms))),
        Record::Placed(_) => Some((Action::See, None)),
        Record::Retired(retired) => Some((Action::Retire, Some(retired.at_ms))),
        Record::Restored(restored) => Some((Action::Retire, Some(restored.at_ms))),
        Record::Resolved(resolved) => Some((Action::Retire, Some(resolved.said().at_ms))),
        Record::Policy(policy) => Some((Action::Admin, Some(policy.applied_at_ms()))),
        Record::Revoked(revoked) => Some((Action::Admin, Some(revoked.at_ms))),
        Record::Judged(_) => Some((Action::Admin, None)),
    }
}

/// Reads an [`Admission`] from the studio's feeds. The order in which records are added does not matter.
#[derive(Debug, Default)]
pub struct AdmissionReader {
    admission: Admission,
    policies: BTreeMap<PolicyId, Vec<(FeedId, u64, Role, Record)>>,
    extract: Option<(u64, Arc<Access>)>,
}

impl AdmissionReader {
    /// Adds a record that stands at `seq` in one of the studio's feeds, under a certificate with this role. Others than those about
    /// rights are passed over.
    pub fn add(&mut self, feed: &FeedId, seq: u64, role: Role, record: Record) {
        match &record {
            Record::Revoked(_) | Record::Judged(_)
                if self.admission.admits(feed, seq, role, &record).is_err() => {}
            Record::Revoked(revoked) => self.admission.revoke(revoked),
            Record::Judged(judged) => self.admission.judge_by(judged),
            Record::Policy(policy) => {
                let id = PolicyId { serial: policy.serial(), hash: policy.hash() };
                self.policies.entry(id).or_default().push((feed.clone(), seq, role, record));
            }
            _ => {}
        }
    }

    /// As [`AdmissionReader::finish`], for the node of a vendor: it gets the studio's feeds only when it may see every project, and
    /// takes the word of those that serve it until then.
    pub fn finish_of_vendor(self) -> Admission {
        let is_told = !self.policies.is_empty();
        let mut admission = self.finish();
        admission.takes_word |= !is_told;
        admission
    }

    /// Adds what the node was told of the policy with this serial, without the studio's feeds. As long as they do not say more, it
    /// takes the word of those that serve it: up to where others judged by other rights is told in those feeds alone.
    pub fn add_extract(&mut self, serial: u64, policy: Arc<Access>) {
        self.extract = Some((serial, policy));
    }

    /// Returns what they add up to. Of the policies, the highest counts that this version understands and whose author might apply it.
    pub fn finish(mut self) -> Admission {
        let highest_first = self.policies.iter().rev();
        let in_effect = highest_first.into_iter().find_map(|(id, said)| {
            let admission = &self.admission;
            let counts = |(feed, seq, role, record): &&(FeedId, u64, Role, Record)| {
                admission.admits(feed, *seq, *role, record).is_ok()
            };
            let Record::Policy(policy) = &said.iter().find(counts)?.3 else { return None };
            Some((id.serial, Policy::parse(policy.document()).ok()?))
        });
        let serial = in_effect.as_ref().map_or(0, |(serial, _)| *serial);
        match self.extract.filter(|(told, _)| *told > serial) {
            Some((_, policy)) => {
                self.admission.policy = policy;
                self.admission.takes_word = true;
            }
            None => {
                if let Some((_, policy)) = in_effect {
                    self.admission.policy = Arc::new(policy.access().clone());
                }
            }
        }
        self.admission
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::{published, resolved, retired, revoked};

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
        let studio = FeedId { project: crate::id::ProjectName::studio(), ..feed() };
        let of_all = access(
            "[[grant]]\nto = \"ws1@van\"\nprojects = \"*\"\nactions = \"admin\"\n[roles]\nvendor = [\"ws2@van\"]\n",
        );
        let mut admission = Admission::new(of_all);
        let policy = Record::Policy(crate::record::tests::applied(3, "x"));
        for record in [revoked("ws1@london"), policy.clone()] {
            assert_eq!(admission.admits(&studio, 1, Role::Site, &record), Err(Action::Admin));
            assert_eq!(admission.admits(&studio, 1, Role::Admin, &record), Ok(()));
        }
        // Whoever is revoked applies nothing any more. What it revoked stays so.
        let Record::Revoked(gone) = revoked("ws1@van") else { panic!() };
        admission.revoke(&gone);
        assert_eq!(admission.admits(&studio, 1, Role::Admin, &policy), Err(Action::Admin));
        assert_eq!(admission.admits(&studio, 1, Role::Admin, &revoked("ws1@london")), Ok(()));
        admission.judge_by(&Judged { feed: studio.clone(), next_seq: 2, rights: Rights::ALL, at_ms: 0 });
        assert_eq!(admission.admits(&studio, 1, Role::Admin, &policy), Ok(()));
        assert_eq!(admission.admits(&studio, 2, Role::Admin, &policy), Err(Action::Admin));
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
        let judged = |next_seq, actions: &[Action]| Judged {
            feed: feed(),
            next_seq,
            rights: Rights::of(actions.iter().copied()),
            at_ms: 0,
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
        let mut admission = Admission::new(access(&grant("\"publish\"", "")));
        let revoked = |at_ms| {
            let Record::Revoked(revoked) = revoked("ws1@van") else { panic!() };
            Revoked { at_ms, ..revoked }
        };
        admission.revoke(&revoked(THEN_MS + DAY_MS));
        assert_eq!(admits(&admission, 3, &publish()), Ok(()), "it says that it is older");
        assert!(admission.is_revoked(&feed().node));
        assert_eq!(admission.rights(&feed().node, Role::Admin, &feed().project, 0), Rights::NONE);
        // Whoever revokes it says up to where each feed is known: then no claimed time counts.
        admission.judge_by(&Judged { feed: feed(), next_seq: 3, rights: Rights::ALL, at_ms: 0 });
        assert_eq!(admits(&admission, 2, &publish()), Ok(()));
        admission.revoke(&revoked(THEN_MS));
        assert_eq!(admits(&admission, 3, &publish()), Err(Action::Publish));
    }

    #[test]
    fn the_order_in_which_records_come_does_not_matter() {
        let Record::Revoked(revoked) = revoked("ws1@van") else { panic!() };
        let judged = |next_seq, rights| Judged { feed: feed(), next_seq, rights, at_ms: 0 };
        let all = [judged(5, Rights::ALL), judged(5, Rights::NONE), judged(9, Rights::ALL)];
        let [mut one, mut other] = [(); 2].map(|()| Admission::new(access("")));
        all.iter().for_each(|judged| one.judge_by(judged));
        one.revoke(&revoked);
        other.revoke(&Revoked { at_ms: revoked.at_ms + 1, ..revoked.clone() });
        other.revoke(&revoked);
        all.iter().rev().for_each(|judged| other.judge_by(judged));
        assert_eq!(one, other);
        assert_eq!(one.differs_from(&other, &feed()), None);
        assert_eq!(one.differs_from(&Admission::default(), &feed()), Some(0));
        one.judge_by(&judged(12, Rights::ALL));
        assert_eq!((one.differs_from(&other, &feed()), one.last_judged(&feed())), (Some(9), Some((12, 0))));
    }

    #[test]
    fn what_was_told_of_the_policy_counts_until_the_feeds_say_more_and_takes_others_word() {
        let studio = FeedId { project: crate::id::ProjectName::studio(), ..feed() };
        let document = "schema = \"avalon.policy/1\"\n[defaults]\nkeep = \"here\"\nmin_copies = 1\n";
        let read = |told: u64| {
            let mut reader = AdmissionReader::default();
            let policy = Record::Policy(crate::record::tests::applied(3, document));
            reader.add(&studio, 0, Role::Admin, policy);
            reader.add_extract(told, access(&grant("\"pull\"", "")));
            reader.finish()
        };
        let may = |one: &Admission| one.rights(&feed().node, Role::Vendor, &feed().project, 0);
        for old in [2, 3] {
            assert_eq!((read(old).takes_word(), may(&read(old))), (false, Rights::NONE));
        }
        let newer = read(4);
        assert!(newer.takes_word() && may(&newer).allows(Action::Pull));
        assert_eq!(admits(&newer, 3, &publish()), Ok(()), "those who judge served it");
    }
}
