//! From a configuration to a server that runs until it is told to end.

use crate::config::ServerConfig;
use crate::engine::Engine;
use crate::http::{App, connections, router};
use crate::jobs::{Planner, Queue, Store};
use crate::metrics::Metrics;
use crate::models::Registry;
use crate::runs::Runs;
use crate::{Error, Result};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

/// How often the flag that ends the server is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How often old jobs are forgotten and idle models unloaded.
const SWEEP: Duration = Duration::from_secs(5);
/// Threads for solvers, files and models.
const BLOCKING: usize = crate::jobs::MOST_PARTS + 32;
/// Threads that read requests and write answers.
const WORKERS: usize = 2;
/// How long answers may still be written after the last job.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    runtime: Runtime,
    config: ServerConfig,
    registry: Arc<Registry>,
    runs: Option<Arc<Runs>>,
}

impl Server {
    /// Reads what the models are, without their weights, and begins to listen.
    ///
    /// # Errors
    /// A setting out of range; a folder that is no model; an address that is taken.
    pub fn bind(config: ServerConfig) -> Result<Self> {
        config.check()?;
        let runs = config.runs.clone().map(Runs::new).map(Arc::new);
        let registry = Arc::new(Registry::new(&config, runs.clone())?);
        let bind = |source| Error::Bind { address: config.bind, source };
        let listener = TcpListener::bind(config.bind).map_err(bind)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .max_blocking_threads(BLOCKING)
            .enable_all()
            .build()?;
        Ok(Self { listener, address, runtime, config, registry, runs })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` is set: then no more requests are taken, work goes on for [`ServerLimits::grace`](crate::ServerLimits), and
    /// what is left is cancelled.
    ///
    /// # Errors
    /// Threads that the system refuses.
    pub fn run(self, stop: &AtomicBool) -> Result<()> {
        let Self { listener, runtime, config, registry, runs, .. } = self;
        let metrics = Arc::new(Metrics::default());
        let engine = Engine::start(config.limits.batch, Arc::clone(&metrics))?;
        let threads = runtime.handle().clone();
        let queue = Queue::new(engine, Arc::clone(&registry), Arc::clone(&metrics), config.limits.clone(), threads);
        let (limits, device) = (config.limits.clone(), config.device.clone());
        let app = Arc::new(App {
            planner: Planner { registry: Arc::clone(&registry), limits: limits.clone(), device },
            store: Store::new(limits.keep, limits.keep_bytes),
            streams: Arc::new(tokio::sync::Semaphore::new(limits.streams)),
            ending: watch::Sender::new(false),
            queue: Arc::clone(&queue),
            registry: Arc::clone(&registry),
            metrics,
            runs,
            config,
        });
        let outcome = runtime.block_on(async {
            let loading = Arc::clone(&registry);
            tokio::task::spawn_blocking(move || loading.load_named());
            let sweeping = tokio::spawn(sweep(Arc::clone(&app)));
            let (close, closing) = watch::channel(false);
            let listener = tokio::net::TcpListener::from_std(listener)?;
            let serving = tokio::spawn(connections::serve(listener, router(&app), limits.connections, closing));
            while !stop.load(Ordering::SeqCst) {
                tokio::time::sleep(LOOK).await;
                queue.end_overdue();
            }
            // Work that was taken is done, as far as the time allows; streams of runs, which have no end, end now.
            queue.drain();
            app.ending.send_replace(true);
            if tokio::time::timeout(limits.grace, queue.idle()).await.is_err() {
                log::warn!("work that took longer than {} s was cancelled", limits.grace.as_secs());
            }
            queue.close();
            close.send_replace(true);
            let _ = tokio::time::timeout(LAST_WORDS, serving).await;
            sweeping.abort();
            Ok(())
        });
        // A kernel that runs ends with the process.
        runtime.shutdown_timeout(Duration::from_secs(1));
        outcome
    }
}

/// Forgets old jobs and unloads idle models, from time to time.
async fn sweep(app: Arc<App>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        app.store.sweep();
        if let Some(idle) = app.config.limits.idle {
            let registry = Arc::clone(&app.registry);
            let _ = tokio::task::spawn_blocking(move || registry.unload_idle(idle)).await;
        }
    }
}
