//! Asking for the number of a version before it is published, where the studio's policy names voters.

use std::sync::Arc;

use avalon_protocol::{
    control::{Health, Severity},
    id::{VersionId, VersionSlot},
};

use super::{super::manifest::Place, RecordError};
use crate::{
    core::Core,
    log::ErrorChain,
    numbers::{ReserveFailed, Reserved},
};

/// The health code of a version whose number belongs to somebody else.
pub const NUMBER_TAKEN: &str = "number-taken";

/// Asks for the number of a version that nobody published, as far as this node knows. Where too few voters answer, people do not
/// wait: the version is published, and returned is what they should hear about that.
///
/// # Errors
/// [`RecordError::NumberTaken`] when it belongs to somebody else.
pub(super) async fn take(
    core: &Arc<Core>,
    version: &VersionId,
    place: Place,
) -> Result<Option<String>, RecordError> {
    let is_first = place.generation == 1 && matches!(version.slot, VersionSlot::Number(_));
    if !is_first || !core.asks_for_numbers() {
        return Ok(None);
    }
    match core.take_number(version).await {
        Ok(Reserved { .. }) => Ok(None),
        Err(ReserveFailed::Taken { version, by, next }) => {
            let error = RecordError::NumberTaken { version: version.clone(), by, next };
            core.health.about(&version.to_string()).raise(Health {
                code: NUMBER_TAKEN.into(),
                severity: Severity::Error,
                message: ErrorChain(&error).to_string(),
                hint: Some(format!("nothing of it was published; rename the directory to v{next:03}")),
            });
            Err(error)
        }
        Err(error) => {
            let why = ErrorChain(&error).to_string();
            tracing::warn!(%version, error = why, "published without asking for the number");
            Ok(Some(format!("nobody knows whether another site publishes under this number too: {why}")))
        }
    }
}
