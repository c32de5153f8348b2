//! Streams of events.

use super::App;
use crate::jobs::{Job, Queue};
use crate::refusal::{Answer, Refusal};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::Stream;
use futures_util::stream::unfold;
use serde_json::Value;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::OwnedSemaphorePermit;

/// A comment is sent so often where nothing happens.
const COMMENT: Duration = Duration::from_secs(15);

/// Cancels a job where nobody waits for its answer any more.
pub(crate) struct CancelWithClient {
    pub queue: Arc<Queue>,
    pub job: Arc<Job>,
}

impl Drop for CancelWithClient {
    fn drop(&mut self) {
        self.queue.cancel(&self.job);
    }
}

/// A place among the open streams.
pub(crate) fn place(app: &App) -> Answer<OwnedSemaphorePermit> {
    Arc::clone(&app.streams).try_acquire_owned().map_err(|_| {
        app.metrics.rejected("too_many_streams");
        let message = format!("{} streams are open", app.config.limits.streams);
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, "too_many_streams", message).after(5)
    })
}

/// The number of the last event that a client has seen.
pub(crate) fn last_seen(headers: &HeaderMap, after: Option<u64>) -> Answer<u64> {
    let Some(header) = headers.get("last-event-id") else { return Ok(after.unwrap_or(0)) };
    let text = header.to_str().unwrap_or_default();
    text.parse().map_err(|_| Refusal::field("Last-Event-ID", "the number of an event", text))
}

/// One event as it is sent.
pub(crate) fn event(id: Option<u64>, name: &str, data: &Value) -> Event {
    let event = Event::default().event(name).data(data.to_string());
    match id {
        Some(id) => event.id(id.to_string()),
        None => event,
    }
}

/// The answer that sends a stream of events.
pub(crate) fn answer(stream: impl Stream<Item = Result<Event, Infallible>> + Send + 'static) -> Response {
    let mut response = Sse::new(stream).keep_alive(KeepAlive::new().interval(COMMENT)).into_response();
    // Proxies that collect answers would hold events back.
    super::set(&mut response, "x-accel-buffering", "no");
    response
}

/// What a stream of a job's events carries along.
struct Following {
    job: Arc<Job>,
    seen: usize,
    ready: VecDeque<Event>,
    ended: bool,
    _place: OwnedSemaphorePermit,
    /// Where the client is the only one who waits for the job.
    _client: Option<CancelWithClient>,
}

/// The events of a job from number `seen` + 1 on, until it has ended.
pub(crate) fn of_job(
    job: Arc<Job>,
    seen: u64,
    place: OwnedSemaphorePermit,
    client: Option<CancelWithClient>,
) -> Response {
    let seen = usize::try_from(seen).unwrap_or(usize::MAX);
    let start = Following { job, seen, ready: VecDeque::new(), ended: false, _place: place, _client: client };
    answer(unfold(start, |mut following| async move {
        loop {
            if let Some(event) = following.ready.pop_front() {
                return Some((Ok(event), following));
            }
            if following.ended {
                return None;
            }
            following.job.news(following.seen).await;
            let (events, ended) = following.job.events(following.seen);
            following.ended = ended;
            for happened in events {
                following.seen += 1;
                following.ready.push_back(event(Some(following.seen as u64), happened.name, &happened.data));
            }
        }
    }))
}
