#!/usr/bin/env bash
# Runs the tests of the kernels, of the golden sets and of damaged files under AddressSanitizer, which finds reads and writes outside of
# what was allocated, and a team of threads under ThreadSanitizer, which finds accesses without an order between them.
#
#     scripts/sanitize.sh [CARGO TEST OPTIONS]
#
# The dependencies of the crate gmflow are compiled once more, into a target folder of its own. CONTRIBUTING.md has the last result.
set -euo pipefail
cd "$(dirname "$0")/.."

# The option is not stable, but the stable toolchain has its runtimes. Nothing else is built so.
export RUSTC_BOOTSTRAP=1
export CARGO_TARGET_DIR="${GMFLOW_SANITIZE_TARGET:-target/sanitize}"
mkdir -p "$CARGO_TARGET_DIR"

# The standard library is not compiled with ThreadSanitizer, and locks and threads of its own are what it is not told of. So it sees the
# protocol of the team, which is made of atomics, and none of the crates.
rustc --edition 2024 -O -Zsanitizer=thread -Cunsafe-allow-abi-mismatch=sanitizer \
    crates/gmflow/tests/support/team_threads.rs -o "$CARGO_TARGET_DIR/team_threads"
"$CARGO_TARGET_DIR/team_threads"

export RUSTFLAGS="-Zsanitizer=address"
# Compiled in less time, and with more accesses left to check.
export CARGO_PROFILE_RELEASE_OPT_LEVEL=1
# What the pool of threads holds lives as long as the process.
export ASAN_OPTIONS="detect_leaks=0"
# With a target, procedural macros and build scripts are compiled without the sanitizer.
host=$(rustc -vV | sed -n 's/^host: //p')
# One package: in a target folder of its own the features of the others make no difference.
cargo test --release --target "$host" -p gmflow --lib "$@" -- kernel::
cargo test --release --target "$host" -p gmflow --test golden --test hostile --test hostile_values "$@"
