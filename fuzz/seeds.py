"""Writes the seeds: small valid inputs of every kind that a target takes. Needs Pillow."""

import gzip
import io
import json
import struct
import tarfile
from pathlib import Path

from PIL import Image

HERE = Path(__file__).parent / "seeds"


def idx(dims, content):
    return bytes([0, 0, 8, len(dims)]) + b"".join(struct.pack(">I", d) for d in dims) + bytes(content)


def pair(images, labels):
    return bytes([labels is not None]) + struct.pack(">H", len(images)) + images + (labels or b"")


def compressed(content):
    return gzip.compress(content, mtime=0)


def jpeg(size, exif=None, **options):
    image = Image.radial_gradient("L").resize(size).convert("RGB")
    stream = io.BytesIO()
    if exif is not None:
        options["exif"] = exif
    image.save(stream, "JPEG", quality=10, **options)
    return stream.getvalue()


def rotated():
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


def tensors(**tensors):
    header, content = {}, b""
    for name, (dtype, shape, values) in tensors.items():
        offsets = [len(content), len(content) + len(values)]
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
        content += values
    header = json.dumps(header).encode()
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + content


def latents(shard, **settings):
    manifest = {"shape": [1, 2, 1], "shard": 2, "scaling_factor": 0.5, "downsampling": 8, "count": 2, "complete": True}
    stored = {"format": "gmflow-latents", "version": 1, "manifest": manifest | settings}
    stored = json.dumps(stored).encode()
    return struct.pack(">H", len(stored)) + stored + shard


def png(value):
    stream = io.BytesIO()
    Image.new("L", (2, 2), value).save(stream, "PNG")
    return stream.getvalue()


def shard(kind, members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=kind) as archive:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    # Two blocks of zeros end an archive; the rest of a record is padding.
    content = stream.getvalue().rstrip(b"\0")
    return content + bytes(-len(content) % 512 + 1024)


halves = ("F16", [2, 1, 2, 1], struct.pack("<4e", 0.5, 1, 2, 3))
floats = ("F32", [2, 1, 2, 1], struct.pack("<4f", 0.5, 1, 2, 3))
indices = ("U32", [2], struct.pack("<2I", 0, 1))
images = idx([3, 2, 2], [0, 51, 102, 255, 1, 2, 3, 4, 5, 6, 7, 8])
labels = idx([3], [2, 0, 1])
seeds = {
    "idx/images": pair(images, None),
    "idx/pair": pair(images, labels),
    "idx/compressed": pair(compressed(images), compressed(labels)),
    "idx/truncated": pair(images[:-3], labels),
    "idx/two_members": pair(compressed(images[:10]) + compressed(images[10:]), None),
    "latents/plain": latents(tensors(mean=halves, std=halves, indices=indices)),
    "latents/classes": latents(
        tensors(mean=floats, std=floats, indices=indices, labels=("U32", [2], struct.pack("<2I", 1, 0))),
        classes=["cat", "dog"],
        precision="f32",
    ),
    "latents/mirrored": latents(
        tensors(mean=halves, std=halves, mirror_mean=halves, mirror_std=halves, indices=indices),
        mirrored=True,
        shift_factor=0.1,
    ),
    "jpeg/baseline": jpeg((8, 8)),
    "jpeg/progressive": jpeg((8, 8), progressive=True),
    "jpeg/restarts": jpeg((32, 16), restart_marker_rows=1),
    "jpeg/rotated": jpeg((8, 8), exif=rotated()),
    "tar/classes": shard(tarfile.USTAR_FORMAT, [("1.cls", b"1"), ("1.png", png(3)), ("2.cls", b"0"), ("2.png", png(9))]),
    "tar/json": shard(tarfile.GNU_FORMAT, [("a/1.json", b'{"label": "cat"}'), ("a/1.png", png(3)), ("a/1.txt", b"x")]),
    "tar/long": shard(tarfile.PAX_FORMAT, [("long/" * 30 + "1.png", png(3)), ("\u00e4.png", png(4))]),
    "tar/gnu_long": shard(tarfile.GNU_FORMAT, [("long/" * 30 + "1.png", png(3))]),
    "jpeg/segments": bytes.fromhex("ffd8 ffe0 0004 0000 fffffe 0003 00 ffda 0003 01 1234 ff00 ffd3 56 ffd9"),
}
for name, content in seeds.items():
    (HERE / name).parent.mkdir(parents=True, exist_ok=True)
    (HERE / name).write_bytes(content)
