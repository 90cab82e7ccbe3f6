//! `GET /v1/events`: the [`EventBus`](crate::events::EventBus) as server-sent events.

use std::{convert::Infallible, sync::Arc};

use avalon_protocol::control::{ApiError, Event, route};
use axum::{
    extract::State,
    http::HeaderMap,
    response::sse::{self, KeepAlive, Sse},
};
use futures_util::{Stream, StreamExt as _, future, stream};
use serde::Deserialize;
use tokio_stream::wrappers::{BroadcastStream, errors::BroadcastStreamRecvError};

use super::{error::Failure, extract::Params, routes::Shared};

/// Where a stream starts.
#[derive(Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Since {
    /// The events after this number come first, as far as they are kept; 0 for all. Without it only new ones come.
    since: Option<u64>,
}

/// What happens, as it happens. The `id` of each event is its number, `data` the event as JSON. A reader that is too slow
/// is cut off, and comes back with the last number that it has.
#[utoipa::path(get, tag = "events", operation_id = "events", path = route::EVENTS, params(Since), responses(
    (status = 200, content_type = "text/event-stream", body = Event), (status = "4XX", body = ApiError)))]
pub(super) async fn stream(
    State(shared): State<Shared>,
    Params(Since { since }): Params<Since>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<sse::Event, Infallible>>>, Failure> {
    let bus = shared.api.events();
    // What a browser's EventSource sends when it comes back.
    let last_seen = || headers.get("last-event-id")?.to_str().ok()?.parse().ok();
    let since = last_seen().or(since).unwrap_or_else(|| bus.last_id());
    let (past, live) = bus.since(since);
    let live = BroadcastStream::new(live)
        .map(|event| match event {
            Ok(event) => Some(message(&event)),
            Err(BroadcastStreamRecvError::Lagged(lost)) => {
                tracing::debug!(lost, "a reader of events is too slow and is cut off");
                None
            }
        })
        .scan(Reading::On, |reading, next| future::ready(reading.step(next)));
    let events = stream::iter(past).map(|event| message(&event)).chain(live);
    let events = events.take_until(shared.stop.cancelled_owned()).map(Ok);
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(shared.keep_alive)))
}

/// Whether a stream goes on.
enum Reading {
    On,
    CutOff,
}

impl Reading {
    /// Passes an event on; where events are missing says so instead, and ends after that.
    fn step(&mut self, next: Option<sse::Event>) -> Option<sse::Event> {
        match (&self, next) {
            (Self::CutOff, _) => None,
            (Self::On, Some(event)) => Some(event),
            (Self::On, None) => {
                *self = Self::CutOff;
                Some(sse::Event::default().comment("too slow; come back with the last id"))
            }
        }
    }
}

fn message(event: &Arc<Event>) -> sse::Event {
    let id = sse::Event::default().id(event.id.to_string());
    match serde_json::to_string(event.as_ref()) {
        Ok(json) => id.data(json),
        Err(error) => id.comment(format!("not JSON: {error}")),
    }
}
