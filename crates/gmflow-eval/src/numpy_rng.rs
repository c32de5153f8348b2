//! NumPy's `RandomState`: the subsets that published scores were computed on.
//!
//! ```
//! use gmflow_eval::numpy_rng::RandomState;
//!
//! let mut numbers = RandomState::new(2020).permutation(5);
//! numbers.sort();
//! assert_eq!(numbers, [0, 1, 2, 3, 4]);
//! ```

use rand_mt::Mt;

/// The generator of `numpy.random.RandomState(seed)`.
#[derive(Clone, Debug)]
pub struct RandomState(Mt);

impl RandomState {
    /// Seeded as NumPy does with an integer.
    pub fn new(seed: u32) -> Self {
        Self(Mt::new(seed))
    }

    /// `permutation(n)`: the numbers below n in random order.
    pub fn permutation(&mut self, n: usize) -> Vec<usize> {
        let mut numbers: Vec<usize> = (0..n).collect();
        for i in (1..n).rev() {
            let j = self.up_to(i);
            numbers.swap(i, j);
        }
        numbers
    }

    /// `choice(n, size, replace=False)`.
    pub fn choice(&mut self, n: usize, size: usize) -> Vec<usize> {
        let mut chosen = self.permutation(n);
        chosen.truncate(size);
        chosen
    }

    /// A number from 0 to `largest`: bits are drawn until they are not too large.
    fn up_to(&mut self, largest: usize) -> usize {
        let mask = u64::MAX >> (largest as u64).leading_zeros();
        loop {
            let value = match u32::try_from(largest) {
                Ok(_) => u64::from(self.0.next_u32()),
                Err(_) => (u64::from(self.0.next_u32()) << 32) | u64::from(self.0.next_u32()),
            };
            let value = (value & mask) as usize;
            if value <= largest {
                return value;
            }
        }
    }
}
