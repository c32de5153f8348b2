//! A module's parameters, flat, in the order the module is traversed.
//!
//! ```
//! use burn::tensor::Device;
//! use gmflow::network::{Mlp2dConfig, NetworkConfig};
//! use gmflow_train::params;
//!
//! let config = Mlp2dConfig { hidden_dim: 8, embed_dim: 4, ..Mlp2dConfig::default() };
//! let network = NetworkConfig::Mlp2d(config).init(0, &Device::flex())?;
//! let halved = params::update(network, |values| values * 0.5)?;
//! assert!(params::values(&halved)?.iter().flatten().all(|value| value.is_finite()));
//! # Ok::<(), gmflow_train::Error>(())
//! ```

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{DType, Device, Gradients, Tensor, TensorData};

use crate::{Error, Result};

/// Flat host buffers, one per parameter in traversal order.
pub type Buffers = Vec<Vec<f32>>;

/// Flat tensors on the module's device that record no gradients, one per parameter in traversal order.
pub type Values = Vec<Tensor<1>>;

/// Copies of all parameters on the host.
///
/// # Errors
/// A parameter that is not f32.
pub fn values(module: &impl Module) -> Result<Buffers> {
    shared(module)?.iter().map(on_host).collect()
}

/// All parameters as they are, sharing memory with the module until either is changed.
///
/// # Errors
/// A parameter that is not f32.
pub fn shared(module: &impl Module) -> Result<Values> {
    collect(module, None)
}

/// Takes the gradients of all parameters out of `gradients`; a parameter without one gives an empty tensor.
///
/// # Errors
/// A gradient that is not f32.
pub fn take_gradients(module: &impl Module, gradients: &mut Gradients) -> Result<Values> {
    collect(module, Some(gradients))
}

/// The parameters, or their gradients where these are given.
fn collect(module: &impl Module, gradients: Option<&mut Gradients>) -> Result<Values> {
    let mut collect = Collect { gradients, values: Vec::new(), failed: None };
    module.visit(&mut collect);
    collect.failed.map_or(Ok(collect.values), Err)
}

/// Replaces every parameter by what `change` makes of it and returns the module.
///
/// The module is consumed so that a parameter's memory has one owner and can be changed in place.
///
/// # Errors
/// A parameter that is not f32.
///
/// # Panics
/// Where `change` returns another number of values.
pub fn update<M: Module>(module: M, mut change: impl FnMut(Tensor<1>) -> Tensor<1>) -> Result<M> {
    map(module, &mut |values, _| change(values))
}

/// The module with gradients recorded for the parameters whose place in the order says so.
///
/// # Errors
/// A parameter that is not f32.
pub fn only<M: Module>(module: M, trained: &[bool]) -> Result<M> {
    let mut of_parameters = trained.iter();
    map(module, &mut |values, records| {
        *records = of_parameters.next().is_some_and(|trained| *trained);
        values
    })
}

/// Replaces every parameter, and whether gradients are recorded for it, by what `change` makes of them.
fn map<M: Module>(module: M, change: &mut Change) -> Result<M> {
    let mut update = Update { change, failed: None };
    let module = module.map(&mut update);
    update.failed.map_or(Ok(module), Err)
}

/// The module with `values` as its parameters.
///
/// # Errors
/// Another number of parameters or another length of one.
pub fn filled<M: Module>(module: M, values: &Values) -> Result<M> {
    let mut mismatch = None;
    let mut count = 0;
    let module = update(module, |old| {
        let new = values.get(count);
        count += 1;
        match new {
            Some(new) if new.dims() == old.dims() => new.clone(),
            other => {
                mismatch = Some((old.dims(), other.map_or([0], Tensor::dims)));
                old
            }
        }
    })?;
    match mismatch {
        Some((expected, got)) => Err(gmflow::Error::shape("parameter values", expected, got).into()),
        None if count != values.len() => {
            Err(gmflow::Error::shape("number of parameters", [count], [values.len()]).into())
        }
        None => Ok(module),
    }
}

/// A flat tensor of host values on the plain device.
pub fn on_device(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let count = [values.len()];
    Tensor::from_data(TensorData::new(values, count), &device.clone().inner())
}

/// A tensor's values on the host.
///
/// # Errors
/// A tensor that is not f32.
pub fn on_host(tensor: &Tensor<1>) -> Result<Vec<f32>> {
    into_values(tensor.clone().into_data())
}

/// A tensor's values on the host; on the CPU in their own memory, where nothing else has a part in it. [`from_data`] gives the tensor back.
///
/// # Errors
/// A tensor that is not f32.
pub fn into_data(tensor: Tensor<1>) -> Result<TensorData> {
    let data = tensor.into_data();
    if data.dtype() == DType::F32 { Ok(data) } else { Err(dtype_error(data.dtype())) }
}

/// A flat tensor of these values on the plain device; on the CPU in their own memory.
pub fn from_data(data: TensorData, device: &Device) -> Tensor<1> {
    Tensor::from_data(data, &device.clone().inner())
}

/// The values of [`into_data`].
///
/// # Errors
/// Values that are not f32.
pub fn numbers(data: &mut TensorData) -> Result<&mut [f32]> {
    let dtype = data.dtype();
    data.as_mut_slice().map_err(|_| dtype_error(dtype))
}

/// The values of a tensor of any shape, without gradients.
fn flat<const D: usize>(tensor: Tensor<D>) -> Result<Tensor<1>> {
    let dtype = tensor.dtype();
    if dtype != DType::F32 {
        return Err(dtype_error(dtype));
    }
    let tensor = tensor.inner();
    let count = tensor.shape().num_elements();
    Ok(tensor.reshape([count]))
}

fn into_values(data: TensorData) -> Result<Vec<f32>> {
    let dtype = data.dtype();
    data.try_into_vec::<f32>().map_err(|_| dtype_error(dtype))
}

fn dtype_error(dtype: impl std::fmt::Debug) -> Error {
    Error::config("network", "f32 parameters", format!("{dtype:?}"))
}

struct Collect<'a> {
    gradients: Option<&'a mut Gradients>,
    values: Values,
    failed: Option<Error>,
}

impl ModuleVisitor for Collect<'_> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let device = value.device();
        let found = match &mut self.gradients {
            None => Some(value),
            Some(gradients) => value.grad_remove(gradients),
        };
        match found.map(flat) {
            Some(Ok(found)) => self.values.push(found),
            Some(Err(error)) => self.failed = Some(error),
            None => self.values.push(Tensor::zeros([0], &device.inner())),
        }
    }
}

/// Called through a pointer: the code that goes through a module's fields is large and there once.
type Change<'a> = dyn FnMut(Tensor<1>, &mut bool) -> Tensor<1> + 'a;

struct Update<'a, 'b> {
    change: &'a mut Change<'b>,
    failed: Option<Error>,
}

impl ModuleMapper for Update<'_, '_> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| {
            let (shape, mut trained, strategy) =
                (tensor.dims(), tensor.is_require_grad(), tensor.gradient_checkpointing_strategy());
            if tensor.dtype() != DType::F32 {
                self.failed = Some(dtype_error(tensor.dtype()));
                return tensor;
            }
            let count = tensor.shape().num_elements();
            let changed = (self.change)(tensor.inner().reshape([count]), &mut trained).reshape(shape);
            match strategy {
                None => changed,
                Some(strategy) => {
                    changed.autodiff().with_gradient_checkpointing_strategy(strategy).set_require_grad(trained)
                }
            }
        })
    }
}
