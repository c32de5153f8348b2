//! Learning rate and averages against closed forms.

use gmflow_train::Config;
use gmflow_train::config::{EmaDecay, Schedule};
use gmflow_train::schedule::learning_rate;

mod common;

fn config(schedule: Schedule, warmup_steps: u64) -> Config {
    let mut config = common::tiny_config();
    config.train.lr = 2.0;
    config.train.schedule = schedule;
    config.train.warmup_steps = warmup_steps;
    config
}

#[test]
fn warm_up_is_linear_and_reaches_the_full_rate() {
    let config = config(Schedule::Constant, 4);
    let rates: Vec<f64> = (0..6).map(|step| learning_rate(&config.train, step, 100)).collect();
    assert_eq!(rates, [0.5, 1.0, 1.5, 2.0, 2.0, 2.0]);
}

#[test]
fn cosine_holds_then_falls_to_its_final_value() {
    let config = config(Schedule::Cosine { hold: 0.5, final_ratio: 0.1 }, 10);
    let rate = |step| learning_rate(&config.train, step, 110);
    assert_eq!(rate(10), 2.0);
    assert_eq!(rate(60), 2.0);
    assert!((rate(85) - 2.0 * 0.55).abs() < 1e-12, "{}", rate(85));
    assert!((rate(110) - 0.2).abs() < 1e-12);
    assert!((rate(1000) - 0.2).abs() < 1e-12);
}

#[test]
fn ramp_up_limits_the_half_life_at_first() {
    let ema = EmaDecay::RampUp { half_life: 1000.0, ratio: 0.1 };
    // After 10 steps of 100 images the half-life is 100 images: one step.
    assert!((ema.at(10, 100) - 0.5).abs() < 1e-12);
    assert!((ema.at(100_000, 100) - 0.5f64.powf(0.1)).abs() < 1e-12);
}

#[test]
fn power_average_has_the_asked_width() {
    for std in [0.05, 0.1, 0.2] {
        // The recursion's weights on a ramp of values i/n have that standard deviation.
        let (n, ema) = (4000u64, EmaDecay::Power { std });
        let (mut mean, mut square) = (0.0, 0.0);
        for step in 1..=n {
            let (decay, x) = (ema.at(step, 1), step as f64 / n as f64);
            mean = decay * mean + (1.0 - decay) * x;
            square = decay * square + (1.0 - decay) * x * x;
        }
        assert!(((square - mean * mean).sqrt() - std).abs() < 1e-3, "{std}");
    }
}

#[test]
fn power_average_starts_at_the_first_weights() {
    assert_eq!(EmaDecay::Power { std: 0.1 }.at(1, 8), 0.0);
}
