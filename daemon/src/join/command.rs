//! `avalond join`: what `avalonctl join` runs. It is here because the network, the keys and the configuration are.

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use avalon_certs::{Chain, install};
use avalon_protocol::{
    access::{JoinToken, Role},
    control::{ApiError, ErrorCode},
    id::{NodeId, NodeName, ProjectName, SiteName},
    shown::escape,
};
use clap::Args;
use rustls::pki_types::CertificateDer;
use serde::Serialize;

use super::{
    dial::{JoinError, Joiner},
    first_config::{FirstConfig, FirstConfigError},
    offline,
};
use crate::{
    clock::{Clock as _, RealClock},
    log::ErrorChain,
};

/// Where the words of this program end in a token: nobody pastes more.
const MAX_STDIN_BYTES: u64 = 64 << 10;

/// Arguments of `join`.
#[derive(Debug, Args)]
pub struct JoinArgs {
    /// The token that `avalonctl invite` printed; `-` reads it from stdin.
    #[arg(value_name = "TOKEN", required_unless_present_any = ["request", "certificate"])]
    token: Option<String>,
    /// Make the key here and write the request for its certificate, to be signed off line.
    #[arg(long, conflicts_with_all = ["token", "certificate"], requires_all = ["node", "site"])]
    request: bool,
    /// Take the certificate that `avalonctl ca sign` made of the request.
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    certificate: Option<PathBuf>,
    /// What the fingerprint of the studio's authority must be, as `avalonctl ca show` prints it.
    #[arg(long, value_name = "SHA256", requires = "certificate")]
    fingerprint: Option<String>,
    /// What to be called, where the invite does not say it; by default the name of the machine.
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
    /// The site, for a request.
    #[arg(long, value_name = "SITE")]
    site: Option<SiteName>,
    /// Where to write the request.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Avalon's root, beneath which projects lie.
    #[arg(long, value_name = "DIR")]
    root: PathBuf,
    /// Where the daemon keeps its state.
    #[arg(long, value_name = "DIR")]
    state_dir: PathBuf,
    /// The configuration to write.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// The socket of the local API, for the configuration.
    #[arg(long, value_name = "FILE")]
    socket: Option<PathBuf>,
    /// Where peers reach this node, for the configuration.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// A project for the configuration, with --certificate.
    #[arg(long = "project-name", value_name = "PROJECT")]
    projects: Vec<ProjectName>,
    /// A peer for the configuration, with --certificate.
    #[arg(long = "peer", value_name = "HOST:PORT")]
    peers: Vec<String>,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct JoinAnswer<'a> {
    schema: &'static str,
    node: &'a NodeId,
    role: Role,
    issuer: Option<&'a NodeId>,
    /// The fingerprint of the studio's authority, where nothing else vouched for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    authority: Option<&'a str>,
    projects: &'a [ProjectName],
    state_dir: &'a Path,
    config: &'a Path,
    start: &'a str,
}

#[derive(Serialize)]
struct RequestAnswer<'a> {
    schema: &'static str,
    node: &'a NodeId,
    request: &'a Path,
}

/// Joins as the command line says.
pub fn main(args: &JoinArgs) -> ExitCode {
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let (code, report) = (error.code.exit().code(), report(&error, args.json));
            say_error(&report);
            ExitCode::from(code)
        }
    }
}

fn run(args: &JoinArgs) -> Result<(), ApiError> {
    if args.request {
        return write_request(args);
    }
    args.first_config().check_free().map_err(|error| config_report(&error))?;
    match &args.certificate {
        Some(file) => take_certificate(args, file),
        None => join(args),
    }
}

impl JoinArgs {
    fn identity_dir(&self) -> PathBuf {
        self.state_dir.join("identity")
    }

    fn first_config(&self) -> FirstConfig<'_> {
        FirstConfig {
            file: &self.config,
            state_dir: &self.state_dir,
            socket: self.socket.as_deref(),
            root: &self.root,
            listen: self.listen.as_deref(),
        }
    }
}

fn write_request(args: &JoinArgs) -> Result<(), ApiError> {
    let (Some(node), Some(site)) = (&args.node, &args.site) else {
        return Err(ApiError::new(ErrorCode::BadRequest, "a request names node and site"));
    };
    let wished = NodeId::new(node.clone(), site.clone());
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("{node}-{site}.csr")));
    offline::request(&args.identity_dir(), &wished, &out)
        .map_err(|error| ApiError::new(ErrorCode::BadRequest, ErrorChain(&error).to_string()))?;
    if args.json {
        say_json(&RequestAnswer { schema: "avalonctl.join-request/1", node: &wished, request: &out });
    } else {
        say(&format!("the request of {wished} is in {}", out.display()));
        say(&format!(
            "next: avalonctl ca sign --dir CA_DIR --request {} --role ROLE, where the studio CA is; then here: avalonctl join --certificate FILE",
            out.display()
        ));
    }
    Ok(())
}

fn take_certificate(args: &JoinArgs, file: &Path) -> Result<(), ApiError> {
    let expected = args.fingerprint.as_deref();
    let taken = offline::take(&args.identity_dir(), file, expected, RealClock::new().now())
        .map_err(|error| ApiError::new(ErrorCode::Denied, ErrorChain(&error).to_string()))?;
    let facts = taken.facts;
    let written = args.first_config().write(&facts.node, &args.projects, &args.peers);
    written.map_err(|error| config_report(&error))?;
    let authority = taken.fingerprint;
    done(args, (&facts.node, facts.role), Introduced::ByFile { authority: &authority }, &args.projects);
    Ok(())
}

/// Who says that this machine is of the studio, and that it is this studio.
enum Introduced<'a> {
    /// A node, which the token vouches for.
    ByNode(&'a NodeId),
    /// A file, with the certificate of an authority.
    ByFile { authority: &'a str },
}

fn join(args: &JoinArgs) -> Result<(), ApiError> {
    let clock = RealClock::new();
    let token = token(args)?;
    let now_s = clock.now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    token.check_time(now_s).map_err(|error| {
        ApiError::new(ErrorCode::Denied, error.to_string())
            .with_hint("if it is new: check the clock of this machine")
    })?;
    let key = offline::waiting_key(&args.identity_dir())
        .map_err(|error| ApiError::new(ErrorCode::BadRequest, ErrorChain(&error).to_string()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| ApiError::new(ErrorCode::Internal, error.to_string()))?;
    let joiner = Joiner { token: &token, key: &key, node: args.node.clone(), now: clock.now() };
    let outcome = runtime.block_on(joiner.join()).map_err(|error| join_report(&error))?;
    let refused =
        |error: &dyn std::error::Error| ApiError::new(ErrorCode::Denied, ErrorChain(error).to_string());
    let joined = &outcome.joined;
    let chain = Chain::from_bytes(&joined.certificate).map_err(|error| refused(&error))?;
    let authority: CertificateDer<'static> = outcome.authority.clone();
    let facts = install(&args.identity_dir(), &key, &chain, authority, clock.now())
        .map_err(|error| refused(&error))?;
    let mut peers = vec![outcome.address.clone()];
    peers.extend(joined.peers.iter().filter(|peer| **peer != outcome.address).cloned());
    args.first_config()
        .write(&facts.node, &joined.projects, &peers)
        .map_err(|error| config_report(&error))?;
    done(args, (&facts.node, facts.role), Introduced::ByNode(&outcome.issuer), &joined.projects);
    Ok(())
}

fn token(args: &JoinArgs) -> Result<JoinToken, ApiError> {
    let mut text = args.token.clone().unwrap_or_default();
    if text == "-" {
        text.clear();
        let read = std::io::stdin().take(MAX_STDIN_BYTES).read_to_string(&mut text);
        read.map_err(|error| ApiError::new(ErrorCode::BadRequest, format!("stdin cannot be read: {error}")))?;
    }
    JoinToken::decode(&text).map_err(|error| ApiError::new(ErrorCode::BadRequest, error.to_string()))
}

fn join_report(error: &JoinError) -> ApiError {
    let (code, hint) = match error {
        JoinError::Unreachable { .. } => {
            (ErrorCode::NoSource, "check that the node that invited runs and that UDP reaches it from here")
        }
        JoinError::Slow | JoinError::Broken(_) => {
            (ErrorCode::NoSource, "run the same command again: the key waits, and the answer is given again")
        }
        JoinError::NoName { .. } => (ErrorCode::BadRequest, "say what it is to be called: --node NAME"),
        JoinError::Refused { .. } | JoinError::NotAdmitted { .. } | JoinError::Server(_) => {
            (ErrorCode::Denied, "ask whoever invited you")
        }
        JoinError::Tls(_) | JoinError::Cipher(_) | JoinError::Order | JoinError::Request => {
            (ErrorCode::Internal, "compare the versions of both sides: avalond --version")
        }
    };
    ApiError::new(code, ErrorChain(error).to_string()).with_hint(hint)
}

fn config_report(error: &FirstConfigError) -> ApiError {
    let code = match error {
        FirstConfigError::Write { .. } => ErrorCode::Denied,
        FirstConfigError::Refused(_) => ErrorCode::Internal,
        FirstConfigError::Exists { .. } | FirstConfigError::Path { .. } => ErrorCode::BadRequest,
    };
    ApiError::new(code, ErrorChain(error).to_string())
}

fn done(args: &JoinArgs, (node, role): (&NodeId, Role), by: Introduced<'_>, projects: &[ProjectName]) {
    let (issuer, authority) = match by {
        Introduced::ByNode(issuer) => (Some(issuer), None),
        Introduced::ByFile { authority } => (None, Some(authority)),
    };
    let start = format!("avalond --config {}", args.config.display());
    if args.json {
        let (schema, state_dir, config) = ("avalonctl.join/1", &args.state_dir, &args.config);
        say_json(&JoinAnswer {
            schema,
            node,
            role,
            issuer,
            authority,
            projects,
            state_dir,
            config,
            start: &start,
        });
        return;
    }
    let by = issuer.map(|issuer| format!(", let in by {issuer}")).unwrap_or_default();
    say(&format!("this machine is {node} now, as {role}{by}"));
    match authority {
        Some(authority) if args.fingerprint.is_none() => say(&format!(
            "it trusts the studio authority with this fingerprint; compare it with avalonctl ca show, where the CA is:\n  {authority}"
        )),
        _ => {}
    }
    if projects.is_empty() {
        say("no project is configured yet: add [[project]] to the configuration");
    }
    for project in projects {
        say(&format!("  {project} at {}", args.root.join(project.as_str()).display()));
    }
    say(&format!("start it:\n  {start}"));
}

fn report(error: &ApiError, json: bool) -> String {
    if json {
        return serde_json::to_string(error).unwrap_or_else(|_| error.message.clone());
    }
    // Whoever answered may have written some of it, and is not proved to be of the studio when that fails.
    let mut text = format!("error[{}]: {}", error.code, escape(&error.message));
    if let Some(hint) = &error.hint {
        text.push_str(&format!("\n  hint: {}", escape(hint)));
    }
    text
}

#[expect(clippy::print_stdout, reason = "this is a command, and this is its answer")]
fn say(line: &str) {
    println!("{line}");
}

fn say_json(answer: &impl Serialize) {
    say(&serde_json::to_string(answer).unwrap_or_default());
}

#[expect(clippy::print_stderr, reason = "this is a command, and this is why it failed")]
fn say_error(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_shown_and_not_obeyed() {
        let reason = "no\u{1b}]0;x\u{7}\u{202e}exe\u{2066}\u{200b}\n  hint: run this".to_owned();
        let error = join_report(&JoinError::Refused { reason });
        let shown = report(&error, false);
        assert_eq!(
            shown,
            "error[AVL-0901]: no\\u{1b}]0;x\\u{7}\\u{202e}exe\\u{2066}\\u{200b}\\n  hint: run this\n  hint: ask whoever invited you"
        );
    }
}
