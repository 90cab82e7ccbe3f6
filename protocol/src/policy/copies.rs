//! Minimums that the policy itself cannot reach.
//!
//! `min_copies` is a promise of the policy: so many different sites keep the version, by rule, wherever it was published.
//! A copy that happens to be where somebody published or pulled is a help, and nothing to rely on: it would never be given
//! free there. One copy is always there, at whoever published.

use std::collections::BTreeSet;

use super::{
    criteria::Criteria,
    places::Studio,
    reader::Reader,
    rule::{Defaults, Keep, ReadRule},
};
use crate::id::{NodeId, SiteName};

/// Reports each `min_copies` that is certainly more than the number of sites at which a version that it is about may be kept.
/// Without the studio's sites, rules and defaults that speak of all sites stand for as many as one likes.
pub(super) fn report(
    reader: &mut Reader<'_>,
    rules: &[ReadRule],
    defaults: (&Defaults, usize),
    studio: Option<&Studio>,
) {
    let (defaults, defaults_at) = defaults;
    let rule_minimums = rules.iter().filter_map(|read| {
        let (rule, at) = (&read.rule, read.min_copies_at);
        rule.min_copies.map(|copies| (format!("rule {:?}", rule.name), &rule.criteria, copies, at))
    });
    let all = Criteria::default();
    let of_defaults = (String::from("[defaults]"), &all, defaults.min_copies, defaults_at);
    let minimums: Vec<_> = rule_minimums.chain([of_defaults]).collect();
    for (shown, criteria, copies, at) in minimums.into_iter().filter(|(_, _, copies, _)| *copies > 1) {
        let Some(sites) = keeping_sites(criteria, rules, defaults, studio) else { continue };
        let found = u32::try_from(sites.len()).unwrap_or(u32::MAX);
        if found < copies {
            let names: Vec<&str> = sites.iter().map(|site| site.as_str()).collect();
            let names = match names.len() {
                0 => "no site".to_owned(),
                1 => format!("1 site: {}", names.join(", ")),
                count => format!("{count} sites: {}", names.join(", ")),
            };
            let reason = format!(
                "{shown}: `min_copies` is {copies}, and the policy keeps what it is about \"here\" at {names}"
            );
            reader.say(at, reason, "lower it, or add a rule with keep = \"here\" for more sites");
        }
    }
}

/// Returns all sites at which a version that matches may be kept; `None` when there is no end of them.
fn keeping_sites(
    criteria: &Criteria,
    rules: &[ReadRule],
    defaults: &Defaults,
    studio: Option<&Studio>,
) -> Option<BTreeSet<SiteName>> {
    let nodes: BTreeSet<&NodeId> = rules.iter().flat_map(|read| &read.rule.places.nodes).collect();
    let mut sites: BTreeSet<&SiteName> = rules.iter().flat_map(|read| &read.rule.places.sites).collect();
    sites.extend(nodes.iter().map(|node| &node.site));
    match studio {
        Some(studio) => sites = studio.sites.iter().collect(),
        None => {
            // A site that no rule names: when it may keep the version, so may any number of others.
            if may_keep(&|rule| rule.rule.places.everywhere, criteria, rules, defaults) {
                return None;
            }
        }
    }
    let keeps = |site: &SiteName| {
        let any_node = |read: &ReadRule| read.rule.places.contains_site(site);
        may_keep(&any_node, criteria, rules, defaults)
            || nodes
                .iter()
                .filter(|node| node.site == *site)
                .any(|node| may_keep(&|read| read.rule.places.contains(node), criteria, rules, defaults))
    };
    Some(sites.into_iter().filter(|site| keeps(site)).cloned().collect())
}

/// Says whether a node that the rules name so may keep a version that matches: whether a rule that keeps it, or the defaults,
/// can be reached past the earlier rules.
fn may_keep(
    names: &dyn Fn(&ReadRule) -> bool,
    criteria: &Criteria,
    rules: &[ReadRule],
    defaults: &Defaults,
) -> bool {
    for read in rules.iter().filter(|read| names(read) && !read.rule.criteria.excludes(criteria)) {
        if read.rule.keep == Keep::Here {
            return true;
        }
        if criteria.implies(&read.rule.criteria) {
            return false;
        }
    }
    defaults.keep == Keep::Here
}
