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
mod tests;
