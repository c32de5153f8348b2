//! `gmflow sample`: from a checkpoint to files of samples.

mod decoder;
pub mod earlier;
pub mod files;
mod request;
mod stream;

use crate::args::SampleArgs;
use crate::checkpoint_path::resolve;
use crate::failure::{of_options, usage};
use crate::local;
use crate::output;
use crate::sampler;
use crate::terminal;
use crate::world::{Job, say_ranks};
use anyhow::Result;
use burn::tensor::Device;
use decoder::decode;
use files::{Files, Paths};
use gmflow::checkpoint::{DataKind, LoadOptions, Model, ModelInfo};
use gmflow::kernel::{MatmulPrecision, PrecisionChoice};
use gmflow::pipeline::SamplerConfig;
use gmflow::samples::Samples;
use gmflow_eval::models::{average, computed_in, stored_vae};
use gmflow_eval::sampler::{Batch, Source, describe, draw};
use gmflow_world::share_of_batches;
use request::Request;
use serde::Serialize;
use serde_json::{Value, json};
use std::ops::Range;
use std::sync::Arc;
use stream::{Stream, check_memory};

/// Latents that are drawn before any of them is decoded, so that the one network can make room for the other.
const LATENTS: usize = 4096;

/// The entry of a file that holds a part of the samples: which one.
pub const PART: &str = "part";

/// Runs the command.
pub fn run(arguments: &SampleArgs, job: &Job) -> Result<()> {
    let options = arguments.sampler.options();
    options.check().map_err(of_options)?;
    if arguments.class.iter().any(|class| class.trim().is_empty()) {
        return Err(usage("--class", "a label, a synonym or an index", "nothing"));
    }
    let device = job.device(&arguments.device.name)?;
    local::expect_beside(&arguments.checkpoint, arguments.model.vae.iter().chain(&arguments.noise))?;
    let folder = resolve(&arguments.checkpoint, &arguments.model.published)?;
    let info = ModelInfo::load(&folder)?;
    let sampler = sampler::config(&options, &info)?;
    let files = Files::plan(arguments, info.data.kind)?.of_part(arguments.shard.shard)?;
    let counts = Request::counts(arguments, &info)?;
    check_memory(arguments, &info, &files, (counts.0, counts.1, sampler.guidance.is_active()), &device)?;
    let request = Request::new(arguments, &info)?;
    let shard = job.shard(arguments.shard.shard);
    // Whole batches, so that every sample is computed beside the same others as in one process.
    let range = share_of_batches(request.count, request.batch, shard.index(), shard.count());
    let batches = request.count.div_ceil(request.batch);
    if arguments.shard.shard.is_some() && shard.count() > batches {
        let expected = format!("at most {batches} parts, the number of batches (--batch)");
        return Err(usage("--shard", expected, shard));
    }
    let (first, count) = match arguments.shard.shard {
        Some(_) => (arguments.sampler.seed.wrapping_add(range.start as u64), range.len()),
        None => (arguments.sampler.seed, request.count),
    };
    let paths = files.paths(first, count);
    let average = average(&folder, arguments.model.ema.as_deref()).map_err(of_options)?;
    let chosen = info.network.for_sampling(arguments.model.precision(), &device);
    let precision = computed_in(job.of_first(chosen.into())?, &info, &device);
    let source = Source {
        checkpoint: &folder,
        ema: average.as_deref(),
        variant: arguments.model.published.variant.as_deref(),
        vae: arguments.model.vae.as_deref(),
        noise: arguments.noise.as_deref(),
        latents: arguments.latents,
        precision,
    };
    let mut made_by = source.made_by(describe(&sampler, info.data.kind));
    let is_part_of_a_file = arguments.shard.shard.is_some() && matches!(files, Files::Array { .. });
    if is_part_of_a_file {
        made_by[PART] = json!(shard.name());
    }
    let names_are_ours = !is_part_of_a_file && !paths.contains(&arguments.out);
    let in_folder = names_are_ours.then_some(arguments.out.as_path());
    // One process looks, before any has written.
    let outdated = match job.is_first() {
        true => earlier::check(paths, in_folder, &made_by, arguments.force).and_then(|outdated| match &files {
            Files::Images(folder) => earlier::refuse_pictures_of_others(folder).map(|()| outdated),
            _ => Ok(outdated),
        }),
        false => Ok(Vec::new()),
    };
    let outdated = job.agree(outdated)?;
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
    say_ranks(job.world().as_ref(), &format!("{} samples in batches of {}", request.count, request.batch));
    let mut stream = Stream::new(&files, outdated);
    let drawing = Drawing {
        request: &request,
        model: &model,
        sampler: &sampler,
        device: &device,
        made_by: &made_by,
        range: range.clone(),
        ranks: job.world().size(),
    };
    match (vae, &info.latent) {
        (Some(vae), Some(latent)) if range.len() <= LATENTS => {
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
    stream.finish(job.world().as_ref(), |values, shape| Samples {
        values,
        shape,
        points: info.data.kind == DataKind::Points,
        seeds: request.seeds(0..request.count),
        classes: request.classes(0..request.count),
        class_names: info.classes.clone().unwrap_or_default().into(),
        made_by: made_by.clone(),
    })?;
    job.wait()?;
    report(arguments, (info.data.kind, count, precision), &made_by, paths)
}

/// What is drawn, and how.
struct Drawing<'a> {
    request: &'a Request,
    model: &'a Model,
    sampler: &'a SamplerConfig,
    device: &'a Device,
    made_by: &'a Value,
    /// The samples that this process draws.
    range: Range<usize>,
    /// Processes that draw at the same time.
    ranks: usize,
}

impl Drawing<'_> {
    /// Draws batch by batch and hands every batch over.
    fn run(&self, take: &mut dyn FnMut(Samples) -> Result<()>) -> Result<()> {
        let Self { request, model, sampler, device, made_by, ranks, .. } = *self;
        let data = model.info.data;
        let shape = [data.channels, data.height, data.width];
        let (own, size) = (self.range.clone(), shape.iter().product::<usize>());
        let steps = sampler.steps;
        let what = if data.kind == DataKind::Points { "points" } else { "images" };
        // The rate is that of all processes, which draw about as many.
        let bar = terminal::rate(
            0,
            own.len().saturating_mul(steps) as u64,
            "sampling",
            (what, steps as f64 / ranks as f64),
        );
        let class_names: Arc<[String]> = model.info.classes.clone().unwrap_or_default().into();
        for start in own.clone().step_by(request.batch) {
            let range = start..start.saturating_add(request.batch).min(own.end);
            let (seeds, classes) = (request.seeds(range.clone()), request.classes(range.clone()));
            let wanted = Batch {
                seeds: &seeds,
                classes: classes.as_deref(),
                noise: request.noise.as_ref().map(|noise| &noise[range.start * size..range.end * size]),
            };
            let mut progress = |done, _| bar.set_position(((start - own.start) * steps + range.len() * done) as u64);
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

fn report(
    arguments: &SampleArgs,
    (kind, num, precision): (DataKind, usize, MatmulPrecision),
    made_by: &Value,
    paths: Paths,
) -> Result<()> {
    if arguments.json {
        return output::json(&Report { num, files: paths, sampling: made_by });
    }
    let what = if kind == DataKind::Points { "points" } else { "images" };
    // What was chosen here, and might be another on another machine.
    let is_chosen = arguments.model.precision() == PrecisionChoice::Auto && precision != MatmulPrecision::F32;
    let chosen = match json!(precision).as_str() {
        Some(name) if is_chosen => format!(" (computed in {name}, the fastest here; --precision f32 is more exact)"),
        _ => String::new(),
    };
    let mut files = paths.iter();
    let place = match (files.next(), files.next()) {
        (Some(path), None) => path,
        _ => arguments.out.clone(),
    };
    output::line(&format!("{num} {what} in {}{chosen}", place.display()))
}
