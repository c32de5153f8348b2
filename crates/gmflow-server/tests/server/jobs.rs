//! Jobs and streams of events.

use crate::client::{Event, delete, get, metric, open, post};
use crate::{plain, start};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// Waits until a job has this state.
pub fn wait_for(address: SocketAddr, id: &str, state: &str) -> Value {
    let start = Instant::now();
    loop {
        let told = get(address, &format!("/v1/jobs/{id}")).json();
        if told["state"] == state {
            return told;
        }
        assert!(start.elapsed() < Duration::from_secs(120), "not {state}: {told}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn submit(address: SocketAddr, request: &Value) -> String {
    let answer = post(address, "/v1/jobs", request);
    assert_eq!(answer.status, 202, "{}", answer.json());
    answer.json()["id"].as_str().unwrap().to_owned()
}

fn names(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.name.as_str()).collect()
}

#[test]
fn a_job_tells_every_step_and_its_last_one_is_the_result() {
    let server = plain();
    let request = json!({ "class": 1, "n": 2, "seed": 3, "steps": 3 });
    let id = submit(server.address, &request);
    let events = open(server.address, "GET", &format!("/v1/jobs/{id}/events"), &[], "").events();
    let expected = ["started", "step", "step", "step", "step", "completed"];
    let told = names(&events);
    assert_eq!(told.iter().copied().filter(|name| *name != "queued").collect::<Vec<_>>(), expected);
    let ids: Vec<u64> = events.iter().map(|event| event.id.unwrap()).collect();
    assert_eq!(ids, (1..=events.len() as u64).collect::<Vec<_>>());
    let steps: Vec<&Event> = events.iter().filter(|event| event.name == "step").collect();
    assert_eq!(steps.iter().map(|step| step.data["step"].as_u64().unwrap()).collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert_eq!(steps[0].data["t"], 1.0);
    for step in &steps[..3] {
        assert_eq!(step.data["x0"].as_array().unwrap().len(), 2, "{}", step.data);
        let entropy = step.data["entropy"][0].as_f64().unwrap();
        assert!((0.0..=3f64.ln() + 1e-6).contains(&entropy), "{entropy}");
    }
    let told = wait_for(server.address, &id, "completed");
    assert_eq!(told["traced"], json!([0, 1, 2, 3]));
    for index in 0..2 {
        let last = get(server.address, steps[3].data["x0"][index].as_str().unwrap());
        let result = get(server.address, told["samples"][index]["png"].as_str().unwrap());
        assert_eq!((last.status, result.status), (200, 200));
        let plain = post(server.address, "/v1/samples", &request).json();
        use base64::Engine;
        let bytes =
            base64::engine::general_purpose::STANDARD.decode(plain["samples"][index]["png"].as_str().unwrap());
        assert!(result.body == bytes.unwrap(), "the picture of a plain request");
        assert_eq!(pixels(&last.body), pixels(&result.body));
    }
    assert_eq!(get(server.address, &format!("/v1/jobs/{id}/grid.png")).status, 200);
    assert_eq!(get(server.address, &format!("/v1/jobs/{id}/samples.npz")).status, 200);
    assert_eq!(get(server.address, &format!("/v1/jobs/{id}/samples/2.png")).status, 404);
    assert_eq!(delete(server.address, &format!("/v1/jobs/{id}")).json()["state"], "completed");
    assert_eq!(get(server.address, &format!("/v1/jobs/{id}")).status, 404);
}

#[test]
fn pictures_are_there_before_the_end() {
    let server = plain();
    let id = submit(server.address, &json!({ "steps": 1000, "n": 64, "seed": 1, "trace": { "planes": ["x0"] } }));
    let mut events = open(server.address, "GET", &format!("/v1/jobs/{id}/events"), &[], "");
    let step = std::iter::from_fn(|| events.event()).find(|event| event.name == "step").expect("a step");
    let picture = get(server.address, step.data["x0"][0].as_str().unwrap());
    assert!(picture.status == 200 && picture.body.starts_with(b"\x89PNG"));
    let told = get(server.address, &format!("/v1/jobs/{id}")).json();
    assert_eq!(told["state"], "running", "{told}");
    assert!(told["steps_done"].as_u64().unwrap() < 1000 / 3, "before a third of the steps: {told}");
    delete(server.address, &format!("/v1/jobs/{id}"));
    wait_for(server.address, &id, "cancelled");
}

/// The compressed pixels of a PNG file, without what is said beside them.
fn pixels(png: &[u8]) -> Vec<u8> {
    let mut rest = png.get(8..).expect("a PNG file");
    let mut data = Vec::new();
    while let Some((head, behind)) = rest.split_at_checked(8) {
        let length = u32::from_be_bytes(head[..4].try_into().unwrap()) as usize;
        if &head[4..] == b"IDAT" {
            data.extend(&behind[..length]);
        }
        rest = &behind[length + 4..];
    }
    assert!(!data.is_empty());
    data
}

#[test]
fn events_go_on_after_a_cut() {
    let server = plain();
    let id = submit(server.address, &json!({ "steps": 40, "n": 8, "seed": 1 }));
    let path = format!("/v1/jobs/{id}/events");
    let mut first = open(server.address, "GET", &path, &[], "");
    let mut seen = vec![first.event().unwrap(), first.event().unwrap(), first.event().unwrap()];
    drop(first);
    let last = seen.last().unwrap().id.unwrap().to_string();
    seen.extend(open(server.address, "GET", &path, &[("Last-Event-ID", &last)], "").events());
    assert_eq!(seen.last().unwrap().name, "completed", "the job went on without a client");
    let all = open(server.address, "GET", &path, &[], "").events();
    assert_eq!(seen, all, "nothing twice and nothing left out");
    let after = open(server.address, "GET", &format!("{path}?after={last}"), &[], "").events();
    assert_eq!(after, all[3..]);
    assert_eq!(open(server.address, "GET", &path, &[("Last-Event-ID", "x")], "").rest().status, 422);
    assert_eq!(get(server.address, &format!("{path}?afther=1")).status, 422);
}

#[test]
fn a_job_is_cancelled_and_others_go_on() {
    let server = plain();
    let long = json!({ "steps": 1000, "n": 16, "seed": 1, "trace": { "planes": [] } });
    let cancelled = submit(server.address, &long);
    let other = submit(server.address, &json!({ "steps": 60, "n": 4, "seed": 1 }));
    let mut events = open(server.address, "GET", &format!("/v1/jobs/{cancelled}/events"), &[], "");
    while events.event().expect("a step").name != "step" {}
    assert_eq!(delete(server.address, &format!("/v1/jobs/{cancelled}")).json()["state"], "cancelled");
    let told = wait_for(server.address, &cancelled, "cancelled");
    assert!(told["timing"]["calls"].as_u64().unwrap() < 1000, "{told}");
    assert_eq!(events.events().last().unwrap().name, "cancelled");
    wait_for(server.address, &other, "completed");
    assert!(get(server.address, &format!("/v1/jobs/{cancelled}/grid.png")).status == 409);
    assert_eq!(metric(server.address, "gmflow_cancelled_total"), 1.0);
}

#[test]
fn places_in_the_queue_fall() {
    // One part at a time.
    let server = start(|config, _| config.limits.batch = [1, 1]);
    let long = json!({ "steps": 300, "seed": 1, "trace": { "planes": [] } });
    let ids: Vec<String> = (0..6).map(|_| submit(server.address, &long)).collect();
    let last = ids.last().unwrap();
    let events = open(server.address, "GET", &format!("/v1/jobs/{last}/events"), &[], "").events();
    let queued: Vec<&Event> = events.iter().filter(|event| event.name == "queued").collect();
    let positions: Vec<u64> = queued.iter().map(|event| event.data["position"].as_u64().unwrap()).collect();
    assert!(positions.len() >= 2 && positions.is_sorted_by(|a, b| a > b), "{positions:?}");
    for event in queued {
        let eta = event.data["eta_s"].as_f64().unwrap();
        assert!(eta > 0.0 && eta == (eta * 1e3).round() / 1e3, "in milliseconds: {eta}");
    }
    assert_eq!(events.last().unwrap().name, "completed");
    // The event may arrive before the job has left the queue.
    let left = |_| {
        let queue = get(server.address, "/v1/queue").json();
        let empty = (queue["queued"].as_u64(), queue["running"].as_u64()) == (Some(0), Some(0));
        if !empty {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        empty
    };
    assert!((0..500).any(left), "jobs stay in the queue after they are completed");
}

#[test]
fn a_stream_is_cancelled_with_its_client() {
    let server = plain();
    let request = json!({ "steps": 1000, "n": 16, "seed": 1, "stream": true, "trace": { "planes": [] } });
    let mut stream = open(server.address, "POST", "/v1/samples", &[], &request.to_string());
    assert_eq!(stream.status, 200);
    let id = stream.headers.iter().find(|(name, _)| name == "x-gmflow-job").unwrap().1.clone();
    while stream.event().expect("a step").name != "step" {}
    drop(stream);
    let told = wait_for(server.address, &id, "cancelled");
    assert!(told["timing"]["calls"].as_u64().unwrap() < 1000, "{told}");
    let request = json!({ "steps": 2, "stream": true });
    let events = open(server.address, "POST", "/v1/samples", &[], &request.to_string()).events();
    assert_eq!(names(&events).last(), Some(&"completed"));
}

#[test]
fn a_plain_request_is_cancelled_with_its_client() {
    let server = plain();
    let request = json!({ "steps": 1000, "n": 16, "seed": 1 }).to_string();
    let stream = crate::client::send(server.address, "POST", "/v1/samples", &[], &request);
    let calls = || metric(server.address, "gmflow_network_call_seconds_count");
    while calls() < 3.0 {
        std::thread::sleep(Duration::from_millis(2));
    }
    drop(stream);
    while metric(server.address, "gmflow_cancelled_total") < 1.0 {
        std::thread::sleep(Duration::from_millis(2));
    }
    // The call that is computed at the moment is the last one.
    let before = calls();
    std::thread::sleep(Duration::from_millis(300));
    assert!(calls() <= before + 1.0 && before < 1000.0, "{before} calls, and then {}", calls());
    assert_eq!(get(server.address, "/v1/queue").json()["jobs"], json!([]));
}
