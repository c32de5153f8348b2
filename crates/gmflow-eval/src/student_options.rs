//! What of a sampler's options makes sense for a student of distillation.

use crate::sampler::{SamplerOptions, solver_name};
use crate::{Error, Result};
use gmflow::checkpoint::StudentInfo;
use gmflow::guidance::Guidance;
use gmflow::pipeline::SamplerConfig;
use gmflow::solver::{PiFlow, SolverConfig};

impl SamplerOptions {
    /// The complete settings for a student of distillation: how it was trained, but for the number of steps and their sub-steps.
    pub(crate) fn config_of_student(&self, own: SamplerConfig, student: &StudentInfo) -> Result<SamplerConfig> {
        const WHY: &str = "nothing: the model is a student of distillation";
        let refuse = |field: &str, why: &str, got: String| Err(Error::config(field, format!("{WHY}, {why}"), got));
        if let Some(solver) = self.solver.filter(|solver| !matches!(solver, SolverConfig::PiFlow(_))) {
            let why = "which follows its own policy: another solver would take one prediction for that of a moment";
            return refuse("solver", why, solver_name(&solver));
        }
        if let Some(guidance) = self.asked_guidance()?.filter(Guidance::is_active) {
            let why = "which has its teacher's guidance built in and never learned what has no class";
            let got = match guidance {
                Guidance::ClassifierFree { scale, .. } => format!("cfg {scale}"),
                Guidance::Probabilistic { scale, .. } => format!("guidance {scale}"),
                Guidance::Off => "none".to_owned(),
            };
            return refuse("guidance, cfg", why, got);
        }
        if let Some(order) = self.order.filter(|order| *order != 1) {
            let why = "whose policy holds for the whole step: there is nothing to correct from step to step";
            return refuse("order", why, order.to_string());
        }
        let second_order = self.second_order.is_some() || self.unconverted || self.reweight_by.is_some();
        if second_order || self.spectral == Some(true) || self.guidance_interval.is_some() {
            let why = "which has no guidance, steps of order 2 or draws";
            return refuse(
                "reweight_by, second_order, unconverted, spectral, guidance_interval",
                why,
                "one of them".into(),
            );
        }
        let steps = self.steps.unwrap_or(own.steps);
        if student.policy.grid_segment.is_some() && steps < student.steps {
            let expected =
                format!("at least {}: the points of the grid end with the step it was trained for", student.steps);
            return Err(Error::config("steps", expected, steps));
        }
        if steps != student.steps {
            let calls =
                if student.steps == 1 { "1 network call".into() } else { format!("{} network calls", student.steps) };
            log::warn!("the student was trained for {calls}, and is sampled with {steps}");
        }
        let own_policy = student.policy;
        let policy = PiFlow {
            substeps: self.substeps.unwrap_or(own_policy.substeps),
            renoise: self.renoise.unwrap_or(own_policy.renoise),
            temperature: self.temperature.unwrap_or(own_policy.temperature),
            ..own_policy
        };
        SolverConfig::PiFlow(policy).validate()?;
        Ok(SamplerConfig { solver: SolverConfig::PiFlow(policy), steps, ..own })
    }
}
