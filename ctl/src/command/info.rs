//! `avalonctl info REF`: all that is known about one version.

use avalon_protocol::{
    control::{ErrorCode, InfoReply, route},
    exit_code::ExitCode,
    manifest::Completeness,
    reference::Reference,
};
use clap::Args;

use crate::{
    command::ls::presence,
    context::{Context, with_hint},
    escape::escape,
    failure::Failure,
    measure::{count, size},
    table::{self, Cell},
};

/// Arguments of `info`.
#[derive(Debug, Args)]
pub(crate) struct InfoArgs {
    /// Which version.
    #[arg(value_name = "REF")]
    reference: String,
}

/// Shows a version.
pub(crate) async fn run(context: &Context<'_>, args: &InfoArgs) -> Result<ExitCode, Failure> {
    let checked: Reference = args.reference.parse()?;
    let hint = format!("list what exists: avalonctl ls {}", checked.asset);
    let reply: InfoReply = context
        .client
        .get(route::INFO, &context.query(Some(&args.reference)))
        .await
        .map_err(|error| with_hint(error.into(), ErrorCode::NotFound, &hint))?;
    if context.output.is_json() {
        context.output.json(&reply);
        return Ok(ExitCode::Ok);
    }
    for (name, value) in facts(&reply) {
        context.output.data(&format!("{name:<14}{}", escape(&value)));
    }
    let row = |file: &avalon_protocol::control::FileItem| {
        vec![
            Cell::text(&file.path),
            Cell::number(file.bytes, size(file.bytes)),
            Cell::text(&file.representation),
            Cell::text(&file.hash),
        ]
    };
    context.output.data("");
    let rows = reply.files.iter().map(row).collect();
    table::print(context.output, &["FILE", "SIZE", "REPRESENTATION", "BLAKE3"], rows);
    Ok(ExitCode::Ok)
}

fn facts(reply: &InfoReply) -> Vec<(&'static str, String)> {
    let bytes = reply.files.iter().map(|file| file.bytes).sum();
    let files = count(reply.files.len() as u64, "file");
    let mut facts = vec![
        ("version", reply.reference.clone()),
        ("generation", reply.generation.to_string()),
        ("manifest", reply.manifest.clone()),
        ("content", format!("{files}, {}", size(bytes))),
        ("here", presence(reply.here).to_owned()),
    ];
    facts.extend(reply.path.clone().map(|path| ("path", path)));
    facts.push(("published", format!("{} by {} at {}", reply.published, reply.author, reply.node)));
    let completeness = match reply.completeness {
        Completeness::Explicit => "said by who published it",
        Completeness::EndMarks => "quiet, and every file closed by its writer",
        Completeness::Quiet => "quiet for the settle time",
    };
    facts.push(("known whole", completeness.to_owned()));
    if !reply.comment.is_empty() {
        facts.push(("comment", reply.comment.clone()));
    }
    facts.extend(reply.inputs.iter().map(|input| ("made from", input.clone())));
    facts.extend(reply.metadata.iter().map(|(key, value)| ("metadata", format!("{key} = {value}"))));
    facts
}
