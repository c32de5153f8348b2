//! Where to compute.

use crate::failure::usage;
use anyhow::Result;
use burn::tensor::Device;

/// The device with this name.
pub fn device(name: &str) -> Result<Device> {
    match name {
        "cpu" => Ok(Device::flex()),
        "cuda" | "gpu" => Err(usage("--device", "cpu, because this gmflow was built without GPU support", name)),
        _ => Err(usage("--device", "cpu", name)),
    }
}
