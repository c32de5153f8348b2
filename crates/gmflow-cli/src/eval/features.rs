//! The feature network that is asked for, and `gmflow features train`.

use super::source::PRECOMPUTED;
use crate::args::{ClassifierSize, FeatureArgs, FeaturesTrainArgs};
use crate::data_source;
use crate::failure::usage;
use crate::local;
use crate::output;
use crate::terminal;
use anyhow::Result;
use burn::tensor::Device;
use gmflow::kernel;
use gmflow_data::{Dataset, DatasetConfig, ImageSettings};
use gmflow_eval::features::classifier::{self, Architecture, Augment, Classifier, TrainSettings};
use gmflow_eval::features::download::INCEPTION;
use gmflow_eval::features::{FeatureNetwork, FeatureSpec};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Where downloaded feature networks are kept, below the home folder.
const CACHE: &str = ".cache/gmflow/features";

/// Channels of the residual classifier's first level, and residual blocks of each level.
const WIDTH: usize = 64;
const DEPTH: usize = 1;

/// The network that the arguments name; none for vectors from another program.
pub fn network(arguments: &FeatureArgs, device: &Device) -> Result<Option<FeatureNetwork>> {
    if arguments.features == PRECOMPUTED {
        return Ok(None);
    }
    let spec: FeatureSpec = arguments.features.parse()?;
    let published = || {
        let folder = match std::env::var_os("GMFLOW_CACHE") {
            Some(folder) => PathBuf::from(folder).join("features"),
            None => std::env::home_dir().unwrap_or_default().join(CACHE),
        };
        let bar = terminal::download(0, INCEPTION.file);
        let path = INCEPTION.fetch(&folder, arguments.download.offline, &mut |bytes| bar.inc(bytes));
        bar.finish_and_clear();
        path
    };
    Ok(Some(FeatureNetwork::load(&spec, device, published)?))
}

/// Fails where features are unknown, or where the file that they are computed with is not there.
pub fn expect(features: &str) -> Result<()> {
    if features == PRECOMPUTED {
        return Ok(());
    }
    match features.parse()? {
        FeatureSpec::Inception { weights: Some(file), .. } | FeatureSpec::Classifier(file) => {
            local::expect([file.as_path()])
        }
        FeatureSpec::Inception { weights: None, .. } | FeatureSpec::Pixels => Ok(()),
    }
}

/// Runs `gmflow features train`.
pub fn train(arguments: &FeaturesTrainArgs) -> Result<()> {
    output::require_ending(&arguments.out, "safetensors")?;
    output::refuse_existing([arguments.out.as_path()], arguments.overwrite.force)?;
    let config = match arguments.data.is_dir() {
        true => {
            let image = ImageSettings { size: arguments.size, ..Default::default() };
            DatasetConfig::Folder { path: arguments.data.clone(), image, storage: Default::default() }
        }
        false => data_source::from_toml(&arguments.data, arguments.named.data_dir.as_deref())?,
    };
    let Dataset::Images { images, corrupt, horizontal_flip } = config.open(Path::new(""))? else {
        return Err(usage("data.source", "labelled images", "points or latents"));
    };
    let settings = settings(arguments, horizontal_flip)?;
    let bar = terminal::bar((images.len() * settings.epochs) as u64, "training", "images");
    let start = Instant::now();
    let mut progress = |done: classifier::Progress| {
        bar.set_length(done.total);
        bar.set_position(done.images);
        bar.set_message(format!("loss {:.3}", done.loss));
        if let Some(accuracy) = done.accuracy {
            let epoch = (done.images * settings.epochs as u64).div_ceil(done.total.max(1));
            let (percent, seconds) = (100.0 * accuracy, start.elapsed().as_secs());
            bar.suspend(|| {
                eprintln!("epoch {epoch} of {}: {percent:.2} % held-out images right, {seconds} s", settings.epochs)
            });
        }
    };
    let data = arguments.data.display().to_string();
    let run = || classifier::train(images.as_ref(), corrupt, data, settings, &Device::flex(), &mut progress);
    let classifier: Classifier = kernel::in_pool(run)?;
    bar.finish_and_clear();
    output::create_parent(&arguments.out)?;
    classifier.save(&arguments.out)?;
    let (info, seconds) = (&classifier.info, start.elapsed().as_secs_f64());
    if arguments.outcome.json {
        return output::json(&json!({
            "out": arguments.out, "accuracy": info.accuracy, "held_out": info.held_out,
            "trained_on": info.trained_on, "seconds": seconds
        }));
    }
    output::line(&format!(
        "{}: {:.2} % of {} held-out images right, after {} images {} times ({seconds:.0} s)",
        arguments.out.display(),
        100.0 * info.accuracy,
        info.held_out,
        info.trained_on,
        settings.epochs
    ))
}

/// The settings of training; images are mirrored where the configuration says so, or `--flip`.
fn settings(arguments: &FeaturesTrainArgs, horizontal_flip: bool) -> Result<TrainSettings> {
    let network = match (arguments.network, arguments.width, arguments.depth) {
        (ClassifierSize::Small, None, None) => Architecture::Small,
        (ClassifierSize::Small, width, _) => {
            let name = if width.is_some() { "--width" } else { "--depth" };
            return Err(usage(name, "--network residual beside it", "--network small, which has one size"));
        }
        (ClassifierSize::Residual, width, depth) => {
            Architecture::Residual { width: width.unwrap_or(WIDTH), depth: depth.unwrap_or(DEPTH) }
        }
    };
    let settings = TrainSettings {
        epochs: arguments.epochs,
        batch_size: arguments.batch_size,
        lr: arguments.lr,
        warmup: arguments.warmup,
        weight_decay: arguments.weight_decay,
        label_smoothing: arguments.label_smoothing,
        augment: Augment { shift: arguments.shift, flip: arguments.flip || horizontal_flip },
        network,
        seed: arguments.seed,
        ..TrainSettings::default()
    };
    settings.validate()?;
    Ok(settings)
}
