//! Dropout: values that are set to 0 by a draw for each sample and layer, and the others scaled so that the mean stays.
//!
//! The draw is a hash of a key and the position in the sample, worked out again wherever it is needed: nothing is kept for the way
//! back, and a recomputed layer drops the same values.

#[cfg(target_arch = "x86_64")]
use crate::kernel::nn::conv::mixed;
use crate::kernel::nn::ops::{tensor, values};
use crate::kernel::simd::arch::{Loop, vectorised};
use crate::kernel::simd::memory::{UninitVec, par_rows};
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{
    base::Checkpointer, retro_forward::RetroForward, state::BackwardStates, strategy::CheckpointStrategy,
};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::Arc;

/// Which values of a layer are dropped.
#[derive(Clone, Debug)]
pub struct Mask {
    /// A key for each sample.
    pub keys: Arc<[u64]>,
    /// The layer's number: layers have masks of their own.
    pub layer: u64,
    /// The probability that a value is dropped.
    pub rate: f64,
}

impl Mask {
    /// The same for passes over the images of `b` samples.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn of_samples(&self, b: usize) -> mixed::Dropout {
        let keys = (0..b).map(|sample| self.keys(sample)).collect();
        mixed::Dropout { keys, threshold: self.threshold(), scale: self.scale() }
    }

    /// The two keys of a sample's hash; a sample without a key has that of 0.
    fn keys(&self, sample: usize) -> [u32; 2] {
        // SplitMix64, whose neighbouring inputs have independent outputs.
        let key = self.keys.get(sample).copied().unwrap_or_default();
        let z = key.wrapping_add((self.layer + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let z = z ^ (z >> 31);
        [z as u32, (z >> 32) as u32]
    }

    /// Values with a hash below this are dropped.
    fn threshold(&self) -> u32 {
        (self.rate * 2f64.powi(32)).round() as u32
    }

    /// What kept values are multiplied by.
    fn scale(&self) -> f32 {
        (1.0 / (1.0 - self.rate)) as f32
    }

    /// `x`, samples of `width` values, with the dropped values at 0 and the others scaled.
    pub(crate) fn apply(&self, x: &[f32], width: usize) -> Vec<f32> {
        let (threshold, scale) = (self.threshold(), self.scale());
        let mut out = UninitVec::new(x.len());
        par_rows(out.room(), width, |first, piece| {
            let samples = piece.chunks_mut(width.max(1)).zip(x[first * width..].chunks(width.max(1)));
            for (index, (out, x)) in samples.enumerate() {
                vectorised(Drop { out, x, keys: self.keys(first + index), threshold, scale });
            }
        });
        // SAFETY: every sample was written, and they are all of x.
        unsafe { out.assume_init() }
    }
}

struct Drop<'a> {
    out: &'a mut [MaybeUninit<f32>],
    x: &'a [f32],
    keys: [u32; 2],
    threshold: u32,
    scale: f32,
}

impl Loop for Drop<'_> {
    #[inline(always)]
    fn run(self) {
        let [first, second] = self.keys;
        for (i, (out, &x)) in self.out.iter_mut().zip(self.x).enumerate() {
            // Two rounds of xor and odd multiplication; the second key keeps samples from being shifted copies of each other.
            let mut hash = (i as u32).wrapping_add(first);
            hash = (hash ^ (hash >> 16)).wrapping_mul(0x21f0_aaad);
            hash = (hash ^ (hash >> 15) ^ second).wrapping_mul(0x735a_2d97);
            hash ^= hash >> 15;
            out.write(if hash < self.threshold { 0.0 } else { x * self.scale });
        }
    }
}

/// Dropout as an operation of a backend. It is linear, so that its gradient is itself.
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait DropoutOps: Backend {
    /// Dropout of samples along the first axis.
    fn dropout(x: FloatTensor<Self>, mask: Mask) -> FloatTensor<Self>;
}

/// The number of values of a sample.
pub(crate) fn sample_width(x: &impl TensorMetadata) -> usize {
    x.shape().iter().skip(1).product()
}

impl DropoutOps for Flex {
    fn dropout(x: FloatTensor<Self>, mask: Mask) -> FloatTensor<Self> {
        let x = x.to_contiguous();
        let shape = x.shape();
        tensor(mask.apply(values(&x), sample_width(&x)), shape)
    }
}

#[derive(Debug)]
struct DropoutBackward;

impl<B: DropoutOps> Backward<B, 1> for DropoutBackward {
    type State = Mask;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::dropout(grad, ops.state));
        }
    }
}

#[derive(Debug)]
struct DropoutForward<B> {
    x: NodeId,
    mask: Mask,
    backend: PhantomData<B>,
}

impl<B: DropoutOps> RetroForward for DropoutForward<B> {
    fn forward(&self, states: &mut BackwardStates, out: NodeId) {
        let x = states.get_state::<FloatTensor<B>>(&self.x);
        states.save(out, B::dropout(x, self.mask.clone()));
    }
}

impl<B: DropoutOps, C: CheckpointStrategy> DropoutOps for Autodiff<B, C> {
    fn dropout(x: FloatTensor<Self>, mask: Mask) -> FloatTensor<Self> {
        let again = DropoutForward::<B> { x: x.id(), mask: mask.clone(), backend: PhantomData };
        let prep = DropoutBackward.prepare::<C>([x.node()]).memory_bound().retro_forward(again).parents([&x]);
        match prep.stateful() {
            OpsKind::Tracked(prep) => prep.finish(mask.clone(), B::dropout(x.into_primitive(), mask)),
            OpsKind::UnTracked(prep) => prep.finish(B::dropout(x.into_primitive(), mask)),
        }
    }
}
