//! What is asked of a sampler, the settings that follow from it for a model, and the samples.
//!
//! [`SamplerOptions`] names what should differ from the model's own settings. With the model it becomes a [`SamplerConfig`], which is
//! complete:
//!
//! ```
//! use gmflow::guidance::Guidance;
//! use gmflow::solver::{GmOde, SolverConfig};
//! use gmflow_eval::sampler::SamplerOptions;
//! # use gmflow::checkpoint::{DataInfo, DataKind, ModelInfo};
//! # use gmflow::network::{Mlp2dConfig, NetworkConfig};
//! # let data = DataInfo { channels: 2, height: 1, width: 1, kind: DataKind::Points };
//! # let info = ModelInfo::new(NetworkConfig::Mlp2d(Mlp2dConfig { num_gaussians: 8, ..Mlp2dConfig::default() }), data);
//! let options = SamplerOptions { steps: Some(4), order: Some(1), ..SamplerOptions::default() };
//! let config = options.config(&info)?;
//! assert_eq!(config.solver, SolverConfig::GmOde(GmOde { order: 1, substeps: None })); // the solver for mixtures
//! assert_eq!((config.steps, config.guidance), (4, Guidance::Off));
//!
//! let wrong = SamplerOptions { guidance: Some(1.5), ..SamplerOptions::default() };
//! assert_eq!(wrong.check().unwrap_err().to_string(), "guidance: expected a number in [0, 1), got 1.5");
//! # Ok::<(), gmflow_eval::Error>(())
//! ```

mod describe;

pub use describe::{Source, describe};

use crate::{Error, Result};
use burn::tensor::{Device, Tensor, TensorData};
use gmflow::checkpoint::{Model, ModelInfo};
use gmflow::guidance::{Guidance, ReweightScale};
use gmflow::pipeline::{Pipeline, SampleRequest, SamplerConfig};
use gmflow::solver::{GmOde, GmSde, SecondOrder, SecondOrderMode, SolverConfig};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Value, json};
use std::ops::ControlFlow;

/// What is asked of a sampler. What is left open follows from the model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SamplerOptions {
    /// The solver; without it GM-ODE for mixtures (K > 1) and Euler for K = 1.
    #[serde(with = "by_name")]
    pub solver: Option<SolverConfig>,
    /// Order of GM-ODE and GM-SDE: 1 or 2; without it that of `solver`, which is 2 where none is given.
    pub order: Option<u8>,
    /// Network calls for each sample; a guided call on a doubled batch counts as one. Without it 8, or as many as a student of distillation
    /// was trained for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<usize>,
    /// Sub-steps of GM-ODE within a step; without it as many as the steps call for.
    pub substeps: Option<usize>,
    /// Probabilistic guidance in [0, 1); 0 is off. Without any guidance the model's own.
    pub guidance: Option<f64>,
    /// Classifier-free guidance of at least 1; 1 is off.
    pub cfg: Option<f64>,
    /// How much of the guidance direction's part along the prediction is removed, in [0, 1]; without it 1 with `guidance` and 0 with `cfg`.
    pub orthogonal: Option<f64>,
    /// The times between which there is guidance, where 1 is noise and 0 data.
    pub guidance_interval: Option<[f64; 2]>,
    /// Whether the model's spectrum network shapes the draws of GM-SDE; without it where the model has one.
    pub spectral: Option<bool>,
    // Written only where they are given: what was measured before there was a choice stays the same measurement.
    /// The variance that guidance and steps of order 2 go by where they reweight mixtures.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reweight_by: Option<ReweightScale>,
    /// How steps of order 2 carry out the change of the prediction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub second_order: Option<SecondOrderMode>,
    /// Of a student of distillation: the strength of fresh noise between steps; without it the model's own, which is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub renoise: Option<f64>,
    /// Of a student of distillation: the temperature of its mixtures in all steps but the last; without it the model's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Steps of order 2 compare predictions without moving the previous one to the new point.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unconverted: bool,
}

impl SamplerOptions {
    /// Checks every value, and the combinations that are wrong for every model.
    ///
    /// # Errors
    /// A value out of range, or one that the solver or the guidance has no use for.
    pub fn check(&self) -> Result<()> {
        let guidance = self.asked_guidance()?.unwrap_or_default();
        if self.orthogonal.is_some() && self.guidance.is_none() && self.cfg.is_none() {
            return Err(Error::config("orthogonal", "guidance or cfg beside it", "neither"));
        }
        if let Some(solver) = &self.solver {
            self.check_solver(solver)?;
        }
        // Which solver it is makes no difference to the ranges of the others.
        let solver = self.with_settings(self.solver.unwrap_or(GM_ODE), None);
        let guidance_interval = self.guidance_interval;
        SamplerConfig { guidance, guidance_interval, ..SamplerConfig::new(solver, self.steps.unwrap_or(1)) }
            .validate()?;
        Ok(())
    }

    /// The complete settings for a model.
    ///
    /// # Errors
    /// As [`check`](Self::check); a value that this model has no use for.
    pub fn config(&self, model: &ModelInfo) -> Result<SamplerConfig> {
        self.check()?;
        let own = model.sampler_config();
        if let Some(student) = &model.student {
            return self.config_of_student(own, student);
        }
        if self.renoise.is_some() || self.temperature.is_some() {
            let expected = "a student of distillation, which follows one prediction through a step";
            return Err(Error::config("renoise, temperature", expected, "another model"));
        }
        let solver = self.solver.unwrap_or(own.solver);
        self.check_solver(&solver)?;
        let asked = self.asked_guidance()?;
        if model.network.num_classes() == 0 && asked.is_some_and(|guidance| guidance.is_active()) {
            return Err(Error::config("guidance, cfg", "a model with classes", "one without"));
        }
        let has_spectrum = model.spectrum.is_some();
        if self.spectral == Some(true) && !has_spectrum {
            return Err(Error::config("spectral", "a model with a spectrum network", "one without"));
        }
        Ok(SamplerConfig {
            solver: self.with_settings(solver, Some(has_spectrum)),
            steps: self.steps.unwrap_or(own.steps),
            guidance: asked.unwrap_or(own.guidance),
            guidance_interval: self.guidance_interval,
            reweight_by: self.reweight_by.unwrap_or(own.reweight_by),
            second_order: SecondOrder {
                carry: self.second_order.unwrap_or(own.second_order.carry),
                convert: own.second_order.convert && !self.unconverted,
                ..own.second_order
            },
            ..own
        })
    }

    /// The guidance that is asked for, if any; one that changes nothing is [`Guidance::Off`].
    pub(crate) fn asked_guidance(&self) -> Result<Option<Guidance>> {
        let guidance = match (self.guidance, self.cfg) {
            (None, None) => return Ok(None),
            (Some(scale), None) => Guidance::Probabilistic { scale, orthogonal: self.orthogonal.unwrap_or(1.0) },
            (None, Some(scale)) => Guidance::ClassifierFree { scale, orthogonal: self.orthogonal.unwrap_or(0.0) },
            (Some(scale), Some(cfg)) => {
                return Err(Error::config("cfg", "no guidance beside it", format!("cfg {cfg} and guidance {scale}")));
            }
        };
        guidance.validate()?;
        Ok(Some(if guidance.is_active() { guidance } else { Guidance::Off }))
    }

    /// A solver with the settings that are given beside it; `spectral` where nothing else is said.
    fn with_settings(&self, solver: SolverConfig, spectral: Option<bool>) -> SolverConfig {
        match solver {
            SolverConfig::GmOde(GmOde { order, substeps }) => SolverConfig::GmOde(GmOde {
                order: self.order.unwrap_or(order),
                substeps: self.substeps.or(substeps),
            }),
            SolverConfig::GmSde(GmSde { order, spectral: own }) => SolverConfig::GmSde(GmSde {
                order: self.order.unwrap_or(order),
                spectral: self.spectral.or(own).or(spectral),
            }),
            other => other,
        }
    }

    /// Refuses what a solver has no use for.
    fn check_solver(&self, solver: &SolverConfig) -> Result<()> {
        let refuse = |field: &str, expected: &str| Err(Error::config(field, expected, solver_name(solver)));
        let (is_ode, is_sde) = (matches!(solver, SolverConfig::GmOde(_)), matches!(solver, SolverConfig::GmSde(_)));
        if self.order.is_some() && !is_ode && !is_sde {
            return refuse("order", "solver gm-ode or gm-sde");
        }
        if self.substeps.is_some() && !is_ode {
            return refuse("substeps", "solver gm-ode");
        }
        let is_of_order_2 = (is_ode || is_sde) && self.with_settings(*solver, None).is_of_order_2();
        if self.unconverted && !is_of_order_2 {
            return refuse("unconverted", "solver gm-ode or gm-sde, of order 2");
        }
        if self.second_order.is_some() && !is_of_order_2 {
            return refuse("second_order", "solver gm-ode or gm-sde, of order 2");
        }
        if self.spectral == Some(true) && !is_sde {
            return refuse("spectral", "solver gm-sde");
        }
        Ok(())
    }
}

/// The solver of mixtures where none is asked for.
const GM_ODE: SolverConfig = SolverConfig::GmOde(GmOde { order: 2, substeps: None });

/// The name of a solver, without its settings.
pub fn solver_name(solver: &SolverConfig) -> String {
    let kind = json!(solver)["kind"].take();
    kind.as_str().unwrap_or_default().to_owned()
}

/// The solver with this name, with its own defaults.
///
/// # Errors
/// No solver has this name; the message lists those that there are.
pub fn solver_by_name(name: &str) -> Result<SolverConfig> {
    gmflow_files::json::from_value(json!({ "kind": name }))
        .map_err(|wrong| Error::config("solver", wrong.expected, name))
}

/// A solver in files: its name, or a table where it has settings of its own.
mod by_name {
    use super::*;

    pub fn serialize<S: Serializer>(solver: &Option<SolverConfig>, to: S) -> Result<S::Ok, S::Error> {
        let Some(solver) = solver else { return to.serialize_none() };
        let name = solver_name(solver);
        if solver_by_name(&name).is_ok_and(|plain| plain == *solver) {
            to.serialize_str(&name)
        } else {
            solver.serialize(to)
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SolverConfig>, D::Error> {
        use serde::de::Error;
        match Option::<Value>::deserialize(from)? {
            None => Ok(None),
            Some(Value::String(name)) => solver_by_name(&name).map(Some).map_err(D::Error::custom),
            Some(table) => serde_json::from_value(table).map(Some).map_err(D::Error::custom),
        }
    }
}

/// Which samples to draw at once.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// One seed for each sample.
    pub seeds: &'a [u64],
    /// One class for each sample, of models with classes.
    pub classes: Option<&'a [usize]>,
    /// The noise to start from instead of the seeds', `[n c h w]`.
    pub noise: Option<&'a [f32]>,
}

/// Draws samples `[n c h w]` of a model on `device` as one list of values; `progress` is told (steps done, of) after every step.
///
/// # Errors
/// As [`Pipeline::sample`].
pub fn draw(
    model: &Model,
    config: &SamplerConfig,
    batch: Batch<'_>,
    device: &Device,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<f32>> {
    let data = model.info.data;
    let shape = [data.channels, data.height, data.width];
    let [channels, height, width] = shape;
    let noise = batch.noise.map(|noise| {
        let dims = [batch.seeds.len(), channels, height, width];
        Tensor::from_data(TensorData::new(noise.to_vec(), dims), device)
    });
    let classes = batch.classes.map(<[usize]>::to_vec);
    let request = SampleRequest { seeds: batch.seeds.to_vec(), classes, shape, noise };
    let spectrum = model.spectrum.as_ref();
    let pipeline = Pipeline { network: &model.network, spectrum, device: device.clone() };
    let mut progress = |done, of| {
        progress(done, of);
        ControlFlow::Continue(())
    };
    values(pipeline.sample(config, &request, &mut progress)?) // [n c h w]
}

/// The values of a tensor on the host.
pub(crate) fn values(tensor: Tensor<4>) -> Result<Vec<f32>> {
    let values = tensor.into_data().try_into_vec();
    values.map_err(|error| Error::config("samples", "numbers of 32 bits", format!("{error:?}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use gmflow::FilesError;
    use gmflow::checkpoint::{DataInfo, DataKind};
    use gmflow::network::{GmDitConfig, NetworkConfig, SpectrumMlpConfig};

    /// A model of mixtures without classes and spectrum network, with settings of its own.
    fn plain() -> ModelInfo {
        let data = DataInfo { channels: 1, height: 8, width: 8, kind: DataKind::Image };
        let own = SecondOrder { carry: SecondOrderMode::Translate, ..SecondOrder::default() };
        ModelInfo { reweight_by: ReweightScale::Pixel, second_order: own, ..ModelInfo::new(network(8, 0), data) }
    }

    fn network(num_gaussians: usize, num_embeds_ada_norm: usize) -> NetworkConfig {
        NetworkConfig::GmDit(GmDitConfig { num_gaussians, num_embeds_ada_norm, ..Default::default() })
    }

    fn options() -> SamplerOptions {
        SamplerOptions::default()
    }

    #[test]
    fn the_default_solver_follows_the_number_of_components() {
        let solver = |model: &ModelInfo| solver_name(&options().config(model).unwrap().solver);
        assert_eq!(solver(&plain()), "gm-ode");
        assert_eq!(solver(&ModelInfo { network: network(1, 0), ..plain() }), "euler");
    }

    #[test]
    fn options_are_checked_against_the_default_solver_too() {
        let options = SamplerOptions { order: Some(1), ..options() };
        assert!(options.check().is_ok());
        let error = options.config(&ModelInfo { network: network(1, 0), ..plain() }).unwrap_err();
        assert!(error.files().is_some_and(FilesError::is_config) && error.to_string().contains("euler"), "{error}");
    }

    #[test]
    fn guidance_that_is_asked_for_goes_before_the_models_own() {
        let own = Guidance::Probabilistic { scale: 0.3, orthogonal: 1.0 };
        let model = ModelInfo { network: network(8, 3), guidance: own, ..plain() };
        let guidance = |options: SamplerOptions| options.config(&model).unwrap().guidance;
        assert_eq!(guidance(options()), own);
        assert_eq!(guidance(SamplerOptions { guidance: Some(0.0), ..options() }), Guidance::Off);
        let cfg = Guidance::ClassifierFree { scale: 2.0, orthogonal: 0.0 };
        assert_eq!(guidance(SamplerOptions { cfg: Some(2.0), ..options() }), cfg);
        assert_eq!(options().config(&ModelInfo { guidance: own, ..plain() }).unwrap().guidance, Guidance::Off);
    }

    #[test]
    fn variance_and_second_order_are_the_models_own_where_none_are_asked_for() {
        let config = |options: SamplerOptions| options.config(&plain()).unwrap();
        assert_eq!(config(options()).reweight_by, ReweightScale::Pixel);
        let wanted = SamplerOptions { reweight_by: Some(ReweightScale::Image), ..options() };
        assert_eq!(config(wanted).reweight_by, ReweightScale::Image);
        assert_eq!(config(options()).second_order.carry, SecondOrderMode::Translate);
        let wanted = SamplerOptions { second_order: Some(SecondOrderMode::Reweight), ..options() };
        assert_eq!(config(wanted).second_order, SecondOrder::default());
        let wanted = SamplerOptions { second_order: Some(SecondOrderMode::Translate), order: Some(1), ..options() };
        assert!(wanted.check().is_ok() && wanted.config(&plain()).is_err());
        assert!(!config(SamplerOptions { unconverted: true, ..options() }).second_order.convert);
    }

    #[test]
    fn guidance_and_spectral_sampling_need_what_the_model_lacks() {
        let wanted = SamplerOptions { guidance: Some(0.3), ..options() };
        assert!(wanted.config(&plain()).is_err());
        assert!(wanted.config(&ModelInfo { network: network(8, 3), ..plain() }).is_ok());
        let gm_sde = solver_by_name("gm-sde").ok();
        let wanted = SamplerOptions { solver: gm_sde, spectral: Some(true), ..options() };
        assert!(wanted.config(&plain()).is_err());
        let spectrum = Some(SpectrumMlpConfig { base_size: [1, 8, 8], layers: vec![4] });
        assert!(wanted.config(&ModelInfo { spectrum, ..plain() }).is_ok());
    }

    #[test]
    fn values_out_of_range_and_combinations_that_mean_nothing_are_refused() {
        let named = |name: &str| solver_by_name(name).ok();
        for (options, field) in [
            (SamplerOptions { guidance: Some(1.0), ..options() }, "guidance"),
            (SamplerOptions { guidance: Some(f64::NAN), ..options() }, "guidance"),
            (SamplerOptions { cfg: Some(0.5), ..options() }, "cfg"),
            (SamplerOptions { cfg: Some(2.0), guidance: Some(0.1), ..options() }, "cfg"),
            (SamplerOptions { orthogonal: Some(0.5), ..options() }, "orthogonal"),
            (SamplerOptions { orthogonal: Some(2.0), guidance: Some(0.0), ..options() }, "orthogonal"),
            (SamplerOptions { guidance_interval: Some([0.8, 0.2]), ..options() }, "guidance_interval"),
            (SamplerOptions { order: Some(3), ..options() }, "order"),
            (SamplerOptions { steps: Some(0), ..options() }, "steps"),
            (SamplerOptions { substeps: Some(0), ..options() }, "substeps"),
            (SamplerOptions { solver: named("euler"), order: Some(1), ..options() }, "order"),
            (SamplerOptions { solver: named("gm-sde"), substeps: Some(2), ..options() }, "substeps"),
            (SamplerOptions { solver: named("gm-ode"), spectral: Some(true), ..options() }, "spectral"),
            (SamplerOptions { solver: named("unipc"), unconverted: true, ..options() }, "unconverted"),
        ] {
            let message = options.check().unwrap_err().to_string();
            assert!(message.starts_with(&format!("{field}: ")), "{options:?}: {message}");
        }
        let message = solver_by_name("magic").unwrap_err().to_string();
        assert!(message.contains("gm-ode") && message.contains("sa-solver"), "{message}");
    }

    #[test]
    fn options_are_written_with_the_solver_by_its_name() {
        let plain = SamplerOptions { solver: solver_by_name("dpmpp-2m").ok(), ..options() };
        let written = json!(plain);
        assert_eq!(written["solver"], "dpmpp-2m");
        assert!(written.get("unconverted").is_none() && written["cfg"].is_null(), "{written}");
        assert_eq!(serde_json::from_value::<SamplerOptions>(written).unwrap(), plain);
        let other =
            SamplerOptions { solver: Some(SolverConfig::GmOde(GmOde { order: 1, substeps: None })), ..options() };
        let written = json!(other);
        assert_eq!(written["solver"]["order"], 1);
        assert_eq!(serde_json::from_value::<SamplerOptions>(written).unwrap(), other);
    }
}
