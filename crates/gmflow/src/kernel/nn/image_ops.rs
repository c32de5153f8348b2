//! The kernels on images as operations of a backend: the CPU backend's implementation and the backward passes.

use crate::kernel::matmul::precision::MatmulPrecision;
use crate::kernel::nn::conv::sizes::Window;
use crate::kernel::nn::conv::{self};
use crate::kernel::nn::group_norm;
use crate::kernel::nn::ops::{tensor, values};
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{
    base::Checkpointer, retro_forward::RetroForward, state::BackwardStates, strategy::CheckpointStrategy,
};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use std::marker::PhantomData;

/// What a group norm does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GroupNormKind {
    /// Groups of channels.
    pub groups: usize,
    /// Added to the variance.
    pub eps: f64,
    /// Whether SiLU follows.
    pub silu: bool,
}

/// Operations on images; shapes are those of the functions in [`crate::kernel`].
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait ImageOps: Backend {
    /// Convolution.
    fn image_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        window: Window,
        arithmetic: MatmulPrecision,
    ) -> FloatTensor<Self>;
    /// Group norm.
    fn image_group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        kind: GroupNormKind,
    ) -> FloatTensor<Self>;
    /// x plus a value for every channel of every sample.
    fn image_add_channels(x: FloatTensor<Self>, shift: FloatTensor<Self>) -> FloatTensor<Self>;
    /// Every pixel four times.
    fn image_upsample2(x: FloatTensor<Self>) -> FloatTensor<Self>;
}

/// Gradients of [`ImageOps`], on a backend without autodiff.
pub trait ImageGrads: Backend {
    /// Of the convolution of an input of shape `x`, with respect to it.
    fn image_conv_grad_input(
        grad: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        x: [usize; 4],
        window: Window,
        arithmetic: MatmulPrecision,
    ) -> FloatTensor<Self>;
    /// Of the convolution, with respect to a weight of shape `weight`.
    fn image_conv_grad_weight(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        weight: [usize; 4],
        window: Window,
        arithmetic: MatmulPrecision,
    ) -> FloatTensor<Self>;
    /// Of the convolution, with respect to the bias.
    fn image_conv_grad_bias(grad: FloatTensor<Self>) -> FloatTensor<Self>;
    /// Of group norm, with respect to x, weight and bias.
    fn image_group_norm_grad(
        inputs: [FloatTensor<Self>; 3],
        grad: FloatTensor<Self>,
        kind: GroupNormKind,
    ) -> [FloatTensor<Self>; 3];
    /// Of add_channels, with respect to the values.
    fn image_add_channels_grad(grad: FloatTensor<Self>) -> FloatTensor<Self>;
    /// Of the doubled size.
    fn image_upsample2_grad(grad: FloatTensor<Self>) -> FloatTensor<Self>;
}

type Tensor = FloatTensor<Flex>;

/// The sizes of an image batch or a weight.
pub(crate) fn sizes4(x: &impl TensorMetadata) -> [usize; 4] {
    let shape = x.shape();
    [shape[0], shape[1], shape[2], shape[3]]
}

fn norm_sizes(x: &Tensor, groups: usize) -> group_norm::Sizes {
    let [b, c, h, w] = sizes4(x);
    group_norm::Sizes { b, c, pixels: h * w, groups }
}

impl ImageOps for Flex {
    fn image_conv(x: Tensor, weight: Tensor, bias: Tensor, window: Window, arithmetic: MatmulPrecision) -> Tensor {
        let (x, weight, bias) = (x.to_contiguous(), weight.to_contiguous(), bias.to_contiguous());
        let sizes = conv::sizes::Sizes::new(sizes4(&x), sizes4(&weight), window);
        let y = conv::conv(values(&x), values(&weight), values(&bias), &sizes, arithmetic);
        tensor(y, [sizes.b, sizes.o, sizes.out[0], sizes.out[1]])
    }

    fn image_group_norm(x: Tensor, weight: Tensor, bias: Tensor, kind: GroupNormKind) -> Tensor {
        let (x, weight, bias) = (x.to_contiguous(), weight.to_contiguous(), bias.to_contiguous());
        let (sizes, GroupNormKind { eps, silu, .. }) = (norm_sizes(&x, kind.groups), kind);
        tensor(group_norm::group_norm(values(&x), values(&weight), values(&bias), sizes, eps, silu), sizes4(&x))
    }

    fn image_add_channels(x: Tensor, shift: Tensor) -> Tensor {
        let (x, shift) = (x.to_contiguous(), shift.to_contiguous());
        let [_, _, h, w] = sizes4(&x);
        tensor(group_norm::add_channels(values(&x), values(&shift), h * w), sizes4(&x))
    }

    fn image_upsample2(x: Tensor) -> Tensor {
        let x = x.to_contiguous();
        let [b, c, h, w] = sizes4(&x);
        tensor(group_norm::upsample2(values(&x), w), [b, c, 2 * h, 2 * w])
    }
}

impl ImageGrads for Flex {
    fn image_conv_grad_input(
        grad: Tensor,
        weight: Tensor,
        x: [usize; 4],
        window: Window,
        arithmetic: MatmulPrecision,
    ) -> Tensor {
        let (grad, weight) = (grad.to_contiguous(), weight.to_contiguous());
        let sizes = conv::sizes::Sizes::new(x, sizes4(&weight), window);
        tensor(conv::conv_grad_input(values(&grad), values(&weight), &sizes, arithmetic), x)
    }

    fn image_conv_grad_weight(
        grad: Tensor,
        x: Tensor,
        weight: [usize; 4],
        window: Window,
        arithmetic: MatmulPrecision,
    ) -> Tensor {
        let (grad, x) = (grad.to_contiguous(), x.to_contiguous());
        let sizes = conv::sizes::Sizes::new(sizes4(&x), weight, window);
        tensor(conv::conv_grad_weight(values(&grad), values(&x), &sizes, arithmetic), weight)
    }

    fn image_conv_grad_bias(grad: Tensor) -> Tensor {
        let grad = grad.to_contiguous();
        let [_, o, h, w] = sizes4(&grad);
        tensor(conv::conv_grad_bias(values(&grad), o, h * w), [o])
    }

    fn image_group_norm_grad(inputs: [Tensor; 3], grad: Tensor, kind: GroupNormKind) -> [Tensor; 3] {
        let ([x, weight, bias], grad) = (inputs.map(|x| x.to_contiguous()), grad.to_contiguous());
        let (sizes, GroupNormKind { eps, silu, .. }) = (norm_sizes(&x, kind.groups), kind);
        let inputs = [values(&x), values(&weight), values(&bias), values(&grad)];
        let [dx, dweight, dbias] = group_norm::group_norm_grad(inputs, sizes, eps, silu);
        [tensor(dx, sizes4(&x)), tensor(dweight, [sizes.c]), tensor(dbias, [sizes.c])]
    }

    fn image_add_channels_grad(grad: Tensor) -> Tensor {
        let grad = grad.to_contiguous();
        let [b, c, h, w] = sizes4(&grad);
        tensor(group_norm::plane_sums(values(&grad), b * c, h * w), [b, c])
    }

    fn image_upsample2_grad(grad: Tensor) -> Tensor {
        let grad = grad.to_contiguous();
        let [b, c, h, w] = sizes4(&grad);
        tensor(group_norm::upsample2_grad(values(&grad), w / 2), [b, c, h / 2, w / 2])
    }
}

#[derive(Debug)]
struct ConvBackward;

impl<B: ImageOps + ImageGrads> Backward<B, 3> for ConvBackward {
    type State = ([NodeId; 2], Window, MatmulPrecision);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (inputs, window, arithmetic) = ops.state;
        let [x, weight] = inputs.map(|id| checkpointer.retrieve_node_output::<FloatTensor<B>>(id));
        let (x_shape, weight_shape) = (sizes4(&x), sizes4(&weight));
        let [x_node, weight_node, bias_node] = ops.parents;
        if let Some(node) = x_node {
            let dx = B::image_conv_grad_input(grad.clone(), weight, x_shape, window, arithmetic);
            grads.register::<B>(node.id, dx);
        }
        if let Some(node) = weight_node {
            let dw = B::image_conv_grad_weight(grad.clone(), x, weight_shape, window, arithmetic);
            grads.register::<B>(node.id, dw);
        }
        if let Some(node) = bias_node {
            grads.register::<B>(node.id, B::image_conv_grad_bias(grad));
        }
    }
}

#[derive(Debug)]
struct GroupNormBackward;

impl<B: ImageOps + ImageGrads> Backward<B, 3> for GroupNormBackward {
    type State = ([NodeId; 3], GroupNormKind);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (inputs, kind) = ops.state;
        let inputs = inputs.map(|id| checkpointer.retrieve_node_output::<FloatTensor<B>>(id));
        for (node, grad) in ops.parents.into_iter().zip(B::image_group_norm_grad(inputs, grad, kind)) {
            if let Some(node) = node {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

#[derive(Debug)]
struct GroupNormForward<B> {
    inputs: [NodeId; 3],
    kind: GroupNormKind,
    backend: PhantomData<B>,
}

impl<B: ImageOps> RetroForward for GroupNormForward<B> {
    fn forward(&self, states: &mut BackwardStates, out: NodeId) {
        let [x, weight, bias] = self.inputs.map(|id| states.get_state::<FloatTensor<B>>(&id));
        states.save(out, B::image_group_norm(x, weight, bias, self.kind));
    }
}

#[derive(Debug)]
struct AddChannelsBackward;

impl<B: ImageOps + ImageGrads> Backward<B, 2> for AddChannelsBackward {
    type State = ();

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let [x, shift] = ops.parents;
        if let Some(node) = shift {
            grads.register::<B>(node.id, B::image_add_channels_grad(grad.clone()));
        }
        if let Some(node) = x {
            grads.register::<B>(node.id, grad);
        }
    }
}

#[derive(Debug)]
struct AddChannelsForward<B> {
    inputs: [NodeId; 2],
    backend: PhantomData<B>,
}

impl<B: ImageOps> RetroForward for AddChannelsForward<B> {
    fn forward(&self, states: &mut BackwardStates, out: NodeId) {
        let [x, shift] = self.inputs.map(|id| states.get_state::<FloatTensor<B>>(&id));
        states.save(out, B::image_add_channels(x, shift));
    }
}

#[derive(Debug)]
struct UpsampleBackward;

impl<B: ImageOps + ImageGrads> Backward<B, 1> for UpsampleBackward {
    type State = ();

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::image_upsample2_grad(grad));
        }
    }
}

#[derive(Debug)]
struct UpsampleForward<B> {
    x: NodeId,
    backend: PhantomData<B>,
}

impl<B: ImageOps> RetroForward for UpsampleForward<B> {
    fn forward(&self, states: &mut BackwardStates, out: NodeId) {
        let x = states.get_state::<FloatTensor<B>>(&self.x);
        states.save(out, B::image_upsample2(x));
    }
}

impl<B: ImageOps + ImageGrads, C: CheckpointStrategy> ImageOps for Autodiff<B, C> {
    fn image_conv(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        window: Window,
        arithmetic: MatmulPrecision,
    ) -> FloatTensor<Self> {
        let inputs = || (x.primitive().clone(), weight.primitive().clone(), bias.primitive().clone());
        let run = || {
            let (x, weight, bias) = inputs();
            B::image_conv(x, weight, bias, window, arithmetic)
        };
        match ConvBackward.prepare::<C>([x.node(), weight.node(), bias.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = ([prep.checkpoint(&x), prep.checkpoint(&weight)], window, arithmetic);
                prep.finish(state, run())
            }
            OpsKind::UnTracked(prep) => prep.finish(run()),
        }
    }

    fn image_group_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        kind: GroupNormKind,
    ) -> FloatTensor<Self> {
        let again = GroupNormForward::<B> { inputs: [x.id(), weight.id(), bias.id()], kind, backend: PhantomData };
        let run =
            || B::image_group_norm(x.primitive().clone(), weight.primitive().clone(), bias.primitive().clone(), kind);
        let prep = GroupNormBackward.prepare::<C>([x.node(), weight.node(), bias.node()]);
        match prep.memory_bound().retro_forward(again).parents([&x, &weight, &bias]).stateful() {
            OpsKind::Tracked(mut prep) => {
                let inputs = [prep.checkpoint(&x), prep.checkpoint(&weight), prep.checkpoint(&bias)];
                prep.finish((inputs, kind), run())
            }
            OpsKind::UnTracked(prep) => prep.finish(run()),
        }
    }

    fn image_add_channels(x: FloatTensor<Self>, shift: FloatTensor<Self>) -> FloatTensor<Self> {
        let again = AddChannelsForward::<B> { inputs: [x.id(), shift.id()], backend: PhantomData };
        let run = || B::image_add_channels(x.primitive().clone(), shift.primitive().clone());
        let prep = AddChannelsBackward.prepare::<C>([x.node(), shift.node()]);
        match prep.memory_bound().retro_forward(again).parents([&x, &shift]).stateful() {
            OpsKind::Tracked(prep) => prep.finish((), run()),
            OpsKind::UnTracked(prep) => prep.finish(run()),
        }
    }

    fn image_upsample2(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let again = UpsampleForward::<B> { x: x.id(), backend: PhantomData };
        let prep = UpsampleBackward.prepare::<C>([x.node()]).memory_bound().retro_forward(again).parents([&x]);
        match prep.stateful() {
            OpsKind::Tracked(prep) => prep.finish((), B::image_upsample2(x.into_primitive())),
            OpsKind::UnTracked(prep) => prep.finish(B::image_upsample2(x.into_primitive())),
        }
    }
}
