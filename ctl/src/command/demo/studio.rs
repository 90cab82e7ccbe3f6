//! The demo's studio: its authority and three nodes, in a temporary directory.

use std::path::{Path, PathBuf};

use avalon_certs::{Authority, IssueRequest};
use avalon_protocol::{
    access::Role,
    id::{NodeId, StudioName},
    mode::ProjectMode,
};
use tempfile::TempDir;

use super::{
    DemoError,
    node::Node,
    show::{Show, failed},
};
use crate::{command::ca::now, environment::Environment};

/// Three sites with a daemon each. Dropping it kills the daemons, then removes the directory.
#[derive(Debug)]
pub(super) struct Studio {
    /// Where artists publish.
    pub(super) london: Node,
    /// Mirrors everything.
    pub(super) montreal: Node,
    /// Pulls what it needs.
    pub(super) home: Node,
    avalond: PathBuf,
    show: Show,
    // The last field: dropped when the daemons are dead.
    dir: TempDir,
}

impl Studio {
    /// Makes the directories and reads or generates the show; nothing runs yet.
    pub(super) fn create(environment: &Environment, source: Option<&Path>) -> Result<Self, DemoError> {
        let avalond = find_avalond(environment)?;
        // A short name: the paths of sockets are short.
        let dir = tempfile::Builder::new().prefix("avalon-").tempdir();
        let dir = dir.map_err(|error| failed("make a directory in", &std::env::temp_dir(), error))?;
        let show = match source {
            Some(source) => Show::read(source)?,
            None => Show::generate(&dir.path().join("show"))?,
        };
        let node = |name, mode| Node::create(name, mode, dir.path(), &show.project);
        Ok(Self {
            london: node("london", ProjectMode::OnDemand)?,
            montreal: node("montreal", ProjectMode::Mirror)?,
            home: node("home", ProjectMode::OnDemand)?,
            avalond,
            show,
            dir,
        })
    }

    /// Returns the show.
    pub(super) fn show(&self) -> &Show {
        &self.show
    }

    /// Returns the temporary directory.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Makes the authority, issues to every node, and returns the authority's fingerprint.
    pub(super) fn issue(&self) -> Result<String, DemoError> {
        #[expect(clippy::expect_used, reason = "\"demo\" is a DNS label")]
        let studio: StudioName = "demo".parse().expect("\"demo\" is a DNS label");
        let authority = Authority::create(&studio, &self.dir.path().join("ca"), now())
            .map_err(DemoError::Certificates)?;
        for node in [&self.london, &self.montreal, &self.home] {
            #[expect(clippy::expect_used, reason = "the nodes' names are DNS labels")]
            let id: NodeId = format!("{0}@{0}", node.name).parse().expect("the nodes' names are DNS labels");
            let identity = node.state_dir().join("identity");
            authority
                .issue_into(&IssueRequest::new(id, Role::Admin), &identity, now())
                .map_err(DemoError::Certificates)?;
        }
        Ok(authority.fingerprint())
    }

    /// Starts london, which dials nobody.
    pub(super) fn start_london(&mut self) -> Result<(), DemoError> {
        self.london.start(&self.avalond, &[])
    }

    /// Starts the nodes that dial london.
    pub(super) fn start_others(&mut self, london: &str) -> Result<(), DemoError> {
        self.start_montreal(london)?;
        self.home.start(&self.avalond, &[london.to_owned()])
    }

    /// Starts montreal, again if need be.
    pub(super) fn start_montreal(&mut self, london: &str) -> Result<(), DemoError> {
        self.montreal.start(&self.avalond, &[london.to_owned()])
    }

    /// Fails when a daemon has ended by itself.
    pub(super) fn check_alive(&mut self) -> Result<(), DemoError> {
        self.nodes().into_iter().try_for_each(Node::check_alive)
    }

    /// Stops all daemons, politely first.
    pub(super) async fn stop(&mut self) {
        let mut nodes = self.nodes();
        nodes.iter().for_each(|node| node.terminate());
        for node in &mut nodes {
            node.stopped().await;
        }
    }

    /// Leaves the directory when this is dropped, and returns it.
    pub(super) fn keep(&mut self) -> PathBuf {
        self.dir.disable_cleanup(true);
        self.dir.path().to_owned()
    }

    /// Returns commands that a newcomer may want to try.
    pub(super) fn suggestions(&self) -> Vec<String> {
        let project = &self.show.project;
        let on = |node: &Node, command: &str| {
            format!("avalonctl --socket {} --project {project} {command}", node.client.socket().display())
        };
        let newest = self.show.versions.last();
        let reference =
            newest.map_or_else(String::new, |version| format!("{}/{}", version.id.asset, version.id.subset));
        vec![
            on(&self.london, "status"),
            on(&self.home, "ls --all"),
            on(&self.home, &format!("pull {reference}")),
            on(&self.home, &format!("where {reference}")),
            on(&self.montreal, "log --follow"),
            format!("ls -R {}", self.home.project_dir().display()),
        ]
    }

    fn nodes(&mut self) -> [&mut Node; 3] {
        [&mut self.london, &mut self.montreal, &mut self.home]
    }
}

/// Finds the daemon: where `AVALOND` says, beside this program, in `PATH`.
pub(crate) fn find_avalond(environment: &Environment) -> Result<PathBuf, DemoError> {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("avalonctl"));
    let beside = program.with_file_name("avalond");
    let named = environment.var("AVALOND").map(PathBuf::from);
    let in_path = environment.var("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(in_path).map(|dir| dir.join("avalond"));
    let mut candidates = named.into_iter().chain([beside]).chain(in_path);
    candidates.find(|candidate| candidate.is_file()).ok_or(DemoError::NoDaemon { beside: program })
}
