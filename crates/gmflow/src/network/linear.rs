//! A linear map that keeps its weight in PyTorch's orientation.

use super::named::TensorSource;
use crate::kernel::{self, MatmulPrecision, PackedWeight};
use crate::rng::{self, Purpose};
use burn::module::{Module, Param, ParamId};
use burn::tensor::{DType, Device, Tensor, TensorData};
use std::sync::Arc;

/// y = x W^T + b, applied to flat rows.
#[derive(Module, Debug)]
pub(super) struct Linear {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
    #[module(skip)]
    form: Form,
}

/// How a layer computes.
#[derive(Clone, Debug)]
enum Form {
    /// With its weight as it is; rows that belong to samples always in f32.
    Plain(MatmulPrecision),
    /// With panels in place of its weight.
    Packed(Arc<PackedWeight>),
    /// On a GPU, with the weight in bf16 in its place.
    Cast(Box<Tensor<2>>),
}

impl Linear {
    /// Maps `[rows in]` to `[rows out]`.
    pub(super) fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.form {
            Form::Plain(arithmetic) => kernel::linear_in(x, self.weight.val(), self.bias.val(), *arithmetic),
            Form::Packed(panels) => kernel::linear_packed(x, panels, self.bias.val()),
            Form::Cast(weight) => kernel::linear_in(x, (**weight).clone(), self.bias.val(), MatmulPrecision::Bf16),
        }
    }

    /// The same for a batch with one row per sample, each on its own.
    pub(super) fn forward_by_row(&self, x: Tensor<2>) -> Tensor<2> {
        match &self.form {
            Form::Plain(_) => kernel::linear_by_row(x, self.weight.val(), self.bias.val()),
            Form::Packed(_) | Form::Cast(_) => self.forward(x),
        }
    }

    /// Computes in this arithmetic from now on, gradients too, unless it is packed.
    pub(super) fn compute_in(&mut self, arithmetic: MatmulPrecision) {
        if let Form::Plain(current) = &mut self.form {
            *current = arithmetic;
        }
    }

    /// Replaces the weight by panels, where the processor multiplies such, and on a GPU by numbers of the arithmetic; there are no
    /// gradients any more.
    pub(super) fn pack(&mut self, arithmetic: MatmulPrecision) {
        if !matches!(self.form, Form::Plain(_)) {
            return;
        }
        let weight = self.weight.val();
        let ([n, k], device) = (weight.dims(), weight.device());
        let form = if kernel::on_cpu(&device) {
            let arithmetic = if arithmetic.is_native() { arithmetic } else { MatmulPrecision::F32 };
            if !arithmetic.is_native() {
                return;
            }
            let data = weight.into_data();
            let Ok(values) = data.as_slice::<f32>() else { return };
            Form::Packed(Arc::new(PackedWeight::of_weight(values, [n, k], arithmetic)))
        } else if arithmetic == MatmulPrecision::Bf16 && arithmetic.is_available_on(&device) {
            Form::Cast(Box::new(weight.cast(DType::BF16)))
        } else {
            return;
        };
        self.hold(form, k, &device);
    }

    /// Packs the weight of the layer with that name from where it is stored in bf16, where panels of the arithmetic are made of that and
    /// the processor multiplies them; otherwise, or if there is something wrong with it, nothing changes.
    pub(super) fn pack_stored(&mut self, name: &str, arithmetic: MatmulPrecision, tensors: &mut impl TensorSource) {
        let device = self.weight.lazy_device();
        let is_made_of_bf16 = arithmetic != MatmulPrecision::F32 && arithmetic.is_native();
        if !kernel::on_cpu(&device) || !is_made_of_bf16 || !matches!(self.form, Form::Plain(_)) {
            return;
        }
        let sizes = self.weight.lazy_shape().dims::<2>();
        let pack = |shape: &[usize], bytes: &[u8]| {
            if shape == sizes { PackedWeight::of_bf16(bytes, sizes, arithmetic) } else { None }
        };
        if let Some(panels) = tensors.take_bf16(&format!("{name}.weight"), pack) {
            self.hold(Form::Packed(Arc::new(panels)), sizes[1], &device);
        }
    }

    /// Takes a form that has the weight in it, of rows of `k`.
    fn hold(&mut self, form: Form, k: usize, device: &Device) {
        self.form = form;
        self.weight = Param::from_tensor(Tensor::zeros([0, k], device));
    }
}

/// How a weight is drawn.
#[derive(Clone, Copy, Debug)]
pub(super) enum Init {
    /// All zero.
    Zero,
    /// All one.
    One,
    /// Normal with this standard deviation.
    Normal(f32),
    /// Uniform within the bound that keeps the variance of activations and gradients (Glorot and Bengio).
    Xavier,
    /// Uniform within 1/sqrt(fan in), weight and bias alike.
    FanIn,
}

/// Draws parameters on the host; parameter i of a network depends on the seed and i alone.
pub(crate) struct Initializer<'a> {
    seed: Option<u64>,
    next: u64,
    device: &'a Device,
}

impl<'a> Initializer<'a> {
    pub(crate) fn new(seed: u64, device: &'a Device) -> Self {
        Self { seed: Some(seed), next: 0, device }
    }

    /// Leaves every parameter without a value and without memory: for networks whose weights are read from a file at once.
    pub(crate) fn blank(device: &'a Device) -> Self {
        Self { seed: None, next: 0, device }
    }

    /// A linear map with a weight `[fan_out fan_in]` drawn by `init` and a bias of zero (except for [`Init::FanIn`]).
    pub(super) fn linear(&mut self, fan_in: usize, fan_out: usize, init: Init) -> Linear {
        let bias = if matches!(init, Init::FanIn) { init } else { Init::Zero };
        self.linear_with_bias(fan_in, fan_out, init, bias)
    }

    /// A linear map with a weight `[fan_out fan_in]` drawn by `weight` and a bias drawn by `bias`.
    pub(super) fn linear_with_bias(&mut self, fan_in: usize, fan_out: usize, weight: Init, bias: Init) -> Linear {
        let fans = [fan_in, fan_out];
        let (weight, bias) = (self.param([fan_out, fan_in], weight, fans), self.param([fan_out], bias, fans));
        Linear { weight, bias, form: Form::Plain(MatmulPrecision::F32) }
    }

    /// A parameter of any shape; `fans` are its [fan in, fan out].
    pub(super) fn param<const D: usize>(
        &mut self,
        shape: [usize; D],
        init: Init,
        fans: [usize; 2],
    ) -> Param<Tensor<D>> {
        let Some(seed) = self.seed else {
            let zeros = move |device: &Device, _| Tensor::zeros(shape, device);
            return Param::uninitialized(ParamId::new(), zeros, self.device.clone(), true, shape.into());
        };
        let n = shape.iter().product();
        let index = self.next;
        self.next += 1;
        let uniform =
            |bound: f32| scaled(rng::uniforms(seed, Purpose::Weights, index, n), |u| bound * (2.0 * u - 1.0));
        let values = match init {
            Init::Zero => vec![0.0; n],
            Init::One => vec![1.0; n],
            Init::Normal(std) => scaled(rng::normals(seed, Purpose::Weights, index, n), |z| z * std),
            Init::Xavier => uniform((6.0 / (fans[0] + fans[1]) as f32).sqrt()),
            Init::FanIn => uniform(1.0 / (fans[0] as f32).sqrt()),
        };
        Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), self.device))
    }
}

fn scaled(mut values: Vec<f32>, f: impl Fn(f32) -> f32) -> Vec<f32> {
    values.iter_mut().for_each(|v| *v = f(*v));
    values
}
