//! Devices by name.
//!
//! ```
//! let device = gmflow::device::open("cpu")?;
//! assert!(gmflow::device::KINDS.contains(&"cpu"));
//! assert!(gmflow::device::open("abacus").is_err());
//! # drop(device);
//! # Ok::<(), gmflow::Error>(())
//! ```

use crate::{Error, Result};
use burn::tensor::Device;
#[cfg(feature = "gpu")]
use burn::tensor::DeviceType;

/// The kinds of devices that this build knows, the CPU first.
pub const KINDS: &[&str] = &[
    "cpu",
    #[cfg(feature = "cuda")]
    "cuda",
    #[cfg(feature = "vulkan")]
    "vulkan",
    #[cfg(feature = "wgpu")]
    "wgpu",
];

/// The device with this name: `cpu`, or a kind of [`KINDS`] with or without an index, as in `cuda:1`; `gpu` is the first GPU of any kind.
///
/// # Errors
/// [`crate::FilesError::Config`] where this build does not know the kind, or the machine has no such device.
pub fn open(name: &str) -> Result<Device> {
    if name == "cpu" {
        return Ok(Device::flex());
    }
    let (kind, index) = name.split_once(':').map_or((name, "0"), |(kind, index)| (kind, index));
    let Ok(index) = index.parse::<usize>() else {
        return Err(Error::config("device", "a kind and an index, as in cuda:1", name));
    };
    let known = kind == "gpu" && KINDS.len() > 1 || KINDS.contains(&kind);
    if !known && ["cuda", "gpu", "vulkan", "wgpu"].contains(&kind) {
        let without = if KINDS.len() == 1 { "GPU" } else { kind };
        let expected = format!("{}, because this gmflow was built without {without} support", KINDS.join(" or "));
        return Err(Error::config("device", expected, name));
    }
    if !known || kind == "cpu" {
        return Err(Error::config("device", KINDS.join(" or "), name));
    }
    let found = enumerate(kind);
    let count = found.len();
    found.into_iter().nth(index).ok_or_else(|| {
        let expected = match count {
            0 => "cpu, because this machine has no device of that kind".to_owned(),
            1 => "index 0, the only one".to_owned(),
            n => format!("an index below {n}"),
        };
        Error::config("device", expected, name)
    })
}

/// The device that an environment variable names, as for [`open`]; the CPU where it is not set.
///
/// # Errors
/// As [`open`].
pub fn from_env(variable: &str) -> Result<Device> {
    std::env::var(variable).map_or_else(|_| Ok(Device::flex()), |name| open(&name))
}

/// The devices of a kind on this machine.
#[cfg(feature = "gpu")]
fn enumerate(kind: &str) -> Vec<Device> {
    let of_type =
        |device_type: DeviceType| -> Vec<Device> { Device::enumerate(device_type).iter().cloned().collect() };
    let of_kind = |kind: &str| match kind {
        #[cfg(feature = "cuda")]
        "cuda" => of_type(DeviceType::Cuda),
        #[cfg(feature = "vulkan")]
        "vulkan" => of_type(DeviceType::Vulkan),
        #[cfg(feature = "wgpu")]
        "wgpu" => of_type(DeviceType::Wgpu),
        _ => Vec::new(),
    };
    match kind {
        "gpu" => KINDS[1..].iter().flat_map(|kind| of_kind(kind)).collect(),
        kind => of_kind(kind),
    }
}

#[cfg(not(feature = "gpu"))]
fn enumerate(_: &str) -> Vec<Device> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(name: &str) -> String {
        open(name).err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn names_are_explained() {
        assert_eq!(open("cpu").unwrap(), Device::flex());
        assert!(message("tpu").starts_with("device: expected cpu"));
        assert!(message("cuda:x").contains("cuda:1"));
        if KINDS.len() == 1 {
            assert_eq!(
                message("cuda"),
                "device: expected cpu, because this gmflow was built without GPU support, got cuda"
            );
            assert!(message("gpu").contains("without GPU support"));
        } else {
            assert!(message("gpu:99").contains("device: expected"));
        }
    }
}
