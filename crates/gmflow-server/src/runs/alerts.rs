//! What is wrong with a run.

use serde_json::{Value, json};

/// Lines that the last one is compared with, and standard deviations beyond which it is a spike.
const BEFORE: usize = 20;
const SPIKE: f64 = 10.0;
/// A run stalls that is silent for so many times as long as between its lines, and so many seconds.
const PATIENCE: f64 = 10.0;
const LEAST_SILENCE: f64 = 60.0;

/// What is wrong, by the last lines of a log, the seconds that a running run has been silent, and whether a step was not finite.
pub(crate) fn of(tail: &[Value], silent: Option<f64>, failed: bool) -> Vec<Value> {
    let step = tail.last().map(|line| line["step"].clone());
    let alert = |kind: &str, message: String| json!({ "kind": kind, "step": step, "message": message });
    let mut alerts = Vec::new();
    let broken = tail.last().is_some_and(|line| {
        ["loss", "grad_norm"].iter().any(|name| !line[name].is_f64() && !line[name].is_i64() && !line[name].is_u64())
    });
    if failed || broken {
        alerts.push(alert("nan", "a step was not finite; the folder failure/ has more".into()));
    }
    if let (Some(silent), Some(usual)) = (silent, between(tail))
        && silent > (PATIENCE * usual).max(LEAST_SILENCE)
    {
        alerts.push(alert("stall", format!("no line for {silent:.0} s; usually there is one every {usual:.1} s")));
    }
    if let Some((loss, mean, std)) = spike(tail) {
        let message =
            format!("the loss is {loss:.4}, and was {mean:.4} with a standard deviation of {std:.4} before");
        alerts.push(alert("spike", message));
    }
    alerts
}

/// Seconds between the last lines, by their pace.
fn between(tail: &[Value]) -> Option<f64> {
    let [.., before, last] = tail else { return None };
    let images = last["images"].as_f64()? - before["images"].as_f64()?;
    let pace = last["images_per_s"].as_f64()?;
    (images > 0.0 && pace > 0.0).then(|| images / pace)
}

/// The last loss, where it lies far above those before, with their mean and standard deviation.
fn spike(tail: &[Value]) -> Option<(f64, f64, f64)> {
    let losses: Vec<f64> = tail.iter().filter_map(|line| line["loss"].as_f64()).collect();
    let (last, before) = losses.split_last()?;
    let before = before.get(before.len().checked_sub(BEFORE)?..)?;
    let mean = before.iter().sum::<f64>() / BEFORE as f64;
    let var = before.iter().map(|loss| (loss - mean).powi(2)).sum::<f64>() / BEFORE as f64;
    let std = var.sqrt();
    (std > 0.0 && last - mean > SPIKE * std).then_some((*last, mean, std))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(losses: &[f64]) -> Vec<Value> {
        let line = |(index, loss): (usize, &f64)| json!({ "step": index, "images": 100 * index, "loss": loss, "grad_norm": 1.0, "images_per_s": 50.0 });
        losses.iter().enumerate().map(line).collect()
    }

    fn kinds(alerts: &[Value]) -> Vec<&str> {
        alerts.iter().filter_map(|alert| alert["kind"].as_str()).collect()
    }

    #[test]
    fn a_steady_run_has_no_alert() {
        let steady: Vec<f64> = (0..40).map(|i| 1.0 + 0.1 * f64::from(i % 3)).collect();
        assert!(of(&lines(&steady), Some(30.0), false).is_empty());
        assert!(of(&[], Some(1e9), false).is_empty());
        assert!(of(&lines(&[1.0]), None, false).is_empty());
    }

    #[test]
    fn what_is_wrong_is_told() {
        let mut losses: Vec<f64> = (0..40).map(|i| 1.0 + 0.1 * f64::from(i % 3)).collect();
        losses.push(9.0);
        assert_eq!(kinds(&of(&lines(&losses), None, false)), ["spike"]);
        assert_eq!(kinds(&of(&lines(&[1.0, 1.0]), Some(61.0), false)), ["stall"], "a line every 2 s");
        assert_eq!(kinds(&of(&lines(&[1.0]), None, true)), ["nan"]);
        let mut null = lines(&[1.0]);
        null[0]["loss"] = Value::Null;
        assert_eq!(kinds(&of(&null, None, false)), ["nan"]);
    }
}
