//! Rules and defaults: what they say, and how they are read.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};
use utoipa::ToSchema;

use super::{
    age::Age,
    criteria::Criteria,
    places::{Groups, Places, Studio},
    read_match::{self, MAX_LATEST},
    reader::{At, Reader},
};
use crate::limit::{Moment, When};

/// What a node does about versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// They come by themselves, and stay.
    Here,
    /// They come when somebody pulls them, and may go when room is needed.
    OnDemand,
    /// They do not come, not even when somebody pulls them.
    Never,
}

impl Keep {
    const WORDS: [(&'static str, Self); 3] =
        [("here", Self::Here), ("on-demand", Self::OnDemand), ("never", Self::Never)];
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Here => "here",
            Self::OnDemand => "on-demand",
            Self::Never => "never",
        })
    }
}

/// The order within what comes by itself; who waits for a pull goes before all of it. In a document it is `priority`.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "kebab-case")]
pub enum Urgency {
    /// After everything else.
    Low,
    /// As usual.
    #[default]
    Normal,
    /// Before everything else.
    High,
}

impl Urgency {
    const WORDS: [(&'static str, Self); 3] =
        [("low", Self::Low), ("normal", Self::Normal), ("high", Self::High)];
}

impl fmt::Display for Urgency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        })
    }
}

/// The times of the week at which versions may come by themselves, on the wall clock of the node; at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Windows(pub Vec<When>);

impl Windows {
    /// Says whether it is one of those times.
    pub fn is_open(&self, moment: Moment) -> bool {
        self.0.iter().any(|when| when.contains(moment))
    }

    /// Returns in how many minutes that changes, at least 1; `None` when it never does.
    pub fn minutes_until_change(&self, moment: Moment) -> Option<u32> {
        const WEEK: u32 = 7 * 24 * 60;
        let open = self.is_open(moment);
        let mut ahead = 0;
        // From change to change of any window, until one changes the whole, or a week has passed.
        while ahead <= WEEK {
            let at = moment.after(ahead);
            ahead += self.0.iter().filter_map(|when| when.minutes_until_change(at)).min()?;
            if self.is_open(moment.after(ahead)) != open {
                return Some(ahead);
            }
        }
        None
    }
}

/// What holds where no rule says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Defaults {
    /// What nodes do about versions that no rule matches there.
    pub keep: Keep,
    /// At how many different sites a version has to be, when no rule that matches it says so.
    pub min_copies: u32,
    /// As [`Rule::urgency`].
    pub urgency: Urgency,
    /// As [`Rule::keep_last`].
    pub keep_last: Option<u32>,
    /// As [`Rule::read_only`].
    pub read_only: bool,
    /// How long nothing is removed of a version after it was retired.
    pub retire_after: Option<Age>,
    /// The line of `[defaults]`.
    pub line: u32,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Its name, unique in the document.
    pub name: Arc<str>,
    /// The line on which it begins.
    pub line: u32,
    /// Which versions it is about.
    pub criteria: Criteria,
    /// Which nodes it is about.
    pub places: Places,
    /// What they do.
    pub keep: Keep,
    /// The order within what comes by itself.
    pub urgency: Option<Urgency>,
    /// At how many different sites the versions have to be. This holds for a version wherever it is: of the first rule that
    /// matches it and says so, whatever nodes that rule names.
    pub min_copies: Option<u32>,
    /// So many newest numbers of a subset, and its hero, are not removed here to make room; older ones may be, also where
    /// `keep` is `here`.
    pub keep_last: Option<u32>,
    /// Whether files are made read-only where they are placed.
    pub read_only: Option<bool>,
    /// When they may come by themselves; at any time if it does not say. A pull does not wait.
    pub when: Option<Windows>,
}

/// A rule that was read, with what later checks point at.
#[derive(Debug)]
pub(super) struct ReadRule {
    pub(super) rule: Rule,
    pub(super) at: usize,
    pub(super) min_copies_at: usize,
}

/// The largest `min_copies`: more sites than any studio has.
const MAX_COPIES: u32 = 1000;
/// Most times of the week in one rule: two for each day, and some.
const MAX_WINDOWS: usize = 16;
/// Longest name of a rule in bytes; it is shown in tables.
const MAX_NAME_BYTES: usize = 200;

const RULE_KEYS: [&str; 9] =
    ["name", "match", "sites", "keep", "priority", "min_copies", "keep_last", "read_only", "when"];
const DEFAULTS_KEYS: [&str; 6] = ["keep", "min_copies", "priority", "keep_last", "read_only", "retire_after"];

/// What rules and defaults have in common, as it is written.
#[derive(Debug, Default)]
struct Common {
    keep: Option<Keep>,
    urgency: Option<Urgency>,
    min_copies: Option<u32>,
    keep_last: Option<u32>,
    read_only: Option<bool>,
}

impl Common {
    /// Takes a key that it knows; says whether it did.
    fn take(&mut self, reader: &mut Reader<'_>, key: &str, value: &Spanned<DeValue<'_>>) -> bool {
        const LAST: &str = "a version always needs one copy";
        match key {
            "keep" => self.keep = reader.word(value, key, &Keep::WORDS),
            "priority" => self.urgency = reader.word(value, key, &Urgency::WORDS),
            "min_copies" => self.min_copies = reader.count(value, key, MAX_COPIES, LAST),
            "keep_last" => self.keep_last = reader.count(value, key, MAX_LATEST, "it protects nothing"),
            "read_only" => self.read_only = reader.flag(value, key),
            _ => return false,
        }
        true
    }
}

/// Reads `[defaults]`; `None` when something that has to be there is missing or wrong, which is reported.
pub(super) fn read_defaults(reader: &mut Reader<'_>, table: &DeTable<'_>, at: usize) -> Option<Defaults> {
    let (mut common, mut retire_after) = (Common::default(), None);
    for (key, value) in table {
        match key.get_ref().as_ref() {
            "retire_after" => retire_after = read_age(reader, value),
            other if common.take(reader, other, value) => {}
            _ => reader.unknown_key(key, "[defaults]", &DEFAULTS_KEYS),
        }
    }
    if !table.contains_key("keep") {
        reader.missing(at, "keep", "[defaults]", "write keep = \"here\", \"on-demand\" or \"never\"");
    }
    if !table.contains_key("min_copies") {
        reader.missing(at, "min_copies", "[defaults]", "write min_copies = 1, or more");
    }
    Some(Defaults {
        keep: common.keep?,
        min_copies: common.min_copies?,
        urgency: common.urgency.unwrap_or_default(),
        keep_last: common.keep_last,
        read_only: common.read_only.unwrap_or(false),
        retire_after,
        line: reader.line(at),
    })
}

fn read_age(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Option<Age> {
    let text = reader.string(value, "retire_after")?;
    let age = text.value.parse();
    if age.is_err() {
        let reason = format!("`retire_after` is {:?}", text.value);
        reader.say(text.at, reason, "write a whole number with m, h, d or w, such as 30d; at most 3650d");
    }
    age.ok()
}

/// Reads one `[[rule]]`; `None` when there is anything wrong with it, which is reported: nothing is concluded from half a rule.
pub(super) fn read_rule(
    reader: &mut Reader<'_>,
    table: &DeTable<'_>,
    at: usize,
    groups: &Groups,
    studio: Option<&Studio>,
) -> Option<ReadRule> {
    let problems = reader.problems();
    let name = table.get("name").and_then(|value| read_name(reader, value));
    let shown = name.as_ref().map_or_else(|| "the rule".to_owned(), |name| format!("rule {name:?}"));
    let (mut common, mut when, mut places, mut criteria) = (Common::default(), None, None, None);
    for (key, value) in table {
        match key.get_ref().as_ref() {
            "name" => {}
            "match" => {
                criteria = reader
                    .table(value, "match")
                    .map(|table| read_match::read(reader, table, value.span().start, &shown));
            }
            "sites" => {
                let entries = reader.strings(value, "sites");
                places = Some(groups.places(reader, &entries, &shown, studio));
            }
            "when" => when = read_windows(reader, value),
            other if common.take(reader, other, value) => {}
            _ => reader.unknown_key(key, &shown, &RULE_KEYS),
        }
    }
    for (key, advice) in [
        ("name", "give it a name that `avalonctl why` can show"),
        ("match", "to match every version write match = { project = \"*\" }"),
        ("sites", "write sites = [\"london\", \"@group\"], or [\"*\"] for all"),
        ("keep", "write keep = \"here\", \"on-demand\" or \"never\""),
    ] {
        if !table.contains_key(key) {
            reader.missing(at, key, &shown, advice);
        }
    }
    report_contradictions(reader, &shown, table, &common, criteria.as_ref());
    let rule = Rule {
        name: name?,
        line: reader.line(at),
        criteria: criteria?,
        places: places?,
        keep: common.keep?,
        urgency: common.urgency,
        min_copies: common.min_copies,
        keep_last: common.keep_last,
        read_only: common.read_only,
        when,
    };
    let min_copies_at = table.get("min_copies").map_or(at, |value| value.span().start);
    (reader.problems() == problems).then_some(ReadRule { rule, at, min_copies_at })
}

fn read_name(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Option<Arc<str>> {
    let name = reader.string(value, "name")?;
    let fits = (1..=MAX_NAME_BYTES).contains(&name.value.len()) && !name.value.chars().any(char::is_control);
    if !fits {
        let advice = format!("write 1 to {MAX_NAME_BYTES} bytes in one line");
        reader.say(name.at, "the `name` is empty, too long or has control characters", advice);
    }
    fits.then(|| name.value.into())
}

fn read_windows(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Option<Windows> {
    let texts = reader.strings(value, "when");
    if texts.len() > MAX_WINDOWS {
        let reason = format!("`when` has {} times; at most {MAX_WINDOWS} are accepted", texts.len());
        reader.say(value.span().start, reason, "join days: \"mon-fri 19:00-07:00\"");
    }
    let mut windows = Vec::new();
    for At { value: text, at } in texts {
        match text.parse() {
            Ok(when) => windows.push(when),
            Err(_) => reader.say(
                at,
                format!("{text:?} is not a time of the week"),
                "write it like \"mon-fri 09:00-19:00\", \"sat,sun\", \"22:00-06:00\" or \"always\"",
            ),
        }
    }
    (!windows.is_empty()).then_some(Windows(windows))
}

/// Reports what means nothing beside `keep` or `latest`.
fn report_contradictions(
    reader: &mut Reader<'_>,
    shown: &str,
    table: &DeTable<'_>,
    common: &Common,
    criteria: Option<&Criteria>,
) {
    let meaningless: BTreeMap<&str, &str> = match common.keep {
        Some(Keep::Never) => ["priority", "keep_last", "read_only", "when"]
            .map(|key| (key, "nothing is kept where `keep` is \"never\""))
            .into(),
        Some(Keep::OnDemand) => [("when", "nothing comes by itself where `keep` is \"on-demand\"")].into(),
        _ => BTreeMap::new(),
    };
    for (key, why) in meaningless {
        if let Some(value) = table.get(key) {
            let reason = format!("{shown}: `{key}` means nothing here: {why}");
            reader.say(value.span().start, reason, format!("remove `{key}`, or change `keep`"));
        }
    }
    if let (Some(last), Some(latest), Some(value)) =
        (common.keep_last, criteria.and_then(|criteria| criteria.latest), table.get("keep_last"))
        && last > latest
    {
        let reason = format!("{shown}: `keep_last` is {last}, and the rule matches only the latest {latest}");
        reader.say(value.span().start, reason, format!("write {latest} or less, or raise `latest`"));
    }
}
