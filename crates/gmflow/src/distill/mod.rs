//! Distillation of a teacher into a policy (pi-Flow, arXiv:2510.14974): a student learns to predict, in one call, what the guided teacher
//! says along a whole step.
//!
//! The student is asked once, at the beginning of a segment. Its own policy is followed to random points of the segment, the teacher is
//! asked for its velocity there, and the policy's velocity at these points is pulled towards it: imitation of the teacher where the student
//! goes ([`Imitation`]). [`Teacher`] is a frozen network with its guidance, [`student()`] makes a network to start from of it.
//!
//! ```
//! use burn::module::Module;
//! use burn::tensor::{Device, Tensor};
//! use gmflow::distill::{Imitation, SegmentDraws, Teacher};
//! use gmflow::network::{Denoiser, Mlp2dConfig, NetworkConfig};
//! use gmflow::policy::{MixturePolicy, SubstepGrid, Policy};
//!
//! let device = Device::flex().autodiff();
//! let config = |num_gaussians| {
//!     NetworkConfig::Mlp2d(Mlp2dConfig { num_gaussians, hidden_dim: 16, embed_dim: 8, ..Mlp2dConfig::default() })
//! };
//! let (teacher, student) = (config(1).init(0, &Device::flex())?, config(8).init(1, &device)?);
//! let teacher = Teacher::unguided(&teacher);
//!
//! // The whole way from noise in one segment.
//! let x_src = Tensor::<4>::ones([2, 2, 1, 1], &device);
//! let prediction = student.forward(x_src.clone(), Tensor::full([2], 1.0, &device), None);
//! let policy = Policy::from(MixturePolicy::new(prediction, x_src.clone(), vec![1.0; 2])?);
//! let imitation = Imitation { substep_grid: SubstepGrid { shift: 1.0, substeps: 32.0 }, ..Imitation::default() };
//! let draws = SegmentDraws { student: vec![0.2, 0.7, 0.4, 0.5], teacher: vec![0.5; 2] };
//! let ends = imitation.segment((&policy, &policy.detached()), (&[1.0; 2], 1.0), &draws, &mut |x, t| teacher.velocity(x, t, None))?;
//! let gradients = ends.losses.mean().backward();
//! # drop(gradients);
//! # Ok::<(), gmflow::Error>(())
//! ```

#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable))]

mod imitation;
mod student;
mod teacher;

pub use imitation::{Asked, Imitation, Lengths, Segment, SegmentDraws};
pub use student::{StudentHead, student};
pub use teacher::Teacher;
