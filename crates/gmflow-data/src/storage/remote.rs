//! Files behind URLs: listed, copied into the cache in parts of which each is asked for again where it fails, or read in ranges.

use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::{
    Error as StoreError, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart,
};
use tokio::runtime::Runtime;

use super::cache::Cache;
use super::client::{Parts, connect, explain, may_pass, plain_words};
use super::{Entry, Storage};
use crate::{Error, Result};

/// Bytes of a part of a file, and how many parts of one are asked for at the same time.
const PART: u64 = 8 << 20;
const PARTS: usize = 4;

/// Files whose size is asked for at the same time.
const STATS: usize = 32;

/// Threads that copy files that are needed soon, and files that they were asked for lately.
const AHEAD: usize = 2;
const ASKED: usize = 64;

/// How often a part is asked for again at the most, as the client asks again for every request itself.
const AGAIN: usize = 3;

/// Wait before a part is asked for again, doubled each time, and the longest.
const WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// The servers behind URLs, and the cache of what they hold.
#[derive(Debug)]
pub(super) struct Remote {
    inner: Arc<Inner>,
    ahead: Mutex<Ahead>,
}

#[derive(Debug)]
struct Inner {
    storage: Storage,
    runtime: Runtime,
    cache: Cache,
    /// By the base of their URLs.
    stores: Mutex<HashMap<String, Arc<dyn ObjectStore>>>,
    stop: AtomicBool,
}

/// Copies that are made before they are needed.
#[derive(Debug, Default)]
struct Ahead {
    asked: VecDeque<PathBuf>,
    sender: Option<Sender<Entry>>,
    threads: Vec<JoinHandle<()>>,
}

impl Remote {
    /// Access with these settings.
    ///
    /// # Errors
    /// [`crate::FilesError::Config`] and [`crate::FilesError::Io`] of the cache's folder; [`Error::Loader`] where no thread can be started.
    pub fn new(storage: &Storage, url: &Path) -> Result<Self> {
        // What is wrong with the URL is told before folders are made.
        Parts::of(url)?;
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name("urls").enable_all().build();
        let inner = Inner {
            storage: storage.clone(),
            runtime: runtime.map_err(|error| Error::loader("a new thread", error))?,
            cache: Cache::new(storage)?,
            stores: Mutex::default(),
            stop: AtomicBool::new(false),
        };
        Ok(Self { inner: Arc::new(inner), ahead: Mutex::default() })
    }

    /// What lies directly below a URL, or at any depth.
    ///
    /// # Errors
    /// [`crate::FilesError::Config`] for a web server, which has no lists; [`crate::FilesError::Io`].
    pub fn list(&self, url: &Path, deep: bool) -> Result<Vec<Entry>> {
        let (parts, store) = self.inner.store(url)?;
        if parts.is_web() {
            let expected = "the URL of a file, or a range such as train-{0000..0127}.tar: web servers do not tell what they hold";
            return Err(Error::config("path", expected, url.display()));
        }
        let prefix = Some(&parts.location).filter(|location| !location.as_ref().is_empty());
        let found = match deep {
            true => self.inner.runtime.block_on(store.list(prefix).try_collect::<Vec<_>>()),
            false => self.inner.runtime.block_on(store.list_with_delimiter(prefix)).map(|list| list.objects),
        };
        let found = found.map_err(|error| explain(url, &error))?;
        Ok(found.into_iter().map(|meta| entry(parts.url(&meta.location).into(), &meta)).collect())
    }

    /// Sizes and tags of files, each `None` where it is not there.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`].
    pub fn stat_all(&self, urls: &[PathBuf]) -> Result<Vec<Option<Entry>>> {
        let places = urls.iter().map(|url| Ok((url, self.inner.store(url)?))).collect::<Result<Vec<_>>>()?;
        let heads = stream::iter(places.into_iter().map(|(url, (parts, store))| async move {
            match store.head(&parts.location).await {
                Ok(meta) => Ok(Some(entry(url.clone(), &meta))),
                Err(StoreError::NotFound { source, .. }) if !source.to_string().contains("NoSuchBucket") => Ok(None),
                Err(error) => Err(explain(url, &error)),
            }
        }));
        self.inner.runtime.block_on(heads.buffered(STATS).try_collect())
    }

    /// Opens the copy of a file in the cache, which is made where there is none; `None` where it does not fit.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`].
    pub fn open(&self, entry: &Entry) -> Result<Option<File>> {
        self.inner.open(entry)
    }

    /// Bytes of a file, from its copy if there is one.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`].
    pub fn read(&self, entry: &Entry, range: Range<u64>) -> Result<Vec<u8>> {
        if let Some(file) = self.inner.cache.get(entry)? {
            return super::read_at(&entry.path, &file, range);
        }
        let mut bytes = Vec::new();
        let mut start = range.start;
        while start < range.end {
            let end = range.end.min(start + PART);
            bytes.extend(self.inner.runtime.block_on(self.inner.part(entry, start..end))?);
            start = end;
        }
        Ok(bytes)
    }

    /// Asks for a copy, without waiting for it.
    pub fn prefetch(&self, entry: &Entry) {
        let mut ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner);
        if ahead.asked.contains(&entry.path) || !self.inner.cache.takes(entry) {
            return;
        }
        if ahead.asked.len() >= ASKED {
            ahead.asked.pop_front();
        }
        ahead.asked.push_back(entry.path.clone());
        if ahead.sender.is_none() {
            let (sender, receiver) = channel();
            let receiver = Arc::new(Mutex::new(receiver));
            ahead.sender = Some(sender);
            for number in 0..AHEAD {
                let (inner, receiver) = (self.inner.clone(), receiver.clone());
                let thread = std::thread::Builder::new().name(format!("data-ahead-{number}"));
                // Without the thread the copy is made when it is needed.
                ahead.threads.extend(thread.spawn(move || inner.copy_ahead(&receiver)));
            }
        }
        if let Some(sender) = &ahead.sender {
            // Nobody listens where no thread could be started.
            let _ = sender.send(entry.clone());
        }
    }

    /// Writes a file of this machine to a URL, in place of one that is there: it appears whole.
    ///
    /// # Errors
    /// [`crate::FilesError::Config`] for a web server; [`crate::FilesError::Io`].
    pub fn write(&self, from: &Path, url: &Path) -> Result<()> {
        let (parts, store) = self.inner.store(url)?;
        if parts.is_web() {
            return Err(Error::config("out", "a folder, or a URL that starts with s3:// or gs://", url.display()));
        }
        let file = File::open(from).map_err(|error| Error::io(from, error))?;
        let bytes = file.metadata().map_err(|error| Error::io(from, error))?.len();
        let piece = |start: u64| super::read_at(from, &file, start..bytes.min(start + PART));
        let sent: Result<Result<(), StoreError>> = self.inner.runtime.block_on(async {
            if bytes <= PART {
                let whole = PutPayload::from(piece(0)?);
                return Ok(store.put(&parts.location, whole).await.map(drop));
            }
            let upload = match store.put_multipart(&parts.location).await {
                Ok(upload) => upload,
                Err(error) => return Ok(Err(error)),
            };
            let mut upload = WriteMultipart::new_with_chunk_size(upload, PART as usize);
            let mut start = 0;
            while start < bytes {
                if let Err(error) = upload.wait_for_capacity(PARTS).await {
                    // The first error is the one to tell.
                    let _ = upload.abort().await;
                    return Ok(Err(error));
                }
                upload.write(&piece(start)?);
                start += PART;
            }
            Ok(upload.finish().await.map(drop))
        });
        sent?.map_err(|error| explain(url, &error))
    }

    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    /// [`crate::FilesError::Io`].
    pub fn remove(&self, url: &Path) -> Result<()> {
        let (parts, store) = self.inner.store(url)?;
        match self.inner.runtime.block_on(store.delete(&parts.location)) {
            Ok(()) | Err(StoreError::NotFound { .. }) => Ok(()),
            Err(error) => Err(explain(url, &error)),
        }
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.inner.stop.store(true, Ordering::Relaxed);
        let ahead = self.ahead.get_mut().unwrap_or_else(PoisonError::into_inner);
        ahead.sender = None;
        for thread in ahead.threads.drain(..) {
            // What it could not copy is copied when it is needed.
            let _ = thread.join();
        }
    }
}

impl Inner {
    /// The server of a URL.
    fn store(&self, url: &Path) -> Result<(Parts, Arc<dyn ObjectStore>)> {
        let parts = Parts::of(url)?;
        let mut stores = self.stores.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(store) = stores.get(&parts.base) {
            return Ok((parts, store.clone()));
        }
        let store = connect(&parts, &self.storage)?;
        stores.insert(parts.base.clone(), store.clone());
        Ok((parts, store))
    }

    fn open(&self, entry: &Entry) -> Result<Option<File>> {
        if !self.cache.takes(entry) {
            return Ok(None);
        }
        if let Some(file) = self.cache.get(entry)? {
            return Ok(Some(file));
        }
        self.cache.copy(entry, |file| self.fill(entry, file))
    }

    /// Copies the whole file, several parts at a time.
    fn fill(&self, entry: &Entry, file: &File) -> Result<()> {
        let starts = (0..entry.bytes).step_by(PART as usize);
        let parts = stream::iter(starts.map(|start| async move {
            let bytes = self.part(entry, start..entry.bytes.min(start + PART)).await?;
            write_at(file, &bytes, start).map_err(|error| {
                let folder = self.storage.cache_folder().unwrap_or_default();
                Error::io(folder, error)
            })
        }));
        self.runtime.block_on(parts.buffer_unordered(PARTS).try_collect::<()>())
    }

    /// Some bytes of a file, which must be the one that was listed.
    async fn part(&self, entry: &Entry, range: Range<u64>) -> Result<Vec<u8>> {
        let (parts, store) = self.store(&entry.path)?;
        let (mut wait, again) = (WAIT, self.storage.retries.min(AGAIN));
        for attempt in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                return Err(Error::loader("the bytes of a file", "the end of the program"));
            }
            let options = GetOptions {
                range: Some(GetRange::Bounded(range.clone())),
                // Servers that are no object stores may have weak tags, which are no match for anything.
                if_match: Some(entry.tag.clone()).filter(|tag| tag.starts_with('"')),
                ..GetOptions::default()
            };
            let got = match store.get_opts(&parts.location, options).await {
                Ok(found) => found.bytes().await,
                Err(error) => Err(error),
            };
            let expected = range.end - range.start;
            match got {
                Ok(bytes) if bytes.len() as u64 == expected => return Ok(bytes.into()),
                Ok(bytes) if attempt >= again => {
                    let got = format!("{} bytes", bytes.len());
                    return Err(Error::file(&entry.path, "answer", format!("{expected} bytes"), got));
                }
                Ok(bytes) => log::debug!("{}: {} bytes of {expected}", entry.path.display(), bytes.len()),
                Err(error) if attempt >= again || !may_pass(&error) => {
                    return Err(explain(&entry.path, &error));
                }
                Err(error) => log::debug!("{}: {}", entry.path.display(), plain_words(&error)),
            }
            tokio::time::sleep(wait).await;
            wait = (2 * wait).min(LONGEST_WAIT);
        }
        Err(Error::loader("the bytes of a file", "none"))
    }

    /// The life of a thread that copies ahead.
    fn copy_ahead(&self, receiver: &Mutex<Receiver<Entry>>) {
        loop {
            let next = receiver.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(entry) = next else { return };
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            if let Err(error) = self.open(&entry) {
                // Whoever needs the file asks again, and tells what is wrong.
                log::debug!("{error}");
            }
        }
    }
}

fn entry(path: PathBuf, meta: &ObjectMeta) -> Entry {
    let tag = meta.e_tag.clone().unwrap_or_else(|| meta.last_modified.to_rfc3339());
    Entry { path, bytes: meta.size, tag }
}

#[cfg(unix)]
fn write_at(file: &File, bytes: &[u8], offset: u64) -> std::io::Result<()> {
    std::os::unix::fs::FileExt::write_all_at(file, bytes, offset)
}

#[cfg(windows)]
fn write_at(file: &File, mut bytes: &[u8], mut offset: u64) -> std::io::Result<()> {
    while !bytes.is_empty() {
        let count = std::os::windows::fs::FileExt::seek_write(file, bytes, offset)?;
        if count == 0 {
            return Err(std::io::ErrorKind::WriteZero.into());
        }
        bytes = bytes.get(count..).unwrap_or_default();
        offset += count as u64;
    }
    Ok(())
}
