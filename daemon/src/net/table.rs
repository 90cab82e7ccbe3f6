//! Which connections there are, and which of two with one peer is kept. Pure.
//!
//! Both ends see the same two connections, perhaps in different order, and must keep the same one. Of two that were
//! dialled from different ends, the one that the node with the smaller name dialled stays. Of two that were dialled from
//! one end, that end decides, and keeps the older; the other end keeps both until then, because for it the older may be
//! one that the dialler lost.

use std::collections::BTreeMap;

use avalon_protocol::id::NodeId;

/// Connections in all: ten times a large studio.
pub(crate) const MAX_CONNECTIONS: usize = 256;

/// Connections with one node: one, another on its way, and what is left of a network change or two.
pub(crate) const MAX_NODE_CONNECTIONS: usize = 4;

/// Which side dialled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// This one.
    Dialled,
    /// The peer.
    Accepted,
}

/// Which connection; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(u64);

/// A handle to a connection, as far as the table cares.
pub(crate) trait Handle: Clone {
    /// Says whether the connection still stands.
    fn is_open(&self) -> bool;
    /// Returns the number that the peer's daemon drew at its start.
    fn instance(&self) -> u64;
}

#[derive(Debug)]
struct Entry<L> {
    node: NodeId,
    direction: Direction,
    greeted: Option<L>,
}

/// Why no more connections are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Full {
    /// The node has enough.
    Node,
    /// There are enough in all.
    All,
}

/// What becomes of a connection that was greeted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict<L> {
    /// It is used; these others are to be closed.
    Kept {
        /// The connections that it replaces.
        superseded: Vec<L>,
    },
    /// It is the one to close.
    Surplus,
    /// Another daemon is connected under this name, if it still lives.
    OtherInstance {
        /// The connection of that daemon.
        existing: L,
    },
}

/// All connections of this node.
#[derive(Debug)]
pub(crate) struct Table<L> {
    local: NodeId,
    next: u64,
    /// In the order in which they were made or greeted.
    entries: BTreeMap<Key, Entry<L>>,
}

impl<L: Handle> Table<L> {
    pub(crate) fn new(local: NodeId) -> Self {
        Self { local, next: 0, entries: BTreeMap::new() }
    }

    /// Takes in a connection whose handshake is done.
    pub(crate) fn enter(&mut self, node: &NodeId, direction: Direction) -> Result<Key, Full> {
        if self.entries.len() >= MAX_CONNECTIONS {
            return Err(Full::All);
        }
        if self.entries.values().filter(|entry| entry.node == *node).count() >= MAX_NODE_CONNECTIONS {
            return Err(Full::Node);
        }
        let key = Key(self.next);
        self.next += 1;
        self.entries.insert(key, Entry { node: node.clone(), direction, greeted: None });
        Ok(key)
    }

    /// Decides about a connection whose greeting was accepted.
    pub(crate) fn greet(&mut self, key: Key, link: &L) -> Verdict<L> {
        let Some(entry) = self.entries.get(&key) else { return Verdict::Surplus };
        let (node, direction) = (entry.node.clone(), entry.direction);
        let mut others: Vec<(Key, Direction, L)> = Vec::new();
        for (other, entry) in
            self.entries.iter().filter(|(other, entry)| **other != key && entry.node == node)
        {
            match &entry.greeted {
                Some(link) if link.is_open() => others.push((*other, entry.direction, link.clone())),
                _ => {}
            }
        }
        if let Some((_, _, existing)) =
            others.iter().find(|(_, _, other)| other.instance() != link.instance())
        {
            return Verdict::OtherInstance { existing: existing.clone() };
        }
        let preferred = if self.local < node { Direction::Dialled } else { Direction::Accepted };
        let loses_to = |other: Direction| match direction {
            Direction::Dialled if other == Direction::Dialled => true,
            own => other == preferred && own != preferred,
        };
        if others.iter().any(|(_, other, _)| loses_to(*other)) {
            return Verdict::Surplus;
        }
        others.retain(|(_, other, _)| *other != direction);
        for (other, _, _) in &others {
            self.entries.entry(*other).and_modify(|entry| entry.greeted = None);
        }
        self.entries.entry(key).and_modify(|entry| entry.greeted = Some(link.clone()));
        Verdict::Kept { superseded: others.into_iter().map(|(_, _, link)| link).collect() }
    }

    /// Takes out a connection that ended; says whether it was its node's last that was greeted.
    pub(crate) fn leave(&mut self, key: Key) -> bool {
        let Some(entry) = self.entries.remove(&key) else { return false };
        entry.greeted.is_some() && self.link(&entry.node).is_none()
    }

    /// Returns the newest connection with a node.
    pub(crate) fn link(&self, node: &NodeId) -> Option<L> {
        let of_node = self.entries.values().rev().filter(|entry| entry.node == *node);
        of_node.filter_map(|entry| entry.greeted.clone()).find(Handle::is_open)
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the newest connection with each node.
    pub(crate) fn links(&self) -> BTreeMap<NodeId, L> {
        let greeted = self.entries.values().filter_map(|entry| Some((&entry.node, entry.greeted.as_ref()?)));
        let open = greeted.filter(|(_, link)| link.is_open());
        open.map(|(node, link)| (node.clone(), link.clone())).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, rc::Rc};

    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq)]
    struct Toy {
        name: &'static str,
        instance: u64,
        closed: Rc<Cell<bool>>,
    }

    impl Handle for Toy {
        fn is_open(&self) -> bool {
            !self.closed.get()
        }
        fn instance(&self) -> u64 {
            self.instance
        }
    }

    fn toy(name: &'static str) -> Toy {
        Toy { name, instance: 1, closed: Rc::default() }
    }

    fn node(name: &str) -> NodeId {
        name.parse().unwrap()
    }

    /// Greets the two connections in an order and returns the names of those that are open after it.
    fn survivors(local: &str, peer: &str, order: &[(&'static str, Direction)]) -> Vec<&'static str> {
        let mut table = Table::new(node(local));
        let mut open = Vec::new();
        for (name, direction) in order {
            let (key, link) = (table.enter(&node(peer), *direction).unwrap(), toy(name));
            match table.greet(key, &link) {
                Verdict::Kept { superseded } => {
                    superseded.iter().for_each(|old| old.closed.set(true));
                    open.push(link);
                }
                Verdict::Surplus => link.closed.set(true),
                Verdict::OtherInstance { .. } => panic!("one instance"),
            }
        }
        open.retain(Handle::is_open);
        assert_eq!(table.link(&node(peer)).map(|link| link.name), open.last().map(|link| link.name));
        open.into_iter().map(|link| link.name).collect()
    }

    #[test]
    fn both_ends_keep_the_connection_that_the_smaller_name_dialled() {
        use Direction::{Accepted, Dialled};
        let at_small = [("by small", Dialled), ("by large", Accepted)];
        let at_large = [("by small", Accepted), ("by large", Dialled)];
        let reversed = |order: [_; 2]| [order[1], order[0]];
        for order in [at_small, reversed(at_small)] {
            assert_eq!(survivors("a@x", "b@x", &order), ["by small"]);
        }
        for order in [at_large, reversed(at_large)] {
            assert_eq!(survivors("b@x", "a@x", &order), ["by small"]);
        }
    }

    #[test]
    fn of_two_that_one_end_dialled_that_end_closes_the_newer() {
        use Direction::{Accepted, Dialled};
        assert_eq!(survivors("a@x", "b@x", &[("old", Dialled), ("new", Dialled)]), ["old"]);
        assert_eq!(survivors("b@x", "a@x", &[("old", Accepted), ("new", Accepted)]), ["old", "new"]);
    }

    #[test]
    fn a_node_is_down_when_its_last_connection_leaves() {
        let mut table = Table::new(node("b@x"));
        let keys: Vec<Key> =
            (0..2).map(|_| table.enter(&node("a@x"), Direction::Accepted).unwrap()).collect();
        let ungreeted = table.enter(&node("a@x"), Direction::Accepted).unwrap();
        for key in &keys {
            table.greet(*key, &toy("x"));
        }
        assert_eq!(table.links().len(), 1);
        assert!(!table.leave(keys[1]));
        assert!(table.link(&node("a@x")).is_some());
        assert!(table.leave(keys[0]));
        assert!(!table.leave(ungreeted));
    }

    #[test]
    fn another_instance_counts_only_while_its_connection_stands() {
        let mut table = Table::new(node("b@x"));
        let old = toy("old");
        let key = table.enter(&node("a@x"), Direction::Accepted).unwrap();
        table.greet(key, &old);
        let key = table.enter(&node("a@x"), Direction::Accepted).unwrap();
        let new = Toy { instance: 2, ..toy("new") };
        assert_eq!(table.greet(key, &new), Verdict::OtherInstance { existing: old.clone() });
        old.closed.set(true);
        assert_eq!(table.greet(key, &new), Verdict::Kept { superseded: vec![] });
    }

    #[test]
    fn connections_are_capped_per_node_and_in_all() {
        let mut table: Table<Toy> = Table::new(node("b@x"));
        for _ in 0..MAX_NODE_CONNECTIONS {
            table.enter(&node("a@x"), Direction::Accepted).unwrap();
        }
        assert_eq!(table.enter(&node("a@x"), Direction::Accepted), Err(Full::Node));
        for i in MAX_NODE_CONNECTIONS..MAX_CONNECTIONS {
            table.enter(&node(&format!("n{i}@x")), Direction::Accepted).unwrap();
        }
        assert_eq!(table.enter(&node("z@x"), Direction::Dialled), Err(Full::All));
    }
}
