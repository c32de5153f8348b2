//! Parameters by the names that PyTorch checkpoints give them.

use crate::{Error, Result};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Tensor, TensorData};
use std::collections::BTreeMap;

/// A module whose parameters have names in a PyTorch checkpoint.
pub trait TorchNames: Module {
    /// The checkpoint's name of the parameter at a dotted path of field names.
    fn torch_name(path: &str) -> String;
}

/// A parameter's values on the host, row-major, in PyTorch's orientation.
#[derive(Clone, Debug, PartialEq)]
pub struct HostTensor {
    /// Sizes of the axes.
    pub shape: Vec<usize>,
    /// Values, as many as the product of the shape.
    pub values: Vec<f32>,
}

/// The checkpoint name of every parameter, in the order of the module's fields.
pub fn parameter_names<M: TorchNames>(module: &M) -> Vec<(ParamId, String)> {
    let mut visitor = Names { path: Vec::new(), to_name: M::torch_name, names: Vec::new() };
    module.visit(&mut visitor);
    visitor.names
}

/// Every parameter with its checkpoint name, in the order of the module's fields.
pub fn named_tensors<M: TorchNames>(module: &M) -> Vec<(String, HostTensor)> {
    let mut visitor = Collect { path: Vec::new(), to_name: M::torch_name, tensors: Vec::new() };
    module.visit(&mut visitor);
    visitor.tensors
}

/// Replaces every parameter by the tensor of its name; ids, devices and gradient requirements stay.
///
/// # Errors
/// [`Error::Config`] with field "tensor NAME" where a tensor is missing, left over, of the wrong shape or not finite.
pub fn load_named<M: TorchNames>(module: M, tensors: BTreeMap<String, HostTensor>) -> Result<M> {
    let mut mapper = Load { path: Vec::new(), to_name: M::torch_name, tensors, error: None };
    let module = module.map(&mut mapper);
    match (mapper.error, mapper.tensors.pop_first()) {
        (Some(error), _) => Err(error),
        (None, Some((name, _))) => Err(tensor_error(&name, "no such tensor in this network", "a tensor")),
        (None, None) => Ok(module),
    }
}

fn tensor_error(name: &str, expected: impl Into<String>, got: impl ToString) -> Error {
    Error::config(format!("tensor {name}"), expected, got)
}

/// Keeps the path of field names during a traversal; enum variants add nothing to it.
fn enter(path: &mut Vec<String>, name: &str, container: &str) {
    if !container.starts_with("Enum:") {
        path.push(name.to_owned());
    }
}

fn exit(path: &mut Vec<String>, container: &str) {
    if !container.starts_with("Enum:") {
        path.pop();
    }
}

struct Names {
    path: Vec<String>,
    to_name: fn(&str) -> String,
    names: Vec<(ParamId, String)>,
}

impl ModuleVisitor for Names {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.names.push((param.id, (self.to_name)(&self.path.join("."))));
    }

    fn enter_module(&mut self, name: &str, container: &str) {
        enter(&mut self.path, name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        exit(&mut self.path, container);
    }
}

struct Collect {
    path: Vec<String>,
    to_name: fn(&str) -> String,
    tensors: Vec<(String, HostTensor)>,
}

impl ModuleVisitor for Collect {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let shape = value.dims().to_vec();
        let values = value.into_data().iter::<f32>().collect();
        self.tensors.push(((self.to_name)(&self.path.join(".")), HostTensor { shape, values }));
    }

    fn enter_module(&mut self, name: &str, container: &str) {
        enter(&mut self.path, name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        exit(&mut self.path, container);
    }
}

struct Load {
    path: Vec<String>,
    to_name: fn(&str) -> String,
    tensors: BTreeMap<String, HostTensor>,
    error: Option<Error>,
}

impl Load {
    /// Takes the checked values of the parameter at the current path.
    fn take(&mut self, shape: &[usize]) -> Result<Vec<f32>> {
        let name = (self.to_name)(&self.path.join("."));
        let Some(tensor) = self.tensors.remove(&name) else {
            return Err(tensor_error(&name, format!("shape {shape:?}"), "no tensor"));
        };
        if tensor.shape != shape || tensor.values.len() != shape.iter().product::<usize>() {
            return Err(tensor_error(&name, format!("shape {shape:?}"), format!("shape {:?}", tensor.shape)));
        }
        match tensor.values.iter().find(|v| !v.is_finite()) {
            Some(value) => Err(tensor_error(&name, "finite values", value)),
            None => Ok(tensor.values),
        }
    }
}

impl ModuleMapper for Load {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = param.dims();
        match self.take(&shape) {
            Ok(values) => param.map(|old| {
                let new = Tensor::from_data(TensorData::new(values, shape), &old.device());
                if old.is_require_grad() { new.require_grad() } else { new }
            }),
            Err(error) => {
                self.error.get_or_insert(error);
                param
            }
        }
    }

    fn enter_module(&mut self, name: &str, container: &str) {
        enter(&mut self.path, name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        exit(&mut self.path, container);
    }
}
