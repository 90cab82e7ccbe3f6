//! `avalonctl inputs REF`: what versions were made from.

use avalon_protocol::{
    control::{ErrorCode, InputVersion, InputsReply, route},
    exit_code::ExitCode,
    reference::Reference,
};
use clap::Args;

use crate::{
    command::{ls::presence, pull::missing_words},
    context::{Context, with_hint},
    escape::escape,
    failure::Failure,
    measure::{count, size},
    table::{self, Cell},
};

/// Arguments of `inputs`.
#[derive(Debug, Args)]
pub(crate) struct InputsArgs {
    /// Which versions; globs are allowed.
    #[arg(value_name = "REF")]
    reference: String,
    /// Inputs of inputs, too.
    #[arg(short, long)]
    recursive: bool,
}

/// Shows inputs.
pub(crate) async fn run(context: &Context<'_>, args: &InputsArgs) -> Result<ExitCode, Failure> {
    let checked: Reference = args.reference.parse()?;
    let [reference, project] = context.query(Some(&args.reference));
    let recursive = ("recursive", args.recursive.then_some("true"));
    let reply: Result<InputsReply, _> =
        context.client.get(route::INPUTS, &[reference, project, recursive]).await;
    let hint = format!("list what exists: avalonctl ls {}", checked.asset);
    let reply = reply.map_err(|error| with_hint(error.into(), ErrorCode::NotFound, &hint))?;
    if context.output.is_json() {
        context.output.json(&reply);
        return Ok(ExitCode::Ok);
    }
    let inputs: Vec<&InputVersion> = reply.versions.iter().filter(|version| version.depth > 0).collect();
    let header = ["INPUT", "STEPS", "FILES", "SIZE", "HERE", "NEEDED BY"];
    table::print(context.output, &header, inputs.iter().map(|version| row(version)).collect());
    if inputs.is_empty() && reply.missing.is_empty() {
        context.output.talk("made from nothing that is known");
    }
    for missing in &reply.missing {
        context.output.talk(&format!("missing: {}", escape(&missing_words(missing))));
    }
    if reply.missing_more > 0 {
        context.output.talk(&format!("and {} more are missing", reply.missing_more));
    }
    let versions = count(reply.versions.len() as u64, "version");
    context.output.talk(&format!(
        "{versions} in all, {}, {} here",
        size(reply.bytes),
        size(reply.bytes_here)
    ));
    Ok(ExitCode::Ok)
}

fn row(version: &InputVersion) -> Vec<Cell> {
    vec![
        Cell::text(&version.reference),
        Cell::number(version.depth, version.depth.to_string()),
        Cell::number(version.files, version.files.to_string()),
        Cell::number(version.bytes, size(version.bytes)),
        Cell::text(presence(version.here)),
        Cell::text(version.needed_by.as_deref().unwrap_or_default()),
    ]
}

#[cfg(test)]
mod tests {
    use avalon_protocol::control::{MissingInput, MissingReason, Presence};

    use super::*;
    use crate::fake::FakeDaemon;

    fn version(reference: &str, depth: u32, here: Presence) -> InputVersion {
        let needed_by = (depth > 0).then(|| "lantern:sh010/layout@v001".to_owned());
        InputVersion {
            reference: reference.into(),
            depth,
            needed_by,
            files: 2,
            bytes: 2048,
            bytes_here: 1024,
            here,
        }
    }

    fn reply() -> InputsReply {
        InputsReply {
            schema: "avalonctl.inputs/1".into(),
            versions: vec![
                version("lantern:robot/look@v002", 1, Presence::Partial),
                version("lantern:sh010/layout@v001", 0, Presence::None),
            ],
            missing: vec![MissingInput {
                input: "/mnt/wood\u{1b}.exr".into(),
                needed_by: "lantern:robot/look@v002".into(),
                why: MissingReason::NotPublished,
            }],
            missing_more: 2,
            files: 4,
            bytes: 4096,
            bytes_here: 2048,
        }
    }

    #[test]
    fn inputs_are_rows_and_what_is_missing_is_said() {
        let daemon = FakeDaemon::start();
        daemon.on("GET /v1/inputs", &reply());
        let ran = daemon.run(&["inputs", "sh010/layout", "--recursive"]);
        assert_eq!(ran.stdout, "lantern:robot/look@v002\t1\t2\t2048\tpartial\tlantern:sh010/layout@v001\n");
        assert_eq!(
            ran.stderr,
            "missing: /mnt/wood\\u{1b}.exr (needed by lantern:robot/look@v002) is not published\n\
             and 2 more are missing\n2 versions in all, 4.0 KiB, 2.0 KiB here\n"
        );
        assert_eq!(daemon.requests(), ["GET /v1/inputs?ref=sh010%2Flayout&recursive=true"]);
        let json = daemon.run(&["inputs", "sh010/layout", "--json"]).json();
        assert_eq!(serde_json::from_value::<InputsReply>(json).unwrap(), reply());
        assert!(!daemon.requests()[1].contains("recursive"));
    }

    #[test]
    fn a_version_made_from_nothing_says_so() {
        let daemon = FakeDaemon::start();
        let versions = vec![version("lantern:sh010/layout@v001", 0, Presence::None)];
        daemon.on("GET /v1/inputs", &InputsReply { versions, missing: vec![], missing_more: 0, ..reply() });
        let ran = daemon.run(&["inputs", "sh010/layout"]);
        assert_eq!((ran.exit, ran.stdout.as_str()), (0, ""));
        assert!(ran.stderr.starts_with("made from nothing that is known\n"), "{ran:?}");
    }
}
