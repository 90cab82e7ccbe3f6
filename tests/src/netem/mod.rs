//! A link emulator: network namespaces, a TUN device in each, and a thread that forwards between them as slowly and lossily as
//! asked for. Any program runs at its ends, kernel TCP included. It needs root.
//!
//! ```text
//! leaf "london"  --up-->  +-----------+  --down-->  leaf "montreal"
//!                <-down-- | forwarder |  <--up--
//!                         +-----------+  (any number of leaves: a star, routed by address)
//! ```
//!
//! A packet passes the sender's [`Leaf::up`] and then the receiver's [`Leaf::down`]; a plain link shapes only `up` of both. The
//! pure queue is [`mod@line`]; what became of the packets is in [`Counters`]. A namespace's name holds the number of its process. It
//! is removed on drop, and what a killed process left is removed by the next [`Emulator::start`].

#![expect(clippy::disallowed_methods, reason = "real packets travel in real time")]

pub mod command;
mod forward;
pub mod line;
mod namespace;

use std::{
    io,
    net::Ipv4Addr,
    path::Path,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

pub use self::line::{Counters, Pipe};
use self::{
    forward::{Forwarder, Port, Shared, SharedLeaf},
    line::Line,
    namespace::Namespace,
};

/// Numbers the namespaces of this process.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// One end.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// What the owner calls it.
    pub name: String,
    /// From it to the middle.
    pub up: Pipe,
    /// From the middle to it.
    pub down: Pipe,
}

/// Which ends there are.
#[derive(Debug, Clone)]
pub struct Topology {
    /// At most 250.
    pub leaves: Vec<Leaf>,
    /// Losses are drawn from it.
    pub seed: u64,
}

impl Topology {
    /// Makes a link between `near` and `far` that is `pipe` each way.
    pub fn link(near: &str, far: &str, pipe: Pipe) -> Self {
        let leaf = |name: &str| Leaf { name: name.to_owned(), up: pipe, down: Pipe::OPEN };
        Self { leaves: vec![leaf(near), leaf(far)], seed: 1 }
    }

    /// Adds a leaf.
    pub fn with(mut self, name: &str, up: Pipe, down: Pipe) -> Self {
        self.leaves.push(Leaf { name: name.to_owned(), up, down });
        self
    }
}

/// Links that exist until this is dropped.
#[derive(Debug)]
pub struct Emulator {
    leaves: Vec<(String, Namespace)>,
    shared: Arc<Shared>,
    forwarder: Option<JoinHandle<()>>,
}

/// Says whether this process may emulate links; says aloud why not.
pub fn may_emulate() -> bool {
    let why_not = if !rustix::process::geteuid().is_root() {
        "it needs root"
    } else if !Path::new("/dev/net/tun").exists() {
        "there is no /dev/net/tun"
    } else if Command::new("ip").arg("-V").output().is_err() {
        "there is no program ip (package iproute2)"
    } else {
        return true;
    };
    println!("SKIPPED: links cannot be emulated: {why_not}");
    false
}

impl Emulator {
    /// Makes the namespaces and begins to forward. The first leaf is 10.77.0.1, the next 10.77.0.2, and so on.
    ///
    /// # Errors
    /// What the operating system said: without root or `/dev/net/tun` it says no.
    pub fn start(topology: &Topology) -> io::Result<Self> {
        namespace::sweep();
        let (mut leaves, mut ports) = (Vec::new(), Vec::new());
        for (index, leaf) in (1_u8..=250).zip(&topology.leaves) {
            let address = Ipv4Addr::new(10, 77, 0, index);
            let (namespace, device) = Namespace::create(NEXT.fetch_add(1, Ordering::Relaxed), address)?;
            leaves.push((leaf.name.clone(), namespace));
            let seed = topology.seed.wrapping_mul(1000) + u64::from(index) * 2;
            let (up, down) = (Line::new(leaf.up, seed), Line::new(leaf.down, seed + 1));
            ports.push(Port { device, address, up, down });
        }
        let shared = Arc::new(Shared::default());
        shared.leaves.lock().expect("nobody else has it").resize(leaves.len(), SharedLeaf::default());
        let forwarder = Forwarder::new(ports, Arc::clone(&shared));
        let forwarder = std::thread::Builder::new().name("netem".into()).spawn(move || forwarder.run())?;
        Ok(Self { leaves, shared, forwarder: Some(forwarder) })
    }

    fn index(&self, leaf: &str) -> usize {
        let found = self.leaves.iter().position(|(name, _)| name == leaf);
        found.unwrap_or_else(|| panic!("there is no leaf {leaf}"))
    }

    fn leaf(&self, leaf: &str) -> &Namespace {
        &self.leaves[self.index(leaf)].1
    }

    /// Returns a leaf's namespace, for `ip netns exec`.
    pub fn namespace(&self, leaf: &str) -> &str {
        &self.leaf(leaf).name
    }

    /// Returns a leaf's address.
    pub fn address(&self, leaf: &str) -> Ipv4Addr {
        self.leaf(leaf).address
    }

    /// Returns a command that runs `program` at a leaf.
    pub fn command(&self, leaf: &str, program: impl AsRef<Path>) -> Command {
        self.leaf(leaf).command(program.as_ref())
    }

    /// Runs `work` in a thread at a leaf: sockets that it opens stay there, whoever uses them later.
    ///
    /// # Errors
    /// When the thread cannot enter the namespace.
    pub fn within<T: Send>(&self, leaf: &str, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        self.leaf(leaf).within(work)
    }

    /// Changes a leaf's link while it runs, for packets that are sent after this returns; a loss of 1 cuts it. It takes up to
    /// 50 ms.
    pub fn change(&self, leaf: &str, up: Pipe, down: Pipe) {
        let index = self.index(leaf);
        let change = |wanted: Option<(Pipe, Pipe)>| {
            let mut leaves = self.shared.leaves.lock().expect("no panic holds it");
            leaves[index].change = wanted.or(leaves[index].change);
            leaves[index].change.is_some()
        };
        let mut is_waiting = change(Some((up, down)));
        // The forwarder looks whenever it wakes; a packet before that would go the old way.
        while is_waiting && self.forwarder.as_ref().is_some_and(|forwarder| !forwarder.is_finished()) {
            std::thread::sleep(Duration::from_micros(500));
            is_waiting = change(None);
        }
    }

    /// Returns what became of a leaf's packets: up, and down. At most 50 ms old.
    pub fn counters(&self, leaf: &str) -> (Counters, Counters) {
        let index = self.index(leaf);
        self.shared.leaves.lock().expect("no panic holds it")[index].counters
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(forwarder) = self.forwarder.take() {
            forwarder.join().ok();
        }
        // The namespaces go with their fields; the devices went with the thread.
    }
}

/// Makes the topology of the benchmarks: two ends, alike both ways.
pub fn wan(mbit: u64, rtt_ms: u64, loss: f64) -> Topology {
    Topology::link("near", "far", Pipe::alike(mbit, Duration::from_millis(rtt_ms), loss))
}
