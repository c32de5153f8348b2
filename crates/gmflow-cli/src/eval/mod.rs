//! `gmflow eval`: samples and models against real data.

pub mod features;
pub mod parts;
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
use gmflow::kernel::PrecisionChoice;
use gmflow_data::Corrupt;
use gmflow_eval::arrays::Samples;
use gmflow_eval::features::FeatureNetwork;
use gmflow_eval::images::RealImages;
use gmflow_eval::{
    CompareConfig, DrawOptions, Judge, KernelDistanceConfig, LoadedModel, Moments, Neighbours, Reference, Row,
    SampleSet, SetInfo,
};
use gmflow_world::World;
use parts::{Figures, Part, Real, What};
use source::{PRECOMPUTED, Reading, Source};
use std::path::{Path, PathBuf};

/// Runs the command.
pub fn run(arguments: &EvalArgs, job: &Job) -> Result<()> {
    arguments.sampler.options().check().map_err(of_options)?;
    let force = arguments.overwrite.force;
    let part = arguments.shard.shard.map(|shard| Part::new(arguments.out.as_deref(), shard, force)).transpose()?;
    if part.is_none() {
        arguments.out.as_deref().map_or(Ok(()), |out| expect_files(out, force))?;
    }
    expect_local(arguments)?;
    let device = job.device(&arguments.device.name)?;
    let world = part.as_ref().map_or(job.world().as_ref(), Part::world);
    let (judge, rows) = kernel::in_pool(|| rows(arguments, &device, world))?;
    if let Some(part) = part {
        let real = Real::of(&judge.reference, &arguments.real, is_precomputed(arguments));
        return part.write(What::Eval(Figures { real, config: judge.config, nll: arguments.nll, rows }));
    }
    if !job.is_first() {
        return Ok(());
    }
    arguments.out.as_deref().map_or(Ok(()), |out| write(out, &rows))?;
    if arguments.table.json {
        output::json(&rows)
    } else {
        output::line(tables(&rows, Form::new(arguments.table.markdown)).trim_end())
    }
}

fn is_precomputed(arguments: &EvalArgs) -> bool {
    arguments.reference.features.features == PRECOMPUTED
}

/// The figures and the table beside them may be written.
pub fn expect_files(out: &Path, force: bool) -> Result<()> {
    // Another ending could be that of the table beside it.
    output::require_ending(out, "json")?;
    output::refuse_existing([out, &out.with_extension("md")], force)
}

/// Writes figures, and a table beside them.
pub fn write(out: &Path, rows: &[Row]) -> Result<()> {
    output::create_parent(out)?;
    write_atomic(out, serde_json::to_string_pretty(rows)?.as_bytes())?;
    Ok(write_atomic(&out.with_extension("md"), tables(rows, Form::Markdown).as_bytes())?)
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

/// The rows of all models and samples; of several processes, the first one has the figures.
fn rows(arguments: &EvalArgs, device: &Device, world: &dyn World) -> Result<(Judge, Vec<Row>)> {
    let config = CompareConfig {
        kernel: KernelDistanceConfig {
            subsets: arguments.kid_subsets,
            subset_size: arguments.kid_subset_size,
            seed: arguments.kid_seed,
        },
        neighbours: Neighbours { precision: arguments.neighbours, ..Neighbours::default() },
        moments_only: arguments.moments_only,
    };
    let precomputed = is_precomputed(arguments);
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
    let rows: Result<_> = arguments.fake.iter().map(|fake| measured(arguments, fake, &judge, world)).collect();
    Ok((judge, rows?))
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
            let outline = network.as_ref().and_then(|network| other.outline(path, network, limit));
            // Every process needs to know what samples are compared with; one that works apart, what is to be computed of them.
            let set =
                other.into_set(path, network.as_ref(), (limit, !config.moments_only), (world, world.talks()))?;
            let set = set.map_or_else(|| outline.ok_or_else(unreadable).and_then(not_computed), Ok)?;
            Reference::Set(Box::new(set))
        }
    };
    Ok(Judge { reference, images, network, config, device: device.clone() })
}

/// A set of which nothing is computed yet.
fn not_computed(info: SetInfo) -> Result<SampleSet> {
    Ok(SampleSet { info, moments: Moments::new(1)?, vectors: None, logits: None, read_as_asked: None })
}

/// The row of a model or of samples; of several processes, the first one has its figures.
fn measured(arguments: &EvalArgs, fake: &Path, judge: &Judge, world: &dyn World) -> Result<Row> {
    let name = fake.display().to_string();
    let shape = match &judge.reference {
        Reference::Set(set) => set.info.shape,
        Reference::Density(..) => None,
    };
    let precomputed = is_precomputed(arguments);
    let reading =
        Reading { precomputed, size: None, data: None, like: shape.as_ref(), arrays: arguments.reference.arrays };
    let mut progress = Parts::default();
    match Source::open(fake, &reading)? {
        Source::Checkpoint(path) => {
            let folder = resolve(&path, &arguments.model.published)?;
            let loaded =
                LoadedModel::open(&name, &folder, &arguments.model.options(PrecisionChoice::F32), &judge.device);
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
            let leaves_out = judge.images.as_ref().is_some_and(|images| images.corrupt == Corrupt::Skip);
            if !world.talks() && leaves_out && draw.num.is_none() {
                let expected = "a number beside --shard, because no part knows how many images are left out";
                return Err(usage("--num", expected, "none"));
            }
            let measured = judge.model_in(world, &loaded, &config, draw, &mut progress).map_err(of_options)?;
            let mut row = measured.row;
            if arguments.nll {
                let likelihood = judge.likelihood_in(world, &loaded.model, arguments.nll_times, &mut progress);
                row.likelihood = likelihood.map_err(of_options).context(name)?;
            }
            Ok(row)
        }
        Source::Samples(Samples { values, shape: [2, 1, 1] }) if world.talks() => {
            judge.points(&name, &values).map_err(of_options)
        }
        Source::Samples(Samples { values, shape: [2, 1, 1] }) => {
            // There is nothing to divide: they go with the first part.
            let own = if world.rank() == 0 { bytemuck::cast_slice(&values) } else { &[] };
            world.collect(own)?;
            Ok(Row::new(name, 0, judge.reference_info()))
        }
        Source::Set(_) if !world.talks() => {
            let expected = "samples or models beside --shard, whose features are computed";
            Err(usage("--fake", expected, format!("{name}, whose features are there")))
        }
        other => {
            let keep = !judge.config.moments_only;
            let set = other.into_set(fake, judge.network.as_ref(), (None, keep), (world, false))?;
            let Some(set) = set.filter(|_| world.rank() == 0) else {
                return Ok(Row::new(name, 0, judge.reference_info()));
            };
            if let (Some(real), Some(fake)) = (shape, set.info.shape)
                && real != fake
            {
                return Err(usage("--fake", format!("images of {real:?}, as the reference"), format!("{fake:?}")));
            }
            if set.info.count < 2 {
                return Err(usage(&name, "at least 2 samples", set.info.count));
            }
            judge.set(&name, &set, &mut progress).map_err(of_options)
        }
    }
}
