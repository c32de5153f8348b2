//! `POST /v1/samples`: samples at once, or as a stream.

use super::events::{self, CancelWithClient};
use super::{App, Shared, blocking, body, json_response, set, typed};
use crate::jobs::{Answering, Job, Phase, grid, npz, read_object, samples_inline};
use crate::refusal::{Answer, Refusal};
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::Response;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Seeds that a header lists at the most.
const SEEDS: usize = 64;

/// The forms of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Json,
    Grid,
    Npz,
}

pub(crate) async fn draw(State(app): Shared, headers: HeaderMap, sent: Body) -> Answer<Response> {
    let fields = read_object(&body(&app, sent).await?)?;
    if streams(&fields)? {
        return stream(&app, fields);
    }
    let form = form(&headers)?;
    let plan = app.planner.plan(fields, Answering::Plain)?;
    if plan.entry.is_points() && form == Form::Grid {
        return Err(not_acceptable("application/json or application/x-npz for points"));
    }
    let job = app.queue.submit(plan, false)?;
    let client = CancelWithClient { queue: Arc::clone(&app.queue), job: Arc::clone(&job) };
    completed(&app, &job).await?;
    drop(client);
    let answered = Arc::clone(&job);
    blocking(move || in_form(&answered, form)).await
}

/// Whether a request asks for a stream.
pub(crate) fn streams(fields: &Map<String, Value>) -> Answer<bool> {
    match fields.get("stream") {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(stream)) => Ok(*stream),
        Some(other) => Err(Refusal::field("stream", "true or false", other)),
    }
}

/// Waits for a job as long as a request may take.
pub(crate) async fn completed(app: &App, job: &Arc<Job>) -> Answer<()> {
    let limit = app.config.limits.time;
    match tokio::time::timeout(limit, job.ended()).await {
        Ok(Phase::Completed) => Ok(()),
        Ok(Phase::Failed(refusal)) => Err(refusal),
        // Nobody else cancels a plain request but the end of the server.
        Ok(_) => Err(Refusal::draining()),
        Err(_) => {
            let message = format!("the samples took longer than {} s", limit.as_secs());
            Err(Refusal::new(StatusCode::GATEWAY_TIMEOUT, "timeout", message))
        }
    }
}

fn stream(app: &Arc<App>, fields: Map<String, Value>) -> Answer<Response> {
    let place = events::place(app)?;
    let plan = app.planner.plan(fields, Answering::Followed)?;
    let job = app.queue.submit(plan, true)?;
    app.store.insert(&job);
    let client = CancelWithClient { queue: Arc::clone(&app.queue), job: Arc::clone(&job) };
    let id = job.id.clone();
    let mut response = events::of_job(job, 0, place, Some(client));
    set(&mut response, "x-gmflow-job", &id);
    Ok(response)
}

fn not_acceptable(expected: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", format!("Accept: expected {expected}"))
}

/// The form that a client wants most of those that there are; forms without a weight come before those with a lower one.
fn form(headers: &HeaderMap) -> Answer<Form> {
    let listed: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect();
    let listed = listed.join(",");
    if listed.trim().is_empty() {
        return Ok(Form::Json);
    }
    let mut best: Option<(f32, Form)> = None;
    for entry in listed.split(',') {
        let mut parts = entry.split(';').map(str::trim);
        let form = match parts.next().unwrap_or_default().to_ascii_lowercase().as_str() {
            "*/*" | "application/*" | "application/json" => Form::Json,
            "image/*" | "image/png" => Form::Grid,
            "application/x-npz" => Form::Npz,
            _ => continue,
        };
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok()).unwrap_or(1.0);
        if weight > 0.0 && best.is_none_or(|(most, _)| weight > most) {
            best = Some((weight, form));
        }
    }
    best.map(|(_, form)| form).ok_or_else(|| not_acceptable("application/json, image/png or application/x-npz"))
}

/// The answer of a completed job.
fn in_form(job: &Job, form: Form) -> Answer<Response> {
    let samples = job.result().ok_or_else(|| Refusal::failed("the samples are gone"))?;
    let timing = job.timing();
    let mut response = match form {
        Form::Json => {
            let told = json!({
                "id": job.id, "model": job.plan.entry.id, "sampler": job.plan.sampler,
                "samples": samples_inline(job, &samples)?, "timing": timing,
            });
            json_response(StatusCode::OK, &told)
        }
        Form::Grid => typed("image/png", grid(&samples)?),
        Form::Npz => typed("application/x-npz", npz(&samples)?),
    };
    let seeds: Vec<String> = job.plan.seeds.iter().take(SEEDS).map(u64::to_string).collect();
    set(&mut response, "x-gmflow-job", &job.id);
    set(&mut response, "x-gmflow-seeds", &seeds.join(","));
    set(&mut response, "x-gmflow-timing", &timing.to_string());
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_what_the_client_wants_most() {
        let form = |accept: &str| form(&HeaderMap::from_iter([(header::ACCEPT, accept.parse().unwrap())]));
        assert_eq!(form("*/*").unwrap(), Form::Json);
        assert_eq!(form("image/png").unwrap(), Form::Grid);
        assert_eq!(form("text/html, image/png;q=0.5, application/x-npz;q=0.9").unwrap(), Form::Npz);
        assert_eq!(form("application/json;q=0, image/*").unwrap(), Form::Grid);
        assert_eq!(form("text/html").unwrap_err().status.as_u16(), 406);
        assert_eq!(super::form(&HeaderMap::new()).unwrap(), Form::Json);
    }
}
