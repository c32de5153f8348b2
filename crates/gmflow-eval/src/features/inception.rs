//! The Inception-v3 network that FID is defined with: the one of TensorFlow's 2015 release, with 1008 classes.
//!
//! It differs from the usual network in its pooling branches: averages leave padding out, and the last block takes the largest
//! value. Batch norms are folded into the convolutions when the weights are read.
//!
//! ```no_run
//! use burn::tensor::Device;
//! use gmflow::checkpoint::PytorchFile;
//! use gmflow_eval::features::inception::Inception;
//! use gmflow_eval::features::resize::Resize;
//!
//! let weights = PytorchFile::open("weights-inception.pth".as_ref(), None)?.read_all()?;
//! let network = Inception::from_tensors(weights, Resize::TorchFidelity, &Device::flex())?;
//! let [vectors, logits] = network.extract(&[0.0; 3 * 32 * 32], [3, 32, 32])?;
//! # Ok::<(), gmflow_eval::Error>(())
//! ```

mod layout;

use super::resize::{Resize, SIZE};
use crate::{Error, Matrix, Result};
use burn::tensor::module::{avg_pool2d, max_pool2d};
use burn::tensor::ops::{AvgPoolOptions, MaxPoolOptions};
use burn::tensor::{Device, Tensor, TensorData, activation};
use gmflow::kernel;
use gmflow::network::HostTensor;
use layout::{ConvSpec, FC, Pool, Stage};
use std::collections::BTreeMap;

pub use layout::{CLASSES, FEATURES};

/// The tensors of a batch norm: gain, shift, mean, variance.
const NORM: [&str; 4] = ["weight", "bias", "running_mean", "running_var"];
/// Added to the variance in batch norms.
const EPS: f64 = 1e-3;
/// What training counted, of no use here.
const COUNTER: &str = ".num_batches_tracked";
/// Images worked on at a time: activations of one take about 25 MB.
const AT_ONCE: usize = 16;

/// A convolution with its batch norm folded in; ReLU follows.
#[derive(Clone, Debug)]
struct Conv {
    weight: Tensor<4>,
    bias: Tensor<1>,
    stride: usize,
    /// Above, below, left, right.
    padding: [usize; 4],
}

/// The network with its weights.
#[derive(Clone, Debug)]
pub struct Inception {
    convs: BTreeMap<String, Conv>,
    /// `[1008 2048]`
    fc: Tensor<2>,
    resize: Resize,
    device: Device,
}

impl Inception {
    /// From the tensors of a weight file in the naming of pytorch-fid and torch-fidelity.
    ///
    /// # Errors
    /// [`crate::FilesError::Config`] naming a tensor that is missing, left over, of another shape or not finite.
    pub fn from_tensors(mut tensors: BTreeMap<String, HostTensor>, resize: Resize, device: &Device) -> Result<Self> {
        tensors.retain(|name, _| !name.ends_with(COUNTER));
        let mut convs = BTreeMap::new();
        for spec in layout::convs() {
            let conv = folded(&spec, &mut tensors, device)?;
            convs.insert(spec.name, conv);
        }
        let fc = take(&mut tensors, FC[0], &[CLASSES, FEATURES])?;
        // Scores are computed without it, as published ones are.
        take(&mut tensors, FC[1], &[CLASSES])?;
        if let Some(name) = tensors.keys().next() {
            return Err(Error::config(format!("tensor {name}"), "no such tensor in Inception-v3", "a tensor"));
        }
        let fc = Tensor::from_data(TensorData::new(fc, [CLASSES, FEATURES]), device);
        Ok(Self { convs, fc, resize, device: device.clone() })
    }

    /// Names and shapes of the tensors in a weight file.
    pub fn parameters() -> Vec<(String, Vec<usize>)> {
        let conv = |spec: ConvSpec| {
            let norm = NORM.map(|part| (format!("{}.bn.{part}", spec.name), vec![spec.shape[0]]));
            std::iter::once((format!("{}.conv.weight", spec.name), spec.shape.to_vec())).chain(norm)
        };
        let last = [(FC[0].to_owned(), vec![CLASSES, FEATURES]), (FC[1].to_owned(), vec![CLASSES])];
        layout::convs().into_iter().flat_map(conv).chain(last).collect()
    }

    /// How images are resized.
    pub fn resize(&self) -> Resize {
        self.resize
    }

    /// Features `[n 2048]` and logits without bias `[n 1008]` of images `[n c h w]` in [-1, 1].
    ///
    /// # Errors
    /// Images of other than 1 or 3 channels.
    pub fn extract(&self, images: &[f32], shape: [usize; 3]) -> Result<[Matrix; 2]> {
        let size = shape.iter().product::<usize>().max(1);
        let (mut features, mut logits) = (Matrix::default(), Matrix::default());
        for chunk in images.chunks(AT_ONCE * size) {
            let pixels = self.resize.apply(chunk, shape)?;
            let x = TensorData::new(pixels, [chunk.len() / size, 3, SIZE, SIZE]);
            let pooled = self.forward(Tensor::from_data(x, &self.device))?; // [n 2048]
            let classes = pooled.clone().matmul(self.fc.clone().transpose()); // [n 1008]
            features.append(&Matrix::new(host(pooled)?, FEATURES)?)?;
            logits.append(&Matrix::new(host(classes)?, CLASSES)?)?;
        }
        Ok([features, logits])
    }

    /// Pooled features `[n 2048]` of `[n 3 299 299]`.
    fn forward(&self, mut x: Tensor<4>) -> Result<Tensor<2>> {
        for stage in layout::stages() {
            x = match stage {
                Stage::Conv(name) => self.conv(name, x)?,
                Stage::Pool(pool) => pooled(pool, x),
                Stage::Block(name, branches) => {
                    let mut parts = Vec::new();
                    for branch in branches {
                        let mut y = match branch.pool {
                            Some(pool) => pooled(pool, x.clone()),
                            None => x.clone(),
                        };
                        for conv in branch.convs {
                            y = self.conv(&format!("{name}.{conv}"), y)?;
                        }
                        if branch.ends.is_empty() {
                            parts.push(y.clone());
                        }
                        for end in branch.ends {
                            parts.push(self.conv(&format!("{name}.{end}"), y.clone())?);
                        }
                    }
                    Tensor::cat(parts, 1)
                }
            };
        }
        Ok(x.mean_dim(3).mean_dim(2).squeeze_dims::<2>(&[2, 3]))
    }

    fn conv(&self, name: &str, x: Tensor<4>) -> Result<Tensor<4>> {
        let conv =
            self.convs.get(name).ok_or_else(|| Error::config("layer", "a convolution of the network", name))?;
        let Conv { weight, bias, stride, padding } = conv.clone();
        Ok(activation::relu(kernel::conv2d(x, weight, bias, stride, padding)))
    }
}

fn pooled(pool: Pool, x: Tensor<4>) -> Tensor<4> {
    match pool {
        Pool::Halve => max_pool2d(x, MaxPoolOptions::new([3, 3]).with_stride([2, 2])),
        Pool::Largest => max_pool2d(x, MaxPoolOptions::new([3, 3]).with_stride([1, 1]).with_padding([1, 1])),
        Pool::Average => {
            let window = AvgPoolOptions::new([3, 3]).with_stride([1, 1]).with_padding([1, 1]);
            avg_pool2d(x, window.with_count_include_pad(false))
        }
    }
}

/// Reads a convolution and its batch norm as one convolution.
fn folded(spec: &ConvSpec, tensors: &mut BTreeMap<String, HostTensor>, device: &Device) -> Result<Conv> {
    let ConvSpec { name, shape, stride, padding: [vertical, horizontal] } = spec;
    let mut weight = take(tensors, &format!("{name}.conv.weight"), shape)?;
    let mut norm = |part: usize| take(tensors, &format!("{name}.bn.{}", NORM[part]), &shape[..1]);
    let (gain, mut bias, mean, var) = (norm(0)?, norm(1)?, norm(2)?, norm(3)?);
    let filter = shape[1..].iter().product();
    for (out, weight) in weight.chunks_exact_mut(filter).enumerate() {
        let scale = f64::from(gain[out]) / (f64::from(var[out]) + EPS).sqrt();
        weight.iter_mut().for_each(|value| *value = (f64::from(*value) * scale) as f32);
        bias[out] = (f64::from(bias[out]) - f64::from(mean[out]) * scale) as f32;
    }
    Ok(Conv {
        weight: Tensor::from_data(TensorData::new(weight, *shape), device),
        bias: Tensor::from_data(TensorData::new(bias, [shape[0]]), device),
        stride: *stride,
        padding: [*vertical, *vertical, *horizontal, *horizontal],
    })
}

fn take(tensors: &mut BTreeMap<String, HostTensor>, name: &str, shape: &[usize]) -> Result<Vec<f32>> {
    let field = || format!("tensor {name}");
    let tensor = tensors.remove(name).ok_or_else(|| Error::config(field(), format!("shape {shape:?}"), "none"))?;
    if tensor.shape != shape {
        return Err(Error::config(field(), format!("shape {shape:?}"), format!("{:?}", tensor.shape)));
    }
    if let Some(wrong) = tensor.values.iter().find(|value| !value.is_finite()) {
        return Err(Error::config(field(), "finite numbers", wrong));
    }
    Ok(tensor.values)
}

fn host(x: Tensor<2>) -> Result<Vec<f32>> {
    x.into_data().try_into_vec().map_err(|error| Error::config("features", "numbers in f32", format!("{error:?}")))
}
