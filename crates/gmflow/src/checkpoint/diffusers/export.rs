//! Writing the layout that [`super`] reads.

use super::config::STUDENT_SCHEDULER;
use super::folder::{INDEX_FILE, OWN_KEY, OwnNotes};
use super::{CONFIG_FILE, WEIGHTS_STEM};
use crate::checkpoint::weight_files::is_plain_name;
use crate::checkpoint::weights::write_lazy;
use crate::checkpoint::{Model, Precision, write_atomic};
use crate::network::{
    Autoencoder, AutoencoderConfig, GmDitConfig, GmDitHead, LazyTensor, Network, NetworkConfig, TorchNames,
    lazy_tensors,
};
use crate::{Error, Result};
use serde_json::{Map, Value, json};
use std::fs;
use std::path::Path;

/// The version of the diffusers library whose layout this is.
const DIFFUSERS_VERSION: &str = "0.42.1";
/// The class of a U-Net with a mixture head, which the published code does not have.
const UNET_CLASS: &str = "GMUNet2DModel";
/// Weight files larger than this are cut.
const DEFAULT_SHARD_BYTES: u64 = 10_000_000_000;

/// How a checkpoint is written.
#[derive(Clone, Debug)]
pub struct ExportOptions {
    /// The number format of the weights.
    pub precision: Precision,
    /// The part of the weight files' names, such as `bf16`.
    pub variant: Option<String>,
    /// The most bytes of weights in one file.
    pub shard_bytes: u64,
}

impl Default for ExportOptions {
    fn default() -> Self {
        Self { precision: Precision::F32, variant: None, shard_bytes: DEFAULT_SHARD_BYTES }
    }
}

/// Writes `model` in the layout of the diffusers library; `model_index.json` last, so that a folder with it is complete.
///
/// # Errors
/// [`crate::FilesError::Config`] for a network that the layout has no place for; [`crate::FilesError::Io`] where a file cannot be written.
pub fn export_diffusers(model: &Model, dir: &Path, options: &ExportOptions) -> Result<()> {
    if let Some(variant) = options.variant.as_deref().filter(|v| !is_plain_name(v) || v.contains(['.', '-'])) {
        return Err(Error::config("variant", "letters and digits, such as bf16", variant));
    }
    let writer = Writer { dir, options };
    let mut index = Map::new();
    index.insert("_class_name".into(), json!("GMDiTPipeline"));
    index.insert("_diffusers_version".into(), json!(DIFFUSERS_VERSION));
    let (name, module, class) = match &model.network {
        Network::GmDit(network) => {
            writer.component("transformer", transformer_config(network.config()), network)?;
            // The modules of the published code, which finds its classes by them.
            ("transformer", "lib.models.architecture.gmflow", transformer_class(network.config()))
        }
        Network::Unet(network) => {
            let mut config = as_json(dir, network.config())?;
            config["_class_name"] = json!(UNET_CLASS);
            config["_diffusers_version"] = json!(DIFFUSERS_VERSION);
            writer.component("unet", config, network)?;
            ("unet", "gmflow", UNET_CLASS)
        }
        Network::Mlp2d(_) => {
            return Err(Error::config("layout", "gmflow: diffusers has no place for points", "diffusers"));
        }
    };
    index.insert(name.into(), json!([module, class]));
    if let Some(spectrum) = &model.spectrum {
        let config = json!({ "_class_name": "_SpectrumMLP", "_diffusers_version": DIFFUSERS_VERSION,
            "base_size": spectrum.config().base_size, "layers": spectrum.config().layers });
        writer.component("spectrum_net", config, spectrum)?;
    }
    let spectrum_class = json!(["lib.models.architecture.gmflow", "_SpectrumMLP"]);
    index.insert("spectrum_net".into(), if model.spectrum.is_some() { spectrum_class } else { json!([null, null]) });
    if let Some(vae) = &model.vae {
        writer.vae("vae", vae)?;
    }
    let vae_class = json!(["diffusers", "AutoencoderKL"]);
    index.insert("vae".into(), if model.vae.is_some() { vae_class } else { json!([null, null]) });
    let (scheduler_module, scheduler) = scheduler(model);
    writer.json("scheduler", "scheduler_config.json", &scheduler)?;
    index.insert("scheduler".into(), json!([scheduler_module, scheduler["_class_name"]]));
    if let Some(names) = &model.info.classes {
        let labels = names.iter().enumerate().map(|(class, name)| (class.to_string(), json!(name)));
        index.insert("id2label".into(), Value::Object(labels.collect()));
    }
    let data = model.info.data;
    let square = [data.height, data.width] == [model.info.network.sample_shape().1; 2];
    let notes = OwnNotes {
        guidance: model.info.guidance,
        reweight_by: model.info.reweight_by,
        second_order: model.info.second_order,
        student: model.info.student.clone(),
        progress: model.info.progress,
        earlier: model.info.earlier.clone(),
        size: (!square).then_some([data.height, data.width]),
        class_images: model.info.trained_on.as_ref().map(|on| on.class_images.clone()).unwrap_or_default(),
    };
    index.insert(OWN_KEY.into(), as_json(&dir.join(INDEX_FILE), &notes)?);
    writer.json("", INDEX_FILE, &Value::Object(index))
}

/// The module and the config of the scheduler, which holds the time grid.
fn scheduler(model: &Model) -> (&'static str, Value) {
    let shift = model.info.shift;
    let time_scale = match &model.info.network {
        NetworkConfig::GmDit(network) => network.time_scale,
        _ => 1000.0,
    };
    match &model.info.student {
        Some(student) => {
            let config = json!({ "_class_name": STUDENT_SCHEDULER, "_diffusers_version": DIFFUSERS_VERSION,
                "num_train_timesteps": number(time_scale), "shift": shift, "h": student.policy.renoise,
                "final_step_size_scale": student.policy.final_step_scale });
            ("lakonlab.models.diffusions.schedulers.flow_map_sde", config)
        }
        None => {
            let config = json!({ "_class_name": "FlowEulerODEScheduler", "_diffusers_version": DIFFUSERS_VERSION,
                "num_train_timesteps": number(time_scale), "shift": shift });
            ("lib.models.diffusions.schedulers.flow_euler_ode", config)
        }
    }
}

/// A whole number as one.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e9 { json!(value as i64) } else { json!(value) }
}

/// The class of a transformer in the published code.
fn transformer_class(config: &GmDitConfig) -> &'static str {
    match config.head {
        GmDitHead::OnePart => "_GMDiTTransformer2DModel",
        GmDitHead::TwoParts => "_GMDiTTransformer2DModelV2",
        GmDitHead::Means if config.num_gaussians == 1 => "_DiTTransformer2DModelMod",
        GmDitHead::Means => "_DXDiTTransformer2DModel",
    }
}

/// The config of a transformer as the published code writes it.
fn transformer_config(config: &GmDitConfig) -> Value {
    let mut json = common_config(config);
    if config.head != GmDitHead::Means {
        json["num_gaussians"] = json!(config.num_gaussians);
        json["logstd_inner_dim"] = json!(config.logstd_inner_dim);
        json["gm_num_logstd_layers"] = json!(config.gm_num_logstd_layers);
        json["constant_logstd"] = json!(config.constant_logstd);
    } else if config.num_gaussians > 1 {
        json["n_grid"] = json!(config.num_gaussians);
    }
    json
}

/// What the configs of all transformers hold.
fn common_config(config: &GmDitConfig) -> Value {
    json!({
        "_class_name": transformer_class(config),
        "_diffusers_version": DIFFUSERS_VERSION,
        "activation_fn": "gelu-approximate",
        "attention_bias": true,
        "attention_head_dim": config.attention_head_dim,
        "class_dropout_prob": config.class_dropout_prob,
        "dropout": 0.0,
        "in_channels": config.in_channels,
        "norm_elementwise_affine": false,
        "norm_eps": 1e-5,
        "norm_num_groups": 32,
        "norm_type": "ada_norm_zero",
        "num_attention_heads": config.num_attention_heads,
        "num_embeds_ada_norm": config.num_embeds_ada_norm,
        "num_layers": config.num_layers,
        "out_channels": config.out_channels,
        "patch_size": config.patch_size,
        "sample_size": config.sample_size,
        "upcast_attention": false,
    })
}

fn vae_config(config: &AutoencoderConfig) -> Value {
    let levels = config.block_out_channels.len();
    json!({
        "_class_name": "AutoencoderKL",
        "_diffusers_version": DIFFUSERS_VERSION,
        "act_fn": "silu",
        "block_out_channels": config.block_out_channels,
        "down_block_types": vec!["DownEncoderBlock2D"; levels],
        "force_upcast": true,
        "in_channels": config.in_channels,
        "latent_channels": config.latent_channels,
        "latents_mean": null,
        "latents_std": null,
        "layers_per_block": config.layers_per_block,
        "mid_block_add_attention": config.mid_block_add_attention,
        "norm_num_groups": config.norm_num_groups,
        "out_channels": config.out_channels,
        "sample_size": config.sample_size,
        "scaling_factor": config.scaling_factor,
        "shift_factor": config.shift_factor,
        "up_block_types": vec!["UpDecoderBlock2D"; levels],
        "use_post_quant_conv": config.use_post_quant_conv,
        "use_quant_conv": config.use_quant_conv,
    })
}

struct Writer<'a> {
    dir: &'a Path,
    options: &'a ExportOptions,
}

impl Writer<'_> {
    fn vae(&self, name: &str, vae: &Autoencoder) -> Result<()> {
        self.component(name, vae_config(vae.config()), vae)
    }

    /// Writes a component's config and weights, in shards where one file would be too large.
    fn component<M: TorchNames>(&self, name: &str, config: Value, module: &M) -> Result<()> {
        self.json(name, CONFIG_FILE, &config)?;
        let folder = self.dir.join(name);
        let variant = self.options.variant.as_ref().map(|variant| format!(".{variant}")).unwrap_or_default();
        let mut shards = shards(lazy_tensors(module), self.options);
        if let [all] = shards.as_mut_slice() {
            let path = folder.join(format!("{WEIGHTS_STEM}{variant}.safetensors"));
            return write_lazy(&path, all, self.options.precision).map(|_| ());
        }
        let (count, mut weight_map, mut total) = (shards.len(), Map::new(), 0);
        for (i, shard) in shards.iter().enumerate() {
            let file = format!("{WEIGHTS_STEM}{variant}-{:05}-of-{count:05}.safetensors", i + 1);
            write_lazy(&folder.join(&file), shard, self.options.precision)?;
            weight_map.extend(shard.iter().map(|(name, _)| (name.clone(), json!(file))));
            total += shard.iter().map(|(_, tensor)| bytes(tensor, self.options.precision)).sum::<u64>();
        }
        let index = json!({ "metadata": { "total_size": total }, "weight_map": weight_map });
        let suffix = self.options.variant.as_ref().map(|variant| format!(".{variant}")).unwrap_or_default();
        self.json(name, &format!("{WEIGHTS_STEM}.safetensors.index{suffix}.json"), &index)
    }

    fn json(&self, folder: &str, name: &str, value: &Value) -> Result<()> {
        let folder = self.dir.join(folder);
        fs::create_dir_all(&folder).map_err(|error| Error::io(&folder, error))?;
        let path = folder.join(name);
        let mut text = serde_json::to_vec_pretty(value)
            .map_err(|error| Error::file(&path, "content", "values that JSON can hold", error))?;
        text.push(b'\n');
        write_atomic(&path, &text)
    }
}

fn bytes(tensor: &LazyTensor, precision: Precision) -> u64 {
    (tensor.shape.iter().product::<usize>() * precision.bytes()) as u64
}

/// Cuts a list of tensors, in its order, into parts of at most [`ExportOptions::shard_bytes`], or of one tensor.
fn shards(tensors: Vec<(String, LazyTensor)>, options: &ExportOptions) -> Vec<Vec<(String, LazyTensor)>> {
    let (mut parts, mut size) = (vec![Vec::new()], 0);
    for (name, tensor) in tensors {
        let more = bytes(&tensor, options.precision);
        if size > 0 && size + more > options.shard_bytes {
            parts.push(Vec::new());
            size = 0;
        }
        size += more;
        if let Some(part) = parts.last_mut() {
            part.push((name, tensor));
        }
    }
    parts
}

fn as_json(path: &Path, value: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|error| Error::file(path, OWN_KEY, "values that JSON can hold", error))
}
