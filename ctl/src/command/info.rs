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
    facts.extend(reply.some_here.iter().map(|name| ("lies here", name.clone())));
    facts.extend(reply.path.clone().map(|path| ("path", path)));
    facts.push(("published", format!("{} by {} at {}", reply.published, reply.author, reply.node)));
    let completeness = match reply.completeness {
        Completeness::Explicit => "said by who published it",
        Completeness::EndMarks => "quiet, and every file closed by its writer",
        Completeness::Quiet => "quiet for the settle time",
    };
    facts.push(("known whole", completeness.to_owned()));
    if !reply.growing.is_empty() {
        let representations: std::collections::BTreeSet<&str> =
            reply.files.iter().map(|file| file.representation.as_str()).collect();
        let state =
            |name: &str| if reply.growing.iter().any(|one| one == name) { "growing" } else { "complete" };
        let states = representations.iter().map(|name| format!("{name} {}", state(name)));
        facts.push(("grows", states.collect::<Vec<_>>().join(", ")));
    }
    facts.extend(reply.retired.as_ref().map(|retired| {
        let comment =
            if retired.comment.is_empty() { String::new() } else { format!(": {}", retired.comment) };
        ("retired", format!("{} by {} at {}{comment}", retired.at, retired.author, retired.node))
    }));
    if !reply.comment.is_empty() {
        facts.push(("comment", reply.comment.clone()));
    }
    facts.extend(reply.inputs.iter().map(|input| ("made from", input.clone())));
    facts.extend(reply.problems.iter().map(|problem| ("problem", problem.to_string())));
    facts.extend(reply.metadata.iter().map(|(key, value)| ("metadata", format!("{key} = {value}"))));
    facts
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use avalon_protocol::control::{FileItem, Presence};

    use super::*;
    use crate::fake::FakeDaemon;

    #[test]
    fn all_that_is_known_is_shown_with_the_files() {
        let reply = InfoReply {
            schema: "avalonctl.info/1".into(),
            reference: "lantern:robot/modelDefault@v002".into(),
            manifest: "m2".into(),
            generation: 1,
            completeness: Completeness::Explicit,
            author: "anna".into(),
            node: "ws1@london".into(),
            comment: "fixed \u{1b}knee".into(),
            published: "2026-11-22T10:00:00Z".into(),
            retired: None,
            growing: Vec::new(),
            path: Some("/srv/p".into()),
            dir: "assets/robot/publish/modelDefault/v002".into(),
            here: Presence::Complete,
            files_here: 1,
            some_here: Vec::new(),
            files: vec![FileItem {
                path: "m.abc".into(),
                bytes: 2048,
                hash: "af13".into(),
                representation: "abc".into(),
            }],
            inputs: vec!["robot/rig@v001".into()],
            metadata: BTreeMap::from([("fps".into(), "24".into())]),
            problems: vec![avalon_protocol::check::CheckProblem {
                code: "empty-file".into(),
                severity: avalon_protocol::check::CheckSeverity::Error,
                message: "m.obj has no bytes".into(),
                hint: "write it again".into(),
            }],
        };
        let daemon = FakeDaemon::start();
        daemon.on("GET /v1/info", &reply);
        let ran = daemon.run(&["info", "robot/modelDefault"]);
        assert_eq!(
            ran.stdout,
            "version       lantern:robot/modelDefault@v002\n\
             generation    1\n\
             manifest      m2\n\
             content       1 file, 2.0 KiB\n\
             here          complete\n\
             path          /srv/p\n\
             published     2026-11-22T10:00:00Z by anna at ws1@london\n\
             known whole   said by who published it\n\
             comment       fixed \\u{1b}knee\n\
             made from     robot/rig@v001\n\
             problem       error[empty-file]: m.obj has no bytes\n\
             metadata      fps = 24\n\
             \n\
             m.abc\t2048\tabc\taf13\n"
        );
        let json = daemon.run(&["info", "robot/modelDefault", "--json"]).json();
        assert_eq!(serde_json::from_value::<InfoReply>(json).unwrap(), reply);
    }
}
