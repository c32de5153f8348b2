"""Writes the PyTorch files that `tests/pytorch.rs` reads, beside itself.

    python make.py

Needs torch; recorded with 2.15.
"""

import io
import json
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


TRANSFORMER = {
    "pos_embed.proj.weight": [4, 1, 2, 2],
    "pos_embed.proj.bias": [4],
    "emb.timestep_embedder.linear_1.weight": [4, 256],
    "emb.timestep_embedder.linear_1.bias": [4],
    "emb.timestep_embedder.linear_2.weight": [4, 4],
    "emb.timestep_embedder.linear_2.bias": [4],
    "emb.class_embedder.embedding_table.weight": [3, 4],
    "transformer_blocks.0.norm1.linear.weight": [24, 4],
    "transformer_blocks.0.norm1.linear.bias": [24],
    "transformer_blocks.0.attn1.to_q.weight": [4, 4],
    "transformer_blocks.0.attn1.to_q.bias": [4],
    "transformer_blocks.0.attn1.to_k.weight": [4, 4],
    "transformer_blocks.0.attn1.to_k.bias": [4],
    "transformer_blocks.0.attn1.to_v.weight": [4, 4],
    "transformer_blocks.0.attn1.to_v.bias": [4],
    "transformer_blocks.0.attn1.to_out.0.weight": [4, 4],
    "transformer_blocks.0.attn1.to_out.0.bias": [4],
    "transformer_blocks.0.ff.net.0.proj.weight": [16, 4],
    "transformer_blocks.0.ff.net.0.proj.bias": [16],
    "transformer_blocks.0.ff.net.2.weight": [4, 16],
    "transformer_blocks.0.ff.net.2.bias": [4],
    "proj_out_1.weight": [8, 4],
    "proj_out_1.bias": [8],
    "proj_out_2.weight": [16, 4],
    "proj_out_2.bias": [16],
    "gm_out.logstd_layers.1.weight": [4, 4],
    "gm_out.logstd_layers.1.bias": [4],
    "gm_out.logstd_layers.3.weight": [1, 4],
    "gm_out.logstd_layers.3.bias": [1],
}
CONFIG = {
    "_class_name": "GMDiTTransformer2DModel",
    "num_gaussians": 2,
    "num_attention_heads": 1,
    "attention_head_dim": 4,
    "num_layers": 1,
    "sample_size": 4,
    "patch_size": 2,
    "in_channels": 1,
    "num_embeds_ada_norm": 2,
    "logstd_inner_dim": 4,
    "gm_num_logstd_layers": 2,
}


def transformer():
    """Weights of a tiny GM-DiT with an average beside them, as a training script saves them."""
    torch.manual_seed(7)
    return {
        f"diffusion_ema.denoising.{name}": torch.randn(shape).to(torch.bfloat16) for name, shape in TRANSFORMER.items()
    } | {"diffusion.step": torch.tensor(7)}


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
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(out, "w") as new:
        for entry in old.infolist():
            # Without today's date in it.
            new.writestr(zipfile.ZipInfo(entry.filename), change(entry.filename, old.read(entry)), compression)
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
        "transformer.pt": bytes_of({"state_dict": transformer()}),
        "transformer.json": (json.dumps(CONFIG, indent=2) + "\n").encode(),
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
