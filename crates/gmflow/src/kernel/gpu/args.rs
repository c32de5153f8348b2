//! Arguments of kernels.

use crate::kernel::gpu::{input, mixture_sizes, sizes};
use crate::kernel::mixture::sizes::Sizes;
use burn_cubecl::cubecl;
use burn_cubecl::cubecl::prelude::*;
use burn_cubecl::tensor::CubeTensor;

/// The sizes of mixtures: samples and pixels of each, and what a kernel is compiled for.
#[derive(CubeType, CubeLaunch)]
pub(crate) struct Shape {
    pub b: usize,
    pub n: usize,
    /// Components.
    #[cube(comptime)]
    pub k: usize,
    /// Channels.
    #[cube(comptime)]
    pub c: usize,
}

/// Mixtures of images.
#[derive(CubeType, CubeLaunch)]
pub(crate) struct Mixtures {
    /// `[b k c n]`, or of more samples than count.
    pub means: Box<[f32]>,
    /// `[b k n]`.
    pub log_weights: Box<[f32]>,
    /// `[b]`, or `[b n]` where `std_per_pixel` says so.
    pub log_std: Box<[f32]>,
    pub shape: Shape,
    #[cube(comptime)]
    pub std_per_pixel: bool,
}

/// The first `b` of mixtures `[b k c h w]`, `[b k 1 h w]` and `[b 1 1 1 1]` or `[b 1 1 h w]`.
pub(crate) fn mixtures([means, log_weights, log_std]: [&CubeTensor; 3], b: usize) -> MixturesLaunch {
    let Sizes { k, c, n } = mixture_sizes(means);
    let [_, _, _, h, w] = sizes(log_std);
    let shape = ShapeLaunch::new(b, n, k, c);
    MixturesLaunch::new(input(means), input(log_weights), input(log_std), shape, h * w > 1)
}
