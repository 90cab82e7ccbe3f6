//! Reads the `match` of a rule.

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    age::Age,
    criteria::{Criteria, Field},
    glob::Glob,
    reader::Reader,
};
use crate::{id::VersionSlot, limits::MAX_TEXT_BYTES};

const KEYS: [&str; 12] = [
    "project",
    "silo",
    "asset",
    "subset",
    "representation",
    "family",
    "author",
    "metadata",
    "hero",
    "latest",
    "older_than",
    "younger_than",
];

/// Most newest versions that can be asked for: as many as there are numbers.
pub(super) const MAX_LATEST: u32 = VersionSlot::MAX_NUMBER + 1;

/// Reads it; reports what is unknown, wrong, or contradicts itself. `at` is where the table stands.
pub(super) fn read(reader: &mut Reader<'_>, table: &DeTable<'_>, at: usize, rule: &str) -> Criteria {
    let mut criteria = Criteria::default();
    if table.is_empty() {
        let advice = "to match every version write match = { project = \"*\" }";
        reader.say(at, format!("{rule}: `match` asks for nothing"), advice);
    }
    for (key, value) in table {
        match key.get_ref().as_ref() {
            "project" => read_names(reader, &mut criteria, Field::Project, value),
            "silo" => read_names(reader, &mut criteria, Field::Silo, value),
            "asset" => read_names(reader, &mut criteria, Field::Asset, value),
            "subset" => read_names(reader, &mut criteria, Field::Subset, value),
            "representation" => read_names(reader, &mut criteria, Field::Representation, value),
            "family" => read_texts(reader, &mut criteria, Field::Family, value),
            "author" => read_texts(reader, &mut criteria, Field::Author, value),
            "metadata" => read_metadata(reader, &mut criteria, value),
            "hero" => criteria.hero = reader.flag(value, "hero"),
            "latest" => criteria.latest = reader.count(value, "latest", MAX_LATEST, "no version matches"),
            "older_than" => criteria.older_than = read_age(reader, value, "older_than"),
            "younger_than" => criteria.younger_than = read_age(reader, value, "younger_than"),
            _ => reader.unknown_key(key, &format!("`match` of {rule}"), &KEYS),
        }
    }
    report_contradictions(reader, &criteria, table, at);
    criteria
}

/// Reads patterns over names.
fn read_names(reader: &mut Reader<'_>, criteria: &mut Criteria, field: Field, value: &Spanned<DeValue<'_>>) {
    read_globs(reader, criteria, field, value, Glob::of_name);
}

/// Reads patterns over any text.
fn read_texts(reader: &mut Reader<'_>, criteria: &mut Criteria, field: Field, value: &Spanned<DeValue<'_>>) {
    read_globs(reader, criteria, field, value, Glob::of_text);
}

fn read_globs(
    reader: &mut Reader<'_>,
    criteria: &mut Criteria,
    field: Field,
    value: &Spanned<DeValue<'_>>,
    parse: fn(&str) -> Result<Glob, &'static str>,
) {
    let mut globs = Vec::new();
    for text in reader.strings(value, &field.to_string()) {
        match parse(text.value) {
            Ok(glob) => globs.push(glob),
            Err(rule) => reader.say(text.at, format!("{:?} is no pattern for {field}", text.value), rule),
        }
    }
    criteria.fields.insert(field, globs);
}

fn read_metadata(reader: &mut Reader<'_>, criteria: &mut Criteria, value: &Spanned<DeValue<'_>>) {
    let Some(table) = reader.table(value, "metadata") else { return };
    if table.is_empty() {
        reader.say(
            value.span().start,
            "`metadata` asks for nothing",
            "write metadata = { task = \"anim\" }, or remove it",
        );
    }
    for (key, value) in table {
        let name = key.get_ref();
        if name.is_empty() || name.len() > MAX_TEXT_BYTES {
            reader.say(
                key.span().start,
                "a key of `metadata` is empty or too long",
                "no version has such a key",
            );
        }
        read_texts(reader, criteria, Field::Metadata(name.to_string()), value);
    }
}

fn read_age(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>, key: &str) -> Option<Age> {
    let text = reader.string(value, key)?;
    text.value
        .parse()
        .map_err(|rule: &str| reader.say(text.at, format!("`{key}` is {:?}", text.value), rule))
        .ok()
}

fn report_contradictions(reader: &mut Reader<'_>, criteria: &Criteria, table: &DeTable<'_>, at: usize) {
    let place = |key: &str| table.get(key).map_or(at, |value| value.span().start);
    if let (Some(older), Some(younger)) = (criteria.older_than, criteria.younger_than)
        && older >= younger
    {
        let reason = format!("no version is {older} old or more and younger than {younger}");
        reader.say(place("older_than"), reason, "`older_than` must be less than `younger_than`");
    }
    if criteria.hero == Some(true) && criteria.latest.is_some() {
        let reason = "`latest` counts numbers, and `hero = true` matches none";
        reader.say(place("latest"), reason, "remove one of them, or make two rules");
    }
}
