//! A module together with what training adds to it: moments and averages.

use burn::module::Module;
use burn::tensor::Gradients;
use gmflow::network::{TorchNames, named_tensors};

use crate::config::{EmaConfig, TrainConfig};
use crate::ema::Ema;
use crate::optimizer::{AdamW, clip_factor, square_sums};
use crate::params::{self, Buffers};
use crate::{Error, Result};

/// A parameter's checkpoint name and shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamInfo {
    /// The name in checkpoints.
    pub name: String,
    /// The shape.
    pub shape: Vec<usize>,
}

/// A module, its AdamW state and its averages. Memory: four times the parameters, and one more for each average.
#[derive(Debug)]
pub struct Trainable<M: Module> {
    /// `None` only while an update owns the module.
    module: Option<M>,
    /// Names and shapes in traversal order.
    pub infos: Vec<ParamInfo>,
    /// Optimiser state.
    pub optimizer: AdamW,
    /// Averages.
    pub averages: Vec<Ema>,
}

impl<M: TorchNames> Trainable<M> {
    /// Zero moments; every average starts at the module's weights.
    ///
    /// # Errors
    /// A parameter that is not f32.
    pub fn new(module: M, averages: &[EmaConfig]) -> Result<Self> {
        let tensors = named_tensors(&module);
        let (mut infos, mut values) = (Vec::new(), Buffers::new());
        for (name, tensor) in tensors {
            infos.push(ParamInfo { name, shape: tensor.shape });
            values.push(tensor.values);
        }
        let optimizer = AdamW::new(&values);
        let averages = averages.iter().map(|config| Ema { config: config.clone(), values: values.clone() }).collect();
        Ok(Self { module: Some(module), infos, optimizer, averages })
    }

    /// The module with its gradients tracked.
    ///
    /// # Errors
    /// An earlier update failed half way.
    pub fn module(&self) -> Result<&M> {
        self.module.as_ref().ok_or_else(|| Error::config("network", "a whole network", "a failed update"))
    }

    /// A copy for inference on the plain device: of the weights, or of the average of that name.
    ///
    /// # Errors
    /// No average has that name.
    pub fn snapshot(&self, average: Option<&str>) -> Result<M> {
        let module = self.module()?.valid();
        match average {
            None => Ok(module),
            Some(name) => params::filled(module, &self.average(name)?.values),
        }
    }

    /// The average of that name.
    ///
    /// # Errors
    /// No average has that name.
    pub fn average(&self, name: &str) -> Result<&Ema> {
        self.averages
            .iter()
            .find(|ema| ema.config.name == name)
            .ok_or_else(|| Error::config("ema", "the name of an [[ema]] entry", name))
    }

    /// Takes this module's gradients out and adds them to `total`.
    ///
    /// # Errors
    /// A gradient that is not f32.
    pub fn accumulate(&self, total: &mut Option<Buffers>, gradients: &mut Gradients) -> Result<()> {
        let part = params::take_gradients(self.module()?, gradients)?;
        let Some(total) = total else {
            *total = Some(part);
            return Ok(());
        };
        for (sum, part) in total.iter_mut().zip(part) {
            if sum.is_empty() {
                *sum = part;
            } else {
                sum.iter_mut().zip(part).for_each(|(sum, value)| *sum += value);
            }
        }
        Ok(())
    }

    /// The gradient's norm and the norm of each parameter's gradient.
    pub fn norms(&self, gradients: &Buffers) -> (f64, Vec<f64>) {
        let squares = square_sums(gradients);
        (squares.iter().sum::<f64>().sqrt(), squares.into_iter().map(f64::sqrt).collect())
    }

    /// One clipped AdamW step, and the averages' step behind it, one parameter at a time.
    ///
    /// # Errors
    /// A parameter that is not f32.
    pub fn update(&mut self, train: &TrainConfig, lr: f64, gradients: &Buffers, norm: f64) -> Result<()> {
        let step = self.optimizer.begin(train, lr, clip_factor(norm, train.clip_grad_norm));
        let taken = self.optimizer.step;
        let decays: Vec<f64> = self.averages.iter().map(|ema| ema.config.decay.at(taken, train.batch_size)).collect();
        let Some(module) = self.module.take() else { return self.module().map(|_| ()) };
        let (optimizer, averages) = (&mut self.optimizer, &mut self.averages);
        let module = params::update(module, |index, values| {
            let gradient = gradients.get(index).map(Vec::as_slice).unwrap_or_default();
            optimizer.apply(&step, index, values, gradient);
            for (ema, &decay) in averages.iter_mut().zip(&decays) {
                ema.update(index, values, decay);
            }
        })?;
        self.module = Some(module);
        Ok(())
    }
}
