//! Losses of segments with all gradients, the data-free variant, and optimiser steps.

use super::networks::{classes, network, teacher_guidance};
use super::numbers;
use crate::harness::{Array, Case, Computed, device};
use crate::networks::{named_gradients, recording};
use burn::module::Module;
use burn::tensor::{Gradients, Tensor, TensorData};
use gmflow::distill::{Asked, Imitation, Segment, SegmentDraws, Teacher};
use gmflow::guidance::ReweightScale;
use gmflow::network::{Denoiser, Network, named_tensors};
use gmflow::optim::{AdamW, Optimizer};
use gmflow::path::forward_diffusion;
use gmflow::policy::{GridPolicy, MixturePolicy, Policy, Segments, SubstepGrid, time};
use std::collections::VecDeque;

pub fn run(case: &Case) -> Option<Computed> {
    match case.op.as_str() {
        "PiFlowImitation.sample_t" => Some(sources(case)),
        "ema_karras" => Some(momentum(case)),
        "PiFlowImitation.forward_train" => Some(on_data(case)),
        "PiFlowImitationDataFree.forward_train" => Some(data_free(case)),
        "piflow_train_loop" => Some(train_loop(case)),
        _ => None,
    }
}

fn row(values: impl IntoIterator<Item = f64>) -> Array {
    let values: Vec<f32> = values.into_iter().map(|value| value as f32).collect();
    Array { shape: vec![values.len()], values }
}

fn segments(case: &Case) -> Segments {
    let final_step_scale = case.f64("final_step_size_scale");
    Segments { steps: case.usize("nfe"), final_step_scale, shift: case.f64("shift") }
}

fn sources(case: &Case) -> Computed {
    let segments = segments(case);
    let chosen: Vec<usize> =
        case.draws[0].array.values.iter().map(|uniform| segments.holding(f64::from(*uniform))).collect();
    let begin = chosen.iter().map(|i| segments.begin(*i));
    Computed::from([
        ("raw_src".into(), row(begin.clone())),
        ("t_src".into(), row(begin.map(|raw| time(raw, segments.shift)))),
        ("segment".into(), row(chosen.iter().map(|i| segments.length(*i)))),
    ])
}

/// The decay of the average after an iteration, counted from 0; before it begins the average is a copy.
fn decay(iteration: f64, start: f64, gamma: f64) -> f64 {
    (1.0 - 1.0 / (iteration + 1.0 - start).max(1.0)).powf(gamma + 1.0)
}

fn momentum(case: &Case) -> Computed {
    let (start, gamma) = (case.f64("start_iter"), case.f64("gamma"));
    let of = numbers(case, "iteration").into_iter().map(|iteration| decay(iteration, start, gamma));
    Computed::from([("momentum".into(), row(of))])
}

/// The recorded draws in call order.
struct Draws(VecDeque<Array>);

impl Draws {
    fn of(case: &Case) -> Self {
        Self(case.draws.iter().map(|draw| draw.array.clone()).collect())
    }

    fn next(&mut self) -> Array {
        self.0.pop_front().expect("another recorded draw")
    }

    fn noise(&mut self) -> Tensor<4> {
        let Array { shape, values } = self.next();
        Tensor::from_data(TensorData::new(values, shape), &recording())
    }
}

/// What all segments of a case have in common.
struct Setting<'a> {
    case: &'a Case,
    teacher: Network,
    segments: Segments,
    imitation: Imitation,
}

impl<'a> Setting<'a> {
    fn new(case: &'a Case) -> Self {
        let imitation = Imitation {
            substep_grid: SubstepGrid { shift: case.f64("shift"), substeps: case.f64("total_substeps") },
            states: case.usize("num_intermediate_states"),
            window: case.f64("window_substeps"),
            teacher_ratio: case.f64("teacher_ratio"),
            loss_scale: case.f64("loss_scale"),
        };
        Self { case, teacher: network(case, "teacher", &device()), segments: segments(case), imitation }
    }

    /// The losses of the segments that begin at `x_src` and these raw times, and the rolling policy.
    fn segment(
        &self,
        student: &Network,
        x_src: Tensor<4>,
        (begin, lengths): (Vec<f64>, Vec<f64>),
        draws: &mut Draws,
    ) -> (Segment, Policy) {
        let (case, b) = (self.case, begin.len());
        let t: Vec<f64> = begin.iter().map(|raw| time(*raw, self.segments.shift)).collect();
        let times: Vec<f32> = t.iter().map(|t| *t as f32).collect();
        let times = Tensor::<1>::from_data(TensorData::new(times, [b]), &recording());
        let velocity = student.forward(x_src.clone(), times, classes(case, &recording()));
        let policy: Policy = match case.text("policy") {
            "DX" => {
                let kwargs = &case.params["policy_kwargs"];
                let trained_for = ["segment_size", "shift"].map(|name| kwargs[name].as_f64().expect("a number"));
                let trained_for = (trained_for[0], trained_for[1]);
                GridPolicy::new(velocity.0.means, x_src, t, trained_for).expect("shapes fit").into()
            }
            _ => MixturePolicy::new(velocity, x_src, t).expect("shapes fit").into(),
        };
        let rate = case.f64("policy_dropout");
        let rolling = match policy.detached() {
            Policy::Mixture(policy) if rate > 0.0 => {
                let dropped: Vec<bool> =
                    draws.next().values.iter().map(|uniform| f64::from(*uniform) < rate).collect();
                policy.without(&dropped).expect("as many as there are").into()
            }
            policy => policy,
        };
        let of_segment = SegmentDraws { student: draws.next().values, teacher: draws.next().values };
        let (guidance, interval) = teacher_guidance(&case.params["teacher_guidance"]);
        let teacher = Teacher { network: &self.teacher, guidance, interval, reweight_by: ReweightScale::Image };
        let class = classes(case, &device());
        let mut ask = |x: &Tensor<4>, t: &[f64]| teacher.velocity(x, t, class.as_ref());
        let segment = self.imitation.segment((&policy, &rolling), (&begin, lengths), &of_segment, &mut ask);
        (segment.expect("as many draws as wanted"), rolling)
    }

    /// The segment of a batch of data.
    fn on_data(&self, student: &Network, draws: &mut Draws) -> Segment {
        let uniforms = draws.next();
        let chosen: Vec<usize> =
            uniforms.values.iter().map(|uniform| self.segments.holding(f64::from(*uniform))).collect();
        let begin: Vec<f64> = chosen.iter().map(|i| self.segments.begin(*i)).collect();
        let lengths = chosen.iter().map(|i| self.segments.length(*i)).collect();
        let times: Vec<f32> = begin.iter().map(|raw| time(*raw, self.segments.shift) as f32).collect();
        let times = Tensor::<1>::from_data(TensorData::new(times, [begin.len()]), &recording());
        let x0 = Tensor::from_data(self.case.input("x_0").tensor::<4>().into_data(), &recording());
        let x_src = forward_diffusion(&x0, &times, &draws.noise());
        self.segment(student, x_src, (begin, lengths), draws).0
    }
}

/// The points asked, the times, and both velocities.
fn asked(all: &[Asked]) -> Computed {
    let cat = |of: &dyn Fn(&Asked) -> Tensor<4>| Tensor::cat(all.iter().map(of).collect::<Vec<_>>(), 0);
    Computed::from([
        ("points".into(), cat(&|asked| asked.x.clone()).into()),
        ("t".into(), row(all.iter().flat_map(|asked| asked.t.clone()))),
        ("u_teacher".into(), cat(&|asked| asked.teacher.clone()).into()),
        ("u_policy".into(), cat(&|asked| asked.policy.clone().inner()).into()),
    ])
}

/// All gradients; those of parameters that have none are zeros.
fn gradients(case: &Case, student: &Network, gradients: &Gradients, computed: &mut Computed) {
    computed.extend(named_gradients(student, gradients));
    for (name, expected) in &case.outputs {
        if name.starts_with("grad_") && !computed.contains_key(name) {
            let shape = expected.array.shape.clone();
            let values = vec![0.0; expected.array.values.len()];
            computed.insert(name.clone(), Array { shape, values });
        }
    }
}

fn on_data(case: &Case) -> Computed {
    let (setting, student) = (Setting::new(case), network(case, "student", &recording()));
    let segment = setting.on_data(&student, &mut Draws::of(case));
    let loss = segment.losses.mean();
    let mut computed = asked(&segment.asked);
    gradients(case, &student, &loss.backward(), &mut computed);
    computed.insert("loss".into(), loss.inner().into());
    computed
}

fn data_free(case: &Case) -> Computed {
    let (setting, student) = (Setting::new(case), network(case, "student", &recording()));
    let mut draws = Draws::of(case);
    let mut x_src = draws.noise();
    let b = x_src.dims()[0];
    let (mut losses, mut sources, mut all) = (Vec::new(), Vec::new(), Vec::new());
    for i in (1..=setting.segments.steps).rev() {
        sources.push(x_src.clone().inner());
        let (begin, length) = (setting.segments.begin(i), setting.segments.length(i));
        let (segment, rolling) = setting.segment(&student, x_src, (vec![begin; b], vec![length; b]), &mut draws);
        losses.push(segment.losses.mean() * length);
        let end = vec![(begin - length).max(0.0); b];
        let x = rolling.roll_out(&segment.x, (&segment.raw, &end), setting.imitation.substep_grid);
        x_src = Tensor::from_data(x.into_data(), &recording());
        all.extend(segment.asked);
    }
    let losses = Tensor::cat(losses, 0);
    let loss = losses.clone().sum();
    let mut computed = asked(&all);
    gradients(case, &student, &loss.backward(), &mut computed);
    computed.insert("x_src".into(), Tensor::stack::<5>(sources, 0).into());
    computed.insert("losses".into(), losses.inner().into());
    computed.insert("loss".into(), loss.inner().into());
    computed
}

/// Steps of AdamW with warm-up, clipping and the power average, as the recorded loop makes them.
fn train_loop(case: &Case) -> Computed {
    let setting = Setting::new(case);
    let mut student = network(case, "student", &recording());
    let beta = |i: usize| case.params["betas"][i].as_f64().expect("a number");
    let rule = AdamW {
        lr: 0.0,
        beta1: beta(0),
        beta2: beta(1),
        eps: case.f64("adam_eps"),
        weight_decay: case.f64("weight_decay"),
    };
    let mut optimizer = Optimizer::new(rule);
    let (mut draws, mut losses, mut norms) = (Draws::of(case), Vec::new(), Vec::new());
    let mut average: Vec<Vec<f64>> = Vec::new();
    for i in 0..case.usize("steps") {
        let warmup = case.f64("warmup_iters");
        let cold = (1.0 - i as f64 / warmup).max(0.0) * (1.0 - case.f64("warmup_ratio"));
        optimizer.rule.lr = case.f64("lr") * (1.0 - cold);
        let mut again = Draws(draws.0.clone());
        let loss = setting.on_data(&student, &mut draws).losses.mean();
        losses.push(f64::from(loss.clone().into_scalar::<f32>()));
        let gradients = loss.backward();
        let squares = named_gradients(&student, &gradients).into_values().flat_map(|array| array.values);
        let norm = squares.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        norms.push(norm);
        // A loss of a smaller scale has the clipped gradient; a graph is gone back through once.
        let clips = i >= case.usize("clip_begin");
        let factor = if clips { (case.f64("clip_grad_norm") / (norm + 1e-6)).min(1.0) } else { 1.0 };
        let clipped = (setting.on_data(&student, &mut again).losses.mean() * factor).backward();
        student = optimizer.step(student, clipped);
        let now: Vec<Vec<f64>> = named_tensors(&student.valid())
            .into_iter()
            .map(|(_, tensor)| tensor.values.into_iter().map(f64::from).collect())
            .collect();
        let keep = decay(i as f64, case.f64("ema_start"), case.f64("ema_gamma"));
        if average.is_empty() {
            average = now.clone();
        }
        for (average, now) in average.iter_mut().flatten().zip(now.iter().flatten()) {
            *average = keep * *average + (1.0 - keep) * now;
        }
    }
    let mut computed = Computed::from([("losses".into(), row(losses)), ("grad_norms".into(), row(norms))]);
    for ((name, tensor), average) in named_tensors(&student.valid()).into_iter().zip(average) {
        computed.insert(format!("ema_{name}"), row(average));
        computed.insert(format!("param_{name}"), Array { shape: tensor.shape, values: tensor.values });
    }
    computed
}
