//! The transport between standard normals and mixtures on GPUs.

#![allow(
    clippy::manual_clamp,
    clippy::manual_is_multiple_of,
    clippy::needless_range_loop,
    reason = "kernels are written in the part of Rust that they may use"
)]

mod line;
mod pixels;

use crate::kernel::gpu::{empty, grid, host, input, mean_of, mixture_sizes, output, sizes};
use crate::kernel::mixture::sizes::{Mixture, Sizes};
use crate::kernel::mixture::transport::cpu;
use crate::kernel::mixture::transport::ops::TransportOps;
use crate::kernel::mixture::transport::types::{Axes, Direction};
use burn::backend::ops::FloatTensorOps;
use burn::tensor::TensorData;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use pixels::{covariance_kernel, transport_kernel};

/// Whether there is a standard deviation for each pixel, `[b 1 1 h w]`, and not one for each sample.
fn has_std_per_pixel(log_std: &CubeTensor) -> bool {
    let [_, _, _, h, w] = sizes(log_std);
    h * w > 1
}

/// The transport of `values` `[b c h w]` of mixtures `[b k c h w]` along `bases` `[b c c]`. Where a pixel is beyond f32 all of it is done
/// again on the host, which has f64.
fn transport(
    [means, log_weights, log_std]: [CubeTensor; 3],
    values: CubeTensor,
    bases: CubeTensor,
    axes: Axes,
    direction: Direction,
) -> CubeTensor {
    let ([_, k, ..], shape) = (sizes::<5>(&means), sizes::<4>(&values));
    let [b, c, h, w] = shape;
    let n = h * w;
    let (out, far) = (empty(&values, shape), empty(&values, [b * n]));
    let (cubes, dim) = grid(&values, b * n);
    // SAFETY: threads beyond the pixels end, and all indices are within the shapes of the mixture.
    unsafe {
        transport_kernel::launch_unchecked(
            &values.client,
            cubes,
            dim,
            input(&means),
            input(&log_weights),
            input(&log_std),
            input(&values),
            input(&bases),
            output(&out),
            output(&far),
            b,
            n,
            k,
            c,
            direction == Direction::FromNormals,
            axes == Axes::Basis,
            has_std_per_pixel(&log_std),
        );
    }
    if host(CubeBackend::float_sum(far)).iter().all(|&count| count == 0.0) {
        return out;
    }
    let device = values.device.clone();
    let [means, log_weights, log_std] = [means, log_weights, log_std].map(host);
    let mixture = Mixture { means: &means, log_weights: &log_weights, log_std: &log_std };
    let mapped = cpu::transport(mixture, &host(values), &host(bases), Sizes { k, c, n }, axes, direction);
    CubeBackend::float_from_data(TensorData::new(mapped, shape), &device)
}

impl TransportOps for CubeBackend {
    fn mixture_covariances(means: CubeTensor, log_weights: CubeTensor, log_std: CubeTensor) -> CubeTensor {
        let (Sizes { k, c, n }, [b, ..]) = (mixture_sizes(&means), sizes::<5>(&means));
        let out = empty(&means, [b, c * c, n]);
        let (count, dim) = grid(&means, b * n);
        // SAFETY: threads beyond the pixels end, and all indices are within the shapes of the mixture.
        unsafe {
            covariance_kernel::launch_unchecked(
                &means.client,
                count,
                dim,
                input(&means),
                input(&log_weights),
                input(&log_std),
                output(&out),
                b,
                n,
                k,
                c,
                has_std_per_pixel(&log_std),
            );
        }
        CubeBackend::float_reshape(mean_of(out, 2), [b, c, c].into())
    }

    fn mixture_transport(
        means: CubeTensor,
        log_weights: CubeTensor,
        log_std: CubeTensor,
        values: CubeTensor,
        bases: CubeTensor,
        axes: Axes,
        direction: Direction,
    ) -> CubeTensor {
        transport([means, log_weights, log_std], values, bases, axes, direction)
    }
}
