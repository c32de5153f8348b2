//! `gmflow stats`: a reference, computed once.

use super::features;
use super::source::{PRECOMPUTED, Reading, Source};
use crate::args::StatsArgs;
use crate::output;
use crate::world::Job;
use anyhow::Result;
use burn::tensor::Device;
use gmflow::kernel;
use serde_json::json;

/// Runs the command.
pub fn run(arguments: &StatsArgs, job: &Job) -> Result<()> {
    output::require_ending(&arguments.out, "safetensors")?;
    output::refuse_existing([arguments.out.as_path()], arguments.overwrite.force)?;
    let reference = &arguments.reference;
    let precomputed = reference.features.features == PRECOMPUTED;
    let data = reference.named.data_dir.as_deref();
    let reading = Reading { precomputed, size: reference.size, data, like: None, arrays: reference.arrays };
    let source = Source::open(&arguments.data, &reading)?;
    let network = features::network(&reference.features, &Device::flex())?;
    let kept = (reference.limit, !arguments.moments_only);
    let world = (job.world().as_ref(), false);
    let set = kernel::in_pool(|| source.into_set(&arguments.data, network.as_ref(), kept, world))?;
    let Some(set) = set.filter(|_| job.is_first()) else { return Ok(()) };
    output::create_parent(&arguments.out)?;
    set.save(&arguments.out)?;
    if arguments.outcome.json {
        return output::json(&json!({ "out": arguments.out, "set": set.info }));
    }
    let (out, count, features) = (arguments.out.display(), set.info.count, set.info.features.label());
    output::line(&format!("{out}: {count} samples, {features}, {} numbers each", set.moments.mean().len()))
}
