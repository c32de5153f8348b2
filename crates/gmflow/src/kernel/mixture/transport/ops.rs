//! The transport as an operation of a backend, and the CPU backend's implementation. No gradients are recorded.

use crate::kernel::mixture::sizes::{Mixture, Sizes};
use crate::kernel::mixture::transport::cpu;
use crate::kernel::mixture::transport::types::{Axes, Direction, Way};
use crate::kernel::nn::ops::{in_order, tensor, values};
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend, Backend, Dispatch, Flex, TensorMetadata, backend_extension};
use burn::tensor::Tensor;

/// The transport between standard normals and mixtures.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait TransportOps: Backend {
    /// The covariances `[b c c]` of mixtures, averaged over pixels.
    fn mixture_covariances(
        means: FloatTensor<Self>,
        log_weights: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
    /// The transport of `values` `[b c h w]` along `bases` `[b c c]`.
    fn mixture_transport(
        means: FloatTensor<Self>,
        log_weights: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
        values: FloatTensor<Self>,
        bases: FloatTensor<Self>,
        way: Way,
    ) -> FloatTensor<Self>;
}

/// Components, channels and pixels of `[b k c h w]`.
fn sizes(means: &FloatTensor<Flex>) -> Sizes {
    let shape = means.shape();
    Sizes { k: shape[1], c: shape[2], n: shape[3] * shape[4] }
}

impl TransportOps for Flex {
    fn mixture_covariances(
        means: FloatTensor<Flex>,
        log_weights: FloatTensor<Flex>,
        log_std: FloatTensor<Flex>,
    ) -> FloatTensor<Flex> {
        let [means, log_weights, log_std] = [means, log_weights, log_std].map(in_order);
        let sizes = sizes(&means);
        let mixture = Mixture { means: values(&means), log_weights: values(&log_weights), log_std: values(&log_std) };
        tensor(cpu::covariances(mixture, sizes), [means.shape()[0], sizes.c, sizes.c])
    }

    fn mixture_transport(
        means: FloatTensor<Flex>,
        log_weights: FloatTensor<Flex>,
        log_std: FloatTensor<Flex>,
        from: FloatTensor<Flex>,
        bases: FloatTensor<Flex>,
        way: Way,
    ) -> FloatTensor<Flex> {
        let [means, log_weights, log_std] = [means, log_weights, log_std].map(in_order);
        let [from, bases] = [from, bases].map(in_order);
        let mixture = Mixture { means: values(&means), log_weights: values(&log_weights), log_std: values(&log_std) };
        let mapped = cpu::transport(mixture, values(&from), values(&bases), sizes(&means), way);
        tensor(mapped, from.shape().to_vec())
    }
}

impl<B: TransportOps, C: CheckpointStrategy> TransportOps for Autodiff<B, C> {
    fn mixture_covariances(
        means: FloatTensor<Self>,
        log_weights: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let [means, log_weights, log_std] = [means, log_weights, log_std].map(Self::inner);
        Self::from_inner(B::mixture_covariances(means, log_weights, log_std))
    }

    fn mixture_transport(
        means: FloatTensor<Self>,
        log_weights: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
        values: FloatTensor<Self>,
        bases: FloatTensor<Self>,
        way: Way,
    ) -> FloatTensor<Self> {
        let [means, log_weights, log_std] = [means, log_weights, log_std].map(Self::inner);
        let [values, bases] = [values, bases].map(Self::inner);
        Self::from_inner(B::mixture_transport(means, log_weights, log_std, values, bases, way))
    }
}

/// The covariances `[b c c]`, averaged over pixels, of mixtures `[b k c h w]`, `[b k 1 h w]`, `[b 1 1 1 1]` or `[b 1 1 h w]`. No gradients are
/// recorded.
pub(crate) fn covariances([means, log_weights, log_std]: [Tensor<5>; 3]) -> Tensor<3> {
    Tensor::from_dispatch(<Dispatch as TransportOps>::mixture_covariances(
        means.into_dispatch(),
        log_weights.into_dispatch(),
        log_std.into_dispatch(),
    ))
}

/// The transport of `values` `[b c h w]` between standard normals and such mixtures along `bases` `[b c c]`, one vector per column. No
/// gradients are recorded.
pub(crate) fn transport(
    [means, log_weights, log_std]: [Tensor<5>; 3],
    values: &Tensor<4>,
    bases: Tensor<3>,
    axes: Axes,
    direction: Direction,
) -> Tensor<4> {
    Tensor::from_dispatch(<Dispatch as TransportOps>::mixture_transport(
        means.into_dispatch(),
        log_weights.into_dispatch(),
        log_std.into_dispatch(),
        values.clone().into_dispatch(),
        bases.into_dispatch(),
        Way { axes, direction },
    ))
}
