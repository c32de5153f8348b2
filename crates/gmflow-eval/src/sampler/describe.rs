//! How samples were made, for the reader of a file of samples.

use super::solver_name;
use gmflow::checkpoint::DataKind;
use gmflow::guidance::{Guidance, ReweightScale};
use gmflow::kernel::MatmulPrecision;
use gmflow::pipeline::SamplerConfig;
use gmflow::solver::{GmOde, GmSde, SecondOrderMode, SolverConfig};
use serde_json::{Value, json};
use std::path::Path;

/// How samples were drawn, for the reader of a file: the solver by its name, and of the other settings those that matter.
pub fn describe(config: &SamplerConfig, kind: DataKind) -> Value {
    let SamplerConfig { solver, steps, guidance, reweight_by, second_order, .. } = *config;
    let mut description = json!({ "solver": solver_name(&solver), "steps": steps });
    if config.shift != 1.0 {
        description["shift"] = json!(config.shift);
    }
    if let SolverConfig::GmOde(GmOde { order, .. }) | SolverConfig::GmSde(GmSde { order, .. }) = solver {
        description["order"] = json!(order);
    }
    if let SolverConfig::GmSde(GmSde { spectral, .. }) = solver {
        description["spectral"] = json!(spectral == Some(true));
    }
    if let SolverConfig::GmOde(GmOde { substeps, .. }) = solver {
        let default = || SolverConfig::default_substeps(steps, kind == DataKind::Points);
        description["substeps"] = json!(substeps.unwrap_or_else(default));
    }
    if let SolverConfig::PiFlow(policy) = solver {
        description["policy"] = json!(policy);
        return description;
    }
    match guidance {
        Guidance::Off => description["guidance"] = json!(0.0),
        Guidance::Probabilistic { scale, orthogonal } => {
            description["guidance"] = json!(scale);
            description["orthogonal"] = json!(orthogonal);
        }
        Guidance::ClassifierFree { scale, orthogonal } => {
            description["cfg"] = json!(scale);
            description["orthogonal"] = json!(orthogonal);
        }
    }
    if config.reweights() && reweight_by == ReweightScale::Pixel {
        description["reweight_by"] = json!(reweight_by);
    }
    if solver.is_of_order_2() && second_order.carry == SecondOrderMode::Translate {
        description["second_order"] = json!(second_order.carry);
    }
    if solver.is_of_order_2() && !second_order.convert {
        description["unconverted"] = json!(true);
    }
    if let Some(interval) = config.guidance_interval.filter(|_| guidance.is_active()) {
        description["guidance_interval"] = json!(interval);
    }
    description
}

/// Where samples come from beside the sampler's settings: what files of samples say of it.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The model folder.
    pub checkpoint: &'a Path,
    /// The moving average of the weights.
    pub ema: Option<&'a str>,
    /// The variant of a published checkpoint.
    pub variant: Option<&'a str>,
    /// The autoencoder, where another than the model's own was asked for.
    pub vae: Option<&'a Path>,
    /// The file of the noise.
    pub noise: Option<&'a Path>,
    /// Latents that were not decoded.
    pub latents: bool,
    /// What the network was computed in.
    pub precision: MatmulPrecision,
}

impl Source<'_> {
    /// How samples are made, all but seed and class, from how the sampler is described ([`describe`]).
    pub fn made_by(&self, sampler: Value) -> Value {
        let mut made_by = sampler;
        made_by["checkpoint"] = json!(self.checkpoint);
        made_by["ema"] = json!(self.ema);
        if let Some(variant) = self.variant {
            made_by["variant"] = json!(variant);
        }
        if let Some(vae) = self.vae {
            made_by["vae"] = json!(vae);
        }
        made_by["noise"] = json!(self.noise);
        if self.latents {
            made_by["latents"] = json!(true);
        }
        made_by["gmflow"] = json!(env!("CARGO_PKG_VERSION"));
        made_by["precision"] = json!(self.precision);
        made_by
    }
}
