//! What to train on a set of pictures: sizes, a network that fits the machine and the data, and how long it will take.
//!
//! ```no_run
//! use burn::tensor::Device;
//! use gmflow_train::plan::{Plan, PlanOptions};
//!
//! let plan = Plan::new("photos".as_ref(), &PlanOptions::default(), &Device::flex(), &mut |next| eprintln!("{next}"))?;
//! println!("{}", plan.words());
//! let config = plan.config(&[])?;
//! # drop(config);
//! # Ok::<(), gmflow_train::Error>(())
//! ```

mod networks;
mod size;
mod text;
mod timing;

use std::path::{Path, PathBuf};
use std::time::Duration;

use burn::tensor::Device;
use gmflow::kernel::MatmulPrecision;
use gmflow::limits::MOST_TRAIN_STEPS;
use gmflow::network::NetworkConfig;
use gmflow_data::{Corrupt, DatasetConfig, Survey};

use crate::config::overrides::is_overridden;
use crate::fit::{Split, check_memory};
use crate::source::{WORKERS, most_kept};
use crate::{Config, Error, Result};
use size::{SIZE, size};

pub use networks::NetworkSize;

/// Samples of a step.
const BATCH: u64 = 32;
/// Steps after which pictures begin to look like the data (book/src/train-on-your-pictures.md).
const RECOGNISABLE: u64 = 2000;
/// Fewer steps than this teach a network of its size too little to be worth its time.
const FEWEST: u64 = 10_000;
/// More steps than this bring little.
const MOST: u64 = 100_000;
/// The time that training may take where nothing else is asked for.
const BUDGET: Duration = Duration::from_secs(30 * 60);

/// What is asked for; everything else is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanOptions {
    /// Height and width that pictures are brought to.
    pub size: Option<usize>,
    /// The time that training may take; by default half an hour.
    pub budget: Option<Duration>,
    /// Optimiser steps, in place of a time.
    pub steps: Option<u64>,
    /// The network, in place of the largest that the time allows.
    pub network: Option<NetworkSize>,
    /// Settings that go before those of the plan, as of [`Config::load`].
    pub overrides: Vec<String>,
}

impl PlanOptions {
    fn budget(&self) -> Duration {
        self.budget.unwrap_or(BUDGET)
    }

    /// Refuses numbers that no data would allow.
    fn check(&self) -> Result<()> {
        let steps = 1..=MOST_TRAIN_STEPS;
        match self.steps {
            Some(asked) if !steps.contains(&asked) => {
                Err(Error::config("steps", format!("1 to {MOST_TRAIN_STEPS}"), asked))
            }
            _ => Ok(()),
        }
    }

    /// The data set at a path, with the settings of it that are given; damaged files are passed over where nothing else is asked for.
    fn source(&self, path: &Path) -> Result<DatasetConfig> {
        let mut source = DatasetConfig::guess(path)?;
        let name = "data.source.";
        let given: Vec<String> =
            self.overrides.iter().filter(|text| text.trim_start().starts_with(name)).cloned().collect();
        if !given.is_empty() {
            let text = format!("[data.source]\n{}\nimage = {{}}\n[train]\nsteps = 1\n", text::source_lines(&source)?);
            source = Config::parse(&text, Path::new("the plan"), &given)?.data.source;
        }
        if let Some(image) = source.image_mut()
            && !is_overridden("data.source.image.corrupt", &given)
        {
            image.corrupt = Corrupt::Skip;
        }
        Ok(source)
    }
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
    /// The size that they would have with more time, where it is another.
    pub larger: Option<usize>,
    /// Their channels.
    pub channels: usize,
    /// The network.
    pub network: NetworkSize,
    /// What its layers multiply: the faster of f32 and bf16 on this machine.
    pub precision: MatmulPrecision,
    /// Pictures of a step.
    pub batch: u64,
    /// Optimiser steps.
    pub steps: u64,
    /// Whether the time would allow more.
    pub more: bool,
    /// The time of a step on this machine, without the reading of pictures.
    pub step_time: Duration,
    /// Settings that go before those of the plan.
    overrides: Vec<String>,
}

impl Plan {
    /// Looks at the pictures at `path`, chooses and times a few steps on `device`. `say` is told what is done next where that takes seconds.
    ///
    /// # Errors
    /// A path without pictures; an option that does not fit them; as [`Trainer::new`](crate::Trainer::new).
    pub fn new(path: &Path, options: &PlanOptions, device: &Device, say: &mut dyn FnMut(&str)) -> Result<Self> {
        options.check()?;
        let mut source = options.source(path)?;
        say(&format!("looking at {}", path.display()));
        let survey = source.survey()?;
        let (given, channels) = source.image().map_or((None, None), |image| (image.size, image.channels));
        let asked = options.size.or(given);
        let size = size(&survey, asked)?;
        let channels = channels.unwrap_or(if survey.grey { 1 } else { 3 });
        if let Some(image) = source.image_mut() {
            (image.size, image.channels) = (Some(size), Some(channels));
        }
        let mut plan = Self::begun(source, survey, size, channels, options);
        plan.batch = plan.resolved()?.train.batch_size as u64;
        plan.time(device, say)?;
        if asked.is_none() && size > SIZE && options.steps.is_none() && plan.too_slow(options) {
            // A smaller picture that looks like the data is better than blobs.
            (plan.size, plan.larger) = (SIZE, Some(size));
            if let Some(image) = plan.source.image_mut() {
                image.size = Some(SIZE);
            }
            plan.time(device, say)?;
        }
        plan.choose(options, device, say)?;
        Ok(plan)
    }

    /// Whether no network that may be chosen takes enough steps in the time.
    fn too_slow(&self, options: &PlanOptions) -> bool {
        let network = options.network.unwrap_or(NetworkSize::Tiny);
        let step_time = self.step_time.mul_f64(network.cost() / self.network.cost());
        Self { step_time, ..self.clone() }.steps_in(options.budget()) < RECOGNISABLE
    }

    /// The network and the number of steps.
    fn choose(&mut self, options: &PlanOptions, device: &Device, say: &mut dyn FnMut(&str)) -> Result<()> {
        if options.network.is_none() && options.steps.is_none() {
            let network = self.affordable(options.budget(), device)?;
            if network != self.network {
                self.network = network;
                self.time(device, say)?;
            }
        }
        let in_time = rounded(self.steps_in(options.budget()));
        self.more = options.steps.is_none() && in_time > MOST;
        self.steps = options.steps.unwrap_or_else(|| in_time.clamp(1, MOST));
        if is_overridden("train.steps", &self.overrides) {
            self.steps = self.resolved()?.total_steps();
        }
        Ok(())
    }

    /// The steps that a time allows.
    fn steps_in(&self, budget: Duration) -> u64 {
        let budget = budget.as_secs_f64();
        let step = self.step_time.as_secs_f64().max(1e-6);
        let with_reading = budget / (step + self.reading_one().as_secs_f64() * self.batch as f64);
        let after_reading = match self.is_kept() {
            true => (budget - self.reading_one().as_secs_f64() * self.survey.images as f64) / step,
            false => 0.0,
        };
        with_reading.max(after_reading) as u64
    }

    /// The time that a picture takes to read, by all threads that do so.
    fn reading_one(&self) -> Duration {
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get().min(WORKERS));
        self.survey.read_time / threads as u32
    }

    /// Whether the pictures stay in memory after they have been read once.
    fn is_kept(&self) -> bool {
        let values = [self.channels, self.size, self.size]
            .iter()
            .fold(self.survey.images as u64, |all, side| all.saturating_mul(*side as u64));
        values <= most_kept()
    }

    /// The time that the pictures of so many steps take to read.
    fn reading(&self, steps: u64) -> Duration {
        let drawn = steps.saturating_mul(self.batch);
        let read = if self.is_kept() { drawn.min(self.survey.images as u64) } else { drawn };
        Duration::try_from_secs_f64(self.reading_one().as_secs_f64() * read as f64).unwrap_or(Duration::MAX)
    }

    /// Checks what can be told before the pictures are looked at: the size and the steps that are asked for, and that the overrides are
    /// settings.
    ///
    /// # Errors
    /// An option or an override that no plan could have.
    pub fn check(source: &DatasetConfig, options: &PlanOptions) -> Result<()> {
        options.check()?;
        // With classes there is a setting for all that may be overridden.
        let classes = ["a", "b"].map(|name| (name.to_owned(), None)).to_vec();
        let survey = Survey { classes, sizes: [[SIZE; 2]; 2], ..Survey::default() };
        let size = size(&survey, options.size)?;
        let plan =
            Self { steps: options.steps.unwrap_or(MOST), ..Self::begun(source.clone(), survey, size, 3, options) };
        plan.resolved().map(|_| ())
    }

    /// A plan of which nothing is timed.
    fn begun(source: DatasetConfig, survey: Survey, size: usize, channels: usize, options: &PlanOptions) -> Self {
        Self {
            source,
            survey,
            size,
            larger: None,
            channels,
            network: options.network.unwrap_or(NetworkSize::Small),
            precision: MatmulPrecision::F32,
            batch: BATCH,
            steps: 1,
            more: false,
            step_time: Duration::ZERO,
            overrides: options.overrides.clone(),
        }
    }

    /// The largest network that takes enough steps in the time and fits in memory, by the time of a step of this plan's; the smallest
    /// where none does.
    fn affordable(&self, budget: Duration, device: &Device) -> Result<NetworkSize> {
        let fits = |network: &NetworkSize| {
            let step_time = self.step_time.mul_f64(network.cost() / self.network.cost());
            let enough_data = self.survey.images >= network.fewest_images();
            enough_data && Self { step_time, ..self.clone() }.steps_in(budget) >= FEWEST
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
        let mut config = Self { network, ..self.clone() }.resolved()?;
        if let NetworkConfig::Unet(net) = &mut config.network {
            (net.in_channels, net.sample_size, net.num_classes) =
                (self.channels, self.size, self.survey.classes.len());
        }
        Ok(check_memory(&config, [self.channels, self.size, self.size], device, Split::whole(&config)).is_ok())
    }

    /// The configuration, with `overrides` as of [`Config::load`]. Its paths are absolute.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn config(&self, overrides: &[String]) -> Result<Config> {
        let mut config = Config::parse(&self.toml(None)?, Path::new("the plan"), overrides)?;
        config.resolve_paths(Path::new(""), overrides);
        config.validate()?;
        Ok(config)
    }

    /// The configuration with the settings that the plan was made with.
    fn resolved(&self) -> Result<Config> {
        self.config(&self.overrides)
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
        let after = |steps: u64| {
            let seconds = self.step_time.as_secs_f64() * steps as f64;
            Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX).saturating_add(self.reading(steps))
        };
        [after(RECOGNISABLE.min(self.steps)), after(self.steps)]
    }

    /// What was found and chosen, in a few lines.
    pub fn words(&self) -> String {
        text::words(self)
    }

    /// The name of a run on this data: that of the folder or file.
    pub fn name(path: &Path) -> PathBuf {
        // What stands for several files has no name of its own.
        let several = path.file_name().is_some_and(|name| name.to_string_lossy().contains(['*', '?', '[', '{']));
        let path = path.parent().filter(|_| several).unwrap_or(path);
        let full = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
        let stem = if full.is_dir() { full.file_name() } else { full.file_stem() };
        PathBuf::from(stem.unwrap_or("pictures".as_ref()))
    }
}

/// The number with two digits that count.
fn rounded(number: u64) -> u64 {
    let unit = 10u64.pow(number.max(1).ilog10().saturating_sub(1));
    number / unit * unit
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::size::tests::survey;

    /// A plan for photos of which a step takes 100 ms and reading a picture 50 ms for each thread.
    fn plan(images: usize) -> Plan {
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get().min(WORKERS));
        let mut survey = survey([[3000, 4000], [3000, 4000]]);
        survey.images = images;
        survey.read_time = Duration::from_millis(50) * threads as u32;
        let mut source =
            DatasetConfig::Folder { path: "photos".into(), image: Default::default(), storage: Default::default() };
        source.image_mut().expect("images").corrupt = Corrupt::Skip;
        Plan {
            source,
            survey,
            size: 32,
            larger: None,
            channels: 3,
            network: NetworkSize::Small,
            precision: MatmulPrecision::F32,
            batch: 32,
            steps: 4000,
            more: false,
            step_time: Duration::from_millis(100),
            overrides: Vec::new(),
        }
    }

    #[test]
    fn pictures_are_read_once_and_that_is_told() {
        let plan = plan(6000);
        assert_eq!((plan.is_kept(), plan.reading(10), plan.reading(4000)), (true, secs(16), secs(300)));
        assert_eq!(plan.expected(), [secs(200 + 300), secs(400 + 300)]);
        assert!(plan.words().contains("reading   the pictures takes about 5 min more, once"), "{}", plan.words());
        // 17 s are gone after 10 steps; once all are read, a step takes its own time.
        assert_eq!([18, 400].map(|time| plan.steps_in(secs(time))), [10, 1000]);
        let many = Plan { size: 1 << 12, ..self::plan(6000) };
        assert_eq!((many.is_kept(), many.reading(4000), many.steps_in(secs(400))), (false, secs(6400), 235));
        assert!(many.words().contains("too many to stay in memory"), "{}", many.words());
        let quick = self::plan(600);
        assert!(!quick.words().contains("reading"), "{}", quick.words());
    }

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn too_few_pictures_and_too_little_time_are_told() {
        let mut plan = Plan { steps: 200, size: 64, ..plan(5) };
        plan.survey.classes = vec![("cats".into(), Some(5))];
        let words = plan.words();
        assert!(words.contains("few       5 pictures will be known by heart"), "{words}");
        assert!(words.contains("5 pictures in 1 class: cats 5") && words.contains("64x64, 3 channels"), "{words}");
        assert!(words.contains("need about 2,000 steps: --minutes 4, or fewer with --size 32"), "{words}");
        let words = Plan { size: 32, larger: Some(64), channels: 1, more: true, ..self::plan(600) }.words();
        assert!(words.contains("32x32, 1 channel (the time is too short for 64x64"), "{words}");
        assert!(words.contains("4,000 steps (more bring little") && !words.contains("few "), "{words}");
        let slow = Plan { step_time: secs(1), ..self::plan(600) };
        let minutes = |minutes: u64| PlanOptions { budget: Some(secs(60 * minutes)), ..Default::default() };
        assert!(slow.too_slow(&minutes(3)) && !slow.too_slow(&minutes(30)));
    }

    #[test]
    fn settings_of_the_data_go_before_what_is_guessed() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("t.parquet");
        std::fs::write(&path, "").expect("written");
        let of = |settings: &[&str]| {
            let overrides = settings.iter().map(|text| text.to_string()).collect();
            PlanOptions { overrides, ..Default::default() }.source(&path).expect("a source")
        };
        let DatasetConfig::Parquet { label_column, image, .. } = of(&["data.source.label_column=", "ema.0.name=x"])
        else {
            panic!("Parquet")
        };
        assert_eq!((label_column.as_deref(), image.corrupt), (Some(""), Corrupt::Skip));
        let refusing = of(&["data.source.image.corrupt=refuse"]);
        assert_eq!(refusing.image().map(|image| image.corrupt), Some(Corrupt::Refuse));
        let steps = PlanOptions { steps: Some(1_000_000_000_000_000), ..Default::default() };
        assert!(steps.check().is_err_and(|error| error.to_string().contains("steps: expected 1 to")));
    }

    #[test]
    fn a_short_run_draws_one_picture_at_its_end() {
        let short = Plan { steps: 5, ..plan(600) };
        assert_eq!(short.config(&[]).expect("a configuration").sample.map(|sample| sample.every), Some(5));
        let source = short.config(&[]).expect("a configuration").data.source;
        assert!(source.clone().paths_mut().iter().all(|(_, path)| path.is_absolute()), "{source:?}");
        assert_eq!(source.image().map(|image| image.corrupt), Some(Corrupt::Skip));
    }

    #[test]
    fn numbers_of_steps_are_round() {
        assert_eq!([7, 42, 987, 33_845].map(rounded), [7, 42, 980, 33_000]);
    }
}
