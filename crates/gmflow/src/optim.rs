//! AdamW for training loops of one's own. The crate `gmflow-train` has a whole one, with averages, checkpoints and logs.
//!
//! ```
//! use burn::module::Module;
//! use burn::tensor::{Device, Tensor};
//! use gmflow::network::{Denoiser, Mlp2dConfig, NetworkConfig};
//! use gmflow::optim::{AdamW, Optimizer};
//!
//! let device = Device::flex().autodiff();
//! let config = Mlp2dConfig { hidden_dim: 8, embed_dim: 4, ..Mlp2dConfig::default() };
//! let mut network = NetworkConfig::Mlp2d(config).init(0, &device)?;
//! let mut optimizer = Optimizer::new(AdamW { lr: 1e-3, beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.0 });
//! for _ in 0..2 {
//!     let (x, t) = (Tensor::<4>::ones([4, 2, 1, 1], &device), Tensor::<1>::full([4], 0.5, &device));
//!     let loss = network.forward(x, t, None).0.mean().powi_scalar(2).mean();
//!     network = optimizer.step(network, loss.backward());
//! }
//! # Ok::<(), gmflow::Error>(())
//! ```

pub use crate::kernel::AdamW;

use burn::module::{Module, ModuleMapper, Param, ParamId};
use burn::tensor::{Gradients, Tensor};
use std::collections::HashMap;

/// The state of AdamW: both moments of every parameter, and the steps taken.
#[derive(Debug)]
pub struct Optimizer {
    /// The rule; its learning rate may be changed between steps.
    pub rule: AdamW,
    moments: HashMap<ParamId, [Tensor<1>; 2]>,
    steps: u64,
}

impl Optimizer {
    /// An optimiser that has taken no step.
    pub fn new(rule: AdamW) -> Self {
        Self { rule, moments: HashMap::new(), steps: 0 }
    }

    /// The module after one step along the gradients of a loss. A parameter without a gradient stays as it is.
    pub fn step<M: Module>(&mut self, module: M, mut gradients: Gradients) -> M {
        self.steps += 1;
        module.map(&mut Step { optimizer: self, gradients: &mut gradients })
    }
}

/// One step through a module.
struct Step<'a> {
    optimizer: &'a mut Optimizer,
    gradients: &'a mut Gradients,
}

impl ModuleMapper for Step<'_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = param.val().grad_remove(self.gradients) else { return param };
        let Optimizer { rule, moments, steps } = &mut *self.optimizer;
        let (id, count) = (param.id, gradient.shape().num_elements());
        let gradient = gradient.reshape([count]);
        let before = moments.remove(&id).unwrap_or_else(|| [gradient.zeros_like(), gradient.zeros_like()]);
        param.map(|weights| {
            let (shape, strategy) = (weights.dims(), weights.gradient_checkpointing_strategy());
            let flat = weights.inner().reshape([count]);
            let (values, after) = rule.update_tensors(*steps, 1.0, flat, gradient, before);
            moments.insert(id, after);
            let values = values.reshape(shape).autodiff();
            match strategy {
                Some(strategy) => values.with_gradient_checkpointing_strategy(strategy).require_grad(),
                None => values.require_grad(),
            }
        })
    }
}
