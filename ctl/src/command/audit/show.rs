//! How entries are shown.

use avalon_protocol::audit::{AuditActor, AuditEntry, AuditLine};

use crate::{command::report::field, context::Context, escape::escape};

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    /// One line for people.
    People,
    /// As it stands in the file.
    Jsonl,
    /// For spreadsheets.
    Csv,
}

/// Prints one entry.
pub(super) fn line(context: &Context<'_>, shown: Shown, bytes: &[u8]) {
    if shown == Shown::Jsonl {
        context.output.bytes(&[bytes, b"\n"].concat());
        return;
    }
    let Ok(line) = AuditLine::parse(bytes) else {
        context.output.talk("a line that is no entry is left out; avalonctl audit verify says which");
        return;
    };
    match shown {
        Shown::Csv => context.output.bytes(csv(&line.entry).as_bytes()),
        _ => context.output.data(&escape(&people(&line.entry))),
    }
}

fn people(entry: &AuditEntry) -> String {
    let fact = &entry.fact;
    let mut text = format!("{}  {}  {} {}", entry.at, fact.actor, fact.action.word(), fact.outcome.word());
    if let Some(project) = &fact.project {
        text.push_str(&format!("  {project}:"));
    }
    for about in &fact.about {
        text.push_str(&format!("  {about}"));
    }
    for (key, value) in &fact.detail {
        text.push_str(&format!("  {key}={value}"));
    }
    text
}

/// Returns the names of the columns.
pub(super) fn csv_header() -> String {
    "seq,at,node,actor_kind,actor,uid,action,outcome,project,about,detail\r\n".into()
}

fn csv(entry: &AuditEntry) -> String {
    let fact = &entry.fact;
    let (kind, name, uid) = match &fact.actor {
        AuditActor::User { uid, name } => ("user", name.as_str(), uid.to_string()),
        AuditActor::Token => ("token", "", String::new()),
        AuditActor::Peer { node } => ("peer", node.as_str(), String::new()),
        AuditActor::Daemon => ("daemon", "", String::new()),
    };
    let detail: Vec<String> = fact.detail.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let fields = [
        entry.seq.to_string(),
        field(&entry.at),
        field(&entry.node),
        kind.to_owned(),
        field(name),
        uid,
        field(&fact.action.word()),
        fact.outcome.word().to_owned(),
        field(fact.project.as_deref().unwrap_or_default()),
        field(&fact.about.join(" ")),
        field(&detail.join(" ")),
    ];
    format!("{}\r\n", fields.join(","))
}
