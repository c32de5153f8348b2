//! Students in the layout of published checkpoints: written as the published code does, loaded, sampled, exported and loaded again.

use super::sampling::{Replay, classes_of, settings};
use crate::harness::{Case, Computed, device};
use crate::networks::weights;
use gmflow::checkpoint::{ExportOptions, Model, Precision, export_diffusers, write_tensors};
use gmflow::network::named_tensors;
use gmflow::pipeline::{Pipeline, SampleRequest, SamplerConfig, keep_going};
use gmflow::solver::{PiFlow, SolverConfig};
use serde_json::{Value, json};
use std::path::Path;

/// A whole sampling run of a transformer from a published folder; none for other cases.
pub fn run(case: &Case) -> Option<Computed> {
    let is_transformer = case.params["student"]["type"].as_str().is_some_and(|name| name.contains("DiT"));
    if case.op != "PiFlowImitation.forward_test" || !is_transformer {
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    write_published(case, folder.path());
    let model = Model::load(folder.path(), None, &device()).expect("a published student");
    let exported = tempfile::tempdir().expect("a folder");
    export_diffusers(&model, exported.path(), &ExportOptions::default()).expect("an exported student");
    let again = Model::load(exported.path(), None, &device()).expect("what was exported");
    assert_eq!(again.info, model.info, "{}", case.id);
    assert_eq!(named_tensors(&again.network), named_tensors(&model.network), "{}", case.id);
    Some(Computed::from([("out".into(), sampled(case, &again).into())]))
}

fn write_published(case: &Case, folder: &Path) {
    let write = |path: &str, value: &Value| {
        let path = folder.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        std::fs::write(path, value.to_string()).expect("written");
    };
    let mut network = case.params["student"].clone();
    let class = network["type"].take();
    let fields = network.as_object_mut().expect("a table");
    fields.remove("type");
    fields.insert("_class_name".into(), class.clone());
    write("transformer/config.json", &network);
    let tensors: Vec<_> = weights(case, "student").into_iter().collect();
    let path = folder.join("transformer/diffusion_pytorch_model.safetensors");
    write_tensors(&path, &tensors, Precision::F32).expect("written");
    let scheduler = json!({ "_class_name": "FlowMapSDEScheduler", "num_train_timesteps": case.params["time_scale"],
        "shift": case.params["shift"], "h": case.params["h"],
        "final_step_size_scale": case.params["final_step_size_scale"] });
    write("scheduler/scheduler_config.json", &scheduler);
    let scheduler = json!(["lakonlab", "FlowMapSDEScheduler"]);
    write("model_index.json", &json!({ "transformer": ["lakonlab", class], "scheduler": scheduler }));
}

/// With the model's own settings; what the layout does not say is the case's.
fn sampled(case: &Case, model: &Model) -> burn::tensor::Tensor<4> {
    let own = model.info.sampler_config();
    let SolverConfig::PiFlow(policy) = own.solver else { panic!("{own:?}") };
    let recorded = settings(case);
    let policy = PiFlow {
        substeps: recorded.substeps,
        temperature: recorded.temperature,
        grid_segment: policy.grid_segment.and(recorded.grid_segment),
        ..policy
    };
    let config = SamplerConfig { solver: SolverConfig::PiFlow(policy), steps: case.usize("steps"), ..own };
    let noise = case.input("noise").tensor::<4>();
    let [b, c, h, w] = noise.dims();
    let (classes, shape) = (classes_of(case), [c, h, w]);
    let request = SampleRequest { seeds: vec![0; b], classes, shape, noise: Some(noise) };
    let pipeline = Pipeline { network: &model.network, spectrum: None, device: device() };
    pipeline.run(&config, &request, &mut Replay::of(case), &mut keep_going, None).expect("samples")
}
