//! Whether a run may be made in a folder: what can be told before anything is read or computed.

use std::path::{Path, PathBuf};

use gmflow_data::{DatasetConfig, ShardPaths, TarData};

use crate::{Error, Result};

/// Refuses a run inside the folder of its data, where its pictures would become data.
///
/// # Errors
/// [`Error::InData`].
pub(crate) fn outside_data(folder: &Path, source: &DatasetConfig) -> Result<()> {
    let data = match source {
        DatasetConfig::Folder { path, .. }
        | DatasetConfig::Parquet { path, .. }
        | DatasetConfig::Latents { path, .. }
        | DatasetConfig::Tar(TarData { path: ShardPaths::One(path), .. }) => path,
        // Of these only single files are read.
        _ => return Ok(()),
    };
    match data.is_dir() && resolved(folder).starts_with(resolved(data)) {
        true => Err(Error::InData { path: folder.to_path_buf(), data: data.clone() }),
        false => Ok(()),
    }
}

/// The path without links, also of what does not exist yet.
fn resolved(path: &Path) -> PathBuf {
    let full = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let there = full.ancestors().find_map(|above| Some((above, above.canonicalize().ok()?)));
    match there {
        Some((above, real)) => full.strip_prefix(above).map_or(real.clone(), |rest| real.join(rest)),
        None => full,
    }
}
