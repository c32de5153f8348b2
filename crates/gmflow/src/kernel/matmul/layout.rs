//! How the numbers of packed operands lie in memory.

/// 64 bytes: 16 columns of a step.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Line(pub(crate) [u32; 16]);

// SAFETY: words without padding.
unsafe impl bytemuck::Zeroable for Line {}

// SAFETY: as above, and every bit pattern is valid.
unsafe impl bytemuck::Pod for Line {}

impl Line {
    /// The words of a step, from 16 columns that have their steps side by side.
    #[inline(always)]
    pub(crate) fn of_step<const STEPS: usize>(columns: &[[u32; STEPS]; 16], step: usize) -> Self {
        let mut line = [0; 16];
        for (to, words) in line.iter_mut().zip(columns) {
            *to = words[step];
        }
        Self(line)
    }
}

/// Lines of a step.
pub(crate) const LINES: usize = 4;

/// Columns of a panel.
pub(crate) const COLUMNS: usize = 16 * LINES;

/// Rows of a tile.
pub(crate) const ROWS: usize = 6;

/// Numbers that share a scale.
pub(crate) const GROUP: usize = 128;

/// Numbers of one step.
pub(crate) const STEP: usize = 4;

/// Steps of a group.
pub(crate) const STEPS: usize = GROUP / STEP;

/// Where a group of the left operand lies: at `low + scale * q`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Span {
    pub(crate) low: f32,
    pub(crate) scale: f32,
}

// SAFETY: two numbers without padding, and every bit pattern is valid.
unsafe impl bytemuck::Zeroable for Span {}

// SAFETY: as above.
unsafe impl bytemuck::Pod for Span {}
