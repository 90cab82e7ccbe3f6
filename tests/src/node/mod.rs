//! One simulated daemon: what it has on disk, what it has in memory, and how events reach its parts.
//!
//! `connect` keeps the connections and `talk` drives their sessions, `publish` finds what artists save, `manifests`,
//! `fetch` and `place` bring versions in, `serve` answers peers. Each corresponds to a stage of the daemon and calls the
//! same pure code.

mod connect;
mod fetch;
mod manifests;
mod place;
mod policy;
mod publish;
mod serve;
mod talk;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use avalon_protocol::{
    backoff::Backoff,
    feed::FeedId,
    hash::{ContentId, ManifestId, ObjectHash},
    id::{NodeId, ProjectName, VersionId},
    manifest::Manifest,
    mode::ProjectMode,
    plan::{Decision, Wish},
    record::RawRecord,
};
use rand::Rng as _;

use self::{fetch::Fetch, talk::Link};
use crate::{
    env::{Env, Who},
    event::{ConnectionId, Deed, NodeIndex, Note, StreamId, Wake},
    incoming::Incoming,
    ledger::{CatalogAtStart, Ledger},
    scenario::NodePlan,
    toy_trust::ToySigner,
    tree::Tree,
};

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
    ahead_ms: u64,
    certificates: u32,
}

/// What a crash takes.
#[derive(Debug)]
struct Life {
    instance: u64,
    links: BTreeMap<ConnectionId, Link>,
    dialling: BTreeSet<NodeIndex>,
    backoffs: BTreeMap<NodeIndex, Backoff>,
    fetches: BTreeMap<VersionId, Fetch>,
    wishes: BTreeSet<VersionId>,
    /// Records that wait for the next group.
    outbox: BTreeMap<ProjectName, Vec<RawRecord>>,
    /// Publishes between the hashing and the sync of their record.
    publishing: BTreeSet<(VersionId, ContentId)>,
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

    /// Starts it: feeds are read, the catalog is brought up to date, every directory without a record is looked at.
    pub fn start(&mut self, env: &mut Env) {
        if self.is_up() {
            return;
        }
        self.who.boot += 1;
        self.touched.power = true;
        let catalog = if env.chance(50) { CatalogAtStart::Kept } else { CatalogAtStart::Lost };
        self.disk.ledger.reopen(catalog);
        self.certificates += u32::from(env.chance(10));
        self.life = Some(Life {
            instance: env.dice.random(),
            links: BTreeMap::new(),
            dialling: BTreeSet::new(),
            backoffs: BTreeMap::new(),
            fetches: BTreeMap::new(),
            wishes: BTreeSet::new(),
            outbox: BTreeMap::new(),
            publishing: BTreeSet::new(),
            shunned: BTreeMap::new(),
            no_manifests: BTreeMap::new(),
        });
        for peer in self.dials.clone() {
            let delay_ms = env.between(0..=500);
            env.wake(self.who, delay_ms, Wake::Dial(peer));
        }
        for version in self.disk.tree.dirs().keys() {
            let delay_ms = env.between(100..=1500);
            env.wake(self.who, delay_ms, Wake::Settled(version.clone()));
        }
        self.drop_placed_parts();
        self.note_resumed(env);
        self.plan_all(env);
    }

    /// Takes the power away: memory goes, and on disk what was not synced may go.
    pub fn crash(&mut self, env: &mut Env) {
        if self.life.take().is_none() {
            return;
        }
        self.touched.power = true;
        let dice = &mut env.dice;
        let mut survive = |unsynced: usize| dice.random_range(0..=unsynced);
        let lost = self.disk.ledger.crash(&mut survive);
        let interrupted = self.disk.tree.crash(&mut survive);
        self.disk.incoming.crash();
        if lost {
            env.note(&Note::LostTail(self.who.node));
        }
        for version in interrupted {
            self.touched.versions.insert(version.clone());
            env.note(&Note::CrashedWhilePlacing(self.who.node, version));
        }
        env.cut_all(self.who.node);
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
            Wake::IncomingSynced { project, object } => {
                self.disk.incoming.sync(&project, object);
                self.touched.objects.insert((project, object));
            }
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
    fn record(&mut self, project: &ProjectName, record: RawRecord, env: &mut Env) {
        let Some(life) = self.life.as_mut() else { return };
        let waiting = life.outbox.entry(project.clone()).or_default();
        waiting.push(record);
        if waiting.len() == 1 {
            let delay_ms = env.between(0..=10);
            env.wake(self.who, delay_ms, Wake::Commit(project.clone()));
        }
    }

    fn commit(&mut self, project: &ProjectName, env: &mut Env) {
        let Some(records) = self.life.as_mut().and_then(|life| life.outbox.remove(project)) else { return };
        let feed = self.own_feed(project);
        let signer = ToySigner::new(&self.id, self.certificates);
        let groups = self.disk.ledger.append(&feed, records, env.now_ms + self.ahead_ms, &signer);
        let delay_ms = env.sync_ms(15);
        env.wake(self.who, delay_ms, Wake::FeedSynced { feed, groups, stored_for: None });
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
