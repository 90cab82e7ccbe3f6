//! Time as the store sees it: whoever opens the ledger hands it in.

use std::{sync::Arc, time::Duration};

/// Returns the time since some start; it only goes forward.
pub type Monotonic = Arc<dyn Fn() -> Duration + Send + Sync>;
