//! A module together with what training adds to it: moments and averages.
//!
//! ```
//! use burn::tensor::Device;
//! use gmflow::network::{Mlp2dConfig, NetworkConfig};
//! use gmflow_train::trainable::Trainable;
//!
//! let config = Mlp2dConfig { hidden_dim: 8, embed_dim: 4, ..Mlp2dConfig::default() };
//! let network = NetworkConfig::Mlp2d(config).init(0, &Device::flex().autodiff())?;
//! let trainable = Trainable::new(network, &[])?;
//! assert_eq!((trainable.optimizer.step, trainable.averages.len()), (0, 0));
//! # Ok::<(), gmflow_train::Error>(())
//! ```

use burn::module::Module;
use burn::tensor::Tensor;
use gmflow::kernel::{lerp, square_sums};
use gmflow::network::{TorchNames, parameter_shapes};
use std::mem::take;
use std::ops::Range;

pub use crate::ema::Ema;
pub use crate::optimizer::AdamW;

use crate::config::{EmaConfig, TrainConfig};
use crate::optimizer::clip_factor;
use crate::params::{self, Values};
use crate::{Error, Result};

/// A parameter's checkpoint name and shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParamInfo {
    /// The name in checkpoints.
    pub name: String,
    /// The shape.
    pub shape: Vec<usize>,
}

/// A module, its AdamW state and its averages, all on its device. Memory: four times the parameters, and one more for each average.
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
        let mut trainable = Self::bare(module, averages);
        trainable.begin_state(0..trainable.infos.len())?;
        Ok(trainable)
    }

    /// A module without moments and averages; [`begin_state`](Self::begin_state) follows.
    pub(crate) fn bare(module: M, averages: &[EmaConfig]) -> Self {
        let named = parameter_shapes(&module).into_iter();
        let infos = named.map(|(name, shape)| ParamInfo { name, shape }).collect();
        let optimizer = AdamW { exp_avg: Values::new(), exp_avg_sq: Values::new(), step: 0 };
        let averages = averages.iter().map(|config| Ema { config: config.clone(), values: Values::new() }).collect();
        Self { module: Some(module), infos, optimizer, averages }
    }

    /// Zero moments, and averages at the weights, of the parameters whose places in the order are in `own`; of the others none.
    ///
    /// # Errors
    /// A parameter that is not f32.
    pub(crate) fn begin_state(&mut self, own: Range<usize>) -> Result<()> {
        let mut values = params::shared(self.module()?)?;
        for (place, values) in values.iter_mut().enumerate() {
            if !own.contains(&place) {
                *values = Tensor::zeros([0], &values.device());
            }
        }
        self.optimizer = AdamW { step: self.optimizer.step, ..AdamW::new(&values) };
        self.averages.iter_mut().for_each(|ema| ema.values.clone_from(&values));
        Ok(())
    }

    /// Leaves the parameters that `trained` does not name as they are from now on.
    ///
    /// # Errors
    /// A parameter that is not f32.
    pub fn train_only(&mut self, trained: impl Fn(&str) -> bool) -> Result<()> {
        let trained: Vec<bool> = self.infos.iter().map(|info| trained(&info.name)).collect();
        self.module = self.module.take().map(|module| params::only(module, &trained)).transpose()?;
        Ok(())
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

    /// Adds this module's gradients of a loss to `total`; where no parameter is trained there are none.
    ///
    /// # Errors
    /// A gradient that is not f32.
    pub fn backward(&self, loss: &Tensor<1>, total: &mut Option<Values>) -> Result<()> {
        if !loss.is_tracked() {
            return Ok(());
        }
        let part = params::take_gradients(self.module()?, &mut loss.backward())?;
        let add = |sum: Tensor<1>, part: Tensor<1>| match (sum.dims(), part.dims()) {
            ([0], _) => part,
            (_, [0]) => sum,
            _ => sum + part,
        };
        *total = Some(match total.take() {
            None => part,
            Some(sums) => sums.into_iter().zip(part).map(|(sum, part)| add(sum, part)).collect(),
        });
        Ok(())
    }

    /// The numbers of each parameter.
    pub(crate) fn sizes(&self) -> Vec<usize> {
        self.infos.iter().map(|info| info.shape.iter().product()).collect()
    }

    /// Hands over the numbers of every parameter, in order, to be read or changed in their own memory; `wanted` says of a parameter's
    /// place whether they are.
    ///
    /// # Errors
    /// A parameter that is not f32; what `take` fails with, after which it is not called again.
    pub(crate) fn in_place(
        &mut self,
        wanted: impl Fn(usize) -> bool,
        mut take: impl FnMut(usize, &mut [f32]) -> Result<()>,
    ) -> Result<()> {
        let Some(module) = self.module.take() else { return self.module().map(|_| ()) };
        let (mut place, mut done) = (0, Ok(()));
        let module = params::update(module, |values| {
            place += 1;
            if done.is_err() || !wanted(place - 1) {
                return values;
            }
            let device = values.device();
            // The numbers are f32, which `update` has seen to.
            let mut data = values.into_data();
            done = params::numbers(&mut data).and_then(|numbers| take(place - 1, numbers));
            params::from_data(data, &device)
        })?;
        self.module = Some(module);
        done
    }

    /// Both moments and the averages, in this order.
    pub(crate) fn state_mut(&mut self) -> Vec<&mut Values> {
        let AdamW { exp_avg, exp_avg_sq, .. } = &mut self.optimizer;
        [exp_avg, exp_avg_sq].into_iter().chain(self.averages.iter_mut().map(|ema| &mut ema.values)).collect()
    }

    /// The sum of the squares of each parameter's gradient.
    pub(crate) fn squares(&self, gradients: &mut Values) -> Vec<f64> {
        let (same, squares) = square_sums(std::mem::take(gradients));
        *gradients = same;
        squares
    }

    /// The gradient's norm and the norm of each parameter's gradient.
    pub fn norms(&self, gradients: &mut Values) -> (f64, Vec<f64>) {
        let squares = self.squares(gradients);
        (squares.iter().sum::<f64>().sqrt(), squares.into_iter().map(f64::sqrt).collect())
    }

    /// What is not finite: the first weight, moment or average with such a value, in words.
    pub fn not_finite(&self) -> Result<Option<String>> {
        let weights = params::shared(self.module()?)?;
        let AdamW { exp_avg, exp_avg_sq, .. } = &self.optimizer;
        let groups =
            [("the weight", &weights), ("the first moment of", exp_avg), ("the second moment of", exp_avg_sq)];
        let groups = groups.into_iter().map(|(what, values)| (what.to_owned(), values));
        let averages = self.averages.iter().map(|ema| (format!("the average {} of", ema.config.name), &ema.values));
        for (what, values) in groups.chain(averages) {
            for (info, values) in self.infos.iter().zip(values) {
                // The sum of squares is fast on every device; where it is too large for the device's numbers, the values decide.
                let sum = square_sums(vec![values.clone()]).1.into_iter().sum::<f64>();
                if !sum.is_finite() && !params::on_host(values)?.iter().all(|value| value.is_finite()) {
                    return Ok(Some(format!("{what} {}", info.name)));
                }
            }
        }
        Ok(None)
    }

    /// One clipped AdamW step, and the averages' step behind it, one parameter at a time. A parameter without a gradient stays, as in
    /// PyTorch.
    ///
    /// # Errors
    /// A parameter that is not f32.
    pub fn update(&mut self, train: &TrainConfig, lr: f64, gradients: Values, norm: f64) -> Result<()> {
        let rule = self.optimizer.begin(train, lr);
        let (taken, scale) = (self.optimizer.step, clip_factor(norm, train.clip_grad_norm) as f32);
        let Some(module) = self.module.take() else { return self.module().map(|_| ()) };
        // Everything is taken out and put back changed, so that it has one owner and is changed in place.
        let AdamW { exp_avg, exp_avg_sq, .. } = &mut self.optimizer;
        let mut moments = take(exp_avg).into_iter().zip(take(exp_avg_sq));
        let mut averages: Vec<_> = self.averages.iter_mut().map(|ema| take(&mut ema.values).into_iter()).collect();
        let shares = self.averages.iter().map(|ema| (1.0 - ema.config.decay.at(taken, train.batch_size)) as f32);
        let shares: Vec<f32> = shares.collect();
        let mut gradients = gradients.into_iter();
        let module = params::update(module, |mut values| {
            if let Some((mut first, mut second)) = moments.next() {
                if let Some(gradient) = gradients.next().filter(|gradient| gradient.dims() == values.dims()) {
                    (values, [first, second]) = rule.update_tensors(taken, scale, values, gradient, [first, second]);
                }
                exp_avg.push(first);
                exp_avg_sq.push(second);
            }
            for ((ema, old), &share) in self.averages.iter_mut().zip(&mut averages).zip(&shares) {
                // That of a parameter of another rank is not here.
                let next = old
                    .next()
                    .map(|old| if old.dims() == values.dims() { lerp(old, values.clone(), share) } else { old });
                ema.values.extend(next);
            }
            values
        })?;
        self.module = Some(module);
        Ok(())
    }
}
