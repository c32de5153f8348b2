//! Routes, and what all of them have in common.

pub(crate) mod connections;
mod events;
mod guard;
mod jobs;
mod openai;
mod page;
mod pictures;
mod runs;
mod samples;

use crate::config::ServerConfig;
use crate::jobs::{Planner, Queue, Store, read_body};
use crate::metrics::Metrics;
use crate::models::Registry;
use crate::refusal::{Answer, Refusal};
use crate::response::{json_response, set, text, typed};
use crate::runs::Runs;
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde_json::{Map, Value, json};
use std::sync::Arc;
use tokio::sync::{Semaphore, watch};
use tower_http::cors::{AllowOrigin, CorsLayer};

/// The description of the API for programs; `VERSION` stands for the program's own.
const OPENAPI: &str = include_str!("../openapi.json");

/// What the routes share.
pub(crate) struct App {
    pub config: ServerConfig,
    pub planner: Planner,
    pub queue: Arc<Queue>,
    pub store: Store,
    pub registry: Arc<Registry>,
    pub runs: Option<Arc<Runs>>,
    pub metrics: Arc<Metrics>,
    pub streams: Arc<Semaphore>,
    /// Whether the server shuts down.
    pub ending: watch::Sender<bool>,
}

pub(crate) type Shared = State<Arc<App>>;

/// All routes.
pub(crate) fn router(app: &Arc<App>) -> Router {
    let routes = Router::new()
        .route("/", get(page::index))
        .route("/page/{*path}", get(page::file))
        .route("/healthz", get(|| async { text(StatusCode::OK, "ok") }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/openapi.json", get(openapi))
        .route("/v1/models", get(models))
        .route("/v1/models/{id}", get(model))
        .route("/v1/queue", get(queue))
        .route("/v1/samples", post(samples::draw))
        .route("/v1/jobs", post(jobs::submit))
        .route("/v1/jobs/{id}", get(jobs::show).delete(jobs::cancel))
        .route("/v1/jobs/{id}/events", get(jobs::events))
        .route("/v1/jobs/{id}/grid.png", get(pictures::grid))
        .route("/v1/jobs/{id}/samples.npz", get(pictures::npz))
        .route("/v1/jobs/{id}/samples/{file}", get(pictures::sample))
        .route("/v1/jobs/{id}/steps/{step}/points", get(pictures::points))
        .route("/v1/jobs/{id}/steps/{step}/density", get(pictures::density))
        .route("/v1/jobs/{id}/steps/{step}/{sample}/pixel", get(pictures::pixel))
        .route("/v1/jobs/{id}/steps/{step}/{sample}/{file}", get(pictures::step))
        .route("/v1/images/generations", post(openai::generate))
        .route("/v1/runs", get(runs::list))
        .route("/v1/runs/{id}", get(runs::show))
        .route("/v1/runs/{id}/log", get(runs::log))
        .route("/v1/runs/{id}/curve", get(runs::curve))
        .route("/v1/runs/{id}/pictures", get(runs::pictures))
        .route("/v1/runs/{id}/pictures/{file}", get(runs::picture))
        .route("/v1/runs/{id}/events", get(runs::events))
        .route("/v1/sweeps", get(runs::sweeps))
        .route("/v1/sweeps/{id}", get(runs::sweep))
        .fallback(|| async { Refusal::not_found("there is no such route: /openapi.json lists them") })
        .method_not_allowed_fallback(|| async {
            Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", "this route does not have this method")
        })
        .with_state(Arc::clone(app))
        .layer(axum::middleware::from_fn(guard::refused));
    let routes = match cors(&app.config) {
        Some(cors) => routes.layer(cors),
        None => routes,
    };
    let guarded = Arc::clone(app);
    routes.layer(axum::middleware::from_fn_with_state(guarded, guard::guard))
}

/// What pages of other origins may do, where any of them may.
fn cors(config: &ServerConfig) -> Option<CorsLayer> {
    let origins: Vec<HeaderValue> = config.origins.iter().filter_map(|origin| origin.parse().ok()).collect();
    (!origins.is_empty()).then(|| {
        let exposed = [
            "x-request-id",
            "x-gmflow-job",
            "x-gmflow-seeds",
            "x-gmflow-timing",
            "x-next",
            "x-size",
            "x-restarted",
            "location",
            "retry-after",
        ];
        let last = HeaderName::from_static("last-event-id");
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins))
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            .allow_headers([header::AUTHORIZATION, header::CONTENT_TYPE, header::ACCEPT, last])
            .expose_headers(exposed.map(HeaderName::from_static))
    })
}

async fn readyz(State(app): Shared) -> Response {
    if app.queue.is_draining() {
        return Refusal::draining().into_response();
    }
    if !app.registry.is_ready() {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        return Refusal::new(status, "loading", "models are being loaded").after(1).into_response();
    }
    text(StatusCode::OK, "ready")
}

async fn metrics(State(app): Shared) -> Response {
    let body = app.metrics.text(app.registry.loaded());
    typed("application/openmetrics-text; version=1.0.0; charset=utf-8", body)
}

async fn openapi() -> Response {
    typed("application/json", OPENAPI.replace("VERSION", env!("CARGO_PKG_VERSION")))
}

async fn models(State(app): Shared) -> Answer<Response> {
    let registry = Arc::clone(&app.registry);
    let told = blocking(move || Ok(registry.describe())).await?;
    Ok(json_response(StatusCode::OK, &told))
}

async fn model(State(app): Shared, id: Parameter) -> Answer<Response> {
    let registry = Arc::clone(&app.registry);
    let told = blocking(move || Ok(registry.describe())).await?;
    let found = told["data"].as_array().into_iter().flatten().find(|model| model["id"] == id.0);
    match found {
        Some(model) => Ok(json_response(StatusCode::OK, model)),
        None => Err(Refusal::not_found(format!("no model {}", id.0))),
    }
}

async fn queue(State(app): Shared) -> Response {
    json_response(StatusCode::OK, &app.queue.describe())
}

/// The parameter of a path.
pub(crate) type Parameter = axum::extract::Path<String>;

/// The text of a query as what the caller needs; unknown names, and names that stand twice, are refused.
pub(crate) fn query<T: serde::de::DeserializeOwned>(uri: &axum::http::Uri) -> Answer<T> {
    let given = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri).map(|given| given.0);
    let given =
        given.map_err(|_| Refusal::field("query", "NAME=VALUE, with & between them", uri.query().unwrap_or("")))?;
    let mut fields = Map::new();
    for (name, text) in given {
        let value = match serde_json::from_str::<Value>(&text) {
            Ok(number @ Value::Number(_)) => number,
            _ => Value::String(text),
        };
        if fields.insert(name.clone(), value).is_some() {
            return Err(Refusal::field(name, "one value", "two"));
        }
    }
    read_body(fields)
}

/// The body of a request.
pub(crate) async fn body(app: &App, body: Body) -> Answer<Bytes> {
    let (most, time) = (app.config.limits.body, app.config.limits.body_time);
    let read = tokio::time::timeout(time, to_bytes(body, most)).await;
    let slow = |_| {
        let message = format!("the body did not come within {} s", time.as_secs_f64());
        Refusal::new(StatusCode::REQUEST_TIMEOUT, "timeout", message)
    };
    read.map_err(slow)?.map_err(|error| {
        let too_long = std::error::Error::source(&error).is_some_and(|cause| cause.to_string().contains("limit"));
        match too_long {
            true => large_body(most),
            false => Refusal::new(StatusCode::BAD_REQUEST, "invalid_body", "the body is cut short"),
        }
    })
}

/// The refusal of a body of more bytes than are taken.
pub(crate) fn large_body(most: usize) -> Refusal {
    Refusal::too_large("body", format!("at most {most} bytes"), "more")
}

/// Does work that takes a thread.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Answer<T> + Send + 'static) -> Answer<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(error) => {
            log::error!("an answer failed: {error}");
            Err(Refusal::failed("the answer failed; the log has more"))
        }
    }
}

/// The object that says that a job is gone.
pub(crate) fn gone(id: &str, state: &str) -> Value {
    json!({ "id": id, "state": state })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_description_has_every_field_once() {
        for field in ["guidance_interval", "orthogonal", "reweight_by", "renoise", "partial_images"] {
            assert_eq!(OPENAPI.matches(&format!("\"{field}\"")).count(), 1, "{field}");
        }
    }

    #[test]
    fn the_description_and_the_book_have_every_route() {
        let routes = include_str!("mod.rs").split(".route(\"").skip(1).filter_map(|rest| rest.split('"').next());
        let routes: BTreeSet<String> = routes.map(|route| route.replace("{*path}", "{path}")).collect();
        let described: Value = serde_json::from_str(OPENAPI).expect("JSON");
        let paths = described["paths"].as_object().expect("paths");
        assert_eq!(paths.keys().cloned().collect::<BTreeSet<_>>(), routes);
        let page = include_str!("../../../../book/src/http-api.md");
        for route in routes.iter().filter(|route| !route.contains("{file}") && !route.starts_with("/page/")) {
            let said = route.replace("{step}", "{s}").replace("{sample}", "{i}");
            assert!(page.contains(&said), "{said}");
        }
    }
}
