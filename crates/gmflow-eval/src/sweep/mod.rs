//! Sweeps: every combination of models, solvers, steps and guidance that a plan names is measured once.
//!
//! ```
//! use burn::tensor::Device;
//! use gmflow_data::Density;
//! use gmflow_eval::models::model_folder;
//! use gmflow_eval::sweep::{Curves, Plan, Results, Sweep};
//! use gmflow_eval::{CompareConfig, Judge, Reference};
//! # use gmflow::checkpoint::{DataInfo, DataKind, Model, ModelInfo, Precision};
//! # use gmflow::network::{Mlp2dConfig, NetworkConfig};
//!
//! let folder = tempfile::tempdir()?;
//! # let data = DataInfo { channels: 2, height: 1, width: 1, kind: DataKind::Points };
//! # let network = NetworkConfig::Mlp2d(Mlp2dConfig { num_gaussians: 2, hidden_dim: 16, ..Mlp2dConfig::default() });
//! # let info = ModelInfo::new(network, data);
//! # let network = info.network.init(1, &Device::flex())?;
//! # Model { info, network, spectrum: None, vae: None }.save(&folder.path().join("k2"), &[], Precision::F32)?;
//! let plan = folder.path().join("plan.toml");
//! std::fs::write(&plan, "title = 'Toy'\nnum = 100\nreference = { data = 'checkerboard' }\n\
//!     [[model]]\nname = 'two'\ncheckpoint = 'k2'\n[[grid]]\nsolvers = ['gm-ode', 'euler']\nsteps = [1, 2]\n")?;
//!
//! let results = Results::open(&folder.path().join("cells.jsonl"))?;
//! let mut sweep = Sweep::new(Plan::read(&plan)?, results, Device::flex());
//! let cells = sweep.missing()?;
//! let (jobs, failed) = sweep.prepare(cells, &mut |path| model_folder(path).map_err(|error| error.to_string()))?;
//! assert_eq!((jobs.len(), failed), (4, 0));
//! let judge = Judge {
//!     reference: Reference::Density(Density::CHECKERBOARD, "checkerboard".into()),
//!     images: None,
//!     network: None,
//!     config: CompareConfig::default(),
//!     device: Device::flex(),
//! };
//! assert_eq!(sweep.measure(jobs, &judge, &mut ())?, 0);
//! assert!(sweep.missing()?.is_empty());
//! for curve in Curves::of(&sweep.finished()?).distance_over_steps() {
//!     println!("{}: {:?}", curve.label, curve.points); // (steps, total variation)
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod curves;
mod plan;
mod results;
mod weights;

pub use curves::{Curve, Curves};
pub use plan::{Cell, ChartPlan, Grid, ModelPlan, Plan, ReferencePlan, SolverPlan, SolverSettings};
pub use results::{Line, Results};
pub use weights::{Weights, weights};

use crate::likelihood::TIMES;
use crate::points::PointsConfig;
use crate::progress::{Part, Progress};
use crate::{DrawOptions, Error, Judge, Likelihood, LoadedModel, Measured, ModelOptions, Result, Row};
use burn::tensor::Device;
use gmflow::checkpoint::{Model, ModelInfo};
use gmflow::kernel::MatmulPrecision;
use gmflow::pipeline::SamplerConfig;
use gmflow_world::{Shard, share};
use results::likelihood_key;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Bins along a side of the histograms that are kept of points.
pub const BINS: usize = 64;

/// A plan and what of it has been measured.
pub struct Sweep {
    plan: Plan,
    results: Results,
    /// What every model is read from now.
    weights: Vec<Option<Weights>>,
    device: Device,
}

/// A cell that is ready to be measured.
#[derive(Clone, Debug)]
pub struct Job {
    cell: Cell,
    /// The model's folder, and what it holds.
    model: (PathBuf, ModelInfo),
    /// The settings for this model.
    config: SamplerConfig,
}

impl Job {
    /// The cell of the plan.
    pub fn cell(&self) -> &Cell {
        &self.cell
    }

    /// The settings that its model is sampled with.
    pub fn config(&self) -> &SamplerConfig {
        &self.config
    }
}

/// Says which folder holds a model by its path or name in the plan, or why there is none.
pub type Resolve<'a> = dyn FnMut(&Path) -> Result<PathBuf, String> + 'a;

impl Plan {
    /// Everything that a cell's figures depend on.
    fn key(&self, cell: &Cell) -> Value {
        let model = &self.models[cell.model];
        let mut key = json!({
            "checkpoint": model.checkpoint, "ema": model.ema, "sampler": cell.sampler,
            "num": self.num, "seed": self.seed, "reference": self.reference, "nll": self.nll
        });
        // Cells of sweeps that were made before there was a choice are cells in f32.
        if model.precision != MatmulPrecision::F32 {
            key["precision"] = json!(model.precision);
        }
        key
    }

    fn draw_options(&self) -> DrawOptions {
        DrawOptions { num: Some(self.num), seed: self.seed, batch: self.batch }
    }
}

impl Sweep {
    /// A sweep that goes on from these results. Models are measured on `device`.
    pub fn new(plan: Plan, results: Results, device: Device) -> Self {
        let weights = plan.models.iter().map(|model| weights(&model.checkpoint)).collect();
        Self { plan, results, weights, device }
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Of the cells of the plan those of part `index` of `count`, as far as they are not finished. Neighbouring cells have the same model.
    ///
    /// # Errors
    /// As [`Plan::cells`].
    pub fn missing_of_part(&self, shard: Shard) -> Result<Vec<Cell>> {
        let cells = self.plan.cells()?;
        let range = share(cells.len(), shard.index(), shard.count());
        let mut cells: Vec<Cell> = cells.into_iter().skip(range.start).take(range.len()).collect();
        self.warn_of_changes(&cells);
        cells.retain(|cell| self.outcome(cell).is_none());
        Ok(cells)
    }

    /// What has been measured.
    pub fn results(&mut self) -> &mut Results {
        &mut self.results
    }

    /// The outcomes of the cells that are finished, in the order of the plan.
    ///
    /// # Errors
    /// As [`Plan::cells`].
    pub fn finished(&self) -> Result<Vec<&Line>> {
        Ok(self.plan.cells()?.iter().filter_map(|cell| self.outcome(cell)).collect())
    }

    /// The cells that are not finished, in the order of the plan. Says in the log which models have changed since their cells were measured.
    ///
    /// # Errors
    /// As [`Plan::cells`].
    pub fn missing(&self) -> Result<Vec<Cell>> {
        self.missing_of_part(Shard::WHOLE)
    }

    /// Finds the models of some cells and settles how they are sampled, before anything is measured. Returns what can be measured, and how
    /// many cells cannot, with the reasons in the results and in the log.
    ///
    /// # Errors
    /// A cell of another plan; the results cannot be written.
    pub fn prepare(&mut self, cells: Vec<Cell>, resolve: &mut Resolve) -> Result<(Vec<Job>, usize)> {
        let mut models: Vec<Option<Result<(PathBuf, ModelInfo), String>>> = vec![None; self.plan.models.len()];
        let (mut jobs, mut failed) = (Vec::new(), 0);
        for cell in cells {
            self.check_is_of_plan(&cell)?;
            let found = models[cell.model].get_or_insert_with(|| {
                let folder = resolve(&self.plan.models[cell.model].checkpoint)?;
                let info = ModelInfo::load(&folder).map_err(|error| error.to_string())?;
                Ok((folder, info))
            });
            let job = found.clone().and_then(|model| {
                let config = cell.sampler.config(&model.1).map_err(|error| error.to_string())?;
                Ok((model, config))
            });
            match job {
                Ok((model, config)) => jobs.push(Job { cell, model, config }),
                Err(why) => {
                    failed += 1;
                    self.fail(&cell, None, &why)?;
                }
            }
        }
        Ok((jobs, failed))
    }

    /// Measures cells, after a look whether all of them fit the reference and the memory; returns how many failed. Each outcome is written
    /// as soon as it is there.
    ///
    /// # Errors
    /// A likelihood is asked for and the reference has no images; a cell of another plan; the results cannot be written.
    pub fn measure(&mut self, jobs: Vec<Job>, judge: &Judge, progress: &mut dyn Progress) -> Result<usize> {
        if self.plan.nll && judge.images.is_none() {
            let got = self.plan.reference.data.display();
            return Err(Error::config("nll", "reference.data to name images", got));
        }
        let count = jobs.len();
        let (mut fitting, mut loaded) = (Vec::new(), None);
        for job in jobs {
            self.check_is_of_plan(&job.cell)?;
            match judge.check(&job.model.1, &job.config, self.plan.draw_options()) {
                Ok(()) => fitting.push(job),
                Err(error) => self.fail(&job.cell, Some(job.config), &error.to_string())?,
            }
        }
        let mut failed = count - fitting.len();
        let mut part = Part::begin(progress, "cells", fitting.len() as u64, "cells");
        for (done, job) in fitting.iter().enumerate() {
            match self.measured(job, judge, &mut loaded, part.within()) {
                Ok((row, histogram)) => {
                    let line = self.line(&job.cell, Some(job.config));
                    self.results.add(Line { row: Some(row), histogram, ..line })?;
                }
                Err(error) => {
                    failed += 1;
                    self.fail(&job.cell, Some(job.config), &error.to_string())?;
                }
            }
            part.at(done as u64 + 1)?;
        }
        Ok(failed)
    }

    fn check_is_of_plan(&self, cell: &Cell) -> Result<()> {
        let count = self.plan.models.len();
        let expected = || Error::config("cell.model", format!("one of the plan's {count} models"), cell.model);
        if cell.model < count { Ok(()) } else { Err(expected()) }
    }

    fn outcome(&self, cell: &Cell) -> Option<&Line> {
        self.results.finished(&self.plan.key(cell), self.weights(cell.model))
    }

    fn weights(&self, model: usize) -> Option<&Weights> {
        self.weights.get(model)?.as_ref()
    }

    fn line(&self, cell: &Cell, config: Option<SamplerConfig>) -> Line {
        let model = self.plan.models[cell.model].name.clone();
        let line = Line::of(self.plan.key(cell), model, self.weights(cell.model).cloned());
        Line { label: cell.label.clone(), config, ..line }
    }

    /// Records that a cell could not be measured.
    fn fail(&mut self, cell: &Cell, config: Option<SamplerConfig>, why: &str) -> Result<()> {
        let error = one_line(why);
        let line = self.line(cell, config);
        let steps = cell.sampler.steps.unwrap_or_default();
        log::warn!("{}, {}, {steps} steps: {error}", line.model, line.label);
        self.results.add(Line { error: Some(error), ..line })
    }

    /// Says which models have changed since cells of theirs were measured.
    fn warn_of_changes(&self, cells: &[Cell]) {
        for (index, model) in self.plan.models.iter().enumerate() {
            let keys: Vec<Value> =
                cells.iter().filter(|cell| cell.model == index).map(|cell| self.plan.key(cell)).collect();
            let outdated = self.results.outdated(keys.iter(), self.weights(index));
            if outdated > 0 {
                let (name, path) = (&model.name, model.checkpoint.display());
                log::warn!(
                    "{name}: {path} has changed since {outdated} of its cells were measured; they are measured again"
                );
            }
        }
    }

    /// A cell's row and, for points, its histogram. `loaded` is the model of the cell before, by its index.
    fn measured(
        &mut self,
        job: &Job,
        judge: &Judge,
        loaded: &mut Option<(usize, LoadedModel)>,
        progress: &mut dyn Progress,
    ) -> Result<(Row, Option<Vec<u64>>)> {
        let index = job.cell.model;
        let at_hand = loaded.take().filter(|(of, _)| *of == index);
        // The one before is let go first: two large models need not fit into memory.
        let (_, model) = match at_hand {
            Some(at_hand) => loaded.insert(at_hand),
            None => loaded.insert((index, self.load(job)?)),
        };
        let likelihood = self.likelihood(&job.cell, judge, &model.model, progress)?;
        let Measured { row, points } = judge.model(model, &job.config, self.plan.draw_options(), progress)?;
        let histogram = points.map(|points| {
            let range = PointsConfig::default().range;
            gmflow_data::density::histogram(&points, BINS, [-range, range]).counts
        });
        Ok((Row { likelihood, ..row }, histogram))
    }

    /// The likelihood of the reference under a cell's model, where the plan asks for it: measured once, whatever is sampled.
    fn likelihood(
        &mut self,
        cell: &Cell,
        judge: &Judge,
        model: &Model,
        progress: &mut dyn Progress,
    ) -> Result<Option<Likelihood>> {
        if !self.plan.nll {
            return Ok(None);
        }
        let key = self.plan.key(cell);
        if let Some(known) = self.results.likelihood(&key, self.weights(cell.model)) {
            return Ok(Some(known.clone()));
        }
        let likelihood = Some(judge.likelihood(model, TIMES, progress)?);
        let name = self.plan.models[cell.model].name.clone();
        let line = Line::of(likelihood_key(&key), name, self.weights(cell.model).cloned());
        self.results.add(Line { label: "likelihood".into(), likelihood: likelihood.clone(), ..line })?;
        Ok(likelihood)
    }

    fn load(&self, job: &Job) -> Result<LoadedModel> {
        let ModelPlan { name, ema, precision, .. } = &self.plan.models[job.cell.model];
        let options = ModelOptions { ema: ema.clone(), precision: (*precision).into(), ..ModelOptions::default() };
        LoadedModel::open(name, &job.model.0, &options, &self.device)
    }
}

/// A message without line breaks.
fn one_line(message: &str) -> String {
    let lines = message.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.collect::<Vec<_>>().join("; ")
}
