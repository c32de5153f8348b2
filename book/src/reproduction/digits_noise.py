"""Digits at 16 x 16 or 28 x 28 pixels with less contrast and normal noise, so that no value is certain: values 127.5 + 0.8 (v - 127.5) + noise.

    python book/src/reproduction/digits_noise.py DIGITS/t10k-images-idx3-ubyte.gz runs/digits-noise.gz 10 [16 | 28]

DIGITS is a folder with the original IDX files of MNIST.
"""

import gzip
import random
import struct
import sys

source, target, noise = sys.argv[1], sys.argv[2], float(sys.argv[3])
N, M = 28, int(sys.argv[4]) if len(sys.argv) > 4 else 16
data = gzip.open(source).read()
count = struct.unpack(">IIII", data[:16])[1]
# Each of the M output pixels is the mean of the N/M input pixels it covers.
cover = []
for i in range(M):
    lo, hi = i * N / M, (i + 1) * N / M
    cover.append([(j, (min(hi, j + 1) - max(lo, j)) * M / N) for j in range(int(lo), min(N, int(hi - 1e-9) + 1))])
rng = random.Random(0)
out = bytearray()
for n in range(count):
    image = data[16 + n * N * N:16 + (n + 1) * N * N]
    rows = [[sum(image[y * N + j] * w for j, w in c) for c in cover] for y in range(N)]
    for c in cover:
        for x in range(M):
            value = 127.5 + 0.8 * (sum(rows[j][x] * w for j, w in c) - 127.5) + rng.gauss(0, noise)
            out.append(min(255, max(0, round(value))))
with gzip.open(target, "wb", compresslevel=6) as f:
    f.write(struct.pack(">IIII", 2051, count, M, M) + bytes(out))
