//! What a node does about a version, and in which pieces it asks for it. Pure: the daemon and the simulation share it.

use std::{cmp::Reverse, collections::BTreeSet, ops::Range};

use crate::{
    block::{BLOCK_BYTES, block_count},
    hash::{ManifestId, ObjectHash},
    id::{NodeId, VersionSlot},
    limits::MAX_WANTS,
    mode::ProjectMode,
    version_fold::{Standing, VersionFold},
    wire::Want,
};

/// How urgent a fetch is; a higher one goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// Versions from before the node knew them.
    Backfill,
    /// A version that was just published, at a node that mirrors.
    Publish,
    /// Somebody waits for it.
    Waiting,
}

/// Whether somebody asked for a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Nobody did.
    None,
    /// By `avalonctl pull` or the pipeline.
    Pulled,
}

/// What to do about a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// It is here.
    Have(ManifestId),
    /// It is known and not wanted here.
    Leave,
    /// It has to come here.
    Fetch(ManifestId),
    /// Two sites published different content under its number: a person decides.
    Conflict(Vec<ManifestId>),
    /// No generation of it is known yet.
    Unknown,
}

/// Decides about one version.
///
/// A conflict blocks fetching only: a node that holds one of the candidates keeps it.
pub fn decide(slot: VersionSlot, fold: &VersionFold, me: &NodeId, mode: ProjectMode, wish: Wish) -> Decision {
    match fold.standing(slot) {
        Standing::Unknown => Decision::Unknown,
        Standing::Conflict(heads) => Decision::Conflict(heads),
        Standing::Head(head) if fold.holds(me, &head) => Decision::Have(head),
        Standing::Head(head) if mode == ProjectMode::Mirror || wish == Wish::Pulled => Decision::Fetch(head),
        // A node that holds an older generation of a version that grows goes on holding all of it.
        Standing::Head(head) if fold.held_by(me).next().is_some() => Decision::Fetch(head),
        Standing::Head(_) => Decision::Leave,
    }
}

/// Orders the nodes that hold something by how good a source they are: those at our own site first, then by name.
pub fn rank_sources(me: &NodeId, holders: &BTreeSet<NodeId>) -> Vec<NodeId> {
    let mut sources: Vec<NodeId> = holders.iter().filter(|node| *node != me).cloned().collect();
    sources.sort_by_key(|node| (Reverse(node.site == me.site), node.clone()));
    sources
}

/// What is missing of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The object.
    pub object: ObjectHash,
    /// Its size in bytes.
    pub size: u64,
    /// The ranges of blocks that are missing, ascending and apart.
    pub blocks: Vec<Range<u64>>,
    /// Whether its block list is known; an object of one block needs none.
    pub list_known: bool,
}

/// How many bytes one request asks for, about: enough that the next request is on its way long before this one is
/// answered, few enough that several requests share a version evenly.
pub const BATCH_BYTES: u64 = 32 << 20;

/// Cuts what is missing into requests for who has no [`Schedule`](crate::schedule::Schedule) of streams, as the simulation:
/// each of about [`BATCH_BYTES`] and at most [`MAX_WANTS`] wants, many small objects in one, a large one over several. A
/// block list is asked for once, with the first range of its object.
pub fn batches(missing: &[Missing]) -> Vec<Vec<Want>> {
    let mut batches: Vec<Vec<Want>> = Vec::new();
    let mut batch: Vec<Want> = Vec::new();
    let mut batch_bytes = 0;
    for want in missing.iter().flat_map(wants) {
        let bytes = want.blocks.saturating_mul(BLOCK_BYTES).min(want.size);
        if !batch.is_empty() && (batch_bytes + bytes > BATCH_BYTES || batch.len() == MAX_WANTS) {
            batches.push(std::mem::take(&mut batch));
            batch_bytes = 0;
        }
        batch_bytes += bytes;
        batch.push(want);
    }
    batches.extend((!batch.is_empty()).then_some(batch));
    batches
}

fn wants(missing: &Missing) -> impl Iterator<Item = Want> + '_ {
    let step = BATCH_BYTES / BLOCK_BYTES;
    let needs_list = block_count(missing.size) > 1 && !missing.list_known;
    let ranges = missing.blocks.iter().flat_map(move |range| {
        (range.start..range.end)
            .step_by(usize::try_from(step).unwrap_or(usize::MAX))
            .map(move |first| (first, step.min(range.end - first)))
    });
    ranges.enumerate().map(move |(index, (first_block, blocks))| Want {
        object: missing.object,
        size: missing.size,
        first_block,
        blocks,
        with_list: needs_list && index == 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Held, Record, tests::published};

    const SLOT: VersionSlot = VersionSlot::Number(1);

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn id(byte: u8) -> ManifestId {
        ManifestId::from_bytes([byte; 32])
    }

    #[test]
    fn mirror_fetches_and_on_demand_waits_for_a_pull() {
        let mut fold = VersionFold::default();
        fold.apply(&node("a@x"), 0, &Record::Published(published(1, 1, 11, 1, None)));
        let me = node("b@y");
        let decide = |mode, wish| decide(SLOT, &fold, &me, mode, wish);
        assert_eq!(decide(ProjectMode::Mirror, Wish::None), Decision::Fetch(id(1)));
        assert_eq!(decide(ProjectMode::OnDemand, Wish::None), Decision::Leave);
        assert_eq!(decide(ProjectMode::OnDemand, Wish::Pulled), Decision::Fetch(id(1)));
    }

    #[test]
    fn a_node_that_holds_an_old_generation_follows_the_growth() {
        let (mut fold, me) = (VersionFold::default(), node("b@y"));
        let version = crate::record::tests::version(1);
        fold.apply(&node("a@x"), 0, &Record::Published(published(1, 1, 11, 1, None)));
        fold.apply(&me, 0, &Record::Placed(Held { version, manifest: id(1) }));
        assert_eq!(decide(SLOT, &fold, &me, ProjectMode::OnDemand, Wish::None), Decision::Have(id(1)));
        fold.apply(&node("a@x"), 1, &Record::Published(published(1, 2, 12, 2, Some(1))));
        assert_eq!(decide(SLOT, &fold, &me, ProjectMode::OnDemand, Wish::None), Decision::Fetch(id(2)));
    }

    #[test]
    fn nobody_fetches_a_conflict() {
        let mut fold = VersionFold::default();
        fold.apply(&node("a@x"), 0, &Record::Published(published(1, 1, 11, 1, None)));
        fold.apply(&node("b@y"), 0, &Record::Published(published(1, 2, 12, 1, None)));
        let decision = decide(SLOT, &fold, &node("c@z"), ProjectMode::Mirror, Wish::Pulled);
        assert!(matches!(decision, Decision::Conflict(_)));
    }

    #[test]
    fn sources_at_our_own_site_come_first() {
        let holders = ["a@x", "b@y", "c@y", "me@y"].map(node).into();
        assert_eq!(rank_sources(&node("me@y"), &holders), ["b@y", "c@y", "a@x"].map(node));
    }

    #[test]
    fn small_objects_share_a_request_and_large_ones_are_cut() {
        let small = |byte: u8| Missing {
            object: ObjectHash::from_bytes([byte; 32]),
            size: 8192,
            blocks: vec![0..1],
            list_known: false,
        };
        let large = Missing {
            object: ObjectHash::from_bytes([99; 32]),
            size: 100 * BLOCK_BYTES,
            blocks: vec![0..40, 90..100],
            list_known: false,
        };
        let all: Vec<Missing> = (0..10).map(small).chain([large]).collect();
        let batches = batches(&all);
        let shape: Vec<(usize, u64)> =
            batches.iter().map(|batch| (batch.len(), batch.iter().map(|want| want.blocks).sum())).collect();
        assert_eq!(shape, [(10, 10), (1, 32), (2, 18)]);
        let lists: Vec<&Want> = batches.iter().flatten().filter(|want| want.with_list).collect();
        assert_eq!(lists.len(), 1);
        assert_eq!((lists[0].first_block, lists[0].object.as_bytes()[0]), (0, 99));
    }

    #[test]
    fn a_request_never_has_more_wants_than_the_limit() {
        let tiny = |index: usize| Missing {
            object: ObjectHash::of(&index.to_le_bytes()),
            size: 1,
            blocks: vec![0..1],
            list_known: true,
        };
        let all: Vec<Missing> = (0..10_000).map(tiny).collect();
        let batches = batches(&all);
        assert_eq!(batches.iter().map(Vec::len).sum::<usize>(), 10_000);
        assert!(batches.iter().all(|batch| batch.len() <= MAX_WANTS));
    }
}
