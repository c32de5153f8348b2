//! Reads recorded cases and compares what the library computes with what was recorded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::SafeTensors;
use serde_json::Value;

/// The recorded agreement between f32 and f64 is multiplied by this: matrix products sum in another order.
const SLACK: f64 = 10.0;

/// Where the golden set is: `GMFLOW_GOLDEN`, or `shared/golden` beside the checkout.
pub fn folder() -> PathBuf {
    std::env::var_os("GMFLOW_GOLDEN")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden"), PathBuf::from)
}

/// Where the golden set of distillation is: `GMFLOW_GOLDEN_DISTILL`, or `shared/golden_distill` beside the checkout.
pub fn distill_folder() -> PathBuf {
    std::env::var_os("GMFLOW_GOLDEN_DISTILL")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/golden_distill"), PathBuf::from)
}

/// Where to compute: `GMFLOW_TEST_DEVICE`, a name for `gmflow::device::open`, or the CPU.
pub fn device() -> Device {
    static DEVICE: LazyLock<Device> = LazyLock::new(|| {
        gmflow::device::from_env("GMFLOW_TEST_DEVICE").unwrap_or_else(|error| panic!("GMFLOW_TEST_DEVICE: {error}"))
    });
    DEVICE.clone()
}

/// A recorded array.
#[derive(Clone, Debug)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Array {
    /// As a tensor on the CPU; the rank has to be D.
    pub fn tensor<const D: usize>(&self) -> Tensor<D> {
        Tensor::from_data(TensorData::new(self.values.clone(), self.shape.clone()), &device())
    }

    /// The number of a scalar.
    pub fn scalar(&self) -> f32 {
        self.values[0]
    }
}

impl<const D: usize> From<Tensor<D>> for Array {
    fn from(tensor: Tensor<D>) -> Self {
        let shape = tensor.dims().to_vec();
        let data = tensor.into_data().convert::<f32>();
        Self { shape, values: data.try_to_vec().expect("f32 data") }
    }
}

/// A random draw that was recorded, in call order.
#[derive(Clone, Debug)]
pub struct Draw {
    /// `randn`, `rand`, `multinomial` or `eigvecs_desc`.
    pub kind: String,
    pub array: Array,
}

/// What was recorded as a result.
#[derive(Clone, Debug)]
pub struct Expected {
    pub array: Array,
    maxabs: f64,
    f64_err: f64,
}

/// One recorded case.
#[derive(Clone, Debug)]
pub struct Case {
    pub id: String,
    pub op: String,
    pub params: Value,
    pub inputs: BTreeMap<String, Array>,
    pub draws: Vec<Draw>,
    /// Network name -> parameter name -> values.
    pub state: BTreeMap<String, BTreeMap<String, Array>>,
    /// Network name -> folder of a checkpoint that holds it.
    pub checkpoints: BTreeMap<String, PathBuf>,
    pub outputs: BTreeMap<String, Expected>,
}

impl Case {
    pub fn input(&self, name: &str) -> &Array {
        self.inputs.get(name).unwrap_or_else(|| panic!("{}: no input {name}", self.id))
    }

    pub fn f64(&self, name: &str) -> f64 {
        self.params[name].as_f64().unwrap_or_else(|| panic!("{}: no number {name}", self.id))
    }

    pub fn f64_or(&self, name: &str, default: f64) -> f64 {
        self.params[name].as_f64().unwrap_or(default)
    }

    pub fn usize(&self, name: &str) -> usize {
        self.f64(name) as usize
    }

    pub fn text(&self, name: &str) -> &str {
        self.params[name].as_str().unwrap_or_else(|| panic!("{}: no text {name}", self.id))
    }

    /// Whether a setting is there and not null.
    pub fn given(&self, name: &str) -> bool {
        self.params.get(name).is_some_and(|value| !value.is_null())
    }

    pub fn flag(&self, name: &str) -> bool {
        self.params[name].as_bool().unwrap_or(false)
    }
}

/// What the library computed, by output name; outputs that are not given count as missing.
pub type Computed = BTreeMap<String, Array>;

/// The whole set, loaded lazily file by file.
pub struct GoldenSet {
    folder: PathBuf,
    cases: Vec<Value>,
    files: BTreeMap<String, BTreeMap<String, Array>>,
}

impl GoldenSet {
    /// Opens the set, or says why there is none.
    pub fn open(folder: &Path) -> Result<Self, String> {
        let path = folder.join("index.json");
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let index: Value = serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?;
        let cases = index["cases"].as_array().cloned().unwrap_or_default();
        let mut files = BTreeMap::new();
        for case in &cases {
            let name = case["file"].as_str().unwrap_or_default().to_owned();
            if !files.contains_key(&name) {
                files.insert(name.clone(), read_arrays(&folder.join(&name)));
            }
        }
        Ok(Self { folder: folder.to_owned(), cases, files })
    }

    /// All cases of a group.
    pub fn group(&self, group: &str) -> Vec<Case> {
        let prefix = format!("{group}/");
        let ours = self.cases.iter().filter(|case| case["id"].as_str().is_some_and(|id| id.starts_with(&prefix)));
        ours.map(|case| self.case(case)).collect()
    }

    /// The names of all groups.
    pub fn groups(&self) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for id in self.cases.iter().filter_map(|case| case["id"].as_str()) {
            let group = id.split('/').next().unwrap_or_default().to_owned();
            if !names.contains(&group) {
                names.push(group);
            }
        }
        names
    }

    fn array(&self, file: &str, entry: &Value) -> Array {
        let key = entry["key"].as_str().unwrap_or_default();
        let found = self.files.get(file).and_then(|arrays| arrays.get(key));
        let shape =
            entry["shape"].as_array().map(|dims| dims.iter().map(|d| d.as_u64().unwrap_or(0) as usize).collect());
        let array = found.unwrap_or_else(|| panic!("{file}: no tensor {key}"));
        Array { shape: shape.unwrap_or_else(|| array.shape.clone()), values: array.values.clone() }
    }

    fn case(&self, case: &Value) -> Case {
        let text = |key: &str| case[key].as_str().unwrap_or_default().to_owned();
        let file = text("file");
        let entries = |key: &str| case[key].as_object().cloned().unwrap_or_default();
        let inputs = entries("inputs").iter().map(|(name, entry)| (name.clone(), self.array(&file, entry))).collect();
        let draws = case["draws"].as_array().into_iter().flatten();
        let draws = draws.map(|entry| Draw {
            kind: entry["kind"].as_str().unwrap_or_default().to_owned(),
            array: self.array(&file, entry),
        });
        let outputs = entries("outputs").into_iter().map(|(name, entry)| {
            let number = |key: &str| entry[key].as_f64().unwrap_or(0.0);
            let array = self.array(&file, &entry);
            (name, Expected { array, maxabs: number("maxabs"), f64_err: number("f64_maxabs_err") })
        });
        let (mut state, mut checkpoints) = (BTreeMap::new(), BTreeMap::new());
        for (name, entry) in entries("state") {
            match entry["checkpoint"].as_str() {
                Some(dir) => _ = checkpoints.insert(name, self.folder.join(dir)),
                None => _ = state.insert(name.clone(), self.state(case, &name, &entry)),
            }
        }
        Case {
            id: text("id"),
            op: text("op"),
            params: case["params"].clone(),
            inputs,
            draws: draws.collect(),
            state,
            checkpoints,
            outputs: outputs.collect(),
        }
    }

    /// The weights under a prefix, following `same_as` to the case that holds them.
    fn state(&self, case: &Value, name: &str, entry: &Value) -> BTreeMap<String, Array> {
        if let Some(other) = entry["same_as"].as_str() {
            let source = self.cases.iter().find(|case| case["id"] == *other);
            let source = source.unwrap_or_else(|| panic!("no case {other}"));
            return self.state(source, name, &source["state"][name]);
        }
        let file = case["file"].as_str().unwrap_or_default();
        let prefix = entry["prefix"].as_str().unwrap_or_default();
        let arrays = self.files.get(file).into_iter().flatten();
        arrays.filter_map(|(key, array)| Some((key.strip_prefix(prefix)?.to_owned(), array.clone()))).collect()
    }
}

fn read_arrays(path: &Path) -> BTreeMap<String, Array> {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let file = SafeTensors::deserialize(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let read = |view: &safetensors::tensor::TensorView| Array {
        shape: view.shape().to_vec(),
        values: view.data().chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
    };
    file.tensors().iter().map(|(name, view)| (name.clone(), read(view))).collect()
}

/// How one case came out.
pub struct Outcome {
    pub id: String,
    pub op: String,
    /// Each failed output with what is wrong.
    pub failures: Vec<String>,
    /// The largest error in units of the tolerance.
    pub worst: f64,
}

/// Compares every recorded output; a missing one fails.
pub fn compare(case: &Case, computed: &Computed) -> Outcome {
    let mut outcome = Outcome { id: case.id.clone(), op: case.op.clone(), failures: Vec::new(), worst: 0.0 };
    // Some gradients are zero in exact arithmetic: they are held against the largest gradient of the case.
    let largest_gradient =
        case.outputs.iter().filter(|(name, _)| name.starts_with("grad_")).map(|(_, e)| e.maxabs).fold(0.0, f64::max);
    for (name, expected) in &case.outputs {
        let Some(got) = computed.get(name) else {
            outcome.failures.push(format!("{name}: not computed"));
            continue;
        };
        if got.values.len() != expected.array.values.len() {
            outcome.failures.push(format!("{name}: expected {:?}, got {:?}", expected.array.shape, got.shape));
            continue;
        }
        let scale = if name.starts_with("grad_") { largest_gradient } else { expected.maxabs };
        let tolerance = SLACK * expected.f64_err.max(1e-6 * scale).max(1e-30);
        let (place, error) = worst(&got.values, &expected.array.values);
        outcome.worst = outcome.worst.max(error / tolerance);
        if error > tolerance {
            let (got, expected) = (got.values[place], expected.array.values[place]);
            let times = error / tolerance;
            let failure =
                format!("{name}: {got:e} instead of {expected:e} at {place}, {times:.1} times the tolerance");
            outcome.failures.push(failure);
        }
    }
    outcome
}

/// Where two arrays differ most, and by how much; a number against NaN differs by infinity.
fn worst(got: &[f32], expected: &[f32]) -> (usize, f64) {
    let error = |(a, b): (&f32, &f32)| match f64::from((a - b).abs()) {
        _ if a == b => 0.0,
        error if error.is_nan() => f64::INFINITY,
        error => error,
    };
    let errors = got.iter().zip(expected).map(error).enumerate();
    errors.fold((0, 0.0), |worst, next| if next.1 > worst.1 { next } else { worst })
}
