//! What a completed job is answered with.

use super::job::Job;
use crate::refusal::{Answer, Refusal};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use gmflow::samples::Samples;
use serde_json::{Value, json};

/// The samples of a job with their pictures, or points, in them.
pub(crate) fn samples_inline(job: &Job, samples: &Samples) -> Answer<Value> {
    let told = (0..samples.len()).map(|index| {
        let mut told = job.plan.sample(index);
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
