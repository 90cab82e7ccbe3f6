//! What every command works with.

use avalon_protocol::control::{ApiError, ErrorCode};

use crate::{
    client::Client, environment::Environment, failure::Failure, interrupt::Interrupt, output::Output,
};

/// The daemon to ask, the project to assume, and the ways in and out.
#[derive(Debug)]
pub(crate) struct Context<'a> {
    pub(crate) client: Client,
    pub(crate) project: Option<String>,
    pub(crate) output: &'a Output,
    pub(crate) interrupt: &'a Interrupt,
    pub(crate) environment: &'a Environment,
}

impl Context<'_> {
    /// Returns the query of a question about versions.
    pub(crate) fn query<'q>(&'q self, reference: Option<&'q str>) -> [(&'static str, Option<&'q str>); 2] {
        [("ref", reference), ("project", self.project.as_deref())]
    }
}

/// Adds what to do next where the daemon did not say it.
pub(crate) fn with_hint(failure: Failure, code: ErrorCode, hint: &str) -> Failure {
    let error = failure.report();
    if error.code == code && error.hint.is_none() { Failure::Said(error.with_hint(hint)) } else { failure }
}

/// Makes the failure that a command itself found.
pub(crate) fn said(code: ErrorCode, message: impl Into<String>, hint: &str) -> Failure {
    Failure::Said(ApiError::new(code, message).with_hint(hint))
}
