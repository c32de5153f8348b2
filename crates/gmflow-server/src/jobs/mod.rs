//! From a request to samples: what is asked for, the queue, the work, and what is kept of it.

mod body;
mod forecast;
#[cfg(test)]
mod forecast_tests;
mod job;
mod plan;
mod queue;
mod results;
mod store;
mod trace;
mod work;

pub(crate) use body::{SampleBody, object as read_object, read as read_body};
pub(crate) use forecast::MOST_PARTS;
pub(crate) use job::{Job, Phase};
pub(crate) use plan::{Answering, Planner};
pub(crate) use queue::Queue;
pub(crate) use results::{grid, image, npz, samples_inline};
pub(crate) use store::Store;
pub(crate) use trace::StepTrace;
