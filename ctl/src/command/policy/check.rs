//! `avalonctl policy check FILE`: is it a policy, and if not, everything that is wrong with it. Works on the file alone.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use avalon_protocol::{
    control::ErrorCode,
    exit_code::ExitCode,
    id::SiteName,
    policy::{Policy, Problem, Studio},
};
use clap::Args;
use serde::Serialize;

use crate::{
    context::{Context, said},
    escape::escape,
    failure::Failure,
    measure::count,
};

/// How much of a file is read: far more than a policy may have, so that what it says of the length is right.
const MAX_READ_BYTES: u64 = 16 << 20;

/// Arguments of `policy check`.
#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The document.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// All sites of the studio, between commas. Then names of other sites are problems, and so are minimums of copies that these
    /// sites cannot reach.
    #[arg(long, value_name = "SITES", value_delimiter = ',')]
    sites: Vec<SiteName>,
}

#[derive(Debug, Serialize)]
struct Answer<'a> {
    schema: &'static str,
    file: String,
    ok: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    rules: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    groups: Option<usize>,
    problems: &'a [Problem],
}

/// Checks a document.
pub(super) fn run(context: &Context<'_>, args: &CheckArgs) -> Result<ExitCode, Failure> {
    let bytes = read(&args.file)?;
    let studio = (!args.sites.is_empty()).then(|| Studio::of_sites(args.sites.iter().cloned()));
    let file = args.file.display().to_string();
    match check(&bytes, studio.as_ref()) {
        Ok(policy) => {
            accept(context, file, &policy);
            if studio.is_none() {
                context
                    .output
                    .talk("names of sites were not checked; to check them: --sites london,montreal");
            }
            Ok(ExitCode::Ok)
        }
        Err(problems) => Err(refuse(context, file, &problems)),
    }
}

/// Returns the text of a document that is a policy; shows what is wrong with any other.
pub(super) fn checked(context: &Context<'_>, path: &Path) -> Result<String, Failure> {
    let bytes = read(path)?;
    match check(&bytes, None) {
        Ok(_) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(problems) => Err(refuse(context, path.display().to_string(), &problems)),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let mut opened = File::open(path).map(|file| file.take(MAX_READ_BYTES));
    match opened.as_mut().map_err(|error| unreadable(path, error))?.read_to_end(&mut bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => Err(unreadable(path, &error)),
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Failure {
    let (code, hint) = match error.kind() {
        io::ErrorKind::NotFound => {
            (ErrorCode::NotFound, "name a policy document; docs/policy.md has examples")
        }
        io::ErrorKind::PermissionDenied => (ErrorCode::Denied, "ask its owner to let you read it"),
        _ => (ErrorCode::Internal, "name a policy document; docs/policy.md has examples"),
    };
    said(code, format!("{} cannot be read: {error}", path.display()), hint)
}

fn check(bytes: &[u8], studio: Option<&Studio>) -> Result<Policy, Vec<Problem>> {
    let text = str::from_utf8(bytes).map_err(|error| vec![not_text(bytes, error.valid_up_to())])?;
    Policy::check(text, studio).map_err(|refused| refused.problems)
}

fn not_text(bytes: &[u8], good: usize) -> Problem {
    let before = bytes.iter().take(good);
    let line = u32::try_from(before.filter(|byte| **byte == b'\n').count() + 1).unwrap_or(u32::MAX);
    Problem {
        line,
        column: 1,
        reason: "this is not UTF-8".into(),
        advice: "save the file as text in UTF-8".into(),
    }
}

fn accept(context: &Context<'_>, file: String, policy: &Policy) {
    let (rules, groups) = (policy.rules().len(), policy.groups());
    if context.output.is_json() {
        let schema = "avalonctl.policy-check/1";
        let (rules, groups) = (Some(rules), Some(groups));
        context.output.json(&Answer { schema, file, ok: true, rules, groups, problems: &[] });
    } else {
        let (rules, groups) = (count(rules as u64, "rule"), count(groups as u64, "group"));
        context.output.data(&format!("{}: ok, {rules}, {groups}", escape(&file)));
    }
}

/// Shows the problems as compilers do, and returns what to end with.
fn refuse(context: &Context<'_>, file: String, problems: &[Problem]) -> Failure {
    let message = format!("{file} is not a policy: {}", count(problems.len() as u64, "problem"));
    if context.output.is_json() {
        let schema = "avalonctl.policy-check/1";
        context.output.json(&Answer { schema, file, ok: false, rules: None, groups: None, problems });
    } else {
        for problem in problems {
            context.output.data(&escape(&format!("{file}:{problem}")));
        }
    }
    said(ErrorCode::BadPolicy, message, "mend them and check again; docs/policy.md explains each word")
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::fake::{Ran, run};

    const GOOD: &str = "schema = \"avalon.policy/1\"\n[groups]\noffices = [\"london\", \"montreal\"]\n[defaults]\n\
                        keep = \"on-demand\"\nmin_copies = 1\n[[rule]]\nname = \"all\"\nmatch = { project = \"*\" }\n\
                        sites = [\"@offices\"]\nkeep = \"here\"\nmin_copies = 2\n";

    fn check(bytes: &[u8], more: &[&str]) -> (Ran, String) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("studio.toml");
        File::create(&path).unwrap().write_all(bytes).unwrap();
        let shown = path.to_str().unwrap().to_owned();
        let args: Vec<&str> = ["policy", "check", &shown].iter().chain(more).copied().collect();
        (run(&args), shown)
    }

    #[test]
    fn a_good_document_is_ok_without_any_daemon() {
        let (ran, file) = check(GOOD.as_bytes(), &[]);
        assert_eq!((ran.exit, ran.stdout), (0, format!("{file}: ok, 1 rule, 1 group\n")));
        assert_eq!(ran.stderr, "names of sites were not checked; to check them: --sites london,montreal\n");
        let (ran, file) = check(GOOD.as_bytes(), &["--json", "--sites", "london,montreal"]);
        assert_eq!(
            ran.json(),
            serde_json::json!({
                "schema": "avalonctl.policy-check/1", "file": file, "ok": true, "rules": 1, "groups": 1, "problems": [],
            })
        );
        assert_eq!((ran.exit, ran.stderr.as_str()), (0, ""));
    }

    #[test]
    fn every_problem_is_shown_as_compilers_do_and_the_exit_code_is_1() {
        let bad = GOOD.replace("\"montreal\"", "\"montrael\"").replace("keep = \"here\"", "kep = \"here\"");
        let (ran, file) = check(bad.as_bytes(), &["--sites", "london,montreal"]);
        assert_eq!(ran.exit, 1);
        assert_eq!(
            ran.stdout,
            format!(
                "{file}:3:22: group `offices`: the studio has no site `montrael`; did you mean \"montreal\"?\n\
                 {file}:7:1: rule \"all\" has no `keep`; write keep = \"here\", \"on-demand\" or \"never\"\n\
                 {file}:11:1: unknown key `kep` in rule \"all\"; did you mean `keep`?\n"
            )
        );
        assert_eq!(
            ran.stderr,
            format!(
                "error[AVL-1201]: {file} is not a policy: 3 problems\n  hint: mend them and check again; docs/policy.md \
                 explains each word\n"
            )
        );
        let (ran, _) = check(bad.as_bytes(), &["--json"]);
        let (json, error) = (ran.json(), ran.error());
        assert_eq!((json["ok"].as_bool(), json["problems"][0]["line"].as_u64()), (Some(false), Some(7)));
        assert_eq!((json.get("rules"), error.code, error.exit), (None, ErrorCode::BadPolicy, 1));
    }

    #[test]
    fn a_minimum_that_the_given_sites_cannot_reach_is_a_problem() {
        let all = GOOD.replace("@offices", "*");
        assert_eq!(check(all.as_bytes(), &["--sites", "london,montreal"]).0.exit, 0);
        let three = all.replace("min_copies = 2", "min_copies = 3");
        assert_eq!(check(three.as_bytes(), &[]).0.exit, 0);
        let (ran, _) = check(three.as_bytes(), &["--sites", "london,montreal"]);
        assert!(ran.stdout.contains(":12:14: rule \"all\": `min_copies` is 3"), "{ran:?}");
    }

    #[test]
    fn what_cannot_be_read_is_told() {
        let ran = run(&["policy", "check", "/nothing/there.toml"]);
        assert_eq!(ran.exit, 4);
        assert!(ran.stderr.starts_with("error[AVL-0401]: /nothing/there.toml cannot be read: "), "{ran:?}");
        let (ran, file) = check(b"a = 1\n\xff", &[]);
        assert_eq!(ran.stdout, format!("{file}:2:1: this is not UTF-8; save the file as text in UTF-8\n"));
        assert_eq!(run(&["policy", "check", "x", "--sites", "London"]).exit, 2);
    }

    #[test]
    fn a_document_cannot_act_on_the_terminal() {
        let (ran, _) = check(b"\"\\u001b[2J\" = 1\n", &[]);
        assert!(ran.stdout.contains("\\u{1b}[2J") && !ran.stdout.contains('\u{1b}'), "{ran:?}");
    }
}
