//! `verify`: files are read again, to find what their disk did to them.

use std::collections::BTreeSet;

use avalon_protocol::control::{ApiError, ErrorCode, VerifyRequest, VerifyStatus};

use super::{
    DaemonApi,
    find::{Found, Hidden},
};
use crate::{api::RefQuery, scrub::Wanted};

impl DaemonApi {
    pub(super) async fn verify_begun(&self, request: VerifyRequest) -> Result<VerifyStatus, ApiError> {
        let mut found: Found = Vec::new();
        if request.refs.is_empty() {
            found = self.all_of(request.project.clone()).await?;
        }
        for text in &request.refs {
            if self.core.projects.keys().any(|project| project.as_str() == text) {
                found.extend(self.all_of(Some(text.clone())).await?);
                continue;
            }
            let reference = self.parse(text)?;
            found.extend(self.find_also(&reference, request.project.as_deref(), Hidden::Found).await?);
        }
        let mut seen = BTreeSet::new();
        found.retain(|(version, _)| seen.insert(version.clone()));
        Ok(self.scrubber.verify(Wanted { versions: found, repair: request.repair }).await)
    }

    /// Returns all versions of a project, or of all, those that are out of use too: they take room as long as they are here.
    async fn all_of(&self, project: Option<String>) -> Result<Found, ApiError> {
        self.find_listed(&RefQuery { project, retired: true, ..RefQuery::default() }).await
    }

    pub(super) fn verify_status(&self, id: &str) -> Result<VerifyStatus, ApiError> {
        self.scrubber.run(id).ok_or_else(|| no_such(id))
    }

    pub(super) fn verify_ended(&self, id: &str) -> Result<VerifyStatus, ApiError> {
        self.scrubber.cancel(id).ok_or_else(|| no_such(id))
    }
}

fn no_such(id: &str) -> ApiError {
    ApiError::new(
        ErrorCode::NotFound,
        format!("no verify {id} is known; they are forgotten when the daemon restarts"),
    )
    .with_hint("begin another one: avalonctl verify")
}
