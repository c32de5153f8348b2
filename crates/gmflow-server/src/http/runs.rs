//! Training runs.

use super::{App, Parameter, Shared, blocking, events, json_response, query, set, typed};
use crate::refusal::{Answer, Refusal};
use crate::runs::{Curve, Part, Run, Runs};
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use axum::response::sse::Event;
use futures_util::stream::unfold;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, watch};

/// Bytes of a log that are answered at the most, and where nothing is said.
const MOST_BYTES: usize = 1 << 20;
/// Lines of a curve at the most, and where nothing is said.
const MOST_POINTS: usize = 10_000;
const POINTS: usize = 1000;
/// How often a run is looked at for a stream.
const LOOK: Duration = Duration::from_millis(500);

fn runs(app: &App) -> Answer<Arc<Runs>> {
    app.runs.clone().ok_or_else(|| Refusal::not_found("no runs: the server was started without --runs"))
}

/// Does something with a run, on a thread for files.
async fn with_run<T: Send + 'static>(
    app: &App,
    id: String,
    work: impl FnOnce(Run) -> Answer<T> + Send + 'static,
) -> Answer<T> {
    let runs = runs(app)?;
    blocking(move || work(runs.find(&id)?)).await
}

pub(crate) async fn list(State(app): Shared) -> Answer<Response> {
    let told = match &app.runs {
        None => Vec::new(),
        Some(runs) => {
            let runs = Arc::clone(runs);
            blocking(move || Ok(runs.list().iter().map(Run::describe).collect::<Vec<Value>>())).await?
        }
    };
    Ok(json_response(StatusCode::OK, &json!({ "runs": told })))
}

pub(crate) async fn show(State(app): Shared, Path(id): Parameter) -> Answer<Response> {
    let told = with_run(&app, id, |run| Ok(run.show())).await?;
    Ok(json_response(StatusCode::OK, &told))
}

pub(crate) async fn sweeps(State(app): Shared) -> Answer<Response> {
    let told = match app.runs.clone() {
        None => json!({ "sweeps": [] }),
        Some(runs) => blocking(move || Ok(runs.sweeps())).await?,
    };
    Ok(json_response(StatusCode::OK, &told))
}

pub(crate) async fn sweep(State(app): Shared, Path(id): Parameter) -> Answer<Response> {
    let runs = runs(&app)?;
    let told = blocking(move || runs.sweep(&id)).await?;
    Ok(json_response(StatusCode::OK, &told))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Wanted {
    after: u64,
    max: usize,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { after: 0, max: MOST_BYTES }
    }
}

pub(crate) async fn log(State(app): Shared, Path(id): Parameter, uri: Uri) -> Answer<Response> {
    let Wanted { after, max } = query(&uri)?;
    if !(1..=MOST_BYTES).contains(&max) {
        return Err(Refusal::field("max", format!("1 to {MOST_BYTES}"), max));
    }
    let Part { bytes, next, size, restarted } = with_run(&app, id, move |run| run.log().read(after, max)).await?;
    let mut response = typed("application/x-ndjson", bytes);
    set(&mut response, "x-next", &next.to_string());
    set(&mut response, "x-size", &size.to_string());
    if restarted {
        set(&mut response, "x-restarted", "true");
    }
    Ok(response)
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Points {
    points: usize,
}

impl Default for Points {
    fn default() -> Self {
        Self { points: POINTS }
    }
}

pub(crate) async fn curve(State(app): Shared, Path(id): Parameter, uri: Uri) -> Answer<Response> {
    let Points { points } = query(&uri)?;
    if !(1..=MOST_POINTS).contains(&points) {
        return Err(Refusal::field("points", format!("1 to {MOST_POINTS}"), points));
    }
    let Curve { lines, next, size } = with_run(&app, id, move |run| run.log().curve(points)).await?;
    Ok(json_response(StatusCode::OK, &json!({ "size": size, "next": next, "lines": lines })))
}

/// What is told of a picture.
fn picture_of(run: &Run, picture: &crate::runs::TrainingPicture) -> Value {
    let url = format!("/v1/runs/{}/pictures/{}", run.id, picture.name);
    json!({ "step": picture.step, "url": url, "updated": picture.updated })
}

pub(crate) async fn pictures(State(app): Shared, Path(id): Parameter) -> Answer<Response> {
    let told = with_run(&app, id, |run| {
        let told: Vec<Value> = run.pictures().iter().map(|picture| picture_of(&run, picture)).collect();
        Ok(json!({ "pictures": told }))
    });
    Ok(json_response(StatusCode::OK, &told.await?))
}

pub(crate) async fn picture(State(app): Shared, Path((id, file)): Path<(String, String)>) -> Answer<Response> {
    let png = with_run(&app, id, move |run| run.picture(&file)).await?;
    let mut response = typed("image/png", png);
    set(&mut response, "cache-control", "private, max-age=60");
    Ok(response)
}

/// What a stream of a run's events carries along.
struct Following {
    run: Run,
    next: u64,
    pictures: Vec<(String, f64)>,
    checkpoints: Vec<String>,
    state: Value,
    ready: VecDeque<Event>,
    first: bool,
    ending: watch::Receiver<bool>,
    _place: OwnedSemaphorePermit,
}

/// What is new of a run since the last look.
struct News {
    part: Part,
    pictures: Vec<(String, f64)>,
    told_pictures: Vec<Value>,
    checkpoints: Vec<String>,
    state: Value,
}

impl Following {
    /// Looks at the run, and makes events of what is new.
    async fn look(&mut self) {
        let (run, next, known) = (self.run.clone(), self.next, self.pictures.clone());
        let looked = blocking(move || {
            let part = run.log().read(next, MOST_BYTES)?;
            let pictures = run.pictures();
            let new = pictures.iter().filter(|new| !known.contains(&(new.name.clone(), new.updated)));
            Ok(News {
                told_pictures: new.map(|picture| picture_of(&run, picture)).collect(),
                pictures: pictures.iter().map(|picture| (picture.name.clone(), picture.updated)).collect(),
                checkpoints: run.checkpoints(),
                state: run.state(),
                part,
            })
        });
        // A run that was removed says no more.
        let Ok(News { part, pictures, told_pictures, checkpoints, state }) = looked.await else { return };
        let lines: Vec<Value> =
            part.bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
        if !lines.is_empty() || part.restarted {
            let told = json!({ "next": part.next, "restarted": part.restarted, "lines": lines });
            self.ready.push_back(events::event(Some(part.next), "log", &told));
        }
        self.next = part.next;
        if !self.first {
            self.ready.extend(told_pictures.iter().map(|picture| events::event(None, "picture", picture)));
            let new = checkpoints.iter().filter(|name| !self.checkpoints.contains(name));
            self.ready.extend(new.map(|name| events::event(None, "checkpoint", &json!({ "name": name }))));
        }
        let told = |state: &Value| [state["state"].clone(), state["alerts"].clone()];
        if told(&state) != told(&self.state) {
            self.ready.push_back(events::event(None, "state", &state));
        }
        (self.pictures, self.checkpoints, self.state, self.first) = (pictures, checkpoints, state, false);
    }
}

pub(crate) async fn events(
    State(app): Shared,
    Path(id): Parameter,
    headers: HeaderMap,
    uri: Uri,
) -> Answer<Response> {
    let Wanted { after, .. } = query(&uri)?;
    let next = events::last_seen(&headers, Some(after))?;
    let run = with_run(&app, id, Ok).await?;
    let start = Following {
        run,
        next,
        pictures: Vec::new(),
        checkpoints: Vec::new(),
        state: Value::Null,
        ready: VecDeque::new(),
        first: true,
        ending: app.ending.subscribe(),
        _place: events::place(&app)?,
    };
    Ok(events::answer(unfold(start, |mut following| async move {
        loop {
            if let Some(event) = following.ready.pop_front() {
                return Some((Ok(event), following));
            }
            if *following.ending.borrow() {
                return None;
            }
            if !following.first {
                let _ = tokio::time::timeout(LOOK, following.ending.wait_for(|ending| *ending)).await;
            }
            following.look().await;
        }
    })))
}
