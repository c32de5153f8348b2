//! The loss of one segment.

use crate::policy::{Policy, SubstepGrid, time};
use crate::{Error, Result, limits};
use burn::tensor::{Tensor, TensorData};

/// How a policy imitates the teacher on a segment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Imitation {
    /// The shift of the time grid, and the sub-steps of roll-outs.
    pub substep_grid: SubstepGrid,
    /// Points of a segment at which the teacher is asked.
    pub states: usize,
    /// The length in sub-steps over which the policy's velocity is averaged; 0 for the velocity at the point itself.
    pub window: f64,
    /// The share q of a segment that is gone along the teacher's velocity: 0 follows the student alone, 1 clones the teacher's behaviour.
    pub teacher_ratio: f64,
    /// A factor on the loss.
    pub loss_scale: f64,
}

impl Default for Imitation {
    /// Two states, no window, on the student's own path, with the factor of the published training on images.
    fn default() -> Self {
        Self {
            substep_grid: SubstepGrid { shift: 1.0, substeps: 128.0 },
            states: 2,
            window: 0.0,
            teacher_ratio: 0.0,
            loss_scale: 3.0,
        }
    }
}

/// The random numbers of a segment: uniforms in [0, 1), sample after sample.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SegmentDraws {
    /// `[b n]` for n states: they divide the student's share of the segment.
    pub student: Vec<f32>,
    /// `[b n-1]`: they divide the teacher's share.
    pub teacher: Vec<f32>,
}

/// A point at which the teacher was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Where `[b c h w]`.
    pub x: Tensor<4>,
    /// When.
    pub t: Vec<f64>,
    /// The teacher's velocity `[b c h w]`.
    pub teacher: Tensor<4>,
    /// The policy's `[b c h w]`, with gradients.
    pub policy: Tensor<4>,
}

/// What a segment gives.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The loss of every sample `[b]`, with gradients into the policy: the mean over states, channels and pixels of half the squared error
    /// of the velocity, times the factor.
    pub losses: Tensor<1>,
    /// Every state.
    pub asked: Vec<Asked>,
    /// Where the path came to, `[b c h w]` without gradients, and at which raw times.
    pub x: Tensor<4>,
    /// See `x`.
    pub raw: Vec<f64>,
}

impl Imitation {
    /// Checks every field, naming the first that is out of range.
    ///
    /// # Errors
    /// [`crate::FilesError::Config`].
    pub fn validate(&self) -> Result<()> {
        limits::count("states", self.states, limits::MOST_STEPS)?;
        let positive = |field: &str, value: f64| match value.is_finite() && value > 0.0 {
            true => Ok(()),
            false => Err(Error::config(field, "a positive number", value)),
        };
        positive("shift", self.substep_grid.shift)?;
        positive("substeps", self.substep_grid.substeps)?;
        positive("loss_scale", self.loss_scale)?;
        if !(self.window.is_finite() && self.window >= 0.0) {
            return Err(Error::config("window", "a number of at least 0", self.window));
        }
        match (0.0..=1.0).contains(&self.teacher_ratio) {
            true => Ok(()),
            false => Err(Error::config("teacher_ratio", "a number in [0, 1]", self.teacher_ratio)),
        }
    }

    /// The loss of `policy` on the segment from each sample's raw time on, of one length in raw time or of each sample's own. `rolling` is
    /// its copy without gradients, possibly with components left out: it makes the path. `teacher` is asked at points `[b c h w]` and
    /// times.
    ///
    /// # Errors
    /// [`Error::Shape`] for another number of draws.
    pub fn segment(
        &self,
        (policy, rolling): (&Policy, &Policy),
        (begin, length): (&[f64], impl Into<Lengths>),
        draws: &SegmentDraws,
        teacher: &mut dyn FnMut(&Tensor<4>, &[f64]) -> Tensor<4>,
    ) -> Result<Segment> {
        let lengths = length.into().of(begin.len());
        self.follow((policy, rolling), (begin, &lengths), draws, teacher)
    }

    fn follow(
        &self,
        (policy, rolling): (&Policy, &Policy),
        (begin, lengths): (&[f64], &[f64]),
        draws: &SegmentDraws,
        teacher: &mut dyn FnMut(&Tensor<4>, &[f64]) -> Tensor<4>,
    ) -> Result<Segment> {
        let gaps = self.gaps(lengths, draws)?;
        let (substep_grid, mut raw) = (self.substep_grid, begin.to_vec());
        let mut x = rolling.source().clone();
        let recording = policy.source().device();
        let mut losses: Option<Tensor<1>> = None;
        let mut asked = Vec::with_capacity(self.states);
        for j in 0..self.states {
            let of = |gaps: &[Vec<f64>]| gaps.iter().map(|gaps| gaps[j]).collect::<Vec<f64>>();
            let (student, teachers) = (of(&gaps.student), of(&gaps.teacher));
            let less = |from: &[f64], gap: &[f64]| {
                from.iter().zip(gap).map(|(raw, gap)| (raw - gap).max(0.0)).collect::<Vec<f64>>()
            };
            let at = less(&raw, &student);
            x = rolling.roll_out(&x, (&raw, &at), substep_grid);
            let t: Vec<f64> = at.iter().map(|raw| time(*raw, substep_grid.shift)).collect();
            let wanted = teacher(&x, &t);
            let next = less(&at, &teachers);
            let window_end = less(&next, &gaps.window);
            let of_policy = policy.mean_velocity(&on(&x, &recording), (&at, &window_end), substep_grid);
            let error = (of_policy.clone() - on(&wanted, &recording)).powi_scalar(2);
            let [b, c, h, w] = error.dims();
            let loss = error.reshape([b, c * h * w]).mean_dim(1).squeeze_dim::<1>(1);
            losses = Some(losses.map_or_else(|| loss.clone(), |sum| sum + loss.clone()));
            let moved: Vec<f32> =
                t.iter().zip(&next).map(|(t, next)| (time(*next, substep_grid.shift) - t) as f32).collect();
            let moved = Tensor::<4>::from_data(TensorData::new(moved, [b, 1, 1, 1]), &x.device());
            let after = x.clone() + wanted.clone() * moved;
            asked.push(Asked { x, t, teacher: wanted, policy: of_policy });
            (x, raw) = (after, next);
        }
        let scale = 0.5 * self.loss_scale / self.states.max(1) as f64;
        let losses = losses.ok_or_else(|| Error::config("states", "at least 1", 0))? * scale;
        Ok(Segment { losses, asked, x, raw })
    }

    /// The lengths in raw time that student and teacher go, state by state, and the windows.
    fn gaps(&self, lengths: &[f64], draws: &SegmentDraws) -> Result<Gaps> {
        let (b, n, q) = (lengths.len(), self.states, self.teacher_ratio);
        let expect = |what: &str, values: &[f32], count: usize| match values.len() == b * count {
            true => Ok(()),
            false => Err(Error::shape(what, [b, count], [values.len()])),
        };
        expect("draws of the student", &draws.student, n)?;
        expect("draws of the teacher", &draws.teacher, n.saturating_sub(1))?;
        let mut gaps = Gaps { student: Vec::new(), teacher: Vec::new(), window: Vec::new() };
        for (i, &length) in lengths.iter().enumerate() {
            let substeps = (length * self.substep_grid.substeps).round_ties_even().max(1.0);
            let window = (self.window * length / substeps).min(length);
            let sorted = |values: &[f32]| {
                let mut values: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
                values.sort_by(f64::total_cmp);
                values
            };
            let own = sorted(&draws.student[i * n..(i + 1) * n]);
            let mut shared = sorted(&draws.teacher[i * (n - 1)..(i + 1) * (n - 1)]);
            shared.push(1.0);
            let steps = |values: Vec<f64>, total: f64| {
                let before = std::iter::once(0.0).chain(values.clone());
                values.iter().zip(before).map(|(value, before)| (value - before) * total).collect::<Vec<f64>>()
            };
            gaps.student.push(steps(own, (1.0 - q) * (length - window)));
            gaps.teacher.push(steps(shared, q * (length - window)));
            gaps.window.push(window);
        }
        Ok(gaps)
    }
}

struct Gaps {
    /// Of every sample and state.
    student: Vec<Vec<f64>>,
    teacher: Vec<Vec<f64>>,
    /// Of every sample.
    window: Vec<f64>,
}

/// The lengths of segments in raw time.
#[derive(Clone, Debug)]
pub enum Lengths {
    /// The same for all samples.
    Same(f64),
    /// Each sample's own.
    Own(Vec<f64>),
}

impl Lengths {
    fn of(self, b: usize) -> Vec<f64> {
        match self {
            Self::Same(length) => vec![length; b],
            Self::Own(lengths) => lengths,
        }
    }
}

impl From<f64> for Lengths {
    fn from(length: f64) -> Self {
        Self::Same(length)
    }
}

impl From<Vec<f64>> for Lengths {
    fn from(lengths: Vec<f64>) -> Self {
        Self::Own(lengths)
    }
}

/// The same numbers where gradients are recorded.
fn on(x: &Tensor<4>, device: &burn::tensor::Device) -> Tensor<4> {
    if x.device() == *device { x.clone() } else { Tensor::from_data(x.clone().into_data(), device) }
}
