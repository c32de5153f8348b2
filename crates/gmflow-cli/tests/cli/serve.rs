//! `gmflow serve` as a process: its files against `gmflow sample`, and its end.

use crate::{run, start};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::Child;

/// The client of the server's own tests.
#[path = "../../../gmflow-server/tests/server/client.rs"]
#[allow(dead_code)]
mod client;

use client::{get, open};

/// A server that is killed with the test.
struct Served {
    child: Child,
    address: std::net::SocketAddr,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn model() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/mnist").to_str().unwrap().to_owned()
}

fn serve(arguments: &[&str]) -> Served {
    let mut child = start(arguments);
    let mut line = String::new();
    BufReader::new(child.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
    let address = line.trim().strip_prefix("http://").and_then(|address| address.parse().ok());
    let Some(address) = address else {
        let mut said = String::new();
        let _ = child.stderr.as_mut().unwrap().read_to_string(&mut said);
        panic!("{line:?} {said}");
    };
    let served = Served { child, address };
    while get(served.address, "/readyz").status != 200 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    served
}

#[test]
fn files_are_those_of_gmflow_sample() {
    let (model, folder) = (model(), tempfile::tempdir().unwrap());
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let served = serve(&["serve", &model, "--bind", "127.0.0.1:0"]);
    for (name, options, body) in [
        ("grid.png", vec!["--grid", "--num", "9", "--seed", "5"], r#"{"n":9,"seed":5}"#),
        (
            "mixed.png",
            vec!["--grid", "--num", "3", "--class", "7,2", "--solver", "gm-sde", "--steps", "3"],
            r#"{"n":3,"seed":0,"classes":["7",2],"solver":"gm-sde","steps":3}"#,
        ),
        (
            "many.npz",
            vec!["--num", "20", "--steps", "2", "--guidance", "0"],
            r#"{"n":20,"seed":0,"steps":2,"guidance":0}"#,
        ),
    ] {
        let out = path(name);
        let mut arguments = vec!["sample", "--checkpoint", &model, "--out", &out];
        arguments.extend(options);
        let (code, _, said) = run(&arguments);
        assert_eq!(code, 0, "{said}");
        let accept = if name.ends_with("npz") { "application/x-npz" } else { "image/png" };
        let answer = open(served.address, "POST", "/v1/samples", &[("Accept", accept)], body).rest();
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        assert!(answer.body == std::fs::read(&out).unwrap(), "{name}");
    }
}

#[cfg(unix)]
#[test]
fn a_signal_ends_it_once_what_was_begun_is_done() {
    let mut served = serve(&["serve", &model(), "--bind", "127.0.0.1:0"]);
    let request = r#"{"stream":true,"steps":60,"n":4,"seed":1}"#;
    let mut stream = open(served.address, "POST", "/v1/samples", &[], request);
    while stream.event().expect("a step").name != "step" {}
    // SAFETY: the process is a child that has not been waited for.
    assert_eq!(unsafe { libc::kill(served.child.id() as i32, libc::SIGTERM) }, 0);
    assert_eq!(stream.events().last().unwrap().name, "completed");
    assert_eq!(served.child.wait().unwrap().code(), Some(0));
}

#[test]
fn what_is_wrong_is_said_before_anything_is_loaded() {
    let model = model();
    let (code, _, said) = run(&["serve", &model, "--bind", "0.0.0.0:0"]);
    assert_eq!(code, 2);
    assert!(said.contains("--key-file: expected a key"), "{said}");
    let (code, _, said) = run(&["serve", "no-such-model-here", "--bind", "127.0.0.1:0"]);
    assert!(code == 1 && said.contains("no-such-model-here"), "{said}");
    let twice = [&*model, &*model];
    let (code, _, said) = run(&["serve", twice[0], twice[1], "--bind", "127.0.0.1:0"]);
    assert!(code == 2 && said.contains("NAME=FOLDER"), "{said}");
    let (code, _, said) = run(&["serve"]);
    assert!(code == 2 && said.contains("--runs"), "{said}");
    for (option, value) in [("--host", "http://x"), ("--cors-origin", "example.org"), ("--key-file", "no-such-key")] {
        let (code, _, said) = run(&["serve", &model, "--bind", "127.0.0.1:0", option, value]);
        assert!(code != 0 && said.contains(option) && said.contains(value), "{said}");
    }
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = taken.local_addr().unwrap().to_string();
    let (code, _, said) = run(&["serve", &model, "--bind", &bind]);
    assert!(code == 1 && said.contains(&bind), "{said}");
}
