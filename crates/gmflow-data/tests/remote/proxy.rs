//! A proxy before a server that fails now and then: it answers 503, or cuts the connection within an answer.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the proxy does with the request of this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// An answer that asks for patience.
    Busy,
    /// The connection ends after this many bytes of the answer.
    Cut(usize),
}

pub struct Proxy {
    pub port: u16,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    faults: AtomicU64,
}

impl Proxy {
    pub fn start(server: u16, fault: impl Fn(u64) -> Fault + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let (port, counts) = (listener.local_addr().unwrap().port(), Arc::new(Counts::default()));
        let (fault, shared) = (Arc::new(fault), counts.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (fault, counts) = (fault.clone(), shared.clone());
                // A connection that breaks is the point.
                std::thread::spawn(move || serve(client, server, fault.as_ref(), &counts).ok());
            }
        });
        Self { port, counts }
    }

    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn requests(&self) -> u64 {
        self.counts.requests.load(Ordering::Relaxed)
    }

    pub fn faults(&self) -> u64 {
        self.counts.faults.load(Ordering::Relaxed)
    }
}

/// One request of one connection.
fn serve(mut client: TcpStream, server: u16, fault: &dyn Fn(u64) -> Fault, counts: &Counts) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap_or(0);
        }
        if line == "\r\n" {
            head.push_str("Connection: close\r\n\r\n");
            break;
        }
        if !lower.starts_with("connection:") {
            head.push_str(&line);
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let fault = fault(counts.requests.fetch_add(1, Ordering::Relaxed));
    if fault != Fault::None {
        counts.faults.fetch_add(1, Ordering::Relaxed);
    }
    if fault == Fault::Busy {
        return client.write_all(b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
    }
    let mut upstream = TcpStream::connect(("127.0.0.1", server))?;
    upstream.write_all(head.as_bytes())?;
    upstream.write_all(&body)?;
    let mut left = if let Fault::Cut(bytes) = fault { bytes } else { usize::MAX };
    let mut buffer = [0; 1 << 16];
    loop {
        let count = upstream.read(&mut buffer)?.min(left);
        if count == 0 {
            return client.shutdown(std::net::Shutdown::Both);
        }
        client.write_all(&buffer[..count])?;
        left -= count;
    }
}
