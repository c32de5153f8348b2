//! From latents to images.

use super::Drawn;
use crate::failure::usage;
use crate::terminal;
use anyhow::{Result, anyhow};
use burn::tensor::{Device, Tensor, TensorData};
use gmflow::checkpoint::{LatentInfo, Model, ModelInfo, StoredVae};
use gmflow::network::{Autoencoder, Tiling};
use gmflow::pipeline::Decoder;
use std::path::{Path, PathBuf};

/// The autoencoder of a model of latents: the one that is asked for, or that came with it, or that its data was encoded with.
pub fn find_vae(model: &mut Model, asked: Option<&Path>, device: &Device) -> Result<Autoencoder> {
    match model.vae.take() {
        Some(vae) if asked.is_none() => Ok(vae),
        _ => Ok(stored_vae(&model.info, None, asked)?.load(device)?),
    }
}

/// The same as it is stored; `own` is the folder of a model that came with one, and the variant.
pub fn stored_vae(info: &ModelInfo, own: Option<(&Path, Option<&str>)>, asked: Option<&Path>) -> Result<StoredVae> {
    if let Some(path) = asked {
        return Ok(StoredVae::open(path, None)?);
    }
    let encoded_with = info.latent.as_ref().and_then(|latent| latent.vae.as_deref());
    if let (Some((folder, variant)), None) = (own, encoded_with)
        && folder.join("vae").is_dir()
    {
        return Ok(StoredVae::open(folder, variant)?);
    }
    match encoded_with.map(PathBuf::from).filter(|path| path.is_dir()) {
        Some(path) => Ok(StoredVae::open(&path, None)?),
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

/// Hands over the images that latents stand for, one at a time; `decoder` is the autoencoder, what the latents are, and the side of a tile.
pub fn decode(
    latents: Drawn,
    (vae, latent, tile): (&Autoencoder, &LatentInfo, usize),
    device: &Device,
    take: &mut dyn FnMut(Drawn) -> Result<()>,
) -> Result<()> {
    let decoder = Decoder { vae, latent, tiling: Tiling { size: tile, overlap: tile / 4 } };
    let [c, h, w] = latents.shape;
    let bar = terminal::bar(latents.seeds.len() as u64, "decoding", "images");
    for (index, values) in latents.values.chunks_exact(c * h * w).enumerate() {
        let values = Tensor::from_data(TensorData::new(values.to_vec(), [1, c, h, w]), device);
        let image = decoder.decode(values, &mut |_, _| {})?; // [1 c h*f w*f]
        let [_, c, h, w] = image.dims();
        let values: Vec<f32> =
            image.into_data().try_into_vec().map_err(|error| anyhow!("the images cannot be read: {error:?}"))?;
        take(latents.one(index, values, [c, h, w]))?;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}
