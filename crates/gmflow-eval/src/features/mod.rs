//! Networks that turn images into vectors to be compared.

pub mod inception;
pub mod resize;
