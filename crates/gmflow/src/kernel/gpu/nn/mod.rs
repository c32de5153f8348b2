//! Layers of networks on GPUs.

mod group;
mod image_ops;
mod ops;
mod optim_ops;
mod rows;
mod softmax;
