//! `gmflow encode`: images to a cache of latents, in order, from where an interrupted call ended.

use crate::args::EncodeArgs;
use crate::data_source;
use crate::device::device;
use crate::failure::{Signalled, usage};
use crate::output;
use crate::signals::{Signal, Signals};
use crate::terminal;
use anyhow::{Result, anyhow};
use burn::tensor::{Device, Tensor, TensorData};
use gmflow::checkpoint::load_diffusers_vae;
use gmflow::kernel;
use gmflow::limits;
use gmflow::network::{Autoencoder, Tiling};
use gmflow_data::{
    Corrupt, Dataset, DatasetConfig, EncodedBatch, ImageDataset, ImageSettings, LatentManifest, LatentPrecision,
    LatentWriter,
};
use serde_json::json;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Runs the command.
pub fn run(arguments: &EncodeArgs) -> Result<()> {
    let signals = Signals::listen("stopping after this batch; what is encoded is kept")?;
    let device = device(&arguments.device.name)?;
    let config = data_config(arguments)?;
    let Dataset::Images { images, corrupt, .. } = config.open(Path::new(""))? else {
        return Err(usage("data.source", "images", "points or latents"));
    };
    let vae = load_diffusers_vae(&arguments.vae, None, &device)?;
    vae.check_image(images.shape())?;
    check_memory(arguments, images.as_ref(), &vae, &device)?;
    let manifest = manifest(arguments, &config, images.as_ref(), &vae)?;
    let writer = if arguments.force {
        LatentWriter::restart(&arguments.out, manifest)?
    } else {
        LatentWriter::open(&arguments.out, manifest).map_err(with_remedy)?
    };
    let start = Instant::now();
    let encoding = Encoding { vae: &vae, device: &device, mirror: arguments.mirror, batch: arguments.batch };
    let limit = arguments.limit.unwrap_or(usize::MAX).min(images.len());
    let (done, manifest) = kernel::in_pool(|| encoding.run(&images, corrupt, limit, writer, signals.stop()))?;
    let Some(manifest) = manifest else {
        let name = signals.caught().map_or_else(|| "a signal".to_owned(), Signal::name);
        let text = format!("stopped by {name}: {done} of {limit} images are done; the same call continues");
        // A terminal that is gone takes no line.
        let printed = output::line(&text);
        return signals.caught().map_or(printed, |signal| Err(Signalled(signal).into()));
    };
    let (count, left_out, seconds) = (manifest.count, manifest.left_out, start.elapsed().as_secs_f64());
    if arguments.outcome.json {
        let out = &arguments.out;
        return output::json(&json!({ "folder": out, "count": count, "left_out": left_out, "seconds": seconds }));
    }
    let damaged = if left_out > 0 { format!(", {left_out} damaged images left out") } else { String::new() };
    output::line(&format!("{count} latents in {}{damaged}", arguments.out.display()))
}

/// Refuses a batch that does not fit in memory.
fn check_memory(arguments: &EncodeArgs, images: &dyn ImageDataset, vae: &Autoencoder, device: &Device) -> Result<()> {
    let batch = arguments.batch.min(images.len().max(1));
    let shape = images.shape();
    let pixels = shape.map(|size| size as u128);
    let need = limits::decoding(vae.config(), shape, (batch, Tiling::default().size), device)?;
    let need = need.floats("images", &[batch as u128, pixels[0], pixels[1], pixels[2]]);
    Ok(need.check("--batch", batch, "lower --batch")?)
}

/// The data set that the arguments name; its relative paths are relative to the file's folder.
fn data_config(arguments: &EncodeArgs) -> Result<DatasetConfig> {
    if let (Some(path), size) = (&arguments.images, arguments.size) {
        let mut source = DatasetConfig::guess(path)?;
        if let Some(image) = source.image_mut() {
            *image = ImageSettings { size, ..Default::default() };
        }
        return Ok(source);
    }
    let path = arguments.data.as_deref().ok_or_else(|| usage("--data", "a configuration file", "nothing"))?;
    data_source::from_toml(path, arguments.data_dir.as_deref())
}

fn manifest(
    arguments: &EncodeArgs,
    config: &DatasetConfig,
    images: &dyn ImageDataset,
    vae: &Autoencoder,
) -> Result<LatentManifest> {
    let (shape, factor) = (images.shape(), vae.config().downsampling());
    Ok(LatentManifest {
        shape: [vae.config().latent_channels, shape[1] / factor, shape[2] / factor],
        shard: arguments.shard,
        precision: if arguments.full_precision { LatentPrecision::F32 } else { LatentPrecision::F16 },
        mirrored: arguments.mirror,
        scaling_factor: vae.config().scaling_factor,
        shift_factor: vae.config().shift_factor.unwrap_or(0.0),
        downsampling: factor,
        classes: images.class_names().to_vec(),
        // Whole, so that it is found again from another folder.
        vae: Some(std::path::absolute(&arguments.vae)?.display().to_string()),
        images: Some(serde_json::to_value(config)?),
        data: images.fingerprint(),
        count: 0,
        left_out: 0,
        complete: false,
    })
}

/// Decoded images of the next batch.
#[derive(Default)]
struct Waiting {
    /// `[n c h w]`
    pixels: Vec<f32>,
    labels: Vec<u32>,
    /// Their positions in the data set.
    indices: Vec<u32>,
}

/// How images are encoded.
struct Encoding<'a> {
    vae: &'a Autoencoder,
    device: &'a Device,
    mirror: bool,
    batch: usize,
}

impl Encoding<'_> {
    /// Encodes the first `limit` images, from where the call before ended, until `stop` is set. What is encoded is kept however it ends.
    /// Returns how many images are done and, where they all are, the manifest.
    fn run(
        &self,
        images: &Arc<dyn ImageDataset>,
        corrupt: Corrupt,
        limit: usize,
        mut writer: LatentWriter,
        stop: &AtomicBool,
    ) -> Result<(usize, Option<LatentManifest>)> {
        let first = usize::try_from(writer.next_index())?;
        if first > limit {
            return Err(usage("--limit", format!("at least {first}, which are encoded already"), limit));
        }
        // What a call before this one has neither written nor left to do, it left out.
        let mut left_out = first - writer.written();
        let bar = terminal::rate(first as u64, limit as u64, "encoding", ("images", 1.0));
        let result = self.encode_rest(images, (corrupt, &mut left_out), first..limit, &mut writer, &|done| {
            bar.set_position(done as u64);
            !stop.load(Ordering::Relaxed)
        });
        bar.finish_and_clear();
        match result {
            Ok(done) if done == limit => Ok((done, Some(writer.finish(left_out)?))),
            Ok(done) => writer.pause().map(|()| (done, None)).map_err(Into::into),
            Err(error) => {
                if let Err(second) = writer.pause() {
                    log::error!("what was encoded since the last shard could not be kept: {second}");
                }
                Err(error)
            }
        }
    }

    /// Encodes images batch by batch, as long as `goes_on` says so of the number that are done; returns that number.
    fn encode_rest(
        &self,
        images: &Arc<dyn ImageDataset>,
        (corrupt, left_out): (Corrupt, &mut usize),
        range: Range<usize>,
        writer: &mut LatentWriter,
        goes_on: &dyn Fn(usize) -> bool,
    ) -> Result<usize> {
        let mut waiting = Waiting::default();
        let end = range.end;
        for index in range {
            match images.get(index) {
                Ok(image) => {
                    waiting.pixels.extend(image.pixels);
                    waiting.labels.push(image.label);
                    waiting.indices.push(u32::try_from(index)?);
                }
                Err(error) if corrupt == Corrupt::Skip && error.is_corrupt() => {
                    log::warn!("{error}; it is left out");
                    *left_out += 1;
                }
                Err(error) => {
                    // The images before it count.
                    writer.push(&self.encode(waiting, images.shape())?)?;
                    return Err(error.into());
                }
            }
            if waiting.labels.len() == self.batch || index + 1 == end {
                writer.push(&self.encode(std::mem::take(&mut waiting), images.shape())?)?;
                if !goes_on(index + 1) && index + 1 < end {
                    return Ok(index + 1);
                }
            }
        }
        Ok(end)
    }

    fn encode(&self, waiting: Waiting, [c, h, w]: [usize; 3]) -> Result<EncodedBatch> {
        let Waiting { pixels, labels, indices } = waiting;
        if labels.is_empty() {
            return Ok(EncodedBatch::default());
        }
        let images = Tensor::<4>::from_data(TensorData::new(pixels, [labels.len(), c, h, w]), self.device);
        let moments = |images: Tensor<4>| -> Result<[Vec<f32>; 2]> {
            let latents = self.vae.encode_tiled(images, Tiling::default())?;
            Ok([host(latents.mean)?, host(latents.std)?])
        };
        let [mirror_mean, mirror_std] =
            if self.mirror { moments(images.clone().flip([3]))? } else { [Vec::new(), Vec::new()] };
        let [mean, std] = moments(images)?;
        Ok(EncodedBatch { mean, std, mirror_mean, mirror_std, labels, indices })
    }
}

/// What can be done about a cache that cannot be continued.
fn with_remedy(error: gmflow_data::Error) -> anyhow::Error {
    match error {
        error if error.is_corrupt() => anyhow!("{error}; --force starts anew"),
        other => other.into(),
    }
}

fn host(x: Tensor<4>) -> Result<Vec<f32>> {
    x.into_data().try_into_vec().map_err(|error| anyhow!("the latents cannot be read: {error:?}"))
}
