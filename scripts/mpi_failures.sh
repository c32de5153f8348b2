#!/usr/bin/env bash
# Tries every failure of a process under mpirun again and again, and says how long the job took to end each time:
#
#   scripts/mpi_failures.sh [TRIES]     20 by default
#
# A job that hangs, ends with success, does not say why, or leaves no whole checkpoint is an error. Needs OpenMPI; see CONTRIBUTING.md.
set -euo pipefail
cd "$(dirname "$0")/.."
output=$(mktemp)
trap 'rm -f "$output"' EXIT
GMFLOW_MPI_TRIES=${1:-20} cargo test --release --workspace --features object-store,mpi --test mpi -- \
    --nocapture --test-threads 1 end_the_job ends_the_job >"$output" 2>&1 || { cat "$output"; exit 1; }
grep -h -o 'FAILURE .*\|SKIPPED.*\|test result.*' "$output"
