//! Warns before this node's certificate ends.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use avalon_protocol::control::{Health, Severity};

use crate::{core::Core, tasks::Tasks};

/// How often is looked.
const EVERY: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// When the warnings start: time enough to issue a certificate in working hours.
const WARN: Duration = Duration::from_secs(30 * 24 * 3600);

/// Starts the task that looks at the certificate's end.
pub fn watch(core: &Arc<Core>, expires: SystemTime, tasks: &Tasks) {
    let (core, stop) = (Arc::clone(core), tasks.token());
    tasks.spawn("certificate", async move {
        loop {
            match health(&core.me.to_string(), expires, core.clock.now()) {
                Some(item) => core.health.raise(item),
                None => core.health.clear(CERTIFICATE),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = core.clock.sleep(EVERY) => {}
            }
        }
    });
}

const CERTIFICATE: &str = "certificate-ends";

fn health(node: &str, expires: SystemTime, now: SystemTime) -> Option<Health> {
    let left = expires.duration_since(now).unwrap_or_default();
    if left > WARN {
        return None;
    }
    let days = left.as_secs() / DAY.as_secs();
    let severity = if left <= DAY { Severity::Error } else { Severity::Warning };
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
        let severity = |left: Duration| health("a@b", now + left, now).map(|item| item.severity);
        assert_eq!(severity(DAY * 31), None);
        assert_eq!(severity(DAY * 30), Some(Severity::Warning));
        assert_eq!(severity(DAY), Some(Severity::Error));
        let ended = health("a@b", now - DAY, now).unwrap();
        assert!(ended.message.contains("has ended"), "{}", ended.message);
    }
}
