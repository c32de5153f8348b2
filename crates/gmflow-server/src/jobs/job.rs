//! A request on its way: its state, its events and its result.

use super::forecast::Load;
use super::plan::Plan;
use super::trace::StepTrace;
use crate::engine::{Calls, Engine};
use crate::refusal::Refusal;
use gmflow::samples::Samples;
use rand::RngExt;
use serde_json::{Value, json};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::watch;

/// Seconds as they are told.
pub(crate) fn rounded(seconds: f64) -> f64 {
    (seconds * 1e3).round() / 1e3
}

/// Where a job is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Queued,
    Running,
    Completed,
    Cancelled,
    Failed(Refusal),
}

impl Phase {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
            Self::Failed(_) => "failed",
        }
    }

    pub fn has_ended(&self) -> bool {
        !matches!(self, Self::Queued | Self::Running)
    }
}

/// What happened to a job; its number is its place in the list, from 1.
#[derive(Clone, Debug)]
pub(crate) struct JobEvent {
    pub name: &'static str,
    pub data: Value,
}

/// A request on its way.
#[derive(Debug)]
pub(crate) struct Job {
    pub id: String,
    pub plan: Plan,
    /// Whether anybody may ask for its events.
    pub followed: bool,
    pub cancelled: Arc<AtomicBool>,
    pub calls: Calls,
    created: SystemTime,
    queued: Instant,
    state: Mutex<State>,
    /// The number of events, and whether the job has ended.
    news: watch::Sender<(usize, bool)>,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// The first sample that nobody works on.
    next: usize,
    /// Parts that are worked on.
    open: usize,
    started: Option<Instant>,
    ended: Option<Instant>,
    events: Vec<JobEvent>,
    /// Samples that are done, by the first of each part.
    parts: Vec<(usize, Samples)>,
    result: Option<Arc<Samples>>,
    steps: Vec<Arc<StepTrace>>,
    position: Option<usize>,
    failure: Option<Refusal>,
}

impl Job {
    pub fn new(plan: Plan, followed: bool) -> Self {
        let state = State {
            phase: Phase::Queued,
            next: 0,
            open: 0,
            started: None,
            ended: None,
            events: Vec::new(),
            parts: Vec::new(),
            result: None,
            steps: Vec::new(),
            position: None,
            failure: None,
        };
        Self {
            id: format!("j-{:016x}", rand::rng().random::<u64>()),
            plan,
            followed,
            cancelled: Arc::default(),
            calls: Calls::default(),
            created: SystemTime::now(),
            queued: Instant::now(),
            state: Mutex::new(state),
            news: watch::Sender::new((0, false)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn phase(&self) -> Phase {
        self.lock().phase.clone()
    }

    /// The samples with the URLs of their pictures. Thousands of points have nothing to say one by one.
    fn samples_by_url(&self) -> Value {
        if self.plan.entry.is_points() {
            return json!([]);
        }
        let told = (0..self.plan.seeds.len()).map(|index| {
            let mut told = self.plan.sample(index);
            told["png"] = json!(self.url(&format!("/samples/{index}.png")));
            told
        });
        told.collect()
    }

    /// The URL of something of the job.
    pub fn url(&self, what: &str) -> String {
        format!("/v1/jobs/{}{what}", self.id)
    }

    /// The samples of the next part, if there are any that nobody works on.
    pub fn take_part(&self) -> Option<Range<usize>> {
        let mut state = self.lock();
        if state.next >= self.plan.seeds.len() || state.phase.has_ended() || self.is_cancelled() {
            return None;
        }
        let range = state.next..(state.next + self.plan.batch.max(1)).min(self.plan.seeds.len());
        state.next = range.end;
        state.open += 1;
        if state.phase == Phase::Queued {
            state.phase = Phase::Running;
            state.started = Some(Instant::now());
            self.add(&mut state, "started", || self.plan.started(&self.id));
        }
        Some(range)
    }

    /// Whether there are samples that nobody works on.
    pub fn has_more(&self) -> bool {
        self.lock().next < self.plan.seeds.len()
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::SeqCst)
    }

    /// Parts that are worked on.
    pub fn open_parts(&self) -> usize {
        self.lock().open
    }

    /// What is left of the job, for a forecast; `batch` images or points are computed at once, and `model` is a number for its model.
    pub fn load(&self, model: usize, batch: [usize; 2]) -> Load {
        let plan = &self.plan;
        let (open, taken) = {
            let state = self.lock();
            (state.open, state.next.div_ceil(plan.batch.max(1)))
        };
        let (rows, calls) = (plan.batch * plan.rows_of_sample, plan.calls as f64);
        // Rows of parts that have ended are none of those that are worked on.
        let ended = taken.saturating_sub(open) * rows * plan.calls;
        let done = self.calls.own_rows().saturating_sub(ended) as f64 / (rows * open).max(1) as f64;
        let joined = plan.entry.is_joined();
        let most = Engine::most_rows(batch)[usize::from(plan.entry.is_points())];
        Load {
            model,
            joined: joined.then_some(most),
            cost: plan.entry.pace.cost().unwrap_or_default(),
            size: self.size(batch),
            rows,
            calls,
            open,
            calls_left: (calls - done).clamp(0.0, calls),
            parts: plan.parts().saturating_sub(taken),
        }
    }

    /// How much of a network call a part of it fills. Images and points are counted in what fills the same share of a call.
    pub fn size(&self, batch: [usize; 2]) -> u64 {
        self.plan.batch as u64 * batch[usize::from(!self.plan.entry.is_points())] as u64
    }

    /// Tells the place in the queue, where it is another one than before.
    pub fn tell_position(&self, position: usize, eta: impl FnOnce() -> f64) {
        if self.lock().position == Some(position) {
            return;
        }
        // The forecast looks at every job, at this one too.
        let eta = rounded(eta());
        let mut state = self.lock();
        if !state.phase.has_ended() {
            state.position = Some(position);
            self.add(&mut state, "queued", || json!({ "id": self.id, "position": position, "eta_s": eta }));
        }
    }

    /// Adds an event, where anybody may ask for it.
    fn add(&self, state: &mut State, name: &'static str, data: impl FnOnce() -> Value) {
        if self.followed {
            state.events.push(JobEvent { name, data: data() });
            self.news.send_replace((state.events.len(), state.phase.has_ended()));
        }
    }

    /// Keeps a step, and tells of it.
    pub fn step(&self, kept: Option<StepTrace>, event: Value) {
        let mut state = self.lock();
        state.steps.extend(kept.map(Arc::new));
        self.add(&mut state, "step", || event);
    }

    /// Takes the samples of a part, the first of which is `first`, or why there are none.
    pub fn end_part(&self, first: usize, outcome: Result<Samples, Refusal>) {
        let mut state = self.lock();
        state.open = state.open.saturating_sub(1);
        match outcome {
            Ok(samples) => state.parts.push((first, samples)),
            Err(refusal) => {
                // The other parts of it are of no use.
                if !self.is_cancelled() {
                    state.failure = Some(refusal);
                }
                self.cancelled.store(true, Ordering::SeqCst);
            }
        }
        self.end_if_done(&mut state);
    }

    /// Cancels the job: parts that are worked on end within one network call. Returns whether it had not ended.
    pub fn cancel(&self) -> bool {
        let mut state = self.lock();
        let runs = !state.phase.has_ended();
        if runs {
            self.cancelled.store(true, Ordering::SeqCst);
            self.end_if_done(&mut state);
        }
        runs
    }

    /// Ends the job with a failure: parts that are worked on end within one network call. Returns whether it went on until now.
    pub fn fail(&self, refusal: Refusal) -> bool {
        let mut state = self.lock();
        let runs = !state.phase.has_ended() && !self.is_cancelled();
        if runs {
            state.failure = Some(refusal);
            self.cancelled.store(true, Ordering::SeqCst);
            self.end_if_done(&mut state);
        }
        runs
    }

    /// How long the job has been running, where it runs.
    pub fn running(&self) -> Option<Duration> {
        let state = self.lock();
        state.started.filter(|_| !state.phase.has_ended()).map(|started| started.elapsed())
    }

    fn end_if_done(&self, state: &mut State) {
        let all = state.next >= self.plan.seeds.len();
        if state.open > 0 || state.phase.has_ended() || !(all || self.is_cancelled()) {
            return;
        }
        state.ended = Some(Instant::now());
        let failure = state.failure.take();
        if failure.is_none() && !self.is_cancelled() {
            let mut parts = std::mem::take(&mut state.parts);
            parts.sort_by_key(|(first, _)| *first);
            let mut parts = parts.into_iter().map(|(_, samples)| samples);
            let mut all = parts.next();
            if let Some(all) = &mut all {
                parts.for_each(|part| all.append(part));
            }
            state.result = all.map(Arc::new);
        }
        state.parts = Vec::new();
        let (phase, name) = match (failure, &state.result) {
            (Some(failure), _) => (Phase::Failed(failure), "error"),
            (None, Some(_)) => (Phase::Completed, "completed"),
            (None, None) => (Phase::Cancelled, "cancelled"),
        };
        state.phase = phase.clone();
        let timing = self.timing_of(state);
        let data = || match &phase {
            Phase::Failed(refusal) => json!({ "status": refusal.status.as_u16(), "error": refusal.body() }),
            Phase::Completed => json!({
                "id": self.id, "model": self.plan.entry.id, "samples": self.samples_by_url(), "timing": timing,
            }),
            _ => json!({ "id": self.id }),
        };
        if self.followed {
            state.events.push(JobEvent { name, data: data() });
        }
        self.news.send_replace((state.events.len(), true));
    }

    fn timing_of(&self, state: &State) -> Value {
        let milliseconds = |time: Duration| (time.as_secs_f64() * 1e4).round() / 10.0;
        let started = state.started.unwrap_or(self.queued);
        let ended = state.ended.unwrap_or_else(Instant::now);
        json!({
            "queued_ms": milliseconds(started.saturating_duration_since(self.queued)),
            "run_ms": milliseconds(ended.saturating_duration_since(started)),
            "calls": self.calls.calls(), "rows_per_call": (self.calls.rows_per_call() * 100.0).round() / 100.0,
        })
    }

    /// How long it took, and how many network calls.
    pub fn timing(&self) -> Value {
        self.timing_of(&self.lock())
    }

    /// The samples of a completed job.
    pub fn result(&self) -> Option<Arc<Samples>> {
        self.lock().result.clone()
    }

    /// The trace of a step with this sample in it.
    pub fn traced(&self, step: usize, sample: usize) -> Option<Arc<StepTrace>> {
        let state = self.lock();
        state.steps.iter().find(|kept| kept.step == step && kept.samples().contains(&sample)).cloned()
    }

    /// The traces of all parts of a step, by their first sample.
    pub fn traces(&self, step: usize) -> Vec<Arc<StepTrace>> {
        let state = self.lock();
        let mut traces: Vec<_> = state.steps.iter().filter(|kept| kept.step == step).cloned().collect();
        traces.sort_by_key(|kept| kept.first);
        traces
    }

    /// Events after the first `after`, and whether the job has ended.
    pub fn events(&self, after: usize) -> (Vec<JobEvent>, bool) {
        let state = self.lock();
        (state.events.get(after..).unwrap_or_default().to_vec(), state.phase.has_ended())
    }

    /// Waits until there are more events than `after`, or the job has ended.
    pub async fn news(&self, after: usize) {
        let mut news = self.news.subscribe();
        // The sender lives as long as the job.
        let _ = news.wait_for(|(count, ended)| *count > after || *ended).await;
    }

    /// Waits until the job has ended.
    pub async fn ended(&self) -> Phase {
        let mut news = self.news.subscribe();
        let _ = news.wait_for(|(_, ended)| *ended).await;
        self.phase()
    }

    /// When the job ended, and the bytes that are kept of it.
    pub fn kept(&self) -> (Option<Instant>, usize) {
        let state = self.lock();
        let traces = state.steps.iter().map(|step| step.bytes()).sum::<usize>();
        let result = state.result.as_ref().map_or(0, |samples| samples.values.len() * size_of::<f32>());
        (state.ended, traces + result)
    }

    /// What is told of a job.
    pub fn describe(&self, eta: f64) -> Value {
        let plan = &self.plan;
        let state = self.lock();
        let mut traced: Vec<usize> = state.steps.iter().map(|step| step.step).collect();
        traced.sort_unstable();
        traced.dedup();
        let created = self.created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        let steps_done = plan.steps() * self.calls.own_rows() / plan.rows().max(1);
        let mut told = plan.started(&self.id);
        // Their number in an event, and a list where they are there.
        told["samples"] = json!([]);
        told["state"] = json!(state.phase.name());
        told["model"] = json!(plan.entry.id);
        told["created"] = json!(rounded(created));
        told["request"] = plan.request.clone();
        told["position"] = json!(if state.phase == Phase::Queued { state.position.unwrap_or(0) } else { 0 });
        told["eta_s"] = json!(if state.phase.has_ended() { 0.0 } else { rounded(eta) });
        told["steps_done"] = json!(if state.phase == Phase::Completed { plan.steps() } else { steps_done });
        told["traced"] = json!(traced);
        told["planes"] = json!(plan.trace.planes());
        if state.phase.has_ended() {
            told["timing"] = self.timing_of(&state);
        }
        match &state.phase {
            Phase::Failed(refusal) => told["error"] = refusal.body(),
            Phase::Completed => told["samples"] = self.samples_by_url(),
            _ => {}
        }
        told
    }
}
