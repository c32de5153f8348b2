//! Writes a GM-DiT-XL/2 with random weights, its spectrum network and its autoencoder in the layout of published checkpoints: for
//! measuring time and memory without a download.
//!
//! ```text
//! cargo run --release --example random_checkpoint -- OUT [f32|bf16|f16]
//! ```

use burn::tensor::Device;
use gmflow::checkpoint::{
    DataInfo, DataKind, ExportOptions, LatentInfo, Model, ModelInfo, Precision, export_diffusers,
};
use gmflow::network::{AutoencoderConfig, GmDitConfig, NetworkConfig, SpectrumMlpConfig};
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (out, precision) = match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        [out] | [out, "f32"] => (*out, Precision::F32),
        [out, "bf16"] => (*out, Precision::Bf16),
        [out, "f16"] => (*out, Precision::F16),
        _ => return Err("usage: random_checkpoint OUT [f32|bf16|f16]".into()),
    };
    let device = Device::flex();
    let network = NetworkConfig::GmDit(GmDitConfig::default());
    let vae = AutoencoderConfig::default();
    let spectrum = SpectrumMlpConfig { base_size: [4, 32, 32], layers: vec![64, 8] };
    let model = Model {
        network: network.init(0, &device)?,
        spectrum: Some(spectrum.init(1, &device)?),
        vae: Some(vae.init(2, &device)?),
        info: ModelInfo {
            spectrum: Some(spectrum),
            latent: Some(LatentInfo::from(&vae)),
            ..ModelInfo::new(network, DataInfo { channels: 4, height: 32, width: 32, kind: DataKind::Latents })
        },
    };
    export_diffusers(&model, Path::new(out), &ExportOptions { precision, ..ExportOptions::default() })?;
    println!("{out}");
    Ok(())
}
