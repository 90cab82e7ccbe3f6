//! Rules that can never apply, because earlier ones always come first.

use super::{
    places::Places,
    problem::listed,
    reader::Reader,
    rule::{ReadRule, Rule},
};

/// Reports every rule that certainly never applies: for each node that it names, an earlier rule matches whatever it matches,
/// and the same holds for the `min_copies` that it gives.
pub(super) fn report(reader: &mut Reader<'_>, rules: &[ReadRule]) {
    for (index, late) in rules.iter().enumerate() {
        let earlier: Vec<&Rule> = rules.iter().take(index).map(|read| &read.rule).collect();
        let Some(covering) = covering(&late.rule, &earlier) else { continue };
        let names: Vec<String> =
            covering.iter().map(|rule| format!("{:?} (line {})", rule.name, rule.line)).collect();
        let verb = if names.len() == 1 { "matches" } else { "match" };
        let reason =
            format!("rule {:?} can never apply: {} {verb} first", late.rule.name, listed(&names, "and"));
        reader.say(late.at, reason, "move it up, narrow what stands before it, or remove it");
    }
}

/// Returns the earlier rules that together leave a rule nothing; `None` when they may leave something.
fn covering<'r>(late: &Rule, earlier: &[&'r Rule]) -> Option<Vec<&'r Rule>> {
    let wider: Vec<&Rule> =
        earlier.iter().copied().filter(|rule| late.criteria.implies(&rule.criteria)).collect();
    let mut covering: Vec<&Rule> = Vec::new();
    for part in parts(&late.places) {
        let first = wider.iter().find(|rule| part.is_within(&rule.places))?;
        covering.push(first);
    }
    if late.min_copies.is_some() {
        // What it says about copies holds everywhere, also where it does not name the node.
        covering.push(wider.iter().find(|rule| rule.min_copies.is_some())?);
    }
    covering.sort_by_key(|rule| rule.line);
    covering.dedup_by_key(|rule| rule.line);
    (!covering.is_empty()).then_some(covering)
}

/// One thing that a list of places names.
enum Part<'p> {
    Everywhere,
    Site(&'p crate::id::SiteName),
    Node(&'p crate::id::NodeId),
}

fn parts(places: &Places) -> impl Iterator<Item = Part<'_>> {
    let everywhere = places.everywhere.then_some(Part::Everywhere).into_iter();
    everywhere.chain(places.sites.iter().map(Part::Site)).chain(places.nodes.iter().map(Part::Node))
}

impl Part<'_> {
    fn is_within(&self, places: &Places) -> bool {
        match self {
            Self::Everywhere => places.everywhere,
            Self::Site(site) => places.contains_site(site),
            Self::Node(node) => places.contains(node),
        }
    }
}
