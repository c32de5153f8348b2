//! Mixtures on GPUs.

mod nll_ops;
