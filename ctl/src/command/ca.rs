//! `avalonctl ca init|issue|show`: the studio's certificate authority. Works on files alone; no daemon is asked.

use std::{
    path::PathBuf,
    time::{Duration, SystemTime},
};

use avalon_certs::{Authority, AuthorityError, NODE_VALIDITY};
use avalon_protocol::{
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
        /// How many days it is valid.
        #[arg(long, value_name = "N", default_value_t = NODE_VALIDITY.as_secs() / DAY_SECONDS)]
        days: u64,
    },
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
        let Self::Authority { source, .. } = self;
        let code = match source {
            AuthorityError::AlreadyExists { .. }
            | AuthorityError::OtherIdentity { .. }
            | AuthorityError::UnknownIdentity { .. }
            | AuthorityError::Validity { .. } => ErrorCode::BadRequest,
            AuthorityError::Open { .. }
            | AuthorityError::NotAuthority { .. }
            | AuthorityError::KeyMismatch { .. }
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
    expires: String,
    out: &'a PathBuf,
}

/// Works on the studio's authority.
pub(crate) fn run(context: &Context<'_>, args: &CaArgs) -> Result<ExitCode, Failure> {
    match &args.action {
        CaAction::Init { studio, dir } => {
            let authority = Authority::create(studio, dir, now()).map_err(|error| failed(dir, error))?;
            show(context, &authority, dir);
            context
                .output
                .talk("keep the directory safe and offline; issue identities with `avalonctl ca issue`");
        }
        CaAction::Show { dir } => {
            let authority = Authority::open(dir).map_err(|error| failed(dir, error))?;
            show(context, &authority, dir);
        }
        CaAction::Issue { dir, node, site, out, days } => {
            let authority = Authority::open(dir).map_err(|error| failed(dir, error))?;
            let id = NodeId::new(node.clone(), site.clone());
            let validity = Duration::from_secs(days.saturating_mul(DAY_SECONDS));
            let issued =
                authority.issue_into(&id, validity, out, now()).map_err(|error| failed(dir, error))?;
            let expires = utc(issued.expires_at());
            if context.output.is_json() {
                let (studio, schema) = (authority.studio(), "avalonctl.ca-issue/1");
                context.output.json(&IdentityAnswer { schema, node, site, studio, expires, out });
            } else {
                let out = out.display().to_string();
                context.output.data(&format!("{id}  valid until {expires}  in {}", escape(&out)));
                context.output.talk("node.key is secret: it must be readable by the user of avalond alone");
            }
        }
    }
    Ok(ExitCode::Ok)
}

fn failed(dir: &std::path::Path, source: AuthorityError) -> Failure {
    Failure::Ca(Box::new(CaError::Authority { dir: dir.to_owned(), source }))
}

fn show(context: &Context<'_>, authority: &Authority, dir: &PathBuf) {
    let (studio, fingerprint) = (authority.studio(), authority.fingerprint());
    let expires = utc(authority.certificate().expires_at());
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
mod tests {
    use avalon_certs::Identity;

    use super::*;
    use crate::fake::run;

    #[test]
    fn a_studio_is_made_shown_and_issues_an_identity_that_loads() {
        let dir = tempfile::tempdir().unwrap();
        let (ca, out) = (dir.path().join("ca"), dir.path().join("state/identity"));
        std::fs::create_dir(dir.path().join("state")).unwrap();
        let (ca, out) = (ca.to_str().unwrap(), out.to_str().unwrap());
        let ran = run(&["ca", "init", "--studio", "northlight", "--dir", ca]);
        assert_eq!(ran.exit, 0, "{ran:?}");
        assert!(ran.stdout.starts_with("studio       northlight\nfingerprint  "), "{ran:?}");

        let shown = run(&["ca", "show", "--dir", ca, "--json"]).json();
        assert_eq!((&shown["schema"], &shown["studio"]), (&"avalonctl.ca/1".into(), &"northlight".into()));
        assert!(ran.stdout.contains(shown["fingerprint"].as_str().unwrap()));

        let issue = ["ca", "issue", "--dir", ca, "--node", "ws12", "--site", "london", "--out", out];
        let issued = run(&[&issue[..], &["--days", "30", "--json"]].concat()).json();
        assert_eq!((&issued["node"], &issued["site"]), (&"ws12".into(), &"london".into()));
        let identity = Identity::load(out.as_ref(), now()).unwrap();
        assert_eq!(identity.node().to_string(), "ws12@london");
        assert_eq!(issued["expires"], utc(identity.expires_at()));
        let ran = run(&issue);
        assert!(ran.stdout.starts_with("ws12@london  valid until 20"), "{ran:?}");
    }

    #[test]
    fn what_must_not_be_overwritten_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let ca = dir.path().to_str().unwrap();
        assert_eq!(run(&["ca", "init", "--studio", "a", "--dir", ca]).exit, 0);
        let ran = run(&["ca", "init", "--studio", "b", "--dir", ca, "--json"]);
        assert_eq!((ran.exit, ran.error().code), (2, ErrorCode::BadRequest));
        assert!(ran.error().message.contains("exists already"), "{ran:?}");
        assert_eq!(run(&["ca", "init", "--studio", "Not A Label", "--dir", ca]).exit, 2);
        let ran = run(&["ca", "show", "--dir", "/nowhere"]);
        assert_eq!(ran.exit, 9);
        assert!(ran.stderr.contains("avalonctl ca init"), "{ran:?}");
    }
}
