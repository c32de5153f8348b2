//! What to train on a set of pictures: sizes, a network that fits the machine and the data, and how long it will take.
//!
//! ```no_run
//! use burn::tensor::Device;
//! use gmflow_train::plan::{Plan, PlanOptions};
//!
//! let plan = Plan::new("photos".as_ref(), PlanOptions::default(), &Device::flex())?;
//! println!("{}", plan.words());
//! let config = plan.config(&[])?;
//! # drop(config);
//! # Ok::<(), gmflow_train::Error>(())
//! ```

mod networks;
mod text;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use burn::tensor::Device;
use gmflow::kernel::MatmulPrecision;
use gmflow::network::NetworkConfig;
use gmflow_data::{Corrupt, DatasetConfig, Survey};

use crate::fit::check_memory;
use crate::{Config, Error, Result, Trainer};

pub use networks::NetworkSize;

/// Samples of a step.
const BATCH: u64 = 32;
/// Steps after which pictures begin to look like the data (book/src/train-on-your-pictures.md).
const RECOGNISABLE: u64 = 2000;
/// Fewer steps than this teach a network of its size too little to be worth its time.
const FEWEST: u64 = 10_000;
/// More steps than this bring little.
const MOST: u64 = 100_000;
/// Pictures are brought to this size where nothing else is asked for.
const SIZE: usize = 32;
/// Images of one size up to this are left as they are.
const LARGEST_AS_THEY_ARE: usize = 64;
/// Images of fewer pixels to a side are not trained on.
const SMALLEST: usize = 8;
/// Steps that are timed at the least, after one that is not, where they take less than [`LONGEST`].
const TIMED: u32 = 5;
/// Short steps are timed for this long: a processor runs faster in its first moments than later.
const ENOUGH: Duration = Duration::from_secs(3);
/// No more steps are timed after this.
const LONGEST: Duration = Duration::from_secs(10);
/// The time that training may take where nothing else is asked for.
const BUDGET: Duration = Duration::from_secs(2 * 3600);

/// What is asked for; everything else is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PlanOptions {
    /// Height and width that pictures are brought to.
    pub size: Option<usize>,
    /// The time that training may take; by default two hours.
    pub budget: Option<Duration>,
    /// Optimiser steps, in place of a time.
    pub steps: Option<u64>,
    /// The network, in place of the largest that the time allows.
    pub network: Option<NetworkSize>,
}

/// What was found, chosen and timed.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// What the data is and how it is read.
    pub source: DatasetConfig,
    /// What the data holds.
    pub survey: Survey,
    /// Height and width of the pictures that are learnt.
    pub size: usize,
    /// Their channels.
    pub channels: usize,
    /// The network.
    pub network: NetworkSize,
    /// What its layers multiply: the faster of f32 and bf16 on this machine.
    pub precision: MatmulPrecision,
    /// Optimiser steps.
    pub steps: u64,
    /// The time of a step on this machine.
    pub step_time: Duration,
}

impl Plan {
    /// Looks at the pictures at `path`, chooses and times a few steps on `device`.
    ///
    /// # Errors
    /// A path without pictures; an option that does not fit them; as [`Trainer::new`].
    pub fn new(path: &Path, options: PlanOptions, device: &Device) -> Result<Self> {
        let mut source = DatasetConfig::guess(path)?;
        let survey = source.survey()?;
        let size = size(&survey, options.size)?;
        let channels = if survey.grey { 1 } else { 3 };
        if let Some(image) = source.image_mut() {
            (image.size, image.channels) = (Some(size), Some(channels));
        }
        let network = options.network.unwrap_or(NetworkSize::Small);
        let precision = MatmulPrecision::F32;
        let mut plan =
            Self { source, survey, size, channels, network, precision, steps: 1, step_time: Duration::ZERO };
        plan.time(device)?;
        let budget = options.budget.unwrap_or(BUDGET);
        if options.network.is_none() && options.steps.is_none() {
            let network = plan.affordable(budget, device)?;
            if network != plan.network {
                plan.network = network;
                plan.time(device)?;
            }
        }
        let in_budget = budget.as_secs_f64() / plan.step_time.as_secs_f64().max(1e-6);
        plan.steps = options.steps.unwrap_or_else(|| rounded(in_budget as u64).clamp(1, MOST));
        Ok(plan)
    }

    /// Checks what can be told before the pictures are looked at: the size that is asked for, and that `overrides` are settings.
    ///
    /// # Errors
    /// An option or an override that no plan could have.
    pub fn check(source: &DatasetConfig, options: PlanOptions, overrides: &[String]) -> Result<()> {
        let (source, mut survey) = (source.clone(), Survey::default());
        // With classes there is a setting for all that may be overridden.
        survey.classes = ["a", "b"].map(|name| (name.to_owned(), None)).to_vec();
        survey.sizes = [[SIZE; 2]; 2];
        let size = size(&survey, options.size)?;
        let (network, precision) = (options.network.unwrap_or(NetworkSize::Small), MatmulPrecision::F32);
        let (steps, step_time) = (options.steps.unwrap_or(MOST), Duration::ZERO);
        Self { source, survey, size, channels: 3, network, precision, steps, step_time }.config(overrides).map(|_| ())
    }

    /// The largest network that takes enough steps in the time and fits in memory, by the time of a step of this plan's; the smallest
    /// where none does.
    fn affordable(&self, budget: Duration, device: &Device) -> Result<NetworkSize> {
        let fits = |network: &NetworkSize| {
            let step = self.step_time.as_secs_f64() * network.cost() / self.network.cost();
            let enough_data = self.survey.images >= network.fewest_images();
            enough_data && step * FEWEST as f64 <= budget.as_secs_f64()
        };
        for network in NetworkSize::ALL.into_iter().rev().filter(fits) {
            if self.fits_memory(network, device)? {
                return Ok(network);
            }
        }
        Ok(NetworkSize::Tiny)
    }

    /// Whether training a network of this size fits in this machine's memory.
    fn fits_memory(&self, network: NetworkSize, device: &Device) -> Result<bool> {
        let mut config = Self { network, ..self.clone() }.config(&[])?;
        if let NetworkConfig::Unet(net) = &mut config.network {
            (net.in_channels, net.sample_size, net.num_classes) =
                (self.channels, self.size, self.survey.classes.len());
        }
        Ok(check_memory(&config, [self.channels, self.size, self.size], device).is_ok())
    }

    /// Times a step in f32 and, where this device has it, in bf16, and keeps the faster.
    fn time(&mut self, device: &Device) -> Result<()> {
        self.precision = MatmulPrecision::F32;
        self.step_time = self.time_steps(device)?;
        if self.config(&[])?.network.computed_in(MatmulPrecision::Bf16, device).0 == MatmulPrecision::Bf16 {
            let mixed = Self { precision: MatmulPrecision::Bf16, ..self.clone() };
            let step_time = mixed.time_steps(device)?;
            if step_time < self.step_time {
                *self = Self { step_time, ..mixed };
            }
        }
        Ok(())
    }

    /// The time of a step: the first, which is slower than all others, does not count.
    fn time_steps(&self, device: &Device) -> Result<Duration> {
        let mut config = self.config(&[])?;
        // What happens to damaged pictures is said when training meets them.
        if let Some(image) = config.data.source.image_mut() {
            image.corrupt = Corrupt::Skip;
        }
        let mut trainer = Trainer::new(config, device)?;
        trainer.step()?;
        let (start, mut steps) = (Instant::now(), 0);
        while start.elapsed() < if steps < TIMED { LONGEST } else { ENOUGH } {
            trainer.step()?;
            steps += 1;
        }
        Ok(start.elapsed() / steps.max(1))
    }

    /// The configuration, with `overrides` as of [`Config::load`].
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn config(&self, overrides: &[String]) -> Result<Config> {
        let config = Config::parse(&self.toml(None)?, Path::new("the plan"), overrides)?;
        config.validate()?;
        Ok(config)
    }

    /// The configuration as a file with comments. Relative paths of data hold from the folder of the file; `data` is the place of the data
    /// seen from there, where it is another than that the plan was made with.
    ///
    /// # Errors
    /// A path that is not text.
    pub fn toml(&self, data: Option<&DatasetConfig>) -> Result<String> {
        text::toml(self, data.unwrap_or(&self.source))
    }

    /// The time to the first pictures that look like the data, and to the end.
    pub fn expected(&self) -> [Duration; 2] {
        let after = |steps: u64| self.step_time.mul_f64(steps as f64);
        [after(RECOGNISABLE.min(self.steps)), after(self.steps)]
    }

    /// What was found and chosen, in a few lines.
    pub fn words(&self) -> String {
        text::words(self)
    }

    /// The name of a run on this data: that of the folder or file.
    pub fn name(path: &Path) -> PathBuf {
        let full = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let stem = if full.is_dir() { full.file_name() } else { full.file_stem() };
        PathBuf::from(stem.unwrap_or("pictures".as_ref()))
    }
}

/// The size that pictures are brought to: what is asked for; small ones of one size as they are; or 32, or less where they are smaller.
fn size(survey: &Survey, asked: Option<usize>) -> Result<usize> {
    let multiple = NetworkSize::MULTIPLE;
    if let Some(asked) = asked {
        let fits = asked >= SMALLEST && asked.is_multiple_of(multiple);
        let expected = format!("a multiple of {multiple} of at least {SMALLEST} pixels");
        return if fits { Ok(asked) } else { Err(Error::config("size", expected, asked)) };
    }
    let smallest = survey.smallest();
    let as_they_are =
        survey.one_square_size() && smallest <= LARGEST_AS_THEY_ARE && smallest.is_multiple_of(multiple);
    let size = if as_they_are { smallest } else { SIZE.min(smallest / multiple * multiple) };
    if size < SMALLEST {
        let got = format!("one of {} x {}", survey.sizes[0][0], survey.sizes[0][1]);
        return Err(Error::config("data", format!("pictures of at least {SMALLEST} pixels to a side"), got));
    }
    Ok(size)
}

/// The number with two digits that count.
fn rounded(number: u64) -> u64 {
    let unit = 10u64.pow(number.max(1).ilog10().saturating_sub(1));
    number / unit * unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn survey(sizes: [[usize; 2]; 2]) -> Survey {
        Survey {
            images: 10,
            classes: Vec::new(),
            looked_at: 10,
            sizes,
            formats: BTreeMap::new(),
            grey: false,
            damaged: None,
        }
    }

    #[test]
    fn sizes_follow_the_pictures() {
        let of = |sizes, asked| size(&survey(sizes), asked).map_err(|error| error.to_string());
        assert_eq!(of([[28, 28], [28, 28]], None), Ok(28), "digits stay as they are");
        assert_eq!(of([[480, 640], [3000, 4000]], None), Ok(32), "photos");
        assert_eq!(of([[22, 30], [640, 480]], None), Ok(20), "nothing is made larger");
        assert_eq!(of([[480, 640], [480, 640]], Some(64)), Ok(64));
        assert!(
            of([[480, 640], [480, 640]], Some(30)).is_err_and(|error| error.contains("size: expected a multiple"))
        );
        assert!(of([[4, 9], [480, 640]], None).is_err_and(|error| error.contains("one of 4 x 9")));
    }

    #[test]
    fn numbers_of_steps_are_round() {
        assert_eq!([7, 42, 987, 33_845].map(rounded), [7, 42, 980, 33_000]);
    }
}
