//! The tile instructions of AMX as plain loops. Where the processor has them, the instructions are compared with the loops bit by bit.
//!
//! The library has no kernel of tiles yet: no machine that shows them could be had, so that nothing could be measured. The loops are what such
//! a kernel has to agree with. Its operands would be those of the other kernels: words of pairs in bf16 `[m steps]` on the left, and
//! `[steps columns]` on the right, of which a tile takes 16 rows, 16 steps and 16 columns.

/// Rows of a tile, and words of a row, at the most.
const SIDE: usize = 16;

/// A tile register: `rows` of `words` words. What lies beyond is zero.
#[derive(Clone, Debug, PartialEq)]
#[repr(C, align(64))]
struct Tile {
    data: [[u32; SIDE]; SIDE],
    rows: usize,
    words: usize,
}

impl Tile {
    fn new(rows: usize, words: usize, value: impl Fn(usize, usize) -> u32) -> Self {
        let mut data = [[0; SIDE]; SIDE];
        for (i, row) in data.iter_mut().enumerate().take(rows) {
            for (j, word) in row.iter_mut().enumerate().take(words) {
                *word = value(i, j);
            }
        }
        Self { data, rows, words }
    }
}

/// Zero in the place of a number that is smaller than the normal ones; it keeps the sign.
fn flushed(x: f32) -> f32 {
    if x.is_subnormal() { 0.0f32.copysign(x) } else { x }
}

/// TDPBF16PS: the even and the odd numbers of pairs have sums of their own, which are added to each other, and then to the tile.
fn dot_bf16(sums: &mut Tile, left: &Tile, right: &Tile) {
    let even = |word: u32| flushed(f32::from_bits(word << 16));
    let odd = |word: u32| flushed(f32::from_bits(word & 0xffff_0000));
    for (row, left) in sums.data.iter_mut().zip(&left.data).take(sums.rows) {
        for (column, sum) in row.iter_mut().enumerate().take(sums.words) {
            let mut both = [0.0f32; 2];
            for (pair, right) in left.iter().zip(&right.data).take(right.rows) {
                let other = right[column];
                both[0] = flushed(even(*pair).mul_add(even(other), both[0]));
                both[1] = flushed(odd(*pair).mul_add(odd(other), both[1]));
            }
            let added = flushed(flushed(f32::from_bits(*sum)) + flushed(both[0] + both[1]));
            *sum = added.to_bits();
        }
    }
}

/// TDPBUSD: bytes without a sign on the left, with one on the right, sums in 32 bits that wrap around.
fn dot_int8(sums: &mut Tile, left: &Tile, right: &Tile) {
    for (row, left) in sums.data.iter_mut().zip(&left.data).take(sums.rows) {
        for (column, sum) in row.iter_mut().enumerate().take(sums.words) {
            for (four, right) in left.iter().zip(&right.data).take(right.rows) {
                for (a, b) in four.to_le_bytes().into_iter().zip(right[column].to_le_bytes()) {
                    *sum = sum.wrapping_add((i32::from(a) * i32::from(b as i8)) as u32);
                }
            }
        }
    }
}

/// Numbers that look random.
fn bits(seed: usize) -> u32 {
    let mut x = (seed as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x1234_5678;
    x ^= x >> 29;
    x = x.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    (x ^ x >> 32) as u32
}

/// A pair of multiples of 1/16 between -8 and 8, of which sums of products are exact in f32.
fn small_pair(seed: usize) -> u32 {
    let number = |bits: u32| half::bf16::from_f32((bits % 257) as f32 / 16.0 - 8.0).to_bits();
    u32::from(number(bits(seed))) | u32::from(number(bits(seed + 100_000))) << 16
}

/// Rows, columns and steps of whole tiles and of parts.
const SIZES: [[usize; 3]; 4] = [[16, 16, 16], [1, 1, 1], [7, 16, 3], [16, 5, 11]];

#[test]
fn sums_in_bf16_that_fit_are_exact() {
    for [m, n, k] in SIZES {
        let left = Tile::new(m, k, |i, j| small_pair(i * SIDE + j));
        let right = Tile::new(k, n, |i, j| small_pair(1000 + i * SIDE + j));
        let mut sums = Tile::new(m, n, |i, j| ((i + j) as f32).to_bits());
        dot_bf16(&mut sums, &left, &right);
        for (i, j) in (0..SIDE).flat_map(|i| (0..SIDE).map(move |j| (i, j))) {
            let number = |word: u32, which: usize| f64::from(half::bf16::from_bits((word >> (16 * which)) as u16));
            let products = (0..k).flat_map(|step| {
                [0, 1].map(|which| number(left.data[i][step], which) * number(right.data[step][j], which))
            });
            let want = if i < m && j < n { (i + j) as f64 + products.sum::<f64>() } else { 0.0 };
            assert_eq!(f64::from(f32::from_bits(sums.data[i][j])), want, "{m}x{n}x{k} at {i}, {j}");
        }
    }
}

#[test]
fn sums_of_bytes_are_exact_and_wrap() {
    for [m, n, k] in SIZES {
        let left = Tile::new(m, k, |i, j| bits(i * SIDE + j));
        let right = Tile::new(k, n, |i, j| bits(2000 + i * SIDE + j));
        let mut sums = Tile::new(m, n, |i, j| i32::MAX as u32 - (i * j) as u32);
        dot_int8(&mut sums, &left, &right);
        for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
            let products = (0..4 * k).map(|at| {
                let byte = |word: u32| word.to_le_bytes()[at % 4];
                i64::from(byte(left.data[i][at / 4])) * i64::from(byte(right.data[at / 4][j]) as i8)
            });
            let want = i64::from(i32::MAX) - (i * j) as i64 + products.sum::<i64>();
            assert_eq!(sums.data[i][j], want as u32, "{m}x{n}x{k} at {i}, {j}");
        }
    }
}

/// Even numbers first, then odd ones, and both to the tile: another order would give another sum here.
#[test]
fn the_order_of_additions_is_that_of_the_instruction() {
    let pair = |even: f32, odd: f32| {
        u32::from(half::bf16::from_f32(even).to_bits()) | u32::from(half::bf16::from_f32(odd).to_bits()) << 16
    };
    let (large, one) = (16_777_216.0, 1.0);
    let left = Tile::new(1, 2, |_, step| if step == 0 { pair(large, one) } else { pair(one, one) });
    let right = Tile::new(2, 1, |_, _| pair(1.0, 1.0));
    let mut sums = Tile::new(1, 1, |_, _| 1f32.to_bits());
    dot_bf16(&mut sums, &left, &right);
    // Even: 2^24 + 1 is 2^24 in f32. Odd: 2. Both: 2^24 + 2. With the tile's 1 it is a tie, which goes to 2^24 + 4.
    assert_eq!(f32::from_bits(sums.data[0][0]), large + 4.0);
    // Numbers below the normal ones count as zero.
    let tiny = Tile::new(1, 1, |_, _| 0x0001_0001);
    let many = Tile::new(1, 1, |_, _| pair(1e30, 1e30));
    let mut sums = Tile::new(1, 1, |_, _| 1);
    dot_bf16(&mut sums, &tiny, &many);
    assert_eq!(sums.data[0][0], 0);
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
mod instructions {
    use super::*;
    use std::arch::asm;

    /// What LDTILECFG reads: palette 1, and the sizes of tiles 0 to 2.
    #[repr(C, align(64))]
    struct Sizes([u8; 64]);

    impl Sizes {
        fn of(tiles: [&Tile; 3]) -> Self {
            let mut bytes = [0; 64];
            bytes[0] = 1;
            for (which, tile) in tiles.into_iter().enumerate() {
                bytes[16 + 2 * which] = 4 * tile.words as u8;
                bytes[48 + which] = tile.rows as u8;
            }
            Self(bytes)
        }
    }

    /// Whether the processor shows AMX tiles with this instruction and Linux lets this process use them.
    fn may_use(instruction: &str) -> bool {
        let here = gmflow::machine::facts().instructions;
        if !here.contains(&"amx_tile") || !here.contains(&instruction) {
            eprintln!("SKIPPED: this processor shows no {instruction}");
            return false;
        }
        const ARCH_PRCTL: usize = 158;
        const ASK_FOR_STATE: usize = 0x1023;
        const TILE_DATA: usize = 18;
        let refused: isize;
        // SAFETY: a system call that reads and writes no memory of this process.
        unsafe {
            asm!("syscall", inlateout("rax") ARCH_PRCTL => refused, in("rdi") ASK_FOR_STATE, in("rsi") TILE_DATA,
                out("rcx") _, out("r11") _, options(nostack));
        }
        if refused != 0 {
            eprintln!("SKIPPED: the system does not let this process use tiles ({refused})");
        }
        refused == 0
    }

    /// Loads three tiles, runs an instruction on them, and stores the first.
    macro_rules! on_tiles {
        ($instruction:literal, $sums:expr, $left:expr, $right:expr) => {{
            let sizes = Sizes::of([&*$sums, $left, $right]);
            // SAFETY: the processor has the instructions and the system allows them; tiles are rows of 64 bytes.
            unsafe {
                asm!(
                    "ldtilecfg [{sizes}]",
                    "tileloadd tmm0, [{sums} + {row}]",
                    "tileloadd tmm1, [{left} + {row}]",
                    "tileloadd tmm2, [{right} + {row}]",
                    $instruction,
                    "tilestored [{sums} + {row}], tmm0",
                    "tilerelease",
                    sizes = in(reg) &raw const sizes,
                    sums = in(reg) (&raw mut $sums.data),
                    left = in(reg) (&raw const $left.data),
                    right = in(reg) (&raw const $right.data),
                    row = in(reg) 4 * SIDE,
                    options(nostack),
                );
            }
        }};
    }

    #[test]
    fn bf16_is_as_the_loops_say() {
        if !may_use("amx_bf16") {
            return;
        }
        for [m, n, k] in SIZES {
            // Any bits but those of numbers that are not finite.
            let number = |seed: usize| bits(seed) & 0xbfff_bfff;
            let (left, right) =
                (Tile::new(m, k, |i, j| number(i * SIDE + j)), Tile::new(k, n, |i, j| number(3000 + i * SIDE + j)));
            let mut want = Tile::new(m, n, |i, j| (i as f32 - j as f32).to_bits());
            let mut got = want.clone();
            on_tiles!("tdpbf16ps tmm0, tmm1, tmm2", &mut got, &left, &right);
            dot_bf16(&mut want, &left, &right);
            assert_eq!(got, want, "{m}x{n}x{k}");
        }
    }

    #[test]
    fn bytes_are_as_the_loops_say() {
        if !may_use("amx_int8") {
            return;
        }
        for [m, n, k] in SIZES {
            let (left, right) =
                (Tile::new(m, k, |i, j| bits(i * SIDE + j)), Tile::new(k, n, |i, j| bits(3000 + i * SIDE + j)));
            let mut want = Tile::new(m, n, |i, j| bits(5000 + i * SIDE + j));
            let mut got = want.clone();
            on_tiles!("tdpbusd tmm0, tmm1, tmm2", &mut got, &left, &right);
            dot_int8(&mut want, &left, &right);
            assert_eq!(got, want, "{m}x{n}x{k}");
        }
    }
}
