//! `gmflow stats`: a reference, computed once.

use super::features;
use super::parts::{Part, What};
use super::source::{PRECOMPUTED, Reading, Source};
use crate::args::StatsArgs;
use crate::failure::usage;
use crate::output;
use crate::world::Job;
use anyhow::Result;
use burn::tensor::Device;
use gmflow::kernel;
use gmflow_eval::SampleSet;
use serde_json::json;
use std::path::Path;

/// Runs the command.
pub fn run(arguments: &StatsArgs, job: &Job) -> Result<()> {
    output::require_ending(&arguments.out, "safetensors")?;
    let (out, force) = (arguments.out.as_path(), arguments.overwrite.force);
    let part = arguments.shard.shard.map(|shard| Part::new(Some(out), shard, force)).transpose()?;
    if part.is_none() {
        output::refuse_existing([out], force)?;
    }
    let reference = &arguments.reference;
    let precomputed = reference.features.features == PRECOMPUTED;
    let data = reference.named.data_dir.as_deref();
    let reading = Reading { precomputed, size: reference.size, data, like: None, arrays: reference.arrays };
    let source = Source::open(&arguments.data, &reading)?;
    let network = features::network(&reference.features, &Device::flex())?;
    let kept = (reference.limit, !arguments.moments_only);
    if let (Some(part), Source::Set(_)) = (&part, &source) {
        let got = format!("{}, whose features are there", arguments.data.display());
        return Err(usage(
            "DATA",
            format!("images beside --shard {}, whose features are computed", part.shard()),
            got,
        ));
    }
    let world = part.as_ref().map_or(job.world().as_ref(), Part::world);
    let set = kernel::in_pool(|| source.into_set(&arguments.data, network.as_ref(), kept, (world, false)))?;
    if let Some(part) = part {
        return part.write(What::Stats);
    }
    let Some(set) = set.filter(|_| job.is_first()) else { return Ok(()) };
    output::create_parent(&arguments.out)?;
    set.save(&arguments.out)?;
    if arguments.outcome.json {
        return output::json(&json!({ "out": arguments.out, "set": set.info }));
    }
    output::line(&words(&arguments.out, &set))
}

/// What was written, in a line.
pub fn words(out: &Path, set: &SampleSet) -> String {
    let (out, count, features) = (out.display(), set.info.count, set.info.features.label());
    format!("{out}: {count} samples, {features}, {} numbers each", set.moments.mean().len())
}
