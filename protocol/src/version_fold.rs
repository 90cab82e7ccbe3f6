//! What all records about one version add up to: its generations, who holds them, and whether they conflict.
//!
//! A fold does not depend on the order in which the feeds' records arrive, so that every node that has the same
//! records has the same view. The catalog stores one fold per version; the simulation compares them.

mod resolve;
mod retire;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use self::retire::Use;
pub use self::{
    resolve::{Move, Resolution},
    retire::{DEFAULT_UNDO_MS, Retirement},
};
use crate::{
    hash::{ContentId, ManifestId},
    id::{NodeId, RepresentationName, VersionSlot},
    record::{Published, Record},
};

/// The state of one version.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionFold {
    generations: BTreeMap<ManifestId, Generation>,
    /// The last thing that each node said about each generation.
    holdings: BTreeMap<(ManifestId, NodeId), Holding>,
    /// What was said last about whether it is in use.
    last_use: Option<Use>,
    /// What people decided about conflicts.
    resolutions: BTreeSet<Resolution>,
}

/// One published generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// 1 for the first.
    pub generation: u32,
    /// The one before.
    pub predecessor: Option<ManifestId>,
    /// What it consists of.
    pub content: ContentId,
    /// The node that published it; the first in order where several did.
    pub node: NodeId,
    /// The number of files.
    pub files: u64,
    /// Their size together, in bytes.
    pub bytes: u64,
    /// The names of its representations.
    pub representations: Vec<RepresentationName>,
    /// Who published it.
    pub author: String,
    /// When, in milliseconds since 1970, by the publishing node's clock: for people, and for the ages in a policy.
    pub published_at_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Holding {
    /// The number of the record in the node's feed: the higher one counts.
    seq: u64,
    held: bool,
}

/// What stands for a version now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing was published yet; only holders are known.
    Unknown,
    /// One generation is the newest.
    Head(ManifestId),
    /// Two or more claim to be it with different content. All stay where they are; nobody places another.
    Conflict(Vec<ManifestId>),
}

impl VersionFold {
    /// Adds a record that stands at `seq` in the feed of `node`. Adding it again changes nothing.
    pub fn apply(&mut self, node: &NodeId, seq: u64, record: &Record) {
        match record {
            Record::Key(_)
            | Record::Policy(_)
            | Record::Revoked(_)
            | Record::Judged(_)
            | Record::Crl(_)
            | Record::Issued(_)
            | Record::AuditHead(_) => {}
            Record::Published(published) => {
                self.publish(node, published);
                self.hold(published.manifest, node, Holding { seq, held: true });
            }
            Record::Placed(held) => self.hold(held.manifest, node, Holding { seq, held: true }),
            Record::Dropped(held) => self.hold(held.manifest, node, Holding { seq, held: false }),
            Record::Retired(retired) => self.retire(node, retired),
            Record::Restored(restored) => self.restore(node, restored),
            Record::Resolved(resolved) => self.resolve(node, resolved),
        }
    }

    fn publish(&mut self, node: &NodeId, published: &Published) {
        let generation = Generation {
            generation: published.generation,
            predecessor: published.predecessor,
            content: published.content,
            node: node.clone(),
            files: published.files,
            bytes: published.bytes,
            representations: published.representations.clone(),
            author: published.author.clone(),
            published_at_ms: published.published_at_ms,
        };
        let known = self.generations.entry(published.manifest).or_insert_with(|| generation.clone());
        if generation.node < known.node {
            *known = generation;
        }
    }

    fn hold(&mut self, manifest: ManifestId, node: &NodeId, holding: Holding) {
        let known = self.holdings.entry((manifest, node.clone())).or_insert(holding);
        if holding.seq > known.seq {
            *known = holding;
        }
    }

    /// Returns the published generations by the names of their manifests.
    pub fn generations(&self) -> &BTreeMap<ManifestId, Generation> {
        &self.generations
    }

    /// Returns the generation that `manifest` describes.
    pub fn generation(&self, manifest: &ManifestId) -> Option<&Generation> {
        self.generations.get(manifest)
    }

    /// Says whether `node` holds all of a generation, under this manifest or another one of the same content.
    pub fn holds(&self, node: &NodeId, manifest: &ManifestId) -> bool {
        self.same_content(manifest)
            .any(|twin| self.holdings.get(&(twin, node.clone())).is_some_and(|holding| holding.held))
    }

    /// Returns the nodes that hold all of a generation, in order.
    pub fn holders(&self, manifest: &ManifestId) -> BTreeSet<NodeId> {
        let twins: BTreeSet<ManifestId> = self.same_content(manifest).collect();
        let held = self.holdings.iter().filter(|((twin, _), holding)| holding.held && twins.contains(twin));
        held.map(|((_, node), _)| node.clone()).collect()
    }

    /// Returns every manifest that `node` holds.
    pub fn held_by<'a>(&'a self, node: &'a NodeId) -> impl Iterator<Item = ManifestId> + 'a {
        let held = self.holdings.iter().filter(move |((_, holder), holding)| holder == node && holding.held);
        held.map(|((manifest, _), _)| *manifest)
    }

    /// Returns every manifest that `node` holds or once held.
    pub fn ever_held_by<'a>(&'a self, node: &'a NodeId) -> impl Iterator<Item = ManifestId> + 'a {
        self.holdings.keys().filter(move |(_, holder)| holder == node).map(|(manifest, _)| *manifest)
    }

    /// Returns the generation that files which lie at `node` are compared with: what stands for the version, where the node holds it,
    /// and else the newest that it holds or once held. After a decision what stands may be older than what it once held.
    pub fn compared_with(&self, slot: VersionSlot, node: &NodeId) -> Option<ManifestId> {
        match self.standing(slot) {
            Standing::Head(head) if self.holds(node, &head) => Some(head),
            _ => self.ever_held_by(node).max_by_key(|id| self.generation(id).map(|known| known.generation)),
        }
    }

    /// Returns every node that ever said something about the version.
    pub fn nodes(&self) -> BTreeSet<NodeId> {
        self.holdings.keys().map(|(_, node)| node.clone()).collect()
    }

    /// Says whether two generations consist of the same files.
    pub fn same_as(&self, one: &ManifestId, other: &ManifestId) -> bool {
        let content = |id| self.generations.get(id).map(|generation| generation.content);
        one == other || (content(one).is_some() && content(one) == content(other))
    }

    fn same_content(&self, manifest: &ManifestId) -> impl Iterator<Item = ManifestId> + '_ {
        let content = self.generations.get(manifest).map(|generation| generation.content);
        let manifest = *manifest;
        let twins = self
            .generations
            .iter()
            .filter(move |(id, generation)| **id != manifest && Some(generation.content) == content);
        std::iter::once(manifest).chain(twins.map(|(id, _)| *id))
    }

    /// Says which generation stands for the version.
    ///
    /// The candidates are the contents that no other generation follows and that nobody gave another number. `hero` is a
    /// pointer that moves, so there the highest generation wins; elsewhere two candidates are a conflict.
    pub fn standing(&self, slot: VersionSlot) -> Standing {
        let followed: BTreeSet<ContentId> = self
            .generations
            .values()
            .filter_map(|generation| {
                self.generations.get(&generation.predecessor?).map(|before| (generation, before))
            })
            .filter(|(generation, before)| generation.content != before.content)
            .map(|(_, before)| before.content)
            .collect();
        let aside = self.set_aside(slot);
        let mut candidates: BTreeMap<ContentId, ManifestId> = BTreeMap::new();
        for (id, generation) in self.generations.iter().filter(|(_, g)| !aside.contains_key(&g.content)) {
            if slot == VersionSlot::Hero || !followed.contains(&generation.content) {
                let best = candidates.entry(generation.content).or_insert(*id);
                if self.rank(id) > self.rank(best) {
                    *best = *id;
                }
            }
        }
        let mut heads: Vec<ManifestId> = candidates.into_values().collect();
        heads.sort_by_key(|id| std::cmp::Reverse(self.rank(id)));
        match (heads.as_slice(), slot) {
            ([], _) => Standing::Unknown,
            ([head], _) | ([head, ..], VersionSlot::Hero) => Standing::Head(*head),
            _ => Standing::Conflict(heads),
        }
    }

    /// Higher generation first, then the later publish, then the name: any total order does, if all nodes use it.
    fn rank(&self, manifest: &ManifestId) -> (u32, u64, ManifestId) {
        let generation = self.generations.get(manifest);
        generation.map_or((0, 0, *manifest), |g| (g.generation, g.published_at_ms, *manifest))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::record::{
        Held,
        tests::{published, resolved, restored, retired},
    };

    const SLOT: VersionSlot = VersionSlot::Number(1);

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    fn id(byte: u8) -> ManifestId {
        ManifestId::from_bytes([byte; 32])
    }

    fn held(byte: u8) -> Held {
        Held { version: crate::record::tests::version(1), manifest: id(byte) }
    }

    fn fold(records: &[(&str, u64, Record)]) -> VersionFold {
        let mut fold = VersionFold::default();
        for (name, seq, record) in records {
            fold.apply(&node(name), *seq, record);
        }
        fold
    }

    #[test]
    fn growth_has_one_head_and_the_old_generation_is_partly_held() {
        let fold = fold(&[
            ("a@x", 0, Record::Published(published(1, 1, 11, 1, None))),
            ("b@x", 0, Record::Placed(held(1))),
            ("a@x", 1, Record::Published(published(1, 2, 12, 2, Some(1)))),
        ]);
        assert_eq!(fold.standing(SLOT), Standing::Head(id(2)));
        assert!(fold.holds(&node("b@x"), &id(1)) && !fold.holds(&node("b@x"), &id(2)));
        assert_eq!(fold.holders(&id(2)), [node("a@x")].into());
    }

    #[test]
    fn same_number_with_other_content_is_a_conflict_and_with_equal_content_is_not() {
        let one = ("a@x", 0, Record::Published(published(1, 1, 11, 1, None)));
        let other = ("b@y", 0, Record::Published(published(1, 2, 12, 1, None)));
        let same = ("b@y", 0, Record::Published(published(1, 3, 11, 1, None)));
        assert!(
            matches!(fold(&[one.clone(), other]).standing(SLOT), Standing::Conflict(ids) if ids.len() == 2)
        );
        let twins = fold(&[one, same]);
        assert!(matches!(twins.standing(SLOT), Standing::Head(_)));
        assert!(twins.holds(&node("b@y"), &id(1)), "the same bytes under another manifest count");
    }

    #[test]
    fn growth_of_one_twin_follows_both() {
        let fold = fold(&[
            ("a@x", 0, Record::Published(published(1, 1, 11, 1, None))),
            ("b@y", 0, Record::Published(published(1, 2, 11, 1, None))),
            ("a@x", 1, Record::Published(published(1, 3, 12, 2, Some(1)))),
        ]);
        assert_eq!(fold.standing(SLOT), Standing::Head(id(3)));
    }

    #[test]
    fn hero_moves_without_conflict() {
        let fold = fold(&[
            ("a@x", 0, Record::Published(published(1, 1, 11, 1, None))),
            ("b@y", 0, Record::Published(published(1, 2, 12, 2, Some(1)))),
            ("b@y", 1, Record::Published(published(1, 3, 13, 3, Some(2)))),
        ]);
        assert_eq!(fold.standing(VersionSlot::Hero), Standing::Head(id(3)));
    }

    proptest! {
        #[test]
        fn the_order_of_arrival_does_not_matter(
            moves in prop::collection::vec((0u8..3, 0u8..7, 0u8..3), 1..20), shuffle in any::<u64>()
        ) {
            let mut seqs = [0u64; 3];
            let mut records: Vec<(NodeId, u64, Record)> = moves.iter().map(|&(who, what, manifest)| {
                let seq = seqs[who as usize];
                seqs[who as usize] += 1;
                let record = match what {
                    0 => Record::Placed(held(manifest)),
                    1 => Record::Dropped(held(manifest)),
                    2 => retired(u32::from(manifest), ["anna", "ben", "eve"][who as usize]),
                    3 => restored(u32::from(manifest), "anna"),
                    4 => resolved(u32::from(who) / 2, manifest, &[((manifest + 1) % 3, 5), (manifest + 3, 6)]),
                    _ => Record::Published(published(1, manifest, manifest / 2, 1, None)),
                };
                (node(["a@x", "b@x", "c@y"][who as usize]), seq, record)
            }).collect();
            let mut one = VersionFold::default();
            for (who, seq, record) in &records {
                one.apply(who, *seq, record);
            }
            let mut state = shuffle;
            for i in (1..records.len()).rev() {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                records.swap(i, (state >> 33) as usize % (i + 1));
            }
            let mut two = VersionFold::default();
            for (who, seq, record) in records.iter().chain(records.first()) {
                two.apply(who, *seq, record);
            }
            prop_assert_eq!(one.standing(SLOT), two.standing(SLOT));
            prop_assert_eq!(one, two);
        }
    }
}
