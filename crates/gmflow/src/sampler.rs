//! Samples from a model in one expression: what is not asked for is the model's own choice.
//!
//! ```no_run
//! use gmflow::checkpoint::Model;
//! use gmflow::guidance::Guidance;
//!
//! let model = Model::open("models/mnist")?;
//! let guidance = Guidance::Probabilistic { scale: 0.2, orthogonal: 1.0 };
//! let samples = model.sampler().steps(6).guidance(guidance).classes([7]).seeds(0..16).sample()?;
//! samples.save_grid("sevens.png")?;
//! # Ok::<(), gmflow::Error>(())
//! ```

use crate::checkpoint::{DataKind, Model, ModelInfo};
use crate::guidance::{Guidance, ReweightScale};
use crate::limits;
use crate::network::Tiling;
use crate::pipeline::{Decoder, Pipeline, Progress, SampleRequest, SamplerConfig, StepEnd, StepHook, keep_going};
use crate::samples::Samples;
use crate::solver::{Euler, GmOde, SecondOrder, SolverConfig};
use crate::{Error, Result};
use burn::tensor::{Device, Tensor};
use serde_json::json;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

/// Network calls where none are asked for.
const STEPS: usize = 8;
/// Images, or points, where no seeds are given.
const IMAGES: u64 = 16;
const POINTS: u64 = 10_000;
/// Images, or points, that are computed at once.
const IMAGES_AT_ONCE: usize = 16;
const POINTS_AT_ONCE: usize = 4096;

/// What is drawn from a model, and how. [`Model::sampler`] makes one.
#[derive(Clone, Debug)]
pub struct Sampler<'a> {
    model: &'a Model,
    config: SamplerConfig,
    seeds: Vec<u64>,
    /// The classes that samples take in turn; none where the model has no classes.
    classes: Option<Vec<usize>>,
    batch: usize,
    latents: bool,
    noise: Option<Tensor<4>>,
    tiling: Tiling,
}

impl ModelInfo {
    /// The model's own settings: GM-ODE of order 2, or Euler for a single component, in 8 network calls; guidance, time grid and
    /// second-order steps as the model was given them. A student of distillation is followed as it was trained, without guidance.
    pub fn sampler_config(&self) -> SamplerConfig {
        if let Some(student) = &self.student {
            let solver = SolverConfig::PiFlow(student.policy);
            return SamplerConfig { shift: self.shift, ..SamplerConfig::new(solver, student.steps) };
        }
        let solver = match self.network.num_gaussians() {
            1 => SolverConfig::Euler(Euler {}),
            _ => SolverConfig::GmOde(GmOde { order: 2, substeps: None }),
        };
        SamplerConfig {
            guidance: if self.network.num_classes() > 0 { self.guidance } else { Guidance::Off },
            reweight_by: self.reweight_by,
            shift: self.shift,
            second_order: self.second_order,
            ..SamplerConfig::new(solver, STEPS)
        }
    }
}

impl Model {
    /// A sampler with the model's own settings ([`ModelInfo::sampler_config`]): 16 images or 10,000 points with the seeds from 0 on; all
    /// classes in turn.
    pub fn sampler(&self) -> Sampler<'_> {
        let info = &self.info;
        let (count, batch) = match info.data.kind {
            DataKind::Image | DataKind::Latents => (IMAGES, IMAGES_AT_ONCE),
            DataKind::Points => (POINTS, POINTS_AT_ONCE),
        };
        Sampler {
            model: self,
            config: info.sampler_config(),
            seeds: (0..count).collect(),
            classes: (info.network.num_classes() > 0).then(|| info.drawn_classes()),
            batch,
            latents: false,
            noise: None,
            tiling: Tiling::default(),
        }
    }
}

impl Sampler<'_> {
    /// Takes every setting of a configuration.
    pub fn config(mut self, config: SamplerConfig) -> Self {
        self.config = config;
        self
    }

    /// The solver and its order.
    pub fn solver(mut self, solver: impl Into<SolverConfig>) -> Self {
        self.config.solver = solver.into();
        self
    }

    /// Network calls; a guided call on a doubled batch counts as one.
    pub fn steps(mut self, steps: usize) -> Self {
        self.config.steps = steps;
        self
    }

    /// Guidance by class.
    pub fn guidance(mut self, guidance: Guidance) -> Self {
        self.config.guidance = guidance;
        self
    }

    /// The times [low, high] between which there is guidance.
    pub fn guidance_interval(mut self, interval: [f64; 2]) -> Self {
        self.config.guidance_interval = Some(interval);
        self
    }

    /// What guidance and steps of order 2 divide by where they reweight mixtures.
    pub fn reweight_by(mut self, variance: ReweightScale) -> Self {
        self.config.reweight_by = variance;
        self
    }

    /// Details of steps of order 2.
    pub fn second_order(mut self, second_order: SecondOrder) -> Self {
        self.config.second_order = second_order;
        self
    }

    /// The classes, which samples take in turn. Names become numbers by
    /// [`ModelInfo::class_names`](crate::checkpoint::ModelInfo::class_names).
    pub fn classes(mut self, classes: impl IntoIterator<Item = usize>) -> Self {
        self.classes = Some(classes.into_iter().collect());
        self
    }

    /// One seed per sample. A seed gives the same sample in any batch.
    pub fn seeds(mut self, seeds: impl IntoIterator<Item = u64>) -> Self {
        self.seeds = seeds.into_iter().collect();
        self
    }

    /// Samples that are computed at once: memory grows with them, and the samples stay the same.
    pub fn batch(mut self, batch: usize) -> Self {
        self.batch = batch;
        self
    }

    /// Returns the latents of a model of latents, in place of images.
    pub fn latents(mut self) -> Self {
        self.latents = true;
        self
    }

    /// The noise `[n c h w]` to start from, in place of that of the seeds.
    pub fn noise(mut self, noise: Tensor<4>) -> Self {
        self.noise = Some(noise);
        self
    }

    /// How large images of a model of latents are decoded.
    pub fn tiling(mut self, tiling: Tiling) -> Self {
        self.tiling = tiling;
        self
    }

    /// Draws the samples.
    ///
    /// # Errors
    /// A setting out of range; a class that the model does not have; a batch that does not fit in memory; a model of latents without its
    /// autoencoder.
    pub fn sample(&self) -> Result<Samples> {
        self.sample_with(&mut keep_going)
    }

    /// [`Sampler::sample`] that tells (network calls done, of) after every one, and stops where the answer is
    /// [`Break`](std::ops::ControlFlow::Break).
    ///
    /// # Errors
    /// Those of [`Sampler::sample`]; [`Error::Cancelled`].
    pub fn sample_with(&self, progress: &mut Progress) -> Result<Samples> {
        let (mut calls, all) = (0, self.calls(self.seeds.len()));
        self.sample_steps(&mut |_: StepEnd| {
            calls += 1;
            match progress(calls, all) {
                ControlFlow::Continue(()) => ControlFlow::Continue(None),
                // After the last call there is nothing to stop.
                ControlFlow::Break(()) if calls == all => ControlFlow::Continue(None),
                ControlFlow::Break(()) => ControlFlow::Break(()),
            }
        })
    }

    /// [`Sampler::sample`] for a caller who sees the samples of a batch after every step, before they are decoded, and may replace them.
    ///
    /// # Errors
    /// Those of [`Sampler::sample`]; [`Error::Cancelled`]; samples of another shape.
    pub fn sample_steps(&self, on_step: &mut StepHook) -> Result<Samples> {
        let device = self.check()?;
        let mut all: Option<Samples> = None;
        for start in (0..self.seeds.len()).step_by(self.batch) {
            let drawn = self.draw(start..(start + self.batch).min(self.seeds.len()), &device, on_step)?;
            match &mut all {
                Some(all) => all.append(drawn),
                none => *none = Some(drawn),
            }
        }
        all.ok_or_else(|| Error::config("seeds", "at least one", "none"))
    }

    /// Checks what is asked for, and finds the device of the model.
    fn check(&self) -> Result<Device> {
        limits::count("batch", self.batch, limits::MOST_BATCH)?;
        if self.classes.as_ref().is_some_and(Vec::is_empty) {
            return Err(Error::config("classes", "at least one", "none"));
        }
        let info = &self.model.info;
        let (device, shape) = (self.model.device(), [info.data.channels, info.data.height, info.data.width]);
        if let Some(noise) = &self.noise {
            let [c, h, w] = shape;
            let expected = [self.seeds.len(), c, h, w];
            if noise.dims() != expected {
                return Err(Error::shape("noise", expected, noise.dims()));
            }
        }
        let rows = self.batch.min(self.seeds.len()) * if self.config.guidance.is_active() { 2 } else { 1 };
        limits::prediction(&info.network, shape, rows, &device)?.check("batch", self.batch, "lower batch")?;
        Ok(device)
    }

    /// One batch of samples.
    fn draw(&self, range: Range<usize>, device: &Device, on_step: &mut StepHook) -> Result<Samples> {
        let (model, info) = (self.model, &self.model.info);
        let turn =
            |classes: &Vec<usize>| range.clone().filter_map(|i| classes.get(i % classes.len()).copied()).collect();
        let request = SampleRequest {
            seeds: self.seeds.get(range.clone()).unwrap_or_default().to_vec(),
            classes: self.classes.as_ref().map(turn),
            shape: [info.data.channels, info.data.height, info.data.width],
            noise: self.noise.as_ref().map(|noise| noise.clone().narrow(0, range.start, range.len())),
        };
        let pipeline =
            Pipeline { network: &model.network, spectrum: model.spectrum.as_ref(), device: device.clone() };
        let samples = pipeline.sample_steps(&self.config, &request, on_step)?;
        let samples = self.decoded(samples)?; // [n c h w]
        let [_, c, h, w] = samples.dims();
        let SampleRequest { seeds, classes, .. } = request;
        Ok(Samples {
            values: samples.into_data().iter::<f32>().collect(),
            shape: [c, h, w],
            points: info.data.kind == DataKind::Points,
            seeds,
            classes,
            class_names: Arc::from(info.classes.clone().unwrap_or_default()),
            made_by: json!({ "gmflow": env!("CARGO_PKG_VERSION"), "sampler": self.config }),
        })
    }

    /// Network calls for the first `samples` samples.
    fn calls(&self, samples: usize) -> usize {
        samples.div_ceil(self.batch.max(1)) * self.config.steps
    }

    /// Images of latents, unless the latents are asked for.
    fn decoded(&self, samples: Tensor<4>) -> Result<Tensor<4>> {
        let Some(latent) = self.model.info.latent.as_ref().filter(|_| !self.latents) else { return Ok(samples) };
        let Some(vae) = &self.model.vae else {
            let expected = "the autoencoder of this model's latents in `Model::vae`, or `Sampler::latents`";
            return Err(Error::config("vae", expected, "none"));
        };
        Decoder { vae, latent, tiling: self.tiling }.decode(samples, &mut keep_going)
    }
}
