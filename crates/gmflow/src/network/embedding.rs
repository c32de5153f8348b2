//! Fixed sinusoidal features of time and position.

use crate::kernel;
use burn::tensor::{Device, Tensor, TensorData};
use std::f64::consts::TAU;

/// The longest period of the time and token features is 2 pi times this.
const MAX_PERIOD: f64 = 10_000.0;

/// Features `[b channels]` of `time` `[b]` (in thousandths, [0, 1000]): cosines, then sines, of geometrically falling
/// frequencies; `shift` is subtracted from the number of frequencies in the exponent's denominator.
pub fn time_features(time: Tensor<1>, channels: usize, shift: f64) -> Tensor<2> {
    let half = channels / 2;
    let frequencies: Vec<f32> =
        (0..half).map(|i| (-MAX_PERIOD.ln() * i as f64 / (half as f64 - shift)).exp() as f32).collect();
    let angles = outer(time, frequencies); // [b channels/2]
    Tensor::cat(vec![kernel::cos(angles.clone()), kernel::sin(angles)], 1)
}

/// Features `[b channels]` of points `[b 2]`: the block of x before the block of y, sines before cosines in each, with
/// channels/4 periods spaced evenly in the logarithm.
pub fn point_features(points: Tensor<2>, channels: usize, min_period: f64, max_period: f64) -> Tensor<2> {
    let n = channels / 4;
    let ratio = (max_period / min_period).ln() / (n.max(2) - 1) as f64;
    let frequencies: Vec<f32> = (0..n).map(|i| (TAU / (min_period * (ratio * i as f64).exp())) as f32).collect();
    let [b, _] = points.dims();
    let axis = |i: usize| {
        let angles = outer(points.clone().slice([0..b, i..i + 1]).reshape([b]), frequencies.clone());
        [kernel::sin(angles.clone()), kernel::cos(angles)] // each [b channels/4]
    };
    Tensor::cat([axis(0), axis(1)].concat(), 1)
}

/// The position table `[h*w channels]` of a grid of tokens: the first half of the channels encodes the column, the
/// second the row, each half sines then cosines. Coordinates are rescaled so that every grid spans `base` tokens.
pub fn token_positions([h, w]: [usize; 2], base: usize, channels: usize, device: &Device) -> Tensor<2> {
    let (rows, columns) = (axis_features(h, base, channels / 2), axis_features(w, base, channels / 2));
    let width = channels / 2;
    let mut table = Vec::with_capacity(h * w * channels);
    for row in rows.chunks(width) {
        for column in columns.chunks(width) {
            table.extend_from_slice(column);
            table.extend_from_slice(row);
        }
    }
    Tensor::from_data(TensorData::new(table, [h * w, channels]), device) // [h*w channels]
}

/// Sines then cosines, `channels` in all, of the positions along one axis.
fn axis_features(n: usize, base: usize, channels: usize) -> Vec<f32> {
    let half = channels / 2;
    let angle = |i: usize, j: usize| {
        let position = (i as f32 / (n as f32 / base as f32)) as f64;
        position * MAX_PERIOD.powf(-(j as f64) / half as f64)
    };
    (0..n)
        .flat_map(|i| {
            let sines = (0..half).map(move |j| angle(i, j).sin() as f32);
            sines.chain((0..half).map(move |j| angle(i, j).cos() as f32))
        })
        .collect()
}

fn outer(x: Tensor<1>, frequencies: Vec<f32>) -> Tensor<2> {
    let n = frequencies.len();
    let frequencies = Tensor::<2>::from_data(TensorData::new(frequencies, [1, n]), &x.device());
    x.unsqueeze_dim::<2>(1) * frequencies // [b n]
}
