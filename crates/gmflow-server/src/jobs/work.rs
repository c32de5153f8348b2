//! The work on a part of a job: a solver on this thread, its network calls in the engine.

use super::job::Job;
use super::trace::{Mixture, StepTrace, values};
use crate::engine::{Engine, Joined, Watch};
use crate::models::Served;
use crate::refusal::{Answer, Refusal};
use burn::tensor::Tensor;
use gmflow::checkpoint::DataKind;
use gmflow::guidance::{GuidanceRule, GuidedPrediction, interval};
use gmflow::mixture::VelocityMixture;
use gmflow::network::Tiling;
use gmflow::pipeline::{Decoder, Pipeline, SampleRequest};
use gmflow::samples::Samples;
use serde_json::{Value, json};
use std::ops::{ControlFlow, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Draws some samples of a job.
pub(crate) fn draw(job: &Job, range: Range<usize>, model: &Arc<Served>, engine: &Engine) -> Answer<Samples> {
    let plan = &job.plan;
    let info = &model.model.info;
    let shape = plan.entry.shape();
    let seeds = plan.seeds.get(range.clone()).unwrap_or_default().to_vec();
    let classes = plan.classes.as_ref().and_then(|classes| classes.get(range.clone())).map(<[usize]>::to_vec);
    let _at_work = engine.at_work();
    let follow = Follow { job, range: range.clone(), step: AtomicUsize::new(0), seen: AtomicUsize::new(usize::MAX) };
    let watch = |x: &Tensor<4>, t: &Tensor<1>, velocity: &VelocityMixture| follow.predicted(x, t, velocity);
    let network = Joined {
        engine,
        model,
        cancelled: &job.cancelled,
        calls: &job.calls,
        watch: job.followed.then_some(&watch as &Watch),
        failed: AtomicBool::new(false),
    };
    let pipeline =
        Pipeline { network: &network, spectrum: model.model.spectrum.as_ref(), device: model.device.clone() };
    let stops = || network.failed.load(Ordering::SeqCst) || job.is_cancelled();
    let mut progress = |done: usize, _: usize| {
        follow.step.store(done, Ordering::SeqCst);
        if stops() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let request = SampleRequest { seeds: seeds.clone(), classes: classes.clone(), shape, noise: None };
    let drawn = pipeline.sample(&plan.config, &request, &mut progress);
    if stops() && !job.is_cancelled() {
        return Err(Refusal::failed(format!("model {}: a network call failed", model.id)));
    }
    let drawn = drawn?; // [n c h w]
    if job.is_cancelled() {
        return Err(gmflow::Error::Cancelled.into());
    }
    let drawn = decoded(job, model, drawn)?;
    let [_, c, h, w] = drawn.dims();
    let samples = Samples {
        values: values(&drawn),
        shape: [c, h, w],
        points: info.data.kind == DataKind::Points,
        seeds,
        classes,
        class_names: Arc::from(info.classes.clone().unwrap_or_default()),
        made_by: plan.made_by.clone(),
    };
    if job.followed {
        follow.finished(&samples);
    }
    Ok(samples)
}

/// Images of latents.
fn decoded(job: &Job, model: &Served, drawn: Tensor<4>) -> Answer<Tensor<4>> {
    let (Some(latent), Some(vae)) = (&model.model.info.latent, &model.model.vae) else { return Ok(drawn) };
    let decoder = Decoder { vae, latent, tiling: Tiling::default() };
    let mut progress = |_, _| if job.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) };
    // One at a time, as gmflow sample does it.
    let mut images = Vec::new();
    for sample in drawn.split(1, 0) {
        images.push(decoder.decode(sample, &mut progress)?);
        if job.is_cancelled() {
            return Err(gmflow::Error::Cancelled.into());
        }
    }
    Ok(Tensor::cat(images, 0))
}

/// Follows the steps of a part.
struct Follow<'a> {
    job: &'a Job,
    range: Range<usize>,
    /// The step that is being taken.
    step: AtomicUsize,
    /// The last step that was told of.
    seen: AtomicUsize,
}

impl Follow<'_> {
    /// Tells of the first prediction of a step, and keeps what is wanted of it.
    fn predicted(&self, x: &Tensor<4>, t: &Tensor<1>, velocity: &VelocityMixture) {
        let step = self.step.load(Ordering::SeqCst);
        if self.seen.swap(step, Ordering::SeqCst) == step {
            return;
        }
        let plan = &self.job.plan;
        let (count, of) = (self.range.len(), plan.steps());
        let t = t.clone().slice_dim(0, 0..1).into_data().iter::<f32>().next().map_or(0.0, f64::from);
        // With guidance the network is given every sample twice.
        let x = x.clone().slice_dim(0, 0..count);
        let guidance = interval::at(plan.config.guidance, plan.config.guidance_interval, t);
        let rule = GuidanceRule { guidance, scale: plan.config.reweight_by };
        let mixture = GuidedPrediction::from_velocity(rule, velocity.clone(), &x, t).mixture().0;
        let trace = plan.trace;
        let keeps = trace.keeps(step, of);
        let host = Mixture::of(&mixture);
        let summaries: Vec<[f64; 3]> = match host.k {
            1 => Vec::new(),
            _ => (0..count).map(|sample| host.summary(sample)).collect(),
        };
        let mut event = self.event((step, of), t, keeps);
        for (index, name) in ["entropy", "effective_k", "log_std"].into_iter().enumerate() {
            let rounded = |summary: &[f64; 3]| summary.get(index).map(|value| (value * 1e4).round() / 1e4);
            event[name] = json!(summaries.iter().map(rounded).collect::<Vec<_>>());
        }
        let latents = plan.entry.info.latent.is_some();
        let kept = keeps.then(|| StepTrace {
            step,
            t,
            first: self.range.start,
            count,
            shape: plan.entry.shape(),
            x0_shape: plan.entry.shape(),
            latents: [latents, latents],
            x0: trace.x0.then(|| values(&mixture.mean())),
            x: trace.x.then(|| values(&x)),
            mixture: trace.mixture.then_some(host),
        });
        self.job.step(kept, event);
    }

    /// Tells of the result, which is the last step.
    fn finished(&self, samples: &Samples) {
        let plan = &self.job.plan;
        let (trace, of) = (plan.trace, plan.steps());
        let keeps = trace.keeps(of, of);
        let kept = keeps.then(|| StepTrace {
            step: of,
            t: 0.0,
            first: self.range.start,
            count: self.range.len(),
            shape: samples.shape,
            x0_shape: samples.shape,
            latents: [false, false],
            x0: trace.x0.then(|| samples.values.clone()),
            x: trace.x.then(|| samples.values.clone()),
            mixture: None,
        });
        let mut event = self.event((of, of), 0.0, keeps);
        for name in ["entropy", "effective_k", "log_std"] {
            event[name] = json!([]);
        }
        self.job.step(kept, event);
    }

    fn event(&self, (step, of): (usize, usize), t: f64, keeps: bool) -> Value {
        let trace = self.job.plan.trace;
        let urls = |plane: &str, kept: bool| -> Vec<String> {
            match (kept && keeps, self.job.plan.entry.is_points()) {
                (false, _) => Vec::new(),
                (true, true) => vec![self.job.url(&format!("/steps/{step}/points"))],
                (true, false) => {
                    let url = |sample| self.job.url(&format!("/steps/{step}/{sample}/{plane}.png"));
                    self.range.clone().map(url).collect()
                }
            }
        };
        json!({
            "step": step, "of": of, "t": (t * 1e6).round() / 1e6, "first": self.range.start,
            "count": self.range.len(), "x0": urls("x0", trace.x0), "x": urls("x", trace.x),
        })
    }
}
