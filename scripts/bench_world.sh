#!/usr/bin/env bash
# What several processes cost, measured in turns on this machine:
#
#   scripts/bench_world.sh [TURNS]      TURNS pairs of runs, 3 by default
#
# 1. sums over 2 processes beside MPI_Allreduce, in the same run;
# 2. a step of the small DiT, batch 32: 1 process of 2 threads against 2 processes of 1 thread.
#
# GMFLOW names the program; target/release/gmflow by default, built with --features mpi. Needs OpenMPI and Python 3.
set -euo pipefail
cd "$(dirname "$0")/.."
turns=${1:-3}
gmflow=${GMFLOW:-target/release/gmflow}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cat >"$folder/dit.toml" <<'CONFIG'
data.source = { kind = "shapes", size = 16, count = 512 }
loss = { kind = "transition", transition_ratio = 0.5 }
train = { batch_size = 32, steps = 100, lr = 1e-4, clip_grad_norm = 1.0 }
[network]
type = "gm-dit"
num_attention_heads = 6
attention_head_dim = 64
num_layers = 12
sample_size = 16
in_channels = 3
num_embeds_ada_norm = 6
CONFIG
two() {
    RAYON_NUM_THREADS=1 mpirun --allow-run-as-root --oversubscribe --bind-to none -n 2 "$gmflow" bench-world "$@"
}
grep -m1 'model name' /proc/cpuinfo || true
mpirun --version | head -n 1
echo "commit $(git rev-parse --short HEAD), $(nproc) cores, load $(cut -d ' ' -f 1-3 /proc/loadavg)"
two
for turn in $(seq "$turns"); do
    RAYON_NUM_THREADS=2 "$gmflow" bench-world "$folder/dit.toml" --repeat 3 --json >"$folder/one-$turn.json"
    two "$folder/dit.toml" --repeat 3 --size 1 --json >"$folder/two-$turn.json"
done
python3 - "$folder" "$turns" <<'REPORT'
import json
import sys

folder, turns = sys.argv[1], int(sys.argv[2])
print("\na step of the small DiT, batch 32, f32, in seconds")
print("turn   1 process, 2 threads   2 processes, 1 thread each   of it the exchange   images/s, 2 over 1")
ratios = []
for turn in range(1, turns + 1):
    one, two = (json.load(open(f"{folder}/{name}-{turn}.json"))["training"] for name in ("one", "two"))
    ratios.append(one["measured"] / two["measured"])
    share = 100 * two["exchange"] / two["measured"]
    exchange = f"{two['exchange']:.3f} ({share:.0f} %)"
    print(f"{turn:4} {one['measured']:22.3f} {two['measured']:28.3f} {exchange:>20} {ratios[-1]:20.3f}")
print(f"median of the ratios {sorted(ratios)[len(ratios) // 2]:.3f}")
REPORT
