//! Which nodes a rule is about: sites, nodes, groups of them, or all.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Spanned, de::DeTable};

use super::{
    problem::{listed, nearest},
    reader::{At, Reader},
};
use crate::id::{NodeId, SiteName};

/// What is known of the studio while a policy is checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Studio {
    /// All of its sites.
    pub sites: BTreeSet<SiteName>,
    /// All of its nodes; `None` when only the sites are known.
    pub nodes: Option<BTreeSet<NodeId>>,
}

impl Studio {
    /// A studio of whose nodes nothing is known.
    pub fn of_sites(sites: impl IntoIterator<Item = SiteName>) -> Self {
        Self { sites: sites.into_iter().collect(), nodes: None }
    }

    /// A studio of these nodes, at their sites.
    pub fn of_nodes(nodes: impl IntoIterator<Item = NodeId>) -> Self {
        let nodes: BTreeSet<NodeId> = nodes.into_iter().collect();
        Self { sites: nodes.iter().map(|node| node.site.clone()).collect(), nodes: Some(nodes) }
    }
}

/// The nodes that a rule names, groups resolved.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Places {
    /// Whether it names all, as `*`.
    pub everywhere: bool,
    /// The sites, with all of their nodes.
    pub sites: BTreeSet<SiteName>,
    /// The nodes that are named themselves.
    pub nodes: BTreeSet<NodeId>,
    /// As the document says it, in its order.
    pub written: Vec<String>,
}

impl Places {
    /// Says whether a node is named, itself or with its site.
    pub fn contains(&self, node: &NodeId) -> bool {
        self.everywhere || self.sites.contains(&node.site) || self.nodes.contains(node)
    }

    /// Says whether every node of a site is named, also one that joins tomorrow.
    pub(super) fn contains_site(&self, site: &SiteName) -> bool {
        self.everywhere || self.sites.contains(site)
    }

    /// Returns what it names as the document does: `@offices or archive`.
    pub(super) fn words(&self) -> String {
        listed(&self.written, "or")
    }

    fn add(&mut self, other: &Self) {
        self.everywhere |= other.everywhere;
        self.sites.extend(other.sites.iter().cloned());
        self.nodes.extend(other.nodes.iter().cloned());
    }
}

/// The groups of a document, resolved.
#[derive(Debug, Default)]
pub(super) struct Groups {
    groups: BTreeMap<String, Places>,
}

/// One group as it is written.
#[derive(Debug)]
struct Written<'v> {
    at: usize,
    entries: Vec<At<&'v str>>,
}

impl Groups {
    /// Reads and resolves the groups; reports bad names, unknown entries and cycles. What has a problem is left out.
    pub(super) fn read(reader: &mut Reader<'_>, table: &DeTable<'_>, studio: Option<&Studio>) -> Self {
        let mut written = BTreeMap::new();
        for (key, value) in table {
            check_name(reader, key);
            let entries = reader.strings(value, key.get_ref());
            written.insert(key.get_ref().to_string(), Written { at: key.span().start, entries });
        }
        report_cycles(reader, &written);
        let names: BTreeMap<String, Places> =
            written.keys().map(|name| (name.clone(), Places::default())).collect();
        let unresolved = Self { groups: names };
        for (name, group) in &written {
            // Entries are checked here once; resolving below is silent.
            unresolved.places(reader, &group.entries, &format!("group `{name}`"), studio);
        }
        let groups = written.keys().map(|name| (name.clone(), resolve(name, &written))).collect();
        Self { groups }
    }

    /// Resolves what a rule or a group names; reports what is unknown.
    pub(super) fn places(
        &self,
        reader: &mut Reader<'_>,
        entries: &[At<&str>],
        place: &str,
        studio: Option<&Studio>,
    ) -> Places {
        let mut places = Places::default();
        for entry in entries {
            match Entry::parse(entry.value) {
                Some(Entry::Group(name)) => match self.groups.get(name) {
                    Some(group) => places.add(group),
                    None => self.report_unknown_group(reader, entry, name, place),
                },
                Some(Entry::Site(site)) if self.groups.contains_key(site.as_str()) => {
                    reader.say(
                        entry.at,
                        format!("{place}: `{site}` is a group"),
                        format!("write \"@{site}\""),
                    );
                }
                Some(plain) => {
                    report_unknown(reader, entry, &plain, place, studio);
                    plain.add_to(&mut places);
                }
                None => {
                    let reason = format!("{place}: {:?} names no place", entry.value);
                    reader.say(entry.at, reason, "write a site, node@site, @group, or \"*\" for all");
                }
            }
            places.written.push(entry.value.to_owned());
        }
        places
    }

    fn report_unknown_group(&self, reader: &mut Reader<'_>, entry: &At<&str>, name: &str, place: &str) {
        let known = self.groups.keys().map(String::as_str);
        let advice = match nearest(name, known) {
            Some(meant) => format!("did you mean \"@{meant}\"?"),
            None => "define it in [groups]".to_owned(),
        };
        reader.say(entry.at, format!("{place}: there is no group `{name}`"), advice);
    }

    /// Returns how many there are.
    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }
}

/// One thing that a list of places names.
enum Entry<'e> {
    Everywhere,
    Group(&'e str),
    Site(SiteName),
    Node(NodeId),
}

impl<'e> Entry<'e> {
    fn parse(text: &'e str) -> Option<Self> {
        if text == "*" {
            return Some(Self::Everywhere);
        }
        if let Some(group) = text.strip_prefix('@') {
            return Some(Self::Group(group));
        }
        if text.contains('@') {
            return text.parse().ok().map(Self::Node);
        }
        text.parse().ok().map(Self::Site)
    }

    fn add_to(self, places: &mut Places) {
        match self {
            Self::Everywhere => places.everywhere = true,
            Self::Group(_) => {}
            Self::Site(site) => drop(places.sites.insert(site)),
            Self::Node(node) => drop(places.nodes.insert(node)),
        }
    }
}

/// Groups are named as sites are, so that a list can hold both.
fn check_name(reader: &mut Reader<'_>, key: &Spanned<std::borrow::Cow<'_, str>>) {
    if key.get_ref().parse::<SiteName>().is_err() {
        let reason = format!("{:?} is no name for a group", key.get_ref());
        reader.say(key.span().start, reason, "write 1 to 63 of a-z, 0-9 and '-', not at either end");
    }
}

fn report_unknown(
    reader: &mut Reader<'_>,
    entry: &At<&str>,
    named: &Entry<'_>,
    place: &str,
    studio: Option<&Studio>,
) {
    let Some(studio) = studio else { return };
    let site = match named {
        Entry::Site(site) => site,
        Entry::Node(node) => {
            let unknown = studio.nodes.as_ref().filter(|nodes| !nodes.contains(node));
            if let Some(nodes) = unknown.filter(|_| studio.sites.contains(&node.site)) {
                let known: Vec<String> = nodes.iter().map(ToString::to_string).collect();
                let advice = suggestion(&node.to_string(), known.iter().map(String::as_str), "nodes");
                reader.say(entry.at, format!("{place}: the studio has no node `{node}`"), advice);
            }
            &node.site
        }
        Entry::Everywhere | Entry::Group(_) => return,
    };
    if !studio.sites.contains(site) {
        let advice = suggestion(site.as_str(), studio.sites.iter().map(SiteName::as_str), "sites");
        reader.say(entry.at, format!("{place}: the studio has no site `{site}`"), advice);
    }
}

fn suggestion<'k>(word: &str, known: impl Iterator<Item = &'k str> + Clone, what: &str) -> String {
    match nearest(word, known.clone()) {
        Some(meant) => format!("did you mean {meant:?}?"),
        None => format!("known {what}: {}", known.collect::<Vec<_>>().join(", ")),
    }
}

/// Reports each cycle once, at the member that comes first by name.
fn report_cycles(reader: &mut Reader<'_>, written: &BTreeMap<String, Written<'_>>) {
    for (name, group) in written {
        let Some(path) = way_back(name, written) else { continue };
        if path.iter().any(|member| member < name) {
            continue;
        }
        let members: Vec<String> = path.iter().chain([name]).map(|member| format!("@{member}")).collect();
        let reason = format!("groups contain each other: {}", members.join(" -> "));
        reader.say(group.at, reason, "remove one of them from the other");
    }
}

/// Returns the shortest way from a group through its members to itself: the group first, then those that it goes through.
fn way_back(start: &str, written: &BTreeMap<String, Written<'_>>) -> Option<Vec<String>> {
    let mut ways = vec![vec![start.to_owned()]];
    let mut seen = BTreeSet::new();
    while !ways.is_empty() {
        let mut longer = Vec::new();
        for way in ways {
            let group = way.last().and_then(|last| written.get(last));
            for next in group
                .iter()
                .flat_map(|group| &group.entries)
                .filter_map(|entry| entry.value.strip_prefix('@'))
            {
                if next == start {
                    return Some(way);
                }
                if seen.insert(next.to_owned()) {
                    longer.push(way.iter().cloned().chain([next.to_owned()]).collect());
                }
            }
        }
        ways = longer;
    }
    None
}

/// Collects what a group names, however deep; a cycle ends where it began.
fn resolve(name: &str, written: &BTreeMap<String, Written<'_>>) -> Places {
    let (mut places, mut seen, mut open) = (Places::default(), BTreeSet::new(), vec![name]);
    while let Some(name) = open.pop() {
        let group = written.get(name).filter(|_| seen.insert(name));
        for entry in group.iter().flat_map(|group| &group.entries) {
            match Entry::parse(entry.value) {
                Some(Entry::Group(inner)) => open.push(inner),
                Some(plain) => plain.add_to(&mut places),
                None => {}
            }
        }
    }
    places
}
