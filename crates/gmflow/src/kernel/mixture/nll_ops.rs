//! The mixture kernels as operations of a backend: the CPU backend's implementation and the backward pass.

use crate::kernel::mixture::nll::{Grads, Inputs, nll, nll_grad};
use crate::kernel::mixture::sizes::Sizes;
use crate::kernel::nn::ops::{tensor, values};
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::{base::Checkpointer, strategy::CheckpointStrategy};
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend, Flex, TensorMetadata, backend_extension};

/// Operations on mixtures; shapes are those of the functions in [`crate::kernel`].
#[backend_extension(Autodiff, Flex, Cube: cfg(feature = "gpu"))]
pub trait MixtureOps: Backend {
    /// The negative log-likelihood of `target` at every pixel.
    fn mixture_nll(
        means: FloatTensor<Self>,
        log_weights: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
        target: FloatTensor<Self>,
    ) -> FloatTensor<Self>;
}

/// Gradients of [`MixtureOps`], on a backend without autodiff.
pub trait MixtureGrads: Backend {
    /// With respect to `inputs` (means, log_weights, log_std, target), from the result and its gradient.
    fn mixture_nll_grad(
        inputs: [FloatTensor<Self>; 4],
        result: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> [FloatTensor<Self>; 4];
}

type Tensor = FloatTensor<Flex>;

/// Contiguous inputs and their sizes.
fn prepare(inputs: [Tensor; 4]) -> ([Tensor; 4], Sizes) {
    let inputs = inputs.map(|x| x.to_contiguous());
    let ([means, weights, log_std, target], b) = (inputs.each_ref().map(|x| x.shape()), inputs[2].shape()[0]);
    let sizes = Sizes { k: weights[1], c: target[1], n: target[2] };
    let fits = means.to_vec() == [b, sizes.k * sizes.c, sizes.n]
        && weights.to_vec() == [b, sizes.k, sizes.n]
        && log_std.to_vec() == [b, 1]
        && target[0] == b;
    assert!(fits, "means {means:?}, log weights {weights:?} and log std {log_std:?} for a target {target:?}");
    (inputs, sizes)
}

fn borrow([means, log_weights, log_std, target]: &[Tensor; 4]) -> Inputs<'_> {
    Inputs {
        means: values(means),
        log_weights: values(log_weights),
        log_std: values(log_std),
        target: values(target),
    }
}

impl MixtureOps for Flex {
    fn mixture_nll(means: Tensor, log_weights: Tensor, log_std: Tensor, target: Tensor) -> Tensor {
        let (inputs, sizes) = prepare([means, log_weights, log_std, target]);
        tensor(nll(borrow(&inputs), sizes), [inputs[2].shape()[0], sizes.n])
    }
}

impl MixtureGrads for Flex {
    fn mixture_nll_grad(inputs: [Tensor; 4], result: Tensor, grad: Tensor) -> [Tensor; 4] {
        let (inputs, sizes) = prepare(inputs);
        let (result, grad) = (result.to_contiguous(), grad.to_contiguous());
        let grads = nll_grad(borrow(&inputs), values(&result), values(&grad), sizes);
        let Grads { means, log_weights, log_std, target } = grads;
        let [a, b, c, d] = inputs.map(|x| x.shape().to_vec());
        [tensor(means, a), tensor(log_weights, b), tensor(log_std, c), tensor(target, d)]
    }
}

#[derive(Debug)]
struct MixtureNllBackward;

impl<B: MixtureOps + MixtureGrads> Backward<B, 4> for MixtureNllBackward {
    type State = ([NodeId; 4], FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 4>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let grad = grads.consume::<B>(&ops.node);
        let (inputs, result) = ops.state;
        let inputs = inputs.map(|id| checkpointer.retrieve_node_output::<FloatTensor<B>>(id));
        for (node, grad) in ops.parents.into_iter().zip(B::mixture_nll_grad(inputs, result, grad)) {
            if let Some(node) = node {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

impl<B: MixtureOps + MixtureGrads, C: CheckpointStrategy> MixtureOps for Autodiff<B, C> {
    fn mixture_nll(
        means: FloatTensor<Self>,
        log_weights: FloatTensor<Self>,
        log_std: FloatTensor<Self>,
        target: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        let inputs = [&means, &log_weights, &log_std, &target];
        let run = || {
            let [a, b, c, d] = inputs.map(|x| x.primitive().clone());
            B::mixture_nll(a, b, c, d)
        };
        let nodes = inputs.map(|x| x.node());
        match MixtureNllBackward.prepare::<C>(nodes).compute_bound().stateful() {
            OpsKind::Tracked(mut prep) => {
                let state = inputs.map(|x| prep.checkpoint(x));
                let result = run();
                prep.finish((state, result.clone()), result)
            }
            OpsKind::UnTracked(prep) => prep.finish(run()),
        }
    }
}
