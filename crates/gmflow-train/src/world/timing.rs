//! The time of a step with several processes, and where it goes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::tensor::Device;
use gmflow_world::World;

use super::Team;
use crate::Result;
use crate::config::Config;
use crate::trainer::Trainer;

/// Steps before the clock starts: memory and threads are there then.
const BEFORE: u32 = 2;

/// The time of a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepTime {
    /// The median, in seconds.
    pub seconds: f64,
    /// The mean time that the exchange of gradients took of it, waiting for other ranks included.
    pub exchange: f64,
    /// Weights of the network.
    pub parameters: usize,
}

/// Takes `steps` steps of a configuration, at least one, on all ranks of a world, and measures them. Nothing is written.
///
/// # Errors
/// As [`Trainer::new`] and [`Trainer::step`].
pub fn time_steps(world: &Arc<dyn World>, config: &Config, device: &Device, steps: u32) -> Result<StepTime> {
    let mut trainer = Trainer::on(config.clone(), None, device, Team::new(Arc::clone(world)))?;
    for _ in 0..BEFORE {
        trainer.step()?;
    }
    trainer.team.exchanged = Duration::ZERO;
    let mut times = Vec::new();
    for _ in 0..steps.max(1) {
        let begun = Instant::now();
        trainer.step()?;
        times.push(begun.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    Ok(StepTime {
        seconds: times[times.len() / 2],
        exchange: trainer.team.exchanged.as_secs_f64() / times.len() as f64,
        parameters: trainer.network().module()?.num_params(),
    })
}
