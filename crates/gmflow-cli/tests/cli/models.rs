//! Small untrained models in temporary folders.

use burn::tensor::Device;
use gmflow::checkpoint::{DataInfo, DataKind, Model, ModelInfo, Precision, Progress};
use gmflow::network::{
    GmDitConfig, Mlp2dConfig, Network, NetworkConfig, SpectrumMlpConfig, UnetConfig, load_named, named_tensors,
};
use gmflow::rng::{Purpose, normals};
use std::collections::BTreeMap;
use std::path::Path;

/// A perceptron with `components` Gaussians on points.
pub fn points_model(folder: &Path, components: usize) {
    let config =
        Mlp2dConfig { num_gaussians: components, embed_dim: 16, hidden_dim: 16, num_layers: 2, ..Default::default() };
    let data = DataInfo { channels: 2, height: 1, width: 1, kind: DataKind::Points };
    save(folder, NetworkConfig::Mlp2d(config), data, None, &[]);
}

/// A transformer with 2 Gaussians on grey 8x8 images of the classes cat, dog and 7, with one moving average.
pub fn image_model(folder: &Path) {
    labelled_model(folder, &["cat", "dog", "7"]);
}

/// The same with other classes.
pub fn labelled_model(folder: &Path, labels: &[&str]) {
    let config = GmDitConfig {
        num_gaussians: 2,
        num_attention_heads: 2,
        attention_head_dim: 8,
        num_layers: 1,
        sample_size: 8,
        patch_size: 2,
        in_channels: 1,
        num_embeds_ada_norm: labels.len(),
        ..Default::default()
    };
    let data = DataInfo { channels: 1, height: 8, width: 8, kind: DataKind::Image };
    let classes = Some(labels.iter().map(|&label| label.to_owned()).collect());
    save(folder, NetworkConfig::GmDit(config), data, classes, &["slow"]);
}

/// The same with a spectrum network that is not flat.
pub fn spectral_model(folder: &Path) {
    image_model(folder);
    let mut model = Model::load(folder, None, &Device::flex()).unwrap();
    let config = SpectrumMlpConfig { base_size: [1, 8, 8], layers: vec![4] };
    let flat = config.init(1, &Device::flex()).unwrap();
    let mut tensors = named_tensors(&flat);
    for (index, (_, tensor)) in tensors.iter_mut().enumerate() {
        tensor.values = normals(5, Purpose::Weights, index as u64, tensor.values.len());
    }
    model.spectrum = Some(load_named(flat, tensors.into_iter().collect::<BTreeMap<_, _>>()).unwrap());
    model.info.spectrum = Some(config);
    model.save(folder, &[], Precision::F32).unwrap();
}

/// The transformer of [`image_model`] with means so far away that no likelihood of an image is finite.
pub fn distant_model(folder: &Path) {
    let near = folder.join("near");
    image_model(&near);
    let mut model = Model::load(&near, None, &Device::flex()).unwrap();
    let mut tensors = named_tensors(&model.network);
    let (_, bias) = tensors.iter_mut().find(|(name, _)| name.ends_with("proj_out_2.bias")).unwrap();
    bias.values.fill(1e25);
    model.network = load_named(model.network, tensors.into_iter().collect::<BTreeMap<_, _>>()).unwrap();
    model.save(folder, &[], Precision::F32).unwrap();
    std::fs::remove_dir_all(near).unwrap();
}

/// A U-Net with 2 Gaussians on grey 8x8 images, without classes.
pub fn unet_model(folder: &Path) {
    let config = UnetConfig {
        num_gaussians: 2,
        sample_size: 8,
        in_channels: 1,
        attention_levels: vec![],
        block_out_channels: vec![8],
        layers_per_block: 1,
        norm_num_groups: 4,
        ..Default::default()
    };
    let data = DataInfo { channels: 1, height: 8, width: 8, kind: DataKind::Image };
    save(folder, NetworkConfig::Unet(config), data, None, &[]);
}

fn save(folder: &Path, network: NetworkConfig, data: DataInfo, classes: Option<Vec<String>>, averages: &[&str]) {
    let (weights, average) = (weights(&network, 1), weights(&network, 2));
    let averages: Vec<_> = averages.iter().map(|name| (*name, &average)).collect();
    let progress = Progress { step: 1234, images: 56_789 };
    let info = ModelInfo { classes, progress, ..ModelInfo::new(network, data) };
    Model { info, network: weights, spectrum: None, vae: None }.save(folder, &averages, Precision::F32).unwrap();
}

/// Weights that are nowhere 0, unlike those that training starts from, so that every input matters.
fn weights(config: &NetworkConfig, seed: u64) -> Network {
    let network = config.init(seed, &Device::flex()).unwrap();
    let mut tensors = named_tensors(&network);
    for (index, (_, tensor)) in tensors.iter_mut().enumerate() {
        let noise = normals(seed, Purpose::Weights, 1000 + index as u64, tensor.values.len());
        tensor.values.iter_mut().zip(noise).for_each(|(value, noise)| *value += 0.1 * noise);
    }
    load_named(network, tensors.into_iter().collect::<BTreeMap<_, _>>()).unwrap()
}
