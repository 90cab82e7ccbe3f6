//! What requests carry, each refused with an [`ApiError`] that says what is wrong.

use avalon_protocol::control::ApiError;
use axum::{
    body::to_bytes,
    extract::{FromRequest, FromRequestParts, Path, Query, Request},
    http::{StatusCode, request::Parts},
};
use serde::de::DeserializeOwned;

use super::{
    error::Failure,
    local::{PolicyQuery, RefQuery, WhyQuery},
};

/// The largest body of a request. The largest honest one is a list of paths to publish.
pub(super) const MAX_BODY_BYTES: usize = 1 << 20;

/// The JSON body of a request, whatever its content type says.
#[derive(Debug)]
pub(super) struct Body<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for Body<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, _state: &S) -> Result<Self, Failure> {
        let bytes = to_bytes(request.into_body(), MAX_BODY_BYTES).await.map_err(|error| {
            let message = format!("cannot read the body, which may have {MAX_BODY_BYTES} bytes: {error}");
            Failure::bad_request(StatusCode::PAYLOAD_TOO_LARGE, message)
        })?;
        let mut json = serde_json::Deserializer::from_slice(&bytes);
        let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let place = match error.path().to_string() {
                path if path == "." => String::new(),
                path => format!(" at {path}"),
            };
            refused(format!("the body is not what this request takes{place}: {}", error.inner()))
        })?;
        json.end().map_err(|error| refused(format!("the body goes on after its JSON: {error}")))?;
        Ok(Self(value))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for RefQuery {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Params(query): Params<Self> = Params::from_request_parts(parts, state).await?;
        let given = |text: Option<String>| text.filter(|text| !text.is_empty());
        let (reference, project) = (given(query.reference), given(query.project));
        Ok(Self { reference, project, after: given(query.after), ..query })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for WhyQuery {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Params(query) = Params::from_request_parts(parts, state).await?;
        Ok(query)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for PolicyQuery {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Params(query) = Params::from_request_parts(parts, state).await?;
        Ok(query)
    }
}

/// The parameters after the `?`.
#[derive(Debug)]
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let query = Query::from_request_parts(parts, state).await;
        let Query(params) = query.map_err(|error| refused(error.body_text()))?;
        Ok(Self(params))
    }
}

/// The id at the end of a path.
#[derive(Debug)]
pub(super) struct Id(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let path = Path::from_request_parts(parts, state).await;
        let Path(id) = path.map_err(|error| refused(error.body_text()))?;
        Ok(Self(id))
    }
}

fn refused(message: String) -> Failure {
    Failure::bad_request(StatusCode::BAD_REQUEST, message)
}

/// What every handler returns.
pub(super) type Answer<T> = Result<axum::Json<T>, Failure>;

/// Turns what the daemon says into what goes out.
pub(super) fn answer<T>(result: Result<T, ApiError>) -> Answer<T> {
    Ok(axum::Json(result?))
}
