//! From latents to images.

use crate::terminal;
use anyhow::{Result, anyhow};
use burn::tensor::{Device, Tensor, TensorData};
use gmflow::checkpoint::LatentInfo;
use gmflow::network::{Autoencoder, Tiling};
use gmflow::pipeline::{Decoder, keep_going};
use gmflow::samples::Samples;

/// Hands over the images that latents stand for, one at a time; `decoder` is the autoencoder, what the latents are, and the side of a tile.
pub fn decode(
    latents: Samples,
    (vae, latent, tile): (&Autoencoder, &LatentInfo, usize),
    device: &Device,
    take: &mut dyn FnMut(Samples) -> Result<()>,
) -> Result<()> {
    let decoder = Decoder { vae, latent, tiling: Tiling { size: tile, overlap: tile / 4 } };
    let [c, h, w] = latents.shape;
    let bar = terminal::bar(latents.seeds.len() as u64, "decoding", "images");
    for (index, values) in latents.values.chunks_exact(c * h * w).enumerate() {
        let values = Tensor::from_data(TensorData::new(values.to_vec(), [1, c, h, w]), device);
        let image = decoder.decode(values, &mut keep_going)?; // [1 c h*f w*f]
        let [_, c, h, w] = image.dims();
        let values: Vec<f32> =
            image.into_data().try_into_vec().map_err(|error| anyhow!("the images cannot be read: {error:?}"))?;
        take(latents.one(index, values, [c, h, w]))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}
