"""Draws the picture of students beside their teacher at several numbers of network calls.

    python mnist_students.py --gmflow target/release/gmflow --out book/src/images/students.png \
        "student=models/mnist-1step:1,2" "teacher=models/mnist:1,2,4,8"

A row is NAME=CHECKPOINT:CALLS; a comma in NAME begins a new line. Digits of one column start from the same seed. Needs Pillow.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

CALLS = [1, 2, 4, 8]
ROWS, COLUMNS, SIZE, SCALE, GAP, TOP, LEFT = 4, 10, 28, 2, 14, 46, 170


def draw(gmflow, checkpoint, calls, folder):
    out = Path(folder) / f"{calls}"
    command = [gmflow, "sample", "--checkpoint", checkpoint, "--out", out, "--force"]
    command += ["--num", str(ROWS * COLUMNS), "--steps", str(calls)]
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
    grid = Image.new("L", (COLUMNS * SIZE, ROWS * SIZE))
    for i in range(ROWS * COLUMNS):  # classes in turn
        grid.paste(Image.open(out / f"{i:06}.png").convert("L"), (i % COLUMNS * SIZE, i // COLUMNS * SIZE))
    return ImageOps.invert(grid).resize((grid.width * SCALE, grid.height * SCALE), Image.Resampling.NEAREST)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--gmflow", default="target/release/gmflow")
    parser.add_argument("--out", default="book/src/images/students.png")
    parser.add_argument("rows", nargs="+")
    args = parser.parse_args()
    width, height = COLUMNS * SIZE * SCALE, ROWS * SIZE * SCALE
    picture = Image.new("L", (LEFT + len(CALLS) * (width + GAP), TOP + len(args.rows) * (height + GAP)), 255)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(26)
    for column, calls in enumerate(CALLS):
        label = "1 call" if calls == 1 else f"{calls} calls"
        pen.text((LEFT + column * (width + GAP) + width // 2, TOP // 2), label, 0, font, anchor="mm")
    for row, text in enumerate(args.rows):
        name, rest = text.rsplit("=", 1)
        checkpoint, calls = rest.rsplit(":", 1)
        y = TOP + row * (height + GAP)
        pen.multiline_text((6, y + height // 2), name.replace(", ", "\n"), 0, font, anchor="lm")
        with tempfile.TemporaryDirectory() as folder:
            for count in map(int, calls.split(",")):
                x = LEFT + CALLS.index(count) * (width + GAP)
                picture.paste(draw(args.gmflow, checkpoint, count, folder), (x, y))
    picture.save(args.out, optimize=True)


if __name__ == "__main__":
    main()
