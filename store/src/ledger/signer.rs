//! The signer of this node's feeds, which changes when its key is renewed.

use std::sync::{Arc, PoisonError, RwLock};

use avalon_protocol::signing::RecordSigner;

/// One signer at a time; clones are the same. A group is sealed with one of them from its certificate to its signature.
#[derive(Debug, Clone)]
pub(super) struct SharedSigner(Arc<RwLock<Arc<dyn RecordSigner>>>);

impl SharedSigner {
    pub(super) fn new(signer: Arc<dyn RecordSigner>) -> Self {
        Self(Arc::new(RwLock::new(signer)))
    }

    pub(super) fn now(&self) -> Arc<dyn RecordSigner> {
        // An exchange leaves nothing half done.
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn replace(&self, signer: Arc<dyn RecordSigner>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = signer;
    }
}
