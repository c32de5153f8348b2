//! Checkpoints: a model folder with the optimiser's state, complete or not there at all.
//!
//! `optimizer.safetensors` holds `exp_avg.NAME` and `exp_avg_sq.NAME` for every parameter, `spectrum_optimizer.safetensors`
//! the same for the spectrum network where one is trained, and `state.json` the progress and the digests of all other files.
//! The generators need no state: every draw is a function of the seed and the number of the sample.
//!
//! ```no_run
//! use gmflow_train::checkpoint;
//!
//! let newest = checkpoint::latest("runs/shapes".as_ref())?;
//! let state = checkpoint::verify(&newest)?;
//! println!("{}: {} steps", newest.display(), state.step);
//! # Ok::<(), gmflow_train::Error>(())
//! ```

pub(crate) mod folders;
mod model;
mod resume;
mod save;
mod state;

pub use folders::{at, latest, prune, remove_unfinished, set_aside_after};
pub use model::model;
pub use resume::{ResumeOptions, load, verify};
pub use save::save;
pub use state::State;

pub(crate) use folders::{FOLDER, entries, is_folder_of_ours, list, name, remove, step_of_folder};
pub(crate) use model::config_of;
pub(crate) use resume::load_in;
