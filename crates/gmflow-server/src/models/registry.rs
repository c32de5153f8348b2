//! All models of a server.

use super::entry::{Entry, Served};
use crate::config::{ModelSource, ServerConfig};
use crate::refusal::{Answer, Refusal};
use crate::runs::Runs;
use crate::{Error, Result};
use axum::http::StatusCode;
use burn::tensor::Device;
use gmflow_eval::ModelOptions;
use gmflow_files::nearest;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// The first part of the id of a run's checkpoint.
const RUN: &str = "run:";
/// Checkpoints of runs that are known at the most.
const MOST_OF_RUNS: usize = 32;

/// All models of a server.
#[derive(Debug)]
pub(crate) struct Registry {
    /// Those that the server was started with.
    named: Vec<Arc<Entry>>,
    /// Checkpoints of runs that were asked for, the oldest first.
    of_runs: Mutex<Vec<Arc<Entry>>>,
    runs: Option<Arc<Runs>>,
    run_options: ModelOptions,
    device: Device,
    device_name: String,
    budget: Option<u64>,
    ready: AtomicBool,
}

impl Registry {
    /// Reads the descriptions of all models.
    pub fn new(config: &ServerConfig, runs: Option<Arc<Runs>>) -> Result<Self> {
        let entry = |source: &ModelSource| {
            let ModelSource { id, folder, options } = source.clone();
            Entry::new(id, folder, options, None)
                .map(Arc::new)
                .map_err(|refusal| Error::config("model", source.folder.display().to_string(), refusal.message))
        };
        Ok(Self {
            named: config.models.iter().map(entry).collect::<Result<_>>()?,
            of_runs: Mutex::default(),
            runs,
            run_options: config.run_options.clone(),
            device: config.device.clone(),
            device_name: config.device_name.clone(),
            budget: config.limits.model_bytes,
            ready: AtomicBool::new(config.models.is_empty()),
        })
    }

    /// Loads the models that the server was started with, as many as the memory for models holds.
    pub fn load_named(&self) {
        let mut bytes = 0u64;
        for (index, entry) in self.named.iter().enumerate() {
            bytes = bytes.saturating_add(entry.bytes());
            if index == 0 || self.budget.is_none_or(|budget| bytes <= budget) {
                // What went wrong is in the log and in the list of models.
                let _ = self.acquire(entry);
            }
        }
        self.ready.store(true, Ordering::SeqCst);
    }

    /// Whether the models that the server was started with are loaded.
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::SeqCst)
    }

    /// The model with this id, or the first.
    pub fn find(&self, id: Option<&str>) -> Answer<Arc<Entry>> {
        let entry = match id {
            None => self.named.first().cloned().ok_or_else(|| self.unknown("none")),
            Some(id) => match id.strip_prefix(RUN) {
                Some(run) => return self.of_run(id, run),
                None => self.named.iter().find(|entry| entry.id == id).cloned().ok_or_else(|| self.unknown(id)),
            },
        }?;
        if !self.is_ready() && entry.loaded().is_none() {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            return Err(Refusal::new(status, "loading", format!("model {} is being loaded", entry.id)).after(1));
        }
        Ok(entry)
    }

    fn unknown(&self, id: &str) -> Refusal {
        let ids: Vec<&str> = self.named.iter().map(|entry| entry.id.as_str()).collect();
        let mut expected = if ids.is_empty() { "the id of a model".to_owned() } else { ids.join(" or ") };
        if self.runs.is_some() {
            expected.push_str(" or run:ID of a training run");
        }
        let got = match nearest(id, &ids) {
            Some(near) => format!("{id} (did you mean {near}?)"),
            None => id.to_owned(),
        };
        Refusal::field("model", expected, got)
    }

    /// The checkpoint of a run.
    fn of_run(&self, id: &str, run: &str) -> Answer<Arc<Entry>> {
        let (run, step) = run.split_once('@').map_or((run, None), |(run, step)| (run, Some(step)));
        let folder = self.runs.as_ref().and_then(|runs| runs.checkpoint(run, step));
        let folder = folder.ok_or_else(|| self.unknown(id))?;
        let mut known = self.of_runs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = known.iter().find(|entry| entry.id == id && entry.folder == folder) {
            return Ok(Arc::clone(entry));
        }
        known.retain(|entry| entry.id != id);
        let entry = Arc::new(Entry::new(id.to_owned(), folder, self.run_options.clone(), Some(run.to_owned()))?);
        known.push(Arc::clone(&entry));
        if known.len() > MOST_OF_RUNS {
            // The oldest that is not in memory.
            let unloaded = known.iter().position(|entry| entry.loaded().is_none()).unwrap_or(0);
            known.remove(unloaded);
        }
        Ok(entry)
    }

    /// The model in memory; others make room for it that are not used.
    pub fn acquire(&self, entry: &Entry) -> Answer<Arc<Served>> {
        entry.load(&self.device, || self.make_room(entry))
    }

    fn make_room(&self, wanted: &Entry) {
        let Some(budget) = self.budget else { return };
        let mut loaded: Vec<Arc<Entry>> = self.all().into_iter().filter(|entry| entry.loaded().is_some()).collect();
        loaded.sort_by_key(|entry| std::cmp::Reverse(entry.idle()));
        let mut bytes = loaded.iter().fold(wanted.bytes(), |sum, entry| sum.saturating_add(entry.bytes()));
        for entry in loaded {
            if bytes <= budget {
                return;
            }
            if entry.id != wanted.id && entry.unload() {
                log::info!("model {} unloaded to make room", entry.id);
                bytes = bytes.saturating_sub(entry.bytes());
            }
        }
    }

    /// Unloads models that nobody has used for so long.
    pub fn unload_idle(&self, idle: Duration) {
        for entry in self.all() {
            if entry.loaded().is_some() && entry.idle() >= idle && entry.unload() {
                log::info!("model {} unloaded: not used for {} s", entry.id, idle.as_secs());
            }
        }
    }

    fn all(&self) -> Vec<Arc<Entry>> {
        let of_runs = self.of_runs.lock().unwrap_or_else(PoisonError::into_inner);
        self.named.iter().chain(of_runs.iter()).cloned().collect()
    }

    /// Models in memory.
    pub fn loaded(&self) -> usize {
        self.all().iter().filter(|entry| entry.loaded().is_some()).count()
    }

    /// The list of models: those of the command line, and the newest checkpoint of every run.
    pub fn describe(&self) -> Value {
        let mut told: Vec<Value> = self
            .named
            .iter()
            .enumerate()
            .map(|(index, entry)| entry.describe(index == 0, &self.device_name))
            .collect();
        let newest: Vec<String> = self.runs.as_ref().map_or_else(Vec::new, |runs| runs.with_checkpoints());
        told.extend(newest.into_iter().take(MOST_OF_RUNS / 2).filter_map(|run| {
            let entry = self.of_run(&format!("{RUN}{run}"), &run).ok()?;
            Some(entry.describe(false, &self.device_name))
        }));
        json!({ "object": "list", "data": told })
    }
}
