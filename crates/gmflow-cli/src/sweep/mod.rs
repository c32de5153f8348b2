//! `gmflow sweep`: a grid of measurements, each made once.

mod chart;
mod parts;
mod report;

use crate::args::{ArrayArgs, DownloadArgs, FeatureArgs, PublishedArgs, SweepArgs};
use crate::checkpoint_path::resolve;
use crate::data_source;
use crate::eval::source::{Reading, Source};
use crate::eval::{features, judge};
use crate::failure::{one_line, usage};
use crate::local;
use crate::output;
use crate::table::Form;
use crate::terminal::Parts;
use crate::world::Job;
use anyhow::{Result, bail};
use burn::tensor::Device;
use gmflow::checkpoint::remove_leftovers;
use gmflow::kernel;
use gmflow_data::{DatasetConfig, Density};
use gmflow_eval::sweep::{Plan, ReferencePlan, Results, Sweep};
use gmflow_eval::{CompareConfig, Judge};
use gmflow_files::FolderLock;
use gmflow_world::{Shard, Solo};
use std::path::Path;

/// The file of all outcomes, in the folder of a sweep or of a part of one.
pub const CELLS: &str = "cells.jsonl";

/// Runs the command.
pub fn run(arguments: &SweepArgs, job: &Job) -> Result<()> {
    let plan = Plan::read(&arguments.plan)?;
    local::expect([plan.reference.data.as_path()])?;
    let device = job.device(&arguments.device.name)?;
    let (shard, part) = (job.shard(arguments.shard.shard), parts::folder(arguments, job));
    let file = arguments.out.join(CELLS);
    output::expect_folder(&arguments.out)?;
    refuse_files_of_others(&arguments.out, &file)?;
    // A part has a folder of its own, with a lock of its own: parts are measured at the same time.
    let folder = part.as_ref().unwrap_or(&arguments.out);
    output::create_folder(folder)?;
    let _lock = FolderLock::acquire(folder, "gmflow sweep")?;
    remove_leftovers(folder, is_written)?;
    if arguments.force {
        output::remove_file(&folder.join(CELLS))?;
        if part.is_none() {
            parts::remove(&arguments.out)?;
        }
    }
    let data = arguments.named.data_dir.as_deref();
    features::expect(&plan.reference.features)?;
    let density = density(&plan.reference, data)?;
    let mut sweep = Sweep::new(plan, Results::open(&folder.join(CELLS))?, device.clone());
    parts::take(&mut sweep, &arguments.out, part.as_deref())?;
    let reference = OpenReference { data, download: arguments.download, device: &device };
    let failed = kernel::in_pool(|| measure(&mut sweep, shard, &reference))?;
    let failed = parts::join(&mut sweep, failed, job)?;
    if !job.is_first() {
        return Ok(());
    }
    if let Some(part) = &part {
        let done = sweep.results().lines.iter().filter(|line| line.row.is_some()).count();
        output::line(&format!("{done} cells in {}; gmflow sweep without --shard joins the parts", part.display()))?;
        return if failed > 0 { bail!("{failed} cells failed; the same call tries them again") } else { Ok(()) };
    }
    let lines = sweep.finished()?;
    let form = Form::new(arguments.table.markdown);
    let table = report::write(sweep.plan(), &lines, density.as_ref(), (&arguments.out, form))?;
    match arguments.table.json {
        true => output::json(&lines)?,
        false => output::line(table.trim_end())?,
    }
    if failed > 0 {
        let all = lines.len() + failed;
        bail!("{failed} of {all} cells failed; the same call tries them again ({})", file.display());
    }
    Ok(())
}

/// Measures what has not been measured; returns how many cells failed.
fn measure(sweep: &mut Sweep, shard: Shard, reference: &OpenReference) -> Result<usize> {
    let cells = sweep.missing_of_part(shard)?;
    if cells.is_empty() {
        return Ok(0);
    }
    let find =
        &mut |checkpoint: &Path| resolve(checkpoint, &PublishedArgs::default()).map_err(|error| one_line(&error));
    // Models first: what a sweep of hours would stop at is found before its first measurement.
    let (jobs, lacking) = sweep.prepare(cells, find)?;
    if jobs.is_empty() {
        return Ok(lacking);
    }
    let judge = reference.open(&sweep.plan().reference)?;
    Ok(lacking + sweep.measure(jobs, &judge, &mut Parts::default())?)
}

/// A sweep overwrites its tables and charts; in a folder without cells, and in which no sweep was ever begun, they are another's.
fn refuse_files_of_others(folder: &Path, cells: &Path) -> Result<()> {
    if cells.exists() || folder.join(FolderLock::FILE_NAME).exists() {
        return Ok(());
    }
    let Ok(entries) = std::fs::read_dir(folder) else { return Ok(()) };
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut others: Vec<String> = names.filter(|name| is_output(name)).collect();
    others.sort();
    match others.is_empty() {
        true => Ok(()),
        false => {
            let got = format!("{} with {}, which no sweep wrote", folder.display(), others.join(", "));
            Err(usage("--out", "an empty folder or that of a sweep", got))
        }
    }
}

/// Whether the tables and charts of a sweep have such a name.
fn is_output(name: &str) -> bool {
    let is_chart = name.ends_with(".png") || name.ends_with(".svg");
    let starts = |stems: [&str; 3]| stems.iter().any(|stem| name.starts_with(stem));
    ["table.md", "best.md"].contains(&name) || is_chart && starts(["distance", "precision", "histograms-"])
}

/// Whether a sweep writes files with such a name.
fn is_written(name: &str) -> bool {
    ["md", "svg", "png", "jsonl"].iter().any(|ending| name.ends_with(&format!(".{ending}")))
}

/// How the reference of a plan is opened.
struct OpenReference<'a> {
    /// The folder of --data.
    data: Option<&'a Path>,
    download: DownloadArgs,
    device: &'a Device,
}

impl OpenReference<'_> {
    fn open(&self, reference: &ReferencePlan) -> Result<Judge> {
        let arrays = ArrayArgs { range: reference.range, layout: reference.layout };
        let reading = Reading { arrays, data: self.data, ..Reading::default() };
        let real = Source::open(&reference.data, &reading)?;
        let network = match real {
            Source::Density(_) => None,
            _ => {
                let asked = FeatureArgs { features: reference.features.clone(), download: self.download };
                features::network(&asked, self.device)?
            }
        };
        let config = CompareConfig { moments_only: reference.moments_only, ..CompareConfig::default() };
        // A process measures its cells alone.
        judge(&reference.data, real, network, (reference.limit, config), (self.device, &Solo::default()))
    }
}

/// The density that points are compared with, for pictures.
fn density(reference: &ReferencePlan, data: Option<&Path>) -> Result<Option<Density>> {
    if !reference.data.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("toml")) {
        return Ok(None);
    }
    match data_source::from_toml(&reference.data, data)? {
        DatasetConfig::Density(density) => {
            density.validate()?;
            Ok(Some(density))
        }
        _ => Ok(None),
    }
}
