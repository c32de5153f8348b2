//! Images encoded once by an autoencoder and kept as latents.
//!
//! ```text
//! latents.json                 what is here: the manifest
//! shard-00000.safetensors      mean, std [n c h w]; indices [n], the images' positions in their data set; with classes labels [n]; of a
//!                              mirrored cache mirror_mean, mirror_std [n c h w]
//! ```
//!
//! Mean and standard deviation are kept rather than one draw, so that training sees a fresh latent in every epoch. A mirrored latent is
//! not the latent of the mirrored image, so mirrored images are encoded too.

mod manifest;
mod shard;
mod source;
mod writer;

pub use manifest::{LatentManifest, LatentPrecision};
pub use source::{Latent, LatentDataset};
pub use writer::{EncodedBatch, LatentWriter};

/// The manifest's name.
const MANIFEST: &str = "latents.json";

/// The name of a shard.
fn shard_name(number: usize) -> String {
    format!("shard-{number:05}.safetensors")
}
