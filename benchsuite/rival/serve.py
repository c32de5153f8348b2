"""The digits' model behind FastAPI and PyTorch: one image for a request, as `gmflow serve models/mnist` answers it.

    python serve.py MODEL PORT [--threads 2]

The network and the solver are those of `gmflow` without guidance: GM-ODE of order 1 in as many steps as the request asks for, 8 sub-steps
each. Requests are computed one after the other, on all threads.
"""

import argparse
import io
import json
import pathlib
import threading

import mixture
import networks
import torch
import uvicorn
from fastapi import FastAPI, Response
from PIL import Image
from pydantic import BaseModel
from safetensors.torch import load_file
from sample import positions, published_name

SUBSTEPS = 8


class Request(BaseModel):
    steps: int = 4
    seed: int = 0
    label: int = 7


def load(folder):
    config = json.loads((folder / "model.json").read_text())["network"]
    heads, dim, layers = (config[key] for key in ("num_attention_heads", "attention_head_dim", "num_layers"))
    size, patch, channels = (config[key] for key in ("sample_size", "patch_size", "in_channels"))
    net = networks.GmDit(heads, dim, layers, size, patch, channels, config["num_embeds_ada_norm"], config["num_gaussians"])
    inner = config["logstd_inner_dim"]
    net.log_std[1] = torch.nn.Linear(heads * dim, inner)
    net.log_std[3] = torch.nn.Linear(inner, 1)
    weights = {name: value.float() for name, value in load_file(folder / "model.safetensors").items()}
    state = {name: weights[published_name(name)] for name, _ in net.named_parameters()}
    state["positions"] = positions(size // patch, heads * dim)
    net.load_state_dict(state)
    return net.eval(), (channels, size, size)


def draw(net, shape, steps, seed, label):
    """GM-ODE of order 1 from noise of the seed; an image `[1 c h w]`."""
    x = torch.randn(1, *shape, generator=torch.Generator().manual_seed(seed))
    label, h = torch.tensor([label]), 1 / steps
    for i in range(steps):
        t = 1 - i * h
        means, log_weights, log_std = net(x, torch.tensor([t]), label)
        means, var = x[:, None] - t * means, (log_std * 2).exp() * t * t
        start, step = x, h / SUBSTEPS
        for j in range(SUBSTEPS):
            tau = t - j * step
            to = t - (j + 1) * step if j + 1 < SUBSTEPS else t - h
            if j == 0:
                x0 = mixture.mixture_mean(means, log_weights)
            else:
                x0 = mixture.moved_mean(means, log_weights, var, start, x, t, tau)
            x = x * (to / tau) + x0 * (1 - to / tau)
    return x


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("port", type=int)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    net, shape = load(args.model)
    app, lock = FastAPI(), threading.Lock()

    @app.post("/v1/samples")
    def samples(request: Request):
        with lock, torch.inference_mode():
            x = draw(net, shape, request.steps, request.seed, request.label)
        pixels = ((x[0, 0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).numpy()
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        return Response(file.getvalue(), media_type="image/png")

    uvicorn.run(app, host="127.0.0.1", port=args.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
