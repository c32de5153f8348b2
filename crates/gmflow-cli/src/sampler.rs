//! From what is asked of the sampler to its settings for a model.

use crate::failure::of_options;
use anyhow::Result;
use gmflow::checkpoint::ModelInfo;
use gmflow::pipeline::SamplerConfig;
use gmflow_eval::SamplerOptions;

/// The settings for a model; warns of what changes nothing.
pub fn config(options: &SamplerOptions, model: &ModelInfo) -> Result<SamplerConfig> {
    let config = options.config(model).map_err(of_options)?;
    if options.reweight_by.is_some() && !config.reweights() {
        log::warn!("--reweight-by changes nothing without guidance or second-order steps that reweight");
    }
    Ok(config)
}
