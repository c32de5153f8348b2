//! Row-wise and mixture kernels with their own backward pass.
