//! Whether numbers are finite.

use crate::kernel::simd::arch::{Loop, vectorised};
use crate::kernel::simd::threads::Threads;

/// Fewer numbers are one thread's: it is through with them before others have come.
const MANY: usize = 128 * 1024;

/// Numbers that are looked at together.
const PIECE: usize = 8 * 1024;

/// Whether all numbers are finite.
pub fn all_finite(values: &[f32]) -> bool {
    let pieces = values.chunks(PIECE).collect();
    let finite = |(): &mut (), piece: &[f32]| {
        let mut finite = true;
        vectorised(Finite { values: piece, finite: &mut finite });
        finite
    };
    let threads = if values.len() < MANY { Threads::One } else { Threads::All };
    threads.map(pieces, values.len(), || (), finite).into_iter().all(|finite| finite)
}

struct Finite<'a> {
    values: &'a [f32],
    finite: &'a mut bool,
}

impl Loop for Finite<'_> {
    #[inline(always)]
    fn run(self) {
        /// The bits of the exponent, which are all ones in what is not finite.
        const EXPONENT: u32 = 0x7f80_0000;
        // Without a way out of the loop, so that it goes through vector instructions.
        let largest = self.values.iter().fold(0, |most, x| most.max(x.to_bits() & EXPONENT));
        *self.finite = largest < EXPONENT;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_finite_is_found_anywhere() {
        for n in [1, 7, PIECE + 1, MANY + 3] {
            let mut values = vec![f32::MAX; n];
            assert!(all_finite(&values));
            for at in [0, n / 2, n - 1] {
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let kept = std::mem::replace(&mut values[at], bad);
                    assert!(!all_finite(&values), "{bad} at {at} of {n}");
                    values[at] = kept;
                }
            }
        }
        assert!(all_finite(&[]));
    }
}
