//! What the demo trains and how it samples: everything that can be chosen, in one place.

use anyhow::Result;
use burn::tensor::Device;
use gmflow::checkpoint::Model;
use gmflow::solver::{Euler, GmOde, GmSde, SolverConfig};
use gmflow_eval::SamplerOptions;
use gmflow_eval::sampler::{self, Batch};
use gmflow_train::Config;
use std::path::Path;

/// Network evaluations per point.
pub const STEPS: [usize; 4] = [1, 2, 4, 8];
/// Points drawn for each picture.
pub const POINTS: usize = 40_000;
/// Points computed at once.
const AT_ONCE: usize = 2000;
/// Cells along one side of a picture.
pub const CELLS: usize = 64;

/// One model of the demo.
pub struct Preset {
    /// The name of its folder.
    pub name: &'static str,
    /// The configuration that `gmflow train` takes as well.
    toml: &'static str,
    /// The solvers with their names in tables and pictures.
    pub solvers: [(SolverConfig, &'static str); 2],
    /// A few words on the model for the picture.
    pub label: &'static str,
}

/// The baseline and the mixture.
pub const PRESETS: [Preset; 2] = [
    Preset {
        name: "k1",
        toml: include_str!("../../presets/demo-k1.toml"),
        solvers: [(SolverConfig::Euler(Euler {}), "Euler"), (SolverConfig::DDPM_LARGE, "DDPM")],
        label: "flow matching",
    },
    Preset {
        name: "k64",
        toml: include_str!("../../presets/demo-k64.toml"),
        solvers: [
            (SolverConfig::GmOde(GmOde { order: 2, substeps: None }), "GM-ODE 2"),
            (SolverConfig::GmSde(GmSde { order: 2, spectral: None }), "GM-SDE 2"),
        ],
        label: "GMFlow",
    },
];

impl Preset {
    /// The training configuration with another seed.
    pub fn config(&self, seed: u64) -> Result<Config> {
        let mut config = Config::parse(self.toml, Path::new(self.name), &[])?;
        config.train.seed = seed;
        Ok(config)
    }
}

/// Draws the demo's points: those of one seed are the same whatever else is drawn.
pub fn draw(model: &Model, solver: SolverConfig, steps: usize, seed: u64, device: &Device) -> Result<Vec<[f32; 2]>> {
    let options = SamplerOptions { solver: Some(solver), steps: Some(steps), ..SamplerOptions::default() };
    let config = options.config(&model.info)?;
    let seeds: Vec<u64> = (0..POINTS as u64).map(|index| seed.wrapping_add(index)).collect();
    let mut points = Vec::with_capacity(POINTS);
    for seeds in seeds.chunks(AT_ONCE) {
        let batch = Batch { seeds, classes: None, noise: None };
        let values = sampler::draw(model, &config, batch, device, &mut |_, _| {})?;
        points.extend(values.chunks_exact(2).map(|point| [point[0], point[1]]));
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_models_are_valid_and_get_the_same_budget() {
        let [baseline, mixture] = PRESETS.map(|preset| {
            let config = preset.config(7).unwrap();
            config.validate().unwrap();
            assert_eq!(config.train.seed, 7);
            config
        });
        assert_eq!((baseline.network.num_gaussians(), mixture.network.num_gaussians()), (1, 64));
        assert_eq!((baseline.total_steps(), &baseline.train), (mixture.total_steps(), &mixture.train));
    }
}
