//! Replays the recorded cases of the published implementation, gradients and random draws included.
//!
//! The folder is `GMFLOW_GOLDEN`, or `shared/golden` beside the checkout; that of distillation `GMFLOW_GOLDEN_DISTILL`, or
//! `shared/golden_distill`. Where it is absent the test says so; with
//! `CI=true` its absence is a failure. An operation that is not known here is a failure too.

mod distill;
mod e2e;
mod exclusions;
mod flow;
mod gm_ops;
mod guidance;
mod harness;
mod losses;
mod networks;
#[path = "../support/reverse.rs"]
mod reverse;
mod schedulers;

use harness::{Case, Computed, GoldenSet, Outcome, compare, distill_folder, folder};
use std::io::Write as _;
use std::path::Path;

/// A function that computes a case's outputs, or `None` where it does not know the operation.
type Replay = fn(&Case) -> Option<Computed>;

fn replay(group: &str, run: Replay) {
    replay_of(&folder(), group, run);
}

fn replay_of(folder: &Path, group: &str, run: Replay) {
    let set = match GoldenSet::open(folder) {
        Ok(set) => set,
        Err(reason) if std::env::var("CI").is_ok_and(|ci| ci == "true") => panic!("no golden set: {reason}"),
        Err(reason) => {
            // Past the harness, which hides what a test that passes prints.
            let _ = writeln!(std::io::stderr(), "SKIPPED: no golden set: {reason}");
            return;
        }
    };
    let (mut outcomes, mut skipped) = (Vec::new(), 0);
    for case in set.group(group) {
        if let Some(reason) = exclusions::reason(&case) {
            println!("not compared: {}: {reason}", case.id);
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
fn e2e() {
    replay("e2e", e2e::run);
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

#[test]
fn distillation() {
    for group in distill::GROUPS {
        replay_of(&distill_folder(), group, distill::run);
    }
}

#[test]
fn published_students() {
    let Ok(set) = GoldenSet::open(&distill_folder()) else { return };
    let mut count = 0;
    for mut case in set.group("sample") {
        let Some(computed) = distill::published(&case) else { continue };
        case.outputs.retain(|name, _| computed.contains_key(name));
        let outcome = compare(&case, &computed);
        assert!(outcome.failures.is_empty(), "{}: {}", case.id, outcome.failures.join("; "));
        count += 1;
    }
    assert!(count > 0, "no student of the set is a transformer");
}

#[test]
fn every_group_of_distillation_is_replayed() {
    let Ok(set) = GoldenSet::open(&distill_folder()) else { return };
    for group in set.groups() {
        assert!(distill::GROUPS.contains(&group.as_str()), "no test replays the group {group}");
    }
}

#[test]
fn every_group_is_replayed() {
    let Ok(set) = GoldenSet::open(&folder()) else { return };
    let replayed = ["e2e", "flow", "gm_ops", "guidance", "losses", "networks", "schedulers"];
    for group in set.groups() {
        assert!(replayed.contains(&group.as_str()), "no test replays the group {group}");
    }
}
