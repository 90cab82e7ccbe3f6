//! The passphrase of the studio's CA: asked for without an echo, or read from a file.
//!
//! There is no environment variable for it: those of a process can be read by others of its user, are passed on to
//! everything that it starts, and end up in logs of whatever runs scripts.

use std::path::{Path, PathBuf};

use avalon_certs::{Authority, Passphrase, PassphraseError, passphrase::read_passphrase_file};
use avalon_protocol::control::ErrorCode;
use clap::Args;
use serde::Serialize;

use super::{CaError, failed};
use crate::{
    context::{Context, said},
    escape::escape,
    failure::Failure,
};

/// Arguments of `ca passphrase`.
#[derive(Debug, Args)]
pub(crate) struct PassphraseArgs {
    /// The directory of the studio's authority.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The file with the passphrase as it is, where it is not asked for.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
    /// The file with the new passphrase, where it is not asked for.
    #[arg(long, value_name = "FILE")]
    new_passphrase_file: Option<PathBuf>,
    /// Leave the key without a passphrase.
    #[arg(long, conflicts_with = "new_passphrase_file")]
    remove: bool,
}

#[derive(Serialize)]
struct PassphraseAnswer<'a> {
    schema: &'static str,
    dir: &'a Path,
    encrypted: bool,
}

/// Opens the authority, with its passphrase where it has one.
pub(super) fn open(context: &Context<'_>, dir: &Path, file: Option<&Path>) -> Result<Authority, Failure> {
    let passphrase = present(context, dir, file)?;
    Authority::open_under(dir, passphrase.as_ref()).map_err(|error| failed(dir, error))
}

/// Changes it.
pub(super) fn change(context: &Context<'_>, args: &PassphraseArgs) -> Result<(), Failure> {
    let PassphraseArgs { dir, passphrase_file, new_passphrase_file, remove } = args;
    let old = present(context, dir, passphrase_file.as_deref())?;
    // Said before somebody thinks of a new one.
    Authority::open_under(dir, old.as_ref()).map_err(|error| failed(dir, error))?;
    let new = chosen(context, !remove, new_passphrase_file.as_deref())?;
    Authority::change_passphrase(dir, old.as_ref(), new.as_ref()).map_err(|error| failed(dir, error))?;
    let encrypted = new.is_some();
    if context.output.is_json() {
        context.output.json(&PassphraseAnswer { schema: "avalonctl.ca-passphrase/1", dir, encrypted });
        return Ok(());
    }
    let shown = dir.display().to_string();
    let how = if encrypted { "lies under the new passphrase" } else { "lies under no passphrase" };
    context.output.data(&format!("the key in {} {how}", escape(&shown)));
    context.output.talk("copies of the key that were made before open as before; replace them");
    Ok(())
}

/// Returns the passphrase of a key that lies under one.
fn present(context: &Context<'_>, dir: &Path, file: Option<&Path>) -> Result<Option<Passphrase>, Failure> {
    if !Authority::is_encrypted(dir).map_err(|error| failed(dir, error))? {
        return Ok(None);
    }
    let text = match file {
        Some(file) => read(file)?,
        None => {
            ask(context, &format!("passphrase of the studio CA in {}: ", dir.display()), "--passphrase-file")?
        }
    };
    Ok(Some(Passphrase::for_old_key(&text).map_err(refused)?))
}

/// Returns the passphrase for a new key: from the file, or asked for twice when one is wanted.
pub(super) fn chosen(
    context: &Context<'_>,
    wanted: bool,
    file: Option<&Path>,
) -> Result<Option<Passphrase>, Failure> {
    let text = match file {
        Some(file) => read(file)?,
        None if !wanted => return Ok(None),
        None => {
            let flag = "--passphrase-file, or --new-passphrase-file with `ca passphrase`";
            let text = ask(context, "new passphrase of the studio CA: ", flag)?;
            Passphrase::for_new_key(&text).map_err(refused)?;
            if ask(context, "the same again: ", flag)? != text {
                return Err(said(ErrorCode::BadRequest, "the two are not the same", "try again"));
            }
            text
        }
    };
    Ok(Some(Passphrase::for_new_key(&text).map_err(refused)?))
}

fn ask(context: &Context<'_>, prompt: &str, flag: &str) -> Result<String, Failure> {
    if !context.output.may_ask() {
        let hint = format!("run it at a terminal, or give a file with {flag}");
        return Err(said(ErrorCode::Denied, "the key of the studio CA needs its passphrase", &hint));
    }
    rpassword::prompt_password(prompt).map_err(|error| {
        said(
            ErrorCode::Denied,
            format!("the passphrase could not be asked for: {error}"),
            "give a file with it",
        )
    })
}

fn read(file: &Path) -> Result<String, Failure> {
    read_passphrase_file(file).map_err(|error| Failure::Ca(Box::new(CaError::PassphraseFile(error))))
}

fn refused(error: PassphraseError) -> Failure {
    Failure::Ca(Box::new(CaError::Passphrase(error)))
}
