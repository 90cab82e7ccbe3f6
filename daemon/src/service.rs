//! [`ServiceNotifier`]: what systemd is told about the daemon.
//!
//! The messages are those of `sd_notify(3)`. They are written here, because the socket is a value, so that tests can
//! listen, and not a variable of the process.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        net::{SocketAddr, UnixDatagram},
    },
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures_util::future::BoxFuture;

use crate::{clock::Clock, tasks::Tasks};

/// How long a message may wait for systemd to read those before.
const SEND_TIMEOUT: Duration = Duration::from_secs(1);

/// Tells the service manager how the daemon is. Without one it does nothing. Clones tell the same one.
///
/// A message that cannot be sent is logged, because no part of the daemon could do anything else about it.
#[derive(Debug, Clone)]
pub struct ServiceNotifier {
    target: Option<Arc<SocketAddr>>,
    watchdog: Option<Duration>,
}

impl ServiceNotifier {
    /// Tells the service manager that started this process, if one did and asked for it.
    pub fn from_env() -> Self {
        let variable = |name| std::env::var_os(name);
        let target = variable("NOTIFY_SOCKET").filter(|socket| !socket.is_empty());
        let target = target.and_then(|socket| {
            address(&socket)
                .inspect_err(|error| tracing::warn!(?socket, %error, "NOTIFY_SOCKET is of no use"))
                .ok()
        });
        let watchdog =
            watchdog_interval(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), std::process::id());
        Self { target: target.map(Arc::new), watchdog }
    }

    /// Tells whoever listens on a datagram socket; a path that starts with `@` is in the abstract name space.
    ///
    /// # Errors
    /// The path is too long.
    pub fn to(socket: &Path) -> io::Result<Self> {
        Ok(Self { target: Some(Arc::new(address(socket.as_os_str())?)), watchdog: None })
    }

    /// Sets how long the service manager waits for a sign of life before it restarts the daemon.
    #[must_use]
    pub fn with_watchdog(self, interval: Duration) -> Self {
        Self { watchdog: Some(interval), ..self }
    }

    /// Says that the daemon works: its catalog is open and it listens. Also after [`ServiceNotifier::reloading`].
    pub fn ready(&self) {
        self.send("READY=1");
    }

    /// Says in words what the daemon does, for `systemctl status`.
    pub fn status(&self, text: &str) {
        let line: String = text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
        self.send(&format!("STATUS={line}"));
    }

    /// Says that the configuration is read again; [`ServiceNotifier::ready`] says when that is over.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now_us = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now_us}"));
    }

    /// Says that the daemon was asked to stop and does so.
    pub fn stopping(&self) {
        self.send("STOPPING=1");
    }

    /// Asks for more time to start or stop, counted from now.
    pub fn extend_timeout(&self, duration: Duration) {
        self.send(&format!("EXTEND_TIMEOUT_USEC={}", duration.as_micros()));
    }

    /// Starts the task that shows that the daemon lives, if the service manager wants to know.
    ///
    /// It runs `probe` twice in each interval, and gives a sign of life only when that says yes. A probe that says no,
    /// or nothing, for a whole interval gets the daemon restarted; so it must be a round trip through what has to work,
    /// the catalog above all, and not just a task that turns.
    pub fn watchdog(
        self,
        probe: impl Fn() -> BoxFuture<'static, bool> + Send + 'static,
        clock: Arc<dyn Clock>,
        tasks: &Tasks,
    ) {
        let (Some(interval), Some(_)) = (self.watchdog, &self.target) else { return };
        let stop = tasks.token();
        let turns = async move {
            loop {
                if probe().await {
                    self.send("WATCHDOG=1");
                } else {
                    tracing::error!(
                        "the daemon does not work as it should; the watchdog gets no sign of life"
                    );
                }
                clock.sleep(interval / 2).await;
            }
        };
        tasks.spawn("watchdog", async move {
            stop.run_until_cancelled_owned(turns).await;
        });
    }

    fn send(&self, message: &str) {
        let Some(target) = &self.target else { return };
        if let Err(error) = send(target, message) {
            tracing::warn!(message, %error, "the service manager cannot be told");
        }
    }
}

fn send(target: &SocketAddr, message: &str) -> io::Result<()> {
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(SEND_TIMEOUT))?;
    socket.send_to_addr(message.as_bytes(), target)?;
    Ok(())
}

fn address(socket: &OsStr) -> io::Result<SocketAddr> {
    match socket.as_bytes().split_first() {
        #[cfg(target_os = "linux")]
        Some((b'@', name)) => {
            use std::os::linux::net::SocketAddrExt as _;
            SocketAddr::from_abstract_name(name)
        }
        _ => SocketAddr::from_pathname(socket),
    }
}

/// How often a sign of life is wanted of process `own_pid`.
fn watchdog_interval(usec: Option<OsString>, pid: Option<OsString>, own_pid: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.to_str().and_then(|pid| pid.parse().ok()) != Some(own_pid)) {
        return None;
    }
    let usec = usec?.to_str()?.parse().ok()?;
    (usec > 0).then(|| Duration::from_micros(usec))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use futures_util::FutureExt as _;
    use tempfile::TempDir;
    use tokio::net::UnixDatagram as Listener;

    use super::*;
    use crate::clock::ManualClock;

    const MINUTE: Duration = Duration::from_secs(60);
    const PATIENCE: Duration = Duration::from_secs(20);

    struct Manager {
        socket: Listener,
        _dir: TempDir,
    }

    impl Manager {
        fn start() -> (Self, ServiceNotifier) {
            let dir = TempDir::new().unwrap();
            let path = dir.path().join("notify");
            let socket = Listener::bind(&path).unwrap();
            (Self { socket, _dir: dir }, ServiceNotifier::to(&path).unwrap())
        }

        async fn next(&self) -> String {
            let mut bytes = [0; 512];
            let length = tokio::time::timeout(PATIENCE, self.socket.recv(&mut bytes)).await.unwrap().unwrap();
            String::from_utf8(bytes[..length].to_vec()).unwrap()
        }
    }

    #[tokio::test]
    async fn the_manager_hears_everything_in_order() {
        let (manager, notifier) = Manager::start();
        notifier.extend_timeout(Duration::from_secs(30));
        notifier.status("rebuilding catalog 41%\nREADY=1");
        notifier.ready();
        notifier.reloading();
        notifier.stopping();
        assert_eq!(manager.next().await, "EXTEND_TIMEOUT_USEC=30000000");
        assert_eq!(manager.next().await, "STATUS=rebuilding catalog 41% READY=1");
        assert_eq!(manager.next().await, "READY=1");
        let reloading = manager.next().await;
        let now = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(now.parse::<u64>().unwrap() > 0);
        assert_eq!(manager.next().await, "STOPPING=1");
    }

    #[tokio::test]
    async fn a_sign_of_life_needs_a_probe_that_says_yes() {
        let (manager, notifier) = Manager::start();
        let (tasks, clock) = (Tasks::new(), ManualClock::new());
        let (alive, probes) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let probe = {
            let (alive, probes) = (alive.clone(), probes.clone());
            move || {
                probes.fetch_add(1, Ordering::SeqCst);
                std::future::ready(alive.load(Ordering::SeqCst)).boxed()
            }
        };
        notifier.clone().with_watchdog(MINUTE).watchdog(probe, Arc::new(clock.clone()), &tasks);
        assert_eq!(manager.next().await, "WATCHDOG=1");
        clock.advance(MINUTE / 2);
        assert_eq!(manager.next().await, "WATCHDOG=1");
        alive.store(false, Ordering::SeqCst);
        clock.advance(MINUTE / 2);
        while probes.load(Ordering::SeqCst) < 3 {
            tokio::task::yield_now().await;
        }
        notifier.stopping();
        assert_eq!(manager.next().await, "STOPPING=1", "the third probe said no");
        assert!(tasks.shutdown(MINUTE, &clock).await.is_empty());
    }

    #[tokio::test]
    async fn a_probe_that_hangs_gives_no_sign_and_does_not_hinder_shutdown() {
        let (manager, notifier) = Manager::start();
        let (tasks, clock) = (Tasks::new(), ManualClock::new());
        notifier.clone().with_watchdog(MINUTE).watchdog(
            || std::future::pending().boxed(),
            Arc::new(clock.clone()),
            &tasks,
        );
        tokio::task::yield_now().await;
        clock.advance(MINUTE);
        tokio::task::yield_now().await;
        assert_eq!(tasks.running(), ["watchdog"]);
        assert!(tasks.shutdown(MINUTE, &clock).await.is_empty());
        notifier.stopping();
        assert_eq!(manager.next().await, "STOPPING=1");
    }

    #[tokio::test]
    async fn without_a_manager_nothing_happens() {
        let alone = ServiceNotifier { target: None, watchdog: Some(MINUTE) };
        alone.ready();
        let tasks = Tasks::new();
        alone.watchdog(|| panic!("nobody wants to know"), Arc::new(ManualClock::new()), &tasks);
        assert!(tasks.running().is_empty());
        let dir = TempDir::new().unwrap();
        ServiceNotifier::to(&dir.path().join("gone")).unwrap().ready();
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn abstract_sockets_are_reached() {
        let name = format!("@avalond-test-{}", std::process::id());
        let address = address(OsStr::new(&name)).unwrap();
        let listener = UnixDatagram::bind_addr(&address).unwrap();
        ServiceNotifier::to(Path::new(&name)).unwrap().ready();
        let mut bytes = [0; 16];
        listener.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = listener.recv(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"READY=1");
    }

    #[test]
    fn the_watchdog_is_for_one_process_only() {
        let interval = |usec: Option<&str>, pid: Option<&str>| {
            watchdog_interval(usec.map(OsString::from), pid.map(OsString::from), 42)
        };
        assert_eq!(interval(Some("60000000"), Some("42")), Some(MINUTE));
        assert_eq!(interval(Some("60000000"), None), Some(MINUTE));
        for (usec, pid) in [
            (None, Some("42")),
            (Some("60000000"), Some("43")),
            (Some("60000000"), Some("x")),
            (Some("0"), None),
            (Some("soon"), None),
        ] {
            assert_eq!(interval(usec, pid), None, "{usec:?} {pid:?}");
        }
    }
}
