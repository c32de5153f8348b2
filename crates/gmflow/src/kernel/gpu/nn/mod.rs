//! Layers of networks on GPUs.

mod image_ops;
mod ops;
mod optim_ops;
mod rows;
