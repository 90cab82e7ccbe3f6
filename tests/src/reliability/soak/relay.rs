//! A line between two daemons that breaks when it is told to: datagrams go through it, or are lost, or come from another port.

use std::{
    io::{self, ErrorKind},
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

/// How long a thread waits for a datagram before it looks whether it is to end.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// No datagram is larger.
const DATAGRAM: usize = 65_536;

/// The line; it ends when it is dropped.
#[derive(Debug)]
pub(super) struct Relay {
    ends: Arc<Ends>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Ends {
    /// Whom the dialling daemon knows.
    front: UdpSocket,
    /// What the dialled one sees.
    back: Mutex<Arc<UdpSocket>>,
    target: SocketAddr,
    /// Who dialled last.
    caller: Mutex<Option<SocketAddr>>,
    is_cut: AtomicBool,
    has_ended: AtomicBool,
}

impl Relay {
    /// Opens a line to a daemon.
    ///
    /// # Errors
    /// When there is no port.
    pub(super) fn to(target: &str) -> io::Result<Self> {
        let target = target.parse().map_err(|_| io::Error::other(format!("{target} is no address")))?;
        let ends = Arc::new(Ends {
            front: port()?,
            back: Mutex::new(Arc::new(port()?)),
            target,
            caller: Mutex::new(None),
            is_cut: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
        });
        let (there, back) = (Arc::clone(&ends), Arc::clone(&ends));
        let threads = vec![thread::spawn(move || there.forward()), thread::spawn(move || back.answer())];
        Ok(Self { ends, threads })
    }

    /// Returns what to dial.
    pub(super) fn address(&self) -> String {
        self.ends.front.local_addr().expect("it is bound").to_string()
    }

    /// Loses everything from now on, or nothing any more.
    pub(super) fn cut(&self, is_cut: bool) {
        self.ends.is_cut.store(is_cut, Ordering::SeqCst);
    }

    /// Sends from another port, as a router does that has forgotten the old one.
    ///
    /// # Errors
    /// When there is no port.
    pub(super) fn rebind(&self) -> io::Result<()> {
        *self.ends.back.lock().unwrap() = Arc::new(port()?);
        Ok(())
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.ends.has_ended.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

impl Ends {
    fn forward(&self) {
        self.carry(
            |bytes| self.front.recv_from(bytes),
            |bytes, from| {
                *self.caller.lock().unwrap() = Some(from);
                self.back().send_to(bytes, self.target)
            },
        );
    }

    fn answer(&self) {
        self.carry(
            |bytes| self.back().recv_from(bytes),
            |bytes, _| match *self.caller.lock().unwrap() {
                Some(caller) => self.front.send_to(bytes, caller),
                None => Ok(0),
            },
        );
    }

    fn back(&self) -> Arc<UdpSocket> {
        Arc::clone(&self.back.lock().unwrap())
    }

    fn carry(
        &self,
        receive: impl Fn(&mut [u8]) -> io::Result<(usize, SocketAddr)>,
        send: impl Fn(&[u8], SocketAddr) -> io::Result<usize>,
    ) {
        let mut bytes = vec![0; DATAGRAM];
        while !self.has_ended.load(Ordering::SeqCst) {
            match receive(&mut bytes) {
                // What nobody takes is lost, as on any line.
                Ok((length, from)) if !self.is_cut.load(Ordering::SeqCst) => {
                    send(&bytes[..length], from).ok();
                }
                Ok(_) => {}
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                // Nobody listens at the other end just now.
                Err(_) => thread::yield_now(),
            }
        }
    }
}

fn port() -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(LOOK_AGAIN))?;
    Ok(socket)
}
