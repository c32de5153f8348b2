//! Pictures of jobs, and what is inside them.

use super::{Shared, blocking, json_response, query, typed};
use crate::jobs::{self, Job, Phase, StepTrace};
use crate::refusal::{Answer, Refusal};
use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::response::Response;
use gmflow::samples::Samples;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Points that are listed, and samples that a density is the mean of, at the most.
const POINTS: usize = 4096;
const MIXTURES: usize = 256;
/// Bins of a density to a side at the most.
const BINS: usize = 128;
/// A picture does not change.
const KEPT: &str = "private, max-age=600, immutable";

fn result(job: &Job) -> Answer<Arc<Samples>> {
    job.result().ok_or_else(|| {
        let message = format!("{} is {}: there are samples once it is completed", job.id, job.phase().name());
        Refusal::new(StatusCode::CONFLICT, "not_completed", message)
    })
}

fn kept(mut response: Response) -> Response {
    super::set(&mut response, "cache-control", KEPT);
    response
}

/// A number in a path.
fn number(text: &str, what: &str) -> Answer<usize> {
    text.parse().map_err(|_| Refusal::not_found(format!("no {what} {text}")))
}

/// The part of a file's name before `.png`.
fn stem(file: &str) -> Answer<&str> {
    file.strip_suffix(".png").ok_or_else(|| Refusal::not_found(format!("no file {file}: pictures end in .png")))
}

pub(crate) async fn sample(State(app): Shared, Path((id, file)): Path<(String, String)>) -> Answer<Response> {
    let job = app.store.get(&id)?;
    let index = number(stem(&file)?, "sample")?;
    let samples = result(&job)?;
    Ok(kept(typed("image/png", blocking(move || jobs::image(&samples, index)).await?)))
}

pub(crate) async fn grid(State(app): Shared, Path(id): Path<String>) -> Answer<Response> {
    let samples = result(&*app.store.get(&id)?)?;
    Ok(kept(typed("image/png", blocking(move || jobs::grid(&samples)).await?)))
}

pub(crate) async fn npz(State(app): Shared, Path(id): Path<String>) -> Answer<Response> {
    let samples = result(&*app.store.get(&id)?)?;
    Ok(kept(typed("application/x-npz", blocking(move || jobs::npz(&samples)).await?)))
}

/// The trace of a step, or what there is instead.
fn traced(job: &Job, step: usize, sample: usize) -> Answer<Arc<StepTrace>> {
    let count = job.plan.seeds.len();
    if sample >= count {
        return Err(Refusal::not_found(format!("no sample {sample}: there are {count}")));
    }
    job.traced(step, sample).ok_or_else(|| not_traced(job, step))
}

fn not_traced(job: &Job, step: usize) -> Refusal {
    let traced = job.describe(0.0)["traced"].to_string();
    match job.phase() {
        Phase::Queued | Phase::Running => Refusal::not_found(format!("no step {step} yet: there are {traced}")),
        _ => Refusal::not_found(format!("no step {step}: those that were traced are {traced}")),
    }
}

pub(crate) async fn step(
    State(app): Shared,
    Path((id, step, sample, file)): Path<(String, String, String, String)>,
) -> Answer<Response> {
    let job = app.store.get(&id)?;
    let (step, sample) = (number(&step, "step")?, number(&sample, "sample")?);
    let name = stem(&file)?.to_owned();
    let trace = traced(&job, step, sample)?;
    let png = blocking(move || Ok(trace.picture(&name, sample)?.to_png(&[])?)).await?;
    Ok(kept(typed("image/png", png)))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct At {
    x: usize,
    y: usize,
}

pub(crate) async fn pixel(
    State(app): Shared,
    Path((id, step, sample)): Path<(String, String, String)>,
    uri: Uri,
) -> Answer<Response> {
    let job = app.store.get(&id)?;
    let (step, sample) = (number(&step, "step")?, number(&sample, "sample")?);
    let At { x, y } = query(&uri)?;
    let trace = traced(&job, step, sample)?;
    Ok(json_response(StatusCode::OK, &trace.pixel(sample, [x, y])?))
}

/// The traces of a step of a model of points.
fn of_points(job: &Job, step: &str) -> Answer<Vec<Arc<StepTrace>>> {
    if !job.plan.entry.is_points() {
        return Err(Refusal::not_found("the samples are images and no points"));
    }
    let step = number(step, "step")?;
    match job.traces(step) {
        traces if traces.is_empty() => Err(not_traced(job, step)),
        traces => Ok(traces),
    }
}

pub(crate) async fn points(State(app): Shared, Path((id, step)): Path<(String, String)>) -> Answer<Response> {
    let traces = of_points(&*app.store.get(&id)?, &step)?;
    let told = blocking(move || Ok(points_of(&traces))).await?;
    Ok(json_response(StatusCode::OK, &told))
}

fn points_of(traces: &[Arc<StepTrace>]) -> Value {
    let list = |plane: &dyn Fn(&StepTrace) -> &[f32]| -> Vec<[f32; 2]> {
        let points = traces.iter().flat_map(|trace| plane(trace).as_chunks::<2>().0.to_vec());
        points.take(POINTS).collect()
    };
    let (x, x0) = (
        list(&|trace| trace.x.as_deref().unwrap_or_default()),
        list(&|trace| trace.x0.as_deref().unwrap_or_default()),
    );
    json!({ "step": traces.first().map(|trace| trace.step), "t": traces.first().map(|trace| trace.t), "x": x, "x0": x0 })
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Field {
    bins: usize,
    range: f64,
    sample: Option<usize>,
}

impl Default for Field {
    fn default() -> Self {
        Self { bins: 64, range: 4.0, sample: None }
    }
}

pub(crate) async fn density(
    State(app): Shared,
    Path((id, step)): Path<(String, String)>,
    uri: Uri,
) -> Answer<Response> {
    let job = app.store.get(&id)?;
    let field: Field = query(&uri)?;
    if !(1..=BINS).contains(&field.bins) {
        return Err(Refusal::field("bins", format!("1 to {BINS}"), field.bins));
    }
    if !(field.range > 0.0 && field.range.is_finite()) {
        return Err(Refusal::field("range", "a positive number", field.range));
    }
    let traces = match field.sample {
        Some(sample) => {
            let all = of_points(&job, &step)?;
            let of_sample = all.into_iter().find(|trace| trace.samples().contains(&sample));
            vec![of_sample.ok_or_else(|| Refusal::not_found(format!("no sample {sample}")))?]
        }
        None => of_points(&job, &step)?,
    };
    let told = blocking(move || density_of(&traces, &field)).await?;
    Ok(json_response(StatusCode::OK, &told))
}

/// The mean density of the mixtures in the middle of every bin, the lowest y first.
fn density_of(traces: &[Arc<StepTrace>], field: &Field) -> Answer<Value> {
    let samples: Vec<(&StepTrace, usize)> = match field.sample {
        Some(sample) => traces.iter().map(|trace| (&**trace, sample)).collect(),
        None => traces.iter().flat_map(|trace| trace.samples().map(|sample| (&**trace, sample))).collect(),
    };
    // Evenly spread, where there are more.
    let stride = samples.len().div_ceil(MIXTURES).max(1);
    let mixtures = samples.iter().step_by(stride).map(|(trace, sample)| {
        let (mixture, index) = trace.mixture_of(*sample)?;
        Ok(mixture.pixel(index, 0))
    });
    let mixtures = mixtures.collect::<Answer<Vec<_>>>()?;
    let middle = |bin: usize| (2.0 * (bin as f64 + 0.5) / field.bins as f64 - 1.0) * field.range;
    let mut density = Vec::with_capacity(field.bins * field.bins);
    for row in 0..field.bins {
        for column in 0..field.bins {
            let at = [middle(column), middle(row)];
            let sum: f64 = mixtures.iter().map(|mixture| mixture.density(&at)).sum();
            density.push(sum / mixtures.len().max(1) as f64);
        }
    }
    let (step, t) = (traces.first().map(|trace| trace.step), traces.first().map(|trace| trace.t));
    Ok(json!({
        "step": step, "t": t, "range": [-field.range, field.range], "bins": field.bins, "density": density,
    }))
}
