//! The numbers that matrix products multiply.

use crate::kernel::device::on_cpu;
use crate::kernel::matmul::layout::STEP;
use burn::tensor::{DType, Device};
use serde::{Deserialize, Serialize};

/// The numbers that linear layers multiply; their products are summed in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MatmulPrecision {
    /// 32-bit floating point.
    #[default]
    F32,
    /// 16-bit brain floating point: 8 significant bits, the range of f32.
    Bf16,
    /// 8-bit integers with a scale for every 128 of them; for prediction only, there are no gradients.
    Int8,
}

/// What is asked of the layers: one of the numbers, or the fastest floats of this processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrecisionChoice {
    /// The faster of `f32` and `bf16` on this processor, which is measured in 20 ms; `f32` where the loss by `bf16` is not known to be small.
    Auto,
    /// 32-bit floating point.
    #[default]
    F32,
    /// 16-bit brain floating point: 8 significant bits, the range of f32.
    Bf16,
    /// 8-bit integers with a scale for every 128 of them; for prediction only, there are no gradients.
    Int8,
}

impl PrecisionChoice {
    /// The numbers that were asked for; `None` for [`PrecisionChoice::Auto`].
    pub fn asked(self) -> Option<MatmulPrecision> {
        match self {
            Self::Auto => None,
            Self::F32 => Some(MatmulPrecision::F32),
            Self::Bf16 => Some(MatmulPrecision::Bf16),
            Self::Int8 => Some(MatmulPrecision::Int8),
        }
    }
}

impl From<MatmulPrecision> for PrecisionChoice {
    fn from(precision: MatmulPrecision) -> Self {
        match precision {
            MatmulPrecision::F32 => Self::F32,
            MatmulPrecision::Bf16 => Self::Bf16,
            MatmulPrecision::Int8 => Self::Int8,
        }
    }
}

impl MatmulPrecision {
    /// Whether this processor multiplies panels of this kind.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn is_native(self) -> bool {
        match self {
            Self::F32 => is_x86_feature_detected!("avx512f"),
            Self::Bf16 => is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512bf16"),
            Self::Int8 => is_x86_feature_detected!("avx512bw") && is_x86_feature_detected!("avx512vnni"),
        }
    }

    /// Whether this processor multiplies panels of this kind.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn is_native(self) -> bool {
        false
    }

    /// Whether this processor computes in it: f32 always, the others where there are instructions for them.
    pub fn is_available(self) -> bool {
        self == Self::F32 || self.is_native()
    }

    /// The same of a device: a GPU computes in bf16 where it has tensors of it, and not in int8.
    pub fn is_available_on(self, device: &Device) -> bool {
        match self {
            _ if on_cpu(device) => self.is_available(),
            Self::F32 => true,
            Self::Bf16 => device.supports_dtype(DType::BF16),
            Self::Int8 => false,
        }
    }

    /// What layers with one row for a sample are computed in beside it: they cost little, and what they scale and shift is worth
    /// more than 8 bits.
    pub(crate) fn of_samples(self) -> Self {
        if self == Self::Int8 { Self::Bf16 } else { self }
    }

    /// What a layer is trained in where this is asked for.
    pub(crate) fn with_gradients(self) -> Self {
        if self == Self::Int8 { Self::F32 } else { self }
    }

    /// The floats that panels are packed in where this is asked for and there are gradients.
    pub(crate) fn floats(self) -> FloatKind {
        if self == Self::Bf16 { FloatKind::Bf16 } else { FloatKind::F32 }
    }

    /// Rows of the right operand in one step.
    pub(crate) fn rows(self) -> usize {
        match self {
            Self::F32 => 1,
            Self::Bf16 => 2,
            Self::Int8 => STEP,
        }
    }
}

/// Floats of panels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FloatKind {
    F32,
    Bf16,
}

impl FloatKind {
    /// The same among all kinds of numbers.
    pub(crate) fn precision(self) -> MatmulPrecision {
        match self {
            Self::F32 => MatmulPrecision::F32,
            Self::Bf16 => MatmulPrecision::Bf16,
        }
    }
}
