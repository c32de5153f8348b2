//! The folder of a run: its lock, and the list of the files in it that are the run's.
//!
//! `run.manifest` marks a folder as that of a run. It names every file that was written, or was about to be when the process ended, one a
//! line. What it does not name belongs to someone else and is neither overwritten nor removed.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use gmflow::checkpoint::{remove_leftovers, write_atomic};
use gmflow_files::{FolderLock, RUN_MANIFEST as MANIFEST};

use crate::checkpoint::{self, entries};
use crate::config::Config;
use crate::log::line::{DAMAGED_FILE, LOG_FILE, last_step};
use crate::tensorboard::is_event_file;
use crate::{Error, Result};

/// The first line of the list.
const HEADER: &str = "gmflow-run 1";
/// The line that says that a checkpoint has been completed.
const SAVED: &str = "saved";
/// The resolved configuration.
pub(crate) const CONFIG: &str = "config.toml";
/// The folder of pictures.
pub(crate) const SAMPLES: &str = "samples";
/// The folder with what is known of a step that was not finite.
pub(crate) const FAILURE: &str = "failure";
/// The files in [`FAILURE`].
const FAILURE_FILES: [&str; 2] = ["report.json", "batch.safetensors"];
/// What the lock calls this program.
const COMMAND: &str = "gmflow train";

/// The name of a step's picture.
pub(crate) fn picture_name(step: u64) -> String {
    format!("step-{step:08}.png")
}

/// The folder with what a process of several knows of a step that was not finite.
pub(crate) fn failure_folder(rank: usize, ranks: usize) -> String {
    if ranks > 1 { format!("{FAILURE}/rank-{rank}") } else { FAILURE.to_owned() }
}

/// What the list says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    /// The files, and the folders of checkpoints, with `/` between folders.
    files: BTreeSet<String>,
    /// A checkpoint has been completed at some time.
    saved: bool,
}

/// What a folder is before anything is written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// No folder, or one in which nothing has a name that a run gives.
    Nothing,
    /// A run.
    Run(Listed),
    /// Files with the names of a run's that no run wrote.
    Foreign(Vec<String>),
}

/// What a folder is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Opening {
    /// A new run, for which an old one may be removed.
    New,
    /// The run that is in it.
    Resume,
}

/// A run's folder that this process alone writes into.
#[derive(Debug)]
pub(crate) struct RunFolder {
    path: PathBuf,
    listed: Listed,
    manifest: Option<File>,
    _lock: FolderLock,
}

impl RunFolder {
    /// Looks at a folder without a change to it.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub(crate) fn look(path: &Path, opening: Opening) -> Result<Found> {
        let top = top_level(path)?;
        if top.is_empty() {
            return Ok(Found::Nothing);
        }
        let listed = match read_manifest(path)? {
            None if top.contains(MANIFEST) => None,
            None => older_run(path, opening)?,
            listed => listed,
        };
        let Some(listed) = listed else { return Ok(Found::Foreign(top.into_iter().collect())) };
        // A run that goes on takes what is there as its own. No event file is ever overwritten: each has a name of its own.
        let may_stay = |name: &String| {
            listed.files.contains(name) || name == MANIFEST || is_event_file(name) || path.join(name).is_dir()
        };
        let foreign: Vec<String> = top.into_iter().filter(|name| !may_stay(name)).collect();
        let is_run = foreign.is_empty() || opening == Opening::Resume;
        Ok(if is_run { Found::Run(listed) } else { Found::Foreign(foreign) })
    }

    /// Locks a folder, which is created where there is none, and looks at what is in it.
    ///
    /// # Errors
    /// Another process holds the lock; files with the names of a run's that no run wrote; a file that cannot be read.
    pub(crate) fn lock(path: &Path, opening: Opening) -> Result<Self> {
        fs::create_dir_all(path).map_err(|e| Error::io(path, e))?;
        let lock = FolderLock::acquire(path, COMMAND)?;
        let listed = match Self::look(path, opening)? {
            Found::Nothing => Listed::default(),
            Found::Run(listed) => listed,
            Found::Foreign(names) => return Err(Error::Foreign { path: path.to_path_buf(), names }),
        };
        Ok(Self { path: path.to_path_buf(), listed, manifest: None, _lock: lock })
    }

    /// The folder.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it holds more of a run than its mark.
    pub(crate) fn holds_run(&self) -> Result<bool> {
        Ok(self.path.join(CONFIG).exists() || !checkpoint::list(&self.path)?.is_empty())
    }

    /// The picture of the latest step.
    pub(crate) fn newest_picture(&self) -> Option<PathBuf> {
        let pictures = self.listed.files.iter().filter(|name| name.starts_with(SAMPLES));
        // Names of equal length are in the order of their steps.
        let newest = pictures.max_by_key(|name| (name.len(), name.as_str()))?;
        Some(self.path.join(newest)).filter(|path| path.is_file())
    }

    /// Whether a checkpoint has been completed at any time, even if it is gone.
    pub(crate) fn had_checkpoint(&self) -> bool {
        self.listed.saved
    }

    /// Notes that a checkpoint is complete.
    ///
    /// # Errors
    /// The list cannot be written.
    pub(crate) fn has_saved(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.listed.saved, true) { Ok(()) } else { self.append(SAVED) }
    }

    /// Removes the files of the run, and nothing else; folders only where they are empty then.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub(crate) fn clear(&mut self) -> Result<()> {
        // The configuration first: what is left of a run without it is not resumed by mistake.
        let names = std::mem::take(&mut self.listed).files;
        if names.contains(CONFIG) {
            remove_file(&self.path.join(CONFIG))?;
        }
        for name in &names {
            let path = self.path.join(name);
            if name.starts_with(checkpoint::FOLDER) { checkpoint::remove(&path)? } else { remove_file(&path)? }
        }
        checkpoint::remove_unfinished(&self.path)?;
        let of_ranks = names.iter().filter_map(|name| name.rsplit_once('/')).map(|(folder, _)| folder);
        for folder in of_ranks.filter(|folder| folder.starts_with(&format!("{FAILURE}/"))) {
            remove_if_empty(&self.path.join(folder))?;
        }
        for folder in [checkpoint::FOLDER, SAMPLES, FAILURE] {
            if names.iter().any(|name| name.starts_with(folder)) {
                remove_if_empty(&self.path.join(folder))?;
            }
        }
        self.manifest = None;
        remove_file(&self.path.join(MANIFEST))
    }

    /// Makes the folder ready for a run of so many processes with an event file of this name: the mark, the list, the folder of checkpoints; what killed
    /// processes left half done is removed.
    ///
    /// # Errors
    /// A file that cannot be written or removed.
    pub(crate) fn prepare(&mut self, event_file: &str, ranks: usize) -> Result<()> {
        // Listed at once what every run writes: each line that is added later waits for the disk.
        let of_every_run = [CONFIG, LOG_FILE, event_file].map(str::to_owned);
        let folders = (0..ranks).map(|rank| failure_folder(rank, ranks));
        let of_failure = folders.flat_map(|folder| FAILURE_FILES.map(|name| format!("{folder}/{name}")));
        self.listed.files.extend(of_every_run.into_iter().chain(of_failure));
        let files = self.listed.files.iter().map(String::as_str);
        let lines = [HEADER].into_iter().chain(self.listed.saved.then_some(SAVED)).chain(files);
        let text: String = lines.flat_map(|line| [line, "\n"]).collect();
        let path = self.path.join(MANIFEST);
        write_atomic(&path, text.as_bytes())?;
        let file = OpenOptions::new().append(true).open(&path).map_err(|e| Error::io(&path, e))?;
        self.manifest = Some(file);
        let checkpoints = self.path.join(checkpoint::FOLDER);
        fs::create_dir_all(&checkpoints).map_err(|e| Error::io(&checkpoints, e))?;
        checkpoint::remove_unfinished(&self.path)?;
        self.remove_temporary_files()
    }

    fn remove_temporary_files(&self) -> Result<()> {
        let mut removed = remove_leftovers(&self.path, |name| name == MANIFEST || kind_of(name) == Some(Kind::File))?;
        for folder in [SAMPLES, FAILURE] {
            if self.path.join(folder).is_dir() {
                removed += remove_leftovers(&self.path.join(folder), |name| is_of_run(&format!("{folder}/{name}")))?;
            }
        }
        if removed > 0 {
            log::info!("{}: {removed} temporary files of an interrupted run were removed", self.path.display());
        }
        Ok(())
    }

    /// Lists a file, or a checkpoint's folder, that is about to be written, and returns its path.
    ///
    /// # Errors
    /// The list cannot be written.
    pub(crate) fn will_write(&mut self, name: &str) -> Result<PathBuf> {
        if self.listed.files.insert(name.to_owned()) {
            self.append(name)?;
        }
        Ok(self.path.join(name))
    }

    fn append(&mut self, line: &str) -> Result<()> {
        let Some(file) = &mut self.manifest else { return Ok(()) };
        let written = file.write_all(format!("{line}\n").as_bytes()).and_then(|()| file.sync_data());
        written.map_err(|e| Error::io(self.path.join(MANIFEST), e))
    }
}

/// What lies directly in a run's folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
}

/// What a run gives this name to, directly in its folder.
fn kind_of(name: &str) -> Option<Kind> {
    match name {
        checkpoint::FOLDER | SAMPLES | FAILURE => Some(Kind::Folder),
        CONFIG | LOG_FILE | DAMAGED_FILE => Some(Kind::File),
        _ if is_event_file(name) => Some(Kind::File),
        _ => None,
    }
}

/// Whether a run gives such a name, with `/` between folders, to a file or to the folder of a checkpoint.
fn is_of_run(name: &str) -> bool {
    match name.split_once('/') {
        None => kind_of(name) == Some(Kind::File),
        Some((checkpoint::FOLDER, name)) => !name.starts_with('.') && checkpoint::is_folder_of_ours(name),
        Some((FAILURE, name)) => match name.split_once('/') {
            None => FAILURE_FILES.contains(&name),
            Some((rank, name)) => is_rank(rank) && FAILURE_FILES.contains(&name),
        },
        Some((SAMPLES, name)) => {
            let digits = name.strip_prefix("step-").and_then(|name| name.strip_suffix(".png"));
            digits.is_some_and(|digits| digits.parse::<u64>().is_ok_and(|step| picture_name(step) == name))
        }
        Some(_) => false,
    }
}

/// Whether a folder in [`FAILURE`] is that of a rank of a run of several processes.
fn is_rank(name: &str) -> bool {
    name.strip_prefix("rank-")
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// The names directly in a folder that a run would give, the list's among them; a folder of such a name counts where something is in it.
fn top_level(path: &Path) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for entry in entries(path)? {
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let counts = match kind_of(&name) {
            Some(Kind::Folder) if entry.is_dir() => !entries(&entry)?.is_empty(),
            Some(_) => true,
            None => name == MANIFEST,
        };
        if counts {
            found.insert(name);
        }
    }
    Ok(found)
}

/// The files that the list names; `None` without a list of ours. A line that names nothing of a run's, as one that was cut, is passed over.
fn read_manifest(folder: &Path) -> Result<Option<Listed>> {
    let path = folder.join(MANIFEST);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(None),
        Err(error) => return Err(Error::io(path, error)),
    };
    let text = String::from_utf8_lossy(&bytes);
    let mut lines = text.lines();
    if lines.next() != Some(HEADER) {
        return Ok(None);
    }
    let (saved, names): (Vec<&str>, Vec<&str>) = lines.partition(|line| *line == SAVED);
    let files = names.into_iter().filter(|line| is_of_run(line)).map(str::to_owned).collect();
    Ok(Some(Listed { files, saved: !saved.is_empty() }))
}

/// Everything in a folder that has the name of a run's file.
fn of_run_kinds(folder: &Path) -> Result<BTreeSet<String>> {
    let name_of = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut names: Vec<String> = entries(folder)?.iter().map(|path| name_of(path)).collect();
    for below in [checkpoint::FOLDER, SAMPLES, FAILURE] {
        names.extend(entries(&folder.join(below))?.iter().map(|path| format!("{below}/{}", name_of(path))));
    }
    Ok(names.into_iter().filter(|name| is_of_run(name)).collect())
}

/// The files of a run of a version that kept no list. It is known by its configuration beside event files or checkpoints of a run. Where
/// they are to be removed, the configuration must be as only a run writes it.
fn older_run(folder: &Path, opening: Opening) -> Result<Option<Listed>> {
    let path = folder.join(CONFIG);
    let Ok(text) = fs::read_to_string(&path) else { return Ok(None) };
    let Ok(config) = Config::parse(&text, &path, &[]) else { return Ok(None) };
    let (files, checkpoints) = (of_run_kinds(folder)?, checkpoint::list(folder)?);
    if checkpoints.is_empty() && !files.iter().any(|name| is_event_file(name)) {
        return Ok(None);
    }
    // The newest checkpoint that can be read holds the configuration that it was made with.
    let trained = checkpoints.iter().rev().find_map(|folder| checkpoint::config_of(folder).ok());
    let is_resolved = trained.as_ref() == Some(&config) || config.to_toml()? == text;
    let saved = !checkpoints.is_empty() || last_step(&folder.join(LOG_FILE)) > config.checkpoint.every;
    Ok((is_resolved || opening == Opening::Resume).then_some(Listed { files, saved }))
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(Error::io(path, error)),
        _ => Ok(()),
    }
}

/// Removes a folder in which nothing is left.
pub(crate) fn remove_if_empty(folder: &Path) -> Result<()> {
    match entries(folder)?.is_empty() && folder.is_dir() {
        true => fs::remove_dir(folder).map_err(|e| Error::io(folder, e)),
        false => Ok(()),
    }
}
