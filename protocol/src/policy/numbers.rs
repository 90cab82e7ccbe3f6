//! Which nodes promise numbers: `[numbers]` with `voters`.

use std::collections::{BTreeMap, BTreeSet};

use toml::{Spanned, de::DeTable};

use super::{places::Studio, problem::nearest, reader::Reader};
use crate::id::{NodeId, SiteName};

const KEYS: [&str; 1] = ["voters"];
/// Most voters: a number is asked for at most of them, one after the other.
const MAX_VOTERS: usize = 9;

/// Reads `[numbers]`; reports what is unknown or wrong.
pub(super) fn read(
    reader: &mut Reader<'_>,
    document: &DeTable<'_>,
    studio: Option<&Studio>,
) -> BTreeSet<NodeId> {
    let Some(value) = document.get("numbers") else { return BTreeSet::new() };
    let Some(table) = reader.table(value, "numbers") else { return BTreeSet::new() };
    for key in table.keys().filter(|key| !KEYS.contains(&key.get_ref().as_ref())) {
        reader.unknown_key(key, "[numbers]", &KEYS);
    }
    let Some(voters) = table.get("voters") else {
        let advice = "name one node of each site that has a voice, or remove [numbers]";
        reader.missing(value.span().start, "voters", "[numbers]", advice);
        return BTreeSet::new();
    };
    read_voters(reader, voters, studio)
}

fn read_voters(
    reader: &mut Reader<'_>,
    value: &Spanned<toml::de::DeValue<'_>>,
    studio: Option<&Studio>,
) -> BTreeSet<NodeId> {
    let mut at_site: BTreeMap<SiteName, NodeId> = BTreeMap::new();
    for written in reader.strings(value, "voters") {
        let node: NodeId = match written.value.parse() {
            Ok(node) => node,
            Err(error) => {
                let reason = format!("{:?} is no node: {error}", written.value);
                reader.say(written.at, reason, "write NODE@SITE, such as \"srv@london\"");
                continue;
            }
        };
        if let Some(known) = studio.and_then(|studio| studio.nodes.as_ref())
            && !known.contains(&node)
        {
            let names: Vec<String> = known.iter().map(ToString::to_string).collect();
            let advice = match nearest(written.value, names.iter().map(String::as_str)) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => format!("known are {}", names.join(", ")),
            };
            reader.say(written.at, format!("the studio has no node {node}"), advice);
        }
        match at_site.get(&node.site) {
            Some(other) if *other == node => {
                reader.say(written.at, format!("{node} is named twice"), "name it once");
            }
            Some(other) => {
                let reason = format!("{node} and {other} are at one site, which has one voice");
                reader.say(written.at, reason, "name the one that is always on");
            }
            None => drop(at_site.insert(node.site.clone(), node)),
        }
    }
    if at_site.len() > MAX_VOTERS {
        let reason = format!("{} voters; at most {MAX_VOTERS} are accepted", at_site.len());
        reader.say(value.span().start, reason, "name the sites that are connected best");
    }
    at_site.into_values().collect()
}

#[cfg(test)]
mod tests {
    use crate::policy::{Policy, Studio};

    fn read(numbers: &str) -> Result<Vec<String>, String> {
        let defaults = "[defaults]\nkeep = \"here\"\nmin_copies = 1";
        let text = format!("schema = \"avalon.policy/1\"\n\n{numbers}\n{defaults}\n");
        let nodes = ["srv@london", "ws1@london", "srv@montreal", "nas@home"].map(|n| n.parse().unwrap());
        let policy = Policy::check(&text, Some(&Studio::of_nodes(nodes)));
        policy
            .map(|policy| policy.voters().iter().map(ToString::to_string).collect())
            .map_err(|refused| refused.to_string())
    }

    #[test]
    fn one_node_of_each_site_may_have_a_voice() {
        assert_eq!(read("").unwrap(), Vec::<String>::new());
        let voters = read("[numbers]\nvoters = [\"srv@montreal\", \"srv@london\", \"nas@home\"]").unwrap();
        assert_eq!(voters, ["nas@home", "srv@london", "srv@montreal"]);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_line() {
        for (numbers, says) in [
            ("[numbers]\nvoters = [\"srv@london\", \"ws1@london\"]", "are at one site, which has one voice"),
            ("[numbers]\nvoters = [\"srv@london\", \"srv@london\"]", "srv@london is named twice"),
            ("[numbers]\nvoters = [\"srv@lundon\"]", "did you mean \"srv@london\"?"),
            ("[numbers]\nvoters = [\"london\"]", "is no node"),
            ("[numbers]\nvoters = []", "the list `voters` is empty"),
            ("[numbers]\nvoter = \"srv@london\"", "did you mean `voters`?"),
            ("numbers = 3", "`numbers` is a number"),
        ] {
            let problem = read(numbers).unwrap_err();
            assert!(problem.contains(says) && problem.contains("line "), "{problem}");
        }
    }
}
