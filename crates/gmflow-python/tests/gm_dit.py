"""The network of models/mnist in PyTorch, from the weights in its folder."""

import math

import torch
import torch.nn.functional as F

from conftest import tensors


class GmDit:
    """GM-DiT: (x [b c h w], t [b] in (0, 1], labels [b]) to means, logweights and logstds."""

    def __init__(self, folder, info):
        self.weights = {name: torch.from_numpy(x) for name, x in tensors(folder / "model.safetensors").items()}
        self.info = info
        self.frequencies = torch.exp(-math.log(10000) * torch.arange(128, dtype=torch.float64) / 128).float()

    def linear(self, name, x):
        return F.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def positions(self, n, channels):
        """[n*n, channels]: first the column's features, then the row's, sines before cosines."""
        half = channels // 4
        angles = torch.outer(torch.arange(n, dtype=torch.float64), 10000.0 ** (-torch.arange(half, dtype=torch.float64) / half))
        features = torch.cat([angles.sin(), angles.cos()], 1)
        columns = features[None, :].expand(n, n, -1)
        rows = features[:, None].expand(n, n, -1)
        return torch.cat([columns, rows], 2).reshape(n * n, channels).float()

    def block(self, i, x, activated, heads):
        name = f"transformer_blocks.{i}"
        b, n, c = x.shape
        parts = self.linear(f"{name}.norm1.linear", activated)[:, None].chunk(6, -1)
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = parts
        y = F.layer_norm(x, (c,), eps=1e-6) * (1 + scale_a) + shift_a
        q, k, v = (self.linear(f"{name}.attn1.to_{p}", y).view(b, n, heads, -1).transpose(1, 2) for p in "qkv")
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
        x = x + gate_a * self.linear(f"{name}.attn1.to_out.0", y)
        y = F.layer_norm(x, (c,), eps=1e-5) * (1 + scale_f) + shift_f
        y = F.gelu(self.linear(f"{name}.ff.net.0.proj", y), approximate="tanh")
        return x + gate_f * self.linear(f"{name}.ff.net.2", y)

    def __call__(self, x, t, labels):
        info = self.info
        k, c, p = info["num_gaussians"], info["in_channels"], info["patch_size"]
        b, _, h, w = x.shape
        angles = (1000 * t)[:, None] * self.frequencies
        embedding = self.linear("emb.timestep_embedder.linear_1", torch.cat([angles.cos(), angles.sin()], 1))
        embedding = self.linear("emb.timestep_embedder.linear_2", F.silu(embedding))
        embedding = embedding + self.weights["emb.class_embedder.embedding_table.weight"][labels]
        x = F.conv2d(x, self.weights["pos_embed.proj.weight"], self.weights["pos_embed.proj.bias"], stride=p)
        x = x.flatten(2).transpose(1, 2)
        x = x + self.positions(h // p, x.shape[2])
        activated = F.silu(embedding)
        for i in range(info["num_layers"]):
            x = self.block(i, x, activated, info["num_attention_heads"])
        shift, scale = self.linear("proj_out_1", activated)[:, None].chunk(2, -1)
        x = self.linear("proj_out_2", F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift)
        x = x.view(b, h // p, w // p, p, p, -1).permute(0, 5, 1, 3, 2, 4).reshape(b, -1, h, w)
        logstd = F.silu(self.linear("gm_out.logstd_layers.1", F.silu(embedding)))
        return {
            "means": x[:, : k * c].reshape(b, k, c, h, w),
            "logweights": x[:, k * c :].log_softmax(1)[:, :, None],
            "logstds": self.linear("gm_out.logstd_layers.3", logstd).reshape(b, 1, 1, 1, 1),
        }
