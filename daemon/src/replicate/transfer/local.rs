//! Whole-object hits: what is on this machine already is copied, not fetched.

use std::{collections::VecDeque, sync::Arc};

use avalon_protocol::hash::ObjectHash;
use avalon_store::object::incoming::{Incoming, IncomingError, LocalCopy};

use super::{incoming_failed, tell_progress};
use crate::{
    core::{Core, blocking},
    log::ErrorChain,
    replicate::jobs::{Job, Outcome},
};

/// How many objects are looked for before somebody hears of it,
const OBJECTS_AT_ONCE: usize = 256;
/// or how many bytes are copied, at least.
const BYTES_AT_ONCE: u64 = 16 << 20;

/// Takes every missing object that some file of this node's projects holds, by reflink or copy; each is verified.
pub(super) async fn take(core: &Arc<Core>, job: &Arc<Job>, incoming: &Arc<Incoming>) -> Result<(), Outcome> {
    let mut objects = incoming.needs().into_iter().map(|need| need.object).collect::<VecDeque<_>>();
    while !objects.is_empty() {
        if job.is_stopped() {
            return Err(Outcome::Cancelled);
        }
        let (core_there, incoming_there) = (Arc::clone(core), Arc::clone(incoming));
        let (left, copied) = blocking(move || take_some(&core_there, &incoming_there, objects)).await;
        objects = left;
        job.add_local(copied.map_err(|error| incoming_failed(core, job, &error))?);
        if job.progress_is_due() {
            tell_progress(job, incoming);
        }
    }
    Ok(())
}

/// Looks for objects until it has looked for many or copied much, so that somebody hears of it; returns those left, and
/// how many bytes were copied. Most are not here, and handing each to a thread would take longer than looking.
fn take_some(
    core: &Core,
    incoming: &Incoming,
    mut objects: VecDeque<ObjectHash>,
) -> (VecDeque<ObjectHash>, Result<u64, IncomingError>) {
    let mut copied = 0;
    for _ in 0..OBJECTS_AT_ONCE {
        let Some(object) = objects.pop_front() else { break };
        match take_one(core, incoming, &object) {
            Ok(bytes) => copied += bytes,
            Err(error) => return (objects, Err(error)),
        }
        if copied >= BYTES_AT_ONCE {
            break;
        }
    }
    (objects, Ok(copied))
}

/// Returns how many bytes were copied; a local file that cannot be used is no error, the object is fetched then.
fn take_one(core: &Core, incoming: &Incoming, object: &ObjectHash) -> Result<u64, IncomingError> {
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
