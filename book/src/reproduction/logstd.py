"""The standard deviation of the velocity that a run of a U-Net or GM-DiT predicts, by time; or a copy of the run with another one.

    python book/src/reproduction/logstd.py runs/mnist-k1 runs/mnist-k8
    python book/src/reproduction/logstd.py runs/mnist-k8 --copy runs/k8-wide --std 0.45
    python book/src/reproduction/logstd.py runs/mnist-k8 --copy runs/k8-x4 --times 4

It is one number for a sample, computed from the time and the class alone; printed is the geometric mean over the classes. Needs NumPy.
"""

import argparse
import json
import math
import shutil
import struct
from pathlib import Path

import numpy as np

TIMES = [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0]


def weights(path):
    data = bytearray(path.read_bytes())
    start = 8 + struct.unpack("<Q", data[:8])[0]
    header = json.loads(bytes(data[8:start]))
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        lo, hi = entry["data_offsets"]
        tensors[name] = np.frombuffer(data, np.float32, (hi - lo) // 4, start + lo).reshape(entry["shape"])
    return data, tensors


def head(tensors):
    return sorted({name.rsplit(".", 1)[0] for name in tensors if "logstd_layers" in name})


def linear(x, tensors, layer):
    return x @ tensors[layer + ".weight"].T + tensors[layer + ".bias"]


def silu(x):
    return x / (1 + np.exp(-x))


def log_std(tensors):
    find = lambda end: next((name.rsplit(".", 1)[0] for name in tensors if name.endswith(end)), None)
    is_unet = find("time_embedding.linear_1.weight") is not None
    parent = "time_embedding" if is_unet else "timestep_embedder"
    first, second = (find(f"{parent}.linear_{i}.weight") for i in (1, 2))
    half = tensors[first + ".weight"].shape[1] // 2
    # The networks' features differ in the last frequency and in the order of sines and cosines.
    frequencies = np.exp(-math.log(10000) * np.arange(half) / (half - 1 if is_unet else half))
    angles = 1000 * np.outer(TIMES, frequencies)
    waves = [np.sin(angles), np.cos(angles)]
    x = linear(np.concatenate(waves if is_unet else waves[::-1], 1), tensors, first)
    time = linear(silu(x), tensors, second)
    classes = tensors[next(name for name in tensors if "class_embed" in name)][:-1]
    x = time[:, None] + classes
    for layer in head(tensors):
        x = linear(silu(x), tensors, layer)
    return x[..., 0].mean(1)


parser = argparse.ArgumentParser()
parser.add_argument("runs", type=Path, nargs="+")
parser.add_argument("--copy", type=Path)
parser.add_argument("--std", type=float)
parser.add_argument("--times", type=float)
args = parser.parse_args()
latest = [sorted((run / "checkpoints").glob("step-*"))[-1] / "ema.ema.safetensors" for run in args.runs]
if args.copy:
    shutil.copytree(args.runs[0], args.copy)
    target = args.copy / latest[0].relative_to(args.runs[0])
    data, tensors = weights(target)
    last = head(tensors)[-1]
    if args.std:
        tensors[last + ".weight"][:] = 0
        tensors[last + ".bias"][:] = math.log(args.std)
    else:
        tensors[last + ".bias"][:] += math.log(args.times)
    target.write_bytes(data)
else:
    print("t".ljust(24), *(f"{t:6.2f}" for t in TIMES))
    for run, path in zip(args.runs, latest):
        print(run.name.ljust(24), *(f"{s:6.3f}" for s in np.exp(log_std(weights(path)[1]))))
