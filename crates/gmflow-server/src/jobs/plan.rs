//! A request with everything resolved and checked: what will be computed.

use super::body::{ClassName, Plane, SampleBody, Seed, TraceBody};
use crate::config::ServerLimits;
use crate::models::{Entry, Registry};
use crate::refusal::{Answer, Refusal};
use burn::tensor::Device;
use gmflow::FilesError;
use gmflow::checkpoint::DataKind;
use gmflow::limits;
use gmflow::pipeline::SamplerConfig;
use gmflow::solver::SolverConfig;
use gmflow_eval::sampler::describe;
use rand::RngExt;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;

/// Images, and points, where nothing is said of their number.
const COUNTS: [usize; 2] = [1, 1000];
/// Bytes of a number.
const F32: usize = 4;

/// What will be computed.
#[derive(Debug)]
pub(crate) struct Plan {
    pub entry: Arc<Entry>,
    pub config: SamplerConfig,
    /// The settings, for people.
    pub sampler: Value,
    /// How the samples are made, for their files.
    pub made_by: Value,
    pub seeds: Vec<u64>,
    pub classes: Option<Vec<usize>>,
    pub trace: Trace,
    /// Samples that are computed at once.
    pub batch: usize,
    /// Network calls for a sample.
    pub calls: usize,
    /// Rows of the network for a sample in one call.
    pub rows_of_sample: usize,
    /// The request as it was written.
    pub request: Value,
}

/// Which steps are kept, and what of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Trace {
    /// 0 is none.
    pub every: usize,
    pub x0: bool,
    pub x: bool,
    pub mixture: bool,
}

impl Trace {
    /// Whether anything is kept of this step of so many.
    pub fn keeps(&self, step: usize, of: usize) -> bool {
        self.every > 0 && (self.x0 || self.x || self.mixture) && (step.is_multiple_of(self.every) || step == of)
    }

    pub fn planes(&self) -> Vec<Plane> {
        let all = [(self.x0, Plane::X0), (self.x, Plane::X), (self.mixture, Plane::Mixture)];
        all.into_iter().filter(|(there, _)| *there && self.every > 0).map(|(_, plane)| plane).collect()
    }
}

/// How the answer is to be had, which decides what is traced where nothing is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answering {
    /// At once, when everything is done.
    Plain,
    /// Event by event.
    Followed,
}

impl Plan {
    pub fn steps(&self) -> usize {
        self.config.steps
    }

    /// Rows of the network for all samples and steps together.
    pub fn rows(&self) -> usize {
        self.seeds.len().saturating_mul(self.calls).saturating_mul(self.rows_of_sample)
    }

    /// Parts that it is computed in.
    pub fn parts(&self) -> usize {
        self.seeds.len().div_ceil(self.batch.max(1))
    }

    /// The seconds that it takes alone; nothing is known of them before the model is loaded.
    pub fn seconds(&self) -> f64 {
        let cost = self.entry.pace.cost().unwrap_or_default();
        let calls = self.parts() as f64 * self.calls as f64;
        calls * cost.call + self.rows() as f64 * cost.row
    }
}

/// Makes plans of requests.
#[derive(Debug)]
pub(crate) struct Planner {
    pub registry: Arc<Registry>,
    pub limits: ServerLimits,
    pub device: Device,
}

impl Planner {
    /// The plan of a request, or what is wrong with it. Nothing is computed.
    pub fn plan(&self, fields: Map<String, Value>, answering: Answering) -> Answer<Plan> {
        let request = Value::Object(fields.clone());
        let body: SampleBody = super::body::read(fields)?;
        self.resolve(&body, request, answering)
    }

    /// The same of a body that was read.
    pub fn resolve(&self, body: &SampleBody, request: Value, answering: Answering) -> Answer<Plan> {
        let entry = self.registry.find(body.model.as_deref())?;
        let config = body.sampler()?.config(&entry.info)?;
        if config.steps > self.limits.steps {
            let expected = format!("at most {}, as this server was told", self.limits.steps);
            return Err(Refusal::too_large("steps", expected, config.steps));
        }
        let seeds = self.seeds(body, entry.is_points())?;
        let classes = classes(body, &entry, seeds.len())?;
        let kind = usize::from(entry.is_points());
        let batch = self.limits.batch[kind].min(seeds.len());
        let rows_of_sample = if config.guidance.is_active() { 2 } else { 1 };
        let rows_at_once = batch * rows_of_sample;
        let need = limits::prediction(&entry.info.network, entry.shape(), rows_at_once, &self.device)?;
        need.check("n", seeds.len(), "lower n, or --batch of the server")?;
        let trace = self.trace(body, answering, &entry, (&config, seeds.len()))?;
        let sampler = describe(&config, entry.info.data.kind);
        let calls = match config.solver {
            SolverConfig::Heun(_) => 2 * config.steps - 1,
            _ => config.steps,
        };
        let plan = Plan {
            made_by: entry.made_by(sampler.clone()),
            calls,
            rows_of_sample,
            entry,
            config,
            sampler,
            seeds,
            classes,
            trace,
            batch,
            request,
        };
        self.check_time(&plan)?;
        Ok(plan)
    }

    /// Refuses what would take longer than a request may.
    fn check_time(&self, plan: &Plan) -> Answer<()> {
        let time = Duration::try_from_secs_f64(plan.seconds()).unwrap_or(Duration::MAX);
        if time <= self.limits.time {
            return Ok(());
        }
        let expected = format!("work of at most {} s: lower n or steps", self.limits.time.as_secs());
        Err(Refusal::too_large("n, steps", expected, format!("about {:.0} s", time.as_secs_f64())))
    }

    fn seeds(&self, body: &SampleBody, points: bool) -> Answer<Vec<u64>> {
        let kind = usize::from(points);
        let most = self.limits.samples[kind];
        let limited = |field: &str, count: u64| match count {
            0 => Err(Refusal::field(field, "at least 1", 0)),
            _ if count > most as u64 => {
                Err(Refusal::too_large(field, format!("at most {most}, as this server was told"), count))
            }
            _ => Ok(count as usize),
        };
        if let Some(seeds) = &body.seeds {
            let count = limited("seeds", seeds.len() as u64)?;
            if body.seed.is_some() {
                return Err(Refusal::field("seed", "no seeds beside it", "both"));
            }
            if body.n.is_some_and(|n| n != count as u64) {
                let expected = format!("{count}, the number of seeds, or nothing");
                return Err(Refusal::field("n", expected, body.n.unwrap_or_default()));
            }
            return Ok(seeds.iter().map(|Seed(seed)| *seed).collect());
        }
        let count = limited("n", body.n.unwrap_or(COUNTS[kind] as u64))?;
        let first = body.seed.map_or_else(|| rand::rng().random(), |Seed(seed)| seed);
        Ok((0..count as u64).map(|index| first.wrapping_add(index)).collect())
    }

    fn trace(
        &self,
        body: &SampleBody,
        answering: Answering,
        entry: &Entry,
        (config, samples): (&SamplerConfig, usize),
    ) -> Answer<Trace> {
        let trace = match &body.trace {
            Some(TraceBody { every: 0, .. }) => return Err(Refusal::field("trace.every", "at least 1", 0)),
            Some(TraceBody { every, planes }) => Trace {
                every: *every,
                x0: planes.contains(&Plane::X0),
                x: planes.contains(&Plane::X),
                mixture: planes.contains(&Plane::Mixture),
            },
            None if answering == Answering::Plain => return Ok(Trace::default()),
            None => Trace { every: 1, x0: true, x: false, mixture: false },
        };
        let [c, h, w] = entry.shape();
        let mixture = entry.info.network.num_gaussians() * (c + 1) + 1;
        let planes = [(trace.x0, c), (trace.x, c), (trace.mixture, mixture)];
        let values = planes.into_iter().filter(|(there, _)| *there).map(|(_, n)| n);
        let steps = config.steps / trace.every.max(1) + 1;
        let bytes = [h, w, samples, steps, F32].iter().fold(values.sum::<usize>(), |n, of| n.saturating_mul(*of));
        if bytes <= self.limits.trace_bytes {
            return Ok(trace);
        }
        if body.trace.is_none() {
            // Nobody asked for pictures of so many samples.
            return Ok(Trace::default());
        }
        let megabytes = |bytes: usize| format!("{} MB", bytes.div_ceil(1 << 20));
        let expected = format!("at most {}: lower n, steps or planes", megabytes(self.limits.trace_bytes));
        Err(Refusal::too_large("trace", expected, megabytes(bytes)))
    }
}

/// The class of every sample; classes are taken in turn.
fn classes(body: &SampleBody, entry: &Entry, samples: usize) -> Answer<Option<Vec<usize>>> {
    let names = entry.info.class_names();
    let asked: Option<(&str, &[ClassName])> = match (&body.class, &body.classes) {
        (Some(_), Some(_)) => return Err(Refusal::field("class", "no classes beside it", "both")),
        (Some(class), None) => Some(("class", std::slice::from_ref(class))),
        (None, classes) => classes.as_deref().map(|classes| ("classes", classes)),
    };
    let turns = match (asked, entry.info.network.num_classes()) {
        (None, 0) => return Ok(None),
        (Some((field, _)), 0) => {
            return Err(Refusal::field(field, "nothing: the model has no classes", "a class"));
        }
        (Some((field, [])), _) => return Err(Refusal::field(field, "at least one class", "none")),
        (None, _) => entry.info.drawn_classes(),
        (Some((field, asked)), _) => {
            let found = asked.iter().map(|ClassName(name)| names.find(name)).collect::<Result<Vec<_>, _>>();
            found.map_err(|error| match error {
                gmflow::Error::Files(FilesError::Config { expected, got, .. }) => {
                    Refusal::field(field, expected, got)
                }
                other => other.into(),
            })?
        }
    };
    let turn = |index: usize| turns.get(index % turns.len().max(1)).copied();
    Ok(Some((0..samples).filter_map(turn).collect()))
}

impl Plan {
    /// What a follower needs to know before the first step.
    pub fn started(&self, id: &str) -> Value {
        json!({
            "id": id, "steps": self.steps(), "samples": self.seeds.len(), "sampler": self.sampler,
            "seeds": self.seeds.iter().map(u64::to_string).collect::<Vec<_>>(), "classes": self.classes,
            "shape": self.entry.shape(), "components": self.entry.info.network.num_gaussians(),
            "points": self.entry.info.data.kind == DataKind::Points,
        })
    }

    /// What is known of sample `index` before it is drawn.
    pub fn sample(&self, index: usize) -> Value {
        let seed = self.seeds.get(index).copied().unwrap_or_default();
        let mut told = json!({ "seed": seed.to_string() });
        if let Some(class) = self.classes.as_ref().and_then(|classes| classes.get(index)) {
            told["class"] = json!(class);
            told["class_name"] = json!(self.entry.class_name(*class));
        }
        told
    }
}
