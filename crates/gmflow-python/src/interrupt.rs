//! What Python has to say while the library computes: Ctrl-C, and callbacks that stop or fail.

use crate::array::{Array, Buffer, same};
use burn::tensor::Tensor;
use gmflow::pipeline::StepEnd;
use pyo3::prelude::*;
use pyo3::types::PyBool;
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

    /// Tells of a step that has ended with (done, of, the time it began at, samples `[b c h w]`), and answers whether to go on, and from which
    /// samples: the callback may return others.
    pub fn step(&mut self, end: StepEnd) -> ControlFlow<(), Option<Tensor<4>>> {
        if self.raised.is_some() {
            return ControlFlow::Break(());
        }
        let told = Python::attach(|py| {
            py.check_signals()?;
            let Some(callback) = &self.callback else { return Ok(ControlFlow::Continue(None)) };
            // A copy: the callback may write to it.
            let x = Buffer::floats(end.x.clone().into_data().iter().collect(), &end.x.dims());
            let answer = callback.bind(py).call1((end.done, end.of, end.from, x))?;
            if answer.is_none() || answer.is(PyBool::new(py, true)) {
                return Ok(ControlFlow::Continue(None));
            }
            if answer.is(PyBool::new(py, false)) {
                return Ok(ControlFlow::Break(()));
            }
            let x = Array::new("latents", &answer)?.finite_tensor()?;
            // What is the same to the last bit is not another start.
            Ok(ControlFlow::Continue((!same(&x, end.x)).then_some(x)))
        });
        told.unwrap_or_else(|error: PyErr| {
            self.raised = Some(error);
            ControlFlow::Break(())
        })
    }

    /// What was raised on the way, before the result of the computation.
    pub fn result<T>(self, result: PyResult<T>) -> PyResult<T> {
        self.raised.map_or(result, Err)
    }
}
