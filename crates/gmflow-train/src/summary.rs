//! What a run is made of, told before it starts.

use std::fmt::Write;
use std::path::Path;

use burn::module::Module;
use gmflow::checkpoint::{ModelInfo, model_folder};
use gmflow::kernel::MatmulPrecision;
use gmflow::network::NetworkConfig;
use gmflow_data::DatasetConfig;

use crate::progress::grouped;
use crate::{Result, Trainer};

/// Data, network and training of a run, each in a few words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Name and text of every line.
    pub lines: Vec<(&'static str, String)>,
}

impl Summary {
    /// Of a trainer that computes on the device with this name and writes to `folder`.
    ///
    /// # Errors
    /// An earlier update of the trainer failed half way.
    pub fn new(trainer: &Trainer, device: &str, folder: &Path) -> Result<Self> {
        let (config, info) = (trainer.config(), trainer.data_info());
        let [c, h, w] = info.shape;
        let samples = trainer.samples_are();
        let count = info.count.map_or(String::new(), |count| format!("{} ", grouped(count as u64)));
        let shape = if info.points { String::new() } else { format!(" of {c} x {h} x {w}") };
        let data = format!("{count}{samples}{shape} in {}", source_name(&config.data.source));
        let classes = match (&info.classes, trainer.network().module()?.null_class()) {
            (None, _) => "none".to_owned(),
            (Some(names), Some(null)) if null > 0 => format!("{} ({})", names.len(), shortened(names)),
            (Some(names), _) => format!("not used ({})", shortened(names)),
        };
        let parameters = trainer.network().module()?.num_params();
        let spectrum = trainer.spectrum().map(|spectrum| spectrum.module().map(Module::num_params)).transpose()?;
        let spectrum = spectrum.map_or(String::new(), |count| format!(", spectrum {}", grouped(count as u64)));
        let network =
            format!("{}: {} parameters{spectrum}", network_words(&config.network), grouped(parameters as u64));
        let (precision, _) = config.network.computed_in(config.arithmetic(trainer.device()), trainer.device());
        let precision = if precision == MatmulPrecision::F32 { "f32" } else { "bf16 and f32" };
        let threads = match (device, rayon::current_num_threads()) {
            ("cpu", 1) => ", 1 thread".to_owned(),
            ("cpu", threads) => format!(", {threads} threads"),
            _ => String::new(),
        };
        let mut lines = vec![("data", data), ("classes", classes), ("network", network)];
        lines.push(("device", format!("{device}{threads}, {precision}")));
        lines.extend(origin(trainer).map(|text| ("from", text)));
        lines.push(("training", training(trainer, samples)));
        lines.extend(processes(trainer, samples).map(|text| ("processes", text)));
        lines.push(("folder", folder.display().to_string()));
        Ok(Self { lines })
    }
}

impl std::fmt::Display for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let lines: Vec<String> = self.lines.iter().map(|(name, text)| format!("{name:9} {text}")).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// The model that a new run starts from.
fn origin(trainer: &Trainer) -> Option<String> {
    let from = trainer.config().train.from.as_ref().filter(|_| trainer.steps_taken() == 0)?;
    let stored = ModelInfo::load(&model_folder(from).ok()?).ok()?.network.num_gaussians();
    let ours = trainer.config().network.num_gaussians();
    let widened = if stored == ours { String::new() } else { format!(", widened from K = {stored} to K = {ours}") };
    Some(format!("{}{widened}", from.display()))
}

/// How a batch is divided among several processes.
fn processes(trainer: &Trainer, samples: &str) -> Option<String> {
    let (world, batch) = (trainer.team.world(), trainer.config().train.batch_size);
    let size = world.size();
    if size == 1 {
        return None;
    }
    let parts = |rank| gmflow_world::share(batch, rank, size).len();
    let (fewest, most) = ((0..size).map(parts).min()?, (0..size).map(parts).max()?);
    let each = if fewest == most { format!("{most}") } else { format!("{fewest} or {most}") };
    let hosts =
        if world.place().hosts == 1 { "one host".to_owned() } else { format!("{} hosts", world.place().hosts) };
    let state = if trainer.config().train.shard_state { ", moments and averages in parts" } else { "" };
    let bf16 = if trainer.config().train.exchange_bf16 { ", gradients exchanged in bf16" } else { "" };
    Some(format!("{size} on {hosts}, {each} of the {batch} {samples} of a step each{state}{bf16}"))
}

fn training(trainer: &Trainer, samples: &str) -> String {
    let (config, taken) = (trainer.config(), trainer.steps_taken());
    let (total, batch) = (config.total_steps(), config.train.batch_size);
    let seen = total.saturating_mul(batch as u64);
    let mut text = format!("{} steps of {batch} {samples}", grouped(total));
    if let Some(micro) = config.train.micro_batch.filter(|&micro| micro < batch) {
        let _ = write!(text, " in parts of {micro}");
    }
    if let Some(count) = trainer.data_info().count {
        let _ = write!(text, ", every one seen {:.1} times", seen as f64 / count.max(1) as f64);
    }
    if taken > 0 {
        let _ = write!(text, "; goes on after step {}", grouped(taken));
    }
    text
}

/// The data set's kind and place.
fn source_name(source: &DatasetConfig) -> String {
    let mut source = source.clone();
    let first = source.paths_mut().first().map(|(_, path)| path.display().to_string());
    match (&source, first) {
        (DatasetConfig::Named(named), Some(folder)) => format!("{} ({}) in {folder}", named.name.name(), named.split),
        (_, Some(path)) => path,
        (source, None) => match source {
            DatasetConfig::Shapes(_) => "coloured shapes, drawn on the spot".to_owned(),
            DatasetConfig::Density(density) => serde_json::to_value(density)
                .ok()
                .and_then(|value| Some(format!("the plane ({})", value.get("name")?.as_str()?)))
                .unwrap_or_else(|| "the plane".to_owned()),
            _ => "memory".to_owned(),
        },
    }
}

/// A network's kind and shape in a few words.
fn network_words(network: &NetworkConfig) -> String {
    let k = network.num_gaussians();
    match network {
        NetworkConfig::Mlp2d(net) => format!("mlp2d, K = {k}, {} layers of {}", net.num_layers, net.hidden_dim),
        NetworkConfig::GmDit(net) => {
            format!("gm-dit, K = {k}, {} layers of {}, patches of {}", net.num_layers, net.hidden(), net.patch_size)
        }
        NetworkConfig::Unet(net) => format!(
            "unet, K = {k}, {} channels, {} block{} a level",
            net.block_out_channels.iter().map(ToString::to_string).collect::<Vec<_>>().join("-"),
            net.layers_per_block,
            if net.layers_per_block == 1 { "" } else { "s" }
        ),
    }
}

/// The first few names.
fn shortened(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown}, ...") } else { shown }
}
