//! A convolution behind group norm and SiLU as an operation of a backend, with its backward pass.
//!
//! On processors with AVX512-BF16 it is one pass in that arithmetic ([`super::conv::mixed`]); elsewhere, and for images that are too small, it is
//! made of the operations in f32.

use crate::kernel::matmul::precision::MatmulPrecision;
#[cfg(target_arch = "x86_64")]
use crate::kernel::nn::conv::mixed;
use crate::kernel::nn::conv::sizes::Window;
use crate::kernel::nn::conv::{self};
use crate::kernel::nn::dropout::{DropoutOps, Mask};
use crate::kernel::nn::image_ops::{GroupNormKind, ImageGrads, ImageOps, sizes4};
use crate::kernel::nn::ops::{in_order, tensor, values};
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, ExtensionType, Flex, TensorMetadata, backend_extension};
use burn::tensor::{DType, Slice};

/// A 3x3 convolution that keeps the size of the image.
const WINDOW: Window = Window { stride: 1, padding: [1; 4] };

/// The norm, what is dropped behind it, and which of the tensors are there.
#[derive(Clone, Debug)]
pub struct NormConvKind {
    /// Groups of channels.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
    /// What is dropped behind SiLU.
    pub dropout: Option<Mask>,
    /// Whether the channels of `skip` follow those of x.
    pub has_skip: bool,
    /// Whether `residual` is added to the result.
    pub has_residual: bool,
}

impl NormConvKind {
    fn norm(&self) -> GroupNormKind {
        GroupNormKind { groups: self.groups, eps: self.eps, silu: true }
    }
}

/// Group norm, SiLU, a 3x3 convolution and what is added to its result; shapes are those of [`crate::kernel::norm_conv`].
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait NormConvOps: Backend {
    /// The result.
    fn image_norm_conv(#[extension_type] tensors: NormConvTensors<Self>, kind: NormConvKind) -> FloatTensor<Self>;
}

/// What the operation reads; what the kind says is not there may be any tensor.
#[derive(Clone, ExtensionType)]
pub struct NormConvTensors<B: Backend> {
    /// `[b c h w]`.
    pub x: FloatTensor<B>,
    /// The channels behind those of x.
    pub skip: FloatTensor<B>,
    /// The norm's weight.
    pub norm_weight: FloatTensor<B>,
    /// The norm's bias.
    pub norm_bias: FloatTensor<B>,
    /// That of the convolution.
    pub weight: FloatTensor<B>,
    /// `[b o]`, added at every pixel.
    pub shift: FloatTensor<B>,
    /// `[b o h w]`, added to the result.
    pub residual: FloatTensor<B>,
}

/// What the way back needs.
#[derive(Debug)]
pub struct NormConvInputs<T> {
    /// x and what is joined to it.
    pub x: Vec<T>,
    /// Weight and bias of the norm.
    pub norm: [T; 2],
    /// Of the convolution.
    pub weight: T,
}

/// Gradients of [`NormConvOps::image_norm_conv`]; that of the residual is the result's.
#[derive(Debug)]
pub struct NormConvGradients<T> {
    /// Of x and what is joined to it.
    pub x: Vec<T>,
    /// Of weight and bias of the norm.
    pub norm: [T; 2],
    /// Of the weight of the convolution.
    pub weight: T,
    /// Of what is added to each channel of each sample.
    pub shift: T,
}

/// Gradients of [`NormConvOps`], on a backend without autodiff.
pub trait NormConvGrads: Backend {
    /// All of them.
    fn image_norm_conv_grad(
        inputs: NormConvInputs<FloatTensor<Self>>,
        grad: FloatTensor<Self>,
        kind: NormConvKind,
    ) -> NormConvGradients<FloatTensor<Self>>;
}

/// The parts of an operation in f32.
pub(crate) mod parts {
    use super::*;

    fn joined<B: Backend>(mut x: Vec<FloatTensor<B>>) -> FloatTensor<B> {
        if x.len() == 1 { x.remove(0) } else { B::float_cat(x, 1) }
    }

    fn dropped<B: DropoutOps>(x: FloatTensor<B>, kind: &NormConvKind) -> FloatTensor<B> {
        match &kind.dropout {
            Some(mask) => B::dropout(x, mask.clone()),
            None => x,
        }
    }

    /// The result.
    pub fn forward<B: ImageOps + DropoutOps>(
        inputs: NormConvInputs<FloatTensor<B>>,
        shift: FloatTensor<B>,
        residual: FloatTensor<B>,
        kind: NormConvKind,
    ) -> FloatTensor<B> {
        let NormConvInputs { x, norm: [norm_weight, norm_bias], weight } = inputs;
        let x = B::image_group_norm(joined::<B>(x), norm_weight, norm_bias, kind.norm());
        let x = dropped::<B>(x, &kind);
        let [o, ..] = sizes4(&weight);
        let none = B::float_zeros([o].into(), &x.device(), DType::F32.into());
        let y = B::image_add_channels(B::image_conv(x, weight, none, WINDOW, MatmulPrecision::F32), shift);
        if kind.has_residual { B::float_add(y, residual) } else { y }
    }

    /// Its gradients.
    pub fn backward<B: ImageOps + ImageGrads + DropoutOps>(
        inputs: NormConvInputs<FloatTensor<B>>,
        grad: FloatTensor<B>,
        kind: NormConvKind,
    ) -> NormConvGradients<FloatTensor<B>> {
        let NormConvInputs { x, norm: [norm_weight, norm_bias], weight } = inputs;
        let channels: Vec<usize> = x.iter().map(|x| sizes4(x)[1]).collect();
        let x = joined::<B>(x);
        let (shape, of_weight) = (sizes4(&x), sizes4(&weight));
        let [b, _, h, w] = shape;
        let activated = B::image_group_norm(x.clone(), norm_weight.clone(), norm_bias.clone(), kind.norm());
        let activated = dropped::<B>(activated, &kind);
        let of_activated = B::image_conv_grad_input(grad.clone(), weight, shape, WINDOW, MatmulPrecision::F32);
        let weight = B::image_conv_grad_weight(grad.clone(), activated, of_weight, WINDOW, MatmulPrecision::F32);
        let of_activated = dropped::<B>(of_activated, &kind);
        let [dx, of_norm, of_bias] = B::image_group_norm_grad([x, norm_weight, norm_bias], of_activated, kind.norm());
        let mut first = 0;
        let mut part = |channels: usize| {
            let slices: [Slice; 4] = [(0..b).into(), (first..first + channels).into(), (0..h).into(), (0..w).into()];
            first += channels;
            B::float_slice(dx.clone(), &slices)
        };
        let x = channels.into_iter().map(&mut part).collect();
        NormConvGradients { x, norm: [of_norm, of_bias], weight, shift: B::image_add_channels_grad(grad) }
    }
}

type Tensor = FloatTensor<Flex>;

impl NormConvInputs<Tensor> {
    fn in_order(self) -> Self {
        Self {
            x: self.x.into_iter().map(in_order).collect(),
            norm: self.norm.map(in_order),
            weight: in_order(self.weight),
        }
    }

    /// Sizes of the convolution.
    fn sizes(&self) -> conv::sizes::Sizes {
        let channels = self.x.iter().map(|x| sizes4(x)[1]).sum();
        let [b, _, h, w] = self.x.first().map_or([0; 4], sizes4);
        assert!(self.x.iter().all(|x| sizes4(x) == [b, sizes4(x)[1], h, w]), "norm conv: sizes of what is joined");
        conv::sizes::Sizes::new([b, channels, h, w], sizes4(&self.weight), WINDOW)
    }

    /// Calls `f` with the same as numbers.
    #[cfg(target_arch = "x86_64")]
    fn with<R>(&self, sizes: conv::sizes::Sizes, kind: &NormConvKind, f: impl FnOnce(mixed::NormConv) -> R) -> R {
        let [norm_weight, norm_bias] = [values(&self.norm[0]), values(&self.norm[1])];
        assert!(
            kind.groups > 0 && sizes.c.is_multiple_of(kind.groups),
            "group norm: {} channels in {}",
            sizes.c,
            kind.groups
        );
        assert_eq!([norm_weight.len(), norm_bias.len()], [sizes.c; 2], "group norm: sizes of weight and bias");
        let parts: Vec<(&[f32], usize)> = self.x.iter().map(|x| (values(x), sizes4(x)[1])).collect();
        let x = mixed::Images { parts: &parts, size: [sizes.h, sizes.w] };
        let norm = [norm_weight, norm_bias];
        let (groups, eps) = (kind.groups, kind.eps);
        let dropout = kind.dropout.as_ref().map(|mask| mask.of_samples(sizes.b));
        let (weight, dropout) = (values(&self.weight), dropout.as_ref());
        f(mixed::NormConv { x, norm, groups, eps, dropout, weight, sizes })
    }
}

impl NormConvOps for Flex {
    fn image_norm_conv(tensors: NormConvTensors<Self>, kind: NormConvKind) -> Tensor {
        let NormConvTensors { x, skip, norm_weight, norm_bias, weight, shift, residual } = tensors;
        let x = std::iter::once(x).chain(kind.has_skip.then_some(skip)).collect();
        let inputs = NormConvInputs { x, norm: [norm_weight, norm_bias], weight }.in_order();
        let (shift, residual) = (in_order(shift), in_order(residual));
        let sizes = inputs.sizes();
        let shape = [sizes.b, sizes.o, sizes.out[0], sizes.out[1]];
        assert_eq!(shift.shape().to_vec(), [sizes.b, sizes.o], "norm conv: size of the shift");
        assert!(!kind.has_residual || sizes4(&residual) == shape, "norm conv: size of the residual");
        #[cfg(target_arch = "x86_64")]
        if mixed::applies(&sizes) {
            let residual = kind.has_residual.then(|| values(&residual));
            let y = inputs.with(sizes, &kind, |conv| conv.forward(values(&shift), residual));
            return tensor(y, shape);
        }
        parts::forward::<Flex>(inputs, shift, residual, kind)
    }
}

impl NormConvGrads for Flex {
    fn image_norm_conv_grad(
        inputs: NormConvInputs<Tensor>,
        grad: Tensor,
        kind: NormConvKind,
    ) -> NormConvGradients<Tensor> {
        let (inputs, grad) = (inputs.in_order(), in_order(grad));
        #[cfg(target_arch = "x86_64")]
        {
            let sizes = inputs.sizes();
            if mixed::applies(&sizes) {
                let grads = inputs.with(sizes, &kind, |conv| conv.backward(values(&grad)));
                let x = grads.x.into_iter().zip(&inputs.x).map(|(dx, x)| tensor(dx, sizes4(x))).collect();
                let shift = tensor(grads.shift, [sizes.b, sizes.o]);
                let norm = grads.norm.map(|x| tensor(x, [sizes.c]));
                return NormConvGradients { x, norm, weight: tensor(grads.weight, sizes4(&inputs.weight)), shift };
            }
        }
        parts::backward::<Flex>(inputs, grad, kind)
    }
}

#[derive(Debug)]
struct NormConvBackward;

/// The inputs that the way back reads, by their nodes.
#[derive(Clone, Debug)]
struct State {
    x: Vec<NodeId>,
    norm: [NodeId; 2],
    weight: NodeId,
    kind: NormConvKind,
}

impl<B: NormConvOps + NormConvGrads> Backward<B, 7> for NormConvBackward {
    type State = State;

    fn backward(self, ops: Ops<Self::State, 7>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let State { x, norm, weight, kind } = ops.state;
        let inputs = NormConvInputs {
            x: x.into_iter().map(|id| checkpointer.retrieve_node_output(id)).collect(),
            norm: norm.map(|id| checkpointer.retrieve_node_output(id)),
            weight: checkpointer.retrieve_node_output(weight),
        };
        let NormConvGradients { x, norm, weight, shift } =
            B::image_norm_conv_grad(inputs, grad.clone(), kind.clone());
        let mut x = x.into_iter();
        let [norm_weight, norm_bias] = norm;
        let found = [
            x.next(),
            x.next(),
            Some(norm_weight),
            Some(norm_bias),
            Some(weight),
            Some(shift),
            kind.has_residual.then_some(grad),
        ];
        for (node, grad) in ops.parents.into_iter().zip(found) {
            if let (Some(node), Some(grad)) = (node, grad) {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

impl<B: NormConvOps + NormConvGrads, C: CheckpointStrategy> NormConvOps for Autodiff<B, C> {
    fn image_norm_conv(tensors: NormConvTensors<Self>, kind: NormConvKind) -> FloatTensor<Self> {
        let NormConvTensors { x, skip, norm_weight, norm_bias, weight, shift, residual } = tensors;
        let primitive = |x: &FloatTensor<Self>| x.primitive().clone();
        let run = || {
            let tensors = NormConvTensors {
                x: primitive(&x),
                skip: primitive(&skip),
                norm_weight: primitive(&norm_weight),
                norm_bias: primitive(&norm_bias),
                weight: primitive(&weight),
                shift: primitive(&shift),
                residual: primitive(&residual),
            };
            B::image_norm_conv(tensors, kind.clone())
        };
        // What is not there gets no gradient.
        let nodes = [
            x.node(),
            skip.node(),
            norm_weight.node(),
            norm_bias.node(),
            weight.node(),
            shift.node(),
            residual.node(),
        ];
        match NormConvBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let mut inputs = vec![prep.checkpoint(&x)];
                inputs.extend(kind.has_skip.then(|| prep.checkpoint(&skip)));
                let norm = [prep.checkpoint(&norm_weight), prep.checkpoint(&norm_bias)];
                let y = run();
                let state = State { x: inputs, norm, weight: prep.checkpoint(&weight), kind };
                prep.finish(state, y)
            }
            OpsKind::UnTracked(prep) => prep.finish(run()),
        }
    }
}
