//! Backward passes of the kernels.
//!
//! Cheap operations are marked as such: with gradient checkpointing their outputs are computed again in the backward pass
//! instead of being kept.

use crate::kernel::matmul::dense::Rows;
use crate::kernel::matmul::panels::PackedWeight;
use crate::kernel::matmul::precision::MatmulPrecision;
use crate::kernel::nn::ops::{NetworkGrads, NetworkOps};
use crate::kernel::nn::rows::Unary;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{
    base::Checkpointer, retro_forward::RetroForward, state::BackwardStates, strategy::CheckpointStrategy,
};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, AutodiffBackend};
use std::marker::PhantomData;
use std::sync::Arc;

#[derive(Debug)]
struct LinearBackward;

impl<B: NetworkOps + NetworkGrads> Backward<B, 3> for LinearBackward {
    type State = ([NodeId; 2], MatmulPrecision);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (inputs, arithmetic) = ops.state;
        let [x, weight] = inputs.map(|id| checkpointer.retrieve_node_output::<FloatTensor<B>>(id));
        let [x_node, weight_node, bias_node] = ops.parents;
        if let Some(node) = x_node {
            grads.register::<B>(node.id, B::linear_grad_input(grad.clone(), weight, arithmetic));
        }
        if let Some(node) = weight_node {
            grads.register::<B>(node.id, B::linear_grad_weight(grad.clone(), x, arithmetic));
        }
        if let Some(node) = bias_node {
            grads.register::<B>(node.id, B::linear_grad_bias(grad));
        }
    }
}

#[derive(Debug)]
struct UnaryBackward;

impl<B: NetworkOps + NetworkGrads> Backward<B, 1> for UnaryBackward {
    type State = (NodeId, Unary);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (x, kind) = ops.state;
        let x = checkpointer.retrieve_node_output(x);
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::unary_grad(x, grad, kind));
        }
    }
}

#[derive(Debug)]
struct UnaryForward<B> {
    x: NodeId,
    kind: Unary,
    backend: PhantomData<B>,
}

impl<B: NetworkOps> RetroForward for UnaryForward<B> {
    fn forward(&self, states: &mut BackwardStates, out: NodeId) {
        let x = states.get_state::<FloatTensor<B>>(&self.x);
        states.save(out, B::unary(x, self.kind));
    }
}

#[derive(Debug)]
struct ModulateBackward;

impl<B: NetworkOps + NetworkGrads> Backward<B, 3> for ModulateBackward {
    type State = (NodeId, NodeId, f32);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (x, scale, eps) = ops.state;
        let (x, scale) = (checkpointer.retrieve_node_output(x), checkpointer.retrieve_node_output(scale));
        for (node, grad) in ops.parents.into_iter().zip(B::modulate_grad(x, scale, grad, eps)) {
            if let Some(node) = node {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

#[derive(Debug)]
struct ModulateForward<B> {
    inputs: [NodeId; 3],
    eps: f32,
    backend: PhantomData<B>,
}

impl<B: NetworkOps> RetroForward for ModulateForward<B> {
    fn forward(&self, states: &mut BackwardStates, out: NodeId) {
        let [x, shift, scale] = self.inputs.map(|id| states.get_state::<FloatTensor<B>>(&id));
        states.save(out, B::modulate(x, shift, scale, self.eps));
    }
}

#[derive(Debug)]
struct GatedAddBackward;

impl<B: NetworkOps + NetworkGrads> Backward<B, 3> for GatedAddBackward {
    type State = [NodeId; 2];

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let [y, gate] = ops.state.map(|id| checkpointer.retrieve_node_output(id));
        let [dy, dgate] = B::gated_add_grad(y, gate, grad.clone());
        for (node, grad) in ops.parents.into_iter().zip([grad, dy, dgate]) {
            if let Some(node) = node {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

#[derive(Debug)]
struct GatedAddForward<B> {
    inputs: [NodeId; 3],
    backend: PhantomData<B>,
}

impl<B: NetworkOps> RetroForward for GatedAddForward<B> {
    fn forward(&self, states: &mut BackwardStates, out: NodeId) {
        let [x, y, gate] = self.inputs.map(|id| states.get_state::<FloatTensor<B>>(&id));
        states.save(out, B::gated_add(x, y, gate));
    }
}

#[derive(Debug)]
struct AttentionBackward;

impl<B: NetworkOps + NetworkGrads> Backward<B, 3> for AttentionBackward {
    type State = ([NodeId; 3], usize, usize);

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (inputs, batch, heads) = ops.state;
        let [q, k, v] = inputs.map(|id| checkpointer.retrieve_node_output(id));
        for (node, grad) in ops.parents.into_iter().zip(B::attention_grad(q, k, v, grad, batch, heads)) {
            if let Some(node) = node {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

#[derive(Debug)]
struct LogSoftmaxBackward;

impl<B: NetworkOps + NetworkGrads> Backward<B, 1> for LogSoftmaxBackward {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        if let [Some(node)] = ops.parents {
            grads.register::<B>(node.id, B::log_softmax_grad(ops.state, grad));
        }
    }
}

impl<B: NetworkOps + NetworkGrads, C: CheckpointStrategy> NetworkOps for Autodiff<B, C> {
    fn affine(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        rows: Rows,
        arithmetic: MatmulPrecision,
    ) -> FloatTensor<Self> {
        let inputs = || (x.primitive().clone(), weight.primitive().clone(), bias.primitive().clone());
        let run = || {
            let (x, weight, bias) = inputs();
            B::affine(x, weight, bias, rows, arithmetic)
        };
        match LinearBackward.prepare::<C>([x.node(), weight.node(), bias.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let inputs = [prep.checkpoint(&x), prep.checkpoint(&weight)];
                prep.finish((inputs, arithmetic), run())
            }
            OpsKind::UnTracked(prep) => prep.finish(run()),
        }
    }

    fn affine_packed(x: FloatTensor<Self>, weight: Arc<PackedWeight>, bias: FloatTensor<Self>) -> FloatTensor<Self> {
        Self::from_inner(B::affine_packed(Self::inner(x), weight, Self::inner(bias)))
    }

    fn unary(x: FloatTensor<Self>, kind: Unary) -> FloatTensor<Self> {
        let again = UnaryForward::<B> { x: x.id(), kind, backend: PhantomData };
        let prep = UnaryBackward.prepare::<C>([x.node()]).memory_bound().retro_forward(again).parents([&x]);
        match prep.stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&x), kind);
                prep.finish(state, B::unary(x.into_primitive(), kind))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::unary(x.into_primitive(), kind)),
        }
    }

    fn modulate(
        x: FloatTensor<Self>,
        shift: FloatTensor<Self>,
        scale: FloatTensor<Self>,
        eps: f32,
    ) -> FloatTensor<Self> {
        let again = ModulateForward::<B> { inputs: [x.id(), shift.id(), scale.id()], eps, backend: PhantomData };
        let run = || B::modulate(x.primitive().clone(), shift.primitive().clone(), scale.primitive().clone(), eps);
        let prep = ModulateBackward.prepare::<C>([x.node(), shift.node(), scale.node()]);
        match prep.memory_bound().retro_forward(again).parents([&x, &shift, &scale]).stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (prep.checkpoint(&x), prep.checkpoint(&scale), eps);
                prep.finish(state, run())
            }
            OpsKind::UnTracked(prep) => prep.finish(run()),
        }
    }

    fn gated_add(x: FloatTensor<Self>, y: FloatTensor<Self>, gate: FloatTensor<Self>) -> FloatTensor<Self> {
        let again = GatedAddForward::<B> { inputs: [x.id(), y.id(), gate.id()], backend: PhantomData };
        let run = || B::gated_add(x.primitive().clone(), y.primitive().clone(), gate.primitive().clone());
        let prep = GatedAddBackward.prepare::<C>([x.node(), y.node(), gate.node()]);
        match prep.memory_bound().retro_forward(again).parents([&x, &y, &gate]).stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = [prep.checkpoint(&y), prep.checkpoint(&gate)];
                prep.finish(state, run())
            }
            OpsKind::UnTracked(prep) => prep.finish(run()),
        }
    }

    fn multi_head_attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        batch: usize,
        heads: usize,
    ) -> FloatTensor<Self> {
        let run = || {
            B::multi_head_attention(q.primitive().clone(), k.primitive().clone(), v.primitive().clone(), batch, heads)
        };
        match AttentionBackward.prepare::<C>([q.node(), k.node(), v.node()]).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let inputs = [prep.checkpoint(&q), prep.checkpoint(&k), prep.checkpoint(&v)];
                prep.finish((inputs, batch, heads), run())
            }
            OpsKind::UnTracked(prep) => prep.finish(run()),
        }
    }

    fn plane_log_softmax(x: FloatTensor<Self>) -> FloatTensor<Self> {
        match LogSoftmaxBackward.prepare::<C>([x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prep) => {
                let y = B::plane_log_softmax(x.into_primitive());
                prep.finish(y.clone(), y)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::plane_log_softmax(x.into_primitive())),
        }
    }
}
