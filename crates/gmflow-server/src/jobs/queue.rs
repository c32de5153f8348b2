//! The queue: which requests are taken, and which part of which request is worked on next.
//!
//! Requests are served in turns, a part each, so that a small request does not wait for all of a large one. As many parts are worked on
//! at once as fill two network calls: while one is computed, the solvers of the other do their steps.

use super::job::{Job, Phase};
use super::plan::Plan;
use super::work;
use crate::config::ServerLimits;
use crate::engine::Engine;
use crate::metrics::Metrics;
use crate::models::Registry;
use crate::refusal::{Answer, Refusal};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// Parts that are worked on at once, each on a thread of its own.
pub(crate) const MOST_PARTS: usize = 64;

/// Takes requests and works on them.
pub(crate) struct Queue {
    state: Mutex<State>,
    engine: Engine,
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    limits: ServerLimits,
    threads: Handle,
    /// Jobs that have not ended.
    busy: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    /// Jobs with parts that nobody works on, the next one first.
    waiting: VecDeque<Arc<Job>>,
    /// Jobs that have not ended, in the order they came in.
    active: Vec<Arc<Job>>,
    /// Parts that are worked on.
    parts: usize,
    /// How much of two network calls they fill.
    filled: u64,
    draining: bool,
}

impl Queue {
    pub fn new(
        engine: Engine,
        registry: Arc<Registry>,
        metrics: Arc<Metrics>,
        limits: ServerLimits,
        threads: Handle,
    ) -> Arc<Self> {
        let busy = watch::Sender::new(0);
        Arc::new(Self { state: Mutex::default(), engine, registry, metrics, limits, threads, busy })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a request, or refuses all of it.
    pub fn submit(self: &Arc<Self>, plan: Plan, followed: bool) -> Answer<Arc<Job>> {
        let job = Arc::new(Job::new(plan, followed));
        let mut state = self.lock();
        if state.draining {
            self.metrics.rejected("draining");
            return Err(Refusal::draining());
        }
        self.admit(&state)?;
        state.active.push(Arc::clone(&job));
        if followed {
            let before = state.waiting.iter().filter(|other| other.phase() == Phase::Queued).count();
            job.tell_position(before, || eta(&job, &state.active));
        }
        state.waiting.push_back(Arc::clone(&job));
        self.pump(&mut state);
        Ok(job)
    }

    /// Refuses where too much waits already.
    fn admit(&self, state: &State) -> Answer<()> {
        let wait = seconds(&state.active);
        let (most, count) = (self.limits.wait.as_secs_f64(), state.active.len());
        let over = match count {
            0 => return Ok(()),
            _ if count >= self.limits.queue => wait / count as f64,
            _ if wait > most => wait - most,
            _ => return Ok(()),
        };
        self.metrics.rejected("queue_full");
        let seconds = over.ceil().clamp(1.0, 3600.0) as u64;
        let message = format!("{count} requests wait, work for {wait:.1} s; come again in {seconds} s");
        Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message).after(seconds))
    }

    /// Begins to work on as many parts as fit, and tells those that wait where they stand.
    fn pump(self: &Arc<Self>, state: &mut State) {
        let batch = self.limits.batch.map(|batch| batch as u64);
        while let Some(job) = state.waiting.front() {
            // Images and points are counted in what fills the same share of a call.
            let size = job.plan.batch as u64 * batch[usize::from(!job.plan.entry.is_points())];
            let fits = state.parts < MOST_PARTS && state.filled + size <= 2 * batch[0] * batch[1];
            if state.parts > 0 && !fits {
                break;
            }
            let Some(job) = state.waiting.pop_front() else { break };
            let Some(range) = job.take_part() else { continue };
            if job.has_more() {
                state.waiting.push_back(Arc::clone(&job));
            }
            state.parts += 1;
            state.filled += size;
            let queue = Arc::clone(self);
            self.threads.spawn_blocking(move || {
                let first = range.start;
                let work = || {
                    let model = queue.registry.acquire(&job.plan.entry)?;
                    work::draw(&job, range, &model, &queue.engine)
                };
                let outcome = catch_unwind(AssertUnwindSafe(work))
                    .unwrap_or_else(|_| Err(Refusal::failed("a solver failed; the log has more")));
                if let Err(refusal) = &outcome
                    && !job.is_cancelled()
                {
                    log::error!("{}: {}", job.id, refusal.message);
                }
                queue.end_part(&job, (first, size), outcome);
            });
        }
        self.tell(state);
    }

    fn end_part(
        self: &Arc<Self>,
        job: &Arc<Job>,
        (first, size): (usize, u64),
        outcome: Answer<gmflow::samples::Samples>,
    ) {
        if let Ok(samples) = &outcome {
            self.metrics.samples(samples.len());
        }
        job.end_part(first, outcome);
        let mut state = self.lock();
        state.parts -= 1;
        state.filled -= size;
        self.pump(&mut state);
    }

    /// Forgets jobs that have ended, and tells those that wait where they stand.
    fn tell(&self, state: &mut State) {
        state.active.retain(|job| !job.phase().has_ended());
        let active = &state.active;
        let begun = |job: &Arc<Job>| job.phase() != Phase::Queued;
        for (position, job) in state.waiting.iter().filter(|job| !begun(job)).enumerate() {
            if job.followed {
                job.tell_position(position, || eta(job, active));
            }
        }
        self.metrics.queue(active.len(), state.parts);
        let count = active.len();
        self.busy.send_if_modified(|busy| std::mem::replace(busy, count) != count);
    }

    /// Cancels a job. Returns whether it had not ended.
    pub fn cancel(self: &Arc<Self>, job: &Arc<Job>) -> bool {
        let cancelled = job.cancel();
        if cancelled {
            self.metrics.cancelled();
            let mut state = self.lock();
            state.waiting.retain(|other| !Arc::ptr_eq(other, job));
            self.pump(&mut state);
        }
        cancelled
    }

    /// The time to a job's end.
    pub fn eta(&self, job: &Arc<Job>) -> f64 {
        eta(job, &self.lock().active)
    }

    /// Takes no more requests.
    pub fn drain(&self) {
        self.lock().draining = true;
    }

    pub fn is_draining(&self) -> bool {
        self.lock().draining
    }

    /// Waits until no job is left.
    pub async fn idle(&self) {
        let mut busy = self.busy.subscribe();
        let _ = busy.wait_for(|busy| *busy == 0).await;
    }

    /// Cancels everything, and ends the engine.
    pub fn close(self: &Arc<Self>) {
        self.drain();
        let active = self.lock().active.clone();
        active.iter().for_each(|job| {
            self.cancel(job);
        });
        self.engine.close();
    }

    /// What waits and what runs.
    pub fn describe(&self) -> Value {
        let state = self.lock();
        let rounded = |value: f64| (value * 1e3).round() / 1e3;
        let mut position = 0;
        let jobs: Vec<Value> = state
            .active
            .iter()
            .map(|job| {
                let phase = job.phase();
                let place = if phase == Phase::Queued { position } else { 0 };
                position += usize::from(phase == Phase::Queued);
                json!({
                    "id": job.id, "state": phase.name(), "model": job.plan.entry.id, "samples": job.plan.seeds.len(),
                    "steps": job.plan.steps(), "position": place, "eta_s": rounded(eta(job, &state.active)),
                })
            })
            .collect();
        let queued = jobs.iter().filter(|job| job["state"] == "queued").count();
        let pace = state.active.first().and_then(|job| job.plan.entry.pace.get());
        json!({
            "queued": queued, "running": jobs.len() - queued, "wait_s": rounded(seconds(&state.active)),
            "max_wait_s": self.limits.wait.as_secs_f64(), "work_per_s": pace.map(f64::round),
            "draining": state.draining, "jobs": jobs,
        })
    }
}

/// The time that the work of all jobs takes.
fn seconds(active: &[Arc<Job>]) -> f64 {
    active.iter().map(|job| job.seconds_left()).sum()
}

/// The time to a job's end. Jobs are served in turns, so that of a longer one only as much comes before as this one has left.
fn eta(job: &Arc<Job>, active: &[Arc<Job>]) -> f64 {
    let own = job.seconds_left();
    let others = active.iter().filter(|other| !Arc::ptr_eq(other, job));
    own + others.map(|other| other.seconds_left().min(own)).sum::<f64>()
}
