//! The channels of some pixels in registers: loops over them are compiled for their number.

/// The numbers of channels that passes over pixels are compiled for: points, grey and colour images, latents.
pub(crate) const COMPILED: [usize; 4] = [1, 2, 3, 4];

/// Evaluates an expression with the constant `$C` equal to `$c`, one of [`COMPILED`].
macro_rules! choose {
    ($c:expr, $C:ident => $run:expr) => {
        $crate::kernel::simd::channels::choose!(@ $c, $C => $run; 1, 2, 3, 4)
    };
    (@ $c:expr, $C:ident => $run:expr; $($number:literal),*) => {
        #[allow(clippy::unreachable, reason = "`are_compiled_for` was asked")]
        match $c {
            $($number => {
                const $C: usize = $number;
                $run
            })*
            other => unreachable!("passes are not compiled for {other} channels"),
        }
    };
}
pub(crate) use choose;

/// A pair of vectors for every channel, an array `[Pair<S>; C]`. A macro, because closures of standard functions are compiled without the vector
/// instructions around them.
macro_rules! each {
    ($C:ident, $simd:expr, $i:ident => $value:expr) => {{
        let mut values = [$crate::kernel::simd::pair::Pair::splat($simd, 0.0); $C];
        for $i in 0..$C {
            values[$i] = $value;
        }
        values
    }};
}
pub(crate) use each;
