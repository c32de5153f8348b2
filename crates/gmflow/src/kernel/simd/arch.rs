//! Picks the widest vector instructions that the processor has, at run time.

/// A loop that the compiler vectorises for whatever instructions are enabled around it.
///
/// `run` must be `#[inline(always)]`, so that it is compiled once per instruction set.
pub(crate) trait Loop {
    /// Runs the loop.
    fn run(self);
}

/// Runs a loop with AVX-512, AVX2 or baseline instructions. Loops use no fused multiply-add, and reduce in a fixed number of
/// lanes, so the result is the same with any of them.
#[inline]
pub(crate) fn vectorised<L: Loop>(body: L) {
    #[cfg(target_arch = "x86_64")]
    {
        if is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512vl")
        {
            // SAFETY: the features were detected.
            return unsafe { avx512(body) };
        }
        if is_x86_feature_detected!("avx2") {
            // SAFETY: the feature was detected.
            return unsafe { avx2(body) };
        }
    }
    body.run();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512dq,avx512bw,avx512vl,avx2")]
fn avx512<L: Loop>(body: L) {
    body.run();
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn avx2<L: Loop>(body: L) {
    body.run();
}
