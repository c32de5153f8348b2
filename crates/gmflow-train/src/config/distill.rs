//! What a student of distillation learns, and from whom.

use std::path::PathBuf;

use gmflow::checkpoint::{StudentInfo, TeacherInfo};
use gmflow::distill::Imitation;
use gmflow::guidance::{Guidance, ReweightScale, interval};
use gmflow::policy::{Segments, SubstepGrid};
use gmflow::solver::PiFlow;
use serde::{Deserialize, Serialize};

use super::validate::check;
use crate::Result;

/// Distillation of a teacher into a policy (pi-Flow, arXiv:2510.14974), in place of the loss on data. `[loss]` and `[time]` then do not count.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DistillConfig {
    /// The teacher: a model folder, ours or in the diffusers layout, or a run, whose latest checkpoint counts. An average is taken before the
    /// weights themselves. Without `train.from` the student starts as the teacher; without a `network` table it is the teacher's network.
    pub teacher: PathBuf,
    /// The guidance that the student is to have built in; absent: the teacher's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance: Option<Guidance>,
    /// The times [low, high] between which the teacher is guided; absent: always.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guidance_interval: Option<[f64; 2]>,
    /// What the teacher's guidance divides by where it reweights mixtures; absent: the teacher's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reweight_by: Option<ReweightScale>,
    /// Mixture components, or points of the grid, of a student without a `network` table; absent: the teacher's, or 8 where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub components: Option<usize>,
    /// What the student's components are.
    #[serde(default)]
    pub policy: PolicyKind,
    /// Network calls for a sample.
    #[serde(default = "one_step")]
    pub steps: usize,
    /// The length of the last step as a share of the others', in (0, 1].
    #[serde(default = "one")]
    pub final_step_scale: f64,
    /// The shift of the time grid.
    #[serde(default = "one")]
    pub shift: f64,
    /// Sub-steps of the whole way, which need no network.
    #[serde(default = "substeps")]
    pub substeps: usize,
    /// Points of a step at which the teacher is asked.
    #[serde(default = "states")]
    pub states: usize,
    /// The length in sub-steps over which the student's velocity is averaged; 0 takes it at the point itself.
    #[serde(default)]
    pub window: f64,
    /// The probability that a path goes without a component, in [0, 1).
    #[serde(default)]
    pub component_dropout: f64,
    /// Steps over which paths turn from the teacher's velocity to the student's; 0 goes along the student's from the beginning.
    #[serde(default)]
    pub teacher_decay_steps: u64,
    /// A factor on the loss.
    #[serde(default = "loss_scale")]
    pub loss_scale: f64,
    /// Starts from noise and goes through all steps of a sampler, so that of the data only the labels count. An optimiser step then takes as
    /// many network calls as a sample.
    #[serde(default)]
    pub data_free: bool,
    /// Passes over a batch with a loss or gradient that is not finite, and counts it; otherwise training stops there.
    #[serde(default = "on")]
    pub skip_non_finite: bool,
    /// The temperature that samples are drawn at in all steps but the last; 1 changes nothing.
    #[serde(default = "one")]
    pub temperature: f64,
}

/// What the components of a student are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyKind {
    /// A mixture, which is moved to each point of a step.
    #[default]
    Mixture,
    /// Predictions of the data at points of time, between which it is interpolated: the baseline.
    Grid,
}

fn one_step() -> usize {
    1
}

fn one() -> f64 {
    1.0
}

fn substeps() -> usize {
    128
}

fn states() -> usize {
    2
}

fn loss_scale() -> f64 {
    3.0
}

fn on() -> bool {
    true
}

impl DistillConfig {
    /// The steps of a sampler.
    pub(crate) fn segments(&self) -> Segments {
        Segments { steps: self.steps, final_step_scale: self.final_step_scale, shift: self.shift }
    }

    /// How a segment is imitated at an optimiser step, counted from 0.
    pub(crate) fn imitation(&self, step: u64) -> Imitation {
        let decay = self.teacher_decay_steps;
        let teacher_ratio = if decay == 0 { 0.0 } else { 1.0 - step.min(decay) as f64 / decay as f64 };
        let substep_grid = SubstepGrid { shift: self.shift, substeps: self.substeps as f64 };
        Imitation {
            substep_grid,
            states: self.states,
            window: self.window,
            teacher_ratio,
            loss_scale: self.loss_scale,
        }
    }

    /// How a trained student is sampled.
    pub(crate) fn student(&self, teacher: TeacherInfo) -> StudentInfo {
        let grid_segment = (self.policy == PolicyKind::Grid).then(|| self.segments().base().min(1.0));
        let policy = PiFlow {
            final_step_scale: self.final_step_scale,
            substeps: self.substeps,
            temperature: self.temperature,
            renoise: 0.0,
            grid_segment,
        };
        StudentInfo { steps: self.steps, policy, teacher: Some(teacher) }
    }

    /// All values outside their domains; fields are named without the table.
    pub(crate) fn validate(&self) -> Vec<Result<()>> {
        let dropout = (0.0..1.0).contains(&self.component_dropout);
        let temperature = self.temperature.is_finite() && self.temperature >= 0.0;
        let components = self.components.is_none_or(|components| components > 0);
        vec![
            self.segments().validate().map_err(Into::into),
            self.imitation(0).validate().map_err(Into::into),
            self.guidance.unwrap_or_default().validate().map_err(Into::into),
            interval::validate(self.guidance_interval).map_err(Into::into),
            check("component_dropout", dropout, "a probability below 1", self.component_dropout),
            check("temperature", temperature, "a number of at least 0", self.temperature),
            check("components", components, "at least 1", self.components.unwrap_or_default()),
        ]
    }
}
