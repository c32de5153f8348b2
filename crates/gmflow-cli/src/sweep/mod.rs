//! `gmflow sweep`: a grid of measurements, each made once.

mod chart;
mod plan;
mod report;
mod results;
mod weights;

use crate::args::{ArrayArgs, DownloadArgs, FeatureArgs, PublishedArgs, SweepArgs};
use crate::data_source;
use crate::device::device;
use crate::eval::judge::{Judge, Order, RealImages};
use crate::eval::row::Row;
use crate::eval::source::{Reading, Source};
use crate::eval::{Asked, features, judge, load};
use crate::failure::one_line;
use crate::local;
use crate::output;
use crate::sampler::{ModelTraits, Sampler};
use crate::table::Form;
use crate::terminal;
use anyhow::{Result, anyhow, bail};
use burn::tensor::Device;
use gmflow::checkpoint::{Model, remove_leftovers};
use gmflow::kernel::{self, Arithmetic};
use gmflow_data::DatasetConfig;
use gmflow_eval::likelihood::TIMES;
use gmflow_eval::{CompareConfig, Likelihood};
use gmflow_files::FolderLock;
use plan::{Cell, ModelPlan, Plan};
use results::{Line, Results, likelihood_key};
use serde_json::{Value, json};
use std::path::PathBuf;
use weights::{Weights, weights};

/// Runs the command.
pub fn run(arguments: &SweepArgs) -> Result<()> {
    let plan = Plan::read(&arguments.plan)?;
    local::expect([plan.reference.data.as_path()])?;
    let device = device(&arguments.device.name)?;
    let file = arguments.out.join("cells.jsonl");
    output::create_folder(&arguments.out)?;
    let _lock = FolderLock::acquire(&arguments.out, "gmflow sweep")?;
    remove_leftovers(&arguments.out, is_written)?;
    if arguments.force {
        output::remove_file(&file)?;
    }
    let weights = plan.models.iter().map(|model| weights(&model.checkpoint)).collect();
    let (download, data) = (arguments.download, arguments.named.data_dir.clone());
    let mut sweep = Sweep { results: Results::open(&file)?, plan, weights, device, download, data };
    let failed = kernel::in_pool(|| sweep.run())?;
    let cells = sweep.plan.cells()?;
    let lines: Vec<&Line> = cells.iter().filter_map(|cell| sweep.finished(cell)).collect();
    let plan = &sweep.plan;
    let density = sweep.density()?;
    let table = report::write(plan, &lines, density.as_ref(), (&arguments.out, Form::new(arguments.table.markdown)))?;
    match arguments.table.json {
        true => output::json(&lines)?,
        false => output::line(table.trim_end())?,
    }
    if failed > 0 {
        bail!("{failed} of {} cells failed; the same call tries them again ({})", cells.len(), file.display());
    }
    Ok(())
}

/// Whether a sweep writes files with such a name.
fn is_written(name: &str) -> bool {
    ["md", "svg", "png", "jsonl"].iter().any(|ending| name.ends_with(&format!(".{ending}")))
}

struct Sweep {
    plan: Plan,
    results: Results,
    /// What every model is read from now.
    weights: Vec<Option<Weights>>,
    device: Device,
    download: DownloadArgs,
    /// The folder of --data.
    data: Option<PathBuf>,
}

/// What the reference opens to, once for all cells.
struct Bench {
    judge: Judge,
    images: Option<RealImages>,
}

/// A model that is loaded.
struct Loaded {
    index: usize,
    model: Model,
    precision: Arithmetic,
}

/// A cell's row and, for points, its histogram.
type Measured = (Row, Option<Vec<u64>>);

impl Plan {
    /// Everything that a cell's figures depend on.
    fn key(&self, cell: &Cell) -> Value {
        let model = &self.models[cell.model];
        let mut key = json!({
            "checkpoint": model.checkpoint, "ema": model.ema, "sampler": cell.sampler.as_json(),
            "num": self.num, "seed": self.seed, "reference": self.reference, "nll": self.nll
        });
        // Cells of sweeps that were made before there was a choice are cells in f32.
        if model.precision != Arithmetic::F32 {
            key["precision"] = json!(model.precision);
        }
        key
    }
}

impl Sweep {
    fn weights(&self, model: usize) -> Option<&Weights> {
        self.weights.get(model)?.as_ref()
    }

    fn finished(&self, cell: &Cell) -> Option<&Line> {
        self.results.finished(&self.plan.key(cell), self.weights(cell.model))
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

    /// Makes every measurement that has not been made; returns how many failed.
    fn run(&mut self) -> Result<usize> {
        let cells = self.plan.cells()?;
        self.warn_of_changes(&cells);
        let missing: Vec<Cell> = cells.into_iter().filter(|cell| self.finished(cell).is_none()).collect();
        if missing.is_empty() {
            return Ok(0);
        }
        let bench = self.bench()?;
        let bar = terminal::bar(missing.len() as u64, "cells", "cells");
        let (mut loaded, mut failed) = (None, 0);
        for cell in missing {
            let (key, model) = (self.plan.key(&cell), self.plan.models[cell.model].name.clone());
            let measured = self.measured(&cell, &key, &bench, &mut loaded);
            let weights = self.weights(cell.model).cloned();
            let line = Line { label: cell.label.clone(), ..Line::of(key, model, weights) };
            let line = match measured {
                Ok((row, histogram)) => Line { row: Some(row), histogram, ..line },
                Err(error) => {
                    failed += 1;
                    let error = one_line(&error);
                    log::warn!("{}, {}, {} steps: {error}", line.model, line.label, cell.sampler.steps);
                    Line { error: Some(error), ..line }
                }
            };
            self.results.add(line)?;
            bar.inc(1);
        }
        bar.finish_and_clear();
        Ok(failed)
    }

    fn measured(&mut self, cell: &Cell, key: &Value, bench: &Bench, loaded: &mut Option<Loaded>) -> Result<Measured> {
        if loaded.as_ref().is_none_or(|loaded| loaded.index != cell.model) {
            // The one before is let go first: two large models need not fit into memory.
            *loaded = None;
            *loaded = Some(self.load(cell.model)?);
        }
        let Some(Loaded { model, precision, .. }) = loaded else { bail!("the model is not loaded") };
        let sampler = Sampler::new(&cell.sampler, ModelTraits::of(&model.info))?;
        let likelihood = self.likelihood(cell, key, bench, model)?;
        let order = Order { num: Some(self.plan.num), seed: self.plan.seed, batch: self.plan.batch };
        let mut histogram = None;
        let name = self.plan.models[cell.model].name.clone();
        let row = bench.judge.checkpoint(name, (model, *precision), &sampler, order, &mut |points| {
            let range = gmflow_eval::points::PointsConfig::default().range;
            let counted = gmflow_data::density::histogram(points, report::BINS, [-range, range]);
            histogram = Some(counted.counts);
        })?;
        Ok((Row { likelihood, ..row }, histogram))
    }

    /// The likelihood of the reference under a cell's model, where the plan asks for it: measured once, whatever is sampled.
    fn likelihood(&mut self, cell: &Cell, key: &Value, bench: &Bench, model: &Model) -> Result<Option<Likelihood>> {
        let Some(images) = bench.images.as_ref().filter(|_| self.plan.nll) else { return Ok(None) };
        if let Some(known) = self.results.likelihood(key, self.weights(cell.model)) {
            return Ok(Some(known.clone()));
        }
        let likelihood = Some(bench.judge.likelihood(model, images, TIMES)?);
        let name = self.plan.models[cell.model].name.clone();
        let line = Line::of(likelihood_key(key), name, self.weights(cell.model).cloned());
        self.results.add(Line { label: "likelihood".into(), likelihood: likelihood.clone(), ..line })?;
        Ok(likelihood)
    }

    fn load(&self, index: usize) -> Result<Loaded> {
        let ModelPlan { checkpoint, ema, precision, .. } = &self.plan.models[index];
        let published = PublishedArgs::default();
        let asked = Asked { ema: ema.as_deref(), precision: *precision, published: &published, vae: None };
        let (model, precision) = load(checkpoint, asked, &self.device)?;
        Ok(Loaded { index, model, precision })
    }

    fn bench(&self) -> Result<Bench> {
        let reference = &self.plan.reference;
        let arrays = ArrayArgs { range: reference.range, layout: reference.layout };
        let real =
            Source::open(&reference.data, &Reading { arrays, data: self.data.as_deref(), ..Reading::default() })?;
        let network = match real {
            Source::Density(_) => None,
            _ => {
                let asked = FeatureArgs { features: reference.features.clone(), download: self.download };
                features::network(&asked, &self.device)?
            }
        };
        let config = CompareConfig { moments_only: reference.moments_only, ..CompareConfig::default() };
        let (judge, images) = judge(&reference.data, real, network, (reference.limit, config), &self.device)?;
        if self.plan.nll && images.is_none() {
            return Err(anyhow!("nll: expected reference.data to name images, got {}", reference.data.display()));
        }
        Ok(Bench { judge, images })
    }

    /// The density that points are compared with, for pictures.
    fn density(&self) -> Result<Option<gmflow_data::Density>> {
        let path = &self.plan.reference.data;
        if !path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("toml")) {
            return Ok(None);
        }
        match data_source::from_toml(path, self.data.as_deref())? {
            DatasetConfig::Density(density) => {
                density.validate()?;
                Ok(Some(density))
            }
            _ => Ok(None),
        }
    }
}
