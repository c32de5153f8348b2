//! The jobs that can be asked for, as long as they are kept.

use super::job::Job;
use crate::refusal::{Answer, Refusal};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The jobs that can be asked for.
#[derive(Debug)]
pub(crate) struct Store {
    jobs: Mutex<BTreeMap<String, Arc<Job>>>,
    keep: Duration,
    bytes: usize,
}

impl Store {
    /// Keeps jobs so long after their end, and results of so many bytes.
    pub fn new(keep: Duration, bytes: usize) -> Self {
        Self { jobs: Mutex::default(), keep, bytes }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Job>>> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn insert(&self, job: &Arc<Job>) {
        self.lock().insert(job.id.clone(), Arc::clone(job));
        self.sweep();
    }

    pub fn get(&self, id: &str) -> Answer<Arc<Job>> {
        let job = self.lock().get(id).cloned();
        job.ok_or_else(|| Refusal::not_found(format!("no job {id}: it is not known, or no longer kept")))
    }

    pub fn remove(&self, id: &str) {
        self.lock().remove(id);
    }

    /// Forgets jobs that ended long ago, and more where their results take too much memory.
    pub fn sweep(&self) {
        let now = Instant::now();
        let mut jobs = self.lock();
        let mut ended: Vec<(Instant, usize, String)> = Vec::new();
        let mut bytes = 0usize;
        for (id, job) in jobs.iter() {
            let (end, size) = job.kept();
            bytes = bytes.saturating_add(size);
            ended.extend(end.map(|end| (end, size, id.clone())));
        }
        ended.sort();
        for (end, size, id) in ended {
            if now.saturating_duration_since(end) < self.keep && bytes <= self.bytes {
                break;
            }
            bytes = bytes.saturating_sub(size);
            jobs.remove(&id);
        }
    }
}
