//! Row-wise and mixture kernels with their own backward pass.
//!
//! Networks call the functions of this module on tensors that are flat (`[rows channels]`), which is the form in which
//! every backend multiplies fastest.

mod reference;

pub use reference::{attention, gated_add, gelu_tanh, linear, modulate, silu};
