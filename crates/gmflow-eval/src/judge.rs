//! Samples measured against one reference: a set that is there already, or samples that are drawn from a model on the way.
//!
//! ```
//! use burn::tensor::Device;
//! use gmflow_data::Density;
//! use gmflow_eval::{CompareConfig, Judge, Reference};
//!
//! let density = Density::CHECKERBOARD;
//! let points: Vec<f32> = density.sample(0, 0, 1000).into_iter().flatten().collect();
//! let judge = Judge {
//!     reference: Reference::Density(density, "checkerboard".into()),
//!     images: None,
//!     network: None,
//!     config: CompareConfig::default(),
//!     device: Device::flex(),
//! };
//! let row = judge.points("its own points", &points)?;
//! assert!(row.points.unwrap().total_variation < 0.5);
//! # Ok::<(), gmflow_eval::Error>(())
//! ```

use crate::features::FeatureNetwork;
use crate::images::{RealBatch, RealImages};
use crate::models::LoadedModel;
use crate::points::{PointsConfig, PointsDistance};
use crate::progress::{Part, Progress};
use crate::row::{ReferenceInfo, Row};
use crate::sampler::{self, Batch};
use crate::{
    CompareConfig, Error, Likelihood, LikelihoodSum, Result, SampleSet, SetBuilder, check_covariances, compare,
};
use burn::tensor::{Device, Tensor, TensorData};
use gmflow::checkpoint::{DataKind, Model, ModelInfo};
use gmflow::limits::{self, Need};
use gmflow::network::Tiling;
use gmflow::pipeline::{Decoder, SamplerConfig, keep_going};
use gmflow_data::Density;
use gmflow_world::{Shard, Solo, World, share_of_batches};
use std::time::Instant;

/// Images and points computed at once where nothing else is asked for.
const IMAGES_AT_ONCE: usize = 64;
const POINTS_AT_ONCE: usize = 4096;
/// Most samples that are drawn where nothing else is asked for.
const MOST: u64 = 10_000;

/// What samples are compared with.
#[derive(Clone, Debug)]
pub enum Reference {
    /// Features of real images.
    Set(Box<SampleSet>),
    /// A density in the plane, and its name.
    Density(Density, String),
}

impl Reference {
    fn info(&self) -> ReferenceInfo {
        match self {
            Self::Set(set) => ReferenceInfo { data: set.info.data.clone(), count: Some(set.info.count) },
            Self::Density(_, name) => ReferenceInfo { data: name.clone(), count: None },
        }
    }
}

/// Measures samples against one reference.
pub struct Judge {
    /// What samples are compared with.
    pub reference: Reference,
    /// The real images, for likelihoods; none where the reference is something else.
    pub images: Option<RealImages>,
    /// What computes the features of images.
    pub network: Option<FeatureNetwork>,
    /// Which figures, and how.
    pub config: CompareConfig,
    /// Where models are.
    pub device: Device,
}

/// Which samples are drawn from a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrawOptions {
    /// How many; without it as many as the reference has, and at most 10000.
    pub num: Option<usize>,
    /// The seed of the first sample; the others follow.
    pub seed: u64,
    /// How many are computed at once; without it 64 images or 4096 points. The figures do not depend on it.
    pub batch: Option<usize>,
}

/// What was measured of a model.
#[derive(Clone, Debug)]
pub struct Measured {
    /// The figures.
    pub row: Row,
    /// The points that were drawn, of models of points.
    pub points: Option<Vec<[f32; 2]>>,
}

/// Takes samples `[n c h w]`, the shape of one, and the names of the classes that were asked for, where they have names.
type TakeSamples<'a> = dyn FnMut(&[f32], [usize; 3], &[&str]) -> Result<()> + 'a;

impl Judge {
    /// The row of a set of samples that is there already.
    ///
    /// # Errors
    /// The reference is a density; otherwise as [`compare`].
    pub fn set(&self, name: &str, fake: &SampleSet, progress: &mut dyn Progress) -> Result<Row> {
        let Reference::Set(real) = &self.reference else {
            return Err(Error::config("fake", "points, for a density", "images"));
        };
        let mut part = Part::begin(progress, "comparing", 1, "parts");
        let metrics = compare(real, fake, self.config, &mut |done, of| part.at_of(done as u64, of as u64))?;
        Ok(Row {
            metrics: Some(metrics),
            features: Some(real.info.features.clone()),
            ..self.row(name, fake.info.count)
        })
    }

    /// The row of points `[n 2]` that are there already.
    ///
    /// # Errors
    /// The reference is a set of images; otherwise as [`PointsDistance::of`].
    pub fn points(&self, name: &str, points: &[f32]) -> Result<Row> {
        self.pairs(name, points.as_chunks::<2>().0)
    }

    fn pairs(&self, name: &str, points: &[[f32; 2]]) -> Result<Row> {
        let Reference::Density(density, _) = &self.reference else {
            return Err(Error::config("fake", "images, as the reference", "points"));
        };
        let distance = PointsDistance::of(points, density, PointsConfig::default())?;
        Ok(Row { points: Some(distance), ..self.row(name, points.len() as u64) })
    }

    fn row(&self, fake: &str, samples: u64) -> Row {
        Row::new(fake.to_owned(), samples, self.reference.info())
    }

    /// What samples are compared with, in words.
    pub fn reference_info(&self) -> ReferenceInfo {
        self.reference.info()
    }

    /// Checks, before any sample is drawn, that a model's samples can be compared with the reference, and that a batch in its network and
    /// what is kept of all samples fit in memory.
    ///
    /// # Errors
    /// A model of something else than the reference; settings that need more memory than there is.
    pub fn check(&self, model: &ModelInfo, sampler: &SamplerConfig, options: DrawOptions) -> Result<()> {
        match (&self.reference, model.data.kind) {
            (Reference::Density(..), DataKind::Points) => {}
            (Reference::Set(real), DataKind::Image | DataKind::Latents) => {
                self.network_for(real)?;
            }
            (Reference::Density(..), _) => {
                return Err(Error::config("fake", "a model of points, for a density", "one of images"));
            }
            (Reference::Set(_), _) => {
                return Err(Error::config("fake", "a model of images, as the reference", "one of points"));
            }
        }
        self.check_memory(model, sampler, options)
    }

    /// Draws samples from a model and measures them. Images are not kept, only their features.
    ///
    /// # Errors
    /// As [`check`](Self::check), [`draw`](sampler::draw) and [`compare`].
    pub fn model(
        &self,
        loaded: &LoadedModel,
        sampler: &SamplerConfig,
        options: DrawOptions,
        progress: &mut dyn Progress,
    ) -> Result<Measured> {
        self.model_in(&Solo::default(), loaded, sampler, options, progress)
    }

    /// [`model`](Self::model) by several processes, each of which draws a part; the figures are on the first one, and have the bits of one
    /// process. The others have the row without them.
    ///
    /// # Errors
    /// As [`model`](Self::model).
    pub fn model_in(
        &self,
        world: &dyn World,
        loaded: &LoadedModel,
        sampler: &SamplerConfig,
        options: DrawOptions,
        progress: &mut dyn Progress,
    ) -> Result<Measured> {
        let LoadedModel { name, model, precision } = loaded;
        self.check(&model.info, sampler, options)?;
        let drawing =
            Drawing { model, sampler, options, device: &self.device, shard: Shard::of(world.rank(), world.size()) };
        let (row, points, seconds) = match &self.reference {
            Reference::Density(..) => {
                let mut values = Vec::new();
                let num = options.num.unwrap_or(MOST as usize);
                let seconds = drawing.run(num, progress, &mut |drawn, _, _| {
                    values.extend_from_slice(drawn);
                    Ok(())
                })?;
                match world.collect(bytemuck::cast_slice(&values))? {
                    Some(parts) => {
                        let points = points_of_parts(&parts);
                        (self.pairs(name, &points)?, Some(points), seconds)
                    }
                    None => (self.row(name, num as u64), None, seconds),
                }
            }
            Reference::Set(real) => {
                let network = self.network_for(real)?;
                let num = options.num.unwrap_or(real.info.count.min(MOST) as usize);
                let keep = !self.config.moments_only;
                let mut builder: Option<SetBuilder> = None;
                let seconds = drawing.run(num, progress, &mut |drawn, shape, asked| {
                    let builder = builder.get_or_insert_with(|| SetBuilder::of_rank(network, shape, keep, world));
                    builder.add_asked(drawn, asked)
                })?;
                // A process without a batch still takes part.
                let shape = self.shape_of(model)?;
                let builder = builder.unwrap_or_else(|| SetBuilder::of_rank(network, shape, keep, world));
                match builder.finish_in((world, false), name.clone(), Vec::new())? {
                    Some(set) => (self.set(name, &set, progress)?, None, seconds),
                    None => (self.row(name, num as u64), None, seconds),
                }
            }
        };
        let row = Row {
            components: Some(model.info.network.num_gaussians()),
            sampler: Some(sampler::describe(sampler, model.info.data.kind)),
            precision: *precision,
            seed: Some(options.seed),
            seconds: Some(seconds),
            ..row
        };
        Ok(Measured { row, points })
    }

    /// `[c h w]` of a model's samples, decoded where they are latents.
    fn shape_of(&self, model: &Model) -> Result<[usize; 3]> {
        let data = model.info.data;
        match (&model.vae, &model.info.latent) {
            (Some(vae), Some(latent)) => {
                let factor = latent.downsampling;
                Ok([vae.config().in_channels, data.height * factor, data.width * factor])
            }
            _ => Ok([data.channels, data.height, data.width]),
        }
    }

    fn network_for(&self, real: &SampleSet) -> Result<&FeatureNetwork> {
        let needed =
            || Error::config("features", "features that can be computed of samples", &real.info.features.network);
        self.network.as_ref().ok_or_else(needed)
    }

    fn check_memory(&self, model: &ModelInfo, sampler: &SamplerConfig, options: DrawOptions) -> Result<()> {
        let data = model.data;
        let batch = options.batch.unwrap_or(at_once(data.kind));
        let rows = batch.saturating_mul(if sampler.guidance.is_active() { 2 } else { 1 });
        let shape = [data.channels, data.height, data.width];
        limits::prediction(&model.network, shape, rows, &self.device)?.check("batch", batch, "lower batch")?;
        let num = options.num.unwrap_or(0);
        let need = match &self.reference {
            // The values, and the same as pairs.
            Reference::Density(..) => Need::new().floats("points", &[2, 2, num as u128]),
            Reference::Set(real) => {
                let columns = real.moments.mean().len();
                check_covariances(columns)?;
                let kept = if self.config.moments_only { 0 } else { 2 * num as u128 };
                Need::new().floats("features", &[kept, columns as u128])
            }
        };
        Ok(need.check("num", num, "lower num, or leave out what needs all features (moments_only)")?)
    }

    /// The likelihood of the real images under a model, each at `times` times.
    ///
    /// # Errors
    /// There are no real images, or they are not of the model's shape; a likelihood that is not finite.
    pub fn likelihood(&self, model: &Model, times: usize, progress: &mut dyn Progress) -> Result<Likelihood> {
        let likelihood = self.likelihood_in(&Solo::default(), model, times, progress)?;
        likelihood.ok_or_else(|| Error::config("nll", "a likelihood", "none"))
    }

    /// [`likelihood`](Self::likelihood) by several processes, each of which measures a part of the images; on the first one, with the bits
    /// of one process.
    ///
    /// # Errors
    /// As [`likelihood`](Self::likelihood).
    pub fn likelihood_in(
        &self,
        world: &dyn World,
        model: &Model,
        times: usize,
        progress: &mut dyn Progress,
    ) -> Result<Option<Likelihood>> {
        let none = || Error::config("nll", "a reference of images", "another reference");
        let real = self.images.as_ref().ok_or_else(none)?;
        let data = model.info.data;
        if data.kind != DataKind::Image || real.images.shape() != [data.channels, data.height, data.width] {
            let expected = format!("a model of images of {:?}, as the reference", real.images.shape());
            let got = format!("{:?}", [data.channels, data.height, data.width]);
            return Err(Error::config("nll", expected, got));
        }
        let own = real.part_of(world);
        let mut sum = LikelihoodSum::of_rank(times, own.start as u64, world)?;
        let mut part = Part::begin(progress, "likelihood", own.len() as u64, "images");
        let mut done = 0;
        real.for_each_batch_of(own, &mut |RealBatch { pixels, labels, places }| {
            let networks = (&model.network, model.spectrum.as_ref());
            sum.add(networks, (pixels, real.images.shape()), (places, labels), &self.device)?;
            done += labels.len() as u64;
            part.at(done)
        })?;
        let Some(sum) = sum.joined(world)? else { return Ok(None) };
        sum.likelihood().map(Some).ok_or_else(|| Error::config("reference", "at least 1 image", 0))
    }
}

/// The points `[n 2]` that processes have drawn, in order: what they have sent, or kept where they work apart ([`gmflow_world::Apart`]).
pub fn points_of_parts<B: AsRef<[u8]>>(parts: &[B]) -> Vec<[f32; 2]> {
    let points = parts.iter().flat_map(|part| part.as_ref().as_chunks::<8>().0);
    let point = |[a, b, c, d, e, f, g, h]: &[u8; 8]| {
        [f32::from_le_bytes([*a, *b, *c, *d]), f32::from_le_bytes([*e, *f, *g, *h])]
    };
    points.map(point).collect()
}

/// How many samples are computed at once where nothing else is asked for.
fn at_once(kind: DataKind) -> usize {
    if kind == DataKind::Points { POINTS_AT_ONCE } else { IMAGES_AT_ONCE }
}

/// What is drawn, and how.
struct Drawing<'a> {
    model: &'a Model,
    sampler: &'a SamplerConfig,
    options: DrawOptions,
    device: &'a Device,
    /// The part of the samples that this process draws.
    shard: Shard,
}

impl Drawing<'_> {
    /// Draws samples, decoded where they are latents, batch by batch; returns the seconds that it took.
    fn run(&self, num: usize, progress: &mut dyn Progress, take: &mut TakeSamples) -> Result<f64> {
        let Self { model, sampler, options, device, shard } = *self;
        let data = model.info.data;
        let batch = options.batch.unwrap_or(at_once(data.kind)).clamp(1, num.max(1));
        let classes = model.info.drawn_classes();
        let what = if data.kind == DataKind::Points { "points" } else { "images" };
        let own = share_of_batches(num, batch, shard.index(), shard.count());
        let mut part = Part::begin(progress, "sampling", own.len() as u64, what);
        let mut seconds = 0.0;
        for start in own.clone().step_by(batch) {
            let range = start..(start + batch).min(own.end);
            let seeds: Vec<u64> = range.clone().map(|index| options.seed.wrapping_add(index as u64)).collect();
            let labels: Vec<usize> =
                classes.iter().copied().cycle().skip(start % classes.len().max(1)).take(range.len()).collect();
            let wanted = Batch { seeds: &seeds, classes: (!classes.is_empty()).then_some(&labels[..]), noise: None };
            let begun = Instant::now();
            let values = sampler::draw(model, sampler, wanted, device, &mut |_, _| {})?;
            let (values, shape) = self.decoded(values, range.len())?;
            seconds += begun.elapsed().as_secs_f64();
            let names = model.info.classes.as_deref().filter(|_| !classes.is_empty()).unwrap_or_default();
            let asked: Vec<&str> = labels.iter().filter_map(|&label| names.get(label).map(String::as_str)).collect();
            take(&values, shape, &asked)?;
            part.at((range.end - own.start) as u64)?;
        }
        Ok(seconds)
    }

    /// The images of `n` latents; other samples as they are. With the shape of one.
    fn decoded(&self, values: Vec<f32>, n: usize) -> Result<(Vec<f32>, [usize; 3])> {
        let data = self.model.info.data;
        let [c, h, w] = [data.channels, data.height, data.width];
        let (Some(vae), Some(latent)) = (&self.model.vae, &self.model.info.latent) else {
            return Ok((values, [c, h, w]));
        };
        let decoder = Decoder { vae, latent, tiling: Tiling::default() };
        let latents = Tensor::from_data(TensorData::new(values, [n, c, h, w]), self.device);
        let images = decoder.decode(latents, &mut keep_going)?;
        let [_, c, h, w] = images.dims();
        Ok((sampler::values(images)?, [c, h, w]))
    }
}
