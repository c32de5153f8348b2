//! The spectral loss: how a spectrum network learns the correlation of pixels that the mixtures leave out.

use crate::Result;
use crate::mixture::spectral::{Bases, hartley};
use crate::mixture::{DataMixture, GaussianMixture};
use crate::network::SpectrumMlp;
use burn::tensor::Tensor;

/// Normals further out count as this one, the quantile of 1 - 5e-7: a pixel that the prediction holds for impossible tells
/// nothing of correlation, and its square would outweigh the rest of the image.
const LARGEST_NORMAL: f64 = 4.891638;

/// The spectral loss (20) of data `x0` `[b c h w]` under a prediction, `[1]`, with gradients into the spectrum network only.
///
/// The data goes through the inverse transport of the prediction to per-pixel normals and on to their frequencies z; the loss is
/// -log N(z; 0, S) + log N(z; 0, I) = (z^2/S + log S - z^2)/2, summed over channels, mean over frequencies and batch, with
/// the power spectrum S that the network predicts from the surrogate. Below 0 means that the spectrum explains the data better
/// than white noise.
///
/// The prediction carries no gradients, the network's device records them. The transport runs on the host, pixel by pixel.
///
/// # Errors
/// Shapes that do not fit, or a mixture without one standard deviation per sample.
pub fn spectral_loss(
    spectrum: &SpectrumMlp,
    prediction: &DataMixture,
    x0: &Tensor<4>,
    bases: Bases,
) -> Result<Tensor<1>> {
    let [_, channels, ..] = x0.dims();
    let power = Tensor::from_inner(spectral_power(&prediction.0, x0, bases)?); // [b c h w]
    let mut surrogate = prediction.0.to_iso_gaussian();
    surrogate.mean = Tensor::from_inner(surrogate.mean);
    surrogate.var = Tensor::from_inner(surrogate.var);
    let log_power = spectrum.forward(&surrogate);
    let gain = power.clone() * (log_power.clone() * -1.0).exp() + log_power - power;
    Ok(gain.mean() * (0.5 * channels as f64))
}

/// The squared frequencies z^2 `[b c h w]` of the normals that data `x0` `[b c h w]` comes from under a mixture over x0: what
/// [`spectral_loss`] compares the predicted power spectrum S with.
///
/// # Errors
/// As [`spectral_loss`].
pub fn spectral_power(prediction: &GaussianMixture, x0: &Tensor<4>, bases: Bases) -> Result<Tensor<4>> {
    let normals = prediction.to_normals(x0, bases)?.clamp(-LARGEST_NORMAL, LARGEST_NORMAL);
    Ok(hartley(&normals).powi_scalar(2))
}

impl DataMixture {
    /// The same mixture on the plain device, without gradients.
    pub fn detached(&self) -> DataMixture {
        let GaussianMixture { means, log_weights, log_std } = self.0.clone();
        DataMixture(GaussianMixture {
            means: means.inner(),
            log_weights: log_weights.inner(),
            log_std: log_std.inner(),
        })
    }
}
