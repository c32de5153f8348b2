//! Training: AdamW on the cross entropy of shifted images, with a part held out to say how good it is.

use super::network::{Layers, Parameters};
use super::{Architecture, Augment, Classifier, ClassifierInfo, on_device};
use crate::set::largest;
use crate::{Error, Result};
use burn::tensor::{Device, Int, Tensor, TensorData, activation};
use gmflow::kernel::AdamW;
use gmflow::limits::Need;
use gmflow::network::HostTensor;
use gmflow::rng::{Purpose, normals};
use gmflow_data::{Corrupt, Image, ImageDataset};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

const BETAS: [f64; 2] = [0.9, 0.99];
const EPS: f64 = 1e-8;

/// How a classifier is trained.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainSettings {
    /// How often every image is seen.
    pub epochs: usize,
    /// Images per step.
    pub batch_size: usize,
    /// The highest learning rate: it rises to this during the warm-up, then falls to 0 in a line.
    pub lr: f64,
    /// The share of the steps in which the learning rate rises from 0; 0 begins with the highest.
    pub warmup: f64,
    /// The decoupled weight decay of AdamW, as a multiple of the learning rate.
    pub weight_decay: f64,
    /// The probability that the target spreads evenly over all classes.
    pub label_smoothing: f64,
    /// How images are changed before each step.
    pub augment: Augment,
    /// The layers.
    pub network: Architecture,
    /// The share of the images that is held out.
    pub held_out: f64,
    /// The seed of the weights, the order, the shifts and what is held out.
    pub seed: u64,
}

impl Default for TrainSettings {
    fn default() -> Self {
        Self {
            epochs: 6,
            batch_size: 64,
            lr: 2e-3,
            warmup: 0.0,
            weight_decay: 0.01,
            label_smoothing: 0.0,
            augment: Augment::default(),
            network: Architecture::Small,
            held_out: 0.1,
            seed: 0,
        }
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
        for (field, share) in [("warmup", self.warmup), ("label_smoothing", self.label_smoothing)] {
            if !(0.0..1.0).contains(&share) {
                return Err(Error::config(field, "at least 0 and below 1", share));
            }
        }
        if !(self.weight_decay.is_finite() && self.weight_decay >= 0.0) {
            return Err(Error::config("weight_decay", "0 or a positive number", self.weight_decay));
        }
        self.augment.validate()?;
        self.network.validate()
    }

    /// The learning rate of a step, counted from 0.
    fn lr_at(&self, step: u64, total: u64) -> f64 {
        let (step, total) = (step as f64, total.max(1) as f64);
        let rise = (self.warmup * total).round();
        match step < rise {
            true => self.lr * (step + 1.0) / (rise + 1.0),
            false => self.lr * (total - step) / (total - rise).max(1.0),
        }
    }
}

/// How far training is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// Images seen.
    pub images: u64,
    /// Images to be seen in all.
    pub total: u64,
    /// The cross entropy of the last step, of smoothed labels where they are.
    pub loss: f64,
    /// At the end of every epoch: the share of the held-out images that are classified as labelled.
    pub accuracy: Option<f64>,
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
    let pixels = images.shape().map(|size| size as u128);
    let need = Need::new().floats("all images", &[images.len() as u128, pixels[0], pixels[1], pixels[2]]);
    need.check("images", images.len(), "use smaller images (image.size), or fewer of them")?;
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
    let (shape, trained_on) = (images.shape(), seen.len());
    let info = ClassifierInfo { shape, classes, accuracy: 0.0, held_out, trained_on, settings, data };
    let mut run = Run::new(info, device);
    let steps = seen.len() / settings.batch_size;
    let total = (settings.epochs * steps) as u64;
    let images = |steps| steps * settings.batch_size as u64;
    let mut order: Vec<usize> = (0..seen.len()).collect();
    for epoch in 1..=settings.epochs {
        order.shuffle(&mut rng);
        let mut loss = 0.0;
        for batch in order.chunks_exact(settings.batch_size) {
            loss = run.step(batch.iter().map(|&index| &seen[index]), total)?;
            progress(Progress { images: images(run.taken), total: images(total), loss, accuracy: None });
        }
        let right = accuracy(&run.classifier, &all)?;
        run.classifier.info.accuracy = right;
        progress(Progress {
            images: images((epoch * steps) as u64),
            total: images(total),
            loss,
            accuracy: Some(right),
        });
    }
    Ok(run.classifier)
}

fn accuracy(classifier: &Classifier, images: &[Image]) -> Result<f64> {
    let mut right = 0;
    for chunk in images.chunks(super::AT_ONCE) {
        let pixels: Vec<f32> = chunk.iter().flat_map(|image| image.pixels.iter().copied()).collect();
        let [_, logits] = classifier.extract(&pixels, classifier.info.shape)?;
        right += (0..chunk.len()).filter(|&row| largest(logits.row(row)) == Some(chunk[row].label as usize)).count();
    }
    Ok(right as f64 / images.len() as f64)
}

/// A classifier with the optimiser's state.
struct Run {
    classifier: Classifier,
    layers: Layers,
    /// First and second moments of every parameter.
    moments: Vec<[Vec<f32>; 2]>,
    taken: u64,
    device: Device,
}

impl Run {
    fn new(info: ClassifierInfo, device: &Device) -> Self {
        let seed = info.settings.seed;
        let start = |(index, (name, shape)): (usize, (String, Vec<usize>))| {
            let n: usize = shape.iter().product();
            let values = match name.as_str() {
                _ if name.contains("norm") && name.ends_with("weight") => vec![1.0; n],
                _ if name.ends_with("bias") => vec![0.0; n],
                _ => {
                    // Variance 2/fan-in keeps the size of values through the layers.
                    let fan_in: usize = shape.iter().skip(1).product();
                    let std = (2.0 / fan_in as f64).sqrt() as f32;
                    normals(seed, Purpose::Estimate, index as u64, n).iter().map(|z| z * std).collect()
                }
            };
            HostTensor { shape, values }
        };
        let layers = info.layers();
        let parameters: Parameters = layers.shapes().into_iter().enumerate().map(start).collect();
        let moments = parameters.iter().map(|p| [vec![0.0; p.values.len()], vec![0.0; p.values.len()]]).collect();
        let classifier = Classifier { info, parameters, device: device.clone() };
        Self { classifier, layers, moments, taken: 0, device: device.clone().autodiff() }
    }

    /// One step; returns the cross entropy before it.
    fn step<'a>(&mut self, batch: impl Iterator<Item = &'a Image>, total: u64) -> Result<f64> {
        let ClassifierInfo { shape, settings, .. } = &self.classifier.info;
        let [c, h, w] = *shape;
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        for image in batch {
            let place = self.taken * settings.batch_size as u64 + labels.len() as u64;
            settings.augment.apply(&image.pixels, *shape, (settings.seed, place), &mut pixels);
            labels.push(i64::from(image.label));
        }
        let b = labels.len();
        let x = Tensor::<4>::from_data(TensorData::new(pixels, [b, c, h, w]), &self.device);
        let labels = Tensor::<2, Int>::from_data(TensorData::new(labels, [b, 1]), &self.device);
        let on_tape = |parameter| on_device(parameter, &self.device).require_grad();
        let parameters: Vec<Tensor<1>> = self.classifier.parameters.iter().map(on_tape).collect();
        let (_, logits) = self.layers.forward(&parameters, x);
        let log_shares = activation::log_softmax(logits, 1); // [b classes]
        let likelihood = log_shares.clone().gather(1, labels).mean();
        let smoothing = settings.label_smoothing;
        let loss = match smoothing > 0.0 {
            true => likelihood * (smoothing - 1.0) - log_shares.mean() * smoothing,
            false => likelihood * -1.0,
        };
        let gradients = loss.backward();
        let [beta1, beta2] = BETAS;
        let lr = settings.lr_at(self.taken, total);
        let rule = AdamW { lr, beta1, beta2, eps: EPS, weight_decay: settings.weight_decay };
        self.taken += 1;
        for ((tensor, parameter), [first, second]) in
            parameters.iter().zip(&mut self.classifier.parameters).zip(&mut self.moments)
        {
            let Some(gradient) = tensor.grad(&gradients) else { continue };
            rule.update(self.taken, 1.0, &mut parameter.values, &super::host(gradient)?, [first, second]);
        }
        Ok(f64::from(loss.into_scalar::<f32>()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_learning_rate_rises_and_falls_in_lines() {
        let settings = TrainSettings { lr: 1.0, warmup: 0.2, ..TrainSettings::default() };
        let rates: Vec<f64> = (0..10).map(|step| settings.lr_at(step, 10)).collect();
        let expected = [1.0 / 3.0, 2.0 / 3.0, 1.0, 7.0 / 8.0, 6.0 / 8.0, 5.0 / 8.0, 0.5, 3.0 / 8.0, 0.25, 1.0 / 8.0];
        for (rate, expected) in rates.iter().zip(expected) {
            assert!((rate - expected).abs() < 1e-12, "{rates:?}");
        }
        let settings = TrainSettings { warmup: 0.0, ..settings };
        assert_eq!([0, 1, 3].map(|step| settings.lr_at(step, 4)), [1.0, 0.75, 0.25]);
    }
}
