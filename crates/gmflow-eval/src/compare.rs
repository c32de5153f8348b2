//! All metrics of one set of samples against a reference.

use crate::inception_score::{SEED, SPLITS};
use crate::{
    Error, KernelDistanceConfig, Manifolds, Neighbours, Result, SampleSet, Spread, frechet_distance, inception_score,
    kernel_distance, manifolds,
};
use gmflow::pipeline::Progress;
use serde::{Deserialize, Serialize};

/// Which metrics are computed, and how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CompareConfig {
    /// The kernel distance; its subsets are no larger than the smaller set.
    pub kernel: KernelDistanceConfig,
    /// Precision, recall, density and coverage.
    pub neighbours: Neighbours,
    /// Leaves out what needs all vectors: kernel distance, precision, recall, density, coverage.
    pub moments_only: bool,
}

/// The figures. Distances of Inception features are called FID and KID; of others they are not.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Metrics {
    /// Fréchet distance of Inception features.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fid: Option<f64>,
    /// Fréchet distance of other features.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frechet_distance: Option<f64>,
    /// Kernel distance of Inception features.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kid: Option<Spread>,
    /// Kernel distance of other features.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_distance: Option<Spread>,
    /// Samples in one subset of the kernel distance.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel_subset_size: Option<usize>,
    /// Inception Score of the fake samples.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inception_score: Option<Spread>,
    /// The same score from another classifier's logits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classifier_score: Option<Spread>,
    /// The share of the fake samples that the classifier reads as the class that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub read_as_asked: Option<f64>,
    /// Precision, recall, density, coverage and copies.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub manifolds: Option<Manifolds>,
    /// Colour statistics of the fake samples, and by how much they differ from the reference's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub colours: Option<Colours>,
}

/// Means of the fake samples, less those of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Colours {
    /// HSV saturation.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub saturation_difference: Option<f64>,
    /// Brightness.
    pub brightness_difference: f64,
    /// Contrast.
    pub contrast_difference: f64,
    /// Brightness of the fake samples.
    pub brightness: f64,
    /// Saturation of the fake samples.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub saturation: Option<f64>,
}

/// Compares a set of fake samples with the real one; `progress` is told (tiles of distances done, of), and
/// answers whether to go on.
///
/// # Errors
/// Features of another network or other weights, or sets that are too small for what is asked;
/// [`gmflow::Error::Cancelled`] where `progress` says so.
pub fn compare(
    real: &SampleSet,
    fake: &SampleSet,
    config: CompareConfig,
    progress: &mut Progress,
) -> Result<Metrics> {
    let features = &real.info.features;
    if *features != fake.info.features {
        return Err(Error::config("features", features.label(), fake.info.features.label()));
    }
    let mut metrics = Metrics { read_as_asked: fake.read_as_asked, ..Metrics::default() };
    let frechet = Some(frechet_distance(&real.moments, &fake.moments)?);
    let (mut kernel, mut score) = (None, None);
    if let (Some(reals), Some(fakes), false) = (&real.vectors, &fake.vectors, config.moments_only) {
        let subset_size = config.kernel.subset_size.min(reals.rows()).min(fakes.rows());
        // In torch-fidelity's order, which is also that in which its generator draws the subsets.
        kernel = Some(kernel_distance(fakes, reals, KernelDistanceConfig { subset_size, ..config.kernel })?);
        metrics.kernel_subset_size = Some(subset_size);
        metrics.manifolds = Some(manifolds(reals, fakes, config.neighbours, progress)?);
    }
    if let Some(logits) = &fake.logits {
        score = Some(inception_score(logits, SPLITS.min(logits.rows()), SEED)?);
    }
    if features.is_inception() {
        (metrics.fid, metrics.kid, metrics.inception_score) = (frechet, kernel, score);
    } else {
        (metrics.frechet_distance, metrics.kernel_distance, metrics.classifier_score) = (frechet, kernel, score);
    }
    metrics.colours = real.info.colours.zip(fake.info.colours).map(|(real, fake)| Colours {
        saturation_difference: fake.saturation.zip(real.saturation).map(|(fake, real)| fake - real),
        brightness_difference: fake.brightness - real.brightness,
        contrast_difference: fake.contrast - real.contrast,
        brightness: fake.brightness,
        saturation: fake.saturation,
    });
    Ok(metrics)
}

impl Metrics {
    /// The Fréchet distance, whatever it is called.
    pub fn frechet(&self) -> Option<f64> {
        self.fid.or(self.frechet_distance)
    }

    /// Names and values of the figures for one row of a table, in a fixed order; empty where a figure is not there.
    pub fn columns(&self) -> Vec<(&'static str, String)> {
        let number =
            |value: Option<f64>, digits: usize| value.map_or(String::new(), |value| format!("{value:.digits$}"));
        let spread = |value: Option<Spread>, digits: usize| {
            value.map_or(String::new(), |Spread { mean, std }| format!("{mean:.digits$} ± {std:.digits$}"))
        };
        let within = |part: fn(&Manifolds) -> f64| number(self.manifolds.as_ref().map(part), 4);
        let colour = |part: fn(&Colours) -> Option<f64>| number(self.colours.as_ref().and_then(part), 4);
        let (distance, kernel, score) = match self.frechet_distance {
            None => ("FID", "KID", "Inception Score"),
            Some(_) => ("Fréchet distance", "kernel distance", "classifier score"),
        };
        vec![
            (distance, number(self.frechet(), 4)),
            (kernel, spread(self.kid.or(self.kernel_distance), 5)),
            (score, spread(self.inception_score.or(self.classifier_score), 3)),
            ("read as asked", number(self.read_as_asked, 4)),
            ("precision", within(|m| m.precision)),
            ("recall", within(|m| m.recall)),
            ("density", within(|m| m.density)),
            ("coverage", within(|m| m.coverage)),
            ("copies", number(self.manifolds.as_ref().and_then(|m| m.copies), 4)),
            ("saturation - data", colour(|c| c.saturation_difference)),
            ("brightness - data", colour(|c| Some(c.brightness_difference))),
            ("contrast - data", colour(|c| Some(c.contrast_difference))),
        ]
    }
}
