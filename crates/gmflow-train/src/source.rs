//! The data set behind the batches.

use std::path::Path;

use burn::tensor::Device;
use gmflow::checkpoint::LatentInfo;
use gmflow::limits::{self, Training};
use gmflow_data::{Dataset, LatentManifest, Loader, LoaderOptions};

use crate::Result;
use crate::batch::SourceBatch;
use crate::config::Config;
use crate::trainer::SourceInfo;

/// Threads that decode. Their number does not change the batches; two keep a CPU's trainer fed.
const WORKERS: usize = 2;

/// The data of every step, in order from one step on.
#[derive(Debug)]
pub(crate) struct Source {
    loader: Loader,
    info: SourceInfo,
    first_step: u64,
}

impl Source {
    /// Opens the data set and starts to prepare the batch of optimiser step `first_step`, counted from 0.
    /// `check` looks at the data first; then what the configuration leaves to the data is filled in.
    ///
    /// # Errors
    /// Data that cannot be opened, that `check` refuses, or that contradicts the configuration.
    pub(crate) fn open(
        config: &mut Config,
        first_step: u64,
        device: &Device,
        check: impl FnOnce(&mut SourceInfo) -> Result<()>,
    ) -> Result<Self> {
        // The paths have been resolved when the configuration was loaded.
        let dataset = config.data.source.open(Path::new(""))?;
        let classes = dataset.class_names();
        let mut info = SourceInfo {
            shape: dataset.shape(),
            classes: (!classes.is_empty()).then(|| classes.to_vec()),
            count: dataset.len(),
            class_images: dataset.class_images(),
            fingerprint: dataset.fingerprint(),
            points: matches!(dataset, Dataset::Points(_)),
            latent: match &dataset {
                Dataset::Latents { latents, .. } => Some(latent_info(latents.manifest())),
                _ => None,
            },
        };
        check(&mut info)?;
        config.fit(&info)?;
        check_memory(config, info.shape, device)?;
        let options = LoaderOptions {
            batch_size: config.train.batch_size,
            seed: config.train.seed,
            first_step,
            workers: WORKERS,
            queue: config.data.queue,
        };
        Ok(Self { loader: Loader::start(dataset, options)?, info, first_step })
    }

    pub(crate) fn info(&self) -> &SourceInfo {
        &self.info
    }

    /// The optimiser step of the first batch.
    pub(crate) fn first_step(&self) -> u64 {
        self.first_step
    }

    pub(crate) fn next_batch(&mut self) -> Result<SourceBatch> {
        let batch = self.loader.next_batch()?;
        let labels = self.info.classes.is_some().then_some(batch.labels);
        Ok(SourceBatch { x0: batch.images, labels, indices: batch.indices })
    }
}

/// Refuses a run on samples `[c h w]` that does not fit in memory, before the first batch is prepared.
///
/// # Errors
/// [`gmflow::Error::Memory`].
pub(crate) fn check_memory(config: &Config, shape: [usize; 3], device: &Device) -> Result<()> {
    Ok(limits::check_training(&Training {
        network: &config.network,
        shape,
        batch: config.train.batch_size,
        micro_batch: config.train.micro_batch,
        queue: config.data.queue,
        averages: config.ema.len(),
        all_trained: config.train.trains_all(),
        recomputed: config.train.gradient_checkpointing,
        device,
    })?)
}

fn latent_info(manifest: &LatentManifest) -> LatentInfo {
    LatentInfo {
        scaling_factor: manifest.scaling_factor,
        shift_factor: manifest.shift_factor,
        downsampling: manifest.downsampling,
        vae: manifest.vae.clone(),
    }
}
