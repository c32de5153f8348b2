//! What a mixture model alone can show: mixtures of pixels and of points.

use crate::client::{get, post};
use crate::jobs::{submit, wait_for};
use crate::{plain, start};
use serde_json::{Value, json};

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap_or_else(|| panic!("{value}")).iter().map(|number| number.as_f64().unwrap()).collect()
}

/// The grey values of a PNG file.
fn grey(png: &[u8]) -> Vec<u8> {
    let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut pixels).unwrap();
    pixels
}

#[test]
fn a_pixel_has_weights_that_sum_to_one_and_the_mean_that_is_shown() {
    let server = plain();
    let planes = json!(["x0", "x", "mixture"]);
    let request =
        json!({ "class": 2, "n": 2, "seed": 9, "steps": 4, "guidance": 0.3, "trace": { "planes": planes } });
    let id = submit(server.address, &request);
    wait_for(server.address, &id, "completed");
    let path = |rest: &str| format!("/v1/jobs/{id}/steps/{rest}");
    for step in 0..4 {
        let shown = grey(&get(server.address, &path(&format!("{step}/1/x0.png"))).body);
        for (x, y) in [(0, 0), (3, 5), (7, 7)] {
            let told = get(server.address, &path(&format!("{step}/1/pixel?x={x}&y={y}"))).json();
            let weights = numbers(&told["weights"]);
            assert_eq!((weights.len(), told["means"].as_array().unwrap().len()), (3, 3));
            assert!((weights.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{weights:?}");
            let mean = numbers(&told["mean"])[0];
            let byte = ((mean.clamp(-1.0, 1.0) + 1.0) * 127.5).round();
            let at = f64::from(shown[y * 8 + x]);
            assert!((byte - at).abs() <= 1.0, "step {step}, pixel {x}, {y}: {mean} and {at}");
            assert!(numbers(&told["std"]).iter().all(|std| *std > 0.0) && told["value"].is_array());
        }
        for name in ["x", "entropy", "weight-2", "component-0"] {
            assert_eq!(get(server.address, &path(&format!("{step}/0/{name}.png"))).status, 200, "{name}");
        }
    }
    for missing in ["9/0/x0.png", "0/2/x0.png", "0/0/weight-3.png", "0/0/x0.gif", "0/x/x0.png", "4/0/entropy.png"] {
        assert_eq!(get(server.address, &path(missing)).status, 404, "{missing}");
    }
    assert_eq!(get(server.address, &path("0/0/pixel?x=8&y=0")).wrong_field(), "x");
    for (query, field, expected, got) in [
        ("x=a&y=0", "x", "a whole number of at least 0", "the text \"a\""),
        ("x=-1&y=0", "x", "a whole number of at least 0", "-1"),
        ("x=1.5&y=0", "x", "a whole number of at least 0", "1.5"),
        ("x=1", "y", "a value", "none: the setting is missing"),
        ("x=1&y=0&z=0", "z", "x or y", "an unknown name (did you mean x?)"),
        ("x=1&y=0&x=2", "x", "one value", "two"),
    ] {
        let answer = get(server.address, &path(&format!("0/0/pixel?{query}")));
        let error = &answer.json()["error"];
        let told = (answer.status, &error["field"], &error["expected"], &error["got"]);
        assert_eq!(told, (422, &json!(field), &json!(expected), &json!(got)), "{query}");
    }
    assert_eq!(get(server.address, &path("0/density")).status, 404, "images have none");
}

#[test]
fn what_is_traced_does_not_change_the_sample() {
    let server = plain();
    let plain = json!({ "class": 0, "n": 1, "seed": 4, "steps": 5, "guidance": 0.2 });
    let mut traced = plain.clone();
    traced["trace"] = json!({ "every": 2, "planes": ["mixture", "x"] });
    let id = submit(server.address, &traced);
    let told = wait_for(server.address, &id, "completed");
    assert_eq!((&told["traced"], &told["planes"]), (&json!([0, 2, 4, 5]), &json!(["x", "mixture"])));
    let drawn = post(server.address, "/v1/samples", &plain).json();
    use base64::Engine;
    let expected = base64::engine::general_purpose::STANDARD.decode(drawn["samples"][0]["png"].as_str().unwrap());
    let got = get(server.address, told["samples"][0]["png"].as_str().unwrap());
    assert!(got.body == expected.unwrap());
}

#[test]
fn points_have_a_density_that_holds_them() {
    let server = plain();
    let planes = json!(["x0", "x", "mixture"]);
    let request = json!({ "model": "points", "n": 200, "seed": 1, "steps": 3, "trace": { "planes": planes } });
    let id = submit(server.address, &request);
    wait_for(server.address, &id, "completed");
    for step in 0..3 {
        let path = format!("/v1/jobs/{id}/steps/{step}");
        let told = get(server.address, &format!("{path}/density?bins=32&range=20")).json();
        let density = numbers(&told["density"]);
        assert_eq!((density.len(), &told["range"]), (32 * 32, &json!([-20.0, 20.0])));
        let area = (40.0_f64 / 32.0).powi(2);
        let mass: f64 = density.iter().sum::<f64>() * area;
        assert!((mass - 1.0).abs() < 0.1, "step {step}: {mass} of the density lies in the square");
        let one = get(server.address, &format!("{path}/density?bins=8&sample=199"));
        assert_eq!(one.status, 200);
        let points = get(server.address, &format!("{path}/points")).json();
        assert_eq!((points["x"].as_array().unwrap().len(), points["x0"].as_array().unwrap().len()), (200, 200));
    }
    let last = get(server.address, &format!("/v1/jobs/{id}/steps/3/points")).json();
    assert_eq!(last["x0"].as_array().unwrap().len(), 200, "the result");
    let path = format!("/v1/jobs/{id}/steps/0/density");
    assert_eq!(get(server.address, &format!("{path}?bins=0")).wrong_field(), "bins");
    assert_eq!(get(server.address, &format!("{path}?range=-1")).wrong_field(), "range");
    assert_eq!(get(server.address, &format!("{path}?sample=200")).status, 404);
}

#[test]
fn a_large_trace_is_refused_and_a_small_one_is_forgotten_in_time() {
    let server = start(|config, _| {
        config.limits.trace_bytes = 10_000;
        config.limits.keep_bytes = 3_000;
    });
    let request = json!({ "n": 8, "steps": 8, "trace": { "planes": ["mixture"] } });
    let answer = post(server.address, "/v1/jobs", &request);
    assert_eq!((answer.status, answer.wrong_field().as_str()), (413, "trace"));
    let small = json!({ "n": 1, "steps": 4, "trace": { "planes": ["x0"] } });
    let first = submit(server.address, &small);
    wait_for(server.address, &first, "completed");
    for _ in 0..3 {
        let id = submit(server.address, &small);
        wait_for(server.address, &id, "completed");
    }
    assert_eq!(get(server.address, &format!("/v1/jobs/{first}")).status, 404, "it made room");
}
