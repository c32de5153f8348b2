//! A real S3 server of this machine: moto's, in a Python environment of its own.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::Once;

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

/// Keys for this process: the server asks for some, whatever they are.
fn set_keys() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for (name, value) in
            [("AWS_ACCESS_KEY_ID", "me"), ("AWS_SECRET_ACCESS_KEY", "secret"), ("AWS_REGION", "eu-north-1")]
        {
            // SAFETY: every test comes here before it does anything else, and waits here until this is done.
            unsafe { std::env::set_var(name, value) };
        }
    });
}

impl Server {
    /// Starts a server; `None`, with a line that says so, where there is no moto. With CI=true that is a failure.
    pub fn start() -> Option<Self> {
        set_keys();
        let python = python();
        let mut command = Command::new(&python);
        command.args(["-c", SERVE]).stdin(Stdio::piped()).stdout(Stdio::piped());
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
        self.put(&format!("/{name}"), "");
    }

    /// Lets everybody read a bucket. moto asks for an action of its own where only the head of an answer is asked for.
    pub fn publish(&self, name: &str) {
        let resource = format!("arn:aws:s3:::{name}/*");
        let allow = format!(
            r#"{{"Effect":"Allow","Principal":"*","Action":["s3:GetObject","s3:HeadObject"],"Resource":"{resource}"}}"#
        );
        self.put(&format!("/{name}?policy"), &format!(r#"{{"Version":"2012-10-17","Statement":[{allow}]}}"#));
    }

    fn put(&self, path: &str, body: &str) {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        let length = body.len();
        let head = format!("Host: 127.0.0.1\r\nConnection: close\r\nContent-Length: {length}\r\n");
        write!(stream, "PUT {path} HTTP/1.1\r\n{head}\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 ") || answer.contains(" 204 "), "{answer}");
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
