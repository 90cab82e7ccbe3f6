//! Warns before this node's certificate ends.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use avalon_protocol::control::{Health, Severity};
use tokio::sync::watch;

use crate::{core::Core, tasks::Tasks};

/// How often is looked.
const EVERY: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// When the warnings start: time enough to issue a certificate in working hours.
const WARN: Duration = Duration::from_secs(30 * 24 * 3600);

/// When this node's certificate ends, which changes when it is renewed. Clones are the same.
#[derive(Debug, Clone)]
pub struct CertificateEnd(watch::Sender<Times>);

/// From when to when it is valid.
#[derive(Debug, Clone, Copy)]
struct Times {
    from: SystemTime,
    to: SystemTime,
}

impl CertificateEnd {
    /// Notes from when to when a certificate is valid.
    pub fn new(from: SystemTime, to: SystemTime) -> Self {
        Self(watch::Sender::new(Times { from, to }))
    }

    /// Returns when it ends.
    pub fn now(&self) -> SystemTime {
        self.0.borrow().to
    }

    /// Notes that there is another.
    pub fn set(&self, from: SystemTime, to: SystemTime) {
        self.0.send_replace(Times { from, to });
    }
}

/// Starts the task that looks at the certificate's end.
pub fn watch(core: &Arc<Core>, end: &CertificateEnd, tasks: &Tasks) {
    let (core, stop, end) = (Arc::clone(core), tasks.token(), end.clone());
    tasks.spawn("certificate", async move {
        let mut changed = end.0.subscribe();
        loop {
            let times = *changed.borrow_and_update();
            match health(&core.me.to_string(), times, core.clock.now()) {
                Some(item) => core.health.raise(item),
                None => core.health.clear(CERTIFICATE),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = core.clock.sleep(EVERY) => {}
                // The sender lives in this task too.
                _ = changed.changed() => {}
            }
        }
    });
}

const CERTIFICATE: &str = "certificate-ends";

fn health(node: &str, times: Times, now: SystemTime) -> Option<Health> {
    let left = times.to.duration_since(now).unwrap_or_default();
    // A short one is renewed late, and is no news before.
    let validity = times.to.duration_since(times.from).unwrap_or_default();
    if left > WARN.min(validity / 3) {
        return None;
    }
    let days = left.as_secs() / DAY.as_secs();
    let severity = if left <= DAY.min(validity / 10) { Severity::Error } else { Severity::Warning };
    let message = if left.is_zero() {
        format!("the certificate of {node} has ended; peers refuse it")
    } else {
        format!("the certificate of {node} ends in {days} days")
    };
    let hint = "issue a new one with avalonctl ca issue and restart avalond".to_owned();
    Some(Health { code: CERTIFICATE.into(), severity, message, hint: Some(hint) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warns_thirty_days_before_and_is_an_error_on_the_last() {
        let now = SystemTime::UNIX_EPOCH + DAY * 20_000;
        let times = |left: Duration| Times { from: now + left - DAY * 90, to: now + left };
        let severity = |left: Duration| health("a@b", times(left), now).map(|item| item.severity);
        assert_eq!(severity(DAY * 31), None);
        assert_eq!(severity(DAY * 30), Some(Severity::Warning));
        assert_eq!(severity(DAY), Some(Severity::Error));
        let ended = health("a@b", Times { from: now - DAY * 90, to: now - DAY }, now).unwrap();
        assert!(ended.message.contains("has ended"), "{}", ended.message);
        // One of a week is no news before a third of it is left.
        let week = |left: Duration| Times { from: now + left - DAY * 7, to: now + left };
        let left = |left| health("a@b", week(left), now).map(|item| item.severity);
        assert_eq!((left(DAY * 5), left(DAY * 2)), (None, Some(Severity::Warning)));
    }
}
