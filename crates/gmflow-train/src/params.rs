//! A module's parameters as flat host buffers, in the order the module is traversed.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients, Tensor, TensorData};

use crate::{Error, Result};

/// Flat buffers, one per parameter in traversal order.
pub type Buffers = Vec<Vec<f32>>;

/// Copies of all parameters.
///
/// # Errors
/// A parameter that is not f32.
pub fn values(module: &impl Module) -> Result<Buffers> {
    let mut collect = Collect { buffers: Vec::new(), failed: None };
    module.visit(&mut collect);
    collect.failed.map_or(Ok(collect.buffers), Err)
}

/// Takes the gradients of all parameters out of `gradients`; a parameter without one gives an empty buffer.
///
/// # Errors
/// A gradient that is not f32.
pub fn take_gradients(module: &impl Module, gradients: &mut Gradients) -> Result<Buffers> {
    let mut collect = CollectGradients { gradients, buffers: Vec::new(), failed: None };
    module.visit(&mut collect);
    collect.failed.map_or(Ok(collect.buffers), Err)
}

/// Runs `change(index, values)` on every parameter in place and returns the module.
///
/// The module is consumed so that a parameter's storage has one owner and is changed without a copy; on a device with
/// its own memory each parameter travels to the host and back.
///
/// # Errors
/// A parameter that is not f32, or the first error of `change`.
pub fn update<M: Module>(module: M, change: impl FnMut(usize, &mut [f32])) -> Result<M> {
    let mut update = Update { change, index: 0, failed: None };
    let module = module.map(&mut update);
    update.failed.map_or(Ok(module), Err)
}

/// The module with `buffers` as its parameters.
///
/// # Errors
/// Another number of parameters or another length of one.
pub fn filled<M: Module>(module: M, buffers: &Buffers) -> Result<M> {
    let mut mismatch = None;
    let mut count = 0;
    let module = update(module, |index, values| {
        count += 1;
        match buffers.get(index) {
            Some(buffer) if buffer.len() == values.len() => values.copy_from_slice(buffer),
            other => mismatch = Some((values.len(), other.map_or(0, Vec::len))),
        }
    })?;
    match mismatch {
        Some((expected, got)) => Err(gmflow::Error::shape("parameter values", [expected], [got]).into()),
        None if count != buffers.len() => {
            Err(gmflow::Error::shape("number of parameters", [count], [buffers.len()]).into())
        }
        None => Ok(module),
    }
}

fn into_values(data: TensorData) -> Result<Vec<f32>> {
    let dtype = data.dtype();
    data.try_into_vec::<f32>().map_err(|_| dtype_error(dtype))
}

fn dtype_error(dtype: impl std::fmt::Debug) -> Error {
    Error::config("network", "f32 parameters", format!("{dtype:?}"))
}

struct Collect {
    buffers: Buffers,
    failed: Option<Error>,
}

impl ModuleVisitor for Collect {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        match into_values(param.val().into_data()) {
            Ok(values) => self.buffers.push(values),
            Err(error) => self.failed = Some(error),
        }
    }
}

struct CollectGradients<'a> {
    gradients: &'a mut Gradients,
    buffers: Buffers,
    failed: Option<Error>,
}

impl ModuleVisitor for CollectGradients<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(gradient) = param.val().grad_remove(self.gradients) else {
            self.buffers.push(Vec::new());
            return;
        };
        match into_values(gradient.into_data()) {
            Ok(values) => self.buffers.push(values),
            Err(error) => self.failed = Some(error),
        }
    }
}

struct Update<F> {
    change: F,
    index: usize,
    failed: Option<Error>,
}

impl<F: FnMut(usize, &mut [f32])> ModuleMapper for Update<F> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let index = self.index;
        self.index += 1;
        param.map(|tensor| {
            let (device, trained) = (tensor.device(), tensor.is_require_grad());
            let plain = if tensor.is_autodiff() { tensor.inner() } else { tensor };
            let mut data = plain.into_data();
            let dtype = data.dtype();
            match data.as_mut_slice::<f32>() {
                Ok(values) => (self.change)(index, values),
                Err(_) => self.failed = Some(dtype_error(dtype)),
            }
            Tensor::from_data(data, &device).set_require_grad(trained)
        })
    }
}
