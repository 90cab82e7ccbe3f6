//! What comes over the network: the manifest, then the blocks, from every node that holds the version.

use std::sync::Arc;

use avalon_protocol::{
    block::block_count, control::ErrorCode, manifest::Manifest, plan::rank_sources,
    version_fold::VersionFold, wire::Want,
};
use avalon_store::object::incoming::{Incoming, ObjectNeed};

use super::{
    RETRY_SOURCES,
    bases::Bases,
    catalog_failed,
    streams::{Round, Trouble},
    waiting,
};
use crate::{
    core::{Core, blocking},
    log::ErrorChain,
    net::{Net, PeerLink},
    replicate::jobs::{Job, Outcome, RetryWhen},
};

/// Objects above this size come over several streams, and their block list before everything else; the list of a smaller
/// one comes in front of its blocks.
const LIST_FIRST_BYTES: u64 = 8 << 20;

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
            Err(error) => return Err(catalog_failed(&error)),
        };
        let holders = rank_sources(&core.me, &fold.holders(&job.manifest));
        let connected: Vec<PeerLink> = holders.iter().filter_map(|node| net.link(node)).collect();
        // Whoever may not know of the project is not asked either: a question would tell.
        let serves = |link: &&PeerLink| link.shares(&job.version.project);
        let links: Vec<PeerLink> = connected.iter().filter(serves).cloned().collect();
        if !links.is_empty() {
            return Ok(Self { links });
        }
        let names: Vec<String> = holders.iter().map(ToString::to_string).collect();
        let reason = match (names.is_empty(), connected.is_empty()) {
            (true, _) => "no node holds this version any more".to_owned(),
            (false, true) => format!("held by {}, not connected now", names.join(", ")),
            (false, false) => {
                let project = &job.version.project;
                format!(
                    "held by {}; of those connected, none serves project {project} to this node",
                    names.join(", ")
                )
            }
        };
        Err(waiting(ErrorCode::NoSource, reason, RetryWhen::PeerCame))
    }

    /// Returns the sources to ask: those at this node's own site alone, as long as they do well.
    fn best(&self, core: &Core, bad: &Trouble) -> Vec<PeerLink> {
        let fit = || self.links.iter().filter(|link| !bad.unfit.contains(link.node())).cloned();
        let near: Vec<PeerLink> = fit()
            .filter(|link| link.node().site == core.me.site && !bad.broke.contains(link.node()))
            .collect();
        if near.is_empty() { fit().collect() } else { near }
    }
}

/// Fetches until nothing is missing.
pub(super) async fn fetch(
    core: &Arc<Core>,
    net: &Net,
    job: &Arc<Job>,
    incoming: &Arc<Incoming>,
    bases: &Arc<Bases>,
) -> Result<(), Outcome> {
    let mut bad = Trouble::default();
    loop {
        let needs = incoming.needs();
        if needs.is_empty() {
            return Ok(());
        }
        let sources = Sources::find(core, net, job).await?;
        let links = sources.best(core, &bad);
        if links.is_empty() {
            let names: Vec<String> = bad.unfit.iter().map(ToString::to_string).collect();
            let reason =
                format!("what {} sent was not usable, and nobody else holds it now", names.join(", "));
            return Err(waiting(ErrorCode::NoSource, reason, RetryWhen::After(RETRY_SOURCES)));
        }
        let round = Arc::new(Round::new(core, job, incoming, bases, wants(&needs)));
        let trouble = round.run(&links).await;
        if let Some(outcome) = trouble.outcome {
            return Err(outcome);
        }
        if job.is_stopped() {
            return Err(Outcome::Cancelled);
        }
        let missing = |needs: &[ObjectNeed]| needs.iter().map(|need| need.bytes_missing).sum::<u64>();
        let failed = !trouble.broke.is_empty() || !trouble.unfit.is_empty();
        bad.unfit.extend(trouble.unfit);
        // A source at this site that broke is not asked alone again.
        let is_news = !trouble.broke.is_subset(&bad.broke);
        bad.broke.extend(trouble.broke);
        if failed && !is_news && missing(&incoming.needs()) == missing(&needs) {
            let reason = "the sources do not answer";
            return Err(waiting(ErrorCode::NoSource, reason, RetryWhen::After(RETRY_SOURCES)));
        }
    }
}

/// Returns what is missing, in the order of the manifest. Of a large object, whose blocks come over several streams, the
/// block list is needed first: as long as one is missing, the lists are all that is asked for.
fn wants(needs: &[ObjectNeed]) -> Vec<Want> {
    let want = |need: &ObjectNeed| Want {
        object: need.object,
        size: need.size,
        first_block: 0,
        blocks: 0,
        with_list: need.blocks.is_none() && block_count(need.size) > 1,
    };
    let unlisted = needs.iter().filter(|need| need.blocks.is_none() && need.size > LIST_FIRST_BYTES);
    let lists: Vec<Want> = unlisted.map(want).collect();
    if !lists.is_empty() {
        return lists;
    }
    let ranges = needs.iter().flat_map(|need| {
        (0..).zip(&need.missing).map(move |(number, range)| Want {
            first_block: range.start,
            blocks: range.end - range.start,
            with_list: want(need).with_list && number == 0,
            ..want(need)
        })
    });
    ranges.collect()
}

#[cfg(test)]
mod tests {
    use avalon_protocol::{
        block::{BLOCK_BYTES, BlockList},
        hash::ObjectHash,
    };

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
    fn lists_of_large_objects_come_first_and_alone() {
        let large = need(2, 100 * BLOCK_BYTES);
        let mut needs = [need(1, 100), large.clone(), need(3, 3 * BLOCK_BYTES)];
        let shape = |needs: &[ObjectNeed]| -> Vec<(u64, bool)> {
            wants(needs).iter().map(|want| (want.blocks, want.with_list)).collect()
        };
        assert_eq!(shape(&needs), [(0, true)]);
        let values = vec![[0; 32]; 100];
        needs[1].blocks = Some(Arc::new(BlockList::of_values(large.size, values)));
        needs[1].missing = vec![0..10, 20..100];
        assert_eq!(shape(&needs), [(1, false), (10, false), (80, false), (3, true)]);
    }
}
