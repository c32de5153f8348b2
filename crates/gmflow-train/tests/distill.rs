//! Distillation in the trainer: a student learns its teacher, a stopped run continues bit for bit, and what cannot be is refused.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use burn::tensor::Device;
use gmflow::checkpoint::{DataInfo, DataKind, Model, ModelInfo, Precision};
use gmflow::network::{HostTensor, Mlp2dConfig, NetworkConfig, load_named, named_tensors};
use gmflow::solver::SolverConfig;
use gmflow_train::config::Config;
use gmflow_train::log::LogLine;
use gmflow_train::{Observer, Outcome, Run, Silent, StepReport, Trainer, params};

mod common;

/// A perceptron with its weights times `scale`.
fn teacher(folder: &Path, components: usize, scale: f32) -> PathBuf {
    let config = Mlp2dConfig {
        num_gaussians: components,
        embed_dim: 16,
        hidden_dim: 24,
        num_layers: 3,
        pos_min_period: 8.0,
        ..Mlp2dConfig::default()
    };
    let (device, config) = (Device::flex(), NetworkConfig::Mlp2d(config));
    let network = config.init(5, &device).expect("a network");
    let scaled = |(name, tensor): (String, HostTensor)| {
        // Without weights it is the same velocity everywhere.
        let bias = if scale == 0.0 && name == "out_means.bias" { 1.0 } else { 0.0 };
        let values = tensor.values.into_iter().map(|value| value * scale + bias).collect();
        (name, HostTensor { values, ..tensor })
    };
    let tensors: std::collections::BTreeMap<_, _> = named_tensors(&network).into_iter().map(scaled).collect();
    let network = load_named(network, tensors).expect("weights");
    let data = DataInfo { channels: 2, height: 1, width: 1, kind: DataKind::Points };
    let model = Model { info: ModelInfo::new(config, data), network, spectrum: None, vae: None };
    let path = folder.join(format!("teacher-{components}-{scale}"));
    model.save(&path, &[], Precision::F32).expect("a folder");
    path
}

fn text(teacher: &Path, more: &str) -> String {
    format!(
        "[data.source]\nkind = \"density\"\nname = \"checkerboard\"\n[distill]\nteacher = {teacher:?}\ncomponents = 4\n\
         substeps = 16\n{more}\n[train]\nbatch_size = 32\nsteps = 20\nlr = 3e-3\nseed = 3\n[[ema]]\nname = \"ema\"\n\
         decay = {{ kind = \"power-from\", gamma = 7.0, start = 4 }}\n[checkpoint]\nevery = 5\n[log]\nevery = 5\n"
    )
}

fn config(teacher: &Path, more: &str) -> Config {
    let config = Config::parse(&text(teacher, more), Path::new("student.toml"), &[]).expect("a configuration");
    config.validate().expect("values in their domains");
    config
}

fn weights(trainer: &Trainer) -> Vec<Vec<f32>> {
    params::values(&trainer.snapshot(None).expect("a network")).expect("f32")
}

fn steps(config: Config, count: usize) -> (Vec<StepReport>, Vec<Vec<f32>>) {
    let mut trainer = Trainer::new(config, &Device::flex()).expect("a trainer");
    let reports = (0..count).map(|_| trainer.step().expect("a step")).collect();
    (reports, weights(&trainer))
}

#[test]
fn a_student_learns_its_teacher() {
    let folder = tempfile::tempdir().expect("a folder");
    let (plain, other) = (teacher(folder.path(), 1, 0.0), teacher(folder.path(), 4, 1.0));
    for more in ["component_dropout = 0.1", "steps = 2\ndata_free = true", "policy = \"grid\"\nwindow = 2.0"] {
        let mut config = config(&plain, more);
        (config.train.from, config.train.lr) = (Some(other.clone()), 2e-2);
        let (reports, _) = steps(config, 200);
        let mean = |part: &[StepReport]| part.iter().map(|report| report.loss).sum::<f64>() / part.len() as f64;
        let (first, last) = (mean(&reports[..5]), mean(&reports[180..]));
        assert!(last < 0.3 * first, "{more}: {first}, then {last}");
        assert!(reports.iter().all(|report| report.largest_loss.is_some_and(|largest| largest >= report.loss)));
    }
}

/// In one step all samples begin from noise: what the data are makes no difference, and the two variants are one.
#[test]
fn in_one_step_data_free_is_data_dependent() {
    let folder = tempfile::tempdir().expect("a folder");
    let teacher = teacher(folder.path(), 1, 1.0);
    let more = "component_dropout = 0.2";
    let (on_data, of_data) = steps(config(&teacher, more), 3);
    let (without, of_noise) = steps(config(&teacher, &format!("{more}\ndata_free = true")), 3);
    assert_eq!(of_data, of_noise);
    assert_eq!(on_data, without);
}

/// Accumulation changes no more than the rounding of sums.
#[test]
fn parts_of_a_batch_give_the_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let teacher = teacher(folder.path(), 1, 1.0);
    for more in ["steps = 2\ncomponent_dropout = 0.2\nteacher_decay_steps = 9", "steps = 2\ndata_free = true"] {
        let whole = config(&teacher, more);
        let mut parts = whole.clone();
        parts.train.micro_batch = Some(12);
        let ((a, _), (b, _)) = (steps(whole, 2), steps(parts, 2));
        for (a, b) in a.iter().zip(&b) {
            assert!((a.loss - b.loss).abs() < 1e-4 * a.loss, "{more}: {} and {}", a.loss, b.loss);
            assert!((a.grad_norm - b.grad_norm).abs() < 1e-3 * a.grad_norm);
        }
    }
}

/// Stops after so many steps.
struct StopAfter<'a>(u64, &'a AtomicBool);

impl Observer for StopAfter<'_> {
    fn on_step(&mut self, report: &StepReport) {
        self.1.store(report.step >= self.0, Ordering::Relaxed);
    }
}

#[test]
fn a_stopped_run_continues_bit_for_bit_and_its_model_says_how_it_is_sampled() {
    let folder = tempfile::tempdir().expect("a folder");
    let teacher = teacher(folder.path(), 1, 1.0);
    let more = "steps = 2\nfinal_step_scale = 0.5\nshift = 2.0\ncomponent_dropout = 0.2\nteacher_decay_steps = 9";
    let (whole, broken) = (folder.path().join("whole"), folder.path().join("broken"));
    let device = Device::flex();
    let mut run = Run::create(config(&teacher, more), &whole, false, &device).expect("a run");
    assert_eq!(run.run(&AtomicBool::new(false), &mut Silent).expect("training"), Outcome::Finished);
    let stop = AtomicBool::new(false);
    let mut run = Run::create(config(&teacher, more), &broken, false, &device).expect("a run");
    assert_eq!(run.run(&stop, &mut StopAfter(7, &stop)).expect("training"), Outcome::Stopped);
    drop(run);
    let mut run = Run::resume(&broken, &[], &device).expect("the run");
    assert_eq!(run.run(&AtomicBool::new(false), &mut Silent).expect("training"), Outcome::Finished);
    for file in ["model.safetensors", "ema.ema.safetensors", "optimizer.safetensors", "state.json"] {
        let read = |run: &Path| std::fs::read(run.join("checkpoints/step-00000020").join(file)).expect("a file");
        assert!(read(&whole) == read(&broken), "{file} differs");
    }
    let model = Model::open(&whole).expect("the student");
    let student = model.info.student.as_ref().expect("a student");
    let sampler = model.info.sampler_config();
    assert_eq!((student.steps, sampler.steps, sampler.shift), (2, 2, 2.0));
    assert_eq!(student.teacher.as_ref().map(|teacher| teacher.name.as_str()), Some("teacher-1-1"));
    let SolverConfig::PiFlow(policy) = sampler.solver else { panic!("{sampler:?}") };
    assert_eq!((policy.final_step_scale, policy.substeps, policy.grid_segment), (0.5, 16, None));
    assert_eq!(model.sampler().seeds(0..4).sample().expect("points").seeds.len(), 4);
    let log = std::fs::read_to_string(whole.join("log.jsonl")).expect("a log");
    let line: LogLine = serde_json::from_str(log.lines().last().expect("a line")).expect("JSON");
    assert!(line.largest_loss.is_some_and(|largest| largest >= line.loss) && line.skipped == 0, "{line:?}");
    assert!(line.transition_bits_per_dim.is_none());
}

/// A teacher that answers with numbers too large to be squared.
#[test]
fn batches_that_are_not_finite_are_passed_over_or_end_the_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let (good, bad) = (teacher(folder.path(), 1, 1.0), teacher(folder.path(), 1, 1e9));
    let mut skipping = config(&bad, "");
    // The student must not begin as such a teacher.
    let from = folder.path().join("from");
    let mut run = Run::create(config(&good, ""), &from, false, &Device::flex()).expect("a run");
    run.run(&AtomicBool::new(false), &mut Silent).expect("training");
    skipping.train.from = Some(from);
    let mut trainer = Trainer::new(skipping.clone(), &Device::flex()).expect("a trainer");
    let before = weights(&trainer);
    let report = trainer.step().expect("a step");
    assert!(report.skipped && report.step == 1 && report.largest_loss.is_none(), "{report:?}");
    assert_eq!(weights(&trainer), before);
    let mut stopping = skipping;
    stopping.distill.as_mut().expect("distillation").skip_non_finite = false;
    let mut trainer = Trainer::new(stopping, &Device::flex()).expect("a trainer");
    assert!(trainer.step().expect_err("a stop").to_string().contains("is not finite"));
}

#[test]
fn what_cannot_be_distilled_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let teacher = teacher(folder.path(), 3, 1.0);
    let refused = |config: Config| Trainer::new(config, &Device::flex()).expect_err("refused").to_string();
    assert!(
        refused(config(&teacher, "")).contains("network.num_gaussians: expected 3"),
        "another number of components"
    );
    let values = [
        ("steps = 0", "distill.steps"),
        ("final_step_scale = 1.5", "distill.final_step_scale"),
        ("states = 0", "distill.states"),
        ("component_dropout = 1.0", "distill.component_dropout"),
        ("window = -1.0", "distill.window"),
        ("guidance_interval = [0.8, 0.2]", "distill.guidance_interval"),
        ("loss_scale = 0.0", "distill.loss_scale"),
    ];
    for (more, field) in values {
        let config = Config::parse(&text(&teacher, more), Path::new("student.toml"), &[]).expect("a configuration");
        let message = config.validate().expect_err("refused").to_string();
        assert!(message.starts_with(&format!("{field}: ")), "{more}: {message}");
    }
    let guided = "guidance = { kind = \"classifier-free\", scale = 2.0, orthogonal = 0.0 }";
    let mut classless = config(&teacher, guided);
    classless.distill.as_mut().expect("distillation").components = Some(3);
    assert!(refused(classless).contains("distill.guidance: expected none"));
    let mut dropping = config(&teacher, "");
    dropping.train.label_dropout = 0.1;
    assert!(dropping.validate().expect_err("refused").to_string().contains("train.label_dropout"));
    let gone = config(&folder.path().join("gone"), "");
    assert!(refused(gone).contains("gone"));
}
