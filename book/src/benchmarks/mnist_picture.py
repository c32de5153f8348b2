"""Draws the picture of both MNIST models at several numbers of steps, and the table beside it.

    python mnist_picture.py --gmflow target/release/gmflow --out book/src/images/mnist.png K8_CHECKPOINT K1_CHECKPOINT

The rows of one column of digits start from the same seed. Needs numpy and Pillow.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

STEPS = [2, 4, 8, 32]
ROWS, SCALE, GAP, TOP, LEFT = 5, 2, 14, 46, 150


def draw(gmflow, checkpoint, steps, folder):
    out = Path(folder) / "samples.npz"
    command = [gmflow, "sample", "--checkpoint", checkpoint, "--out", out, "--format", "npz", "--force"]
    command += ["--num", str(10 * ROWS), "--steps", str(steps)]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    samples = np.load(out)["samples"].clip(-1, 1)  # [n 1 28 28], classes in turn
    pixels = ((samples + 1) * 127.5).round().astype(np.uint8).reshape(ROWS, 10, 28, 28)
    grid = pixels.transpose(0, 2, 1, 3).reshape(ROWS * 28, 280)
    return Image.fromarray(255 - grid).resize((280 * SCALE, ROWS * 28 * SCALE), Image.Resampling.NEAREST)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gmflow", default="target/release/gmflow")
    parser.add_argument("--out", default="book/src/images/mnist.png")
    parser.add_argument("k8")
    parser.add_argument("k1")
    args = parser.parse_args()
    models = [
        ("GMFlow\nK = 8\nGM-ODE 2", args.k8),
        ("flow\nmatching\nK = 1\nEuler", args.k1),
    ]
    width, height = 280 * SCALE, ROWS * 28 * SCALE
    picture = Image.new("L", (LEFT + len(STEPS) * (width + GAP), TOP + len(models) * (height + GAP)), 255)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(26)
    with tempfile.TemporaryDirectory() as folder:
        for row, (label, checkpoint) in enumerate(models):
            y = TOP + row * (height + GAP)
            pen.multiline_text((6, y + height // 2), label, 0, font, anchor="lm")
            for column, steps in enumerate(STEPS):
                x = LEFT + column * (width + GAP)
                if row == 0:
                    pen.text((x + width // 2, TOP // 2), f"{steps} steps", 0, font, anchor="mm")
                picture.paste(draw(args.gmflow, checkpoint, steps, folder), (x, y))
    picture.save(args.out, optimize=True)


if __name__ == "__main__":
    main()
