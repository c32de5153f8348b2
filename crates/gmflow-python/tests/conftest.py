"""What the tests share. `pytest crates/gmflow-python/tests` runs them against the gmflow that is installed."""

import json
import os
import pathlib
import subprocess

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]


def absent(what):
    """Says that something is not there; with CI=true that is a failure."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"{what} is not there")
    pytest.skip(f"{what} is not there")


@pytest.fixture(scope="session")
def mnist():
    import gmflow

    # In f32, which is the same on every machine.
    return gmflow.Pipeline.from_pretrained(ROOT / "models" / "mnist", precision="f32")


@pytest.fixture(scope="session")
def binary():
    path = pathlib.Path(os.environ.get("GMFLOW_BIN", ROOT / "target" / "release" / "gmflow"))
    if not path.is_file():
        absent(f"the program {path}")

    def run(*arguments):
        done = subprocess.run([path, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT)
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def tensors(path):
    """The tensors of a safetensors file, all f32."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header.pop("__metadata__", None)

    def tensor(entry):
        start, end = entry["data_offsets"]
        kind = {"F32": np.float32, "F16": np.float16}[entry["dtype"]]
        values = np.frombuffer(data[8 + size + start : 8 + size + end], kind)
        return values.reshape(entry["shape"]).astype(np.float32)

    return {name: tensor(entry) for name, entry in header.items()}


class Golden:
    """Recorded cases of the published implementation."""

    def __init__(self, folder):
        self.folder = folder
        self.cases = {case["id"]: case for case in json.loads((folder / "index.json").read_text())["cases"]}
        self._files = {}

    def tensor(self, case, entry):
        file = entry.get("file", case["file"])
        if file not in self._files:
            self._files[file] = tensors(self.folder / file)
        return self._files[file][entry["key"]].reshape(entry["shape"])


@pytest.fixture(scope="session")
def golden():
    folder = pathlib.Path(os.environ.get("GMFLOW_GOLDEN", ROOT.parent / "shared" / "golden"))
    if not (folder / "index.json").is_file():
        absent(f"the recorded cases in {folder}")
    return Golden(folder)


def toy_mixture(seed=0, b=2, k=3, c=2, h=4, w=5):
    """Some mixture: means, logweights, logstds."""
    rng = np.random.default_rng(seed)
    means = rng.normal(size=(b, k, c, h, w)).astype(np.float32)
    logits = rng.normal(size=(b, k, 1, h, w)).astype(np.float32)
    logweights = (logits - np.log(np.exp(logits).sum(1, keepdims=True))).astype(np.float32)
    logstds = np.full((b, 1, 1, 1, 1), -0.7, np.float32)
    return means, logweights, logstds


def gaussian_data(x, t):
    """What is known of u = noise - x0 at (x, t), where x0 is normal with mean 0.5 and deviation 0.3: a prediction with one answer."""
    t = t.reshape(-1, 1, 1, 1)
    s2, m = 0.09, 0.5
    var_t = (1 - t) ** 2 * s2 + t**2
    gain = (1 - t) * s2 / var_t
    mean_x0 = m + gain * (x - (1 - t) * m)
    std_x0 = (s2 - gain * (1 - t) * s2) ** 0.5
    return (x - mean_x0) / t, std_x0 / t


def gaussian_mixture_data(x, t):
    """The same as a mixture of one component."""
    mean, std = gaussian_data(x, t)
    b, _, h, w = x.shape
    zeros = x[:, None, :1] * 0
    log = np.log(std) if isinstance(x, np.ndarray) else std.log()
    return {"means": mean[:, None], "logweights": zeros, "logstds": log.reshape(b, 1, 1, 1, 1)}
