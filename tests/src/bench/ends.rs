//! Where the programs under measurement run: all on loopback, or at the ends of an emulated link.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::netem::{Emulator, Topology};

/// The end that has the data.
pub const NEAR: &str = "near";
/// The end that fetches it.
pub const FAR: &str = "far";

/// The counters of a link are that old at most; what is under way counts as well.
const COUNTERS_SETTLE: Duration = Duration::from_millis(120);

/// The places of one benchmark.
#[derive(Debug)]
pub struct Ends {
    link: Option<Emulator>,
}

impl Ends {
    /// All on this machine's loopback.
    pub fn loopback() -> Self {
        Self { link: None }
    }

    /// At the leaves of an emulated link.
    pub fn over(topology: &Topology) -> Self {
        Self { link: Some(Emulator::start(topology).expect("may_emulate was asked")) }
    }

    /// Returns a command that runs at an end.
    pub fn command(&self, end: &str, program: impl AsRef<Path>) -> Command {
        match &self.link {
            Some(link) => link.command(end, program),
            None => Command::new(program.as_ref()),
        }
    }

    /// Returns a command for a server at an end, which ends with this process however that ends, where the system can.
    pub fn server(&self, end: &str, program: impl AsRef<Path>) -> Command {
        let wanted = self.command(end, program);
        let Ok(true) =
            Command::new("setpriv").arg("--version").output().map(|output| output.status.success())
        else {
            return wanted;
        };
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]).arg(wanted.get_program()).args(wanted.get_args());
        command
    }

    /// Returns the network namespace of an end.
    pub fn namespace(&self, end: &str) -> Option<&str> {
        self.link.as_ref().map(|link| link.namespace(end))
    }

    /// Returns the address of an end.
    pub fn address(&self, end: &str) -> Ipv4Addr {
        self.link.as_ref().map_or(Ipv4Addr::LOCALHOST, |link| link.address(end))
    }

    /// Returns a TCP port that was free a moment ago.
    pub fn free_port(&self, end: &str) -> u16 {
        let address = (self.address(end), 0);
        let bind = || TcpListener::bind(address).and_then(|listener| listener.local_addr()).expect("a port");
        let bound = match &self.link {
            Some(link) => link.within(end, bind).expect("the namespace is there"),
            None => bind(),
        };
        bound.port()
    }

    /// Returns the bytes of IP packets that these ends have put on the wire; nothing on loopback, which others use too.
    pub fn wire_bytes(&self, ends: &[&str]) -> Option<u64> {
        let link = self.link.as_ref()?;
        thread::sleep(COUNTERS_SETTLE);
        Some(ends.iter().map(|end| link.counters(end).0.offered_bytes).sum())
    }
}

/// Runs a command to its end and returns how long it took; nothing when it failed or took longer than `limit`.
pub fn timed(command: &mut Command, limit: Duration) -> Option<Duration> {
    command.stdin(Stdio::null()).stdout(Stdio::null());
    for name in ["AVALONCTL_SOCKET", "AVALONCTL_PROJECT", "AVALON_PROJECT", "AVALON_ASSET", "NOTIFY_SOCKET"] {
        command.env_remove(name);
    }
    let start = Instant::now();
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            let time = start.elapsed();
            if !status.success() {
                eprintln!("{command:?} failed: {status}");
            }
            return status.success().then_some(time);
        }
        if start.elapsed() > limit {
            eprintln!("{command:?} did not end within {limit:?}; it is left out");
            child.kill().and_then(|()| child.wait()).ok();
            return None;
        }
        thread::sleep(Duration::from_micros(500));
    }
}

/// Looks again and again until `condition` holds; says no after `limit`.
pub fn until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    while !condition() {
        if start.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(2));
    }
    true
}

/// Says whether a program is installed.
pub fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Servers lie where only root looks.
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = dirs.into_iter().any(|dir| dir.join(program).is_file());
    if !found {
        println!("{program} is not installed: that baseline is left out");
    }
    found
}

/// Writes all that was written before to the disk, so that nobody pays for another's bytes.
pub fn settle_disk() {
    rustix::fs::sync();
}

/// Removes a directory if it is there.
pub fn remove(dir: &Path) {
    fs::remove_dir_all(dir).ok();
}
