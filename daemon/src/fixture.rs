//! Small nodes for tests of the daemon's parts: a real ledger in a temporary directory, a clock that the test moves, and
//! peers whose records come without a network.

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use avalon_certs::{Authority, Identity, IssueRequest};
use avalon_protocol::{
    access::Role,
    feed::{FeedId, SealedGroup},
    hash::ObjectHash,
    id::{ProjectName, VersionId, VersionSlot},
    manifest::{Completeness, FileEntry, Manifest, ManifestDraft, Representation},
    mode::ProjectMode,
    record::{Held, Record},
    template::{DEFAULT_PUBLISH, Template, TemplateSet},
    wire::{Hello, PROTOCOL_MAX, PROTOCOL_MIN, ServedProject},
};
use avalon_store::{
    fs::WriteMode,
    ledger::{CatalogCare, Ledger, LedgerConfig, LedgerEvent},
    object::{hash::Hasher, serve::BlockCache},
    state_dir::StateDir,
};
use tempfile::TempDir;
use tokio::sync::{broadcast, mpsc};

pub(crate) use crate::publish::record::published;
use crate::{
    access::PeerRights,
    audit::Audit,
    buffers::Buffers,
    clock::{Clock, ManualClock},
    config::{ProjectConfig, SpaceConfig},
    core::Core,
    events::EventBus,
    health::HealthBoard,
    knowledge::Knowledge,
    limits::Limits,
    net::{Net, NetConfig, NetEvent, Throttle},
    numbers::Numbers,
    own_feeds::OwnWriting,
    policy::{KeptExtract, StudioPolicy},
    project::Project,
    replicate::jobs::Orders,
    replicate::{announce::LedgerCatalog, serve::TreeObjects},
    space::Space,
    tasks::Tasks,
};

/// A studio with its certificate authority.
pub(crate) struct Studio {
    pub(crate) dir: TempDir,
    pub(crate) authority: Authority,
    pub(crate) clock: ManualClock,
}

/// A node of it, with one project. Its ledger closes with the last clone of its core.
pub(crate) struct Node {
    pub(crate) core: Arc<Core>,
    pub(crate) clock: ManualClock,
    pub(crate) identity: Arc<Identity>,
    /// The project's directory.
    pub(crate) dir: PathBuf,
    _state: StateDir,
}

/// Keeps threads waiting until it opens.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    is_open: Mutex<bool>,
    opened: Condvar,
}

impl Gate {
    fn wait(&self) {
        let shut = self.is_open.lock().unwrap();
        drop(self.opened.wait_while(shut, |is_open| !*is_open).unwrap());
    }

    pub(crate) fn open(&self) {
        *self.is_open.lock().unwrap() = true;
        self.opened.notify_all();
    }
}

pub(crate) fn project() -> ProjectName {
    "lantern".parse().unwrap()
}

pub(crate) fn version(number: u32) -> VersionId {
    VersionId {
        project: project(),
        asset: "robot".parse().unwrap(),
        subset: "modelDefault".parse().unwrap(),
        slot: VersionSlot::Number(number),
    }
}

/// The first generation of a version with one file, where Avalon's own template puts it.
pub(crate) fn draft(number: u32, content: &[u8]) -> ManifestDraft {
    let path = "modelDefault.abc".parse().unwrap();
    let file = FileEntry {
        path,
        size: content.len() as u64,
        hash: ObjectHash::of(content),
        mtime_ns: 1_000_000_000,
        representation: 0,
    };
    ManifestDraft {
        version: version(number),
        silo: Some("assets".parse().unwrap()),
        generation: 1,
        predecessor: None,
        dir: format!("assets/robot/publish/modelDefault/v{number:03}").parse().unwrap(),
        representations: vec![Representation { name: "abc".parse().unwrap(), entry: file.path.clone() }],
        files: vec![file],
        completeness: Completeness::Explicit,
        author: "anna".into(),
        comment: String::new(),
        published_at_ms: 1_795_000_000_000,
        inputs: Vec::new(),
        metadata: BTreeMap::new(),
    }
}

pub(crate) fn manifest(number: u32, content: &[u8]) -> Manifest {
    draft(number, content).finish().unwrap()
}

impl Studio {
    pub(crate) fn new() -> Self {
        let (dir, clock) = (tempfile::tempdir().unwrap(), ManualClock::new());
        let studio = "northlight".parse().unwrap();
        let authority = Authority::create(&studio, &dir.path().join("ca"), clock.now()).unwrap();
        Self { dir, authority, clock }
    }

    /// Where all of it lies, the CA in `ca`.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Makes a node such as `srv@london`. All nodes of a studio have one clock.
    pub(crate) fn node(&self, name: &str, mode: ProjectMode) -> Node {
        self.node_as(name, Role::Admin, mode)
    }

    /// Makes a node whose certificate has this role.
    pub(crate) fn node_as(&self, name: &str, role: Role, mode: ProjectMode) -> Node {
        let (at, clock) = (self.dir.path().join(name), self.clock.clone());
        std::fs::create_dir_all(at.join("root").join(project().as_str())).unwrap();
        self.authority
            .issue_into(&IssueRequest::new(name.parse().unwrap(), role), &at.join("identity"), clock.now())
            .unwrap();
        self.open(name, mode, CatalogCare::default(), Arc::new(drop))
    }

    /// Restarts a node. It serves every project that has a directory by then.
    pub(crate) fn reopen(&self, node: Node) -> Node {
        let (name, mode) = (node.core.me.to_string(), node.project().mode());
        drop(node);
        self.open(&name, mode, CatalogCare::default(), Arc::new(drop))
    }

    /// Restarts a node whose state somebody deleted; what lies in its projects is there.
    pub(crate) fn without_state(&self, node: Node) -> Node {
        let (name, mode) = (node.core.me.to_string(), node.project().mode());
        drop(node);
        std::fs::remove_dir_all(self.dir.path().join(&name).join("state")).unwrap();
        self.open(&name, mode, CatalogCare::default(), Arc::new(drop))
    }

    /// Gives a node a new certificate under its name, and restarts it.
    pub(crate) fn reissue(&self, node: Node) -> Node {
        let (name, role) = (node.core.me.clone(), node.core.role);
        let at = self.dir.path().join(name.to_string()).join("identity");
        std::fs::remove_dir_all(&at).unwrap();
        self.authority.issue_into(&IssueRequest::new(name, role), &at, self.clock.now()).unwrap();
        self.reopen(node)
    }

    /// Restarts a node whose catalog somebody deleted, and which builds it only when the gate opens.
    pub(crate) fn without_catalog(&self, node: Node) -> (Node, Arc<Gate>) {
        let (name, mode) = (node.core.me.to_string(), node.project().mode());
        drop(node);
        std::fs::remove_dir_all(self.dir.path().join(&name).join("state/catalog")).unwrap();
        let gate = Arc::new(Gate::default());
        let at_gate = Arc::clone(&gate);
        let care = CatalogCare { build_at_open_records: 0, ..CatalogCare::default() };
        let on_change = move |event| {
            if matches!(event, LedgerEvent::Rebuilding { .. }) {
                at_gate.wait();
            }
        };
        (self.open(&name, mode, care, Arc::new(on_change)), gate)
    }

    fn open(
        &self,
        name: &str,
        mode: ProjectMode,
        care: CatalogCare,
        on_change: Arc<dyn Fn(LedgerEvent) + Send + Sync>,
    ) -> Node {
        let (at, clock) = (self.dir.path().join(name), self.clock.clone());
        let dir = at.join("root").join(project().as_str());
        let identity = Arc::new(Identity::load(&at.join("identity"), clock.now()).unwrap());
        let dirs = std::fs::read_dir(at.join("root")).unwrap();
        let projects = dirs.map(|entry| {
            Arc::new(Project::new(&ProjectConfig {
                name: entry.unwrap().file_name().to_str().unwrap().parse().unwrap(),
                root: at.join("root"),
                templates: Arc::new(
                    TemplateSet::new(vec![Template::parse(DEFAULT_PUBLISH).unwrap()]).unwrap(),
                ),
                template_texts: Vec::new(),
                mode,
                partial: true,
                network: crate::config::NetworkMode::default(),
                space: SpaceConfig::default(),
            }))
        });
        let projects: Vec<Arc<Project>> = projects.collect();
        let state = StateDir::open(&at.join("state")).unwrap();
        let kept = KeptExtract::read(&state.root);
        let config = LedgerConfig {
            me: identity.node().clone(),
            signer: identity.signer(),
            trust: Arc::new(identity.trust()),
            projects: projects.iter().map(|project| (project.name().clone(), project.dir())).collect(),
            on_change,
            now: Arc::new(Duration::default),
            extract: kept.for_ledger(),
            max_feed_bytes: u64::MAX,
            care,
        };
        let (ledger, _) = Ledger::open(&state, config).unwrap();
        let events = EventBus::new(Arc::new(clock.clone()));
        let health = HealthBoard::new(events.clone());
        let throttle = Arc::new(Throttle::new(identity.node().clone(), Arc::new(clock.clone())));
        let policy = StudioPolicy::open(&ledger, &health);
        policy.open_extract(kept, &health);
        let core = Arc::new(Core {
            me: identity.node().clone(),
            role: identity.role(),
            studio: identity.studio().clone(),
            policy,
            own: OwnWriting::free(identity.node(), &ledger, &health, Arc::new(clock.clone())),
            ledger,
            hasher: Hasher::new(NonZeroUsize::MIN).unwrap(),
            blocks: BlockCache::open(&state.root).unwrap(),
            revocations: Default::default(),
            knowledge: Knowledge::open(
                &state.root,
                identity.role(),
                Default::default(),
                &health,
                &(Arc::new(clock.clone()) as Arc<dyn Clock>),
            ),
            projects: projects.into_iter().map(|project| (project.name().clone(), project)).collect(),
            limits: Limits::open(&state.root, throttle, &[], &health),
            orders: Orders::open(&state.root, &health),
            space: Space::open(&state.root, &health),
            numbers: Numbers::open(&state.root, &health),
            transfers: crate::transfers::TransferLog::new(&state.root),
            audit: Audit::open(&state.audit, name, None, Arc::new(clock.clone()), &health).unwrap(),
            health,
            damaged: crate::scrub::FoundDamaged::unkept(),
            deltas: Arc::default(),
            buffers: Buffers::default(),
            events,
            clock: Arc::new(clock.clone()),
        });
        Node { core, clock, identity, dir, _state: state }
    }
}

impl Node {
    pub(crate) fn project(&self) -> &Arc<Project> {
        self.core.project(&project()).unwrap()
    }

    /// Records a fact.
    pub(crate) fn says(&self, record: Record) {
        self.core.ledger.commit_wait(&project(), vec![record], Vec::new(), 0).unwrap();
    }

    /// Publishes; the manifest is kept, the files are not needed.
    pub(crate) fn publishes(&self, manifest: &Manifest) {
        self.core.ledger.put_manifest(manifest).unwrap();
        self.says(Record::Published(published(manifest)));
    }

    /// Puts the one file of a version into the tree, with this content.
    pub(crate) fn writes(&self, manifest: &Manifest, content: &[u8]) {
        let path = manifest.dir().join(&manifest.files()[0].path).unwrap();
        let dir = self.project().dir().unwrap();
        dir.create_dirs(manifest.dir()).unwrap();
        dir.write_atomic(&path, content, WriteMode::Replace).unwrap();
    }

    /// Says that it holds a version now.
    pub(crate) fn places(&self, manifest: &Manifest) {
        let held = Held { version: manifest.version().clone(), manifest: manifest.id() };
        self.says(Record::Placed(held));
    }

    /// Starts its network side on loopback, which dials these addresses. The events are to be kept, or connections wait.
    pub(crate) fn net(&self, tasks: &Tasks, peers: &[String]) -> (Net, mpsc::Receiver<NetEvent>) {
        let (advanced, _) = broadcast::channel(64);
        let (events, received) = mpsc::channel(64);
        let core = &self.core;
        let served = ServedProject { name: project(), mode: self.project().mode() };
        let config = NetConfig {
            admission: Default::default(),
            permissions: PeerRights::new(core),
            issuer: None,
            listen: "127.0.0.1:0".parse().unwrap(),
            peers: peers.to_vec(),
            hello: Hello {
                protocol_min: PROTOCOL_MIN,
                protocol_max: PROTOCOL_MAX,
                features: 0,
                build: "test".into(),
                studio: core.studio.clone(),
                node: core.me.clone(),
                instance: 1,
                projects: vec![served],
            },
            identity: Arc::clone(&self.identity),
            throttle: Arc::clone(core.limits.throttle()),
        };
        let (catalog, objects) = (LedgerCatalog(Arc::clone(core)), TreeObjects(Arc::clone(core)));
        let clock = Arc::new(self.clock.clone());
        let net =
            Net::start(config, Arc::new(catalog), Arc::new(objects), advanced, events, tasks, clock).unwrap();
        (net, received)
    }

    /// Takes all records of another node, without manifests.
    pub(crate) fn hears(&self, other: &Self) {
        self.hears_of(other, &project());
    }

    /// Takes all that another node says about a project, or the studio.
    pub(crate) fn hears_of(&self, other: &Self, project: &ProjectName) {
        self.takes(other, FeedId { project: project.clone(), node: other.core.me.clone() });
    }

    /// Takes its own records back, as far as another node has them.
    pub(crate) fn takes_back(&self, other: &Self) {
        self.takes(other, FeedId { project: project(), node: self.core.me.clone() });
    }

    fn takes(&self, other: &Self, feed: FeedId) {
        let mut groups: Vec<SealedGroup> = Vec::new();
        loop {
            let next = groups.last().and_then(SealedGroup::claimed_end).unwrap_or(0);
            let more = other.core.ledger.read_groups(&feed, next, 1 << 20).unwrap();
            if more.is_empty() {
                break;
            }
            groups.extend(more);
        }
        self.core.ledger.ingest_wait(feed, groups, Vec::new()).unwrap();
    }
}
