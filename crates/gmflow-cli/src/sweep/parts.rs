//! Parts of a sweep that several processes measure: each has a folder of its own in that of the sweep, and the one that writes the tables
//! takes their outcomes.

use super::CELLS;
use crate::args::SweepArgs;
use crate::output;
use crate::world::{Job, unreadable};
use anyhow::{Context, Result};
use gmflow_eval::sweep::{Line, Sweep};
use std::path::{Path, PathBuf};

/// What the folder of a part begins with.
const PART: &str = "part-";

/// The folder of this process's part: that of `--shard`, or of a rank that is not the first; the first writes into that of the sweep.
pub fn folder(arguments: &SweepArgs, job: &Job) -> Option<PathBuf> {
    let shard = job.shard(arguments.shard.shard);
    let has_one = arguments.shard.shard.is_some() || !job.is_first();
    has_one.then(|| arguments.out.join(format!("{PART}{}", shard.name())))
}

/// The folders of parts in that of a sweep, in order.
fn folders(out: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(out) else { return Vec::new() };
    let is_part = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with(PART) && path.join(CELLS).is_file()
    };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_part).collect();
    found.sort();
    found
}

/// Removes the outcomes of all parts.
pub fn remove(out: &Path) -> Result<()> {
    folders(out).iter().try_for_each(|folder| output::remove_file(&folder.join(CELLS)))
}

/// Takes what the whole sweep and its other parts have measured. A part that is being measured elsewhere is only read: its own process
/// repairs it.
pub fn take(sweep: &mut Sweep, out: &Path, own: Option<&Path>) -> Result<()> {
    let whole = own.map(|_| out.to_owned()).filter(|out| out.join(CELLS).is_file());
    let others = folders(out).into_iter().filter(|folder| Some(folder.as_path()) != own);
    for folder in whole.into_iter().chain(others) {
        let path = folder.join(CELLS);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        // A line that is being written is not whole yet.
        sweep.results().take(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())?;
    }
    Ok(())
}

/// Gives the outcomes of all ranks to the first, and all of them the number of cells that failed.
pub fn join(sweep: &mut Sweep, failed: usize, job: &Job) -> Result<usize> {
    if job.world().size() == 1 {
        return Ok(failed);
    }
    let own = serde_json::to_vec(&(failed, &sweep.results().lines))?;
    let Some(parts) = job.world().collect(&own)? else { return Ok(failed) };
    let mut all = 0;
    for part in parts {
        let (failed, lines): (usize, Vec<Line>) = serde_json::from_slice(&part).map_err(|_| unreadable())?;
        all += failed;
        sweep.results().take(lines)?;
    }
    Ok(all)
}
