#!/bin/sh
# Trains the CIFAR-10 teacher of configs/cifar10-teacher.toml on one core beside other work, or goes on where it was stopped.
#
#   scripts/train_cifar10.sh [FOLDER [ARGUMENT ...]]
#
# FOLDER takes the run; by default ../runs-cifar10 beside the checkout. Further arguments go to `gmflow train` when the run is
# started, for instance `--from models/cifar10-teacher`; paths in them are taken from the checkout. GMFLOW names the program;
# target/release/gmflow by default. Ctrl-C or `kill` saves the step and stops. After a crash the steps since the last checkpoint
# are taken again.
set -eu

repository=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-$repository/../runs-cifar10}
[ $# -eq 0 ] || shift
case $folder in /*) ;; *) folder=$PWD/$folder ;; esac
cd "$repository"

gmflow=${GMFLOW:-target/release/gmflow}
if ! command -v "$gmflow" >/dev/null; then
    echo "$gmflow: no such program; build it with \`cargo build --release\`, or name it with GMFLOW" >&2
    exit 2
fi
if [ -e "$folder/run.manifest" ]; then
    if [ $# -gt 0 ]; then
        echo "$folder: this run goes on as it was begun; expected no further arguments, got $*" >&2
        exit 2
    fi
    set -- --resume
fi
export RAYON_NUM_THREADS=1
exec nice -n 10 "$gmflow" train configs/cifar10-teacher.toml --out "$folder" "$@"
