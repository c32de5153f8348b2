#!/usr/bin/env bash
# Makes the wheel of the Python package, installs it into environments of its own and tests it.
#
#     scripts/check_python.sh
#
# python3 makes the environments, in target/python-check; PYTHONS="python3.10 python3.14" names others, one after the other. Tests of PyTorch
# and diffusers run with GMFLOW_TORCH_PYTHON=PYTHON, an interpreter that has both, and are skipped otherwise. Takes about a minute beside
# the build of the crates.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
folder=$root/target/python-check
mkdir -p "$folder"

if ! python3 -c "import venv, ensurepip" 2>/dev/null; then
    apt-get update -qq && apt-get install -y -qq python3 python3-venv
fi
if ! "$folder/build/bin/maturin" --version >/dev/null 2>&1; then
    python3 -m venv --clear "$folder/build"
    "$folder/build/bin/pip" install -q 'maturin>=1.16,<2'
fi
rm -rf "$folder/wheels"
"$folder/build/bin/maturin" build --release --locked --manifest-path crates/gmflow-python/Cargo.toml --out "$folder/wheels" \
    --interpreter "$folder/build/bin/python"
wheel=$(ls "$folder"/wheels/gmflow-*.whl)
size=$(stat -c %s "$wheel")
echo "the wheel has $((size / 1000000)) MB"
# The wheel's size is bounded, so that a dependency that doubles it is noticed.
[ "$size" -lt 25000000 ] || { echo "error: expected a wheel under 25 MB" >&2; exit 1; }

test_with() {
    (cd crates/gmflow-python && "$@" -m pytest tests -q -rs -p no:cacheprovider)
}
for python in ${PYTHONS:-python3}; do
    venv=$folder/$(basename "$python")
    "$python" -m venv --clear "$venv"
    "$venv/bin/pip" install -q pytest pillow mypy "$wheel"
    "$venv/bin/python" --version
    # Away from the sources, which have no compiled part.
    (cd "$venv" && bin/python -m mypy.stubtest gmflow._native && bin/python -m mypy --ignore-missing-imports -p gmflow)
    test_with "$venv/bin/python"
done

if [ -n "${GMFLOW_TORCH_PYTHON:-}" ]; then
    python=$(readlink -f "$(dirname "$GMFLOW_TORCH_PYTHON")")/$(basename "$GMFLOW_TORCH_PYTHON")
    rm -rf "$folder/with-torch"
    "$folder/build/bin/pip" install -q --target "$folder/with-torch" --no-deps "$wheel"
    "$folder/build/bin/pip" install -q --target "$folder/with-torch/tools" pytest
    export PYTHONPATH=$folder/with-torch:$folder/with-torch/tools
    test_with "$python"
else
    echo "SKIPPED: the tests with PyTorch and diffusers; GMFLOW_TORCH_PYTHON names an interpreter that has both"
fi
