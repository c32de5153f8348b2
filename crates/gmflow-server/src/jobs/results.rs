//! What a completed job is answered with.

use super::job::Job;
use crate::refusal::{Answer, Refusal};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gmflow::samples::Samples;
use serde_json::{Value, json};

/// What is known of sample `index`.
fn sample(job: &Job, index: usize) -> Value {
    let plan = &job.plan;
    let seed = plan.seeds.get(index).copied().unwrap_or_default();
    let mut told = json!({ "seed": seed.to_string() });
    if let Some(class) = plan.classes.as_ref().and_then(|classes| classes.get(index)) {
        told["class"] = json!(class);
        told["class_name"] = json!(plan.entry.class_name(*class));
    }
    told
}

/// The samples of a job with the URLs of their pictures.
pub(crate) fn samples_by_url(job: &Job) -> Value {
    let told = (0..job.plan.seeds.len()).map(|index| {
        let mut told = sample(job, index);
        if !job.plan.entry.is_points() {
            told["png"] = json!(job.url(&format!("/samples/{index}.png")));
        }
        told
    });
    // Thousands of points have nothing to say one by one.
    if job.plan.entry.is_points() { json!([]) } else { told.collect() }
}

/// The samples of a job with their pictures, or points, in them.
pub(crate) fn samples_inline(job: &Job, samples: &Samples) -> Answer<Value> {
    let told = (0..samples.len()).map(|index| {
        let mut told = sample(job, index);
        if samples.points {
            told["point"] = json!(samples.values.get(2 * index..2 * index + 2));
        } else {
            told["png"] = json!(STANDARD.encode(samples.image_png(index)?));
        }
        Ok(told)
    });
    told.collect::<Answer<Vec<Value>>>().map(Value::from)
}

/// The PNG file of sample `index`.
pub(crate) fn image(samples: &Samples, index: usize) -> Answer<Vec<u8>> {
    if index >= samples.len() {
        return Err(Refusal::not_found(format!("no sample {index}: there are {}", samples.len())));
    }
    if samples.points {
        return Err(Refusal::not_found("points have no pictures: samples.npz has them"));
    }
    Ok(samples.image_png(index)?)
}

/// The PNG file of all samples.
pub(crate) fn grid(samples: &Samples) -> Answer<Vec<u8>> {
    if samples.points {
        return Err(Refusal::not_found("points have no pictures: samples.npz has them"));
    }
    Ok(samples.grid_png()?)
}

/// The npz file of all samples.
pub(crate) fn npz(samples: &Samples) -> Answer<Vec<u8>> {
    Ok(samples.npz()?)
}
