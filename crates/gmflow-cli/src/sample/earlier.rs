//! What is there already where samples are to be written: earlier samples, and files of others.

use super::files::Paths;
use crate::failure::usage;
use anyhow::{Context, Result, bail};
use gmflow_files::is_clutter;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};

/// The entry or chunk of a file that says how `gmflow sample` made it, and a field that is in every such description.
const MADE_BY: &str = "gmflow";
/// What is said of single samples and is no setting of them all.
const OF_SINGLE_SAMPLES: [&str; 5] = ["seed", "seeds", "class", "class_name", "classes"];
/// Settings that are paths.
const PATHS: [&str; 3] = ["checkpoint", "vae", "noise"];
/// Endings of the pictures that people train on.
const PICTURES: [&str; 8] = ["png", "jpg", "jpeg", "webp", "bmp", "gif", "tif", "tiff"];
/// A longer header is that of no array file of ours.
const LONGEST_HEADER: u64 = 100 << 20;

/// Checks that `paths` may be written by a call with the settings `made_by`, and that `folder`, where the paths' names were chosen for the
/// user, holds no samples of other settings. With `force`, earlier samples may be replaced; those of other settings are returned, to be
/// removed.
///
/// # Errors
/// A file that is in the way, or samples of other settings.
pub fn check(paths: Paths, folder: Option<&Path>, made_by: &Value, force: bool) -> Result<Vec<PathBuf>> {
    let mut others = Vec::new();
    for path in folder.map(samples_in).transpose()?.unwrap_or_default() {
        let Some(difference) = read(&path).and_then(|theirs| difference(&theirs, made_by)) else { continue };
        if !force {
            bail!(
                "{}: expected samples of the same settings beside those to be written, got others ({difference}); \
                 write to another folder, or --force removes them",
                path.display()
            );
        }
        others.push(path);
    }
    for path in &paths.existing()? {
        let name = path.display();
        if read(path).is_none() {
            bail!("{name}: exists already, and gmflow sample did not write it; move it, or write elsewhere");
        }
        if !force {
            bail!("{name}: exists already; --force replaces it");
        }
    }
    others.retain(|other| !paths.contains(other));
    Ok(others)
}

/// Refuses a folder of pictures which `gmflow sample` did not write, or of nothing but folders of them: samples among them would be taken
/// for data. A folder that holds samples of `gmflow sample` already is no such folder.
///
/// # Errors
/// Such a picture.
pub fn refuse_pictures_of_others(folder: &Path) -> Result<()> {
    let is_of_others = |path: &&PathBuf| {
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase()).unwrap_or_default();
        PICTURES.contains(&ending.as_str()) && path.is_file() && read(path).is_none()
    };
    let inside = entries(folder);
    // One picture of a class tells what the others are.
    let of_class = |folder: &PathBuf| entries(folder).first().filter(is_of_others).cloned();
    let of_classes = || inside.iter().map(of_class).collect::<Option<Vec<_>>>()?.into_iter().next();
    if inside.iter().any(|path| read(path).is_some()) {
        return Ok(());
    }
    match inside.iter().find(is_of_others).cloned().or_else(of_classes) {
        Some(picture) => {
            let expected = "a folder without pictures of others, among which samples would be taken for data";
            Err(usage("--out", expected, format!("one with {}", picture.display())))
        }
        None => Ok(()),
    }
}

/// What a folder holds, in order; nothing of what is no folder or cannot be read.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<PathBuf> =
        entries.flatten().filter(|entry| !is_clutter(&entry.file_name())).map(|entry| entry.path()).collect();
    found.sort();
    found
}

/// Files with the names that `gmflow sample` gives, in order.
fn samples_in(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => {
            return Err(usage("--out", "a folder", format!("the file {}", folder.display())));
        }
        Err(error) => return Err(error).with_context(|| folder.display().to_string()),
    };
    let mut files = BTreeSet::new();
    for entry in entries {
        let path = entry.with_context(|| folder.display().to_string())?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_image = name.strip_suffix(".png").is_some_and(|stem| {
            stem == "grid" || stem == "samples" || !stem.is_empty() && stem.bytes().all(|byte| byte.is_ascii_digit())
        });
        if is_image || name == "samples.npz" || name == "samples.safetensors" {
            files.insert(path);
        }
    }
    Ok(files.into_iter().collect())
}

/// How `gmflow sample` made a file; none for other files.
fn read(path: &Path) -> Option<Value> {
    let text = match path.extension()?.to_str()?.to_lowercase().as_str() {
        "png" => png_text(path)?,
        "npz" => {
            let archive = zip::ZipArchive::new(BufReader::new(File::open(path).ok()?)).ok()?;
            String::from_utf8(archive.comment().to_vec()).ok()?
        }
        "safetensors" => tensors_text(path)?,
        _ => return None,
    };
    let made_by: Value = serde_json::from_str(&text).ok()?;
    made_by.get(MADE_BY).is_some().then_some(made_by)
}

fn png_text(path: &Path) -> Option<String> {
    let reader = png::Decoder::new(BufReader::new(File::open(path).ok()?)).read_info().ok()?;
    reader.info().utf8_text.iter().find(|chunk| chunk.keyword == MADE_BY)?.get_text().ok()
}

/// The metadata of a safetensors file, from its header alone.
fn tensors_text(path: &Path) -> Option<String> {
    let mut file = File::open(path).ok()?;
    let mut length = [0; 8];
    file.read_exact(&mut length).ok()?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER {
        return None;
    }
    let header: Value = serde_json::from_reader(BufReader::new(file.take(length))).ok()?;
    Some(header["__metadata__"][MADE_BY].as_str()?.to_owned())
}

/// The first setting of earlier samples that is another one now, in words.
pub fn difference(theirs: &Value, ours: &Value) -> Option<String> {
    let (Some(theirs), Some(ours)) = (theirs.as_object(), ours.as_object()) else { return None };
    let keys: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    let differs = |key: &&&String| {
        let (a, b) = (theirs.get(**key).unwrap_or(&Value::Null), ours.get(**key).unwrap_or(&Value::Null));
        a != b && !(PATHS.contains(&key.as_str()) && is_same_path(a, b)) && !OF_SINGLE_SAMPLES.contains(&key.as_str())
    };
    let key = keys.iter().find(differs)?;
    let shown = |settings: &serde_json::Map<String, Value>| match settings.get(*key) {
        None | Some(Value::Null) => "none".to_owned(),
        Some(value) => value.to_string(),
    };
    Some(format!("{key} {}, now {}", shown(theirs), shown(ours)))
}

/// Whether two paths are one folder or file that exists.
fn is_same_path(a: &Value, b: &Value) -> bool {
    let path = |value: &Value| std::fs::canonicalize(value.as_str()?).ok();
    path(a).is_some_and(|a| path(b) == Some(a))
}
