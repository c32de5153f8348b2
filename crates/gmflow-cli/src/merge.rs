//! `gmflow merge`: the parts that calls with `--shard` wrote, joined.

use crate::args::{Format, MergeArgs};
use crate::encode::PART as LATENT_PART;
use crate::eval::parts::{About, Joined, What, join};
use crate::eval::{self, stats};
use crate::failure::usage;
use crate::local;
use crate::output;
use crate::sample::PART;
use crate::sample::earlier::difference;
use crate::sample::files::Files;
use crate::table::{Form, tables};
use anyhow::{Context, Result, bail};
use gmflow::kernel;
use gmflow::samples::Samples;
use gmflow_data::{LatentDataset, LatentManifest, LatentWriter};
use gmflow_eval::PartFile;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Runs the command.
pub fn run(arguments: &MergeArgs) -> Result<()> {
    local::expect(arguments.parts.iter().map(PathBuf::as_path))?;
    match arguments.parts.as_slice() {
        [folder] if folder.is_dir() => latents(folder, arguments),
        files if files.iter().any(|file| PartFile::<About>::is_one(file)) => measured(files, arguments),
        files => samples(files, arguments),
    }
}

/// The name of a part, such as `2-of-8`, and its number and the number of parts.
fn number(name: &str) -> Option<(usize, usize)> {
    let (index, count) = name.split_once("-of-")?;
    Some((index.parse().ok()?, count.parse().ok()?))
}

/// Refuses parts that are not all of one whole; their names and what they are called in messages.
fn expect_all(parts: &[(String, &Path)]) -> Result<()> {
    let numbers: Option<Vec<(usize, usize)>> = parts.iter().map(|(name, _)| number(name)).collect();
    let (Some(numbers), Some((_, path))) = (numbers, parts.first()) else {
        return Err(usage("PART", "files that --shard wrote", "others"));
    };
    let count = numbers.first().map_or(0, |(_, count)| *count);
    if let Some(((_, other), (_, path))) = numbers.iter().zip(parts).find(|((_, other), _)| *other != count) {
        return Err(usage("PART", format!("parts of {count}"), format!("{}, of {other}", path.display())));
    }
    for wanted in 1..=count {
        let found = numbers.iter().filter(|(index, _)| *index == wanted).count();
        if found != 1 {
            let got = if found == 0 { "none" } else { "several" };
            return Err(usage("PART", format!("part {wanted} of {count} beside {}", path.display()), got));
        }
    }
    Ok(())
}

fn samples(files: &[PathBuf], arguments: &MergeArgs) -> Result<()> {
    output::refuse_existing([arguments.out.as_path()], arguments.force)?;
    let format = match extension(&arguments.out).as_str() {
        "npz" => Format::Npz,
        "safetensors" => Format::Safetensors,
        _ => return Err(usage("--out", "a file name ending in .npz or .safetensors", arguments.out.display())),
    };
    let mut parts =
        files.iter().map(|path| read(path).map(|(name, part)| (name, path, part))).collect::<Result<Vec<_>>>()?;
    let names: Vec<(String, &Path)> = parts.iter().map(|(name, path, _)| (name.clone(), path.as_path())).collect();
    expect_all(&names)?;
    parts.sort_by_key(|(name, ..)| number(name));
    let mut whole: Option<Samples> = None;
    for (_, path, part) in parts {
        match &mut whole {
            Some(whole) if whole.made_by != part.made_by || whole.shape != part.shape => {
                let difference =
                    difference(&part.made_by, &whole.made_by).unwrap_or_else(|| "another shape".to_owned());
                let got = format!("others in {} ({difference})", path.display());
                return Err(usage("PART", "parts with the same settings", got));
            }
            Some(whole) => whole.append(part),
            none => *none = Some(part),
        }
    }
    let Some(whole) = whole else { bail!("no part holds a sample") };
    let picture = whole.points.then(|| arguments.out.with_extension("png"));
    output::create_parent(&arguments.out)?;
    Files::Array { path: arguments.out.clone(), format, picture }.write(&whole)?;
    output::line(&format!("{} samples in {}", whole.len(), arguments.out.display()))
}

/// Joins the parts of statistics or of figures.
fn measured(files: &[PathBuf], arguments: &MergeArgs) -> Result<()> {
    let mut parts = files.iter().map(|path| Ok(PartFile::<About>::load(path)?)).collect::<Result<Vec<_>>>()?;
    let names: Vec<(String, &Path)> =
        parts.iter().zip(files).map(|(part, path)| (part.about.part.clone(), path.as_path())).collect();
    expect_all(&names)?;
    parts.sort_by_key(|part| number(&part.about.part));
    let out = &arguments.out;
    match parts.first().map(|part| &part.about.of) {
        Some(What::Stats) => {
            output::require_ending(out, "safetensors")?;
            output::refuse_existing([out.as_path()], arguments.force)?;
        }
        _ => eval::expect_files(out, arguments.force)?,
    }
    match kernel::in_pool(|| join(parts))? {
        Joined::Stats(set) => {
            output::create_parent(out)?;
            set.save(out)?;
            output::line(&stats::words(out, &set))
        }
        Joined::Eval(rows) => {
            eval::write(out, &rows)?;
            output::line(tables(&rows, Form::new(false)).trim_end())
        }
    }
}

fn extension(path: &Path) -> String {
    path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// The name of the part in a file, and its samples.
fn read(path: &Path) -> Result<(String, Samples)> {
    let mut samples = Samples::load(path)?;
    let part = samples.made_by.as_object_mut().and_then(|entries| entries.remove(PART));
    match part {
        Some(Value::String(part)) => Ok((part, samples)),
        _ => Err(usage("PART", "a file that gmflow sample --shard wrote", path.display())),
    }
}

/// Joins the parts of a cache of latents, which lie in one folder.
fn latents(folder: &Path, arguments: &MergeArgs) -> Result<()> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut parts: Vec<(usize, String, PathBuf)> = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if let Some(name) = name.strip_prefix(LATENT_PART) {
            let index = number(name).map_or(0, |(index, _)| index);
            parts.push((index, name.to_owned(), path));
        }
    }
    parts.sort();
    let names: Vec<(String, &Path)> = parts.iter().map(|(_, name, path)| (name.clone(), path.as_path())).collect();
    expect_all(&names)?;
    let parts = parts.iter().map(|(.., path)| Ok(LatentDataset::open(path)?)).collect::<Result<Vec<_>>>()?;
    let bare =
        |manifest: &LatentManifest| LatentManifest { count: 0, left_out: 0, complete: false, ..manifest.clone() };
    let Some(manifest) = parts.first().map(|part| bare(part.manifest())) else {
        return Err(usage("PART", "a folder with the parts of a cache of latents", folder.display()));
    };
    if parts.iter().any(|part| bare(part.manifest()) != manifest) {
        return Err(usage("PART", "parts of one cache", "parts of other images or settings"));
    }
    let mut writer = match arguments.force {
        true => LatentWriter::restart(&arguments.out, manifest)?,
        false => LatentWriter::open(&arguments.out, manifest)?,
    };
    let done = writer.written();
    let mut index = 0;
    for part in &parts {
        for row in 0..part.manifest().count {
            // A call that was interrupted goes on where it ended.
            if index >= done {
                writer.push(&part.encoded(row)?)?;
            }
            index += 1;
        }
    }
    let manifest = writer.finish(parts.iter().map(|part| part.manifest().left_out).sum())?;
    output::line(&format!("{} latents in {}", manifest.count, arguments.out.display()))
}
