//! `gmflow eval`: samples and models against real data.

pub mod features;
pub mod source;
pub mod stats;

use crate::args::EvalArgs;
use crate::checkpoint_path::resolve;
use crate::failure::{of_options, usage};
use crate::local::{self, Near};
use crate::output;
use crate::sampler;
use crate::table::{Form, tables};
use crate::terminal::Parts;
use crate::world::{Job, unreadable};
use anyhow::{Context, Result};
use burn::tensor::Device;
use gmflow::checkpoint::hub::HubId;
use gmflow::checkpoint::{DataKind, model_folder, write_atomic};
use gmflow::kernel;
use gmflow_eval::arrays::Samples;
use gmflow_eval::features::FeatureNetwork;
use gmflow_eval::images::RealImages;
use gmflow_eval::{CompareConfig, DrawOptions, Judge, KernelDistanceConfig, LoadedModel, Neighbours, Reference, Row};
use gmflow_world::World;
use source::{PRECOMPUTED, Reading, Source};
use std::path::{Path, PathBuf};

/// Runs the command.
pub fn run(arguments: &EvalArgs, job: &Job) -> Result<()> {
    arguments.sampler.options().check().map_err(of_options)?;
    // Another ending could be that of the table beside it.
    arguments.out.as_deref().map_or(Ok(()), |out| output::require_ending(out, "json"))?;
    let markdown = arguments.out.as_ref().map(|out| out.with_extension("md"));
    let files = arguments.out.iter().chain(&markdown).map(|path| path.as_path());
    output::refuse_existing(files, arguments.overwrite.force)?;
    expect_local(arguments)?;
    let device = job.device(&arguments.device.name)?;
    let rows = kernel::in_pool(|| rows(arguments, &device, job.world().as_ref()))?;
    if !job.is_first() {
        return Ok(());
    }
    if let (Some(out), Some(markdown)) = (&arguments.out, &markdown) {
        output::create_parent(out)?;
        write_atomic(out, serde_json::to_string_pretty(&rows)?.as_bytes())?;
        write_atomic(markdown, tables(&rows, Form::Markdown).as_bytes())?;
    }
    if arguments.table.json {
        output::json(&rows)
    } else {
        output::line(tables(&rows, Form::new(arguments.table.markdown)).trim_end())
    }
}

/// Everything on this machine must be there before anything is downloaded.
fn expect_local(arguments: &EvalArgs) -> Result<()> {
    if !arguments.real.exists() && !local::is_elsewhere(&arguments.real) {
        let got = format!("{}, which is not there; {}", arguments.real.display(), Near::to(&arguments.real).words());
        return Err(usage("--real", "data or statistics", got));
    }
    let is_local = |path: &&PathBuf| path.to_str().and_then(HubId::parse).is_none();
    let fakes = arguments.fake.iter().filter(is_local);
    local::expect(fakes.chain(&arguments.model.vae).map(PathBuf::as_path))
}

/// The rows of all models and samples, on the first of several processes.
fn rows(arguments: &EvalArgs, device: &Device, world: &dyn World) -> Result<Vec<Row>> {
    let config = CompareConfig {
        kernel: KernelDistanceConfig {
            subsets: arguments.kid_subsets,
            subset_size: arguments.kid_subset_size,
            seed: arguments.kid_seed,
        },
        neighbours: Neighbours { precision: arguments.neighbours, ..Neighbours::default() },
        moments_only: arguments.moments_only,
    };
    let precomputed = arguments.reference.features.features == PRECOMPUTED;
    let data = arguments.reference.named.data_dir.as_deref();
    let reading =
        Reading { precomputed, size: arguments.reference.size, data, like: None, arrays: arguments.reference.arrays };
    let real = Source::open(&arguments.real, &reading)?;
    let network = match real {
        Source::Density(_) => None,
        _ => features::network(&arguments.reference.features, device)?,
    };
    let judge = judge(&arguments.real, real, network, (arguments.reference.limit, config), (device, world))?;
    if arguments.nll && judge.images.is_none() {
        return Err(usage("--nll", "--real naming images, whose likelihood is measured", arguments.real.display()));
    }
    if arguments.nll && !arguments.fake.iter().any(|fake| is_checkpoint(fake)) {
        return Err(usage("--nll", "--fake naming a model, which gives the likelihood", "no model"));
    }
    let rows = arguments.fake.iter().map(|fake| measured(arguments, fake, &judge, world));
    rows.filter_map(Result::transpose).collect()
}

/// Whether a model is named, here or on the hub.
fn is_checkpoint(fake: &Path) -> bool {
    !fake.exists() || model_folder(fake).is_ok()
}

/// The judge for a reference.
pub fn judge(
    path: &Path,
    real: Source,
    network: Option<FeatureNetwork>,
    (limit, config): (Option<usize>, CompareConfig),
    (device, world): (&Device, &dyn World),
) -> Result<Judge> {
    let images = match &real {
        Source::Images(images, corrupt) => Some(RealImages::new(images.clone(), *corrupt, limit)),
        _ => None,
    };
    let reference = match real {
        Source::Density(density) => Reference::Density(density, path.display().to_string()),
        Source::Checkpoint(_) => {
            return Err(usage(
                "--real",
                "data or statistics",
                format!("{}, a checkpoint or nothing", path.display()),
            ));
        }
        other => {
            // Every process needs to know what samples are compared with.
            let set = other.into_set(path, network.as_ref(), (limit, !config.moments_only), (world, true))?;
            Reference::Set(Box::new(set.ok_or_else(unreadable)?))
        }
    };
    Ok(Judge { reference, images, network, config, device: device.clone() })
}

fn measured(arguments: &EvalArgs, fake: &Path, judge: &Judge, world: &dyn World) -> Result<Option<Row>> {
    let name = fake.display().to_string();
    let shape = match &judge.reference {
        Reference::Set(set) => set.info.shape,
        Reference::Density(..) => None,
    };
    let precomputed = arguments.reference.features.features == PRECOMPUTED;
    let reading =
        Reading { precomputed, size: None, data: None, like: shape.as_ref(), arrays: arguments.reference.arrays };
    let mut progress = Parts::default();
    match Source::open(fake, &reading)? {
        Source::Checkpoint(path) => {
            let folder = resolve(&path, &arguments.model.published)?;
            let loaded = LoadedModel::open(&name, &folder, &arguments.model.options(), &judge.device);
            let loaded = loaded.map_err(of_options)?;
            let data = loaded.model.info.data;
            if let (Some([_, height, width]), DataKind::Image) = (shape, data.kind)
                && arguments.reference.features.features == "pixels"
                && [height, width] != [data.height, data.width]
            {
                let (expected, got) = (format!("{width}x{height}"), format!("{}x{}", data.width, data.height));
                let expected = format!("a model of pictures of {expected} pixels, as the reference has (--size)");
                return Err(usage("--fake", expected, format!("{name} of {got}")));
            }
            let config = sampler::config(&arguments.sampler.options(), &loaded.model.info)?;
            let draw = DrawOptions { num: arguments.num, seed: arguments.sampler.seed, batch: arguments.batch };
            let measured = judge.model_in(world, &loaded, &config, draw, &mut progress).map_err(of_options)?;
            let Some(mut row) = measured.map(|measured| measured.row) else { return Ok(None) };
            // The first process alone; the others wait.
            if arguments.nll {
                let likelihood = judge.likelihood(&loaded.model, arguments.nll_times, &mut progress);
                row.likelihood = Some(likelihood.map_err(of_options).context(name)?);
            }
            Ok(Some(row))
        }
        Source::Samples(Samples { values, shape: [2, 1, 1] }) => {
            judge.points(&name, &values).map(Some).map_err(of_options)
        }
        other => {
            let keep = !judge.config.moments_only;
            let set = other.into_set(fake, judge.network.as_ref(), (None, keep), (world, false))?;
            let Some(set) = set.filter(|_| world.rank() == 0) else { return Ok(None) };
            if let (Some(real), Some(fake)) = (shape, set.info.shape)
                && real != fake
            {
                return Err(usage("--fake", format!("images of {real:?}, as the reference"), format!("{fake:?}")));
            }
            if set.info.count < 2 {
                return Err(usage(&name, "at least 2 samples", set.info.count));
            }
            judge.set(&name, &set, &mut progress).map(Some).map_err(of_options)
        }
    }
}
