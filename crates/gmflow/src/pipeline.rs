//! Network, guidance and solver joined into one sampler.
//!
//! [`Model::sampler`](crate::checkpoint::Model::sampler) is the short way from a model to samples; this is the one that takes any
//! [`Denoiser`], noise of the caller's, and a caller who follows every sub-step.
//!
//! ```
//! use burn::tensor::Device;
//! use gmflow::network::{Mlp2dConfig, NetworkConfig};
//! use gmflow::pipeline::{Pipeline, SampleRequest, SamplerConfig, keep_going};
//! use gmflow::solver::GmOde;
//!
//! let device = Device::flex();
//! let config = Mlp2dConfig { hidden_dim: 8, embed_dim: 4, ..Mlp2dConfig::default() };
//! let network = NetworkConfig::Mlp2d(config).init(0, &device)?;
//! let pipeline = Pipeline { network: &network, spectrum: None, device };
//! let request = SampleRequest { seeds: vec![1, 2, 3], classes: None, shape: [2, 1, 1], noise: None };
//! let config = SamplerConfig::new(GmOde { order: 2, substeps: None }, 4);
//! let points = pipeline.sample(&config, &request, &mut keep_going)?;
//! assert_eq!(points.dims(), [3, 2, 1, 1]);
//! # Ok::<(), gmflow::Error>(())
//! ```

use crate::guidance::{Guidance, GuidanceRule, GuidedPrediction, ReweightScale, interval};
use crate::network::{Autoencoder, Denoiser, LatentInfo, SpectrumMlp, Tiling};
use crate::policy::Segments;
use crate::rng::{self, Purpose};
use crate::solver::{
    Context, GmSde, NoiseSource, SecondOrder, SecondOrderMode, SeededNoise, Solver, SolverConfig, Span, SubStep,
};
use crate::{Error, Result, time};
use burn::tensor::{Device, Int, Tensor, TensorData};
use serde::{Deserialize, Serialize};
use std::cell::Cell;
use std::ops::ControlFlow;

/// How to sample, apart from which samples.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SamplerConfig {
    /// The solver.
    pub solver: SolverConfig,
    /// Network calls; a guided call on a doubled batch counts as one.
    pub steps: usize,
    /// Guidance by class.
    #[serde(default)]
    pub guidance: Guidance,
    /// The times [low, high] between which there is guidance (arXiv:2404.07724); absent: always. Outside of them the unconditional
    /// prediction is not computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance_interval: Option<[f64; 2]>,
    /// What guidance and steps of order 2 divide by where they reweight mixtures.
    #[serde(default, skip_serializing_if = "ReweightScale::is_image")]
    pub reweight_by: ReweightScale,
    /// The shift of the time grid.
    #[serde(default = "no_shift")]
    pub shift: f32,
    /// Details of the solvers of order 2.
    #[serde(default)]
    pub second_order: SecondOrder,
}

impl SamplerConfig {
    /// `solver` in `steps` network calls, without guidance, shift and corrections.
    pub fn new(solver: impl Into<SolverConfig>, steps: usize) -> Self {
        Self {
            solver: solver.into(),
            steps,
            guidance: Guidance::Off,
            guidance_interval: None,
            reweight_by: ReweightScale::Image,
            shift: 1.0,
            second_order: SecondOrder::default(),
        }
    }
}

fn no_shift() -> f32 {
    1.0
}

impl SamplerConfig {
    /// Checks every field, naming the first that is out of range.
    pub fn validate(&self) -> Result<()> {
        self.solver.validate()?;
        self.guidance.validate()?;
        self.second_order.validate()?;
        interval::validate(self.guidance_interval)?;
        if matches!(self.solver, SolverConfig::PiFlow(_)) && self.guidance.is_active() {
            let expected = "none: a student of distillation has its teacher's guidance built in";
            return Err(Error::config("guidance", expected, "some"));
        }
        self.times().map(|_| ())
    }

    /// The falling times at which steps begin, and 0.
    fn times(&self) -> Result<Vec<f64>> {
        match self.solver {
            SolverConfig::PiFlow(policy) => {
                let (steps, final_step_scale) = (self.steps, policy.final_step_scale);
                let segments = Segments { steps, final_step_scale, shift: f64::from(self.shift) };
                segments.validate()?;
                Ok(segments.times())
            }
            _ => Ok(time::grid(self.steps, self.shift)?.into_iter().map(f64::from).collect()),
        }
    }

    /// Whether mixtures are reweighted anywhere, by guidance or by steps of order 2.
    pub fn reweights(&self) -> bool {
        let guides = matches!(self.guidance, Guidance::Probabilistic { .. }) && self.guidance.is_active();
        guides || self.solver.is_of_order_2() && self.second_order.carry == SecondOrderMode::Reweight
    }
}

/// Which samples to draw.
#[derive(Clone, Debug)]
pub struct SampleRequest {
    /// One seed per sample; the same seed gives the same sample in any batch.
    pub seeds: Vec<u64>,
    /// One class per sample; `None` samples without a class.
    pub classes: Option<Vec<usize>>,
    /// `[c h w]` of one sample.
    pub shape: [usize; 3],
    /// The noise to start from, `[b c h w]`; drawn from the seeds where it is not given.
    pub noise: Option<Tensor<4>>,
}

/// Is told of progress, (done, of), and answers whether to go on.
pub type Progress<'a> = dyn FnMut(usize, usize) -> ControlFlow<()> + 'a;

/// Is told of every step that has ended, and answers whether to go on, and from which samples where it is to be others.
pub type StepHook<'a> = dyn FnMut(StepEnd) -> ControlFlow<(), Option<Tensor<4>>> + 'a;

/// A step that has ended.
#[derive(Clone, Copy, Debug)]
pub struct StepEnd<'a> {
    /// Steps done, from 1.
    pub done: usize,
    /// How many there are.
    pub of: usize,
    /// The time that it began at, in (0, 1].
    pub from: f64,
    /// The time that it ended at, in [0, 1).
    pub to: f64,
    /// The samples `[b c h w]` there.
    pub x: &'a Tensor<4>,
}

/// A hook that only tells of progress.
fn telling(progress: &mut Progress) -> impl FnMut(StepEnd) -> ControlFlow<(), Option<Tensor<4>>> {
    |end: StepEnd| match progress(end.done, end.of) {
        ControlFlow::Continue(()) => ControlFlow::Continue(None),
        ControlFlow::Break(()) => ControlFlow::Break(()),
    }
}

/// Is told of every sub-step, and answers whether to go on.
pub type Observer<'a> = dyn FnMut(&SubStep) -> ControlFlow<()> + 'a;

/// The progress that nobody follows: always goes on.
pub fn keep_going(_done: usize, _of: usize) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// A network ready to be sampled from: one of this crate's, or any other [`Denoiser`].
#[derive(Clone)]
pub struct Pipeline<'a> {
    /// The network, on a device without gradients.
    pub network: &'a dyn Denoiser,
    /// The network that shapes the draws of GM-SDE, where the model has one.
    pub spectrum: Option<&'a SpectrumMlp>,
    /// Where the network lives.
    pub device: Device,
}

impl Pipeline<'_> {
    /// Samples `[b c h w]`; `progress` is told (steps done, of) after every step, before the next call of the network.
    ///
    /// # Errors
    /// A setting out of range, a class the network does not know, noise of another shape, or a spectral draw without a
    /// spectrum network for such samples; [`Error::Cancelled`] where `progress` says so before the last step is done.
    pub fn sample(
        &self,
        config: &SamplerConfig,
        request: &SampleRequest,
        progress: &mut Progress,
    ) -> Result<Tensor<4>> {
        let mut draws = SeededNoise { seeds: request.seeds.clone(), device: self.device.clone() };
        self.run(config, request, &mut draws, progress, None)
    }

    /// [`Pipeline::sample`] for a caller who sees the samples after every step, and may replace them by others of the same shape.
    ///
    /// # Errors
    /// Those of [`Pipeline::sample`], and samples of another shape.
    pub fn sample_steps(
        &self,
        config: &SamplerConfig,
        request: &SampleRequest,
        on_step: &mut StepHook,
    ) -> Result<Tensor<4>> {
        config.validate()?;
        let spectrum = self.spectrum_for(config, request)?;
        let mut draws = SeededNoise { seeds: request.seeds.clone(), device: self.device.clone() };
        let surroundings = Surroundings { spectrum, draws: &mut draws, on_step, observe: None };
        self.solve(&*config.solver.solver(), config, request, surroundings)
    }

    /// [`Pipeline::sample`] with random numbers of the caller's choice, who may be told of every sub-step, and cancel after it.
    ///
    /// # Errors
    /// Those of [`Pipeline::sample`].
    pub fn run<'a>(
        &self,
        config: &SamplerConfig,
        request: &SampleRequest,
        draws: &mut dyn NoiseSource,
        progress: &mut Progress,
        observe: Option<&'a mut Observer<'a>>,
    ) -> Result<Tensor<4>> {
        config.validate()?;
        let spectrum = self.spectrum_for(config, request)?;
        let surroundings = Surroundings { spectrum, draws, on_step: &mut telling(progress), observe };
        self.solve(&*config.solver.solver(), config, request, surroundings)
    }

    /// [`Pipeline::sample`] with a solver of the caller's in the place of `config.solver`. It has the model's spectrum network at its
    /// disposal.
    ///
    /// # Errors
    /// Those of [`Pipeline::sample`], and those of the solver.
    pub fn sample_by(
        &self,
        solver: &dyn Solver,
        config: &SamplerConfig,
        request: &SampleRequest,
        progress: &mut Progress,
    ) -> Result<Tensor<4>> {
        let mut draws = SeededNoise { seeds: request.seeds.clone(), device: self.device.clone() };
        let on_step = &mut telling(progress);
        let surroundings = Surroundings { spectrum: self.spectrum, draws: &mut draws, on_step, observe: None };
        self.solve(solver, config, request, surroundings)
    }

    fn solve(
        &self,
        solver: &dyn Solver,
        config: &SamplerConfig,
        request: &SampleRequest,
        surroundings: Surroundings,
    ) -> Result<Tensor<4>> {
        config.validate()?;
        let Surroundings { spectrum, draws, on_step, observe } = surroundings;
        let labels = self.labels(config, request)?;
        let x = self.initial(request)?;
        let times = config.times()?;
        let default_substeps = SolverConfig::default_substeps(config.steps, request.shape == [2, 1, 1]);
        let mut predict = |x: &Tensor<4>, t: f64| {
            let guidance = interval::at(config.guidance, config.guidance_interval, t);
            self.predict(GuidanceRule { guidance, scale: config.reweight_by }, labels.as_ref(), x, t)
        };
        let second_order = config.second_order;
        let cancelled = Cell::new(false);
        let mut observe =
            observe.map(|observe| |done: &SubStep| cancelled.set(cancelled.get() || observe(done).is_break()));
        let observe = observe.as_mut().map(|observe| observe as &mut dyn FnMut(&SubStep));
        let mut context = Context { predict: &mut predict, draws, spectrum, second_order, observe };
        let mut state = solver.init(x);
        for (index, pair) in times.windows(2).enumerate() {
            let (t, to) = (pair[0], pair[1]);
            let span = Span { index, t, to, default_substeps, shift: config.shift };
            state = solver.step(state, span, &mut context)?;
            let (done, of) = (index + 1, config.steps);
            let answer = match cancelled.get() {
                true => ControlFlow::Break(()),
                false => on_step(StepEnd { done, of, from: t, to, x: state.x() }),
            };
            match answer {
                ControlFlow::Continue(None) => {}
                ControlFlow::Continue(Some(x)) if x.dims() == state.x().dims() => state.replace_x(x),
                ControlFlow::Continue(Some(x)) => return Err(Error::shape("latents", state.x().dims(), x.dims())),
                ControlFlow::Break(()) if done < of => return Err(Error::Cancelled),
                ControlFlow::Break(()) => {}
            }
        }
        Ok(state.into_x())
    }

    /// Checks what [`Pipeline::sample`] would refuse, without a call of the network.
    ///
    /// # Errors
    /// Those of [`Pipeline::sample`] before its first step.
    pub fn check(&self, config: &SamplerConfig, request: &SampleRequest) -> Result<()> {
        config.validate()?;
        self.labels(config, request)?;
        self.spectrum_for(config, request).map(|_| ())
    }

    /// The spectrum network that the solver is to use.
    fn spectrum_for(&self, config: &SamplerConfig, request: &SampleRequest) -> Result<Option<&SpectrumMlp>> {
        let SolverConfig::GmSde(GmSde { spectral, .. }) = config.solver else { return Ok(None) };
        match (self.spectrum, spectral) {
            (None, Some(true)) => Err(Error::config("spectral", "off: the model has no spectrum network", "on")),
            (None, _) | (_, Some(false)) => Ok(None),
            (Some(spectrum), _) if spectrum.config().base_size[0] != request.shape[0] => {
                let expected = format!("{} channels", request.shape[0]);
                Err(Error::config("spectrum.base_size", expected, spectrum.config().base_size[0]))
            }
            (spectrum, _) => Ok(spectrum),
        }
    }

    /// The guided prediction at (x, t); with guidance, one call on the doubled batch [conditional, unconditional].
    fn predict(&self, rule: GuidanceRule, labels: Option<&Labels>, x: &Tensor<4>, t: f64) -> GuidedPrediction {
        let time = |n: usize| Tensor::<1>::full([n], t as f32, &self.device);
        let b = x.dims()[0];
        let velocity = match labels {
            Some(labels) if rule.guidance.is_active() => {
                let doubled = Tensor::cat(vec![x.clone(), x.clone()], 0); // [2b c h w]
                let class = Tensor::cat(vec![labels.class.clone(), labels.null.clone()], 0);
                self.network.forward(doubled, time(2 * b), Some(class))
            }
            labels => self.network.forward(x.clone(), time(b), labels.map(|labels| labels.class.clone())),
        };
        GuidedPrediction::from_velocity(rule, velocity, x, t)
    }

    fn labels(&self, config: &SamplerConfig, request: &SampleRequest) -> Result<Option<Labels>> {
        let b = request.seeds.len();
        let Some(null) = self.network.null_class().filter(|&null| null > 0) else {
            return match (&request.classes, config.guidance.is_active()) {
                (None, false) => Ok(None),
                (Some(_), _) => Err(Error::config("class", "none: the network has no classes", "some")),
                (None, true) => Err(Error::config("guidance", "0: the network has no classes", "more")),
            };
        };
        let classes = request.classes.clone().unwrap_or_else(|| vec![null; b]);
        if classes.len() != b {
            return Err(Error::shape("classes", [b], [classes.len()]));
        }
        if let Some(unknown) = classes.iter().find(|&&class| class > null) {
            return Err(Error::config("class", format!("0 to {}", null - 1), unknown));
        }
        let tensor = |values: Vec<usize>| {
            let values: Vec<i64> = values.into_iter().map(|class| class as i64).collect();
            Tensor::<1, Int>::from_data(TensorData::new(values, [b]), &self.device)
        };
        Ok(Some(Labels { class: tensor(classes), null: tensor(vec![null; b]) }))
    }

    fn initial(&self, request: &SampleRequest) -> Result<Tensor<4>> {
        let [c, h, w] = request.shape;
        let expected = [request.seeds.len(), c, h, w];
        match &request.noise {
            Some(noise) if noise.dims() != expected => Err(Error::shape("noise", expected, noise.dims())),
            Some(noise) => Ok(noise.clone()),
            None => Ok(rng::normal_batch(&request.seeds, Purpose::InitialNoise, 0, request.shape, &self.device)),
        }
    }
}

/// From the samples of a network that works on latents to images.
#[derive(Clone, Copy, Debug)]
pub struct Decoder<'a> {
    /// The autoencoder that they are latents of.
    pub vae: &'a Autoencoder,
    /// Their shift and scale.
    pub latent: &'a LatentInfo,
    /// Larger latents are decoded in tiles.
    pub tiling: Tiling,
}

impl Decoder<'_> {
    /// Decodes samples `[b c h w]` to images `[b c h*f w*f]` of about [-1, 1], one at a time, so that memory does not grow with
    /// the batch; `progress` is told (images done, of).
    ///
    /// # Errors
    /// A tiling that does not move on, or latents of other channels than the autoencoder's; [`Error::Cancelled`] where `progress` says so
    /// before the last image.
    pub fn decode(&self, samples: Tensor<4>, progress: &mut Progress) -> Result<Tensor<4>> {
        let [b, c, _, _] = samples.dims();
        let channels = self.vae.config().latent_channels;
        if c != channels {
            return Err(Error::config("vae", format!("latents of {c} channels, as the model's"), channels));
        }
        let latents = samples / self.latent.scaling_factor + self.latent.shift_factor;
        let mut images = Vec::with_capacity(b);
        for i in 0..b {
            images.push(self.vae.decode_tiled(latents.clone().narrow(0, i, 1), self.tiling)?);
            if progress(i + 1, b).is_break() && i + 1 < b {
                return Err(Error::Cancelled);
            }
        }
        Ok(Tensor::cat(images, 0))
    }
}

impl std::fmt::Debug for Pipeline<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pipeline").field("device", &self.device).finish_non_exhaustive()
    }
}

/// What a run has beside the network, the solver and the settings.
struct Surroundings<'a, 'b, 'c> {
    spectrum: Option<&'a SpectrumMlp>,
    draws: &'a mut dyn NoiseSource,
    on_step: &'a mut StepHook<'b>,
    observe: Option<&'c mut Observer<'c>>,
}

/// Labels `[b]` of the conditional and the unconditional half.
struct Labels {
    class: Tensor<1, Int>,
    null: Tensor<1, Int>,
}
