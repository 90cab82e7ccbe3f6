//! Whole-object hits: what is on this machine already is copied, not fetched.

use std::sync::Arc;

use avalon_store::object::incoming::{Incoming, IncomingError, LocalCopy};

use super::{incoming_failed, tell_progress};
use crate::{
    core::{Core, blocking},
    log::ErrorChain,
    replicate::jobs::{Job, Outcome},
};

/// Takes every missing object that some file of this node's projects holds, by reflink or copy; each is verified.
pub(super) async fn take(core: &Arc<Core>, job: &Arc<Job>, incoming: &Arc<Incoming>) -> Result<(), Outcome> {
    for need in incoming.needs() {
        if job.cancel.is_cancelled() {
            return Err(Outcome::Cancelled);
        }
        let (core_there, incoming_there) = (Arc::clone(core), Arc::clone(incoming));
        let copied = blocking(move || take_one(&core_there, &incoming_there, &need.object)).await;
        match copied {
            Ok(0) => {}
            Ok(bytes) => {
                job.add_local(bytes);
                if job.progress_is_due() {
                    tell_progress(job, incoming);
                }
            }
            Err(error) => return Err(incoming_failed(core, job, &error)),
        }
    }
    Ok(())
}

/// Returns how many bytes were copied; a local file that cannot be used is no error, the object is fetched then.
fn take_one(
    core: &Core,
    incoming: &Incoming,
    object: &avalon_protocol::hash::ObjectHash,
) -> Result<u64, IncomingError> {
    let places = core.ledger.locate(object).unwrap_or_default();
    for (project, path, _) in places {
        let Some(dir) = core.project(&project).and_then(|project| project.dir()) else { continue };
        match incoming.copy_local(object, &dir, &path) {
            Ok(LocalCopy::Reflinked { bytes } | LocalCopy::Copied { bytes }) => return Ok(bytes),
            Ok(LocalCopy::AlreadyHere) => return Ok(0),
            Err(error) if error.is_no_space() => return Err(error),
            Err(error) => {
                tracing::warn!(%project, %path, error = %ErrorChain(&error), "a local file cannot be used, fetching instead");
            }
        }
    }
    Ok(0)
}
