//! What a sweep measures: one TOML file.

use crate::arrays::{Layout, check_range};
use crate::sampler::{SamplerOptions, solver_by_name};
use crate::{Error, Result};
use gmflow::guidance::ReweightScale;
use gmflow::kernel::MatmulPrecision;
use gmflow::limits;
use gmflow::solver::SecondOrderMode;
use gmflow_files::{Wrong, text, toml as settings};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The whole plan.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// A line above charts and tables.
    pub title: String,
    /// What samples are compared with.
    pub reference: ReferencePlan,
    /// Samples in each cell.
    pub num: usize,
    /// The seed of the first sample of every cell.
    #[serde(default, with = "gmflow_files::seed")]
    pub seed: u64,
    /// Samples computed at once.
    #[serde(default)]
    pub batch: Option<usize>,
    /// Measure the likelihood of the reference under every model, once.
    #[serde(default)]
    pub nll: bool,
    /// The models.
    #[serde(rename = "model")]
    pub models: Vec<ModelPlan>,
    /// What is done with them.
    #[serde(rename = "grid")]
    pub grids: Vec<Grid>,
    /// Charts of some of the curves, beside those of all.
    #[serde(rename = "chart", default)]
    pub charts: Vec<ChartPlan>,
}

/// A chart of some curves.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChartPlan {
    /// Its file name, without an ending.
    pub name: String,
    /// Curves by their labels, such as "K = 8, GM-ODE 2".
    pub curves: Vec<String>,
}

/// What samples are compared with, as `gmflow eval` takes it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferencePlan {
    /// Data or statistics.
    pub data: PathBuf,
    /// The features; not used for densities.
    #[serde(default = "inception")]
    pub features: String,
    /// Use the first images only.
    #[serde(default)]
    pub limit: Option<usize>,
    /// Leave out what needs all vectors.
    #[serde(default)]
    pub moments_only: bool,
    /// The numbers that are black and white in an array file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<[f64; 2]>,
    /// Where the channels of an array file are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<Layout>,
}

fn inception() -> String {
    "inception".into()
}

/// One model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelPlan {
    /// What it is called in charts and tables.
    pub name: String,
    /// A run folder, a model folder, a published checkpoint, or its name on the hub.
    pub checkpoint: PathBuf,
    /// The moving average of the weights; `none` for the weights themselves.
    #[serde(default)]
    pub ema: Option<String>,
    /// What the network's large layers multiply: `f32`, `bf16` or `int8`.
    #[serde(default)]
    pub precision: MatmulPrecision,
}

/// All combinations of models, solvers, steps and guidance.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grid {
    /// Names of models; all where it is not given.
    #[serde(default)]
    pub models: Option<Vec<String>>,
    /// The solvers.
    pub solvers: Vec<SolverPlan>,
    /// Numbers of network evaluations.
    pub steps: Vec<usize>,
    /// Scales of probabilistic guidance; 0 is none.
    #[serde(default)]
    pub guidance: Vec<f64>,
    /// Scales of classifier-free guidance; 1 is none.
    #[serde(default)]
    pub cfg: Vec<f64>,
    /// How much of the guidance direction's part along the prediction is removed.
    #[serde(default)]
    pub orthogonal: Option<f64>,
    /// The times between which there is guidance.
    #[serde(default)]
    pub guidance_interval: Option<[f64; 2]>,
}

/// A solver by its name, or with settings.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum SolverPlan {
    /// With its defaults.
    Name(String),
    /// With settings.
    Settings(SolverSettings),
}

/// A solver with settings, as `gmflow sample` takes them.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SolverSettings {
    /// The solver.
    pub solver: String,
    /// 1 or 2.
    #[serde(default)]
    pub order: Option<u8>,
    /// Sub-steps of gm-ode.
    #[serde(default)]
    pub substeps: Option<usize>,
    /// Whether gm-sde uses the spectrum network.
    #[serde(default)]
    pub spectral: Option<bool>,
    /// How steps of order 2 carry out the change; the model's own where it is not given.
    #[serde(default)]
    pub second_order: Option<SecondOrderMode>,
    /// The variance that reweighting goes by; the model's own where it is not given.
    #[serde(default)]
    pub reweight_by: Option<ReweightScale>,
    /// Order 2 without moving the previous prediction to the new point.
    #[serde(default)]
    pub unconverted: bool,
    /// What it is called in charts and tables.
    #[serde(default)]
    pub label: Option<String>,
}

/// One measurement to be made.
#[derive(Clone, Debug, PartialEq)]
pub struct Cell {
    pub(super) model: usize,
    pub(super) label: String,
    pub(super) sampler: SamplerOptions,
}

impl Cell {
    /// The index of its model in the plan.
    pub fn model(&self) -> usize {
        self.model
    }

    /// What its solver is called in charts and tables.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// What is asked of the sampler; the rest follows from the model.
    pub fn sampler(&self) -> &SamplerOptions {
        &self.sampler
    }
}

impl Plan {
    /// Reads and checks a plan. Its relative paths are taken from the working directory, or from the plan's folder where they exist there
    /// alone.
    ///
    /// # Errors
    /// A file that cannot be read; a setting that is unknown or out of range, with the name of the file.
    pub fn read(path: &Path) -> Result<Self> {
        let here = |field: &str| format!("{}: {field}", path.display());
        let text = text::read(path).map_err(|error| Error::io(path, error))?;
        let mut plan: Self = text
            .and_then(|text| settings::table(&text))
            .and_then(settings::settings)
            .map_err(|Wrong { field, expected, got }| Error::config(here(&field), expected, got))?;
        plan.check().map_err(|error| error.renamed(here))?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let checkpoints = plan.models.iter_mut().map(|model| &mut model.checkpoint);
        for named in checkpoints.chain([&mut plan.reference.data]) {
            let beside = folder.join(&*named);
            if named.is_relative() && !named.exists() && beside.exists() {
                *named = beside;
            }
        }
        Ok(plan)
    }

    /// Checks every setting, and every cell as far as no model is needed.
    ///
    /// # Errors
    /// [`crate::FilesError::Config`] with the name of the setting.
    pub fn check(&self) -> Result<()> {
        if !(2..=limits::MOST_SAMPLES).contains(&self.num) {
            return Err(Error::config("num", format!("2 to {}", limits::MOST_SAMPLES), self.num));
        }
        if let Some(batch) = self.batch.filter(|batch| !(1..=limits::MOST_SAMPLES).contains(batch)) {
            return Err(Error::config("batch", format!("1 to {}", limits::MOST_SAMPLES), batch));
        }
        if let Some(limit) = self.reference.limit.filter(|limit| *limit < 2) {
            return Err(Error::config("reference.limit", "at least 2", limit));
        }
        if self.models.is_empty() || self.grids.is_empty() {
            return Err(Error::config("model, grid", "at least one of each", "none"));
        }
        for (index, model) in self.models.iter().enumerate() {
            if model.name.trim().is_empty() {
                return Err(Error::config("model.name", "a name", "an empty text"));
            }
            if self.models[..index].iter().any(|other| other.name == model.name) {
                return Err(Error::config("model.name", "a name of its own for each model", &model.name));
            }
        }
        for grid in &self.grids {
            if grid.solvers.is_empty() || grid.steps.is_empty() {
                return Err(Error::config("grid", "at least one solver and one number of steps", "none"));
            }
            let substeps =
                grid.solvers.iter().filter_map(|solver| Some(("grid.solvers.substeps", solver.settings().substeps?)));
            for (field, value) in grid.steps.iter().map(|steps| ("grid.steps", *steps)).chain(substeps) {
                limits::count(field, value, limits::MOST_STEPS)?;
            }
        }
        self.reference
            .range
            .map_or(Ok(()), check_range)
            .map_err(|error| error.renamed(|field| format!("reference.{field}")))?;
        let cells = self.cells()?;
        for chart in &self.charts {
            let plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if chart.name.is_empty() || !chart.name.chars().all(plain) {
                return Err(Error::config("chart.name", "letters, digits, - and _", &chart.name));
            }
            // Names and labels may hold commas: the whole label counts. Classifier-free guidance adds to it.
            let known = |label: &String| {
                cells.iter().any(|cell| {
                    let name = format!("{}, {}", self.models[cell.model].name, cell.label);
                    *label == name || *label == format!("{name}, CFG")
                })
            };
            if let Some(unknown) = chart.curves.iter().find(|label| !known(label)) {
                return Err(Error::config(
                    "chart.curves",
                    "the name of a model, a comma, and the label of a solver",
                    unknown,
                ));
            }
        }
        Ok(())
    }

    /// Every cell once, in the order of the plan.
    ///
    /// # Errors
    /// A model or a solver that there is not, or settings that mean nothing.
    pub fn cells(&self) -> Result<Vec<Cell>> {
        let mut cells: Vec<Cell> = Vec::new();
        for grid in &self.grids {
            for model in self.models_of(grid)? {
                for solver in &grid.solvers {
                    for guidance in grid.guidances() {
                        for &steps in &grid.steps {
                            let cell = Cell {
                                model,
                                label: solver.label(),
                                sampler: SamplerOptions { steps: Some(steps), ..solver.sampler(&guidance)? },
                            };
                            cell.sampler.check()?;
                            if !cells.contains(&cell) {
                                cells.push(cell);
                            }
                        }
                    }
                }
            }
        }
        Ok(cells)
    }

    fn models_of(&self, grid: &Grid) -> Result<Vec<usize>> {
        let Some(names) = &grid.models else { return Ok((0..self.models.len()).collect()) };
        let find = |name: &String| {
            let known = || self.models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>().join(", ");
            self.models
                .iter()
                .position(|model| model.name == *name)
                .ok_or_else(|| Error::config("grid.models", known(), name))
        };
        names.iter().map(find).collect()
    }
}

impl Grid {
    /// The options of each guidance; the model's own where none is given.
    fn guidances(&self) -> Vec<SamplerOptions> {
        let (orthogonal, guidance_interval) = (self.orthogonal, self.guidance_interval);
        let with = |guidance, cfg| SamplerOptions {
            guidance,
            cfg,
            orthogonal,
            guidance_interval,
            ..SamplerOptions::default()
        };
        let probabilistic = self.guidance.iter().map(|&scale| with(Some(scale), None));
        let all: Vec<_> = probabilistic.chain(self.cfg.iter().map(|&scale| with(None, Some(scale)))).collect();
        if all.is_empty() { vec![SamplerOptions { guidance_interval, ..SamplerOptions::default() }] } else { all }
    }
}

impl SolverPlan {
    fn settings(&self) -> SolverSettings {
        match self {
            Self::Name(solver) => SolverSettings { solver: solver.clone(), ..SolverSettings::default() },
            Self::Settings(settings) => settings.clone(),
        }
    }

    fn label(&self) -> String {
        let SolverSettings { solver, order, label, .. } = self.settings();
        label.unwrap_or_else(|| match order {
            Some(order) => format!("{solver} {order}"),
            None => solver,
        })
    }

    fn sampler(&self, guidance: &SamplerOptions) -> Result<SamplerOptions> {
        let settings = self.settings();
        let solver = solver_by_name(&settings.solver);
        let solver = solver.map_err(|error| error.renamed(|_| "grid.solvers".into()))?;
        Ok(SamplerOptions {
            solver: Some(solver),
            order: settings.order,
            substeps: settings.substeps,
            spectral: settings.spectral,
            second_order: settings.second_order,
            reweight_by: settings.reweight_by,
            unconverted: settings.unconverted,
            ..guidance.clone()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(grid: &str) -> Result<Plan> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("plan.toml");
        let head = "title = 't'\nnum = 10\nreference = { data = 'x.toml' }\n\
                    [[model]]\nname = 'a'\ncheckpoint = 'a'\n[[model]]\nname = 'b'\ncheckpoint = 'b'\n[[grid]]\n";
        std::fs::write(&path, format!("{head}{grid}")).unwrap();
        Plan::read(&path)
    }

    #[test]
    fn a_grid_is_every_combination() {
        let solvers = "solvers = ['euler', { solver = 'gm-ode', order = 1, label = 'first' }]\n";
        let all = plan(&format!("{solvers}steps = [1, 2, 4]\nguidance = [0.0, 0.3]\ncfg = [2.0]\n")).unwrap();
        let cells = all.cells().unwrap();
        assert_eq!(cells.len(), 2 * 2 * 3 * 3);
        assert_eq!(
            (cells[9].label.as_str(), cells[9].sampler.order, cells[9].sampler.steps),
            ("first", Some(1), Some(1))
        );
        let one = plan("models = ['b']\nsolvers = ['heun']\nsteps = [3]\n").unwrap().cells().unwrap();
        assert_eq!((one.len(), one[0].model, one[0].sampler.guidance), (1, 1, None));
    }

    #[test]
    fn a_cell_of_two_grids_is_one_cell() {
        let grid = "solvers = ['euler']\nsteps = [1, 2]\n[[grid]]\nsolvers = ['euler', 'heun']\nsteps = [2]\n";
        assert_eq!(plan(grid).unwrap().cells().unwrap().len(), 2 * 3);
    }

    #[test]
    fn a_solver_names_how_it_reweights() {
        let solver = "solvers = [{ solver = 'gm-ode', second_order = 'translate', reweight_by = 'pixel' }]\n";
        let cells =
            plan(&format!("models = ['a']\n{solver}steps = [8]\nguidance = [0.1]\n")).unwrap().cells().unwrap();
        let SamplerOptions { second_order, reweight_by, .. } = cells[0].sampler;
        assert_eq!((second_order, reweight_by), (Some(SecondOrderMode::Translate), Some(ReweightScale::Pixel)));
    }

    #[test]
    fn a_plan_that_makes_no_sense_is_refused() {
        for (grid, part) in [
            ("solvers = ['magic']\nsteps = [1]\n", "gm-ode"),
            ("models = ['c']\nsolvers = ['euler']\nsteps = [1]\n", "a, b"),
            ("solvers = ['euler']\nsteps = [0]\n", "steps"),
            ("solvers = ['euler']\nsteps = [1]\nguidance = [1.5]\n", "guidance"),
            ("solvers = [{ solver = 'euler', order = 2 }]\nsteps = [1]\n", "order"),
            ("solvers = ['euler']\nsteps = [1]\nsteeps = 3\n", "steeps"),
            ("solvers = ['euler']\nsteps = [1]\n[[chart]]\nname = 'x'\ncurves = ['a, heun']\n", "a, heun"),
            ("solvers = ['euler']\nsteps = [1]\n[[chart]]\nname = 'x'\ncurves = ['a, euler 2']\n", "a, euler 2"),
            ("solvers = ['euler']\nsteps = [1]\n[[chart]]\nname = '../x'\ncurves = ['a, euler']\n", "../x"),
        ] {
            let message = format!("{:#}", plan(grid).unwrap_err());
            assert!(message.contains(part), "{grid}: {message}");
        }
    }
}
