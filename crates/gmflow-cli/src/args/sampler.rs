//! How samples are drawn, as `gmflow sample` and `gmflow eval` take it.

use super::values::{Choice, interval, one_of, steps};
use clap::Args;
use gmflow::guidance::ReweightScale;
use gmflow::solver::{SecondOrderMode, SolverConfig};
use gmflow_eval::SamplerOptions;

/// How samples are drawn.
#[derive(Args, Debug)]
#[command(next_help_heading = "Sampler")]
pub struct SamplerArgs {
    /// Solver [default: gm-ode for mixtures (K > 1), euler for K = 1]
    #[arg(long, value_parser = one_of(SolverConfig::ALL))]
    pub solver: Option<SolverConfig>,
    /// Order of gm-ode and gm-sde: 1 or 2 [default: 2]
    #[arg(long, value_name = "1|2")]
    pub order: Option<u8>,
    /// Network evaluations per sample; a guided evaluation counts once [default: 8, or what a distilled student was trained
    /// for]
    #[arg(long, value_name = "N", value_parser = steps)]
    pub steps: Option<usize>,
    /// Sub-steps of gm-ode within a step, which need no network [default: chosen from the number of steps]
    #[arg(long, value_name = "N", value_parser = steps)]
    pub substeps: Option<usize>,
    /// Probabilistic guidance in [0, 1); 0 is off [default: the guidance the model was given in training, else off]
    #[arg(long, value_name = "W", conflicts_with = "cfg")]
    pub guidance: Option<f64>,
    /// Classifier-free guidance scale, at least 1; 1 is off
    #[arg(long, value_name = "W")]
    pub cfg: Option<f64>,
    /// How much of the guidance component along the prediction is removed, in [0, 1] [default: 1 with --guidance, 0 with
    /// --cfg]
    #[arg(long, value_name = "X")]
    pub orthogonal: Option<f64>,
    /// The variance by which guidance and second-order steps reweight mixtures [default: what the model was given in
    /// training, else image, as published]
    #[arg(long, value_name = "image|pixel", value_parser = one_of(REWEIGHT_SCALES))]
    pub reweight_by: Option<ReweightScale>,
    /// Guide only between these times, where 1 is noise and 0 data, such as 0.2,0.8
    #[arg(long, value_name = "LOW,HIGH", value_parser = interval)]
    pub guidance_interval: Option<[f64; 2]>,
    /// Shape gm-sde's draws with the model's spectrum network [default: on if the model has one]
    #[arg(long, value_name = "on|off", value_parser = one_of(SWITCH))]
    pub spectral: Option<bool>,
    /// How second-order steps apply the change of the prediction [default: what the model was given in training, else
    /// reweight, as published]
    #[arg(long, value_name = "reweight|translate", value_parser = one_of(SECOND_ORDER_MODES))]
    pub second_order: Option<SecondOrderMode>,
    /// Of a distilled student: the strength of fresh noise between steps [default: 0, none]
    #[arg(long, value_name = "H")]
    pub renoise: Option<f64>,
    /// Of a distilled student: the temperature of its mixtures in all steps but the last; 1 changes nothing [default:
    /// what it was trained for]
    #[arg(long, value_name = "T")]
    pub temperature: Option<f64>,
    /// For comparisons: second-order steps do not move the previous prediction to the new point
    #[arg(long)]
    pub unconverted: bool,
    /// Seed of the first sample
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
}

const REWEIGHT_SCALES: &[Choice<ReweightScale>] = &[
    ("image", ReweightScale::Image, "The average over the image: uncertain pixels move further than requested"),
    ("pixel", ReweightScale::Pixel, "The pixel's own, along the shift: every pixel moves as far as requested"),
];

const SECOND_ORDER_MODES: &[Choice<SecondOrderMode>] = &[
    ("reweight", SecondOrderMode::Reweight, "With guidance, by reweighting the mixture"),
    (
        "translate",
        SecondOrderMode::Translate,
        "By moving the guided mixture: exact, but with few steps the samples leave the region that the mixture covers",
    ),
];

const SWITCH: &[Choice<bool>] = &[("on", true, "Yes"), ("off", false, "No")];

impl SamplerArgs {
    /// What is asked of the sampler.
    pub fn options(&self) -> SamplerOptions {
        SamplerOptions {
            solver: self.solver,
            order: self.order,
            steps: self.steps,
            substeps: self.substeps,
            guidance: self.guidance,
            cfg: self.cfg,
            orthogonal: self.orthogonal,
            guidance_interval: self.guidance_interval,
            spectral: self.spectral,
            reweight_by: self.reweight_by,
            second_order: self.second_order,
            renoise: self.renoise,
            temperature: self.temperature,
            unconverted: self.unconverted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gmflow_eval::sampler::solver_by_name;
    use serde_json::json;

    #[test]
    fn values_have_the_names_that_files_give_them() {
        assert!(
            SolverConfig::ALL
                .iter()
                .all(|(name, solver, _)| solver_by_name(name).is_ok_and(|named| named == *solver))
        );
        assert!(REWEIGHT_SCALES.iter().all(|(name, value, _)| json!(value) == *name));
        assert!(SECOND_ORDER_MODES.iter().all(|(name, value, _)| json!(value) == *name));
    }
}
