//! Checks of single values; the shapes of the parts are checked against each other where they meet.

use super::Config;
use crate::{Error, Result};
use gmflow::limits;
use gmflow::network::SpectrumMlpConfig;

impl Config {
    /// Checks every value once.
    ///
    /// # Errors
    /// The first value outside its domain, by its full name.
    pub fn validate(&self) -> Result<()> {
        self.data.source.validate().map_err(|error| below("data.source", Error::from(error)))?;
        self.network.validate().map_err(|error| below("network", Error::from(error)))?;
        self.loss.validate().map_err(|error| below("loss", Error::from(error)))?;
        self.validate_train()?;
        self.validate_averages()?;
        self.time.validate().map_err(|error| below("time", Error::from(error)))?;
        if let Some(spectrum) = &self.spectrum {
            let shape = SpectrumMlpConfig {
                base_size: spectrum.base_size.unwrap_or([1; 3]),
                layers: spectrum.layers.clone(),
            };
            shape.validate().map_err(|error| below("spectrum", Error::from(error)))?;
            let weight = spectrum.weight;
            check("spectrum.weight", weight.is_finite() && weight > 0.0, "a positive number", weight)?;
        }
        check("data.queue", (1..=64).contains(&self.data.queue), "1 to 64", self.data.queue)?;
        check("checkpoint.every", self.checkpoint.every > 0, "at least 1", self.checkpoint.every)?;
        check("checkpoint.keep", self.checkpoint.keep > 0, "at least 1", self.checkpoint.keep)?;
        check("log.every", self.log.every > 0, "at least 1", self.log.every)?;
        self.validate_sample()
    }

    fn validate_train(&self) -> Result<()> {
        let train = &self.train;
        let batches = 1..=limits::MOST_BATCH;
        let range = format!("1 to {}", limits::MOST_BATCH);
        check("train.batch_size", batches.contains(&train.batch_size), &range, train.batch_size)?;
        let micro = self.train.micro_batch.unwrap_or(1);
        let range = format!("1 to train.batch_size ({})", train.batch_size);
        check("train.micro_batch", (1..=train.batch_size).contains(&micro), &range, micro)?;
        let budget = if train.steps.is_some() { "both" } else { "neither" };
        let one = train.steps.is_some() != train.images.is_some();
        check("train.steps", one, "either train.steps or train.images", budget)?;
        let steps = 1..=limits::MOST_TRAIN_STEPS;
        let range = format!("1 to {} steps", limits::MOST_TRAIN_STEPS);
        check("train.steps", steps.contains(&self.total_steps()), &range, self.total_steps())?;
        // Every sample of a run has a number.
        let samples = self.total_steps().checked_mul(train.batch_size as u64).filter(|all| *all < u64::MAX / 2);
        check("train.steps", samples.is_some(), "fewer than 2^63 samples in all", self.total_steps())?;
        check("train.lr", train.lr.is_finite() && train.lr >= 0.0, "a number of at least 0", train.lr)?;
        for beta in train.betas {
            check("train.betas", (0.0..1.0).contains(&beta), "two numbers in [0, 1)", beta)?;
        }
        let precision = train.precision;
        let has_gradients = precision != gmflow::kernel::Arithmetic::Int8;
        check("train.precision", has_gradients, "f32 or bf16: there are no gradients in int8", "int8")?;
        check("train.eps", train.eps.is_finite() && train.eps >= 0.0, "a number of at least 0", train.eps)?;
        let decay = train.weight_decay;
        check("train.weight_decay", decay.is_finite() && decay >= 0.0, "a number of at least 0", decay)?;
        if let Some(norm) = train.clip_grad_norm {
            check("train.clip_grad_norm", norm.is_finite() && norm > 0.0, "a positive number", norm)?;
        }
        check(
            "train.label_dropout",
            (0.0..=1.0).contains(&train.label_dropout),
            "a probability in [0, 1]",
            train.label_dropout,
        )?;
        train.schedule.validate("train.schedule")
    }

    fn validate_averages(&self) -> Result<()> {
        for (index, ema) in self.ema.iter().enumerate() {
            ema.validate(&format!("ema.{index}"))?;
            check(&format!("ema.{index}.name"), ema.name != "none", "a name other than none", &ema.name)?;
            let twice = self.ema.iter().take(index).any(|other| other.name == ema.name);
            check(&format!("ema.{index}.name"), !twice, "a name used once", &ema.name)?;
        }
        Ok(())
    }

    fn validate_sample(&self) -> Result<()> {
        let Some(sample) = &self.sample else { return Ok(()) };
        check("sample.every", sample.every > 0, "at least 1", sample.every)?;
        check("sample.num", (1..=1_000_000).contains(&sample.num), "1 to 1000000", sample.num)?;
        sample.sampler.validate().map_err(|error| below("sample.sampler", Error::from(error)))?;
        let known = sample.ema.as_ref().is_none_or(|name| self.ema.iter().any(|ema| &ema.name == name));
        check("sample.ema", known, "the name of an [[ema]] entry", sample.ema.as_deref().unwrap_or_default())
    }
}

/// An error naming `field` unless `ok`.
pub(crate) fn check(field: &str, ok: bool, expected: &str, got: impl ToString) -> Result<()> {
    if ok { Ok(()) } else { Err(Error::config(field, expected, got)) }
}

/// Puts the table's name before a field that a library named on its own.
pub(crate) fn below(table: &str, error: Error) -> Error {
    use gmflow_data::Error as Data;
    match error {
        Error::Gmflow(gmflow::Error::Config { field, expected, got })
        | Error::Data(Data::Config { field, expected, got }) => {
            Error::config(format!("{table}.{field}"), expected, got)
        }
        other => other,
    }
}
