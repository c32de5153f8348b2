//! Which weight files a component has, and the names of tensors in older ones.

use super::WEIGHTS_STEM;
use crate::checkpoint::weight_files::{WeightFiles, is_plain_name};
use crate::{Error, Result};
use std::fs;
use std::path::{Path, PathBuf};

const EXTENSION: &str = ".safetensors";
const INDEX: &str = ".safetensors.index";

/// The weight file of a component, or the index of its shards: that of `variant`, or else the plain one, or else the only
/// variant there is.
///
/// # Errors
/// [`crate::FilesError::File`] where there is none, naming what there is.
pub fn weight_file(dir: &Path, variant: Option<&str>) -> Result<PathBuf> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(|error| Error::io(dir, error))? {
        names.push(entry.map_err(|error| Error::io(dir, error))?.file_name().to_string_lossy().into_owned());
    }
    if let Some(name) = choose_weights(&names, variant)? {
        return Ok(dir.join(name));
    }
    let variants: Vec<String> =
        candidates(&names).into_iter().map(|(variant, _)| variant.unwrap_or("(none)".into())).collect();
    let expected = match variant {
        Some(variant) => format!("{WEIGHTS_STEM}.{variant}.safetensors"),
        None => format!("{WEIGHTS_STEM}.safetensors"),
    };
    Err(Error::file(dir, "weights", expected, got(dir, &variants)))
}

/// The weight file, or the index of shards, among the files of a folder, as [`weight_file`] chooses it; `None` where there is none.
///
/// # Errors
/// [`crate::FilesError::Config`] for a variant that cannot be part of a file's name.
pub fn choose_weights(names: &[String], variant: Option<&str>) -> Result<Option<String>> {
    if let Some(variant) = variant.filter(|variant| !is_plain_name(variant)) {
        return Err(Error::config("variant", "a part of a file name, such as bf16", variant));
    }
    let found = candidates(names);
    let chosen = match (variant, found.as_slice()) {
        (None, [only]) => Some(only),
        (wanted, _) => found.iter().find(|(variant, _)| variant.as_deref() == wanted),
    };
    Ok(chosen.map(|(_, name)| name.clone()))
}

/// What is there instead.
fn got(dir: &Path, variants: &[String]) -> String {
    if !variants.is_empty() {
        return format!("variants {}", variants.join(", "));
    }
    let pickles = ["bin", "pt", "pth"].map(|extension| format!("{WEIGHTS_STEM}.{extension}"));
    match pickles.iter().find(|name| dir.join(name).is_file()) {
        Some(pickle) => format!("{pickle}, which `gmflow import` turns into safetensors"),
        None => "none".into(),
    }
}

/// Opens the weights of a component.
///
/// # Errors
/// Those of [`weight_file`], [`WeightFiles::open`] and [`WeightFiles::open_index`].
pub fn open(dir: &Path, variant: Option<&str>) -> Result<WeightFiles> {
    let path = weight_file(dir, variant)?;
    match path.extension().is_some_and(|extension| extension == "json") {
        true => WeightFiles::open_index(&path),
        false => WeightFiles::open(&path),
    }
}

/// The weight files that are no shards and the indices, each with its variant.
fn candidates(names: &[String]) -> Vec<(Option<String>, String)> {
    let variants = names.iter().filter_map(|name| Some((variant_of(name)?, name.clone())));
    let mut found: Vec<_> = variants.collect();
    // Beside a whole file, shards of the same variant are not looked at.
    found.sort_by_key(|(variant, name)| (variant.clone(), name.ends_with(".json"), name.clone()));
    found.dedup_by(|later, earlier| later.0 == earlier.0);
    found
}

/// The variant in the name of a weight file or of an index of shards; the outer `None` is for other files and shards.
fn variant_of(name: &str) -> Option<Option<String>> {
    let rest = name.strip_prefix(WEIGHTS_STEM)?;
    let middle = match rest.strip_suffix(".json") {
        // The variant stands before the extension or behind the index, depending on the library's version.
        Some(index) => match index.strip_suffix(INDEX) {
            Some(before) => before,
            None => index.strip_prefix(INDEX)?,
        },
        None => rest.strip_suffix(EXTENSION)?,
    };
    match middle.strip_prefix('.') {
        None if middle.is_empty() => Some(None),
        Some(variant) if !variant.is_empty() && !variant.contains('.') && !variant.contains("-of-") => {
            Some(Some(variant.to_owned()))
        }
        _ => None,
    }
}

/// The name and shape that a tensor of an autoencoder's attention has today, from those of any version: the projections were
/// called query, key, value and proj_attn, and were 1x1 convolutions before that.
pub fn new_attention_name(name: &str, shape: &[usize]) -> (String, Vec<usize>) {
    let shape = match shape {
        [o, i, 1, 1] if name.contains(".attentions.") => vec![*o, *i],
        other => other.to_vec(),
    };
    let parts = name.rsplit_once('.').and_then(|(path, leaf)| Some((path.rsplit_once('.')?, leaf)));
    let Some(((path, part), leaf)) = parts.filter(|_| name.contains(".attentions.")) else {
        return (name.to_owned(), shape);
    };
    let part = match part {
        "query" => "to_q",
        "key" => "to_k",
        "value" => "to_v",
        "proj_attn" => "to_out.0",
        other => other,
    };
    (format!("{path}.{part}.{leaf}"), shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variants_are_read_from_names() {
        let variant = |name: &str| variant_of(&format!("{WEIGHTS_STEM}{name}"));
        assert_eq!(variant(".safetensors"), Some(None));
        assert_eq!(variant(".bf16.safetensors"), Some(Some("bf16".into())));
        assert_eq!(variant(".safetensors.index.json"), Some(None));
        assert_eq!(variant(".safetensors.index.fp16.json"), Some(Some("fp16".into())));
        assert_eq!(variant(".fp16.safetensors.index.json"), Some(Some("fp16".into())));
        for other in
            ["-00001-of-00002.safetensors", ".fp16-00001-of-00002.safetensors", ".bin", ".json", "x.safetensors"]
        {
            assert_eq!(variant(other), None, "{other}");
        }
    }

    #[test]
    fn the_file_is_chosen_by_variant() {
        let dir = tempfile::tempdir().unwrap();
        let touch = |name: &str| fs::write(dir.path().join(format!("{WEIGHTS_STEM}{name}")), "").unwrap();
        let chosen = |variant: Option<&str>| {
            weight_file(dir.path(), variant).map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
        };
        touch(".bin");
        assert!(chosen(None).unwrap_err().to_string().contains("gmflow import"));
        touch(".bf16.safetensors");
        assert_eq!(chosen(None).unwrap(), format!("{WEIGHTS_STEM}.bf16.safetensors"));
        touch(".fp16.safetensors.index.json");
        assert!(chosen(None).unwrap_err().to_string().contains("variants bf16, fp16"));
        touch(".safetensors");
        assert_eq!(chosen(None).unwrap(), format!("{WEIGHTS_STEM}.safetensors"));
        assert_eq!(chosen(Some("fp16")).unwrap(), format!("{WEIGHTS_STEM}.fp16.safetensors.index.json"));
        touch(".fp16.safetensors");
        assert_eq!(chosen(Some("fp16")).unwrap(), format!("{WEIGHTS_STEM}.fp16.safetensors"));
        assert!(chosen(Some("int8")).is_err());
        assert!(chosen(Some("../x")).is_err());
    }

    #[test]
    fn old_names_become_new_ones() {
        let (name, shape) = new_attention_name("decoder.mid_block.attentions.0.proj_attn.weight", &[4, 4, 1, 1]);
        assert_eq!(
            (name.as_str(), shape.as_slice()),
            ("decoder.mid_block.attentions.0.to_out.0.weight", &[4, 4][..])
        );
        for same in ["decoder.mid_block.attentions.0.to_q.bias", "decoder.conv_in.weight", "x"] {
            assert_eq!(new_attention_name(same, &[4]), (same.to_owned(), vec![4]));
        }
    }
}
