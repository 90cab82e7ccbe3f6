//! What the daemon looks after in itself: whether the ledger works, and whether the kernel gives UDP the room that it needs.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use avalon_protocol::control::{Health, Severity};
use avalon_store::ledger::LedgerError;

use crate::{
    core::{Core, blocking},
    log::ErrorChain,
    net::{UDP_BUFFER_BYTES, UdpBuffers},
    tasks::Tasks,
};

/// How often the watchdog looks whether a ledger that does not answer is at long work.
const PROBE_AGAIN: Duration = Duration::from_secs(1);
/// How often the ledger is asked whether it works.
const LEDGER_EVERY: Duration = Duration::from_secs(30);

/// The watchdog's question: does the runtime run, and does the ledger answer? While it builds the catalog it has no time
/// to, and a restart would only begin that again; a full disk is told in the status, and no restart makes room.
pub(super) fn probe(
    core: &Arc<Core>,
) -> impl Fn() -> futures_util::future::BoxFuture<'static, bool> + Send + 'static {
    let core = Arc::clone(core);
    move || {
        let core = Arc::clone(&core);
        Box::pin(async move {
            let ledger = core.ledger.clone();
            let mut answer = std::pin::pin!(blocking(move || match ledger.sync() {
                Ok(()) => true,
                Err(LedgerError::Catalog { .. }) if !ledger.is_ready() => true,
                Err(error) => error.is_no_space(),
            }));
            loop {
                tokio::select! {
                    alive = &mut answer => return alive,
                    () = core.clock.sleep(PROBE_AGAIN) => {
                        if core.ledger.is_at_long_work() {
                            return true;
                        }
                    }
                }
            }
        })
    }
}

/// Starts the task that asks the ledger now and then whether it works, and says when it does not.
pub(super) fn watch_ledger(core: &Arc<Core>, tasks: &Tasks) {
    let (core, stop) = (Arc::clone(core), tasks.token());
    tasks.spawn("ledger health", async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = core.clock.sleep(LEDGER_EVERY) => {}
            }
            let ledger = core.ledger.clone();
            match blocking(move || ledger.sync()).await {
                Ok(()) => core.health.clear(LEDGER_FAILED),
                // That one is told, and is tried again by itself.
                Err(LedgerError::Catalog { .. }) if !core.ledger.is_ready() => {}
                Err(error) => core.health.raise(ledger_failed(&error)),
            }
        }
    });
}

const LEDGER_FAILED: &str = "ledger-failed";

fn ledger_failed(error: &LedgerError) -> Health {
    Health {
        code: LEDGER_FAILED.into(),
        severity: Severity::Error,
        message: format!("the catalog cannot be written: {}", ErrorChain(error)),
        hint: Some("check the disk of the state directory and restart avalond".into()),
    }
}

/// Nobody far away is reached from a loopback address, so there it does not matter.
pub(super) fn udp_health(listen: SocketAddr, buffers: UdpBuffers) -> Option<Health> {
    let matters = buffers.are_small() && !listen.ip().is_loopback();
    matters.then(|| Health {
        code: "udp-buffers-small".into(),
        severity: Severity::Warning,
        message: format!(
            "the kernel grants {} bytes to receive and {} to send on UDP; fast links lose packets",
            buffers.receive_bytes, buffers.send_bytes
        ),
        hint: Some(format!(
            "sysctl -w net.core.rmem_max={UDP_BUFFER_BYTES} net.core.wmem_max={UDP_BUFFER_BYTES}, then restart avalond"
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_buffers_are_told_where_others_can_be_reached() {
        let small = UdpBuffers { receive_bytes: 212_992, send_bytes: 212_992 };
        let granted = UdpBuffers { receive_bytes: UDP_BUFFER_BYTES, send_bytes: UDP_BUFFER_BYTES };
        let (anywhere, here) = ("0.0.0.0:4700".parse().unwrap(), "127.0.0.1:4700".parse().unwrap());
        let item = udp_health(anywhere, small).unwrap();
        assert!(item.message.contains("212992") && item.hint.unwrap().contains("net.core.rmem_max=7500000"));
        assert_eq!(udp_health(anywhere, granted), None);
        assert_eq!(udp_health(here, small), None);
    }

    #[test]
    fn a_ledger_that_does_not_answer_is_an_error_with_what_to_do() {
        let item = ledger_failed(&LedgerError::Closed);
        assert_eq!(item.severity, Severity::Error);
        assert!(item.message.contains("the ledger is closed") && item.hint.is_some(), "{item:?}");
    }
}
