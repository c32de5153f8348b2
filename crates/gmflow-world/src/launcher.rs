//! Which launcher has started this process, and the world that it is a rank of.

use crate::solo::Solo;
use crate::world::World;
use crate::{Error, Result};
use std::sync::Arc;
use std::time::Duration;

/// The variables that say how many processes a launcher has started: of OpenMPI, of MPICH and its relatives, of MVAPICH, of PALS.
const SIZES: [&str; 4] = ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "PALS_NRANKS"];
/// Slurm sets the number for a step of `srun`, and the number of an allocation in a batch script too, which is one process.
const SLURM_STEP: &str = "SLURM_STEP_ID";
const SLURM_SIZES: [&str; 2] = ["SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"];

/// What a launcher says of the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launched {
    /// The variable that says it.
    pub variable: &'static str,
    /// The number of processes.
    pub size: usize,
}

/// What the environment says of a launcher; nothing where there is none.
pub fn launched(variable: impl Fn(&str) -> Option<String>) -> Option<Launched> {
    let size = |name: &&'static str| {
        let size = variable(name)?.trim().parse::<usize>().ok()?;
        Some(Launched { variable: name, size })
    };
    let in_step = variable(SLURM_STEP).is_some();
    SIZES.iter().find_map(size).or_else(|| SLURM_SIZES.iter().filter(|_| in_step).find_map(size))
}

/// The world of the launcher that has started this process, or [`Solo`]. An operation of it ends the process when no other rank has
/// answered within `timeout`.
///
/// # Errors
/// [`Error::Config`] where the launcher has started several processes, and this build is without MPI, or the launcher is not that of its MPI
/// library: each of the processes would do the whole work, and overwrite the others' files.
pub fn connect(launched: Option<Launched>, timeout: Duration) -> Result<Arc<dyn World>> {
    match launched.filter(|launched| launched.size > 1) {
        None => Ok(Arc::new(Solo::default())),
        Some(launched) => several(&launched, timeout),
    }
}

#[cfg(feature = "mpi")]
fn several(launched: &Launched, timeout: Duration) -> Result<Arc<dyn World>> {
    let world = crate::mpi::Mpi::start(timeout)?;
    if world.size() != launched.size {
        let expected = format!(
            "the launcher of the MPI library of this build ({}), which knows of {} process{}",
            crate::mpi::library(),
            world.size(),
            if world.size() == 1 { "" } else { "es" }
        );
        return Err(Error::config("MPI", expected, format!("{} = {}", launched.variable, launched.size)));
    }
    Ok(Arc::new(world))
}

#[cfg(not(feature = "mpi"))]
fn several(launched: &Launched, _timeout: Duration) -> Result<Arc<dyn World>> {
    let expected = "a build with MPI (cargo build --features mpi), or --shard I/N for each process, or one process";
    Err(Error::config("MPI", expected, format!("{} = {}", launched.variable, launched.size)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Option<(&'static str, usize)> {
        let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        launched(find).map(|launched| (launched.variable, launched.size))
    }

    #[test]
    fn launchers_are_known_by_their_variables() {
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[("OMPI_COMM_WORLD_SIZE", "4")]), Some(("OMPI_COMM_WORLD_SIZE", 4)));
        assert_eq!(of(&[("PMI_SIZE", "2"), ("SLURM_NTASKS", "8")]), Some(("PMI_SIZE", 2)));
        assert_eq!(of(&[("SLURM_NTASKS", "8")]), None, "a batch script is one process");
        assert_eq!(of(&[("SLURM_NTASKS", "8"), ("SLURM_STEP_ID", "0")]), Some(("SLURM_NTASKS", 8)));
        let step = [("SLURM_NTASKS", "8"), ("SLURM_STEP_ID", "0"), ("SLURM_STEP_NUM_TASKS", "1")];
        assert_eq!(of(&step), Some(("SLURM_STEP_NUM_TASKS", 1)));
        assert_eq!(of(&[("PMI_SIZE", "many")]), None);
    }

    #[test]
    fn one_process_needs_no_mpi() {
        let timeout = Duration::from_secs(1);
        assert_eq!(connect(None, timeout).unwrap().size(), 1);
        let one = Launched { variable: "PMI_SIZE", size: 1 };
        assert_eq!(connect(Some(one), timeout).unwrap().size(), 1);
    }

    #[cfg(not(feature = "mpi"))]
    #[test]
    fn several_processes_without_mpi_are_refused() {
        let four = Launched { variable: "OMPI_COMM_WORLD_SIZE", size: 4 };
        let error = connect(Some(four), Duration::from_secs(1)).unwrap_err().to_string();
        assert!(error.starts_with("MPI: expected a build with MPI"), "{error}");
        assert!(error.ends_with("got OMPI_COMM_WORLD_SIZE = 4"), "{error}");
    }
}
