//! Forecasts against what the queue and the engine do. Time is counted in rows that the network computes, so that no clock takes part.

use super::{Answering, Planner, Queue};
use crate::config::{ModelSource, ServerConfig};
use crate::engine::{Cost, Engine};
use crate::metrics::Metrics;
use crate::models::Registry;
use burn::tensor::Device;
use gmflow::checkpoint::{DataInfo, DataKind, Model, ModelInfo, Precision};
use gmflow::network::{GmDitConfig, NetworkConfig};
use gmflow_eval::ModelOptions;
use serde_json::{Value, json};
use std::path::Path;
use std::sync::Arc;

/// What a row costs: a thousand seconds, so that what is measured beside it makes no difference.
const ROW: Cost = Cost { call: 0.0, row: 1e3 };

/// Saves a transformer of drawn weights for images of 4x4 pixels.
fn tiny(folder: &Path) {
    let network = NetworkConfig::GmDit(GmDitConfig {
        num_gaussians: 2,
        num_attention_heads: 1,
        attention_head_dim: 8,
        num_layers: 1,
        sample_size: 4,
        patch_size: 2,
        in_channels: 1,
        num_embeds_ada_norm: 3,
        ..GmDitConfig::default()
    });
    let data = DataInfo { channels: 1, height: 4, width: 4, kind: DataKind::Image };
    let info = ModelInfo::new(network, data);
    let network = info.network.init(7, &Device::flex()).expect("a network");
    Model { info, network, spectrum: None, vae: None }.save(folder, &[], Precision::F32).expect("a model folder");
}

/// Submits jobs at once and gives, for each, the rows that were forecast to its end and those that were computed by then.
fn forecast_and_counted(requests: &[Value]) -> Vec<(f64, f64)> {
    let folder = tempfile::tempdir().unwrap();
    tiny(folder.path());
    let mut config = ServerConfig::new(Device::flex(), "cpu");
    let options = ModelOptions::default();
    config.models.push(ModelSource { id: "tiny".into(), folder: folder.path().into(), options });
    let long = std::time::Duration::from_secs(1 << 40);
    (config.limits.wait, config.limits.time) = (long, long);
    let (registry, metrics) = (Arc::new(Registry::new(&config, None).unwrap()), Arc::new(Metrics::default()));
    registry.load_named();
    let entry = registry.find(None).unwrap();
    entry.pace.fix(ROW);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let engine = Engine::start(config.limits.batch, Arc::clone(&metrics)).unwrap();
    let limits = config.limits.clone();
    let threads = runtime.handle().clone();
    let queue = Queue::new(engine, Arc::clone(&registry), Arc::clone(&metrics), limits.clone(), threads);
    let planner = Planner { registry, limits, device: Device::flex() };
    let rows = || -> f64 {
        let text = metrics.text(1);
        let line = text.lines().find_map(|line| line.strip_prefix("gmflow_batch_rows_sum "));
        line.and_then(|number| number.parse().ok()).expect("a figure")
    };
    let jobs: Vec<_> = requests
        .iter()
        .map(|request| {
            let plan = planner.plan(request.as_object().unwrap().clone(), Answering::Plain).unwrap();
            queue.submit(plan, false).unwrap()
        })
        .collect();
    let told = queue.describe();
    let began = rows();
    let ends: Vec<f64> = jobs.iter().map(|job| queue.eta(job) / ROW.row).collect();
    assert_eq!(told["jobs"].as_array().unwrap().len(), requests.len());
    let ended = std::sync::Mutex::new(vec![0.0; jobs.len()]);
    std::thread::scope(|scope| {
        for (index, job) in jobs.iter().enumerate() {
            let (runtime, ended, rows) = (&runtime, &ended, &rows);
            scope.spawn(move || {
                runtime.block_on(job.ended());
                ended.lock().unwrap()[index] = rows() - began;
            });
        }
    });
    queue.close();
    ends.into_iter().zip(ended.into_inner().unwrap()).collect()
}

fn within_two(told: &[(f64, f64)]) {
    for (index, (forecast, counted)) in told.iter().enumerate() {
        let ratio = forecast / counted.max(1.0);
        assert!(
            (0.5..=2.0).contains(&ratio),
            "job {index}: {forecast} rows were forecast, {counted} computed: {told:?}"
        );
    }
}

fn job(n: usize, steps: usize) -> Value {
    json!({ "n": n, "steps": steps, "seed": 1, "guidance": 0 })
}

#[test]
fn a_long_job_and_short_ones() {
    let told = forecast_and_counted(&[job(256, 200), job(1, 400), job(2, 300), job(16, 200)]);
    within_two(&told);
    assert!(told[1].1 < told[0].1 / 2.0, "the short one does not wait for the long one: {told:?}");
}

#[test]
fn many_equal_jobs_end_one_after_the_other() {
    within_two(&forecast_and_counted(&vec![job(16, 200); 12]));
}

#[test]
fn many_small_jobs_share_calls() {
    within_two(&forecast_and_counted(&vec![job(1, 300); 40]));
}
