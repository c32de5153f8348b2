//! Matrix products in f32, bf16 and 8-bit integers.

pub(crate) mod dense;
pub(crate) mod int8;
pub(crate) mod layout;
pub(crate) mod matrix;
pub(crate) mod multiply;
pub(crate) mod pack;
pub(crate) mod packed;
pub(crate) mod panel_tiles;
pub(crate) mod panels;
pub(crate) mod precision;
pub(crate) mod rates;
