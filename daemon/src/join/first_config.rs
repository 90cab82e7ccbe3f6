//! The first configuration of a node that joined: short, commented, and such that `avalond --check-config` takes it.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use avalon_protocol::id::{NodeId, ProjectName};
use thiserror::Error;

use crate::config::{Config, ConfigError};

/// Why there is no first configuration.
#[derive(Debug, Error)]
pub(super) enum FirstConfigError {
    /// There is one.
    #[error("{} exists already; name another file with --config, or move it away", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// A path cannot stand in the file.
    #[error("{} must be an absolute path of printable characters", path.display())]
    Path {
        /// The path.
        path: PathBuf,
    },
    /// A file or directory cannot be made.
    #[error("could not make {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was made is refused.
    #[error("the configuration that was made is refused; please report this")]
    Refused(#[source] ConfigError),
}

/// What goes into the file.
#[derive(Debug)]
pub(super) struct FirstConfig<'a> {
    pub(super) file: &'a Path,
    pub(super) state_dir: &'a Path,
    pub(super) socket: Option<&'a Path>,
    pub(super) root: &'a Path,
    pub(super) listen: Option<&'a str>,
}

impl FirstConfig<'_> {
    /// Checks, before anything else is done, that the file can be written as it is meant.
    pub(super) fn check_free(&self) -> Result<(), FirstConfigError> {
        for path in [self.file, self.state_dir, self.root].into_iter().chain(self.socket) {
            let plain = path.to_str().is_some_and(|text| !text.chars().any(char::is_control));
            if !plain || !path.is_absolute() {
                return Err(FirstConfigError::Path { path: path.to_owned() });
            }
        }
        if self.file.symlink_metadata().is_ok() {
            return Err(FirstConfigError::Exists { path: self.file.to_owned() });
        }
        Ok(())
    }

    /// Writes the file and makes the directories of the projects; a project whose directory is missing would be paused.
    pub(super) fn write(
        &self,
        node: &NodeId,
        projects: &[ProjectName],
        peers: &[String],
    ) -> Result<Config, FirstConfigError> {
        let text = self.text(node, projects, peers);
        let config = Config::parse(self.file, &text).map_err(FirstConfigError::Refused)?;
        for dir in projects.iter().map(|project| self.root.join(project.as_str())) {
            fs::create_dir_all(&dir).map_err(|source| FirstConfigError::Write { path: dir, source })?;
        }
        if let Some(parent) = self.file.parent() {
            fs::create_dir_all(parent)
                .map_err(|source| FirstConfigError::Write { path: parent.to_owned(), source })?;
        }
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => FirstConfigError::Exists { path: self.file.to_owned() },
            _ => FirstConfigError::Write { path: self.file.to_owned(), source },
        };
        let mut file = OpenOptions::new().write(true).create_new(true).open(self.file).map_err(failed)?;
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        Ok(config)
    }

    fn text(&self, node: &NodeId, projects: &[ProjectName], peers: &[String]) -> String {
        let quoted = |path: &Path| toml::Value::from(path.to_string_lossy().into_owned()).to_string();
        let mut text = format!(
            "# {node}, as it joined. docs/operations.md has every key; after a change: avalond --check-config, then reload.\n\
             [node]\nstate_dir = {}\n",
            quoted(self.state_dir)
        );
        if let Some(listen) = self.listen {
            text.push_str(&format!("listen = {}\n", toml::Value::from(listen)));
        }
        if let Some(socket) = self.socket {
            text.push_str(&format!("socket = {}\n", quoted(socket)));
        }
        for project in projects {
            text.push_str(&format!(
                "\n[[project]]\nname = \"{project}\"\nroot = {}\nmode = \"on-demand\" # or \"mirror\": every version comes by itself\n",
                quoted(self.root)
            ));
        }
        for peer in peers {
            text.push_str(&format!("\n[[peer]]\naddress = {}\n", toml::Value::from(peer.as_str())));
        }
        text
    }
}
