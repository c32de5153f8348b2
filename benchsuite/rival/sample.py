"""A guided 6-step GM-ODE 2 sample of a GM-DiT-XL/2 in the published layout, decoded to a PNG, in PyTorch and diffusers.

    python sample.py CHECKPOINT OUT.png [--precision bf16|f32] [--steps 6] [--guidance 0.45] [--threads 2] [--student]

What `gmflow sample --class 207 --num 1 --steps 6 --guidance 0.45` does with the same folder; with --student, what it does with a
student of one network call and without steps and guidance. The network is eager: to compile it takes longer than the whole sample.
"""

import argparse
import json
import pathlib

import numpy as np
import torch
from diffusers import AutoencoderKL
from PIL import Image
from safetensors.torch import load_file

import mixture
import networks

SUBSTEPS = 8
# Of the path along a student's policy.
POLICY_SUBSTEPS = 128
NAMES = {
    "embed": "pos_embed.proj",
    "time.0": "emb.timestep_embedder.linear_1",
    "time.2": "emb.timestep_embedder.linear_2",
    "labels": "emb.class_embedder.embedding_table",
    "out_modulation": "proj_out_1",
    "out": "proj_out_2",
    "out_means": "proj_out_means",
    "out_weights": "proj_out_logweights",
    "log_std.1": "gm_out.logstd_layers.1",
    "log_std.3": "gm_out.logstd_layers.3",
}
BLOCK_NAMES = {
    "modulation": "norm1.linear",
    "to_q": "attn1.to_q",
    "to_k": "attn1.to_k",
    "to_v": "attn1.to_v",
    "to_out": "attn1.to_out.0",
    "up": "ff.net.0.proj",
    "down": "ff.net.2",
}


def published_name(name, two_parts=False):
    """The name in the checkpoint of a parameter of `networks.GmDit`."""
    if two_parts and name.startswith("log_std."):
        return name.replace("log_std", "proj_out_logstds")
    module, leaf = name.rsplit(".", 1)
    if module.startswith("blocks."):
        _, index, part = module.split(".")
        return f"transformer_blocks.{index}.{BLOCK_NAMES[part]}.{leaf}"
    return f"{NAMES[module]}.{leaf}"


def positions(side, channels):
    """The table of sines and cosines of the tokens' columns and rows, [1 side*side channels]."""
    half = channels // 4
    angles = torch.arange(side).double()[:, None] * 10000.0 ** (-torch.arange(half).double() / half)
    axis = torch.cat([angles.sin(), angles.cos()], 1)
    table = torch.cat([axis[None].expand(side, -1, -1), axis[:, None].expand(-1, side, -1)], 2)
    return table.reshape(1, side * side, channels).float()


def load_network(folder, dtype):
    """The transformer, its weights taken from the file without drawing any first."""
    config = json.loads((folder / "config.json").read_text())
    heads, dim, layers = (config[key] for key in ("num_attention_heads", "attention_head_dim", "num_layers"))
    size, patch, channels = (config[key] for key in ("sample_size", "patch_size", "in_channels"))
    with torch.device("meta"):
        shape = heads, dim, layers, size, patch, channels
        two_parts = config["_class_name"].endswith("V2")
        net = networks.GmDit(*shape, config["num_embeds_ada_norm"], config["num_gaussians"], two_parts)
    weights = load_file(folder / "diffusion_pytorch_model.safetensors")
    state = {name: weights[published_name(name, two_parts)] for name, _ in net.named_parameters()}
    state["positions"] = positions(size // patch, heads * dim)
    net.load_state_dict(state, assign=True)
    return net.to(dtype).eval(), config["num_embeds_ada_norm"]


def sample(net, null_class, steps, scale, dtype):
    """Latents [1 4 32 32]."""
    x = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    label, previous, h = torch.tensor([207, null_class]), None, 1 / steps
    for i in range(steps):
        t = torch.tensor(1 - i * h)
        prediction = net(torch.cat([x, x]).to(dtype), t.expand(2), label)
        prediction = [part.float() for part in prediction]
        x, previous = mixture.ode_step(*prediction, x, t, h, previous, h, SUBSTEPS, scale)
    return x


def student_sample(net, dtype):
    """Latents [1 4 32 32] of one network call, along its policy from time 1 to 0."""
    x_source = torch.randn(1, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    prediction = net(x_source.to(dtype), torch.ones(1), torch.tensor([207]))
    means, log_weights, log_std = (part.float() for part in prediction)
    means, var = x_source[:, None] - means, (2 * log_std).exp()
    x, h, one = x_source, 1 / POLICY_SUBSTEPS, torch.tensor(1.0)
    for i in range(POLICY_SUBSTEPS):
        t = torch.tensor(1 - i * h)
        x0 = mixture.moved_mean(means, log_weights, var, x_source, x, one, t)
        x = x + (x0 - x) * (h / t)
    return x


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("checkpoint", type=pathlib.Path)
    parser.add_argument("out")
    parser.add_argument("--precision", choices=["bf16", "f32"], default="bf16")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--guidance", type=float, default=0.45)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--student", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    with torch.inference_mode():
        net, null_class = load_network(args.checkpoint / "transformer", dtype)
        if args.student:
            x = student_sample(net, dtype)
        else:
            x = sample(net, null_class, args.steps, args.guidance, dtype)
        del net
        vae = AutoencoderKL.from_pretrained(args.checkpoint / "vae", torch_dtype=dtype)
        image = vae.decode((x / vae.config.scaling_factor).to(dtype)).sample[0].float()
    pixels = ((image.clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0).numpy().astype(np.uint8)
    Image.fromarray(pixels).save(args.out)


if __name__ == "__main__":
    main()
