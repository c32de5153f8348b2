//! Steps along a policy: what was predicted at the beginning of a step is followed to its end, without guidance.

use super::built_in::{BuiltIn, check_substeps};
use super::interface::{Context, Solver, SolverState, Span, SubStep};
use super::mixture_step::{self, MixtureStep, Motion};
use super::transition::euler_step;
use crate::policy::{GridPolicy, Policy, Renoising, SubstepGrid, raw_time};
use crate::rng::Purpose;
use crate::{Error, Result};
use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

/// How a student of distillation is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PiFlow {
    /// The length of the last step as a share of the others', in (0, 1].
    pub final_step_scale: f64,
    /// Sub-steps in a raw time of 1.
    pub substeps: usize,
    /// The temperature of mixtures in all steps but the last; 1 and more change nothing.
    pub temperature: f64,
    /// The strength of fresh noise between steps ([`Renoising`]); 0 is none.
    pub renoise: f64,
    /// The components are the points of a [`GridPolicy`] for segments of this length in raw time; absent: they are a mixture.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grid_segment: Option<f64>,
}

impl BuiltIn for PiFlow {
    const DEFAULT: Self =
        Self { final_step_scale: 1.0, substeps: 128, temperature: 1.0, renoise: 0.0, grid_segment: None };

    fn validate(&self) -> Result<()> {
        check_substeps(self.substeps)?;
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Err(Error::config("temperature", "a number of at least 0", self.temperature));
        }
        if self.renoise.is_nan() || self.renoise < 0.0 {
            return Err(Error::config("renoise", "a number of at least 0", self.renoise));
        }
        match self.grid_segment {
            Some(segment) if !(segment > 0.0 && segment <= 1.0) => {
                Err(Error::config("grid_segment", "a number in (0, 1]", segment))
            }
            _ => Ok(()),
        }
    }
}

impl PiFlow {
    /// Follows the mixture that is predicted at the beginning of the span to its end.
    fn follow_mixture(
        &self,
        x: Tensor<4>,
        span: Span,
        context: &mut Context,
        substep_grid: SubstepGrid,
    ) -> Result<Tensor<4>> {
        let raw = |t| raw_time(t, substep_grid.shift);
        let substeps = substep_grid.count(raw(span.t), raw(span.to));
        let Context { predict, draws, spectrum, second_order, observe } = context;
        let temperature = self.temperature;
        let mut predict = |x: &Tensor<4>, t: f64| predict(x, t).tempered(temperature);
        let mut inner = Context {
            predict: &mut predict,
            draws: &mut **draws,
            spectrum: *spectrum,
            second_order: *second_order,
            observe: observe.as_mut().map(|observe| &mut **observe as &mut dyn FnMut(&SubStep)),
        };
        let settings = MixtureStep { order: 1, substeps, motion: Motion::Velocity };
        mixture_step::step(SolverState::new(x), span, &mut inner, settings).map(SolverState::into_x)
    }

    /// The same of a grid.
    fn follow_grid(
        &self,
        x: Tensor<4>,
        span: Span,
        context: &mut Context,
        (substep_grid, segment): (SubstepGrid, f64),
    ) -> Result<Tensor<4>> {
        // Over x0 the components are the grid's points themselves: at time 1 they are x - g.
        let mixture = (context.predict)(&x, span.t).mixture();
        let b = x.dims()[0];
        let velocities = (x.clone().unsqueeze_dim::<5>(1) - mixture.0.means.clone()) / span.t;
        let policy =
            Policy::Grid(GridPolicy::new(velocities, x.clone(), vec![span.t; b], (segment, substep_grid.shift))?);
        let (from, to) = (raw_time(span.t, substep_grid.shift), raw_time(span.to, substep_grid.shift));
        let Some(observe) = &mut context.observe else {
            return Ok(policy.roll_out(&x, (&vec![from; b], &vec![to; b]), substep_grid));
        };
        let (times, mut x) = (substep_grid.times(from, to), x);
        for (substep, ends) in times.windows(2).enumerate() {
            let (t, to) = (ends[0], ends[1]);
            let x0 = x.clone() - policy.velocity(&x, &vec![t; b]) * t;
            x = euler_step(&x, &x0, t, to);
            let last = substep + 2 == times.len();
            observe(&SubStep { step: span.index, substep, last, mixture: &mixture, x0: &x0, x: &x });
        }
        Ok(x)
    }
}

impl Solver for PiFlow {
    fn step(&self, state: SolverState, span: Span, context: &mut Context) -> Result<SolverState> {
        let substep_grid = SubstepGrid { shift: f64::from(span.shift), substeps: self.substeps as f64 };
        let renoising = Renoising::new((span.t, span.to), self.renoise);
        let followed = Span { to: renoising.to, ..span };
        // The last step is taken as it was predicted.
        let last = span.to <= 0.0;
        let settings = Self { temperature: if last { 1.0 } else { self.temperature }, ..*self };
        let x = match self.grid_segment {
            None => settings.follow_mixture(state.into_x(), followed, context, substep_grid)?,
            Some(segment) => settings.follow_grid(state.into_x(), followed, context, (substep_grid, segment))?,
        };
        if renoising.kept >= 1.0 || last {
            return Ok(SolverState::new(x));
        }
        let noise = context.draws.normal(Purpose::Transition, span.index, x.dims());
        Ok(SolverState::new(x * renoising.scale + noise * renoising.noise))
    }

    fn order(&self) -> usize {
        1
    }
}
