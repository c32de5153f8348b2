//! `gmflow merge`: the parts that calls with `--shard` wrote, joined.

use crate::args::{Format, MergeArgs};
use crate::encode::PART as LATENT_PART;
use crate::failure::usage;
use crate::local;
use crate::output;
use crate::sample::PART;
use crate::sample::files::Files;
use anyhow::{Context, Result, bail};
use gmflow::samples::Samples;
use gmflow_data::{LatentDataset, LatentManifest, LatentWriter};
use npyz::NpyFile;
use npyz::npz::file_name_from_array_name;
use safetensors::SafeTensors;
use serde_json::Value;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zip::ZipArchive;
use zip::result::ZipError;

/// Runs the command.
pub fn run(arguments: &MergeArgs) -> Result<()> {
    local::expect(arguments.parts.iter().map(PathBuf::as_path))?;
    match arguments.parts.as_slice() {
        [folder] if folder.is_dir() => latents(folder, arguments),
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
    let mut parts = files.iter().map(|path| read(path)).collect::<Result<Vec<_>>>()?;
    let names: Vec<(String, &Path)> =
        parts.iter().zip(files).map(|(part, path)| (part.0.clone(), path.as_path())).collect();
    expect_all(&names)?;
    parts.sort_by_key(|(name, _)| number(name));
    let mut whole: Option<Samples> = None;
    for (name, part) in parts {
        match &mut whole {
            Some(whole) if whole.made_by != part.made_by || whole.shape != part.shape => {
                return Err(usage("PART", "parts with the same settings", format!("others in part {name}")));
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

fn extension(path: &Path) -> String {
    path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// The name of the part in a file, and its samples.
fn read(path: &Path) -> Result<(String, Samples)> {
    let named = || path.display().to_string();
    let file = match extension(path).as_str() {
        "npz" => npz(path).with_context(named)?,
        "safetensors" => tensors(path).with_context(named)?,
        _ => return Err(usage("PART", "files ending in .npz or .safetensors", path.display())),
    };
    let mut made_by: Value = serde_json::from_str(&file.made_by).unwrap_or_default();
    let part = made_by.as_object_mut().and_then(|entries| entries.remove(PART));
    let Some(Value::String(part)) = part else {
        return Err(usage("PART", "a file that gmflow sample --shard wrote", path.display()));
    };
    let (points, shape) = match file.shape.as_slice() {
        [_, channels] => (true, [*channels, 1, 1]),
        [_, channels, height, width] => (false, [*channels, *height, *width]),
        other => bail!("{}: expected samples [n c h w] or [n 2], got {other:?}", path.display()),
    };
    let count = file.seeds.len();
    if file.values.len() != count * shape.iter().product::<usize>() {
        bail!("{}: expected {count} samples of {shape:?}, got {} values", path.display(), file.values.len());
    }
    let classes = file.classes.map(|classes| classes.into_iter().map(|class| class as usize).collect());
    let class_names = Arc::from([]);
    Ok((part, Samples { values: file.values, shape, points, seeds: file.seeds, classes, class_names, made_by }))
}

/// The arrays of a file of samples.
struct Arrays {
    shape: Vec<usize>,
    values: Vec<f32>,
    seeds: Vec<u64>,
    classes: Option<Vec<i64>>,
    made_by: String,
}

fn npz(path: &Path) -> Result<Arrays> {
    let mut archive = ZipArchive::new(BufReader::new(File::open(path)?))?;
    let made_by = String::from_utf8_lossy(archive.comment()).into_owned();
    let samples = array(&mut archive, "samples")?.context("expected an array samples, got none")?;
    let shape = samples.shape().iter().map(|length| *length as usize).collect();
    let values = samples.into_vec()?;
    let seeds = array(&mut archive, "seeds")?.context("expected an array seeds, got none")?.into_vec()?;
    let classes = array(&mut archive, "classes")?.map(|classes| classes.into_vec()).transpose()?;
    Ok(Arrays { shape, values, seeds, classes, made_by })
}

/// The array of that name, if there is one.
fn array<'a>(archive: &'a mut ZipArchive<BufReader<File>>, name: &str) -> Result<Option<NpyFile<impl Read + 'a>>> {
    match archive.by_name(&file_name_from_array_name(name)) {
        Ok(file) => Ok(Some(NpyFile::new(file)?)),
        Err(ZipError::FileNotFound) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn tensors(path: &Path) -> Result<Arrays> {
    let bytes = std::fs::read(path)?;
    let (_, header) = SafeTensors::read_metadata(&bytes)?;
    let made_by = header.metadata().as_ref().and_then(|entries| entries.get("gmflow")).cloned().unwrap_or_default();
    let file = SafeTensors::deserialize(&bytes)?;
    let samples = file.tensor("samples")?;
    let values = samples.data().as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
    let seeds = file.tensor("seeds")?.data().as_chunks::<8>().0.iter().map(|b| u64::from_le_bytes(*b)).collect();
    let classes = file.tensor("classes").ok();
    let classes = classes.map(|c| c.data().as_chunks::<8>().0.iter().map(|b| i64::from_le_bytes(*b)).collect());
    Ok(Arrays { shape: samples.shape().to_vec(), values, seeds, classes, made_by })
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
