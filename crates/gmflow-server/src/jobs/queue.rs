//! The queue: which requests are taken, and which part of which request is worked on next.
//!
//! Requests are served in turns, a part each, so that a small request does not wait for all of a large one. How many parts are worked on
//! at once, and when jobs will end, is in `forecast`.

use super::forecast::{self, AtWork, Load, Turn};
use super::job::{Job, Phase, rounded};
use super::plan::Plan;
use super::work;
use crate::config::ServerLimits;
use crate::engine::Engine;
use crate::metrics::Metrics;
use crate::models::Registry;
use crate::refusal::{Answer, Refusal};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::cell::OnceCell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::watch;

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
    at_work: AtWork,
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
        state.active.retain(|job| !job.phase().has_ended());
        state.active.push(Arc::clone(&job));
        state.waiting.push_back(Arc::clone(&job));
        let ends = self.ends(&state);
        if let Err(refusal) = self.admit(&state, &ends) {
            state.active.pop();
            state.waiting.pop_back();
            return Err(refusal);
        }
        if followed {
            let before = state.waiting.iter().filter(|other| other.phase() == Phase::Queued).count() - 1;
            job.tell_position(before, || ends.last().copied().unwrap_or_default());
        }
        self.pump(&mut state);
        Ok(job)
    }

    /// Refuses the last job where too much is there already: more requests than may wait and run, or so much work that this job would
    /// end too long after the time that it takes alone. The engine shares its time, so that a long job delays a short one little.
    fn admit(&self, state: &State, ends: &[f64]) -> Answer<()> {
        let [others @ .., job] = state.active.as_slice() else { return Ok(()) };
        let [ends @ .., end] = ends else { return Ok(()) };
        if others.is_empty() {
            return Ok(());
        }
        let alone = forecast::ends(&[job.load(0, self.limits.batch)], [0], self.full()).into_iter().sum::<f64>();
        let (wait, most) = ((end - alone).max(0.0), self.limits.wait.as_secs_f64());
        let seconds = |time: f64| time.ceil().clamp(1.0, 3600.0) as u64;
        let (over, why) = if others.len() >= self.limits.queue {
            let first = ends.iter().copied().reduce(f64::min).unwrap_or_default();
            (seconds(first), format!("and no more than {} may wait and run", self.limits.queue))
        } else if wait > most {
            (seconds(wait - most), format!("this one would wait for {wait:.1} s, and {most} s are allowed"))
        } else {
            return Ok(());
        };
        self.metrics.rejected("queue_full");
        let queued = others.iter().filter(|other| other.phase() == Phase::Queued).count();
        let there = format!("{queued} requests wait and {} run", others.len() - queued);
        let message = format!("{there}, {why}; come again in {over} s");
        Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "queue_full", message).after(over))
    }

    /// What fills a network call.
    fn full(&self) -> u64 {
        self.limits.batch.iter().map(|batch| *batch as u64).product()
    }

    /// The seconds until each active job ends.
    fn ends(&self, state: &State) -> Vec<f64> {
        let mut models: Vec<&str> = Vec::new();
        let loads: Vec<Load> = state
            .active
            .iter()
            .map(|job| {
                let id = job.plan.entry.id.as_str();
                let model = models.iter().position(|known| *known == id).unwrap_or_else(|| {
                    models.push(id);
                    models.len() - 1
                });
                job.load(model, self.limits.batch)
            })
            .collect();
        let place = |job: &Arc<Job>| state.active.iter().position(|other| Arc::ptr_eq(other, job));
        forecast::ends(&loads, state.waiting.iter().filter_map(place), self.full())
    }

    /// Begins to work on as many parts as fit, and tells those that wait where they stand.
    fn pump(self: &Arc<Self>, state: &mut State) {
        let (batch, full) = (self.limits.batch, self.full());
        let turn = |job: &Arc<Job>| Turn { size: job.size(batch), begun: job.open_parts() > 0 };
        while let Some(place) = state.at_work.next(state.waiting.iter().map(turn), full) {
            let Some(job) = state.waiting.remove(place) else { break };
            let size = job.size(batch);
            let Some(range) = job.take_part() else { continue };
            if job.has_more() {
                state.waiting.push_back(Arc::clone(&job));
            }
            state.at_work.add(size);
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
        state.at_work.remove(size);
        self.pump(&mut state);
    }

    /// Forgets jobs that have ended, and tells those that wait where they stand.
    fn tell(&self, state: &mut State) {
        state.active.retain(|job| !job.phase().has_ended());
        let ends = OnceCell::new();
        let begun = |job: &Arc<Job>| job.phase() != Phase::Queued;
        for (position, job) in state.waiting.iter().filter(|job| !begun(job)).enumerate() {
            if job.followed {
                job.tell_position(position, || self.end(state, job, ends.get_or_init(|| self.ends(state))));
            }
        }
        let count = state.active.len();
        self.metrics.queue(count, state.at_work.parts);
        self.busy.send_if_modified(|busy| std::mem::replace(busy, count) != count);
    }

    /// Cancels a job. Returns whether it had not ended.
    pub fn cancel(self: &Arc<Self>, job: &Arc<Job>) -> bool {
        let cancelled = job.cancel();
        if cancelled {
            self.metrics.cancelled();
            self.leave(job);
        }
        cancelled
    }

    /// The time to a job's end.
    pub fn eta(&self, job: &Arc<Job>) -> f64 {
        let state = self.lock();
        self.end(&state, job, &self.ends(&state))
    }

    /// The end of one of the active jobs; 0 of another one.
    fn end(&self, state: &State, job: &Arc<Job>, ends: &[f64]) -> f64 {
        let place = state.active.iter().position(|other| Arc::ptr_eq(other, job));
        place.and_then(|place| ends.get(place)).copied().unwrap_or_default()
    }

    /// Ends jobs that have been running longer than a job may.
    pub fn end_overdue(self: &Arc<Self>) {
        let limit = self.limits.run;
        let overdue = |job: &&Arc<Job>| job.running().is_some_and(|time| time > limit);
        let overdue: Vec<Arc<Job>> = self.lock().active.iter().filter(overdue).cloned().collect();
        for job in overdue {
            let message = format!("the job ran longer than {} s, which is all that a job may", limit.as_secs());
            if job.fail(Refusal::new(StatusCode::GATEWAY_TIMEOUT, "timeout", &*message)) {
                log::warn!("{}: {message}", job.id);
                self.leave(&job);
            }
        }
    }

    /// Takes a job that was ended out of the line.
    fn leave(self: &Arc<Self>, job: &Arc<Job>) {
        let mut state = self.lock();
        state.waiting.retain(|other| !Arc::ptr_eq(other, job));
        self.pump(&mut state);
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
        let ends = self.ends(&state);
        let mut position = 0;
        let jobs: Vec<Value> = state
            .active
            .iter()
            .zip(&ends)
            // One that has just ended is taken out of the list a moment later.
            .map(|(job, end)| (job, job.phase(), end))
            .filter(|(_, phase, _)| !phase.has_ended())
            .map(|(job, phase, end)| {
                let place = if phase == Phase::Queued { position } else { 0 };
                position += usize::from(phase == Phase::Queued);
                json!({
                    "id": job.id, "state": phase.name(), "model": job.plan.entry.id, "samples": job.plan.seeds.len(),
                    "steps": job.plan.steps(), "position": place, "eta_s": rounded(*end),
                })
            })
            .collect();
        let queued = jobs.iter().filter(|job| job["state"] == "queued").count();
        let pace = state.active.first().and_then(|job| {
            let load = job.load(0, self.limits.batch);
            let rows = load.joined.unwrap_or(load.rows);
            let cost = job.plan.entry.pace.cost()?;
            Some((rows * job.plan.entry.pixels()) as f64 / cost.of(rows).max(1e-9))
        });
        json!({
            "queued": queued, "running": jobs.len() - queued, "wait_s": rounded(ends.iter().copied().fold(0.0, f64::max)),
            "max_wait_s": self.limits.wait.as_secs_f64(), "work_per_s": pace.map(f64::round),
            "draining": state.draining, "jobs": jobs,
        })
    }
}
