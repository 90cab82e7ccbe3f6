//! The configuration file of a node.

use std::{
    fs,
    path::{Path, PathBuf},
};

use avalon_protocol::mode::ProjectMode;

use super::PROJECT;

/// What goes into the configuration file.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// The node, as `srv@london`.
    pub node: String,
    /// The directory of all that belongs to it.
    pub dir: PathBuf,
    /// Its project.
    pub project: String,
    /// Whether versions come by themselves.
    pub mode: ProjectMode,
    /// Where it listens for peers.
    pub listen: String,
    /// The socket of its API.
    pub socket: PathBuf,
    /// Where it keeps its state.
    pub state_dir: PathBuf,
    /// Avalon's root.
    pub root: PathBuf,
    /// Whom it dials.
    pub peers: Vec<String>,
    /// How long a version is quiet before it counts as whole.
    pub quiet: String,
    /// How often the project is scanned.
    pub scan_interval: String,
    /// Lines that are put at the end of the section `[scan]`.
    pub scan_extra: String,
    /// Lines that are put at the end of the section `[settle]`.
    pub settle_extra: String,
    /// A template other than Avalon's own.
    pub template: Option<String>,
    /// Lines that are put at the end of the section `[node]`.
    pub extra: String,
    /// Lines that are put at the end of the first `[[project]]`.
    pub project_extra: String,
    /// Other projects, with the same root and mode.
    pub more_projects: Vec<String>,
}

impl NodeConfig {
    /// Makes the configuration of a node that has `dir` to itself.
    pub fn new(node: &str, dir: &Path, mode: ProjectMode) -> Self {
        Self {
            node: node.to_owned(),
            dir: dir.to_owned(),
            project: PROJECT.into(),
            mode,
            listen: "127.0.0.1:0".into(),
            socket: dir.join("api.sock"),
            state_dir: dir.join("state"),
            root: dir.join("root"),
            peers: Vec::new(),
            quiet: "300ms".into(),
            scan_interval: "1h".into(),
            scan_extra: String::new(),
            settle_extra: String::new(),
            template: None,
            extra: String::new(),
            project_extra: String::new(),
            more_projects: Vec::new(),
        }
    }

    /// Returns the project's directory.
    pub fn project_dir(&self) -> PathBuf {
        self.root.join(&self.project)
    }

    /// Returns the directory of key and certificates.
    pub fn identity_dir(&self) -> PathBuf {
        self.state_dir.join("identity")
    }

    /// Returns the configuration file.
    pub fn file(&self) -> PathBuf {
        self.dir.join("avalond.toml")
    }

    /// Returns the text of the file.
    pub fn text(&self) -> String {
        let Self { listen, quiet, scan_interval, extra, mode, project, scan_extra, settle_extra, .. } = self;
        let (state_dir, socket, root) =
            (self.state_dir.display(), self.socket.display(), self.root.display());
        let mut text = format!(
            "[node]\nstate_dir = \"{state_dir}\"\nlisten = \"{listen}\"\nsocket = \"{socket}\"\n\
             shutdown_timeout = \"15s\"\n{extra}\n[settle]\nquiet = \"{quiet}\"\n{settle_extra}[scan]\ninterval = \
             \"{scan_interval}\"\n{scan_extra}[log]\nlevel = \"avalond=debug\"\n[[project]]\nname = \"{project}\"\nroot = \
             \"{root}\"\nmode = \"{mode}\"\n"
        );
        if let Some(template) = &self.template {
            text.push_str(&format!("template = \"{template}\"\n"));
        }
        text.push_str(&self.project_extra);
        for name in &self.more_projects {
            text.push_str(&format!("[[project]]\nname = \"{name}\"\nroot = \"{root}\"\nmode = \"{mode}\"\n"));
        }
        for peer in &self.peers {
            text.push_str(&format!("[[peer]]\naddress = \"{peer}\"\n"));
        }
        text
    }

    /// Writes the file.
    pub fn write(&self) {
        fs::create_dir_all(&self.dir).unwrap();
        fs::write(self.file(), self.text()).unwrap();
    }
}
