//! Counter-based random numbers: a draw is a pure function of (seed, purpose, epoch or step, index).

use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// What a draw is for; draws for different purposes are independent. The numbers continue after those of the crate
/// `gmflow`, whose keys have the same form, so that one seed serves both without correlation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Purpose {
    /// The points of a 2-D density.
    Points = 101,
    /// The order of an epoch.
    Order = 102,
    /// The choice of an image in place of a corrupt one.
    Replacement = 103,
    /// Horizontal flips.
    Flip = 104,
    /// The draw of a latent around its mean.
    Latent = 105,
    /// A drawn shape: place, size, tilt and colours.
    Shape = 106,
    /// The order in which images are packed into shards.
    Pack = 107,
}

/// The generator for one (seed, purpose, counter, index).
pub(crate) fn stream(seed: u64, purpose: Purpose, counter: u64, index: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(purpose as u64).to_le_bytes());
    key[16..24].copy_from_slice(&counter.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(index);
    rng
}
