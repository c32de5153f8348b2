//! Replays the recorded cases of the published implementation, gradients and random draws included.
//!
//! The folder is `GMFLOW_GOLDEN`, or `shared/golden` beside the checkout. Where it is absent the test says so; with
//! `CI=true` its absence is a failure. An operation that is not known here is a failure too.

mod flow;
mod gm_ops;
mod guidance;
mod harness;
mod losses;
mod networks;
mod schedulers;

use harness::{Case, Computed, GoldenSet, Outcome, compare, folder};

/// Cases that are deliberately answered differently, by the beginning of their id, with the reason.
const DEVIATIONS: &[(&str, &str)] = &[
    (
        "losses/nll_tinier",
        "log_std has a smooth lower bound; recorded with a clamp of the inverse that flips the gradient",
    ),
    ("losses/nll_fullstd_tinier", "as nll_tinier"),
    ("losses/toy_gm_kl_tinier", "as nll_tinier"),
    ("guidance/prob_tiny_bias", "the direction is normalised whatever its length; recorded with a clamp at 1e-6"),
    ("guidance/second_order_zero_diff", "no change of the mean is the identity here; recorded with a clamp at 1e-6"),
    ("guidance/second_order_small_var", "the quotient needs no clamp here; recorded with one at 1e-6"),
    ("gm_ops/guided_division_r0.0", "the quotient is not clamped here; recorded with a norm factor clamped at 1e-6"),
];

/// Operations of parts that are not built yet, with what they wait for.
const NOT_YET: &[(&str, &str)] = &[
    ("AutoencoderKL", "the autoencoder"),
    ("FlowAdapterScheduler", "the multistep baseline solvers"),
    ("GMFlow.spectral_loss", "the spectral loss"),
    ("train_loop", "replayed by the tests of gmflow-train, which owns the optimiser"),
];

/// Settings of the published code that are not built yet.
fn not_yet(case: &Case) -> Option<(&'static str, &'static str)> {
    if case.params.get("spectrum").is_some_and(|spectrum| !spectrum.is_null()) {
        return Some(("spectrum", "the spectral loss"));
    }
    if case.params.get("n_axes").is_some_and(|axes| !axes.is_null()) {
        return Some(("n_axes", "a transport along the first axes only"));
    }
    if case.op == "gm_spectral_logprobs" && case.inputs.get("power_spectrum").is_some_and(|power| power.shape[1] > 1)
    {
        return Some((
            "per-channel spectrum",
            "recorded with squares summed over channels before the spectrum applies",
        ));
    }
    if case.op == "gm1d_inverse_cdf" && case.usize("n_steps") < 8 {
        return Some(("fewer than 8 Newton steps", "recorded before they converge; the quantile here always does"));
    }
    let times = |name: &str| case.inputs.get(name).map_or(&[][..], |array| array.values.as_slice());
    if case.op == "reverse_transition" && times("t_low").iter().zip(times("t_high")).any(|t| t == (&1000.0, &1000.0))
    {
        return Some(("from t = 1 to t = 1", "the identity here; recorded as fresh noise"));
    }
    if case.op == "denoising_gm_convert_to_mean" && times("t_tgt").iter().any(|&t| t > 0.0 && t < 1.0) {
        return Some(("t below 0.001", "not clamped here; recorded with sigma^2 clamped at 1e-6"));
    }
    let corrections = case.f64_or("gm2_correction_steps", 0.0) > 0.0 && !case.flag("first_call");
    corrections
        .then_some(("gm2_correction_steps", "the correction iterations of the second-order step, off by default"))
}

/// A function that computes a case's outputs, or `None` where it does not know the operation.
type Replay = fn(&Case) -> Option<Computed>;

fn replay(group: &str, run: Replay) {
    let folder = folder();
    let set = match GoldenSet::open(&folder) {
        Ok(set) => set,
        Err(reason) if std::env::var("CI").is_ok_and(|ci| ci == "true") => panic!("no golden set: {reason}"),
        Err(reason) => {
            println!("SKIPPED: no golden set: {reason}");
            return;
        }
    };
    let (mut outcomes, mut skipped) = (Vec::new(), 0);
    for case in set.group(group) {
        let known = NOT_YET.iter().find(|(op, _)| case.op == *op);
        let known = known.or_else(|| DEVIATIONS.iter().find(|(id, _)| case.id.starts_with(id)));
        if let Some((what, reason)) = known.copied().or_else(|| not_yet(&case)) {
            println!("not compared: {} ({what}: {reason})", case.id);
            skipped += 1;
            continue;
        }
        outcomes.push(match run(&case) {
            Some(computed) => compare(&case, &computed),
            None => Outcome {
                id: case.id.clone(),
                op: case.op.clone(),
                failures: vec!["unknown operation".to_owned()],
                worst: f64::INFINITY,
            },
        });
    }
    report(group, &outcomes, skipped);
}

fn report(group: &str, outcomes: &[Outcome], skipped: usize) {
    let failed: Vec<&Outcome> = outcomes.iter().filter(|outcome| !outcome.failures.is_empty()).collect();
    let worst = outcomes.iter().map(|outcome| outcome.worst).fold(0.0, f64::max);
    println!(
        "{group}: {} cases agree, {} differ, {skipped} not compared; worst {worst:.2} of the tolerance",
        outcomes.len() - failed.len(),
        failed.len()
    );
    for outcome in &failed {
        println!("  {} ({}): {}", outcome.id, outcome.op, outcome.failures.join("; "));
    }
    assert!(failed.is_empty(), "{} cases of {group} differ", failed.len());
}

#[test]
fn flow() {
    replay("flow", flow::run);
}

#[test]
fn gm_ops() {
    replay("gm_ops", gm_ops::run);
}

#[test]
fn guidance() {
    replay("guidance", guidance::run);
}

#[test]
fn losses() {
    replay("losses", losses::run);
}

#[test]
fn networks() {
    replay("networks", networks::run);
}

#[test]
fn schedulers() {
    replay("schedulers", schedulers::run);
}

/// Groups that no test replays yet.
const GROUPS_NOT_YET: &[&str] = &["e2e"];

#[test]
fn every_group_is_replayed_or_named() {
    let Ok(set) = GoldenSet::open(&folder()) else { return };
    for group in set.groups() {
        let replayed = ["flow", "gm_ops", "guidance", "schedulers", "losses", "networks"].contains(&group.as_str());
        if GROUPS_NOT_YET.contains(&group.as_str()) {
            println!("not compared: the group {group}");
        }
        assert!(replayed || GROUPS_NOT_YET.contains(&group.as_str()), "no test replays the group {group}");
    }
}
