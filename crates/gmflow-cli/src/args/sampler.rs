//! How samples are drawn, as `gmflow sample` and `gmflow eval` take it.

use super::values::{interval, steps};
use clap::{Args, ValueEnum};
use serde::Deserialize;

/// How samples are drawn.
#[derive(Args, Debug, Clone, Default, PartialEq)]
#[command(next_help_heading = "Sampler")]
pub struct SamplerArgs {
    /// Solver; without it gm-ode for mixtures (K > 1) and euler for K = 1
    #[arg(long, value_enum)]
    pub solver: Option<Solver>,
    /// Order of gm-ode and gm-sde: 1 or 2 [default: 2]
    #[arg(long, value_name = "1|2", value_parser = clap::value_parser!(u8).range(1..=2))]
    pub order: Option<u8>,
    /// Network evaluations per sample (a guided evaluation counts once)
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = steps)]
    pub steps: usize,
    /// Sub-steps of gm-ode within a step, which need no network; without it as many as the steps call for
    #[arg(long, value_name = "N", value_parser = steps)]
    pub substeps: Option<usize>,
    /// Probabilistic guidance in [0, 1); 0 is off [default: the guidance the model was given in training, else off]
    #[arg(long, value_name = "W", conflicts_with = "cfg")]
    pub guidance: Option<f64>,
    /// Classifier-free guidance scale, at least 1; 1 is off
    #[arg(long, value_name = "W")]
    pub cfg: Option<f64>,
    /// How much of the guidance direction's part along the prediction is removed, in [0, 1] [default: 1 with
    /// --guidance, 0 with --cfg]
    #[arg(long, value_name = "X")]
    pub orthogonal: Option<f64>,
    /// The variance that guidance and steps of order 2 go by where they reweight mixtures [default: what the model was given in training,
    /// else image, as published]
    #[arg(long, value_enum, value_name = "image|pixel")]
    pub reweight_by: Option<ReweightBy>,
    /// Guide only between these times, where 1 is noise and 0 data, such as 0.2,0.8
    #[arg(long, value_name = "LOW,HIGH", value_parser = interval)]
    pub guidance_interval: Option<[f64; 2]>,
    /// Shape gm-sde's draws with the model's spectrum network [default: on if the model has one]
    #[arg(long, value_enum, value_name = "on|off")]
    pub spectral: Option<Switch>,
    /// How steps of order 2 carry out the change of the prediction [default: what the model was given in training, else reweight, as
    /// published]
    #[arg(long, value_enum, value_name = "reweight|translate")]
    pub second_order: Option<Carry>,
    /// For comparisons: steps of order 2 compare predictions without moving the previous one to the new point
    #[arg(long)]
    pub unconverted: bool,
}

/// The solvers by their names on the command line.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Solver {
    /// Deterministic, along the mixture's analytic velocity
    GmOde,
    /// Stochastic, with draws from the mixture
    GmSde,
    /// Euler steps along the mean velocity (DDIM)
    Euler,
    /// Heun's second-order steps
    Heun,
    /// Ancestral sampling with the smaller variance
    DdpmSmall,
    /// Ancestral sampling with the larger variance
    DdpmLarge,
    /// DPM-Solver++ 2M, multistep of order 2
    #[value(name = "dpmpp-2m")]
    Dpmpp2m,
    /// DPM-Solver++ 2M for the stochastic equation
    #[value(name = "dpmpp-2m-sde")]
    Dpmpp2mSde,
    /// DPM-Solver++ 2S, steps in pairs
    #[value(name = "dpmpp-2s")]
    Dpmpp2s,
    /// UniPC-2, a multistep predictor and corrector
    #[value(name = "unipc")]
    UniPc,
    /// DEIS of order 2
    Deis,
    /// SA-Solver, a stochastic multistep predictor and corrector
    #[value(name = "sa-solver")]
    Sa,
}

/// The variance that reweighting goes by.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReweightBy {
    /// The average over the image: uncertain pixels move further than is asked
    Image,
    /// The pixel's own along the shift: every pixel moves as far as is asked
    Pixel,
}

/// How the second-order change is carried out.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Carry {
    /// With guidance, by reweighting the mixture
    Reweight,
    /// By moving the guided mixture, which is exact, but in few steps leaves what the mixture holds likely
    Translate,
}

/// On or off.
#[derive(ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// Yes
    On,
    /// No
    Off,
}

impl Solver {
    /// The name on the command line.
    pub fn name(self) -> String {
        name_of(&self)
    }
}

/// The name of an argument's value on the command line.
pub fn name_of(value: &impl ValueEnum) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
