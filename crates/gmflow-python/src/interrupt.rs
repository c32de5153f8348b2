//! What Python has to say while the library computes: Ctrl-C, and callbacks that stop or fail.

use pyo3::prelude::*;
use std::ops::ControlFlow;

/// Follows a computation that runs detached from the interpreter.
pub struct Follower {
    callback: Option<Py<PyAny>>,
    /// What the interpreter or the callback raised.
    raised: Option<PyErr>,
}

impl Follower {
    /// `callback` is called with (done, of) and stops the computation by returning `False`.
    pub fn new(callback: Option<Py<PyAny>>) -> Self {
        Self { callback, raised: None }
    }

    /// Tells of progress, and answers whether to go on.
    pub fn progress(&mut self, done: usize, of: usize) -> ControlFlow<()> {
        if self.raised.is_some() {
            return ControlFlow::Break(());
        }
        let told = Python::attach(|py| {
            py.check_signals()?;
            match &self.callback {
                None => Ok(true),
                Some(callback) => {
                    let answer = callback.bind(py).call1((done, of))?;
                    // None goes on, as in diffusers.
                    Ok(answer.is_none() || answer.is_truthy()?)
                }
            }
        });
        match told {
            Ok(true) => ControlFlow::Continue(()),
            Ok(false) => ControlFlow::Break(()),
            Err(error) => {
                self.raised = Some(error);
                ControlFlow::Break(())
            }
        }
    }

    /// What was raised on the way, before the result of the computation.
    pub fn result<T>(self, result: PyResult<T>) -> PyResult<T> {
        self.raised.map_or(result, Err)
    }
}
