//! What comes over the network: the manifest, then the blocks, from every node that holds the version.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use avalon_protocol::{
    block::{BLOCK_BYTES, block_count},
    close_code::CloseCode,
    control::{ErrorCode, Health, Severity},
    id::NodeId,
    manifest::Manifest,
    plan::{BATCH_BYTES, Missing, batches, rank_sources},
    version_fold::VersionFold,
    wire::{FetchEncoded, Want},
};
use avalon_store::object::incoming::{Incoming, ObjectNeed};

use super::{
    RETRY_SOURCES,
    bases::Bases,
    failed, incoming_failed,
    sink::{JobSink, SinkError},
    waiting,
};
use crate::{
    core::{Core, blocking},
    log::ErrorChain,
    net::{Net, PeerLink},
    replicate::jobs::{Job, Outcome, RetryWhen},
};

/// How many streams bring one version, over all sources. Each has at most one block that is not written yet, so a cut
/// costs at most this many blocks.
const STREAMS: usize = 4;

/// Returns the job's manifest, from this node's disk or from a node that holds the version.
pub(super) async fn manifest(core: &Arc<Core>, net: &Net, job: &Arc<Job>) -> Result<Manifest, Outcome> {
    let (ledger, id) = (core.ledger.clone(), job.manifest);
    match blocking(move || ledger.manifest(id)).await {
        Ok(Some(manifest)) => return Ok(manifest),
        Ok(None) => {}
        Err(error) => {
            tracing::warn!(manifest = %id, error = %ErrorChain(&error), "a manifest cannot be read, fetching it again")
        }
    }
    let sources = Sources::find(core, net, job).await?;
    for link in &sources.links {
        let fetched = link.fetch_manifests(&job.version.project, vec![job.manifest]).await;
        let bytes = match fetched.map(|mut manifests| manifests.pop().flatten()) {
            Ok(Some(bytes)) => bytes,
            Ok(None) => continue,
            Err(error) => {
                tracing::debug!(peer = %link.node(), error = %ErrorChain(&error), "a manifest did not come");
                continue;
            }
        };
        match Manifest::decode(&bytes) {
            Ok(manifest) if manifest.id() == job.manifest && *manifest.version() == job.version => {
                return keep(core, manifest).await;
            }
            Ok(_) => {
                tracing::warn!(peer = %link.node(), manifest = %job.manifest, "the peer sent another manifest")
            }
            Err(error) => {
                tracing::warn!(peer = %link.node(), error = %ErrorChain(&error), "the peer sent a manifest that is refused");
            }
        }
    }
    Err(waiting(ErrorCode::NoSource, "no source has the manifest", RetryWhen::After(RETRY_SOURCES)))
}

async fn keep(core: &Arc<Core>, manifest: Manifest) -> Result<Manifest, Outcome> {
    let ledger = core.ledger.clone();
    blocking(move || match ledger.put_manifest(&manifest) {
        Ok(_) => Ok(manifest),
        Err(error) => Err(waiting(
            if error.is_no_space() { ErrorCode::DiskFull } else { ErrorCode::Internal },
            ErrorChain(&error).to_string(),
            RetryWhen::After(super::RETRY_DISK),
        )),
    })
    .await
}

/// The nodes that hold the job's generation.
struct Sources {
    /// Those that are connected, the best first.
    links: Vec<PeerLink>,
}

impl Sources {
    /// Fails with what the job waits for when none is connected.
    async fn find(core: &Arc<Core>, net: &Net, job: &Job) -> Result<Self, Outcome> {
        let (ledger, version) = (core.ledger.clone(), job.version.clone());
        let fold: VersionFold = match blocking(move || ledger.version(&version)).await {
            Ok(fold) => fold.unwrap_or_default(),
            Err(error) => {
                let reason = ErrorChain(&error).to_string();
                return Err(waiting(ErrorCode::Internal, reason, RetryWhen::After(RETRY_SOURCES)));
            }
        };
        let holders = rank_sources(&core.me, &fold.holders(&job.manifest));
        let links: Vec<PeerLink> = holders.iter().filter_map(|node| net.link(node)).collect();
        if !links.is_empty() {
            return Ok(Self { links });
        }
        let names: Vec<String> = holders.iter().map(ToString::to_string).collect();
        let reason = if names.is_empty() {
            "no node holds this version any more".to_owned()
        } else {
            format!("held by {}, not connected now", names.join(", "))
        };
        Err(waiting(ErrorCode::NoSource, reason, RetryWhen::PeerCame))
    }
}

/// What the streams of one round share.
struct Round {
    bases: Arc<Bases>,
    /// How many bases turned out to be of no use.
    spoiled: AtomicUsize,
    queue: Mutex<VecDeque<Vec<Want>>>,
    /// Nodes that sent what does not verify, or that lack objects: not asked again by this job.
    unfit: Mutex<BTreeSet<NodeId>>,
    /// What this side could not do.
    outcome: Mutex<Option<Outcome>>,
}

/// Fetches until nothing is missing.
pub(super) async fn fetch(
    core: &Arc<Core>,
    net: &Net,
    job: &Arc<Job>,
    incoming: &Arc<Incoming>,
    bases: &Arc<Bases>,
) -> Result<(), Outcome> {
    let mut unfit = BTreeSet::new();
    loop {
        let needs = incoming.needs();
        if needs.is_empty() {
            return Ok(());
        }
        let mut sources = Sources::find(core, net, job).await?;
        sources.links.retain(|link| !unfit.contains(link.node()));
        if sources.links.is_empty() {
            let names: Vec<String> = unfit.iter().map(ToString::to_string).collect();
            let reason =
                format!("what {} sent was not usable, and nobody else holds it now", names.join(", "));
            return Err(waiting(ErrorCode::NoSource, reason, RetryWhen::After(RETRY_SOURCES)));
        }
        let round = Arc::new(Round {
            bases: Arc::clone(bases),
            spoiled: AtomicUsize::new(0),
            queue: Mutex::new(requests(&needs).into()),
            unfit: Mutex::new(unfit),
            outcome: Mutex::new(None),
        });
        let missing = |needs: &[ObjectNeed]| needs.iter().map(|need| need.bytes_missing).sum::<u64>();
        let failures = run_round(core, job, incoming, &sources.links, &round).await;
        unfit = round.unfit.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(outcome) = round.outcome.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(outcome);
        }
        if job.cancel.is_cancelled() {
            return Err(Outcome::Cancelled);
        }
        let went_on = round.spoiled.load(Ordering::Relaxed) > 0;
        if failures > 0 && !went_on && missing(&incoming.needs()) == missing(&needs) {
            let reason = "the sources do not answer";
            return Err(waiting(ErrorCode::NoSource, reason, RetryWhen::After(RETRY_SOURCES)));
        }
    }
}

/// Cuts what is missing into requests. Objects that take several requests need their block list first; the lists come
/// in one request of their own, and the next round asks for the blocks.
fn requests(needs: &[ObjectNeed]) -> Vec<Vec<Want>> {
    let (unlisted, ready): (Vec<_>, Vec<_>) = needs
        .iter()
        .partition(|need| need.blocks.is_none() && block_count(need.size) > 1 && need.size > BATCH_BYTES);
    let lists = unlisted.iter().map(|need| Want {
        object: need.object,
        size: need.size,
        first_block: 0,
        blocks: 0,
        with_list: true,
    });
    let lists: Vec<Want> = lists.collect();
    let mut requests: Vec<Vec<Want>> =
        lists.chunks(avalon_protocol::limits::MAX_WANTS).map(<[Want]>::to_vec).collect();
    let missing: Vec<Missing> = ready
        .into_iter()
        .map(|need| Missing {
            object: need.object,
            size: need.size,
            blocks: need.missing.clone(),
            list_known: need.blocks.is_some() || need.size <= BLOCK_BYTES,
        })
        .collect();
    requests.extend(batches(&missing));
    requests
}

/// Runs the streams of one round and returns how many of them failed.
async fn run_round(
    core: &Arc<Core>,
    job: &Arc<Job>,
    incoming: &Arc<Incoming>,
    links: &[PeerLink],
    round: &Arc<Round>,
) -> usize {
    let streams = (0..STREAMS).filter_map(|stream| links.get(stream % links.len()));
    let streams = streams.map(|link| run_stream(core, job, incoming, link, round));
    let ended = futures_util::future::join_all(streams).await;
    ended.into_iter().filter(|ended| *ended == StreamEnd::Failed).count()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StreamEnd {
    QueueEmpty,
    Failed,
}

async fn run_stream(
    core: &Arc<Core>,
    job: &Arc<Job>,
    incoming: &Arc<Incoming>,
    link: &PeerLink,
    round: &Round,
) -> StreamEnd {
    loop {
        let batch = round.queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(batch) = batch else { return StreamEnd::QueueEmpty };
        let mut sink =
            JobSink::new(Arc::clone(core), Arc::clone(incoming), Arc::clone(job), Arc::clone(&round.bases));
        job.add_source(link.node());
        let fetch = FetchEncoded {
            project: job.version.project.clone(),
            priority: job.priority(),
            // Within a site the line is faster than the compressor.
            compress: link.node().site != core.me.site,
            bases: round.bases.of(&batch),
            wants: batch,
        };
        let fetched = tokio::select! {
            () = job.cancel.cancelled() => return StreamEnd::Failed,
            fetched = link.fetch_encoded(fetch, &mut sink) => fetched,
        };
        if let Some(error) = sink.error.take() {
            blame(core, job, link, round, &error);
            return StreamEnd::Failed;
        }
        if let Err(error) = fetched {
            if error.is_peers_fault() {
                link.close(CloseCode::Protocol, "an answer broke the protocol");
            }
            tracing::info!(peer = %link.node(), version = %job.version, error = %ErrorChain(&error), "a stream broke, its blocks are asked for again");
            return StreamEnd::Failed;
        }
        if !sink.not_found.is_empty() {
            tracing::warn!(peer = %link.node(), version = %job.version, objects = sink.not_found.len(), "the peer does not have all that it said");
            round.unfit.lock().unwrap_or_else(PoisonError::into_inner).insert(link.node().clone());
            return StreamEnd::Failed;
        }
    }
}

/// A peer whose bytes do not verify is not asked again by this job and somebody hears of it; an error of our own disk
/// ends the job for now.
fn blame(core: &Core, job: &Job, link: &PeerLink, round: &Round, error: &SinkError) {
    let reason = ErrorChain(error).to_string();
    if error.is_senders_fault() {
        tracing::warn!(peer = %link.node(), version = %job.version, error = reason, "the peer sent bytes that do not verify");
        core.health.about(&link.node().to_string()).raise(Health {
            code: "bad-content".into(),
            severity: Severity::Warning,
            message: format!(
                "{} sent content of {} that does not verify; it was refused",
                link.node(),
                job.version
            ),
            hint: Some(format!("check the disk of {}", link.node())),
        });
        round.unfit.lock().unwrap_or_else(PoisonError::into_inner).insert(link.node().clone());
        link.close(CloseCode::Content, "content does not match its hash");
        return;
    }
    let outcome = match error {
        SinkError::Base(object) => {
            tracing::warn!(peer = %link.node(), version = %job.version, error = reason, "a delta gave something else, the object is fetched as it is");
            round.spoiled.fetch_add(usize::from(round.bases.spoil(*object)), Ordering::Relaxed);
            return;
        }
        SinkError::Block(error) => incoming_failed(core, job, error),
        SinkError::List(_) | SinkError::Piece(_) => failed(ErrorCode::Internal, reason),
    };
    *round.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
}

#[cfg(test)]
mod tests {
    use avalon_protocol::hash::ObjectHash;

    use super::*;

    fn need(byte: u8, size: u64) -> ObjectNeed {
        ObjectNeed {
            object: ObjectHash::from_bytes([byte; 32]),
            size,
            blocks: None,
            missing: vec![0..block_count(size)],
            bytes_missing: size,
        }
    }

    #[test]
    fn lists_of_objects_that_take_several_requests_come_first_and_alone() {
        let requests = requests(&[need(1, 100), need(2, 100 * BLOCK_BYTES), need(3, 3 * BLOCK_BYTES)]);
        assert_eq!(requests.len(), 2);
        assert_eq!((requests[0][0].blocks, requests[0][0].with_list), (0, true));
        let rest: Vec<(u64, bool)> = requests[1].iter().map(|want| (want.blocks, want.with_list)).collect();
        assert_eq!(rest, [(1, false), (3, true)]);
    }
}
