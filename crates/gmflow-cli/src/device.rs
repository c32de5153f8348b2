//! Where to compute.

use crate::failure::usage;
use anyhow::Result;
use burn::tensor::Device;
use gmflow::{Error, FilesError};

/// The device with this name.
pub fn device(name: &str) -> Result<Device> {
    gmflow::device::open(name).map_err(|error| match error {
        Error::Files(FilesError::Config { expected, got, .. }) => usage("--device", &expected, &got),
        error => error.into(),
    })
}
