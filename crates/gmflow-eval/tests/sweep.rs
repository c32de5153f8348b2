//! Sweeps as a library user makes them, and results of earlier versions.

use burn::tensor::Device;
use gmflow::checkpoint::{DataInfo, DataKind, Model, ModelInfo, Precision};
use gmflow::guidance::Guidance;
use gmflow::network::{Mlp2dConfig, NetworkConfig};
use gmflow::solver::{GmSde, SolverConfig};
use gmflow_data::Density;
use gmflow_eval::models::model_folder;
use gmflow_eval::sweep::{Job, Plan, Results, Sweep};
use gmflow_eval::{CompareConfig, Judge, Reference, SampleSet};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// A line as gmflow 0.1.0 wrote it before lines held the whole settings of a cell.
const OLD_LINE: &str = r#"{"key":{"checkpoint":"k2","ema":null,"nll":false,"num":100,"reference":{"data":"board","features":"inception","limit":null,"moments_only":false},"sampler":{"cfg":null,"guidance":null,"guidance_interval":null,"order":1,"orthogonal":null,"solver":"gm-ode","spectral":null,"steps":2,"substeps":null},"seed":0},"model":"two","label":"gm-ode 1","row":{"fake":"two","components":2,"sampler":{"solver":"gm-ode","steps":2,"order":1,"substeps":64,"guidance":0.0},"seed":0,"samples":100,"reference":{"data":"board"},"points":{"count":100,"total_variation":0.75,"chance":0.5,"sliced_wasserstein":0.125,"outside":0.25},"seconds":0.5}}"#;

fn points_model(folder: &Path) {
    let network =
        Mlp2dConfig { num_gaussians: 2, embed_dim: 16, hidden_dim: 16, num_layers: 2, ..Default::default() };
    let data = DataInfo { channels: 2, height: 1, width: 1, kind: DataKind::Points };
    let info = ModelInfo::new(NetworkConfig::Mlp2d(network), data);
    let network = info.network.init(1, &Device::flex()).unwrap();
    Model { info, network, spectrum: None, vae: None }.save(folder, &[], Precision::F32).unwrap();
}

fn plan(folder: &Path, grid: &str) -> Plan {
    let path = folder.join("plan.toml");
    let head =
        "title = 'Toy'\nnum = 100\nreference = { data = 'board' }\n[[model]]\nname = 'two'\ncheckpoint = 'k2'\n";
    std::fs::write(&path, format!("{head}[[grid]]\n{grid}")).unwrap();
    Plan::read(&path).unwrap()
}

fn judge() -> Judge {
    Judge {
        reference: Reference::Density(Density::CHECKERBOARD, "board".into()),
        images: None,
        network: None,
        config: CompareConfig::default(),
        device: Device::flex(),
    }
}

fn sweep(folder: &Path, plan: Plan) -> Sweep {
    Sweep::new(plan, Results::open(&folder.join("cells.jsonl")).unwrap(), Device::flex())
}

/// The jobs of the cells that are missing, with the model in `folder`.
fn jobs(sweep: &mut Sweep, folder: &Path) -> (Vec<Job>, usize) {
    let cells = sweep.missing().unwrap();
    sweep.prepare(cells, &mut |name| model_folder(&folder.join(name)).map_err(|error| error.to_string())).unwrap()
}

#[test]
fn every_cell_is_measured_once_and_says_how() {
    let folder = tempfile::tempdir().unwrap();
    points_model(&folder.path().join("k2"));
    let grid = "solvers = ['gm-ode', { solver = 'gm-sde', order = 1 }]\nsteps = [1, 2]\n";
    let mut first = sweep(folder.path(), plan(folder.path(), grid));
    let (work, failed) = jobs(&mut first, folder.path());
    assert_eq!((work.len(), failed), (4, 0));
    assert_eq!(work[3].config().solver, SolverConfig::GmSde(GmSde { order: 1, spectral: Some(false) }));
    assert_eq!(first.measure(work, &judge(), &mut ()).unwrap(), 0);
    let again = sweep(folder.path(), plan(folder.path(), grid));
    assert!(again.missing().unwrap().is_empty());
    let lines = again.finished().unwrap();
    assert_eq!(
        lines.iter().map(|line| line.label.as_str()).collect::<Vec<_>>(),
        ["gm-ode", "gm-ode", "gm-sde 1", "gm-sde 1"]
    );
    for line in lines {
        let config = line.config.unwrap();
        assert_eq!((config.guidance, json!(config.steps)), (Guidance::Off, line.key["sampler"]["steps"].clone()));
        assert_eq!(line.histogram.as_ref().unwrap().len(), 64 * 64);
        assert!(line.row.as_ref().unwrap().points.is_some());
    }
}

#[test]
fn results_of_earlier_versions_count() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("cells.jsonl"), format!("{OLD_LINE}\n")).unwrap();
    let sweep =
        sweep(folder.path(), plan(folder.path(), "solvers = [{ solver = 'gm-ode', order = 1 }]\nsteps = [2, 4]\n"));
    let missing: Vec<usize> = sweep.missing().unwrap().iter().filter_map(|cell| cell.sampler().steps).collect();
    assert_eq!(missing, [4]);
    let lines = sweep.finished().unwrap();
    assert_eq!((lines.len(), lines[0].config), (1, None));
    assert_eq!(lines[0].row.as_ref().unwrap().points.unwrap().total_variation, 0.75);
}

/// Every option that a key may hold, as it was written before options had a type in this library.
#[test]
fn keys_are_those_of_earlier_versions() {
    let folder = tempfile::tempdir().unwrap();
    let solvers = "solvers = [{ solver = 'gm-ode', order = 2, substeps = 4, second_order = 'reweight', reweight_by = 'pixel', \
                   unconverted = true }]\n";
    let grid =
        format!("{solvers}steps = [8]\nguidance = [0.25]\northogonal = 0.5\nguidance_interval = [0.25, 0.75]\n");
    let cells = plan(folder.path(), &grid).cells().unwrap();
    let options = json!({
        "solver": "gm-ode", "order": 2, "steps": 8, "substeps": 4, "guidance": 0.25, "cfg": null, "orthogonal": 0.5,
        "guidance_interval": [0.25, 0.75], "spectral": null, "reweight_by": "pixel", "second_order": "reweight",
        "unconverted": true
    });
    assert_eq!(json!(cells[0].sampler()), options);
}

/// Settings with names that this version does not know cost the settings, not the figures.
#[test]
fn a_line_with_settings_that_are_unknown_keeps_its_figures() {
    let folder = tempfile::tempdir().unwrap();
    let mut line: Value = serde_json::from_str(OLD_LINE).unwrap();
    line["config"] = json!({ "solver": { "kind": "of the future" } });
    let path = folder.path().join("cells.jsonl");
    std::fs::write(&path, format!("{line}\n")).unwrap();
    let results = Results::open(&path).unwrap();
    assert!(results.lines.len() == 1 && results.lines[0].config.is_none() && results.lines[0].row.is_some());
}

#[test]
fn what_cannot_be_measured_is_found_before_anything_is() {
    let folder = tempfile::tempdir().unwrap();
    points_model(&folder.path().join("k2"));
    // The model has no classes.
    let grid = "solvers = ['euler']\nsteps = [1]\nguidance = [0.0, 0.5]\n";
    let mut guided = sweep(folder.path(), plan(folder.path(), grid));
    let (work, failed) = jobs(&mut guided, folder.path());
    assert_eq!((work.len(), failed), (1, 1));
    let text = std::fs::read_to_string(folder.path().join("cells.jsonl")).unwrap();
    assert!(text.lines().count() == 1 && text.contains("a model with classes"), "{text}");
    // Points are no images.
    let images = Judge { reference: Reference::Set(Box::new(vectors())), ..judge() };
    assert_eq!(guided.measure(work, &images, &mut ()).unwrap(), 1);
    let absent: &mut dyn FnMut(&Path) -> Result<PathBuf, String> = &mut |_| Err("not\nhere".into());
    let mut absent_model = sweep(folder.path(), plan(folder.path(), "solvers = ['heun']\nsteps = [1]\n"));
    let cells = absent_model.missing().unwrap();
    assert_eq!(absent_model.prepare(cells, absent).unwrap().1, 1);
    assert!(std::fs::read_to_string(folder.path().join("cells.jsonl")).unwrap().contains("\"not; here\""));
}

fn vectors() -> SampleSet {
    let values = (0..20).map(|i| (i % 7) as f32).collect();
    SampleSet::of_vectors(gmflow_eval::Matrix::new(values, 2).unwrap(), "toy".into()).unwrap()
}
