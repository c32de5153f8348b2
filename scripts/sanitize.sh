#!/usr/bin/env bash
# Runs the tests of the kernels, of the golden sets and of damaged files under AddressSanitizer, which finds reads and writes outside of
# what was allocated. The dependencies of the crate gmflow are compiled once more, into a target folder of its own.
#
#     scripts/sanitize.sh [CARGO TEST OPTIONS]
#
# GMFLOW_SANITIZER=thread runs the kernels' tests under ThreadSanitizer instead. The standard library is not compiled with it, so that it may
# name races where threads synchronise by its means.
set -euo pipefail
cd "$(dirname "$0")/.."

# The option is not stable, but the stable toolchain has its runtime. Nothing else is built so.
export RUSTC_BOOTSTRAP=1
sanitizer=${GMFLOW_SANITIZER:-address}
export RUSTFLAGS="-Zsanitizer=$sanitizer"
# Compiled in less time, and with more accesses left to check.
export CARGO_PROFILE_RELEASE_OPT_LEVEL=1
export CARGO_TARGET_DIR="${GMFLOW_SANITIZE_TARGET:-target/sanitize}"
# What the pool of threads holds lives as long as the process.
export ASAN_OPTIONS="detect_leaks=0"
# With a target, procedural macros and build scripts are compiled without the sanitizer.
host=$(rustc -vV | sed -n 's/^host: //p')

# One package: in a target folder of its own the other ones' features make no difference.
cargo test --release --target "$host" -p gmflow --lib "$@" -- kernel::
if [ "$sanitizer" = address ]; then
    cargo test --release --target "$host" -p gmflow --test golden --test hostile --test hostile_values "$@"
fi
