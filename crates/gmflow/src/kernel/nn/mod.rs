//! Layers of networks, their gradients, and the optimiser.

pub(crate) mod adamw;
pub(crate) mod attention;
pub(crate) mod autodiff;
pub(crate) mod conv;
pub(crate) mod dropout;
pub(crate) mod group_norm;
pub(crate) mod image_ops;
pub(crate) mod norm_conv_ops;
pub(crate) mod ops;
pub(crate) mod optim;
pub(crate) mod optim_ops;
pub(crate) mod rows;
pub(crate) mod softmax;
