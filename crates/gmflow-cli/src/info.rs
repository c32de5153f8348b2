//! `gmflow info`: what a checkpoint holds, from its description and the headers of its weight files.

use crate::args::InfoArgs;
use crate::checkpoint_path::resolve;
use crate::machine;
use crate::output;
use anyhow::Result;
use gmflow::checkpoint::{DataKind, Model, ModelInfo, Progress, StoredTensor, WeightFiles};
use gmflow::guidance::ReweightScale;
use gmflow::solver::{SecondOrderMode, SolverConfig};
use gmflow_train::progress::grouped;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

/// Everything that `gmflow info` tells.
#[derive(Serialize)]
struct Report {
    folder: PathBuf,
    /// K.
    components: usize,
    /// Parameters of the main network and of the spectrum network.
    parameters: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    spectrum_parameters: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vae_parameters: Option<usize>,
    ema: Vec<String>,
    #[serde(flatten)]
    info: ModelInfo,
    files: Vec<WeightFile>,
}

/// One weight file.
#[derive(Serialize)]
struct WeightFile {
    name: String,
    bytes: u64,
    tensors: Vec<TensorLine>,
}

/// One tensor of a weight file.
#[derive(Serialize)]
struct TensorLine {
    name: String,
    dtype: String,
    shape: Vec<usize>,
}

/// Runs the command.
pub fn run(arguments: &InfoArgs) -> Result<()> {
    let Some(checkpoint) = &arguments.checkpoint else { return machine::run(arguments.json) };
    let folder = resolve(checkpoint, &arguments.published)?;
    let report = Report::read(&folder, arguments.published.variant.as_deref())?;
    if arguments.json { output::json(&report) } else { output::line(report.text(arguments.tensors)?.trim_end()) }
}

impl Report {
    fn read(folder: &Path, variant: Option<&str>) -> Result<Self> {
        let info = ModelInfo::load(folder)?;
        let ema = Model::ema_names(folder)?;
        let files: Vec<WeightFile> = Model::weight_files(folder, variant)?
            .iter()
            .map(|path| WeightFile::read(folder, path))
            .collect::<Result<_>>()?;
        let count = |name: &str| files.iter().find(|file| file.name.starts_with(name)).map(WeightFile::parameters);
        let parameters = files.first().map_or(0, WeightFile::parameters);
        Ok(Self {
            folder: folder.to_owned(),
            components: info.network.num_gaussians(),
            parameters,
            spectrum_parameters: info.spectrum.as_ref().and_then(|_| count("spectrum")),
            vae_parameters: info.latent.as_ref().and_then(|_| count("vae")),
            ema,
            info,
            files,
        })
    }

    /// The summary, and with `tensors` a line for each tensor.
    fn text(&self, tensors: bool) -> Result<String> {
        let mut text = String::new();
        let data = &self.info.data;
        let samples = match data.kind {
            DataKind::Image => format!("images, {} x {} x {}", data.channels, data.height, data.width),
            DataKind::Latents => format!("latents, {} x {} x {}", data.channels, data.height, data.width),
            DataKind::Points => format!("points, {} coordinates", data.channels),
        };
        let classes = self
            .info
            .classes
            .as_ref()
            .map_or("none".to_owned(), |names| format!("{} ({})", names.len(), shortened(names)));
        let progress = self.info.progress;
        writeln!(text, "model         {}", self.folder.display())?;
        writeln!(text, "architecture  {}", settings(&self.info.network)?)?;
        writeln!(text, "components    K = {}", self.components)?;
        writeln!(text, "parameters    {}", grouped(self.parameters as u64))?;
        if let (Some(network), Some(parameters)) = (&self.info.spectrum, self.spectrum_parameters) {
            writeln!(text, "spectrum      {}, {} parameters", settings(network)?, grouped(parameters as u64))?;
        }
        if let (Some(latent), Some(parameters)) = (&self.info.latent, self.vae_parameters) {
            let scale = format!("scaling_factor {}", latent.scaling_factor);
            writeln!(
                text,
                "autoencoder   {}x, {scale}, {} parameters",
                latent.downsampling,
                grouped(parameters as u64)
            )?;
        }
        writeln!(text, "samples       {samples}")?;
        writeln!(text, "classes       {classes}")?;
        if let Some(images) = class_images(&self.info) {
            writeln!(text, "class images  {images}")?;
        }
        if self.info.guidance.is_active() {
            writeln!(text, "guidance      {}", settings(&self.info.guidance)?)?;
        }
        if self.info.reweight_by == ReweightScale::Pixel {
            writeln!(text, "reweighting   by the variance of the pixel")?;
        }
        if self.info.second_order.carry == SecondOrderMode::Translate {
            writeln!(text, "second order  moves the mixture")?;
        }
        if let Some(student) = &self.info.student {
            let calls =
                if student.steps == 1 { "1 network call".to_owned() } else { format!("{} calls", student.steps) };
            writeln!(text, "student       {calls}, {}", settings(&SolverConfig::PiFlow(student.policy))?)?;
        }
        if let Some(teacher) = self.info.student.as_ref().and_then(|student| student.teacher.as_ref()) {
            let guidance =
                if teacher.guidance.is_active() { settings(&teacher.guidance)? } else { "no guidance".to_owned() };
            let interval = teacher.guidance_interval.map(|[low, high]| format!(" on t in [{low}, {high}]"));
            writeln!(text, "teacher       {}, {guidance}{}", teacher.name, interval.unwrap_or_default())?;
        }
        let training = self.info.training.as_ref();
        if let Some(from) = training.and_then(|training| training.pointer("/train/from")?.as_str()) {
            writeln!(text, "from          {from}")?;
        }
        let all = || self.info.earlier.iter().chain(std::iter::once(&progress));
        let sum =
            |count: fn(&Progress) -> u64| all().map(|part| grouped(count(part))).collect::<Vec<_>>().join(" + ");
        writeln!(text, "trained       {} steps, {} samples", sum(|part| part.step), sum(|part| part.images))?;
        // A student learns from its teacher; the loss on data does not count.
        let loss = training.filter(|_| self.info.student.is_none()).and_then(|training| training.get("loss"));
        if let Some(loss) = loss {
            writeln!(text, "loss          {}", settings(loss)?)?;
        }
        writeln!(text, "averages      {}", if self.ema.is_empty() { "none".into() } else { self.ema.join(", ") })?;
        for WeightFile { name, bytes, tensors } in &self.files {
            writeln!(text, "file          {name}: {} tensors, {} bytes", tensors.len(), grouped(*bytes))?;
        }
        if tensors {
            self.files.iter().try_for_each(|file| file.list(&mut text))?;
        }
        Ok(text)
    }
}

/// How many training images the classes had, and which had none; `None` where it is not known.
fn class_images(info: &ModelInfo) -> Option<String> {
    let counts = &info.trained_on.as_ref()?.class_images;
    let (fewest, most) = (counts.iter().filter(|count| **count > 0).min()?, counts.iter().max()?);
    let range = match fewest == most {
        true => grouped(*most),
        false => format!("{} to {}", grouped(*fewest), grouped(*most)),
    };
    let name =
        |class: usize| info.classes.as_ref().and_then(|names| names.get(class)).map_or("?".into(), Clone::clone);
    let none: Vec<String> =
        counts.iter().enumerate().filter(|(_, count)| **count == 0).map(|(i, _)| name(i)).collect();
    let none = if none.is_empty() { String::new() } else { format!("; none of {}", shortened(&none)) };
    Some(format!("{range} of each in training{none}"))
}

impl WeightFile {
    /// Reads the headers alone, so that large checkpoints answer at once.
    fn read(folder: &Path, path: &Path) -> Result<Self> {
        let is_index = path.extension().is_some_and(|extension| extension == "json");
        let files = if is_index { WeightFiles::open_index(path)? } else { WeightFiles::open(path)? };
        let stored = files.stored();
        let mut parts: BTreeSet<&Path> = stored.iter().map(|tensor| tensor.file.as_path()).collect();
        if !is_index {
            parts.insert(path);
        }
        let mut bytes = 0;
        for part in parts {
            bytes += std::fs::metadata(part).map_err(|error| gmflow::Error::io(part, error))?.len();
        }
        let line = |StoredTensor { name, dtype, shape, .. }| TensorLine { name, dtype, shape };
        let name = path.strip_prefix(folder).unwrap_or(path).display().to_string();
        Ok(Self { name, bytes, tensors: stored.into_iter().map(line).collect() })
    }

    /// A line for each tensor.
    fn list(&self, text: &mut String) -> Result<()> {
        writeln!(text, "\n{}:", self.name)?;
        let width = self.tensors.iter().map(|tensor| tensor.name.len()).max().unwrap_or(0);
        for TensorLine { name, dtype, shape } in &self.tensors {
            writeln!(text, "  {name:width$}  {dtype:4}  {shape:?}")?;
        }
        Ok(())
    }

    fn parameters(&self) -> usize {
        self.tensors.iter().map(|tensor| tensor.shape.iter().product::<usize>()).sum()
    }
}

/// A configuration as `name (field value, ...)`, leaving out what is not set.
fn settings(config: &impl Serialize) -> Result<String> {
    let mut value = serde_json::to_value(config)?;
    let Some(fields) = value.as_object_mut() else { return Ok(value.to_string()) };
    let name = fields.remove("type").or_else(|| fields.remove("kind"));
    let fields: Vec<String> = fields
        .iter()
        .filter(|(_, value)| !value.is_null())
        .map(|(field, value)| format!("{field} {value}"))
        .collect();
    let name = name.as_ref().and_then(|name| name.as_str()).unwrap_or("mlp");
    Ok(if fields.is_empty() { name.to_owned() } else { format!("{name} ({})", fields.join(", ")) })
}

/// The first few names.
fn shortened(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(String::as_str).collect();
    // A label may hold commas.
    let between = if shown.iter().any(|name| name.contains(',')) { "; " } else { ", " };
    let more = if names.len() > SHOWN { format!("{between}...") } else { String::new() };
    shown.join(between) + &more
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_lead_with_the_name_and_leave_out_what_is_not_set() {
        let config = serde_json::json!({"type": "mlp2d", "hidden_dim": 256, "constant_logstd": null});
        assert_eq!(settings(&config).unwrap(), "mlp2d (hidden_dim 256)");
    }
}
