//! From latents to images.

use super::Drawn;
use crate::failure::usage;
use crate::output;
use anyhow::{Result, anyhow};
use burn::tensor::{Device, Tensor, TensorData};
use gmflow::checkpoint::{Model, load_diffusers_vae};
use gmflow::network::{Autoencoder, Tiling};
use gmflow::pipeline::Decoder;
use std::path::{Path, PathBuf};

/// The autoencoder of a model of latents: the one that is asked for, or that came with it, or that its data was encoded with.
pub fn find_vae(model: &mut Model, asked: Option<&Path>, device: &Device) -> Result<Autoencoder> {
    if let Some(path) = asked {
        return Ok(load_diffusers_vae(path, None, device)?);
    }
    if let Some(vae) = model.vae.take() {
        return Ok(vae);
    }
    let encoded_with = model.info.latent.as_ref().and_then(|latent| latent.vae.as_deref());
    match encoded_with.map(PathBuf::from).filter(|path| path.is_dir()) {
        Some(path) => Ok(load_diffusers_vae(&path, None, device)?),
        None => {
            let expected = "the folder of the autoencoder that this model's latents belong to";
            Err(usage(
                "--vae",
                expected,
                encoded_with.map_or("none".into(), |path| format!("{path}, which is not there")),
            ))
        }
    }
}

/// Replaces latents by the images that they stand for; leaves other samples as they are.
pub fn decode(drawn: &mut Drawn, model: &Model, tile: usize, device: &Device) -> Result<()> {
    let (Some(vae), Some(latent)) = (&model.vae, &model.info.latent) else { return Ok(()) };
    let tiling = Tiling { size: tile, overlap: tile / 4 };
    let decoder = Decoder { vae, latent, tiling };
    let [c, h, w] = drawn.shape;
    let bar = output::progress(drawn.seeds.len() as u64, "decoding");
    let mut images = Vec::new();
    for latents in drawn.values.chunks_exact(c * h * w) {
        let latents = Tensor::from_data(TensorData::new(latents.to_vec(), [1, c, h, w]), device);
        let image = decoder.decode(latents, &mut |_, _| {})?; // [1 c h*f w*f]
        let [_, c, h, w] = image.dims();
        drawn.shape = [c, h, w];
        let values: Vec<f32> =
            image.into_data().try_into_vec().map_err(|error| anyhow!("the images cannot be read: {error:?}"))?;
        images.extend(values);
        bar.inc(1);
    }
    bar.finish_and_clear();
    drawn.values = images;
    Ok(())
}
