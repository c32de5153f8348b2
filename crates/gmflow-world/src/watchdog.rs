//! Ends a process that has waited for other ranks for too long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// The longest time between two looks.
const LOOK: Duration = Duration::from_millis(500);

/// Looks after the operations of one rank.
#[derive(Debug)]
pub(crate) struct Watchdog {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    start: Instant,
    /// When the present operation began, in milliseconds after `start`, plus 1; 0 outside of one.
    begun: AtomicU64,
    stop: AtomicBool,
}

impl Shared {
    fn now(&self) -> u64 {
        self.start.elapsed().as_millis() as u64 + 1
    }
}

impl Watchdog {
    /// Calls `bite` once an operation has taken longer than `timeout`. Without a thread there is no watchdog, and a warning says so.
    #[cfg_attr(not(any(feature = "mpi", test)), allow(dead_code))]
    pub(crate) fn start(timeout: Duration, bite: impl Fn() + Send + 'static) -> Self {
        let shared =
            Arc::new(Shared { start: Instant::now(), begun: AtomicU64::new(0), stop: AtomicBool::new(false) });
        let (look, watched) = (LOOK.min(timeout / 4).max(Duration::from_millis(1)), Arc::clone(&shared));
        let work = move || {
            while !watched.stop.load(Ordering::Relaxed) {
                std::thread::sleep(look);
                let begun = watched.begun.load(Ordering::Relaxed);
                if begun != 0 && watched.now().saturating_sub(begun) > timeout.as_millis() as u64 {
                    bite();
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new().name("watchdog".into()).spawn(work);
        if let Err(error) = &thread {
            log::warn!("ranks that hang are not noticed, because no thread could be started ({error})");
        }
        Self { shared, thread: thread.ok() }
    }

    /// Runs an operation under the watchdog.
    #[cfg_attr(not(any(feature = "mpi", test)), allow(dead_code))]
    pub(crate) fn watch<T>(&self, operation: impl FnOnce() -> T) -> T {
        self.shared.begun.store(self.shared.now(), Ordering::Relaxed);
        let done = operation();
        self.shared.begun.store(0, Ordering::Relaxed);
        done
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It has nothing left to say.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_takes_too_long_is_bitten() {
        let bitten = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&bitten);
        let dog = Watchdog::start(Duration::from_millis(200), move || told.store(true, Ordering::SeqCst));
        for _ in 0..4 {
            dog.watch(|| std::thread::sleep(Duration::from_millis(1)));
        }
        std::thread::sleep(Duration::from_millis(400));
        assert!(!bitten.load(Ordering::SeqCst), "no operation has begun");
        dog.watch(|| {
            for _ in 0..100 {
                if bitten.load(Ordering::SeqCst) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        assert!(bitten.load(Ordering::SeqCst));
    }
}
