//! Solvers: stateless values with `init` and `step`, and explicit state.
