//! Roll-outs as an operation of a backend: the CPU backend's implementation and the backward pass.

use super::RollOut;
use super::backward::{Grads, roll_out_grad};
use super::forward::{self, Inputs};
use crate::kernel::mixture::sizes::Sizes;
use crate::kernel::nn::ops::{in_order, tensor, values};
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};
use std::sync::Arc;

/// Roll-outs of policies.
#[backend_extension(Autodiff, Flex)]
pub trait PolicyOps: Backend {
    /// The ends `[b c n]` of roll-outs from `x` `[b c n]` by velocity mixtures `[b k*c n]`, `[b k n]`, `[b 1]` that were predicted at
    /// `source` `[b c n]`.
    fn policy_roll_out(
        means: FloatTensor<Self>,
        log_weights: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
        source: FloatTensor<Self>,
        x: FloatTensor<Self>,
        plan: Arc<RollOut>,
    ) -> FloatTensor<Self>;
}

/// Gradients of [`PolicyOps`], on a backend without autodiff.
pub trait PolicyGrads: Backend {
    /// With respect to means, log weights, log standard deviation and x, from the inputs (with the source behind these three) and the
    /// gradient of the result.
    fn policy_roll_out_grad(
        inputs: [FloatTensor<Self>; 5],
        grad: FloatTensor<Self>,
        plan: Arc<RollOut>,
    ) -> [FloatTensor<Self>; 4];
}

type Tensor = FloatTensor<Flex>;

/// Inputs in order, and their sizes.
fn prepare(inputs: [Tensor; 5]) -> ([Tensor; 5], Sizes) {
    let inputs = inputs.map(in_order);
    let (weights, x) = (inputs[1].shape(), inputs[4].shape());
    (inputs, Sizes { k: weights[1], c: x[1], n: x[2] })
}

fn borrow([means, log_weights, log_std, source, x]: &[Tensor; 5]) -> Inputs<'_> {
    Inputs {
        means: values(means),
        log_weights: values(log_weights),
        log_std: values(log_std),
        source: values(source),
        x: values(x),
    }
}

impl PolicyOps for Flex {
    fn policy_roll_out(
        means: Tensor,
        log_weights: Tensor,
        log_std: Tensor,
        source: Tensor,
        x: Tensor,
        plan: Arc<RollOut>,
    ) -> Tensor {
        let (inputs, sizes) = prepare([means, log_weights, log_std, source, x]);
        tensor(forward::roll_out(borrow(&inputs), &plan, sizes), inputs[4].shape().to_vec())
    }
}

impl PolicyGrads for Flex {
    fn policy_roll_out_grad(inputs: [Tensor; 5], grad: Tensor, plan: Arc<RollOut>) -> [Tensor; 4] {
        let ((inputs, sizes), grad) = (prepare(inputs), in_order(grad));
        let Grads { means, log_weights, log_std, x } = roll_out_grad(borrow(&inputs), values(&grad), &plan, sizes);
        let [a, b, c, _, e] = inputs.map(|x| x.shape().to_vec());
        [tensor(means, a), tensor(log_weights, b), tensor(log_std, c), tensor(x, e)]
    }
}

#[derive(Debug)]
struct RollOutBackward;

impl<B: PolicyOps + PolicyGrads> Backward<B, 4> for RollOutBackward {
    type State = ([NodeId; 4], FloatTensor<B>, Arc<RollOut>);

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (inputs, source, plan) = ops.state;
        let [means, log_weights, log_std, x] =
            inputs.map(|id| checkpointer.retrieve_node_output::<FloatTensor<B>>(id));
        let inputs = [means, log_weights, log_std, source, x];
        for (node, grad) in ops.parents.into_iter().zip(B::policy_roll_out_grad(inputs, grad, plan)) {
            if let Some(node) = node {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

impl<B: PolicyOps + PolicyGrads, C: CheckpointStrategy> PolicyOps for Autodiff<B, C> {
    fn policy_roll_out(
        means: FloatTensor<Self>,
        log_weights: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
        source: FloatTensor<Self>,
        x: FloatTensor<Self>,
        plan: Arc<RollOut>,
    ) -> FloatTensor<Self> {
        let source = source.into_primitive();
        let inputs = [&means, &log_weights, &log_std, &x];
        let run = || {
            let [means, log_weights, log_std, x] = inputs.map(|x| x.primitive().clone());
            B::policy_roll_out(means, log_weights, log_std, source.clone(), x, plan.clone())
        };
        match RollOutBackward.prepare::<C>(inputs.map(|x| x.node())).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = (inputs.map(|x| prep.checkpoint(x)), source.clone(), plan.clone());
                let result = run();
                prep.finish(state, result)
            }
            OpsKind::UnTracked(prep) => prep.finish(run()),
        }
    }
}
