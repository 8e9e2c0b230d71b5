//! `GET /api/v1/events`: what happened lately as JSON, or what happens from now on as server-sent events. Which of the two,
//! `Accept` says: a browser's `EventSource` gets the latter.

use std::{
    convert::Infallible,
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use axum::{
    Json,
    extract::{Query, rejection::QueryRejection},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{
        IntoResponse, Response, Sse,
        sse::{Event as Sent, KeepAlive},
    },
};
use futures_util::stream::{self, Stream, StreamExt as _};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{problem::Problem, read::not_understood};
use crate::journal::{Event, JOURNAL, Missed};

/// So many may listen at a time: each holds a connection.
const LISTENERS: usize = 64;

/// Proxies on the way close connections on which nothing comes.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

static LISTENING: AtomicUsize = AtomicUsize::new(0);

#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct EventsDocument {
    /// The oldest first; the last 1,000 are kept.
    pub events: Vec<Event>,
    /// The number of the latest event, to ask with `after` the next time.
    pub last: u64,
    /// So many came after `after` and are not kept any more.
    pub lost: u64,
}

#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct Since {
    /// Only what came after the event of this number. A stream begins with these, too; without it and without
    /// `Last-Event-ID`, with what is new.
    after: Option<u64>,
}

/// What happened lately, or (with `Accept: text/event-stream`) what happens from now on.
#[utoipa::path(get, path = "/events", tag = "read",
    params(Since, ("Last-Event-ID" = Option<u64>, Header, description = "As `after`, which goes before it; browsers send it by themselves.")),
    responses(
        (status = 200, description = "Events; in a stream, each `data` is one event as JSON, and its `event` its kind.",
            content((EventsDocument = "application/json"), (String = "text/event-stream"))),
        (status = 400, body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too many listen already.", body = Problem, content_type = "application/problem+json"),
    ))]
pub async fn events(
    since: Result<Query<Since>, QueryRejection>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Query(since) = since.map_err(not_understood)?;
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if !text(header::ACCEPT).is_some_and(|accept| accept.contains("text/event-stream")) {
        let Missed { events, lost } = JOURNAL.after(since.after.unwrap_or(0));
        return Ok(Json(EventsDocument { events, last: JOURNAL.last(), lost }).into_response());
    }
    let seat = Seat::take().ok_or_else(|| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{LISTENERS} listen to the events already: come again later"),
        )
    })?;
    let last_event_id = headers.get("last-event-id").and_then(|id| id.to_str().ok()?.parse().ok());
    let seen = since.after.or(last_event_id).unwrap_or_else(|| JOURNAL.last());
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let mut response = Sse::new(listen(seen, seat)).keep_alive(keep_alive).into_response();
    // nginx gathers what it passes on, unless it is told not to.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(response)
}

/// Everything after `seen`, for ever.
fn listen(seen: u64, seat: Seat) -> impl Stream<Item = Result<Sent, Infallible>> {
    let batches = stream::unfold((seen, seat), |(seen, seat)| async move {
        JOURNAL.more_than(seen.min(JOURNAL.last())).await;
        let missed = JOURNAL.after(seen);
        let seen = missed.events.last().map_or(seen, |event| event.id);
        Some((stream::iter(told(missed)), (seen, seat)))
    });
    batches.flatten().map(Ok)
}

fn told(missed: Missed) -> Vec<Sent> {
    let lost = (missed.lost > 0)
        .then(|| Sent::default().event("lost").data(format!("{{\"lost\":{}}}", missed.lost)));
    let events = missed.events.into_iter().map(|event| {
        let sent = Sent::default().id(event.id.to_string()).event(event.kind.name());
        sent.data(serde_json::to_string(&event).unwrap_or_default())
    });
    lost.into_iter().chain(events).collect()
}

/// One of those who listen. Dropped when its connection ends.
struct Seat;

impl Seat {
    fn take() -> Option<Self> {
        let free = |taken| (taken < LISTENERS).then_some(taken + 1);
        LISTENING.fetch_update(Ordering::Relaxed, Ordering::Relaxed, free).ok().map(|_| Self)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        LISTENING.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_so_many_may_listen() {
        let seats: Vec<_> = (0..LISTENERS).map(|_| Seat::take().unwrap()).collect();
        assert!(Seat::take().is_none());
        drop(seats);
        assert!(Seat::take().is_some());
    }
}
