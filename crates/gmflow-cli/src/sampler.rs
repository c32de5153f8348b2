//! From the sampler arguments to a checked sampler: first what needs no model, then what does.

use crate::args::{Carry, ReweightBy, SamplerArgs, Solver, Switch, name_of};
use crate::failure::usage;
use anyhow::{Result, anyhow};
use burn::tensor::{Device, Tensor, TensorData};
use gmflow::checkpoint::{Model, ModelInfo};
use gmflow::guidance::{Guidance, Variance};
use gmflow::pipeline::{Pipeline, SampleRequest, SamplerConfig};
use gmflow::solver::{self, SecondOrder, SolverConfig};
use serde_json::{Value, json};

/// The order of gm-ode and gm-sde where none is given.
const DEFAULT_ORDER: u8 = 2;

/// What the sampler has to know about the model.
#[derive(Clone, Copy, Debug)]
pub struct ModelTraits {
    /// Mixture components K.
    pub components: usize,
    /// Whether the model has a null class, which every guidance needs.
    pub guidable: bool,
    /// Whether the model has a spectrum network.
    pub spectrum: bool,
    /// The guidance to use where none is asked for.
    pub guidance: Guidance,
    /// The shift of the time grid.
    pub shift: f32,
    /// What reweighting divides by where nothing else is asked for.
    pub reweight_by: Variance,
    /// Details of steps of order 2.
    pub second_order: SecondOrder,
}

impl ModelTraits {
    /// What `info` says.
    pub fn of(info: &ModelInfo) -> Self {
        let guidable = info.network.num_classes() > 0;
        Self {
            components: info.network.num_gaussians(),
            guidable,
            spectrum: info.spectrum.is_some(),
            guidance: if guidable { info.guidance } else { Guidance::Off },
            shift: info.shift,
            reweight_by: info.reweight_by,
            second_order: info.second_order,
        }
    }
}

impl SamplerArgs {
    /// The arguments as they were given.
    pub fn as_json(&self) -> Value {
        let Self {
            solver,
            order,
            steps,
            substeps,
            guidance,
            cfg,
            orthogonal,
            reweight_by,
            guidance_interval,
            spectral,
            second_order,
            unconverted,
        } = self;
        let mut json = json!({
            "solver": solver.map(Solver::name), "order": order, "steps": steps, "substeps": substeps,
            "guidance": guidance, "cfg": cfg, "orthogonal": orthogonal, "guidance_interval": guidance_interval,
            "spectral": spectral.map(|switch| switch == Switch::On)
        });
        // Only where they are given: what was measured before they were known stays the same measurement.
        if let Some(variance) = reweight_by {
            json["reweight_by"] = json!(name_of(variance));
        }
        if let Some(carry) = second_order {
            json["second_order"] = json!(name_of(carry));
        }
        if *unconverted {
            json["unconverted"] = json!(true);
        }
        json
    }

    /// Checks the values, and those combinations that are wrong for every model.
    pub fn check(&self) -> Result<()> {
        if let Some(guidance) = self.guidance.filter(|w| !(0.0..1.0).contains(w)) {
            return Err(usage("--guidance", "a number in [0, 1)", guidance));
        }
        if let Some(cfg) = self.cfg.filter(|w| !(w.is_finite() && *w >= 1.0)) {
            return Err(usage("--cfg", "a number of at least 1", cfg));
        }
        if let Some(orthogonal) = self.orthogonal {
            if !(0.0..=1.0).contains(&orthogonal) {
                return Err(usage("--orthogonal", "a number in [0, 1]", orthogonal));
            }
            if self.guidance.is_none() && self.cfg.is_none() {
                return Err(usage("--orthogonal", "--guidance or --cfg beside it", "neither"));
            }
        }
        if let Some([low, high]) =
            self.guidance_interval.filter(|[low, high]| !(0.0 <= *low && low < high && *high <= 1.0))
        {
            let expected = "two times between 0 and 1, the lower one first";
            return Err(usage("--guidance-interval", expected, format!("{low},{high}")));
        }
        self.solver.map_or(Ok(()), |solver| self.check_solver(solver))
    }

    /// The solver, with the model's default, after checking the arguments that depend on it.
    pub fn solver_for(&self, model: ModelTraits) -> Result<Solver> {
        let default = if model.components > 1 { Solver::GmOde } else { Solver::Euler };
        let solver = self.solver.unwrap_or(default);
        self.check_solver(solver)?;
        if !model.guidable && (self.guidance.unwrap_or(0.0) > 0.0 || self.cfg.unwrap_or(1.0) > 1.0) {
            return Err(usage("--guidance, --cfg", "a model with classes", "one without"));
        }
        if self.spectral == Some(Switch::On) && !model.spectrum {
            return Err(usage("--spectral", "a model with a spectrum network", "one without"));
        }
        Ok(solver)
    }

    /// The guidance: what is asked for, or else the model's own.
    fn guidance_for(&self, model: ModelTraits) -> Guidance {
        let orthogonal = |default| self.orthogonal.unwrap_or(default);
        match (self.guidance, self.cfg) {
            (None, None) => model.guidance,
            (Some(scale), _) if scale > 0.0 => Guidance::Probabilistic { scale, orthogonal: orthogonal(1.0) },
            (None, Some(scale)) if scale > 1.0 => Guidance::ClassifierFree { scale, orthogonal: orthogonal(0.0) },
            _ => Guidance::Off,
        }
    }

    fn check_solver(&self, solver: Solver) -> Result<()> {
        let refuse = |argument: &str, expected: &str| Err(usage(argument, expected, solver.name()));
        match solver {
            Solver::GmOde | Solver::GmSde => {}
            _ if self.order.is_some() => return refuse("--order", "solver gm-ode or gm-sde"),
            _ => {}
        }
        if self.substeps.is_some() && solver != Solver::GmOde {
            return refuse("--substeps", "solver gm-ode");
        }
        let of_order_2 = self.order != Some(1) && matches!(solver, Solver::GmOde | Solver::GmSde);
        if self.unconverted && !of_order_2 {
            return refuse("--unconverted", "solver gm-ode or gm-sde, of order 2");
        }
        if self.second_order.is_some() && !of_order_2 {
            return refuse("--second-order", "solver gm-ode or gm-sde, of order 2");
        }
        if self.spectral == Some(Switch::On) && solver != Solver::GmSde {
            return refuse("--spectral", "solver gm-sde");
        }
        Ok(())
    }
}

/// Which samples to draw.
pub struct Wanted<'a> {
    /// One seed per sample.
    pub seeds: &'a [u64],
    /// One class per sample, for models with classes.
    pub classes: Option<&'a [usize]>,
    /// The noise to start from instead of the seeds', `[n c h w]`.
    pub noise: Option<&'a [f32]>,
    /// Where the model is.
    pub device: &'a Device,
}

/// A sampler that fits its model.
#[derive(Clone, Debug)]
pub struct Sampler {
    solver: Solver,
    guidance: Guidance,
    shift: f32,
    reweight_by: Variance,
    second_order: SecondOrder,
    arguments: SamplerArgs,
}

impl Sampler {
    /// Settles what the arguments leave open.
    pub fn new(arguments: &SamplerArgs, model: ModelTraits) -> Result<Self> {
        arguments.check()?;
        let solver = arguments.solver_for(model)?;
        let mut arguments = arguments.clone();
        arguments.spectral.get_or_insert(if model.spectrum { Switch::On } else { Switch::Off });
        let carry = match arguments.second_order {
            Some(Carry::Reweight) => solver::Carry::Reweight,
            Some(Carry::Translate) => solver::Carry::Translate,
            None => model.second_order.carry,
        };
        let reweight_by = match arguments.reweight_by {
            Some(ReweightBy::Image) => Variance::Image,
            Some(ReweightBy::Pixel) => Variance::Pixel,
            None => model.reweight_by,
        };
        let convert = model.second_order.convert && !arguments.unconverted;
        let second_order = SecondOrder { carry, convert, ..model.second_order };
        let (guidance, shift) = (arguments.guidance_for(model), model.shift);
        let sampler = Self { solver, guidance, shift, reweight_by, second_order, arguments };
        if sampler.arguments.reweight_by.is_some() && !sampler.config().reweights() {
            log::warn!("--reweight-by changes nothing without guidance or second-order steps that reweight");
        }
        Ok(sampler)
    }

    /// How it samples, as the library takes it.
    pub fn config(&self) -> SamplerConfig {
        let order = self.arguments.order.unwrap_or(DEFAULT_ORDER);
        let solver = match self.solver {
            Solver::GmOde => SolverConfig::GmOde { order, substeps: self.arguments.substeps },
            Solver::GmSde => {
                let spectral = self.arguments.spectral.map(|switch| switch == Switch::On);
                SolverConfig::GmSde { order, spectral }
            }
            Solver::Euler => SolverConfig::Euler,
            Solver::Heun => SolverConfig::Heun,
            Solver::DdpmSmall => SolverConfig::DDPM_SMALL,
            Solver::DdpmLarge => SolverConfig::DDPM_LARGE,
            Solver::Dpmpp2m => SolverConfig::Dpmpp2m,
            Solver::Dpmpp2mSde => SolverConfig::Dpmpp2mSde,
            Solver::Dpmpp2s => SolverConfig::Dpmpp2s,
            Solver::UniPc => SolverConfig::UniPc,
            Solver::Deis => SolverConfig::Deis,
            Solver::Sa => SolverConfig::SA_SOLVER,
        };
        SamplerConfig {
            guidance: self.guidance,
            guidance_interval: self.arguments.guidance_interval,
            reweight_by: self.reweight_by,
            second_order: self.second_order,
            shift: self.shift,
            ..SamplerConfig::new(solver, self.arguments.steps)
        }
    }

    /// Draws samples `[n c h w]` as one list of values; `progress` is told (steps done, of) after every step.
    pub fn draw(
        &self,
        model: &Model,
        wanted: Wanted<'_>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<f32>> {
        let data = model.info.data;
        let shape = [data.channels, data.height, data.width];
        let [channels, height, width] = shape;
        let noise = wanted.noise.map(|noise| {
            let dims = [wanted.seeds.len(), channels, height, width];
            Tensor::from_data(TensorData::new(noise.to_vec(), dims), wanted.device)
        });
        let request = SampleRequest {
            seeds: wanted.seeds.to_vec(),
            classes: wanted.classes.map(<[usize]>::to_vec),
            shape,
            noise,
        };
        let spectrum = model.spectrum.as_ref();
        let pipeline = Pipeline { network: &model.network, spectrum, device: wanted.device.clone() };
        let samples = pipeline.sample(&self.config(), &request, progress)?; // [n c h w]
        samples.into_data().try_into_vec().map_err(|error| anyhow!("the samples cannot be read: {error:?}"))
    }

    /// How it samples, for the reader of a file.
    pub fn describe(&self, points: bool) -> Value {
        let config = self.config();
        let SamplerConfig { solver, steps, guidance, reweight_by, second_order, .. } = config;
        let mut description = json!({ "solver": self.solver.name(), "steps": steps });
        if self.shift != 1.0 {
            description["shift"] = json!(self.shift);
        }
        if let SolverConfig::GmOde { order, .. } | SolverConfig::GmSde { order, .. } = solver {
            description["order"] = json!(order);
        }
        if let SolverConfig::GmSde { spectral, .. } = solver {
            description["spectral"] = json!(spectral == Some(true));
        }
        if let SolverConfig::GmOde { substeps, .. } = solver {
            description["substeps"] =
                json!(substeps.unwrap_or_else(|| SolverConfig::default_substeps(steps, points)));
        }
        match guidance {
            Guidance::Off => description["guidance"] = json!(0.0),
            Guidance::Probabilistic { scale, orthogonal } => {
                description["guidance"] = json!(scale);
                description["orthogonal"] = json!(orthogonal);
            }
            Guidance::ClassifierFree { scale, orthogonal } => {
                description["cfg"] = json!(scale);
                description["orthogonal"] = json!(orthogonal);
            }
        }
        if config.reweights() && reweight_by == Variance::Pixel {
            description["reweight_by"] = json!(reweight_by);
        }
        if solver.is_of_order_2() && second_order.carry == solver::Carry::Translate {
            description["second_order"] = json!(second_order.carry);
        }
        if self.arguments.unconverted {
            description["unconverted"] = json!(true);
        }
        if let Some(interval) = self.arguments.guidance_interval.filter(|_| guidance.is_active()) {
            description["guidance_interval"] = json!(interval);
        }
        description
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Usage;

    const PLAIN: ModelTraits = ModelTraits {
        components: 8,
        guidable: false,
        spectrum: false,
        guidance: Guidance::Off,
        shift: 1.0,
        reweight_by: Variance::Pixel,
        second_order: SecondOrder {
            ca: 0.005,
            cb: 1.0,
            corrections: 0,
            convert: true,
            carry: solver::Carry::Translate,
        },
    };

    fn arguments() -> SamplerArgs {
        SamplerArgs { steps: 8, ..SamplerArgs::default() }
    }

    #[test]
    fn the_default_solver_follows_the_number_of_components() {
        assert_eq!(arguments().solver_for(PLAIN).unwrap(), Solver::GmOde);
        assert_eq!(arguments().solver_for(ModelTraits { components: 1, ..PLAIN }).unwrap(), Solver::Euler);
    }

    #[test]
    fn arguments_are_checked_against_the_default_solver_too() {
        let arguments = SamplerArgs { order: Some(1), ..arguments() };
        assert!(arguments.check().is_ok());
        let error = arguments.solver_for(ModelTraits { components: 1, ..PLAIN }).unwrap_err();
        assert!(error.is::<Usage>() && error.to_string().contains("euler"), "{error}");
    }

    #[test]
    fn guidance_that_is_asked_for_goes_before_the_models_own() {
        let own = Guidance::Probabilistic { scale: 0.3, orthogonal: 1.0 };
        let model = ModelTraits { guidable: true, guidance: own, ..PLAIN };
        let guidance = |arguments: SamplerArgs| Sampler::new(&arguments, model).unwrap().config().guidance;
        assert_eq!(guidance(arguments()), own);
        assert_eq!(guidance(SamplerArgs { guidance: Some(0.0), ..arguments() }), Guidance::Off);
        let cfg = Guidance::ClassifierFree { scale: 2.0, orthogonal: 0.0 };
        assert_eq!(guidance(SamplerArgs { cfg: Some(2.0), ..arguments() }), cfg);
    }

    #[test]
    fn variance_and_second_order_are_the_models_own_where_none_are_asked_for() {
        let config = |arguments: SamplerArgs| Sampler::new(&arguments, PLAIN).unwrap().config();
        assert_eq!(config(arguments()).reweight_by, Variance::Pixel);
        let wanted = SamplerArgs { reweight_by: Some(ReweightBy::Image), ..arguments() };
        assert_eq!(config(wanted).reweight_by, Variance::Image);
        assert_eq!(config(arguments()).second_order.carry, solver::Carry::Translate);
        let wanted = SamplerArgs { second_order: Some(Carry::Reweight), ..arguments() };
        assert_eq!(config(wanted).second_order, SecondOrder::default());
        let wanted = SamplerArgs { second_order: Some(Carry::Translate), order: Some(1), ..arguments() };
        assert!(wanted.check().is_ok() && wanted.solver_for(PLAIN).is_err());
    }

    #[test]
    fn guidance_and_spectral_sampling_need_what_the_model_lacks() {
        let wanted = SamplerArgs { guidance: Some(0.3), ..arguments() };
        assert!(wanted.solver_for(PLAIN).is_err());
        assert!(wanted.solver_for(ModelTraits { guidable: true, ..PLAIN }).is_ok());
        let wanted = SamplerArgs { solver: Some(Solver::GmSde), spectral: Some(Switch::On), ..arguments() };
        assert!(wanted.solver_for(PLAIN).is_err());
        assert!(wanted.solver_for(ModelTraits { spectrum: true, ..PLAIN }).is_ok());
    }
}
