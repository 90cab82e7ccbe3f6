//! Claims while blocks come: every second, what came of large objects is synced and claimed where it is much or old.

use std::{future::Future, sync::Arc, time::Duration};

use avalon_store::object::incoming::{Incoming, IncomingError};
use tokio_util::sync::CancellationToken;

use super::incoming_failed;
use crate::{
    core::{Core, blocking},
    replicate::jobs::{Job, Outcome},
};

/// How often somebody looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// An object that got this much since the last claim is synced at once. Hashing that much again takes a fraction of a
/// second; a sync of less at a time costs more of the disk than it saves.
const MUCH_BYTES: u64 = 256 << 20;
/// Every so many looks, objects are synced that got any.
const LOOKS_FOR_ANY: u64 = 5;

/// Runs a transfer and keeps claims about what it brings. A part that cannot be synced ends it.
pub(super) async fn kept_while(
    core: &Arc<Core>,
    job: &Arc<Job>,
    incoming: &Arc<Incoming>,
    transfer: impl Future<Output = Result<(), Outcome>>,
) -> Result<(), Outcome> {
    let ended = CancellationToken::new();
    let keeping = keep(core, incoming, &ended);
    tokio::pin!(keeping);
    let (transferred, kept) = tokio::select! {
        kept = &mut keeping => (Ok(()), kept),
        transferred = transfer => {
            // A sync that has begun is waited for: what it finds out decides what is here.
            ended.cancel();
            (transferred, keeping.await)
        }
    };
    kept.map_err(|error| incoming_failed(core, job, &error)).and(transferred)
}

async fn keep(
    core: &Arc<Core>,
    incoming: &Arc<Incoming>,
    ended: &CancellationToken,
) -> Result<(), IncomingError> {
    for look in 1u64.. {
        tokio::select! {
            () = ended.cancelled() => break,
            () = core.clock.sleep(LOOK_EVERY) => {}
        }
        let incoming = Arc::clone(incoming);
        let least_bytes = if look.is_multiple_of(LOOKS_FOR_ANY) { 1 } else { MUCH_BYTES };
        blocking(move || incoming.persist_progress(least_bytes)).await?;
    }
    Ok(())
}
