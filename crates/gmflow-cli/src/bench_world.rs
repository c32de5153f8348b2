//! `gmflow bench-world`: how fast the processes of a job exchange numbers, and what that means for a step of training.

use crate::args::BenchWorldArgs;
use crate::local;
use crate::output;
use crate::world::{Job, say_ranks};
use anyhow::Result;
use burn::tensor::Device;
use gmflow_train::{Config, StepTime, time_steps};
use gmflow_world::{BUCKET, Exchange, Solo, Sums, World, share};
use serde::Serialize;
use std::sync::Arc;
use std::time::Instant;

/// Rounds of one byte, of which the median counts.
const ROUNDS: usize = 200;
/// The smallest sum, in bytes.
const SMALLEST: usize = 64 << 10;
/// The numbers of processes that a step is predicted for.
const PREDICTED: [usize; 7] = [1, 2, 4, 8, 16, 32, 64];

/// What was measured.
#[derive(Serialize)]
struct Report {
    ranks: usize,
    hosts: usize,
    threads: usize,
    /// Seconds of a message.
    latency: f64,
    sums: Vec<Sum>,
    #[serde(skip_serializing_if = "Option::is_none")]
    training: Option<Training>,
}

/// Sums of one size, in seconds.
#[derive(Serialize)]
struct Sum {
    bytes: usize,
    seconds: f64,
    bf16: f64,
    /// The MPI library's own sum.
    library: Option<f64>,
    /// Bytes that a rank sends a second.
    bandwidth: f64,
}

/// Steps of training, in seconds.
#[derive(Serialize)]
struct Training {
    batch_size: usize,
    parameters: usize,
    /// Of a sample, on the threads of one process.
    sample: f64,
    /// Of a step without its samples: mostly the update of the weights.
    rest: f64,
    predicted: Vec<Predicted>,
    measured: f64,
    /// Of the measured step.
    exchange: f64,
}

#[derive(Serialize)]
struct Predicted {
    ranks: usize,
    seconds: f64,
    /// Of it.
    exchange: f64,
}

/// Runs the command.
pub fn run(arguments: &BenchWorldArgs, job: &Job) -> Result<()> {
    local::expect(arguments.config.as_deref())?;
    let world = job.world();
    say_ranks(world.as_ref(), "measuring");
    let latency = latency(world.as_ref())?;
    let mut sums = Vec::new();
    let largest = (arguments.size as usize) << 20;
    let mut bytes = SMALLEST.min(largest);
    while bytes <= largest && world.size() > 1 {
        sums.push(sum(world.as_ref(), bytes, arguments.repeat as usize)?);
        bytes = if bytes < largest { (bytes * 4).min(largest) } else { largest + 1 };
    }
    let bandwidth = sums.last().map_or(f64::INFINITY, |sum| sum.bandwidth);
    let training = match &arguments.config {
        Some(path) => {
            let config = Config::load(path, &arguments.set)?;
            Some(training(world, &config, 2 * arguments.repeat, (latency, bandwidth))?)
        }
        None => None,
    };
    let (ranks, hosts) = (world.size(), world.place().hosts);
    let report = Report { ranks, hosts, threads: rayon::current_num_threads(), latency, sums, training };
    if arguments.json { output::json(&report) } else { output::line(report.text().trim_end()) }
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// The seconds that `work` takes on this rank, which begins when all are there.
fn timed(world: &dyn World, work: &mut dyn FnMut() -> gmflow_world::Result<()>) -> Result<f64> {
    world.barrier()?;
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed().as_secs_f64())
}

fn latency(world: &dyn World) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        times.push(timed(world, &mut || world.any(false).map(|_| ()))?);
    }
    Ok(median(times) / (world.size() - 1).max(1) as f64)
}

fn sum(world: &dyn World, bytes: usize, repeat: usize) -> Result<Sum> {
    let mut values = vec![1e-3f32; bytes / size_of::<f32>()];
    let mut result = vec![0.0f32; values.len()];
    let (mut own, mut rounded) = (Sums::default(), Sums::new(Exchange::Bf16));
    let mut times: [Vec<f64>; 3] = Default::default();
    // In turns, so that what else the machine does falls on all of them.
    for turn in 0..=repeat {
        let mut round = [0.0; 3];
        round[0] = timed(world, &mut || own.sum(world, &mut values))?;
        values.fill(1e-3);
        round[1] = timed(world, &mut || world.sum_of_library(&values, &mut result))?;
        round[2] = timed(world, &mut || rounded.sum(world, &mut values))?;
        values.fill(1e-3);
        if turn > 0 {
            times.iter_mut().zip(round).for_each(|(times, time)| times.push(time));
        }
    }
    let [own, library, rounded] = times.map(median);
    Ok(Sum {
        bytes,
        seconds: own,
        bf16: rounded,
        library: world.has_library().then_some(library),
        bandwidth: travels(bytes, world.size()) / own,
    })
}

/// The bytes that a rank sends for a sum of so many bytes.
fn travels(bytes: usize, ranks: usize) -> f64 {
    2.0 * (ranks - 1) as f64 / ranks as f64 * bytes as f64
}

fn training(
    world: &Arc<dyn World>,
    config: &Config,
    steps: u32,
    (latency, bandwidth): (f64, f64),
) -> Result<Training> {
    let (batch, ranks, device) = (config.train.batch_size, world.size(), Device::flex());
    // Every rank alone, at the same time: as many samples as it has in a step, and half of them.
    let alone: Arc<dyn World> = Arc::new(Solo::default());
    let time = |samples: usize| -> Result<StepTime> {
        let mut config = config.clone();
        config.train.batch_size = samples;
        config.train.micro_batch = config.train.micro_batch.map(|micro| micro.min(samples));
        Ok(time_steps(&alone, &config, &device, steps)?)
    };
    let most = batch.div_ceil(ranks).max(2);
    let (full, half) = (time(most)?, time(most / 2)?);
    let (sample, rest) = parts((most, full.seconds), (most / 2, half.seconds));
    let parameters = full.parameters;
    let predict = |ranks: usize| {
        let samples = (0..ranks).map(|rank| share(batch, rank, ranks).len()).max().unwrap_or(0) as f64;
        let bytes = parameters * size_of::<f32>();
        let messages = 2.0 * (ranks - 1) as f64 * parameters.div_ceil(BUCKET) as f64;
        let exchange = if ranks == 1 { 0.0 } else { travels(bytes, ranks) / bandwidth + messages * latency };
        Predicted { ranks, seconds: samples * sample + rest + exchange, exchange }
    };
    let mut numbers: Vec<usize> = PREDICTED.into_iter().filter(|n| *n <= batch && (ranks > 1 || *n == 1)).collect();
    if ranks <= batch && !numbers.contains(&ranks) {
        numbers.push(ranks);
        numbers.sort_unstable();
    }
    let measured = time_steps(world, config, &device, steps)?;
    Ok(Training {
        batch_size: batch,
        parameters,
        sample,
        rest,
        predicted: numbers.into_iter().map(predict).collect(),
        measured: measured.seconds,
        exchange: measured.exchange,
    })
}

/// Seconds of a sample, and of a step beside its samples, from steps of two sizes. A difference below 0 or above the
/// larger step's mean is noise of a busy machine: then the whole step is taken for its samples.
fn parts((most, full): (usize, f64), (fewer, half): (usize, f64)) -> (f64, f64) {
    let sample = (full - half) / (most - fewer) as f64;
    let mean = full / most as f64;
    if sample > 0.0 && sample < mean { (sample, full - most as f64 * sample) } else { (mean, 0.0) }
}

impl Report {
    fn text(&self) -> String {
        let Self { ranks, hosts, threads, latency, .. } = self;
        let ms = |seconds: f64| format!("{:.2}", seconds * 1e3);
        let mut text = format!("{ranks} processes on {hosts} host{}, {threads} threads each\n", plural(*hosts));
        text += &format!("latency of a message  {:.1} us\n\n", latency * 1e6);
        if !self.sums.is_empty() {
            text += "sum of         ms   GB/s   MPI's own, ms   ratio   in bf16, ms\n";
        }
        for sum in &self.sums {
            let size = match sum.bytes >> 20 {
                0 => format!("{} KiB", sum.bytes >> 10),
                mib => format!("{mib} MiB"),
            };
            let (library, ratio) = match sum.library {
                Some(library) => (ms(library), format!("{:.2}", library / sum.seconds)),
                None => ("-".into(), "-".into()),
            };
            let (own, gb, bf16) = (ms(sum.seconds), sum.bandwidth / 1e9, ms(sum.bf16));
            text += &format!("{size:>8} {own:>8} {gb:>6.2} {library:>15} {ratio:>7} {bf16:>13}\n");
        }
        if let Some(training) = &self.training {
            text += &training.text(*ranks);
        }
        text
    }
}

impl Training {
    fn text(&self, ranks: usize) -> String {
        let ms = |seconds: f64| format!("{:.1}", seconds * 1e3);
        let Self { batch_size, parameters, sample, rest, measured, exchange, .. } = self;
        let mut text = format!(
            "\na step of {batch_size} samples, {parameters} parameters: {} ms a sample and {} ms beside, on one process\n",
            ms(*sample),
            ms(*rest)
        );
        text += "processes   predicted, ms   of it exchange   samples/s   measured, ms   of it exchange\n";
        for predicted in &self.predicted {
            let rate = *batch_size as f64 / predicted.seconds;
            let (seconds, within) = (ms(predicted.seconds), share_of(predicted.exchange, predicted.seconds));
            let (measured, of_it) = match predicted.ranks == ranks {
                true => (ms(*measured), share_of(*exchange, *measured)),
                false => Default::default(),
            };
            let line =
                format!("{:>9} {seconds:>15} {within:>16} {rate:>11.1} {measured:>14} {of_it:>16}", predicted.ranks);
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

fn share_of(part: f64, whole: f64) -> String {
    format!("{:.0} %", 100.0 * part / whole.max(f64::MIN_POSITIVE))
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

#[cfg(test)]
mod tests {
    use super::parts;

    #[test]
    fn a_step_is_split_into_samples_and_the_rest_and_noise_never_gives_a_negative_time() {
        let (sample, rest) = parts((8, 1.0), (4, 0.6));
        assert!((sample - 0.1).abs() < 1e-12 && (rest - 0.2).abs() < 1e-12, "{sample} {rest}");
        assert_eq!(parts((8, 1.0), (4, 1.1)), (0.125, 0.0));
        assert_eq!(parts((8, 1.0), (4, 0.1)), (0.125, 0.0));
    }
}
