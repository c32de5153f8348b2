//! A small HTTP server that answers as the hub does.

use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// What a server does wrong.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fault {
    #[default]
    None,
    /// The first body longer than this is cut there, and the connection closed.
    BreakOnceAfter(usize),
    /// Every body longer than this is cut there.
    BreakAlwaysAfter(usize),
    /// Ranges are not known: every body is the whole.
    IgnoreRanges,
    /// Bodies start at the beginning, and say so, where another place was asked for.
    WrongRanges,
    /// The next body of a large file has a wrong byte.
    WrongByteOnce,
    /// Every one has.
    WrongByteAlways,
    /// Redirects do not say where to.
    RedirectNowhere,
    /// Redirects lead to themselves.
    RedirectLoop,
    /// Every request gets this status.
    Status(u16),
    /// The names of blobs lead out of the cache.
    HostileEtag,
}

/// A request that was made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub path: String,
    pub range: Option<String>,
    pub authorization: Option<String>,
}

#[derive(Clone)]
pub struct Hub {
    pub address: String,
    /// `models` or `datasets`.
    kind: &'static str,
    /// `owner/name`.
    name: String,
    /// Another host, where large files are.
    elsewhere: String,
    state: Arc<Mutex<State>>,
}

struct State {
    files: BTreeMap<String, Vec<u8>>,
    fault: Fault,
    requests: Vec<Request>,
}

impl Hub {
    /// Serves `files` as the repository `owner/name` at `main`.
    pub fn start(files: BTreeMap<String, Vec<u8>>) -> Self {
        Self::start_as("models", "owner/name", files)
    }

    /// Serves `files` as a repository of a kind, `models` or `datasets`.
    pub fn start_as(kind: &'static str, name: &str, files: BTreeMap<String, Vec<u8>>) -> Self {
        let listeners = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"));
        let address = |of: usize| format!("http://{}", listeners[of].local_addr().expect("an address"));
        let state = Arc::new(Mutex::new(State { files, fault: Fault::None, requests: Vec::new() }));
        let hub = Self { address: address(0), kind, name: name.to_owned(), elsewhere: address(1), state };
        for listener in listeners {
            let server = hub.clone();
            std::thread::spawn(move || {
                for stream in listener.incoming().flatten() {
                    let server = server.clone();
                    std::thread::spawn(move || server.serve(stream));
                }
            });
        }
        hub
    }

    pub fn set_fault(&self, fault: Fault) {
        self.state.lock().expect("a lock").fault = fault;
    }

    pub fn requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state.lock().expect("a lock").requests)
    }

    /// Answers the requests of one connection.
    fn serve(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().expect("a stream"));
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            let mut headers = HashMap::new();
            loop {
                let mut header = String::new();
                if reader.read_line(&mut header).unwrap_or(0) == 0 {
                    return;
                }
                match header.trim().split_once(':') {
                    Some((name, value)) => headers.insert(name.to_lowercase(), value.trim().to_owned()),
                    None => break,
                };
            }
            if !self.answer(&mut stream, &path, &headers) {
                return;
            }
        }
    }

    /// Whether the connection stays open.
    fn answer(&self, stream: &mut TcpStream, path: &str, headers: &HashMap<String, String>) -> bool {
        let mut state = self.state.lock().expect("a lock");
        let range = headers.get("range").cloned();
        let authorization = headers.get("authorization").cloned();
        state.requests.push(Request { path: path.to_owned(), range: range.clone(), authorization });
        if let Fault::Status(status) = state.fault {
            return write(stream, status, &[], b"no");
        }
        let Self { kind, name, .. } = self;
        if [COMMIT, "main"].iter().any(|revision| path == format!("/api/{kind}/{name}/revision/{revision}")) {
            let siblings: Vec<_> = state.files.keys().map(|file| serde_json::json!({ "rfilename": file })).collect();
            let body = serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string();
            return write(stream, 200, &[], body.as_bytes());
        }
        let place = if *kind == "models" { String::new() } else { format!("/{kind}") };
        let resolve = format!("{place}/{name}/resolve/{COMMIT}/");
        let places = [resolve.as_str(), "/api/resolve-cache/", "/cdn/"].map(|place| path.strip_prefix(place));
        let (file, at_first) = match places {
            [Some(file), ..] => (file, true),
            [_, Some(file), _] | [.., Some(file)] => (file, false),
            _ => return write(stream, 404, &[], b"no such page"),
        };
        let Some(body) = state.files.get(file).cloned() else { return write(stream, 404, &[], b"no such file") };
        let large = file.ends_with(".safetensors") || file.ends_with(".parquet");
        let etag = match state.fault {
            Fault::HostileEtag => "../../../out".to_owned(),
            _ if large => Sha256::digest(&body).iter().map(|byte| format!("{byte:02x}")).collect(),
            _ => format!("{:016x}", file.bytes().fold(7u64, |hash, byte| hash.wrapping_mul(31) + u64::from(byte))),
        };
        let mut headers = vec![
            ("etag", format!("\"{etag}\"")),
            ("x-repo-commit", COMMIT.to_owned()),
            ("accept-ranges", "bytes".into()),
        ];
        // Large files live elsewhere, small ones in another place here: the answer says what they are and where.
        if at_first {
            let location = match state.fault {
                Fault::RedirectNowhere => return write(stream, 302, &headers, b""),
                Fault::RedirectLoop => path.to_owned(),
                _ if large => format!("{}/cdn/{file}", self.elsewhere),
                _ => format!("/api/resolve-cache/{file}"),
            };
            if large {
                headers[0].1 = "\"of the answer, not of the file\"".into();
                headers.push(("x-linked-etag", format!("\"{etag}\"")));
            }
            headers.push(("location", location));
            return write(stream, if large { 302 } else { 307 }, &headers, b"");
        }
        self.body(stream, &mut state, range.as_deref(), headers, (&body, large))
    }

    /// The part of a file that was asked for, with the server's fault.
    fn body(
        &self,
        stream: &mut TcpStream,
        state: &mut State,
        range: Option<&str>,
        mut headers: Vec<(&'static str, String)>,
        (body, large): (&[u8], bool),
    ) -> bool {
        let (first, last) =
            range.and_then(|range| range.strip_prefix("bytes=")?.split_once('-')).unwrap_or(("0", ""));
        let mut first: usize = first.parse().unwrap_or(0);
        let end = last.parse::<usize>().map_or(body.len(), |last| (last + 1).min(body.len()));
        if first > body.len() || (first == body.len() && !body.is_empty()) {
            return write(stream, 416, &headers, b"");
        }
        let probing = last == "0";
        if state.fault == Fault::IgnoreRanges {
            return write(stream, 200, &headers, body);
        }
        if state.fault == Fault::WrongRanges && !probing {
            state.fault = Fault::None;
            first = 0;
        }
        headers.push(("content-range", format!("bytes {first}-{}/{}", end.max(1) - 1, body.len())));
        let mut part = body[first..end.max(first)].to_vec();
        if matches!(state.fault, Fault::WrongByteOnce | Fault::WrongByteAlways)
            && large
            && !probing
            && let Some(byte) = part.last_mut()
        {
            *byte ^= 1;
            state.fault = if state.fault == Fault::WrongByteOnce { Fault::None } else { state.fault };
        }
        let part = part.as_slice();
        match state.fault {
            Fault::BreakOnceAfter(limit) if part.len() > limit => {
                state.fault = Fault::None;
                cut(stream, &headers, part, limit)
            }
            Fault::BreakAlwaysAfter(limit) if part.len() > limit => cut(stream, &headers, part, limit),
            _ => write(stream, 206, &headers, part),
        }
    }
}

/// Announces all of `body`, sends the beginning and closes the connection.
fn cut(stream: &mut TcpStream, headers: &[(&str, String)], body: &[u8], limit: usize) -> bool {
    head(stream, 206, headers, body.len());
    let _ = stream.write_all(&body[..limit]);
    let _ = stream.flush();
    let _ = stream.shutdown(std::net::Shutdown::Both);
    false
}

fn write(stream: &mut TcpStream, status: u16, headers: &[(&str, String)], body: &[u8]) -> bool {
    head(stream, status, headers, body.len());
    stream.write_all(body).is_ok()
}

fn head(stream: &mut TcpStream, status: u16, headers: &[(&str, String)], length: usize) {
    let mut head = format!("HTTP/1.1 {status} Status\r\ncontent-length: {length}\r\n");
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    // A client that has gone away is noticed when the body is written.
    let _ = stream.write_all((head + "\r\n").as_bytes());
}
