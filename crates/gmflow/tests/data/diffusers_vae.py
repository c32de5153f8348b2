"""Loads an autoencoder with the diffusers package and writes what it decodes beside it: see tests/diffusers.rs."""

import sys

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file

folder = sys.argv[1]
model, info = AutoencoderKL.from_pretrained(folder, output_loading_info=True, low_cpu_mem_usage=False)
unmatched = [name for kind in ("missing_keys", "unexpected_keys", "mismatched_keys") for name in info[kind]]
assert not unmatched, unmatched
latents = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
with torch.no_grad():
    image = model.eval().decode(latents).sample
save_file({"latents": latents, "image": image.contiguous()}, f"{folder}/decoded.safetensors")
