//! `avalonctl ca sign`: a request that came on a stick or by mail becomes a certificate.
//!
//! The request says which key; name, role and time are said here. The name that the request asks for is taken only when the
//! person at the terminal says so.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use avalon_certs::{
    CertificateRequest, IssueRequest, NODE_VALIDITY, key_file::write_public, request::MAX_REQUEST_BYTES,
};
use avalon_protocol::{
    access::Role,
    control::ErrorCode,
    id::{NodeId, NodeName, SiteName},
};
use clap::Args;
use serde::Serialize;

use super::{CaError, DAY_SECONDS, failed, now, passphrase, utc, validity};
use crate::{
    context::{Context, said},
    escape::escape,
    failure::Failure,
};

/// Arguments of `ca sign`.
#[derive(Debug, Args)]
pub(crate) struct SignArgs {
    /// The directory of the studio's authority.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// The request, as `avalonctl join --request` wrote it.
    #[arg(long, value_name = "FILE")]
    request: PathBuf,
    /// What kind of node it is: admin, site, workstation, farm or vendor.
    #[arg(long, value_name = "ROLE")]
    role: Role,
    /// The node's name; without it the name in the request is asked about.
    #[arg(long, value_name = "NAME", requires = "site")]
    node: Option<NodeName>,
    /// The node's site.
    #[arg(long, value_name = "SITE", requires = "node")]
    site: Option<SiteName>,
    /// Where to write the certificate; by default beside the request, with the ending .pem.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// How many days it is valid.
    #[arg(long, value_name = "N", default_value_t = NODE_VALIDITY.as_secs() / DAY_SECONDS)]
    days: u64,
    /// The file with the passphrase, where it is not asked for.
    #[arg(long, value_name = "FILE")]
    passphrase_file: Option<PathBuf>,
}

#[derive(Serialize)]
struct SignAnswer<'a> {
    schema: &'static str,
    node: &'a NodeId,
    role: Role,
    expires: String,
    certificate: &'a Path,
}

/// Signs a request.
pub(super) fn run(context: &Context<'_>, args: &SignArgs) -> Result<(), Failure> {
    let request = read(&args.request)?;
    let node = node(context, args, &request)?;
    let authority = passphrase::open(context, &args.dir, args.passphrase_file.as_deref())?;
    let what = IssueRequest { node, role: args.role, validity: validity(args.days) };
    let issued = authority.sign(&request, &what, now()).map_err(|error| failed(&args.dir, error))?;
    let out = args.out.clone().unwrap_or_else(|| args.request.with_extension("pem"));
    let bundle = issued.chain.to_bundle(authority.certificate().der());
    write_public(&out, bundle.as_bytes()).map_err(|error| Failure::Ca(Box::new(CaError::Write(error))))?;
    let (node, role, expires) = (&issued.facts.node, issued.facts.role, utc(issued.facts.expires_at));
    if context.output.is_json() {
        let schema = "avalonctl.ca-sign/1";
        context.output.json(&SignAnswer { schema, node, role, expires, certificate: &out });
        return Ok(());
    }
    let shown = out.display().to_string();
    context.output.data(&format!("{node}  {role}  valid until {expires}  in {}", escape(&shown)));
    context.output.talk("take that file to the machine: avalonctl join --certificate FILE");
    Ok(())
}

fn read(path: &Path) -> Result<CertificateRequest, Failure> {
    let failed = |source| Failure::Ca(Box::new(CaError::Read { path: path.to_owned(), source }));
    let mut text = Vec::new();
    let most = u64::try_from(2 * MAX_REQUEST_BYTES).unwrap_or(u64::MAX);
    File::open(path).and_then(|file| file.take(most + 1).read_to_end(&mut text)).map_err(failed)?;
    CertificateRequest::parse_pem(&text)
        .map_err(|source| Failure::Ca(Box::new(CaError::Request { path: path.to_owned(), source })))
}

fn node(context: &Context<'_>, args: &SignArgs, request: &CertificateRequest) -> Result<NodeId, Failure> {
    if let (Some(node), Some(site)) = (&args.node, &args.site) {
        return Ok(NodeId::new(node.clone(), site.clone()));
    }
    let wished = request.wished().ok_or_else(|| {
        said(ErrorCode::BadRequest, "the request asks for no name", "say who it is: --node NAME --site SITE")
    })?;
    let hint = format!("if that is right: --node {} --site {}", wished.node, wished.site);
    if !context.output.may_ask() {
        return Err(said(ErrorCode::BadRequest, format!("the request asks to be {wished}"), &hint));
    }
    let question = format!("the request asks to be {wished}, as {}; sign it? [y/N] ", args.role);
    if context.output.ask(&question).is_some_and(|answer| matches!(answer.as_str(), "y" | "yes")) {
        Ok(wished.clone())
    } else {
        Err(said(ErrorCode::BadRequest, "nothing was signed", &hint))
    }
}
