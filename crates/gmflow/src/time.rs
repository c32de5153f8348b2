//! Time t in [0, 1], grids and training-time distributions.
