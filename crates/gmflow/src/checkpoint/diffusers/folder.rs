//! A whole checkpoint: its components, and what the index says of them.

use super::config::{ComponentConfig, SchedulerConfig, StudentScheduler};
use super::{StoredVae, load_denoiser, load_spectrum};
use crate::checkpoint::{
    DataInfo, DataKind, LatentInfo, LoadOptions, Model, ModelInfo, Progress, StudentInfo, TrainedOn, file,
};
use crate::guidance::{Guidance, ReweightScale};
use crate::network::{AutoencoderConfig, GmDitHead, NetworkConfig, SpectrumMlpConfig};
use crate::solver::{PiFlow, SecondOrder};
use crate::{Error, Result};
use burn::tensor::Device;
use gmflow_files::{Wrong, json};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

pub(in crate::checkpoint) const INDEX_FILE: &str = "model_index.json";
/// The key in the index of what only this library knows; the diffusers library ignores keys that start with an underscore.
pub(super) const OWN_KEY: &str = "_gmflow";
/// Components are looked for in so many folders at most.
const MOST_COMPONENTS: usize = 100;

/// The components that a denoising network may be.
const DENOISERS: [&str; 2] = ["transformer", "unet"];
/// The components that this library reads, by the names that published checkpoints give them.
const KNOWN_COMPONENTS: [&str; 5] = ["transformer", "unet", "spectrum_net", "vae", "scheduler"];

/// What a student is taken for that came without its scheduler.
const PLAIN_STUDENT: StudentScheduler = StudentScheduler { final_step_scale: 1.0, renoise: 0.0 };

/// Whether `dir` is such a checkpoint: a whole one, or a transformer alone.
pub(in crate::checkpoint) fn is_diffusers(dir: &Path) -> bool {
    dir.join(INDEX_FILE).is_file() || dir.join(super::CONFIG_FILE).is_file()
}

/// What the layout has no place for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct OwnNotes {
    /// The guidance to use where none is asked for.
    pub(super) guidance: Guidance,
    /// What reweighting divides by where nothing else is asked for.
    #[serde(skip_serializing_if = "ReweightScale::is_image")]
    pub(super) reweight_by: ReweightScale,
    /// Details of steps of order 2 where none are asked for.
    #[serde(skip_serializing_if = "SecondOrder::is_default")]
    pub(super) second_order: SecondOrder,
    /// How far training had come.
    pub(super) progress: Progress,
    /// How far the trainings had come that the weights come from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) earlier: Vec<Progress>,
    /// Of a student of distillation, how it is sampled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) student: Option<StudentInfo>,
    /// Height and width of a sample, where they are not those of the transformer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) size: Option<[usize; 2]>,
    /// The number of training images of each class, where it is known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) class_images: Vec<u64>,
}

/// The components of a checkpoint, without their weights.
#[derive(Debug)]
pub(in crate::checkpoint) struct DiffusersFolder {
    denoiser: (PathBuf, NetworkConfig),
    spectrum: Option<(PathBuf, SpectrumMlpConfig)>,
    vae: Option<(PathBuf, AutoencoderConfig)>,
    scheduler: SchedulerConfig,
    classes: Option<Vec<String>>,
    notes: OwnNotes,
}

impl DiffusersFolder {
    /// Reads the index and the configs.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`] or [`crate::FilesError::File`] naming the file and field; no transformer, or two components of a kind.
    pub(in crate::checkpoint) fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(INDEX_FILE);
        let index: Map<String, Value> = match path.is_file() {
            true => json::object(&file::read(&path)?).map_err(|wrong| Error::wrong(&path, wrong))?,
            false => Map::new(),
        };
        let mut components = Components::default();
        if path.is_file() {
            check_entries(&path, &index)?;
            for name in component_names(&index) {
                components.add_named(&path, name)?;
            }
        } else {
            components.add(dir)?;
        }
        let Components { denoiser, spectrum, vae, scheduler } = components;
        let missing = || Error::file(&path, "transformer", "a component that is a GM-DiT or U-Net", "none");
        let mut denoiser = denoiser.ok_or_else(missing)?;
        let scheduler = scheduler.unwrap_or(SchedulerConfig { shift: 1.0, time_scale: 1000.0, student: None });
        // Networks with the first head see 1000 t, whatever their schedulers count.
        if let NetworkConfig::GmDit(network) = &mut denoiser.1
            && (scheduler.student.is_some() || network.head != GmDitHead::OnePart)
        {
            network.time_scale = scheduler.time_scale;
        }
        let classes = class_names(&path, index.get("id2label"), denoiser.1.num_classes())?;
        let notes = match index.get(OWN_KEY) {
            Some(notes) => json::from_value(notes.clone()).map_err(|wrong| {
                Error::wrong(&path, Wrong { field: format!("{OWN_KEY}.{}", wrong.field), ..wrong })
            })?,
            None => OwnNotes::default(),
        };
        Ok(Self { denoiser, spectrum, vae, scheduler, classes, notes })
    }

    /// The model's description.
    ///
    /// # Errors
    /// Components that do not fit each other.
    pub(in crate::checkpoint) fn info(&self) -> Result<ModelInfo> {
        let (path, config) = &self.denoiser;
        let (channels, sample_size) = config.sample_shape();
        let [height, width] = self.notes.size.unwrap_or([sample_size; 2]);
        let latent = self.vae.as_ref().map(|(_, vae)| LatentInfo::from(vae));
        if let Some((path, vae)) = self.vae.as_ref().filter(|(_, vae)| vae.latent_channels != channels) {
            let expected = format!("{channels}, as the denoising network takes");
            return Err(Error::file(path.join("config.json"), "latent_channels", expected, vae.latent_channels));
        }
        let kind = if latent.is_some() { DataKind::Latents } else { DataKind::Image };
        let info = ModelInfo {
            network: config.clone(),
            spectrum: self.spectrum.as_ref().map(|(_, config)| config.clone()),
            data: DataInfo { channels, height, width, kind },
            latent,
            classes: self.classes.clone(),
            guidance: self.notes.guidance,
            shift: self.scheduler.shift,
            reweight_by: self.notes.reweight_by,
            second_order: self.notes.second_order,
            student: self.student(),
            training: None,
            progress: self.notes.progress,
            earlier: self.notes.earlier.clone(),
            trained_on: (!self.notes.class_images.is_empty())
                .then(|| TrainedOn { class_images: self.notes.class_images.clone(), fingerprint: None }),
        };
        info.validate().map_err(|error| crate::checkpoint::weights::in_file(&path.join("config.json"), error))?;
        Ok(info)
    }

    /// How a student of distillation is sampled. A published one does not say for how many steps it was trained: it gets one.
    fn student(&self) -> Option<StudentInfo> {
        if self.notes.student.is_some() {
            return self.notes.student.clone();
        }
        let NetworkConfig::GmDit(network) = &self.denoiser.1 else { return None };
        let is_grid = network.head == GmDitHead::Means && network.num_gaussians > 1;
        let is_student = self.scheduler.student.is_some() || network.head == GmDitHead::TwoParts || is_grid;
        let StudentScheduler { final_step_scale, renoise } = self.scheduler.student.unwrap_or(PLAIN_STUDENT);
        let grid_segment = is_grid.then_some(1.0);
        let policy = PiFlow { final_step_scale, renoise, grid_segment, ..PiFlow::default() };
        is_student.then_some(StudentInfo { steps: 1, policy, teacher: None })
    }

    /// Reads the weights.
    ///
    /// # Errors
    /// Those of [`super::load_diffusers_transformer`] for every component.
    pub(in crate::checkpoint) fn load(&self, options: LoadOptions, device: &Device) -> Result<Model> {
        let variant = options.variant;
        let info = self.info()?;
        let (dir, config) = &self.denoiser;
        let network = load_denoiser(config, dir, (variant, options.pack), device)?;
        let spectrum = match &self.spectrum {
            Some((dir, config)) => Some(load_spectrum(config, dir, beside(dir, variant), device)?),
            None => None,
        };
        let vae = match &self.vae {
            Some((dir, _)) if !options.without_vae => Some(StoredVae::open(dir, beside(dir, variant))?.load(device)?),
            _ => None,
        };
        Ok(Model { info, network, spectrum, vae })
    }

    /// The weight file of every component, or its index, the denoising network's first.
    ///
    /// # Errors
    /// Those of [`super::weight_file`].
    pub(in crate::checkpoint) fn weight_files(&self, variant: Option<&str>) -> Result<Vec<PathBuf>> {
        let mut paths = vec![super::weight_file(&self.denoiser.0, variant)?];
        let others = [self.spectrum.as_ref().map(|(dir, _)| dir), self.vae.as_ref().map(|(dir, _)| dir)];
        for dir in others.into_iter().flatten() {
            paths.push(super::weight_file(dir, beside(dir, variant))?);
        }
        Ok(paths)
    }
}

/// The variant of a component beside the denoising network: the small ones often come in full precision only.
pub(super) fn beside<'a>(dir: &Path, variant: Option<&'a str>) -> Option<&'a str> {
    variant.filter(|variant| super::weight_file(dir, Some(variant)).is_ok())
}

/// Components that have been found.
#[derive(Default)]
struct Components {
    denoiser: Option<(PathBuf, NetworkConfig)>,
    spectrum: Option<(PathBuf, SpectrumMlpConfig)>,
    vae: Option<(PathBuf, AutoencoderConfig)>,
    scheduler: Option<SchedulerConfig>,
}

impl Components {
    /// Adds the component that the index at `path` names. One that is not there is left out with a warning, but for the denoising network;
    /// so is one of a kind that this library has no use for.
    fn add_named(&mut self, path: &Path, name: &str) -> Result<()> {
        let dir = path.with_file_name(name);
        if dir.is_dir() && (KNOWN_COMPONENTS.contains(&name) || ComponentConfig::is_known(&dir)) {
            return self.add(&dir);
        }
        if dir.is_dir() {
            log::debug!("{}: a part of another kind of model, which is left out", dir.display());
            return Ok(());
        }
        if DENOISERS.contains(&name) {
            return Err(Error::file(path, name, format!("the folder {}", dir.display()), "no such folder"));
        }
        if KNOWN_COMPONENTS.contains(&name) {
            log::warn!("{}: {name}: the index names it, and there is no such folder; it is left out", path.display());
        }
        Ok(())
    }

    fn add(&mut self, dir: &Path) -> Result<()> {
        let place = dir.to_owned();
        let twice = match ComponentConfig::read(dir)? {
            ComponentConfig::Denoiser(config) => self.denoiser.replace((place, config)).is_some(),
            ComponentConfig::Spectrum(config) => self.spectrum.replace((place, config)).is_some(),
            ComponentConfig::Autoencoder(config) => self.vae.replace((place, config)).is_some(),
            ComponentConfig::Scheduler(config) => self.scheduler.replace(config).is_some(),
        };
        match twice {
            true => Err(Error::file(dir, "component", "one of its kind", "a second one")),
            false => Ok(()),
        }
    }
}

/// Refuses entries of the known components that name neither a component nor, with two nulls, none.
fn check_entries(path: &Path, index: &Map<String, Value>) -> Result<()> {
    for name in KNOWN_COMPONENTS {
        let fits = match index.get(name) {
            None | Some(Value::Null) => true,
            Some(Value::Array(parts)) => {
                matches!(parts.as_slice(), [Value::String(_), Value::String(_)] | [Value::Null, Value::Null])
            }
            Some(_) => false,
        };
        if !fits {
            let expected = "a module and a class, or null twice where there is none";
            let got = index.get(name).cloned().unwrap_or_default();
            return Err(Error::file(path, name, expected, got));
        }
    }
    Ok(())
}

/// The names of the components that are there: entries `[module, class]` that are not null.
pub(in crate::checkpoint) fn component_names(index: &Map<String, Value>) -> Vec<&str> {
    let is_component = |value: &Value| {
        let parts = value.as_array().map(Vec::as_slice);
        matches!(parts, Some([Value::String(_), Value::String(_)]))
    };
    let named = index.iter().filter(|(name, value)| !name.starts_with('_') && is_component(value));
    let plain =
        named.map(|(name, _)| name.as_str()).filter(|name| crate::checkpoint::weight_files::is_plain_name(name));
    plain.take(MOST_COMPONENTS).collect()
}

/// The classes' names from `id2label`, an object by number or a list; a number where one is missing.
fn class_names(path: &Path, labels: Option<&Value>, count: usize) -> Result<Option<Vec<String>>> {
    let wrong = |field: String, expected: String, got: String| Error::file(path, field, expected, got);
    let entries: Vec<(String, &Value)> = match labels {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::Object(labels)) => labels.iter().map(|(key, name)| (key.clone(), name)).collect(),
        Some(Value::Array(names)) => {
            names.iter().enumerate().map(|(class, name)| (class.to_string(), name)).collect()
        }
        Some(other) => {
            let expected = "an object with a name for every class";
            return Err(wrong("id2label".into(), expected.into(), json::describe(other)));
        }
    };
    let mut names: Vec<String> = Vec::new();
    for (key, name) in entries {
        let class = key.parse::<usize>().ok().filter(|class| *class < count).ok_or_else(|| {
            wrong("id2label".into(), format!("numbers below {count}, the classes of the network"), key.clone())
        })?;
        let name =
            name.as_str().ok_or_else(|| wrong(format!("id2label.{key}"), "a name".into(), json::describe(name)))?;
        while names.len() <= class {
            names.push(names.len().to_string());
        }
        names[class] = name.to_owned();
    }
    Ok((!names.is_empty()).then_some(names))
}
