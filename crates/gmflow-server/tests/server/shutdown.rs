//! The end of a server.

use crate::client::{get, open, post};
use crate::jobs::submit;
use crate::{Running, mnist, plain, source, start};
use burn::tensor::Device;
use gmflow_server::{Server, ServerConfig};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
fn a_server_that_loads_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = ServerConfig::new(Device::flex(), "cpu");
    config.bind = "127.0.0.1:0".parse().unwrap();
    // The first question comes long before the last of them is loaded.
    config.models = (0..24).map(|index| source(&format!("mnist-{index}"), mnist())).collect();
    let server = Server::bind(config).unwrap();
    let (address, stop) = (server.address(), Arc::new(AtomicBool::new(false)));
    let flag = Arc::clone(&stop);
    let thread = std::thread::spawn(move || server.run(&flag).unwrap());
    let _running = Running { address, stop, thread: Some(thread), _folder: folder };
    let ready = get(address, "/readyz");
    assert_eq!((ready.status, ready.json()["error"]["code"].as_str()), (503, Some("loading")));
    assert_eq!(ready.header("retry-after"), Some("1"));
    let drawn = post(address, "/v1/samples", &json!({ "model": "mnist-23", "steps": 1 }));
    assert_eq!((drawn.status, drawn.json()["error"]["code"].as_str()), (503, Some("loading")));
    assert_eq!(get(address, "/healthz").status, 200);
    while get(address, "/readyz").status != 200 {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(post(address, "/v1/samples", &json!({ "model": "mnist-23", "steps": 1 })).status, 200);
}

#[test]
fn work_that_was_taken_is_done_before_the_end() {
    let mut server = plain();
    let id = submit(server.address, &json!({ "steps": 1000, "n": 16, "trace": { "planes": [] } }));
    let mut events = open(server.address, "GET", &format!("/v1/jobs/{id}/events"), &[], "");
    while events.event().expect("a step").name != "step" {}
    server.stop.store(true, Ordering::SeqCst);
    while get(server.address, "/readyz").status != 503 {
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(get(server.address, "/healthz").status, 200, "it still lives");
    let refused = post(server.address, "/v1/samples", &json!({ "steps": 1 }));
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (503, Some("draining")));
    assert_eq!(events.events().last().unwrap().name, "completed");
    server.stop();
}

#[test]
fn open_streams_and_idle_connections_do_not_hold_the_end_up() {
    let mut server = start(|config, folder| {
        config.limits.grace = Duration::from_millis(300);
        config.limits.samples[0] = 100_000;
        std::fs::create_dir_all(folder.join("runs/mine")).unwrap();
        std::fs::write(folder.join("runs/mine/run.manifest"), "gmflow-run 1\n").unwrap();
        config.runs = Some(folder.join("runs"));
    });
    let id = submit(server.address, &json!({ "steps": 1000, "n": 2000, "trace": { "planes": [] } }));
    let mut of_job = open(server.address, "GET", &format!("/v1/jobs/{id}/events"), &[], "");
    let mut of_run = open(server.address, "GET", "/v1/runs/mine/events", &[], "");
    assert!(of_job.event().is_some() && of_run.event().is_some());
    let idle = std::net::TcpStream::connect(server.address).unwrap();
    let start = Instant::now();
    server.stop();
    // Far less than the work would take, which is minutes.
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    assert_eq!(of_job.events().last().unwrap().name, "cancelled");
    assert!(of_run.event().is_none());
    drop(idle);
}
