//! Arrays of NumPy's in and out, without a copy.
//!
//! They go through the array interface, a Python attribute with address, shape and type. Tensors of an array's memory keep the array alive;
//! arrays of a tensor's memory keep a [`Buffer`] alive.

use crate::error;
use burn::tensor::{Bytes, DType, Device, Tensor, TensorData};
use cubecl_environment::bytes::{AccessError, AccessPolicy, AllocationController, AllocationProperty};
use gmflow::kernel::all_finite;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::any::Any;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

/// The numbers of an array, which stays alive with this.
pub struct Array {
    what: &'static str,
    memory: Memory,
    shape: Vec<usize>,
}

/// Memory of a Python object.
struct Memory {
    _owner: Py<PyAny>,
    start: NonNull<f32>,
    len: usize,
}

// SAFETY: the owner keeps the memory where it is, from whichever thread it is read. That nobody writes to an array while a function reads
// it is asked of callers, as NumPy does.
unsafe impl Send for Memory {}
// SAFETY: as above; nothing is written here.
unsafe impl Sync for Memory {}

impl Array {
    /// The array `array`, which error messages call `what`: `float32` in C order, or (address, shape, owner) of such numbers.
    pub fn new(what: &'static str, array: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Ok(parts) = array.cast::<PyTuple>() {
            let (address, shape, owner): (usize, Vec<usize>, Bound<'_, PyAny>) = parts.extract()?;
            return Ok(Self::at(what, address, shape, owner));
        }
        let interface = array.getattr(intern!(array.py(), "__array_interface__"))?;
        let kind: String = interface.get_item("typestr")?.extract()?;
        let in_order = interface.call_method1("get", ("strides",))?.is_none();
        let (address, _): (usize, bool) = interface.get_item("data")?.extract()?;
        let shape: Vec<usize> = interface.get_item("shape")?.extract()?;
        let aligned = address.is_multiple_of(align_of::<f32>());
        if kind != "<f4" || !in_order || !aligned {
            return Err(PyTypeError::new_err(format!("{what}: expected float32 in C order, got {kind}")));
        }
        Ok(Self::at(what, address, shape, array.clone()))
    }

    fn at(what: &'static str, address: usize, shape: Vec<usize>, owner: Bound<'_, PyAny>) -> Self {
        let len = shape.iter().product();
        let start = match NonNull::new(std::ptr::without_provenance_mut::<f32>(address)) {
            Some(_) if len > 0 => NonNull::new(std::ptr::with_exposed_provenance_mut(address)),
            _ => None,
        };
        let memory = Memory { _owner: owner.unbind(), start: start.unwrap_or(NonNull::dangling()), len };
        Self { what, memory, shape }
    }

    /// Its shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Its shape, where it has D axes.
    pub fn dims<const D: usize>(&self) -> PyResult<[usize; D]> {
        <[usize; D]>::try_from(self.shape.as_slice()).map_err(|_| {
            let got = format!("{:?}", self.shape);
            error::new("ShapeError", format!("{}: expected {D} axes, got shape {got}", self.what))
        })
    }

    /// Checks its shape.
    pub fn expect(&self, expected: &[usize]) -> PyResult<()> {
        match self.shape == expected {
            true => Ok(()),
            false => Err(error::of(gmflow::Error::shape(self.what, expected, &self.shape))),
        }
    }

    /// Its numbers.
    pub fn values(&self) -> &[f32] {
        // SAFETY: the interface says that there are as many numbers, and the owner keeps them.
        unsafe { std::slice::from_raw_parts(self.memory.start.as_ptr(), self.memory.len) }
    }

    /// Refuses numbers that are not finite.
    pub fn expect_finite(&self) -> PyResult<&Self> {
        if all_finite(self.values()) {
            return Ok(self);
        }
        let found = self.values().iter().enumerate().find(|(_, x)| !x.is_finite());
        found.map_or(Ok(self), |(index, x)| {
            let place = place(index, &self.shape);
            Err(PyValueError::new_err(format!("{}: expected finite numbers, got {x} at {place:?}", self.what)))
        })
    }

    /// A tensor of finite numbers.
    pub fn finite_tensor<const D: usize>(self) -> PyResult<Tensor<D>> {
        self.expect_finite()?;
        self.tensor()
    }

    /// A tensor of the same memory, which is copied where it is written to.
    pub fn tensor<const D: usize>(self) -> PyResult<Tensor<D>> {
        let shape = self.dims::<D>()?;
        let len = self.memory.len * size_of::<f32>();
        // SAFETY: all of the memory is written.
        let bytes = unsafe { Bytes::from_controller(Box::new(self.memory), len) };
        Ok(Tensor::from_data(TensorData::from_bytes(bytes.shared(), shape, DType::F32), &Device::flex()))
    }
}

/// The place of a number in an array.
fn place(index: usize, shape: &[usize]) -> Vec<usize> {
    let mut rest = index;
    let mut place: Vec<usize> = shape
        .iter()
        .rev()
        .map(|&n| {
            let at = rest % n.max(1);
            rest /= n.max(1);
            at
        })
        .collect();
    place.reverse();
    place
}

/// Whether two tensors have the same bits.
pub fn same(a: &Tensor<4>, b: &Tensor<4>) -> bool {
    let (a, b) = (a.clone().into_data(), b.clone().into_data());
    match (a.as_slice::<f32>(), b.as_slice::<f32>()) {
        (Ok(a), Ok(b)) => a.iter().map(|x| x.to_bits()).eq(b.iter().map(|x| x.to_bits())),
        _ => false,
    }
}

impl AllocationController for Memory {
    fn alloc_align(&self) -> usize {
        align_of::<f32>()
    }

    fn property(&self) -> AllocationProperty {
        AllocationProperty::Other
    }

    unsafe fn memory_mut(&mut self, _policy: AccessPolicy) -> Result<&mut [MaybeUninit<u8>], AccessError> {
        // It is Python's, and shared: those who write copy it first.
        Err(AccessError::WouldCopy)
    }

    fn memory(&self, _policy: AccessPolicy) -> Result<&[MaybeUninit<u8>], AccessError> {
        // SAFETY: as in `Array::values`.
        Ok(unsafe { std::slice::from_raw_parts(self.start.as_ptr().cast(), self.len * size_of::<f32>()) })
    }
}

/// Memory that arrays are made of with `numpy.asarray`, which keep it alive.
#[pyclass(frozen, module = "gmflow._native")]
pub struct Buffer {
    _memory: Box<dyn Any + Send + Sync>,
    address: usize,
    shape: Vec<usize>,
    kind: &'static str,
}

#[pymethods]
impl Buffer {
    /// Address, shape and type, as NumPy asks for them.
    #[getter(__array_interface__)]
    fn array_interface<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let interface = PyDict::new(py);
        interface.set_item("version", 3)?;
        interface.set_item("shape", pyo3::types::PyTuple::new(py, &self.shape)?)?;
        interface.set_item("typestr", self.kind)?;
        interface.set_item("data", (self.address, false))?;
        Ok(interface)
    }
}

impl Buffer {
    /// The numbers of a tensor, which are copied only where something else holds them too.
    pub fn of<const D: usize>(tensor: Tensor<D>) -> PyResult<Self> {
        let shape = tensor.dims().to_vec();
        let mut data = tensor.into_data();
        let unreadable = |error| PyValueError::new_err(format!("numbers of a tensor: {error:?}"));
        let address = data.as_mut_slice::<f32>().map_err(unreadable)?.as_mut_ptr().expose_provenance();
        Ok(Self { _memory: Box::new(data), address, shape, kind: "<f4" })
    }

    /// Numbers of this shape, as many as it says.
    pub fn floats(mut values: Vec<f32>, shape: &[usize]) -> Self {
        debug_assert_eq!(values.len(), shape.iter().product::<usize>());
        let address = values.as_mut_ptr().expose_provenance();
        Self { _memory: Box::new(values), address, shape: shape.to_vec(), kind: "<f4" }
    }

    /// Bytes of this shape, as many as it says.
    pub fn bytes(mut values: Vec<u8>, shape: &[usize]) -> Self {
        debug_assert_eq!(values.len(), shape.iter().product::<usize>());
        let address = values.as_mut_ptr().expose_provenance();
        Self { _memory: Box::new(values), address, shape: shape.to_vec(), kind: "|u1" }
    }
}
