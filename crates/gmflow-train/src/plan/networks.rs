//! The networks that a plan chooses from.

/// How large a network is. All are U-Nets, which learn photos in fewer steps than transformers of the same cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NetworkSize {
    /// For a few minutes: pictures of simple shapes.
    Tiny,
    /// For an hour or two on a laptop.
    Small,
    /// For a night on a laptop.
    Medium,
    /// For a GPU: that of the paper's CIFAR-10 experiment.
    Large,
}

impl NetworkSize {
    /// From small to large.
    pub const ALL: [Self; 4] = [Self::Tiny, Self::Small, Self::Medium, Self::Large];
    /// All of them take pictures of sizes that are multiples of this.
    pub(super) const MULTIPLE: usize = 4;

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tiny => "tiny",
            Self::Small => "small",
            Self::Medium => "medium",
            Self::Large => "large",
        }
    }

    /// Channels at each level, residual blocks of a level, and levels with attention beside the innermost.
    pub(super) fn shape(self) -> (&'static [usize], usize, &'static [usize]) {
        match self {
            Self::Tiny => (&[16, 32, 32], 1, &[]),
            Self::Small => (&[32, 64, 128], 1, &[]),
            Self::Medium => (&[64, 128, 256], 1, &[]),
            Self::Large => (&[128, 256, 256], 2, &[1]),
        }
    }

    /// The time of a step as a multiple of the small network's, on a CPU, as measured (book/src/train-on-your-pictures.md).
    pub(super) fn cost(self) -> f64 {
        match self {
            Self::Tiny => 0.4,
            Self::Small => 1.0,
            Self::Medium => 2.9,
            Self::Large => 12.0,
        }
    }

    /// Fewer images than this are soon known by heart by a network of this size.
    pub(super) fn fewest_images(self) -> usize {
        match self {
            Self::Tiny | Self::Small => 0,
            Self::Medium => 2000,
            Self::Large => 20_000,
        }
    }

    /// The learning rate.
    pub(super) fn lr(self) -> f64 {
        match self {
            Self::Tiny => 2e-3,
            Self::Small => 1e-3,
            Self::Medium => 5e-4,
            Self::Large => 2e-4,
        }
    }
}
