//! `gmflow sample`: from a checkpoint to files of samples.

mod decoder;
mod earlier;
mod files;
mod request;
mod stream;

use crate::args::SampleArgs;
use crate::checkpoint_path::resolve;
use crate::device::device;
use crate::failure::{of_options, usage};
use crate::local;
use crate::output;
use crate::sampler;
use crate::terminal;
use anyhow::Result;
use burn::tensor::Device;
use decoder::decode;
use files::{Files, Paths};
use gmflow::checkpoint::{DataKind, LoadOptions, Model, ModelInfo};
use gmflow::pipeline::SamplerConfig;
use gmflow::samples::Samples;
use gmflow_eval::models::{average, computed_in, stored_vae};
use gmflow_eval::sampler::{Batch, Source, describe, draw};
use request::Request;
use serde::Serialize;
use serde_json::Value;
use std::sync::Arc;
use stream::{Stream, check_memory};

/// Latents that are drawn before any of them is decoded, so that the one network can make room for the other.
const LATENTS: usize = 4096;

/// Runs the command.
pub fn run(arguments: &SampleArgs) -> Result<()> {
    let options = arguments.sampler.options();
    options.check().map_err(of_options)?;
    if arguments.class.iter().any(|class| class.trim().is_empty()) {
        return Err(usage("--class", "a label, a synonym or an index", "nothing"));
    }
    let device = device(&arguments.device.name)?;
    local::expect_beside(&arguments.checkpoint, arguments.model.vae.iter().chain(&arguments.noise))?;
    let folder = resolve(&arguments.checkpoint, &arguments.model.published)?;
    let info = ModelInfo::load(&folder)?;
    let sampler = sampler::config(&options, &info)?;
    let files = Files::plan(arguments, info.data.kind)?;
    let counts = Request::counts(arguments, &info)?;
    check_memory(arguments, &info, &files, (counts.0, counts.1, sampler.guidance.is_active()), &device)?;
    let request = Request::new(arguments, &info)?;
    let paths = files.paths(arguments.sampler.seed, request.count);
    let average = average(&folder, arguments.model.ema.as_deref()).map_err(of_options)?;
    let precision = computed_in(arguments.model.precision, &info, &device);
    let source = Source {
        checkpoint: &folder,
        ema: average.as_deref(),
        variant: arguments.model.published.variant.as_deref(),
        vae: arguments.model.vae.as_deref(),
        noise: arguments.noise.as_deref(),
        latents: arguments.latents,
        precision,
    };
    let made_by = source.made_by(describe(&sampler, info.data.kind));
    let names_are_ours = !paths.contains(&arguments.out);
    let in_folder = names_are_ours.then_some(arguments.out.as_path());
    let outdated = earlier::check(paths, in_folder, &made_by, arguments.force)?;
    if let Files::Images(folder) = &files {
        earlier::refuse_pictures_of_others(folder)?;
    }
    let options = LoadOptions {
        ema: average.as_deref(),
        variant: arguments.model.published.variant.as_deref(),
        without_vae: true,
        pack: Some(precision),
        unverified: arguments.model.published.no_verify,
    };
    let vae = if info.data.kind == DataKind::Latents && !arguments.latents {
        let stored = stored_vae(&info, Some((&folder, options.variant)), arguments.model.vae.as_deref());
        Some(stored.map_err(of_options)?)
    } else {
        None
    };
    let model = Model::load_with(&folder, options, &device)?;
    files.create_folder()?;
    let mut stream = Stream::new(&files, outdated);
    let drawing = Drawing { request: &request, model: &model, sampler: &sampler, device: &device, made_by: &made_by };
    match (vae, &info.latent) {
        (Some(vae), Some(latent)) if request.count <= LATENTS => {
            let mut latents: Option<Samples> = None;
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

/// What is drawn, and how.
struct Drawing<'a> {
    request: &'a Request,
    model: &'a Model,
    sampler: &'a SamplerConfig,
    device: &'a Device,
    made_by: &'a Value,
}

impl Drawing<'_> {
    /// Draws batch by batch and hands every batch over.
    fn run(&self, take: &mut dyn FnMut(Samples) -> Result<()>) -> Result<()> {
        let Self { request, model, sampler, device, made_by } = *self;
        let data = model.info.data;
        let shape = [data.channels, data.height, data.width];
        let (count, size) = (request.count, shape.iter().product::<usize>());
        let steps = sampler.steps;
        let what = if data.kind == DataKind::Points { "points" } else { "images" };
        let bar = terminal::rate(0, count.saturating_mul(steps) as u64, "sampling", (what, steps as f64));
        let class_names: Arc<[String]> = model.info.classes.clone().unwrap_or_default().into();
        for start in (0..count).step_by(request.batch) {
            let range = start..start.saturating_add(request.batch).min(count);
            let (seeds, classes) = (request.seeds(range.clone()), request.classes(range.clone()));
            let wanted = Batch {
                seeds: &seeds,
                classes: classes.as_deref(),
                noise: request.noise.as_ref().map(|noise| &noise[range.start * size..range.end * size]),
            };
            let mut progress = |done, _| bar.set_position((start * steps + range.len() * done) as u64);
            take(Samples {
                values: draw(model, sampler, wanted, device, &mut progress)?,
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
