//! One thread that computes the network calls of all requests.
//!
//! Every request's solver runs on a thread of its own and asks here for predictions. The engine takes all calls for one model that wait
//! at the moment, joins their rows into one batch, and gives every solver its own rows back. It never waits for company.

mod denoiser;
mod pace;

pub(crate) use denoiser::{Calls, Joined, Watch};
pub(crate) use pace::{Cost, Pace};

use crate::metrics::Metrics;
use crate::models::Served;
use burn::tensor::{Int, Tensor};
use gmflow::kernel::in_pool;
use gmflow::mixture::{GaussianMixture, VelocityMixture};
use gmflow::network::Denoiser;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

/// What a solver asks for.
pub(crate) struct Call {
    pub model: Arc<Served>,
    /// `[b c h w]`.
    pub x_t: Tensor<4>,
    /// `[b]`.
    pub t: Tensor<1>,
    /// `[b]`.
    pub class: Option<Tensor<1, Int>>,
    /// Set where nobody wants the answer any more.
    pub cancelled: Arc<AtomicBool>,
    pub answer: SyncSender<Prediction>,
}

/// What a solver gets.
pub(crate) struct Prediction {
    /// Of the call's rows.
    pub mixture: VelocityMixture,
    /// Rows that were computed together.
    pub rows: usize,
}

impl Call {
    fn rows(&self) -> usize {
        self.x_t.dims()[0]
    }

    fn is_points(&self) -> bool {
        let [_, _, h, w] = self.x_t.dims();
        h * w == 1
    }
}

#[derive(Default)]
struct Waiting {
    calls: VecDeque<Call>,
    closed: bool,
}

/// Takes calls from any thread.
#[derive(Clone)]
pub(crate) struct Engine(Arc<Shared>);

struct Shared {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    metrics: Arc<Metrics>,
    /// Rows of images, and of points, that are computed together at the most.
    most_rows: [usize; 2],
    /// Solvers at work.
    solvers: AtomicUsize,
    /// Set where the last solver ended: nobody worked from then on.
    rested: AtomicBool,
}

/// A solver at work, until it is dropped. The time between its calls belongs to them.
pub(crate) struct AtWork<'a>(&'a Shared);

impl Drop for AtWork<'_> {
    fn drop(&mut self) {
        if self.0.solvers.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.rested.store(true, Ordering::SeqCst);
        }
    }
}

impl Engine {
    /// Starts the engine's thread. `batch` images or points may come doubled by guidance.
    pub fn start(batch: [usize; 2], metrics: Arc<Metrics>) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            wake: Condvar::new(),
            metrics,
            most_rows: Self::most_rows(batch),
            solvers: AtomicUsize::new(0),
            rested: AtomicBool::new(true),
        });
        let engine = Self(Arc::clone(&shared));
        std::thread::Builder::new().name("engine".into()).spawn(move || shared.run())?;
        Ok(engine)
    }

    /// Rows of images, and of points, that are computed together at the most.
    pub fn most_rows(batch: [usize; 2]) -> [usize; 2] {
        batch.map(|batch| batch.saturating_mul(2))
    }

    /// Counts a solver.
    pub fn at_work(&self) -> AtWork<'_> {
        self.0.solvers.fetch_add(1, Ordering::SeqCst);
        AtWork(&self.0)
    }

    /// Adds a call. After the end it is dropped, which its solver sees.
    fn push(&self, call: Call) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if !waiting.closed {
            waiting.calls.push_back(call);
            self.0.wake.notify_one();
        }
    }

    /// Ends the thread once its present call is done.
    pub fn close(&self) {
        let mut waiting = self.0.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.closed = true;
        waiting.calls.clear();
        self.0.wake.notify_one();
    }
}

impl Shared {
    fn run(&self) {
        // When the call before ended, as long as somebody has been at work since.
        let mut since: Option<Instant> = None;
        while let Some((calls, waited)) = self.take() {
            let rested = self.rested.swap(false, Ordering::SeqCst);
            let start = since.filter(|_| !(waited && rested)).unwrap_or_else(Instant::now);
            self.compute(calls, start);
            since = Some(Instant::now());
        }
    }

    /// The calls to compute next, and whether there were none at first.
    fn take(&self) -> Option<(Vec<Call>, bool)> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut waited = false;
        loop {
            if waiting.closed {
                return None;
            }
            waiting.calls.retain(|call| !call.cancelled.load(Ordering::SeqCst));
            let calls = joined(&mut waiting.calls, self.most_rows);
            if !calls.is_empty() {
                return Some((calls, waited));
            }
            waited = true;
            waiting = self.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn compute(&self, calls: Vec<Call>, start: Instant) {
        let Some(first) = calls.first() else { return };
        let model = Arc::clone(&first.model);
        let rows: usize = calls.iter().map(Call::rows).sum();
        let began = Instant::now();
        // A failure of a kernel ends these requests and no others.
        match catch_unwind(AssertUnwindSafe(|| in_pool(|| predict(&model, &calls)))) {
            Ok(mixtures) => {
                self.metrics.network_call(rows, began.elapsed());
                model.pace.add(rows, start.elapsed());
                // Who has an answer may find that nobody uses the model any more.
                let answers: Vec<SyncSender<Prediction>> = calls.into_iter().map(|call| call.answer).collect();
                drop(model);
                for (answer, mixture) in answers.into_iter().zip(mixtures) {
                    // A solver that is gone needs no answer.
                    let _ = answer.send(Prediction { mixture, rows });
                }
            }
            Err(_) => log::error!("model {}: a network call of {rows} rows failed", model.id),
        }
    }
}

/// Takes the first call and all others of the same model that fit beside it, in their order.
fn joined(waiting: &mut VecDeque<Call>, most_rows: [usize; 2]) -> Vec<Call> {
    let Some(first) = waiting.pop_front() else { return Vec::new() };
    let most = most_rows[usize::from(first.is_points())];
    let (model, mut rows) = (Arc::clone(&first.model), first.rows());
    let mut calls = vec![first];
    if !model.joined {
        return calls;
    }
    let mut left = VecDeque::with_capacity(waiting.len());
    for call in waiting.drain(..) {
        if Arc::ptr_eq(&call.model, &model) && rows + call.rows() <= most {
            rows += call.rows();
            calls.push(call);
        } else {
            left.push_back(call);
        }
    }
    *waiting = left;
    calls
}

/// The prediction of every call, of one pass through the network.
fn predict(model: &Served, calls: &[Call]) -> Vec<VelocityMixture> {
    let network = &model.model.network;
    if let [call] = calls {
        return vec![network.forward(call.x_t.clone(), call.t.clone(), call.class.clone())];
    }
    let x_t = Tensor::cat(calls.iter().map(|call| call.x_t.clone()).collect(), 0); // [b c h w]
    let t = Tensor::cat(calls.iter().map(|call| call.t.clone()).collect(), 0);
    let classes: Vec<Tensor<1, Int>> = calls.iter().filter_map(|call| call.class.clone()).collect();
    let class = (classes.len() == calls.len()).then(|| Tensor::cat(classes, 0));
    let VelocityMixture(GaussianMixture { means, log_weights, log_std }) = network.forward(x_t, t, class);
    let mut start = 0;
    calls
        .iter()
        .map(|call| {
            let range = start..start + call.rows();
            start = range.end;
            let part = |x: &Tensor<5>| x.clone().slice_dim(0, range.clone());
            VelocityMixture(GaussianMixture {
                means: part(&means),
                log_weights: part(&log_weights),
                log_std: part(&log_std),
            })
        })
        .collect()
}
