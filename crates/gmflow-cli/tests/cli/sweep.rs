//! `gmflow sweep`: every cell and every likelihood is measured once.

use crate::eval::{images, text};
use crate::models::{distant_model, image_model, points_model, spectral_model};
use crate::run;
use gmflow::kernel::MatmulPrecision;
use serde_json::{Value, json};

#[test]
fn a_line_that_cannot_be_read_costs_one_cell_and_two_sweeps_do_not_mix() {
    let folder = tempfile::tempdir().unwrap();
    points_model(&folder.path().join("k2"), 2);
    std::fs::write(folder.path().join("board.toml"), "[data.source]\nkind = 'density'\nname = 'checkerboard'\n")
        .unwrap();
    let plan = folder.path().join("plan.toml");
    let rest = "[[model]]\nname = 'two'\ncheckpoint = 'k2'\n[[grid]]\nsolvers = ['gm-ode']\nsteps = [1, 2, 3]\n";
    std::fs::write(&plan, format!("title = 'Toy'\nnum = 100\nreference = {{ data = 'board.toml' }}\n{rest}"))
        .unwrap();
    let out = folder.path().join("out");
    let sweep = |extra: &[&str]| run(&[&["sweep", text(&plan), "--out", text(&out)], extra].concat());
    assert_eq!(sweep(&[]).0, 0);
    let cells = out.join("cells.jsonl");
    let whole = std::fs::read(&cells).unwrap();
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    for bad in [&b"\xff\xfe\n"[..], b"{\"key\": 3}\n", b"nothing\n"] {
        let aside = out.join("cells.jsonl.damaged");
        let _ = std::fs::remove_file(&aside);
        std::fs::write(&cells, [lines[0], bad, lines[2]].concat()).unwrap();
        std::fs::write(out.join("table.md.4711.tmp"), "left by a killed process").unwrap();
        let (code, _, stderr) = sweep(&[]);
        assert_eq!(code, 0, "{stderr}");
        assert!(stderr.contains("cells.jsonl, line 2: ") && stderr.contains("cells.jsonl.damaged"), "{stderr}");
        assert_eq!(std::fs::read(&aside).unwrap(), bad);
        let now = std::fs::read(&cells).unwrap();
        assert!(now.starts_with(&[lines[0], lines[2]].concat()), "the others are not measured again");
        assert_eq!(now.split_inclusive(|byte| *byte == b'\n').count(), 3);
        assert!(!out.join("table.md.4711.tmp").exists());
    }
    let lock = gmflow_files::FolderLock::acquire(&out, "gmflow sweep").unwrap();
    for extra in [&[][..], &["--force"]] {
        let (code, _, stderr) = sweep(extra);
        let holder = format!("in use by gmflow sweep (process {}", std::process::id());
        assert!(code == 1 && stderr.contains(&holder), "{stderr}");
    }
    drop(lock);
    assert_eq!(sweep(&[]).0, 0);
}

#[test]
fn a_sweep_measures_every_cell_once_and_tries_failed_ones_again() {
    let folder = tempfile::tempdir().unwrap();
    points_model(&folder.path().join("k2"), 2);
    std::fs::write(folder.path().join("board.toml"), "[data.source]\nkind = 'density'\nname = 'checkerboard'\n")
        .unwrap();
    let plan = folder.path().join("plan.toml");
    let models = "[[model]]\nname = 'two'\ncheckpoint = 'k2'\n[[model]]\nname = 'later'\ncheckpoint = 'k1'\n";
    let grid = "[[grid]]\nsolvers = ['gm-ode', 'unipc']\nsteps = [1, 3]\n";
    std::fs::write(&plan, format!("title = 'Toy'\nnum = 200\nreference = {{ data = 'board.toml' }}\n{models}{grid}"))
        .unwrap();
    let out = folder.path().join("out");
    let sweep = || run(&["sweep", text(&plan), "--out", text(&out), "--json"]);
    let (code, stdout, stderr) = sweep();
    assert!(code == 1 && stderr.contains("4 of 8 cells failed"), "{stderr}");
    let first: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(first.as_array().unwrap().len(), 4);
    for file in ["table.md", "distance.png", "distance.svg", "histograms-two.png"] {
        assert!(out.join(file).is_file(), "{file}");
    }
    // An interruption in the middle of a line, and the missing model.
    let cells = out.join("cells.jsonl");
    let mut text_of = std::fs::read_to_string(&cells).unwrap();
    text_of.push_str("{\"key\": {\"half");
    std::fs::write(&cells, text_of).unwrap();
    points_model(&folder.path().join("k1"), 1);
    let (code, stdout, stderr) = sweep();
    assert_eq!(code, 0, "{stderr}");
    let second: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(second.as_array().unwrap().len(), 8);
    assert_eq!(second[0], first[0], "seconds and all: the cell was not measured again");
    let lines = std::fs::read_to_string(&cells).unwrap().lines().count();
    assert_eq!(lines, 12, "four measured, four failed, four measured later");
    assert_eq!(sweep().0, 0);
    assert_eq!(std::fs::read_to_string(&cells).unwrap().lines().count(), lines);
    // Other weights under the same path are another measurement.
    points_model(&folder.path().join("k1"), 3);
    let (code, stdout, stderr) = sweep();
    assert!(code == 0 && stderr.contains("k1 has changed since 4 of its cells"), "{stderr}");
    let third: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&third[0], &third[4]["row"]["components"]), (&first[0], &json!(3)));
    assert_eq!(std::fs::read_to_string(&cells).unwrap().lines().count(), lines + 4);
    // A file from before lines named them counts as it is.
    let strip = |line: &str| {
        let mut line: Value = serde_json::from_str(line).unwrap();
        line.as_object_mut().unwrap().remove("weights");
        format!("{line}\n")
    };
    std::fs::write(&cells, std::fs::read_to_string(&cells).unwrap().lines().map(strip).collect::<String>()).unwrap();
    let (code, _, stderr) = sweep();
    assert!(code == 0 && !stderr.contains("changed"), "{stderr}");
    assert_eq!(std::fs::read_to_string(&cells).unwrap().lines().count(), lines + 4);
    std::fs::write(&cells, "{}\n").unwrap();
    let (code, _, stderr) = sweep();
    assert!(code == 2 && stderr.contains("line 1"), "{stderr}");
}

#[test]
fn a_likelihood_is_measured_once_for_a_model_whatever_is_sampled() {
    let folder = tempfile::tempdir().unwrap();
    let data = images(folder.path());
    spectral_model(&folder.path().join("first"));
    image_model(&folder.path().join("second"));
    let plan = folder.path().join("plan.toml");
    let head = "title = 'Toy'\nnum = 8\nnll = true\n";
    let reference = format!("reference = {{ data = '{}', features = 'pixels' }}\n", text(&data));
    let models = "[[model]]\nname = 'one'\ncheckpoint = 'first'\n[[model]]\nname = 'two'\ncheckpoint = 'second'\n";
    // The second grid comes back to both models.
    let grids = "[[grid]]\nsolvers = ['gm-ode']\nsteps = [1]\n[[grid]]\nsolvers = ['gm-sde']\nsteps = [1, 2]\n";
    std::fs::write(&plan, [head, &reference, models, grids].concat()).unwrap();
    let out = folder.path().join("out");
    let cells = out.join("cells.jsonl");
    let sweep = || -> Vec<Value> {
        let (code, stdout, stderr) = run(&["sweep", text(&plan), "--out", text(&out), "--json"]);
        assert_eq!(code, 0, "{stderr}");
        serde_json::from_str(&stdout).unwrap()
    };
    let read = || -> Vec<Value> {
        let text = std::fs::read_to_string(&cells).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let write = |lines: &[Value]| {
        std::fs::write(&cells, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    };
    let bits = |rows: &[Value], model: &str| -> Vec<f64> {
        let of_model = rows.iter().filter(|line| line["model"] == model);
        of_model.map(|line| line["row"]["likelihood"]["bits_per_dim"].as_f64().unwrap()).collect()
    };
    let rows = sweep();
    let (one, two) = (bits(&rows, "one"), bits(&rows, "two"));
    assert_eq!((one.len(), two.len(), rows.len()), (3, 3, 6), "the lines of likelihoods are no cells");
    assert!(one.iter().chain(&two).all(|&bits| bits == one[0]), "one network for both: {one:?} {two:?}");
    let spectral = |line: &Value| line["row"]["likelihood"]["bits_per_dim_spectral"].is_f64();
    assert!(rows.iter().all(|line| spectral(line) == (line["model"] == "one")), "each its own");
    let lines = read();
    let is_likelihood = |line: &&Value| line["likelihood"].is_object();
    assert_eq!((lines.len(), lines.iter().filter(is_likelihood).count()), (8, 2));
    let table = std::fs::read_to_string(out.join("table.md")).unwrap();
    assert!(table.contains("| images | one | one, with spectrum | two |\n"), "{table}");

    // Interrupted after the likelihoods, which are marked to be known again.
    let mut kept: Vec<Value> = lines.iter().filter(is_likelihood).cloned().collect();
    kept.iter_mut().for_each(|line| line["likelihood"]["bits_per_dim"] = json!(1234.5));
    write(&kept);
    let rows = sweep();
    assert_eq!([bits(&rows, "one"), bits(&rows, "two")].concat(), [1234.5; 6]);
    assert_eq!(read().len(), 8);

    // A file from before likelihoods had lines: they stand in the cells.
    let cells_alone: Vec<Value> = read().into_iter().filter(|line| line["row"].is_object()).collect();
    write(&cells_alone[..4]);
    assert_eq!(bits(&sweep(), "two"), [1234.5; 3]);
    assert_eq!(read().iter().filter(is_likelihood).count(), 0);

    // Another share of the reference is another likelihood.
    let limited = reference.replace(" }", ", limit = 20 }");
    std::fs::write(&plan, [head, &limited, models, grids].concat()).unwrap();
    let rows = sweep();
    let (one, two) = (bits(&rows, "one"), bits(&rows, "two"));
    assert!(one.iter().chain(&two).all(|&bits| bits != 1234.5) && one[0] == one[2], "{one:?} {two:?}");
    assert_eq!(read().iter().filter(is_likelihood).count(), 2);
}

/// The same checkpoint in another precision is another cell, and cells of files that name none are those in f32.
#[test]
fn a_precision_is_part_of_a_cell() {
    let folder = tempfile::tempdir().unwrap();
    let data = images(folder.path());
    image_model(&folder.path().join("model"));
    let (plan, out) = (folder.path().join("plan.toml"), folder.path().join("out"));
    let sweep = |precisions: &[&str]| -> Vec<Value> {
        let head =
            format!("title = 'Toy'\nnum = 8\nreference = {{ data = '{}', features = 'pixels' }}\n", text(&data));
        let grid = "[[grid]]\nsolvers = ['gm-ode']\nsteps = [1]\n";
        let model = |precision: &&str| {
            let name = precision.replace(['"', '='], "");
            format!("[[model]]\nname = 'model {name}'\ncheckpoint = 'model'\n{precision}\n")
        };
        let models: String = precisions.iter().map(model).collect();
        std::fs::write(&plan, [&head, &models, grid].concat()).unwrap();
        let (code, stdout, stderr) = run(&["sweep", text(&plan), "--out", text(&out), "--json"]);
        assert_eq!(code, 0, "{stderr}");
        serde_json::from_str(&stdout).unwrap()
    };
    let first = sweep(&[""]);
    assert!(first[0]["key"].get("precision").is_none(), "{}", first[0]);
    let all = sweep(&["", "precision = \"bf16\"", "precision = \"int8\""]);
    assert_eq!(all.len(), 3);
    assert_eq!(all[0], first[0], "not measured again");
    for (line, precision) in all[1..].iter().zip([MatmulPrecision::Bf16, MatmulPrecision::Int8]) {
        assert_eq!(line["key"]["precision"], json!(precision));
        let distance = |line: &Value| line["row"]["metrics"]["frechet_distance"].as_f64().unwrap();
        let (got, want) = (distance(line), distance(&first[0]));
        assert!((got / want - 1.0).abs() < 0.05, "{precision:?}: {got}, {want}");
        let computed = &line["row"]["precision"];
        if precision.is_available() {
            assert_eq!(*computed, json!(precision));
            assert_ne!(got, want);
        } else {
            assert!(computed.is_null(), "{computed}");
        }
    }
    let table = std::fs::read_to_string(out.join("table.md")).unwrap();
    assert_eq!(table.contains("int8 |"), MatmulPrecision::Int8.is_available(), "{table}");
}

#[test]
fn a_likelihood_that_is_no_number_is_a_failed_cell_and_leaves_the_file_readable() {
    let folder = tempfile::tempdir().unwrap();
    let data = images(folder.path());
    spectral_model(&folder.path().join("near"));
    distant_model(&folder.path().join("far"));
    let plan = folder.path().join("plan.toml");
    let reference = format!("nll = true\nreference = {{ data = '{}', features = 'pixels' }}\n", text(&data));
    let models = "[[model]]\nname = 'near'\ncheckpoint = 'near'\n[[model]]\nname = 'far'\ncheckpoint = 'far'\n";
    let grid = "[[grid]]\nsolvers = ['euler']\nsteps = [1, 2]\n";
    std::fs::write(&plan, ["title = 'Toy'\nnum = 8\n", &reference, models, grid].concat()).unwrap();
    let out = folder.path().join("out");
    let cells = out.join("cells.jsonl");
    let sweep = || run(&["sweep", text(&plan), "--out", text(&out), "--json"]);
    let read = || -> Vec<Value> {
        let text = std::fs::read_to_string(&cells).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let (code, stdout, stderr) = sweep();
    assert!(code == 1 && stderr.contains("2 of 4 cells failed") && stderr.contains("far, euler"), "{stderr}");
    let rows: Vec<Value> = serde_json::from_str(&stdout).unwrap();
    assert_eq!(rows.iter().map(|row| &row["model"]).collect::<Vec<_>>(), ["near", "near"]);
    let failed: Vec<Value> = read().into_iter().filter(|line| line["model"] == "far").collect();
    let is_named = |line: &Value| line["error"].as_str().is_some_and(|error| error.contains("bits/dim"));
    assert!(failed.len() == 2 && failed.iter().all(is_named), "{failed:?}");

    // Lines as they were written before: a figure of a likelihood, and of a cell, that is null.
    let mut lines: Vec<Value> = read().into_iter().filter(|line| line["model"] == "near").collect();
    assert!(lines[0]["likelihood"].is_object() && lines[2]["row"].is_object() && lines.len() == 3, "{lines:?}");
    lines[0]["likelihood"]["bits_per_dim"] = json!(1234.5);
    lines[1]["row"]["likelihood"]["bits_per_dim"] = Value::Null;
    lines[2]["row"]["likelihood"]["by_time"][3]["bits_per_dim_spectral"] = Value::Null;
    std::fs::write(&cells, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    std::fs::remove_dir_all(folder.path().join("far")).unwrap();
    image_model(&folder.path().join("far"));
    let (code, stdout, stderr) = sweep();
    assert_eq!(code, 0, "{stderr}");
    let named = |line: usize| stderr.contains(&format!("cells.jsonl, line {line}: "));
    assert!(!named(1) && named(2) && named(3), "{stderr}");
    let rows: Vec<Value> = serde_json::from_str(&stdout).unwrap();
    let bits: Vec<f64> = rows.iter().map(|row| row["row"]["likelihood"]["bits_per_dim"].as_f64().unwrap()).collect();
    assert!(bits[..2] == [1234.5; 2] && bits[2] == bits[3] && bits.len() == 4, "{bits:?}");
    // Measured by now: nothing more is said of them.
    let (code, stdout, stderr) = sweep();
    assert!(code == 0 && !stderr.contains("line"), "{stderr}");
    assert_eq!(serde_json::from_str::<Vec<Value>>(&stdout).unwrap(), rows);
}

#[test]
fn what_a_sweep_cannot_measure_is_said_before_it_measures_the_rest() {
    let folder = tempfile::tempdir().unwrap();
    points_model(&folder.path().join("k2"), 2);
    image_model(&folder.path().join("images"));
    std::fs::write(folder.path().join("board.toml"), "[data.source]\nkind = 'density'\nname = 'checkerboard'\n")
        .unwrap();
    let (plan, out) = (folder.path().join("plan.toml"), folder.path().join("out"));
    let models = "[[model]]\nname = 'points'\ncheckpoint = 'k2'\n[[model]]\nname = 'images'\ncheckpoint = 'images'\n";
    let grid = "[[grid]]\nsolvers = ['euler']\nsteps = [1]\nguidance = [0.0, 0.5]\n";
    let sweep = |features: &str| {
        let head =
            format!("title = 'Toy'\nnum = 50\nreference = {{ data = 'board.toml', features = '{features}' }}\n");
        std::fs::write(&plan, [&head, models, grid].concat()).unwrap();
        run(&["sweep", text(&plan), "--out", text(&out)])
    };
    let (code, _, stderr) = sweep("classifier=none.safetensors");
    assert!(code == 1 && stderr.contains("none.safetensors"), "{stderr}");
    assert!(!out.join("table.md").exists());
    let (code, _, stderr) = sweep("vgg");
    assert!(code == 2 && stderr.contains("classifier=FILE"), "{stderr}");
    let (code, _, stderr) = sweep("inception");
    assert!(code == 1 && stderr.contains("3 of 4 cells failed"), "{stderr}");
    let cells = std::fs::read_to_string(out.join("cells.jsonl")).unwrap();
    let lines: Vec<Value> = cells.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let errors: Vec<&str> = lines.iter().filter_map(|line| line["error"].as_str()).collect();
    assert!(errors[0].contains("a model with classes"), "{errors:?}");
    assert!(errors[1].contains("a model of points") && errors[2].contains("a model of points"), "{errors:?}");
    assert!(lines[3]["row"].is_object() && lines[3]["config"]["solver"]["kind"] == "euler", "{}", lines[3]);
}
