//! The closure of a version: all published versions that it was made from, and those that they were made from.
//!
//! A scene can be opened when its closure is here. What the closure is depends on what this node knows: an input without a
//! version means the latest that is known, and the inputs of a version are known when its manifest is here.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::{id::VersionId, inputs::Input, reference::Reference};

/// Most versions of one closure; a lighting scene of a feature has a few hundred.
pub const MAX_CLOSURE_VERSIONS: usize = 20_000;
/// Longest chain from the asked version to an input of inputs. What is farther is told as missing.
pub const MAX_CLOSURE_DEPTH: u32 = 64;
/// Most missing inputs that are listed; the others are counted.
pub const MAX_MISSING: usize = 10_000;

/// What a node knows about versions.
pub trait KnownVersions {
    /// Why asking failed.
    type Error;

    /// Returns the versions that a reference names; the project is always given.
    ///
    /// # Errors
    /// When it cannot be said now.
    fn named(&mut self, reference: &Reference) -> Result<Named, Self::Error>;

    /// Returns what is known of a version that [`Self::named`] gave.
    ///
    /// # Errors
    /// When it cannot be said now.
    fn known(&mut self, version: &VersionId) -> Result<KnownVersion, Self::Error>;
}

/// The versions that a reference names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Named {
    /// These, perhaps none.
    Versions(Vec<VersionId>),
    /// This node does not serve the project.
    OtherProject,
}

/// What is known of one version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KnownVersion {
    /// How many files it has.
    pub files: u64,
    /// Their size.
    pub bytes: u64,
    /// How much of that is at this node.
    pub bytes_here: u64,
    /// Whether all of it is in its place at this node.
    pub is_here: bool,
    /// What it was made from; `None` while its manifest has not come.
    pub inputs: Option<Vec<String>>,
}

/// All that a version needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Closure {
    /// The versions, each once, every version after its inputs; where versions need each other, in the order in which they
    /// were found.
    pub members: Vec<Member>,
    /// What cannot be had, in the order in which it was found.
    pub missing: Vec<Missing>,
    /// How many missing inputs are not listed.
    pub missing_more: u64,
}

impl Closure {
    /// Returns the sizes of all members together: files, bytes, and bytes that are here.
    pub fn totals(&self) -> (u64, u64, u64) {
        self.members.iter().fold((0, 0, 0), |(files, bytes, here), member| {
            let known = &member.known;
            (files + known.files, bytes + known.bytes, here + known.bytes_here)
        })
    }
}

/// One version of a closure.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Which.
    pub version: VersionId,
    /// How many steps it is from what was asked for; 0 for that itself.
    pub depth: u32,
    /// The version that names it, the first that was found; none for what was asked for.
    pub needed_by: Option<VersionId>,
    /// What is known of it.
    pub known: KnownVersion,
}

/// One input that cannot be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// The input as it stands in the manifest.
    pub input: String,
    /// The version that names it.
    pub needed_by: VersionId,
    /// Why.
    pub why: Lack,
}

/// Why an input cannot be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lack {
    /// It is a path that leads to nothing published.
    NotPublished,
    /// No version that this node knows has this name.
    Unknown,
    /// It belongs to a project that this node does not serve.
    OtherProject,
    /// The version is known, and what it was made from is not: its manifest has not come.
    NoManifest,
    /// The closure is larger than the limits.
    TooMany,
}

/// Returns the closure of `roots`, following inputs for `depth` steps at most.
///
/// Each version and each reference is asked for once. Cycles are fine.
///
/// # Errors
/// The first error of `known`.
pub fn closure<K: KnownVersions>(
    roots: &[VersionId],
    depth: u32,
    known: &mut K,
) -> Result<Closure, K::Error> {
    let mut search = Search::default();
    for root in roots {
        search.add(root.clone(), 0, None);
    }
    let depth = depth.min(MAX_CLOSURE_DEPTH);
    while let Some(index) = search.open.pop_front() {
        search.expand(index, depth, known)?;
    }
    Ok(search.finish())
}

#[derive(Debug, Default)]
struct Search {
    members: Vec<Member>,
    /// For each member the members that it names.
    edges: Vec<Vec<usize>>,
    by_version: BTreeMap<VersionId, usize>,
    asked: BTreeMap<String, Named>,
    open: VecDeque<usize>,
    missing: Vec<Missing>,
    missing_more: u64,
}

impl Search {
    /// Returns the member's place; `None` when there is no room for another.
    fn add(&mut self, version: VersionId, depth: u32, needed_by: Option<&VersionId>) -> Option<usize> {
        if let Some(index) = self.by_version.get(&version) {
            return Some(*index);
        }
        let index = self.members.len();
        if index >= MAX_CLOSURE_VERSIONS {
            return None;
        }
        self.by_version.insert(version.clone(), index);
        let needed_by = needed_by.cloned();
        self.members.push(Member { version, depth, needed_by, known: KnownVersion::default() });
        self.edges.push(Vec::new());
        self.open.push_back(index);
        Some(index)
    }

    fn expand<K: KnownVersions>(&mut self, index: usize, most: u32, known: &mut K) -> Result<(), K::Error> {
        let Some(member) = self.members.get_mut(index) else { return Ok(()) };
        member.known = known.known(&member.version)?;
        let (version, depth) = (member.version.clone(), member.depth);
        let Some(inputs) = member.known.inputs.clone() else {
            self.lacks(version.to_string(), &version, Lack::NoManifest);
            return Ok(());
        };
        let mut seen = BTreeSet::new();
        for input in inputs.into_iter().filter(|input| seen.insert(input.clone())) {
            self.input(input, (index, &version, depth), most, known)?;
        }
        Ok(())
    }

    fn input<K: KnownVersions>(
        &mut self,
        input: String,
        (index, version, depth): (usize, &VersionId, u32),
        most: u32,
        known: &mut K,
    ) -> Result<(), K::Error> {
        let Input::Reference(mut reference) = Input::read(&input) else {
            self.lacks(input, version, Lack::NotPublished);
            return Ok(());
        };
        reference.project.get_or_insert_with(|| version.project.clone());
        // A version comes whole, so which of its representations is named makes no difference.
        reference.representation = None;
        let asked = reference.to_string();
        let named = match self.asked.get(&asked) {
            Some(named) => named.clone(),
            None => {
                let named = known.named(&reference)?;
                self.asked.insert(asked, named.clone());
                named
            }
        };
        match named {
            Named::OtherProject => self.lacks(input, version, Lack::OtherProject),
            Named::Versions(versions) if versions.is_empty() => self.lacks(input, version, Lack::Unknown),
            Named::Versions(versions) if depth < most => {
                for needed in versions.into_iter().filter(|needed| needed != version) {
                    match self.add(needed, depth + 1, Some(version)) {
                        Some(member) => {
                            self.edges.get_mut(index).into_iter().for_each(|all| all.push(member))
                        }
                        None => self.lacks(input.clone(), version, Lack::TooMany),
                    }
                }
            }
            Named::Versions(_) if most == MAX_CLOSURE_DEPTH => self.lacks(input, version, Lack::TooMany),
            Named::Versions(_) => {}
        }
        Ok(())
    }

    fn lacks(&mut self, input: String, needed_by: &VersionId, why: Lack) {
        if self.missing.len() < MAX_MISSING {
            self.missing.push(Missing { input, needed_by: needed_by.clone(), why });
        } else {
            self.missing_more += 1;
        }
    }

    /// Sorts the members so that each comes after those that it names.
    fn finish(self) -> Closure {
        let mut order = Vec::with_capacity(self.members.len());
        let mut is_entered = vec![false; self.members.len()];
        for root in 0..self.members.len() {
            // Each entry is a member and how many of those that it names were looked at.
            let mut path = vec![(root, 0)];
            while let Some((index, looked_at)) = path.pop() {
                if looked_at == 0
                    && is_entered.get_mut(index).is_none_or(|seen| std::mem::replace(seen, true))
                {
                    continue;
                }
                match self.edges.get(index).and_then(|edges| edges.get(looked_at)) {
                    Some(next) => path.extend([(index, looked_at + 1), (*next, 0)]),
                    None => order.push(index),
                }
            }
        }
        let mut members: Vec<Option<Member>> = self.members.into_iter().map(Some).collect();
        let members = order.into_iter().filter_map(|index| members.get_mut(index)?.take()).collect();
        Closure { members, missing: self.missing, missing_more: self.missing_more }
    }
}

#[cfg(test)]
mod tests;
