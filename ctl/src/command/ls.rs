//! `avalonctl ls [REF]`: which versions there are.

use avalon_protocol::{
    control::{ErrorCode, ListReply, Presence, VersionItem, route},
    exit_code::ExitCode,
    reference::{Reference, VersionSelector},
};
use clap::Args;

use crate::{
    context::{Context, with_hint},
    failure::Failure,
    measure::size,
    table::{self, Cell},
};

/// Arguments of `ls`.
#[derive(Debug, Args)]
pub(crate) struct LsArgs {
    /// What to list: an asset, or a reference with or without globs; all of the project without one.
    #[arg(value_name = "REF")]
    reference: Option<String>,
    /// Show who published it and when.
    #[arg(short, long)]
    long: bool,
    /// Every version, not only the latest of each subset.
    #[arg(short, long)]
    all: bool,
    /// Versions that are out of use, too.
    #[arg(long)]
    retired: bool,
}

/// Lists versions.
pub(crate) async fn run(context: &Context<'_>, args: &LsArgs) -> Result<ExitCode, Failure> {
    let reference = args.reference.as_deref().map(|text| listing(text, args.all)).transpose()?;
    let reply = list(context, reference.as_deref(), args).await?;
    if context.output.is_json() {
        context.output.json(&reply);
        return Ok(ExitCode::Ok);
    }
    if reply.versions.is_empty() {
        context.output.talk("no versions");
    }
    let header: &[&str] = if args.long {
        &["VERSION", "FILES", "SIZE", "HERE", "GENERATION", "AUTHOR", "PUBLISHED", "REPRESENTATIONS", "NOTE"]
    } else {
        &["VERSION", "FILES", "SIZE", "HERE", "REPRESENTATIONS", "NOTE"]
    };
    let rows = reply.versions.iter().map(|version| row(version, args.long)).collect();
    table::print(context.output, header, rows);
    Ok(ExitCode::Ok)
}

/// Asks for page after page.
async fn list(context: &Context<'_>, reference: Option<&str>, args: &LsArgs) -> Result<ListReply, Failure> {
    let mut all: Option<ListReply> = None;
    loop {
        let after = all.as_ref().and_then(|all| all.next.clone());
        let [reference, project] = context.query(reference);
        let query =
            [reference, project, ("retired", args.retired.then_some("true")), ("after", after.as_deref())];
        let page: ListReply = context.client.get(route::VERSIONS, &query).await.map_err(|error| {
            with_hint(error.into(), ErrorCode::NotFound, "list what exists: avalonctl ls")
        })?;
        let all = match &mut all {
            None => all.insert(page),
            Some(all) => {
                all.versions.extend(page.versions);
                all.next = page.next;
                all
            }
        };
        if all.next.is_none() {
            return Ok(ListReply {
                schema: all.schema.clone(),
                versions: std::mem::take(&mut all.versions),
                next: None,
            });
        }
    }
}

/// Checks a reference and returns what to ask for.
fn listing(text: &str, wants_all: bool) -> Result<String, Failure> {
    let mut reference = Reference::parse_listing(text)?;
    if wants_all && reference.version == VersionSelector::Latest {
        reference.version = VersionSelector::All;
        return Ok(reference.to_string());
    }
    Ok(text.to_owned())
}

fn row(version: &VersionItem, is_long: bool) -> Vec<Cell> {
    let mut row = vec![
        Cell::text(&version.reference),
        Cell::number(version.files, version.files.to_string()),
        Cell::number(version.bytes, size(version.bytes)),
        Cell::text(presence(version.here)),
    ];
    if is_long {
        row.push(Cell::number(version.generation, version.generation.to_string()));
        row.push(Cell::text(&version.author));
        row.push(Cell::text(&version.published));
    }
    row.push(Cell::text(version.representations.join(",")));
    row.push(Cell::text(match &version.retired {
        _ if version.conflict => "conflict".to_owned(),
        Some(retired) => format!("retired by {}", retired.author),
        None if !version.growing.is_empty() => format!("{} still growing", version.growing.join(",")),
        None => String::new(),
    }));
    row
}

/// Returns the word for how much of a version is here.
pub(crate) fn presence(presence: Presence) -> &'static str {
    match presence {
        Presence::Complete => "complete",
        Presence::Partial => "partial",
        Presence::None => "none",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fake::FakeDaemon;

    fn listing_daemon(reference: &str) -> FakeDaemon {
        let version = VersionItem {
            reference: reference.into(),
            representations: vec!["abc".into(), "ma".into()],
            files: 5,
            bytes: 1_975_684_956,
            here: Presence::Partial,
            generation: 2,
            author: "anna".into(),
            published: "2026-11-22T10:00:00Z".into(),
            conflict: false,
            retired: None,
            growing: Vec::new(),
        };
        let daemon = FakeDaemon::start();
        daemon.on(
            "GET /v1/versions",
            &ListReply { schema: "avalonctl.ls/1".into(), versions: vec![version], next: None },
        );
        daemon
    }

    #[test]
    fn a_pipe_gets_plain_columns_and_a_terminal_a_table() {
        let daemon = listing_daemon("lantern:robot/modelDefault@v002");
        let ran = daemon.run(&["ls", "robot"]);
        assert_eq!(ran.stdout, "lantern:robot/modelDefault@v002\t5\t1975684956\tpartial\tabc,ma\t\n");
        let ran = daemon.run_at_terminal(&["ls", "-l", "robot"]);
        assert_eq!(
            ran.stdout,
            "VERSION                          FILES  SIZE     HERE     GENERATION  AUTHOR  PUBLISHED             \
             REPRESENTATIONS  NOTE\n\
             lantern:robot/modelDefault@v002      5  1.8 GiB  partial           2  anna    2026-11-22T10:00:00Z  abc,ma\n"
        );
    }

    #[test]
    fn json_is_what_the_daemon_says() {
        let reply = listing_daemon("lantern:robot/modelDefault@v002").run(&["ls", "--json"]).json();
        assert_eq!(reply["schema"], "avalonctl.ls/1");
        let version = &reply["versions"][0];
        assert_eq!(version["ref"], "lantern:robot/modelDefault@v002");
        assert_eq!(
            (&version["here"], &version["representations"]),
            (&json!("partial"), &json!(["abc", "ma"]))
        );
    }

    #[test]
    fn hostile_names_are_shown_and_not_obeyed_unless_json_is_wanted() {
        let daemon = listing_daemon("lantern:x\u{1b}[31m\u{202e}cba\nforged");
        for ran in [daemon.run(&["ls"]), daemon.run_at_terminal(&["ls"])] {
            assert!(ran.stdout.contains("lantern:x\\u{1b}[31m\\u{202e}cba\\nforged"), "{ran:?}");
            assert!(!ran.stdout.contains(['\u{1b}', '\u{202e}']));
        }
        assert_eq!(
            daemon.run(&["ls", "--json"]).json()["versions"][0]["ref"],
            "lantern:x\u{1b}[31m\u{202e}cba\nforged"
        );
    }

    #[test]
    fn all_asks_for_every_version_unless_one_is_named() {
        let daemon = listing_daemon("lantern:robot/modelDefault@v002");
        let asked = |args: &[&str]| {
            daemon.run(args);
            daemon.requests().pop().unwrap()
        };
        assert_eq!(asked(&["ls", "robot"]), "GET /v1/versions?ref=robot");
        assert_eq!(asked(&["ls", "--all", "robot"]), "GET /v1/versions?ref=robot%2F%2A%40%2A");
        assert_eq!(asked(&["ls", "--all", "robot/a@v002"]), "GET /v1/versions?ref=robot%2Fa%40v002");
    }

    #[test]
    fn nothing_is_said_on_stdout_when_there_is_nothing() {
        let daemon = FakeDaemon::start();
        daemon.on(
            "GET /v1/versions",
            &ListReply { schema: "avalonctl.ls/1".into(), versions: vec![], next: None },
        );
        let ran = daemon.run(&["ls"]);
        assert_eq!((ran.exit, ran.stdout.as_str(), ran.stderr.as_str()), (0, "", "no versions\n"));
    }
}
