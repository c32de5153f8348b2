//! What is asked of a file before its pickle is parsed, so that it cannot take more memory than its size lets expect.
//!
//! `torch.save` compresses nothing. A file that does can hold a thousand times its size, and is refused by its directory alone.

use crate::{Error, Result};
use gmflow_files::what_is;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

const ZIP: &[u8] = b"PK\x03\x04";
/// The mark of a tar file, and where it stands.
const TAR: (&[u8], usize) = (b"ustar", 257);
/// Bytes at the beginning that tell what a file is.
const HEAD: u64 = 512;
const ENTRY: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END_64: &[u8] = b"PK\x06\x06";
const LOCATOR_64: &[u8] = b"PK\x06\x07";
/// Bytes of an entry of the directory without its name, extra fields and comment.
const ENTRY_BYTES: usize = 46;
const END_BYTES: usize = 22;
/// The 64-bit end and its locator, which stand before the end.
const END_64_BYTES: usize = 56;
const LOCATOR_BYTES: usize = 20;
/// Larger directories are not those of a checkpoint.
const MOST_DIRECTORY_BYTES: u64 = 1 << 26;
/// Larger pickles do not describe weights; parsed, they take a hundred times as much memory.
const MOST_PICKLE_BYTES: u64 = 1 << 24;

/// Refuses what cannot be read within bounds and returns the file's size.
///
/// # Errors
/// [`crate::FilesError::Io`]; [`crate::FilesError::File`] for compressed entries, a pickle out of proportion, a damaged directory, or tar.
pub(super) fn check(path: &Path) -> Result<u64> {
    let failed = |error| Error::io(path, error);
    let mut opened = File::open(path).map_err(failed)?;
    let metadata = opened.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Error::file(path, "file", "a PyTorch file", "something else"));
    }
    let mut head = Vec::new();
    opened.by_ref().take(HEAD).read_to_end(&mut head).map_err(failed)?;
    if head.starts_with(ZIP) {
        let directory = read_directory(&mut opened, metadata.len()).map_err(failed)?;
        let directory = directory.ok_or_else(|| {
            Error::file(path, "directory", "that of a complete file as torch.save writes it", "none at the end")
        })?;
        check_directory(path, &directory)?;
    } else if head.get(TAR.1..TAR.1 + TAR.0.len()) == Some(TAR.0) {
        let expected = "the format of PyTorch 0.1.10 or later";
        return Err(Error::file(path, "content", expected, "an older one, which newer versions of PyTorch convert"));
    } else if let Some(what) = what_is(&head).filter(|what| !what.starts_with("a Python pickle")) {
        return Err(Error::file(path, "content", "a file that torch.save has written", what));
    }
    Ok(metadata.len())
}

/// The entries of the directory, and how many there should be.
struct Directory {
    bytes: Vec<u8>,
    entries: u64,
}

/// The directory of a ZIP file that ends as `torch.save` ends it: nothing behind the directory but its end records, and these
/// agree, so that no reader can find another directory.
fn read_directory(opened: &mut File, length: u64) -> std::io::Result<Option<Directory>> {
    let tail_length = length.min((END_64_BYTES + LOCATOR_BYTES + END_BYTES) as u64);
    let tail = read_at(opened, length - tail_length, tail_length)?;
    let Some(place) = place(&tail, length).filter(|place| place.size <= MOST_DIRECTORY_BYTES) else {
        return Ok(None);
    };
    let bytes = read_at(opened, place.start, place.size)?;
    Ok(Some(Directory { bytes, entries: place.entries }))
}

fn read_at(opened: &mut File, start: u64, length: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    opened.seek(SeekFrom::Start(start))?;
    opened.take(length).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    entries: u64,
    size: u64,
    start: u64,
}

/// Where the directory is, from the last bytes of a file of `length` bytes.
fn place(tail: &[u8], length: u64) -> Option<Place> {
    let (before, end) = tail.split_at_checked(tail.len().checked_sub(END_BYTES)?)?;
    // One disk, and no comment.
    if !end.starts_with(END) || end.get(4..8)? != [0; 4] || end.get(20..22)? != [0; 2] {
        return None;
    }
    let short = Place { entries: u16_at(end, 10)?, size: u32_at(end, 12)?, start: u32_at(end, 16)? };
    let mut place = short;
    let mut behind = END_BYTES as u64;
    let locator = before.len().checked_sub(LOCATOR_BYTES).and_then(|at| before.split_at_checked(at));
    if let Some((before, locator)) = locator.filter(|(_, locator)| locator.starts_with(LOCATOR_64)) {
        let end = before.get(before.len().checked_sub(END_64_BYTES)?..)?;
        behind += (LOCATOR_BYTES + END_64_BYTES) as u64;
        if !end.starts_with(END_64) || u64_at(locator, 8)? != length.checked_sub(behind)? {
            return None;
        }
        place = Place { entries: u64_at(end, 32)?, size: u64_at(end, 40)?, start: u64_at(end, 48)? };
    }
    let agrees = |short: u64, long: u64, most: u64| short == long || short == most;
    let consistent = agrees(short.entries, place.entries, u16::MAX.into())
        && agrees(short.size, place.size, u32::MAX.into())
        && agrees(short.start, place.start, u32::MAX.into());
    let end = place.start.checked_add(place.size)?;
    (consistent && end.checked_add(behind) == Some(length)).then_some(place)
}

fn check_directory(path: &Path, directory: &Directory) -> Result<()> {
    let mut rest = directory.bytes.as_slice();
    let mut count = 0;
    while !rest.is_empty() {
        let (entry, after) = next_entry(rest)
            .ok_or_else(|| Error::file(path, "directory", "whole entries", format!("entry {count} damaged")))?;
        let name = || super::shown(&String::from_utf8_lossy(entry.name));
        if entry.method != 0 {
            let got = format!("{} compressed", name());
            return Err(Error::file(path, "directory", "no compression, as torch.save writes files", got));
        }
        if entry.name.ends_with(b"data.pkl") && entry.size > MOST_PICKLE_BYTES {
            return Err(Error::file(path, name(), format!("at most {MOST_PICKLE_BYTES} bytes"), entry.size));
        }
        rest = after;
        count += 1;
    }
    match count == directory.entries {
        true => Ok(()),
        false => Err(Error::file(path, "directory", format!("{} entries", directory.entries), count)),
    }
}

struct Entry<'a> {
    name: &'a [u8],
    method: u64,
    size: u64,
}

/// The first entry, and what follows it.
fn next_entry(bytes: &[u8]) -> Option<(Entry<'_>, &[u8])> {
    if !bytes.starts_with(ENTRY) {
        return None;
    }
    let name_length = u16_at(bytes, 28)? as usize;
    let behind_name = (u16_at(bytes, 30)? + u16_at(bytes, 32)?) as usize;
    let (name, after) = bytes.get(ENTRY_BYTES..)?.split_at_checked(name_length)?;
    let entry = Entry { name, method: u16_at(bytes, 10)?, size: u32_at(bytes, 24)? };
    Some((entry, after.get(behind_name..)?))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_le_bytes(*b).into())
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b).into())
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..)?.first_chunk().map(|b| u64::from_le_bytes(*b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: u64 = 1 << 40;

    /// The last bytes of a file of [`LENGTH`] bytes, with a directory of 100 bytes; `short` stands in the 32-bit end.
    fn tail(short: u32) -> Vec<u8> {
        let behind = (END_64_BYTES + LOCATOR_BYTES + END_BYTES) as u64;
        let mut end_64 = END_64.to_vec();
        end_64.resize(32, 0);
        for value in [2, 100, LENGTH - behind - 100] {
            end_64.extend_from_slice(&u64::to_le_bytes(value));
        }
        let locator = [LOCATOR_64, &[0; 4], &(LENGTH - behind).to_le_bytes(), &[1, 0, 0, 0]].concat();
        let end = [END, &[0; 4], &[2, 0, 2, 0], &100u32.to_le_bytes(), &short.to_le_bytes(), &[0; 2]].concat();
        [end_64, locator, end].concat()
    }

    #[test]
    fn large_files_have_their_directory_behind_four_gigabytes() {
        let place = place(&tail(u32::MAX), LENGTH).expect("consistent");
        assert_eq!((place.entries, place.size, place.start), (2, 100, LENGTH - 98 - 100));
    }

    #[test]
    fn ends_that_could_be_read_in_two_ways_are_refused() {
        assert!(place(&tail(7), LENGTH).is_none(), "two places");
        assert!(place(&tail(u32::MAX), LENGTH - 1).is_none(), "another length");
        let mut comment = tail(u32::MAX);
        comment[END_64_BYTES + LOCATOR_BYTES + 20] = 1;
        assert!(place(&comment, LENGTH).is_none(), "a comment");
        assert!(place(&tail(u32::MAX)[1..], LENGTH).is_none(), "half an end");
    }
}
