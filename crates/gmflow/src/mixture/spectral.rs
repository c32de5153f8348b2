//! Draws whose pixels are correlated by a power spectrum, and the transport they go through, for whole tensors.
//!
//! ```
//! use burn::tensor::{Device, Tensor};
//! use gmflow::mixture::spectral::hartley;
//!
//! // An orthogonal map that is its own inverse.
//! let x = Tensor::<1>::from_floats([1.0, -2.0, 0.5, 3.0], &Device::flex()).reshape([1, 1, 2, 2]);
//! let off = (hartley(&hartley(&x)) - x).abs().max().into_scalar::<f32>();
//! assert!(off < 1e-5);
//! ```

use super::GaussianMixture;
use super::transport::{Axes, PixelMixture, eigenbasis};
use crate::kernel::{self, Direction};
use crate::{Error, Result};
use burn::tensor::{Device, Tensor, TensorData};
use nalgebra::DMatrix;
use rayon::prelude::*;
use rustfft::FftPlanner;
use rustfft::num_complex::Complex;
use std::borrow::Cow;

/// The bases of a transport.
#[derive(Clone, Copy, Debug)]
pub enum Bases<'a> {
    /// One per sample: the eigenbasis of the covariance averaged over the pixels.
    Shared,
    /// One per pixel; the normals are measured along the channels.
    PerPixel,
    /// Recorded bases `[b 1 1 c c]` or `[b h w c c]`, one vector per column.
    Given(&'a Tensor<5>, Axes),
}

impl Bases<'_> {
    fn axes(&self) -> Axes {
        match self {
            Self::Shared => Axes::Basis,
            Self::PerPixel => Axes::Channels,
            Self::Given(_, axes) => *axes,
        }
    }
}

impl GaussianMixture {
    /// Standard normals `[b c h w]` to draws of the mixture `[b c h w]`, pixel by pixel.
    ///
    /// # Errors
    /// Shapes that do not fit, or a standard deviation per component.
    pub fn from_normals(&self, normals: &Tensor<4>, bases: Bases) -> Result<Tensor<4>> {
        self.transported(normals, bases, Direction::FromNormals)
    }

    /// Points `[b c h w]` to the standard normals `[b c h w]` they come from: the inverse of
    /// [`GaussianMixture::from_normals`].
    ///
    /// # Errors
    /// As there.
    pub fn to_normals(&self, points: &Tensor<4>, bases: Bases) -> Result<Tensor<4>> {
        self.transported(points, bases, Direction::ToNormals)
    }

    /// A draw `[b c h w]` from white standard normals and a log power spectrum, both `[b c h w]`: the shaped normals go
    /// through the transport.
    ///
    /// # Errors
    /// As [`GaussianMixture::from_normals`].
    pub fn spectral_sample(&self, white: &Tensor<4>, log_power: &Tensor<4>, bases: Bases) -> Result<Tensor<4>> {
        let (values, powers) = (numbers(white), numbers(&log_power.clone().expand(white.dims())));
        let normals = transformed(|i| values[i] * (0.5 * powers[i]).exp(), white.dims(), &white.device());
        self.from_normals(&normals, bases)
    }

    /// The log density `[b]` of points `[b c h w]` when the pixels are correlated by a log power spectrum `[b c h w]` or
    /// `[b 1 h w]`: the mixture's own, plus log N(z; 0, S) - log N(z; 0, I) over the frequencies z of the normals, (20).
    ///
    /// # Errors
    /// As [`GaussianMixture::from_normals`].
    pub fn spectral_log_prob(&self, points: &Tensor<4>, log_power: &Tensor<4>, bases: Bases) -> Result<Tensor<1>> {
        let frequencies = hartley(&self.to_normals(points, bases)?);
        let log_power = log_power.clone().expand(frequencies.dims());
        let gain = frequencies.powi_scalar(2) * ((log_power.clone() * -1.0).exp() * -1.0 + 1.0) - log_power;
        let pixels = self.log_prob(&points.clone().unsqueeze_dim::<5>(1)); // [b 1 h w]
        let [b, ..] = points.dims();
        let summed = |x: Tensor<4>| x.reshape([b as i32, -1]).sum_dim(1).squeeze_dim::<1>(1);
        Ok(summed(pixels) + summed(gain) * 0.5)
    }

    fn transported(&self, values: &Tensor<4>, bases: Bases, direction: Direction) -> Result<Tensor<4>> {
        let [b, k, c, h, w] = self.means.dims();
        if values.dims() != [b, c, h, w] {
            return Err(Error::shape("values of a transport", [b, c, h, w], values.dims()));
        }
        if self.log_std.dims()[1] != 1 {
            return Err(Error::shape("log_std of a transport", [b, 1, 1, 1, 1], self.log_std.dims()));
        }
        let parts = || [&self.means, &self.log_weights, &self.log_std].map(Tensor::clone);
        let axes = bases.axes();
        let per_sample = match bases {
            _ if !self.is_plain_by_pixel() => None,
            Bases::PerPixel => None,
            Bases::Shared => Some(eigenbases(kernel::covariances(parts()))?),
            Bases::Given(given, _) => (given.dims() == [b, 1, 1, c, c]).then(|| given.clone().reshape([b, c, c])),
        };
        if let Some(bases) = per_sample {
            return Ok(kernel::transport(parts(), values, bases, axes, direction));
        }
        let given = given_bases(&bases, [b, h, w, c])?;
        let means = host(self.means.clone().permute([0, 3, 4, 1, 2]))?; // [b h w k c]
        let log_weights = host(self.log_weights.clone().permute([0, 3, 4, 1, 2]))?; // [b h w k 1]
        let stds = host(self.log_std.clone().exp().expand([b, 1, 1, h, w]))?;
        let values_in = host(values.clone().permute([0, 2, 3, 1]))?; // [b h w c]
        let mixture = |p: usize| PixelMixture {
            means: &means[p * k * c..(p + 1) * k * c],
            log_weights: &log_weights[p * k..(p + 1) * k],
            std: stds[p],
        };
        let shared: Vec<DMatrix<f64>> = match bases {
            Bases::Shared => {
                (0..b).into_par_iter().map(|i| shared_basis(c, i * h * w..(i + 1) * h * w, &mixture)).collect()
            }
            _ => given,
        };
        let per_basis = if shared.len() == b { h * w } else { 1 };
        let mapped: Vec<Vec<f64>> = (0..b * h * w)
            .into_par_iter()
            .map(|p| {
                let (mixture, point) = (mixture(p), &values_in[p * c..(p + 1) * c]);
                let own = || eigenbasis(mixture.covariance());
                let basis = shared.get(p / per_basis).map_or_else(|| Cow::Owned(own()), Cow::Borrowed);
                match direction {
                    Direction::FromNormals => mixture.at_normals(point, &basis, axes),
                    Direction::ToNormals => mixture.to_normals(point, &basis, axes),
                }
            })
            .collect();
        let mapped: Vec<f32> = mapped.into_iter().flatten().map(|x| x as f32).collect();
        Ok(Tensor::<4>::from_data(TensorData::new(mapped, [b, h, w, c]), &values.device()).permute([0, 3, 1, 2]))
    }
}

/// The eigenbases `[b c c]` of covariances `[b c c]`, one vector per column.
fn eigenbases(covariances: Tensor<3>) -> Result<Tensor<3>> {
    let ([b, c, _], device) = (covariances.dims(), covariances.device());
    let rows = host(covariances)?;
    let basis = |rows: &[f64]| eigenbasis(DMatrix::from_row_slice(c, c, rows)).transpose();
    let bases: Vec<f32> =
        rows.chunks_exact(c * c).flat_map(|rows| basis(rows).iter().map(|&x| x as f32).collect::<Vec<_>>()).collect();
    Ok(Tensor::from_data(TensorData::new(bases, [b, c, c]), &device))
}

/// The eigenbasis of the covariance averaged over a range of pixels.
fn shared_basis<'a>(
    c: usize,
    pixels: std::ops::Range<usize>,
    mixture: &impl Fn(usize) -> PixelMixture<'a>,
) -> DMatrix<f64> {
    let mut sum = DMatrix::zeros(c, c);
    pixels.for_each(|p| mixture(p).add_covariance(&mut sum));
    eigenbasis(sum)
}

/// Recorded bases as matrices: one per sample or one per pixel; none where they are to be computed.
fn given_bases(bases: &Bases, [b, h, w, c]: [usize; 4]) -> Result<Vec<DMatrix<f64>>> {
    let Bases::Given(given, _) = bases else { return Ok(Vec::new()) };
    if given.dims() != [b, 1, 1, c, c] && given.dims() != [b, h, w, c, c] {
        return Err(Error::shape("bases of a transport", [b, 1, 1, c, c], given.dims()));
    }
    let rows = host((*given).clone())?;
    Ok(rows.chunks_exact(c * c).map(|rows| DMatrix::from_row_slice(c, c, rows)).collect())
}

/// A tensor's numbers in f64, in order.
fn host<const D: usize>(x: Tensor<D>) -> Result<Vec<f64>> {
    let shape = x.dims();
    let data = x.into_data().convert::<f32>();
    let values: Vec<f32> = data.try_to_vec().map_err(|_| Error::shape("numbers of a tensor", shape, [0]))?;
    Ok(values.into_iter().map(f64::from).collect())
}

/// The same in f32.
fn numbers(x: &Tensor<4>) -> Vec<f32> {
    let data = x.clone().into_data();
    data.as_slice::<f32>().map_or_else(|_| data.iter::<f32>().collect(), <[f32]>::to_vec)
}

/// Re + Im of the orthonormal two-dimensional Fourier transform of every channel `[b c h w]`, any height and width: an
/// orthogonal map that is its own inverse, so it turns white noise into white noise.
pub fn hartley(x: &Tensor<4>) -> Tensor<4> {
    let values = numbers(x);
    transformed(|i| values[i], x.dims(), &x.device())
}

/// The same of the numbers that `value` gives.
fn transformed(value: impl Fn(usize) -> f32 + Sync, [b, c, h, w]: [usize; 4], device: &Device) -> Tensor<4> {
    let mut planner = FftPlanner::new();
    let (rows, columns) = (planner.plan_fft_forward(w), planner.plan_fft_forward(h));
    let mut out = vec![0.0; b * c * h * w];
    // Two channels of one sample at a time.
    let samples = out.chunks_exact_mut(c * h * w).enumerate();
    let items: Vec<(usize, &mut [f32])> = samples
        .flat_map(|(sample, out)| {
            let pairs = out.chunks_mut(2 * h * w).enumerate();
            pairs.map(move |(pair, out)| ((sample * c + 2 * pair) * h * w, out))
        })
        .collect();
    let size = rows.get_inplace_scratch_len().max(columns.get_inplace_scratch_len());
    let room = |n| vec![Complex::new(0.0, 0.0); n];
    items.into_par_iter().for_each_init(
        || [room(h * w), room(h * w), room(size)],
        |[plane, turned, scratch], (start, out)| {
            let two = out.len() > h * w;
            for (i, z) in plane.iter_mut().enumerate() {
                let second = if two { value(start + h * w + i) } else { 0.0 };
                *z = Complex::new(f64::from(value(start + i)), f64::from(second));
            }
            rows.process_with_scratch(plane, scratch);
            for (y, row) in plane.chunks_exact(w).enumerate() {
                for (z, column) in row.iter().zip(turned.chunks_exact_mut(h)) {
                    column[y] = *z;
                }
            }
            columns.process_with_scratch(turned, scratch);
            unpack(turned, [h, w], out);
        },
    );
    Tensor::from_data(TensorData::new(out, [b, c, h, w]), device)
}

/// One or two maps `[h w]` from the transform `[w h]` of the first plus i times the second: with p + iq at a frequency and r + is at
/// its negative, the Fourier transforms are (p + r + i(q - s))/2 and (q + s + i(r - p))/2.
fn unpack(turned: &[Complex<f64>], [h, w]: [usize; 2], out: &mut [f32]) {
    let scale = 0.5 / ((h * w) as f64).sqrt();
    let (first, second) = out.split_at_mut(h * w);
    let opposite = |i: usize, n: usize| if i == 0 { 0 } else { n - i };
    for y in 0..h {
        for x in 0..w {
            let (here, there) = (turned[x * h + y], turned[opposite(x, w) * h + opposite(y, h)]);
            first[y * w + x] = ((here.re + there.re + here.im - there.im) * scale) as f32;
            if let Some(out) = second.get_mut(y * w + x) {
                *out = ((here.im + there.im + there.re - here.re) * scale) as f32;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, normal_batch};
    use burn::tensor::Tolerance;

    fn normal(seed: u64, shape: [usize; 3]) -> Tensor<4> {
        normal_batch(&[seed, seed + 1], Purpose::Spectral, 0, shape, &Device::flex())
    }

    /// Two samples, three components, two channels, on a map with both sizes odd.
    fn mixture() -> GaussianMixture {
        let device = Device::flex();
        let [h, w] = [3, 5];
        GaussianMixture {
            means: normal(5, [6, h, w]).reshape([2, 3, 2, h, w]),
            log_weights: burn::tensor::activation::log_softmax(normal(9, [3, h, w]).reshape([2, 3, 1, h, w]), 1),
            log_std: Tensor::full([2, 1, 1, 1, 1], -1.2, &device),
        }
    }

    fn assert_close<const D: usize>(got: Tensor<D>, expected: Tensor<D>, tolerance: f64) {
        got.into_data().assert_approx_eq::<f32>(&expected.into_data(), Tolerance::absolute(tolerance));
    }

    #[test]
    fn the_transform_is_its_own_inverse_and_keeps_length_at_odd_sizes() {
        for shape in [[2, 3, 5], [1, 4, 6], [1, 1, 1], [1, 1, 7]] {
            let x = normal(3, shape);
            let z = hartley(&x);
            assert_close(z.clone().powi_scalar(2).sum(), x.clone().powi_scalar(2).sum(), 1e-3);
            assert_close(hartley(&z), x, 1e-5);
        }
    }

    #[test]
    fn the_transform_of_one_frequency_is_known() {
        // A constant has only the zero frequency: its orthonormal coefficient is the root of the pixel count.
        let z = hartley(&Tensor::ones([1, 1, 3, 5], &Device::flex()));
        let expected = Tensor::<4>::zeros([1, 1, 3, 5], &Device::flex());
        let first = Tensor::<4>::full([1, 1, 1, 1], 15f32.sqrt(), &Device::flex());
        assert_close(z, expected.slice_assign([0..1, 0..1, 0..1, 0..1], first), 1e-5);
    }

    #[test]
    fn there_and_back_in_every_basis() {
        let (mixture, z) = (mixture(), normal(1, [2, 3, 5]));
        for bases in [Bases::Shared, Bases::PerPixel] {
            let point = mixture.from_normals(&z, bases).expect("shapes fit");
            assert_close(mixture.to_normals(&point, bases).expect("shapes fit"), z.clone(), 1e-3);
        }
    }

    #[test]
    fn a_sample_does_not_depend_on_its_batch() {
        let (mixture, z) = (mixture(), normal(1, [2, 3, 5]));
        let both = mixture.from_normals(&z, Bases::Shared).expect("shapes fit");
        let second = |x: &Tensor<5>| x.clone().slice_dim(0, 1..2);
        let alone = GaussianMixture {
            means: second(&mixture.means),
            log_weights: second(&mixture.log_weights),
            log_std: second(&mixture.log_std),
        };
        let alone = alone.from_normals(&z.slice_dim(0, 1..2), Bases::Shared).expect("shapes fit");
        assert_close(alone, both.slice_dim(0, 1..2), 0.0);
    }

    #[test]
    fn one_component_and_a_spectrum_are_a_gaussian_with_a_known_density() {
        let device = Device::flex();
        let mixture = GaussianMixture {
            means: Tensor::full([1, 1, 2, 3, 5], 0.7, &device),
            log_weights: Tensor::zeros([1, 1, 1, 3, 5], &device),
            log_std: Tensor::full([1, 1, 1, 1, 1], -0.5, &device),
        };
        let (white, log_power) = (normal(1, [2, 3, 5]).slice_dim(0, 0..1), normal(2, [2, 3, 5]).slice_dim(0, 0..1));
        let drawn = mixture.spectral_sample(&white, &log_power, Bases::Shared).expect("shapes fit");
        let got = mixture.spectral_log_prob(&drawn, &log_power, Bases::Shared).expect("shapes fit");
        // Every step from the white normals is linear: orthogonal maps, the spectrum's root, and the standard deviation.
        let [n, tau] = [30.0, std::f64::consts::TAU];
        let expected = white.powi_scalar(2).sum() * -0.5 - log_power.sum() * 0.5 + n * (0.5 - 0.5 * tau.ln());
        assert_close(got, expected, 1e-3);
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        assert!(mixture().from_normals(&normal(1, [2, 3, 4]), Bases::Shared).is_err());
        let basis = Tensor::<5>::zeros([2, 1, 1, 3, 3], &Device::flex());
        assert!(mixture().from_normals(&normal(1, [2, 3, 5]), Bases::Given(&basis, Axes::Basis)).is_err());
    }
}
