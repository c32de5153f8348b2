#!/usr/bin/env bash
# Runs the tests of the kernels, of the golden sets and of damaged files under AddressSanitizer, which finds reads and writes outside of
# what was allocated. All dependencies are compiled once more, into a target folder of its own.
#
#     scripts/sanitize.sh [CARGO TEST OPTIONS]
set -euo pipefail
cd "$(dirname "$0")/.."

# The option is not stable, but the stable toolchain has its runtime. Nothing else is built so.
export RUSTC_BOOTSTRAP=1
export RUSTFLAGS="-Zsanitizer=address"
export CARGO_TARGET_DIR="${GMFLOW_SANITIZE_TARGET:-target/sanitize}"
# What the pool of threads holds lives as long as the process.
export ASAN_OPTIONS="detect_leaks=0"
# With a target, procedural macros and build scripts are compiled without the sanitizer.
host=$(rustc -vV | sed -n 's/^host: //p')

cargo test --release --target "$host" --workspace --lib "$@" -- kernel::
cargo test --release --target "$host" --workspace --test golden --test hostile --test hostile_values "$@"
