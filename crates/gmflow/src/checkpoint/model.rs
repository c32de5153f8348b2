//! The folder of a trained model.

use super::ClassNames;
use super::diffusers::{DiffusersFolder, is_diffusers};
use super::digest::{Digests, FileDigest};
use super::file;
use super::precision::Precision;
use super::weight_files::WeightFiles;
use super::weights::{in_file, load_files, load_network, write_module};
use crate::guidance::{Guidance, ReweightScale};
use crate::kernel::MatmulPrecision;
use crate::network::{Autoencoder, Initializer, LatentInfo, Network, NetworkConfig, SpectrumMlp, SpectrumMlpConfig};
use crate::solver::{PiFlow, SecondOrder, SolverConfig};
use crate::{Error, Result, limits};
use burn::tensor::Device;
use gmflow_files::json;
use serde::{Deserialize, Serialize};
use std::fs;
use std::path::{Path, PathBuf};

const FORMAT: &str = "gmflow-model";
const VERSION: u32 = 1;
const INFO_FILE: &str = "model.json";
const WEIGHTS_FILE: &str = "model.safetensors";
const SPECTRUM_FILE: &str = "spectrum.safetensors";

/// What the samples of a model are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DataKind {
    /// Images in [-1, 1].
    Image,
    /// Latents of an autoencoder, shifted and scaled as [`LatentInfo`] says.
    Latents,
    /// Points in the plane.
    Points,
}

/// The shape and meaning of one sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DataInfo {
    /// Channels.
    pub channels: usize,
    /// Height in pixels.
    pub height: usize,
    /// Width in pixels.
    pub width: usize,
    /// Images or points.
    pub kind: DataKind,
}

/// How far training has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Optimiser steps.
    pub step: u64,
    /// Training examples seen.
    pub images: u64,
}

/// What a model was trained on.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TrainedOn {
    /// The number of images of each class; empty where it is not known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub class_images: Vec<u64>,
    /// What the data set was known by, in the form of the program that trained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<serde_json::Value>,
}

/// What a student of distillation was trained for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StudentInfo {
    /// Network calls for a sample.
    pub steps: usize,
    /// How its policy is followed.
    #[serde(default)]
    pub policy: PiFlow,
    /// What it learned from, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub teacher: Option<TeacherInfo>,
}

impl StudentInfo {
    /// Checks every field, naming the first that is out of range.
    pub(super) fn validate(&self) -> Result<()> {
        limits::count("student.steps", self.steps, limits::MOST_STEPS)?;
        SolverConfig::PiFlow(self.policy).validate().map_err(|error| below("student.policy", error))
    }
}

/// A teacher and the guidance that its student has built in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TeacherInfo {
    /// What it was called.
    pub name: String,
    /// Its guidance.
    #[serde(default)]
    pub guidance: Guidance,
    /// The times between which it was guided; absent: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance_interval: Option<[f64; 2]>,
    /// What its guidance divided by.
    #[serde(default, skip_serializing_if = "ReweightScale::is_image")]
    pub reweight_by: ReweightScale,
}

/// Everything about a model but its weights: the content of `model.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// The denoising network's architecture.
    pub network: NetworkConfig,
    /// The spectrum network's shape, where there is one.
    #[serde(default)]
    pub spectrum: Option<SpectrumMlpConfig>,
    /// The samples' shape.
    pub data: DataInfo,
    /// Where the samples are latents, what they are latents of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latent: Option<LatentInfo>,
    /// The classes' names, where the data has classes.
    #[serde(default)]
    pub classes: Option<Vec<String>>,
    /// The guidance to use where none is asked for.
    #[serde(default)]
    pub guidance: Guidance,
    /// What guidance and steps of order 2 divide by where they reweight mixtures, where nothing else is asked for.
    #[serde(default, skip_serializing_if = "ReweightScale::is_image")]
    pub reweight_by: ReweightScale,
    /// The shift of the time grid to sample on.
    #[serde(default = "no_shift")]
    pub shift: f32,
    /// Details of steps of order 2 where none are asked for.
    #[serde(default, skip_serializing_if = "SecondOrder::is_default")]
    pub second_order: SecondOrder,
    /// Of a student of distillation, how it is sampled; the other settings of a sampler then do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub student: Option<StudentInfo>,
    /// The resolved training configuration.
    #[serde(default)]
    pub training: Option<serde_json::Value>,
    /// How far training had come.
    #[serde(default)]
    pub progress: Progress,
    /// How far the trainings had come whose weights this one started from, the first one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<Progress>,
    /// What it was trained on, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trained_on: Option<TrainedOn>,
}

fn no_shift() -> f32 {
    1.0
}

/// `model.json` as it stands in the file.
#[derive(Serialize, Deserialize)]
struct InfoFile {
    format: String,
    version: u32,
    /// The digests of the weight files beside it; folders that were written earlier have none.
    #[serde(default, skip_serializing_if = "Digests::is_empty")]
    files: Digests,
    #[serde(flatten)]
    info: ModelInfo,
}

/// A model ready to sample from.
#[derive(Clone, Debug)]
pub struct Model {
    /// Everything but the weights.
    pub info: ModelInfo,
    /// The denoising network.
    pub network: Network,
    /// The spectrum network, where there is one.
    pub spectrum: Option<SpectrumMlp>,
    /// The autoencoder that its samples are latents of, where it came with one.
    pub vae: Option<Autoencoder>,
}

/// Which of the weights in a folder to load.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions<'a> {
    /// The moving average of that name, of our own folders; without it the weights themselves.
    pub ema: Option<&'a str>,
    /// The variant such as `bf16`, of folders in the diffusers layout.
    pub variant: Option<&'a str>,
    /// Leaves the autoencoder out.
    pub without_vae: bool,
    /// Packs the denoising network on the way, for many predictions in this arithmetic ([`Network::pack`]): more than its panels and one
    /// block's weights are never in memory.
    pub pack: Option<MatmulPrecision>,
    /// Reads weight files without a look at the digests that `model.json` holds of them.
    pub unverified: bool,
}

impl ModelInfo {
    /// The classes by the names that they can be asked for.
    pub fn class_names(&self) -> ClassNames<'_> {
        ClassNames::new(self.classes.as_deref().unwrap_or_default(), self.network.num_classes())
    }

    /// A model without a spectrum network, classes, training and guidance, of samples that are no latents.
    pub fn new(network: NetworkConfig, data: DataInfo) -> Self {
        Self {
            network,
            spectrum: None,
            data,
            latent: None,
            classes: None,
            guidance: Guidance::Off,
            reweight_by: ReweightScale::default(),
            shift: no_shift(),
            second_order: SecondOrder::default(),
            student: None,
            training: None,
            progress: Progress::default(),
            earlier: Vec::new(),
            trained_on: None,
        }
    }

    /// The number of training images of a class, where it is known.
    pub fn class_images(&self, class: usize) -> Option<u64> {
        self.trained_on.as_ref()?.class_images.get(class).copied()
    }

    /// The classes to draw where none are asked for, in order: those with names, or all where there are no names, without those that are
    /// known to have had no image in training. Empty for a model without classes.
    pub fn drawn_classes(&self) -> Vec<usize> {
        let all = self.network.num_classes();
        let named = self.classes.as_ref().map_or(all, Vec::len).min(all);
        let seen: Vec<usize> = (0..named).filter(|class| self.class_images(*class) != Some(0)).collect();
        // Counts of nothing but zeros say nothing.
        if seen.is_empty() { (0..named).collect() } else { seen }
    }

    /// Reads the description of a model folder, ours or in the diffusers layout, without its weights.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`] where it cannot be read, [`crate::FilesError::File`] naming the field that is wrong.
    pub fn load(dir: &Path) -> Result<Self> {
        if !dir.join(INFO_FILE).is_file() && is_diffusers(dir) {
            return DiffusersFolder::open(dir)?.info();
        }
        Ok(InfoFile::read(dir)?.info)
    }

    pub(super) fn validate(&self) -> Result<()> {
        self.network.validate().map_err(|error| below("network", error))?;
        if !(self.shift.is_finite() && self.shift > 0.0) {
            return Err(Error::config("shift", "a positive number", self.shift));
        }
        let shape = [self.data.channels, self.data.height, self.data.width];
        self.network.validate_data(shape)?;
        if let Some(names) = &self.classes
            && !matches!(self.network, NetworkConfig::Mlp2d(_))
            && names.len() > self.network.num_classes()
        {
            let expected = format!("at most {} names", self.network.num_classes());
            return Err(Error::config("classes", expected, names.len()));
        }
        if let Some(latent) = &self.latent {
            latent.validate()?;
        }
        if let Some(student) = &self.student {
            student.validate()?;
        }
        let Some(spectrum) = &self.spectrum else { return Ok(()) };
        spectrum.validate().map_err(|error| below("spectrum", error))?;
        if spectrum.base_size[0] != self.data.channels {
            let expected = format!("{} channels", self.data.channels);
            return Err(Error::config("spectrum.base_size", expected, spectrum.base_size[0]));
        }
        Ok(())
    }
}

impl InfoFile {
    /// Reads and checks `model.json` in `dir`.
    fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(INFO_FILE);
        let stored: Self = json::read(&file::read(&path)?).map_err(|wrong| Error::wrong(&path, wrong))?;
        if stored.format != FORMAT {
            return Err(Error::file(&path, "format", FORMAT, stored.format));
        }
        if stored.version != VERSION {
            return Err(Error::file(&path, "version", VERSION.to_string(), stored.version));
        }
        stored.info.validate().map_err(|error| in_file(&path, error))?;
        Ok(stored)
    }
}

/// Puts a table's name before the field of an error.
fn below(table: &str, error: Error) -> Error {
    match error {
        Error::Files(error) => error.renamed(|field| format!("{table}.{field}")).into(),
        other => other,
    }
}

impl Model {
    /// Reads a model folder: the raw weights, or those of the moving average called `ema`.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`] or [`crate::FilesError::File`] naming the file and the tensor or field that is wrong.
    pub fn load(dir: &Path, ema: Option<&str>, device: &Device) -> Result<Self> {
        Self::load_with(dir, LoadOptions { ema, ..LoadOptions::default() }, device)
    }

    /// Reads a model folder, ours or in the diffusers layout.
    ///
    /// # Errors
    /// As [`Model::load`]; an option that the folder's layout does not have.
    pub fn load_with(dir: &Path, options: LoadOptions, device: &Device) -> Result<Self> {
        if !dir.join(INFO_FILE).is_file() && is_diffusers(dir) {
            if let Some(ema) = options.ema {
                return Err(Error::config("ema", "none: the folder holds one set of weights", ema));
            }
            return DiffusersFolder::open(dir)?.load(options, device);
        }
        if let Some(variant) = options.variant {
            return Err(Error::config("variant", "none: the folder is not in the diffusers layout", variant));
        }
        let stored = InfoFile::read(dir)?;
        // Opened before the digests are looked at: what a file is in place of weights says more than that it is another.
        let open = |name: &str| -> Result<WeightFiles> {
            let files = WeightFiles::open(&dir.join(name))?;
            let digest = stored.files.get(name).filter(|_| !options.unverified);
            digest.map_or(Ok(()), |digest| digest.verify(files.path()))?;
            Ok(files)
        };
        let weights = open(&options.ema.map_or_else(|| Ok(WEIGHTS_FILE.into()), ema_file)?)?;
        let network = load_network(stored.info.network.build(Initializer::blank(device))?, weights, options.pack)?;
        let spectrum = match &stored.info.spectrum {
            Some(config) => Some(load_files(config.build(Initializer::blank(device))?, open(SPECTRUM_FILE)?)?),
            None => None,
        };
        Ok(Self { info: stored.info, network, spectrum, vae: None })
    }

    /// The weight files of a model folder, or the indices of those in shards, the main network's first.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`] or [`crate::FilesError::File`] where the folder is no model's, or has no such variant.
    pub fn weight_files(dir: &Path, variant: Option<&str>) -> Result<Vec<PathBuf>> {
        if !dir.join(INFO_FILE).is_file() && is_diffusers(dir) {
            return DiffusersFolder::open(dir)?.weight_files(variant);
        }
        let info = ModelInfo::load(dir)?;
        let averages: Result<Vec<String>> = Self::ema_names(dir)?.iter().map(|name| ema_file(name)).collect();
        let spectrum = info.spectrum.map(|_| SPECTRUM_FILE.to_owned());
        let names = std::iter::once(WEIGHTS_FILE.to_owned()).chain(averages?).chain(spectrum);
        Ok(names.map(|name| dir.join(name)).collect())
    }

    /// The names of the moving averages stored in a model folder, sorted.
    pub fn ema_names(dir: &Path) -> Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(dir).map_err(|error| Error::io(dir, error))? {
            let entry = entry.map_err(|error| Error::io(dir, error))?;
            let file = entry.file_name().to_string_lossy().into_owned();
            names.extend(file.strip_prefix("ema.").and_then(|f| f.strip_suffix(".safetensors")).map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    /// Writes a model folder: the weights, every named moving average, and `model.json` with their digests last, so that a folder with it
    /// is complete. Returns the digests of all of these files.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`]; [`crate::FilesError::File`] naming a parameter with a value that is not finite in that precision.
    pub fn save(&self, dir: &Path, emas: &[(&str, &Network)], precision: Precision) -> Result<Digests> {
        fs::create_dir_all(dir).map_err(|error| Error::io(dir, error))?;
        let mut files = Digests::new();
        files.insert(WEIGHTS_FILE.into(), write_module(&dir.join(WEIGHTS_FILE), &self.network, precision)?);
        for (name, network) in emas {
            let file = ema_file(name)?;
            let digest = write_module(&dir.join(&file), *network, precision)?;
            files.insert(file, digest);
        }
        if let Some(spectrum) = &self.spectrum {
            files.insert(SPECTRUM_FILE.into(), write_module(&dir.join(SPECTRUM_FILE), spectrum, precision)?);
        }
        let info =
            InfoFile { format: FORMAT.into(), version: VERSION, files: files.clone(), info: self.info.clone() };
        let path = dir.join(INFO_FILE);
        let json = serde_json::to_vec_pretty(&info)
            .map_err(|error| Error::file(&path, "content", "values that JSON can hold", error))?;
        file::write_atomic(&path, &json)?;
        files.insert(INFO_FILE.into(), FileDigest::of_bytes(&json));
        Ok(files)
    }
}

/// The file of a moving average; its name comes from the user and must not leave the folder.
fn ema_file(name: &str) -> Result<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(allowed) {
        return Err(Error::config("ema", "letters, digits, '-', '_' and '.'", name));
    }
    Ok(format!("ema.{name}.safetensors"))
}
