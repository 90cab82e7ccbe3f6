//! What a hook is, as the configuration says it.

use std::{collections::BTreeSet, fmt, path::PathBuf, time::Duration};

use avalon_protocol::{
    control::{EventKind, JobState},
    reference::Pattern,
};

/// What hooks can wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HookEvent {
    /// A version was published at this node.
    Published,
    /// A version of another node became visible here.
    Placed,
    /// A version could not be fetched, or not be published.
    Failed,
    /// Sites published different content under one number.
    Conflict,
}

impl HookEvent {
    /// All of them with their words.
    pub const ALL: [(&'static str, Self); 4] = [
        ("published", Self::Published),
        ("placed", Self::Placed),
        ("failed", Self::Failed),
        ("conflict", Self::Conflict),
    ];

    /// Returns what an event is to hooks; most are nothing.
    pub fn of(kind: &EventKind) -> Option<Self> {
        match kind {
            EventKind::Published { .. } => Some(Self::Published),
            EventKind::Placed { .. } => Some(Self::Placed),
            EventKind::Job { job } if job.state == JobState::Failed => Some(Self::Failed),
            EventKind::Refused { .. } => Some(Self::Failed),
            EventKind::Conflict { .. } => Some(Self::Conflict),
            _ => None,
        }
    }
}

impl fmt::Display for HookEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = Self::ALL.iter().find(|(_, event)| event == self).map_or("", |(word, _)| *word);
        f.write_str(word)
    }
}

/// What may stand in braces in an argument. Only what cannot be chosen freely: no people, no comments, no messages.
pub const PLACEHOLDERS: [&str; 12] = [
    "event", "ref", "project", "asset", "subset", "version", "path", "manifest", "files", "bytes", "node",
    "site",
];

/// One argument: text, and names in braces for which values stand. Whatever a value is, it stays one argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arg(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Value(&'static str),
}

impl Arg {
    /// Reads an argument; `{{` and `}}` write a brace.
    ///
    /// # Errors
    /// What is wrong with it, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.contains('\0') {
            return Err("an argument cannot have a zero byte".to_owned());
        }
        let (mut pieces, mut rest) = (Vec::new(), text);
        while let Some(at) = rest.find(['{', '}']) {
            let (before, tail) = rest.split_at(at);
            pieces.push(Piece::Text(before.to_owned()));
            if let Some(after) = tail.strip_prefix("{{").or_else(|| tail.strip_prefix("}}")) {
                pieces.push(Piece::Text(tail.chars().take(1).collect()));
                rest = after;
                continue;
            }
            let named = tail.strip_prefix('{').and_then(|tail| tail.split_once('}'));
            let Some((name, after)) = named else {
                return Err(format!("{text:?} has a single brace; write {{{{ or }}}} for one"));
            };
            let known = PLACEHOLDERS.iter().find(|known| **known == name);
            let known = known.ok_or_else(|| {
                format!("{{{name}}} is not known; write one of {{{}}}", PLACEHOLDERS.join("}, {"))
            })?;
            pieces.push(Piece::Value(known));
            rest = after;
        }
        pieces.push(Piece::Text(rest.to_owned()));
        Ok(Self(pieces))
    }

    /// Puts values in.
    pub fn with(&self, value: impl Fn(&str) -> String) -> String {
        let pieces = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Value(name) => value(name),
        });
        pieces.collect()
    }
}

/// Which versions a hook is about; what is not given matches every one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Matching {
    /// Patterns for the project, of which one has to match.
    pub project: Option<Vec<Pattern>>,
    /// The same for the asset.
    pub asset: Option<Vec<Pattern>>,
    /// The same for the subset.
    pub subset: Option<Vec<Pattern>>,
    /// The same for any of its representations.
    pub representation: Option<Vec<Pattern>>,
}

impl Matching {
    /// Says whether any of the values is one that is wanted.
    pub(super) fn holds<'v>(
        wanted: &Option<Vec<Pattern>>,
        mut values: impl Iterator<Item = &'v str>,
    ) -> bool {
        match wanted {
            None => true,
            Some(patterns) => values.any(|value| patterns.iter().any(|pattern| pattern.matches(value))),
        }
    }
}

/// One hook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hook {
    /// What it waits for; at least one.
    pub on: BTreeSet<HookEvent>,
    /// The program: an absolute path that nobody but root and the daemon's user can change.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<Arg>,
    /// How long it may run.
    pub timeout: Duration,
    /// Which versions it is about.
    pub matching: Matching,
}

impl Hook {
    /// Returns how people know it: its program.
    pub fn name(&self) -> String {
        self.program.display().to_string()
    }
}
