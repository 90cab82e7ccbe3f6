//! The last line of `pull --json`.

use avalon_protocol::control::{ApiError, ErrorCode, JobState, JobStatus, MissingInput, PullItem};
use serde::Serialize;

use super::follow::Followed;

/// What became of a pull. Scripts rely on `versions`: those that are here, whole and verified.
#[derive(Debug, Serialize)]
pub(super) struct Summary<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    schema: &'static str,
    versions: Vec<Here<'a>>,
    failed: Vec<Failed<'a>>,
    pending: Vec<Pending<'a>>,
    /// Only when inputs were asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<&'a [MissingInput]>,
}

#[derive(Debug, Serialize)]
struct Here<'a> {
    #[serde(rename = "ref")]
    reference: &'a str,
    manifest: &'a str,
    path: Option<&'a str>,
    files: u64,
    bytes: u64,
    bytes_received: u64,
    bytes_local: u64,
    bytes_delta: u64,
    bytes_compressed: u64,
    bytes_raw: u64,
    seconds: f64,
    sources: &'a [String],
}

#[derive(Debug, Serialize)]
struct Failed<'a> {
    #[serde(rename = "ref")]
    reference: &'a str,
    job: Option<&'a str>,
    code: ErrorCode,
    message: &'a str,
}

#[derive(Debug, Serialize)]
struct Pending<'a> {
    #[serde(rename = "ref")]
    reference: &'a str,
    job: &'a str,
    state: JobState,
    reason: Option<&'a str>,
    path: Option<&'a str>,
}

impl<'a> Summary<'a> {
    /// Sums up what was followed, and what failed.
    pub(super) fn new(
        followed: &'a [Followed],
        errors: &'a [(PullItem, ApiError)],
        missing: Option<&'a [MissingInput]>,
    ) -> Self {
        let statuses = || followed.iter().map(|followed| &followed.status);
        Self {
            kind: "summary",
            schema: "avalonctl.pull/1",
            versions: statuses().filter(|status| status.state == JobState::Done).map(here).collect(),
            failed: errors.iter().map(failed).collect(),
            pending: statuses().filter(|status| !status.state.is_final()).map(pending).collect(),
            missing,
        }
    }

    /// Returns what kinds of errors there were.
    pub(super) fn codes(&self) -> Vec<ErrorCode> {
        self.failed.iter().map(|failed| failed.code).collect()
    }
}

fn here(status: &JobStatus) -> Here<'_> {
    Here {
        reference: &status.reference,
        manifest: &status.manifest,
        path: status.path.as_deref(),
        files: status.files_total,
        bytes: status.bytes_total,
        bytes_received: status.bytes_received,
        bytes_local: status.bytes_local,
        bytes_delta: status.bytes_delta,
        bytes_compressed: status.bytes_compressed,
        bytes_raw: status.bytes_raw,
        seconds: status.seconds,
        sources: &status.sources,
    }
}

fn failed((item, error): &(PullItem, ApiError)) -> Failed<'_> {
    Failed { reference: &item.reference, job: item.job.as_deref(), code: error.code, message: &error.message }
}

fn pending(status: &JobStatus) -> Pending<'_> {
    Pending {
        reference: &status.reference,
        job: &status.id,
        state: status.state,
        reason: status.reason.as_deref(),
        path: status.path.as_deref(),
    }
}
