//! What makes a solver one that files and commands know by name.

use super::interface::Solver;
use crate::{Error, Result, limits};

/// A solver that comes with the crate. Its fields are its settings in files.
pub(super) trait BuiltIn: Solver + Sized {
    /// The settings where none are given.
    const DEFAULT: Self;

    /// Checks every field, naming the first that is out of range.
    fn validate(&self) -> Result<()> {
        Ok(())
    }

    /// Whether its steps change the prediction of a mixture by the one before; multistep solvers do so in their own way.
    fn has_second_order_change(&self) -> bool {
        false
    }
}

/// Checks the order of a mixture solver.
pub(super) fn check_order(order: u8) -> Result<()> {
    if !(1..=2).contains(&order) {
        return Err(Error::config("order", "1 or 2", order));
    }
    Ok(())
}

/// Checks a number of sub-steps.
pub(super) fn check_substeps(substeps: usize) -> Result<()> {
    limits::count("substeps", substeps, limits::MOST_STEPS)
}

/// Makes the modules of the solvers, [`SolverConfig`](super::SolverConfig) and all that depends on which solvers there are. A line of the
/// list is the file, the type in it, the name in files and commands, and a few words for the help of the command line.
macro_rules! solvers {
    ($($module:ident::$solver:ident = $name:literal, $help:literal;)*) => {
        $(
            mod $module;
            pub use $module::$solver;

            impl Default for $solver {
                fn default() -> Self {
                    <Self as BuiltIn>::DEFAULT
                }
            }

            impl From<$solver> for SolverConfig {
                fn from(solver: $solver) -> Self {
                    Self::$solver(solver)
                }
            }
        )*

        /// A solver and its settings.
        #[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(tag = "kind")]
        pub enum SolverConfig {
            $(
                #[doc = $help]
                #[serde(rename = $name)]
                $solver($solver),
            )*
        }

        impl SolverConfig {
            /// All solvers, each with its name, its settings where none are given, and a few words about it.
            pub const ALL: &[(&'static str, Self, &'static str)] =
                &[$(($name, Self::$solver(<$solver as BuiltIn>::DEFAULT), $help)),*];

            /// The name in files and commands.
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$solver(_) => $name,)*
                }
            }

            /// The solver itself.
            pub fn solver(&self) -> Box<dyn Solver> {
                match *self {
                    $(Self::$solver(solver) => Box::new(solver),)*
                }
            }

            /// Checks every field, naming the first that is out of range.
            pub fn validate(&self) -> Result<()> {
                match self {
                    $(Self::$solver(solver) => solver.validate(),)*
                }
            }

            /// Whether steps of a mixture solver change the prediction by the one before; multistep solvers do so in their own way.
            pub fn is_of_order_2(&self) -> bool {
                match self {
                    $(Self::$solver(solver) => solver.has_second_order_change(),)*
                }
            }
        }
    };
}
pub(super) use solvers;
