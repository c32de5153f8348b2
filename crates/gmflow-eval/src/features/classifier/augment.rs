//! What happens to an image before the classifier sees it in training.

use crate::{Error, Result};
use gmflow::rng::{Purpose, uniforms};
use serde::{Deserialize, Serialize};

/// The largest shift that is taken for sense.
const LARGEST_SHIFT: usize = 64;

/// Random changes of the training images that leave their class as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Images are moved by up to this many pixels in each direction.
    pub shift: usize,
    /// Half of the images are mirrored. Not for letters, digits and other images that mean something else when they are mirrored.
    pub flip: bool,
}

impl Default for Augment {
    fn default() -> Self {
        Self { shift: 2, flip: false }
    }
}

impl Augment {
    /// Checks every field.
    ///
    /// # Errors
    /// A shift that is too large.
    pub fn validate(self) -> Result<()> {
        match self.shift <= LARGEST_SHIFT {
            true => Ok(()),
            false => Err(Error::config("shift", format!("at most {LARGEST_SHIFT} pixels"), self.shift)),
        }
    }

    /// Appends an image `[c h w]`, moved and mirrored by the draw of this number; what comes in from beyond the edge is the edge.
    pub(super) fn apply(
        self,
        pixels: &[f32],
        [channels, height, width]: [usize; 3],
        (seed, number): (u64, u64),
        out: &mut Vec<f32>,
    ) {
        let draws = uniforms(seed, Purpose::Component, number, 3);
        let shift = self.shift as isize;
        let by = |u: f32| ((u * (2 * shift + 1) as f32) as isize).min(2 * shift) - shift;
        let (down, right) = (by(draws[0]), by(draws[1]));
        let mirrored = self.flip && draws[2] < 0.5;
        let from = |at: usize, by: isize, length: usize| at.saturating_add_signed(-by).min(length - 1);
        for channel in 0..channels {
            for row in 0..height {
                let line = &pixels[(channel * height + from(row, down, height)) * width..][..width];
                let start = out.len();
                out.extend((0..width).map(|column| line[from(column, right, width)]));
                if mirrored {
                    out[start..].reverse();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two rows of four pixels.
    const IMAGE: [f32; 8] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0];

    fn seen(augment: Augment) -> Vec<Vec<f32>> {
        let mut seen: Vec<Vec<f32>> = Vec::new();
        for number in 0..400 {
            let mut out = Vec::new();
            augment.apply(&IMAGE, [1, 2, 4], (3, number), &mut out);
            if !seen.contains(&out) {
                seen.push(out);
            }
        }
        seen
    }

    #[test]
    fn every_shift_and_both_directions_are_drawn_and_nothing_else() {
        assert_eq!(seen(Augment { shift: 0, flip: false }), [IMAGE.to_vec()]);
        let flips = seen(Augment { shift: 0, flip: true });
        assert_eq!(flips.len(), 2);
        assert!(flips.contains(&IMAGE.to_vec()) && flips.contains(&vec![3.0, 2.0, 1.0, 0.0, 7.0, 6.0, 5.0, 4.0]));
        let shifts = seen(Augment { shift: 1, flip: false });
        assert_eq!(shifts.len(), 9);
        assert!(shifts.contains(&vec![1.0, 2.0, 3.0, 3.0, 5.0, 6.0, 7.0, 7.0]), "one pixel to the left");
        assert!(shifts.contains(&vec![0.0, 0.0, 1.0, 2.0, 0.0, 0.0, 1.0, 2.0]), "one to the right and one down");
        assert_eq!(seen(Augment { shift: 1, flip: true }).len(), 18);
    }
}
