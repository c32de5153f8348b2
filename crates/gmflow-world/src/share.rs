//! Which part of the work is a rank's.

use crate::{Error, Result};
use std::ops::Range;
use std::str::FromStr;

/// The part of `0..count` that rank `rank` of `size` works on: `count rank / size .. count (rank + 1) / size`. The parts of all ranks stand
/// one behind the other, and their lengths differ by one at most.
///
/// ```
/// use gmflow_world::share;
///
/// assert_eq!([0, 1, 2].map(|rank| share(10, rank, 3)), [0..3, 3..6, 6..10]);
/// ```
pub fn share(count: usize, rank: usize, size: usize) -> Range<usize> {
    // 128 bits: the product of two counts may be larger than 64.
    let start = |rank: usize| (count as u128 * rank.min(size) as u128 / size.max(1) as u128) as usize;
    start(rank)..start(rank + 1)
}

/// [`share`] that begins and ends between two batches: the batches of all ranks are those of one process, so that no figure depends on how
/// many ranks there are.
///
/// ```
/// use gmflow_world::share_of_batches;
///
/// assert_eq!([0, 1].map(|rank| share_of_batches(10, 4, rank, 2)), [0..4, 4..10]);
/// ```
pub fn share_of_batches(count: usize, batch: usize, rank: usize, size: usize) -> Range<usize> {
    let batch = batch.max(1);
    let batches = share(count.div_ceil(batch), rank, size);
    batches.start.saturating_mul(batch).min(count)..batches.end.saturating_mul(batch).min(count)
}

/// One of several equal parts of a task, without a word between the processes: `2/8` is the second of eight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    index: usize,
    count: usize,
}

impl Shard {
    /// The most parts of a task.
    pub const MOST: usize = 1 << 20;

    /// The whole task.
    pub const WHOLE: Self = Self { index: 0, count: 1 };

    /// The part of a rank.
    pub fn of(rank: usize, size: usize) -> Self {
        let count = size.max(1);
        Self { index: rank.min(count - 1), count }
    }

    /// Its number, from 0.
    pub fn index(self) -> usize {
        self.index
    }

    /// How many parts there are.
    pub fn count(self) -> usize {
        self.count
    }

    /// As it stands in file names: `2-of-8`, with as many digits as the count.
    pub fn name(self) -> String {
        let digits = self.count.to_string().len();
        format!("{:0digits$}-of-{}", self.index + 1, self.count)
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index + 1, self.count)
    }
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            let expected = format!("a part of a whole, from 1/1 to {0}/{0}, such as 2/8", Self::MOST);
            Error::config("shard", expected, text)
        };
        let (index, count) = text.split_once('/').ok_or_else(wrong)?;
        let number =
            |text: &str| text.trim().parse::<usize>().ok().filter(|number| (1..=Self::MOST).contains(number));
        let (index, count) = (number(index).ok_or_else(wrong)?, number(count).ok_or_else(wrong)?);
        if index > count { Err(wrong()) } else { Ok(Self { index: index - 1, count }) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_stand_one_behind_the_other() {
        for (count, size) in [(0, 1), (1, 3), (7, 3), (64, 4), (1000, 7), (usize::MAX, 5)] {
            let mut end = 0;
            for rank in 0..size {
                let part = share(count, rank, size);
                assert_eq!(part.start, end, "{count} over {size}");
                assert!(part.len().abs_diff(count / size) <= 1, "{count} over {size}: {part:?}");
                end = part.end;
            }
            assert_eq!(end, count);
        }
    }

    #[test]
    fn shares_of_batches_end_between_batches() {
        for (count, batch, size) in [(1000, 64, 3), (5, 8, 4), (64, 8, 8), (10, 1, 3), (0, 4, 2)] {
            let mut end = 0;
            for rank in 0..size {
                let part = share_of_batches(count, batch, rank, size);
                assert_eq!(part.start, end);
                assert!(part.end == count || part.end.is_multiple_of(batch), "{part:?} in batches of {batch}");
                end = part.end;
            }
            assert_eq!(end, count);
        }
    }

    #[test]
    fn a_shard_is_read_and_named() {
        let shard: Shard = "3/12".parse().unwrap();
        assert_eq!((shard.index(), shard.count(), shard.name().as_str()), (2, 12, "03-of-12"));
        assert_eq!(shard.to_string(), "3/12");
        for wrong in ["", "3", "0/4", "5/4", "a/4", "1/0", "1/9999999", "-1/4"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
    }
}
