"""Time and peak memory of the first denoising step of a published checkpoint, from the start of the process, beside the time that importing
torch and diffusers takes. The cases take turns.

    cargo build --release --bin gmflow && cargo run --release --example random_checkpoint -- OUT-BF16 bf16
    python book/src/benchmarks/checkpoint_start.py target/release/gmflow OUT-BF16 [OUT-F32 ...]
"""

import os
import subprocess
import sys
import tempfile
import time


def run(command):
    """Wall-clock seconds and peak memory in GB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, command
    return time.perf_counter() - start, usage.ru_maxrss * 1024 / 1e9


def main():
    binary, *checkpoints = sys.argv[1:]
    out = tempfile.mkdtemp()
    sample = ["--num", "1", "--steps", "1", "--force", "--class", "7"]
    cases = {"import torch, diffusers": [sys.executable, "-c", "import torch; from diffusers import AutoencoderKL"]}
    for checkpoint in checkpoints:
        command = [binary, "sample", "--checkpoint", checkpoint, *sample]
        cases[f"{checkpoint}, one step"] = [*command, "--latents", "--out", f"{out}/latents.npz"]
        cases[f"{checkpoint}, one step and decoding"] = [*command, "--out", f"{out}/picture"]
    rows = {name: [] for name in cases}
    for _ in range(4):
        for name, command in cases.items():
            rows[name].append(run(command))
    for name, runs in rows.items():
        seconds = sorted(seconds for seconds, _ in runs)
        print(f"{name}: {seconds[0]:.2f} s (median {seconds[len(seconds) // 2]:.2f}), {max(m for _, m in runs):.2f} GB")


main()
