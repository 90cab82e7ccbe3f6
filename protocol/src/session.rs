//! The catalog exchange between two nodes: greeting, heads, and the records that the other side lacks.
//!
//! A session is one connection's state machine. It does no IO and never waits: each input returns the effects that the
//! driver carries out in order. The daemon drives it over QUIC; the simulation over links that it delays and cuts.
//! What it guarantees: groups of a feed are sent in order, each at most once per connection, only for projects that both
//! sides serve; and nothing is sent before this node has stored it (`advanced` and the heads at the start come from the
//! ledger, which speaks after the fsync).

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    close_code::CloseCode,
    feed::{FeedHead, FeedId, SealedGroup},
    id::{NodeId, ProjectName},
    limits::MAX_FEEDS,
    wire::{Control, Hello, PolicyExtract, ProjectHeads, Records},
};

/// What the driver has to do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send a message; wait while the stream is full.
    Send(Control),
    /// The greeting is accepted: tell the rest of the daemon.
    Ready(Hello),
    /// Read groups of a feed from `from_seq` on, about one frame full, and answer with [`Session::groups_read`].
    ReadGroups {
        /// The feed.
        feed: FeedId,
        /// The number of the first record that the peer lacks.
        from_seq: u64,
    },
    /// Verify and store what the peer sent, and answer with [`Session::groups_stored`].
    StoreGroups(Records),
    /// What the peer says of the policy.
    Extract(PolicyExtract),
    /// The peer's copy of a feed is not a part of ours nor ours of it: somebody must hear of it. The session goes on
    /// with the other feeds.
    Fork(FeedId),
    /// The peer may not know that a feed has two histories: read what proves it to somebody who has `peer_has` records of
    /// it, and answer with [`Session::proof_read`].
    ProveFork {
        /// The feed.
        feed: FeedId,
        /// How many records the peer has.
        peer_has: u64,
    },
    /// The peer says for the first time on this connection how much it has of our own feed about a project; of what it is
    /// ahead, it will send.
    OwnFeed {
        /// The project.
        project: ProjectName,
        /// How many records.
        next_seq: u64,
    },
    /// The peer says where its copy of a feed ends; after its first heads for all of them, that is where they begin.
    PeerHead {
        /// The feed.
        feed: FeedId,
        /// Where it ends.
        head: FeedHead,
    },
    /// Close the connection; no input may follow.
    Close {
        /// The code that the peer sees.
        code: CloseCode,
        /// The reason, for our log and the peer's.
        reason: String,
    },
}

#[derive(Debug, Default)]
struct Progress {
    /// Where our feed ends.
    ours: Option<FeedHead>,
    /// Where the peer's feed ends, counting what is on its way.
    theirs: Option<u64>,
    /// Groups are being read for the peer.
    reading: bool,
    /// The histories part: nothing is sent, and of what comes only what may prove it is looked at.
    forked: bool,
    /// It is as long as this node takes: what comes of it is passed over.
    full: bool,
    /// The feed is known here to have two histories, and from how many records on a peer can be shown it.
    frozen: Option<u64>,
    /// The peer was shown it.
    shown: bool,
}

/// One connection to one peer.
#[derive(Debug)]
pub struct Session {
    local: Hello,
    certified: NodeId,
    peer: Option<Hello>,
    shared: BTreeSet<ProjectName>,
    heads_seen: BTreeSet<ProjectName>,
    feeds: BTreeMap<FeedId, Progress>,
}

impl Session {
    /// Starts a session with the node that the peer's certificate names; `heads` is where our feeds end.
    pub fn new(
        local: Hello,
        certified: NodeId,
        heads: impl IntoIterator<Item = (FeedId, FeedHead)>,
    ) -> (Self, Vec<Effect>) {
        let progress = |head| Progress { ours: Some(head), ..Progress::default() };
        let feeds = heads.into_iter().map(|(feed, head)| (feed, progress(head))).collect();
        let hello = Effect::Send(Control::Hello(local.clone()));
        let session = Self {
            local,
            certified,
            peer: None,
            shared: BTreeSet::new(),
            heads_seen: BTreeSet::new(),
            feeds,
        };
        (session, vec![hello])
    }

    /// Hears that a feed has two histories, which a peer can be shown that has `shown_from` records of it. Before the greeting
    /// for what is known from earlier, and later as it is found.
    pub fn frozen(&mut self, feed: &FeedId, shown_from: u64) -> Vec<Effect> {
        self.feeds.entry(feed.clone()).or_default().frozen = Some(shown_from);
        self.show(feed).into_iter().collect()
    }

    /// Returns the peer's greeting, once it was accepted.
    pub fn peer(&self) -> Option<&Hello> {
        self.peer.as_ref()
    }

    /// Says whether the peer is known to have, or to be getting, all of our records of a project.
    pub fn is_level(&self, project: &ProjectName) -> bool {
        self.heads_seen.contains(project)
            && self.feeds.iter().filter(|(feed, _)| feed.project == *project).all(|(_, progress)| {
                progress.ours.is_none_or(|ours| progress.theirs.is_some_and(|theirs| theirs >= ours.next_seq))
            })
    }

    /// Returns how many records of a feed the peer is known to have or to be getting; nothing before its first heads.
    pub fn peer_has(&self, feed: &FeedId) -> Option<u64> {
        self.feeds.get(feed)?.theirs
    }

    /// Says whether everything that the peer says it has of a project's feeds is here. Nobody waits for feeds with two histories, or for the rest of
    /// one that is too long.
    pub fn has_all_of(&self, project: &ProjectName) -> bool {
        let of_project = self.feeds.iter().filter(|(feed, _)| feed.project == *project);
        let has_all = |progress: &Progress| {
            progress.forked
                || progress.full
                || progress.ours.map_or(0, |ours| ours.next_seq) >= progress.theirs.unwrap_or(0)
        };
        self.heads_seen.contains(project) && of_project.into_iter().all(|(_, progress)| has_all(progress))
    }

    /// Says whether this side has records of a feed.
    pub fn has(&self, feed: &FeedId) -> bool {
        self.feeds.get(feed).is_some_and(|progress| progress.ours.is_some())
    }

    /// Takes a message of the peer.
    pub fn received(&mut self, message: Control) -> Vec<Effect> {
        match (message, self.peer.is_some()) {
            (Control::Hello(hello), false) => self.greeted(hello),
            (Control::Heads(heads), true) => self.heads(heads),
            (Control::Records(records), true) => self.records(records),
            (Control::Extract(extract), true) => vec![Effect::Extract(extract)],
            (Control::Hello(_), true) => close(CloseCode::Protocol, "a second greeting"),
            (_, false) => close(CloseCode::Protocol, "a message before the greeting"),
        }
    }

    fn greeted(&mut self, hello: Hello) -> Vec<Effect> {
        if let Err(refused) = self.local.check_peer(&hello, &self.certified) {
            return close(refused.close_code(), &refused.to_string());
        }
        let theirs: BTreeSet<&ProjectName> = hello.projects.iter().map(|project| &project.name).collect();
        let ours = self.local.projects.iter().map(|project| &project.name);
        self.shared = ours.filter(|name| theirs.contains(name)).cloned().collect();
        self.peer = Some(hello.clone());
        let mut effects = vec![Effect::Ready(hello)];
        for project in &self.shared {
            let of_project = self.feeds.iter().filter(|(feed, _)| feed.project == *project);
            let heads = of_project.filter_map(|(feed, p)| Some((feed.node.clone(), p.ours?))).collect();
            effects.push(Effect::Send(Control::Heads(ProjectHeads { project: project.clone(), heads })));
        }
        effects
    }

    fn heads(&mut self, heads: ProjectHeads) -> Vec<Effect> {
        let project = heads.project;
        if !self.shared.contains(&project) {
            return close(CloseCode::Protocol, "heads of a project that is not shared");
        }
        let known = self.feeds.keys().filter(|feed| feed.project == project).count();
        let new = heads.heads.iter().filter(|(node, _)| {
            !self.feeds.contains_key(&FeedId { project: project.clone(), node: node.clone() })
        });
        if known + new.count() > MAX_FEEDS {
            return close(CloseCode::Protocol, "more feeds of a project than the limit");
        }
        let mut effects = Vec::new();
        let mut moved = Vec::new();
        for (node, head) in heads.heads {
            let feed = FeedId { project: project.clone(), node };
            let progress = self.feeds.entry(feed.clone()).or_default();
            progress.theirs = Some(progress.theirs.unwrap_or(0).max(head.next_seq));
            let same_length = progress.ours.is_some_and(|ours| ours.next_seq == head.next_seq);
            let is_other = same_length && progress.ours != Some(head);
            effects.push(Effect::PeerHead { feed: feed.clone(), head });
            if is_other {
                effects.extend(self.fork(&feed));
            }
            moved.push(feed);
        }
        if self.heads_seen.insert(project.clone()) {
            // The first heads are complete: what is not named, the peer does not have at all.
            for (feed, progress) in self.feeds.iter_mut().filter(|(feed, _)| feed.project == project) {
                if progress.theirs.is_none() {
                    progress.theirs = Some(0);
                    effects.push(Effect::PeerHead { feed: feed.clone(), head: FeedHead::EMPTY });
                }
                moved.push(feed.clone());
            }
            let own = FeedId { project: project.clone(), node: self.local.node.clone() };
            effects.push(Effect::OwnFeed { project, next_seq: self.peer_has(&own).unwrap_or(0) });
        }
        for feed in moved {
            effects.extend(self.show(&feed));
            effects.extend(self.pump(&feed));
        }
        effects
    }

    /// Stops exchanging a feed with this peer, says so once, and lets it have what proves it.
    fn fork(&mut self, feed: &FeedId) -> Vec<Effect> {
        let progress = self.feeds.entry(feed.clone()).or_default();
        if std::mem::replace(&mut progress.forked, true) {
            return Vec::new();
        }
        let mut effects = vec![Effect::Fork(feed.clone())];
        let peer_has = progress.theirs.unwrap_or(0);
        if self.shared.contains(&feed.project) && !std::mem::replace(&mut progress.shown, true) {
            effects.push(Effect::ProveFork { feed: feed.clone(), peer_has });
        }
        effects
    }

    /// Shows the peer what is known of a feed with two histories, once it has enough of it to understand that.
    fn show(&mut self, feed: &FeedId) -> Option<Effect> {
        if !self.shared.contains(&feed.project) {
            return None;
        }
        let progress = self.feeds.get_mut(feed)?;
        let (from, peer_has) = (progress.frozen?, progress.theirs?);
        if peer_has < from || std::mem::replace(&mut progress.shown, true) {
            return None;
        }
        Some(Effect::ProveFork { feed: feed.clone(), peer_has })
    }

    /// Takes the groups that [`Effect::ProveFork`] asked for; none when there is nothing to show after all.
    pub fn proof_read(&mut self, feed: &FeedId, groups: Vec<SealedGroup>) -> Vec<Effect> {
        // One by one: what the peer has already must not keep it from looking at the other.
        let records = |group| Records { feed: feed.clone(), groups: vec![group], manifests: Vec::new() };
        groups.into_iter().map(|group| Effect::Send(Control::Records(records(group)))).collect()
    }

    fn records(&mut self, records: Records) -> Vec<Effect> {
        if !self.shared.contains(&records.feed.project) || records.groups.is_empty() {
            return close(CloseCode::Protocol, "records of a project that is not shared, or none");
        }
        let Some(end) = records.groups.last().and_then(SealedGroup::claimed_end) else {
            return close(CloseCode::Protocol, "records that do not parse");
        };
        let start = records.groups.first().and_then(SealedGroup::claimed_start);
        let progress = self.feeds.entry(records.feed.clone()).or_default();
        let ours = progress.ours.map_or(0, |ours| ours.next_seq);
        if progress.forked && start.is_none_or(|start| start > ours) {
            // It was on its way already. What begins within our copy may be the proof.
            return Vec::new();
        }
        // What the peer sends, it has; noted before it is stored here, so that it is not sent back meanwhile.
        progress.theirs = Some(progress.theirs.unwrap_or(0).max(end));
        if progress.full && start.is_none_or(|start| start >= ours) {
            return Vec::new();
        }
        vec![Effect::StoreGroups(records)]
    }

    /// Hears that our copy of a feed ends further on, by our own records or another peer's.
    pub fn advanced(&mut self, feed: &FeedId, head: FeedHead) -> Vec<Effect> {
        let progress = self.feeds.entry(feed.clone()).or_default();
        if progress.ours.is_none_or(|ours| ours.next_seq < head.next_seq) {
            progress.ours = Some(head);
        }
        if self.heads_seen.contains(&feed.project) {
            self.feeds.entry(feed.clone()).or_default().theirs.get_or_insert(0);
        }
        self.pump(feed).into_iter().collect()
    }

    /// Asks for the next groups of a feed when the peer lacks some and none are on their way.
    fn pump(&mut self, feed: &FeedId) -> Option<Effect> {
        if !self.shared.contains(&feed.project) {
            return None;
        }
        let progress = self.feeds.get_mut(feed)?;
        let (ours, theirs) = (progress.ours?, progress.theirs?);
        if progress.reading || progress.forked || theirs >= ours.next_seq {
            return None;
        }
        progress.reading = true;
        Some(Effect::ReadGroups { feed: feed.clone(), from_seq: theirs })
    }

    /// Takes the groups that [`Effect::ReadGroups`] asked for, which end before record `next_seq`, and manifests that go
    /// with them. No groups mean that the peer's head is not one of ours: its history is another.
    pub fn groups_read(
        &mut self,
        feed: &FeedId,
        next_seq: u64,
        groups: Vec<SealedGroup>,
        manifests: Vec<Vec<u8>>,
    ) -> Vec<Effect> {
        let progress = self.feeds.entry(feed.clone()).or_default();
        progress.reading = false;
        if groups.is_empty() {
            return self.fork(feed);
        }
        progress.theirs = Some(progress.theirs.unwrap_or(0).max(next_seq));
        let mut effects =
            vec![Effect::Send(Control::Records(Records { feed: feed.clone(), groups, manifests }))];
        effects.extend(self.show(feed));
        effects.extend(self.pump(feed));
        effects
    }

    /// Hears that what [`Effect::StoreGroups`] named is durable, and where our feed ends now, which may be further on than
    /// what the peer sent; the peer learns that we have it.
    pub fn groups_stored(&mut self, feed: &FeedId, head: FeedHead) -> Vec<Effect> {
        let progress = self.feeds.entry(feed.clone()).or_default();
        if progress.ours.is_none_or(|ours| ours.next_seq < head.next_seq) {
            progress.ours = Some(head);
        }
        let heads = ProjectHeads { project: feed.project.clone(), heads: vec![(feed.node.clone(), head)] };
        let mut effects = vec![Effect::Send(Control::Heads(heads))];
        effects.extend(self.pump(feed));
        effects
    }

    /// Hears that the feed is as long as this node takes. The peer that sends it need not be the one that wrote it: the connection goes
    /// on, without that feed.
    pub fn groups_too_many(&mut self, feed: &FeedId) {
        self.feeds.entry(feed.clone()).or_default().full = true;
    }

    /// Hears that the peer's groups are another history than ours; the feed stays as it is.
    pub fn groups_forked(&mut self, feed: &FeedId) -> Vec<Effect> {
        self.fork(feed)
    }
}

fn close(code: CloseCode, reason: &str) -> Vec<Effect> {
    vec![Effect::Close { code, reason: reason.to_owned() }]
}

#[cfg(test)]
mod fork_tests;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hash::ChainHash,
        mode::ProjectMode,
        wire::{PROTOCOL_MAX, PROTOCOL_MIN, ServedProject},
    };

    fn hello(node: &str, instance: u64, projects: &[&str]) -> Hello {
        Hello {
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            features: 0,
            build: "test".into(),
            studio: "northlight".parse().unwrap(),
            node: node.parse().unwrap(),
            instance,
            projects: projects
                .iter()
                .map(|name| ServedProject { name: name.parse().unwrap(), mode: ProjectMode::OnDemand })
                .collect(),
        }
    }

    fn feed(project: &str, node: &str) -> FeedId {
        FeedId { project: project.parse().unwrap(), node: node.parse().unwrap() }
    }

    fn head(next_seq: u64) -> FeedHead {
        let byte = u8::try_from(next_seq).unwrap();
        FeedHead { next_seq, chain: ChainHash::from_bytes([byte; 32]) }
    }

    fn group() -> SealedGroup {
        SealedGroup::unsigned(&feed("a", "srv@montreal"), 0, 2)
    }

    /// A session of ws1@london with srv@montreal, greeted.
    fn ready(ours: &[(FeedId, FeedHead)]) -> Session {
        let (mut session, _) =
            Session::new(hello("ws1@london", 1, &["a", "b"]), "srv@montreal".parse().unwrap(), ours.to_vec());
        let effects = session.received(Control::Hello(hello("srv@montreal", 2, &["a", "c"])));
        assert!(matches!(effects.first(), Some(Effect::Ready(_))), "{effects:?}");
        session
    }

    fn heads(project: &str, heads: &[(&str, FeedHead)]) -> Control {
        let heads = heads.iter().map(|(node, head)| (node.parse().unwrap(), *head)).collect();
        Control::Heads(ProjectHeads { project: project.parse().unwrap(), heads })
    }

    #[test]
    fn sends_what_the_peer_lacks_and_nothing_of_other_projects() {
        let mut session = ready(&[(feed("a", "ws1@london"), head(3)), (feed("b", "ws1@london"), head(9))]);
        let effects = session.received(heads("a", &[]));
        let feed = feed("a", "ws1@london");
        let nothing = Effect::PeerHead { feed: feed.clone(), head: FeedHead::EMPTY };
        let own = Effect::OwnFeed { project: feed.project.clone(), next_seq: 0 };
        assert_eq!(effects, [nothing, own, Effect::ReadGroups { feed: feed.clone(), from_seq: 0 }]);
        let effects = session.groups_read(&feed, 3, vec![group()], vec![]);
        assert!(matches!(&effects[..], [Effect::Send(Control::Records(r))] if r.feed == feed));
        assert!(session.is_level(&feed.project));
        assert!(matches!(
            &session.received(heads("b", &[]))[..],
            [Effect::Close { code: CloseCode::Protocol, .. }]
        ));
    }

    #[test]
    fn a_record_made_while_reading_follows_without_a_gap() {
        let feed = feed("a", "ws1@london");
        let mut session = ready(&[(feed.clone(), head(1))]);
        session.received(heads("a", &[]));
        assert_eq!(session.advanced(&feed, head(2)), []);
        let effects = session.groups_read(&feed, 1, vec![group()], vec![]);
        assert_eq!(effects.last(), Some(&Effect::ReadGroups { feed, from_seq: 1 }));
    }

    #[test]
    fn what_was_stored_is_confirmed_and_not_sent_back() {
        let mut session = ready(&[]);
        session.received(heads("a", &[("srv@montreal", head(2))]));
        let feed = feed("a", "srv@montreal");
        let records = Records { feed: feed.clone(), groups: vec![group()], manifests: vec![] };
        assert_eq!(session.received(Control::Records(records.clone())), [Effect::StoreGroups(records)]);
        let effects = session.groups_stored(&feed, head(2));
        assert!(matches!(&effects[..], [Effect::Send(Control::Heads(_))]));
        assert_eq!(session.advanced(&feed, head(2)), []);
    }

    #[test]
    fn of_a_feed_that_is_too_long_nothing_more_is_stored_and_the_others_go_on() {
        let long = feed("a", "srv@montreal");
        let mut session = ready(&[(long.clone(), head(2))]);
        let start = |seq| SealedGroup::unsigned(&long, seq, 2);
        let records =
            |feed: &FeedId, group| Records { feed: feed.clone(), groups: vec![group], manifests: vec![] };
        session.received(heads("a", &[("srv@montreal", head(9))]));
        session.groups_too_many(&long);
        assert_eq!(session.received(Control::Records(records(&long, start(2)))), []);
        // What begins within our copy may be another history.
        let within = records(&long, start(1));
        assert_eq!(session.received(Control::Records(within.clone())), [Effect::StoreGroups(within)]);
        let other = records(&feed("a", "ws7@montreal"), group());
        assert_eq!(session.received(Control::Records(other.clone())), [Effect::StoreGroups(other)]);
    }

    #[test]
    fn records_that_come_back_do_not_hide_what_the_peer_still_lacks() {
        let feed = feed("a", "srv@montreal");
        let mut session = ready(&[(feed.clone(), head(7))]);
        session.received(heads("a", &[]));
        session.groups_read(&feed, 2, vec![group()], vec![]);
        // The peer sends the same two records back: we have seven, it has two.
        let records = Records { feed: feed.clone(), groups: vec![group()], manifests: vec![] };
        session.received(Control::Records(records));
        session.groups_stored(&feed, head(7));
        let project = feed.project.clone();
        assert!(!session.is_level(&project));
        let effects = session.groups_read(&feed, 7, vec![group()], vec![]);
        assert!(matches!(&effects[..], [Effect::Send(Control::Records(_))]), "{effects:?}");
        assert!(session.is_level(&project));
    }

    #[test]
    fn an_answer_that_is_late_does_not_turn_our_head_back() {
        let mut session = ready(&[]);
        let feed = feed("a", "srv@montreal");
        session.received(heads("a", &[]));
        session.received(Control::Records(Records {
            feed: feed.clone(),
            groups: vec![group()],
            manifests: vec![],
        }));
        assert_eq!(session.peer_has(&feed), Some(2));
        session.advanced(&feed, head(5));
        session.groups_read(&feed, 4, vec![group()], vec![]);
        session.groups_stored(&feed, head(2));
        let effects = session.groups_read(&feed, 4, vec![group()], vec![]);
        assert_eq!(effects.last(), Some(&Effect::ReadGroups { feed, from_seq: 4 }));
    }

    #[test]
    fn two_histories_of_equal_length_are_a_fork_and_stop_that_feed_alone() {
        let one = feed("a", "ws1@london");
        let mut session = ready(&[(one.clone(), head(2))]);
        let other = FeedHead { chain: ChainHash::from_bytes([99; 32]), ..head(2) };
        let effects = session.received(heads("a", &[("ws1@london", other)]));
        assert!(effects.contains(&Effect::Fork(one.clone())), "{effects:?}");
        assert_eq!(session.advanced(&one, head(3)), []);
        let two = feed("a", "ws2@london");
        assert!(!session.advanced(&two, head(1)).is_empty());
    }

    #[test]
    fn a_head_that_is_none_of_ours_is_a_fork() {
        let one = feed("a", "ws1@london");
        let mut session = ready(&[(one.clone(), head(5))]);
        session.received(heads("a", &[("ws1@london", head(4))]));
        let proof = Effect::ProveFork { feed: one.clone(), peer_has: 4 };
        assert_eq!(session.groups_read(&one, 4, vec![], vec![]), [Effect::Fork(one), proof]);
    }

    #[test]
    fn greetings_that_do_not_fit_close_with_their_code() {
        let check = |peer: Hello, expected: CloseCode| {
            let (mut session, _) =
                Session::new(hello("ws1@london", 1, &[]), "srv@montreal".parse().unwrap(), vec![]);
            let effects = session.received(Control::Hello(peer));
            assert!(matches!(&effects[..], [Effect::Close { code, .. }] if *code == expected), "{effects:?}");
        };
        let good = hello("srv@montreal", 2, &[]);
        check(Hello { protocol_min: 7, protocol_max: 9, ..good.clone() }, CloseCode::Version);
        check(Hello { node: "other@montreal".parse().unwrap(), ..good.clone() }, CloseCode::Identity);
        check(Hello { studio: "else".parse().unwrap(), ..good }, CloseCode::Identity);
        for (instance, code) in [(1, CloseCode::SelfDial), (2, CloseCode::DuplicateNode)] {
            let (mut session, _) =
                Session::new(hello("ws1@london", 1, &[]), "ws1@london".parse().unwrap(), vec![]);
            let effects = session.received(Control::Hello(hello("ws1@london", instance, &[])));
            assert!(matches!(&effects[..], [Effect::Close { code: c, .. }] if *c == code));
        }
    }

    #[test]
    fn messages_before_the_greeting_or_a_second_one_close() {
        let (mut session, first) =
            Session::new(hello("ws1@london", 1, &["a"]), "srv@montreal".parse().unwrap(), vec![]);
        assert!(matches!(&first[..], [Effect::Send(Control::Hello(_))]));
        assert!(matches!(&session.received(heads("a", &[]))[..], [Effect::Close { .. }]));
        let mut session = ready(&[]);
        let again = Control::Hello(hello("srv@montreal", 2, &["a"]));
        assert!(matches!(&session.received(again)[..], [Effect::Close { .. }]));
    }
}
