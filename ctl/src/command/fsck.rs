//! `avalonctl fsck`: everything that the state directory holds is read and checked, also while no daemon runs. The daemon's
//! program does it, for it has the keys and knows the configuration.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use avalon_protocol::{control::ErrorCode, exit_code::ExitCode};
use clap::Args;

use super::demo::find_avalond;
use crate::{
    context::{Context, said},
    failure::Failure,
};

/// Arguments of `fsck`.
#[derive(Debug, Args)]
pub(crate) struct FsckArgs {
    /// The daemon's configuration, which says where the state directory is; by default AVALOND_CONFIG, else that of your own daemon
    /// if there is one, else /etc/avalond/avalond.toml.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Has the state directory checked.
pub(crate) fn run(context: &Context<'_>, args: &FsckArgs) -> Result<ExitCode, Failure> {
    let avalond = find_avalond(context.environment).map_err(Failure::Demo)?;
    let mut command = Command::new(&avalond);
    if let Some(config) = args.config.clone().or_else(|| own_config(context)) {
        command.arg("--config").arg(config);
    }
    command.arg("fsck").stdin(Stdio::null());
    if context.output.is_json() {
        command.arg("--json");
    }
    let status = command.status().map_err(|error| {
        said(
            ErrorCode::Internal,
            format!("avalond cannot be run: {error}"),
            "install avalond beside avalonctl",
        )
    })?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(ExitCode::ALL.into_iter().find(|known| Some(known.code()) == code).unwrap_or(ExitCode::Error))
}

/// Returns the configuration of a daemon of the user's own, where nothing else was named and there is one.
fn own_config(context: &Context<'_>) -> Option<PathBuf> {
    let environment = context.environment;
    if environment.var("AVALOND_CONFIG").is_some() || rustix::process::geteuid().is_root() {
        return None;
    }
    let home = || environment.var("HOME").map(|home| PathBuf::from(home).join(".config"));
    let file = environment.config_home().or_else(home)?.join("avalond/avalond.toml");
    file.exists().then_some(file)
}
