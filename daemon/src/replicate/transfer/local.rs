//! Whole-object hits: what is on this machine already is copied, not fetched.

use std::{collections::VecDeque, sync::Arc};

use avalon_protocol::{
    access::{Action, Role},
    feed::FeedId,
    hash::ObjectHash,
    id::{NodeId, ProjectName},
};
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
///
/// Of another project only what whoever published the version may have from there: else who knows a hash of it would get the content by
/// publishing it.
pub(super) async fn take(core: &Arc<Core>, job: &Arc<Job>, incoming: &Arc<Incoming>) -> Result<(), Outcome> {
    let (core_there, job_there) = (Arc::clone(core), Arc::clone(job));
    let author = Arc::new(blocking(move || Author::of(&core_there, &job_there)).await);
    let mut objects = incoming.needs().into_iter().map(|need| need.object).collect::<VecDeque<_>>();
    while !objects.is_empty() {
        if job.is_stopped() {
            return Err(Outcome::Cancelled);
        }
        let (core_there, incoming_there, author) =
            (Arc::clone(core), Arc::clone(incoming), Arc::clone(&author));
        let (left, copied) =
            blocking(move || take_some((&core_there, &author), &incoming_there, objects)).await;
        objects = left;
        job.add_local(copied.map_err(|error| incoming_failed(core, job, &error))?);
        if job.progress_is_due() {
            tell_progress(job, incoming);
        }
    }
    Ok(())
}

/// Who published a version, into which project.
struct Author {
    project: ProjectName,
    /// With the role of its certificate; nobody while no record says who it was.
    node: Option<(NodeId, Role)>,
}

impl Author {
    fn of(core: &Core, job: &Job) -> Self {
        let project = job.version.project.clone();
        let fold = core.ledger.version(&job.version).ok().flatten();
        let node = fold.and_then(|fold| Some(fold.generation(&job.manifest)?.node.clone()));
        let with_role = node.and_then(|node| {
            let (_, head) = core.ledger.heads(&project).into_iter().find(|(known, _)| *known == node)?;
            let feed = FeedId { project: project.clone(), node };
            let role = core.ledger.role_at(&feed, head.next_seq.checked_sub(1)?)?;
            Some((feed.node, role))
        });
        Self { project, node: with_role }
    }

    fn may_have_from(&self, core: &Core, project: &ProjectName) -> bool {
        let may_pull = |(node, role): &(NodeId, Role)| {
            core.admission().rights(node, *role, project, core.now_ms()).allows(Action::Pull)
        };
        *project == self.project || self.node.as_ref().is_some_and(may_pull)
    }
}

/// Looks for objects until it has looked for many or copied much, so that somebody hears of it; returns those left, and
/// how many bytes were copied. Most are not here, and handing each to a thread would take longer than looking.
fn take_some(
    (core, author): (&Core, &Author),
    incoming: &Incoming,
    mut objects: VecDeque<ObjectHash>,
) -> (VecDeque<ObjectHash>, Result<u64, IncomingError>) {
    let mut copied = 0;
    for _ in 0..OBJECTS_AT_ONCE {
        let Some(object) = objects.pop_front() else { break };
        match take_one((core, author), incoming, &object) {
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
fn take_one(
    (core, author): (&Core, &Author),
    incoming: &Incoming,
    object: &ObjectHash,
) -> Result<u64, IncomingError> {
    let places = core.ledger.locate(object).unwrap_or_default();
    for (project, path, _) in places.into_iter().filter(|(project, ..)| author.may_have_from(core, project)) {
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
