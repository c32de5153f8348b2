//! Copies of files behind URLs, on a disk that several processes share.
//!
//! ```text
//! objects/HASH.tar     the copy
//! objects/HASH.sum     its checksum, with the URL for people
//! objects/.HASH.PROCESS.part   a copy that is being made; its size is that of the whole file from the start, so that it counts
//! locks/               files that processes lock while they copy a file or make room
//! ```
//! HASH is of URL, size and ETag: a file that changes gets another copy. What was not read for the longest time is removed first; who has
//! it open goes on reading.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use sha2::{Digest, Sha256};

use super::{Entry, Storage, name_of};
use crate::{Error, Result};

/// Parts of copies that are older than this are left over from processes that were killed.
const LEFT_OVER: Duration = Duration::from_secs(24 * 3600);

/// The cache.
#[derive(Debug)]
pub(super) struct Cache {
    folder: PathBuf,
    most: u64,
    /// Copies whose checksum this process has compared.
    sound: Mutex<HashSet<String>>,
    parts: AtomicU64,
}

impl Cache {
    /// The cache in the folder that the settings name, which is made.
    ///
    /// # Errors
    /// [`crate::FilesError::Config`] without a folder; [`crate::FilesError::Io`] for one that cannot be made.
    pub fn new(storage: &Storage) -> Result<Self> {
        let folder = storage.cache_folder().ok_or_else(|| {
            Error::config("storage.cache", "a folder, as there is no home folder and no GMFLOW_CACHE", "none")
        })?;
        for name in ["objects", "locks"] {
            let folder = folder.join(name);
            fs::create_dir_all(&folder).map_err(|error| Error::io(&folder, error))?;
        }
        Ok(Self { folder, most: storage.cache_bytes(), sound: Mutex::default(), parts: AtomicU64::new(0) })
    }

    /// Whether a file is small enough for a copy.
    pub fn takes(&self, entry: &Entry) -> bool {
        entry.bytes <= self.most / 2
    }

    /// The copy of a file, if there is one and it is whole.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`] for a copy that cannot be read.
    pub fn get(&self, entry: &Entry) -> Result<Option<File>> {
        let (path, key) = (self.path(entry), key(entry));
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(path, error)),
        };
        let is_sound = || self.sound.lock().unwrap_or_else(PoisonError::into_inner);
        let size = file.metadata().map_err(|error| Error::io(&path, error))?.len();
        let known = is_sound().contains(&key);
        if size != entry.bytes || (!known && !self.is_sound(&path, &key)?) {
            log::warn!("{}: a damaged copy of {}; it is made again", path.display(), entry.path.display());
            self.remove(&path);
            return Ok(None);
        }
        is_sound().insert(key);
        // The time of the last reading; where it cannot be set, the copy is removed a little early.
        let _ = file.set_modified(SystemTime::now());
        Ok(Some(file))
    }

    /// Makes a copy, unless another process has made it meanwhile; then `fill` writes to a file of the whole size. `None` where there is no
    /// room, as other copies are being made.
    ///
    /// # Errors
    /// Those of `fill`; [`crate::FilesError::Io`] for a disk that cannot be written to.
    pub fn copy(&self, entry: &Entry, fill: impl FnOnce(&File) -> Result<()>) -> Result<Option<File>> {
        let (path, key) = (self.path(entry), key(entry));
        let io = |error| Error::io(&path, error);
        let _one_at_a_time = self.lock(&format!("copy-{}", key.get(..3).unwrap_or_default()))?;
        if let Some(file) = self.get(entry)? {
            return Ok(Some(file));
        }
        let number = self.parts.fetch_add(1, Ordering::Relaxed);
        let part = Part(self.objects().join(format!(".{key}.{}-{number}.part", std::process::id())));
        let Some(file) = self.begin(&part.0, entry.bytes)? else { return Ok(None) };
        fill(&file)?;
        let sum = checksum(&part.0)?;
        let text = format!("{sum:08x} {}\n", entry.path.display());
        fs::write(self.sum(&key), text).map_err(io)?;
        fs::rename(&part.0, &path).map_err(io)?;
        self.sound.lock().unwrap_or_else(PoisonError::into_inner).insert(key);
        File::open(&path).map(Some).map_err(io)
    }

    /// Removes what was not read for the longest time until there is room, and makes a file that takes it.
    fn begin(&self, part: &Path, bytes: u64) -> Result<Option<File>> {
        let _one_at_a_time = self.lock("room")?;
        let mut copies = Vec::new();
        let mut total = 0u64;
        let objects = self.objects();
        for entry in fs::read_dir(&objects).map_err(|error| Error::io(&objects, error))? {
            let path = entry.map_err(|error| Error::io(&objects, error))?.path();
            // Another process may have removed it.
            let Ok(metadata) = fs::metadata(&path) else { continue };
            let read = metadata.modified().unwrap_or(SystemTime::UNIX_EPOCH);
            let name = name_of(&path);
            if name.ends_with(".part") && read.elapsed().is_ok_and(|age| age > LEFT_OVER) {
                let _ = fs::remove_file(&path);
                continue;
            }
            total += metadata.len();
            if !name.ends_with(".part") && !name.ends_with(".sum") {
                copies.push((read, path, metadata.len()));
            }
        }
        copies.sort();
        for (_, path, size) in copies {
            if total.saturating_add(bytes) <= self.most {
                break;
            }
            log::debug!("{}: removed from the cache to make room", path.display());
            self.remove(&path);
            total = total.saturating_sub(size);
        }
        if total.saturating_add(bytes) > self.most {
            return Ok(None);
        }
        let io = |error| Error::io(part, error);
        let file = File::options().read(true).write(true).create_new(true).open(part).map_err(io)?;
        file.set_len(bytes).map_err(io)?;
        Ok(Some(file))
    }

    /// Removes a copy and its checksum. One that is gone already, or that the system holds on to, is no error.
    fn remove(&self, path: &Path) {
        let key = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let _ = fs::remove_file(path);
        let _ = fs::remove_file(self.sum(&key));
        self.sound.lock().unwrap_or_else(PoisonError::into_inner).remove(&key);
    }

    /// Whether a copy has the checksum that was written with it.
    fn is_sound(&self, path: &Path, key: &str) -> Result<bool> {
        let text = fs::read_to_string(self.sum(key)).unwrap_or_default();
        let expected = text.split(' ').next().and_then(|sum| u32::from_str_radix(sum, 16).ok());
        Ok(expected.is_some() && expected == Some(checksum(path)?))
    }

    /// Waits until no other process, and no other thread, has the lock of this name. A file system without locks has none to wait for:
    /// then two processes may make the same copy, which is waste and nothing worse.
    fn lock(&self, name: &str) -> Result<Option<File>> {
        let path = self.folder.join("locks").join(name);
        let file = File::options().write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(|error| Error::io(&path, error))?;
        match file.lock() {
            Ok(()) => Ok(Some(file)),
            Err(error) => {
                log::debug!("{}: {error}", path.display());
                Ok(None)
            }
        }
    }

    fn objects(&self) -> PathBuf {
        self.folder.join("objects")
    }

    fn path(&self, entry: &Entry) -> PathBuf {
        let ending = entry.path.extension().unwrap_or_default().to_string_lossy().into_owned();
        let plain =
            !ending.is_empty() && ending.len() < 16 && ending.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let ending = if plain && ending != "sum" && ending != "part" { ending } else { "bin".into() };
        self.objects().join(format!("{}.{ending}", key(entry)))
    }

    fn sum(&self, key: &str) -> PathBuf {
        self.objects().join(format!("{key}.sum"))
    }
}

/// A part of a copy, which is removed where it does not become one.
struct Part(PathBuf);

impl Drop for Part {
    fn drop(&mut self) {
        // It has been renamed where the copy is whole.
        let _ = fs::remove_file(&self.0);
    }
}

/// What a copy is called.
fn key(entry: &Entry) -> String {
    let mut hash = Sha256::new();
    for part in [entry.path.as_os_str().as_encoded_bytes(), entry.tag.as_bytes()] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.update(entry.bytes.to_le_bytes());
    hash.finalize().iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

fn checksum(path: &Path) -> Result<u32> {
    let io = |error| Error::io(path, error);
    let mut file = BufReader::with_capacity(1 << 20, File::open(path).map_err(io)?);
    let mut sum = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer).map_err(io)? {
            0 => return Ok(sum),
            count => sum = crc32c::crc32c_append(sum, buffer.get(..count).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn entry(name: &str, bytes: u64) -> Entry {
        Entry { path: format!("s3://bucket/{name}").into(), bytes, tag: "1".into() }
    }

    fn cache(folder: &Path, bytes: u64) -> Cache {
        let storage =
            Storage { cache: Some(folder.to_path_buf()), cache_gigabytes: bytes as f64 / 1e9, ..Storage::default() };
        Cache::new(&storage).unwrap()
    }

    fn fill(cache: &Cache, entry: &Entry, byte: u8) -> Option<File> {
        let write = |mut file: &File| {
            file.write_all(&vec![byte; entry.bytes as usize]).unwrap();
            Ok(())
        };
        cache.copy(entry, write).unwrap()
    }

    fn age(cache: &Cache, entry: &Entry, seconds: u64) {
        let file = File::options().write(true).open(cache.path(entry)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
    }

    #[test]
    fn the_copy_that_was_not_read_for_the_longest_time_makes_room() {
        let folder = tempfile::tempdir().unwrap();
        // The lists of checksums count too.
        let cache = cache(folder.path(), 3500);
        let [a, b, c, d] = ["a.tar", "b.tar", "c.tar", "d.tar"].map(|name| entry(name, 1000));
        for (age_of, seconds) in [(&a, 30), (&b, 20), (&c, 10)] {
            fill(&cache, age_of, 1).unwrap();
            age(&cache, age_of, seconds);
        }
        // Read again, the first one stays.
        cache.get(&a).unwrap().unwrap();
        fill(&cache, &d, 1).unwrap();
        assert!(cache.get(&a).unwrap().is_some() && cache.get(&c).unwrap().is_some());
        assert!(cache.get(&b).unwrap().is_none());
        let total: u64 = fs::read_dir(cache.objects()).unwrap().map(|f| f.unwrap().metadata().unwrap().len()).sum();
        assert!(total <= 3500, "{total}");
    }

    #[test]
    fn a_damaged_copy_is_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let first = cache(folder.path(), 10_000);
        let a = entry("a.tar", 100);
        fill(&first, &a, 1).unwrap();
        fs::write(first.path(&a), vec![2; 100]).unwrap();
        // A process that has compared it trusts it; another one compares it.
        let second = cache(folder.path(), 10_000);
        assert!(second.get(&a).unwrap().is_none());
        let mut bytes = Vec::new();
        fill(&second, &a, 3).unwrap().read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, vec![3; 100]);
        fs::write(first.path(&a), vec![2; 99]).unwrap();
        assert!(second.get(&a).unwrap().is_none(), "of another size");
    }

    #[test]
    fn a_file_that_changed_gets_another_copy_and_a_failed_one_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), 10_000);
        let before = entry("a.tar", 100);
        fill(&cache, &before, 1).unwrap();
        assert!(cache.get(&Entry { tag: "2".into(), ..before.clone() }).unwrap().is_none());
        assert!(cache.get(&Entry { bytes: 99, ..before }).unwrap().is_none());
        let failed = cache.copy(&entry("b.tar", 100), |_| Err(Error::config("x", "y", "z")));
        assert!(failed.is_err());
        let names: Vec<_> = fs::read_dir(cache.objects()).unwrap().map(|f| f.unwrap().file_name()).collect();
        assert_eq!(names.len(), 2, "{names:?}");
    }

    #[test]
    fn threads_and_caches_of_one_folder_make_one_copy() {
        let folder = tempfile::tempdir().unwrap();
        let made = AtomicU64::new(0);
        let a = entry("a.tar", 100);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let cache = cache(folder.path(), 10_000);
                    let copied = cache.copy(&a, |mut file| {
                        made.fetch_add(1, Ordering::Relaxed);
                        std::thread::sleep(Duration::from_millis(20));
                        file.write_all(&[7; 100]).unwrap();
                        Ok(())
                    });
                    assert!(copied.unwrap().is_some());
                });
            }
        });
        assert_eq!(made.load(Ordering::Relaxed), 1);
    }
}
