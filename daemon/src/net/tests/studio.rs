//! A studio with its CA, and nodes of it.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use avalon_certs::{
    Authority, CertificateRequest, Identity, IssueRequest, IssuingAuthority, NODE_VALIDITY, NodeKey, install,
};
use avalon_protocol::{
    access::Role,
    control::{PeerState, PeerStatus},
    feed::FeedId,
    id::{NodeId, ProjectName},
    mode::ProjectMode,
    wire::{Hello, PROTOCOL_MAX, PROTOCOL_MIN, ServedProject},
};
use tempfile::TempDir;
use tokio::{runtime::Handle, sync::mpsc};

use super::toy::{ToyCatalog, ToyObjects, ToyRights};
use crate::{
    clock::{Clock, RealClock},
    net::{Net, NetConfig, NetEvent, PeerLink, Throttle},
    tasks::Tasks,
};

/// Far more than anything here takes; only a test that fails waits for it.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits for something that must happen soon.
pub(super) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(PATIENCE, future).await;
    waited.unwrap_or_else(|_| panic!("waited too long for {what}"))
}

pub(super) fn node_id(name: &str) -> NodeId {
    name.parse().unwrap()
}

pub(super) fn project(name: &str) -> ProjectName {
    name.parse().unwrap()
}

pub(super) fn feed(project: &str, node: &str) -> FeedId {
    FeedId { project: project.parse().unwrap(), node: node.parse().unwrap() }
}

pub(super) fn hello(node: &str, instance: u64, projects: &[&str]) -> Hello {
    let project = |name: &&str| ServedProject { name: name.parse().unwrap(), mode: ProjectMode::OnDemand };
    Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        features: 0,
        build: "test".into(),
        studio: "northlight".parse().unwrap(),
        node: node_id(node),
        instance,
        projects: projects.iter().map(project).collect(),
    }
}

pub(super) struct Studio {
    dir: TempDir,
    authority: Authority,
}

impl Studio {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let now = RealClock::new().now();
        let authority =
            Authority::create(&"northlight".parse().unwrap(), &dir.path().join("ca"), now).unwrap();
        Self { dir, authority }
    }

    /// Issues an identity; the same name again gets another key.
    pub(super) fn identity(&self, node: &str) -> Arc<Identity> {
        let out: PathBuf = self.dir.path().join(node);
        let now = RealClock::new().now();
        self.authority.issue_into(&IssueRequest::new(node_id(node), Role::Admin), &out, now).unwrap();
        Arc::new(Identity::load(&out, now).unwrap())
    }

    /// Makes an identity that an issuing node certified.
    pub(super) fn delegated_identity(&self, issuer: &str, node: &str) -> Identity {
        let now = RealClock::new().now();
        let [issuing, out] = [issuer, node].map(|name| self.dir.path().join(format!("delegated-{name}")));
        self.authority.delegate_into(&node_id(issuer), NODE_VALIDITY, &issuing, now).unwrap();
        let issuer = IssuingAuthority::open(&issuing).unwrap().unwrap();
        let key = NodeKey::generate().unwrap();
        let request = CertificateRequest::parse(key.request(&node_id(node)).unwrap().der()).unwrap();
        let what = IssueRequest::new(node_id(node), Role::Workstation);
        let issued = issuer.sign(&request, &what, now).unwrap();
        install(&out, &key, &issued.chain, issuer.authority().der().clone(), now).unwrap();
        Identity::load(&out, now).unwrap()
    }

    pub(super) fn node(&self, node: &str) -> Setup {
        Setup {
            hello: hello(node, 1, &["lantern"]),
            identity: self.identity(node),
            listen: "127.0.0.1:0".parse().unwrap(),
            peers: Vec::new(),
            catalog: ToyCatalog::new(64),
            objects: Arc::default(),
            rights: Arc::default(),
            clock: Arc::new(RealClock::new()),
        }
    }
}

/// A node that is not started yet.
#[derive(Clone)]
pub(super) struct Setup {
    pub(super) hello: Hello,
    pub(super) identity: Arc<Identity>,
    pub(super) listen: SocketAddr,
    pub(super) peers: Vec<String>,
    pub(super) catalog: Arc<ToyCatalog>,
    pub(super) objects: Arc<ToyObjects>,
    pub(super) rights: Arc<ToyRights>,
    pub(super) clock: Arc<dyn Clock>,
}

impl Setup {
    pub(super) fn dialling(mut self, peers: &[&Node]) -> Self {
        self.peers = peers.iter().map(|peer| peer.address()).collect();
        self
    }

    pub(super) fn instance(mut self, instance: u64) -> Self {
        self.hello.instance = instance;
        self
    }

    pub(super) fn start(&self) -> Node {
        self.start_on(&Handle::current())
    }

    /// Starts it on a runtime, whose end is a crash of the node.
    pub(super) fn start_on(&self, runtime: &Handle) -> Node {
        let _entered = runtime.enter();
        let (events_out, events) = mpsc::channel(64);
        let tasks = Tasks::new();
        let config = NetConfig {
            admission: Default::default(),
            permissions: self.rights.clone(),
            issuer: None,
            listen: self.listen,
            peers: self.peers.clone(),
            hello: self.hello.clone(),
            identity: Arc::clone(&self.identity),
            throttle: Arc::new(Throttle::new(self.hello.node.clone(), Arc::clone(&self.clock))),
        };
        let (catalog, objects) = (self.catalog.clone(), self.objects.clone());
        let (advanced, clock) = (self.catalog.advanced(), Arc::clone(&self.clock));
        let net = Net::start(config, catalog, objects, advanced, events_out, &tasks, clock).unwrap();
        Node { net, events, tasks, setup: self.clone() }
    }
}

pub(super) struct Node {
    pub(super) net: Net,
    pub(super) events: mpsc::Receiver<NetEvent>,
    pub(super) tasks: Tasks,
    pub(super) setup: Setup,
}

impl Node {
    pub(super) fn catalog(&self) -> &ToyCatalog {
        &self.setup.catalog
    }

    pub(super) fn address(&self) -> String {
        self.net.local_addr().to_string()
    }

    /// Takes events until one is what `wanted` looks for.
    pub(super) async fn event<T>(&mut self, what: &str, wanted: impl Fn(NetEvent) -> Option<T>) -> T {
        let waiting = async {
            loop {
                let event = self.events.recv().await.expect("the network side lives");
                if let Some(found) = wanted(event) {
                    return found;
                }
            }
        };
        within(what, waiting).await
    }

    pub(super) async fn peer_up(&mut self, node: &str) -> PeerLink {
        let wanted = node_id(node);
        self.event(&format!("{node} up"), |event| match event {
            NetEvent::PeerUp { hello, link } if hello.node == wanted => Some(link),
            _ => None,
        })
        .await
    }

    pub(super) async fn peer_down(&mut self, node: &str) -> String {
        let wanted = node_id(node);
        self.event(&format!("{node} down"), |event| match event {
            NetEvent::PeerDown { node, reason } if node == wanted => Some(reason),
            _ => None,
        })
        .await
    }

    /// Waits until what is known about peers is as `condition` says.
    pub(super) async fn until(&self, what: &str, condition: impl Fn() -> bool) {
        let mut changed = self.net.context.registry.subscribe();
        let waiting = async {
            while !condition() {
                changed.changed().await.unwrap();
            }
        };
        within(what, waiting).await;
    }

    pub(super) fn status(&self, address: &str) -> PeerStatus {
        let found = self.net.peers().into_iter().find(|peer| peer.address == address);
        found.unwrap_or_else(|| panic!("{address} in {:?}", self.net.peers()))
    }

    pub(super) fn online(&self) -> Vec<String> {
        let online = self.net.peers().into_iter().filter(|peer| peer.state == PeerState::Online);
        online.map(|peer| peer.node).collect()
    }

    pub(super) async fn shutdown(&self) {
        let hung = within("shutdown", self.net.shutdown(Duration::from_secs(10))).await;
        assert!(hung.is_empty(), "{hung:?}");
        assert!(self.tasks.running().is_empty());
    }
}
