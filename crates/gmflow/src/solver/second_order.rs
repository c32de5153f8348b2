//! The settings of the second-order change of the prediction (A.2 of the paper).

use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// How the second-order change of the mean is carried out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SecondOrderMode {
    /// The mixture is reweighted by change and guidance together, as published. Its mean moves by its covariance times what the reweighting
    /// takes for the inverse: where the variance is not the same in all pixels and directions, not by the change.
    #[default]
    Reweight,
    /// The guided mixture is moved by the change: its mean by just that.
    Translate,
}

/// The second-order change and its damping.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SecondOrder {
    /// The share of the variance that counts as the prediction's error.
    pub ca: f64,
    /// How much guidance adds to it.
    pub cb: f64,
    /// Corrections of the reweighting, whose mean is near the wanted one and not on it. They need no network call; the first
    /// helps, more of them need not.
    pub corrections: usize,
    /// Whether the previous step's mixture is moved to the new point by (10) before the means are compared. Without it the change
    /// also holds what the mixture itself predicts, and overshoots: for comparisons only.
    pub convert: bool,
    /// How the change is carried out. Moved mixtures need no corrections.
    pub carry: SecondOrderMode,
}

impl Default for SecondOrder {
    fn default() -> Self {
        Self { ca: 0.005, cb: 1.0, corrections: 0, convert: true, carry: SecondOrderMode::default() }
    }
}

impl SecondOrder {
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Checks every field, naming the first that is out of range.
    pub fn validate(&self) -> Result<()> {
        for (field, value) in [("ca", self.ca), ("cb", self.cb)] {
            if !(value.is_finite() && value >= 0.0) {
                return Err(Error::config(field, "a number of at least 0", value));
            }
        }
        Ok(())
    }
}
