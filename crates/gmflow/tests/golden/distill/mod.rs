//! Distillation (pi-Flow): policies, roll-outs, schedules, networks, teachers, losses with all gradients, and whole sampling runs.

mod losses;
mod networks;
mod policies;
mod published;
mod sampling;

use crate::harness::{Case, Computed};

/// The groups of the set.
pub const GROUPS: [&str; 7] = ["policy", "rollout", "schedule", "network", "teacher", "loss", "sample"];

/// Whole runs of students from folders in the published layout; only their results are compared.
pub fn published(case: &Case) -> Option<Computed> {
    published::run(case)
}

pub fn run(case: &Case) -> Option<Computed> {
    policies::run(case).or_else(|| sampling::run(case)).or_else(|| networks::run(case)).or_else(|| losses::run(case))
}

/// The recorded numbers of an input as f64.
fn numbers(case: &Case, name: &str) -> Vec<f64> {
    case.input(name).values.iter().map(|value| f64::from(*value)).collect()
}

/// A number that may be the word inf.
fn number_or_word(case: &Case, name: &str) -> f64 {
    case.params[name].as_str().map_or_else(|| case.f64(name), |word| word.parse().expect("a number"))
}
