//! `avalonctl join`: makes this machine a node. The daemon's program does it, for it has the network, the keys and the words
//! of the configuration; this finds it, fills in where things lie, and passes the terminal on.

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use avalon_protocol::{
    control::ErrorCode,
    exit_code::ExitCode,
    id::{NodeName, ProjectName, SiteName},
};
use clap::Args;

use super::{
    demo::find_avalond,
    service::{self, ServiceArgs},
};
use crate::{
    context::{Context, said},
    failure::Failure,
};

/// Arguments of `join`.
#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The token that `avalonctl invite` printed; `-` reads it from stdin.
    #[arg(value_name = "TOKEN", required_unless_present_any = ["request", "certificate"])]
    token: Option<String>,
    /// Off line: make the key here and write the request for its certificate.
    #[arg(long, conflicts_with_all = ["token", "certificate", "start"], requires_all = ["node", "site"])]
    request: bool,
    /// Off line: take the certificate that `avalonctl ca sign` made of the request.
    #[arg(long, value_name = "FILE", conflicts_with = "token")]
    certificate: Option<PathBuf>,
    /// With --certificate: what the fingerprint of the studio's authority must be, as `avalonctl ca show` prints it. Without, it is
    /// shown.
    #[arg(long, value_name = "SHA256", requires = "certificate")]
    fingerprint: Option<String>,
    /// What to be called, where the invite does not say it; by default the name of the machine.
    #[arg(long, value_name = "NAME")]
    node: Option<NodeName>,
    /// The site, for a request.
    #[arg(long, value_name = "SITE")]
    site: Option<SiteName>,
    /// Where to write the request; by default NODE-SITE.csr here.
    #[arg(long, value_name = "FILE", requires = "request")]
    out: Option<PathBuf>,
    /// Avalon's root, beneath which projects lie; by default AVALON_PROJECTS, else /srv/projects or projects in your home.
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Where the daemon keeps its state; by default /var/lib/avalond, or .local/state/avalond in your home.
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// The configuration to write; by default /etc/avalond/avalond.toml, or avalond/avalond.toml in your configuration.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where peers reach this node, for the configuration; by default 0.0.0.0:4700.
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// A project for the configuration, with --certificate. May be repeated.
    #[arg(long = "with-project", value_name = "PROJECT", requires = "certificate")]
    projects: Vec<ProjectName>,
    /// A peer for the configuration, with --certificate. May be repeated.
    #[arg(long = "peer", value_name = "HOST:PORT", requires = "certificate")]
    peers: Vec<String>,
    /// Install the service too, as `avalonctl service install` does.
    #[arg(long)]
    start: bool,
}

/// Where things lie on this machine.
struct Places {
    root: PathBuf,
    state_dir: PathBuf,
    config: PathBuf,
    /// Only a user's own daemon needs one that is said.
    socket: Option<PathBuf>,
    is_system: bool,
}

/// Joins.
pub(crate) fn run(context: &Context<'_>, args: &JoinArgs) -> Result<ExitCode, Failure> {
    let places = places(context, args)?;
    let avalond = find_avalond(context.environment).map_err(Failure::Demo)?;
    let mut command = Command::new(&avalond);
    command.arg("join").arg("--root").arg(&places.root);
    command.arg("--state-dir").arg(&places.state_dir).arg("--config").arg(&places.config);
    if let Some(socket) = &places.socket {
        command.arg("--socket").arg(socket);
    }
    let options = [
        ("--node", args.node.as_ref().map(ToString::to_string)),
        ("--site", args.site.as_ref().map(ToString::to_string)),
        ("--listen", args.listen.clone()),
        ("--fingerprint", args.fingerprint.clone()),
    ];
    for (flag, value) in options {
        if let Some(value) = value {
            command.args([flag, &value]);
        }
    }
    for (flag, path) in [("--out", &args.out), ("--certificate", &args.certificate)] {
        if let Some(path) = path {
            command.arg(flag).arg(path);
        }
    }
    for project in &args.projects {
        command.args(["--project-name", project.as_str()]);
    }
    for peer in &args.peers {
        command.args(["--peer", peer]);
    }
    if args.request {
        command.arg("--request");
    }
    if context.output.is_json() {
        command.arg("--json");
    }
    let exit = pass_on(&mut command, args.token.as_deref())?;
    if exit != ExitCode::Ok || !args.start {
        return Ok(exit);
    }
    let root = (places.is_system).then_some(places.root.as_path());
    // The one that joined: what AVALOND names need not lie beside this program.
    let avalond = std::path::absolute(&avalond).unwrap_or(avalond);
    service::run(context, &ServiceArgs::install_of(!places.is_system, root, &places.config, &avalond))
}

/// Runs it with the terminal of this process. The token goes by stdin: the arguments of a process are read by others.
fn pass_on(command: &mut Command, token: Option<&str>) -> Result<ExitCode, Failure> {
    let failed = |error: std::io::Error| {
        said(
            ErrorCode::Internal,
            format!("avalond cannot be run: {error}"),
            "install avalond beside avalonctl",
        )
    };
    let given = token.filter(|token| *token != "-");
    if token.is_some() {
        // After `--`, so that nothing in it is an option.
        command.args(["--", "-"]);
    }
    if given.is_some() {
        command.stdin(Stdio::piped());
    }
    let mut child = command.spawn().map_err(failed)?;
    if let (Some(token), Some(mut stdin)) = (given, child.stdin.take()) {
        // A program that ended already says why itself.
        stdin.write_all(token.as_bytes()).ok();
    }
    let status = child.wait().map_err(failed)?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::ALL.into_iter().find(|known| Some(known.code()) == code).unwrap_or(ExitCode::Error))
}

fn places(context: &Context<'_>, args: &JoinArgs) -> Result<Places, Failure> {
    let is_system = rustix::process::geteuid().is_root();
    let environment = context.environment;
    let home = || {
        environment.var("HOME").map(PathBuf::from).ok_or_else(|| {
            said(ErrorCode::BadRequest, "HOME is not set", "name --root, --state-dir and --config")
        })
    };
    let (root, state_dir, config) = if is_system {
        ("/srv/projects".into(), "/var/lib/avalond".into(), "/etc/avalond/avalond.toml".into())
    } else if let (Some(root), Some(state_dir), Some(config)) = (&args.root, &args.state_dir, &args.config) {
        (root.clone(), state_dir.clone(), config.clone())
    } else {
        let config = environment.config_home().map_or_else(|| home().map(|home| home.join(".config")), Ok)?;
        (home()?.join("projects"), home()?.join(".local/state/avalond"), config.join("avalond/avalond.toml"))
    };
    let root = environment.var("AVALON_PROJECTS").map_or(root, PathBuf::from);
    let absolute = |path: PathBuf| {
        std::path::absolute(&path).map_err(|error| {
            said(ErrorCode::BadRequest, format!("{}: {error}", path.display()), "name it with its whole path")
        })
    };
    let runtime = environment.var("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("avalond/api.sock"));
    let state_dir = absolute(args.state_dir.clone().unwrap_or(state_dir))?;
    // Where there is no runtime directory the socket is with the state.
    let socket = (!is_system || args.state_dir.is_some())
        .then(|| runtime.filter(|_| args.state_dir.is_none()).unwrap_or_else(|| state_dir.join("api.sock")));
    Ok(Places {
        root: absolute(args.root.clone().unwrap_or(root))?,
        config: absolute(args.config.clone().unwrap_or(config))?,
        state_dir,
        socket,
        is_system,
    })
}
