//! Signals that stop a command: the first lets it save, a second ends it at once.

use anyhow::{Context, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

/// What a program that a signal ended adds to the signal's number in its exit code.
const EXIT_CODE_BASE: i32 = 128;

/// Signals that are listened to.
pub struct Signals {
    stop: Arc<AtomicBool>,
    /// The first signal that came; 0 before.
    caught: Arc<AtomicI32>,
    /// There is nothing to save yet: a signal ends the program at once.
    at_once: Arc<AtomicBool>,
}

impl Signals {
    /// Listens to every signal that asks the program to end and leaves it time: of a terminal that closes, of `kill`, of service managers,
    /// containers and cluster schedulers. Those that the program was started to ignore, as by `nohup`, stay ignored.
    /// `reaction` tells the user what the command does then.
    pub fn listen(reaction: &'static str) -> Result<Self> {
        let signals = Self { stop: Arc::default(), caught: Arc::default(), at_once: Arc::default() };
        let [stop, at_once] = [&signals.stop, &signals.at_once].map(Arc::clone);
        system::listen((stop, at_once), Arc::clone(&signals.caught), reaction)
            .context("no thread for signals could be started: too little memory, or too many threads")?;
        Ok(signals)
    }

    /// Does work before which nothing was written and of which nothing need be kept: a signal ends the program at once.
    pub fn without_saving<T>(&self, work: impl FnOnce() -> T) -> T {
        self.at_once.store(true, Ordering::SeqCst);
        let done = work();
        self.at_once.store(false, Ordering::SeqCst);
        done
    }

    /// The flag that the first signal sets.
    pub fn stop(&self) -> &AtomicBool {
        &self.stop
    }

    /// The first signal that came.
    pub fn caught(&self) -> Option<Signal> {
        Some(self.caught.load(Ordering::SeqCst)).filter(|number| *number != 0).map(Signal)
    }
}

/// A signal by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(i32);

impl Signal {
    /// Its name, such as SIGTERM.
    pub fn name(self) -> String {
        system::name(self.0).map_or_else(|| format!("signal {}", self.0), str::to_owned)
    }

    /// The exit code of a program that it ended, by the custom of shells.
    pub fn exit_code(self) -> u8 {
        u8::try_from(EXIT_CODE_BASE + self.0).unwrap_or(u8::MAX)
    }
}

#[cfg(unix)]
mod system {
    use super::{EXIT_CODE_BASE, Signal};
    use crate::terminal;
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXCPU};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
    use std::time::{Duration, Instant};

    /// Schedulers give notice of a limit by the last three.
    const ALL: [i32; 6] = [SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGXCPU];

    /// One stop may send several signals: a terminal that closes sends SIGHUP twice, a service manager SIGTERM and SIGHUP. What comes within
    /// this time of the first is no second thought.
    const ONE_STOP: Duration = Duration::from_secs(1);

    pub fn listen(
        (stop, at_once): (Arc<AtomicBool>, Arc<AtomicBool>),
        caught: Arc<AtomicI32>,
        reaction: &'static str,
    ) -> std::io::Result<()> {
        let wanted = ALL.into_iter().filter(|signal| !is_ignored(*signal));
        let mut signals = signal_hook::iterator::Signals::new(wanted)?;
        let work = move || {
            let mut first: Option<Instant> = None;
            for signal in signals.forever() {
                match first {
                    None if at_once.load(Ordering::SeqCst) => {
                        terminal::say(&format!("{}: stopped; nothing was written", Signal(signal).name()));
                        signal_hook::low_level::exit(EXIT_CODE_BASE + signal)
                    }
                    None => {
                        first = Some(Instant::now());
                        caught.store(signal, Ordering::SeqCst);
                        stop.store(true, Ordering::SeqCst);
                        let name = Signal(signal).name();
                        // With the terminal gone there is nobody to tell.
                        terminal::say(&format!("{name}: {reaction}; press Ctrl-C again to stop at once"));
                    }
                    // Nothing is half written: every file is complete or under a name of its own.
                    Some(first) if first.elapsed() >= ONE_STOP => {
                        signal_hook::low_level::exit(EXIT_CODE_BASE + signal)
                    }
                    Some(_) => {}
                }
            }
        };
        std::thread::Builder::new().name("signals".into()).spawn(work).map(|_| ())
    }

    /// Whether the program was started to ignore this signal.
    fn is_ignored(signal: i32) -> bool {
        let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
        // SAFETY: without a new action the call only writes the present one to the place that it is given, which is of that type.
        let read = unsafe { libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) };
        // SAFETY: the call wrote it, and zeros, from before, are an action too.
        read == 0 && unsafe { action.assume_init() }.sa_sigaction == libc::SIG_IGN
    }

    pub fn name(signal: i32) -> Option<&'static str> {
        signal_hook::low_level::signal_name(signal)
    }
}

#[cfg(not(unix))]
mod system {
    use signal_hook::consts::{SIGINT, SIGTERM};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicI32};

    /// The second signal ends the program.
    pub fn listen(
        (stop, at_once): (Arc<AtomicBool>, Arc<AtomicBool>),
        caught: Arc<AtomicI32>,
        _reaction: &'static str,
    ) -> std::io::Result<()> {
        for signal in [SIGINT, SIGTERM] {
            let code = super::EXIT_CODE_BASE + signal;
            signal_hook::flag::register_conditional_shutdown(signal, code, Arc::clone(&at_once))?;
            let caught = Arc::clone(&caught);
            // The order matters: the shutdown looks at the flag before the same signal sets it.
            signal_hook::flag::register_conditional_shutdown(
                signal,
                super::EXIT_CODE_BASE + signal,
                Arc::clone(&stop),
            )?;
            signal_hook::flag::register(signal, Arc::clone(&stop))?;
            // SAFETY: storing a number is allowed in a signal handler.
            unsafe {
                signal_hook::low_level::register(signal, move || {
                    caught.store(signal, std::sync::atomic::Ordering::SeqCst);
                })
            }?;
        }
        Ok(())
    }

    pub fn name(signal: i32) -> Option<&'static str> {
        [(SIGINT, "SIGINT"), (SIGTERM, "SIGTERM")]
            .into_iter()
            .find(|(number, _)| *number == signal)
            .map(|(_, name)| name)
    }
}
