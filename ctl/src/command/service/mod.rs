//! `avalonctl service install|uninstall`: avalond as a systemd service.
//!
//! Writes and removes files, and says what to run next; it never runs `systemctl` itself, so that it is safe in packages
//! and on machines where systemd does not run.

mod file;
mod unit;

use std::{
    io,
    path::{Path, PathBuf},
};

use avalon_protocol::{
    control::{ApiError, ErrorCode},
    exit_code::ExitCode,
};
use clap::{Args, Subcommand};
use serde::Serialize;
use thiserror::Error;

use self::unit::{RootError, Unit};
use crate::{
    context::Context,
    escape::escape,
    failure::{Failure, chain},
};

/// Arguments of `service`.
#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    #[command(subcommand)]
    action: ServiceAction,
}

#[derive(Debug, Subcommand)]
enum ServiceAction {
    /// Write the unit of avalond.
    Install(InstallArgs),
    /// Remove the unit of avalond; configuration and state stay.
    Uninstall(PlaceArgs),
}

impl ServiceArgs {
    /// Installs the daemon beside this program with a configuration, as a user's own or the system's.
    pub(crate) fn install_of(user: bool, root: Option<&Path>, config: &Path, avalond: &Path) -> Self {
        Self {
            action: ServiceAction::Install(InstallArgs {
                place: PlaceArgs { user, prefix: None, dest: None },
                roots: root.into_iter().map(Path::to_owned).collect(),
                config: Some(config.to_owned()),
                avalond: Some(avalond.to_owned()),
                run_as: "avalon".into(),
                group: "artists".into(),
            }),
        }
    }
}

#[derive(Debug, Args)]
struct InstallArgs {
    #[command(flatten)]
    place: PlaceArgs,
    /// A directory with projects outside /srv/projects, which the service may then write to. May be repeated.
    #[arg(long = "root", value_name = "DIR")]
    roots: Vec<PathBuf>,
    /// The configuration; by default /etc/avalond/avalond.toml, with --user that in your configuration directory.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The daemon; by default the avalond beside this avalonctl.
    #[arg(long, value_name = "FILE")]
    avalond: Option<PathBuf>,
    /// The user that the daemon runs as.
    #[arg(long, value_name = "USER", default_value = "avalon", conflicts_with = "user")]
    run_as: String,
    /// The group that shares the projects.
    #[arg(long, value_name = "GROUP", default_value = "artists", conflicts_with = "user")]
    group: String,
}

#[derive(Debug, Args)]
struct PlaceArgs {
    /// For your own service manager instead of the system's.
    #[arg(long)]
    user: bool,
    /// Put this before every directory, as for a package.
    #[arg(long, value_name = "DIR", conflicts_with = "dest")]
    prefix: Option<PathBuf>,
    /// Use exactly this directory for units.
    #[arg(long, value_name = "DIR")]
    dest: Option<PathBuf>,
}

/// Why the service was not installed or removed.
#[derive(Debug, Error)]
pub(crate) enum ServiceError {
    /// There is no daemon to start.
    #[error("there is no avalond at {}", path.display())]
    NoDaemon {
        /// Where it should be.
        path: PathBuf,
    },
    /// This program does not know where it is.
    #[error("the directory of avalonctl cannot be told")]
    NoSelf(#[source] io::Error),
    /// Nothing says where a user's configuration is.
    #[error("neither XDG_CONFIG_HOME nor HOME is set")]
    NoHome,
    /// A path cannot stand in a unit.
    #[error("{} cannot stand in a unit", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: RootError,
    },
    /// A file cannot be written or removed.
    #[error("could not {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl ServiceError {
    /// Returns what to print.
    pub(crate) fn report(&self) -> ApiError {
        let (code, hint) = match self {
            Self::NoDaemon { .. } => {
                (ErrorCode::BadRequest, "install it there, or name it with --avalond FILE")
            }
            Self::NoSelf(_) => (ErrorCode::BadRequest, "name the daemon with --avalond FILE"),
            Self::NoHome => (ErrorCode::BadRequest, "set HOME, or name the directory with --dest DIR"),
            Self::Path { .. } => (ErrorCode::BadRequest, "use an absolute path of printable characters"),
            Self::File { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                (ErrorCode::Denied, "run it as root, or install your own service with --user")
            }
            Self::File { .. } => {
                (ErrorCode::Internal, "see the message; what was written before it is left in place")
            }
        };
        ApiError::new(code, chain(self)).with_hint(hint)
    }
}

#[derive(Serialize)]
struct Answer<'a> {
    schema: &'static str,
    files: Vec<String>,
    next: &'a [String],
}

/// Installs or removes the service.
pub(crate) fn run(context: &Context<'_>, args: &ServiceArgs) -> Result<ExitCode, Failure> {
    let done = match &args.action {
        ServiceAction::Install(args) => install(context, args),
        ServiceAction::Uninstall(place) => uninstall(context, place),
    };
    done.map(|()| ExitCode::Ok).map_err(Failure::Service)
}

fn install(context: &Context<'_>, args: &InstallArgs) -> Result<(), ServiceError> {
    let dir = unit_dir(context, &args.place)?;
    let avalond = match &args.avalond {
        Some(avalond) => avalond.clone(),
        None => beside_this_program()?,
    };
    let config = match (&args.config, args.place.user) {
        (Some(config), _) => config.clone(),
        (None, false) => PathBuf::from("/etc/avalond/avalond.toml"),
        (None, true) => {
            context.environment.config_home().ok_or(ServiceError::NoHome)?.join("avalond/avalond.toml")
        }
    };
    let template = if args.place.user { unit::USER } else { unit::SYSTEM };
    let unit = Unit { template, avalond: &avalond, config: &config, user: &args.run_as, group: &args.group };
    let unit = unit.text().map_err(|(path, source)| ServiceError::Path { path, source })?;

    // A user's own service is not confined to roots.
    let has_roots = !args.roots.is_empty() && !args.place.user;
    let roots = has_roots.then(|| unit::roots(&args.roots)).transpose();
    let roots = roots.map_err(|(path, source)| ServiceError::Path { path, source })?;

    // All texts are made before the first is written.
    let mut files = vec![file::write(&unit_file(&dir), &unit)?];
    if let Some(roots) = roots {
        files.push(file::write(&roots_file(&dir), &roots)?);
    }
    let systemctl = systemctl(&args.place);
    let next = [
        format!("{} --config {} --check-config", avalond.display(), config.display()),
        format!("{systemctl} daemon-reload"),
        format!("{systemctl} enable --now avalond"),
    ];
    tell(context, "avalonctl.service-install/1", "wrote", &files, &next);
    Ok(())
}

fn uninstall(context: &Context<'_>, place: &PlaceArgs) -> Result<(), ServiceError> {
    let dir = unit_dir(context, place)?;
    let candidates = [unit_file(&dir), roots_file(&dir)];
    let mut files = Vec::new();
    for path in candidates {
        files.extend(file::remove(&path)?);
    }
    // Only when nothing else was put there by hand.
    if let Some(drop_ins) = roots_file(&dir).parent() {
        std::fs::remove_dir(drop_ins).ok();
    }
    let systemctl = systemctl(place);
    let next = [format!("{systemctl} disable --now avalond"), format!("{systemctl} daemon-reload")];
    if files.is_empty() {
        context.output.talk(&format!("there is no unit in {}", escape(&dir.display().to_string())));
    }
    tell(context, "avalonctl.service-uninstall/1", "removed", &files, &next);
    Ok(())
}

fn tell(context: &Context<'_>, schema: &'static str, verb: &str, files: &[PathBuf], next: &[String]) {
    let files: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    let output = context.output;
    if output.is_json() {
        output.json(&Answer { schema, files, next });
        return;
    }
    files.iter().for_each(|file| output.data(&format!("{verb} {}", escape(file))));
    if !files.is_empty() {
        output.data("next:");
        next.iter().for_each(|command| output.data(&format!("  {}", escape(command))));
    }
}

fn unit_dir(context: &Context<'_>, place: &PlaceArgs) -> Result<PathBuf, ServiceError> {
    if let Some(dest) = &place.dest {
        return Ok(dest.clone());
    }
    let dir = if place.user {
        context.environment.config_home().ok_or(ServiceError::NoHome)?.join("systemd/user")
    } else {
        PathBuf::from("/etc/systemd/system")
    };
    Ok(match &place.prefix {
        Some(prefix) => prefix.join(dir.strip_prefix("/").unwrap_or(&dir)),
        None => dir,
    })
}

fn unit_file(dir: &Path) -> PathBuf {
    dir.join("avalond.service")
}

fn roots_file(dir: &Path) -> PathBuf {
    dir.join("avalond.service.d/roots.conf")
}

fn systemctl(place: &PlaceArgs) -> &'static str {
    if place.user { "systemctl --user" } else { "systemctl" }
}

fn beside_this_program() -> Result<PathBuf, ServiceError> {
    let program = std::env::current_exe().map_err(ServiceError::NoSelf)?;
    let path = program.with_file_name("avalond");
    if path.is_file() { Ok(path) } else { Err(ServiceError::NoDaemon { path }) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use crate::fake::{Line, run};

    #[test]
    fn the_systems_unit_has_the_daemon_the_restrictions_and_the_roots() {
        let dir = tempfile::tempdir().unwrap();
        let prefix = dir.path().to_str().unwrap();
        let args = [
            "service",
            "install",
            "--prefix",
            prefix,
            "--avalond",
            "/usr/bin/avalond",
            "--root",
            "/mnt/proj",
        ];
        let ran = run(&[&args[..], &["--root", "/mnt/my show", "--group", "film"]].concat());
        assert_eq!(ran.exit, 0, "{ran:?}");
        let units = dir.path().join("etc/systemd/system");
        let unit = fs::read_to_string(units.join("avalond.service")).unwrap();
        for line in [
            "Type=notify",
            "NotifyAccess=main",
            "ExecStart=/usr/bin/avalond --config /etc/avalond/avalond.toml",
            "ExecReload=/bin/kill -HUP $MAINPID",
            "WatchdogSec=60s",
            "Restart=on-failure",
            "User=avalon",
            "Group=film",
            "UMask=0002",
            "RestartPreventExitStatus=2",
            "StateDirectory=avalond",
            "StateDirectoryMode=0700",
            "RuntimeDirectory=avalond",
            "NoNewPrivileges=yes",
            "CapabilityBoundingSet=",
            "ProtectSystem=strict",
            "MemoryDenyWriteExecute=yes",
            "SystemCallFilter=~@privileged @resources",
            "WantedBy=multi-user.target",
        ] {
            assert!(unit.lines().any(|found| found == line), "{line}");
        }
        let roots = fs::read_to_string(units.join("avalond.service.d/roots.conf")).unwrap();
        assert!(
            roots.ends_with("[Service]\nReadWritePaths=-/mnt/proj\nReadWritePaths=-\"/mnt/my show\"\n"),
            "{roots}"
        );
        assert!(
            ran.stdout.contains("  systemctl daemon-reload\n  systemctl enable --now avalond\n"),
            "{ran:?}"
        );

        let ran = run(&["service", "uninstall", "--prefix", prefix, "--json"]);
        assert_eq!(ran.json()["files"].as_array().unwrap().len(), 2);
        assert_eq!(fs::read_dir(&units).unwrap().count(), 0);
    }

    #[test]
    fn a_users_unit_goes_into_their_configuration_and_needs_no_privileges() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap().to_owned();
        let mut line = Line::new(&["service", "install", "--user", "--avalond", "/usr/bin/avalond"]);
        line.environment = vec![("XDG_CONFIG_HOME", home.clone())];
        let ran = line.run();
        let unit = fs::read_to_string(dir.path().join("systemd/user/avalond.service")).unwrap();
        assert!(unit.contains(&format!("ExecStart=/usr/bin/avalond --config {home}/avalond/avalond.toml\n")));
        for needs_privileges in ["User=", "Group=", "ProtectSystem=", "CapabilityBoundingSet=", "multi-user"]
        {
            assert!(!unit.contains(needs_privileges), "{needs_privileges}");
        }
        assert!(ran.stdout.contains("systemctl --user daemon-reload"), "{ran:?}");
    }

    #[test]
    fn installing_again_replaces_what_is_there_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().to_str().unwrap();
        for avalond in ["/usr/bin/avalond", "/opt/avalond"] {
            assert_eq!(run(&["service", "install", "--dest", dest, "--avalond", avalond]).exit, 0);
        }
        let unit = fs::read_to_string(dir.path().join("avalond.service")).unwrap();
        assert!(unit.contains("ExecStart=/opt/avalond "));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn what_cannot_be_is_said_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let dest = dir.path().to_str().unwrap();
        let args = ["service", "install", "--dest", dest, "--avalond"];
        let ran = run(&[&args[..], &["bin/avalond"]].concat());
        assert_eq!((ran.exit, ran.stdout.as_str()), (2, ""));
        assert!(
            ran.stderr.contains("bin/avalond cannot stand in a unit: it is not absolute\n  hint: "),
            "{ran:?}"
        );
        let ran = run(&[&args[..], &["/a", "--root", "/mnt/../etc"]].concat());
        assert_eq!(ran.exit, 2);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
