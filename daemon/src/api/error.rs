//! [`Failure`]: an [`ApiError`] as an HTTP answer.

use avalon_protocol::control::{ApiError, ErrorCode, route};
use axum::{
    Json,
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};

/// An error on its way out.
#[derive(Debug)]
pub struct Failure {
    status: StatusCode,
    error: ApiError,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let status = StatusCode::from_u16(error.code.http_status());
        Self { status: status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), error }
    }
}

impl Failure {
    /// Says why a request was not understood, and where to read how it should be.
    pub(super) fn bad_request(status: StatusCode, message: impl Into<String>) -> Self {
        let hint = format!("GET {} describes every request", route::OPENAPI);
        Self { status, error: ApiError::new(ErrorCode::BadRequest, message).with_hint(hint) }
    }

    /// Says that the daemon has a bug; the details are in its log.
    pub(super) fn internal(message: impl Into<String>) -> Self {
        ApiError::new(ErrorCode::Internal, message).with_hint("the daemon's log says more").into()
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let code = self.error.code;
        let mut response = (self.status, Json(self.error)).into_response();
        // For the audit, which does not read answers.
        response.extensions_mut().insert(code);
        response
    }
}

/// Answers a path that is not of this API.
pub(super) async fn no_such_route(method: Method, uri: Uri) -> Failure {
    let message = format!("this daemon has no {method} {}", shown(&uri));
    Failure::bad_request(StatusCode::NOT_FOUND, message)
}

/// Answers a method that a path does not have.
pub(super) async fn no_such_method(method: Method, uri: Uri) -> Failure {
    let message = format!("{} does not take {method}", shown(&uri));
    Failure::bad_request(StatusCode::METHOD_NOT_ALLOWED, message)
}

/// Enough of a path to know it again. A path in HTTP is of printable characters only.
fn shown(uri: &Uri) -> &str {
    const MAX_SHOWN_BYTES: usize = 200;
    uri.path().get(..MAX_SHOWN_BYTES).unwrap_or(uri.path())
}
