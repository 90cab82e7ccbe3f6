//! One daemon of the demo: its directories, its configuration and its process.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use avalon_protocol::{
    control::{ListReply, StatusReply, route},
    id::ProjectName,
    mode::ProjectMode,
};
use rustix::process::{Pid, Signal, kill_process};
use serde::de::DeserializeOwned;
use tokio::{
    process::{Child, Command},
    time::timeout,
};

use super::{DemoError, show::failed};
use crate::client::Client;

/// How long a daemon may take to stop before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(5);

/// How much of a log is shown when a daemon ends by itself.
const LOG_TAIL_LINES: usize = 12;

/// The longest path that a socket may have, `sun_path` of Linux without the closing zero.
const MAX_SOCKET_BYTES: usize = 107;

/// A node and, while it runs, its process. Dropping it kills the process.
#[derive(Debug)]
pub(super) struct Node {
    /// The name of the node and of its site.
    pub(super) name: &'static str,
    /// Whether versions come by themselves.
    pub(super) mode: ProjectMode,
    /// The daemon's API.
    pub(super) client: Client,
    dir: PathBuf,
    project: ProjectName,
    process: Option<Child>,
}

impl Node {
    /// Makes the directories of a node.
    pub(super) fn create(
        name: &'static str,
        mode: ProjectMode,
        studio_dir: &Path,
        project: &ProjectName,
    ) -> Result<Self, DemoError> {
        let dir = studio_dir.join(name);
        let socket = dir.join("api.sock");
        if socket.as_os_str().len() > MAX_SOCKET_BYTES {
            return Err(DemoError::LongPath { path: socket });
        }
        let client = Client::new(socket);
        let node = Self { name, mode, client, dir, project: project.clone(), process: None };
        for path in [node.state_dir(), node.project_dir(), node.stage_dir()] {
            fs::create_dir_all(&path).map_err(|source| failed("make", &path, source))?;
        }
        Ok(node)
    }

    /// Returns where the daemon keeps its state.
    pub(super) fn state_dir(&self) -> PathBuf {
        self.dir.join("state")
    }

    /// Returns the directory of the project.
    pub(super) fn project_dir(&self) -> PathBuf {
        self.root().join(self.project.as_str())
    }

    /// Returns a directory on the same file system, outside the project.
    pub(super) fn stage_dir(&self) -> PathBuf {
        self.dir.join("stage")
    }

    fn root(&self) -> PathBuf {
        self.dir.join("projects")
    }

    fn log(&self) -> PathBuf {
        self.dir.join("avalond.log")
    }

    /// Writes the configuration and starts the daemon; it dials `peers`.
    pub(super) fn start(&mut self, avalond: &Path, peers: &[String]) -> Result<(), DemoError> {
        let config = self.dir.join("avalond.toml");
        let written =
            File::create(&config).and_then(|mut file| file.write_all(self.config(peers).as_bytes()));
        written.map_err(|source| failed("write", &config, source))?;
        let log = self.log();
        let open = || File::options().create(true).append(true).open(&log);
        let (stdout, stderr) = match (open(), open()) {
            (Ok(stdout), Ok(stderr)) => (stdout, stderr),
            (Err(source), _) | (_, Err(source)) => return Err(failed("write", &log, source)),
        };
        let mut command = Command::new(avalond);
        command.arg("--config").arg(&config).stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        // The user's own settings for a daemon are not for these.
        for (name, _) in std::env::vars_os() {
            let is_for_daemons = name.as_encoded_bytes().starts_with(b"AVALOND");
            if is_for_daemons || name == "NOTIFY_SOCKET" || name == "WATCHDOG_USEC" {
                command.env_remove(name);
            }
        }
        // A group of its own: Ctrl-C is for the demo, which then stops the daemon.
        let child = command.process_group(0).kill_on_drop(true).spawn();
        self.process =
            Some(child.map_err(|source| DemoError::Start { avalond: avalond.to_owned(), source })?);
        Ok(())
    }

    fn config(&self, peers: &[String]) -> String {
        let mut text = format!(
            "[node]\nstate_dir = {}\nlisten = \"127.0.0.1:0\"\nsocket = {}\nshutdown_timeout = \"3s\"\n\n\
             [[project]]\nname = {}\nroot = {}\nmode = \"{}\"\n\n[settle]\nquiet = \"300ms\"\n",
            toml_string(&self.state_dir()),
            toml_string(self.client.socket()),
            toml_string(Path::new(self.project.as_str())),
            toml_string(&self.root()),
            self.mode,
        );
        for peer in peers {
            text.push_str(&format!("\n[[peer]]\naddress = \"{peer}\"\n"));
        }
        text
    }

    /// Fails when the daemon has ended by itself.
    pub(super) fn check_alive(&mut self) -> Result<(), DemoError> {
        let Some(process) = &mut self.process else { return Ok(()) };
        let status = match process.try_wait() {
            Ok(None) => return Ok(()),
            Ok(Some(status)) => status.to_string(),
            Err(error) => error.to_string(),
        };
        self.process = None;
        Err(DemoError::Died { node: self.name, status, log_tail: self.log_tail() })
    }

    /// Kills the daemon with SIGKILL and waits until it is gone.
    pub(super) async fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It fails only for a process that has ended, which is what is wanted.
            process.kill().await.ok();
        }
    }

    /// Asks the daemon to stop.
    pub(super) fn terminate(&self) {
        let pid = self.process.as_ref().and_then(Child::id).and_then(|id| i32::try_from(id).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            // It has ended already when this fails.
            kill_process(pid, Signal::TERM).ok();
        }
    }

    /// Waits until the daemon has stopped, and kills it when it takes too long.
    pub(super) async fn stopped(&mut self) {
        if let Some(process) = &mut self.process
            && timeout(STOP_LIMIT, process.wait()).await.is_err()
        {
            self.kill().await;
        }
        self.process = None;
    }

    /// Asks the daemon something.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, Option<&str>)],
    ) -> Result<T, DemoError> {
        let answer = self.client.get(path, query).await;
        answer.map_err(|source| DemoError::Api { node: self.name, source })
    }

    /// Asks how the daemon is.
    pub(super) async fn status(&self) -> Result<StatusReply, DemoError> {
        self.get(route::STATUS, &[]).await
    }

    /// Asks for every version of the project.
    pub(super) async fn versions(&self) -> Result<ListReply, DemoError> {
        self.get(route::VERSIONS, &[("project", Some(self.project.as_str()))]).await
    }

    fn log_tail(&self) -> String {
        let text = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(LOG_TAIL_LINES)..).unwrap_or_default();
        if tail.is_empty() { "it is empty".to_owned() } else { tail.join(" | ") }
    }
}

/// Writes a path as a TOML string; what JSON escapes, TOML escapes the same way.
fn toml_string(path: &Path) -> String {
    serde_json::Value::from(path.to_string_lossy()).to_string()
}
