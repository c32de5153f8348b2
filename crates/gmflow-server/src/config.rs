//! What a server is started with.

use crate::{Error, Result};
use burn::tensor::Device;
use gmflow_eval::ModelOptions;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// What a server is started with.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// Where to listen. Port 0 takes a free one.
    pub bind: SocketAddr,
    /// The models, the first one for requests that name none.
    pub models: Vec<ModelSource>,
    /// The folder of training runs that are shown.
    pub runs: Option<PathBuf>,
    /// Where to compute.
    pub device: Device,
    /// What the device is called.
    pub device_name: String,
    /// Which weights of runs are taken, and in which arithmetic.
    pub run_options: ModelOptions,
    /// What requests have to carry; needed to listen at other addresses than this machine's own.
    pub key: Option<String>,
    /// Names that requests may call the server by, beside `localhost` and numbers.
    pub hosts: Vec<String>,
    /// Origins of pages elsewhere that may use the API, such as `https://example.org`.
    pub origins: Vec<String>,
    /// A folder to take the page from, in place of the one in the program.
    pub page: Option<PathBuf>,
    /// How much is taken of what.
    pub limits: ServerLimits,
}

/// A model to serve.
#[derive(Clone, Debug)]
pub struct ModelSource {
    /// What requests call it.
    pub id: String,
    /// Its folder.
    pub folder: PathBuf,
    /// Which of its weights.
    pub options: ModelOptions,
}

/// How much a server takes before it refuses.
#[derive(Clone, Debug)]
pub struct ServerLimits {
    /// Bytes of a request's body.
    pub body: usize,
    /// Images, and points, of a request.
    pub samples: [usize; 2],
    /// Network calls for a sample.
    pub steps: usize,
    /// Images, and points, that are computed at once for a request.
    pub batch: [usize; 2],
    /// Jobs that wait or run.
    pub queue: usize,
    /// How much later than alone a request may end, because of the work of others.
    pub wait: Duration,
    /// Time that a request may take: its work as it is estimated, and a plain request as a whole.
    pub time: Duration,
    /// Time that a job may run, beside others.
    pub run: Duration,
    /// Time that a client may take to send a body.
    pub body_time: Duration,
    /// Open streams of events.
    pub streams: usize,
    /// Open connections.
    pub connections: usize,
    /// How long results of jobs are kept.
    pub keep: Duration,
    /// Bytes of results that are kept.
    pub keep_bytes: usize,
    /// Bytes of a request's trace.
    pub trace_bytes: usize,
    /// Bytes of weights of loaded models.
    pub model_bytes: Option<u64>,
    /// How long a model stays loaded that nobody uses; without it for ever.
    pub idle: Option<Duration>,
    /// How long work goes on after the server was told to end.
    pub grace: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            body: 1 << 20,
            samples: [1024, 100_000],
            steps: 1000,
            batch: [16, 4096],
            queue: 256,
            wait: Duration::from_secs(60),
            time: Duration::from_secs(600),
            run: Duration::from_secs(3600),
            body_time: Duration::from_secs(30),
            streams: 64,
            connections: 512,
            keep: Duration::from_secs(600),
            keep_bytes: 256 << 20,
            trace_bytes: 64 << 20,
            model_bytes: None,
            idle: None,
            grace: Duration::from_secs(30),
        }
    }
}

impl ServerConfig {
    /// A server on this machine's own address, with nothing to serve yet.
    pub fn new(device: Device, device_name: &str) -> Self {
        Self {
            bind: SocketAddr::new(IpAddr::from([127, 0, 0, 1]), 8080),
            models: Vec::new(),
            runs: None,
            device,
            device_name: device_name.to_owned(),
            run_options: ModelOptions::default(),
            key: None,
            hosts: Vec::new(),
            origins: Vec::new(),
            page: None,
            limits: ServerLimits::default(),
        }
    }

    /// Checks every setting, before anything is loaded.
    ///
    /// # Errors
    /// [`Error::Config`] naming the setting: an address of the network without a key, an empty key, an id that stands twice or has
    /// characters that a URL would change, a bound of 0.
    pub fn check(&self) -> Result<()> {
        if self.key.is_none() && !self.bind.ip().is_loopback() {
            let expected = "a key for addresses that others can reach";
            return Err(Error::config("key", expected, format!("none, for {}", self.bind)));
        }
        if self.key.as_ref().is_some_and(|key| key.len() < MIN_KEY || !key.bytes().all(|b| b.is_ascii_graphic())) {
            let expected = format!("at least {MIN_KEY} characters of ASCII without spaces");
            return Err(Error::config("key", expected, "another text"));
        }
        for (index, ModelSource { id, .. }) in self.models.iter().enumerate() {
            if id.is_empty() || !id.chars().all(is_plain) {
                return Err(Error::config("model id", "letters, digits, '-', '_' and '.'", id));
            }
            if self.models.iter().take(index).any(|other| other.id == *id) {
                return Err(Error::config("model id", "one that no other model has: NAME=FOLDER names it", id));
            }
        }
        for origin in &self.origins {
            let host = origin.strip_prefix("https://").or(origin.strip_prefix("http://")).unwrap_or_default();
            if host.is_empty() || !host.bytes().all(|b| b.is_ascii_graphic()) || host.contains(['/', '*']) {
                let expected = "https:// or http://, a host and nothing behind it, such as https://example.org";
                return Err(Error::config("cors-origin", expected, origin));
            }
        }
        for host in &self.hosts {
            // A number is always allowed.
            if host.is_empty() || !host.chars().all(is_plain) {
                let expected = "a name without scheme, port and path, such as models.example.org";
                return Err(Error::config("host", expected, host));
            }
        }
        let limits = &self.limits;
        for (field, value) in [
            ("max-samples", limits.samples[0]),
            ("max-points", limits.samples[1]),
            ("max-steps", limits.steps),
            ("batch", limits.batch[0].min(limits.batch[1])),
            ("max-queue", limits.queue),
            ("max-connections", limits.connections),
        ] {
            if value == 0 {
                return Err(Error::config(field, "at least 1", 0));
            }
        }
        Ok(())
    }
}

/// Characters of a key at the least.
const MIN_KEY: usize = 8;

/// Whether a character of an id stays the same in a URL.
fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ServerConfig {
        ServerConfig::new(Device::flex(), "cpu")
    }

    fn refused(config: &ServerConfig) -> String {
        config.check().unwrap_err().to_string()
    }

    #[test]
    fn an_origin_is_a_scheme_and_a_host() {
        let mut shared = config();
        shared.origins = vec!["https://example.org".into(), "http://localhost:3000".into()];
        assert!(shared.check().is_ok());
        for wrong in ["*", "example.org", "https://", "https://*.example.org", "https://example.org/", "https://a b"]
        {
            shared.origins = vec![wrong.into()];
            assert!(refused(&shared).starts_with("cors-origin: expected https://"), "{wrong}");
        }
    }

    #[test]
    fn a_host_is_a_name_alone() {
        let mut named = config();
        named.hosts = vec!["models.example.org".into(), "gpu-1".into()];
        assert!(named.check().is_ok());
        for wrong in ["", "http://x", "models.example.org:8080", "models.example.org/", "*.example.org", "a b"] {
            named.hosts = vec![wrong.into()];
            assert!(refused(&named).starts_with("host: expected a name without scheme"), "{wrong}");
        }
    }

    #[test]
    fn an_address_of_the_network_needs_a_key() {
        let mut open = config();
        assert!(open.check().is_ok());
        open.bind = "0.0.0.0:8080".parse().unwrap();
        assert_eq!(
            refused(&open),
            "key: expected a key for addresses that others can reach, got none, for 0.0.0.0:8080"
        );
        open.key = Some("secret-key".into());
        assert!(open.check().is_ok());
        open.key = Some("short".into());
        assert!(refused(&open).starts_with("key: expected at least 8"), "{}", refused(&open));
        assert!(!refused(&open).contains("short"), "a key is not shown");
    }

    #[test]
    fn ids_are_plain_and_stand_once() {
        let source = |id: &str| ModelSource { id: id.into(), folder: "x".into(), options: ModelOptions::default() };
        let mut two = ServerConfig { models: vec![source("a"), source("a")], ..config() };
        assert!(refused(&two).contains("no other model"));
        two.models = vec![source("a/b")];
        assert!(refused(&two).contains("letters"));
        two.models = vec![source("a"), source("b-1.2_x")];
        assert!(two.check().is_ok());
    }
}
