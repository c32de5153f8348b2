"""Reads generated MNIST digits with a classifier that never saw them, and looks for copies of training images.

    python mnist_quality.py --data DIGITS [--check] samples.npz [more.npz ...]

DIGITS is a folder with the original IDX files of MNIST.

Each .npz comes from `gmflow sample --format npz`: `samples` [n 1 28 28] in [-1, 1] and `classes` [n], the digits asked for.
Needs torch and numpy. The classifier is a small convolutional network trained on the 10,000 real digits; `--check` first
trains it on 9,000 of them and reports its accuracy on the other 1,000, to say how far it can be trusted.
Diversity: for every sample the RMS distance to the nearest real digit, beside the distance of a real digit to its nearest other real
digit, and the mean pairwise RMS distance within a class beside that of real digits (a ratio near 1 is as diverse as the data).
"""

import argparse
import gzip
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


def load_idx(path):
    raw = gzip.decompress(Path(path).read_bytes())
    shape = [int.from_bytes(raw[4 + 4 * i : 8 + 4 * i], "big") for i in range(raw[3])]
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * len(shape)).reshape(shape)


def classifier():
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.4), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Linear(128, 10),
    )


def jitter(x):
    """Shifts by up to two pixels, one shift for the batch: enough against overfitting on ten thousand digits."""
    dy, dx = torch.randint(-2, 3, (2,)).tolist()
    return torch.roll(x, (dy, dx), (2, 3))


def train(x, y, epochs=8):
    torch.manual_seed(0)
    model = classifier()
    opt = torch.optim.AdamW(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, 4e-3, total_steps=epochs * (len(x) // 100))
    for _ in range(epochs):
        order = torch.randperm(len(x))
        for i in range(len(x) // 100):
            rows = order[100 * i : 100 * (i + 1)]
            loss = F.cross_entropy(model(jitter(x[rows])), y[rows])
            opt.zero_grad()
            loss.backward()
            opt.step()
            schedule.step()
    return model.eval()


@torch.no_grad()
def predict(model, x):
    return torch.cat([model(part).argmax(1) for part in x.split(500)])


def nearest(a, b, skip_self=False):
    """RMS distance of each row of a to its nearest row of b."""
    d = torch.cdist(a.flatten(1), b.flatten(1)) / a[0].numel() ** 0.5
    if skip_self:
        d.fill_diagonal_(float("inf"))
    return d.min(1).values


def within_class(x, y):
    """Mean pairwise RMS distance within each class."""
    total = [torch.pdist(x[y == c].flatten(1)[:300]).mean() / x[0].numel() ** 0.5 for c in range(10) if (y == c).sum() > 1]
    return torch.stack(total).mean().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--cache", help="where to keep the trained classifier between runs")
    parser.add_argument("samples", nargs="+")
    args = parser.parse_args()
    torch.set_num_threads(2)
    x = torch.tensor(load_idx(Path(args.data) / "t10k-images-idx3-ubyte.gz")).float()[:, None] / 127.5 - 1
    y = torch.tensor(load_idx(Path(args.data) / "t10k-labels-idx1-ubyte.gz")).long()
    if args.check:
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
        model = train(x[order[1000:]], y[order[1000:]])
        held_out = (predict(model, x[order[:1000]]) == y[order[:1000]]).float().mean().item()
        print(f"classifier on 1,000 held-out real digits: {100 * held_out:.1f} %")
    if args.cache and Path(args.cache).exists():
        model = classifier()
        model.load_state_dict(torch.load(args.cache))
        model.eval()
    else:
        model = train(x, y)
        if args.cache:
            torch.save(model.state_dict(), args.cache)
    real_nn, real_spread = nearest(x[:2000], x, skip_self=True), within_class(x, y)
    print(f"real digits: nearest-neighbour RMS median {real_nn.median():.3f}, 1st percentile {real_nn.quantile(0.01):.3f}")
    print("| file | n | read as asked (%) | nearest real digit, RMS median / 1st percentile / minimum | spread within a class, ratio to real |")
    print("|---|---|---|---|---|")
    for path in args.samples:
        data = np.load(path)
        s, c = torch.tensor(data["samples"]).float().clamp(-1, 1), torch.tensor(data["classes"]).long()
        right = (predict(model, s) == c).float().mean().item()
        d = nearest(s, x)
        print(f"| {Path(path).name} | {len(s)} | {100 * right:.1f} | {d.median():.3f} / {d.quantile(0.01):.3f} / {d.min():.3f} "
              f"| {within_class(s, c) / real_spread:.2f} |")


if __name__ == "__main__":
    main()
