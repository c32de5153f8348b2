//! A network whose predictions the engine computes.

use super::{Call, Engine};
use crate::models::Served;
use burn::tensor::{Device, Int, Tensor};
use gmflow::mixture::{GaussianMixture, VelocityMixture};
use gmflow::network::Denoiser;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::sync_channel;

/// Counts of the network calls of a request.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// Calls that the request took part in.
    calls: AtomicUsize,
    /// Rows that were computed in them, those of other requests too.
    joined_rows: AtomicUsize,
    /// The request's own rows.
    own_rows: AtomicUsize,
}

impl Calls {
    fn add(&self, own: usize, joined: usize) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        self.own_rows.fetch_add(own, Ordering::Relaxed);
        self.joined_rows.fetch_add(joined, Ordering::Relaxed);
    }

    pub fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    pub fn own_rows(&self) -> usize {
        self.own_rows.load(Ordering::Relaxed)
    }

    /// The mean number of rows of a call.
    pub fn rows_per_call(&self) -> f64 {
        self.joined_rows.load(Ordering::Relaxed) as f64 / self.calls().max(1) as f64
    }
}

/// Is told of every prediction: the points `[b c h w]` as they were given to the network, their times `[b]`, and the mixtures.
pub(crate) type Watch<'a> = dyn Fn(&Tensor<4>, &Tensor<1>, &VelocityMixture) + Sync + 'a;

/// A network whose predictions the engine computes, for one request.
pub(crate) struct Joined<'a> {
    pub engine: &'a Engine,
    pub model: &'a Arc<Served>,
    pub cancelled: &'a Arc<AtomicBool>,
    pub calls: &'a Calls,
    pub watch: Option<&'a Watch<'a>>,
    /// Set where a prediction failed; the samples are then of no use.
    pub failed: AtomicBool,
}

impl Denoiser for Joined<'_> {
    fn forward(&self, x_t: Tensor<4>, t: Tensor<1>, class: Option<Tensor<1, Int>>) -> VelocityMixture {
        let [b, c, h, w] = x_t.dims();
        if self.cancelled.load(Ordering::SeqCst) || self.failed.load(Ordering::SeqCst) {
            return self.nothing([b, c, h, w], &x_t.device());
        }
        let (answer, prediction) = sync_channel(1);
        let (model, cancelled) = (Arc::clone(self.model), Arc::clone(self.cancelled));
        self.engine.push(Call { model, x_t: x_t.clone(), t: t.clone(), class, cancelled, answer });
        // Without an answer the call was cancelled, or the network failed.
        let Ok(prediction) = prediction.recv() else {
            self.failed.store(true, Ordering::SeqCst);
            return self.nothing([b, c, h, w], &x_t.device());
        };
        self.calls.add(b, prediction.rows);
        if let Some(watch) = self.watch {
            watch(&x_t, &t, &prediction.mixture);
        }
        prediction.mixture
    }

    fn null_class(&self) -> Option<usize> {
        Denoiser::null_class(&self.model.model.network)
    }
}

impl Joined<'_> {
    /// A prediction for solvers to come to an end with, which nobody looks at.
    fn nothing(&self, [b, c, h, w]: [usize; 4], device: &Device) -> VelocityMixture {
        let k = self.model.model.info.network.num_gaussians();
        VelocityMixture(GaussianMixture {
            means: Tensor::zeros([b, k, c, h, w], device),
            log_weights: Tensor::full([b, k, 1, h, w], -(k as f64).ln(), device),
            log_std: Tensor::zeros([b, 1, 1, 1, 1], device),
        })
    }
}
