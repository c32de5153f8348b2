//! Where the files of a data set are: on this machine, or behind URLs.
//!
//! [`Files`] lists and reads both in the same way. What lies behind a URL is copied into a cache on disk and read there; a file that is too
//! large for the cache is read in ranges.

mod braces;
#[cfg(feature = "object-store")]
mod cache;
#[cfg(feature = "object-store")]
mod client;
mod files;
mod glob;
#[cfg(feature = "object-store")]
mod remote;
#[cfg(not(feature = "object-store"))]
#[path = "no_remote.rs"]
mod remote;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use files::{Entry, Files};
pub(crate) use files::{below, folder_of, in_folder, read_at};

use crate::{Error, Result};

/// The variable that names the folder of everything that this program keeps for later calls.
const CACHE: &str = "GMFLOW_CACHE";

/// The same folder without the variable, below the home folder.
const USUAL_CACHE: &str = ".cache/gmflow";

/// The largest number of gigabytes.
const MOST_GIGABYTES: f64 = 1e9;

/// How data behind URLs is read, and where copies of it are kept. Keys are no settings: they are read from the variables that a provider's
/// own programs read, such as `AWS_ACCESS_KEY_ID`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Storage {
    /// The folder of the cache, which several runs may share: copies of files behind URLs, and lists of what tar shards hold. Absent: the
    /// folder that the variable `GMFLOW_CACHE` names, or else `.cache/gmflow` in the home folder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<PathBuf>,
    /// Gigabytes (10^9 bytes) of files behind URLs that the cache holds at the most. Those that were not read for the longest time make
    /// room. A file of more than half of it is not copied but read in ranges.
    #[serde(default = "gigabytes", skip_serializing_if = "is_gigabytes")]
    pub cache_gigabytes: f64,
    /// How often a request that failed is made again, after waits that double from 0.1 to 15 seconds.
    #[serde(default = "retries", skip_serializing_if = "is_retries")]
    pub retries: usize,
    /// Seconds without an answer, or without a byte of it, after which a request has failed.
    #[serde(default = "timeout", skip_serializing_if = "is_timeout")]
    pub timeout_seconds: u64,
    /// The address of a server that speaks S3, such as MinIO, for URLs with `s3://`; by default that of `AWS_ENDPOINT_URL`, or else
    /// Amazon's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// Read public buckets without keys.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anonymous: bool,
}

fn gigabytes() -> f64 {
    50.0
}

fn is_gigabytes(value: &f64) -> bool {
    *value == gigabytes()
}

fn retries() -> usize {
    8
}

fn is_retries(value: &usize) -> bool {
    *value == retries()
}

fn timeout() -> u64 {
    30
}

fn is_timeout(value: &u64) -> bool {
    *value == timeout()
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            cache: None,
            cache_gigabytes: gigabytes(),
            retries: retries(),
            timeout_seconds: timeout(),
            endpoint: None,
            anonymous: false,
        }
    }
}

impl Storage {
    /// Whether nothing is set.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Checks every setting.
    ///
    /// # Errors
    /// [`crate::FilesError::Config`] naming the first setting outside its domain.
    pub fn validate(&self) -> Result<()> {
        let wrong =
            |name: &str, expected: &str, got: String| Err(Error::config(format!("storage.{name}"), expected, got));
        if self.cache.as_ref().is_some_and(|folder| folder.as_os_str().is_empty()) {
            return wrong("cache", "a folder", "an empty path".into());
        }
        if !(self.cache_gigabytes > 0.0 && self.cache_gigabytes <= MOST_GIGABYTES) {
            return wrong("cache_gigabytes", "a number above 0 and at most 1e9", self.cache_gigabytes.to_string());
        }
        if self.retries > 100 {
            return wrong("retries", "0 to 100", self.retries.to_string());
        }
        if !(1..=3600).contains(&self.timeout_seconds) {
            return wrong("timeout_seconds", "1 to 3600", self.timeout_seconds.to_string());
        }
        match &self.endpoint {
            Some(url) if !url.starts_with("http://") && !url.starts_with("https://") => {
                wrong("endpoint", "an address that starts with http:// or https://", format!("{url:?}"))
            }
            _ => Ok(()),
        }
    }

    /// The folder of the cache; `None` where there is neither a setting nor a home folder.
    pub fn cache_folder(&self) -> Option<PathBuf> {
        let variable = || std::env::var_os(CACHE).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home =
            || std::env::home_dir().filter(|home| !home.as_os_str().is_empty()).map(|home| home.join(USUAL_CACHE));
        self.cache.clone().or_else(variable).or_else(home)
    }

    /// Bytes that copies of files take at the most.
    #[cfg(feature = "object-store")]
    fn cache_bytes(&self) -> u64 {
        (self.cache_gigabytes * 1e9) as u64
    }
}

/// The last part of a path or URL, for messages and guesses.
pub(crate) fn name_of(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}
