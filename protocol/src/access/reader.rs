//! Reading an [`Admission`] from the studio's own feeds.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{
    Admission, Rights, Role,
    listed::{Brought, Listed, Lists, Used},
    standing::{Revocation, Standing, Statement},
};
use crate::{
    feed::FeedId,
    hash::ChainHash,
    id::NodeId,
    policy::{Access, Policy},
    record::{Judged, Record},
    signing::{CertificateList, Signer},
    studio::PolicyId,
};

/// Where a record stands: its feed, and its number there. It is signed under an admin's certificate.
type Stands = (FeedId, u64, Signer, Record);

/// What a node goes by that does not get the studio's feeds.
#[derive(Debug, Clone)]
pub struct Extract {
    /// The serial of the policy that it is of.
    pub serial: u64,
    /// What it says about rights.
    pub policy: Arc<Access>,
    /// Up to where what is here was judged before, by other rights.
    pub judged: Vec<Judged>,
}

/// A record that judged another history of a feed than the one that is here, and so says nothing about this one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Elsewhere {
    /// Who said it.
    pub by: NodeId,
    /// About which feed.
    pub feed: FeedId,
    /// Up to where.
    pub next_seq: u64,
}

/// Reads an [`Admission`]. The order in which records are added does not matter.
#[derive(Debug, Default)]
pub struct AdmissionReader {
    policies: BTreeMap<PolicyId, Vec<Stands>>,
    revocations: Vec<(Signer, Revocation)>,
    judged: Vec<(NodeId, u64, Signer, Judged)>,
    lists: Lists,
    /// Where each node brought lists.
    brought_at: BTreeMap<NodeId, BTreeSet<u64>>,
    /// From which record on a certificate was used in a studio feed.
    began: BTreeMap<Used, u64>,
    extract: Option<Extract>,
}

impl AdmissionReader {
    /// Notes that from this record on one of the studio's feeds is signed under this certificate.
    pub fn signed_from(&mut self, feed: &FeedId, seq: u64, signer: &Signer) {
        for id in signer.certificates.iter().flatten() {
            let from_seq = self.began.entry((feed.node.clone(), *id)).or_insert(seq);
            *from_seq = seq.min(*from_seq);
        }
    }

    /// Adds a record that stands at `seq` in one of the studio's feeds, under this certificate. Those of others than admins
    /// are passed over, and so are those that say nothing about rights. Lists of revoked certificates are added by
    /// [`AdmissionReader::add_list`], once they are read.
    pub fn add(&mut self, feed: &FeedId, seq: u64, signer: impl Into<Signer>, record: Record) {
        let signer = signer.into();
        self.signed_from(feed, seq, &signer);
        if signer.role != Role::Admin {
            return;
        }
        match record {
            Record::Revoked(revoked) => {
                self.revocations.push((signer, Revocation { by: feed.node.clone(), seq, revoked }));
            }
            // Nobody judges itself: an admin could keep for ever what it says.
            Record::Judged(judged) if judged.feed.node != feed.node => {
                self.judged.push((feed.node.clone(), seq, signer, judged));
            }
            Record::Policy(policy) => {
                let id = PolicyId { serial: policy.serial(), hash: policy.hash() };
                self.policies.entry(id).or_default().push((
                    feed.clone(),
                    seq,
                    signer,
                    Record::Policy(policy),
                ));
            }
            _ => {}
        }
    }

    /// Adds a list of revoked certificates that the studio's CA signed, from a record that stands so and was written at `at_ms`.
    pub fn add_list(
        &mut self,
        feed: &FeedId,
        seq: u64,
        signer: impl Into<Signer>,
        (at_ms, list): (u64, CertificateList),
    ) {
        let signer = signer.into();
        self.signed_from(feed, seq, &signer);
        if signer.role == Role::Admin {
            self.brought_at.entry(feed.node.clone()).or_default().insert(seq);
            self.lists.add(Brought { by: feed.node.clone(), seq, signer, at_ms, list });
        }
    }

    /// Adds what the node was told of a policy, without the studio's feeds. It counts until they have a newer one.
    pub fn add_extract(&mut self, extract: Extract) {
        self.extract = Some(extract);
    }

    /// As [`AdmissionReader::finish`], for the node of a vendor: it gets the studio's feeds only when it may see every project, and
    /// takes the word of those that serve it until it is told of a policy.
    pub fn finish_of_vendor(self, chain_of: &dyn Fn(&FeedId, u64) -> Option<ChainHash>) -> Admission {
        let is_told = !self.policies.is_empty() || self.extract.is_some();
        let mut admission = self.finish(chain_of);
        admission.takes_word = !is_told;
        admission
    }

    /// Returns what they add up to. Of the policies, the highest counts that this version understands and whose author might apply it.
    /// `chain_of` says which chain hash a feed has behind the group with the record before this one, as far as it is here.
    pub fn finish(mut self, chain_of: &dyn Fn(&FeedId, u64) -> Option<ChainHash>) -> Admission {
        let mut admission = Admission::default();
        for (by, _, _, judged) in &mut self.judged {
            admission.note_chain(judged);
            let ours = judged.chain.and_then(|_| chain_of(&judged.feed, judged.next_seq));
            if ours.is_some() && ours != judged.chain {
                let (by, feed, next_seq) = (by.clone(), judged.feed.clone(), judged.next_seq);
                admission.elsewhere.insert(Elsewhere { by, feed, next_seq });
                // Of this history it says only that nobody had vouched for any of it by then.
                *judged = Judged { next_seq: 0, rights: Rights::NONE, chain: None, ..judged.clone() };
            }
        }
        (admission.listed, admission.standing) = self.standing();
        let counting = |(by, seq, signer, judged): &&(NodeId, u64, Signer, Judged)| {
            let said_at_ms = Some(judged.at_ms);
            let is_listed =
                admission.listed.as_ref().is_some_and(|listed| !listed.stands(by, *seq, signer, said_at_ms));
            !judged.feed.project.is_studio() && !is_listed && admission.standing.stands(by, *seq, said_at_ms)
        };
        let counting: Vec<&Judged> =
            self.judged.iter().filter(counting).map(|(_, _, _, judged)| judged).collect();
        counting.into_iter().for_each(|judged| admission.judge_by(judged));
        let serial = match in_effect(&self.policies, &admission) {
            Some((serial, policy)) => {
                admission.policy = Arc::new(policy.access().clone());
                serial
            }
            None => 0,
        };
        if let Some(extract) = self.extract.filter(|extract| extract.serial > serial) {
            admission.policy = extract.policy;
            extract.judged.iter().for_each(|judged| admission.judge_by(judged));
        }
        admission
    }

    /// Says which list of revoked certificates counts, and who is revoked where it does: the newest whose author could say so, by
    /// that list itself.
    fn standing(&self) -> (Option<Arc<Listed>>, Standing) {
        for brought in self.lists.newest_first() {
            let listed = brought.listed(&self.began, &self.places_of(brought));
            let standing = self.standing_by(Some(&listed));
            let Brought { by, seq, signer, at_ms, .. } = brought;
            // Who is on a list does not bring it, whatever time it names: where others end would be what it says.
            if standing.stands(by, *seq, Some(*at_ms)) && listed.since(signer).is_none() {
                return (Some(Arc::new(listed)), standing);
            }
        }
        (None, self.standing_by(None))
    }

    fn standing_by(&self, listed: Option<&Listed>) -> Standing {
        let stands = |by: &NodeId, seq: u64, signer: &Signer, at_ms: u64| {
            listed.is_none_or(|listed| listed.stands(by, seq, signer, Some(at_ms)))
        };
        let revocations = self
            .revocations
            .iter()
            .filter(|(signer, one)| stands(&one.by, one.seq, signer, one.revoked.at_ms));
        let revocations: Vec<Revocation> = revocations.map(|(_, one)| one.clone()).collect();
        let statements = self.judged.iter().filter(|(by, seq, signer, judged)| {
            judged.feed.project.is_studio() && stands(by, *seq, signer, judged.at_ms)
        });
        let statements: Vec<Statement> = statements.map(statement).collect();
        Standing::of(&revocations, &statements)
    }

    /// Returns where whoever brought a list said, with that list and under one certificate, that certificates in the studio feeds of others end.
    fn places_of(&self, brought: &Brought) -> BTreeMap<NodeId, BTreeSet<u64>> {
        let before = self.brought_at.get(&brought.by).and_then(|seqs| seqs.range(..brought.seq).next_back());
        let from_seq = before.map_or(0, |seq| seq + 1);
        let mut places: BTreeMap<NodeId, BTreeSet<u64>> = BTreeMap::new();
        for (by, seq, signer, judged) in &self.judged {
            let is_of_it = *by == brought.by
                && (from_seq..brought.seq).contains(seq)
                && signer.certificates == brought.signer.certificates;
            if is_of_it && judged.feed.project.is_studio() {
                places.entry(judged.feed.node.clone()).or_default().insert(judged.next_seq);
            }
        }
        places
    }
}

fn statement((by, seq, _, judged): &(NodeId, u64, Signer, Judged)) -> Statement {
    let Judged { feed, next_seq, at_ms, .. } = judged;
    Statement { by: by.clone(), seq: *seq, at_ms: *at_ms, about: feed.node.clone(), next_seq: *next_seq }
}

fn in_effect(policies: &BTreeMap<PolicyId, Vec<Stands>>, admission: &Admission) -> Option<(u64, Policy)> {
    policies.iter().rev().find_map(|(id, said)| {
        let counts =
            |(feed, seq, signer, record): &&Stands| admission.admits(feed, *seq, *signer, record).is_ok();
        let Record::Policy(policy) = &said.iter().find(counts)?.3 else { return None };
        Some((id.serial, Policy::parse(policy.document()).ok()?))
    })
}
