//! The published Inception weights, fetched once.
//!
//! ```no_run
//! use gmflow_eval::features::download::INCEPTION;
//!
//! let file = INCEPTION.fetch("features".as_ref(), false, &mut |bytes| eprintln!("{bytes} bytes more"))?;
//! # Ok::<(), gmflow_eval::Error>(())
//! ```

use super::sha256;
use crate::{Error, Result};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;
use ureq::Agent;

/// A file on the web with what its SHA-256 begins with.
#[derive(Clone, Copy, Debug)]
pub struct Published<'a> {
    /// Where it is.
    pub url: &'a str,
    /// The name it is kept under.
    pub file: &'a str,
    /// The first hexadecimal digits of its SHA-256.
    pub sha256: &'a str,
}

/// The weights that torch-fidelity uses, converted from TensorFlow's release of 2015-12-05.
pub const INCEPTION: Published = Published {
    url: "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    file: "weights-inception-2015-12-05-6726825d.pth",
    sha256: "6726825d",
};

/// How long a host may take to accept a connection, and how long it may then be silent.
const PATIENCE: Duration = Duration::from_secs(60);
/// No weights of this kind are larger.
const MOST_BYTES: u64 = 1 << 29;

impl Published<'_> {
    /// The file in `folder`, downloaded where it is not there yet, unless `offline`.
    ///
    /// # Errors
    /// [`crate::FilesError::File`] where it is not there and may not or cannot be downloaded, or is not what was published.
    pub fn fetch(&self, folder: &Path, offline: bool, progress: &mut dyn FnMut(u64)) -> Result<PathBuf> {
        let path = folder.join(self.file);
        if path.is_file() {
            return self.checked(&path).map(|()| path);
        }
        if offline {
            let expected = format!("a copy of {}, which is not downloaded while offline", self.url);
            return Err(Error::file(&path, "file", expected, "none"));
        }
        std::fs::create_dir_all(folder).map_err(|error| Error::io(folder, error))?;
        let part = folder.join(format!("{}.{}.part", self.file, std::process::id()));
        let fetched = self.download(&part, progress).and_then(|()| self.checked(&part));
        let kept = fetched.and_then(|()| std::fs::rename(&part, &path).map_err(|error| Error::io(&path, error)));
        if let Err(error) = kept {
            // What is left of it is of no use.
            let _ = std::fs::remove_file(&part);
            return Err(error);
        }
        Ok(path)
    }

    fn download(&self, part: &Path, progress: &mut dyn FnMut(u64)) -> Result<()> {
        let failed = |what: &dyn std::fmt::Display| Error::file(part, "download", self.url, what);
        let config = Agent::config_builder().timeout_connect(Some(PATIENCE)).timeout_recv_response(Some(PATIENCE));
        let agent: Agent = config.timeout_recv_body(Some(PATIENCE * 30)).build().into();
        let response = agent.get(self.url).call().map_err(|error| {
            failed(&format_args!("{error}; features = pixels or classifier:FILE needs no download"))
        })?;
        let mut body = response.into_body().into_with_config().limit(MOST_BYTES).reader();
        let mut file = std::fs::File::create(part).map_err(|error| Error::io(part, error))?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            let read = body.read(&mut buffer).map_err(|error| failed(&error))?;
            if read == 0 {
                return file.sync_all().map_err(|error| Error::io(part, error));
            }
            file.write_all(&buffer[..read]).map_err(|error| Error::io(part, error))?;
            progress(read as u64);
        }
    }

    fn checked(&self, path: &Path) -> Result<()> {
        let got = sha256(path)?;
        match got.starts_with(self.sha256) {
            true => Ok(()),
            false => Err(Error::file(path, "SHA-256", format!("{}...", self.sha256), got)),
        }
    }
}
