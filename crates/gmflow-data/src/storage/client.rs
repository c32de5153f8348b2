//! The servers behind URLs, and what they answer in plain words.

use std::error::Error as _;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::http::HttpBuilder;
use object_store::path::Path as Location;
use object_store::{BackoffConfig, ClientOptions, Error as StoreError, ObjectStore, RetryConfig};

use super::Storage;
use crate::{Error, Result};

/// The longest time to wait for a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// The longest time of a whole answer, a part of a file at some ten kilobytes a second. One that does not move ends sooner.
const ANSWER: Duration = Duration::from_secs(600);

/// The longest time from a request to its last repetition. Signatures hold for about five minutes.
const LONGEST: Duration = Duration::from_secs(240);

/// A URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parts {
    /// Scheme and bucket or host, such as `s3://bucket`.
    pub base: String,
    /// What is behind them.
    pub location: Location,
}

impl Parts {
    /// Takes a URL apart.
    ///
    /// # Errors
    /// [`crate::FilesError::Config`] for a scheme that is not known, no bucket or host, a query, or a path with empty parts.
    pub fn of(url: &Path) -> Result<Self> {
        let text = url.to_str().unwrap_or_default();
        let wrong =
            |expected: &str, got: &str| Error::config("path", expected, format!("{got} in {}", url.display()));
        let (scheme, rest) = text.split_once("://").unwrap_or_default();
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        if !["s3", "gs", "http", "https"].contains(&scheme) {
            return Err(wrong("a URL that starts with s3://, gs://, https://, http:// or file://", scheme));
        }
        if host.is_empty() || host.contains(['?', '#', '@']) {
            return Err(wrong("a bucket or host", if host.is_empty() { "none" } else { host }));
        }
        let is_web = scheme.starts_with("http");
        if is_web && path.contains(['?', '#']) {
            return Err(wrong("a URL without a query (signed URLs are not read)", path));
        }
        let location = match is_web {
            // A path as browsers write it, with %20 for a space.
            true => Location::from_url_path(path),
            false => Location::parse(path),
        };
        let location = location.map_err(|error| wrong("a path without empty parts", &error.to_string()))?;
        Ok(Self { base: format!("{scheme}://{host}"), location })
    }

    /// The URL of what lies at a place in the same bucket or on the same host.
    pub fn url(&self, location: &Location) -> String {
        format!("{}/{location}", self.base)
    }

    /// Whether files can be written and listed.
    pub fn is_web(&self) -> bool {
        self.base.starts_with("http")
    }
}

/// Opens what a URL names. Keys and the like come from the variables that the provider's own programs read.
///
/// # Errors
/// [`crate::FilesError::Config`] for a variable or an endpoint that the provider's rules do not allow.
pub(super) fn connect(parts: &Parts, storage: &Storage) -> Result<Arc<dyn ObjectStore>> {
    install_cryptography();
    let retry =
        RetryConfig { backoff: BackoffConfig::default(), max_retries: storage.retries, retry_timeout: LONGEST };
    let timeout = Duration::from_secs(storage.timeout_seconds);
    let plain = parts.base.starts_with("http://");
    let options = ClientOptions::new()
        .with_user_agent_text()
        .with_allow_http(plain || storage.endpoint.as_ref().is_some_and(|url| url.starts_with("http://")))
        .with_connect_timeout(timeout.min(CONNECT))
        .with_read_timeout(timeout)
        .with_timeout(ANSWER.max(timeout));
    let wrong = |error: StoreError| Error::config("path", "a bucket that can be opened", plain_words(&error));
    let bucket = parts.base.split_once("://").map_or("", |(_, host)| host);
    Ok(match parts.base.as_str() {
        base if base.starts_with("s3://") => {
            let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(retry);
            if let Some(url) = &storage.endpoint {
                builder = builder.with_endpoint(url);
            }
            if storage.anonymous {
                builder = builder.with_skip_signature(true);
            }
            // Of S3 alone: the variables also allow an address without TLS.
            let options = match std::env::var("AWS_ENDPOINT_URL").is_ok_and(|url| url.starts_with("http://")) {
                true => options.with_allow_http(true),
                false => options,
            };
            Arc::new(builder.with_client_options(options).build().map_err(wrong)?)
        }
        base if base.starts_with("gs://") => {
            let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).with_retry(retry);
            if storage.anonymous {
                builder = builder.with_skip_signature(true);
            }
            Arc::new(builder.with_client_options(options).build().map_err(wrong)?)
        }
        base => {
            let builder = HttpBuilder::new().with_url(base).with_retry(retry).with_client_options(options);
            Arc::new(builder.build().map_err(wrong)?)
        }
    })
}

/// Which implementation of cryptography TLS takes; one that another part of the program has chosen stays.
fn install_cryptography() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

/// The error of a request, in plain words and with what can be done.
pub(super) fn explain(url: &Path, error: &StoreError) -> Error {
    let scheme = gmflow_files::scheme(url).unwrap_or_default();
    let words = plain_words(error);
    let (kind, text) = match error {
        // Of a list the answer is known by its words alone.
        _ if words.contains("NoSuchBucket") => (ErrorKind::NotFound, "there is no such bucket".to_owned()),
        StoreError::NotFound { .. } => (ErrorKind::NotFound, "there is no such file behind this URL".to_owned()),
        _ if is_refused(error, &words) => {
            (ErrorKind::PermissionDenied, format!("the server refuses access; {} ({words})", keys(scheme)))
        }
        StoreError::Precondition { .. } => {
            (ErrorKind::InvalidData, "the file has changed while it was read; start again".to_owned())
        }
        _ if asks_for_keys(&words) => {
            (ErrorKind::PermissionDenied, format!("there are no keys for the bucket; {} ({words})", keys(scheme)))
        }
        _ => (ErrorKind::Other, format!("no answer that can be used: {words}; is the network there?")),
    };
    Error::io(url, std::io::Error::new(kind, text))
}

/// Whether the server does not let everybody, or not whoever has these keys, do this.
fn is_refused(error: &StoreError, words: &str) -> bool {
    matches!(error, StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. })
        || ["403 Forbidden", "401 Unauthorized"].iter().any(|status| words.contains(status))
}

/// Whether a request failed because nothing gave a key: then the one place that is left is asked, which only machines of a cloud have.
fn asks_for_keys(words: &str) -> bool {
    ["169.254.169.254", "metadata.google.internal", "instance metadata", "latest/api/token"]
        .iter()
        .any(|place| words.contains(place))
}

/// How to give keys.
fn keys(scheme: &str) -> &'static str {
    match scheme {
        "s3" => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SESSION_TOKEN, AWS_REGION, AWS_ENDPOINT_URL where they are \
             needed), or storage.anonymous = true for a public bucket"
        }
        "gs" => {
            "set GOOGLE_APPLICATION_CREDENTIALS to the file of a key, or storage.anonymous = true for a public bucket"
        }
        _ => "no names and passwords are sent to web servers",
    }
}

/// An error with its causes on one line, each said once.
pub(super) fn plain_words(error: &StoreError) -> String {
    let mut texts = vec![error.to_string()];
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        if !texts.iter().any(|said| said.contains(&text)) {
            texts.push(text);
        }
        cause = inner.source();
    }
    // Answers of servers are pages of XML.
    let line: String = texts.join(": ").split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(400) {
        Some((at, _)) => format!("{}...", line.get(..at).unwrap_or_default()),
        None => line,
    }
}

/// A failure that another attempt may mend. The client repeats single requests; what it gives up on within one is repeated here.
pub(super) fn may_pass(error: &StoreError) -> bool {
    matches!(error, StoreError::Generic { .. }) && !asks_for_keys(&plain_words(error))
}

/// The program's name in the logs of servers.
trait UserAgent {
    fn with_user_agent_text(self) -> Self;
}

impl UserAgent for ClientOptions {
    fn with_user_agent_text(self) -> Self {
        let name = concat!("gmflow/", env!("CARGO_PKG_VERSION"));
        match reqwest::header::HeaderValue::from_str(name) {
            Ok(name) => self.with_user_agent(name),
            Err(_) => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart() {
        let parts = |url: &str| Parts::of(Path::new(url)).map(|parts| (parts.base, parts.location.to_string()));
        let is = |base: &str, location: &str| (base.to_owned(), location.to_owned());
        assert_eq!(parts("s3://bucket/a/b c.tar").unwrap(), is("s3://bucket", "a/b c.tar"));
        assert_eq!(parts("gs://bucket").unwrap(), is("gs://bucket", ""));
        assert_eq!(parts("https://host:8080/a%20b/c").unwrap(), is("https://host:8080", "a b/c"));
        for url in ["ftp://host/a", "s3:///a", "https://host/a?b=c", "https://me@host/a", "s3://bucket/a//b"] {
            assert!(matches!(parts(url), Err(Error::Files(gmflow_files::Error::Config { .. }))), "{url}");
        }
    }
}
