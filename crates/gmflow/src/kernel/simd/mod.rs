//! What loops over numbers are made of: vector instructions, lanes, elementary functions, buffers and threads.

pub(crate) mod arch;
pub(crate) mod channels;
pub(crate) mod finite;
pub(crate) mod gather;
pub(crate) mod lanes;
pub(crate) mod math;
pub(crate) mod memory;
pub(crate) mod pair;
pub(crate) mod row;
pub(crate) mod sync;
pub(crate) mod team;
pub(crate) mod threads;
pub(crate) mod vector;
