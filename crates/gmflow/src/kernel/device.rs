//! Where tensors lie.

use burn::tensor::Device;

/// Whether tensors of this device are in the CPU's memory, where the row kernels work on them.
pub(crate) fn on_cpu(device: &Device) -> bool {
    #[cfg(feature = "gpu")]
    {
        let device = if device.is_autodiff() { device.clone().inner() } else { device.clone() };
        device == Device::flex()
    }
    #[cfg(not(feature = "gpu"))]
    {
        let _ = device;
        true
    }
}
