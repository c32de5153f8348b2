//! `gmflow info`.

use crate::models::{image_model, points_model};
use crate::run;

#[test]
fn it_tells_what_a_checkpoint_holds() {
    let folder = tempfile::tempdir().unwrap();
    image_model(folder.path());
    let model = folder.path().to_str().unwrap();
    let (code, summary, stderr) = run(&["info", model]);
    assert_eq!(code, 0, "{stderr}");
    let (code, all, stderr) = run(&["info", model, "--tensors"]);
    assert_eq!(code, 0, "{stderr}");
    for words in
        ["gm-dit", "K = 2", "1 x 8 x 8", "3 (cat, dog, 7)", "1,234 steps", "56,789", "slow", "model.safetensors: "]
    {
        assert!(summary.contains(words), "{words} in {summary}");
    }
    for words in [&summary, "proj_out", "F32"] {
        assert!(all.contains(words), "{words} in {all}");
    }
    assert!(!summary.contains("proj_out"), "{summary}");
}

#[test]
fn json_is_for_scripts() {
    let folder = tempfile::tempdir().unwrap();
    points_model(folder.path(), 5);
    let (code, out, _) = run(&["info", "--json", folder.path().to_str().unwrap()]);
    let value: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(code, 0);
    assert_eq!(value["components"], 5);
    assert_eq!(value["network"]["type"], "mlp2d");
    assert_eq!(value["progress"]["step"], 1234);
    // (2*16+1)*16 + (16+1)*16 hidden, (16+1)*(5*2 + 5 + 1) output
    assert_eq!(value["parameters"], 33 * 16 + 17 * 16 + 17 * 16);
    assert_eq!(value["files"][0]["tensors"].as_array().unwrap().len(), 10);
}

#[test]
fn it_tells_what_the_machine_can_do() {
    let (code, text, stderr) = run(&["info", "--machine"]);
    assert_eq!(code, 0, "{stderr}");
    for words in ["processor ", "instructions ", "multiply-add in f32", "reading memory", "precision\n", "  auto "] {
        assert!(text.contains(words), "{words} in {text}");
    }
    let (code, json, stderr) = run(&["info", "--machine", "--json"]);
    assert_eq!(code, 0, "{stderr}");
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(value["products"].as_array().unwrap().len(), 3);
    assert!(value["rates"]["f32"].as_f64().unwrap() > 0.0 && value["roofs"]["memory"]["one"].as_f64().unwrap() > 0.0);
    assert!(["f32", "bf16"].contains(&value["auto"].as_str().unwrap()), "{json}");
    assert_eq!(run(&["info", "--machine", "some-model"]).0, 2);
    assert_eq!(run(&["info"]).0, 2);
}

#[test]
fn a_run_folder_stands_for_its_latest_checkpoint() {
    let run_folder = tempfile::tempdir().unwrap();
    points_model(&run_folder.path().join("checkpoints/step-00000010"), 3);
    points_model(&run_folder.path().join("checkpoints/step-00000200"), 4);
    let (code, out, _) = run(&["info", run_folder.path().to_str().unwrap()]);
    assert_eq!(code, 0);
    assert!(out.contains("step-00000200") && out.contains("K = 4"), "{out}");
}

#[test]
fn damaged_checkpoints_are_named_on_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    points_model(path, 2);
    let weights = std::fs::read(path.join("model.safetensors")).unwrap();
    let description = std::fs::read(path.join("model.json")).unwrap();
    let damages: [(&str, &[u8]); 5] = [
        ("model.safetensors", b""),
        ("model.safetensors", &weights[..weights.len() - 1]),
        ("model.safetensors", &[255; 64]),
        ("model.json", b"{\"format\": 1}"),
        ("model.json", &description[..description.len() / 2]),
    ];
    for (name, bytes) in damages {
        std::fs::write(path.join("model.safetensors"), &weights).unwrap();
        std::fs::write(path.join("model.json"), &description).unwrap();
        std::fs::write(path.join(name), bytes).unwrap();
        let (code, out, stderr) = run(&["info", path.to_str().unwrap()]);
        assert_eq!((code, out.as_str()), (1, ""), "{stderr}");
        assert!(stderr.contains(name) && stderr.lines().count() == 1, "{stderr}");
    }
}
