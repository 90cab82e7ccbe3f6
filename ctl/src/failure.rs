//! Why a command failed: what stderr says about it, and the exit code.

use std::{error::Error, io};

use avalon_protocol::{
    control::{ApiError, ErrorCode},
    exit_code::ExitCode,
    reference::InvalidReference,
};
use thiserror::Error;

use crate::{
    client::ClientError,
    command::{ca::CaError, demo::DemoError, service::ServiceError},
};

/// Why a command failed.
#[derive(Debug, Error)]
pub(crate) enum Failure {
    /// The daemon did not answer, or answered with an error.
    #[error("the daemon was asked in vain")]
    Client(#[source] ClientError),
    /// A reference is written wrongly.
    #[error("a reference is not valid")]
    Reference(#[source] InvalidReference),
    /// The command itself found what is wrong.
    #[error("{0}")]
    Said(ApiError),
    /// A command of the studio's authority failed.
    #[error("the studio CA was not used")]
    Ca(#[source] Box<CaError>),
    /// The service was not installed or removed.
    #[error("the service was not changed")]
    Service(#[source] ServiceError),
    /// The demo failed.
    #[error("the demo failed")]
    Demo(#[source] DemoError),
}

impl Failure {
    /// Returns what to print; its code gives the exit code.
    pub(crate) fn report(&self) -> ApiError {
        match self {
            Self::Client(error) => client_report(error),
            Self::Reference(error) => reference_report(error),
            Self::Said(error) => error.clone(),
            Self::Ca(error) => error.report(),
            Self::Service(error) => error.report(),
            Self::Demo(error) => error.report(),
        }
    }

    /// Returns the exit code.
    pub(crate) fn exit(&self) -> ExitCode {
        self.report().code.exit()
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl From<InvalidReference> for Failure {
    fn from(error: InvalidReference) -> Self {
        Self::Reference(error)
    }
}

/// Joins an error and its causes into one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn client_report(error: &ClientError) -> ApiError {
    match error {
        ClientError::Refused(error) => error.clone(),
        ClientError::Connect { source, .. } => {
            let (why, hint) = match source.kind() {
                io::ErrorKind::NotFound => ("there is no such file", START),
                io::ErrorKind::ConnectionRefused => ("the socket is there, and nobody listens", START),
                io::ErrorKind::PermissionDenied => (
                    "permission denied",
                    "join the group that may use the socket, or ask for another --socket",
                ),
                _ => return unreachable(&chain(error), START),
            };
            unreachable(&format!("{error}: {why}"), hint)
        }
        ClientError::Broken { .. } => {
            unreachable(&chain(error), "see the daemon's log: journalctl -u avalond")
        }
        ClientError::Silent { .. } => unreachable(&chain(error), "restart it: systemctl restart avalond"),
        ClientError::Status { .. } | ClientError::Answer { .. } => {
            ApiError::new(ErrorCode::Internal, chain(error))
                .with_hint("avalonctl and avalond may be of different versions: compare their --version")
        }
        ClientError::TooLong { .. } => ApiError::new(ErrorCode::Internal, chain(error))
            .with_hint("ask for less: name a project, an asset or a version"),
        ClientError::Question { .. } | ClientError::Body { .. } | ClientError::File { .. } => {
            ApiError::new(ErrorCode::BadRequest, chain(error))
        }
    }
}

const START: &str = "start it with `systemctl start avalond` or `avalond --config FILE`; another daemon's socket is \
                     named with --socket or AVALONCTL_SOCKET";

fn unreachable(message: &str, hint: &str) -> ApiError {
    ApiError::new(ErrorCode::DaemonUnreachable, message).with_hint(hint)
}

fn reference_report(error: &InvalidReference) -> ApiError {
    // The cause is short and says more than the grammar, so it comes first.
    ApiError::new(
        ErrorCode::BadReference,
        format!("{:?} is not a reference: {}", error.text, chain(&error.problem)),
    )
    .with_hint("write [project:]asset/subset[/representation][@version], for example robot/modelDefault@v002")
}

#[cfg(test)]
mod tests {
    use avalon_protocol::control::{ApiError, ErrorCode};

    use crate::fake::{FakeDaemon, run};

    #[test]
    fn without_a_daemon_it_says_where_it_looked_why_and_how_to_start_one() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("api.sock");
        let ran = run(&["status", "--socket", socket.to_str().unwrap()]);
        assert_eq!(ran.exit, 5);
        let shown = socket.display();
        assert_eq!(
            ran.stderr,
            format!(
                "error[AVL-0501]: no daemon answers at {shown}: there is no such file\n  hint: start it with \
                 `systemctl start avalond` or `avalond --config FILE`; another daemon's socket is named with --socket \
                 or AVALONCTL_SOCKET\n"
            )
        );
        // A socket whose daemon died stays behind.
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        let ran = run(&["status", "--json", "--socket", socket.to_str().unwrap()]);
        assert_eq!((ran.exit, ran.stdout.as_str()), (5, ""));
        assert_eq!((ran.error().code, ran.error().exit), (ErrorCode::DaemonUnreachable, 5));
        assert!(ran.error().message.ends_with("the socket is there, and nobody listens"), "{ran:?}");
    }

    #[test]
    fn the_daemons_own_words_and_suggestion_are_passed_on() {
        let daemon = FakeDaemon::start();
        let error =
            ApiError::new(ErrorCode::NotFound, "nothing named \"robot/modelDefalt\" in project lantern");
        daemon.refuse("GET /v1/where", &error.clone().with_hint("did you mean robot/modelDefault?"));
        let ran = daemon.run(&["where", "robot/modelDefalt"]);
        assert_eq!(ran.exit, 4);
        assert_eq!(
            ran.stderr,
            "error[AVL-0401]: nothing named \"robot/modelDefalt\" in project lantern\n  hint: did you mean \
             robot/modelDefault?\n"
        );
        let ran = daemon.run(&["where", "robot/modelDefalt", "--json"]);
        assert_eq!(ran.error().hint.as_deref(), Some("did you mean robot/modelDefault?"));

        let silent = FakeDaemon::start();
        silent.refuse("GET /v1/where", &error);
        let ran = silent.run(&["where", "robot/modelDefalt"]);
        assert!(ran.stderr.ends_with("  hint: list what exists: avalonctl ls robot\n"), "{ran:?}");
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_an_error_of_its_own() {
        let daemon = FakeDaemon::start();
        daemon.answer("GET /v1/status", 200, "{\"schema\":7}".into());
        let ran = daemon.run(&["status"]);
        assert_eq!(ran.exit, 1);
        assert!(
            ran.stderr.starts_with("error[AVL-0100]: the daemon's answer to /v1/status cannot be read: ")
        );
        let ran = FakeDaemon::start().run(&["status", "--json"]);
        assert_eq!(ran.error().message, "the daemon answered /v1/status with HTTP status 404 Not Found");
    }

    #[test]
    fn an_error_cannot_act_on_the_terminal() {
        let daemon = FakeDaemon::start();
        daemon.refuse(
            "GET /v1/info",
            &ApiError::new(ErrorCode::NotFound, "no \u{1b}[2J\nerror[AVL-0000]: fake"),
        );
        let ran = daemon.run(&["info", "a/b"]);
        assert!(
            ran.stderr.starts_with("error[AVL-0401]: no \\u{1b}[2J\\nerror[AVL-0000]: fake\n"),
            "{ran:?}"
        );
    }
}
