//! The `config.json` of a component: which network it is, and its shape.

use super::CONFIG_FILE;
use crate::checkpoint::file;
use crate::checkpoint::weights::in_file;
use crate::network::{AutoencoderConfig, GmDitConfig, GmDitHead, NetworkConfig, SpectrumMlpConfig, UnetConfig};
use crate::{Error, Result};
use gmflow_files::json;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use std::path::Path;

/// The file that describes a scheduler.
const SCHEDULER_FILE: &str = "scheduler_config.json";

/// A component by what its config says.
#[derive(Debug)]
pub enum ComponentConfig {
    /// A denoising network.
    Denoiser(NetworkConfig),
    Spectrum(SpectrumMlpConfig),
    Autoencoder(AutoencoderConfig),
    Scheduler(SchedulerConfig),
}

/// What a scheduler says of the time grid.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SchedulerConfig {
    /// Its shift.
    pub shift: f32,
    /// What a time in [0, 1] is multiplied by before the network sees it.
    pub time_scale: f64,
    /// Of the scheduler of students of distillation, what else there is.
    pub student: Option<StudentScheduler>,
}

/// What the scheduler of students of distillation says.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StudentScheduler {
    /// The length of the last step as a share of the others'.
    pub final_step_scale: f64,
    /// The strength of fresh noise between steps.
    pub renoise: f64,
}

impl ComponentConfig {
    /// Reads the config in a component's folder.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`] or [`crate::FilesError::File`] naming the field that is unknown, out of range or of another architecture.
    pub fn read(dir: &Path) -> Result<Self> {
        let scheduler = dir.join(SCHEDULER_FILE);
        let path = if scheduler.is_file() { scheduler } else { dir.join(CONFIG_FILE) };
        Self::parse(&path, &file::read(&path)?)
    }

    /// Reads a config from the bytes of the file at `path`.
    ///
    /// # Errors
    /// [`crate::FilesError::File`], as [`ComponentConfig::read`].
    pub fn parse(path: &Path, bytes: &[u8]) -> Result<Self> {
        let fields = json::object(bytes).map_err(|wrong| Error::wrong(path, wrong))?;
        let class = class_name(&fields).to_owned();
        // Fields with an underscore are the library's own notes; the format of the numbers stands in the weights themselves.
        let is_note = |name: &str| name.starts_with('_') || matches!(name, "torch_dtype" | "dtype");
        let fields: Map<String, Value> = fields.into_iter().filter(|(name, _)| !is_note(name)).collect();
        match kind(&class, &fields) {
            Some(Kind::Transformer(head)) => {
                transformer(path, fields, head).map(|config| Self::Denoiser(NetworkConfig::GmDit(config)))
            }
            Some(Kind::Unet) => {
                let config = read_as(path, fields, &UnetConfig::default())?;
                config.validate().map_err(|error| in_file(path, error))?;
                Ok(Self::Denoiser(NetworkConfig::Unet(config)))
            }
            Some(Kind::Spectrum) => {
                let example = SpectrumMlpConfig { base_size: [1; 3], layers: Vec::new() };
                let config = read_as(path, fields, &example)?;
                config.validate().map_err(|error| in_file(path, error))?;
                Ok(Self::Spectrum(config))
            }
            Some(Kind::Autoencoder) => autoencoder(path, fields).map(Self::Autoencoder),
            Some(Kind::Scheduler) => scheduler(path, &class, &fields),
            None => {
                let expected = "GMDiTTransformer2DModel (or V2), DXDiTTransformer2DModel, DiTTransformer2DModelMod, \
GMUNet2DModel, SpectrumMLP, AutoencoderKL or a flow scheduler";
                let got = if class.is_empty() { "none, and fields of no known network" } else { &class };
                Err(Error::file(path, "_class_name", expected, got))
            }
        }
    }

    /// Whether the folder holds a component of a kind that this library has; others, such as tokenisers, are parts of other models.
    pub fn is_known(dir: &Path) -> bool {
        if dir.join(SCHEDULER_FILE).is_file() {
            return true;
        }
        let fields = std::fs::read(dir.join(CONFIG_FILE)).ok().and_then(|bytes| json::object(&bytes).ok());
        fields.is_some_and(|fields| kind(class_name(&fields), &fields).is_some())
    }

    /// The error for a component of another kind than wanted.
    pub fn instead_of(&self, wanted: &str, dir: &Path) -> Error {
        let got = match self {
            Self::Denoiser(NetworkConfig::GmDit(_)) => "a GM-DiT",
            Self::Denoiser(_) => "a U-Net",
            Self::Spectrum(_) => "a spectrum network",
            Self::Autoencoder(_) => "an autoencoder",
            Self::Scheduler(_) => "a scheduler",
        };
        Error::file(dir.join(CONFIG_FILE), "_class_name", wanted, got)
    }
}

/// The scheduler of students of distillation.
pub const STUDENT_SCHEDULER: &str = "FlowMapSDEScheduler";
/// As good as infinite: nothing of a sample's noise is kept.
const MOST_RENOISE: f64 = 1e6;

enum Kind {
    Transformer(GmDitHead),
    Unet,
    Spectrum,
    Autoencoder,
    Scheduler,
}

fn class_name(fields: &Map<String, Value>) -> &str {
    fields.get("_class_name").and_then(Value::as_str).unwrap_or_default()
}

/// What a config describes: by the name of its class, or else by a field that only one kind has.
fn kind(class: &str, fields: &Map<String, Value>) -> Option<Kind> {
    let has = |field: &str| fields.contains_key(field);
    match class.trim_start_matches('_') {
        "GMDiTTransformer2DModel" => Some(Kind::Transformer(GmDitHead::OnePart)),
        "GMDiTTransformer2DModelV2" => Some(Kind::Transformer(GmDitHead::TwoParts)),
        "DXDiTTransformer2DModel" | "DiTTransformer2DModelMod" => Some(Kind::Transformer(GmDitHead::Means)),
        "GMUNet2DModel" => Some(Kind::Unet),
        "SpectrumMLP" => Some(Kind::Spectrum),
        "AutoencoderKL" => Some(Kind::Autoencoder),
        name if name.ends_with("Scheduler") => Some(Kind::Scheduler),
        "" if has("num_gaussians") && has("num_attention_heads") => Some(Kind::Transformer(GmDitHead::OnePart)),
        "" if has("n_grid") && has("num_attention_heads") => Some(Kind::Transformer(GmDitHead::Means)),
        "" if has("num_gaussians") && has("block_out_channels") => Some(Kind::Unet),
        "" if has("base_size") => Some(Kind::Spectrum),
        "" if has("latent_channels") => Some(Kind::Autoencoder),
        "" if has("num_train_timesteps") => Some(Kind::Scheduler),
        _ => None,
    }
}

fn transformer(path: &Path, mut fields: Map<String, Value>, head: GmDitHead) -> Result<GmDitConfig> {
    // What these say is built into the architecture.
    require(
        path,
        &mut fields,
        &[
            ("activation_fn", json!("gelu-approximate")),
            ("attention_bias", json!(true)),
            ("norm_elementwise_affine", json!(false)),
            ("norm_type", json!("ada_norm_zero")),
            ("norm_eps", json!(1e-5)),
            ("dropout", json!(0.0)),
        ],
    )?;
    // These have no effect on it.
    for field in ["norm_num_groups", "upcast_attention"] {
        fields.remove(field);
    }
    if head == GmDitHead::Means {
        // Points of a grid, or the one velocity of a plain network.
        let points = fields.remove("n_grid").unwrap_or_else(|| json!(1));
        fields.insert("num_gaussians".into(), points);
    }
    let mut config = read_as(path, fields, &GmDitConfig::default())?;
    if head != GmDitHead::OnePart {
        config.head = head;
    }
    config.validate().map_err(|error| in_file(path, error))?;
    Ok(config)
}

fn autoencoder(path: &Path, mut fields: Map<String, Value>) -> Result<AutoencoderConfig> {
    require(
        path,
        &mut fields,
        &[("act_fn", json!("silu")), ("latents_mean", Value::Null), ("latents_std", Value::Null)],
    )?;
    fields.remove("force_upcast");
    // What the diffusers library takes where a field is missing; ours describe the usual network.
    for (field, default) in
        [("block_out_channels", json!([64])), ("layers_per_block", json!(1)), ("sample_size", json!(32))]
    {
        fields.entry(field).or_insert(default);
    }
    let levels = fields.get("block_out_channels").and_then(Value::as_array).map_or(0, Vec::len);
    for (field, expected) in [("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")] {
        let Some(types) = fields.remove(field) else { continue };
        let all = types.as_array().is_some_and(|types| types.len() == levels && types.iter().all(|t| t == expected));
        if !all {
            return Err(Error::file(path, field, format!("{levels} times {expected}"), types));
        }
    }
    // The size that the network was trained on may be given as height and width.
    if let Some(size) = fields.get("sample_size").and_then(Value::as_array).and_then(|sizes| sizes.first()).cloned() {
        fields.insert("sample_size".into(), size);
    }
    let config = read_as(path, fields, &AutoencoderConfig::default())?;
    config.validate().map_err(|error| in_file(path, error))?;
    Ok(config)
}

/// The shift of the time grid, of a scheduler with the path of this library: alpha = 1 - t, sigma = t.
fn scheduler(path: &Path, class: &str, fields: &Map<String, Value>) -> Result<ComponentConfig> {
    let is_on = |field: &str| fields.get(field).is_some_and(|value| *value == json!(true));
    let is_flow = class.is_empty() || class.contains("Flow") || is_on("use_flow_sigmas");
    if !is_flow {
        let expected = "a scheduler of flow matching, such as FlowEulerODEScheduler, FlowSDEScheduler or \
FlowMatchEulerDiscreteScheduler, or another with use_flow_sigmas";
        return Err(Error::file(path, "_class_name", expected, format!("{class}, which has another noise schedule")));
    }
    // What would make another grid than the shift does.
    let others = [
        "use_dynamic_shifting",
        "use_karras_sigmas",
        "use_exponential_sigmas",
        "use_beta_sigmas",
        "use_lu_lambdas",
        "invert_sigmas",
        "stochastic_sampling",
        "rescale_betas_zero_snr",
    ];
    if let Some(field) = others.into_iter().find(|field| is_on(field)) {
        return Err(Error::file(path, field, "false: the time grid has a constant shift", "true"));
    }
    if let Some(value) = fields.get("shift_terminal").filter(|value| !value.is_null()) {
        return Err(Error::file(path, "shift_terminal", "null: the time grid has a constant shift", value));
    }
    let field = if class.contains("Flow") || class.is_empty() { "shift" } else { "flow_shift" };
    let shift = fields.get(field).map_or(Some(1.0), Value::as_f64);
    match shift {
        Some(shift) if shift.is_finite() && shift > 0.0 => {
            let student = if class == STUDENT_SCHEDULER { Some(student_scheduler(path, fields)?) } else { None };
            let time_scale =
                scheduler_number(path, fields, "num_train_timesteps", 1000.0, |x| x > 0.0 && x.is_finite())?;
            Ok(ComponentConfig::Scheduler(SchedulerConfig { shift: shift as f32, time_scale, student }))
        }
        _ => {
            let got = fields.get(field).map_or_else(|| "nothing".to_owned(), json::describe);
            Err(Error::file(path, field, "a positive number", got))
        }
    }
}

/// What the scheduler of students says beyond the shift.
fn student_scheduler(path: &Path, fields: &Map<String, Value>) -> Result<StudentScheduler> {
    let field = |name, default, fits| scheduler_number(path, fields, name, default, fits);
    Ok(StudentScheduler {
        final_step_scale: field("final_step_size_scale", 1.0, |x| x > 0.0 && x <= 1.0)?,
        renoise: field("h", 0.0, |x| x >= 0.0)?.min(MOST_RENOISE),
    })
}

/// A number of a scheduler.
fn scheduler_number(
    path: &Path,
    fields: &Map<String, Value>,
    name: &str,
    default: f64,
    fits: fn(f64) -> bool,
) -> Result<f64> {
    let value = fields.get(name).filter(|value| !value.is_null());
    // JSON has no infinity; the published code writes it as a word.
    let word = value.and_then(Value::as_str).and_then(|word| word.parse::<f64>().ok());
    match value.map_or(Some(default), |value| value.as_f64().or(word)) {
        Some(number) if fits(number) => Ok(number),
        _ => {
            let got = value.map(json::describe).unwrap_or_default();
            Err(Error::file(path, name, "a positive number in its range", got))
        }
    }
}

/// Takes out fields that must have these values where they are given.
fn require(path: &Path, fields: &mut Map<String, Value>, expected: &[(&str, Value)]) -> Result<()> {
    for (field, expected) in expected {
        match fields.remove(*field) {
            Some(value) if !same(&value, expected) => {
                return Err(Error::file(path, *field, expected.to_string(), value));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether two values say the same: 0 and 0.0 do.
fn same(a: &Value, b: &Value) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => a == b,
        _ => a == b,
    }
}

/// The fields as a network's, of which `example` is one. An unknown field that is null is off, in newer versions of the library that
/// wrote it, too.
fn read_as<T: DeserializeOwned + Serialize>(path: &Path, mut fields: Map<String, Value>, example: &T) -> Result<T> {
    if let Ok(Value::Object(known)) = serde_json::to_value(example) {
        fields.retain(|name, value| !value.is_null() || known.contains_key(name));
    }
    json::from_value(Value::Object(fields)).map_err(|wrong| Error::wrong(path, wrong))
}
