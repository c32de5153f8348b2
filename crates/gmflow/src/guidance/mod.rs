//! Guidance: reweighting the mixture, or extrapolating the mean.
