//! Networks: outputs, parameter gradients and features.

use std::collections::BTreeMap;

use crate::harness::{Array, Case, Computed, device};
use burn::module::{ModuleVisitor, Param};
use burn::tensor::{Device, Gradients, Int, Tensor, TensorData};
use gmflow::mixture::{GaussianMixture, IsoGaussian};
use gmflow::network::{
    AutoencoderConfig, Denoiser, GmDit, GmDitConfig, HostTensor, Mlp2d, Mlp2dConfig, Network, NetworkConfig,
    SpectrumMlp, SpectrumMlpConfig, TorchNames, load_named, parameter_names, point_features, time_features,
};
use serde_json::Value;

pub fn run(case: &Case) -> Option<Computed> {
    match case.op.as_str() {
        "GMFlowMLP2DDenoiser" => Some(denoiser(case, &mlp2d(case, &case.params, "net", &recording()))),
        "GMDiTTransformer2DModel" => Some(dit(case)),
        "SpectrumMLP" => Some(spectrum(case)),
        "AutoencoderKL" => Some(autoencoder(case)),
        "Timesteps" => Some(features(time_features(
            case.input("t").tensor(),
            case.usize("num_channels"),
            case.f64("downscale_freq_shift"),
        ))),
        "SinCos2DPosEmbed" => Some(features(point_features(
            case.input("x").tensor(),
            case.usize("num_channels"),
            case.f64("min_period"),
            case.f64("max_period"),
        ))),
        _ => None,
    }
}

fn features(features: Tensor<2>) -> Computed {
    Computed::from([("emb".into(), features.into())])
}

pub fn recording() -> Device {
    device().autodiff()
}

/// A configuration from recorded parameters; a null stands for the default.
pub fn config<C: serde::de::DeserializeOwned>(params: &Value) -> C {
    let given = params.as_object().into_iter().flatten().filter(|(name, value)| *name != "type" && !value.is_null());
    let fields: serde_json::Map<String, Value> = given.map(|(name, value)| (name.clone(), value.clone())).collect();
    serde_json::from_value(Value::Object(fields)).expect("a known configuration")
}

/// The weights recorded for `network`.
pub fn weights(case: &Case, network: &str) -> BTreeMap<String, HostTensor> {
    let arrays = case.state.get(network).unwrap_or_else(|| panic!("{}: no state {network}", case.id));
    let host = |array: &Array| HostTensor { shape: array.shape.clone(), values: array.values.clone() };
    arrays.iter().map(|(name, array)| (name.clone(), host(array))).collect()
}

fn mlp2d(case: &Case, params: &Value, name: &str, device: &Device) -> Mlp2d {
    let network = config::<Mlp2dConfig>(params).init(0, device).expect("a valid network");
    load_named(network, weights(case, name)).expect("all weights")
}

/// The network of either architecture that `params` describes.
pub fn network(case: &Case, params: &Value, name: &str, device: &Device) -> Network {
    let shape = match params["type"].as_str() {
        Some("GMFlowMLP2DDenoiser") => NetworkConfig::Mlp2d(config(params)),
        Some("GMDiTTransformer2DModel") => NetworkConfig::GmDit(config(params)),
        other => panic!("{}: network {other:?}", case.id),
    };
    load_named(shape.init(0, device).expect("a valid network"), weights(case, name)).expect("all weights")
}

/// Both directions of the autoencoder.
fn autoencoder(case: &Case) -> Computed {
    let mut params = case.params.clone();
    for field in ["act_fn", "down_block_types", "up_block_types"] {
        params.as_object_mut().and_then(|params| params.remove(field));
    }
    let network = config::<AutoencoderConfig>(&params).init(0, &device()).expect("a valid network");
    let network = load_named(network, weights(case, "vae")).expect("all weights");
    let [mean, log_var] = network.moments(case.input("image").tensor());
    let image = network.decode(case.input("latent").tensor());
    Computed::from([
        ("enc_mean".into(), mean.into()),
        ("enc_logvar".into(), log_var.into()),
        ("dec".into(), image.into()),
    ])
}

/// Gradients by checkpoint name, in PyTorch's orientation.
pub fn named_gradients<M: TorchNames>(module: &M, gradients: &Gradients) -> Computed {
    let mut collect = Collect { gradients, found: Vec::new() };
    module.visit(&mut collect);
    let names = parameter_names(module).into_iter().map(|(_, name)| format!("grad_{name}"));
    names.zip(collect.found).filter_map(|(name, array)| Some((name, array?))).collect()
}

struct Collect<'a> {
    gradients: &'a Gradients,
    found: Vec<Option<Array>>,
}

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.found.push(param.val().grad(self.gradients).map(Array::from));
    }
}

/// An input of any rank as `[b c h w]` on the recording device.
fn image(case: &Case, name: &str) -> Tensor<4> {
    let array = case.input(name);
    let mut shape = array.shape.clone();
    shape.resize(4, 1);
    Tensor::from_data(TensorData::new(array.values.clone(), shape), &recording())
}

fn times(case: &Case) -> Tensor<1> {
    let values: Vec<f32> = case.input("t").values.iter().map(|t| t / 1000.0).collect();
    Tensor::from_data(TensorData::new(values.clone(), [values.len()]), &recording())
}

fn classes(case: &Case) -> Option<Tensor<1, Int>> {
    let array = case.inputs.get("class_labels")?;
    let values: Vec<i64> = array.values.iter().map(|&v| v as i64).collect();
    Some(Tensor::from_data(TensorData::new(values, [array.values.len()]), &recording()))
}

/// The prediction, and the gradients of its inner product with the recorded constants.
fn denoiser<M: Denoiser + TorchNames>(case: &Case, network: &M) -> Computed {
    let x = image(case, "x").require_grad();
    let mixture = network.forward(x.clone(), times(case), classes(case)).0;
    outputs(case, network, &x, mixture)
}

fn outputs<M: TorchNames>(case: &Case, network: &M, x: &Tensor<4>, mixture: GaussianMixture) -> Computed {
    let mut computed = Computed::new();
    for (name, tensor) in
        [("means", &mixture.means), ("logweights", &mixture.log_weights), ("logstds", &mixture.log_std)]
    {
        computed.insert(name.into(), tensor.clone().inner().into());
    }
    if !case.inputs.contains_key("c_means") {
        return computed;
    }
    let product = |name: &str, tensor: Tensor<5>| {
        let values = case.input(name).values.clone();
        (Tensor::<5>::from_data(TensorData::new(values, tensor.dims()), &recording()) * tensor).sum()
    };
    let scalar = product("c_means", mixture.means)
        + product("c_logweights", mixture.log_weights)
        + product("c_logstds", mixture.log_std);
    let gradients = scalar.backward();
    computed.extend(named_gradients(network, &gradients));
    if let Some(gradient) = x.grad(&gradients) {
        computed.insert("grad_input_x".into(), gradient.into());
    }
    computed
}

fn dit(case: &Case) -> Computed {
    let shape: GmDitConfig = config(&case.params);
    let network: GmDit = shape.init(0, &recording()).expect("a valid network");
    let network = load_named(network, weights(case, "net")).expect("all weights");
    if case.draws.is_empty() {
        let mut computed = denoiser(case, &network);
        let [b, _, _, _] = image(case, "x").dims();
        let tokens = network.tokens(image(case, "x")).inner(); // [b*n c]
        let [rows, channels] = tokens.dims();
        computed.insert("tokens0".into(), tokens.reshape([b, rows / b, channels]).into());
        computed.insert("emb".into(), network.embedding(times(case), classes(case)).inner().into());
        return computed;
    }
    let dropped = |draw: &f32| f64::from(*draw) < case.f64("class_dropout_prob");
    let drop: Vec<Vec<bool>> =
        case.draws.iter().map(|draw| draw.array.values.iter().map(dropped).collect()).collect();
    let x = image(case, "x").require_grad();
    let class = classes(case).expect("labels");
    let mixture = network.forward_dropped(x.clone(), times(case), class, &drop).0;
    outputs(case, &network, &x, mixture)
}

/// The spectrum network called `name` that `params` describes.
pub fn spectrum_network(case: &Case, params: &Value, name: &str) -> SpectrumMlp {
    let fields = serde_json::json!({ "base_size": params["base_size"], "layers": params["layers"] });
    let network = config::<SpectrumMlpConfig>(&fields).init(0, &recording()).expect("a valid network");
    load_named(network, weights(case, name)).expect("all weights")
}

fn spectrum(case: &Case) -> Computed {
    let network = spectrum_network(case, &case.params, "net");
    let var = case.input("var");
    let mut var_shape = var.shape.clone();
    var_shape.resize(4, 1);
    let var = Tensor::<4>::from_data(TensorData::new(var.values.clone(), var_shape), &recording());
    let log_var = network.forward(&IsoGaussian { mean: image(case, "mean"), var });
    let mut computed = Computed::from([("log_var".into(), log_var.clone().inner().into())]);
    if let Some(constants) = case.inputs.get("c_out") {
        let constants =
            Tensor::<4>::from_data(TensorData::new(constants.values.clone(), log_var.dims()), &recording());
        let gradients = (constants * log_var).sum().backward();
        computed.extend(named_gradients(&network, &gradients));
    }
    computed
}
