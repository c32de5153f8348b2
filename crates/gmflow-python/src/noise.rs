//! Random numbers of a solver that Python may give.

use crate::array::Array;
use crate::error;
use burn::tensor::{Device, Int, Tensor, TensorData};
use gmflow::mixture::GaussianMixture;
use gmflow::rng::Purpose;
use gmflow::solver::{NoiseSource, SeededNoise};
use pyo3::prelude::*;

/// Random numbers of a function `draws(kind, index, shape)`: normals `[b c h w]`, components `[b h w]`, or the bases of spectral draws
/// `[b c c]`, eigenvectors in columns. The seeds give what the function leaves open with `None`.
pub struct Draws<'a> {
    function: Option<Py<PyAny>>,
    seeded: SeededNoise,
    channels: usize,
    /// Is told of what the function raises; from then on numbers mean nothing.
    failed: &'a dyn Fn(PyErr),
}

impl<'a> Draws<'a> {
    /// One seed for each sample, of so many channels.
    pub fn new(function: Option<Py<PyAny>>, seeds: Vec<u64>, channels: usize, failed: &'a dyn Fn(PyErr)) -> Self {
        Self { function, seeded: SeededNoise { seeds, device: Device::flex() }, channels, failed }
    }

    /// What the function gives of a kind.
    fn given(&self, kind: &str, index: usize, shape: &[usize]) -> Option<Vec<f32>> {
        let function = self.function.as_ref()?;
        let given = Python::attach(|py| {
            let given = function.bind(py).call1((kind, index, shape))?;
            if given.is_none() {
                return Ok(None);
            }
            let array = Array::new("draws", &given)?;
            array.expect(shape)?;
            Ok::<_, PyErr>(Some(array.expect_finite()?.values().to_vec()))
        });
        given.unwrap_or_else(|error| {
            (self.failed)(error);
            None
        })
    }
}

impl NoiseSource for Draws<'_> {
    fn normal(&mut self, purpose: Purpose, index: usize, shape: [usize; 4]) -> Tensor<4> {
        let kind = match purpose {
            Purpose::Transition => "transition",
            Purpose::WithinComponent => "within-component",
            Purpose::Spectral => "spectral",
            _ => return self.seeded.normal(purpose, index, shape),
        };
        match self.given(kind, index, &shape) {
            Some(values) => Tensor::from_data(TensorData::new(values, shape), &Device::flex()),
            None => self.seeded.normal(purpose, index, shape),
        }
    }

    fn component(&mut self, index: usize, mixture: &GaussianMixture) -> Tensor<5, Int> {
        let [b, k, _, h, w] = mixture.means.dims();
        let Some(values) = self.given("component", index, &[b, h, w]) else {
            return self.seeded.component(index, mixture);
        };
        let fits = |component: &&f32| **component >= 0.0 && **component < k as f32;
        if let Some(wrong) = values.iter().find(|component| !fits(component)) {
            let expected = format!("components 0 to {}", k - 1);
            (self.failed)(error::of(gmflow::Error::config("draws", expected, wrong)));
            return self.seeded.component(index, mixture);
        }
        let components: Vec<i64> = values.into_iter().map(|component| component as i64).collect();
        Tensor::from_data(TensorData::new(components, [b, 1, 1, h, w]), &Device::flex())
    }

    fn basis(&mut self, index: usize) -> Option<Tensor<5>> {
        let (b, c) = (self.seeded.seeds.len(), self.channels);
        let values = self.given("basis", index, &[b, c, c])?;
        Some(Tensor::from_data(TensorData::new(values, [b, 1, 1, c, c]), &Device::flex()))
    }
}
