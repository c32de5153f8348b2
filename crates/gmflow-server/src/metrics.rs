//! Figures for Prometheus.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use std::time::Duration;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    route: String,
    status: u16,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rejection {
    reason: &'static str,
}

/// Figures for Prometheus.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    queue_jobs: Gauge,
    running_parts: Gauge,
    models_loaded: Gauge,
    batch_rows: Histogram,
    network_call_seconds: Histogram,
    request_seconds: Family<Request, Histogram>,
    rejected: Family<Rejection, Counter>,
    cancelled: Counter,
    samples: Counter,
}

/// From half a millisecond to half a minute.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 17))
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("gmflow"),
            queue_jobs: Gauge::default(),
            running_parts: Gauge::default(),
            models_loaded: Gauge::default(),
            batch_rows: Histogram::new(exponential_buckets(1.0, 2.0, 14)),
            network_call_seconds: seconds(),
            request_seconds: Family::new_with_constructor(seconds),
            rejected: Family::default(),
            cancelled: Counter::default(),
            samples: Counter::default(),
        };
        let registry = &mut metrics.registry;
        registry.register("queue_jobs", "Jobs that wait or run", metrics.queue_jobs.clone());
        registry.register("running_parts", "Parts of jobs that are worked on", metrics.running_parts.clone());
        registry.register("models_loaded", "Models in memory", metrics.models_loaded.clone());
        registry.register("batch_rows", "Rows of a network call", metrics.batch_rows.clone());
        registry.register("network_call_seconds", "Time of a network call", metrics.network_call_seconds.clone());
        registry.register(
            "request_seconds",
            "Time from a request to the headers of its answer, by route and status",
            metrics.request_seconds.clone(),
        );
        registry.register("rejected", "Requests that were refused for want of room", metrics.rejected.clone());
        registry.register("cancelled", "Jobs that were cancelled", metrics.cancelled.clone());
        registry.register("samples", "Samples that were drawn", metrics.samples.clone());
        metrics
    }
}

impl Metrics {
    pub fn queue(&self, jobs: usize, parts: usize) {
        self.queue_jobs.set(jobs as i64);
        self.running_parts.set(parts as i64);
    }

    pub fn network_call(&self, rows: usize, time: Duration) {
        self.batch_rows.observe(rows as f64);
        self.network_call_seconds.observe(time.as_secs_f64());
    }

    pub fn request(&self, route: String, status: u16, time: Duration) {
        self.request_seconds.get_or_create(&Request { route, status }).observe(time.as_secs_f64());
    }

    pub fn rejected(&self, reason: &'static str) {
        self.rejected.get_or_create(&Rejection { reason }).inc();
    }

    pub fn cancelled(&self) {
        self.cancelled.inc();
    }

    pub fn samples(&self, count: usize) {
        self.samples.inc_by(count as u64);
    }

    /// The text that Prometheus reads.
    pub fn text(&self, models_loaded: usize) -> String {
        self.models_loaded.set(models_loaded as i64);
        let mut text = String::new();
        // A string takes everything.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_their_names() {
        let metrics = Metrics::default();
        metrics.queue(3, 1);
        metrics.network_call(8, Duration::from_millis(20));
        metrics.request("/v1/samples".into(), 200, Duration::from_millis(30));
        metrics.rejected("queue_full");
        metrics.cancelled();
        metrics.samples(5);
        let text = metrics.text(1);
        for line in [
            "gmflow_queue_jobs 3",
            "gmflow_batch_rows_count 1",
            "gmflow_network_call_seconds_count 1",
            "gmflow_request_seconds_count{route=\"/v1/samples\",status=\"200\"} 1",
            "gmflow_rejected_total{reason=\"queue_full\"} 1",
            "gmflow_cancelled_total 1",
            "gmflow_samples_total 5",
            "gmflow_models_loaded 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }
}
