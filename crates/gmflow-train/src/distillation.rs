//! Optimiser steps on what a teacher says instead of data.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};
use gmflow::checkpoint::{LoadOptions, Model, ModelInfo, StudentInfo, TeacherInfo, model_folder};
use gmflow::distill::{Imitation, Segment, SegmentDraws, StudentHead, Teacher, student};
use gmflow::mixture::VelocityMixture;
use gmflow::network::{Denoiser, InTraining, Network, NetworkConfig};
use gmflow::path::forward_diffusion;
use gmflow::policy::{GridPolicy, MixturePolicy, Policy, Segments, time};
use gmflow::rng::{self, Purpose};

use crate::batch::HostBatch;
use crate::config::{Config, DistillConfig, PolicyKind, below};
use crate::params::Values;
use crate::trainable::Trainable;
use crate::world::largest_of;
use crate::{Error, Result};

/// Components of a student where neither the configuration nor the teacher says how many.
const COMPONENTS: usize = 8;

/// A frozen teacher and what its student learns of it.
#[derive(Debug)]
pub(crate) struct Distillation {
    config: DistillConfig,
    network: Network,
    info: TeacherInfo,
}

/// What a part of a batch gives.
pub(crate) struct PartLoss {
    /// Its share of the batch's mean loss.
    pub(crate) loss: f64,
    /// The largest loss of a sample.
    pub(crate) largest: f64,
}

/// A part of a batch, and its share of the whole.
pub(crate) struct Part<'a> {
    pub(crate) batch: &'a HostBatch,
    pub(crate) range: Range<usize>,
    pub(crate) share: f64,
    /// The optimiser step, counted from 0.
    pub(crate) step: u64,
}

impl Distillation {
    /// Loads the teacher that a configuration names, if it does.
    ///
    /// # Errors
    /// A teacher that cannot be read, that takes other samples than the student, or that has no classes where the student has some.
    pub(crate) fn load(config: &Config, shape: [usize; 3], device: &Device) -> Result<Option<Self>> {
        let Some(distill) = &config.distill else { return Ok(None) };
        let pack = Some(config.arithmetic(device));
        let model = load_teacher(distill, LoadOptions { pack, ..LoadOptions::default() }, device)?;
        model.info.network.validate_data(shape).map_err(|error| below("distill.teacher", error.into()))?;
        let [classes, theirs] = [&config.network, &model.info.network].map(NetworkConfig::num_classes);
        if classes != theirs {
            let expected = format!("a teacher with {classes} classes, as the student has");
            return Err(Error::config("distill.teacher", expected, theirs));
        }
        let info = teacher_info(distill, &model.info);
        if info.guidance.is_active() && classes == 0 {
            return Err(Error::config("distill.guidance", "none: the teacher has no classes", "some"));
        }
        Ok(Some(Self { config: distill.clone(), network: model.network, info }))
    }

    /// How the student is sampled.
    pub(crate) fn student(&self) -> StudentInfo {
        self.config.student(self.info.clone())
    }

    /// Whether batches that are not finite are passed over.
    pub(crate) fn skips(&self) -> bool {
        self.config.skip_non_finite
    }

    fn teacher(&self) -> Teacher<'_> {
        let TeacherInfo { guidance, guidance_interval, reweight_by, .. } = self.info;
        Teacher { network: &self.network, guidance, interval: guidance_interval, reweight_by }
    }

    /// The losses of a part of a batch, with the gradients of their mean times the part's share added to `total`.
    ///
    /// # Errors
    /// A gradient that is not f32.
    pub(crate) fn backward(
        &self,
        trainable: &Trainable<Network>,
        part: Part,
        device: &Device,
        total: &mut Option<Values>,
    ) -> Result<PartLoss> {
        let network = trainable.module()?.in_training(part.batch.keys(part.range.clone()));
        let imitation = self.config.imitation(part.step);
        let lesson = Lesson {
            distillation: self,
            network,
            imitation,
            keys: part.batch.keys(part.range.clone()),
            class: labels(&part, &device.clone().inner()),
            device: device.clone(),
        };
        let (mut loss, mut of_samples) = (0.0, vec![0.0; part.range.len()]);
        let mut learn = |losses: Tensor<1>, weight: f64| -> Result<()> {
            let of_segment = losses.clone().into_data();
            of_samples.iter_mut().zip(of_segment.iter::<f64>()).for_each(|(sum, loss)| *sum += weight * loss);
            let of_part = losses.mean() * (part.share * weight); // [1]
            trainable.backward(&of_part, total)?;
            loss += f64::from(of_part.into_scalar::<f32>());
            Ok(())
        };
        let data = part.batch.part(part.range.clone(), device);
        if self.config.data_free {
            lesson.through_all_segments(data.noise, &mut learn)?;
        } else {
            learn(lesson.on_data(data.x0, data.noise)?, 1.0)?;
        }
        Ok(PartLoss { loss, largest: of_samples.into_iter().fold(f64::NEG_INFINITY, largest_of) })
    }
}

/// What the samples of a part have in common.
struct Lesson<'a> {
    distillation: &'a Distillation,
    network: InTraining<'a>,
    imitation: Imitation,
    /// A number of each sample, which all its draws are functions of.
    keys: Vec<u64>,
    /// On the plain device.
    class: Option<Tensor<1, Int>>,
    /// Where gradients are recorded.
    device: Device,
}

impl Lesson<'_> {
    fn segments(&self) -> Segments {
        self.distillation.config.segments()
    }

    /// The losses `[b]` of segments that hold times of the data's way to noise.
    fn on_data(&self, x0: Tensor<4>, noise: Tensor<4>) -> Result<Tensor<1>> {
        let segments = self.segments();
        let drawn = |key: &u64| {
            let uniform = rng::uniforms(*key, Purpose::Segment, 0, 1).first().copied().unwrap_or_default();
            segments.holding(f64::from(uniform))
        };
        let chosen: Vec<usize> = self.keys.iter().map(drawn).collect();
        let begin: Vec<f64> = chosen.iter().map(|i| segments.begin(*i)).collect();
        let lengths: Vec<f64> = chosen.iter().map(|i| segments.length(*i)).collect();
        let t: Vec<f64> = begin.iter().map(|raw| time(*raw, segments.shift)).collect();
        let x_src = forward_diffusion(&x0, &self.times(&t), &noise);
        let policy = self.policy(x_src, t)?;
        let rolling = self.rolling(&policy, 0)?;
        Ok(self.segment((&policy, &rolling), &begin, lengths, 0)?.losses)
    }

    /// From noise through all segments, each of which begins where the path through the one before ends; `learn` is given the losses of
    /// each and its length.
    fn through_all_segments(
        &self,
        noise: Tensor<4>,
        learn: &mut dyn FnMut(Tensor<1>, f64) -> Result<()>,
    ) -> Result<()> {
        let (segments, b) = (self.segments(), self.keys.len());
        let mut x_src = noise;
        for i in (1..=segments.steps).rev() {
            let (begin, length) = (segments.begin(i), segments.length(i));
            let policy = self.policy(x_src.clone(), vec![time(begin, segments.shift); b])?;
            let rolling = self.rolling(&policy, i as u64 - 1)?;
            let Segment { losses, x, raw, .. } =
                self.segment((&policy, &rolling), &vec![begin; b], vec![length; b], i as u64 - 1)?;
            learn(losses, length)?;
            let end = vec![(begin - length).max(0.0); b];
            let x = rolling.roll_out(&x, (&raw, &end), self.imitation.substep_grid);
            x_src = Tensor::from_data(x.into_data(), &self.device);
        }
        Ok(())
    }

    fn times(&self, t: &[f64]) -> Tensor<1> {
        let values: Vec<f32> = t.iter().map(|t| *t as f32).collect();
        Tensor::from_data(TensorData::new(values, [t.len()]), &self.device)
    }

    /// What the student predicts at (x, t) for each sample.
    fn policy(&self, x: Tensor<4>, t: Vec<f64>) -> Result<Policy> {
        let class = self.class.as_ref().map(|class| Tensor::from_data(class.clone().into_data(), &self.device));
        let velocity = self.network.forward(x.clone(), self.times(&t), class);
        policy(&self.distillation.config, velocity, x, t)
    }

    /// The copy that makes the path, without the components that its draws leave out.
    fn rolling(&self, policy: &Policy, segment: u64) -> Result<Policy> {
        let rate = self.distillation.config.component_dropout;
        match policy.detached() {
            Policy::Mixture(policy) if rate > 0.0 => {
                let k = policy.components();
                let of_sample = |key: &u64| rng::uniforms(*key, Purpose::ComponentDropout, segment, k);
                let dropped: Vec<bool> =
                    self.keys.iter().flat_map(of_sample).map(|uniform| f64::from(uniform) < rate).collect();
                Ok(policy.without(&dropped)?.into())
            }
            policy => Ok(policy),
        }
    }

    fn segment(
        &self,
        policies: (&Policy, &Policy),
        begin: &[f64],
        lengths: Vec<f64>,
        segment: u64,
    ) -> Result<Segment> {
        let n = self.imitation.states;
        let mut draws = SegmentDraws::default();
        for key in &self.keys {
            let uniforms = rng::uniforms(*key, Purpose::Gaps, segment, 2 * n - 1);
            let (student, teacher) = uniforms.split_at(n.min(uniforms.len()));
            draws.student.extend_from_slice(student);
            draws.teacher.extend_from_slice(teacher);
        }
        let teacher = self.distillation.teacher();
        let mut ask = |x: &Tensor<4>, t: &[f64]| teacher.velocity(x, t, self.class.as_ref());
        Ok(self.imitation.segment(policies, (begin, lengths), &draws, &mut ask)?)
    }
}

/// A prediction as the policy that the configuration asks for.
fn policy(config: &DistillConfig, velocity: VelocityMixture, x: Tensor<4>, t: Vec<f64>) -> Result<Policy> {
    Ok(match config.policy {
        PolicyKind::Mixture => MixturePolicy::new(velocity, x, t)?.into(),
        PolicyKind::Grid => {
            let trained_for = (config.segments().base(), config.shift);
            GridPolicy::new(velocity.0.means, x, t, trained_for)?.into()
        }
    })
}

/// The labels of a part, where the network has classes.
fn labels(part: &Part, device: &Device) -> Option<Tensor<1, Int>> {
    let labels = part.batch.labels.as_ref()?.get(part.range.clone())?.to_vec();
    let count = labels.len();
    Some(Tensor::from_data(TensorData::new(labels, [count]), device))
}

/// The teacher of a configuration; the first average by name before the weights themselves.
fn load_teacher(config: &DistillConfig, options: LoadOptions, device: &Device) -> Result<Model> {
    let folder = model_folder(&config.teacher)?;
    let average = Model::ema_names(&folder)?.into_iter().next();
    Ok(Model::load_with(&folder, LoadOptions { ema: average.as_deref(), without_vae: true, ..options }, device)?)
}

fn teacher_info(config: &DistillConfig, teacher: &ModelInfo) -> TeacherInfo {
    let name = config.teacher.file_name().unwrap_or(config.teacher.as_os_str());
    let own = if teacher.network.num_classes() > 0 { teacher.guidance } else { Default::default() };
    TeacherInfo {
        name: name.to_string_lossy().into_owned(),
        guidance: config.guidance.unwrap_or(own),
        guidance_interval: config.guidance_interval,
        reweight_by: config.reweight_by.unwrap_or(teacher.reweight_by),
    }
}

/// The network of a student where the configuration gives none: the teacher's, with as many components as are asked for.
///
/// # Errors
/// A teacher whose description cannot be read.
pub(crate) fn student_network(config: &DistillConfig) -> Result<NetworkConfig> {
    let mut network = ModelInfo::load(&model_folder(&config.teacher)?)?.network;
    let theirs = network.num_gaussians();
    let components = config.components.unwrap_or(if theirs > 1 { theirs } else { COMPONENTS });
    let (count, constant) = match &mut network {
        NetworkConfig::Mlp2d(net) => (&mut net.num_gaussians, &mut net.constant_logstd),
        NetworkConfig::Unet(net) => (&mut net.num_gaussians, &mut net.constant_logstd),
        NetworkConfig::GmDit(net) => (&mut net.num_gaussians, &mut net.constant_logstd),
    };
    *count = components;
    // A plain teacher has none that means anything; a mixture of several learns its own.
    if theirs == 1 && components > 1 {
        *constant = None;
    }
    Ok(network)
}

/// The student before its first step: the teacher with another head.
///
/// # Errors
/// A teacher that cannot be read, or is of another architecture than the student.
pub(crate) fn first_student(config: &Config, distill: &DistillConfig, device: &Device) -> Result<Network> {
    let teacher = load_teacher(distill, LoadOptions::default(), &device.clone().inner())?;
    let head = match distill.policy {
        PolicyKind::Mixture => StudentHead::Mixture,
        PolicyKind::Grid => StudentHead::Grid,
    };
    Ok(student(&teacher.network, &config.network, head, config.train.seed, device)?)
}
