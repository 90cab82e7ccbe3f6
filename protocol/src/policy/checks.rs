//! Which checks a policy turns off, for all versions and for those that match.

use std::collections::BTreeSet;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{criteria::Criteria, facts::VersionFacts, read_match, reader::Reader};
use crate::check;

/// Most `[[check]]` tables.
const MAX_CHECK_RULES: usize = 256;
/// In place of a code: every check.
const EVERY: &str = "*";

const CHECKS_KEYS: [&str; 1] = ["off"];
const CHECK_KEYS: [&str; 2] = ["match", "off"];

/// What a policy says about checks: `[checks]` for all versions, `[[check]]` for those that match. What any of them turns off
/// is off.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CheckRules {
    off: BTreeSet<&'static str>,
    rules: Vec<(Criteria, BTreeSet<&'static str>)>,
}

impl CheckRules {
    /// Returns the codes of the checks that are off for a version. A rule that asks for what is not known turns nothing off.
    pub fn off(&self, facts: &VersionFacts<'_>, now_ms: u64) -> BTreeSet<&'static str> {
        let matching =
            self.rules.iter().filter(|(criteria, _)| criteria.matches(facts, now_ms) == Some(true));
        matching.flat_map(|(_, off)| off).chain(&self.off).copied().collect()
    }

    /// Returns what is off for all versions, and for those that match.
    pub(super) fn parts(&self) -> (&BTreeSet<&'static str>, &[(Criteria, BTreeSet<&'static str>)]) {
        (&self.off, &self.rules)
    }

    /// Says whether anything is turned off.
    pub fn is_empty(&self) -> bool {
        self.off.is_empty() && self.rules.is_empty()
    }
}

/// Reads `[checks]` and every `[[check]]`; reports what is unknown or wrong.
pub(super) fn read(reader: &mut Reader<'_>, document: &DeTable<'_>) -> CheckRules {
    let mut rules = CheckRules::default();
    if let Some(value) = document.get("checks")
        && let Some(table) = reader.table(value, "checks")
    {
        for key in table.keys().filter(|key| !CHECKS_KEYS.contains(&key.get_ref().as_ref())) {
            reader.unknown_key(key, "[checks]", &CHECKS_KEYS);
        }
        rules.off = read_off(reader, table, value.span().start, "[checks]");
    }
    if let Some(value) = document.get("check") {
        rules.rules = read_rules(reader, value);
    }
    rules
}

fn read_rules(
    reader: &mut Reader<'_>,
    value: &Spanned<DeValue<'_>>,
) -> Vec<(Criteria, BTreeSet<&'static str>)> {
    let Some(list) = reader.array(value, "check") else { return Vec::new() };
    if let Some(over) = list.get(MAX_CHECK_RULES) {
        let reason = format!("there are {} [[check]]; at most {MAX_CHECK_RULES} are accepted", list.len());
        reader.say(over.span().start, reason, "join them with lists and wildcards");
    }
    let mut rules = Vec::new();
    for entry in list.iter().take(MAX_CHECK_RULES) {
        let at = entry.span().start;
        let Some(table) = reader.table(entry, "check") else { continue };
        for key in table.keys().filter(|key| !CHECK_KEYS.contains(&key.get_ref().as_ref())) {
            reader.unknown_key(key, "[[check]]", &CHECK_KEYS);
        }
        let off = read_off(reader, table, at, "[[check]]");
        let Some(value) = table.get("match") else {
            reader.missing(at, "match", "[[check]]", "say which versions; for all of them write [checks]");
            continue;
        };
        if let Some(table) = reader.table(value, "match") {
            rules.push((read_match::read(reader, table, value.span().start, "[[check]]"), off));
        }
    }
    rules
}

/// Reads the codes of `off`; every code has to be one of a check.
fn read_off(reader: &mut Reader<'_>, table: &DeTable<'_>, at: usize, place: &str) -> BTreeSet<&'static str> {
    let Some(value) = table.get("off") else {
        reader.missing(at, "off", place, "write off = [\"missing-frames\"], or [\"*\"] for every check");
        return BTreeSet::new();
    };
    let words: Vec<(&str, &'static str)> = check::ALL.iter().map(|check| (check.code, check.code)).collect();
    let mut off = BTreeSet::new();
    for text in reader.strings(value, "off") {
        if text.value == EVERY {
            off.extend(words.iter().map(|(_, code)| code));
        } else if let Some((_, code)) = words.iter().find(|(word, _)| *word == text.value) {
            off.insert(*code);
        } else {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            reader.unknown_word(text.at, &format!("there is no check {:?}", text.value), text.value, &known);
        }
    }
    off
}
