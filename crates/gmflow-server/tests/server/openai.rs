//! The request of OpenAI's clients.

use crate::client::{get, open, post};
use crate::plain;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

#[test]
fn a_prompt_gives_images() {
    let server = plain();
    let request = json!({ "model": "tiny", "prompt": "owl", "n": 2, "size": "8x8", "seed": 6, "steps": 2 });
    let answer = post(server.address, "/v1/images/generations", &request);
    assert_eq!(answer.status, 200, "{}", answer.json());
    let told = answer.json();
    assert!(told["created"].is_u64() && told["usage"]["total_tokens"] == 0);
    let drawn = post(server.address, "/v1/samples", &json!({ "class": "owl", "n": 2, "seed": 6, "steps": 2 })).json();
    for index in 0..2 {
        assert_eq!(told["data"][index]["b64_json"], drawn["samples"][index]["png"]);
    }
    let by_url = json!({ "prompt": "cat", "response_format": "url", "steps": 2 });
    let told = post(server.address, "/v1/images/generations", &by_url).json();
    assert_eq!(get(server.address, told["data"][0]["url"].as_str().unwrap()).status, 200);
    for (request, field) in [
        (json!({ "prompt": "horse" }), "prompt"),
        (json!({ "prompt": "cat", "size": "1024x1024" }), "size"),
        (json!({ "prompt": "cat", "n": 11 }), "n"),
        (json!({ "prompt": "cat", "model": "points" }), "prompt"),
        (json!({ "model": "points" }), "model"),
    ] {
        let answer = post(server.address, "/v1/images/generations", &request);
        assert_eq!((answer.status, answer.wrong_field().as_str()), (422, field), "{request}");
    }
}

#[test]
fn a_stream_has_partial_images_and_then_the_image() {
    let server = plain();
    let request = json!({ "prompt": "cat", "stream": true, "partial_images": 2, "steps": 6, "seed": 1 }).to_string();
    let events = open(server.address, "POST", "/v1/images/generations", &[], &request).events();
    let names: Vec<&str> = events.iter().map(|event| event.name.as_str()).collect();
    assert_eq!(
        names,
        ["image_generation.partial_image", "image_generation.partial_image", "image_generation.completed"]
    );
    for (index, event) in events.iter().enumerate() {
        assert_eq!(event.data["type"].as_str(), Some(event.name.as_str()));
        assert!(STANDARD.decode(event.data["b64_json"].as_str().unwrap()).unwrap().starts_with(b"\x89PNG"));
        if index < 2 {
            assert_eq!(event.data["partial_image_index"], index);
        }
    }
    let drawn = post(server.address, "/v1/samples", &json!({ "class": "cat", "steps": 6, "seed": 1 })).json();
    assert_eq!(events[2].data["b64_json"], drawn["samples"][0]["png"]);
}
