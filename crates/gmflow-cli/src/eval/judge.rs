//! Samples drawn from a checkpoint and measured on the way.

use super::row::{ReferenceInfo, Row};
use super::source::for_images;
use crate::failure::usage;
use crate::sampler::{Sampler, Wanted};
use crate::terminal;
use anyhow::{Result, anyhow};
use burn::tensor::{Device, Tensor, TensorData};
use gmflow::checkpoint::{DataKind, Model};
use gmflow::kernel::Arithmetic;
use gmflow::limits::{self, Need};
use gmflow::network::Tiling;
use gmflow::pipeline::Decoder;
use gmflow_data::{Corrupt, Density, ImageDataset};
use gmflow_eval::features::FeatureNetwork;
use gmflow_eval::points::{PointsConfig, PointsDistance};
use gmflow_eval::{CompareConfig, Likelihood, LikelihoodSum, SampleSet, SetBuilder, check_covariances, compare};
use std::sync::Arc;
use std::time::Instant;

/// Images and points computed at once where nothing else is asked for.
const IMAGES_AT_ONCE: usize = 64;
const POINTS_AT_ONCE: usize = 4096;
/// Most samples that are drawn where nothing else is asked for.
const MOST: u64 = 10_000;

/// Takes samples `[n c h w]`, the shape of one, and the names of the classes that were asked for, where they have names.
type TakeSamples<'a> = dyn FnMut(&[f32], [usize; 3], &[&str]) -> Result<()> + 'a;

/// Real images, for likelihoods.
pub struct RealImages {
    pub images: Arc<dyn ImageDataset>,
    pub corrupt: Corrupt,
    pub count: usize,
}

/// What samples are compared with.
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
    pub reference: Reference,
    pub network: Option<FeatureNetwork>,
    pub config: CompareConfig,
    pub device: Device,
}

/// Which samples to draw.
#[derive(Clone, Copy)]
pub struct Order {
    /// How many; none for as many as the reference has.
    pub num: Option<usize>,
    pub seed: u64,
    pub batch: Option<usize>,
}

impl Judge {
    /// The row of a set of samples that is there already.
    pub fn set(&self, name: String, fake: &SampleSet) -> Result<Row> {
        let Reference::Set(real) = &self.reference else {
            return Err(usage("--fake", "points, for a density", "images"));
        };
        let bar = terminal::bar(1, "comparing", "parts");
        let metrics = compare(real, fake, self.config, &mut |done, of| {
            bar.set_length(of as u64);
            bar.set_position(done as u64);
        })?;
        bar.finish_and_clear();
        Ok(Row {
            metrics: Some(metrics),
            features: Some(real.info.features.clone()),
            ..self.row(name, fake.info.count)
        })
    }

    /// The row of points that are there already.
    pub fn points(&self, name: String, points: &[f32]) -> Result<Row> {
        let Reference::Density(density, _) = &self.reference else {
            return Err(usage("--fake", "images, as the reference", "points"));
        };
        let pairs: Vec<[f32; 2]> = points.as_chunks::<2>().0.to_vec();
        let distance = PointsDistance::of(&pairs, density, PointsConfig::default())?;
        Ok(Row { points: Some(distance), ..self.row(name, pairs.len() as u64) })
    }

    fn row(&self, fake: String, samples: u64) -> Row {
        Row {
            fake,
            components: None,
            sampler: None,
            precision: Arithmetic::F32,
            seed: None,
            samples,
            reference: self.reference.info(),
            features: None,
            metrics: None,
            points: None,
            likelihood: None,
            seconds: None,
        }
    }

    /// Draws samples from a model and measures them. Images are not kept, only their features; points are shown to `see`.
    pub fn checkpoint(
        &self,
        name: String,
        (model, precision): (&Model, Arithmetic),
        sampler: &Sampler,
        order: Order,
        see: &mut dyn FnMut(&[[f32; 2]]),
    ) -> Result<Row> {
        let kind = model.info.data.kind;
        self.check_memory(model, sampler, order)?;
        let seconds;
        let row = match (&self.reference, kind) {
            (Reference::Density(..), DataKind::Points) => {
                let mut points = Vec::new();
                let num = order.num.unwrap_or(MOST as usize);
                seconds = self.draw(model, sampler, (num, order), &mut |values, _, _| {
                    points.extend_from_slice(values);
                    Ok(())
                })?;
                see(points.as_chunks::<2>().0);
                self.points(name, &points)?
            }
            (Reference::Set(real), DataKind::Image | DataKind::Latents) => {
                let network = self.network.as_ref().ok_or_else(|| {
                    usage("--features", "features that can be computed of samples", &real.info.features.network)
                })?;
                let num = order.num.unwrap_or(real.info.count.min(MOST) as usize);
                let keep = !self.config.moments_only;
                let mut builder: Option<SetBuilder> = None;
                seconds = self.draw(model, sampler, (num, order), &mut |values, shape, asked| {
                    let builder = builder.get_or_insert_with(|| SetBuilder::new(network, shape, keep));
                    Ok(builder.add_asked(values, asked)?)
                })?;
                let builder = builder.ok_or_else(|| usage("--num", "at least 2", 0))?;
                self.set(name.clone(), &builder.finish(name, Vec::new())?)?
            }
            (Reference::Density(..), _) => {
                return Err(usage("--fake", "a model of points, for a density", "one of images"));
            }
            (Reference::Set(_), _) => {
                return Err(usage("--fake", "a model of images, as the reference", "one of points"));
            }
        };
        Ok(Row {
            components: Some(model.info.network.num_gaussians()),
            sampler: Some(sampler.describe(kind == DataKind::Points)),
            precision,
            seed: Some(order.seed),
            seconds: Some(seconds),
            ..row
        })
    }

    /// Refuses what does not fit in memory before the first sample is drawn: a batch in the network, and what is kept of all samples.
    fn check_memory(&self, model: &Model, sampler: &Sampler, order: Order) -> Result<()> {
        let data = model.info.data;
        let points = data.kind == DataKind::Points;
        let batch = order.batch.unwrap_or(if points { POINTS_AT_ONCE } else { IMAGES_AT_ONCE });
        let rows = batch.saturating_mul(if sampler.config().guidance.is_active() { 2 } else { 1 });
        let shape = [data.channels, data.height, data.width];
        limits::prediction(&model.info.network, shape, rows, &self.device)?.check(
            "--batch",
            batch,
            "lower --batch",
        )?;
        let num = order.num.unwrap_or(0);
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
        Ok(need.check("--num", num, "lower --num, or leave out what needs all features (--moments-only)")?)
    }

    /// Draws samples, decoded where they are latents, batch by batch; returns the seconds that it took.
    fn draw(
        &self,
        model: &Model,
        sampler: &Sampler,
        (num, order): (usize, Order),
        take: &mut TakeSamples,
    ) -> Result<f64> {
        let data = model.info.data;
        let shape = [data.channels, data.height, data.width];
        let at_once = if data.kind == DataKind::Points { POINTS_AT_ONCE } else { IMAGES_AT_ONCE };
        let batch = order.batch.unwrap_or(at_once).min(num.max(1));
        let classes = model.info.drawn_classes();
        let what = if data.kind == DataKind::Points { "points" } else { "images" };
        let bar = terminal::bar(num as u64, "sampling", what);
        let mut seconds = 0.0;
        for start in (0..num).step_by(batch) {
            let range = start..(start + batch).min(num);
            let seeds: Vec<u64> = range.clone().map(|index| order.seed.wrapping_add(index as u64)).collect();
            let labels: Vec<usize> =
                classes.iter().copied().cycle().skip(start % classes.len().max(1)).take(range.len()).collect();
            let wanted = Wanted {
                seeds: &seeds,
                classes: (!classes.is_empty()).then_some(&labels[..]),
                noise: None,
                device: &self.device,
            };
            let begun = Instant::now();
            let values = sampler.draw(model, wanted, &mut |_, _| {})?;
            let (values, shape) = decoded(values, (range.len(), shape), model, &self.device)?;
            seconds += begun.elapsed().as_secs_f64();
            let names = model.info.classes.as_deref().filter(|_| !classes.is_empty()).unwrap_or_default();
            let asked: Vec<&str> = labels.iter().filter_map(|&label| names.get(label).map(String::as_str)).collect();
            take(&values, shape, &asked)?;
            bar.set_position(range.end as u64);
        }
        bar.finish_and_clear();
        Ok(seconds)
    }

    /// The likelihood of real images under a model, each at `times` times.
    pub fn likelihood(&self, model: &Model, real: &RealImages, times: usize) -> Result<Likelihood> {
        let data = model.info.data;
        if data.kind != DataKind::Image || real.images.shape() != [data.channels, data.height, data.width] {
            let expected = format!("a model of images of {:?}, as the reference", real.images.shape());
            let got = format!("{:?}", [data.channels, data.height, data.width]);
            return Err(usage("--nll", expected, got));
        }
        let mut sum = LikelihoodSum::new(times)?;
        let bar = terminal::bar(real.count as u64, "likelihood", "images");
        let mut index = 0;
        for_images(real.images.as_ref(), real.corrupt, real.count, &mut |pixels, labels| {
            let seeds: Vec<u64> = (index..index + labels.len() as u64).collect();
            let networks = (&model.network, model.spectrum.as_ref());
            sum.add(networks, (pixels, real.images.shape()), (&seeds, labels), &self.device)?;
            index += labels.len() as u64;
            bar.set_position(index);
            Ok(())
        })?;
        bar.finish_and_clear();
        sum.likelihood().ok_or_else(|| anyhow!("the reference has no images"))
    }
}

/// Images of latents; other samples as they are.
fn decoded(
    values: Vec<f32>,
    (n, shape): (usize, [usize; 3]),
    model: &Model,
    device: &Device,
) -> Result<(Vec<f32>, [usize; 3])> {
    let (Some(vae), Some(latent)) = (&model.vae, &model.info.latent) else { return Ok((values, shape)) };
    let [c, h, w] = shape;
    let decoder = Decoder { vae, latent, tiling: Tiling::default() };
    let images = decoder.decode(Tensor::from_data(TensorData::new(values, [n, c, h, w]), device), &mut |_, _| {})?;
    let [_, c, h, w] = images.dims();
    let values = images.into_data().try_into_vec();
    Ok((values.map_err(|error| anyhow!("the images cannot be read: {error:?}"))?, [c, h, w]))
}
