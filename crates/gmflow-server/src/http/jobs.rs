//! Jobs: samples in the background.

use super::{Parameter, Shared, body, events, gone, json_response, query, set};
use crate::jobs::{Answering, read_object};
use crate::refusal::{Answer, Refusal};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

pub(crate) async fn submit(State(app): Shared, sent: Body) -> Answer<Response> {
    let fields = read_object(&body(&app, sent).await?)?;
    if super::samples::streams(&fields)? {
        return Err(Refusal::field("stream", "nothing: the events of a job have their own route", "true"));
    }
    let plan = app.planner.plan(fields, Answering::Followed)?;
    let job = app.queue.submit(plan, true)?;
    app.store.insert(&job);
    let described = job.describe(app.queue.eta(&job));
    let told = json!({
        "id": job.id, "position": described["position"], "eta_s": described["eta_s"], "url": job.url(""),
        "events": job.url("/events"),
    });
    let mut response = json_response(StatusCode::ACCEPTED, &told);
    set(&mut response, "location", &job.url(""));
    Ok(response)
}

pub(crate) async fn show(State(app): Shared, id: Parameter) -> Answer<Response> {
    let job = app.store.get(&id)?;
    Ok(json_response(StatusCode::OK, &job.describe(app.queue.eta(&job))))
}

pub(crate) async fn cancel(State(app): Shared, id: Parameter) -> Answer<Response> {
    let job = app.store.get(&id)?;
    let state = match app.queue.cancel(&job) {
        true => "cancelled",
        false => {
            app.store.remove(&id);
            job.phase().name()
        }
    };
    Ok(json_response(StatusCode::OK, &gone(&id, state)))
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct After {
    after: Option<u64>,
}

pub(crate) async fn events(State(app): Shared, id: Parameter, headers: HeaderMap, uri: Uri) -> Answer<Response> {
    let job = app.store.get(&id)?;
    let seen = events::last_seen(&headers, query::<After>(&uri)?.after)?;
    Ok(events::of_job(job, seen, events::place(&app)?, None))
}
