//! What several tests need.
#![allow(dead_code)] // Every test file is its own crate and uses a part.

use std::path::Path;

use burn::tensor::Device;
use gmflow_train::Config;

/// Where to compute: `GMFLOW_TEST_DEVICE`, a name for `gmflow::device::open`, or the CPU.
pub fn device() -> Device {
    gmflow::device::from_env("GMFLOW_TEST_DEVICE").unwrap_or_else(|error| panic!("GMFLOW_TEST_DEVICE: {error}"))
}

/// A mixture of 4 on the checkerboard that trains in milliseconds.
pub const TINY: &str = r#"
[data.source]
kind = "density"
name = "checkerboard"

[network]
type = "mlp2d"
num_gaussians = 4
embed_dim = 16
hidden_dim = 24
num_layers = 3
pos_min_period = 0.5

[loss]
kind = "transition"
transition_ratio = 0.9

[train]
batch_size = 64
steps = 30
lr = 3e-3
clip_grad_norm = 1.0
seed = 3

[[ema]]
name = "ema"
decay = { kind = "constant", decay = 0.9 }

[checkpoint]
every = 5

[log]
every = 5
"#;

/// [`TINY`], read.
pub fn tiny_config() -> Config {
    Config::parse(TINY, Path::new("tiny.toml"), &[]).expect("the tiny configuration")
}

/// [`TINY`] with overrides.
pub fn tiny_with(overrides: &[&str]) -> Config {
    let overrides: Vec<String> = overrides.iter().map(|text| text.to_string()).collect();
    Config::parse(TINY, Path::new("tiny.toml"), &overrides).expect("the tiny configuration with overrides")
}
