//! One simulated daemon: what it has on disk, what it has in memory, and how events reach its parts.
//!
//! `connect` keeps the connections and `talk` drives their sessions, `publish` finds what artists save, `manifests`,
//! `fetch` and `place` bring versions in, `serve` answers peers, `power` starts and stops it. Each corresponds to a stage of the daemon and calls the
//! same pure code.

mod connect;
mod fetch;
mod manifests;
mod place;
mod policy;
mod power;
mod publish;
mod serve;
mod talk;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use avalon_protocol::{
    backoff::Backoff,
    feed::FeedId,
    hash::{ContentId, ManifestId, ObjectHash},
    id::{NodeId, ProjectName, VersionId},
    manifest::Manifest,
    mode::ProjectMode,
    own_feed::{OwnFeeds, Writing},
    plan::{Decision, Wish},
    record::RawRecord,
    rel_path::RelPath,
};

use self::{fetch::Fetch, talk::Link};
use crate::{
    env::{Env, Who},
    event::{ConnectionId, Deed, NodeIndex, Note, StreamId, Wake},
    incoming::Incoming,
    ledger::Ledger,
    mutation::Mutation,
    scenario::NodePlan,
    toy_trust::ToySigner,
    tree::Tree,
};

/// A year in milliseconds.
const YEAR_MS: u64 = 365 * 24 * 3600 * 1000;

/// What survives a crash, except for what each part says that it loses.
#[derive(Debug, Default)]
pub struct Disk {
    /// Feeds and catalog.
    pub ledger: Ledger,
    /// Manifests; they are durable before a record names them.
    pub manifests: BTreeMap<ManifestId, Arc<Manifest>>,
    /// The artists' trees.
    pub tree: Tree,
    /// Objects on their way in.
    pub incoming: Incoming,
    /// Which generation was being placed file by file into the directory of a version, from before the first file moved until all
    /// are durable: the `place` file of its incoming area, which lies with the projects.
    pub placing: BTreeMap<VersionId, ManifestId>,
    /// Manifests of publishes that are written and not synced.
    pub unsynced_manifests: BTreeSet<ManifestId>,
    /// There is no room for anything.
    pub full: bool,
    /// The next fsync fails.
    pub bad_sync: bool,
}

/// What changed since the invariants were last checked.
#[derive(Debug, Default)]
pub struct Touched {
    /// Feeds that were synced further.
    pub feeds: BTreeSet<FeedId>,
    /// Versions whose directory or records changed.
    pub versions: BTreeSet<VersionId>,
    /// Incoming objects that were synced.
    pub objects: BTreeSet<(ProjectName, ObjectHash)>,
    /// Whether the node lost power or started.
    pub power: bool,
}

/// One daemon.
#[derive(Debug)]
pub struct SimNode {
    /// Its place and how often it started.
    pub who: Who,
    /// Its name.
    pub id: NodeId,
    /// What it serves.
    pub projects: BTreeMap<ProjectName, ProjectMode>,
    /// What is on its disk.
    pub disk: Disk,
    /// What changed.
    pub touched: Touched,
    /// Whether it serves wrong bytes now and then.
    pub liar: bool,
    life: Option<Life>,
    names: Arc<Vec<NodeId>>,
    dials: Vec<NodeIndex>,
    ahead_ms: i64,
    certificates: u32,
    backup: Option<Backup>,
    /// Whether the state was ever put back to a backup: the disk shows it at every start.
    restored: bool,
}

/// What the power took of an artist's file, and what is there now.
type LostFile = (VersionId, RelPath, Option<ObjectHash>);

/// A record that waits to be written.
#[derive(Debug)]
struct Waiting {
    record: RawRecord,
    /// What it was concluded from, if it is of a publish.
    concluded: Option<Concluded>,
}

/// A publish, as it was concluded from the catalog.
#[derive(Debug, Clone)]
struct Concluded {
    version: VersionId,
    manifest: ManifestId,
    /// How often own records had come back by then.
    came_back: u64,
}

/// What a backup has of a node: its state, and not the trees of its projects.
#[derive(Debug)]
struct Backup {
    ledger: Ledger,
    manifests: BTreeMap<ManifestId, Arc<Manifest>>,
}

/// What a crash takes.
#[derive(Debug)]
struct Life {
    instance: u64,
    /// Whether it may write its own feeds yet.
    own: OwnFeeds,
    links: BTreeMap<ConnectionId, Link>,
    dialling: BTreeSet<NodeIndex>,
    backoffs: BTreeMap<NodeIndex, Backoff>,
    fetches: BTreeMap<VersionId, Fetch>,
    wishes: BTreeSet<VersionId>,
    /// Records that wait for the next group.
    outbox: BTreeMap<ProjectName, Vec<Waiting>>,
    /// How often own records came back from peers.
    came_back: BTreeMap<ProjectName, u64>,
    /// Publishes between the hashing and the sync of their record.
    publishing: BTreeSet<(VersionId, ContentId)>,
    /// How often own records had come back when those were compared with the catalog.
    compared: BTreeMap<VersionId, u64>,
    /// Sources that failed for a version, and until when they are passed over.
    shunned: BTreeMap<(NodeIndex, VersionId), u64>,
    /// The same for manifests of a project.
    no_manifests: BTreeMap<(NodeIndex, ProjectName), u64>,
}

impl SimNode {
    /// Installs a node; it is off.
    pub fn new(index: NodeIndex, plan: &NodePlan, names: Arc<Vec<NodeId>>) -> Self {
        Self {
            who: Who { node: index, boot: 0 },
            id: plan.id.clone(),
            projects: plan.projects.clone(),
            disk: Disk::default(),
            touched: Touched::default(),
            liar: plan.liar,
            life: None,
            names,
            dials: plan.dials.clone(),
            ahead_ms: plan.ahead_ms,
            certificates: 1,
            backup: None,
            restored: false,
        }
    }

    /// Says whether it runs.
    pub fn is_up(&self) -> bool {
        self.life.is_some()
    }

    /// Returns the name of its feed about a project.
    pub fn own_feed(&self, project: &ProjectName) -> FeedId {
        FeedId { project: project.clone(), node: self.id.clone() }
    }

    /// Does what somebody here wants done.
    pub fn deed(&mut self, deed: Deed, env: &mut Env) {
        let done = self.is_up()
            && match deed {
                Deed::Publish { version, files } => self.save(&version, &files, env),
                Deed::Grow { version, file } => self.add(&version, &file, env),
                Deed::Pull { version } => self.pull(version, env),
                Deed::Apply { text } => self.apply_policy(text, env),
            };
        if !done {
            env.note(&Note::Skipped(self.who.node));
        }
    }

    /// Handles a timer.
    pub fn woken(&mut self, wake: Wake, env: &mut Env) {
        match wake {
            Wake::Dial(peer) => self.dial(peer, env),
            Wake::Commit(project) => self.commit(&project, env),
            Wake::FeedSynced { feed, groups, stored_for } => self.feed_synced(&feed, groups, stored_for, env),
            Wake::GroupsRead { connection, feed, from_seq } => {
                self.groups_read(connection, &feed, from_seq, env);
            }
            Wake::Stored { connection, feed, head } => self.stored(connection, &feed, head, env),
            Wake::Advanced { connection, feed, head } => self.advanced(connection, &feed, head, env),
            Wake::Settled(version) => self.settled(&version, env),
            Wake::ManifestSynced { version, manifest } => self.manifest_synced(&version, manifest, env),
            Wake::IncomingSynced { project, object } => self.incoming_synced(project, object, env),
            Wake::Gathered(version) => self.gathered(&version, env),
            Wake::PlaceNext(version) => self.place_next(&version, env),
            Wake::Sealed(version) => self.sealed(&version, env),
            Wake::Retry(version) => self.plan(&version, env),
            Wake::LookForManifests => self.ask_for_manifests(env),
        }
    }

    /// Takes bytes that arrived on a stream.
    pub fn arrived(
        &mut self,
        connection: ConnectionId,
        stream: StreamId,
        piece: &[u8],
        last: bool,
        env: &mut Env,
    ) {
        match stream {
            StreamId::Control => self.control_arrived(connection, piece, env),
            StreamId::Request(number) if self.asked_on(connection, number) => {
                self.answer_arrived(connection, number, piece, last, env);
            }
            StreamId::Request(number) => self.serve(connection, number, piece, env),
        }
    }

    /// Queues a record for the next group of this node's feed about its project.
    fn record(
        &mut self,
        project: &ProjectName,
        record: RawRecord,
        concluded: Option<Concluded>,
        env: &mut Env,
    ) {
        let Some(life) = self.life.as_mut() else { return };
        let waiting = life.outbox.entry(project.clone()).or_default();
        waiting.push(Waiting { record, concluded });
        if waiting.len() == 1 {
            let delay_ms = env.between(0..=10);
            env.wake(self.who, delay_ms, Wake::Commit(project.clone()));
        }
    }

    fn commit(&mut self, project: &ProjectName, env: &mut Env) {
        let feed = self.own_feed(project);
        let now = Duration::from_millis(env.now_ms);
        let Some(writing) = self.life.as_ref().map(|life| life.own.writing(project, now)) else { return };
        let waits = writing != Writing::Free && !env.is_wrong(Mutation::WritesAfterRestore);
        self.take_publishes_back(project, waits && writing == Writing::Refused, env);
        let Some(life) = self.life.as_mut().filter(|life| life.outbox.contains_key(project)) else { return };
        if waits || self.disk.full || self.disk.ledger.is_closed(&feed) {
            env.note(&if waits { Note::WriteWaits(self.who.node) } else { Note::NoRoom(self.who.node) });
            if self.disk.full && env.is_wrong(Mutation::ForgetsWithoutRoom) {
                life.outbox.remove(project);
            }
            env.wake(self.who, 500, Wake::Commit(project.clone()));
            return;
        }
        let Some(waiting) = life.outbox.remove(project) else { return };
        let records = waiting.into_iter().map(|waiting| waiting.record).collect();
        let signer = ToySigner::new(&self.id, self.certificates);
        let groups = self.disk.ledger.append(&feed, records, env.clock_ms(self.ahead_ms), &signer);
        self.own_advanced(&feed);
        if env.is_wrong(Mutation::AnnouncesBeforeSync) {
            let head = self.disk.ledger.written_head(&feed);
            let links = self.life.iter().flat_map(|life| life.links.keys().copied());
            links.collect::<Vec<_>>().into_iter().for_each(|id| self.advanced(id, &feed, head, env));
        }
        if env.is_wrong(Mutation::AcknowledgesBeforeSync) {
            self.acknowledge_all(env);
        }
        let delay_ms = env.sync_ms(15);
        env.wake(self.who, delay_ms, Wake::FeedSynced { feed, groups, stored_for: None });
    }

    /// Tells the rule of who may write how far an own feed goes.
    fn own_advanced(&mut self, feed: &FeedId) {
        let next_seq = self.disk.ledger.written_head(feed).next_seq;
        if let Some(life) = self.life.as_mut() {
            life.own.advanced(&feed.project, next_seq);
        }
    }

    /// Sets its clock.
    pub fn set_clock(&mut self, ahead_ms: i64, env: &mut Env) {
        if self.ahead_ms.abs_diff(ahead_ms) > YEAR_MS {
            env.note(&Note::ClockJumped(self.who.node));
        }
        self.ahead_ms = ahead_ms;
    }

    /// Decides about a version by what is known now; with the wish of anybody who pulled it.
    pub fn decide(&self, version: &VersionId) -> Decision {
        let wished = self.life.as_ref().is_some_and(|life| life.wishes.contains(version));
        let wish = if wished { Wish::Pulled } else { Wish::None };
        match self.projects.get(&version.project) {
            Some(mode) => self.disk.ledger.decide(version, &self.id, *mode, wish),
            None => Decision::Leave,
        }
    }

    /// Says what is still going on here, for the judgement at the end; not what `hopeless` says that cannot go on.
    pub fn unfinished(&self, hopeless: impl Fn(&VersionId, &ManifestId) -> bool) -> Vec<String> {
        let Some(life) = &self.life else { return vec![format!("{} is down", self.id)] };
        let fetches = life.fetches.iter().filter(|(version, fetch)| !hopeless(version, &fetch.manifest));
        let fetches = fetches.map(|(version, fetch)| format!("{} has {version} {fetch:?}", self.id));
        let outbox =
            life.outbox.keys().map(|project| format!("{} has records of {project} to write", self.id));
        let publishing =
            life.publishing.iter().map(|(version, _)| format!("{} publishes {version}", self.id));
        let links = life.links.values();
        let behind = links.flat_map(|link| {
            link.behind(self.projects.keys(), &self.disk.ledger).map(|project| (link.peer, project))
        });
        let behind = behind.map(|(peer, project)| format!("{}: node {peer} lacks {project}", self.id));
        let manifests =
            self.projects.keys().filter(|project| self.missing_manifests(project).next().is_some());
        let manifests = manifests.map(|project| format!("{} lacks manifests of {project}", self.id));
        fetches.chain(manifests).chain(outbox).chain(publishing).chain(behind).collect()
    }
}
