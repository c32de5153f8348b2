//! State dicts that `torch.save` has written, turned into safetensors.
//!
//! The pickle in such a file is a program. It is read without being run: calls that do not build tensors are passed over.

mod container;

use super::diffusers::{self, CONFIG_FILE, WEIGHTS_STEM};
use super::precision::{Precision, convert};
use super::weights;
use super::{file, write_atomic};
use crate::network::HostTensor;
use crate::{Error, Result};
use half::{bf16, f16};
use pytorch_reader::{DType, PytorchError, PytorchReader, Tensor};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Where training scripts keep the weights, beside the optimiser's state and settings.
const USUAL_KEY: &str = "state_dict";
/// Tensors may share storage or repeat it, but not to this many times the size of the file, nor beyond [`SMALL`].
const MOST_REPEATS: u64 = 4;
/// Bytes that any file may make.
const SMALL: u64 = 1 << 26;
/// Prefixes that a message lists.
const LISTED: usize = 12;
/// Characters of foreign text that a message repeats.
const SHOWN: usize = 200;
/// Values that one thread looks through at a time.
const CHUNK: usize = 1 << 16;

/// The tensors of a PyTorch file, none of them read yet.
///
/// ```no_run
/// use gmflow::checkpoint::{Precision, PytorchFile};
///
/// let file = PytorchFile::open("checkpoint.pth".as_ref(), None)?.select("diffusion_ema.denoising.")?;
/// file.convert("transformer.safetensors".as_ref(), Precision::Bf16)?;
/// # Ok::<(), gmflow::Error>(())
/// ```
pub struct PytorchFile {
    path: PathBuf,
    /// The file's size.
    bytes: u64,
    tensors: BTreeMap<String, Tensor>,
    left_out: usize,
    /// Names of tensors of integers.
    integers: Vec<String>,
}

impl PytorchFile {
    /// Opens a file and lists the tensors below `key`; without one, those below `state_dict` where there is such a key, and
    /// else all. Dictionaries in dictionaries are joined by dots.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`] where it cannot be read; [`crate::FilesError::File`] where it is no PyTorch file of the last years, is
    /// damaged, or has no such key.
    pub fn open(path: &Path, key: Option<&str>) -> Result<Self> {
        let bytes = container::check(path)?;
        let tensors = PytorchReader::new(path).map_err(|error| unreadable(path, &error))?.into_tensors();
        let (integers, tensors): (Vec<_>, Vec<_>) =
            tensors.into_iter().partition(|(_, tensor)| holds_integers(tensor));
        let mut integers: Vec<String> = integers.into_iter().map(|(name, _)| name).collect();
        integers.sort();
        let all = Self {
            path: path.to_owned(),
            bytes,
            tensors: tensors.into_iter().collect(),
            left_out: integers.len(),
            integers,
        };
        let usual = format!("{USUAL_KEY}.");
        match key {
            Some(key) => all.below(&format!("{key}."), "key"),
            None if all.tensors.keys().any(|name| name.starts_with(&usual)) => all.below(&usual, "key"),
            None if all.tensors.is_empty() => {
                Err(Error::file(path, "content", "tensors of floating-point numbers by name", "none"))
            }
            None => Ok(all),
        }
    }

    /// The tensors whose names begin with `prefix`, without it; a dot at its end may be left out.
    ///
    /// # Errors
    /// [`crate::FilesError::File`] where there are none, with the prefixes that there are.
    pub fn select(self, prefix: &str) -> Result<Self> {
        match prefix.is_empty() || prefix.ends_with('.') {
            true => self.below(prefix, "prefix"),
            false => self.below(&format!("{prefix}."), "prefix"),
        }
    }

    fn below(mut self, prefix: &str, what: &str) -> Result<Self> {
        let before = self.tensors.len();
        let (mut chosen, mut others) = (BTreeMap::new(), BTreeSet::new());
        for (name, tensor) in self.tensors {
            match name.strip_prefix(prefix) {
                Some(rest) if !rest.is_empty() => drop(chosen.insert(rest.to_owned(), tensor)),
                _ => drop(others.insert(name)),
            }
        }
        if chosen.is_empty() {
            let expected = format!("tensors below {}", shown(prefix));
            return Err(Error::file(self.path, what, expected, format!("prefixes {}", prefixes(&others))));
        }
        self.left_out += before - chosen.len();
        self.integers =
            self.integers.iter().filter_map(|name| name.strip_prefix(prefix)).map(str::to_owned).collect();
        Ok(Self { tensors: chosen, ..self })
    }

    /// How many tensors there are.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// How many tensors of the file are not below the key and prefix, or hold integers.
    pub fn left_out(&self) -> usize {
        self.left_out
    }

    /// The names of the tensors below the key and prefix that hold integers, sorted: counters and indices, which are no weights and are left
    /// out.
    pub fn integers(&self) -> &[String] {
        &self.integers
    }

    /// Names and shapes, by name.
    pub fn shapes(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape()))
    }

    /// Writes the tensors to a safetensors file, atomically; one at a time is in memory.
    ///
    /// # Errors
    /// [`crate::FilesError::File`] naming a tensor that holds no floating-point numbers, or numbers that are not finite in that
    /// precision, or is damaged; [`crate::FilesError::Io`].
    pub fn convert(&self, out: &Path, precision: Precision) -> Result<()> {
        self.check()?;
        let tensors: Vec<(&str, &Tensor)> = self.tensors.iter().map(|(name, t)| (name.as_str(), t)).collect();
        let shapes: Vec<_> = tensors.iter().map(|(name, tensor)| (*name, tensor.shape())).collect();
        weights::write(out, &shapes, precision, |i| self.encoded(tensors[i].0, tensors[i].1, precision))?;
        Ok(())
    }

    /// Writes the tensors as a component of a published checkpoint: `dir` with a copy of `config` and the weights, which
    /// must have the names and shapes of the network that the config describes.
    ///
    /// # Errors
    /// Those of [`PytorchFile::convert`]; [`crate::FilesError::File`] naming a field of the config, or a tensor that is missing, left
    /// over or of the wrong shape.
    pub fn convert_component(mut self, config: &Path, dir: &Path, precision: Precision) -> Result<()> {
        let bytes = file::read(config)?;
        let architecture = diffusers::architecture(config, &bytes)?;
        let mut shapes = BTreeMap::new();
        let mut tensors = BTreeMap::new();
        for (old, tensor) in std::mem::take(&mut self.tensors) {
            let (name, shape) = (architecture.rename)(&old, tensor.shape());
            shapes.insert(name.clone(), shape);
            if tensors.insert(name.clone(), tensor).is_some() {
                return Err(self.wrong(&old, "a name of its own", shown(&name)));
            }
        }
        self.tensors = tensors;
        for (name, expected) in &architecture.shapes {
            match shapes.get(name) {
                Some(shape) if shape == expected => {}
                Some(shape) => {
                    return Err(self.wrong(name, format!("shape {expected:?}"), format!("shape {shape:?}")));
                }
                None => {
                    // Where no name fits, it is the prefix that is missing.
                    let foreign = !shapes.keys().any(|name| architecture.shapes.contains_key(name));
                    let found = || format!("prefixes {}", prefixes(&shapes.into_keys().collect()));
                    let got = if foreign { found() } else { "no tensor".into() };
                    return Err(self.wrong(name, format!("shape {expected:?}"), got));
                }
            }
        }
        if let Some(name) = shapes.keys().find(|name| !architecture.shapes.contains_key(*name)) {
            return Err(self.wrong(name, "no such tensor in this network", "a tensor"));
        }
        self.check()?;
        let tensors: Vec<(&str, &Tensor)> = self.tensors.iter().map(|(name, t)| (name.as_str(), t)).collect();
        let shapes: Vec<_> = shapes.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
        std::fs::create_dir_all(dir).map_err(|error| Error::io(dir, error))?;
        let out = dir.join(format!("{WEIGHTS_STEM}.safetensors"));
        weights::write(&out, &shapes, precision, |i| self.encoded(tensors[i].0, tensors[i].1, precision))?;
        // Last, so that a folder with it is complete.
        write_atomic(&dir.join(CONFIG_FILE), &bytes)
    }

    /// Refuses what can be refused before anything is read.
    fn check(&self) -> Result<()> {
        let most = self.bytes.saturating_mul(MOST_REPEATS).max(SMALL);
        let mut total = 0u64;
        for (name, tensor) in &self.tensors {
            if !matches!(tensor.dtype(), DType::F64 | DType::F32 | DType::F16 | DType::BF16) {
                return Err(self.wrong(name, "floating-point numbers", format!("{:?}", tensor.dtype())));
            }
            total = total.saturating_add(tensor.byte_len() as u64);
            if total > most {
                let expected = format!("at most {most} bytes of tensors in a file of {}", self.bytes);
                return Err(self.wrong(name, expected, total));
            }
        }
        Ok(())
    }

    /// Reads all tensors of floating-point numbers; integers, such as the counters of batch norms, are left out.
    ///
    /// # Errors
    /// [`crate::FilesError::File`] naming a tensor that is damaged, or more tensors than such a file can hold; [`crate::FilesError::Io`].
    pub fn read_all(self) -> Result<BTreeMap<String, HostTensor>> {
        self.check()?;
        let read = |(name, tensor): (&String, &Tensor)| {
            let shape = tensor.shape().to_vec();
            Ok((name.clone(), HostTensor { shape, values: self.values(name, tensor)? }))
        };
        self.tensors.iter().map(read).collect()
    }

    /// The numbers of a tensor.
    fn values(&self, name: &str, tensor: &Tensor) -> Result<Vec<f32>> {
        let bytes = tensor.read().map_err(|error| match error.raw_os_error() {
            Some(_) => Error::io(&self.path, error),
            None => self.wrong(name, "all its bytes", shown(&error.to_string())),
        })?;
        match tensor.dtype() {
            DType::F64 => Ok(convert(&bytes, |b| f64::from_ne_bytes(b) as f32)),
            DType::F32 => Ok(convert(&bytes, f32::from_ne_bytes)),
            DType::F16 => Ok(convert(&bytes, |b| f16::from_ne_bytes(b).to_f32())),
            DType::BF16 => Ok(convert(&bytes, |b| bf16::from_ne_bytes(b).to_f32())),
            other => Err(self.wrong(name, "floating-point numbers", format!("{other:?}"))),
        }
    }

    /// The bytes of a tensor in `precision`.
    fn encoded(&self, name: &str, tensor: &Tensor, precision: Precision) -> Result<Vec<u8>> {
        let values = self.values(name, tensor)?;
        let unfit = |v: &&f32| !precision.round(**v).is_finite();
        match values.par_chunks(CHUNK).find_map_first(|part| part.iter().find(unfit)) {
            Some(value) => {
                Err(self.wrong(name, format!("finite values within the range of {}", precision.name()), value))
            }
            None => Ok(precision.encode(&values)),
        }
    }

    fn wrong(&self, name: &str, expected: impl Into<String>, got: impl ToString) -> Error {
        Error::file(&self.path, format!("tensor {}", shown(name)), expected, got)
    }
}

/// Whether a tensor holds integers or truth values.
fn holds_integers(tensor: &Tensor) -> bool {
    !matches!(tensor.dtype(), DType::F64 | DType::F32 | DType::F16 | DType::BF16)
}

fn unreadable(path: &Path, error: &PytorchError) -> Error {
    let code = if let PytorchError::Io(io) = error { io.raw_os_error() } else { None };
    match code {
        Some(code) => Error::io(path, std::io::Error::from_raw_os_error(code)),
        None => Error::file(path, "content", "a PyTorch state dict", shown(&error.to_string())),
    }
}

/// Text of a foreign file, made fit for one line of a message.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push_str("...");
    }
    shown
}

/// The prefixes of these names, as deep as a message has room for.
fn prefixes(names: &BTreeSet<String>) -> String {
    let at_depth = |depth: usize| -> BTreeSet<&str> {
        let prefix = |name: &String| name.match_indices('.').take(depth).last().map(|(at, _)| at + 1);
        names.iter().filter_map(|name| name.get(..prefix(name)?)).collect()
    };
    let fitting = (1..=3).rev().map(at_depth).find(|found| found.len() <= LISTED);
    let found = fitting.unwrap_or_else(|| at_depth(1));
    if found.is_empty() {
        return "none".into();
    }
    let listed: Vec<String> = found.iter().take(LISTED).map(|prefix| shown(prefix)).collect();
    let more = found.len().saturating_sub(LISTED);
    if more > 0 { format!("{} and {more} more", listed.join(", ")) } else { listed.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(names: &[&str]) -> String {
        prefixes(&names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn prefixes_are_listed_as_deep_as_there_is_room() {
        assert_eq!(listed(&["a.b.w", "a.c.w", "d.w", "e"]), "a.b., a.c., d.");
        assert_eq!(listed(&["weight"]), "none");
        let blocks: Vec<String> = (0..20).map(|i| format!("net.{i}.weight")).collect();
        let blocks: Vec<&str> = blocks.iter().map(String::as_str).collect();
        assert_eq!(listed(&blocks), "net.");
        let modules: Vec<String> = (10..30).map(|i| format!("m{i}.weight")).collect();
        let modules: Vec<&str> = modules.iter().map(String::as_str).collect();
        assert!(listed(&modules).ends_with("m21. and 8 more"), "{}", listed(&modules));
    }

    #[test]
    fn foreign_text_stays_on_one_line() {
        assert_eq!(shown("a\nb\u{1b}[2J"), "a?b?[2J");
        assert_eq!(shown(&"x".repeat(1000)).len(), SHOWN + 3);
    }
}
