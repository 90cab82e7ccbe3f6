//! `avalonctl policy diff FILE` and `policy apply -n FILE`: what a document would change, before anything moves.

use std::path::PathBuf;

use avalon_protocol::{
    control::{
        PolicyDiffList, PolicyDiffReply, PolicyDiffSite, PolicyDiffSpeed, PolicyDiffVersion, PolicyRequest,
        route,
    },
    exit_code::ExitCode,
    policy::{Amount, Problem},
};
use clap::Args;

use super::check;
use crate::{
    context::Context,
    escape::escape,
    failure::Failure,
    measure::{count, duration, rate, size},
    output::Output,
    table::{self, Cell},
};

/// Arguments of `policy diff`.
#[derive(Debug, Args)]
pub(super) struct DiffArgs {
    /// The document.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Compares a document with the policy in effect.
pub(super) async fn run(context: &Context<'_>, args: &DiffArgs) -> Result<ExitCode, Failure> {
    let document = check::checked(context, &args.file)?;
    show_dry_run(context, document, None).await
}

/// Asks what applying a document would change, and shows it.
pub(super) async fn show_dry_run(
    context: &Context<'_>,
    document: String,
    replaces: Option<u64>,
) -> Result<ExitCode, Failure> {
    let request =
        PolicyRequest { document, comment: String::new(), author: String::new(), replaces, dry_run: true };
    let reply: PolicyDiffReply = context.client.post(route::POLICY, &request).await?;
    if context.output.is_json() {
        context.output.json(&reply);
    } else {
        show(context.output, &reply);
    }
    Ok(ExitCode::Ok)
}

/// Shows what does not fit the studio as the daemon knows it.
pub(super) fn warn(output: &Output, warnings: &[Problem]) {
    for problem in warnings {
        output.talk(&format!("warning: line {}", escape(&problem.to_string())));
    }
}

fn show(output: &Output, reply: &PolicyDiffReply) {
    let header = ["SITE", "VERSIONS", "TO COPY", "OF IT NEW", "NO LONGER", "TAKES", "COULD FREE"];
    table::print(output, &header, reply.sites.iter().map(row).collect());
    if output.stdout_is_terminal() {
        show_nodes(output, reply);
    }
    show_list(output, &reply.under_replicated, "at fewer sites than min_copies", too_few);
    show_list(output, &reply.kept_nowhere, "kept by no site, and left where they are", |_| String::new());
    show_list(output, &reply.not_known, "not judged before their manifest has come", |version| {
        version.rule.as_ref().map_or_else(String::new, |rule| format!(", rule {rule} asks for it"))
    });
    if reply.conflicts > 0 {
        output.data(&format!(
            "{} in conflict: nothing is copied before a person decides",
            count(reply.conflicts, "version")
        ));
    }
    reply.sites.iter().filter_map(how_long).for_each(|line| output.talk(&line));
    warn(output, &reply.warnings);
    let against = match reply.in_effect {
        Some(serial) => format!("policy {serial}"),
        None => "no policy, where each node goes by its own mode".to_owned(),
    };
    output.talk(&format!(
        "{} of {} looked at, {}; compared with {against}; at all sites together {} could be freed; nothing was applied",
        count(reply.looked_at.versions, "version"),
        count(reply.projects.len() as u64, "project"),
        size(reply.looked_at.bytes),
        size(reply.could_free.then.bytes),
    ));
}

fn row(site: &PolicyDiffSite) -> Vec<Cell> {
    let bytes = |amount: Amount| Cell::number(amount.bytes, size(amount.bytes));
    let copying = &site.copying;
    let new = Amount {
        versions: copying.to_copy.versions.saturating_sub(copying.anyway.versions),
        bytes: copying.to_copy.bytes.saturating_sub(copying.anyway.bytes),
    };
    let seconds = site.seconds.filter(|_| copying.to_copy.bytes > 0);
    let takes = seconds.map_or_else(|| Cell::text("-"), |time| Cell::number(time.round(), duration(time)));
    vec![
        Cell::text(&site.site),
        Cell::number(copying.to_copy.versions, copying.to_copy.versions.to_string()),
        bytes(copying.to_copy),
        bytes(new),
        bytes(copying.no_longer),
        takes,
        bytes(site.could_free.then),
    ]
}

/// Shows what single nodes get, which can come from within their site.
fn show_nodes(output: &Output, reply: &PolicyDiffReply) {
    for node in reply.nodes.iter().filter(|node| node.copying.to_copy.versions > 0) {
        let to_copy = node.copying.to_copy;
        output.data(&format!(
            "{}: {} to copy, {}",
            escape(&node.node),
            count(to_copy.versions, "version"),
            size(to_copy.bytes)
        ));
    }
}

fn show_list(
    output: &Output,
    list: &PolicyDiffList,
    what: &str,
    more: impl Fn(&PolicyDiffVersion) -> String,
) {
    if list.then.versions == 0 {
        if list.now.versions > 0 {
            output.data(&format!("0 versions {what}; {} now", list.now.versions));
        }
        return;
    }
    output.data(&format!(
        "{} {what}, {}; {} now",
        count(list.then.versions, "version"),
        size(list.then.bytes),
        list.now.versions
    ));
    for version in &list.first {
        let already = if version.already { ", as now" } else { "" };
        output.data(&format!("  {}{}{already}", escape(&version.reference), escape(&more(version))));
    }
    let left = list.then.versions.saturating_sub(list.first.len() as u64);
    if left > 0 {
        output.data(&format!("  and {left} more"));
    }
}

fn too_few(version: &PolicyDiffVersion) -> String {
    let because = match &version.rule {
        Some(rule) => format!("rule {rule}"),
        None => "the defaults".to_owned(),
    };
    let PolicyDiffVersion { copies, min_copies, .. } = version;
    format!(": {} of {min_copies}, by {because}", count(u64::from(*copies), "site"))
}

/// Says where an estimate is from, or why there is none.
fn how_long(site: &PolicyDiffSite) -> Option<String> {
    if site.copying.to_copy.bytes == 0 {
        return None;
    }
    let speed = site.bytes_per_second.unwrap_or_default();
    let says = match site.speed {
        PolicyDiffSpeed::Unknown => "how long it takes is not known: no limit is known here".to_owned(),
        _ if speed <= 0.0 => "a limit lets nothing through now".to_owned(),
        PolicyDiffSpeed::ReceiveLimit => format!("at {}, what this node may receive now", rate(speed)),
        PolicyDiffSpeed::SendLimit => format!("at {}, what this node may send there now", rate(speed)),
        PolicyDiffSpeed::Recent => format!("at {}, as it comes at this moment", rate(speed)),
    };
    let assumed = match site.server_is_assumed {
        true => "; that it mirrors is assumed: its server is not connected here",
        false => "",
    };
    Some(format!("{}: {says}{assumed}", escape(&site.site)))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _};

    use avalon_protocol::{
        control::{ApiError, ErrorCode},
        policy::{Copying, Freeing},
    };

    use super::*;
    use crate::fake::{FakeDaemon, Ran};

    const DOCUMENT: &str = "schema = \"avalon.policy/1\"\n[defaults]\nkeep = \"on-demand\"\nmin_copies = 1\n";
    const GIB: u64 = 1 << 30;

    fn amount(versions: u64) -> Amount {
        Amount { versions, bytes: versions * GIB }
    }

    fn site(name: &str, to_copy: u64, anyway: u64, speed: PolicyDiffSpeed) -> PolicyDiffSite {
        let bytes_per_second = (speed != PolicyDiffSpeed::Unknown).then_some(GIB as f64 / 10.0);
        PolicyDiffSite {
            site: name.into(),
            server_is_assumed: speed == PolicyDiffSpeed::Unknown,
            copying: Copying { to_copy: amount(to_copy), anyway: amount(anyway), no_longer: amount(1) },
            could_free: Freeing { then: amount(4), now: amount(0) },
            bytes_per_second,
            speed,
            seconds: bytes_per_second.map(|_| to_copy as f64 * 10.0),
        }
    }

    fn list(then: u64, already: bool) -> PolicyDiffList {
        let version = PolicyDiffVersion {
            reference: "lantern:robot/rig@v001".into(),
            already,
            copies: 1,
            min_copies: 2,
            rule: Some("two (line 5)".into()),
        };
        let first = if then > 0 { vec![version] } else { Vec::new() };
        PolicyDiffList { then: amount(then), now: amount(1), first }
    }

    fn reply() -> PolicyDiffReply {
        PolicyDiffReply {
            schema: "avalonctl.policy-diff/1".into(),
            in_effect: Some(3),
            projects: vec!["lantern".into()],
            looked_at: amount(9),
            sites: vec![
                site("archive", 2, 0, PolicyDiffSpeed::Unknown),
                site("london", 0, 0, PolicyDiffSpeed::ReceiveLimit),
                site("montreal", 3, 1, PolicyDiffSpeed::SendLimit),
            ],
            nodes: Vec::new(),
            could_free: Freeing { then: amount(6), now: amount(0) },
            under_replicated: list(2, false),
            kept_nowhere: list(1, true),
            not_known: list(0, false),
            conflicts: 1,
            warnings: vec![Problem {
                line: 7,
                column: 3,
                reason: "the studio has no site `tokyo`".into(),
                advice: "known sites: london".into(),
            }],
        }
    }

    fn daemon() -> FakeDaemon {
        let daemon = FakeDaemon::start();
        daemon.on("POST /v1/policy", &reply());
        daemon
    }

    fn ask(daemon: &FakeDaemon, words: &[&str], document: &str, at_terminal: bool) -> Ran {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("studio.toml");
        File::create(&path).unwrap().write_all(document.as_bytes()).unwrap();
        let args: Vec<&str> =
            ["policy"].iter().chain(words).copied().chain([path.to_str().unwrap()]).collect();
        if at_terminal { daemon.run_at_terminal(&args) } else { daemon.run(&args) }
    }

    #[test]
    fn a_diff_is_a_row_for_each_site_and_a_sentence_for_what_goes_wrong() {
        let ran = ask(&daemon(), &["diff"], DOCUMENT, false);
        let rows = "archive\t2\t2147483648\t2147483648\t1073741824\t-\t4294967296\n\
                    london\t0\t0\t0\t1073741824\t-\t4294967296\n\
                    montreal\t3\t3221225472\t2147483648\t1073741824\t30\t4294967296\n";
        let sentences = "2 versions at fewer sites than min_copies, 2.0 GiB; 1 now\n  \
                         lantern:robot/rig@v001: 1 site of 2, by rule two (line 5)\n  and 1 more\n\
                         1 version kept by no site, and left where they are, 1.0 GiB; 1 now\n  \
                         lantern:robot/rig@v001, as now\n\
                         0 versions not judged before their manifest has come; 1 now\n\
                         1 version in conflict: nothing is copied before a person decides\n";
        assert_eq!((ran.exit, ran.stdout), (0, format!("{rows}{sentences}")));
        assert_eq!(
            ran.stderr,
            "archive: how long it takes is not known: no limit is known here; that it mirrors is assumed: its server is not \
             connected here\nmontreal: at 102.4 MiB/s, what this node may send there now\n\
             warning: line 7:3: the studio has no site `tokyo`; known sites: london\n\
             9 versions of 1 project looked at, 9.0 GiB; compared with policy 3; at all sites together 6.0 GiB could be \
             freed; nothing was applied\n"
        );
        let shown = ask(&daemon(), &["diff"], DOCUMENT, true).stdout;
        assert!(shown.contains("OF IT NEW") && shown.contains("30s"), "{shown}");
    }

    #[test]
    fn apply_with_n_asks_the_same_and_applies_nothing() {
        let daemon = daemon();
        let diff = ask(&daemon, &["diff", "--json"], DOCUMENT, false).json();
        assert_eq!(diff["schema"], "avalonctl.policy-diff/1");
        assert_eq!(diff, ask(&daemon, &["apply", "-n", "--json"], DOCUMENT, false).json());
        assert_eq!(ask(&daemon, &["apply", "-n", "--replaces", "2"], DOCUMENT, false).exit, 0);
        let requests = daemon.requests();
        assert!(
            requests.len() == 3 && requests.iter().all(|one| one.contains("\"dry_run\":true")),
            "{requests:?}"
        );
        assert!(requests[1].contains("\"replaces\":null") && requests[2].contains("\"replaces\":2"));
    }

    #[test]
    fn what_is_no_policy_is_never_sent_and_a_refusal_keeps_its_exit_code() {
        let daemon = FakeDaemon::start();
        let ran = ask(&daemon, &["diff"], &DOCUMENT.replace("on-demand", "sometimes"), false);
        assert!(ran.exit == 1 && ran.stdout.contains("studio.toml:3:8: "), "{ran:?}");
        assert!(daemon.requests().is_empty());
        let error = ApiError::new(ErrorCode::PolicyChanged, "policy 1 was to be replaced");
        daemon.refuse("POST /v1/policy", &error);
        assert_eq!(ask(&daemon, &["apply", "-n", "--replaces", "1"], DOCUMENT, false).exit, 1);
    }
}
