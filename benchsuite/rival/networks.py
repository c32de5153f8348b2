"""The networks of this project in PyTorch: what `crates/gmflow/benches/networks.rs` and `decode.rs` time.

A case is a function of a mode: "eager", "compile" or "autocast" (eager, weights in f32, products in bf16). It returns one call to
time.
"""

import functools
import math

import torch
import torch.nn.functional as F
from torch import nn


class Block(nn.Module):
    """A transformer block with adaptive layer norms."""

    def __init__(self, heads, head_dim):
        super().__init__()
        c = heads * head_dim
        self.heads = heads
        self.modulation = nn.Linear(c, 6 * c)
        self.to_q, self.to_k, self.to_v, self.to_out = (nn.Linear(c, c) for _ in range(4))
        self.up, self.down = nn.Linear(c, 4 * c), nn.Linear(4 * c, c)

    def forward(self, x, activated):
        b, n, c = x.shape
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = self.modulation(activated)[:, None].chunk(6, -1)
        y = F.layer_norm(x, (c,), eps=1e-6) * (1 + scale_a) + shift_a
        q, k, v = (f(y).view(b, n, self.heads, -1).transpose(1, 2) for f in (self.to_q, self.to_k, self.to_v))
        y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
        x = x + gate_a * self.to_out(y)
        y = F.layer_norm(x, (c,), eps=1e-5) * (1 + scale_f) + shift_f
        return x + gate_f * self.down(F.gelu(self.up(y), approximate="tanh"))


class GmDit(nn.Module):
    """A diffusion transformer with a mixture head; that of a student has a layer for the means and one for the weights."""

    def __init__(self, heads, head_dim, layers, size, patch, channels, classes, k, two_parts=False):
        super().__init__()
        c = heads * head_dim
        self.patch, self.k, self.channels = patch, k, channels
        self.embed = nn.Conv2d(channels, c, patch, patch)
        self.register_buffer("positions", torch.randn(1, (size // patch) ** 2, c))
        self.time = nn.Sequential(nn.Linear(256, c), nn.SiLU(), nn.Linear(c, c))
        self.labels = nn.Embedding(classes + 1, c)
        self.blocks = nn.ModuleList(Block(heads, head_dim) for _ in range(layers))
        self.out_modulation = nn.Linear(c, 2 * c)
        outputs = {"out_means": k * channels, "out_weights": k} if two_parts else {"out": k * (channels + 1)}
        self.outputs = list(outputs)
        for name, values in outputs.items():
            setattr(self, name, nn.Linear(c, patch * patch * values))
        self.log_std = nn.Sequential(nn.SiLU(), nn.Linear(c, 1024), nn.SiLU(), nn.Linear(1024, 1))

    def forward(self, x, t, label):
        b, _, h, w = x.shape
        frequencies = torch.exp(-math.log(10000) * torch.arange(128) / 128)
        angles = 1000 * t[:, None] * frequencies
        features = torch.cat([angles.cos(), angles.sin()], -1).to(x.dtype)
        embedding = self.time(features) + self.labels(label)
        x = self.embed(x).flatten(2).transpose(1, 2) + self.positions
        activated = F.silu(embedding)
        for block in self.blocks:
            x = block(x, activated)
        shift, scale = self.out_modulation(activated)[:, None].chunk(2, -1)
        x = F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift
        p, k, c = self.patch, self.k, self.channels
        values = [getattr(self, name)(x).view(b, h // p, w // p, p, p, -1) for name in self.outputs]
        x = torch.cat(values, -1).permute(0, 5, 1, 3, 2, 4).reshape(b, -1, h, w)
        means = x[:, : k * c].view(b, k, c, h, w)
        return means, x[:, k * c :].log_softmax(1)[:, :, None], self.log_std(embedding.detach())[:, :, None, None, None]


class Mlp2d(nn.Module):
    """A perceptron on points in the plane."""

    def __init__(self, hidden, layers, k, embed=256):
        super().__init__()
        self.k, self.embed = k, embed
        widths = [2 * embed] + [hidden] * layers
        self.net = nn.Sequential(*(m for i, o in zip(widths, widths[1:]) for m in (nn.Linear(i, o), nn.SiLU())))
        self.means, self.weights, self.log_std = nn.Linear(hidden, 2 * k), nn.Linear(hidden, k), nn.Linear(hidden, 1)
        half, quarter = embed // 2, embed // 4
        self.register_buffer("time_f", torch.exp(-math.log(10000) * torch.arange(half) / (half - 1)))
        self.register_buffer("point_f", 2 * math.pi / torch.logspace(math.log10(0.005), math.log10(50), quarter))

    def forward(self, x, t, _label):
        b = x.shape[0]
        time_angles = 1000 * t[:, None] * self.time_f
        angles = x.view(b, 2, 1) * self.point_f
        points = torch.cat([angles.sin(), angles.cos()], -1).flatten(1)
        h = self.net(torch.cat([time_angles.cos(), time_angles.sin(), points], -1))
        return (
            self.means(h).view(b, self.k, 2, 1, 1),
            self.weights(h).log_softmax(1).view(b, self.k, 1, 1, 1),
            self.log_std(h).view(b, 1, 1, 1, 1),
        )


def nll(means, log_weights, log_std, target):
    """Mean negative log-likelihood of the target under one mixture per pixel."""
    c = means.shape[2]
    square = (target[:, None] - means).mul(torch.exp(-log_std)).square().sum(2, keepdim=True)
    return -torch.logsumexp(log_weights - 0.5 * square - c * log_std, 1).mean()


def compiled(function):
    """Compiles for one shape, with weights laid out for the products where there are no gradients."""
    return torch.compile(function, dynamic=False, options={"freezing": True} if not torch.is_grad_enabled() else None)


def context(mode):
    return torch.autocast(torch.get_default_device().type, torch.bfloat16, enabled=mode == "autocast")


def forward_case(net, inputs, mode):
    """One call without gradients."""
    with torch.no_grad():
        forward = compiled(net) if mode == "compile" else net

    def step():
        # torch.compile lays out weights anew only under no_grad; inference_mode spares eager some bookkeeping.
        with torch.no_grad() if mode == "compile" else torch.inference_mode(), context(mode):
            return forward(*inputs)

    return step


def training_case(net, inputs, target, mode, bf16=False):
    """Forward, likelihood, backward, AdamW."""
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4, fused=True)
    device = torch.get_default_device().type

    def loss(*inputs):
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            mixture = net(*inputs)
        return nll(*(part.float() for part in mixture), target)

    loss = compiled(loss) if mode == "compile" else loss

    def step():
        optimizer.zero_grad()
        loss(*inputs).backward()
        optimizer.step()

    return step


@functools.lru_cache(1)
def xl(bf16):
    torch.manual_seed(0)
    net = GmDit(16, 72, 28, 32, 2, 4, 1000, 8).eval().requires_grad_(False)
    return net.to(torch.bfloat16) if bf16 else net


def xl_forward(precision, batch, mode):
    net = xl(precision == "bf16" and mode != "autocast")
    dtype = next(net.parameters()).dtype
    return forward_case(net, (torch.randn(batch, 4, 32, 32, dtype=dtype), torch.rand(batch), torch.arange(batch)), mode)


def small_dit_training(precision, mode):
    torch.manual_seed(0)
    net = GmDit(6, 64, 12, 16, 2, 3, 10, 8)
    b = 32
    inputs = torch.randn(b, 3, 16, 16), torch.rand(b), torch.arange(b) % 10
    return training_case(net, inputs, torch.randn(b, 3, 16, 16), mode, precision == "bf16")


def mlp_training(hidden, batch, mode, bf16=False):
    torch.manual_seed(0)
    inputs = torch.randn(batch, 2, 1, 1), torch.rand(batch), None
    return training_case(Mlp2d(hidden, 5, 64), inputs, torch.randn(batch, 2, 1, 1), mode, bf16)


class Resnet(nn.Module):
    """A residual block of a U-Net."""

    def __init__(self, c, o, e):
        super().__init__()
        self.norm1, self.conv1 = nn.GroupNorm(32, c, 1e-6), nn.Conv2d(c, o, 3, padding=1)
        self.embed = nn.Linear(e, o)
        self.norm2, self.conv2 = nn.GroupNorm(32, o, 1e-6), nn.Conv2d(o, o, 3, padding=1)
        self.shortcut = nn.Conv2d(c, o, 1) if c != o else nn.Identity()

    def forward(self, x, activated):
        y = self.conv1(F.silu(self.norm1(x))) + self.embed(activated)[:, :, None, None]
        return self.shortcut(x) + self.conv2(F.silu(self.norm2(y)))


class Attend(nn.Module):
    """Attention of one head among pixels."""

    def __init__(self, c):
        super().__init__()
        self.norm = nn.GroupNorm(32, c, 1e-6)
        self.q, self.k, self.v, self.out = (nn.Linear(c, c) for _ in range(4))

    def forward(self, x):
        y = self.norm(x).flatten(2).transpose(1, 2)
        y = self.out(F.scaled_dot_product_attention(self.q(y), self.k(y), self.v(y)))
        return x + y.transpose(1, 2).reshape(x.shape)


class Unet(nn.Module):
    """The U-Net of Ho et al. (2020) for CIFAR-10 with a mixture head."""

    def __init__(self, k, channels=3, widths=(128, 256, 256, 256), attention=(1,), layers=2, classes=0, constant_std=False):
        super().__init__()
        c, e = widths[0], 4 * widths[0]
        self.k, self.channels, self.first = k, channels, c
        self.time = nn.Sequential(nn.Linear(c, e), nn.SiLU(), nn.Linear(e, e))
        self.labels = nn.Embedding(classes + 1, e) if classes else None
        self.constant_std = constant_std
        self.conv_in = nn.Conv2d(channels, c, 3, padding=1)
        skips, self.down, self.up = [c], nn.ModuleList(), nn.ModuleList()
        for i, o in enumerate(widths):
            for _ in range(layers):
                self.down.append(nn.ModuleList([Resnet(c, o, e), Attend(o) if i in attention else nn.Identity()]))
                c = o
                skips.append(c)
            if i + 1 < len(widths):
                self.down.append(nn.ModuleList([nn.Conv2d(c, c, 3, 2)]))
                skips.append(c)
        self.mid = nn.ModuleList([Resnet(c, c, e), Attend(c), Resnet(c, c, e)])
        for i, o in reversed(list(enumerate(widths))):
            for _ in range(layers + 1):
                block = [Resnet(c + skips.pop(), o, e), Attend(o) if i in attention else nn.Identity()]
                self.up.append(nn.ModuleList(block))
                c = o
            if i:
                self.up.append(nn.ModuleList([nn.Conv2d(c, c, 3, padding=1)]))
        self.norm_out, self.conv_out = nn.GroupNorm(32, c, 1e-6), nn.Conv2d(c, k * (channels + 1), 3, padding=1)
        self.log_std = nn.Sequential(nn.SiLU(), nn.Linear(e, 512), nn.SiLU(), nn.Linear(512, 1))

    def forward(self, x, t, label):
        half = self.first // 2
        angles = 1000 * t[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / (half - 1))
        embedding = self.time(torch.cat([angles.sin(), angles.cos()], -1))
        if self.labels is not None:
            embedding = embedding + self.labels(label)
        activated = F.silu(embedding)
        x = self.conv_in(x)
        skips = [x]
        for block in self.down:
            x = block[1](block[0](x, activated)) if len(block) == 2 else block[0](F.pad(x, (0, 1, 0, 1)))
            skips.append(x)
        x = self.mid[2](self.mid[1](self.mid[0](x, activated)), activated)
        for block in self.up:
            if len(block) == 2:
                x = block[1](block[0](torch.cat([x, skips.pop()], 1), activated))
            else:
                x = block[0](F.interpolate(x, scale_factor=2.0))
        x = self.conv_out(F.silu(self.norm_out(x)))
        means = x[:, : self.k * self.channels].unflatten(1, (self.k, self.channels))
        log_weights = x[:, self.k * self.channels :].log_softmax(1)[:, :, None]
        if self.constant_std:
            return means, log_weights, torch.zeros(len(x), 1, 1, 1, 1)
        return means, log_weights, self.log_std(embedding.detach())[:, :, None, None, None]


def unet_training(mode):
    torch.manual_seed(0)
    b = 8
    inputs = torch.randn(b, 3, 32, 32), torch.rand(b), None
    return training_case(Unet(2), inputs, torch.randn(b, 3, 32, 32), mode)


def small_unet_training(mode, bf16):
    """Class-conditional, batch 64, all tensors of images with their channels last."""
    torch.manual_seed(0)
    b = 64
    net = Unet(1, widths=(64, 128, 128), attention=(2,), classes=10, constant_std=True)
    net = net.to(memory_format=torch.channels_last)
    inputs = torch.randn(b, 3, 32, 32).to(memory_format=torch.channels_last), torch.rand(b), torch.arange(b) % 10
    return training_case(net, inputs, torch.randn(b, 3, 32, 32), mode, bf16)


def autoencoder():
    """The layout of Stable Diffusion's autoencoder."""
    from diffusers import AutoencoderKL

    widths = (128, 256, 512, 512)
    down, up = ("DownEncoderBlock2D",) * 4, ("UpDecoderBlock2D",) * 4
    return AutoencoderKL(3, 3, down, up, widths, layers_per_block=2, latent_channels=4, sample_size=256)


class Decode(nn.Module):
    """The half of the autoencoder that decodes."""

    def __init__(self):
        super().__init__()
        vae = autoencoder()
        self.post_quant_conv, self.decoder = vae.post_quant_conv, vae.decoder

    def forward(self, latents):
        return self.decoder(self.post_quant_conv(latents))


def decode(mode):
    torch.manual_seed(0)
    net = Decode().eval().requires_grad_(False)
    return forward_case(net, (torch.randn(1, 4, 32, 32),), mode)


def conv(batch, channels, size, train):
    torch.manual_seed(0)
    x = torch.randn(batch, channels, size, size, requires_grad=train)
    weight = torch.randn(channels, channels, 3, 3, requires_grad=train)
    bias, grad = torch.zeros(channels), torch.randn(batch, channels, size, size)

    def step():
        with torch.set_grad_enabled(train):
            y = F.conv2d(x, weight, bias, padding=1)
            if train:
                torch.autograd.grad((y * grad).sum(), [x, weight])

    return step


def cases():
    mlps = ((512, 256), (512, 4096), (256, 1024))
    found = {f"mlp_training/{hidden}x{b}": functools.partial(mlp_training, hidden, b) for hidden, b in mlps}
    found["mlp_training/512x4096-bf16"] = functools.partial(mlp_training, 512, 4096, bf16=True)
    for precision in ("f32", "bf16"):
        found |= {f"xl_forward/{precision}/{b}": functools.partial(xl_forward, precision, b) for b in (1, 2, 8, 32, 125)}
        found[f"small_dit_training/{precision}"] = functools.partial(small_dit_training, precision)
    found |= {
        "unet_training/8": unet_training,
        "small_unet_training/f32": functools.partial(small_unet_training, bf16=False),
        "small_unet_training/bf16": functools.partial(small_unet_training, bf16=True),
        "decode/32x32x4": decode,
        "conv/128x32x32x32 training": lambda _mode: conv(32, 128, 32, True),
        "conv/256x8x8x32 training": lambda _mode: conv(32, 256, 8, True),
        "conv/512x64x64": lambda _mode: conv(1, 512, 64, False),
        "conv/128x256x256": lambda _mode: conv(1, 128, 256, False),
    }
    return found
