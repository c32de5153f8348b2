//! Samples on their way to files: what has a file of its own is written as soon as it is drawn.

use super::files::Files;
use crate::args::SampleArgs;
use crate::output;
use crate::world::unreadable;
use anyhow::Result;
use burn::tensor::Device;
use gmflow::checkpoint::ModelInfo;
use gmflow::limits::{self, Need};
use gmflow::samples::Samples;
use gmflow_world::World;
use std::path::PathBuf;

/// Bytes of what tells a sample from others in an array file.
const BYTES_OF_A_LABEL: u128 = 32;

/// Bytes of a shape on its way to another process.
const SHAPE: usize = 24;

/// Takes samples batch by batch.
pub struct Stream<'a> {
    files: &'a Files,
    /// Samples of other settings, which make room once there is something to write.
    outdated: Vec<PathBuf>,
    /// What is collected for a file of all samples.
    all: Option<Samples>,
}

impl<'a> Stream<'a> {
    /// To these files, in the place of those that are outdated.
    pub fn new(files: &'a Files, outdated: Vec<PathBuf>) -> Self {
        Self { files, outdated, all: None }
    }

    /// Writes a batch, or keeps it for the file of all samples.
    pub fn take(&mut self, batch: Samples) -> Result<()> {
        match (&mut self.all, self.files) {
            (_, Files::Images(_)) => return self.write(&batch),
            (Some(all), _) => all.append(batch),
            (none, _) => *none = Some(batch),
        }
        Ok(())
    }

    /// Writes the file of all samples, where there is one. The samples of several processes are joined on the first, by `join`, from their
    /// values and the shape of one.
    pub fn finish(mut self, world: &dyn World, join: impl FnOnce(Vec<f32>, [usize; 3]) -> Samples) -> Result<()> {
        if world.size() == 1 {
            return self.all.take().map_or(Ok(()), |all| self.write(&all));
        }
        if matches!(self.files, Files::Images(_)) {
            return Ok(());
        }
        // A process without a sample says so by an empty message.
        let own = self.all.take().map_or_else(Vec::new, |all| {
            let shape = all.shape.map(|size| (size as u64).to_le_bytes()).concat();
            [shape, bytemuck::cast_slice(&all.values).to_vec()].concat()
        });
        let Some(parts) = world.collect(&own)? else { return Ok(()) };
        let (mut values, mut shape) = (Vec::new(), None);
        for part in parts.iter().filter(|part| !part.is_empty()) {
            let (sizes, numbers) = part.split_first_chunk::<SHAPE>().ok_or_else(unreadable)?;
            let sizes = sizes.as_chunks::<8>().0;
            shape = Some([0, 1, 2].map(|axis| u64::from_le_bytes(sizes[axis]) as usize));
            values.extend(numbers.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)));
        }
        shape.map_or(Ok(()), |shape| self.write(&join(values, shape)))
    }

    fn write(&mut self, samples: &Samples) -> Result<()> {
        if let Some(folder) = self.outdated.first().and_then(|path| path.parent()) {
            log::warn!("{}: {} samples of other settings are removed", folder.display(), self.outdated.len());
        }
        std::mem::take(&mut self.outdated).iter().try_for_each(|path| output::remove_file(path))?;
        self.files.write(samples)
    }
}

/// Refuses what does not fit in memory, before anything of it is there: a batch in the network, and what is kept of all samples.
pub fn check_memory(
    arguments: &SampleArgs,
    info: &ModelInfo,
    files: &Files,
    (count, batch, doubled): (usize, usize, bool),
    device: &Device,
) -> Result<()> {
    let shape = [info.data.channels, info.data.height, info.data.width];
    let rows = if doubled { batch.saturating_mul(2) } else { batch };
    limits::prediction(&info.network, shape, rows, device)?.check("--batch", batch, "lower --batch")?;
    let factor = match &info.latent {
        Some(latent) if !arguments.latents => latent.downsampling as u128,
        _ => 1,
    };
    let image = [shape[0] as u128, shape[1] as u128 * factor, shape[2] as u128 * factor];
    let values = |copies: u128| [copies, count as u128, image[0], image[1], image[2]];
    let labels = BYTES_OF_A_LABEL.saturating_mul(count as u128);
    let in_one_file = !matches!(files, Files::Images(_));
    if !in_one_file {
        return Ok(());
    }
    // The values, and the file's bytes.
    let need = Need::new().floats("all samples in one file", &values(2)).bytes("seeds and classes", labels);
    let advice = "lower --num, or write a PNG file for each image, or call several times with other --seed";
    Ok(need.check("--num", count, advice)?)
}
