"""The checkerboard as pixels, and how well samples of such images keep to it.

    python pixels.py make FOLDER            images.gz and labels.gz: 40,000 images of 2 x 2 pixels, each row a point of the checkerboard
    python pixels.py measure SAMPLES.npz... total variation of the rows' histograms on 32 x 32 bins, and the share outside the squares

A row's two pixels are uniform each, and only together are they on a square: what a mixture of each pixel alone cannot say.
"""

import gzip
import struct
import sys

import numpy as np


def make(folder):
    rng = np.random.default_rng(0)
    square = rng.integers(0, 8, 80_000)
    column, row = square % 4, square // 4 * 2 + square % 4 % 2
    points = (np.stack([column, row], 1) + rng.random((80_000, 2))) / 4
    pixels = np.minimum((points * 256).astype(np.uint8), 255).reshape(-1, 2, 2)
    with gzip.open(f"{folder}/images.gz", "wb") as file:
        file.write(struct.pack(">IIII", 0x803, *pixels.shape) + pixels.tobytes())
    with gzip.open(f"{folder}/labels.gz", "wb") as file:
        file.write(struct.pack(">II", 0x801, len(pixels)) + bytes(len(pixels)))


def measure(path):
    values = np.load(path)["samples"]
    points = (values.reshape(-1, 2) + 1) / 2
    inside = ((points >= 0) & (points < 1)).all(1)
    cell = np.clip((points * 4).astype(int), 0, 3)
    on = inside & ((cell.sum(1) % 2) == 0)
    bins = np.histogramdd(np.clip(points, 0, 1 - 1e-9), bins=32, range=[(0, 1)] * 2)[0] / len(points)
    x, y = np.indices((32, 32)) // 8
    want = ((x + y) % 2 == 0) / 512
    print(f"{path}: {0.5 * np.abs(bins - want).sum():.3f}, {100 * (1 - on.mean()):.1f} % outside, {len(points)} points")


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in ("make", "measure"):
        sys.exit(__doc__)
    for argument in sys.argv[2:]:
        (make if sys.argv[1] == "make" else measure)(argument)
