"""The rival of the figures in this folder: the same networks in plain eager PyTorch, f32, on the CPU.

    python pytorch_baseline.py [--threads 2] [--rounds 5] [--only NAME]

Prints one line per case, with the shortest and the mean time of all rounds; the cases are those of `cargo bench --bench networks`.
"""

import argparse
import math
import time

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
    """A diffusion transformer with a mixture head."""

    def __init__(self, heads, head_dim, layers, size, patch, channels, classes, k):
        super().__init__()
        c = heads * head_dim
        self.patch, self.k, self.channels = patch, k, channels
        self.embed = nn.Conv2d(channels, c, patch, patch)
        self.register_buffer("positions", torch.randn(1, (size // patch) ** 2, c))
        self.time = nn.Sequential(nn.Linear(256, c), nn.SiLU(), nn.Linear(c, c))
        self.labels = nn.Embedding(classes + 1, c)
        self.blocks = nn.ModuleList(Block(heads, head_dim) for _ in range(layers))
        self.out_modulation = nn.Linear(c, 2 * c)
        self.out = nn.Linear(c, patch * patch * k * (channels + 1))
        self.log_std = nn.Sequential(nn.SiLU(), nn.Linear(c, 1024), nn.SiLU(), nn.Linear(1024, 1))

    def forward(self, x, t, label):
        b, _, h, w = x.shape
        frequencies = torch.exp(-math.log(10000) * torch.arange(128) / 128)
        angles = 1000 * t[:, None] * frequencies
        embedding = self.time(torch.cat([angles.cos(), angles.sin()], -1)) + self.labels(label)
        x = self.embed(x).flatten(2).transpose(1, 2) + self.positions
        activated = F.silu(embedding)
        for block in self.blocks:
            x = block(x, activated)
        shift, scale = self.out_modulation(activated)[:, None].chunk(2, -1)
        x = self.out(F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift)
        p, k, c = self.patch, self.k, self.channels
        x = x.view(b, h // p, w // p, p, p, -1).permute(0, 5, 1, 3, 2, 4).reshape(b, -1, h, w)
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


def timed(rounds, step):
    step()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return min(times), sum(times) / len(times)


def forward_case(net, x, t, label):
    def step():
        with torch.inference_mode():
            net(x, t, label)

    return step


def training_case(net, x, t, label, target):
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-4)

    def step():
        optimizer.zero_grad()
        nll(*net(x, t, label), target).backward()
        optimizer.step()

    return step


def xl_forward(batch):
    torch.manual_seed(0)
    net = GmDit(16, 72, 28, 32, 2, 4, 1000, 8).eval()
    return forward_case(net, torch.randn(batch, 4, 32, 32), torch.rand(batch), torch.arange(batch))


def small_dit_training():
    torch.manual_seed(0)
    net = GmDit(6, 64, 12, 16, 2, 3, 10, 8)
    b = 32
    image = torch.randn(b, 3, 16, 16)
    return training_case(net, image, torch.rand(b), torch.arange(b) % 10, torch.randn(b, 3, 16, 16))


def mlp_training(hidden, batch):
    torch.manual_seed(0)
    points = torch.randn(batch, 2, 1, 1)
    return training_case(Mlp2d(hidden, 5, 64), points, torch.rand(batch), None, torch.randn(batch, 2, 1, 1))


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

    def __init__(self, k, channels=3, widths=(128, 256, 256, 256), attention=(1,), layers=2):
        super().__init__()
        c, e = widths[0], 4 * widths[0]
        self.k, self.channels, self.first = k, channels, c
        self.time = nn.Sequential(nn.Linear(c, e), nn.SiLU(), nn.Linear(e, e))
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

    def forward(self, x, t, _label):
        half = self.first // 2
        angles = 1000 * t[:, None] * torch.exp(-math.log(10000) * torch.arange(half) / (half - 1))
        embedding = self.time(torch.cat([angles.sin(), angles.cos()], -1))
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
        return means, log_weights, self.log_std(embedding.detach())[:, :, None, None, None]


def unet_training():
    torch.manual_seed(0)
    b = 8
    return training_case(Unet(2), torch.randn(b, 3, 32, 32), torch.rand(b), None, torch.randn(b, 3, 32, 32))


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


CASES = {
    "xl_forward/1": (lambda: xl_forward(1), 1),
    "xl_forward/2": (lambda: xl_forward(2), 1),
    "small_dit_training": (small_dit_training, 1),
    "mlp_training/512x256": (lambda: mlp_training(512, 256), 40),
    "mlp_training/256x1024": (lambda: mlp_training(256, 1024), 40),
    "unet_training": (unet_training, 1),
    "conv/128x32x32x32 training": (lambda: conv(32, 128, 32, True), 2),
    "conv/256x8x8x32 training": (lambda: conv(32, 256, 8, True), 2),
    "conv/512x64x64": (lambda: conv(1, 512, 64, False), 2),
    "conv/128x256x256": (lambda: conv(1, 128, 256, False), 2),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.threads} threads")
    for name, (build, factor) in CASES.items():
        if args.only in name:
            fastest, mean = timed(args.rounds * factor, build())
            print(f"{name:28} fastest {fastest * 1e3:10.2f} ms, mean {mean * 1e3:10.2f} ms", flush=True)


if __name__ == "__main__":
    main()
