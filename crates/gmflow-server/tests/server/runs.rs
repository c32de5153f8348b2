//! Training runs that are followed.

use crate::client::{get, open, post};
use crate::{start, tiny};
use serde_json::{Value, json};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

fn line(step: u64) -> String {
    format!(
        "{{\"step\":{step},\"images\":{},\"loss\":0.5,\"grad_norm\":1.0,\"lr\":0.1,\"images_per_s\":4.0}}\n",
        8 * step
    )
}

/// A run of 100 steps with a checkpoint and a picture.
fn make(folder: &Path) {
    tiny(&folder.join("checkpoints/step-00000100"));
    fs::create_dir_all(folder.join("samples")).unwrap();
    fs::write(folder.join("samples/step-00000100.png"), b"\x89PNG").unwrap();
    fs::write(folder.join("run.manifest"), "gmflow-run 1\n").unwrap();
    fs::write(folder.join("config.toml"), "[train]\nsteps = 100\nlr = 0.1\n").unwrap();
    fs::write(folder.join("log.jsonl"), (1..=100).map(line).collect::<String>()).unwrap();
}

#[test]
fn a_run_is_listed_read_and_sampled() {
    let server = start(|config, folder| {
        make(&folder.join("runs/group/mine"));
        config.runs = Some(folder.join("runs"));
    });
    let get = |path: &str| get(server.address, path);
    let told = get("/v1/runs").json();
    let run = &told["runs"][0];
    assert_eq!(
        (run["id"].as_str(), run["state"].as_str(), run["step"].as_u64()),
        (Some("group~mine"), Some("finished"), Some(100))
    );
    assert_eq!((&run["checkpoints"], &run["model"]), (&json!(["step-00000100"]), &json!("run:group~mine")));
    let shown = get("/v1/runs/group~mine").json();
    assert_eq!(shown["config"]["train"]["steps"], 100);
    let log = get("/v1/runs/group~mine/log?after=0&max=500");
    let next: u64 = log.header("x-next").unwrap().parse().unwrap();
    assert_eq!((log.status, next), (200, log.body.len() as u64));
    assert!(log.body.ends_with(b"\n") && log.body.starts_with(line(1).as_bytes()));
    let rest = get(&format!("/v1/runs/group~mine/log?after={next}"));
    assert_eq!([log.body, rest.body].concat(), (1..=100).map(line).collect::<String>().into_bytes());
    assert_eq!(get("/v1/runs/group~mine/log?after=1000000").header("x-restarted"), Some("true"));
    let curve = get("/v1/runs/group~mine/curve?points=10").json();
    assert!(curve["lines"].as_array().unwrap().len() <= 12 && curve["lines"][0]["step"] == 1, "{curve}");
    let pictures = get("/v1/runs/group~mine/pictures").json();
    assert_eq!(get(pictures["pictures"][0]["url"].as_str().unwrap()).body, b"\x89PNG");
    for missing in ["/v1/runs/other", "/v1/runs/..", "/v1/runs/group~mine/pictures/config.toml"] {
        assert_eq!(get(missing).status, 404, "{missing}");
    }
    assert_eq!(get("/v1/runs/group~mine/log?max=0").wrong_field(), "max");
    let drawn = post(server.address, "/v1/samples", &json!({ "model": "run:group~mine", "steps": 1, "seed": 0 }));
    let named = json!({ "model": "run:group~mine@step-00000100", "steps": 1, "seed": 0 });
    assert_eq!(
        (drawn.status, &post(server.address, "/v1/samples", &named).json()["samples"]),
        (200, &drawn.json()["samples"])
    );
    let listed = get("/v1/models").json();
    assert_eq!(listed["data"][2]["run"], "group~mine");
}

#[test]
fn a_run_that_trains_is_followed() {
    let mut log = None;
    let server = start(|config, folder| {
        make(&folder.join("runs/mine"));
        log = Some(folder.join("runs/mine/log.jsonl"));
        config.runs = Some(folder.join("runs"));
    });
    let log = log.unwrap();
    let size = fs::metadata(&log).unwrap().len();
    let mut events = open(server.address, "GET", &format!("/v1/runs/mine/events?after={size}"), &[], "");
    assert_eq!(events.event().unwrap().name, "state");
    let append = |text: &str| OpenOptions::new().append(true).open(&log).unwrap().write_all(text.as_bytes()).unwrap();
    append(&line(101));
    let told = events.event().unwrap();
    assert_eq!((told.name.as_str(), &told.data["lines"][0]["step"]), ("log", &json!(101)));
    assert_eq!(told.id, Some(fs::metadata(&log).unwrap().len()));
    fs::write(log.with_file_name("samples").join("step-00000200.png"), b"\x89PNG").unwrap();
    let told = events.event().unwrap();
    assert_eq!((told.name.as_str(), &told.data["step"]), ("picture", &json!(200)));
    drop(events);
    // What was written meanwhile comes after a cut.
    append(&(line(102) + &line(103)));
    let last = told_id(&told.id, size + line(101).len() as u64);
    let mut events = open(server.address, "GET", "/v1/runs/mine/events", &[("Last-Event-ID", &last)], "");
    let mut told = events.event().unwrap();
    while told.name != "log" {
        told = events.event().unwrap();
    }
    let steps: Vec<&Value> = told.data["lines"].as_array().unwrap().iter().map(|line| &line["step"]).collect();
    assert_eq!(steps, [102, 103]);
}

fn told_id(id: &Option<u64>, otherwise: u64) -> String {
    id.unwrap_or(otherwise).to_string()
}

#[test]
fn without_runs_there_are_none() {
    let server = crate::plain();
    assert_eq!(get(server.address, "/v1/runs").json(), json!({ "runs": [] }));
    assert_eq!(get(server.address, "/v1/runs/x").status, 404);
}
