//! What a tar shard holds: where its samples are, found by reading the headers of its members once.

use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use gmflow_files::what_is;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tar::{Archive, EntryType};

use super::members::{Choice, Listed, Members, Name};
use super::sample::Sample;
use crate::settings::Corrupt;
use crate::source::MAX_FILE_BYTES;
use crate::storage::{Entry, Files};
use crate::{Error, Result};

/// Bytes of a header, and what members are padded to.
pub(super) const BLOCK: u64 = 512;

/// With this a list of a shard's samples says what it is.
const FORMAT: &str = "gmflow-shard";
/// Changes when the list, or the rules by which it is made, change.
const VERSION: u32 = 1;

/// The ending of a list that lies beside its shard.
pub(crate) const ENDING: &str = "index.json";

/// Most bytes of a member that holds a label.
const MOST_LABEL_BYTES: u64 = 1 << 20;

/// Most bytes of a list of samples.
const MOST_INDEX_BYTES: u64 = 1 << 32;

/// The samples of a shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Index {
    format: String,
    version: u32,
    /// The size of the shard.
    pub shard_bytes: u64,
    /// What was asked for.
    choice: Choice,
    /// The ending of the members that the labels are from.
    #[serde(default)]
    pub label_member: Option<String>,
    /// Members that were not used, with their number, by their endings.
    #[serde(default)]
    pub others: Vec<(String, u64)>,
    /// The samples in the order of the shard.
    pub samples: Vec<Sample>,
}

impl Index {
    /// A list of samples whose labels are in members with the ending `cls`.
    pub fn of_classes(shard_bytes: u64, samples: Vec<Sample>) -> Self {
        let label_member = samples.iter().any(|sample| sample.label.is_some()).then(|| "cls".to_owned());
        Self {
            format: FORMAT.into(),
            version: VERSION,
            shard_bytes,
            choice: Choice::default(),
            label_member,
            others: Vec::new(),
            samples,
        }
    }

    /// The samples of a shard: as the list beside it says, or the one in the cache, or else its own headers, of which a list is kept.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`]; [`crate::FilesError::File`] for a damaged shard, naming the member and the offset, unless damage is
    /// passed over.
    pub fn of(files: &Files, shard: &Entry, choice: &Choice, corrupt: Corrupt) -> Result<Self> {
        let kept = kept_at(files, shard, choice);
        if let Some(index) = kept.as_deref().and_then(|path| Self::kept(path, shard, choice)) {
            return Ok(index);
        }
        let (index, whole) = match Self::beside(files, shard, choice)? {
            Some(index) => (index, true),
            None => Self::scan(files, shard, choice, corrupt)?,
        };
        if let Some(path) = kept.filter(|_| whole)
            && let Err(error) = index.keep(&path)
        {
            log::debug!("{}: the list of samples is not kept: {error}", path.display());
        }
        Ok(index)
    }

    /// A list that was kept, if it is the shard's.
    fn kept(path: &Path, shard: &Entry, choice: &Choice) -> Option<Self> {
        let index: Self = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        index.fits(shard, choice).then_some(index)
    }

    /// The list beside a shard, if there is one and it is the shard's.
    fn beside(files: &Files, shard: &Entry, choice: &Choice) -> Result<Option<Self>> {
        let Some(entry) = files.stat_if_there(&index_name(&shard.path))? else { return Ok(None) };
        if entry.bytes > MOST_INDEX_BYTES {
            return Ok(None);
        }
        let index: Option<Self> = serde_json::from_slice(&files.read_all(&entry)?).ok();
        let fits = index.filter(|index| index.fits(shard, choice));
        if fits.is_none() && *choice == Choice::default() {
            log::warn!("{}: not the list of what is in its shard; the shard is read", entry.path.display());
        }
        Ok(fits)
    }

    /// Whether this can be the list of a shard: the places that it names are claims.
    fn fits(&self, shard: &Entry, choice: &Choice) -> bool {
        let inside = |sample: &Sample| {
            let end = sample.offset.checked_add(sample.bytes);
            sample.offset >= BLOCK && sample.bytes <= MAX_FILE_BYTES && end.is_some_and(|end| end <= shard.bytes)
        };
        self.format == FORMAT
            && self.version == VERSION
            && self.shard_bytes == shard.bytes
            && self.choice == *choice
            && self.samples.iter().all(inside)
    }

    /// The bytes of the list as a file.
    ///
    /// # Errors
    /// [`crate::FilesError::File`] for a list that JSON cannot hold, which there is not.
    pub fn to_bytes(&self, path: &Path) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::file(path, "content", "what JSON can hold", error))
    }

    /// Keeps the list for later calls.
    fn keep(&self, path: &Path) -> Result<()> {
        let io = |error| Error::io(path, error);
        let folder = path.parent().unwrap_or(Path::new(""));
        std::fs::create_dir_all(folder).map_err(io)?;
        // Several processes may do so at the same time, each with a file of its own.
        let part = folder.join(format!(".{}-{}.part", std::process::id(), crate::storage::name_of(path)));
        std::fs::write(&part, self.to_bytes(path)?).map_err(io)?;
        std::fs::rename(&part, path).map_err(io)
    }

    /// Reads the headers of a shard. The second value is whether it is whole.
    fn scan(files: &Files, shard: &Entry, choice: &Choice, corrupt: Corrupt) -> Result<(Self, bool)> {
        expect_tar(files, shard)?;
        let mut found = Found { members: Members::new(choice), shard, end: 0, last: None };
        let outcome = match files.open(shard)? {
            Some(file) => found.read(file),
            None => found.read(Ranges { files, shard, at: 0, held: (0, Vec::new()) }),
        };
        let whole = outcome.is_ok();
        if let Err(error) = outcome {
            match corrupt {
                Corrupt::Skip if error.is_corrupt() => {
                    log::warn!("{error}; the samples before it are used");
                    found.members.damaged();
                }
                _ => return Err(error),
            }
        }
        let Listed { samples, label_member, others } = found.members.finish();
        let (format, version, shard_bytes, choice) = (FORMAT.into(), VERSION, shard.bytes, choice.clone());
        Ok((Self { format, version, shard_bytes, choice, label_member, others, samples }, whole))
    }
}

/// Where the list of a shard is kept in the cache. A shard that changes gets another.
fn kept_at(files: &Files, shard: &Entry, choice: &Choice) -> Option<PathBuf> {
    let mut name = Sha256::new();
    let path = gmflow_files::absolute(&shard.path);
    for part in [path.as_os_str().as_encoded_bytes(), shard.tag.as_bytes(), choice.known_by().as_bytes()] {
        name.update((part.len() as u64).to_le_bytes());
        name.update(part);
    }
    name.update(shard.bytes.to_le_bytes());
    let name: String = name.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    Some(files.storage().cache_folder()?.join("shards").join(format!("{name}.json")))
}

/// The name of the list that lies beside a shard: `shard-000000.index.json` of `shard-000000.tar`.
pub(crate) fn index_name(shard: &Path) -> PathBuf {
    let name = shard.to_string_lossy();
    let stem = name.strip_suffix(".tar").unwrap_or(&name);
    PathBuf::from(format!("{stem}.{ENDING}"))
}

/// A shard that is being read.
struct Found<'a> {
    members: Members<'a>,
    shard: &'a Entry,
    /// The end of the last member, with its padding.
    end: u64,
    /// Its name.
    last: Option<String>,
}

impl Found<'_> {
    fn read(&mut self, file: impl Read + Seek) -> Result<()> {
        let mut archive = Archive::new(file);
        self.members(&mut archive)?;
        self.check_end(archive.into_inner())
    }

    fn members(&mut self, archive: &mut Archive<impl Read + Seek>) -> Result<()> {
        // An entry is read while the next is waited for, so errors know only of the one before.
        let entries = archive.entries_with_seek().map_err(|error| self.damage(&error))?;
        for entry in entries {
            let mut entry = entry.map_err(|error| self.damage(&error))?;
            let (offset, bytes) = (entry.raw_file_position(), entry.size());
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let kind = entry.header().entry_type();
            if kind.is_gnu_sparse() {
                let expected = "members without holes (a sparse file is not read)";
                return Err(Error::file(&self.shard.path, format!("member {name}"), expected, "one with holes"));
            }
            let is_file = matches!(kind, EntryType::Regular | EntryType::Continuous);
            let stored = if is_file { bytes } else { entry.header().entry_size().unwrap_or(0) };
            let end = offset.checked_add(stored).filter(|end| *end <= self.shard.bytes);
            if end.is_none() {
                let expected = format!("{stored} bytes from byte {offset} on");
                let got = format!("the end of the file at byte {} (truncated)", self.shard.bytes);
                return Err(Error::file(&self.shard.path, format!("member {name}"), expected, got));
            }
            self.end = offset.saturating_add(stored).next_multiple_of(BLOCK);
            self.last = Some(name.clone());
            if !is_file {
                continue;
            }
            let Some(name) = Name::of(&name) else { continue };
            let label = match self.members.is_label(&name) {
                false => None,
                true if bytes > MOST_LABEL_BYTES => {
                    let expected = format!("a label of at most {MOST_LABEL_BYTES} bytes");
                    return Err(Error::file(&self.shard.path, format!("member {}", name.whole()), expected, bytes));
                }
                true => {
                    let mut content = Vec::new();
                    entry.read_to_end(&mut content).map_err(|error| self.damage(&error))?;
                    Some(content)
                }
            };
            self.members.add(&self.shard.path, name, (offset, bytes), label)?;
        }
        Ok(())
    }

    /// An archive ends with blocks of zeros. Without them it may have been cut between two members.
    fn check_end(&self, mut file: impl Read + Seek) -> Result<()> {
        let path = &self.shard.path;
        let mut block = Vec::new();
        file.seek(std::io::SeekFrom::Start(self.end)).map_err(|error| Error::io(path, error))?;
        file.take(BLOCK).read_to_end(&mut block).map_err(|error| Error::io(path, error))?;
        if block.len() as u64 == BLOCK && block.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        let got = format!("{} bytes at byte {} (truncated{})", block.len(), self.end, self.behind());
        Err(Error::file(path, "end of the archive", "a block of zeros", got))
    }

    fn behind(&self) -> String {
        self.last.as_ref().map_or_else(|| " at its start".to_owned(), |name| format!(" behind {name}"))
    }

    /// What the archive's reader says of a header, with the place of that header. What the system refuses is not damage.
    fn damage(&self, error: &std::io::Error) -> Error {
        use std::io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
        let path = &self.shard.path;
        if !matches!(error.kind(), InvalidData | InvalidInput | Other | UnexpectedEof)
            || error.raw_os_error().is_some()
        {
            return Error::io(path, std::io::Error::new(error.kind(), error.to_string()));
        }
        let field = format!("the header at byte {}{}", self.end, self.behind().trim_end());
        Error::file(path, field, "that of a tar member", format!("damage: {}", first_line(error)))
    }
}

/// The first line of what a reader says, without the bytes that it could not read.
fn first_line(error: &std::io::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(120).collect()
}

/// Says what a file is that is no tar archive.
///
/// # Errors
/// [`crate::FilesError::Io`]; [`crate::FilesError::File`] for a compressed archive or another file.
fn expect_tar(files: &Files, shard: &Entry) -> Result<()> {
    let start = files.read(shard, 0..shard.bytes.min(BLOCK))?;
    let is_tar = start.get(257..262) == Some(b"ustar".as_slice());
    // Archives of the oldest form have no mark; their headers have a checksum.
    if is_tar || start.iter().all(|byte| *byte == 0) && !start.is_empty() || header_size(&start).is_some() {
        return Ok(());
    }
    let got = match what_is(&start) {
        Some(what) if what.contains("gzip") || what.contains("zstd") || what.contains("xz") => {
            format!("{what} (unpack it, as in gunzip: images are compressed already, and are read at random)")
        }
        Some(what) => what.to_owned(),
        None => "other bytes at its start".to_owned(),
    };
    Err(Error::file(&shard.path, "content", "a tar archive", got))
}

/// The size that a header states, if it is one.
pub(super) fn header_size(block: &[u8]) -> Option<u64> {
    let block: &[u8; BLOCK as usize] = block.first_chunk()?;
    let header = tar::Header::from_byte_slice(block);
    let sum: u32 = (block.iter().enumerate())
        // The checksum itself counts as spaces.
        .map(|(at, byte)| if (148..156).contains(&at) { u32::from(b' ') } else { u32::from(*byte) })
        .sum();
    (header.cksum().ok()? == sum).then(|| header.entry_size().ok()).flatten()
}

/// A file that can only be read in ranges, as a stream.
struct Ranges<'a> {
    files: &'a Files,
    shard: &'a Entry,
    at: u64,
    /// Bytes that were read, and where they begin.
    held: (u64, Vec<u8>),
}

/// Bytes of a range.
const READ_AHEAD: u64 = 1 << 20;

impl Read for Ranges<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let held = |(start, bytes): &(u64, Vec<u8>), at: u64| {
            let skip = usize::try_from(at.checked_sub(*start)?).ok()?;
            bytes.get(skip..).filter(|rest| !rest.is_empty()).map(<[u8]>::to_vec)
        };
        if self.at >= self.shard.bytes || into.is_empty() {
            return Ok(0);
        }
        if held(&self.held, self.at).is_none() {
            let end = (self.at + READ_AHEAD).min(self.shard.bytes);
            let bytes = self.files.read(self.shard, self.at..end).map_err(std::io::Error::other)?;
            self.held = (self.at, bytes);
        }
        let rest = held(&self.held, self.at).unwrap_or_default();
        let count = rest.len().min(into.len());
        if let (Some(into), Some(rest)) = (into.get_mut(..count), rest.get(..count)) {
            into.copy_from_slice(rest);
        }
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Ranges<'_> {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        let at = match to {
            std::io::SeekFrom::Start(at) => Some(at),
            std::io::SeekFrom::Current(by) => self.at.checked_add_signed(by),
            std::io::SeekFrom::End(by) => self.shard.bytes.checked_add_signed(by),
        };
        self.at = at.ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}
