//! What is more than a server takes.

use crate::client::{get, metric, open, post};
use crate::jobs::{submit, wait_for};
use crate::{plain, source, start, tiny};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::time::{Duration, Instant};

#[test]
fn a_full_queue_refuses_with_the_time_to_come_again() {
    let server = start(|config, _| config.limits.queue = 3);
    let long = json!({ "steps": 1000, "n": 16, "seed": 1, "trace": { "planes": [] } });
    let ids: Vec<String> = (0..3).map(|_| submit(server.address, &long)).collect();
    for _ in 0..3 {
        let refused = post(server.address, "/v1/samples", &json!({ "steps": 1 }));
        assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (429, Some("queue_full")));
        let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=3600).contains(&seconds), "{seconds}");
    }
    assert_eq!(metric(server.address, "gmflow_rejected_total{reason=\"queue_full\"}"), 3.0);
    for id in &ids {
        crate::client::delete(server.address, &format!("/v1/jobs/{id}"));
        wait_for(server.address, id, "cancelled");
    }
    assert_eq!(post(server.address, "/v1/samples", &json!({ "steps": 1 })).status, 200, "there is room again");
}

#[test]
fn work_that_would_wait_too_long_is_refused() {
    let server = start(|config, _| config.limits.wait = Duration::ZERO);
    // It fills network calls, so that others have calls of their own.
    let id = submit(server.address, &json!({ "steps": 1000, "n": 1024, "trace": { "planes": [] } }));
    assert_eq!(post(server.address, "/v1/samples", &json!({ "steps": 1 })).status, 429);
    crate::client::delete(server.address, &format!("/v1/jobs/{id}"));
    wait_for(server.address, &id, "cancelled");
    assert_eq!(post(server.address, "/v1/samples", &json!({ "steps": 1 })).status, 200, "nothing waits");
}

#[test]
fn a_long_job_does_not_shut_others_out() {
    let server = start(|config, _| config.limits.wait = Duration::from_secs(1));
    let long = json!({ "steps": 1000, "n": 1024, "seed": 1, "trace": { "planes": [] } });
    let id = submit(server.address, &long);
    let queue = get(server.address, "/v1/queue").json();
    assert!(queue["wait_s"].as_f64().unwrap() > 1.0, "the job takes longer than may be waited for: {queue}");
    let answer = post(server.address, "/v1/samples", &json!({ "steps": 2 }));
    assert_eq!(answer.status, 200, "a short request shares the engine with it: {}", answer.json());
    let refused = post(server.address, "/v1/jobs", &long);
    assert_eq!(refused.status, 429, "another long one ends too late");
    let message = refused.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.starts_with("0 requests wait and 1 run, this one would wait for "), "{message}");
    let left: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=3600).contains(&left));
    crate::client::delete(server.address, &format!("/v1/jobs/{id}"));
    wait_for(server.address, &id, "cancelled");
    let queue = get(server.address, "/v1/queue");
    assert!(String::from_utf8_lossy(&queue.body).contains("\"wait_s\":0.0,"), "{}", queue.json());
}

#[test]
fn a_job_that_runs_too_long_is_ended() {
    let server = start(|config, _| config.limits.run = Duration::from_millis(200));
    let long = json!({ "steps": 1000, "n": 1024, "seed": 1, "trace": { "planes": [] } });
    let id = submit(server.address, &long);
    let told = wait_for(server.address, &id, "failed");
    assert_eq!(told["error"]["code"], "timeout", "{told}");
    let events = open(server.address, "GET", &format!("/v1/jobs/{id}/events"), &[], "").events();
    let last = events.last().unwrap();
    assert_eq!((last.name.as_str(), &last.data["status"]), ("error", &json!(504)));
    let plain = post(server.address, "/v1/samples", &long);
    assert_eq!((plain.status, plain.json()["error"]["code"].as_str()), (504, Some("timeout")));
    assert_eq!(post(server.address, "/v1/samples", &json!({ "steps": 1 })).status, 200, "there is room again");
    assert_eq!(get(server.address, "/v1/queue").json()["jobs"], json!([]));
}

/// What a server answers to these bytes, until it closes the connection.
fn answer_to(address: std::net::SocketAddr, bytes: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream.write_all(bytes.as_bytes()).unwrap();
    let mut answer = Vec::new();
    // A connection that is reset has said what it had to say.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_body_that_is_too_long_is_refused_before_it_comes() {
    let server = plain();
    for path in ["/v1/samples", "/v1/jobs", "/v1/images/generations", "/v1/models", "/nothing"] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1048577\r\n\r\n");
        let answer = answer_to(server.address, &head);
        assert!(answer.starts_with("HTTP/1.1 413 "), "{path}: {answer}");
    }
}

#[test]
fn a_body_without_a_length_is_cut_at_the_limit() {
    let server = plain();
    let chunk = format!("10000\r\n{}\r\n", " ".repeat(0x10000));
    let head = "POST /v1/samples HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned();
    // A MB and one chunk more; its end is never sent.
    let answer = answer_to(server.address, &(head + &chunk.repeat(17)));
    assert!(answer.starts_with("HTTP/1.1 413 ") && answer.contains("at most 1048576 bytes"), "{answer}");
}

#[test]
fn a_body_that_does_not_come_is_waited_for_so_long() {
    let server = start(|config, _| config.limits.body_time = Duration::from_millis(200));
    let head = "POST /v1/samples HTTP/1.1\r\nHost: localhost\r\n";
    for rest in ["Content-Length: 1000\r\n\r\n{\"n\":", "Transfer-Encoding: chunked\r\n\r\n3\r\n{\"n\r\n"] {
        let answer = answer_to(server.address, &format!("{head}{rest}"));
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("within 0.2 s"), "{answer}");
    }
    // One that dribbles for ever ends at the same time.
    let mut stream = std::net::TcpStream::connect(server.address).unwrap();
    stream.write_all(format!("{head}Content-Length: 1000000\r\n\r\n").as_bytes()).unwrap();
    while stream.write_all(b" ").is_ok() {
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn idle_connections_make_room() {
    let server = start(|config, _| config.limits.connections = 4);
    let connect = || std::net::TcpStream::connect(server.address).unwrap();
    let began = Instant::now();
    let idle: Vec<_> = (0..10).map(|_| connect()).collect();
    assert_eq!(get(server.address, "/healthz").status, 200, "they have asked for nothing");
    let mut half: Vec<_> = (0..10).map(|_| connect()).collect();
    half.iter_mut().for_each(|stream| stream.write_all(b"GET /healthz HTTP/1.1\r\nHo").unwrap());
    assert_eq!(get(server.address, "/healthz").status, 200, "they have not asked to the end");
    // Far less than the 30 s after which a client that does not ask is cut off.
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    drop((idle, half));
    // Connections that wait for an answer stay.
    let id = submit(server.address, &json!({ "steps": 1000, "n": 1024, "trace": { "planes": [] } }));
    let path = format!("/v1/jobs/{id}/events");
    let mut streams: Vec<_> = (0..3).map(|_| open(server.address, "GET", &path, &[], "")).collect();
    for _ in 0..3 {
        let _idle = connect();
        assert_eq!(get(server.address, "/healthz").status, 200);
    }
    crate::client::delete(server.address, &format!("/v1/jobs/{id}"));
    for stream in &mut streams {
        assert_eq!(stream.events().last().unwrap().name, "cancelled");
    }
}

#[test]
fn more_requests_at_once_than_connections_are_all_answered() {
    let server = start(|config, _| config.limits.connections = 4);
    let address = server.address;
    let asking: Vec<_> = (0..40)
        .map(|seed| {
            std::thread::spawn(move || post(address, "/v1/samples", &json!({ "steps": 2, "seed": seed })).status)
        })
        .collect();
    assert!(asking.into_iter().all(|asking| asking.join().unwrap() == 200));
}

#[test]
fn what_is_too_large_is_refused_as_a_whole() {
    let server = start(|config, _| {
        config.limits.samples = [20, 50];
        config.limits.steps = 100;
        config.limits.body = 2000;
    });
    for (request, field) in [
        (json!({ "n": 21 }), "n"),
        (json!({ "n": u64::MAX }), "n"),
        (json!({ "seeds": (0..21).collect::<Vec<u64>>() }), "seeds"),
        (json!({ "model": "points", "n": 51 }), "n"),
        (json!({ "steps": 101 }), "steps"),
        (json!({ "class": "x".repeat(3000) }), "body"),
    ] {
        let answer = post(server.address, "/v1/samples", &request);
        assert_eq!((answer.status, answer.wrong_field().as_str()), (413, field), "{}", answer.json());
    }
    assert_eq!(metric(server.address, "gmflow_samples_total"), 0.0);
    assert_eq!(post(server.address, "/v1/samples", &json!({ "n": 20, "steps": 1 })).status, 200);
}

#[test]
fn streams_are_counted() {
    let server = start(|config, _| config.limits.streams = 1);
    let id = submit(server.address, &json!({ "steps": 1000, "n": 16, "trace": { "planes": [] } }));
    let path = format!("/v1/jobs/{id}/events");
    let first = open(server.address, "GET", &path, &[], "");
    assert_eq!(first.status, 200);
    let refused = get(server.address, &path);
    assert_eq!((refused.status, refused.json()["error"]["code"].as_str()), (429, Some("too_many_streams")));
    drop(first);
    crate::client::delete(server.address, &format!("/v1/jobs/{id}"));
    wait_for(server.address, &id, "cancelled");
    while get(server.address, &path).status != 200 {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The states of the models with these ids.
fn states(address: std::net::SocketAddr) -> Vec<String> {
    let told = get(address, "/v1/models").json();
    let models = told["data"].as_array().unwrap().clone();
    models.iter().map(|model: &Value| model["state"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn models_make_room_for_each_other() {
    let server = start(|config, folder| {
        tiny(&folder.join("second"));
        config.models = vec![source("first", folder.join("tiny")), source("second", folder.join("second"))];
        // One of them fits.
        let parameters = gmflow::limits::parameters(&crate::tiny_network()).unwrap() as u64;
        config.limits.model_bytes = Some(parameters * 4 * 3 / 2);
    });
    let draw = |model: &str| post(server.address, "/v1/samples", &json!({ "model": model, "steps": 1, "seed": 0 }));
    assert_eq!(states(server.address), ["loaded", "unloaded"]);
    let first = draw("first");
    assert_eq!((first.status, draw("second").status), (200, 200));
    assert_eq!(states(server.address), ["unloaded", "loaded"]);
    assert_eq!(draw("first").json()["samples"], first.json()["samples"]);
    assert_eq!(states(server.address), ["loaded", "unloaded"]);
}

#[test]
fn an_id_in_the_place_of_a_number_is_not_found() {
    let server = plain();
    for path in ["/v1/jobs/j-1", "/v1/jobs/%2e%2e/events", "/v1/jobs/j-1/steps/a/b/x0.png", "/page/..%2fCargo.toml"] {
        assert_eq!(get(server.address, path).status, 404, "{path}");
    }
}
