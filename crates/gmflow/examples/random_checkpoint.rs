//! Writes a GM-DiT-XL/2 with random weights, its spectrum network and its autoencoder in the layout of published checkpoints: for
//! measuring time and memory without a download.
//!
//! ```text
//! cargo run --release --example random_checkpoint -- OUT [f32|bf16|f16] [student]
//! ```
//!
//! With `student` it is a student of distillation for one network call: 32 components, a head in two parts, no spectrum network.

use burn::tensor::Device;
use gmflow::checkpoint::{
    DataInfo, DataKind, ExportOptions, LatentInfo, Model, ModelInfo, Precision, StudentInfo, export_diffusers,
};
use gmflow::network::{AutoencoderConfig, GmDitConfig, GmDitHead, NetworkConfig, SpectrumMlpConfig};
use gmflow::solver::PiFlow;
use std::path::Path;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let is_student = arguments.pop_if(|last| *last == "student").is_some();
    let (out, precision) = match arguments.as_slice() {
        [out] | [out, "f32"] => (*out, Precision::F32),
        [out, "bf16"] => (*out, Precision::Bf16),
        [out, "f16"] => (*out, Precision::F16),
        _ => return Err("usage: random_checkpoint OUT [f32|bf16|f16] [student]".into()),
    };
    let device = Device::flex();
    let network = NetworkConfig::GmDit(match is_student {
        true => GmDitConfig { head: GmDitHead::TwoParts, num_gaussians: 32, ..GmDitConfig::default() },
        false => GmDitConfig::default(),
    });
    let vae = AutoencoderConfig::default();
    let spectrum = (!is_student).then(|| SpectrumMlpConfig { base_size: [4, 32, 32], layers: vec![64, 8] });
    let student = is_student.then(|| StudentInfo { steps: 1, policy: PiFlow::default(), teacher: None });
    let model = Model {
        network: network.init(0, &device)?,
        spectrum: spectrum.as_ref().map(|spectrum| spectrum.init(1, &device)).transpose()?,
        vae: Some(vae.init(2, &device)?),
        info: ModelInfo {
            spectrum,
            student,
            latent: Some(LatentInfo::from(&vae)),
            ..ModelInfo::new(network, DataInfo { channels: 4, height: 32, width: 32, kind: DataKind::Latents })
        },
    };
    export_diffusers(&model, Path::new(out), &ExportOptions { precision, ..ExportOptions::default() })?;
    println!("{out}");
    Ok(())
}
