//! `POST /v1/images/generations`: the request of OpenAI's clients, whose prompt is the name of a class.

use super::events::{self, CancelWithClient};
use super::samples::completed;
use super::{App, Shared, blocking, body, json_response, set};
use crate::jobs::{Answering, Job, Phase, SampleBody, StepTrace, read_body, read_object};
use crate::refusal::{Answer, Refusal};
use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use axum::response::sse::Event;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream::unfold;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::OwnedSemaphorePermit;

/// Images of a request, and partial images of a stream, at the most.
const MOST_IMAGES: u64 = 10;
const MOST_PARTIAL: usize = 3;

/// The fields of OpenAI's request. Those beside them are the fields of a request for samples.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Generation {
    prompt: Option<String>,
    size: Option<String>,
    response_format: Option<String>,
    stream: Option<bool>,
    partial_images: Option<usize>,
    background: Option<String>,
    moderation: Option<String>,
    output_compression: Option<u8>,
    output_format: Option<String>,
    quality: Option<String>,
    style: Option<String>,
    user: Option<String>,
}

/// The names of these fields.
const OWN: [&str; 12] = [
    "prompt",
    "size",
    "response_format",
    "stream",
    "partial_images",
    "background",
    "moderation",
    "output_compression",
    "output_format",
    "quality",
    "style",
    "user",
];

/// A request that is understood.
struct Asked {
    /// Pictures by URL in place of their bytes.
    urls: bool,
    stream: bool,
    partial: usize,
    size: Option<String>,
    /// The request for samples.
    fields: Map<String, Value>,
}

fn asked(mut fields: Map<String, Value>) -> Answer<Asked> {
    let own: Map<String, Value> =
        OWN.iter().filter_map(|name| Some(((*name).to_owned(), fields.remove(*name)?))).collect();
    let generation: Generation = read_body(own)?;
    for name in ["class", "classes", "trace"] {
        if let Some(value) = fields.get(name) {
            return Err(Refusal::field(name, "prompt, the name of a class, in its place", value));
        }
    }
    let urls = match generation.response_format.as_deref() {
        None | Some("b64_json") => false,
        Some("url") => true,
        Some(other) => return Err(Refusal::field("response_format", "b64_json or url", other)),
    };
    if let Some(other) = generation.output_format.filter(|format| format != "png") {
        return Err(Refusal::field("output_format", "png", other));
    }
    let partial = generation.partial_images.unwrap_or(0);
    if partial > MOST_PARTIAL {
        return Err(Refusal::field("partial_images", format!("0 to {MOST_PARTIAL}"), partial));
    }
    let body: SampleBody = read_body(fields.clone())?;
    let count = body.n.unwrap_or(1).max(body.seeds.map_or(0, |seeds| seeds.len() as u64));
    if !(1..=MOST_IMAGES).contains(&count) {
        return Err(Refusal::field("n", format!("1 to {MOST_IMAGES}"), count));
    }
    if let Some(prompt) = generation.prompt.filter(|prompt| !prompt.trim().is_empty()) {
        fields.insert("class".into(), json!(prompt.trim()));
    }
    let stream = generation.stream.unwrap_or(false);
    if stream && partial > 0 {
        fields.insert("trace".into(), json!({ "every": 1, "planes": ["x0"] }));
    } else {
        fields.insert("trace".into(), json!({ "every": 1, "planes": [] }));
    }
    Ok(Asked { urls, stream, partial, size: generation.size, fields })
}

pub(crate) async fn generate(State(app): Shared, sent: Body) -> Answer<Response> {
    let Asked { urls, stream, partial, size, fields } = asked(read_object(&body(&app, sent).await?)?)?;
    let has_prompt = fields.contains_key("class");
    let plan = app.planner.plan(fields, Answering::Followed).map_err(|refusal| match refusal.wrong {
        // The client knows the class as its prompt.
        Some(mut wrong) if has_prompt && wrong.field == "class" => {
            wrong.field = "prompt".into();
            Refusal::from(*wrong)
        }
        wrong => Refusal { wrong, ..refusal },
    })?;
    if plan.entry.is_points() {
        return Err(Refusal::field("model", "a model of images", "one of points"));
    }
    let [h, w] = plan.entry.image_size();
    let own = format!("{w}x{h}");
    if let Some(other) = size.filter(|size| *size != own && size != "auto") {
        return Err(Refusal::field("size", format!("{own} or auto"), other));
    }
    let place = if stream { Some(events::place(&app)?) } else { None };
    let job = app.queue.submit(plan, stream || urls)?;
    let client = CancelWithClient { queue: Arc::clone(&app.queue), job: Arc::clone(&job) };
    if let Some(place) = place {
        return Ok(streamed(job, client, place, (partial, own)));
    }
    completed(&app, &job).await?;
    drop(client);
    if urls {
        app.store.insert(&job);
    }
    answered(&app, job, urls, own).await
}

async fn answered(_: &App, job: Arc<Job>, urls: bool, size: String) -> Answer<Response> {
    let told = blocking(move || {
        let samples = job.result().ok_or_else(|| Refusal::failed("the samples are gone"))?;
        let data = (0..samples.len()).map(|index| {
            let seed = samples.seeds.get(index).map(u64::to_string);
            Ok(match urls {
                true => json!({ "url": job.url(&format!("/samples/{index}.png")), "seed": seed }),
                false => json!({ "b64_json": STANDARD.encode(samples.image_png(index)?), "seed": seed }),
            })
        });
        let data = data.collect::<Answer<Vec<Value>>>()?;
        Ok(json!({
            "created": now(), "data": data, "output_format": "png", "size": size, "background": "opaque",
            "quality": "auto", "usage": usage(),
        }))
    });
    Ok(json_response(StatusCode::OK, &told.await?))
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// There are no tokens here, and clients want to read numbers of them.
fn usage() -> Value {
    json!({
        "input_tokens": 0, "output_tokens": 0, "total_tokens": 0,
        "input_tokens_details": { "text_tokens": 0, "image_tokens": 0 },
    })
}

/// What a stream carries along.
struct Streaming {
    job: Arc<Job>,
    seen: usize,
    /// The steps that are shown, the first one first.
    shown: VecDeque<usize>,
    partial: usize,
    size: String,
    ready: VecDeque<Event>,
    ended: bool,
    _client: CancelWithClient,
    _place: OwnedSemaphorePermit,
}

fn streamed(
    job: Arc<Job>,
    client: CancelWithClient,
    place: OwnedSemaphorePermit,
    (partial, size): (usize, String),
) -> Response {
    let steps = job.plan.steps();
    // Evenly spread, the first one early.
    let mut shown: VecDeque<usize> = (0..partial).map(|index| index * steps / partial.max(1)).collect();
    shown.make_contiguous().sort_unstable();
    let id = job.id.clone();
    let start = Streaming {
        job,
        seen: 0,
        shown,
        partial: 0,
        size,
        ready: VecDeque::new(),
        ended: false,
        _client: client,
        _place: place,
    };
    let mut response = events::answer(unfold(start, |mut streaming| async move {
        loop {
            if let Some(event) = streaming.ready.pop_front() {
                return Some((Ok(event), streaming));
            }
            if streaming.ended {
                return None;
            }
            streaming.job.news(streaming.seen).await;
            let (events, ended) = streaming.job.events(streaming.seen);
            (streaming.seen, streaming.ended) = (streaming.seen + events.len(), ended);
            streaming.show_steps().await;
            if ended {
                streaming.show_end().await;
            }
        }
    }));
    set(&mut response, "x-gmflow-job", &id);
    response
}

impl Streaming {
    /// What every event says.
    fn event(&self, kind: &'static str, fields: Value) -> Event {
        let mut data = json!({
            "type": kind, "created_at": now(), "size": self.size, "quality": "auto", "background": "opaque",
            "output_format": "png",
        });
        for (name, value) in fields.as_object().into_iter().flatten() {
            data[name] = value.clone();
        }
        events::event(None, kind, &data)
    }

    /// Adds the pictures of steps that are done.
    async fn show_steps(&mut self) {
        while let Some(step) = self.shown.front().copied() {
            let Some(trace) = self.job.traced(step, 0) else { return };
            self.shown.pop_front();
            let encode = move |trace: Arc<StepTrace>| Ok(STANDARD.encode(trace.picture("x0", 0)?.to_png(&[])?));
            if let Ok(png) = blocking(move || encode(trace)).await {
                let fields = json!({ "b64_json": png, "partial_image_index": self.partial });
                self.ready.push_back(self.event("image_generation.partial_image", fields));
                self.partial += 1;
            }
        }
    }

    /// Adds the images, or why there are none.
    async fn show_end(&mut self) {
        let refusal = match (self.job.phase(), self.job.result()) {
            (Phase::Completed, Some(samples)) => {
                let encoded = blocking(move || {
                    let each = (0..samples.len()).map(|index| {
                        let seed = samples.seeds.get(index).map(u64::to_string);
                        Ok((STANDARD.encode(samples.image_png(index)?), seed))
                    });
                    each.collect::<Answer<Vec<_>>>()
                });
                match encoded.await {
                    Ok(images) => {
                        for (png, seed) in images {
                            let fields = json!({ "b64_json": png, "seed": seed, "usage": usage() });
                            self.ready.push_back(self.event("image_generation.completed", fields));
                        }
                        return;
                    }
                    Err(refusal) => refusal,
                }
            }
            (Phase::Failed(refusal), _) => refusal,
            _ => Refusal::draining(),
        };
        self.ready.push_back(events::event(None, "error", &json!({ "type": "error", "error": refusal.body() })));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn understood(text: &str) -> Answer<Asked> {
        asked(read_object(text.as_bytes())?)
    }

    #[test]
    fn a_prompt_is_a_class() {
        let asked = understood(r#"{"prompt": " 7 ", "model": "mnist", "n": 2, "quality": "auto"}"#).unwrap();
        assert_eq!(asked.fields["class"], "7");
        assert_eq!((asked.urls, asked.stream, asked.partial), (false, false, 0));
        assert!(!understood(r#"{"prompt": ""}"#).unwrap().fields.contains_key("class"));
    }

    #[test]
    fn what_cannot_be_done_is_named() {
        for (text, field) in [
            (r#"{"n": 11}"#, "n"),
            (r#"{"n": 0}"#, "n"),
            (r#"{"response_format": "jpeg"}"#, "response_format"),
            (r#"{"output_format": "webp"}"#, "output_format"),
            (r#"{"partial_images": 4}"#, "partial_images"),
            (r#"{"class": "7"}"#, "class"),
            (r#"{"prompt": 7}"#, "prompt"),
            (r#"{"promt": "7"}"#, "promt"),
        ] {
            let refusal = understood(text).err().expect(text);
            assert_eq!(refusal.wrong.expect(text).field, field, "{text}");
        }
    }
}
