//! Batches on the host: data, times, noise and labels of one step, prepared ahead by a background thread.
//!
//! Every draw is a pure function of (seed, purpose, number of the sample in the run), so a batch does not depend on how
//! it is split for accumulation, on the threads, or on where the run was resumed.

use std::ops::Range;
use std::sync::mpsc::{Receiver, sync_channel};

use burn::tensor::{Device, Tensor, TensorData};
use gmflow::loss::LossBatch;
use gmflow::rng::{self, Purpose};
use rand::RngExt;
use rand_distr::StandardNormal;
use rayon::prelude::*;

use crate::config::{Config, TimeSampling};
use crate::source::{SourceBatch, TrainingData};
use crate::{Error, Result};

/// One step's samples and draws on the host.
#[derive(Clone, Debug)]
pub struct HostBatch {
    /// Batch, channels, height, width.
    pub dims: [usize; 4],
    /// Clean data, row-major.
    pub x0: Vec<f32>,
    /// Labels after dropout (the null class is the last), where the network has classes.
    pub labels: Option<Vec<i64>>,
    /// Positions of the samples in the data set; for densities the number of the draw.
    pub indices: Vec<u64>,
    /// Training times in [0, 1].
    pub t: Vec<f32>,
    /// Noise of the forward diffusion, as `x0`.
    pub noise: Vec<f32>,
    /// Noise of the forward transition, as `x0`.
    pub transition_noise: Vec<f32>,
    /// The key of each sample's dropout.
    pub dropout_keys: Vec<u64>,
}

impl HostBatch {
    /// The dropout keys of the samples of `range`.
    pub fn keys(&self, range: Range<usize>) -> Vec<u64> {
        self.dropout_keys.get(range).unwrap_or_default().to_vec()
    }

    /// Copies the samples of `range` to `device`.
    pub fn part(&self, range: Range<usize>, device: &Device) -> LossBatch {
        let [_, c, h, w] = self.dims;
        let size = c * h * w;
        let count = range.len();
        let values = |all: &[f32]| {
            let part = all.get(range.start * size..range.end * size).unwrap_or_default().to_vec();
            Tensor::from_data(TensorData::new(part, [count, c, h, w]), device) // [b c h w]
        };
        let times = self.t.get(range.clone()).unwrap_or_default().to_vec();
        LossBatch {
            x0: values(&self.x0),
            class: self.labels.as_ref().map(|labels| {
                let part = labels.get(range.clone()).unwrap_or_default().to_vec();
                Tensor::from_data(TensorData::new(part, [count]), device) // [b]
            }),
            t: Tensor::from_data(TensorData::new(times, [count]), device), // [b]
            noise: values(&self.noise),
            transition_noise: values(&self.transition_noise),
        }
    }
}

/// What is drawn for each sample, beside the data.
#[derive(Clone, Debug)]
pub(crate) struct DrawPlan {
    seed: u64,
    time: TimeSampling,
    label_dropout: f64,
    null_class: Option<usize>,
    batch_size: usize,
    /// The samples of every batch that are this process's.
    part: Range<usize>,
}

impl DrawPlan {
    pub(crate) fn new(config: &Config, null_class: Option<usize>, part: Range<usize>) -> Self {
        Self {
            seed: config.train.seed,
            time: config.time,
            label_dropout: config.train.label_dropout,
            null_class,
            batch_size: config.train.batch_size,
            part,
        }
    }

    /// Joins the data of optimiser step `step`, counted from 0, with its draws.
    pub(crate) fn batch(&self, step: u64, data: SourceBatch, [c, h, w]: [usize; 3]) -> HostBatch {
        let first = step * self.batch_size as u64;
        let numbers = first + self.part.start as u64..first + self.part.end as u64;
        let normals = |purpose| {
            let draw = |number| rng::normals(self.seed, purpose, number, c * h * w);
            numbers.clone().into_par_iter().flat_map_iter(draw).collect()
        };
        HostBatch {
            dims: [self.part.len(), c, h, w],
            labels: self.null_class.map(|null| self.labels(numbers.clone(), data.labels.as_deref(), null)),
            t: numbers.clone().map(|number| self.time(number)).collect(),
            noise: normals(Purpose::TrainNoise),
            transition_noise: normals(Purpose::TrainTransition),
            dropout_keys: numbers.clone().map(|number| rng::key(self.seed, Purpose::Dropout, number)).collect(),
            x0: data.x0,
            indices: data.indices,
        }
    }

    fn time(&self, number: u64) -> f32 {
        let mut rng = rng::stream(self.seed, Purpose::TrainTime, number);
        let draw = if self.time.draws_normals() { rng.sample(StandardNormal) } else { rng.random::<f32>() };
        self.time.time(draw)
    }

    /// Labels, or the null class where the draw falls below the dropout probability, there is no label, or the network
    /// has no class but the null class.
    fn labels(&self, numbers: Range<u64>, labels: Option<&[u32]>, null: usize) -> Vec<i64> {
        let labels = labels.filter(|_| null > 0);
        numbers
            .enumerate()
            .map(|(i, number)| {
                let kept = labels.and_then(|labels| labels.get(i)).map_or(null as i64, |&label| i64::from(label));
                let dropped =
                    rng::stream(self.seed, Purpose::LabelDropout, number).random::<f64>() < self.label_dropout;
                if dropped { null as i64 } else { kept }
            })
            .collect()
    }
}

/// The background thread's end of the queue.
#[derive(Debug)]
pub(crate) struct BatchQueue {
    batches: Receiver<Result<HostBatch>>,
}

impl BatchQueue {
    /// Starts preparing batches from optimiser step `first` on; the thread ends when the queue is dropped.
    pub(crate) fn start(mut data: TrainingData, plan: DrawPlan, first: u64, queue: usize) -> Result<Self> {
        let (sender, batches) = sync_channel(queue);
        let work = move || {
            let shape = data.info().shape;
            for step in first.. {
                let batch = data.next_batch().map(|data| plan.batch(step, data, shape));
                let failed = batch.is_err();
                if sender.send(batch).is_err() || failed {
                    break;
                }
            }
        };
        std::thread::Builder::new()
            .name("gmflow-batches".into())
            .spawn(work)
            .map_err(|source| Error::io("batch thread", source))?;
        Ok(Self { batches })
    }

    pub(crate) fn next(&self) -> Result<HostBatch> {
        self.batches.recv().map_err(|_| Error::DataThread)?
    }
}
