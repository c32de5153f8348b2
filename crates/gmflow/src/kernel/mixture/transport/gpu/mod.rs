//! The transport between standard normals and mixtures on GPUs.

#![allow(
    clippy::manual_clamp,
    clippy::manual_is_multiple_of,
    clippy::needless_range_loop,
    reason = "kernels are written in the part of Rust that they may use"
)]

mod line;
mod pixels;

use crate::kernel::gpu::args::mixtures;
use crate::kernel::gpu::{empty, grid, host, input, mean_of, mixture_sizes, output, sizes};
use crate::kernel::mixture::sizes::{Mixture, Sizes};
use crate::kernel::mixture::transport::cpu;
use crate::kernel::mixture::transport::ops::TransportOps;
use crate::kernel::mixture::transport::types::{Axes, Direction, Way};
use burn::backend::ops::FloatTensorOps;
use burn::tensor::TensorData;
use burn_cubecl::CubeBackend;
use burn_cubecl::tensor::CubeTensor;
use pixels::{WayLaunch, covariance_kernel, transport_kernel};

/// The transport of `values` `[b c h w]` of mixtures `[b k c h w]` along `bases` `[b c c]`. Where a pixel is beyond f32 all of it is done
/// again on the host, which has f64.
fn transport(
    [means, log_weights, log_std]: [CubeTensor; 3],
    values: CubeTensor,
    bases: CubeTensor,
    way: Way,
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
            mixtures([&means, &log_weights, &log_std], b),
            WayLaunch::new(
                input(&values),
                input(&bases),
                way.direction == Direction::FromNormals,
                way.axes == Axes::Basis,
            ),
            output(&out),
            output(&far),
        );
    }
    if host(CubeBackend::float_sum(far)).iter().all(|&count| count == 0.0) {
        return out;
    }
    let device = values.device.clone();
    let [means, log_weights, log_std] = [means, log_weights, log_std].map(host);
    let mixture = Mixture { means: &means, log_weights: &log_weights, log_std: &log_std };
    let mapped = cpu::transport(mixture, &host(values), &host(bases), Sizes { k, c, n }, way);
    CubeBackend::float_from_data(TensorData::new(mapped, shape), &device)
}

impl TransportOps for CubeBackend {
    fn mixture_covariances(means: CubeTensor, log_weights: CubeTensor, log_std: CubeTensor) -> CubeTensor {
        let (Sizes { c, n, .. }, [b, ..]) = (mixture_sizes(&means), sizes::<5>(&means));
        let out = empty(&means, [b, c * c, n]);
        let (count, dim) = grid(&means, b * n);
        // SAFETY: threads beyond the pixels end, and all indices are within the shapes of the mixture.
        unsafe {
            covariance_kernel::launch_unchecked(
                &means.client,
                count,
                dim,
                mixtures([&means, &log_weights, &log_std], b),
                output(&out),
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
        way: Way,
    ) -> CubeTensor {
        transport([means, log_weights, log_std], values, bases, way)
    }
}
