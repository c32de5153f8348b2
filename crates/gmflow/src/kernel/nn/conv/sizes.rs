//! Sizes of a convolution.

use std::ops::Range;

/// Values of the unfolded tile at the most, unless one row of pixels has more.
const TILE: usize = 256 * 1024;

/// How a convolution moves over the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Pixels between neighbouring outputs.
    pub stride: usize,
    /// Zeros around the image: top, bottom, left, right.
    pub padding: [usize; 4],
}

/// Sizes of a convolution.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) b: usize,
    pub(crate) c: usize,
    pub(crate) h: usize,
    pub(crate) w: usize,
    pub(crate) o: usize,
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: usize,
    pub(crate) padding: [usize; 4],
    /// Height and width of the output.
    pub(crate) out: [usize; 2],
}

impl Sizes {
    /// Sizes for an input `[b c h w]` and a weight `[o c kh kw]`.
    pub(crate) fn new([b, c, h, w]: [usize; 4], weight: [usize; 4], window: Window) -> Self {
        let [o, channels, kh, kw] = weight;
        let Window { stride, padding } = window;
        let [top, bottom, left, right] = padding;
        let fits =
            channels == c && stride > 0 && kh > 0 && kw > 0 && h + top + bottom >= kh && w + left + right >= kw;
        assert!(fits, "a convolution of {c} channels, {h}x{w}, with weight {weight:?} and {window:?}");
        let out = [(h + top + bottom - kh) / stride + 1, (w + left + right - kw) / stride + 1];
        Self { b, c, h, w, o, kernel: [kh, kw], stride, padding, out }
    }

    /// Weights of one input channel.
    pub(crate) fn taps(&self) -> usize {
        self.kernel[0] * self.kernel[1]
    }

    /// Pixels of an output plane.
    pub(crate) fn pixels(&self) -> usize {
        self.out[0] * self.out[1]
    }

    /// Whether the unfolded image is the image itself.
    pub(crate) fn pointwise(&self) -> bool {
        self.kernel == [1, 1] && self.stride == 1 && self.padding == [0; 4]
    }

    /// The output rows in tiles, for an unfolded width of `channels` input channels.
    pub(crate) fn tiles(&self, channels: usize) -> Vec<Range<usize>> {
        let [oh, ow] = self.out;
        let rows = if self.pointwise() { oh } else { (TILE / (channels * self.taps() * ow).max(1)).clamp(1, oh) };
        (0..oh).step_by(rows).map(|first| first..(first + rows).min(oh)).collect()
    }

    /// Calls `f(place in the unfolded tile, outputs of the row whose source is inside the image, place of the first of these in
    /// the image)` for every row of every tap, over `channels` channels and the output rows of a tile.
    #[inline(always)]
    pub(crate) fn spans(&self, channels: usize, rows: Range<usize>, mut f: impl FnMut(usize, Range<usize>, usize)) {
        let ([kh, kw], [_, ow], stride) = (self.kernel, self.out, self.stride);
        let [top, _, left, _] = self.padding;
        let mut at = 0;
        for channel in 0..channels {
            for ky in 0..kh {
                for kx in 0..kw {
                    let last = (self.w + left).saturating_sub(kx).div_ceil(stride).min(ow);
                    let first = left.saturating_sub(kx).div_ceil(stride).min(last);
                    for row in rows.clone() {
                        let y = row * stride + ky;
                        if y >= top && y - top < self.h && first < last {
                            let source = (channel * self.h + y - top) * self.w + first * stride + kx - left;
                            f(at, first..last, source);
                        } else {
                            f(at, 0..0, 0);
                        }
                        at += ow;
                    }
                }
            }
        }
    }
}
