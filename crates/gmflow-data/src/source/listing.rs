//! Which files of a folder are images, and which class each has.

mod url;

use std::collections::{BTreeMap, HashSet};
use std::ffi::OsStr;
use std::fs::{File, FileType};
use std::path::{Path, PathBuf};

use gmflow_files::{RUN_MANIFEST, is_clutter, is_run, what_is};

use super::start_of;
use crate::decode::{FORMATS, format_of};
use crate::fingerprint::listed;
use crate::{Error, Result};

/// How far subfolders of a class are followed.
const MAX_DEPTH: usize = 16;

/// Extensions that are believed, in lower case: a file with one of these is an image, which its content must bear out when it is read.
pub(super) const IMAGES: [&str; 17] = [
    "png", "apng", "jpg", "jpeg", "jpe", "jfif", "jfi", "jif", "webp", "bmp", "dib", "gif", "tif", "tiff", "pbm",
    "pgm", "ppm",
];

/// Extensions whose files are not opened to see what they are, in lower case. Raw photographs look like TIFF images, and hold small
/// previews where the image is expected.
const OTHERS: [&str; 52] = [
    "txt",
    "caption",
    "json",
    "jsonl",
    "csv",
    "tsv",
    "xml",
    "html",
    "htm",
    "md",
    "rst",
    "yaml",
    "yml",
    "toml",
    "ini",
    "cfg",
    "log",
    "py",
    "ipynb",
    "sh",
    "npy",
    "npz",
    "pt",
    "pth",
    "ckpt",
    "safetensors",
    "pkl",
    "h5",
    "mat",
    "parquet",
    "arrow",
    "db",
    "zip",
    "tar",
    "gz",
    "tgz",
    "bz2",
    "xz",
    "7z",
    "rar",
    "pdf",
    "mp4",
    "mov",
    "avi",
    "dng",
    "cr2",
    "cr3",
    "nef",
    "arw",
    "orf",
    "raf",
    "rw2",
];

/// Names of folders that hold the parts of a data set, in lower case.
const SPLITS: [&str; 7] = ["train", "training", "test", "testing", "val", "valid", "validation"];

/// The images of a folder.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub files: Vec<ImageFile>,
    /// The names of the classes; empty without classes.
    pub classes: Vec<String>,
    /// Files that are no images.
    skipped: Skipped,
    /// Folders of training runs, which are no data.
    runs: usize,
}

/// One image file.
#[derive(Debug)]
pub(super) struct ImageFile {
    pub path: PathBuf,
    pub label: u32,
    pub bytes: u64,
    /// What changes when the file does, where it lies behind a URL.
    pub tag: String,
}

/// Files that are no images, by extension: how many, and what they are where that is known.
#[derive(Clone, Debug, Default, PartialEq)]
struct Skipped(BTreeMap<String, (usize, Option<&'static str>)>);

/// What a folder holds directly, sorted.
#[derive(Default)]
struct Content {
    folders: Vec<PathBuf>,
    images: Vec<(PathBuf, u64)>,
}

impl Listing {
    /// Lists a folder as [`FolderDataset::open`](super::FolderDataset::open) says.
    pub fn of(path: &Path) -> Result<Self> {
        if is_run(path) {
            let got = format!("the folder of a training run (it holds {RUN_MANIFEST})");
            return Err(Error::file(path, "folder", "a folder of pictures", got));
        }
        let mut listing = Self::default();
        let Content { folders: all, images } = listing.content(path)?;
        let mut folders = Vec::new();
        for folder in all {
            if !listing.holds_only_runs(&folder)? {
                folders.push(folder);
            }
        }
        if let (false, Some((image, _))) = (folders.is_empty(), images.first()) {
            let got = format!("both, as {}", image.display());
            return Err(Error::file(path, "folder", "either class folders or images", got));
        }
        listing.add(images, 0);
        let mut names = HashSet::new();
        for (label, class) in (0u32..).zip(folders) {
            let name = class.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if !names.insert(name.clone()) {
                // Names that are no text can read alike.
                return Err(Error::file(class, "folder", "names of classes that differ when shown as text", name));
            }
            listing.class(&class, label)?;
            listing.classes.push(name);
        }
        if listing.files.is_empty() {
            let runs = (listing.runs > 0).then(|| listing.runs_in_words());
            let others = (!listing.skipped.0.is_empty()).then(|| listing.skipped.to_string());
            let found: Vec<String> = runs.into_iter().chain(others).collect();
            let got = if found.is_empty() { "none".into() } else { format!("none, but {}", found.join(", ")) };
            let got = got + listing.skipped.advice();
            return Err(Error::file(path, "folder", format!("{FORMATS} files"), got));
        }
        listing.report(path);
        Ok(listing)
    }

    /// Adds a class folder.
    fn class(&mut self, folder: &Path, label: u32) -> Result<()> {
        let (before, others) = (self.files.len(), std::mem::take(&mut self.skipped));
        self.collect(folder, label, 1)?;
        if self.files.len() == before {
            let found = if self.skipped.0.is_empty() { String::new() } else { format!(" ({})", self.skipped) };
            log::warn!("{}: class folder without images{found}; the class stays, with no image", folder.display());
        }
        self.skipped.join(others);
        Ok(())
    }

    /// Appends the images below a class folder, at any depth.
    fn collect(&mut self, folder: &Path, label: u32, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            let got = "more (a loop of links?)";
            return Err(Error::file(folder, "folder", format!("at most {MAX_DEPTH} levels"), got));
        }
        let Content { folders, images } = self.content(folder)?;
        self.add(images, label);
        folders.iter().try_for_each(|folder| self.collect(folder, label, depth + 1))
    }

    fn add(&mut self, images: Vec<(PathBuf, u64)>, label: u32) {
        self.files.extend(images.into_iter().map(|(path, bytes)| ImageFile {
            path,
            label,
            bytes,
            tag: String::new(),
        }));
    }

    /// Whether a folder holds the folders of training runs and nothing else, as `runs/` does; they are counted.
    fn holds_only_runs(&mut self, folder: &Path) -> Result<bool> {
        let mut runs = 0;
        for entry in std::fs::read_dir(folder).map_err(|error| Error::io(folder, error))? {
            let entry = entry.map_err(|error| Error::io(folder, error))?;
            match is_run(&entry.path()) {
                true => runs += 1,
                false if is_clutter(&entry.file_name()) => {}
                false => return Ok(false),
            }
        }
        self.runs += runs;
        Ok(runs > 0)
    }

    fn runs_in_words(&self) -> String {
        format!("{} folder{} of training runs", self.runs, if self.runs == 1 { "" } else { "s" })
    }

    /// What a folder holds. Files that are no images are counted.
    fn content(&mut self, folder: &Path) -> Result<Content> {
        let mut content = Content::default();
        for entry in std::fs::read_dir(folder).map_err(|error| Error::io(folder, error))? {
            let entry = entry.map_err(|error| Error::io(folder, error))?;
            let path = entry.path();
            if is_clutter(&entry.file_name()) {
                continue;
            }
            let kind = entry.file_type().map_err(|error| Error::io(&path, error))?;
            if is(kind, &path, FileType::is_dir, Path::is_dir) {
                match is_run(&path) {
                    true => self.runs += 1,
                    false => content.folders.push(path),
                }
            } else if let Some(what) = self.no_image(&path, kind)? {
                self.skipped.count(&path, what);
            } else {
                let bytes = std::fs::metadata(&path).map_err(|error| Error::io(&path, error))?.len();
                content.images.push((path, bytes));
            }
        }
        content.folders.sort();
        content.images.sort();
        Ok(content)
    }

    /// What a file is that is no image, as far as it is known; `None` of an image. Its extension decides where it is a usual one, and
    /// otherwise its content.
    fn no_image(&self, path: &Path, kind: FileType) -> Result<Option<Option<&'static str>>> {
        let extension = extension(path);
        if kind.is_symlink() {
            // A link that leads nowhere is an error, as a file that cannot be read is.
            std::fs::metadata(path).map_err(|error| Error::io(path, error))?;
        }
        if !is(kind, path, FileType::is_file, Path::is_file) {
            return Ok(Some(Some("neither a file nor a folder")));
        }
        if IMAGES.contains(&extension.as_str()) {
            return Ok(None);
        }
        if OTHERS.contains(&extension.as_str()) {
            return Ok(Some(None));
        }
        let start = start_of(path, &File::open(path).map_err(|error| Error::io(path, error))?)?;
        Ok(if format_of(&start).is_some() { None } else { Some(what_is(&start)) })
    }

    /// Says what was found and what was passed over.
    fn report(&self, path: &Path) {
        let classes = match self.classes.len() {
            0 => "without classes".to_owned(),
            1 => "in 1 class".to_owned(),
            count => format!("in {count} classes"),
        };
        let skipped = match self.skipped.0.values().map(|(count, _)| count).sum() {
            0usize => String::new(),
            count => {
                let files = if count == 1 { "file" } else { "files" };
                format!("; {count} {files} passed over: {}{}", self.skipped, self.skipped.advice())
            }
        };
        if self.runs > 0 {
            log::warn!("{}: {} passed over: their pictures are no data", path.display(), self.runs_in_words());
        }
        // An image in a format that is not read is probably missed.
        let is_picture = |what: &Option<&str>| what.is_some_and(|what| what.ends_with("image"));
        let missed = self.skipped.0.values().any(|(_, what)| is_picture(what));
        let level = if missed { log::Level::Warn } else { log::Level::Info };
        let images = if self.files.len() == 1 { "image" } else { "images" };
        log::log!(target: crate::FOUND, level, "{}: {} {images} {classes}{skipped}", path.display(), self.files.len());
        if self.classes.len() > 1 && self.classes.iter().all(|name| SPLITS.contains(&name.to_lowercase().as_str())) {
            let names = listed(&self.classes);
            log::warn!(
                "{}: the classes are {names}; if these are parts of a data set, name one of them",
                path.display()
            );
        }
    }
}

/// Whether an entry, or what it links to, is of a kind.
fn is(kind: FileType, path: &Path, of_entry: fn(&FileType) -> bool, of_target: fn(&Path) -> bool) -> bool {
    if kind.is_symlink() { of_target(path) } else { of_entry(&kind) }
}

/// The extension of a file's name in lower case; empty without one.
pub(super) fn extension(path: &Path) -> String {
    path.extension().and_then(OsStr::to_str).map(str::to_ascii_lowercase).unwrap_or_default()
}

impl Skipped {
    fn count(&mut self, path: &Path, what: Option<&'static str>) {
        let extension = extension(path);
        let name = if extension.is_empty() { "without extension".to_owned() } else { format!(".{extension}") };
        self.0.entry(name).or_insert((0, what)).0 += 1;
    }

    /// What to do where there are pictures among them.
    fn advice(&self) -> &'static str {
        let is_picture = |what: &Option<&str>| what.is_some_and(|what| what.ends_with("image"));
        match self.0.values().any(|(_, what)| is_picture(what)) {
            true => "; convert those to JPEG or PNG to use them",
            false => "",
        }
    }

    fn join(&mut self, other: Self) {
        for (name, (count, what)) in other.0 {
            self.0.entry(name).or_insert((0, what)).0 += count;
        }
    }
}

impl std::fmt::Display for Skipped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut kinds: Vec<_> = self.0.iter().collect();
        kinds.sort_by_key(|(name, (count, _))| (std::cmp::Reverse(*count), *name));
        let kind = |(name, (count, what)): &(&String, &(usize, Option<&str>))| match what {
            Some(what) => format!("{count} {name} ({what})"),
            None => format!("{count} {name}"),
        };
        f.write_str(&listed(&kinds.iter().map(kind).collect::<Vec<_>>()))
    }
}
