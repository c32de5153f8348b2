//! What a transport is told, and the numbers that its searches share.

/// Where the normals of a transport are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Axes {
    /// Along the basis vectors, which several pixels share: the normals are used as they are.
    Basis,
    /// Along the channels: the normals are rotated too, so the result does not depend on the basis' signs.
    Channels,
}

/// Standard normals beyond this are left to f64: the probability is near the smallest that f32 holds.
pub(crate) const FARTHEST: f32 = 12.0;

/// Phi of minus that.
pub(crate) const FARTHEST_RANK: f32 = 1.776_482e-33;

/// A step of this many standard deviations is the last: its error is about the fourth power.
pub(crate) const LAST_STEP: f32 = 0.07;

/// A difference of logs that is rounding.
pub(crate) const EXACT: f32 = 2e-7;

/// 1/sqrt(2 pi).
pub(crate) const INVERSE_ROOT_TAU: f32 = 0.398_942_3;

/// What sums of probabilities start from: nothing beside those that are looked for, and nothing that is added becomes subnormal.
pub(crate) const TINY: f32 = 1e-37;

/// More than bisection needs to exhaust the bits of a bracket.
pub(crate) const MAX_ITERATIONS: usize = 64;

/// Beyond this f32 is about to underflow in tails.
pub(crate) const FARTHEST_TAIL: f32 = 12.8;

/// (a + 3.5) Phi(-a) exp(a^2/2) for a >= 0 as a polynomial of (a - 3.5)/(a + 3.5), the highest power first, fitted for the least relative
/// error: 3e-7.
pub(crate) const TAIL: [f32; 8] = [
    -8.105_203e-4,
    -2.954_526_7e-3,
    6.732_273e-3,
    1.737_140_6e-2,
    -1.161_014_6e-1,
    3.154_275_4e-1,
    -5.655_593e-1,
    7.444_16e-1,
];

/// Which way a transport goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Standard normals to draws.
    FromNormals,
    /// Points to the normals they come from.
    ToNormals,
}

/// What is mapped to what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// Where normals are measured.
    pub axes: Axes,
    /// From where to where.
    pub direction: Direction,
}
