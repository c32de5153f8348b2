//! x0 at points of time as a policy.

use super::substep_grid::raw_time;
use super::{Policy, plain};
use crate::kernel::mixture::policy::SamplePath;
use crate::{Error, Result};
use burn::tensor::{Tensor, TensorData};

/// The smallest length in raw time that an interpolation is divided by.
const SHORTEST: f64 = 1e-4;

/// N predictions of x0: g_i = `x_src` - `t_src` u_i. Their raw times are evenly spaced, from the end of the segment (i = 0) to its beginning
/// (i = N - 1). Between them x0 is interpolated linearly. It depends on the time and not on x, so errors are not corrected.
#[derive(Clone, Debug)]
pub struct GridPolicy {
    /// u_i `[b n c h w]`.
    velocities: Tensor<5>,
    x_src: Tensor<4>,
    t_src: Vec<f64>,
    /// The length of a segment in raw time, and the shift, that the network was trained for.
    segment: f64,
    shift: f64,
}

impl GridPolicy {
    /// From velocities `[b n c h w]` that were predicted at `x_src` `[b c h w]` and the time of each sample, for a segment of this length
    /// in raw time before this shift.
    ///
    /// # Errors
    /// [`Error::Shape`] where the shapes do not fit each other; [`crate::FilesError::Config`] for a segment or shift that is not positive.
    pub fn new(
        velocities: Tensor<5>,
        x_src: Tensor<4>,
        t_src: Vec<f64>,
        (segment, shift): (f64, f64),
    ) -> Result<Self> {
        let [b, _, c, h, w] = velocities.dims();
        if x_src.dims() != [b, c, h, w] {
            return Err(Error::shape("x_src", [b, c, h, w], x_src.dims()));
        }
        if t_src.len() != b {
            return Err(Error::shape("t_src", [b], [t_src.len()]));
        }
        for (field, value) in [("segment", segment), ("shift", shift)] {
            if !(value.is_finite() && value > 0.0) {
                return Err(Error::config(field, "a positive number", value));
            }
        }
        Ok(Self { velocities, x_src, t_src, segment, shift })
    }

    /// The weights of g_0 .. g_{N-1} in x0 at time t of a sample, times `share`, added to `weights`.
    fn add_weights(&self, t_src: f64, t: f64, share: f64, weights: &mut [f64]) {
        let (raw_src, last) = (raw_time(t_src, self.shift), weights.len().saturating_sub(1));
        let raw_end = (raw_src - self.segment).max(0.0);
        let along = (raw_time(t, self.shift) - raw_end) / (raw_src - raw_end).max(SHORTEST);
        let place = along.clamp(0.0, 1.0) * last as f64;
        let below = (place.floor() as usize).min(last.saturating_sub(1));
        let above = (below + 1).min(last);
        let part = if above > below { place - below as f64 } else { 0.0 };
        weights[below] += share * (1.0 - part);
        weights[above] += share * part;
    }

    pub(super) fn source(&self) -> &Tensor<4> {
        &self.x_src
    }

    /// Every path ends at a weighted sum of x and the g_i.
    pub(super) fn ends(&self, x: &Tensor<4>, paths: &[SamplePath]) -> Tensor<4> {
        let [b, n, ..] = self.velocities.dims();
        // Of x, of x_src, and of -u_i.
        let (mut kept, mut of_source, mut of_velocities) = (Vec::new(), Vec::new(), Vec::new());
        for (path, &t_src) in paths.iter().zip(&self.t_src) {
            let (mut keep, mut weights) = (1.0, vec![0.0; n]);
            match path {
                SamplePath::ToMean(t) => {
                    keep = 0.0;
                    self.add_weights(t_src, *t, 1.0, &mut weights);
                }
                SamplePath::Along(times) => {
                    for ends in times.windows(2) {
                        let share = if ends[0] > 0.0 { ends[1] / ends[0] } else { 1.0 };
                        keep *= share;
                        weights.iter_mut().for_each(|weight| *weight *= share);
                        self.add_weights(t_src, ends[0], 1.0 - share, &mut weights);
                    }
                }
            }
            kept.push(keep as f32);
            of_source.push(weights.iter().sum::<f64>() as f32);
            of_velocities.extend(weights.iter().map(|weight| (-t_src * weight) as f32));
        }
        let device = x.device();
        let number = |values: Vec<f32>| Tensor::<4>::from_data(TensorData::new(values, [b, 1, 1, 1]), &device);
        let of_velocities = Tensor::<5>::from_data(TensorData::new(of_velocities, [b, n, 1, 1, 1]), &device);
        let moved = (self.velocities.clone() * of_velocities).sum_dim(1).squeeze_dim::<4>(1);
        x.clone() * number(kept) + self.x_src.clone() * number(of_source) + moved
    }

    /// The same without gradients, on the plain device.
    pub fn detached(&self) -> Self {
        let (velocities, x_src) = (plain(self.velocities.clone()), plain(self.x_src.clone()));
        Self { velocities, x_src, ..self.clone() }
    }
}

impl From<GridPolicy> for Policy {
    fn from(policy: GridPolicy) -> Self {
        Self::Grid(policy)
    }
}
