//! What a node is told of a policy when it may not see every project.
//!
//! A policy names projects and what is in them. A node that may see some of them gets an *extract*: what concerns those, written
//! anew from what was read, so that no comment, name of a rule or name of a group comes along. What it evaluates to for them is the
//! same for its reader, and for every right. Rules begin on the lines on which they stand in the policy, as far as they fit.
//!
//! Rules that name neither the reader nor its site are left out, but for those that say how many copies there must be. A rule that names no
//! project is about all of them: what else it names is told. Nodes and sites are named as the rules, grants, roles and voters that concern its projects name them; all of `[roles]` is kept, because
//! without it a node would have more rights than it has.

use std::{collections::BTreeSet, fmt::Write as _};

use jiff::Timestamp;

use super::{
    Policy, Refused,
    criteria::{Criteria, Field},
    document,
    glob::Glob,
    grants::Grant,
    places::Places,
    rule::{Defaults, Rule, Urgency},
};
use crate::{
    access::{Action, Rights, Role},
    id::NodeId,
};

/// A grant of what its holders may do anyway: without any grant everybody may more.
const KEEPS_GRANTS: &str = "[[grant]]\nto = \"role:admin\"\nprojects = \"*\"\nactions = \"admin\"\n";

impl Policy {
    /// Writes what a node may know of this policy; `role` is that of its certificate. Nothing when that would be too long, or patterns
    /// of projects overlap in too many ways.
    pub fn extract(&self, node: &NodeId, role: Role, now_ms: u64) -> Option<String> {
        let seen = self.access().seen(node, role, now_ms);
        let mut lined = vec![(self.defaults().line, defaults(self.defaults()))];
        let mut names = BTreeSet::new();
        // Of the others only what they say about copies concerns it: that holds at every node.
        let concern = |rule: &&Rule| rule.places.contains(node) || rule.min_copies.is_some();
        for known in self.rules().iter().filter(concern) {
            if let Some(criteria) = narrowed(&known.criteria, &seen)? {
                lined.push((known.line, rule(known, &criteria, &mut names)));
            }
        }
        let mut granted = false;
        for known in self.access().grants() {
            granted = true;
            // A grant for all projects names none, and says who may see what concerns the studio.
            let of_all = known.projects.iter().find(|glob| glob.as_str() == "*");
            let projects = match of_all.filter(|_| !seen.is_empty()) {
                Some(all) => vec![all.clone()],
                None => within(&known.projects, &seen)?,
            };
            if !projects.is_empty() {
                lined.push((known.line, grant(known, &projects)));
            }
        }
        let mut text = format!("schema = {:?}\n", document::SCHEMA);
        lined.sort_by_key(|(line, _)| *line);
        let mut next = 2;
        for (line, part) in &lined {
            let before = line.saturating_sub(next);
            text.extend((0..before).map(|_| '\n'));
            text.push_str(part);
            next += before + u32::try_from(part.lines().count()).ok()?;
        }
        text.push_str(if granted { KEEPS_GRANTS } else { "" });
        text.push_str(&self.rest(&seen)?);
        // Lists may have grown beyond what is read.
        Self::parse_extract(&text).is_ok().then_some(text)
    }

    /// Reads an extract. A rule that can never apply, and minimums that cannot be reached, are no problem of it: what was
    /// left out may be why.
    ///
    /// # Errors
    /// [`Refused`] has every problem.
    pub fn parse_extract(text: &str) -> Result<Self, Refused> {
        document::read_extract(text)
    }

    /// What has no line to stand on: roles, voters and checks.
    fn rest(&self, seen: &[Glob]) -> Option<String> {
        let mut text = String::new();
        let roles: Vec<String> =
            self.access().roles().map(|(role, places)| format!("{role} = {}\n", of_places(places))).collect();
        if !roles.is_empty() {
            text.push_str("[roles]\n");
            text.extend(roles);
        }
        if !self.voters().is_empty() {
            let voters = self.voters().iter().map(ToString::to_string);
            let _ = writeln!(text, "[numbers]\nvoters = {}", list(voters));
        }
        let (off, rules) = self.checks().parts();
        if !off.is_empty() {
            let _ = writeln!(text, "[checks]\noff = {}", list(off.iter().map(ToString::to_string)));
        }
        for (criteria, off) in rules {
            if let Some(criteria) = narrowed(criteria, seen)? {
                let off = list(off.iter().map(ToString::to_string));
                let _ = writeln!(text, "[[check]]\nmatch = {}\noff = {off}", of_criteria(&criteria));
            }
        }
        Some(text)
    }
}

/// Returns patterns of the names that one of `globs` matches and one of `seen`; nothing when they are too many.
fn within(globs: &[Glob], seen: &[Glob]) -> Option<Vec<Glob>> {
    let mut both: Vec<Glob> = Vec::new();
    for (one, other) in globs.iter().flat_map(|one| seen.iter().map(move |other| (one, other))) {
        for glob in one.common(other)? {
            if !both.iter().any(|known| known.covers(&glob)) {
                both.retain(|known| !glob.covers(known));
                both.push(glob);
            }
        }
    }
    Some(both)
}

/// Returns criteria that say the same about projects that are seen, and nothing about others; the inner nothing when no such project
/// matches, the outer when it cannot be written.
fn narrowed(criteria: &Criteria, seen: &[Glob]) -> Option<Option<Criteria>> {
    let mut criteria = criteria.clone();
    let projects = match criteria.fields.get(&Field::Project) {
        Some(globs) => within(globs, seen)?,
        None => seen.to_vec(),
    };
    let is_about_all = projects.iter().any(|glob| glob.as_str() == "*");
    if projects.is_empty() {
        return Some(None);
    }
    if criteria.fields.contains_key(&Field::Project) || !is_about_all {
        criteria.fields.insert(Field::Project, projects);
    }
    Some(Some(criteria))
}

fn text(value: &str) -> String {
    toml::Value::String(value.to_owned()).to_string()
}

fn list(values: impl Iterator<Item = String>) -> String {
    format!("[{}]", values.map(|value| text(&value)).collect::<Vec<_>>().join(", "))
}

/// What places come to, without the groups.
fn entries(places: &Places) -> impl Iterator<Item = String> {
    let everywhere = places.everywhere.then(|| "*".to_owned()).into_iter();
    let sites = places.sites.iter().map(ToString::to_string);
    everywhere.chain(sites).chain(places.nodes.iter().map(ToString::to_string))
}

fn of_places(places: &Places) -> String {
    list(entries(places))
}

fn of_globs(globs: &[Glob]) -> String {
    list(globs.iter().map(ToString::to_string))
}

fn of_criteria(criteria: &Criteria) -> String {
    let mut parts = Vec::new();
    let mut metadata = Vec::new();
    for (field, globs) in &criteria.fields {
        match field {
            Field::Metadata(key) => metadata.push(format!("{} = {}", text(key), of_globs(globs))),
            plain => parts.push(format!("{plain} = {}", of_globs(globs))),
        }
    }
    if !metadata.is_empty() {
        parts.push(format!("metadata = {{ {} }}", metadata.join(", ")));
    }
    parts.extend(criteria.hero.map(|hero| format!("hero = {hero}")));
    parts.extend(criteria.latest.map(|latest| format!("latest = {latest}")));
    parts.extend(criteria.older_than.map(|age| format!("older_than = \"{age}\"")));
    parts.extend(criteria.younger_than.map(|age| format!("younger_than = \"{age}\"")));
    format!("{{ {} }}", parts.join(", "))
}

fn defaults(defaults: &Defaults) -> String {
    let Defaults { keep, min_copies, urgency, keep_last, read_only, retire_after, line: _ } = defaults;
    // What is usual is left out: the lines are needed.
    let mut text = format!("[defaults]\nkeep = \"{keep}\"\nmin_copies = {min_copies}\n");
    text.push_str(&if *urgency == Urgency::Normal {
        String::new()
    } else {
        format!("priority = \"{urgency}\"\n")
    });
    text.push_str(if *read_only { "read_only = true\n" } else { "" });
    text.extend(keep_last.map(|last| format!("keep_last = {last}\n")));
    text.extend(retire_after.map(|age| format!("retire_after = \"{age}\"\n")));
    text
}

fn rule(rule: &Rule, criteria: &Criteria, names: &mut BTreeSet<String>) -> String {
    let Rule { name: _, line, criteria: _, places, keep, urgency, min_copies, keep_last, read_only, when } =
        rule;
    let mut name = format!("line {line}");
    while !names.insert(name.clone()) {
        name.push('+');
    }
    let mut text = format!(
        "[[rule]]\nname = \"{name}\"\nmatch = {}\nsites = {}\nkeep = \"{keep}\"\n",
        of_criteria(criteria),
        of_places(places)
    );
    text.extend(urgency.map(|urgency| format!("priority = \"{urgency}\"\n")));
    text.extend(min_copies.map(|copies| format!("min_copies = {copies}\n")));
    text.extend(keep_last.map(|last| format!("keep_last = {last}\n")));
    text.extend(read_only.map(|flag| format!("read_only = {flag}\n")));
    text.extend(
        when.as_ref().map(|when| format!("when = {}\n", list(when.0.iter().map(ToString::to_string)))),
    );
    text
}

fn grant(grant: &Grant, projects: &[Glob]) -> String {
    let Grant { line: _, roles, places, projects: _, rights, until_ms } = grant;
    let roles = roles.iter().map(|role| format!("role:{role}"));
    let to = list(roles.chain(entries(places)));
    let projects = of_globs(projects);
    let mut text = format!("[[grant]]\nto = {to}\nprojects = {projects}\nactions = {}\n", of_rights(*rights));
    let until = until_ms.and_then(|ms| Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok());
    text.extend(until.map(|until| format!("until = \"{until}\"\n")));
    text
}

fn of_rights(rights: Rights) -> String {
    list(Action::ALL.into_iter().filter(|action| rights.allows(*action)).map(|action| action.to_string()))
}
