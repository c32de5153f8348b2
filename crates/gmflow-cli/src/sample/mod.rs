//! `gmflow sample`: from a checkpoint to files of samples.

mod decoder;
mod earlier;
mod files;
mod request;

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
use files::Files;
use gmflow::checkpoint::{DataKind, LoadOptions, Model, ModelInfo};
use gmflow::kernel::Arithmetic;
use request::Request;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

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
    pub class_names: Vec<String>,
    /// How the samples were made, all but seed and class.
    pub made_by: Value,
}

/// Runs the command.
pub fn run(arguments: &SampleArgs) -> Result<()> {
    arguments.sampler.check()?;
    if arguments.class.iter().any(|class| class.trim().is_empty()) {
        return Err(usage("--class", "a label, a synonym or an index", "nothing"));
    }
    let device = device(&arguments.device)?;
    local::expect_beside(&arguments.checkpoint, arguments.vae.iter().chain(&arguments.noise))?;
    let folder = resolve(&arguments.checkpoint, &arguments.published)?;
    let info = ModelInfo::load(&folder)?;
    let traits = ModelTraits::of(&info);
    let sampler = Sampler::new(&arguments.sampler, traits)?;
    let files = Files::plan(arguments, info.data.kind)?;
    let request = Request::new(arguments, &info)?;
    let paths = files.paths(&request.seeds);
    let average = average(&folder, arguments.ema.as_deref())?;
    let precision = computed_in(arguments.precision.into(), &info, &device);
    let is_points = info.data.kind == DataKind::Points;
    let mut made_by = made_by(arguments, &folder, average.as_deref(), sampler.describe(is_points));
    made_by["precision"] = json!(precision);
    let names_are_ours = !paths.contains(&arguments.out);
    let in_folder = names_are_ours.then_some(arguments.out.as_path());
    let outdated = earlier::check(&paths, in_folder, &made_by, arguments.force)?;
    let options = LoadOptions {
        ema: average.as_deref(),
        variant: arguments.published.variant.as_deref(),
        without_vae: true,
        pack: Some(precision),
        unverified: arguments.published.no_verify,
    };
    let vae = if info.data.kind == DataKind::Latents && !arguments.latents {
        Some(stored_vae(&info, Some((&folder, options.variant)), arguments.vae.as_deref())?)
    } else {
        None
    };
    let model = Model::load_with(&folder, options, &device)?;
    files.create_folder()?;
    let mut drawn = draw(request, &model, &sampler, &device, made_by)?;
    // The one network makes room for the other.
    let info = model.info;
    drop((model.network, model.spectrum));
    if let (Some(vae), Some(latent)) = (vae, &info.latent) {
        decode(&mut drawn, &vae.load(&device)?, latent, arguments.vae_tile, &device)?;
    }
    if !outdated.is_empty() {
        log::warn!("{}: {} samples of other settings are removed", arguments.out.display(), outdated.len());
        outdated.iter().try_for_each(|path| output::remove_file(path))?;
    }
    files.write(&drawn)?;
    report(arguments, &drawn, &paths)
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

fn draw(request: Request, model: &Model, sampler: &Sampler, device: &Device, made_by: Value) -> Result<Drawn> {
    let data = model.info.data;
    let shape = [data.channels, data.height, data.width];
    let (count, size) = (request.seeds.len(), shape.iter().product::<usize>());
    let steps = sampler.config().steps;
    let what = if data.kind == DataKind::Points { "points" } else { "images" };
    let bar = terminal::rate(0, (count * steps) as u64, "sampling", (what, steps as f64));
    let mut values = Vec::with_capacity(count * size);
    for start in (0..count).step_by(request.batch) {
        let range = start..(start + request.batch).min(count);
        let wanted = Wanted {
            seeds: &request.seeds[range.clone()],
            classes: request.classes.as_ref().map(|classes| &classes[range.clone()]),
            noise: request.noise.as_ref().map(|noise| &noise[range.start * size..range.end * size]),
            device,
        };
        let mut progress = |done, _| bar.set_position((start * steps + range.len() * done) as u64);
        values.extend(sampler.draw(model, wanted, &mut progress)?);
    }
    bar.finish_and_clear();
    Ok(Drawn {
        values,
        shape,
        points: data.kind == DataKind::Points,
        seeds: request.seeds,
        classes: request.classes,
        class_names: model.info.classes.clone().unwrap_or_default(),
        made_by,
    })
}

/// How the samples are made, all but seed and class.
fn made_by(arguments: &SampleArgs, folder: &Path, average: Option<&str>, sampler: Value) -> Value {
    let mut made_by = sampler;
    made_by["checkpoint"] = json!(folder);
    made_by["ema"] = json!(average);
    if let Some(variant) = &arguments.published.variant {
        made_by["variant"] = json!(variant);
    }
    if let Some(vae) = &arguments.vae {
        made_by["vae"] = json!(vae);
    }
    made_by["noise"] = json!(arguments.noise);
    if arguments.latents {
        made_by["latents"] = json!(true);
    }
    made_by["gmflow"] = json!(env!("CARGO_PKG_VERSION"));
    made_by
}

fn report(arguments: &SampleArgs, drawn: &Drawn, paths: &[PathBuf]) -> Result<()> {
    let count = drawn.seeds.len();
    if arguments.json {
        return output::json(&json!({"num": count, "files": paths, "sampling": drawn.made_by}));
    }
    let what = if drawn.points { "points" } else { "images" };
    match paths {
        [path] => output::line(&format!("{count} {what} in {}", path.display())),
        _ => output::line(&format!("{count} {what} in {}", arguments.out.display())),
    }
}
