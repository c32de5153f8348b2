//! 3x3 convolutions by the minimal filtering algorithm F(4x4, 3x3) of Winograd (Lavin and Gray, arXiv:1509.09308).
//!
//! Sixteen outputs take 36 products where the definition takes 144: tiles of 6x6 inputs and the weights are transformed by B^T d B and
//! G g G^T, multiplied position by position (36 matrix products), and transformed back by A^T m A. The gradients are the adjoint of the
//! same maps.

mod forward;
mod grid;
mod inverse;
mod maps;
mod pieces;
pub(crate) mod weights;

use crate::kernel::matmul::layout::{COLUMNS, ROWS as TILE_ROWS};
use crate::kernel::matmul::matrix::{Destination, Matrix, Target, product};
use crate::kernel::matmul::packed;
use crate::kernel::matmul::panel_tiles::{self, Ahead, Kind, Rows, Start, Tile};
use crate::kernel::matmul::panels::PackedWeight;
use crate::kernel::matmul::precision::{FloatKind, MatmulPrecision};
use crate::kernel::nn::conv::sizes::Sizes;
use crate::kernel::simd::memory::{UninitVec, fill, par_items};
use crate::kernel::simd::vector::widest;
use forward::{Forward, Side};
use gemm::Parallelism;
pub(crate) use grid::apart;
use grid::{Grid, POSITIONS, Places, Transformed};
use inverse::Inverse;
use rayon::prelude::*;
use std::mem::MaybeUninit;
use std::ops::Range;
use weights::{Contract, Expand};

/// Values of the transformed tiles that all threads work on at a time.
const CHUNK: usize = 2 * 1024 * 1024;
/// Values of those that a thread works on alone: they stay in its second-level cache.
const OWN: usize = 192 * 1024;
/// Rows of a product in one task, a multiple of the rows of the matrix kernel's tile.
const ROWS: usize = 192;

/// Whether this way is open and pays.
pub(crate) fn applies(sizes: &Sizes) -> bool {
    /// Channels below which the transforms cost more than they save.
    const LEAST: usize = 3;
    /// Height and width below which too much of a tile is empty.
    const SMALLEST: usize = 3;
    sizes.kernel == [3, 3]
        && sizes.stride == 1
        && sizes.padding.iter().all(|p| *p <= 2)
        && [sizes.h, sizes.w, sizes.out[0], sizes.out[1]].iter().all(|n| *n >= SMALLEST)
        && sizes.c >= LEAST
        && sizes.o >= LEAST
}

/// What multiplies the tiles of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kernel {
    /// The kernel for panels, which needs AVX-512.
    Packed,
    /// The kernel of the library.
    Library,
}

impl Kernel {
    /// The faster one that the processor has.
    pub(crate) fn fastest() -> Self {
        if MatmulPrecision::F32.is_native() { Self::Packed } else { Self::Library }
    }
}

/// Who works on a chunk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// All threads together, phase by phase.
    All,
    /// One thread, while the others have chunks of their own.
    One,
}

impl By {
    /// Calls `f` with every number below `count`; `work` values are handled in all.
    fn each(self, count: usize, work: usize, f: impl Fn(usize) + Sync + Send) {
        match self {
            Self::All => par_items((0..count).collect(), work, f),
            Self::One => (0..count).for_each(f),
        }
    }
}

/// Rows of tiles of the whole batch, in chunks.
struct Chunks {
    rows: usize,
    height: usize,
    columns: usize,
    by: By,
}

impl Chunks {
    /// Chunks that do not depend on the number of threads.
    fn new(b: usize, grid: Grid, [c, o]: [usize; 2]) -> Self {
        let [down, columns] = grid.tiles;
        let rows = b * down;
        // Where there are many weights, reading them for every chunk would take longer than tiles from beyond the caches.
        let values = CHUNK.max(POSITIONS * c * o / 2);
        let height = values / (POSITIONS * (c + o) * columns).max(1);
        // Panels are full with these rows and their multiples.
        let full = COLUMNS >> columns.trailing_zeros().min(COLUMNS.trailing_zeros());
        let height = if height > full { height - height % full } else { height }.clamp(1, rows.max(1));
        Self { rows, height, columns, by: By::All }
    }

    /// Chunks for a thread each, where there are enough of them to keep all threads busy.
    fn apart(b: usize, grid: Grid, [c, o]: [usize; 2]) -> Self {
        let all = Self::new(b, grid, [c, o]);
        let columns = all.columns.max(1);
        // With fewer tiles than a panel has columns, weights would be read too often for what is done with them.
        let height = (OWN / (POSITIONS * (c + o) * columns).max(1)).max(COLUMNS.div_ceil(columns));
        if all.rows.div_ceil(height) < 4 * rayon::current_num_threads() {
            all
        } else {
            Self { height, by: By::One, ..all }
        }
    }

    /// Tiles of the largest chunk.
    fn tiles(&self) -> usize {
        self.height * self.columns
    }

    fn ranges(&self) -> Vec<Range<usize>> {
        (0..self.rows).step_by(self.height).map(|first| first..(first + self.height).min(self.rows)).collect()
    }
}

/// Transforms rows of tiles of the batch `x`, planes of as many channels as `out` has.
fn transform(x: &[f32], side: Side, grid: Grid, rows: Range<usize>, out: &mut Transformed, by: By) {
    let places = out.places();
    let channels = places.channels;
    by.each(channels, POSITIONS * channels * rows.len() * grid.tiles[1], |channel| {
        widest(Forward { side, x, grid, rows: rows.clone(), places: &places, channel });
    });
}

/// out = A^T ((weight at each position) (B^T x B)) A + bias, over the whole batch, for transformed weights `[36 o c]`.
fn filter(
    x: &[f32],
    weights: &[f32],
    bias: &[f32],
    [b, c]: [usize; 2],
    (grid, size): (Grid, [usize; 2]),
    kernel: Kernel,
) -> Vec<f32> {
    let o = bias.len();
    // The library may add up in an order that depends on the number of tiles, which the number of threads must not change.
    let chunks = match kernel {
        Kernel::Packed => Chunks::apart(b, grid, [c, o]),
        Kernel::Library => Chunks::new(b, grid, [c, o]),
    };
    let buffers = || {
        (Transformed::new(c, chunks.tiles(), kernel == Kernel::Packed), Transformed::new(o, chunks.tiles(), false))
    };
    let mut values = UninitVec::new(b * o * size[0] * size[1]);
    let out = Target::of(values.room());
    let work = |(tiles, products): &mut (Transformed, Transformed), rows: Range<usize>, by: By| {
        transform(x, Side::Input, grid, rows.clone(), tiles, by);
        let products = products.places();
        multiply(weights, tiles, &products, [o, rows.len() * grid.tiles[1], c], kernel, by);
        by.each(o, POSITIONS * o * rows.len() * grid.tiles[1], |channel| {
            let (places, bias, out, rows) = (&products, bias[channel], &out, rows.clone());
            widest(Inverse { places, grid, rows, channel, bias, out, size });
        });
    };
    match chunks.by {
        By::One => {
            chunks.ranges().into_par_iter().for_each_init(buffers, |buffers, rows| work(buffers, rows, By::One))
        }
        By::All => {
            let mut buffers = buffers();
            chunks.ranges().into_iter().for_each(|rows| work(&mut buffers, rows, By::All));
        }
    }
    // SAFETY: the chunks are all rows of tiles, which cover the outputs, and every channel's rows were written.
    unsafe { values.assume_init() }
}

/// y = weight x at every position, for sizes [o, tiles, c].
fn multiply(weights: &[f32], x: &Transformed, y: &Places, [o, tiles, c]: [usize; 3], kernel: Kernel, by: By) {
    let parts = o.div_ceil(ROWS);
    by.each(POSITIONS * parts, POSITIONS * o * tiles * c, |task| {
        let (position, first) = (task / parts, task % parts * ROWS);
        let weight = &weights[position * apart(o * c) + first * c..];
        let (m, out, stride) = (ROWS.min(o - first), y.row(position, first), y.stride());
        if kernel == Kernel::Library {
            let (weight, x) = (Matrix::rows(weight, c), x.matrix(position));
            // SAFETY: the matrices have these sizes, and no other task writes these rows.
            return unsafe {
                product([m, tiles, c], Destination::replace(out, stride), [weight, x], 1.0, Parallelism::None)
            };
        }
        let rows = Rows { words: weight.as_ptr().cast(), row_stride: c, step_stride: 1, tile_stride: TILE_ROWS * c };
        for panel in 0..tiles.div_ceil(COLUMNS) {
            let (lines, columns) = (x.panel(position, panel), COLUMNS.min(tiles - panel * COLUMNS));
            let tile = Tile { rows, lines, columns, start: Start::Zero, stride, ahead: Ahead::NONE };
            // SAFETY: as above; panels are chosen where the processor multiplies them.
            unsafe { panel_tiles::run(tile, out.wrapping_add(panel * COLUMNS), m, Kind::F32) };
        }
    });
}

/// The weight `[o c 3 3]` as G g G^T: `[36 o c]`, with gaps between the positions.
fn transform_weight(weight: &[f32], [o, c]: [usize; 2]) -> Vec<f32> {
    let distance = apart(o * c);
    let mut values = UninitVec::new(POSITIONS * distance);
    values.room().chunks_exact_mut(distance).for_each(|position| fill(&mut position[o * c..], 0.0));
    let target = Target::of(values.room());
    par_items(weight.chunks(9 * c).enumerate().collect(), weight.len(), |(row, weight)| {
        widest(Expand { weight, out: target.at(row * c), distance });
    });
    // SAFETY: the weights of each output were written at all positions, and so were the gaps between these.
    unsafe { values.assume_init() }
}

/// The weight `[o c 3 3]` that was transformed by the adjoint of [`transform_weight`] from `tiles` `[36 o c]`, with the same gaps.
pub(crate) fn contract(tiles: &[f32], [o, c]: [usize; 2]) -> Vec<f32> {
    let distance = apart(o * c);
    let mut out = UninitVec::new(9 * o * c);
    let rows = out.room().chunks_mut(9 * c).enumerate().collect();
    par_items(rows, tiles.len(), |(row, out): (usize, &mut [MaybeUninit<f32>])| {
        widest(Contract { out, tiles: &tiles[row * c..], distance });
    });
    // SAFETY: every tap of every output and input was written.
    unsafe { out.assume_init() }
}

/// The convolution of x with weight, plus bias.
pub(crate) fn conv(x: &[f32], weight: &[f32], bias: &[f32], sizes: &Sizes, kernel: Kernel) -> Vec<f32> {
    let Sizes { b, c, h, w, o, .. } = *sizes;
    let [top, _, left, _] = sizes.padding;
    let weight = transform_weight(weight, [o, c]);
    let grid = Grid::new(sizes.out, [h, w], [top, left]);
    filter(x, &weight, bias, [b, c], (grid, sizes.out), kernel)
}

/// The gradient with respect to x: the convolution of the gradient with the filters turned round, from outputs to inputs.
pub(crate) fn conv_grad_input(grad: &[f32], weight: &[f32], sizes: &Sizes, kernel: Kernel) -> Vec<f32> {
    let Sizes { b, c, h, w, o, .. } = *sizes;
    let [top, _, left, _] = sizes.padding;
    let mut turned = vec![0.0; weight.len()];
    par_items(
        turned.chunks_mut(9 * o).enumerate().collect(),
        weight.len(),
        |(channel, turned): (usize, &mut [f32])| {
            for (output, turned) in turned.as_chunks_mut::<9>().0.iter_mut().enumerate() {
                turned.copy_from_slice(&weight[9 * (output * c + channel)..][..9]);
                turned.reverse();
            }
        },
    );
    let weight = transform_weight(&turned, [c, o]);
    let grid = Grid::new([h, w], sizes.out, [2 - top, 2 - left]);
    filter(grad, &weight, &vec![0.0; c], [b, o], (grid, [h, w]), kernel)
}

/// The gradient with respect to the weight: chunks of tiles are added up in order.
pub(crate) fn conv_grad_weight(grad: &[f32], x: &[f32], sizes: &Sizes, kernel: Kernel) -> Vec<f32> {
    let Sizes { b, c, h, w, o, .. } = *sizes;
    let [top, _, left, _] = sizes.padding;
    let grid = Grid::new(sizes.out, [h, w], [top, left]);
    let outputs = Grid::new(sizes.out, sizes.out, [0, 0]);
    let distance = apart(o * c);
    let mut sums = vec![0.0; POSITIONS * distance];
    let chunks = Chunks::new(b, grid, [c, o]);
    let (mut inputs, mut grads) =
        (Transformed::new(c, chunks.tiles(), false), Transformed::new(o, chunks.tiles(), false));
    for rows in chunks.ranges() {
        let tiles = rows.len() * grid.tiles[1];
        transform(x, Side::Input, grid, rows.clone(), &mut inputs, By::All);
        transform(grad, Side::Gradient, outputs, rows, &mut grads, By::All);
        let out = Target(sums.as_mut_ptr());
        let parts = c.div_ceil(COLUMNS);
        By::All.each(POSITIONS * parts, POSITIONS * o * tiles * c, |task| {
            let (position, first) = (task / parts, task % parts * COLUMNS);
            let (n, out) = (COLUMNS.min(c - first), out.at(position * distance + first));
            let (a, b) = (grads.matrix(position), inputs.matrix(position).skip_rows(first).t());
            // SAFETY: the matrices have these sizes, and no other task writes these columns.
            unsafe {
                if kernel == Kernel::Packed {
                    packed::add_product(a, o, &PackedWeight::pack(b, [tiles, n], FloatKind::F32), out, c);
                } else {
                    product([o, n, tiles], Destination::add(out, c), [a, b], 1.0, Parallelism::None);
                }
            }
        });
    }
    contract(&sums, [o, c])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::nn::conv::sizes::Window;
    use crate::kernel::simd::memory::as_uninit;
    use pulp::{Arch, Simd, WithSimd};

    fn draw(n: usize, seed: usize) -> Vec<f32> {
        (0..n).map(|i| (((i + seed) * 7919 + 13) % 1013) as f32 / 500.0 - 1.0).collect()
    }

    fn assert_close(what: &str, got: &[f32], want: &[f32]) {
        let size = want.iter().fold(0.0, |size: f32, x| size.max(x.abs()));
        assert_eq!(got.len(), want.len(), "{what}");
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            assert!((got - want).abs() <= 3e-6 * size, "{what}, element {i}: {got}, not {want}");
        }
    }

    /// Both kernels that multiply, with sizes of which tiles and panels are and are not multiples.
    #[test]
    fn the_kernel_makes_no_difference() {
        if Kernel::fastest() == Kernel::Library {
            return eprintln!("SKIPPED: this processor does not multiply panels");
        }
        let window = Window { stride: 1, padding: [1; 4] };
        for [b, c, o, h, w] in [[1, 3, 5, 4, 4], [2, 19, 33, 9, 70], [9, 40, 70, 17, 12]] {
            let sizes = Sizes::new([b, c, h, w], [o, c, 3, 3], window);
            let (x, weight) = (draw(b * c * h * w, 1), draw(o * c * 9, 2));
            let (bias, grad) = (draw(o, 3), draw(b * o * h * w, 4));
            let [got, want] = [Kernel::Packed, Kernel::Library].map(|kernel| {
                [
                    conv(&x, &weight, &bias, &sizes, kernel),
                    conv_grad_input(&grad, &weight, &sizes, kernel),
                    conv_grad_weight(&grad, &x, &sizes, kernel),
                ]
            });
            for (got, want) in got.iter().zip(&want) {
                assert_close(&format!("{b}x{c}x{h}x{w} to {o}"), got, want);
            }
        }
    }

    /// Runs a pass with vectors of some width.
    fn with_lanes(lanes: usize, pass: impl WithSimd<Output = ()>) {
        #[cfg(target_arch = "x86_64")]
        if let (8, Some(simd)) = (lanes, pulp::x86::V3::try_new()) {
            return Simd::vectorize(simd, pass);
        }
        if lanes == 1 { Arch::Scalar.dispatch(pass) } else { Arch::new().dispatch(pass) }
    }

    /// The four transforms, without a product between them.
    fn transforms(lanes: usize) -> [Vec<f32>; 4] {
        let (b, c, o, [h, w]) = (3, 2, 37, [9, 22]);
        let (x, weight, bias) = (draw(b * c * h * w, 1), draw(o * 9, 2), 0.5);
        let grid = Grid::new([h, w], [h, w], [1, 1]);
        let rows = 0..b * grid.tiles[0];
        let mut tiles = Transformed::new(c, rows.len() * grid.tiles[1], false);
        let (places, mut y) = (tiles.places(), vec![0.0; x.len()]);
        let out = Target(y.as_mut_ptr());
        let [input, gradient] = [Side::Input, Side::Gradient].map(|side| {
            for channel in 0..c {
                let (x, rows, places) = (&x[..], rows.clone(), &places);
                with_lanes(lanes, Forward { side, x, grid, rows: rows.clone(), places, channel });
                with_lanes(lanes, Inverse { places, grid, rows, channel, bias, out: &out, size: [h, w] });
            }
            y.clone()
        });
        let distance = apart(o);
        let (mut expanded, mut contracted) = (vec![0.0; POSITIONS * distance], vec![0.0; 9 * o]);
        with_lanes(lanes, Expand { weight: &weight, out: expanded.as_mut_ptr(), distance });
        // SAFETY: only numbers are written.
        let out = unsafe { as_uninit(&mut contracted) };
        with_lanes(lanes, Contract { out, tiles: &expanded, distance });
        [input, gradient, expanded, contracted]
    }

    #[test]
    fn the_width_of_vectors_makes_no_difference() {
        let want = transforms(1);
        for lanes in [8, 16] {
            for (got, want) in transforms(lanes).iter().zip(&want) {
                assert_close(&format!("{lanes} lanes"), got, want);
            }
        }
    }
}
