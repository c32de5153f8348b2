"""Writes the PyTorch files that `tests/pytorch.rs` reads, beside itself.

    python make.py

Needs torch; recorded with 2.15.
"""

import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import torch

HERE = Path(__file__).parent


def state_dict():
    """Every number format, a view that is not contiguous, and two tensors of one storage."""
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    return {
        "diffusion_ema.denoising.a.weight": base,
        "diffusion_ema.denoising.a.transposed": base.t(),
        "diffusion_ema.denoising.a.part": base[1:, 1:3],
        "diffusion_ema.denoising.half": torch.tensor([0.5, -2.0, 65504.0], dtype=torch.float16),
        "diffusion_ema.denoising.brain": torch.tensor([[1.0, -3.0], [0.0, 2.0**100]], dtype=torch.bfloat16),
        "diffusion_ema.denoising.double": torch.tensor(0.25, dtype=torch.float64),
        "diffusion_ema.denoising.empty": torch.zeros(0, 3),
        "diffusion.denoising.a.weight": base + 100,
        "diffusion.steps": torch.tensor([7], dtype=torch.int64),
    }


class Command:
    """What unpickling would run."""

    def __reduce__(self):
        return os.system, ("touch run-by-the-pickle",)


def bytes_of(value, **options):
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def rezipped(data, change, compression=zipfile.ZIP_STORED):
    """The same archive with `change(name, bytes)` applied to its entries."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w", compression) as new:
        for entry in old.infolist():
            new.writestr(entry.filename, change(entry.filename, old.read(entry)))
    return out.getvalue()


def main():
    checkpoint = {
        "meta": {"epoch": 3, "seed": None},
        "state_dict": state_dict(),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}},
    }
    nested = bytes_of(checkpoint)
    files = {
        "nested.pt": nested,
        "legacy.pt": bytes_of(checkpoint, _use_new_zipfile_serialization=False),
        "flat.pt": bytes_of({"w": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0])}),
        "not_finite.pt": bytes_of({"fine": torch.ones(2), "broken": torch.tensor([1.0, float("nan")])}),
        "large.pt": bytes_of({"w": torch.tensor([1e6])}),
        # A call beside the weights, and nothing but a call.
        "command_beside.pt": bytes_of({"w": torch.ones(2), "meta": Command()}),
        "command.pt": bytes_of(Command()),
        "command.pkl": pickle.dumps(Command(), protocol=2),
        # Four bytes that claim to be eight billion numbers.
        "expanded.pt": bytes_of({"w": torch.ones(1).expand(1 << 31)}),
        "compressed.pt": rezipped(nested, lambda _, data: data, zipfile.ZIP_DEFLATED),
        "short_storage.pt": rezipped(
            bytes_of({"w": torch.ones(64)}), lambda name, data: data[:100] if name.endswith("data/0") else data
        ),
        # A shape whose product does not fit into 64 bits.
        "overflow.pt": rezipped(
            bytes_of({"w": torch.ones(3, 5)}),
            lambda name, data: data.replace(b"K\x03K\x05\x86", b"\x8a\x08" + struct.pack("<q", 1 << 62) + b"K\x05\x86")
            if name.endswith("data.pkl")
            else data,
        ),
    }
    for name, data in files.items():
        (HERE / name).write_bytes(data)
        print(name, len(data))


main()
