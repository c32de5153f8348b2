//! Model folders: what is needed to sample from a trained network.
