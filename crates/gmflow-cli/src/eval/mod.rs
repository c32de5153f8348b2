//! `gmflow eval`: samples and models against real data.

pub mod features;
pub mod judge;
pub mod row;
pub mod source;
pub mod stats;

use crate::args::{EvalArgs, PublishedArgs};
use crate::checkpoint_path::resolve;
use crate::device::device;
use crate::failure::usage;
use crate::local::{self, Near};
use crate::output;
use crate::sample::{average, computed_in, find_vae};
use crate::sampler::{ModelTraits, Sampler};
use crate::table::Form;
use anyhow::{Context, Result};
use burn::tensor::Device;
use gmflow::checkpoint::hub::HubId;
use gmflow::checkpoint::{DataKind, LoadOptions, Model, ModelInfo, write_atomic};
use gmflow::kernel::{self, Arithmetic};
use gmflow_eval::arrays::Samples;
use gmflow_eval::features::FeatureNetwork;
use gmflow_eval::{CompareConfig, KernelDistanceConfig, Neighbours};
use judge::{Judge, Order, RealImages, Reference};
use row::{Row, tables};
use source::{PRECOMPUTED, Reading, Source};
use std::path::{Path, PathBuf};

/// Runs the command.
pub fn run(arguments: &EvalArgs) -> Result<()> {
    arguments.sampler.check()?;
    // Another ending could be that of the table beside it.
    arguments.out.as_deref().map_or(Ok(()), |out| output::require_ending(out, "json"))?;
    let markdown = arguments.out.as_ref().map(|out| out.with_extension("md"));
    let files = arguments.out.iter().chain(&markdown).map(|path| path.as_path());
    output::refuse_existing(files, arguments.overwrite.force)?;
    expect_local(arguments)?;
    let device = device(&arguments.device.name)?;
    let rows = kernel::in_pool(|| rows(arguments, &device))?;
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
    if !arguments.real.exists() {
        let got = format!("{}, which is not there; {}", arguments.real.display(), Near::to(&arguments.real).words());
        return Err(usage("--real", "data or statistics", got));
    }
    let is_local = |path: &&PathBuf| path.to_str().and_then(HubId::parse).is_none();
    let fakes = arguments.fake.iter().filter(is_local);
    local::expect(fakes.chain(&arguments.model.vae).map(PathBuf::as_path))
}

fn rows(arguments: &EvalArgs, device: &Device) -> Result<Vec<Row>> {
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
    let (judge, images) = judge(&arguments.real, real, network, (arguments.reference.limit, config), device)?;
    if arguments.nll && images.is_none() {
        return Err(usage("--nll", "--real naming images, whose likelihood is measured", arguments.real.display()));
    }
    arguments.fake.iter().map(|fake| measured(arguments, fake, &judge, images.as_ref())).collect()
}

/// The judge for a reference, and the reference's images where it has some.
pub fn judge(
    path: &Path,
    real: Source,
    network: Option<FeatureNetwork>,
    (limit, config): (Option<usize>, CompareConfig),
    device: &Device,
) -> Result<(Judge, Option<RealImages>)> {
    let images = match &real {
        Source::Images(images, corrupt) => {
            let count = images.len().min(limit.unwrap_or(usize::MAX));
            Some(RealImages { images: images.clone(), corrupt: *corrupt, count })
        }
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
        other => Reference::Set(Box::new(other.into_set(path, network.as_ref(), (limit, !config.moments_only))?)),
    };
    Ok((Judge { reference, network, config, device: device.clone() }, images))
}

fn measured(arguments: &EvalArgs, fake: &Path, judge: &Judge, images: Option<&RealImages>) -> Result<Row> {
    let name = fake.display().to_string();
    let shape = match &judge.reference {
        Reference::Set(set) => set.info.shape,
        Reference::Density(..) => None,
    };
    let precomputed = arguments.reference.features.features == PRECOMPUTED;
    let reading =
        Reading { precomputed, size: None, data: None, like: shape.as_ref(), arrays: arguments.reference.arrays };
    let source = Source::open(fake, &reading)?;
    match source {
        Source::Checkpoint(path) => {
            let asked = Asked {
                ema: arguments.model.ema.as_deref(),
                precision: arguments.model.precision,
                published: &arguments.model.published,
                vae: arguments.model.vae.as_deref(),
            };
            let (model, precision) = load(&path, asked, &judge.device)?;
            let sampler = Sampler::new(&arguments.sampler, ModelTraits::of(&model.info))?;
            let order = Order { num: arguments.num, seed: arguments.seed, batch: arguments.batch };
            let row = judge.checkpoint(name, (&model, precision), &sampler, order, &mut |_| {})?;
            let images = images.filter(|_| arguments.nll);
            let likelihood = images.map(|real| judge.likelihood(&model, real, arguments.nll_times)).transpose();
            let likelihood = likelihood.with_context(|| fake.display().to_string())?;
            Ok(Row { likelihood, ..row })
        }
        Source::Samples(Samples { values, shape: [2, 1, 1] }) => judge.points(name, &values),
        other => {
            let keep = !judge.config.moments_only;
            let set = other.into_set(fake, judge.network.as_ref(), (None, keep))?;
            if let (Some(real), Some(fake)) = (shape, set.info.shape)
                && real != fake
            {
                return Err(usage("--fake", format!("images of {real:?}, as the reference"), format!("{fake:?}")));
            }
            if set.info.count < 2 {
                return Err(usage(&name, "at least 2 samples", set.info.count));
            }
            judge.set(name, &set)
        }
    }
}

/// What is asked for of a checkpoint that is measured.
pub struct Asked<'a> {
    /// The moving average of the weights.
    pub ema: Option<&'a str>,
    /// What its network is to be computed in.
    pub precision: Arithmetic,
    /// Which of its versions and weights.
    pub published: &'a PublishedArgs,
    /// The autoencoder of a model of latents.
    pub vae: Option<&'a Path>,
}

/// The model, and what its network is computed in.
pub fn load(checkpoint: &Path, asked: Asked, device: &Device) -> Result<(Model, Arithmetic)> {
    let Asked { ema, precision, published, vae } = asked;
    let folder = resolve(checkpoint, published)?;
    let precision = computed_in(precision, &ModelInfo::load(&folder)?, device);
    let average = average(&folder, ema)?;
    let options = LoadOptions {
        ema: average.as_deref(),
        variant: published.variant.as_deref(),
        without_vae: vae.is_some(),
        pack: Some(precision),
        unverified: published.no_verify,
    };
    let mut model = Model::load_with(&folder, options, device)?;
    if model.info.data.kind == DataKind::Latents {
        model.vae = Some(find_vae(&mut model, vae, device)?);
    }
    Ok((model, precision))
}
