//! One node: its configuration, its process and its API.

use std::{
    fs::{self, File},
    os::unix::{
        fs::{PermissionsExt as _, lchown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc::channel,
    thread,
    time::{Duration, Instant},
};

use avalon_protocol::{control::HoldingState, exit_code::ExitCode};
use rustix::process::Signal;
use serde_json::Value;

use super::{
    PATIENCE, Programs,
    api::Api,
    config::NodeConfig,
    events::Events,
    process::{Log, Process},
};

/// How long a condition may go unlooked at when no event comes.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// A node. Dropping it kills its process; when the test fails, the end of its log is shown.
#[derive(Debug)]
pub struct Daemon {
    /// What is written to the configuration file at the next start.
    pub config: NodeConfig,
    programs: Programs,
    environment: Vec<(String, String)>,
    /// What is mounted for the process alone, as a line of shell.
    mounts: Option<String>,
    /// The device behind a file system that is mounted for it, as its standard input.
    device: Option<File>,
    /// Who it runs as, when that is not who runs the tests.
    user: Option<u32>,
    /// The network namespace that its process runs in.
    network: Option<String>,
    /// A program and its first arguments, which becomes the daemon.
    launcher: Vec<String>,
    process: Option<Process>,
    /// The logs of earlier processes.
    logs: Vec<Log>,
}

impl Daemon {
    pub fn new(programs: Programs, config: NodeConfig) -> Self {
        Self {
            config,
            programs,
            environment: Vec::new(),
            mounts: None,
            device: None,
            user: None,
            network: None,
            launcher: Vec::new(),
            process: None,
            logs: Vec::new(),
        }
    }

    /// Sets a variable of the process that starts next.
    pub fn set_env(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// Gives the process that starts next a mount namespace of its own, in which this line of shell runs first.
    /// [`may_mount`] says whether that is possible.
    pub fn set_mounts(&mut self, script: &str) {
        self.mounts = Some(script.to_owned());
    }

    /// Gives the process that starts next, and the shell before it, a file as standard input.
    pub fn set_device(&mut self, device: File) {
        self.device = Some(device);
    }

    /// Lets the processes that start from now on run as this user and the group of the same number, with no right to
    /// anything else, and gives the user all that belongs to the node. Only root can do that.
    pub fn set_user(&mut self, user: u32) {
        // The way to the executable may be closed to others.
        let avalond = self.config.dir.join("avalond");
        fs::copy(&self.programs.avalond, &avalond).unwrap();
        self.programs.avalond = avalond;
        self.user = Some(user);
        self.config.write();
        own_all(&self.config.dir, user);
        let studio = self.config.dir.parent().unwrap();
        fs::set_permissions(studio, fs::Permissions::from_mode(0o711)).unwrap();
    }

    /// Lets the process that starts next run in a network namespace, as those of a link emulator.
    pub fn set_network(&mut self, namespace: &str) {
        self.network = Some(namespace.to_owned());
    }

    /// Lets processes that start from now on begin as this program, with these arguments before the daemon's own, which
    /// becomes the daemon; none when it is empty. Not together with a mount or network namespace.
    pub fn set_launcher(&mut self, launcher: Vec<String>) {
        self.launcher = launcher;
    }

    /// Runs a line of shell in the mount namespace of the running process.
    pub fn in_its_mounts(&mut self, script: &str) -> Said {
        let pid = self.process().pid().to_string();
        run(Command::new("nsenter").args(["--target", &pid, "--mount", "sh", "-c", script]))
    }

    /// Returns a path as the running process sees it.
    pub fn seen_by_it(&mut self, path: &Path) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.process().pid()));
        root.join(path.strip_prefix("/").unwrap())
    }

    fn command(&self) -> Command {
        let mut command = match (&self.mounts, &self.network) {
            (None, None) => match self.launcher.as_slice() {
                [] => Command::new(&self.programs.avalond),
                [program, arguments @ ..] => {
                    let mut command = Command::new(program);
                    command.args(arguments).arg(&self.programs.avalond);
                    command
                }
            },
            (None, Some(namespace)) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(&self.programs.avalond);
                command
            }
            (Some(script), namespace) => {
                let inside =
                    namespace.as_ref().map(|name| format!("ip netns exec {name} ")).unwrap_or_default();
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-c", &format!("{script} && exec {inside}\"$0\" \"$@\"")]);
                command.arg(&self.programs.avalond);
                command
            }
        };
        if let Some(user) = self.user {
            command.uid(user).gid(user);
        }
        command.arg("--config").arg(self.config.file());
        for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "AVALOND_LOG", "AVALOND_LOG_FORMAT"] {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Writes the configuration and starts the daemon without waiting for anything.
    pub fn launch(&mut self) -> &mut Process {
        assert!(self.process.is_none(), "{} runs", self.config.node);
        self.config.write();
        let stdin = self.device.take().map_or_else(Stdio::null, Stdio::from);
        let process = Process::start_on(&mut self.command(), stdin);
        self.logs.push(process.log.clone());
        self.process.insert(process)
    }

    /// Starts the daemon and waits until it is ready. It keeps its port at the next start.
    pub fn start(&mut self) {
        let process = self.launch();
        if !process.log.wait_for("avalond::app: ready") {
            panic!("{} is not ready:\n{}", self.config.node, self.log());
        }
        self.config.listen = self.api().status().listen;
    }

    /// Starts the daemon, which must end by itself, and returns its exit code and all that it said.
    pub fn start_in_vain(&mut self) -> (i32, String) {
        let process = self.launch();
        let status = process.ended();
        let said = process.log.text();
        self.process = None;
        (status.code().unwrap_or(-1), said)
    }

    /// Checks the configuration, and returns the exit code and what was said.
    pub fn check_config(&self) -> (i32, String) {
        self.config.write();
        let mut process = Process::start(self.command().arg("--check-config"));
        let status = process.ended();
        (status.code().unwrap_or(-1), process.log.text())
    }

    /// Returns the running process.
    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("the daemon runs")
    }

    /// Kills the daemon with SIGKILL.
    pub fn kill9(&mut self) {
        self.process().kill();
        self.process = None;
    }

    /// Asks the daemon to stop and waits until it has.
    pub fn terminate(&mut self) -> ExitStatus {
        self.process().signal(Signal::TERM);
        let status = self.process().ended();
        self.process = None;
        status
    }

    /// Stops the daemon and starts it again.
    pub fn restart(&mut self) {
        let status = self.terminate();
        assert_eq!(status.code(), Some(0), "{}", self.log());
        self.start();
    }

    /// Returns its API.
    pub fn api(&self) -> Api {
        Api::new(&self.config.socket)
    }

    /// Follows all events of the running process.
    pub fn events(&self) -> Events {
        self.api().events(0)
    }

    /// Returns where it listens for peers.
    pub fn listen(&self) -> String {
        assert!(!self.config.listen.ends_with(":0"), "{} was never started", self.config.node);
        self.config.listen.clone()
    }

    /// Returns a path in the project.
    pub fn path(&self, inside: &str) -> PathBuf {
        self.config.project_dir().join(inside)
    }

    /// Returns the log of the current or last process.
    pub fn log(&self) -> String {
        self.logs.last().map(Log::text).unwrap_or_default()
    }

    /// Waits until `condition` finds something; it is looked at whenever an event comes.
    pub fn until<T>(&self, what: &str, condition: impl Fn(&Api) -> Option<T>) -> T {
        let (api, mut events) = (self.api(), self.api().events(u64::MAX));
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = condition(&api) {
                return found;
            }
            assert!(
                Instant::now() < deadline,
                "{} waited in vain until {what}; its status: {:#?}",
                self.config.node,
                api.status()
            );
            // The daemon cuts off who reads too slowly; one that has died does not answer any more.
            if events.has_ended() {
                events = api.events(u64::MAX);
            }
            events.next_within(LOOK_AGAIN);
            events.drain();
        }
    }

    /// Waits until a site has all of a version, as this node knows.
    pub fn until_complete_at(&self, reference: &str, node: &str) {
        self.until(&format!("{reference} is complete at {node}"), |api| {
            let item = api.locate_one(reference)?;
            let holding =
                item.nodes.iter().find(|holding| format!("{}@{}", holding.node, holding.site) == node)?;
            (holding.state == HoldingState::Complete).then_some(())
        });
    }

    /// Waits until a peer is connected.
    pub fn until_connected(&self, node: &str) {
        self.until(&format!("{node} is connected"), |api| {
            let peers = api.status().peers;
            let online = |peer: &avalon_protocol::control::PeerStatus| {
                format!("{}@{}", peer.node, peer.site) == node
                    && peer.state == avalon_protocol::control::PeerState::Online
            };
            peers.iter().any(online).then_some(())
        });
    }

    /// Runs `avalonctl` against this daemon.
    pub fn ctl(&self, args: &[&str]) -> Said {
        let mut command = Command::new(&self.programs.avalonctl);
        command.arg("--socket").arg(&self.config.socket).args(args);
        run(&mut command)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(60)..].join("\n");
            eprintln!("--- the end of the log of {}\n{tail}\n---", self.config.node);
        }
    }
}

/// Gives a directory and all in it to a user.
pub fn own_all(dir: &Path, user: u32) {
    for entry in walkdir::WalkDir::new(dir) {
        lchown(entry.unwrap().path(), Some(user), Some(user)).unwrap();
    }
}

/// Says whether this user is root; says so aloud when not.
pub fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        println!("SKIPPED: only root can start a daemon as another user");
    }
    is_root
}

/// Says whether this user may mount things for a process alone; says so aloud when not.
pub fn may_mount() -> bool {
    let tried = Command::new("unshare").args(["--mount", "true"]).stderr(Stdio::null()).status();
    let may = tried.is_ok_and(|status| status.success());
    if !may {
        println!("SKIPPED: this user may not mount, so there is no volume to try it on");
    }
    may
}

/// What a command said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    /// Data.
    pub stdout: String,
    /// Talk.
    pub stderr: String,
}

impl Said {
    /// Returns the last line of stdout as JSON.
    pub fn json(&self) -> Value {
        let last = self.stdout.lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    /// Checks the exit code.
    pub fn expect(self, code: ExitCode) -> Self {
        assert_eq!(self.code, i32::from(code.code()), "{self:#?}");
        self
    }

    /// Checks that it went well, and returns the last line of stdout as JSON.
    pub fn good(self) -> Value {
        self.expect(ExitCode::Ok).json()
    }
}

/// Runs a command to its end. Fails after twice [`PATIENCE`].
pub fn run(command: &mut Command) -> Said {
    for name in ["AVALONCTL_SOCKET", "AVALONCTL_PROJECT", "AVALON_PROJECT", "AVALON_ASSET", "NOTIFY_SOCKET"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let pid = rustix::process::Pid::from_child(&child);
    let (sender, receiver) = channel();
    thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
    let output = receiver.recv_timeout(PATIENCE * 2).unwrap_or_else(|_| {
        rustix::process::kill_process(pid, Signal::KILL).ok();
        panic!("{command:?} does not end: {:?}", receiver.recv())
    });
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}
