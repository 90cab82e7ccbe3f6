//! `avalonctl publish PATH...`: says that versions on disk are whole, and returns when they are recorded.

use std::{collections::BTreeMap, path::PathBuf};

use avalon_protocol::{
    control::{ApiError, ErrorCode, PublishItem, PublishReply, PublishRequest, PublishState, route},
    exit_code::ExitCode,
};
use clap::Args;

use crate::{
    command::{problems, pull::exit_of_parts},
    context::{Context, said},
    escape::escape,
    failure::Failure,
    measure::{count, size},
    output::{Output, Style},
};

/// Arguments of `publish`.
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// Version directories, files in them, or directories above them.
    #[arg(value_name = "PATH", required = true)]
    paths: Vec<PathBuf>,
    /// What there is to say about it.
    #[arg(short = 'm', long, default_value = "", hide_default_value = true)]
    comment: String,
    /// Who publishes; by default the owner of the files.
    #[arg(long, default_value = "", hide_default_value = true)]
    author: String,
    /// What it was made from: a reference, or a path that is absolute or begins with ./ or ../. May be repeated.
    #[arg(long = "input", value_name = "REF")]
    inputs: Vec<String>,
    /// What else to keep, such as family=rig or fps=24. May be repeated.
    #[arg(long = "meta", value_name = "KEY=VALUE", value_parser = key_value)]
    metadata: Vec<(String, String)>,
}

/// Reads KEY=VALUE.
pub(crate) fn key_value(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".to_owned()),
    }
}

/// Publishes what is on disk.
pub(crate) async fn run(context: &Context<'_>, args: PublishArgs) -> Result<ExitCode, Failure> {
    let request = PublishRequest {
        paths: args.paths.into_iter().map(absolute).collect::<Result<_, _>>()?,
        comment: args.comment,
        author: args.author,
        inputs: args.inputs.into_iter().map(input).collect::<Result<_, _>>()?,
        metadata: BTreeMap::from_iter(args.metadata),
    };
    let (reply, exit) = send(context, &request, !context.output.is_json()).await?;
    if context.output.is_json() {
        context.output.json(&reply);
    }
    if reply.versions.is_empty() {
        return Err(said(
            ErrorCode::BadPath,
            "there is no version directory at these paths",
            "a version directory is what the project's template names, such as \
             lantern/assets/robot/publish/modelDefault/v001",
        ));
    }
    Ok(exit)
}

/// Publishes, and says what was refused, and the rest too if `shows` says so. Returns the exit code that comes of it.
pub(crate) async fn send(
    context: &Context<'_>,
    request: &PublishRequest,
    shows: bool,
) -> Result<(PublishReply, ExitCode), Failure> {
    let reply: PublishReply = context.client.post(route::PUBLISH, request).await?;
    reply.versions.iter().filter(|_| shows).for_each(|version| show(context.output, version));
    let refused: Vec<ApiError> =
        reply.versions.iter().filter(|version| version.state == PublishState::Refused).map(refusal).collect();
    refused.iter().for_each(|error| context.output.error(error));
    let codes: Vec<ErrorCode> = refused.iter().map(|error| error.code).collect();
    let exit = exit_of_parts(reply.versions.len() - refused.len(), &codes);
    let found = reply.versions.iter().flat_map(|version| &version.problems);
    let exit = if exit == ExitCode::Ok && problems::counts(found) { ExitCode::Partial } else { exit };
    Ok((reply, exit))
}

/// Makes a path absolute without following links: the daemon finds its projects in it by name.
fn absolute(path: PathBuf) -> Result<String, Failure> {
    let shown = path.display().to_string();
    let absolute = std::path::absolute(&path).map_err(|error| {
        said(
            ErrorCode::BadPath,
            format!("{shown:?} cannot be published: {error}"),
            "name a directory or a file",
        )
    })?;
    absolute.into_os_string().into_string().map_err(|_| {
        said(
            ErrorCode::BadPath,
            format!("{shown:?} cannot be published: the name is not UTF-8"),
            "rename it: other systems could not write it",
        )
    })
}

/// Makes a path from here absolute; a reference is left as it is.
fn input(text: String) -> Result<String, Failure> {
    if text.starts_with("./") || text.starts_with("../") { absolute(PathBuf::from(text)) } else { Ok(text) }
}

fn show(output: &Output, version: &PublishItem) {
    let state = match version.state {
        PublishState::Published => "published",
        PublishState::Unchanged => "unchanged",
        PublishState::Refused => return,
    };
    let what = format!("{}, {}", count(version.files, "file"), size(version.bytes));
    let reference = escape(&version.reference);
    if output.stdout_is_terminal() {
        let mark = output.emphasised(Style::Good, "✔");
        output.data(&format!("{mark} {reference}  {state}, generation {}  {what}", version.generation));
    } else {
        output.data(&format!("{reference}\t{state}\t{}\t{}", version.generation, version.manifest));
    }
    version.messages.iter().for_each(|message| output.talk(&format!("  {}", escape(message))));
    version.problems.iter().for_each(|problem| problems::talk(output, problem));
}

fn refusal(version: &PublishItem) -> ApiError {
    let why = match version.messages.as_slice() {
        [] => "the daemon did not say why".to_owned(),
        messages => messages.join("; "),
    };
    let code = version.error.unwrap_or(ErrorCode::Internal);
    ApiError::new(code, format!("{} was not published: {why}", version.reference))
}

#[cfg(test)]
mod tests {
    use avalon_protocol::check::{CheckProblem, CheckSeverity};
    use serde_json::{Value, json};

    use super::*;
    use crate::fake::FakeDaemon;

    fn item(state: PublishState, error: Option<ErrorCode>, messages: &[&str]) -> PublishItem {
        PublishItem {
            reference: "lantern:robot/modelDefault@v003".into(),
            state,
            messages: messages.iter().map(|&message| message.to_owned()).collect(),
            error,
            generation: 1,
            manifest: "m3".into(),
            files: 4,
            bytes: 2048,
            problems: Vec::new(),
        }
    }

    fn publishing(versions: Vec<PublishItem>) -> FakeDaemon {
        let daemon = FakeDaemon::start();
        daemon.on("POST /v1/publish", &PublishReply { schema: "avalonctl.publish/1".into(), versions });
        daemon
    }

    #[test]
    fn paths_are_made_absolute_and_all_that_was_said_is_sent() {
        let daemon = publishing(vec![item(PublishState::Published, None, &[])]);
        let args = [
            "publish",
            "v003",
            "-m",
            "fixed knee",
            "--author",
            "anna",
            "--input",
            "robot/rig@v001",
            "--input",
            "./tex/a.exr",
            "--meta",
        ];
        let ran = daemon.run(&[&args[..], &["fps=24=x"]].concat());
        assert_eq!(
            (ran.exit, ran.stdout.as_str()),
            (0, "lantern:robot/modelDefault@v003\tpublished\t1\tm3\n")
        );
        let request = daemon.requests().pop().unwrap();
        let body: Value = serde_json::from_str(request.strip_prefix("POST /v1/publish ").unwrap()).unwrap();
        let path = std::env::current_dir().unwrap().join("v003");
        let texture = std::env::current_dir().unwrap().join("tex/a.exr");
        assert_eq!(
            body,
            json!({
                "paths": [path], "comment": "fixed knee", "author": "anna", "inputs": ["robot/rig@v001", texture],
                "metadata": {"fps": "24=x"},
            })
        );
        let ran = daemon.run_at_terminal(&["publish", "v003"]);
        assert_eq!(
            ran.stdout,
            "✔ lantern:robot/modelDefault@v003  published, generation 1  4 files, 2.0 KiB\n"
        );
    }

    #[test]
    fn problems_are_said_and_end_with_3_unless_they_are_notes() {
        for (severity, exit) in
            [(CheckSeverity::Error, 3), (CheckSeverity::Warning, 3), (CheckSeverity::Note, 0)]
        {
            let mut published = item(PublishState::Published, None, &[]);
            published.problems = vec![CheckProblem {
                code: "missing-frames".into(),
                severity,
                message: "frame 1004 is missing\u{7}".into(),
                hint: "render it".into(),
            }];
            let ran = publishing(vec![published]).run(&["publish", "v003"]);
            let said =
                format!("  {severity}[missing-frames]: frame 1004 is missing\\u{{7}}\n    render it\n");
            assert_eq!((ran.exit, ran.stderr), (exit, said));
        }
    }

    #[test]
    fn what_was_refused_says_why_and_decides_the_exit_code() {
        let refused =
            || item(PublishState::Refused, Some(ErrorCode::NotWhole), &["frame 1007 is missing", "a lock"]);
        let ran = publishing(vec![refused()]).run(&["publish", "v003"]);
        assert_eq!((ran.exit, ran.stdout.as_str()), (1, ""));
        let said = "error[AVL-0804]: lantern:robot/modelDefault@v003 was not published: frame 1007 is missing; a lock\n";
        assert_eq!(ran.stderr, said);
        let rewritten = item(PublishState::Refused, Some(ErrorCode::Rewritten), &[]);
        assert_eq!(publishing(vec![rewritten]).run(&["publish", "v003"]).exit, 8);
        let some = vec![item(PublishState::Unchanged, None, &[]), refused()];
        assert_eq!(publishing(some).run(&["publish", "v003"]).exit, 3);
        assert_eq!(publishing(vec![]).run(&["publish", "v003"]).exit, 2);
    }
}
