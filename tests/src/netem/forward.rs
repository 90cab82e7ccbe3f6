//! The thread that carries packets between the devices.

use std::{
    io,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use tun_rs::SyncDevice;

use super::{
    line::{Counters, Line, Pipe},
    namespace::MTU,
};

/// While packets flow the thread looks this often instead of once for each packet: far below any delay that matters.
const TICK: Duration = Duration::from_micros(80);
/// How long it waits when nothing flows before it looks whether it shall end.
const LOOK_UP: Duration = Duration::from_millis(50);
/// Packets that are read from one device before the others have their turn.
const BATCH: usize = 256;

/// What the thread shares with its owner.
#[derive(Debug, Default)]
pub(super) struct Shared {
    pub(super) stop: AtomicBool,
    /// For each leaf: changes that were asked for, and the counters, up and down.
    pub(super) leaves: Mutex<Vec<SharedLeaf>>,
}

/// What is shared about one leaf; the first of each pair is up, the second down.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct SharedLeaf {
    pub(super) change: Option<(Pipe, Pipe)>,
    pub(super) counters: (Counters, Counters),
}

/// One end, as the forwarder sees it.
pub(super) struct Port {
    pub(super) device: SyncDevice,
    pub(super) address: Ipv4Addr,
    pub(super) up: Line,
    pub(super) down: Line,
}

/// Carries packets until it is told to stop.
pub(super) struct Forwarder {
    pub(super) ports: Vec<Port>,
    pub(super) shared: Arc<Shared>,
    spare: Vec<Vec<u8>>,
    start: Instant,
}

impl Forwarder {
    pub(super) fn new(ports: Vec<Port>, shared: Arc<Shared>) -> Self {
        Self { ports, shared, spare: Vec::new(), start: Instant::now() }
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    pub(super) fn run(mut self) {
        prefer_this_thread();
        let mut looked_at = self.now();
        while !self.shared.stop.load(Ordering::Relaxed) {
            // Packets that are there now came since the last look; a full line loses nothing by a late look.
            let mut moved = self.read(looked_at);
            looked_at = self.now();
            moved |= self.deliver(looked_at);
            self.talk();
            if moved {
                thread::sleep(TICK);
            } else {
                self.wait();
                looked_at = self.now();
            }
        }
    }

    fn read(&mut self, arrived: u64) -> bool {
        let mut moved = false;
        for port in &mut self.ports {
            for _ in 0..BATCH {
                let mut packet = self.spare.pop().unwrap_or_default();
                packet.resize(usize::from(MTU), 0);
                match rustix::io::read(&port.device, &mut *packet) {
                    Ok(length) => {
                        moved = true;
                        packet.truncate(length);
                        self.spare.extend(port.up.offer(arrived, packet));
                    }
                    Err(_) => {
                        self.spare.push(packet);
                        break;
                    }
                }
            }
        }
        moved
    }

    fn deliver(&mut self, now: u64) -> bool {
        let mut moved = false;
        for from in 0..self.ports.len() {
            while let Some((at, packet)) = self.ports[from].up.take(now) {
                moved = true;
                let to = destination(&packet);
                let port = self.ports.iter_mut().find(|port| Some(port.address) == to);
                let dropped = match port {
                    Some(port) => port.down.offer(at, packet),
                    None => Some(packet),
                };
                self.spare.extend(dropped);
            }
        }
        for port in &mut self.ports {
            while let Some((_, packet)) = port.down.take(now) {
                moved = true;
                // A device whose end has gone takes nothing; to the other end that is loss.
                rustix::io::write(&port.device, &packet).ok();
                self.spare.push(packet);
            }
        }
        moved
    }

    /// Takes changes, and tells the counters.
    fn talk(&mut self) {
        let Ok(mut leaves) = self.shared.leaves.try_lock() else { return };
        for (port, shared) in self.ports.iter_mut().zip(leaves.iter_mut()) {
            if let Some((up, down)) = shared.change.take() {
                port.up.change(up);
                port.down.change(down);
            }
            shared.counters = (port.up.counters(), port.down.counters());
        }
    }

    /// Waits for a packet, or until one has arrived.
    fn wait(&self) {
        let next = self.ports.iter().flat_map(|port| [port.up.next(), port.down.next()]).flatten().min();
        let left = next.map_or(LOOK_UP, |next| Duration::from_nanos(next.saturating_sub(self.now())));
        let left = left.min(LOOK_UP);
        let timeout = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut fds: Vec<PollFd<'_>> =
            self.ports.iter().map(|port| PollFd::new(&port.device, PollFlags::IN)).collect();
        match poll(&mut fds, Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => {
                eprintln!("the link emulator cannot wait: {}", io::Error::from(error));
                thread::sleep(LOOK_UP);
            }
        }
    }
}

fn destination(packet: &[u8]) -> Option<Ipv4Addr> {
    let is_ipv4 = packet.first()? >> 4 == 4;
    let bytes: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
    is_ipv4.then(|| Ipv4Addr::from(bytes))
}

/// Lets the thread run before all others whenever it has something to do: a late forwarder is a link with other properties.
fn prefer_this_thread() {
    let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
    let chrt = std::process::Command::new("chrt").args(["--fifo", "--pid", "20", &thread]).output();
    if !chrt.is_ok_and(|output| output.status.success()) {
        // In this system's kernel the number 0 stands for the calling thread.
        rustix::process::setpriority_process(None, -20).ok();
    }
}
