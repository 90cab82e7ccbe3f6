//! `avalonctl conflicts` and `resolve`: contents that were published under one number, and which keeps it.

use avalon_protocol::{
    control::{Candidate, ConflictItem, ConflictsReply, ResolveReply, ResolveRequest, route},
    exit_code::ExitCode,
    reference::Reference,
};
use clap::Args;

use crate::{
    context::Context,
    escape::escape,
    failure::Failure,
    measure::{count, size},
};

/// Arguments of `conflicts`.
#[derive(Debug, Args)]
pub(crate) struct ConflictsArgs {
    /// An asset, or a reference with or without globs; everything without one.
    #[arg(value_name = "REF")]
    reference: Option<String>,
}

/// Arguments of `resolve`.
#[derive(Debug, Args)]
pub(crate) struct ResolveArgs {
    /// The version.
    #[arg(value_name = "REF")]
    reference: String,
    /// What keeps the number: the site or the node that has it, or the first digits of its manifest.
    #[arg(long, value_name = "SITE|NODE|MANIFEST")]
    keep: String,
    /// Why.
    #[arg(short = 'm', long, default_value = "", hide_default_value = true)]
    comment: String,
    /// Who decides; by default your user.
    #[arg(long, default_value = "", hide_default_value = true)]
    author: String,
    /// Only say which numbers the others would get.
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Lists versions in conflict.
pub(crate) async fn list(context: &Context<'_>, args: ConflictsArgs) -> Result<ExitCode, Failure> {
    if let Some(text) = &args.reference {
        Reference::parse_listing(text)?;
    }
    let query = context.query(args.reference.as_deref());
    let reply: ConflictsReply = context.client.get(route::CONFLICTS, &query).await?;
    if context.output.is_json() {
        context.output.json(&reply);
        return Ok(ExitCode::Ok);
    }
    if reply.conflicts.is_empty() {
        context.output.talk("no conflicts");
    }
    reply.conflicts.iter().for_each(|conflict| show(context, conflict));
    Ok(ExitCode::Ok)
}

fn show(context: &Context<'_>, conflict: &ConflictItem) {
    let output = context.output;
    output.data(&escape(&conflict.reference));
    for candidate in &conflict.candidates {
        output.data(&format!("  {}", line(candidate)));
    }
    for decided in &conflict.disagreement {
        output.data(&format!(
            "  {} decided at {} on {} that {} keeps the number; another decision says otherwise",
            escape(&decided.author),
            escape(&decided.node),
            escape(&decided.decided),
            short(&decided.keep),
        ));
    }
}

fn line(candidate: &Candidate) -> String {
    let sites = match candidate.sites.as_slice() {
        [] => "nobody".to_owned(),
        sites => sites.join(", "),
    };
    format!(
        "{}  {} by {} at {}, generation {}, {}, {}, held at {}",
        short(&candidate.manifest),
        escape(&candidate.published),
        escape(&candidate.author),
        escape(&candidate.node),
        candidate.generation,
        count(candidate.files, "file"),
        size(candidate.bytes),
        escape(&sites),
    )
}

fn short(manifest: &str) -> String {
    escape(&manifest.chars().take(10).collect::<String>()).into_owned()
}

/// Decides about a conflict.
pub(crate) async fn resolve(context: &Context<'_>, args: ResolveArgs) -> Result<ExitCode, Failure> {
    args.reference.parse::<Reference>()?;
    let ResolveArgs { reference, keep, comment, author, dry_run } = args;
    let request =
        ResolveRequest { reference, keep, comment, author, dry_run, project: context.project.clone() };
    let reply: ResolveReply = context.client.post(route::RESOLVE, &request).await?;
    if context.output.is_json() {
        context.output.json(&reply);
        return Ok(ExitCode::Ok);
    }
    let (keeps, becomes) = if dry_run { ("would keep", "would become") } else { ("keeps", "becomes") };
    let number = escape(&reply.reference);
    context.output.data(&format!("{number}  {keeps} the number: {}", line(&reply.kept)));
    for moved in &reply.moved {
        context.output.data(&format!("{}  {becomes} of {}", escape(&moved.becomes), line(&moved.candidate)));
    }
    if dry_run {
        context.output.talk("nothing was decided");
    }
    Ok(ExitCode::Ok)
}

#[cfg(test)]
mod tests {
    use avalon_protocol::control::MovedItem;

    use super::*;
    use crate::fake::FakeDaemon;

    const REFERENCE: &str = "lantern:robot/modelDefault@v001";

    fn candidate(digit: &str, site: &str) -> Candidate {
        Candidate {
            manifest: digit.repeat(64),
            generation: 1,
            node: format!("srv@{site}"),
            author: "anna".into(),
            published: "2026-11-22T10:00:00Z".into(),
            files: 1,
            bytes: 3,
            holders: vec![format!("srv@{site}")],
            sites: vec![site.into()],
        }
    }

    #[test]
    fn a_list_says_who_published_what_and_where_it_is() {
        let daemon = FakeDaemon::start();
        let conflict = ConflictItem {
            reference: REFERENCE.into(),
            candidates: vec![candidate("a", "london"), candidate("b", "montreal")],
            disagreement: vec![],
        };
        let schema = "avalonctl.conflicts/1".into();
        daemon.on("GET /v1/conflicts", &ConflictsReply { schema, conflicts: vec![conflict] });
        assert_eq!(
            daemon.run(&["conflicts"]).stdout,
            "lantern:robot/modelDefault@v001\n  \
             aaaaaaaaaa  2026-11-22T10:00:00Z by anna at srv@london, generation 1, 1 file, 3 B, held at london\n  \
             bbbbbbbbbb  2026-11-22T10:00:00Z by anna at srv@montreal, generation 1, 1 file, 3 B, held at montreal\n"
        );
        assert_eq!(daemon.run(&["conflicts", "--json"]).json()["schema"], "avalonctl.conflicts/1");
    }

    #[test]
    fn a_decision_says_which_number_the_others_get() {
        let daemon = FakeDaemon::start();
        let moved = MovedItem {
            candidate: candidate("b", "montreal"),
            becomes: "lantern:robot/modelDefault@v004".into(),
        };
        let reply = ResolveReply {
            schema: "avalonctl.resolve/1".into(),
            reference: REFERENCE.into(),
            kept: candidate("a", "london"),
            moved: vec![moved],
            dry_run: false,
        };
        daemon.on("POST /v1/resolve", &reply);
        let ran =
            daemon.run(&["resolve", "robot/modelDefault@v001", "--keep", "london", "-m", "the right one"]);
        assert!(ran.stdout.starts_with("lantern:robot/modelDefault@v001  keeps the number: aaaa"), "{ran:?}");
        assert!(ran.stdout.contains("\nlantern:robot/modelDefault@v004  becomes of bbbb"), "{ran:?}");
        let sent = daemon.requests().pop().unwrap();
        assert!(sent.contains("\"keep\":\"london\"") && sent.contains("\"ref\":"), "{sent}");
        assert_eq!(daemon.run(&["resolve", "robot/modelDefault@v001"]).exit, 2, "without --keep");
    }
}
