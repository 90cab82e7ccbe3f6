//! What people hear of a version that was recorded, or was not.

use avalon_protocol::{
    control::{EventKind, Health, Severity},
    manifest::{Completeness, Manifest},
    rel_path::RelPath,
};

use super::{RecordError, Recording, error::first};
use crate::{core::Core, health::HealthBoard, log::ErrorChain};

/// The health code of published files that were changed in place.
pub const REWRITTEN: &str = "rewritten";

impl Recording<'_> {
    pub(super) fn tell_published(&self, manifest: &Manifest, completeness: Completeness) {
        let draft = manifest.draft();
        tracing::info!(version = %self.version, manifest = %manifest.id(), generation = draft.generation, files = manifest.files().len(), bytes = manifest.total_bytes(), signal = ?completeness, author = draft.author, "published");
        self.core.events.emit(EventKind::Published {
            reference: self.version.to_string(),
            manifest: manifest.id().to_string(),
            generation: draft.generation,
            files: manifest.files().len() as u64,
            bytes: manifest.total_bytes(),
            author: draft.author.clone(),
            completeness: format!("{completeness:?}").to_lowercase(),
        });
    }

    pub(super) fn rewritten_board(&self) -> HealthBoard {
        self.core.health.about(&self.version.to_string())
    }

    pub(super) fn tell_rewritten(&self, changed: &[RelPath]) {
        let message = format!(
            "published files of {} were changed in place at this node; the first of {} is {}",
            self.version,
            changed.len(),
            first(changed)
        );
        self.rewritten_board().raise(Health {
            code: REWRITTEN.into(),
            severity: Severity::Error,
            message: message.clone(),
            hint: Some(format!(
                "other sites keep the old; put it back: avalonctl restore {0}; or let the change be its next generation: \
                 avalonctl accept {0}",
                self.version
            )),
        });
        // Last, so that who hears of it finds it in the status too.
        self.core
            .events
            .emit(EventKind::Refused { reference: self.version.to_string(), messages: vec![message] });
    }
}

/// Tells about a version that could not be recorded and will not be by itself.
pub fn tell_refused(core: &Core, reference: &str, error: &RecordError) {
    if matches!(error, RecordError::Rewritten { .. } | RecordError::Damaged { .. }) {
        return;
    }
    let message = ErrorChain(error).to_string();
    tracing::warn!(version = reference, error = message, "a version was not published");
    core.events.emit(EventKind::Refused { reference: reference.to_owned(), messages: vec![message] });
}
