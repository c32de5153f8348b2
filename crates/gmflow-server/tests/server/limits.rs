//! What is more than a server takes.

use crate::client::{get, metric, open, post};
use crate::jobs::{submit, wait_for};
use crate::{plain, source, start, tiny};
use serde_json::{Value, json};
use std::time::Duration;

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
    let id = submit(server.address, &json!({ "steps": 1000, "n": 16, "trace": { "planes": [] } }));
    assert_eq!(post(server.address, "/v1/samples", &json!({ "steps": 1 })).status, 429);
    crate::client::delete(server.address, &format!("/v1/jobs/{id}"));
    wait_for(server.address, &id, "cancelled");
    assert_eq!(post(server.address, "/v1/samples", &json!({ "steps": 1 })).status, 200, "nothing waits");
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
