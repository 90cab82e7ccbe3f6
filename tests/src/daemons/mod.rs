//! Real daemons in a temporary directory: a studio with its authority, nodes with processes of their own, and ways to wait
//! for what they do.
//!
//! Nothing here sleeps. A test waits for a line of a daemon's log, for an event of its API, or for a condition that is
//! looked at whenever an event comes; each wait has a deadline that only a test that fails ever reaches.

#![expect(clippy::disallowed_methods, reason = "real processes live in real time")]

pub mod api;
pub mod config;
pub mod daemon;
pub mod events;
pub mod fuse;
pub mod process;
pub mod raw;
pub mod tree;
pub mod visibility;

use std::{
    cell::Cell,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use avalon_certs::{
    Authority, CertificateRequest, IssueRequest, IssuingAuthority, NODE_VALIDITY, NodeKey, install,
};
use avalon_protocol::access::Role;
use avalon_protocol::mode::ProjectMode;
use tempfile::TempDir;

use self::{config::NodeConfig, daemon::Daemon};

/// Far more than anything takes, even on a machine that is busy with other tests.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The project of every test.
pub const PROJECT: &str = "lantern";

/// The executables under test.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The daemon.
    pub avalond: PathBuf,
    /// The command line.
    pub avalonctl: PathBuf,
}

/// Runs the daemon or the command line when this program was started by one of their names.
pub fn by_name() -> Option<ExitCode> {
    let name = std::env::args().next()?;
    match name.rsplit('/').next() {
        Some("avalond") => Some(avalond::command::main()),
        Some("avalonctl") => Some(ExitCode::from(avalonctl::app::main().code())),
        _ => None,
    }
}

/// A studio. Its daemons must be dropped before it; they are, when they are declared after it.
#[derive(Debug)]
pub struct Studio {
    programs: Programs,
    authority: Authority,
    nodes: Cell<usize>,
    dir: TempDir,
}

impl Studio {
    /// Makes the studio's authority in a new temporary directory with a short name.
    pub fn new(programs: Programs) -> Self {
        Self::named(programs, "northlight")
    }

    /// Makes another studio.
    pub fn named(programs: Programs, name: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("av").rand_bytes(5).tempdir().unwrap();
        let authority = Authority::create(&name.parse().unwrap(), &dir.path().join("ca"), now()).unwrap();
        Self { programs, authority, nodes: Cell::new(0), dir }
    }

    /// Makes a studio with a copy of an authority that is there already.
    pub fn with_authority(programs: Programs, authority: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("av").rand_bytes(5).tempdir().unwrap();
        tree::copy_private(authority, &dir.path().join("ca"));
        let authority = Authority::open(&dir.path().join("ca")).unwrap();
        Self { programs, authority, nodes: Cell::new(0), dir }
    }

    /// Returns the executables.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Returns the temporary directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Issues an identity that is valid from `at`.
    pub fn issue(&self, node: &str, out: &Path, at: SystemTime) {
        self.authority.issue_into(&IssueRequest::new(node.parse().unwrap(), Role::Admin), out, at).unwrap();
    }

    /// Issues an identity with a role.
    pub fn issue_as(&self, node: &str, role: Role, out: &Path) {
        self.authority.issue_into(&IssueRequest::new(node.parse().unwrap(), role), out, now()).unwrap();
    }

    /// Lets a node issue for the studio.
    pub fn delegate(&self, node: &str, out: &Path) {
        self.authority.delegate_into(&node.parse().unwrap(), NODE_VALIDITY, out, now()).unwrap();
    }

    /// Issues an identity to a workstation by what an issuing node has in `issuing`.
    pub fn issue_by(&self, issuer: &str, issuing: &Path, node: &str, out: &Path) {
        self.issue_by_for(issuer, issuing, node, out, NODE_VALIDITY);
    }

    /// As [`Studio::issue_by`], for a certificate that is valid for so long.
    pub fn issue_by_for(&self, issuer: &str, issuing: &Path, node: &str, out: &Path, validity: Duration) {
        let issuer_of = IssuingAuthority::open(issuing).unwrap();
        let issuer_of = issuer_of.unwrap_or_else(|| panic!("{issuer} issues"));
        let (key, id) = (NodeKey::generate().unwrap(), node.parse().unwrap());
        let request = CertificateRequest::parse(key.request(&id).unwrap().der()).unwrap();
        let wanted = IssueRequest { validity, ..IssueRequest::new(id, Role::Workstation) };
        let issued = issuer_of.sign(&request, &wanted, now()).unwrap();
        install(out, &key, &issued.chain, issuer_of.authority().der().clone(), now()).unwrap();
    }

    /// Returns the directory of the studio's authority.
    pub fn authority_dir(&self) -> PathBuf {
        self.dir.path().join("ca")
    }

    /// Makes an admin's node that is not started, with the directories that it needs and an identity.
    pub fn node(&self, node: &str, mode: ProjectMode) -> Daemon {
        self.node_as(node, Role::Admin, mode)
    }

    /// As [`Studio::node`], with another role.
    pub fn node_as(&self, node: &str, role: Role, mode: ProjectMode) -> Daemon {
        let number = self.nodes.replace(self.nodes.get() + 1);
        let dir = self.dir.path().join(format!("n{number}"));
        let config = NodeConfig::new(node, &dir, mode);
        std::fs::create_dir_all(config.project_dir()).unwrap();
        self.issue_as(node, role, &config.identity_dir());
        Daemon::new(self.programs.clone(), config)
    }

    /// Starts a node where versions come only when somebody pulls them.
    pub fn on_demand(&self, node: &str, peers: &[&Daemon]) -> Daemon {
        self.started(node, ProjectMode::OnDemand, peers)
    }

    /// Starts a node that fetches everything.
    pub fn mirror(&self, node: &str, peers: &[&Daemon]) -> Daemon {
        self.started(node, ProjectMode::Mirror, peers)
    }

    fn started(&self, node: &str, mode: ProjectMode, peers: &[&Daemon]) -> Daemon {
        let mut daemon = self.node(node, mode);
        daemon.config.peers = peers.iter().map(|peer| peer.listen()).collect();
        daemon.start();
        daemon
    }
}

/// Returns the time of day.
pub fn now() -> SystemTime {
    SystemTime::now()
}
