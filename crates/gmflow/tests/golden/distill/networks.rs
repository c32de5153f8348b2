//! Networks of students and teachers, the start of a student, and guided velocities.

use super::numbers;
use crate::harness::{Array, Case, Computed, device};
use crate::networks::{config, weights};
use burn::tensor::{Device, Int, Tensor};
use gmflow::distill::{StudentHead, Teacher, student};
use gmflow::guidance::{Guidance, ReweightScale};
use gmflow::network::{
    Denoiser, GmDitConfig, GmDitHead, HostTensor, Mlp2dConfig, Network, NetworkConfig, load_named, named_tensors,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub fn run(case: &Case) -> Option<Computed> {
    match case.op.as_str() {
        "GMDiTTransformer2DModelV2" => Some(forward(case, "student")),
        "DXDiTTransformer2DModel" => Some(forward(case, "student")),
        "DiTTransformer2DModelMod" => Some(forward(case, "teacher")),
        "student_init" => Some(start(case)),
        "GaussianFlow.forward_u" => Some(guided(case, "teacher")),
        "GMFlow.forward_u" => Some(guided(case, "student")),
        _ => None,
    }
}

/// The architecture that `params` tells.
fn shape(params: &Value, time_scale: f64) -> NetworkConfig {
    let mut params = params.clone();
    let fields = params.as_object_mut().expect("a table");
    fields.remove("output");
    let head = match params["type"].as_str().expect("a type") {
        "GMFlowMLP2DDenoiser" => return NetworkConfig::Mlp2d(config::<Mlp2dConfig>(&params)),
        "GMDiTTransformer2DModelV2" => GmDitHead::TwoParts,
        "DXDiTTransformer2DModel" | "DiTTransformer2DModelMod" => {
            let points = params.as_object_mut().and_then(|fields| fields.remove("n_grid")).unwrap_or(json!(1));
            params["num_gaussians"] = points;
            GmDitHead::Means
        }
        other => panic!("network {other}"),
    };
    NetworkConfig::GmDit(GmDitConfig { head, time_scale, ..config(&params) })
}

/// A recorded network.
pub fn network(case: &Case, name: &str, device: &Device) -> Network {
    let shape = shape(&case.params[name], case.f64_or("time_scale", 1000.0));
    load_named(shape.init(0, device).expect("a valid network"), weights(case, name)).expect("all weights")
}

/// The labels of a case.
pub fn classes(case: &Case, device: &Device) -> Option<Tensor<1, Int>> {
    let labels = case.inputs.get("class_labels")?;
    Some(Tensor::from_data(labels.tensor::<1>().int().into_data(), device))
}

fn forward(case: &Case, name: &str) -> Computed {
    let network = network(case, name, &device());
    let mixture = network.forward(case.input("x").tensor(), case.input("t").tensor(), classes(case, &device())).0;
    Computed::from([
        ("out".into(), mixture.means.clone().into()),
        ("means".into(), mixture.means.into()),
        ("logweights".into(), mixture.log_weights.into()),
        ("logstds".into(), mixture.log_std.into()),
    ])
}

/// The student's head, with the recorded noise in place of the library's: it lies in the biases of the means, from where it is taken.
fn start(case: &Case) -> Computed {
    let student_shape = shape(&case.params["student"], 1000.0);
    let NetworkConfig::GmDit(new) = &student_shape else { panic!("a transformer") };
    let head = if case.text("source") == "plain" { GmDitHead::Means } else { GmDitHead::OnePart };
    let old = NetworkConfig::GmDit(GmDitConfig { num_gaussians: 1, head, ..new.clone() });
    let mut tensors: BTreeMap<String, HostTensor> =
        named_tensors(&old.init(3, &device()).expect("a teacher")).into_iter().collect();
    for (name, array) in &case.inputs {
        let name = name.strip_prefix("teacher.").expect("a tensor of the teacher");
        tensors.insert(name.into(), HostTensor { shape: array.shape.clone(), values: array.values.clone() });
    }
    let teacher = load_named(old.init(0, &device()).expect("a teacher"), tensors).expect("all weights");
    let kind = if new.head == GmDitHead::Means { StudentHead::Grid } else { StudentHead::Mixture };
    let made = student(&teacher, &student_shape, kind, 7, &device()).expect("a student");
    let mut computed = Computed::new();
    for (name, tensor) in named_tensors(&made) {
        computed.insert(name, Array { shape: tensor.shape, values: tensor.values });
    }
    if let Some(draw) = case.draws.first() {
        let ours = gmflow::rng::normals(7, gmflow::rng::Purpose::StudentStart, 0, draw.array.values.len());
        let bias = computed.get_mut("proj_out_means.bias").expect("a bias");
        let count = ours.len();
        for (i, bias) in bias.values.iter_mut().enumerate() {
            *bias += 0.05 * (draw.array.values[i % count] - ours[i % count]);
        }
    }
    computed
}

/// The guidance that a case's parameters tell.
pub fn teacher_guidance(params: &Value) -> (Guidance, Option<[f64; 2]>) {
    let Some(scale) = params["scale"].as_f64() else { return (Guidance::Off, None) };
    let interval = params["interval"].as_array().map(|ends| [0, 1].map(|i| ends[i].as_f64().expect("a time")));
    (Guidance::ClassifierFree { scale, orthogonal: params["orthogonal"].as_f64().unwrap_or(0.0) }, interval)
}

fn guided(case: &Case, name: &str) -> Computed {
    let network = network(case, name, &device());
    let (scale, orthogonal) = (case.f64("guidance_scale"), case.f64_or("orthogonal_guidance", 0.0));
    let guidance = match name {
        "teacher" => Guidance::ClassifierFree { scale, orthogonal },
        _ => Guidance::Probabilistic { scale, orthogonal },
    };
    let ends = case.params["guidance_interval"].as_array();
    let interval = ends.map(|ends| [0, 1].map(|i| ends[i].as_f64().expect("a time")));
    let teacher = Teacher { network: &network, guidance, interval, reweight_by: ReweightScale::Image };
    let (x, classes) = (case.input("x_t").tensor(), classes(case, &device()));
    Computed::from([("u".into(), teacher.velocity(&x, &numbers(case, "t"), classes.as_ref()).into())])
}
