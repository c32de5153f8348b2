//! Where to download from and to.

use crate::{Error, Result};
use std::path::PathBuf;

/// Where the hub's programs keep their files, below the home folder.
const HUB_HOME: &str = ".cache/huggingface";

/// Where to download from and to.
#[derive(Clone, Debug)]
pub struct HubSettings {
    /// The hub's address; the public one by default.
    pub endpoint: Option<String>,
    /// What proves who is asking, for private and gated repositories.
    pub token: Option<String>,
    /// The cache's folder.
    pub cache: PathBuf,
    /// Asks the cache alone.
    pub offline: bool,
}

impl HubSettings {
    /// The settings from the environment, by the names that the hub's own programs give them: `HF_ENDPOINT`, `HF_TOKEN`, `HF_HOME`,
    /// `HF_HUB_CACHE` and `HF_HUB_OFFLINE`.
    ///
    /// # Errors
    /// [`crate::FilesError::Config`] where neither `HF_HOME` nor a home folder is there.
    pub fn from_env() -> Result<Self> {
        let read = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
        // A variable that was filled from a file often ends with a line break.
        let word = |name: &str| read(name).map(|value| value.trim().to_owned());
        let home = match read("HF_HOME") {
            Some(home) => PathBuf::from(home),
            None => {
                let expected = "the folder of the hub's cache, because there is no home folder";
                std::env::home_dir().ok_or_else(|| Error::config("HF_HOME", expected, "nothing"))?.join(HUB_HOME)
            }
        };
        let from_file = || std::fs::read_to_string(home.join("token")).ok().map(|token| token.trim().to_owned());
        let token = word("HF_TOKEN").or_else(|| word("HUGGING_FACE_HUB_TOKEN")).or_else(from_file);
        let offline = word("HF_HUB_OFFLINE")
            .is_some_and(|value| !matches!(value.to_lowercase().as_str(), "0" | "false" | "no"));
        Ok(Self {
            endpoint: word("HF_ENDPOINT"),
            token: token.filter(|token| !token.is_empty()),
            cache: read("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from),
            offline,
        })
    }
}
