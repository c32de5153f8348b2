//! How long a step takes on this machine.

use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::Device;
use gmflow::kernel::MatmulPrecision;
use gmflow_data::{Corrupt, Dataset, Image, ImageDataset};

use super::Plan;
use crate::world::Team;
use crate::{Config, Result, Trainer};

/// Pictures of the step that tells whether a whole one takes long.
const FEW: usize = 2;
/// A step that takes longer than this is not taken: that of a few pictures tells its time.
const TOO_LONG: Duration = Duration::from_secs(20);
/// A step that takes longer than this is timed by one.
const LONG: Duration = Duration::from_secs(4);
/// Steps that are timed at the least, after one that is not, where they take less than [`LONGEST`].
const TIMED: u32 = 5;
/// Short steps are timed for this long: a processor runs faster in its first moments than later.
const ENOUGH: Duration = Duration::from_secs(3);
/// No more steps are timed after this.
const LONGEST: Duration = Duration::from_secs(6);

impl Plan {
    /// Times a step in f32 and, where this device has it, in bf16, and keeps the faster. Where a step in bf16 takes long, f32, which takes
    /// longer still, is not tried. `say` is told before each.
    pub(super) fn time(&mut self, device: &Device, say: &mut dyn FnMut(&str)) -> Result<()> {
        let mixed = Self { precision: MatmulPrecision::Bf16, ..self.clone() };
        let (chosen, _) = mixed.resolved()?.network.computed_in(MatmulPrecision::Bf16, device);
        let timed_in = mixed.resolved()?.arithmetic(device); // a setting of the user's goes before the plan's
        let mut in_bf16 = None;
        if chosen == MatmulPrecision::Bf16 && timed_in == MatmulPrecision::Bf16 {
            let step_time = mixed.timed(device, say)?;
            if step_time > LONG {
                *self = Self { step_time, ..mixed };
                return Ok(());
            }
            in_bf16 = Some(step_time);
        }
        self.precision = MatmulPrecision::F32;
        self.step_time = self.timed(device, say)?;
        if let Some(step_time) = in_bf16.filter(|time| *time < self.step_time) {
            *self = Self { step_time, ..mixed };
        }
        Ok(())
    }

    fn timed(&self, device: &Device, say: &mut dyn FnMut(&str)) -> Result<Duration> {
        let Self { size, network, .. } = self;
        let precision = if self.precision == MatmulPrecision::F32 { "f32" } else { "bf16" };
        say(&format!("timing a step of the {} network on {size}x{size} pictures in {precision}", network.name()));
        self.time_steps(device)
    }

    /// The time of a step. The first, which is slower than all others, counts only where it takes long.
    fn time_steps(&self, device: &Device) -> Result<Duration> {
        let config = self.resolved()?;
        let batch = config.train.batch_size;
        if batch > FEW {
            let mut few = config.clone();
            few.train.batch_size = FEW;
            few.train.micro_batch = few.train.micro_batch.map(|micro| micro.min(FEW));
            let mut trainer = self.trainer(few, device)?;
            trainer.step()?;
            let whole = taken(|| trainer.step())?.mul_f64(batch as f64 / FEW as f64);
            if whole > TOO_LONG {
                return Ok(whole);
            }
        }
        let mut trainer = self.trainer(config, device)?;
        let first = taken(|| trainer.step())?;
        if first > LONG {
            return Ok(first);
        }
        let (start, mut steps) = (Instant::now(), 0);
        while start.elapsed() < if steps < TIMED { LONGEST } else { ENOUGH } {
            trainer.step()?;
            steps += 1;
        }
        Ok(start.elapsed() / steps.max(1))
    }

    /// A trainer on drawn pictures: how long the files take to read is another question.
    fn trainer(&self, config: Config, device: &Device) -> Result<Trainer> {
        let images = Arc::new(Drawn {
            shape: [self.channels, self.size, self.size],
            classes: self.survey.classes.iter().map(|(name, _)| name.clone()).collect(),
            count: self.survey.images.max(1),
        });
        let pictures = Dataset::Images { images, corrupt: Corrupt::Refuse, horizontal_flip: false };
        Trainer::on(config, Some(pictures), device, Team::solo())
    }
}

/// The time of a piece of work.
fn taken<T>(work: impl FnOnce() -> Result<T>) -> Result<Duration> {
    let start = Instant::now();
    work()?;
    Ok(start.elapsed())
}

/// Pictures of the shape and classes of the data, in memory.
#[derive(Debug)]
struct Drawn {
    shape: [usize; 3],
    classes: Vec<String>,
    count: usize,
}

impl ImageDataset for Drawn {
    fn len(&self) -> usize {
        self.count
    }

    fn shape(&self) -> [usize; 3] {
        self.shape
    }

    fn class_names(&self) -> &[String] {
        &self.classes
    }

    fn get(&self, index: usize) -> gmflow_data::Result<Image> {
        let value = |at: usize| ((at * 31 + index * 17) % 256) as f32 / 127.5 - 1.0;
        let pixels = (0..self.shape.iter().product()).map(value).collect(); // [c h w]
        Ok(Image { pixels, label: (index % self.classes.len().max(1)) as u32 })
    }
}
