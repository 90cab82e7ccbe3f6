//! The pieces of a story, numbered, and the story without some of them: what shrinking takes away.

use avalon_protocol::id::NodeId;

use super::{Scenario, are_neighbours};
use crate::{
    event::{Deed, Event, Fault, NodeIndex},
    link::Quality,
    shrink::Kept,
};

/// What can be taken away from a story.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// What breaks by chance while the story runs.
    Chance,
    /// A node, with all that happens there.
    Node(NodeIndex),
    /// An event of the agenda.
    Event(usize),
    /// A file of a publish, by its place: not the first, which every version needs.
    File(usize, usize),
}

/// A line that takes the place of those over a node that was taken away.
const SPARE_LINE: Quality = Quality { delay_ms: 20, jitter_ms: 20, bytes_per_ms: 10_000, loss_percent: 0 };

impl Scenario {
    /// Returns the pieces in the order of their numbers. The end of all faults is none.
    pub fn pieces(&self) -> Vec<Piece> {
        let mut pieces = vec![Piece::Chance];
        pieces.extend((0..self.nodes.len()).map(Piece::Node));
        for (place, (_, event)) in self.agenda.iter().enumerate() {
            if !matches!(event, Event::Fault(Fault::End)) {
                pieces.push(Piece::Event(place));
            }
        }
        for (place, (_, event)) in self.agenda.iter().enumerate() {
            if let Event::Deed { deed: Deed::Publish { files, .. }, .. } = event {
                pieces.extend((1..files.len()).map(|file| Piece::File(place, file)));
            }
        }
        pieces
    }

    /// Leaves only these pieces. Where a node goes, its neighbours get a line, so that everything can still arrive.
    #[must_use]
    pub fn keep(mut self, kept: &Kept) -> Self {
        let pieces = self.pieces();
        let goes = |piece: Piece| {
            let number = pieces.iter().position(|other| *other == piece);
            number.is_some_and(|number| !kept.0.contains(&number))
        };
        self.by_chance &= !goes(Piece::Chance);
        for (place, (_, event)) in self.agenda.iter_mut().enumerate() {
            if let Event::Deed { deed: Deed::Publish { files, .. }, .. } = event {
                let mut number = 0..;
                files.retain(|_| !number.next().is_some_and(|file| goes(Piece::File(place, file))));
            }
        }
        let mut place = 0..;
        self.agenda.retain(|_| !place.next().is_some_and(|place| goes(Piece::Event(place))));
        let gone: Vec<NodeIndex> = (0..self.nodes.len()).filter(|node| goes(Piece::Node(*node))).collect();
        gone.into_iter().rev().for_each(|node| self.remove(node));
        self
    }

    fn remove(&mut self, gone: NodeIndex) {
        let new = |node: NodeIndex| (node != gone).then_some(node - usize::from(node > gone));
        self.nodes.remove(gone);
        for node in &mut self.nodes {
            node.dials = node.dials.iter().filter_map(|peer| new(*peer)).collect();
        }
        let lines = std::mem::take(&mut self.lines).into_iter();
        let both = |((one, other), quality)| Some(((new(one)?, new(other)?), quality));
        self.lines = lines.filter_map(both).collect();
        for one in 0..self.nodes.len() {
            for other in one + 1..self.nodes.len() {
                if !self.lines.contains_key(&(one, other)) && are_neighbours(&self.nodes, one, other) {
                    self.lines.insert((one, other), SPARE_LINE);
                    self.nodes[one].dials.push(other);
                }
            }
        }
        self.agenda.retain_mut(|(_, event)| match event.node_mut() {
            Some(node) => new(*node).map(|new| *node = new).is_some(),
            None => {
                if let Event::Fault(Fault::Part { island, .. }) = event {
                    *island = island.iter().filter_map(|node| new(*node)).collect();
                }
                true
            }
        });
    }

    /// Returns the names of the nodes.
    pub fn names(&self) -> Vec<NodeId> {
        self.nodes.iter().map(|node| node.id.clone()).collect()
    }
}

impl Event {
    /// Returns the one node that an event of an agenda is about.
    fn node_mut(&mut self) -> Option<&mut NodeIndex> {
        match self {
            Self::Deed { node, .. }
            | Self::Fault(
                Fault::Crash { node }
                | Fault::Kill { node }
                | Fault::Restart { node }
                | Fault::Full { node }
                | Fault::Room { node }
                | Fault::BadSync { node }
                | Fault::Clock { node, .. }
                | Fault::Backup { node }
                | Fault::Restore { node },
            ) => Some(node),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn scenario(seed: u64) -> Scenario {
        Scenario::draw(&mut ChaCha8Rng::seed_from_u64(seed))
    }

    #[test]
    fn all_pieces_are_the_story_and_none_is_a_studio_where_nothing_happens() {
        for seed in 0..50 {
            let whole = scenario(seed);
            let all = Kept((0..whole.pieces().len()).collect());
            assert_eq!(format!("{:?}", whole.clone().keep(&all)), format!("{whole:?}"));
            let empty = whole.keep(&Kept::default());
            assert_eq!((empty.nodes.len(), empty.lines.len(), empty.by_chance), (0, 0, false));
            assert!(matches!(empty.agenda.as_slice(), [(_, Event::Fault(Fault::End))]), "{empty:?}");
        }
    }

    #[test]
    fn without_a_node_nothing_speaks_of_it_and_every_project_still_forms_a_chain() {
        for seed in 0..200 {
            let whole = scenario(seed);
            let pieces = whole.pieces();
            let gone = 1 + usize::try_from(seed).unwrap() % whole.nodes.len();
            let kept = Kept((0..pieces.len()).filter(|piece| *piece != gone).collect());
            let (before, name) = (whole.nodes.len(), whole.nodes[gone - 1].id.clone());
            let mut less = whole.keep(&kept);
            assert!(!less.names().contains(&name));
            for (_, event) in &mut less.agenda {
                assert!(event.node_mut().is_none_or(|node| *node < before - 1), "{event:?}");
            }
            for one in 0..before - 1 {
                for other in one + 1..before - 1 {
                    let missing =
                        are_neighbours(&less.nodes, one, other) && !less.lines.contains_key(&(one, other));
                    assert!(!missing, "seed {seed}: no line between {one} and {other}");
                }
            }
        }
    }
}
