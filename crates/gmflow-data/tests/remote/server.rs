//! A real S3 server of this machine: moto's, in a Python environment of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};

/// Serves until its input ends, as it does when the tests do.
const SERVE: &str = "
import sys
from moto.server import ThreadedMotoServer
server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
server.stop()
";

pub struct Server {
    pub port: u16,
    _input: ChildStdin,
    child: Child,
}

/// The Python that has moto: that of GMFLOW_MOTO, or of the environment that the gate makes.
fn python() -> PathBuf {
    let made = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/moto/bin/python");
    std::env::var_os("GMFLOW_MOTO").map_or_else(made, PathBuf::from)
}

impl Server {
    /// Starts a server; `None`, with a line that says so, where there is no moto. With CI=true that is a failure.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// The same with variables of its environment.
    pub fn start_with(variables: &[(&str, &str)]) -> Option<Self> {
        let python = python();
        let mut command = Command::new(&python);
        command.args(["-c", SERVE]).envs(variables.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.stderr(Stdio::null()).spawn();
        let mut child = match child {
            Ok(child) => child,
            Err(error) => {
                let advice = "python3 -m venv target/moto && target/moto/bin/pip install 'moto[s3]' flask flask-cors";
                let text = format!("no S3 server: {}: {error}; {advice}", python.display());
                assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "{text}");
                // Not println, which tests that pass do not show.
                let _ = writeln!(std::io::stderr(), "SKIPPED: {text}");
                return None;
            }
        };
        let (input, mut line) = (child.stdin.take().unwrap(), String::new());
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().unwrap_or_else(|_| panic!("moto did not start: {line:?}"));
        Some(Self { port, _input: input, child })
    }

    /// Makes a bucket.
    pub fn bucket(&self, name: &str) {
        let answer = self.request("PUT", &format!("/{name}"));
        assert!(answer.contains(" 200 "), "{answer}");
    }

    fn request(&self, method: &str, path: &str) -> String {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let host = "Host: 127.0.0.1\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
        write!(stream, "{method} {path} HTTP/1.1\r\n{host}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
