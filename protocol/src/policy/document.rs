//! The document: from text to a checked [`Policy`].

use std::collections::{BTreeMap, BTreeSet};

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use super::{
    age::Age,
    checks::{self, CheckRules},
    copies,
    grants::{self, Access},
    numbers, overlap,
    places::{Groups, Studio},
    problem::Refused,
    reader::Reader,
    rule::{self, Defaults, ReadRule, Rule},
};
use crate::{id::NodeId, limits::MAX_POLICY_BYTES, version_fold::DEFAULT_UNDO_MS};

/// What a document says of itself first.
pub const SCHEMA: &str = "avalon.policy/1";
/// Longest document in bytes: with its author and comment it fits one record, whose limit is
/// [`MAX_RECORD_BYTES`](crate::limits::MAX_RECORD_BYTES).
pub const MAX_DOCUMENT_BYTES: usize = MAX_POLICY_BYTES;
/// Most rules: a node asks each of them about each version, and a person has to see through them.
pub const MAX_RULES: usize = 256;

const KEYS: [&str; 9] =
    ["schema", "groups", "defaults", "rule", "checks", "check", "numbers", "roles", "grant"];

/// A checked policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    rules: Vec<Rule>,
    defaults: Defaults,
    checks: CheckRules,
    voters: BTreeSet<NodeId>,
    access: Access,
    groups: usize,
}

impl Policy {
    /// Reads a document by itself, as a node does that was sent it: what the studio looks like is not asked.
    ///
    /// # Errors
    /// [`Refused`] has every problem, with line and advice.
    pub fn parse(text: &str) -> Result<Self, Refused> {
        Self::check(text, None)
    }

    /// Reads a document. With the studio's sites and nodes, names that it does not have and minimums that it cannot reach are
    /// problems as well.
    ///
    /// # Errors
    /// [`Refused`] has every problem, with line and advice.
    pub fn check(text: &str, studio: Option<&Studio>) -> Result<Self, Refused> {
        checked(text, studio, Care::WithEachOther)
    }

    /// Returns the rules in their order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Returns what holds where no rule does.
    pub fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// Returns which checks are turned off.
    pub fn checks(&self) -> &CheckRules {
        &self.checks
    }

    /// Returns the nodes that promise numbers to who asks before publishing; none unless the studio wants that. At most one at
    /// each site.
    pub fn voters(&self) -> &BTreeSet<NodeId> {
        &self.voters
    }

    /// Returns who may do what.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// Returns for how long, in milliseconds, nothing is removed of a version that was retired.
    pub fn undo_ms(&self) -> u64 {
        self.defaults.retire_after.map_or(DEFAULT_UNDO_MS, Age::as_ms)
    }

    /// Says whether any rule asks how many newer versions there are: then a new version changes what holds for older ones.
    pub fn asks_for_rank(&self) -> bool {
        self.rules.iter().any(|rule| rule.criteria.latest.is_some())
    }

    /// Returns how many groups the document has.
    pub fn groups(&self) -> usize {
        self.groups
    }
}

/// How far what a document says is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Care {
    /// Each thing by itself.
    Alone,
    /// Also whether rules leave something to each other, and together keep as many copies as they promise.
    WithEachOther,
}

/// Reads what [`Policy::extract`](super::Policy::extract) wrote.
pub(super) fn read_extract(text: &str) -> Result<Policy, Refused> {
    checked(text, None, Care::Alone)
}

fn checked(text: &str, studio: Option<&Studio>, care: Care) -> Result<Policy, Refused> {
    let mut reader = Reader::new(text);
    let policy = read(&mut reader, text, studio, care);
    match policy {
        Some(policy) if reader.problems() == 0 => Ok(policy),
        _ => Err(Refused { problems: reader.finish() }),
    }
}

/// Reads all of it; `None` comes with a problem.
fn read(reader: &mut Reader<'_>, text: &str, studio: Option<&Studio>, care: Care) -> Option<Policy> {
    if text.len() > MAX_DOCUMENT_BYTES {
        let reason =
            format!("the document has {} bytes; at most {MAX_DOCUMENT_BYTES} are accepted", text.len());
        reader.say(0, reason, "use wildcards and groups, and remove old rules");
        return None;
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let at = error.span().map_or(0, |span| span.start);
        reader.say(at, format!("this is not TOML: {}", error.message()), "see https://toml.io/en/v1.0.0");
    }
    if !errors.is_empty() || !read_schema(reader, document.get_ref()) {
        return None;
    }
    let document = document.into_inner();
    for key in document.keys().filter(|key| !KEYS.contains(&key.get_ref().as_ref())) {
        reader.unknown_key(key, "the document", &KEYS);
    }
    let groups = match document.get("groups").and_then(|value| reader.table(value, "groups")) {
        Some(table) => Groups::read(reader, table, studio),
        None => Groups::default(),
    };
    let defaults = read_defaults(reader, &document);
    let checks = checks::read(reader, &document);
    let voters = numbers::read(reader, &document, studio);
    let access = grants::read(reader, &document, &groups, studio);
    let rules =
        document.get("rule").map_or_else(Vec::new, |value| read_rules(reader, value, &groups, studio));
    if care == Care::WithEachOther {
        overlap::report(reader, &rules);
    }
    // With a rule missing, it could be the one that keeps the copies.
    let is_whole = reader.problems() == 0 && care == Care::WithEachOther;
    if let Some(defaults) = defaults.as_ref().filter(|_| is_whole) {
        let min_copies_at = place_of_default_copies(&document);
        copies::report(reader, &rules, (defaults, min_copies_at), studio);
    }
    Some(Policy {
        rules: rules.into_iter().map(|read| read.rule).collect(),
        defaults: defaults?,
        checks,
        voters,
        access,
        groups: groups.len(),
    })
}

/// Says whether the rest of the document can be understood.
fn read_schema(reader: &mut Reader<'_>, document: &DeTable<'_>) -> bool {
    let advice = format!("write schema = {SCHEMA:?} first");
    let Some(value) = document.get("schema") else {
        reader.missing(0, "schema", "the document", &advice);
        return true;
    };
    let Some(schema) = reader.string(value, "schema") else { return true };
    if schema.value == SCHEMA {
        return true;
    }
    let is_other_version = schema.value.starts_with("avalon.policy/");
    let advice = if is_other_version {
        format!("this version of Avalon sync knows {SCHEMA:?}: upgrade it")
    } else {
        advice
    };
    reader.say(schema.at, format!("`schema` is {:?}", schema.value), advice);
    !is_other_version
}

fn read_defaults(reader: &mut Reader<'_>, document: &DeTable<'_>) -> Option<Defaults> {
    let Some(value) = document.get("defaults") else {
        let advice = "write [defaults] with `keep` and `min_copies`: what holds where no rule does";
        reader.missing(0, "defaults", "the document", advice);
        return None;
    };
    let table = reader.table(value, "defaults")?;
    rule::read_defaults(reader, table, value.span().start)
}

fn place_of_default_copies(document: &DeTable<'_>) -> usize {
    let defaults = document.get("defaults").and_then(|value| value.get_ref().as_table());
    defaults.and_then(|table| table.get("min_copies")).map_or(0, |value| value.span().start)
}

fn read_rules(
    reader: &mut Reader<'_>,
    value: &Spanned<DeValue<'_>>,
    groups: &Groups,
    studio: Option<&Studio>,
) -> Vec<ReadRule> {
    let Some(list) = reader.array(value, "rule") else { return Vec::new() };
    if let Some(over) = list.get(MAX_RULES) {
        let reason = format!("the document has {} rules; at most {MAX_RULES} are accepted", list.len());
        reader.say(over.span().start, reason, "join rules with lists and wildcards");
    }
    report_duplicates(reader, list);
    let mut rules = Vec::new();
    for entry in list.iter().take(MAX_RULES) {
        let table = reader.table(entry, "rule");
        rules.extend(
            table.and_then(|table| rule::read_rule(reader, table, entry.span().start, groups, studio)),
        );
    }
    rules
}

/// Reports each name that a rule before has, whatever else is wrong with either.
fn report_duplicates(reader: &mut Reader<'_>, list: &DeArray<'_>) {
    let mut first: BTreeMap<&str, u32> = BTreeMap::new();
    for rule in list {
        let Some((name, at)) = name_of(rule) else { continue };
        match first.get(name) {
            Some(line) => {
                let reason = format!("there is a rule {name:?} already, on line {line}");
                reader.say(at, reason, "give each rule a name of its own: `avalonctl why` shows it");
            }
            None => drop(first.insert(name, reader.line(rule.span().start))),
        }
    }
}

fn name_of<'v>(rule: &'v Spanned<DeValue<'_>>) -> Option<(&'v str, usize)> {
    let name = rule.get_ref().as_table()?.get("name")?;
    Some((name.get_ref().as_str()?, name.span().start))
}
