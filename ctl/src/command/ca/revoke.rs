//! `avalonctl ca revoke`: the next list of revoked certificates, for an admin's node to publish.

use std::path::{Path, PathBuf};

use avalon_certs::parse_serial;
use avalon_protocol::{control::ErrorCode, id::NodeId};
use clap::Args;
use serde::Serialize;

use super::{failed, now, passphrase};
use crate::{
    context::{Context, said},
    escape::escape,
    failure::Failure,
};

/// Arguments of `ca revoke`.
#[derive(Debug, Args)]
pub(crate) struct RevokeArgs {
    /// The directory of the studio's authority.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The node, such as ws12@london: all that this authority issued to it.
    #[arg(long, value_name = "NODE@SITE", required_unless_present = "serial", conflicts_with = "serial")]
    node: Option<NodeId>,
    /// The number of a certificate, in hex digits; more than one is possible.
    #[arg(long, value_name = "HEX")]
    serial: Vec<String>,
    /// The file with the passphrase, where it is not asked for.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

#[derive(Serialize)]
struct RevokeAnswer<'a> {
    schema: &'static str,
    list: &'a Path,
    number: u64,
    certificates: usize,
    new: usize,
}

/// Makes the next list.
pub(super) fn run(context: &Context<'_>, args: &RevokeArgs) -> Result<(), Failure> {
    let serials = args.serial.iter().map(|text| {
        parse_serial(text).ok_or_else(|| {
            let hint = "openssl x509 -in node.pem -noout -serial prints it";
            said(ErrorCode::BadRequest, format!("{} is no number of a certificate", escape(text)), hint)
        })
    });
    let serials: Vec<Vec<u8>> = serials.collect::<Result<_, _>>()?;
    let authority = passphrase::open(context, &args.dir, args.passphrase_file.as_deref())?;
    let made = authority.revoke(args.node.as_ref(), &serials, now());
    let made = made.map_err(|error| failed(&args.dir, error))?;
    let (number, certificates, new) = (made.number, made.certificates, made.new);
    if context.output.is_json() {
        let schema = "avalonctl.ca-revoke/1";
        context.output.json(&RevokeAnswer { schema, list: &made.path, number, certificates, new });
        return Ok(());
    }
    let path = made.path.display().to_string();
    context
        .output
        .data(&format!("list {number}  {certificates} certificates, {new} new  in {}", escape(&path)));
    context
        .output
        .talk("nothing is revoked yet: take that file to an admin's node, avalonctl node revoke --list FILE");
    Ok(())
}
