//! [`Mount`], who writes to a project besides this machine, and how often it is scanned therefore.

use std::time::Duration;

use avalon_protocol::settle::SettleConfig;
use avalon_store::fs::FsKind;

use super::words::{SettlerConfig, WatcherState};
use crate::config::NetworkMode;

/// How many times as long as a scan took there is none after it, but for what is asked for or was lost: a tree so large that it
/// takes a minute is not looked at all the time.
const REST_AFTER_SCAN: u32 = 20;
/// The same where nothing else finds what is new: a fifth of the time goes into looking at most.
const REST_WITHOUT_EVENTS: u32 = 4;
/// And at most this long.
const MOST_REST: Duration = Duration::from_hours(6);

/// Who writes to a project's volume.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mount {
    /// This machine alone: its kernel tells of everything.
    #[default]
    Local,
    /// Other machines, too, of which nobody tells.
    Network(&'static str),
    /// Other machines perhaps; the system does not say.
    Unknown(&'static str),
    /// Other machines: the configuration says so.
    Configured,
}

impl Mount {
    /// Returns what a volume is, given what the configuration says of the project.
    ///
    /// # Errors
    /// Nobody says of which kind it is, and the configuration leaves it to that.
    pub(super) fn of<E>(mode: NetworkMode, kind: impl FnOnce() -> Result<FsKind, E>) -> Result<Self, E> {
        Ok(match (mode, kind()) {
            (NetworkMode::Never, _) => Self::Local,
            (_, Ok(FsKind::Network(kind))) => Self::Network(kind),
            (NetworkMode::Always, _) => Self::Configured,
            (NetworkMode::Auto, Ok(FsKind::Local)) => Self::Local,
            (NetworkMode::Auto, Ok(FsKind::Unknown(kind))) => Self::Unknown(kind),
            (NetworkMode::Auto, Err(error)) => return Err(error),
        })
    }

    /// Says whether changes must be expected of which nobody tells.
    pub fn has_other_writers(self) -> bool {
        self != Self::Local
    }
}

/// How long the scans of a project took.
#[derive(Debug, Default)]
pub(super) struct ScanTimes {
    last: Option<Duration>,
}

impl ScanTimes {
    /// Notes how long a scan took and returns what the next one may be expected to take, the shorter of the last two: that a server did not
    /// answer for an hour, once, says nothing of it.
    pub(super) fn usual(&mut self, took: Duration) -> Duration {
        self.last.replace(took).map_or(took, |before| before.min(took))
    }
}

impl SettlerConfig {
    /// Returns how patient to be with a version.
    pub(super) fn settle_on(&self, mount: Mount) -> SettleConfig {
        let unproved_quiet =
            if mount.has_other_writers() { self.network_quiet } else { self.settle.unproved_quiet };
        SettleConfig { unproved_quiet, ..self.settle }
    }

    /// Returns how long after a scan the next one begins, when nobody asks for it and they take `took`.
    pub(super) fn pause(&self, mount: Mount, watcher: &WatcherState, took: Duration) -> Duration {
        let interval = self.interval(mount, watcher);
        let hears_all = *watcher == WatcherState::On && !mount.has_other_writers();
        let rest = took.saturating_mul(if hears_all { REST_AFTER_SCAN } else { REST_WITHOUT_EVENTS });
        interval.max(rest.min(MOST_REST))
    }

    /// The same, where scans take no time.
    fn interval(&self, mount: Mount, watcher: &WatcherState) -> Duration {
        match (mount.has_other_writers(), watcher) {
            (true, WatcherState::On) => self.rescan_network,
            (true, _) => self.rescan_network.min(self.rescan_unwatched),
            (false, WatcherState::On) => self.rescan,
            (false, _) => self.rescan_unwatched,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NFS: FsKind = FsKind::Network("NFS");
    const FUSE: FsKind = FsKind::Unknown("FUSE");
    const DISK: FsKind = FsKind::Local;

    #[test]
    fn the_file_system_says_who_writes_unless_the_configuration_does() {
        use NetworkMode::{Always, Auto, Never};
        for (kind, mode, mount) in [
            (NFS, Auto, Mount::Network("NFS")),
            (NFS, Always, Mount::Network("NFS")),
            (NFS, Never, Mount::Local),
            (FUSE, Auto, Mount::Unknown("FUSE")),
            (FUSE, Always, Mount::Configured),
            (FUSE, Never, Mount::Local),
            (DISK, Auto, Mount::Local),
            (DISK, Always, Mount::Configured),
            (DISK, Never, Mount::Local),
        ] {
            assert_eq!(Mount::of(mode, || Ok::<_, ()>(kind)), Ok(mount), "{kind:?} {mode:?}");
        }
        for (mode, mount) in [(Auto, Err(())), (Never, Ok(Mount::Local)), (Always, Ok(Mount::Configured))] {
            assert_eq!(Mount::of(mode, || Err(())), mount, "{mode:?}");
        }
    }

    #[test]
    fn a_scan_comes_after_its_interval_and_takes_no_more_than_its_share_of_the_time() {
        let config = SettlerConfig {
            rescan: Duration::from_secs(600),
            rescan_unwatched: Duration::from_secs(60),
            rescan_network: Duration::from_secs(90),
            ..SettlerConfig::default()
        };
        let partial = WatcherState::Partial { watched: 1, needed: 2 };
        let off = WatcherState::Off { why: "no watcher".into() };
        let nfs = Mount::Network("NFS");
        for (mount, watcher, took_s, pause_s) in [
            (Mount::Local, &WatcherState::On, 1, 600),
            (Mount::Local, &WatcherState::On, 60, 1200),
            (Mount::Local, &partial, 1, 60),
            (Mount::Local, &off, 60, 240),
            (nfs, &WatcherState::On, 1, 90),
            (nfs, &WatcherState::On, 60, 240),
            (nfs, &partial, 1, 60),
            (Mount::Unknown("FUSE"), &WatcherState::On, 1, 90),
            (Mount::Configured, &WatcherState::On, 1, 90),
            (nfs, &WatcherState::On, 36_000, 21_600),
        ] {
            let pause = config.pause(mount, watcher, Duration::from_secs(took_s));
            assert_eq!(pause, Duration::from_secs(pause_s), "{mount:?} {watcher:?} {took_s}");
        }
    }

    #[test]
    fn one_scan_that_hung_does_not_put_off_the_next() {
        let mut times = ScanTimes::default();
        let usual = [50, 60, 3600, 55, 3600, 3600].map(|took| times.usual(Duration::from_secs(took)));
        assert_eq!(usual.map(|usual| usual.as_secs()), [50, 50, 60, 55, 55, 3600]);
    }

    #[test]
    fn only_where_others_write_unproved_files_are_waited_for_longer() {
        let config = SettlerConfig { network_quiet: Duration::from_secs(40), ..SettlerConfig::default() };
        assert_eq!(config.settle_on(Mount::Local), config.settle);
        assert_eq!(config.settle_on(Mount::Unknown("FUSE")).unproved_quiet, Duration::from_secs(40));
        assert_eq!(config.settle_on(Mount::Network("NFS")).quiet, config.settle.quiet);
    }
}
