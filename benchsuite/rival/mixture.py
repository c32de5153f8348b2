"""The mixture arithmetic around the network in PyTorch: what `crates/gmflow/benches/mixture.rs` times.

Written for speed: everything is a few tensor operations on whole batches, without temporaries that a formula does not need.
Functions take and return plain tensors, so that torch.compile sees one graph a step.
"""

import math

import torch

STEPS, K, SHAPE, SCALE = 8, 8, (4, 32, 32), 0.3
CA, CB = 0.005, 1.0


def prediction(b, k, c, h, w):
    """What a network may predict: means [b k c h w], log weights [b k 1 h w], log standard deviation [b 1 1 1 1]."""
    means, weights = torch.randn(b, k, c, h, w), torch.randn(b, k, 1, h, w).log_softmax(1)
    return means, weights, torch.full((b, 1, 1, 1, 1), -1.5)


def tilted(means, log_weights, var, nu, zeta):
    """The mixture times exp(nu x - zeta |x|^2 / 2): means, log weights and variance."""
    scale = 1 / (1 + var * zeta)
    gain = (means * (nu - 0.5 * zeta * means)).sum(2, keepdim=True) * scale
    return (means + var * nu) * scale, (log_weights + gain).log_softmax(1), var * scale


def mixture_mean(means, log_weights):
    return (means * log_weights.exp()).sum(1)


def evidence(t, tau):
    """The numbers of what x_tau tells beyond x_t."""
    alpha, alpha_tau = 1 - t, 1 - tau
    return alpha_tau / tau**2, alpha / t**2, (alpha_tau / tau) ** 2 - (alpha / t) ** 2


def moved_mean(means, log_weights, var, x_t, x, t, tau):
    here, there, zeta = evidence(t, tau)
    nu = (x * here - x_t * there)[:, None]
    return mixture_mean(*tilted(means, log_weights, var, nu, zeta)[:2])


def power(x):
    return x.square().mean((1, 2, 3), keepdim=True)


def shifted(means, log_weights, var, mean, total_var, shift):
    """The mixture reweighted so that its mean moves by `shift`."""
    share = (power(shift) / total_var).clamp(max=1 - 1e-6)
    rest = (1 - share) * total_var
    centred, weights, var = tilted(
        means - mean[:, None], log_weights, var, (shift / rest)[:, None], (share / rest)[:, None]
    )
    return centred + mean[:, None], weights, var


def guided_step(means, log_weights, log_std, x, t, h, previous, h_previous, scale=SCALE):
    """The mixture of a guided second-order step, and what the next step needs."""
    b = x.shape[0]
    means = torch.cat([x, x])[:, None] - t * means
    var = (log_std[:b] * 2).exp() * t * t
    weights = log_weights.exp()
    mean, mean_u = (means * weights).sum(1).chunk(2)
    means, log_weights = means[:b], log_weights[:b]
    spread = ((means - mean[:, None]).square().mean(2, keepdim=True) * weights[:b]).sum(1)
    total_var = (spread + var[:, 0]).mean((2, 3), keepdim=True)
    difference = mean - mean_u
    along = (difference * mean).mean((1, 2, 3), keepdim=True) / power(mean)
    direction = difference - along * mean
    shift = direction * (total_var.sqrt() * scale / power(direction).clamp(min=1e-30).sqrt())
    first = shifted(means, log_weights, var, mean, total_var, shift)
    mixture = first
    if previous is not None:
        first_mean = mixture_mean(*first[:2])
        moved = moved_mean(*previous[:3], previous[3], x, t + h_previous, t)
        noise = total_var * CA + power(shift) * CB**2
        keep = (1 - noise / h_previous**2).clamp(min=0).sqrt()
        shift = shift + (first_mean - moved) * (keep * (0.5 * h / h_previous))
        mixture = shifted(means, log_weights, var, mean, total_var, shift)
    share = (power(shift) / total_var).clamp(max=1 - 1e-6)
    surrogate = mean + shift, total_var * (1 - share)
    return mixture, (*first, x), surrogate


def ode_step(means, log_weights, log_std, x, t, h, previous, h_previous, substeps, scale=SCALE):
    prediction = means, log_weights, log_std
    (means, log_weights, var), previous, _ = guided_step(*prediction, x, t, h, previous, h_previous, scale)
    start, step = x, h / substeps
    for i in range(substeps):
        tau = t - i * step
        x0 = mixture_mean(means, log_weights) if i == 0 else moved_mean(means, log_weights, var, start, x, t, tau)
        to = t - (i + 1) * step if i + 1 < substeps else t - h
        x = x * (to / tau) + x0 * (1 - to / tau)
    return x, previous


def covariance(means, log_weights, var):
    """The covariance of every sample's mixtures, averaged over pixels, [b c c]."""
    c = means.shape[2]
    weights = log_weights.exp()
    offset = means - (means * weights).sum(1, keepdim=True)
    between = torch.einsum("bkihw,bkjhw->bij", offset * weights, offset) / (means.shape[3] * means.shape[4])
    return between + torch.eye(c) * var.view(-1, 1, 1)


def ln_cdf(z):
    return torch.special.log_ndtr(z)


def quantile(means, log_weights, std, z, iterations=10):
    """The points with the rank of z in mixtures on the line, [b k n] to [b n], by Newton's rule within a bracket."""
    points = means + std * z[:, None]
    low, high = points.amin(1), points.amax(1)
    x = 0.5 * (low + high)
    target = 0.5 * torch.erfc(-z * math.sqrt(0.5))
    weights = log_weights.exp()
    for _ in range(iterations):
        u = (x[:, None] - means) / std
        cdf = (weights * (0.5 * torch.erfc(u * -math.sqrt(0.5)))).sum(1)
        pdf = (weights * (u * u * -0.5).exp()).sum(1) / (std[:, 0] * math.sqrt(2 * math.pi))
        residual = cdf - target
        high, low = torch.where(residual > 0, x, high), torch.where(residual > 0, low, x)
        newton = x - residual / pdf
        x = torch.where((newton > low) & (newton < high), newton, 0.5 * (low + high))
    return x


def transport(means, log_weights, var, normals, basis):
    """Normals [b c h w] along the axes of `basis` [b c c] to draws of the mixtures."""
    b, k, c, h, w = means.shape
    along = torch.einsum("bkchw,bcd->bdkhw", means, basis).reshape(b, c, k, h * w)
    log_weights, std = log_weights.reshape(b, k, h * w), var.sqrt().reshape(b, 1, 1)
    normals, drawn = normals.reshape(b, c, h * w), []
    for axis in range(c):
        x = quantile(along[:, axis], log_weights, std, normals[:, axis])
        drawn.append(x)
        if axis + 1 < c:
            log_weights = (log_weights - 0.5 * ((x[:, None] - along[:, axis]) / std).square()).log_softmax(1)
    return torch.einsum("bdn,bcd->bcn", torch.stack(drawn, 1), basis).reshape(b, c, h, w)


def hartley(x):
    z = torch.fft.fft2(x, norm="ortho")
    return z.real + z.imag


class Spectrum(torch.nn.Module):
    """The perceptron that predicts a power spectrum from two numbers."""

    def __init__(self):
        super().__init__()
        c, h, w = SHAPE
        layers = [torch.nn.Linear(2, 64), torch.nn.SiLU(), torch.nn.Linear(64, 8), torch.nn.SiLU()]
        self.mlp = torch.nn.Sequential(*layers, torch.nn.Linear(8, c * h * w))
        torch.nn.init.zeros_(self.mlp[-1].weight), torch.nn.init.zeros_(self.mlp[-1].bias)

    def forward(self, mean, var):
        b, c, h, w = mean.shape
        spread = mean.flatten(2).var(2).mean(1, keepdim=True)
        log_power = self.mlp(torch.cat([var.view(b, 1), spread], 1)).view(b, c, h * w)
        return (log_power.log_softmax(2) + math.log(h * w)).view(b, c, h, w)


def sde_prepare(means, log_weights, log_std, x, t, h, previous, h_previous, spectrum, white):
    mixture, previous, surrogate = guided_step(means, log_weights, log_std, x, t, h, previous, h_previous)
    shaped = hartley(white * (spectrum(*surrogate) * 0.5).exp())
    return mixture, previous, shaped, covariance(*mixture)


def sde_finish(means, log_weights, var, shaped, basis, x, t, to, noise):
    x0 = transport(means, log_weights, var, shaped, basis)
    if to == 0:
        return x0
    a, r = (1 - t) / (1 - to), to / t
    b = 1 - (r * a) ** 2
    return x * (r * r * a) + x0 * (b * (1 - to)) + noise * math.sqrt(b) * to


def sampling(solver, b, compiled):
    """A guided run of 8 steps, the network's outputs given."""
    torch.manual_seed(0)
    predictions = [prediction(2 * b, K, *SHAPE) for _ in range(STEPS)]
    start = torch.randn(b, *SHAPE)
    spectrum = Spectrum()
    wrap = torch.compile if compiled else lambda f: f
    step_ode, prepare, finish = wrap(ode_step), wrap(sde_prepare), wrap(sde_finish)

    def run():
        with torch.inference_mode():
            x, previous, h = start, None, 1 / STEPS
            for i, (means, log_weights, log_std) in enumerate(predictions):
                t = torch.tensor(1 - i * h)
                args = (means, log_weights, log_std, x, t, h, previous, h)
                if isinstance(solver, int):
                    x, previous = step_ode(*args, solver)
                    continue
                white = torch.randn(b, *SHAPE)
                noise = torch.randn(b, *SHAPE)
                mixture, previous, shaped, cov = prepare(*args, spectrum, white)
                basis = torch.linalg.eigh(cov).eigenvectors.flip(-1)
                to = 1 - (i + 1) * h
                x = finish(*mixture, shaped, basis, x, 1 - i * h, to, noise)
        return x

    return run


def transition_nll(means, log_weights, log_std, x_lo, t_lo, x_hi, t_hi):
    c = means.shape[2]
    a, r = (1 - t_hi) / (1 - t_lo), t_lo / t_hi
    b = 1 - (r * a).square()
    c1, c2, c3 = r * r * a, b * (1 - t_lo), (b * t_lo * t_lo).clamp(min=1e-6)
    per_sample = lambda v: v.view(-1, 1, 1, 1, 1)
    base = x_hi * c1.view(-1, 1, 1, 1)
    means = (x_hi[:, None] - means * per_sample(t_hi)) * per_sample(c2) + base[:, None]
    var = (log_std * 2).exp() * per_sample((t_hi * c2).square()) + per_sample(c3)
    square = (x_lo[:, None] - means).square().sum(2, keepdim=True) / var
    return -torch.logsumexp(log_weights - 0.5 * square - 0.5 * c * var.log(), 1).mean()


def transition_loss(compiled):
    """Forward and backward of the transition loss of 32 images of 3x32x32, K = 8."""
    torch.manual_seed(0)
    b = 32
    inputs = [x.requires_grad_() for x in prediction(b, K, 3, 32, 32)]
    x_lo, x_hi, t_hi = torch.randn(b, 3, 32, 32), torch.randn(b, 3, 32, 32), (torch.arange(b) + 0.5) / b
    loss = torch.compile(transition_nll) if compiled else transition_nll

    def step():
        torch.autograd.grad(loss(*inputs, x_lo, 0.5 * t_hi, x_hi, t_hi), inputs)

    return step


def cases():
    named = {f"ode2-n{n}": n for n in (1, 4, 16)} | {"sde2-spectral": "sde"}
    found = {
        f"sampling/{name}/{b}": lambda mode, solver=solver, b=b: sampling(solver, b, mode == "compile")
        for name, solver in named.items()
        for b in (1, 8, 125)
    }
    found["loss/transition"] = lambda mode: transition_loss(mode == "compile")
    return found
