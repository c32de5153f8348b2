//! Where samples go: one place that knows every file before the first sample is drawn.

use crate::args::{Format, SampleArgs};
use crate::failure::usage;
use crate::output;
use crate::plot::{Heat, with_axes};
use anyhow::{Context, Result};
use gmflow::checkpoint::DataKind;
use gmflow::samples::Samples;
use gmflow_world::Shard;
use serde::{Serialize, Serializer};
use std::path::{Path, PathBuf};

/// The endings of what can be written, and of files that a folder is hardly called like.
const FORMATS: [&str; 3] = ["png", "npz", "safetensors"];
const OTHER_FORMATS: [&str; 24] = [
    "jpg", "jpeg", "jfif", "jpe", "jxl", "webp", "gif", "bmp", "tif", "tiff", "avif", "svg", "pdf", "npy", "pt",
    "pth", "bin", "pkl", "json", "csv", "txt", "zip", "tar", "mp4",
];

/// The files of one invocation.
#[derive(Debug, PartialEq, Eq)]
pub enum Files {
    /// One PNG per image, named by its seed.
    Images(PathBuf),
    /// All images in one PNG.
    Grid(PathBuf),
    /// An array file and, for points, a picture of their histogram.
    Array {
        /// The array file.
        path: PathBuf,
        /// Npz or safetensors.
        format: Format,
        /// The picture.
        picture: Option<PathBuf>,
    },
}

impl Files {
    /// Decides from the arguments and what the model makes.
    pub fn plan(arguments: &SampleArgs, kind: DataKind) -> Result<Self> {
        let out = &arguments.out;
        let extension = extension(out);
        let format = arguments.format.unwrap_or(match (kind, extension.as_str()) {
            (_, "safetensors") => Format::Safetensors,
            (DataKind::Points, _) | (_, "npz") => Format::Npz,
            (DataKind::Image | DataKind::Latents, _) => Format::Png,
        });
        if kind == DataKind::Points && (arguments.grid || format == Format::Png) {
            return Err(usage("--grid, --format png", "a model of images", "a model of points"));
        }
        if arguments.latents && (kind != DataKind::Latents || arguments.grid || format == Format::Png) {
            return Err(usage("--latents", "a model of latents, and npz or safetensors", "something else"));
        }
        let wanted = match format {
            Format::Png => "png",
            Format::Npz => "npz",
            Format::Safetensors => "safetensors",
        };
        let is_of_a_file = FORMATS.contains(&extension.as_str()) || OTHER_FORMATS.contains(&extension.as_str());
        if is_of_a_file && extension != wanted && !out.is_dir() {
            let expected = match (kind, arguments.format) {
                (DataKind::Points, None) => "a folder, or a file name ending in .npz or .safetensors".to_owned(),
                (_, None) => "a folder, or a file name ending in .png (with --grid), .npz or .safetensors".to_owned(),
                (_, Some(_)) => format!("a folder, or a file name ending in .{wanted}"),
            };
            return Err(usage("--out", expected, out.display()));
        }
        let file = |wanted: &str, name: &str| {
            if extension == wanted && !out.is_dir() { out.clone() } else { out.join(name) }
        };
        Ok(match format {
            _ if arguments.grid => Self::Grid(file("png", "grid.png")),
            Format::Png if extension == "png" && !out.is_dir() => {
                return Err(usage("--out", "a folder, or --grid for one picture", out.display()));
            }
            Format::Png => Self::Images(out.clone()),
            Format::Npz | Format::Safetensors => {
                let path = match format {
                    Format::Npz => file("npz", "samples.npz"),
                    _ => file("safetensors", "samples.safetensors"),
                };
                let picture = (kind == DataKind::Points).then(|| path.with_extension("png"));
                Self::Array { path, format, picture }
            }
        })
    }

    /// The same for one part of the samples: an array file of a part has its number in its name.
    pub fn of_part(self, shard: Option<Shard>) -> Result<Self> {
        let Some(shard) = shard else { return Ok(self) };
        match self {
            Self::Grid(_) => {
                Err(usage("--shard", "a folder of pictures, or --format npz", "--grid, which shows all samples"))
            }
            Self::Array { path, format, .. } => {
                let ending = path.extension().unwrap_or_default().to_string_lossy().into_owned();
                // The picture is one of all points.
                Ok(Self::Array {
                    path: path.with_extension(format!("{}.{ending}", shard.name())),
                    format,
                    picture: None,
                })
            }
            images => Ok(images),
        }
    }

    /// The paths for `count` samples with seeds from `first` on.
    pub fn paths(&self, first: u64, count: usize) -> Paths<'_> {
        Paths { files: self, first, count }
    }

    /// Creates the folder that the files lie in.
    pub fn create_folder(&self) -> Result<()> {
        match self {
            Self::Images(folder) => output::create_folder(folder),
            Self::Grid(path) | Self::Array { path, .. } => output::create_parent(path),
        }
    }

    /// Writes everything.
    pub fn write(&self, samples: &Samples) -> Result<()> {
        match self {
            Self::Images(folder) => samples.save_images(folder)?,
            Self::Grid(path) => samples.save_grid(path)?,
            Self::Array { path, format, picture } => {
                match format {
                    Format::Npz => samples.save_npz(path)?,
                    _ => samples.save_safetensors(path)?,
                }
                return picture.as_ref().map_or(Ok(()), |picture| write_histogram(samples, picture));
            }
        }
        Ok(())
    }
}

/// The ending of a name, in lower case.
fn extension(path: &Path) -> String {
    path.extension().map(|extension| extension.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// The paths of samples, of which there may be more than fit in memory.
#[derive(Clone, Copy, Debug)]
pub struct Paths<'a> {
    files: &'a Files,
    first: u64,
    count: usize,
}

impl Paths<'_> {
    /// Every path.
    pub fn iter(&self) -> Box<dyn Iterator<Item = PathBuf> + '_> {
        match self.files {
            Files::Images(folder) => {
                let seed = |index: usize| self.first.wrapping_add(index as u64);
                Box::new((0..self.count).map(move |index| Samples::image_path(folder, seed(index))))
            }
            Files::Grid(path) => Box::new(std::iter::once(path.clone())),
            Files::Array { path, picture, .. } => Box::new([path.clone()].into_iter().chain(picture.clone())),
        }
    }

    /// Whether a path is one of them.
    pub fn contains(&self, path: &Path) -> bool {
        let Files::Images(folder) = self.files else { return self.iter().any(|ours| ours == path) };
        let seed = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
        let of_this_call = |seed: &u64| seed.wrapping_sub(self.first) < self.count as u64;
        seed.filter(of_this_call).is_some_and(|seed| Samples::image_path(folder, seed) == path)
    }

    /// Those that exist.
    pub fn existing(&self) -> Result<Vec<PathBuf>> {
        let Files::Images(folder) = self.files else {
            return Ok(self.iter().filter(|path| path.symlink_metadata().is_ok()).collect());
        };
        // The folder may hold far fewer files than are asked for.
        let entries = match std::fs::read_dir(folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries.with_context(|| folder.display().to_string())?,
        };
        let mut existing = Vec::new();
        for entry in entries {
            let path = entry.with_context(|| folder.display().to_string())?.path();
            if self.contains(&path) {
                existing.push(path);
            }
        }
        existing.sort();
        Ok(existing)
    }
}

impl Serialize for Paths<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        serializer.collect_seq(self.iter())
    }
}

fn write_histogram(samples: &Samples, path: &Path) -> Result<()> {
    const BINS: usize = 128;
    let points: Vec<[f32; 2]> = samples.values.chunks_exact(2).map(|point| [point[0], point[1]]).collect();
    let heat = Heat::of_points(&points, BINS, range_of(&points));
    let field = |name: &str| samples.made_by[name].to_string().replace('"', "");
    let title = format!("{} points, {}, {} steps", points.len(), field("solver"), field("steps"));
    let text = serde_json::to_string(&samples.made_by_all())?;
    Ok(with_axes(&heat, &title)?.save_png(path, &[("gmflow", &text)])?)
}

/// A round half-side that holds nearly all points.
fn range_of(points: &[[f32; 2]]) -> f32 {
    let mut extents: Vec<f32> = points.iter().map(|[x, y]| x.abs().max(y.abs())).filter(|e| e.is_finite()).collect();
    extents.sort_by(f32::total_cmp);
    let most = extents.get(extents.len().saturating_sub(1) * 98 / 100).copied().unwrap_or(1.0);
    most.max(0.5).ceil()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_known_without_being_listed() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::Images(folder.path().to_owned());
        let paths = files.paths(u64::MAX, 3);
        let names = ["18446744073709551615.png", "000000.png", "000001.png"].map(|name| folder.path().join(name));
        assert_eq!(paths.iter().collect::<Vec<_>>(), names);
        assert!(names.iter().all(|name| paths.contains(name)));
        for other in ["000002.png", "0.png", "000001.jpg", "x.png", "18446744073709551614.png"] {
            assert!(!paths.contains(&folder.path().join(other)), "{other}");
        }
        assert!(!paths.contains(Path::new("elsewhere/000000.png")));
        std::fs::write(&names[2], "x").unwrap();
        std::fs::write(folder.path().join("000002.png"), "x").unwrap();
        assert_eq!(paths.existing().unwrap(), names[2..]);
        let many = files.paths(0, usize::MAX);
        assert_eq!(many.existing().unwrap().len(), 2, "however many are asked for");
        assert_eq!(serde_json::to_value(paths).unwrap().as_array().unwrap().len(), 3);
        assert!(Files::Images(folder.path().join("gone")).paths(0, 9).existing().unwrap().is_empty());
    }
}
