//! Velocities and roll-outs of policies, with gradients.

use super::numbers;
use crate::harness::{Array, Case, Computed, device};
use burn::tensor::{Gradients, Tensor};
use gmflow::mixture::{GaussianMixture, VelocityMixture};
use gmflow::policy::{GridPolicy, MixturePolicy, Policy, SubstepGrid};

pub fn run(case: &Case) -> Option<Computed> {
    match case.op.as_str() {
        "GMFlowPolicy.pi" | "DXPolicy.pi" => Some(velocity(case)),
        "GMFlowPolicy.temperature" => Some(temperature(case)),
        "GMFlowPolicy.dropout" => Some(dropout(case)),
        "Policy.integrate" => Some(roll_out(case)),
        "policy_average_u" => Some(mean_velocity(case)),
        _ => None,
    }
}

/// Inputs that gradients are recorded of.
struct Leaves {
    named: Vec<(&'static str, Leaf)>,
}

enum Leaf {
    Of4(Tensor<4>),
    Of5(Tensor<5>),
}

impl Leaves {
    fn of4(&mut self, case: &Case, name: &'static str) -> Tensor<4> {
        let leaf = tracked::<4>(case, name).require_grad();
        self.named.push((name, Leaf::Of4(leaf.clone())));
        leaf
    }

    fn of5(&mut self, case: &Case, name: &'static str) -> Tensor<5> {
        let leaf = tracked::<5>(case, name).require_grad();
        self.named.push((name, Leaf::Of5(leaf.clone())));
        leaf
    }

    /// Their gradients; where there are none, zeros.
    fn gradients(self, gradients: &Gradients, computed: &mut Computed) {
        for (name, leaf) in self.named {
            let of: Array = match leaf {
                Leaf::Of4(leaf) => leaf.grad(gradients).unwrap_or_else(|| leaf.inner().zeros_like()).into(),
                Leaf::Of5(leaf) => leaf.grad(gradients).unwrap_or_else(|| leaf.inner().zeros_like()).into(),
            };
            computed.insert(format!("grad_{name}"), of);
        }
    }
}

fn tracked<const D: usize>(case: &Case, name: &str) -> Tensor<D> {
    Tensor::from_data(case.input(name).tensor::<D>().into_data(), &device().autodiff())
}

/// The recorded policy.
fn policy(case: &Case, leaves: &mut Leaves) -> Policy {
    let (x_src, t_src) = (tracked::<4>(case, "x_src"), numbers(case, "t_src"));
    if case.inputs.contains_key("out") {
        let shift = case.f64_or("shift", 1.0);
        let segment =
            case.f64_or("segment_size", case.params["policy_kwargs"]["segment_size"].as_f64().unwrap_or(1.0));
        return GridPolicy::new(leaves.of5(case, "out"), x_src, t_src, (segment, shift)).expect("shapes fit").into();
    }
    mixture(case, leaves).into()
}

fn mixture(case: &Case, leaves: &mut Leaves) -> MixturePolicy {
    let velocity = VelocityMixture(GaussianMixture {
        means: leaves.of5(case, "means"),
        log_weights: leaves.of5(case, "logweights"),
        log_std: leaves.of5(case, "logstds"),
    });
    MixturePolicy::new(velocity, tracked(case, "x_src"), numbers(case, "t_src")).expect("shapes fit")
}

fn probed(case: &Case, u: Tensor<4>, leaves: Leaves) -> Computed {
    let gradients = (u.clone() * tracked::<4>(case, "probe")).sum().backward();
    let mut computed = Computed::from([("u".into(), u.inner().into())]);
    leaves.gradients(&gradients, &mut computed);
    computed
}

fn velocity(case: &Case) -> Computed {
    let mut leaves = Leaves { named: Vec::new() };
    let policy = policy(case, &mut leaves);
    let x = leaves.of4(case, "x_t");
    probed(case, policy.velocity(&x, &numbers(case, "t")), leaves)
}

fn temperature(case: &Case) -> Computed {
    let policy = mixture(case, &mut Leaves { named: Vec::new() }).at_temperature(case.f64("temperature"));
    let GaussianMixture { means, log_weights, log_std } = policy.data().0;
    let u = Policy::from(policy).velocity(&tracked(case, "x_t"), &numbers(case, "t"));
    Computed::from([
        ("x0_means".into(), means.inner().into()),
        ("x0_var".into(), (log_std * 2.0).exp().inner().into()),
        ("x0_logweights".into(), log_weights.inner().into()),
        ("u".into(), u.inner().into()),
    ])
}

fn dropout(case: &Case) -> Computed {
    let policy = mixture(case, &mut Leaves { named: Vec::new() });
    let (draw, p) = (&case.draws[0].array, case.f64("p"));
    let dropped: Vec<bool> = draw.values.iter().map(|uniform| f64::from(*uniform) < p).collect();
    // What the library leaves in is told by its weights.
    let policy = policy.without(&dropped).expect("as many as there are");
    let [b, k, ..] = policy.data().0.log_weights.dims();
    let lost = policy.data().0.log_weights.slice([0..b, 0..k, 0..1, 0..1, 0..1]).lower_elem(-1e6).float();
    let (x_src, t_src) = (tracked::<4>(case, "x_src"), numbers(case, "t_src"));
    let policy = Policy::from(policy);
    Computed::from([
        ("dropped".into(), lost.inner().into()),
        ("u".into(), policy.velocity(&tracked(case, "x_t"), &numbers(case, "t")).inner().into()),
        ("u_src".into(), policy.velocity(&x_src, &t_src).inner().into()),
    ])
}

fn substep_grid(case: &Case) -> SubstepGrid {
    SubstepGrid { shift: case.f64("shift"), substeps: case.f64("total_substeps") }
}

fn roll_out(case: &Case) -> Computed {
    let policy = policy(case, &mut Leaves { named: Vec::new() }).detached();
    let (from, to, substep_grid) = (numbers(case, "raw_start"), numbers(case, "raw_end"), substep_grid(case));
    let x = policy.roll_out(&case.input("x_start").tensor(), (&from, &to), substep_grid);
    let counts: Vec<f32> = from.iter().zip(&to).map(|(from, to)| substep_grid.count(*from, *to) as f32).collect();
    let ends: Vec<f32> = to.iter().map(|to| gmflow::policy::time(*to, substep_grid.shift) as f32).collect();
    let row = |values: Vec<f32>| Array { shape: vec![values.len()], values };
    Computed::from([("x_end".into(), x.into()), ("t_end".into(), row(ends)), ("substeps".into(), row(counts))])
}

fn mean_velocity(case: &Case) -> Computed {
    let mut leaves = Leaves { named: Vec::new() };
    let policy = policy(case, &mut leaves);
    let (from, to, substep_grid) = (numbers(case, "raw_start"), numbers(case, "raw_end"), substep_grid(case));
    let x = leaves.of4(case, "x_start");
    let u = policy.mean_velocity(&x, (&from, &to), substep_grid);
    let mut computed = probed(case, u, leaves);
    let counts =
        from.iter().zip(&to).map(|(from, to)| match ((from - to) * substep_grid.substeps).round_ties_even() < 2.0 {
            true => 0.0,
            false => substep_grid.count(*from, *to) as f32,
        });
    let counts: Vec<f32> = counts.collect();
    computed.insert("substeps".into(), Array { shape: vec![counts.len()], values: counts });
    computed
}
