//! The loop: loss falls, accumulation, averages, failures.

use gmflow_train::{Config, Error, Trainer, params};

mod common;

fn train(config: Config, steps: u64) -> (Vec<f64>, Trainer) {
    let mut trainer = Trainer::new(config, &common::device()).expect("a trainer");
    let losses = (0..steps).map(|_| trainer.step().expect("a step").loss).collect();
    (losses, trainer)
}

fn weights(trainer: &Trainer) -> Vec<f32> {
    params::values(&trainer.snapshot(None).expect("weights")).expect("f32").concat()
}

fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// The Euclidean distance.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>().sqrt()
}

#[test]
fn loss_falls_for_mixture_and_baseline() {
    for overrides in [
        vec!["train.batch_size=256"],
        vec!["train.batch_size=256", "network.num_gaussians=1", "network.constant_logstd=0.0", "loss={kind=\"l2\"}"],
    ] {
        let (losses, _) = train(common::tiny_with(&overrides), 150);
        let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
        let (first, last) = (mean(&losses[..10]), mean(&losses[140..]));
        assert!(last < first - 0.05, "{overrides:?}: {first} to {last}");
    }
}

#[test]
fn accumulation_equals_the_full_batch() {
    let (full_losses, full) = train(common::tiny_config(), 5);
    // 64 = 24 + 24 + 16: parts of unequal size must be weighted.
    let (part_losses, parts) = train(common::tiny_with(&["train.micro_batch=24"]), 5);
    for (a, b) in full_losses.iter().zip(&part_losses) {
        assert!((a - b).abs() < 1e-5, "{a} and {b}");
    }
    // AdamW divides a gradient by its own size: where it is hardly more than the rounding of a sum, so is the step of that weight. Hence
    // the distance of all weights together, as a share of their way; parts weighted equally, whatever their size, give 0.096.
    let (full, parts) = (weights(&full), weights(&parts));
    let way = distance(&full, &weights(&train(common::tiny_config(), 0).1));
    let share = distance(&full, &parts) / way;
    println!("{share:.2e} of a way of {way:.2e}");
    assert!(share < 1e-4, "{share} of a way of {way}");
}

#[test]
fn the_same_seed_gives_the_same_weights_and_another_does_not() {
    let (_, a) = train(common::tiny_config(), 4);
    let (_, b) = train(common::tiny_config(), 4);
    let (_, c) = train(common::tiny_with(&["train.seed=4"]), 4);
    assert_eq!(weights(&a), weights(&b));
    assert_ne!(weights(&a), weights(&c));
}

#[test]
fn gradient_checkpointing_changes_nothing() {
    let (_, a) = train(common::tiny_config(), 3);
    let (_, b) = train(common::tiny_with(&["train.gradient_checkpointing=true"]), 3);
    let difference = largest_difference(&weights(&a), &weights(&b));
    assert!(difference < 1e-6, "{difference}");
}

#[test]
fn in_bf16_training_goes_nearly_the_same_way_and_weights_stay_f32() {
    let (_, a) = train(common::tiny_config(), 5);
    let (_, b) = train(common::tiny_with(&["train.precision=\"bf16\""]), 5);
    let (a, b) = (weights(&a), weights(&b));
    let moved = largest_difference(&a, &weights(&train(common::tiny_config(), 0).1));
    let difference = largest_difference(&a, &b);
    assert!(difference < 0.5 * moved, "{difference} apart after a way of {moved}");
    let available = gmflow::kernel::MatmulPrecision::Bf16.is_available_on(&common::device());
    if available {
        // Where the dot product of bf16 is slow, linear layers are trained in f32.
        let rounds = gmflow::kernel::bf16_products() == gmflow::kernel::Bf16Products::DotProduct;
        assert_eq!(a != b, rounds, "whether something was rounded");
    }
    let rounded = |x: f32| f32::from_bits(x.to_bits() & 0xffff_0000);
    assert!(b.iter().any(|&x| x != rounded(x)), "weights are not rounded");
}

/// The run's own configuration names the precision, so that it continues in the same on any machine.
#[test]
fn auto_is_settled_when_the_run_begins() {
    let device = common::device();
    let (_, auto) = train(common::tiny_with(&["train.precision=\"auto\""]), 3);
    let settled = auto.config().train.precision;
    assert_eq!(settled.asked(), Some(gmflow::kernel::fastest_floats(&device)));
    let name = serde_json::to_string(&settled).expect("a name");
    let (_, by_name) = train(common::tiny_with(&[&format!("train.precision={name}")]), 3);
    assert_eq!(weights(&auto), weights(&by_name), "{name}");
    // The configuration that the run was begun with is no other than that of the run.
    let mut begun = common::tiny_with(&["train.precision=\"auto\""]);
    begun.fit_like(auto.config());
    assert!(auto.config().differences(&begun).expect("configurations").is_empty());
}

#[test]
fn the_average_is_the_geometric_sum_of_the_weights() {
    let mut trainer = Trainer::new(common::tiny_config(), &common::device()).expect("a trainer");
    let mut expected: Vec<f64> = weights(&trainer).into_iter().map(f64::from).collect();
    for _ in 0..6 {
        trainer.step().expect("a step");
        for (average, weight) in expected.iter_mut().zip(weights(&trainer)) {
            *average = 0.9 * *average + 0.1 * f64::from(weight);
        }
    }
    let average = params::values(&trainer.snapshot(Some("ema")).expect("average")).expect("f32").concat();
    let expected: Vec<f32> = expected.into_iter().map(|value| value as f32).collect();
    let difference = largest_difference(&average, &expected);
    assert!(difference < 1e-6, "{difference}");
    assert!(trainer.snapshot(Some("other")).is_err());
}

#[test]
fn a_loss_that_is_not_finite_stops_with_a_dump_and_leaves_the_weights() {
    let folder = tempfile::tempdir().expect("a folder");
    // A learning rate this large overflows the weights in the first steps.
    let config = common::tiny_with(&["train.lr=1e30"]);
    let mut trainer = Trainer::new(config, &common::device()).expect("a trainer");
    trainer.set_dump_folder(folder.path().to_path_buf());
    let mut before = weights(&trainer);
    let error = loop {
        match trainer.step() {
            Ok(_) => before = weights(&trainer),
            Err(error) => break error,
        }
        assert!(trainer.steps_taken() < 10, "must overflow");
    };
    assert!(matches!(error, Error::NonFinite { dump: Some(_), .. }), "{error}");
    let after = weights(&trainer);
    assert!(before.iter().zip(&after).all(|(a, b)| a.to_bits() == b.to_bits()));
    let report = std::fs::read_to_string(folder.path().join("report.json")).expect("report");
    let report: serde_json::Value = serde_json::from_str(&report).expect("JSON");
    assert_eq!(report["step"], trainer.steps_taken() + 1);
    assert_eq!(report["times"].as_array().map(Vec::len), Some(64));
    assert!(
        report["gradient_norms"]["net.0.weight"].is_number() || report["gradient_norms"]["net.0.weight"].is_string()
    );
    let bytes = std::fs::read(folder.path().join("batch.safetensors")).expect("batch");
    let batch = safetensors::SafeTensors::deserialize(&bytes).expect("tensors");
    assert_eq!(batch.tensor("x0").expect("x0").shape(), [64, 2, 1, 1]);
}
