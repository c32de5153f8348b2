//! Plain requests: what is drawn, alone and among others.

use crate::client::{Answer, get, open, post};
use crate::{mnist, plain, source, start};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use burn::tensor::Device;
use gmflow::samples::Samples;
use gmflow_eval::sampler::{Batch, Source, describe, draw};
use gmflow_eval::{LoadedModel, ModelOptions, SamplerOptions};
use serde_json::{Value, json};
use std::sync::Arc;

/// The PNG files that the same request gives without a server, as `gmflow sample` writes them.
fn expected(options: &SamplerOptions, classes: &[usize], seeds: &[u64]) -> Vec<Vec<u8>> {
    let (folder, device) = (mnist(), Device::flex());
    let LoadedModel { model, precision, .. } =
        LoadedModel::open("mnist", &folder, &ModelOptions::default(), &device).unwrap();
    let config = options.config(&model.info).unwrap();
    let source =
        Source { checkpoint: &folder, ema: None, variant: None, vae: None, noise: None, latents: false, precision };
    let batch = Batch { seeds, classes: Some(classes), noise: None };
    let samples = Samples {
        values: draw(&model, &config, batch, &device, &mut |_, _| {}).unwrap(),
        shape: [1, 28, 28],
        points: false,
        seeds: seeds.to_vec(),
        classes: Some(classes.to_vec()),
        class_names: Arc::from(model.info.classes.clone().unwrap()),
        made_by: source.made_by(describe(&config, model.info.data.kind)),
    };
    (0..seeds.len()).map(|index| samples.image_png(index).unwrap()).collect()
}

/// The pictures in an answer.
fn pictures(answer: &Answer) -> Vec<Vec<u8>> {
    assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
    let told = answer.json();
    let samples = told["samples"].as_array().unwrap();
    samples.iter().map(|sample| STANDARD.decode(sample["png"].as_str().unwrap()).unwrap()).collect()
}

/// Requests of all kinds: solvers, steps, guidance, classes, numbers of images.
fn mixed(index: u64) -> Value {
    let solver = ["gm-ode", "gm-sde", "euler", "heun", "dpmpp-2m", "ddpm-small"][index as usize % 6];
    let mut request = json!({
        "model": "mnist", "solver": solver, "steps": 2 + index % 4, "n": 1 + index % 3, "seed": (100 * index).to_string(),
        "class": index % 10,
    });
    if index.is_multiple_of(3) {
        request["guidance"] = json!(0.0);
    }
    request
}

#[test]
fn a_picture_is_the_same_without_a_server_alone_and_among_fifty() {
    let server = start(|config, _| config.models.insert(0, source("mnist", mnist())));
    let request = json!({ "model": "mnist", "classes": ["7", 3], "n": 4, "seed": "11", "steps": 4 });
    let options = SamplerOptions { steps: Some(4), ..SamplerOptions::default() };
    let expected = expected(&options, &[7, 3, 7, 3], &[11, 12, 13, 14]);
    let alone = post(server.address, "/v1/samples", &request);
    assert!(pictures(&alone) == expected, "the pictures of a request by itself");
    assert_eq!(alone.json()["timing"]["calls"], 4);

    let address = server.address;
    let others: Vec<_> =
        (0..50).map(|index| std::thread::spawn(move || post(address, "/v1/samples", &mixed(index)))).collect();
    let among = post(address, "/v1/samples", &request);
    let others: Vec<Answer> = others.into_iter().map(|other| other.join().unwrap()).collect();
    assert!(pictures(&among) == expected, "the pictures of a request among fifty others");
    // What they shared, of different solvers, and that it changed nothing for any of them.
    let shared = |answer: &Answer| answer.json()["timing"]["rows_per_call"].as_f64().unwrap();
    assert!(
        others.iter().filter(|other| shared(other) > 6.0).count() > 10,
        "{:?}",
        others.iter().map(shared).collect::<Vec<_>>()
    );
    for (index, other) in others.iter().enumerate() {
        let again = post(address, "/v1/samples", &mixed(index as u64));
        assert!(pictures(&again) == pictures(other), "request {index}: {}", mixed(index as u64));
    }
}

#[test]
fn forms_of_an_answer_hold_the_same_samples() {
    let server = plain();
    let request = json!({ "class": "dog", "n": 3, "seed": 5, "steps": 2 }).to_string();
    let ask = |accept: &str| open(server.address, "POST", "/v1/samples", &[("Accept", accept)], &request).rest();
    let told = ask("application/json");
    assert_eq!((told.status, told.header("content-type")), (200, Some("application/json")));
    assert_eq!(told.json()["samples"][1]["seed"], "6");
    assert_eq!(told.json()["samples"][1]["class_name"], "dog");
    assert_eq!(told.header("x-gmflow-seeds"), Some("5,6,7"));
    let grid = ask("image/png");
    assert_eq!((grid.status, grid.header("content-type")), (200, Some("image/png")));
    assert!(grid.body.starts_with(b"\x89PNG") && grid.body.windows(4).any(|bytes| bytes == b"iTXt"));
    let npz = ask("application/x-npz");
    assert!(npz.status == 200 && npz.body.starts_with(b"PK"));
    assert_eq!(ask("text/html").status, 406);

    let points = post(server.address, "/v1/samples", &json!({ "model": "points", "n": 5, "steps": 2 }));
    let told = points.json();
    assert_eq!(told["samples"].as_array().unwrap().len(), 5);
    assert_eq!(told["samples"][0]["point"].as_array().unwrap().len(), 2);
    let body = json!({ "model": "points" }).to_string();
    assert_eq!(open(server.address, "POST", "/v1/samples", &[("Accept", "image/png")], &body).rest().status, 406);
}

/// What is told of samples, without when.
fn without_timing(answer: &Answer) -> Value {
    let mut told = answer.json();
    told.as_object_mut().unwrap().retain(|name, _| name == "samples" || name == "sampler");
    told
}

#[test]
fn a_returned_seed_gives_the_sample_again() {
    let server = plain();
    let post = |request: Value| post(server.address, "/v1/samples", &request);
    let first = post(json!({ "class": 0, "steps": 2 }));
    let seed = first.json()["samples"][0]["seed"].clone();
    assert!(seed.is_string(), "JavaScript rounds numbers above 2^53");
    let again = post(json!({ "class": 0, "steps": 2, "seed": seed }));
    assert_eq!(without_timing(&first), without_timing(&again));
    assert_ne!(without_timing(&post(json!({ "class": 0, "steps": 2 }))), without_timing(&first), "another seed");

    let last = u64::MAX.to_string();
    let wrapped = post(json!({ "class": 0, "steps": 2, "n": 2, "seed": last }));
    let seeds = |answer: &Answer| -> Vec<Value> {
        answer.json()["samples"].as_array().unwrap().iter().map(|sample| sample["seed"].clone()).collect()
    };
    assert_eq!(seeds(&wrapped), [json!(last), json!("0")]);
    let listed = post(json!({ "class": 0, "steps": 2, "seeds": [u64::MAX, 0] }));
    assert_eq!(without_timing(&wrapped), without_timing(&listed));
}

#[test]
fn what_is_wrong_is_named_and_nothing_is_drawn() {
    let server = plain();
    for (request, field) in [
        (json!({ "steps": 0 }), "steps"),
        (json!({ "steps": "four" }), "steps"),
        (json!({ "stepz": 4 }), "stepz"),
        (json!({ "n": 0 }), "n"),
        (json!({ "n": -1 }), "n"),
        (json!({ "seed": -1 }), "seed"),
        (json!({ "seeds": [] }), "seeds"),
        (json!({ "seeds": [1], "seed": 1 }), "seed"),
        (json!({ "seeds": [1], "n": 2 }), "n"),
        (json!({ "class": "horse" }), "class"),
        (json!({ "class": 3 }), "class"),
        (json!({ "classes": ["cat", "horse"] }), "classes"),
        (json!({ "classes": [] }), "classes"),
        (json!({ "class": 1, "classes": [1] }), "class"),
        (json!({ "model": "points", "class": 1 }), "class"),
        (json!({ "model": "tinny" }), "model"),
        (json!({ "guidance": 1.0 }), "guidance"),
        (json!({ "guidance": 0.1, "cfg": 2.0 }), "cfg"),
        (json!({ "model": "points", "guidance": 0.1 }), "guidance, cfg"),
        (json!({ "solver": "magic" }), "solver"),
        (json!({ "solver": "euler", "order": 2 }), "order"),
        (json!({ "spectral": true, "solver": "gm-sde" }), "spectral"),
        (json!({ "guidance_interval": [0.8, 0.2] }), "guidance_interval"),
        (json!({ "trace": { "every": 0 } }), "trace.every"),
        (json!({ "stream": "yes" }), "stream"),
    ] {
        let answer = post(server.address, "/v1/samples", &request);
        assert_eq!((answer.status, answer.wrong_field().as_str()), (422, field), "{request}: {}", answer.json());
        let error = &answer.json()["error"];
        assert!(error["expected"].is_string() && error["got"].is_string(), "{error}");
        assert_eq!(error["param"], field);
    }
    for (body, status) in [("{", 400), ("[1]", 400), ("{\"steps\":1,\"steps\":2}", 400), ("", 200)] {
        assert_eq!(open(server.address, "POST", "/v1/samples", &[], body).rest().status, status, "{body}");
    }
    assert_eq!(get(server.address, "/v1/samples").status, 405);
    assert_eq!(get(server.address, "/v1/sample").status, 404);
}

#[test]
fn models_tell_what_they_are() {
    let server = plain();
    let told = get(server.address, "/v1/models").json();
    let [tiny, points] = [&told["data"][0], &told["data"][1]];
    assert_eq!(
        (tiny["id"].as_str(), tiny["default"].as_bool(), tiny["state"].as_str()),
        (Some("tiny"), Some(true), Some("loaded"))
    );
    assert_eq!(tiny["classes"][2], json!({ "index": 2, "name": "owl" }));
    assert_eq!(tiny["sampler"]["solver"], "gm-ode");
    assert_eq!((points["kind"].as_str(), points["classes"].as_array().unwrap().len()), (Some("points"), 0));
    assert_eq!(get(server.address, "/v1/models/points").json()["id"], "points");
    assert_eq!(get(server.address, "/v1/models/other").status, 404);
}
