//! From a trainer to a checkpoint.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use gmflow::checkpoint::{Precision, write_tensors};
use gmflow::network::{HostTensor, Network, TorchNames};

use super::folders::{FOLDER, OPTIMIZER_FILE, SPECTRUM_OPTIMIZER_FILE, UNFINISHED, name, set_aside};
use super::model::model;
use super::state::State;
use crate::optimizer::AdamW;
use crate::params;
use crate::trainable::Trainable;
use crate::trainer::Trainer;
use crate::{Error, Result};

/// Writes the checkpoint of the trainer's current step below `run_folder` and returns its folder.
///
/// It is written beside its place under another name, synced and renamed, so a folder `step-*` is always complete. A folder that has
/// this name already is set aside, not overwritten.
///
/// # Errors
/// A weight, moment or average that is not finite, before anything is written; a file that cannot be written.
pub fn save(trainer: &Trainer, run_folder: &Path) -> Result<PathBuf> {
    trainer.check_finite()?;
    let parent = run_folder.join(FOLDER);
    let name = name(trainer.steps_taken());
    let (unfinished, folder) = (parent.join(format!(".{name}.{UNFINISHED}")), parent.join(&name));
    if unfinished.exists() {
        fs::remove_dir_all(&unfinished).map_err(|e| Error::io(&unfinished, e))?;
    }
    fs::create_dir_all(&unfinished).map_err(|e| Error::io(&unfinished, e))?;
    if let Err(error) = write_files(trainer, &unfinished).and_then(|()| sync(&unfinished)) {
        // What has been written is of no use, and where the disk is full it is in the way. The first error is the one to report.
        let _ = fs::remove_dir_all(&unfinished);
        return Err(error);
    }
    if folder.exists() {
        set_aside(&folder)?;
    }
    fs::rename(&unfinished, &folder).map_err(|e| Error::io(&folder, e))?;
    sync(&parent)?;
    Ok(folder)
}

fn write_files(trainer: &Trainer, folder: &Path) -> Result<()> {
    let network = trainer.network();
    let names: Vec<&str> = network.averages.iter().map(|ema| ema.config.name.as_str()).collect();
    let snapshots = names.iter().map(|name| network.snapshot(Some(name))).collect::<Result<Vec<Network>>>()?;
    let averages: Vec<(&str, &Network)> = names.iter().copied().zip(&snapshots).collect();
    let mut files = model(trainer)?.save(folder, &averages, Precision::F32)?;
    let mut write = |name: &str, moments: &[(String, HostTensor)]| -> Result<()> {
        files.insert(name.to_owned(), write_tensors(&folder.join(name), moments, Precision::F32)?);
        Ok(())
    };
    write(OPTIMIZER_FILE, &moments(network)?)?;
    if let Some(spectrum) = trainer.spectrum() {
        write(SPECTRUM_OPTIMIZER_FILE, &moments(spectrum)?)?;
    }
    let batch_size = trainer.config().train.batch_size;
    State::new(trainer.steps_taken(), trainer.images(), batch_size, files).write(folder)
}

/// Both moments of every parameter, under the parameter's name.
fn moments<M: TorchNames>(trainable: &Trainable<M>) -> Result<Vec<(String, HostTensor)>> {
    let AdamW { exp_avg, exp_avg_sq, .. } = &trainable.optimizer;
    let mut named = Vec::new();
    for (kind, values) in [("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq)] {
        for (info, values) in trainable.infos.iter().zip(values) {
            let tensor = HostTensor { shape: info.shape.clone(), values: params::on_host(values)? };
            named.push((format!("{kind}.{}", info.name), tensor));
        }
    }
    Ok(named)
}

/// Makes the names in a folder durable.
fn sync(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| Error::io(folder, e))
}
