//! `gmflow sample`: from a checkpoint to files of samples.

mod decoder;
mod earlier;
mod files;
mod request;
mod stream;

pub use decoder::find_vae;

use crate::args::SampleArgs;
use crate::checkpoint_path::resolve;
use crate::device::device;
use crate::failure::usage;
use crate::local;
use crate::output;
use crate::sampler::{ModelTraits, Sampler, Wanted};
use crate::terminal;
use anyhow::Result;
use burn::tensor::Device;
use decoder::{decode, stored_vae};
use files::{Files, Paths};
use gmflow::checkpoint::{DataKind, LoadOptions, Model, ModelInfo};
use gmflow::kernel::Arithmetic;
use request::Request;
use serde::Serialize;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;
use stream::{Stream, check_memory};

/// Latents that are drawn before any of them is decoded, so that the one network can make room for the other.
const LATENTS: usize = 4096;

/// Samples with all that is known of them.
pub struct Drawn {
    /// Values `[n c h w]`.
    pub values: Vec<f32>,
    /// Channels, height, width.
    pub shape: [usize; 3],
    /// Points in the plane rather than images.
    pub points: bool,
    /// One seed per sample.
    pub seeds: Vec<u64>,
    /// One class per sample, of models with classes.
    pub classes: Option<Vec<usize>>,
    /// Names of the classes, where the model has them.
    pub class_names: Arc<[String]>,
    /// How the samples were made, all but seed and class.
    pub made_by: Value,
}

/// Runs the command.
pub fn run(arguments: &SampleArgs) -> Result<()> {
    arguments.sampler.check()?;
    if arguments.class.iter().any(|class| class.trim().is_empty()) {
        return Err(usage("--class", "a label, a synonym or an index", "nothing"));
    }
    let device = device(&arguments.device.name)?;
    local::expect_beside(&arguments.checkpoint, arguments.model.vae.iter().chain(&arguments.noise))?;
    let folder = resolve(&arguments.checkpoint, &arguments.model.published)?;
    let info = ModelInfo::load(&folder)?;
    let traits = ModelTraits::of(&info);
    let sampler = Sampler::new(&arguments.sampler, traits)?;
    let files = Files::plan(arguments, info.data.kind)?;
    let counts = Request::counts(arguments, &info)?;
    check_memory(arguments, &info, &files, (counts.0, counts.1, sampler.config().guidance.is_active()), &device)?;
    let request = Request::new(arguments, &info)?;
    let paths = files.paths(arguments.seed, request.count);
    let average = average(&folder, arguments.model.ema.as_deref())?;
    let precision = computed_in(arguments.model.precision, &info, &device);
    let is_points = info.data.kind == DataKind::Points;
    let mut made_by = made_by(arguments, &folder, average.as_deref(), sampler.describe(is_points));
    made_by["precision"] = json!(precision);
    let names_are_ours = !paths.contains(&arguments.out);
    let in_folder = names_are_ours.then_some(arguments.out.as_path());
    let outdated = earlier::check(paths, in_folder, &made_by, arguments.force)?;
    let options = LoadOptions {
        ema: average.as_deref(),
        variant: arguments.model.published.variant.as_deref(),
        without_vae: true,
        pack: Some(precision),
        unverified: arguments.model.published.no_verify,
    };
    let vae = if info.data.kind == DataKind::Latents && !arguments.latents {
        Some(stored_vae(&info, Some((&folder, options.variant)), arguments.model.vae.as_deref())?)
    } else {
        None
    };
    let model = Model::load_with(&folder, options, &device)?;
    files.create_folder()?;
    let mut stream = Stream::new(&files, outdated);
    let drawing = Drawing { request: &request, model: &model, sampler: &sampler, device: &device, made_by: &made_by };
    match (vae, &info.latent) {
        (Some(vae), Some(latent)) if request.count <= LATENTS => {
            let mut latents: Option<Drawn> = None;
            drawing.run(&mut |batch| {
                match &mut latents {
                    Some(latents) => latents.append(batch),
                    none => *none = Some(batch),
                }
                Ok(())
            })?;
            drop((model.network, model.spectrum));
            let decoder = (&vae.load(&device)?, latent, arguments.vae_tile);
            latents.map_or(Ok(()), |latents| decode(latents, decoder, &device, &mut |image| stream.take(image)))?;
        }
        (Some(vae), Some(latent)) => {
            let decoder = (&vae.load(&device)?, latent, arguments.vae_tile);
            drawing.run(&mut |batch| decode(batch, decoder, &device, &mut |image| stream.take(image)))?;
        }
        _ => drawing.run(&mut |batch| stream.take(batch))?,
    }
    stream.finish()?;
    report(arguments, (info.data.kind, request.count), &made_by, paths)
}

/// What the network of a model is computed in, with a warning where that is not what is asked for.
pub fn computed_in(asked: Arithmetic, info: &ModelInfo, device: &Device) -> Arithmetic {
    let (precision, why_not) = info.network.computed_in(asked, device);
    if let Some(why) = why_not {
        let asked = json!(asked);
        log::warn!(
            "precision {}: {why}; it is computed in f32, and recorded as f32",
            asked.as_str().unwrap_or_default()
        );
    }
    precision
}

/// The moving average to load: the one that is asked for, or the first by name; `None` for the weights themselves.
pub fn average(folder: &Path, asked: Option<&str>) -> Result<Option<String>> {
    let names = Model::ema_names(folder)?;
    match asked {
        None => Ok(names.into_iter().next()),
        Some("none") => Ok(None),
        Some(name) if names.iter().any(|known| known == name) => Ok(Some(name.to_owned())),
        Some(name) => Err(usage("--ema", [&names[..], &["none".to_owned()]].concat().join(" or "), name)),
    }
}

/// What is drawn, and how.
struct Drawing<'a> {
    request: &'a Request,
    model: &'a Model,
    sampler: &'a Sampler,
    device: &'a Device,
    made_by: &'a Value,
}

impl Drawing<'_> {
    /// Draws batch by batch and hands every batch over.
    fn run(&self, take: &mut dyn FnMut(Drawn) -> Result<()>) -> Result<()> {
        let Self { request, model, sampler, device, made_by } = *self;
        let data = model.info.data;
        let shape = [data.channels, data.height, data.width];
        let (count, size) = (request.count, shape.iter().product::<usize>());
        let steps = sampler.config().steps;
        let what = if data.kind == DataKind::Points { "points" } else { "images" };
        let bar = terminal::rate(0, count.saturating_mul(steps) as u64, "sampling", (what, steps as f64));
        let class_names: Arc<[String]> = model.info.classes.clone().unwrap_or_default().into();
        for start in (0..count).step_by(request.batch) {
            let range = start..start.saturating_add(request.batch).min(count);
            let (seeds, classes) = (request.seeds(range.clone()), request.classes(range.clone()));
            let wanted = Wanted {
                seeds: &seeds,
                classes: classes.as_deref(),
                noise: request.noise.as_ref().map(|noise| &noise[range.start * size..range.end * size]),
                device,
            };
            let mut progress = |done, _| bar.set_position((start * steps + range.len() * done) as u64);
            take(Drawn {
                values: sampler.draw(model, wanted, &mut progress)?,
                shape,
                points: data.kind == DataKind::Points,
                seeds,
                classes,
                class_names: Arc::clone(&class_names),
                made_by: made_by.clone(),
            })?;
        }
        bar.finish_and_clear();
        Ok(())
    }
}

impl Drawn {
    /// Adds the samples of another batch behind these.
    fn append(&mut self, batch: Self) {
        self.values.extend(batch.values);
        self.seeds.extend(batch.seeds);
        if let (Some(classes), Some(more)) = (&mut self.classes, batch.classes) {
            classes.extend(more);
        }
    }

    /// Sample `index` alone, with other values.
    fn one(&self, index: usize, values: Vec<f32>, shape: [usize; 3]) -> Self {
        Self {
            values,
            shape,
            points: self.points,
            seeds: self.seeds.get(index).copied().into_iter().collect(),
            classes: self.classes.as_ref().map(|classes| classes.get(index).copied().into_iter().collect()),
            class_names: Arc::clone(&self.class_names),
            made_by: self.made_by.clone(),
        }
    }
}

/// How the samples are made, all but seed and class.
fn made_by(arguments: &SampleArgs, folder: &Path, average: Option<&str>, sampler: Value) -> Value {
    let mut made_by = sampler;
    made_by["checkpoint"] = json!(folder);
    made_by["ema"] = json!(average);
    if let Some(variant) = &arguments.model.published.variant {
        made_by["variant"] = json!(variant);
    }
    if let Some(vae) = &arguments.model.vae {
        made_by["vae"] = json!(vae);
    }
    made_by["noise"] = json!(arguments.noise);
    if arguments.latents {
        made_by["latents"] = json!(true);
    }
    made_by["gmflow"] = json!(env!("CARGO_PKG_VERSION"));
    made_by
}

/// What was written, as JSON.
#[derive(Serialize)]
struct Report<'a> {
    num: usize,
    files: Paths<'a>,
    sampling: &'a Value,
}

fn report(arguments: &SampleArgs, (kind, num): (DataKind, usize), made_by: &Value, paths: Paths) -> Result<()> {
    if arguments.json {
        return output::json(&Report { num, files: paths, sampling: made_by });
    }
    let what = if kind == DataKind::Points { "points" } else { "images" };
    let mut files = paths.iter();
    match (files.next(), files.next()) {
        (Some(path), None) => output::line(&format!("{num} {what} in {}", path.display())),
        _ => output::line(&format!("{num} {what} in {}", arguments.out.display())),
    }
}
