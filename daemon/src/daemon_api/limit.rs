//! `limit`: what content may take of the line.

use std::sync::Arc;

use avalon_protocol::control::{ApiError, LimitItem, LimitRequest, LimitsReply};

use super::DaemonApi;
use crate::core::blocking;

impl DaemonApi {
    pub(super) async fn limits_reply(&self) -> LimitsReply {
        let core = Arc::clone(&self.core);
        reply(blocking(move || core.limits.list()).await)
    }

    pub(super) async fn limit_set(&self, request: LimitRequest) -> Result<LimitsReply, ApiError> {
        let core = Arc::clone(&self.core);
        blocking(move || core.limits.set(&request)).await.map(reply)
    }

    pub(super) async fn limits_cleared(&self, id: Option<String>) -> Result<LimitsReply, ApiError> {
        let core = Arc::clone(&self.core);
        blocking(move || core.limits.clear(id.as_deref())).await.map(reply)
    }
}

fn reply(limits: Vec<LimitItem>) -> LimitsReply {
    LimitsReply { schema: "avalonctl.limit/1".into(), limits }
}
