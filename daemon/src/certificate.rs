//! Warns before this node's certificate ends, and that by which it issues for the studio.

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
            tell(&core, Which::Node, times);
            tokio::select! {
                () = stop.cancelled() => return,
                () = core.clock.sleep(EVERY) => {}
                // The sender lives in this task too.
                _ = changed.changed() => {}
            }
        }
    });
}

/// Starts the task that looks at the end of the certificate by which this node issues; nobody renews that one but a person.
pub fn watch_issuing(core: &Arc<Core>, from: SystemTime, to: SystemTime, tasks: &Tasks) {
    let (core, stop) = (Arc::clone(core), tasks.token());
    tasks.spawn("issuing certificate", async move {
        loop {
            tell(&core, Which::Issuing, Times { from, to });
            tokio::select! {
                () = stop.cancelled() => return,
                () = core.clock.sleep(EVERY) => {}
            }
        }
    });
}

/// Which certificate of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Which {
    /// The one by which it is known.
    Node,
    /// The one by which it issues.
    Issuing,
}

fn tell(core: &Core, which: Which, times: Times) {
    match health(which, &core.me.to_string(), times, core.clock.now()) {
        Some(item) => core.health.raise(item),
        None => core.health.clear(which.code()),
    }
}

const CERTIFICATE: &str = "certificate-ends";
const ISSUING_CERTIFICATE: &str = "issuing-certificate-ends";

impl Which {
    fn code(self) -> &'static str {
        match self {
            Self::Node => CERTIFICATE,
            Self::Issuing => ISSUING_CERTIFICATE,
        }
    }

    /// What it is, and what follows from its end.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Node => ("the certificate of", "peers refuse it"),
            Self::Issuing => ("the certificate for issuing of", "nobody joins or renews by it"),
        }
    }
}

fn health(which: Which, node: &str, times: Times, now: SystemTime) -> Option<Health> {
    let left = times.to.duration_since(now).unwrap_or_default();
    // A short one is renewed late, and is no news before.
    let validity = times.to.duration_since(times.from).unwrap_or_default();
    if left > WARN.min(validity / 3) {
        return None;
    }
    let days = left.as_secs() / DAY.as_secs();
    let severity = if left <= DAY.min(validity / 10) { Severity::Error } else { Severity::Warning };
    let (certificate, then) = which.words();
    let message = if left.is_zero() {
        format!("{certificate} {node} has ended; {then}")
    } else {
        format!("{certificate} {node} ends in {days} days")
    };
    Some(match which {
        Which::Node => Health {
            code: CERTIFICATE.into(),
            severity,
            message,
            hint: Some("issue a new one with avalonctl ca issue and restart avalond".into()),
        },
        Which::Issuing => Health {
            code: ISSUING_CERTIFICATE.into(),
            severity,
            message,
            hint: Some(
                "where the studio CA is: avalonctl ca delegate, put the two files into STATE_DIR/identity, and restart \
                 avalond"
                    .into(),
            ),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warns_thirty_days_before_and_is_an_error_on_the_last() {
        let now = SystemTime::UNIX_EPOCH + DAY * 20_000;
        let times = |left: Duration| Times { from: now + left - DAY * 90, to: now + left };
        let health = |times, now| health(Which::Node, "a@b", times, now);
        let severity = |left: Duration| health(times(left), now).map(|item| item.severity);
        assert_eq!(severity(DAY * 31), None);
        assert_eq!(severity(DAY * 30), Some(Severity::Warning));
        assert_eq!(severity(DAY), Some(Severity::Error));
        let ended = health(Times { from: now - DAY * 90, to: now - DAY }, now).unwrap();
        assert!(ended.message.contains("has ended"), "{}", ended.message);
        // One of a week is no news before a third of it is left.
        let week = |left: Duration| Times { from: now + left - DAY * 7, to: now + left };
        let left = |left| health(week(left), now).map(|item| item.severity);
        assert_eq!((left(DAY * 5), left(DAY * 2)), (None, Some(Severity::Warning)));
    }
    #[test]
    fn the_certificate_for_issuing_is_told_as_the_other_and_apart_from_it() {
        let now = SystemTime::UNIX_EPOCH + DAY * 20_000;
        let left = |days: u32| {
            let to = now + DAY * days;
            health(Which::Issuing, "a@b", Times { from: to - DAY * 365, to }, now)
        };
        assert_eq!(left(31), None);
        let (month, week, day) = (left(30).unwrap(), left(7).unwrap(), left(1).unwrap());
        assert_eq!((month.code.as_str(), month.severity), ("issuing-certificate-ends", Severity::Warning));
        assert!(week.message.contains("for issuing of a@b ends in 7 days"), "{}", week.message);
        assert_eq!(day.severity, Severity::Error);
        assert!(left(0).unwrap().message.contains("nobody joins"), "{:?}", left(0));
        assert!(day.hint.unwrap().contains("ca delegate"));
    }
}
