//! Requests to the hub and to the hosts that it names.
//!
//! hf-hub knows the cache; its requests are not used: they show the token to the host that a redirect names, wait without end, and
//! panic at some answers.

use super::HubSettings;
use std::time::Duration;
use ureq::http::header::{ACCEPT_ENCODING, AUTHORIZATION, ETAG, LOCATION, RANGE};
use ureq::http::{HeaderMap, Response, Uri};
use ureq::{Agent, Body};

/// The public hub.
const PUBLIC: &str = "https://huggingface.co";
/// How long a host may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(30);
/// How long a connection may be silent.
const SILENCE: Duration = Duration::from_secs(60);
/// Redirects followed one after the other.
const MOST_REDIRECTS: usize = 8;
/// Bytes of a list of files that are taken for sense.
const MOST_LISTED: u64 = 32 << 20;

/// Asks one hub.
pub(super) struct Client {
    agent: Agent,
    endpoint: Uri,
    token: Option<String>,
}

/// A final answer, and what the hub said about the file on the way to it.
pub(super) struct Answer {
    pub(super) response: Response<Body>,
    /// The commit that the file is of.
    pub(super) commit: Option<String>,
    /// What names the content.
    pub(super) etag: Option<String>,
}

/// Why the hub gave no answer that helps.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) kind: Kind,
    /// What happened, and what to do.
    pub(super) message: String,
}

/// What comes of asking again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nobody answered; the network may come back.
    Unreachable,
    /// It may go well.
    Passing,
    /// The same.
    Final,
}

impl Failure {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

impl Client {
    pub(super) fn new(settings: &HubSettings) -> Result<Self, Failure> {
        Self::with_patience(settings, SILENCE)
    }

    fn with_patience(settings: &HubSettings, silence: Duration) -> Result<Self, Failure> {
        let endpoint = settings.endpoint.as_deref().unwrap_or(PUBLIC);
        let endpoint = endpoint.trim_end_matches('/').parse::<Uri>().ok().filter(is_absolute).ok_or_else(|| {
            Failure::new(Kind::Final, format!("HF_ENDPOINT: expected an http or https address, got {endpoint}"))
        })?;
        if settings.token.as_deref().is_some_and(|token| !token.chars().all(|c| c.is_ascii_graphic())) {
            // Not repeated: it is a secret.
            return Err(Failure::new(Kind::Final, "HF_TOKEN: expected one word of ASCII characters, got others"));
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(silence))
            .timeout_per_read(Some(silence))
            .user_agent(concat!("gmflow/", env!("CARGO_PKG_VERSION")));
        Ok(Self { agent: config.build().into(), endpoint, token: settings.token.clone() })
    }

    /// A small document below the hub's address; `what` is it in words.
    pub(super) fn document(&self, path: &str, what: &str) -> Result<Vec<u8>, Failure> {
        let answer = self.get(path, None)?;
        check_status(&answer.response, what)?;
        let body = answer.response.into_body().into_with_config().limit(MOST_LISTED);
        body.read_to_vec().map_err(|error| unreachable(&error))
    }

    /// The answer to a request below the hub's address, for `range` where there is one, after redirects. The token is shown to the
    /// hub alone.
    pub(super) fn get(&self, path: &str, range: Option<&str>) -> Result<Answer, Failure> {
        let address = self.endpoint.to_string();
        let mut url = parse(&format!("{}{path}", address.trim_end_matches('/')))?;
        let (mut commit, mut etag) = (None, None);
        for _ in 0..MOST_REDIRECTS {
            let at_hub = same_origin(&url, &self.endpoint);
            // Compressed bytes could be neither counted nor continued.
            let mut request = self.agent.get(&url).header(ACCEPT_ENCODING, "identity");
            if let Some(range) = range {
                request = request.header(RANGE, range);
            }
            if let Some(token) = self.token.as_deref().filter(|_| at_hub) {
                request = request.header(AUTHORIZATION, format!("Bearer {token}"));
            }
            let response = request.call().map_err(|error| unreachable(&error))?;
            if at_hub {
                commit = text(response.headers(), "x-repo-commit").or(commit);
                let named =
                    text(response.headers(), "x-linked-etag").or_else(|| text(response.headers(), ETAG.as_str()));
                etag = named.map(|etag| etag.trim_start_matches("W/").trim_matches('"').to_owned()).or(etag);
            }
            if !response.status().is_redirection() {
                return Ok(Answer { response, commit, etag });
            }
            url = self.target(&url, response.headers())?;
        }
        Err(Failure::new(Kind::Final, format!("expected at most {MOST_REDIRECTS} redirects, got more")))
    }

    /// Where a redirect leads.
    fn target(&self, from: &Uri, headers: &HeaderMap) -> Result<Uri, Failure> {
        let location = text(headers, LOCATION.as_str()).unwrap_or_default();
        let target = if location.starts_with('/') && !location.starts_with("//") {
            let host = from.authority().map_or("", |authority| authority.as_str());
            format!("{}://{host}{location}", from.scheme_str().unwrap_or("https"))
        } else {
            location
        };
        let target = parse(&target)?;
        match (self.endpoint.scheme_str(), target.scheme_str()) {
            (Some("https"), Some("https")) | (Some("http"), _) => Ok(target),
            _ => Err(Failure::new(Kind::Final, format!("expected a redirect to an https address, got {target}"))),
        }
    }
}

/// Whether an answer is what was asked for; `what` is that in words.
pub(super) fn check_status(response: &Response<Body>, what: &str) -> Result<(), Failure> {
    let status = response.status();
    if status.is_success() {
        return Ok(());
    }
    let reason = text(response.headers(), "x-error-code");
    let missing = match reason.as_deref() {
        Some("RevisionNotFound") => "no such revision",
        Some("RepoNotFound") => "no such repository",
        Some("EntryNotFound") => "no such file",
        _ => "no such thing",
    };
    let (kind, message) = match status.as_u16() {
        401 | 403 => (
            Kind::Final,
            "the hub refuses access: check the name; if it is private or gated, set HF_TOKEN to a token that may read it, and accept \
             its terms there"
                .into(),
        ),
        404 => (
            Kind::Final,
            format!("the hub has {missing} ({what}): check owner, name and --revision, or HF_TOKEN if it is private"),
        ),
        429 => (Kind::Passing, "the hub is asked too often: wait a while, or set HF_TOKEN".into()),
        408 | 416 | 500.. => (Kind::Passing, format!("the hub answered with status {status}")),
        _ => (Kind::Final, format!("the hub answered with status {status}")),
    };
    Err(Failure::new(kind, message))
}

fn unreachable(error: &ureq::Error) -> Failure {
    let advice = "check the network and HF_ENDPOINT, or give a local folder";
    Failure::new(Kind::Unreachable, format!("the hub does not answer: {error}; {advice}"))
}

fn parse(text: &str) -> Result<Uri, Failure> {
    let expected =
        || Failure::new(Kind::Final, format!("expected an http or https address from the hub, got {text:?}"));
    text.parse::<Uri>().ok().filter(is_absolute).ok_or_else(expected)
}

fn is_absolute(uri: &Uri) -> bool {
    matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|host| !host.is_empty())
}

fn same_origin(a: &Uri, b: &Uri) -> bool {
    let port = |uri: &Uri| uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    let same_host = match (a.host(), b.host()) {
        (Some(a), Some(b)) => a.eq_ignore_ascii_case(b),
        _ => false,
    };
    same_host && a.scheme_str() == b.scheme_str() && port(a) == port(b)
}

fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    fn client(endpoint: &str) -> Result<Client, Failure> {
        let settings =
            HubSettings { endpoint: Some(endpoint.into()), token: None, cache: "cache".into(), offline: false };
        Client::with_patience(&settings, Duration::from_millis(200))
    }

    #[test]
    fn a_host_that_says_nothing_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = client(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let failure = client.get("/x", None).err().expect("a failure");
        assert_eq!(failure.kind, Kind::Unreachable, "{}", failure.message);
    }

    #[test]
    fn endpoints_are_addresses() {
        for endpoint in ["", "hub", "ftp://hub", "http://", "https:///x", "hub:80"] {
            let failure = client(endpoint).err().expect("a failure");
            assert!(failure.message.contains("HF_ENDPOINT"), "{endpoint}: {}", failure.message);
        }
        assert!(client("http://127.0.0.1:1/mirror/").is_ok());
    }

    #[test]
    fn the_token_stays_at_its_origin() {
        let uri = |text: &str| text.parse::<Uri>().unwrap();
        let hub = uri("https://hub.example");
        for (other, same) in [
            ("https://HUB.example:443/x", true),
            ("http://hub.example/x", false),
            ("https://hub.example:8443/x", false),
            ("https://cdn.hub.example/x", false),
            ("https://hub.example.evil/x", false),
        ] {
            assert_eq!(same_origin(&uri(other), &hub), same, "{other}");
        }
    }

    #[test]
    fn redirects_do_not_leave_encryption() {
        let client = client("https://hub.example").unwrap();
        let from = "https://hub.example/a/b".parse().unwrap();
        let target = |location: &str| {
            let headers = HeaderMap::from_iter([(LOCATION, location.parse().unwrap())]);
            client.target(&from, &headers).map(|uri| uri.to_string()).ok()
        };
        assert_eq!(target("/c?d=1").as_deref(), Some("https://hub.example/c?d=1"));
        assert_eq!(target("https://cdn.example/c").as_deref(), Some("https://cdn.example/c"));
        for refused in ["http://cdn.example/c", "ftp://cdn.example/c", "//cdn.example/c", "c", ""] {
            assert_eq!(target(refused), None, "{refused}");
        }
        assert!(client.target(&from, &HeaderMap::new()).is_err());
    }
}
