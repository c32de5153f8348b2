//! The cases that are not compared, each with its reason.

use crate::harness::Case;

/// Which cases, and why they are not compared.
type Exclusion = (fn(&Case) -> bool, &'static str);

/// Cases that are deliberately answered differently.
const DEVIATIONS: &[Exclusion] = &[
    (
        |case| id(case, &["losses/nll_tinier", "losses/nll_fullstd_tinier", "losses/toy_gm_kl_tinier"]),
        "log_std has a smooth lower bound; recorded with a clamp of the inverse that flips the gradient",
    ),
    (
        |case| id(case, &["guidance/prob_tiny_bias"]),
        "the direction is normalised whatever its length; recorded with a clamp at 1e-6",
    ),
    (
        |case| id(case, &["guidance/second_order_zero_diff"]),
        "no change of the mean is the identity here; recorded with a clamp at 1e-6",
    ),
    (
        |case| id(case, &["gm_ops/guided_division_r0.0"]) || case.id == "guidance/second_order_small_var",
        "the quotient needs no clamp here; recorded with a norm factor clamped at 1e-6",
    ),
    (
        |case| {
            case.op == "gm_spectral_logprobs"
                && case.inputs.get("power_spectrum").is_some_and(|power| power.shape[1] > 1)
        },
        "a spectrum per channel applies channel by channel; recorded with squares summed over channels before it",
    ),
    (
        |case| case.op == "gm1d_inverse_cdf" && case.usize("n_steps") < 8,
        "the quantile always converges; recorded before Newton's steps did",
    ),
    (
        |case| {
            let mut ends = times(case, "t_low").iter().zip(times(case, "t_high"));
            case.op == "reverse_transition" && ends.any(|pair| pair == (&1000.0, &1000.0))
        },
        "from t = 1 to t = 1 nothing moves; recorded as fresh noise",
    ),
    (
        |case| case.op == "DXPolicy.pi" && case.params["mode"] == "polynomial",
        "the polynomial form is experimental in the published code and is not built: a fresh head of it is no constant x0",
    ),
    (
        |case| {
            let early = times(case, "t_tgt").iter().any(|&t| t > 0.0 && t < 1.0);
            case.op == "denoising_gm_convert_to_mean" && early
        },
        "sigma^2 is not clamped below t = 0.001; recorded with a clamp at 1e-6",
    ),
];

/// Cases of parts that are not built yet, or replayed elsewhere.
const NOT_YET: &[Exclusion] =
    &[(|case| case.op == "train_loop", "replayed by the tests of gmflow-train, which owns the optimiser")];

/// Why `case` is not compared, where it is not.
pub fn reason(case: &Case) -> Option<&'static str> {
    let found = DEVIATIONS.iter().chain(NOT_YET).find(|(applies, _)| applies(case));
    found.map(|(_, reason)| *reason)
}

fn id(case: &Case, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| case.id.starts_with(prefix))
}

fn times<'a>(case: &'a Case, name: &str) -> &'a [f32] {
    case.inputs.get(name).map_or(&[], |array| array.values.as_slice())
}
