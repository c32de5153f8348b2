//! Configs and the index.

use super::{edit, folder, load, message, model, weights};
use gmflow::checkpoint::{DataKind, Model};
use serde_json::{Value, json};
use std::fs;
use std::path::Path;

const CONFIG: &str = "transformer/config.json";
const INDEX: &str = "model_index.json";
const SCHEDULER: &str = "scheduler/scheduler_config.json";

/// Loads the model after a field of a file has got another value.
fn with(dir: &Path, file: &str, field: &str, value: Value) -> gmflow::Result<Model> {
    let path = dir.join(file);
    let before = fs::read(&path).expect("a file");
    edit(path.clone(), |config| config[field] = value);
    let result = load(dir);
    fs::write(path, before).expect("written");
    result
}

#[test]
fn notes_and_options_that_are_off_change_nothing() {
    let dir = folder();
    for (file, field, value) in [
        (CONFIG, "new_option", Value::Null),
        (CONFIG, "_name_or_path", json!("x")),
        (CONFIG, "torch_dtype", json!("float32")),
        (CONFIG, "dtype", json!("bfloat16")),
        (CONFIG, "_class_name", json!("GMDiTTransformer2DModel")),
        (CONFIG, "dropout", json!(0)),
        (INDEX, "id2label", json!(["a", "b"])),
        (INDEX, "safety_checker", json!(["transformers", "CLIP"])),
        (INDEX, "feature_extractor", json!([null, null])),
        (INDEX, "vae", Value::Null),
        (SCHEDULER, "shift", json!(1)),
        (SCHEDULER, "use_dynamic_shifting", json!(false)),
        (SCHEDULER, "_class_name", json!("FlowMatchEulerDiscreteScheduler")),
    ] {
        let got = with(dir.path(), file, field, value).unwrap_or_else(|error| panic!("{file} {field}: {error}"));
        assert_eq!((&got.info, weights(&got)), (&model().info, weights(&model())), "{file} {field}");
    }
    let shifted = with(dir.path(), SCHEDULER, "shift", json!(3)).expect("loaded");
    assert_eq!(shifted.info.shift, 3.0);
    let scheduler = dir.path().join(SCHEDULER);
    fs::write(
        &scheduler,
        r#"{"_class_name": "DPMSolverMultistepScheduler", "use_flow_sigmas": true, "flow_shift": 2.0}"#,
    )
    .expect("written");
    assert_eq!(load(dir.path()).expect("loaded").info.shift, 2.0);
}

#[test]
fn wrong_values_are_named_with_their_field() {
    let dir = folder();
    for (file, field, value, words) in [
        (CONFIG, "new_option", json!(true), "new_option: expected"),
        (CONFIG, "num_layer", json!(1), "did you mean num_layers?"),
        (CONFIG, "num_layers", json!(1.5), "num_layers: expected a whole number of at least 0, got 1.5"),
        (CONFIG, "num_layers", Value::Null, "num_layers: expected a whole number of at least 0, got null"),
        (CONFIG, "num_layers", json!("1"), "num_layers: expected a whole number of at least 0, got the text \"1\""),
        (CONFIG, "num_layers", json!(-1), "num_layers: expected a whole number of at least 0, got -1"),
        (CONFIG, "constant_logstd", json!([1]), "constant_logstd: expected a number, got a list of 1"),
        (CONFIG, "norm_eps", json!(1e-6), "norm_eps: expected"),
        (CONFIG, "_class_name", json!("DiTTransformer2DModel"), "_class_name: expected GMDiTTransformer2DModel"),
        (INDEX, "id2label", json!(3), "id2label: expected an object with a name for every class, got 3"),
        (INDEX, "id2label", json!({"0": 7}), "id2label.0: expected a name, got 7"),
        (
            INDEX,
            "id2label",
            json!({"2": "c"}),
            "id2label: expected numbers below 2, the classes of the network, got 2",
        ),
        (INDEX, "id2label", json!({"x": "c"}), "id2label: expected numbers below 2"),
        (INDEX, "transformer", json!(["diffusers", null]), "transformer: expected a module and a class"),
        (INDEX, "vae", json!(["diffusers"]), "vae: expected a module and a class"),
        (INDEX, "scheduler", json!("x"), "scheduler: expected a module and a class"),
        (SCHEDULER, "shift", Value::Null, "shift: expected a positive number, got null"),
        (SCHEDULER, "shift", json!("1"), "shift: expected a positive number, got the text \"1\""),
        (SCHEDULER, "use_dynamic_shifting", json!(true), "use_dynamic_shifting: expected false"),
        (SCHEDULER, "use_karras_sigmas", json!(true), "use_karras_sigmas: expected false"),
        (SCHEDULER, "_class_name", json!("DDPMScheduler"), "such as FlowEulerODEScheduler"),
        (SCHEDULER, "_class_name", json!("DPMSolverMultistepScheduler"), "another noise schedule"),
    ] {
        let message = message(&dir.path().join(file), with(dir.path(), file, field, value));
        assert!(message.contains(words), "{words}: {message}");
    }
}

#[test]
fn faults_of_writing_are_named_with_their_place() {
    let dir = folder();
    let text = fs::read_to_string(dir.path().join(CONFIG)).expect("a config");
    let end = text.trim_end().len() - 1;
    let wide: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    for file in [CONFIG, INDEX] {
        let path = dir.path().join(file);
        let whole = fs::read_to_string(&path).expect("a file");
        for text in [whole.replace('\n', "\r\n"), format!("\u{feff}{whole}")] {
            fs::write(&path, text).expect("written");
            assert_eq!(weights(&load(dir.path()).expect("loaded")), weights(&model()), "{file}");
        }
        fs::write(&path, whole).expect("written");
    }
    let path = dir.path().join(CONFIG);
    for (bytes, words) in [
        (format!("{},}}", text[..end].trim_end()).into_bytes(), "a comma behind the last entry"),
        (
            format!("{}, \"num_layers\": 2}}", &text[..end]).into_bytes(),
            "num_layers: expected a name that stands once",
        ),
        (text.replacen(": 8,", ": NaN,", 1).into_bytes(), "NaN, which JSON does not have"),
        (text.replacen(": 8,", ": True,", 1).into_bytes(), "which is Python"),
        (text.as_bytes()[..text.len() / 2].to_vec(), "it is cut short"),
        (wide, "text in UTF-16"),
        (b"{\"a\": \"\xf6\"}".to_vec(), "as in Latin-1"),
        (b"".to_vec(), "an empty file"),
        (b"<html>".to_vec(), "an HTML page"),
        (b"[]".to_vec(), "content: expected a JSON object, got a list of 0"),
    ] {
        fs::write(&path, bytes).expect("written");
        let message = message(&path, load(dir.path()));
        assert!(message.contains(words), "{words}: {message}");
    }
}

#[test]
fn components_that_are_not_there_are_left_out_but_for_the_network() {
    let dir = folder();
    edit(dir.path().join(INDEX), |index| {
        for (name, class) in
            [("vae", "AutoencoderKL"), ("spectrum_net", "_SpectrumMLP"), ("tokenizer", "CLIPTokenizer")]
        {
            index[name] = json!(["module", class]);
        }
    });
    fs::create_dir(dir.path().join("tokenizer")).expect("a folder");
    fs::remove_dir_all(dir.path().join("scheduler")).expect("removed");
    let got = load(dir.path()).expect("the network is there");
    assert_eq!((got.info.data.kind, got.info.shift), (DataKind::Image, 1.0));
    assert!(got.vae.is_none() && got.spectrum.is_none());
    assert_eq!(weights(&got), weights(&model()));
    fs::remove_dir_all(dir.path().join("transformer")).expect("removed");
    assert!(message(&dir.path().join(INDEX), load(dir.path())).contains("transformer: expected the folder"));
}
