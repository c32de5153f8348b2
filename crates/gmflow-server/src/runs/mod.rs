//! Training runs in folders, as `gmflow train` writes them. Nothing is written, and no run is waited for.

mod alerts;
mod log;
mod search;
mod sweeps;

use crate::refusal::{Answer, Refusal};
use gmflow_files::RUN_MANIFEST;
pub(crate) use log::{Curve, Log, Part};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// A folder of a run.
const RUN: search::Kind = search::Kind { marker: RUN_MANIFEST };
/// Bytes of a configuration at the most.
const MOST_CONFIG: u64 = 1 << 20;
/// Files and folders of a run.
const LOG_FILE: &str = "log.jsonl";
const CONFIG_FILE: &str = "config.toml";
const PICTURES: &str = "samples";
const CHECKPOINTS: &str = "checkpoints";
const FAILURE: &str = "failure/report.json";
const LOCK: &str = gmflow_files::FolderLock::FILE_NAME;

/// The runs below a folder.
#[derive(Debug)]
pub(crate) struct Runs {
    root: PathBuf,
}

/// One run.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub id: String,
    pub folder: PathBuf,
}

/// A picture that was made during training.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TrainingPicture {
    pub name: String,
    pub step: u64,
    pub updated: f64,
}

impl Runs {
    pub fn new(root: PathBuf) -> Self {
        Self { root }
    }

    /// All runs, those that changed last first.
    pub fn list(&self) -> Vec<Run> {
        let found = RUN.list(&self.root).into_iter().map(|(id, folder)| Run { id, folder });
        let mut found: Vec<(f64, Run)> = found.map(|run| (run.updated(), run)).collect();
        found.sort_by(|a, b| b.0.total_cmp(&a.0).then_with(|| a.1.id.cmp(&b.1.id)));
        found.into_iter().map(|(_, run)| run).collect()
    }

    /// The run with this id.
    pub fn find(&self, id: &str) -> Answer<Run> {
        let folder = RUN.find(&self.root, id).ok_or_else(|| Refusal::not_found(format!("no run {id}")))?;
        Ok(Run { id: id.to_owned(), folder })
    }

    /// The newest checkpoint of a run, or the one with this name.
    pub fn checkpoint(&self, id: &str, name: Option<&str>) -> Option<PathBuf> {
        let run = self.find(id).ok()?;
        let mut names = run.checkpoints();
        let name = match name {
            Some(name) => names.into_iter().find(|known| known == name),
            None => names.pop(),
        };
        name.map(|name| run.folder.join(CHECKPOINTS).join(name))
    }

    /// The ids of the runs that have a checkpoint.
    pub fn with_checkpoints(&self) -> Vec<String> {
        self.list().into_iter().filter(|run| !run.checkpoints().is_empty()).map(|run| run.id).collect()
    }
}

impl Run {
    /// The names of the complete checkpoints, the newest last.
    pub fn checkpoints(&self) -> Vec<String> {
        let folder = self.folder.join(CHECKPOINTS);
        let mut found: Vec<(u64, String)> = fs::read_dir(&folder)
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().to_str()?.to_owned();
                let step = name.strip_prefix("step-")?.parse().ok()?;
                entry.path().join("model.json").is_file().then_some((step, name))
            })
            .collect();
        found.sort();
        found.into_iter().map(|(_, name)| name).collect()
    }

    pub fn log(&self) -> Log {
        Log(self.folder.join(LOG_FILE))
    }

    /// The pictures, the first step first.
    pub fn pictures(&self) -> Vec<TrainingPicture> {
        let mut found: Vec<TrainingPicture> = fs::read_dir(self.folder.join(PICTURES))
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|entry| {
                let name = entry.file_name().to_str()?.to_owned();
                let step = name.strip_prefix("step-")?.strip_suffix(".png")?.parse().ok()?;
                Some(TrainingPicture { name, step, updated: changed(&entry.path()) })
            })
            .collect();
        found.sort_by_key(|picture| picture.step);
        found
    }

    /// The bytes of a picture.
    pub fn picture(&self, name: &str) -> Answer<Vec<u8>> {
        let known = self.pictures().into_iter().any(|picture| picture.name == name);
        let bytes = known.then(|| fs::read(self.folder.join(PICTURES).join(name)).ok()).flatten();
        bytes.ok_or_else(|| Refusal::not_found(format!("run {} has no picture {name}", self.id)))
    }

    /// When its log changed, or its configuration.
    fn updated(&self) -> f64 {
        changed(&self.folder.join(LOG_FILE)).max(changed(&self.folder.join(CONFIG_FILE)))
    }

    /// The text of its configuration.
    fn config_text(&self) -> Option<String> {
        let path = self.folder.join(CONFIG_FILE);
        let small = fs::metadata(&path).is_ok_and(|file| file.len() <= MOST_CONFIG);
        small.then(|| fs::read_to_string(path).ok()).flatten()
    }

    /// Whether a process writes into the folder. Its lock is not touched: who holds it stands in the file, which is empty otherwise.
    pub fn is_running(&self) -> bool {
        let Ok(holder) = fs::read_to_string(self.folder.join(LOCK)) else { return false };
        let process = holder.split("(process ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
        match process {
            // A process that was killed left its name behind.
            Some(process) if Path::new("/proc/self").exists() => Path::new(&format!("/proc/{process}")).exists(),
            Some(_) => true,
            None => !holder.trim().is_empty(),
        }
    }

    /// What is told of a run in a list.
    pub fn describe(&self) -> Value {
        let config = self.config_text().and_then(|text| toml::from_str::<toml::Value>(&text).ok());
        let tail = self.log().tail();
        let last = tail.last();
        let number = |name: &str| last.and_then(|line| line[name].as_u64()).unwrap_or(0);
        let total = config.as_ref().and_then(total_steps);
        let (step, running) = (number("step"), self.is_running());
        let state = match total {
            _ if running => "running",
            Some(total) if step >= total => "finished",
            _ => "stopped",
        };
        let pace = last.and_then(|line| line["images_per_s"].as_f64()).filter(|pace| *pace > 0.0);
        let each = if step > 0 { number("images") as f64 / step as f64 } else { 0.0 };
        let left = total.map(|total| total.saturating_sub(step) as f64 * each);
        let eta = left.zip(pace).map(|(left, pace)| (left / pace).round()).filter(|_| running);
        let checkpoints = self.checkpoints();
        json!({
            "id": self.id, "state": state, "step": step, "total_steps": total, "images": number("images"),
            "eta_s": eta, "updated": (self.updated() * 1e3).round() / 1e3, "log_bytes": self.log().size(),
            "last": last, "model": (!checkpoints.is_empty()).then(|| format!("run:{}", self.id)),
            "checkpoints": checkpoints, "pictures": self.pictures().len(), "alerts": self.alerts_of(&tail, running),
        })
    }

    /// The same with its configuration.
    pub fn show(&self) -> Value {
        let text = self.config_text();
        let config = text.as_deref().and_then(|text| toml::from_str::<toml::Value>(text).ok());
        let mut told = self.describe();
        told["config"] = json!(config);
        told["config_toml"] = json!(text);
        told
    }

    /// Its state and what is wrong with it, as an event tells it.
    pub fn state(&self) -> Value {
        let told = self.describe();
        json!({ "state": told["state"], "alerts": told["alerts"], "step": told["step"], "eta_s": told["eta_s"] })
    }

    fn alerts_of(&self, tail: &[Value], running: bool) -> Vec<Value> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let silent = running.then(|| since - changed(&self.folder.join(LOG_FILE)));
        alerts::of(tail, silent, self.folder.join(FAILURE).is_file())
    }
}

/// The optimiser steps of a whole run, as its configuration says.
fn total_steps(config: &toml::Value) -> Option<u64> {
    let train = config.get("train")?;
    let number = |name: &str| train.get(name).and_then(toml::Value::as_integer).and_then(|n| u64::try_from(n).ok());
    number("steps").or_else(|| Some(number("images")?.div_ceil(number("batch_size")?.max(1))))
}

/// When a file was changed, in seconds since 1970; 0 where it is not there.
fn changed(path: &Path) -> f64 {
    let changed = fs::metadata(path).and_then(|file| file.modified());
    changed
        .ok()
        .and_then(|time| time.duration_since(SystemTime::UNIX_EPOCH).ok())
        .map_or(0.0, |time| time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_at(folder: &Path) {
        fs::create_dir_all(folder.join("checkpoints/step-00000100")).unwrap();
        fs::write(folder.join("run.manifest"), "gmflow-run 1\n").unwrap();
        fs::write(folder.join("checkpoints/step-00000100/model.json"), "{}").unwrap();
        fs::create_dir_all(folder.join("checkpoints/step-00000200")).unwrap();
        fs::write(folder.join("config.toml"), "[train]\nimages = 100\nbatch_size = 8\n").unwrap();
    }

    #[test]
    fn runs_are_found_below_a_folder_and_nowhere_else() {
        let root = tempfile::tempdir().unwrap();
        run_at(&root.path().join("a"));
        run_at(&root.path().join("group/b"));
        fs::create_dir_all(root.path().join("empty")).unwrap();
        let runs = Runs::new(root.path().to_owned());
        let mut ids: Vec<String> = runs.list().into_iter().map(|run| run.id).collect();
        ids.sort();
        assert_eq!(ids, ["a", "group~b"]);
        assert_eq!(runs.find("group~b").unwrap().folder, root.path().join("group/b"));
        for id in ["", ".", "..", "..~a", "group", "a/../a", "group~~b", "c"] {
            assert!(runs.find(id).is_err(), "{id}");
        }
        let newest = root.path().join("a/checkpoints/step-00000100");
        assert_eq!(runs.checkpoint("a", None), Some(newest), "the other one is not complete");
        assert_eq!(runs.checkpoint("a", Some("step-00000200")), None);
        assert_eq!(runs.checkpoint("a", Some("../../group/b/checkpoints/step-00000100")), None);
    }

    #[test]
    fn a_run_by_itself_has_the_name_of_its_folder() {
        let root = tempfile::tempdir().unwrap();
        run_at(&root.path().join("mine"));
        let runs = Runs::new(root.path().join("mine"));
        assert_eq!(runs.list()[0].id, "mine");
        assert!(runs.find("mine").is_ok() && runs.find("other").is_err());
    }

    #[test]
    fn a_run_tells_its_state() {
        let root = tempfile::tempdir().unwrap();
        run_at(root.path());
        let runs = Runs::new(root.path().to_owned());
        let run = runs.list().remove(0);
        let line = |step: u64| {
            format!(
                "{{\"step\":{step},\"images\":{},\"loss\":0.5,\"grad_norm\":1.0,\"lr\":0.1,\"images_per_s\":4.0}}\n",
                8 * step
            )
        };
        fs::write(root.path().join("log.jsonl"), line(5) + &line(10)).unwrap();
        let told = run.describe();
        assert_eq!((told["state"].as_str(), told["step"].as_u64()), (Some("stopped"), Some(10)));
        assert_eq!((told["total_steps"].as_u64(), told["eta_s"].as_f64()), (Some(13), None));
        fs::write(root.path().join(LOCK), format!("gmflow train (process {} on host x)", std::process::id()))
            .unwrap();
        let told = run.describe();
        assert_eq!((told["state"].as_str(), told["eta_s"].as_f64()), (Some("running"), Some(6.0)));
        fs::write(root.path().join("log.jsonl"), line(13)).unwrap();
        fs::write(root.path().join(LOCK), "").unwrap();
        assert_eq!(run.describe()["state"], "finished");
        assert_eq!(run.show()["config"]["train"]["batch_size"], 8);
    }
}
