"""FID, KID, Inception Score, precision and recall of the same two folders by torch-fidelity and by gmflow, with the same made-up weights.

    pip install torch-fidelity==0.4.0 pillow
    cargo build --release --bin gmflow
    python book/src/benchmarks/against_torch_fidelity.py target/release/gmflow

Made-up weights are enough to compare two programs, and need no download. Figures: metrics.md.
"""

import json
import pathlib
import runpy
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
import torch_fidelity
import torch_fidelity.feature_extractor_inceptionv3 as inception
from PIL import Image

RECORDER = pathlib.Path(__file__).parents[3] / "crates/gmflow-eval/tests/data/record_inception.py"
IMAGES = 150


def write_weights(path):
    weights = runpy.run_path(str(RECORDER), run_name="imported")["weights"]
    load = inception.FeatureExtractorInceptionV3.load_state_dict
    inception.FeatureExtractorInceptionV3.load_state_dict = lambda self, state: None
    torch.save({}, path)
    net = inception.FeatureExtractorInceptionV3("any", ["2048"], feature_extractor_weights_path=str(path))
    inception.FeatureExtractorInceptionV3.load_state_dict = load
    state = net.state_dict()
    for name, tensor in state.items():
        if not name.endswith("num_batches_tracked"):
            state[name] = torch.from_numpy(weights(name, tuple(tensor.shape)).copy())
    torch.save(state, path)


def write_images(folder, seed, noise):
    """Coloured squares on coloured ground."""
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for index in range(IMAGES):
        picture = np.tile(rng.uniform(0, 255, 3), (32, 32, 1))
        top, left = rng.integers(2, 18, 2)
        picture[top : top + 12, left : left + 12] = rng.uniform(0, 255, 3)
        picture += rng.normal(0, noise, picture.shape)
        Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(folder / f"{index:04d}.png")


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        weights, fake, real = folder / "weights.pth", folder / "fake", folder / "real"
        write_weights(weights)
        write_images(fake, 1, 12)
        write_images(real, 2, 4)
        start = time.time()
        theirs = torch_fidelity.calculate_metrics(
            input1=str(fake), input2=str(real), cuda=False, isc=True, fid=True, kid=True, prc=True, kid_subset_size=100,
            feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(weights), cache=False,
            verbose=False, batch_size=16,
        )  # fmt: skip
        seconds = time.time() - start
        start = time.time()
        command = [sys.argv[1], "eval", "--real", real, "--fake", fake, "--features", f"inception={weights}"]
        command += ["--kid-subset-size", "100", "--json"]
        ours = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)[0]["metrics"]
        print(f"torch-fidelity {seconds:.0f} s, gmflow {time.time() - start:.0f} s")
        pairs = {
            "FID": (theirs["frechet_inception_distance"], ours["fid"]),
            "KID": (theirs["kernel_inception_distance_mean"], ours["kid"]["mean"]),
            "Inception Score": (theirs["inception_score_mean"], ours["inception_score"]["mean"]),
            "precision": (theirs["precision"], ours["precision"]),
            "recall": (theirs["recall"], ours["recall"]),
        }
        for name, (a, b) in pairs.items():
            print(f"{name:16} {a:.9f} {b:.9f}  {abs(a - b) / abs(a):.1e}")


main()
