//! `gmflow demo`: two models on a checkerboard, compared in one picture and one table.

mod preset;
mod report;

use crate::args::DemoArgs;
use crate::output;
use crate::plot::{Heat, Panel, Sheet};
use crate::terminal;
use anyhow::Result;
use burn::tensor::Device;
use gmflow::checkpoint::{Model, Precision, write_atomic};
use gmflow::solver::SolverConfig;
use gmflow_train::{Config, StepReport, Trainer};
use preset::{CELLS, POINTS, PRESETS, Preset, STEPS};
use report::{Distance, RANGE, Report, Row, TRUTH, Training, truth};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Steps that a time budget is converted with.
const TRIAL_STEPS: u64 = 60;
/// The brightest colour stands for this multiple of the uniform density on the whole square; the truth has 2.
const BRIGHTEST: f64 = 3.5;

/// The files of the demo.
struct Files {
    picture: PathBuf,
    markdown: PathBuf,
    csv: PathBuf,
    json: PathBuf,
    models: PathBuf,
}

impl Files {
    fn of(folder: &Path) -> Self {
        Self {
            picture: folder.join("demo.png"),
            markdown: folder.join("table.md"),
            csv: folder.join("table.csv"),
            json: folder.join("table.json"),
            models: folder.join("models"),
        }
    }

    fn all(&self) -> [&Path; 5] {
        [&self.picture, &self.markdown, &self.csv, &self.json, &self.models]
    }
}

/// Runs the command.
pub fn run(arguments: &DemoArgs) -> Result<()> {
    let files = Files::of(&arguments.out);
    output::refuse_existing(files.all(), arguments.force)?;
    output::create_folder(&arguments.out)?;
    let chance = Distance::of(&TRUTH.sample(arguments.seed, u64::MAX, POINTS))?.total_variation;
    let mut report = Report { seed: arguments.seed, points: POINTS, training: Vec::new(), chance, rows: Vec::new() };
    let mut lines = Vec::new();
    let device = Device::flex();
    for preset in &PRESETS {
        let (model, training) = train(preset, arguments, &device)?;
        model.save(&files.models.join(preset.name), &[], Precision::F32)?;
        for (solver, name) in preset.solvers {
            let (rows, panels) = measure(&model, solver, name, arguments.seed, &device)?;
            let label = vec![name.to_owned(), format!("K = {}", training.components), preset.label.to_owned()];
            lines.push((label, panels));
            report.rows.extend(rows);
        }
        report.training.push(training);
    }
    write(&report, lines, &files)?;
    if arguments.json {
        return output::json(&report);
    }
    output::line(report.text()?.trim_end())?;
    output::line(&format!("\nPicture: {}", files.picture.display()))
}

/// Trains one model and returns it with the averaged weights.
fn train(preset: &Preset, arguments: &DemoArgs, device: &Device) -> Result<(Model, Training)> {
    let mut config = preset.config(arguments.seed)?;
    if let Some(seconds) = arguments.seconds {
        config.train.steps = Some(steps_within(seconds, &config, device)?);
    }
    let components = config.network.num_gaussians();
    let average = config.ema.first().map(|ema| ema.name.clone());
    let (total, batch_size) = (config.total_steps(), config.train.batch_size);
    let bar = terminal::rate(0, total, &format!("training K={components}"), ("points", 1.0 / batch_size as f64));
    let start = Instant::now();
    let mut trainer = Trainer::new(config, device)?;
    while trainer.steps_taken() < total {
        let StepReport { step, .. } = trainer.step()?;
        bar.set_position(step);
    }
    bar.finish_and_clear();
    let mut model = gmflow_train::checkpoint::model(&trainer)?;
    model.network = trainer.snapshot(average.as_deref())?;
    let loss = serde_json::to_value(trainer.config().loss)?;
    let seconds = start.elapsed().as_secs_f64();
    Ok((model, Training { components, loss, steps: total, batch_size, seconds }))
}

/// How many steps fit into the time, from a short trial.
fn steps_within(seconds: u64, config: &Config, device: &Device) -> Result<u64> {
    let mut trial = Trainer::new(config.clone(), device)?;
    trial.step()?;
    let start = Instant::now();
    for _ in 0..TRIAL_STEPS {
        trial.step()?;
    }
    let per_second = TRIAL_STEPS as f64 / start.elapsed().as_secs_f64();
    Ok(((seconds as f64 * per_second) as u64).max(1))
}

/// Samples with every number of steps; returns the figures and the pictures.
fn measure(
    model: &Model,
    solver: SolverConfig,
    name: &str,
    seed: u64,
    device: &Device,
) -> Result<(Vec<Row>, Vec<Panel>)> {
    let bar = terminal::bar(STEPS.len() as u64, &format!("sampling {name}"), "pictures");
    let (mut rows, mut panels) = (Vec::new(), Vec::new());
    for steps in STEPS {
        let start = Instant::now();
        let points = preset::draw(model, solver, steps, seed, device)?;
        let seconds = start.elapsed().as_secs_f64();
        let distance = Distance::of(&points)?;
        let components = model.info.network.num_gaussians();
        rows.push(Row { components, solver: name.to_owned(), steps, distance, seconds });
        panels.push(Panel { heat: Heat::of_points(&points, CELLS, RANGE), caption: caption(distance) });
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok((rows, panels))
}

fn caption(distance: Distance) -> String {
    format!("TV {:.3}   outside {:.1} %", distance.total_variation, 100.0 * distance.outside)
}

fn write(report: &Report, rows: Vec<(Vec<String>, Vec<Panel>)>, files: &Files) -> Result<()> {
    let columns = STEPS.map(|steps| if steps == 1 { "1 step".to_owned() } else { format!("{steps} steps") });
    let caption = format!("chance alone: TV {:.3}", report.chance);
    let sheet = Sheet {
        title: "Few-step sampling of a checkerboard: one Gaussian against a mixture of 64".into(),
        columns: columns.into(),
        rows,
        reference: ("true density".into(), Panel { heat: truth(CELLS)?, caption }),
        brightest: BRIGHTEST,
    };
    let json = serde_json::to_string_pretty(report)?;
    sheet.draw()?.save_png(&files.picture, &[("gmflow", &json)])?;
    write_atomic(&files.markdown, report.markdown()?.as_bytes())?;
    write_atomic(&files.csv, report.csv()?.as_bytes())?;
    Ok(write_atomic(&files.json, json.as_bytes())?)
}
