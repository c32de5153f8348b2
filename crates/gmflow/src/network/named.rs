//! Parameters by the names that PyTorch checkpoints give them.

use super::Network;
use crate::kernel::MatmulPrecision;
use crate::{Error, Result};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// Values that one thread looks through at a time.
const CHUNK: usize = 1 << 16;

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

/// The checkpoint name and shape of every parameter, in the order of the module's fields; none is initialised for it.
pub fn parameter_shapes<M: TorchNames>(module: &M) -> Vec<(String, Vec<usize>)> {
    let mut visitor = Shapes { path: Vec::new(), to_name: M::torch_name, shapes: Vec::new() };
    module.visit(&mut visitor);
    visitor.shapes
}

/// A parameter that is read when it is needed, so that a copy of all of them never exists.
pub struct LazyTensor {
    /// Sizes of the axes.
    pub shape: Vec<usize>,
    read: Box<dyn Fn() -> Vec<f32>>,
}

impl LazyTensor {
    /// The values on the host, row-major.
    pub fn values(&self) -> Vec<f32> {
        (self.read)()
    }
}

/// Where the weights of a module come from.
pub trait TensorSource {
    /// Takes the tensor of that name, or `None` where there is none.
    ///
    /// # Errors
    /// A tensor that cannot be read as f32.
    fn take(&mut self, name: &str) -> Result<Option<HostTensor>>;

    /// Shows `f` the shape and the little-endian numbers of the tensor of that name, if it is there and stored in bf16; if something comes
    /// back, the tensor has been taken.
    fn take_bf16<R>(&mut self, name: &str, f: impl FnOnce(&[usize], &[u8]) -> Option<R>) -> Option<R> {
        let _ = (name, f);
        None
    }

    /// The names of the tensors that nobody has taken, but for those that no network could take.
    fn left(&self) -> Vec<String>;
}

impl TensorSource for BTreeMap<String, HostTensor> {
    fn take(&mut self, name: &str) -> Result<Option<HostTensor>> {
        Ok(self.remove(name))
    }

    fn left(&self) -> Vec<String> {
        self.keys().cloned().collect()
    }
}

/// Every parameter with its checkpoint name, in the order of the module's fields, none of them read yet.
pub fn lazy_tensors<M: TorchNames>(module: &M) -> Vec<(String, LazyTensor)> {
    let mut visitor = Collect { path: Vec::new(), to_name: M::torch_name, tensors: Vec::new() };
    module.visit(&mut visitor);
    visitor.tensors
}

/// Every parameter with its checkpoint name, in the order of the module's fields.
pub fn named_tensors<M: TorchNames>(module: &M) -> Vec<(String, HostTensor)> {
    let host = |LazyTensor { shape, read }: LazyTensor| HostTensor { shape, values: read() };
    lazy_tensors(module).into_iter().map(|(name, tensor)| (name, host(tensor))).collect()
}

/// Replaces every parameter by the tensor of its name; ids, devices and gradient requirements stay.
///
/// # Errors
/// [`crate::FilesError::Config`] with field "tensor NAME" where a tensor is missing, left over, of the wrong shape or not finite.
pub fn load_named<M: TorchNames>(module: M, tensors: impl TensorSource) -> Result<M> {
    let mut mapper = Load::new(M::torch_name, tensors);
    let module = module.map(&mut mapper);
    mapper.finish(module)
}

/// [`load_named`] of a network without values, which is packed on the way ([`Network::pack`]): the weights of one block at a time exist
/// beside the panels, or none where they are stored as the panels hold them.
pub(crate) fn load_packed(
    mut network: Network,
    tensors: impl TensorSource,
    arithmetic: MatmulPrecision,
) -> Result<Network> {
    let mut mapper = Load::new(Network::torch_name, tensors);
    mapper.keeps_initialised = true;
    for (index, block) in network.block_paths().into_iter().enumerate() {
        mapper.within = block;
        network.pack_stored(index, arithmetic, &mut mapper.tensors);
        network = network.map(&mut mapper);
        if let Some(error) = mapper.error {
            return Err(error);
        }
        network.pack_block(index, arithmetic);
    }
    mapper.within = String::new();
    let mut network = network.map(&mut mapper);
    network.pack(arithmetic);
    mapper.finish(network)
}

fn tensor_error(name: &str, expected: impl Into<String>, got: impl ToString) -> Error {
    Error::config(format!("tensor {name}"), expected, got)
}

/// The part of a network that a tensor belongs to: its name up to the first dot.
fn part(name: &str) -> &str {
    name.split('.').next().unwrap_or(name)
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

struct Shapes {
    path: Vec<String>,
    to_name: fn(&str) -> String,
    shapes: Vec<(String, Vec<usize>)>,
}

impl ModuleVisitor for Shapes {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let shape = param.lazy_shape().dims::<D>().to_vec();
        self.shapes.push(((self.to_name)(&self.path.join(".")), shape));
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
    tensors: Vec<(String, LazyTensor)>,
}

impl ModuleVisitor for Collect {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = param.val();
        let shape = value.dims().to_vec();
        let read = Box::new(move || value.clone().into_data().iter::<f32>().collect());
        self.tensors.push(((self.to_name)(&self.path.join(".")), LazyTensor { shape, read }));
    }

    fn enter_module(&mut self, name: &str, container: &str) {
        enter(&mut self.path, name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        exit(&mut self.path, container);
    }
}

struct Load<S> {
    path: Vec<String>,
    to_name: fn(&str) -> String,
    tensors: S,
    error: Option<Error>,
    /// Parameters whose path does not start with this are passed over.
    within: String,
    /// Parameters that have a value are passed over.
    keeps_initialised: bool,
    /// The first parts of the names of the network's parameters.
    parts: BTreeSet<String>,
}

impl<S: TensorSource> Load<S> {
    fn new(to_name: fn(&str) -> String, tensors: S) -> Self {
        Self {
            path: Vec::new(),
            to_name,
            tensors,
            error: None,
            within: String::new(),
            keeps_initialised: false,
            parts: BTreeSet::new(),
        }
    }

    /// The module, unless there was an error or a tensor is left.
    fn finish<M>(self, module: M) -> Result<M> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let left = self.tensors.left();
        // A part of this network that its config does not have is another network's; what stands beside it is nothing to it.
        if let Some(name) = left.iter().find(|name| self.parts.contains(part(name))) {
            return Err(tensor_error(name, "no such tensor in this network", "a tensor"));
        }
        if let Some(first) = left.first() {
            let names = if left.len() == 1 { first.clone() } else { format!("{first} and {} more", left.len() - 1) };
            log::warn!("tensor {names}: it belongs to no part of this network and is left out");
        }
        Ok(module)
    }

    /// Takes the checked values of the parameter at the current path.
    fn take(&mut self, shape: &[usize]) -> Result<Vec<f32>> {
        let name = (self.to_name)(&self.path.join("."));
        self.parts.insert(part(&name).to_owned());
        let Some(tensor) = self.tensors.take(&name)? else {
            let longer =
                self.tensors.left().into_iter().find_map(|there| there.strip_suffix(&name).map(str::to_owned));
            let hint = longer.map(|prefix| format!(", and names that begin with {prefix}")).unwrap_or_default();
            return Err(tensor_error(&name, format!("shape {shape:?}"), format!("no tensor of that name{hint}")));
        };
        if tensor.shape != shape || tensor.values.len() != shape.iter().product::<usize>() {
            return Err(tensor_error(&name, format!("shape {shape:?}"), format!("shape {:?}", tensor.shape)));
        }
        match tensor.values.par_chunks(CHUNK).find_map_first(|part| part.iter().find(|v| !v.is_finite())) {
            Some(value) => Err(tensor_error(&name, "finite values", value)),
            None => Ok(tensor.values),
        }
    }
}

impl<S: TensorSource> ModuleMapper for Load<S> {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let kept = self.keeps_initialised && param.is_initialized();
        if self.error.is_some() || kept || !self.path.join(".").starts_with(&self.within) {
            return param;
        }
        let shape = param.lazy_shape().dims::<D>();
        match self.take(&shape) {
            Ok(values) if !param.is_initialized() => {
                let device = param.lazy_device();
                let value = Tensor::from_data(TensorData::new(values, shape), &device);
                Param::initialized(param.id, if device.is_autodiff() { value.require_grad() } else { value })
            }
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
