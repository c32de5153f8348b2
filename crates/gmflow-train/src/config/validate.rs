//! Checks of single values; the shapes of the parts are checked against each other where they meet.

use super::Config;
use crate::{Error, Result};
use gmflow::FilesError;
use gmflow::limits;
use gmflow::network::SpectrumMlpConfig;

impl Config {
    /// Checks every value once.
    ///
    /// # Errors
    /// All values outside their domains, by their full names.
    pub fn validate(&self) -> Result<()> {
        let mut faults = Faults::default();
        self.find_faults(&mut faults);
        faults.into_result()
    }

    fn find_faults(&self, faults: &mut Faults) {
        faults.add(self.data.source.validate().map_err(|error| below("data.source", Error::from(error))));
        faults.add(self.network.validate().map_err(|error| below("network", Error::from(error))));
        faults.add(self.loss.validate().map_err(|error| below("loss", Error::from(error))));
        self.validate_train(faults);
        self.validate_averages(faults);
        faults.add(self.time.validate().map_err(|error| below("time", Error::from(error))));
        if let Some(spectrum) = &self.spectrum {
            let shape = SpectrumMlpConfig {
                base_size: spectrum.base_size.unwrap_or([1; 3]),
                layers: spectrum.layers.clone(),
            };
            faults.add(shape.validate().map_err(|error| below("spectrum", Error::from(error))));
            let weight = spectrum.weight;
            faults.check("spectrum.weight", weight.is_finite() && weight > 0.0, "a positive number", weight);
        }
        faults.check("data.queue", (1..=64).contains(&self.data.queue), "1 to 64", self.data.queue);
        faults.check("checkpoint.every", self.checkpoint.every > 0, "at least 1", self.checkpoint.every);
        faults.check("checkpoint.keep", self.checkpoint.keep > 0, "at least 1", self.checkpoint.keep);
        faults.check("log.every", self.log.every > 0, "at least 1", self.log.every);
        self.validate_sample(faults);
        self.validate_distill(faults);
    }

    fn validate_distill(&self, faults: &mut Faults) {
        let Some(distill) = &self.distill else { return };
        distill.validate().into_iter().for_each(|checked| {
            faults.add(checked.map_err(|error| below("distill", error)));
        });
        let dropout = self.train.label_dropout;
        let expected = "0: a student is asked with a class alone, as guidance is built in";
        faults.check("train.label_dropout", dropout == 0.0, expected, dropout);
        faults.check("spectrum", self.spectrum.is_none(), "none beside distill", "a spectrum network");
    }

    /// Settings that make no sense together and are no error, each with what is the matter.
    pub(crate) fn without_effect(&self) -> Vec<(&'static str, String)> {
        let (train, total) = (&self.train, self.total_steps());
        let mut found = Vec::new();
        if train.warmup_steps > total {
            let why = format!(
                "= {} is more than all {total} steps: the learning rate never reaches train.lr",
                train.warmup_steps
            );
            found.push(("train.warmup_steps", why));
        }
        if self.distill.is_none()
            && self.sample.as_ref().is_some_and(|sample| sample.sampler.guidance.is_active())
            && train.label_dropout == 0.0
        {
            let why = "needs train.label_dropout above 0: the network never learns what has no class".to_owned();
            found.push(("sample.sampler.guidance", why));
        }
        found
    }

    fn validate_train(&self, faults: &mut Faults) {
        let train = &self.train;
        let batches = 1..=limits::MOST_BATCH;
        let range = format!("1 to {}", limits::MOST_BATCH);
        faults.check("train.batch_size", batches.contains(&train.batch_size), &range, train.batch_size);
        let micro = self.train.micro_batch.unwrap_or(1);
        let range = format!("1 to train.batch_size ({})", train.batch_size);
        let fits = (1..=train.batch_size).contains(&micro) || train.batch_size == 0;
        faults.check("train.micro_batch", fits, &range, micro);
        let budget = if train.steps.is_some() { "both" } else { "neither" };
        let one = train.steps.is_some() != train.images.is_some();
        faults.check("train.steps", one, "either train.steps or train.images", budget);
        let steps = 1..=limits::MOST_TRAIN_STEPS;
        let range = format!("1 to {} steps", limits::MOST_TRAIN_STEPS);
        faults.check("train.steps", steps.contains(&self.total_steps()), &range, self.total_steps());
        // Every sample of a run has a number.
        let samples = self.total_steps().checked_mul(train.batch_size as u64).filter(|all| *all < u64::MAX / 2);
        let counted = samples.is_some() || !batches.contains(&train.batch_size);
        faults.check("train.steps", counted, "fewer than 2^63 samples in all", self.total_steps());
        faults.check("train.lr", train.lr.is_finite() && train.lr >= 0.0, "a number of at least 0", train.lr);
        for beta in train.betas {
            faults.check("train.betas", (0.0..1.0).contains(&beta), "two numbers in [0, 1)", beta);
        }
        let precision = train.precision;
        let has_gradients = precision != gmflow::kernel::PrecisionChoice::Int8;
        faults.check("train.precision", has_gradients, "auto, f32 or bf16: there are no gradients in int8", "int8");
        faults.check("train.eps", train.eps.is_finite() && train.eps >= 0.0, "a number of at least 0", train.eps);
        let decay = train.weight_decay;
        faults.check("train.weight_decay", decay.is_finite() && decay >= 0.0, "a number of at least 0", decay);
        if let Some(norm) = train.clip_grad_norm {
            faults.check("train.clip_grad_norm", norm.is_finite() && norm > 0.0, "a positive number", norm);
        }
        faults.check(
            "train.label_dropout",
            (0.0..=1.0).contains(&train.label_dropout),
            "a probability in [0, 1]",
            train.label_dropout,
        );
        faults.add(train.schedule.validate("train.schedule"));
    }

    fn validate_averages(&self, faults: &mut Faults) {
        for (index, ema) in self.ema.iter().enumerate() {
            faults.add(ema.validate(&format!("ema.{index}")));
            faults.check(&format!("ema.{index}.name"), ema.name != "none", "a name other than none", &ema.name);
            let twice = self.ema.iter().take(index).any(|other| other.name == ema.name);
            faults.check(&format!("ema.{index}.name"), !twice, "a name used once", &ema.name);
        }
    }

    fn validate_sample(&self, faults: &mut Faults) {
        let Some(sample) = &self.sample else { return };
        faults.check("sample.every", sample.every > 0, "at least 1", sample.every);
        faults.check("sample.num", (1..=1_000_000).contains(&sample.num), "1 to 1000000", sample.num);
        faults.add(sample.sampler.validate().map_err(|error| below("sample.sampler", Error::from(error))));
        let known = sample.ema.as_ref().is_none_or(|name| self.ema.iter().any(|ema| &ema.name == name));
        faults.check("sample.ema", known, "the name of an [[ema]] entry", sample.ema.as_deref().unwrap_or_default())
    }
}

/// Everything that was found wrong, one fault for a setting.
#[derive(Default)]
struct Faults(Vec<Error>);

impl Faults {
    fn add(&mut self, checked: Result<()>) {
        let Err(fault) = checked else { return };
        if !self.0.iter().any(|known| known.field().is_some() && known.field() == fault.field()) {
            self.0.push(fault);
        }
    }

    fn check(&mut self, field: &str, ok: bool, expected: &str, got: impl ToString) {
        self.add(check(field, ok, expected, got));
    }

    fn into_result(self) -> Result<()> {
        Error::all(self.0)
    }
}

/// An error naming `field` unless `ok`.
pub(crate) fn check(field: &str, ok: bool, expected: &str, got: impl ToString) -> Result<()> {
    if ok { Ok(()) } else { Err(Error::config(field, expected, got)) }
}

/// Puts the table's name before a field that a library named on its own.
pub(crate) fn below(table: &str, error: Error) -> Error {
    match error {
        Error::Gmflow(gmflow::Error::Files(FilesError::Config { field, expected, got }))
        | Error::Config { field, expected, got, .. }
        | Error::Data(gmflow_data::Error::Files(FilesError::Config { field, expected, got })) => {
            Error::config(format!("{table}.{field}"), expected, got)
        }
        other => other,
    }
}
