#!/bin/bash
# Checks and measures gmflow on a machine with a GPU, and trains there. The machine needs no cargo and no network.
#
#   scripts/gpu_check.sh build FOLDER [FEATURE]    here: tests, benches and the program, built and put into FOLDER
#   scripts/gpu_check.sh run FOLDER OUT            there: golden tests, benchmarks, training; results in OUT
#   scripts/gpu_check.sh join OUT                  here again: the weights from their pieces
#
# FEATURE is cuda (the default), vulkan, wgpu, or none, which tries all of this on the CPU. Carry the checkout and FOLDER over.
# Every stage of `run` has its log in OUT and its line in OUT/summary.txt; one that fails does not stop the next.
#
# What `run` takes from the environment:
#   DEVICE    cuda; `cpu` for a trial
#   GOLDEN    the folder of recorded numbers; ../shared/golden beside the checkout by default, with golden_distill beside it. Without it
#             the golden tests are left out
#   DATA      a folder with CIFAR-10 as `gmflow data get cifar10` writes it. Without it nothing is trained
#   FROM      the model that training starts from; models/cifar10-teacher by default, if it is there
#   SECONDS_TO_TRAIN  240
#   BENCH_SECONDS     300, after which the benchmarks are cut off; 0 leaves them out
#   PYTHON    a Python with PyTorch, for the benchmarks; python3 by default
set -eu
repository=$(cd "$(dirname "$0")/.." && pwd)

usage() {
    sed -n '2,/^set -eu/s/^# \{0,1\}//p' "$0"
}

fail() {
    echo "error: $1" >&2
    exit 2
}

# A path from the folder that this was called in; nothing for nothing.
absolute() {
    case $1 in '' | /*) echo "$1" ;; *) echo "$PWD/$1" ;; esac
}

# Builds everything with a feature and collects the executables, without symbols, so that they are small to carry.
build() {
    local folder=$1 feature=${2:-cuda} features=()
    case $feature in
        cuda | vulkan | wgpu) features=(--features "$feature") ;;
        none) ;;
        *) fail "FEATURE: expected cuda, vulkan, wgpu or none, got $feature" ;;
    esac
    mkdir -p "$folder/bin"
    folder=$(cd "$folder" && pwd)
    cd "$repository"
    local list
    list=$(mktemp)
    cargo test --release --workspace "${features[@]}" --no-run --lib --test golden --test passes --test training \
        --message-format=json-render-diagnostics >"$list"
    cargo bench --workspace "${features[@]}" --no-run --bench networks --bench mixture \
        --message-format=json-render-diagnostics >>"$list"
    cargo build --release --workspace "${features[@]}" --bin gmflow --message-format=json-render-diagnostics >>"$list"
    python3 - "$list" "$folder/bin" <<'PYTHON'
import json, pathlib, shutil, subprocess, sys

wanted = {
    ("gmflow", "lib"): "kernels", ("gmflow", "golden"): "golden", ("gmflow", "passes"): "passes",
    ("gmflow-train", "golden"): "golden-train", ("gmflow-train", "training"): "training",
    ("gmflow", "networks"): "networks", ("gmflow", "mixture"): "mixture", ("gmflow-cli", "gmflow"): "gmflow",
}
out = pathlib.Path(sys.argv[2])
found = {}
for line in open(sys.argv[1]):
    message = json.loads(line)
    if not message.get("executable"):
        continue
    target, package = message["target"], pathlib.Path(message["manifest_path"]).parent.name
    name = "lib" if "lib" in target["kind"] else target["name"]
    if message["profile"]["test"] and target["kind"] == ["bin"]:
        continue
    if (place := wanted.get((package, name))) is not None:
        found[place] = message["executable"]
if missing := set(wanted.values()) - set(found):
    sys.exit(f"not built: {', '.join(sorted(missing))}")
for place, path in found.items():
    shutil.copy(path, out / place)
    subprocess.run(["strip", out / place], check=True)
PYTHON
    rm "$list"
    tar -C "$folder" -cf - bin | xz -T0 >"$folder/bin.tar.xz"
    rm -r "$folder/bin"
    ls -l "$folder"
}

# stage NAME COMMAND...: runs a command, keeps its output and adds its line to the summary.
stage() {
    local name=$1 code=0 start
    shift
    start=$(date +%s)
    "$@" >"$out/$name.log" 2>&1 || code=$?
    echo "$name: exit $code after $(($(date +%s) - start)) s; $(grep -E '^test result|^step|panicked' "$out/$name.log" | tail -n 1)" |
        tee -a "$out/summary.txt"
}

train() {
    local from=()
    [ ! -d "$FROM" ] || from=(--from "$FROM")
    # SIGTERM saves the step; 124 is that of a command that was stopped in time.
    local code=0
    timeout -s TERM "$SECONDS_TO_TRAIN" "$bin/gmflow" train "$repository/configs/cifar10-teacher.toml" --out "$out/run" \
        --data "$DATA" --device "$DEVICE" "${from[@]}" --set train.batch_size=128 --set checkpoint.keep=1 || code=$?
    [ $code -eq 0 ] || [ $code -eq 124 ] || return $code
    "$bin/gmflow" sample --checkpoint "$out/run" --device "$DEVICE" --num 40 --grid --out "$out/samples.png" --force
    "$bin/gmflow" export --checkpoint "$out/run" --layout gmflow --precision f16 --out "$out/model" --force
    # Pieces that every channel takes; `join` makes the folder of them again.
    tar -C "$out" -cf - model | split -b 15M - "$out/model.tar."
    rm -r "$out/model"
}

check() {
    [ -d "$1/bin" ] || [ -f "$1/bin.tar.xz" ] || fail "FOLDER: expected bin.tar.xz, as \`build\` writes it, got $1 without it"
    [ ! -e "$2/summary.txt" ] || fail "OUT: expected a new folder, got $2, which has the results of an earlier run"
    DEVICE=${DEVICE:-cuda} DATA=$(absolute "${DATA:-}") GOLDEN=$(absolute "${GOLDEN:-$repository/../shared/golden}")
    [ -z "${FROM:-}" ] || [ -d "$FROM" ] || fail "FROM: expected the folder of a model, got $FROM"
    [ -z "$DATA" ] || [ -d "$DATA" ] || fail "DATA: expected a folder, got $DATA"
    FROM=$(absolute "${FROM:-$repository/models/cifar10-teacher}")
    [ -d "$1/bin" ] || tar -C "$1" -xf "$1/bin.tar.xz"
    bin=$(cd "$1/bin" && pwd)
    mkdir -p "$2"
    out=$(cd "$2" && pwd)
    cd "$repository"
    SECONDS_TO_TRAIN=${SECONDS_TO_TRAIN:-240} BENCH_SECONDS=${BENCH_SECONDS:-300}
    export GMFLOW_TEST_DEVICE=$DEVICE
    : >"$out/summary.txt"
    stage device sh -c 'nvidia-smi; nvcc --version; uname -a; "$0" --version; "$0" info --machine' "$bin/gmflow"
    stage kernels "$bin/kernels" kernel::tests
    stage passes "$bin/passes"
    if [ -d "$GOLDEN" ]; then
        export GMFLOW_GOLDEN=$GOLDEN GMFLOW_GOLDEN_DISTILL=${GOLDEN}_distill
        stage golden "$bin/golden"
        stage golden-train "$bin/golden-train"
    else
        echo "golden: left out; $GOLDEN is not there" | tee -a "$out/summary.txt"
    fi
    stage training "$bin/training"
    stage sample "$bin/gmflow" sample --checkpoint models/mnist --device "$DEVICE" --num 40 --grid --out "$out/digits.png" --force
    if [ "$DEVICE" = cpu ] && [ "$BENCH_SECONDS" -gt 0 ]; then
        stage bench timeout "$BENCH_SECONDS" "$bin/mixture" --bench --noplot --quick
    elif [ "$BENCH_SECONDS" -gt 0 ]; then
        stage bench timeout "$BENCH_SECONDS" python3 benchsuite/run.py --device "$DEVICE" --quick \
            --python "$(command -v "${PYTHON:-python3}")" --bin-dir "$bin" --out "$out/speed.jsonl"
    fi
    if [ -n "$DATA" ]; then
        stage train train
    else
        echo "train: left out; DATA names no folder" | tee -a "$out/summary.txt"
    fi
    ! grep -E 'exit [^0]' "$out/summary.txt"
}

join() {
    [ -f "$1/model.tar.aa" ] || fail "OUT: expected model.tar.aa and its like, as \`run\` writes them, got $1 without them"
    [ ! -e "$1/model" ] || fail "OUT: $1/model is there already"
    cat "$1"/model.tar.* | tar -C "$1" -xf -
    ls -l "$1/model"
}

case "${1:-} $#" in
    build\ [23]) build "$2" "${3:-}" ;;
    run\ 3) check "$2" "$3" ;;
    join\ 2) join "$2" ;;
    -h\ 1 | --help\ 1) usage ;;
    *) usage >&2; fail "expected build, run or join with its folders, got ${*:-nothing}" ;;
esac
