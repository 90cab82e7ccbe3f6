//! `avalonctl ca init|issue|delegate|sign|revoke|passphrase|show`: the studio's certificate authority. Works on files alone; no
//! daemon is asked.

use std::{
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use avalon_certs::{
    Authority, AuthorityCertificate, AuthorityError, ISSUING_VALIDITY, IssueRequest, NODE_VALIDITY,
    PassphraseError, RequestError,
    key_file::{KeyFileError, WriteError},
};
use avalon_protocol::{
    access::Role,
    control::{ApiError, ErrorCode},
    exit_code::ExitCode,
    id::{NodeId, NodeName, SiteName, StudioName},
};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde::Serialize;
use thiserror::Error;

use crate::{
    context::Context,
    escape::escape,
    failure::{Failure, chain},
};

mod passphrase;
mod revoke;
mod sign;

const DAY_SECONDS: u64 = 24 * 3600;

/// Arguments of `ca`.
#[derive(Debug, Args)]
pub(crate) struct CaArgs {
    #[command(subcommand)]
    action: CaAction,
}

#[derive(Debug, Subcommand)]
enum CaAction {
    /// Make the studio's authority: once, on a machine that you keep safe.
    Init {
        /// The studio's name.
        #[arg(long, value_name = "NAME")]
        studio: StudioName,
        /// Where to keep it; keep the directory off the network and back it up.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// Put its key under a passphrase, which is asked for.
        #[arg(long)]
        passphrase: bool,
        /// Put its key under the passphrase in the first line of this file, which nobody else may read.
        #[arg(long, value_name = "FILE", conflicts_with = "passphrase")]
        passphrase_file: Option<PathBuf>,
    },
    /// Issue an identity to a node, or renew it.
    Issue {
        /// The directory of the studio's authority.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The node's name, such as ws12.
        #[arg(long, value_name = "NAME")]
        node: NodeName,
        /// The node's site, such as london.
        #[arg(long, value_name = "SITE")]
        site: SiteName,
        /// Where to write it: the directory `identity` in the node's state directory.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// What kind of node it is: admin, site, workstation, farm or vendor.
        #[arg(long, value_name = "ROLE", default_value_t = Role::Workstation)]
        role: Role,
        /// How many days it is valid.
        #[arg(long, value_name = "N", default_value_t = NODE_VALIDITY.as_secs() / DAY_SECONDS)]
        days: u64,
        /// The file with the passphrase, where it is not asked for.
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
    /// Let a node issue to others, so that this authority can stay in its drawer.
    Delegate {
        /// The directory of the studio's authority.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// The node, such as srv@london.
        #[arg(long, value_name = "NODE@SITE")]
        node: NodeId,
        /// Where to write the issuing key: the directory `identity` in the node's state directory.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
        /// For how many days it may issue.
        #[arg(long, value_name = "N", default_value_t = ISSUING_VALIDITY.as_secs() / DAY_SECONDS)]
        days: u64,
        /// The file with the passphrase, where it is not asked for.
        #[arg(long, value_name = "FILE")]
        passphrase_file: Option<PathBuf>,
    },
    /// Sign the request of a machine that joins off line.
    Sign(sign::SignArgs),
    /// Make the next list of revoked certificates, for an admin's node to publish.
    Revoke(revoke::RevokeArgs),
    /// Put the authority's key under another passphrase, or under one at last.
    Passphrase(passphrase::PassphraseArgs),
    /// Show the studio and the fingerprint of its authority.
    Show {
        /// The directory of the studio's authority.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
}

/// Why a command of the authority failed.
#[derive(Debug, Error)]
pub(crate) enum CaError {
    /// A passphrase could not be had.
    #[error("there is no passphrase")]
    Passphrase(#[source] PassphraseError),
    /// The file of a passphrase could not be read.
    #[error("the passphrase was not read")]
    PassphraseFile(#[source] KeyFileError),
    /// A request could not be read.
    #[error("could not read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A request is refused.
    #[error("{} is not a request that can be signed", path.display())]
    Request {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: RequestError,
    },
    /// What was made could not be written.
    #[error("the certificate was not saved")]
    Write(#[source] WriteError),
    /// The authority refused or could not.
    #[error("the studio CA in {} was not used", dir.display())]
    Authority {
        /// Its directory.
        dir: PathBuf,
        /// Why.
        #[source]
        source: AuthorityError,
    },
}

impl CaError {
    /// Returns what to print.
    pub(crate) fn report(&self) -> ApiError {
        let source = match self {
            Self::Authority { source, .. } => source,
            Self::Passphrase(_) | Self::Request { .. } | Self::Read { .. } => {
                return ApiError::new(ErrorCode::BadRequest, chain(self));
            }
            Self::PassphraseFile(error) => return ApiError::new(ErrorCode::Denied, chain(error)),
            Self::Write(error) => return ApiError::new(ErrorCode::Internal, chain(error)),
        };
        let code = match source {
            AuthorityError::AlreadyExists { .. }
            | AuthorityError::OtherIdentity { .. }
            | AuthorityError::UnknownIdentity { .. }
            | AuthorityError::OtherAuthority { .. }
            | AuthorityError::NothingIssued { .. }
            | AuthorityError::NothingNew { .. }
            | AuthorityError::ListTooLong { .. }
            | AuthorityError::Validity { .. } => ErrorCode::BadRequest,
            AuthorityError::Open { .. }
            | AuthorityError::List { .. }
            | AuthorityError::NotAuthority { .. }
            | AuthorityError::KeyMismatch { .. }
            | AuthorityError::NeedsPassphrase { .. }
            | AuthorityError::WrongPassphrase { .. }
            | AuthorityError::NotDelegating { .. }
            | AuthorityError::Expired { .. } => ErrorCode::Denied,
            _ => ErrorCode::Internal,
        };
        // The texts of the authority say themselves what to do next.
        ApiError::new(code, chain(source))
    }
}

#[derive(Serialize)]
struct AuthorityAnswer<'a> {
    schema: &'static str,
    studio: &'a StudioName,
    fingerprint: String,
    expires: String,
    dir: &'a PathBuf,
}

#[derive(Serialize)]
struct IdentityAnswer<'a> {
    schema: &'static str,
    node: &'a NodeName,
    site: &'a SiteName,
    studio: &'a StudioName,
    role: Role,
    expires: String,
    out: &'a PathBuf,
}

#[derive(Serialize)]
struct IssuingAnswer<'a> {
    schema: &'static str,
    node: &'a NodeId,
    studio: &'a StudioName,
    expires: String,
    out: &'a PathBuf,
}

/// Works on the studio's authority.
pub(crate) fn run(context: &Context<'_>, args: &CaArgs) -> Result<ExitCode, Failure> {
    match &args.action {
        CaAction::Init { studio, dir, passphrase, passphrase_file } => {
            let passphrase = passphrase::chosen(context, *passphrase, passphrase_file.as_deref())?;
            let authority = Authority::create_under(studio, dir, passphrase.as_ref(), now());
            show(context, &authority.map_err(|error| failed(dir, error))?, dir);
            context
                .output
                .talk("keep the directory safe and offline; issue identities with `avalonctl ca issue`");
        }
        CaAction::Show { dir } => show_certificate(context, dir)?,
        CaAction::Issue { dir, node, site, out, role, days, passphrase_file } => {
            let authority = passphrase::open(context, dir, passphrase_file.as_deref())?;
            let id = NodeId::new(node.clone(), site.clone());
            let request = IssueRequest { node: id, role: *role, validity: validity(*days) };
            issue(context, &authority, dir, &request, out)?;
        }
        CaAction::Delegate { dir, node, out, days, passphrase_file } => {
            let authority = passphrase::open(context, dir, passphrase_file.as_deref())?;
            let expires = authority.delegate_into(node, validity(*days), out, now());
            let expires = utc(expires.map_err(|error| failed(dir, error))?);
            if context.output.is_json() {
                let (studio, schema) = (authority.studio(), "avalonctl.ca-delegate/1");
                context.output.json(&IssuingAnswer { schema, node, studio, expires, out });
            } else {
                let out = out.display().to_string();
                context.output.data(&format!("{node}  issues until {expires}  from {}", escape(&out)));
                context.output.talk(
                    "issuing.key is secret: who has it can let machines into the studio, though none as admin; \
                     restart avalond there, then invite with `avalonctl invite`",
                );
            }
        }
        CaAction::Sign(args) => sign::run(context, args)?,
        CaAction::Revoke(args) => revoke::run(context, args)?,
        CaAction::Passphrase(args) => passphrase::change(context, args)?,
    }
    Ok(ExitCode::Ok)
}

fn issue(
    context: &Context<'_>,
    authority: &Authority,
    dir: &Path,
    request: &IssueRequest,
    out: &PathBuf,
) -> Result<(), Failure> {
    let issued = authority.issue_into(request, out, now()).map_err(|error| failed(dir, error))?;
    let (expires, role) = (utc(issued.facts.expires_at), issued.facts.role);
    if context.output.is_json() {
        let (studio, schema) = (authority.studio(), "avalonctl.ca-issue/1");
        let NodeId { node, site } = &request.node;
        context.output.json(&IdentityAnswer { schema, node, site, studio, role, expires, out });
    } else {
        let (id, out) = (&request.node, out.display().to_string());
        context.output.data(&format!("{id}  {role}  valid until {expires}  in {}", escape(&out)));
        context.output.talk("node.key is secret: it must be readable by the user of avalond alone");
    }
    Ok(())
}

fn validity(days: u64) -> Duration {
    Duration::from_secs(days.saturating_mul(DAY_SECONDS))
}

fn failed(dir: &Path, source: AuthorityError) -> Failure {
    Failure::Ca(Box::new(CaError::Authority { dir: dir.to_owned(), source }))
}

fn show(context: &Context<'_>, authority: &Authority, dir: &PathBuf) {
    show_facts(context, authority.certificate(), dir);
}

/// Shows what the certificate says; the key stays under its passphrase.
fn show_certificate(context: &Context<'_>, dir: &PathBuf) -> Result<(), Failure> {
    let certificate = Authority::certificate_in(dir).map_err(|error| failed(dir, error))?;
    show_facts(context, &certificate, dir);
    Ok(())
}

fn show_facts(context: &Context<'_>, certificate: &AuthorityCertificate, dir: &PathBuf) {
    let (studio, fingerprint) = (certificate.studio(), certificate.fingerprint());
    let expires = utc(certificate.expires_at());
    if context.output.is_json() {
        let schema = "avalonctl.ca/1";
        context.output.json(&AuthorityAnswer { schema, studio, fingerprint, expires, dir });
        return;
    }
    for (name, value) in [
        ("studio", studio.as_str()),
        ("fingerprint", &fingerprint),
        ("expires", &expires),
        ("directory", &dir.display().to_string()),
    ] {
        context.output.data(&format!("{name:<13}{}", escape(value)));
    }
}

/// Returns the time for certificates: this command is the edge where the clock is read.
pub(crate) fn now() -> SystemTime {
    Timestamp::now().into()
}

fn utc(time: SystemTime) -> String {
    // Whole seconds: certificates know no parts of them.
    let time = Timestamp::try_from(time).and_then(|time| Timestamp::from_second(time.as_second()));
    time.map_or_else(|_| "an unknown time".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests;
