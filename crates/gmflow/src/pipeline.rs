//! Network, guidance and solver joined into one sampler.
