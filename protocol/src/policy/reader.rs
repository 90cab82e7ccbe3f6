//! Reads values out of a TOML document that keeps their places, and collects every problem on the way.

use toml::{
    Spanned,
    de::{DeArray, DeTable, DeValue},
};

use super::problem::{Problem, listed, nearest, place};

/// A value and the byte at which it begins in the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

/// Most entries of one list: every artist of a studio by name, several times over. It bounds what comparing lists costs.
pub const MAX_LIST: usize = 256;

/// A document being read, and what is wrong with it so far.
#[derive(Debug)]
pub(super) struct Reader<'d> {
    text: &'d str,
    problems: Vec<Problem>,
}

impl<'d> Reader<'d> {
    pub(super) fn new(text: &'d str) -> Self {
        Self { text, problems: Vec::new() }
    }

    /// Adds a problem at a byte of the document.
    pub(super) fn say(&mut self, at: usize, reason: impl Into<String>, advice: impl Into<String>) {
        let (line, column) = place(self.text, at);
        self.problems.push(Problem { line, column, reason: reason.into(), advice: advice.into() });
    }

    /// Returns the line of a byte.
    pub(super) fn line(&self, at: usize) -> u32 {
        place(self.text, at).0
    }

    /// Returns how many problems there are so far.
    pub(super) fn problems(&self) -> usize {
        self.problems.len()
    }

    /// Returns what was found, in the order of the lines, each once.
    pub(super) fn finish(mut self) -> Vec<Problem> {
        self.problems.sort();
        self.problems.dedup();
        self.problems
    }

    /// Reports a key that nobody knows.
    pub(super) fn unknown_key(
        &mut self,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        place: &str,
        known: &[&str],
    ) {
        let word = key.get_ref();
        let advice = match nearest(word, known.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("known here: {}", known.join(", ")),
        };
        self.say(key.span().start, format!("unknown key `{word}` in {place}"), advice);
    }

    /// Reports a key that has to be there.
    pub(super) fn missing(&mut self, at: usize, key: &str, place: &str, advice: &str) {
        self.say(at, format!("{place} has no `{key}`"), advice);
    }

    pub(super) fn table<'v, 't>(
        &mut self,
        value: &'v Spanned<DeValue<'t>>,
        key: &str,
    ) -> Option<&'v DeTable<'t>> {
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.wrong_kind(value, key, "a table");
        }
        table
    }

    pub(super) fn array<'v, 't>(
        &mut self,
        value: &'v Spanned<DeValue<'t>>,
        key: &str,
    ) -> Option<&'v DeArray<'t>> {
        let array = value.get_ref().as_array();
        if array.is_none() {
            self.wrong_kind(value, key, "a list");
        }
        array
    }

    pub(super) fn string<'v>(&mut self, value: &'v Spanned<DeValue<'_>>, key: &str) -> Option<At<&'v str>> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong_kind(value, key, "a text in quotes");
        }
        text.map(|text| At { value: text, at: value.span().start })
    }

    /// Reads a text, or a list of texts; an empty list is a problem.
    pub(super) fn strings<'v>(&mut self, value: &'v Spanned<DeValue<'_>>, key: &str) -> Vec<At<&'v str>> {
        if value.get_ref().is_str() {
            return self.string(value, key).into_iter().collect();
        }
        let Some(list) = value.get_ref().as_array() else {
            self.wrong_kind(value, key, "a text or a list of texts");
            return Vec::new();
        };
        let at = value.span().start;
        if list.is_empty() {
            self.say(
                at,
                format!("the list `{key}` is empty, so that nothing fits it"),
                "name something, or remove the key",
            );
        }
        if list.len() > MAX_LIST {
            let reason =
                format!("the list `{key}` has {} entries; at most {MAX_LIST} are accepted", list.len());
            self.say(at, reason, "use wildcards, or several rules");
            return Vec::new();
        }
        list.iter().filter_map(|entry| self.string(entry, key)).collect()
    }

    /// Reads a whole number within bounds; `nothing` says what 0 would mean.
    pub(super) fn count(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        most: u32,
        nothing: &str,
    ) -> Option<u32> {
        let at = value.span().start;
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_kind(value, key, "a whole number");
            return None;
        };
        match i128::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(0) => {
                self.say(
                    at,
                    format!("`{key}` is 0: {nothing}"),
                    format!("write 1 or more, or remove `{key}`"),
                );
                None
            }
            Ok(number) => {
                let count = u32::try_from(number).ok().filter(|count| *count <= most);
                if count.is_none() {
                    self.say(at, format!("`{key}` is {number}"), format!("write a number from 1 to {most}"));
                }
                count
            }
            Err(_) => {
                self.say(at, format!("`{key}` is too large"), format!("write a number from 1 to {most}"));
                None
            }
        }
    }

    pub(super) fn flag(&mut self, value: &Spanned<DeValue<'_>>, key: &str) -> Option<bool> {
        let flag = value.get_ref().as_bool();
        if flag.is_none() {
            self.wrong_kind(value, key, "true or false");
        }
        flag
    }

    /// Reads one of a few words.
    pub(super) fn word<T: Copy>(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        key: &str,
        words: &[(&str, T)],
    ) -> Option<T> {
        let text = self.string(value, key)?;
        let found = words.iter().find(|(word, _)| *word == text.value).map(|(_, meaning)| *meaning);
        if found.is_none() {
            let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.unknown_word(text.at, &format!("`{key}` is {:?}", text.value), text.value, &known);
        }
        found
    }

    /// Reports a word that is none of those that are known.
    pub(super) fn unknown_word(&mut self, at: usize, reason: &str, word: &str, known: &[&str]) {
        let advice = match nearest(word, known.iter().copied()) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => format!("write {}", listed(known, "or")),
        };
        self.say(at, reason, advice);
    }

    fn wrong_kind(&mut self, value: &Spanned<DeValue<'_>>, key: &str, wanted: &str) {
        let found = match value.get_ref() {
            DeValue::String(_) => "a text",
            DeValue::Integer(_) | DeValue::Float(_) => "a number",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a date",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.say(value.span().start, format!("`{key}` is {found}"), format!("write {wanted}"));
    }
}
