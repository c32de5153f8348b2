//! Training: AdamW on the cross entropy of shifted images, with a part held out to say how good it is.

use super::network::{Parameters, forward, shapes};
use super::{Classifier, ClassifierInfo, on_device};
use crate::{Error, Result};
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use gmflow::kernel::AdamW;
use gmflow::network::HostTensor;
use gmflow::rng::{Purpose, normals, uniforms};
use gmflow_data::{Corrupt, Image, ImageDataset};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

/// Images are moved by up to this many pixels in each direction.
const SHIFT: isize = 2;
const BETAS: [f64; 2] = [0.9, 0.99];
const EPS: f64 = 1e-8;
const WEIGHT_DECAY: f64 = 0.01;

/// How a classifier is trained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSettings {
    /// How often every image is seen.
    pub epochs: usize,
    /// Images per step.
    pub batch_size: usize,
    /// The learning rate at the start; it falls to 0 in a line.
    pub lr: f64,
    /// The share of the images that is held out.
    pub held_out: f64,
    /// The seed of the weights, the order, the shifts and what is held out.
    pub seed: u64,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self { epochs: 6, batch_size: 64, lr: 2e-3, held_out: 0.1, seed: 0 }
    }
}

impl TrainSettings {
    /// Checks every field, naming the first that is out of range.
    pub fn validate(&self) -> Result<()> {
        if self.epochs == 0 || self.batch_size == 0 {
            let got = format!("{}, {}", self.epochs, self.batch_size);
            return Err(Error::config("epochs, batch_size", "at least 1 each", got));
        }
        if !(self.lr.is_finite() && self.lr > 0.0) {
            return Err(Error::config("lr", "a positive number", self.lr));
        }
        if !(self.held_out > 0.0 && self.held_out < 1.0) {
            return Err(Error::config("held_out", "a number between 0 and 1", self.held_out));
        }
        Ok(())
    }
}

/// How far training is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Images seen.
    pub images: u64,
    /// Images to be seen in all.
    pub total: u64,
    /// The cross entropy of the last step.
    pub loss: f64,
}

/// Trains a classifier on labelled images and measures it on those held out. Damaged images are left out where `corrupt` says so.
/// All images are in memory.
///
/// # Errors
/// A setting out of range, a set with fewer than two classes or too few images, or an image that cannot be read.
pub fn train(
    images: &dyn ImageDataset,
    corrupt: Corrupt,
    data: String,
    settings: TrainSettings,
    device: &Device,
    progress: &mut dyn FnMut(Progress),
) -> Result<Classifier> {
    settings.validate()?;
    let classes = images.class_names().to_vec();
    if classes.len() < 2 {
        return Err(Error::config("classes", "at least 2, named in the data set", classes.len()));
    }
    let mut all = Vec::with_capacity(images.len());
    for index in 0..images.len() {
        match images.get(index) {
            Ok(image) => all.push(image),
            Err(error) if corrupt == Corrupt::Skip && error.is_corrupt() => log::warn!("{error}; it is left out"),
            Err(error) => return Err(error.into()),
        }
    }
    let mut rng = ChaCha8Rng::seed_from_u64(settings.seed);
    all.shuffle(&mut rng);
    let held_out = ((all.len() as f64 * settings.held_out).round() as usize).max(1);
    if all.len() < held_out + settings.batch_size {
        let expected = format!("at least {}, a batch and what is held out", held_out + settings.batch_size);
        return Err(Error::config("images", expected, all.len()));
    }
    let seen = all.split_off(held_out);
    let mut run = Run::new(images.shape(), classes.len(), settings, device);
    let steps = seen.len() / settings.batch_size;
    let total = (settings.epochs * steps) as u64;
    let mut order: Vec<usize> = (0..seen.len()).collect();
    for _ in 0..settings.epochs {
        order.shuffle(&mut rng);
        for batch in order.chunks_exact(settings.batch_size) {
            let loss = run.step(batch.iter().map(|&index| &seen[index]), total)?;
            let images = |steps| steps * settings.batch_size as u64;
            progress(Progress { images: images(run.taken), total: images(total), loss });
        }
    }
    let info = ClassifierInfo {
        shape: images.shape(),
        classes,
        accuracy: 0.0,
        held_out,
        trained_on: seen.len(),
        settings,
        data,
    };
    let mut classifier = Classifier { info, parameters: run.parameters, device: device.clone() };
    classifier.info.accuracy = accuracy(&classifier, &all)?;
    Ok(classifier)
}

fn accuracy(classifier: &Classifier, images: &[Image]) -> Result<f64> {
    let mut right = 0;
    for chunk in images.chunks(super::AT_ONCE) {
        let pixels: Vec<f32> = chunk.iter().flat_map(|image| image.pixels.iter().copied()).collect();
        let [_, logits] = classifier.extract(&pixels, classifier.info.shape)?;
        right += (0..chunk.len()).filter(|&row| best(logits.row(row)) == Some(chunk[row].label as usize)).count();
    }
    Ok(right as f64 / images.len() as f64)
}

fn best(logits: &[f32]) -> Option<usize> {
    logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).map(|(class, _)| class)
}

/// Parameters with the optimiser's state.
struct Run {
    shape: [usize; 3],
    settings: TrainSettings,
    parameters: Parameters,
    /// First and second moments of every parameter.
    moments: Vec<[Vec<f32>; 2]>,
    taken: u64,
    device: Device,
}

impl Run {
    fn new(shape: [usize; 3], classes: usize, settings: TrainSettings, device: &Device) -> Self {
        let start = |(index, (name, shape)): (usize, (&str, Vec<usize>))| {
            let n: usize = shape.iter().product();
            let values = match name {
                _ if name.starts_with("norm") && name.ends_with("weight") => vec![1.0; n],
                _ if name.ends_with("bias") => vec![0.0; n],
                _ => {
                    // Variance 2/fan-in keeps the size of values through the layers.
                    let fan_in: usize = shape.iter().skip(1).product();
                    let std = (2.0 / fan_in as f64).sqrt() as f32;
                    normals(settings.seed, Purpose::Estimate, index as u64, n).iter().map(|z| z * std).collect()
                }
            };
            HostTensor { shape, values }
        };
        let parameters: Parameters = shapes(shape[0], classes).into_iter().enumerate().map(start).collect();
        let moments = parameters.iter().map(|p| [vec![0.0; p.values.len()], vec![0.0; p.values.len()]]).collect();
        Self { shape, settings, parameters, moments, taken: 0, device: device.clone().autodiff() }
    }

    /// One step; returns the cross entropy before it.
    fn step<'a>(&mut self, batch: impl Iterator<Item = &'a Image>, total: u64) -> Result<f64> {
        let [c, h, w] = self.shape;
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for image in batch {
            let place = self.taken * self.settings.batch_size as u64 + labels.len() as u64;
            let moved = uniforms(self.settings.seed, Purpose::Component, place, 2);
            let by = |u: f32| (u * (2 * SHIFT + 1) as f32) as isize - SHIFT;
            shifted(&image.pixels, self.shape, by(moved[0]), by(moved[1]), &mut pixels);
            labels.push(i64::from(image.label));
        }
        let b = labels.len();
        let x = Tensor::<4>::from_data(TensorData::new(pixels, [b, c, h, w]), &self.device);
        let labels = Tensor::<2, Int>::from_data(TensorData::new(labels, [b, 1]), &self.device);
        let parameters: Vec<Tensor<1>> =
            self.parameters.iter().map(|parameter| on_device(parameter, &self.device).require_grad()).collect();
        let (_, logits) = forward(&parameters, x);
        let loss = activation::log_softmax(logits, 1).gather(1, labels).mean() * -1.0;
        let gradients = loss.backward();
        self.taken += 1;
        let left = 1.0 - (self.taken - 1) as f64 / total.max(1) as f64;
        let [beta1, beta2] = BETAS;
        let rule = AdamW { lr: self.settings.lr * left, beta1, beta2, eps: EPS, weight_decay: WEIGHT_DECAY };
        for ((tensor, parameter), [first, second]) in
            parameters.iter().zip(&mut self.parameters).zip(&mut self.moments)
        {
            let Some(gradient) = tensor.grad(&gradients) else { continue };
            rule.update(self.taken, 1.0, &mut parameter.values, &super::host(gradient)?, first, second);
        }
        Ok(f64::from(loss.into_scalar::<f32>()))
    }
}

/// Appends an image `[c h w]` moved down and right by so many pixels; what comes in from beyond the edge is the edge.
fn shifted(pixels: &[f32], [channels, height, width]: [usize; 3], down: isize, right: isize, out: &mut Vec<f32>) {
    let from = |at: usize, by: isize, length: usize| at.saturating_add_signed(-by).min(length - 1);
    for channel in 0..channels {
        for row in 0..height {
            let line = (channel * height + from(row, down, height)) * width;
            out.extend((0..width).map(|column| pixels[line + from(column, right, width)]));
        }
    }
}
