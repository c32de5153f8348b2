"""Losses for training mixtures in PyTorch, as custom operators with gradients.

They take the place of the formulas in a training loop, and work under `torch.compile`. Arithmetic is in `float32`, whatever the network's
precision; tensors on another device than the CPU go through the host. Gradients are of first order.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import _native
from ._arrays import from_native, to_numpy
from .sampling import mixture_parts

__all__ = ["gm_nll", "spectral_loss", "transition_nll", "velocity_to_data"]

# The smallest variance and step of the mean that a transition is evaluated with, as in the library.
_SMALLEST_VARIANCE = 1e-6
_SMALLEST_STEP = 1e-6


def _arrays(*tensors: Tensor) -> list[Any]:
    return [to_numpy(name, x) for name, x in zip(("means", "logweights", "logstds", "target"), tensors)]


@torch.library.custom_op("gmflow::mixture_nll", mutates_args=())
def _mixture_nll(means: Tensor, logweights: Tensor, logstds: Tensor, target: Tensor) -> Tensor:
    return from_native(_native.nll(_arrays(means, logweights, logstds, target)), means)


@_mixture_nll.register_fake
def _(means: Tensor, logweights: Tensor, logstds: Tensor, target: Tensor) -> Tensor:
    b, _, h, w = target.shape
    return means.new_empty((b, h, w), dtype=torch.float32)


@torch.library.custom_op("gmflow::mixture_nll_backward", mutates_args=())
def _mixture_nll_backward(
    means: Tensor, logweights: Tensor, logstds: Tensor, target: Tensor, result: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    of_result = [to_numpy("result", result), to_numpy("grad", grad)]
    grads = _native.nll_gradient(_arrays(means, logweights, logstds, target), *of_result)
    return tuple(from_native(x, means) for x in grads)


@_mixture_nll_backward.register_fake
def _(
    means: Tensor, logweights: Tensor, logstds: Tensor, target: Tensor, result: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return tuple(x.new_empty(x.shape, dtype=torch.float32) for x in (means, logweights, logstds, target))


def _setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs, output)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _mixture_nll_backward(*ctx.saved_tensors, grad.contiguous())


_mixture_nll.register_autograd(_backward, setup_context=_setup_context)


@torch.library.custom_op("gmflow::spectral_power", mutates_args=())
def _spectral_power(means: Tensor, logweights: Tensor, logstds: Tensor, x0: Tensor) -> Tensor:
    arrays = _arrays(means, logweights, logstds, x0)
    return from_native(_native.spectral_power(tuple(arrays[:3]), arrays[3]), means)


@_spectral_power.register_fake
def _(means: Tensor, logweights: Tensor, logstds: Tensor, x0: Tensor) -> Tensor:
    return x0.new_empty(x0.shape, dtype=torch.float32)


def _parts(prediction: Any) -> tuple[Tensor, Tensor, Tensor]:
    parts = mixture_parts(prediction)
    if parts is None:
        raise TypeError("prediction: expected means, logweights and logstds")
    means, logweights, logstds = (x.float() for x in parts)
    return means, logweights, logstds


def _bounded(logstds: Tensor) -> Tensor:
    """Bounded from below at -10 with a smooth knee, so that a network that is certain of everything gets a finite loss."""
    return F.softplus(logstds + 10.0, beta=8.0, threshold=20.0) - 10.0


def _check(means: Tensor, logweights: Tensor, logstds: Tensor, target: Tensor) -> None:
    from ._errors import ShapeError

    if means.ndim != 5:
        raise ShapeError(f"means: expected shape [b, k, c, h, w], got {list(means.shape)}")
    b, k, c, h, w = means.shape
    for name, x, shape in (
        ("logweights", logweights, (b, k, 1, h, w)),
        ("logstds", logstds, (b, 1, 1, 1, 1)),
        ("target", target, (b, c, h, w)),
    ):
        if tuple(x.shape) != shape:
            raise ShapeError(f"{name}: expected shape {list(shape)}, got {list(x.shape)}")


def gm_nll(prediction: Any, target: Tensor) -> Tensor:
    """The negative log-likelihood of a target under a mixture at every pixel, (6).

    Args:
        prediction: A dict with `means` `[b k c h w]`, `logweights` `[b k 1 h w]` and `logstds` `[b 1 1 1 1]`, or an object with these.
        target: `[b c h w]`: the velocity noise - x0.

    Returns:
        `[b h w]` in nats, without the constant c/2 log(2 pi), with gradients into all four. Its mean is the loss.
    """
    means, logweights, logstds = _parts(prediction)
    target = target.float()
    _check(means, logweights, logstds, target)
    return _mixture_nll(means, logweights, _bounded(logstds), target)


def _times(t: Any, like: Tensor) -> Tensor:
    t = torch.as_tensor(t, dtype=torch.float32, device=like.device)
    return t.expand(like.shape[0]).reshape(-1, 1, 1, 1)


def transition_nll(prediction: Any, x_lo: Tensor, t_lo: Any, x_hi: Tensor, t_hi: Any) -> Tensor:
    """-log q(x_lo | x_hi) of the reverse transition (9) under a prediction that was made at `x_hi` and `t_hi`.

    Args:
        prediction: The mixture over the velocity at (x_hi, t_hi), as for :func:`gm_nll`.
        x_lo: The sample `[b c h w]` at the earlier time.
        t_lo: Its time in [0, t_hi], `[b]` or a number: (1 - transition_ratio) t_hi.
        x_hi: The sample `[b c h w]` that the network has seen.
        t_hi: Its time in (0, 1].

    Returns:
        `[b h w]` in nats, without the constant c/2 log(2 pi). Its mean is the transition loss of the paper.
    """
    means, logweights, logstds = _parts(prediction)
    x_lo, x_hi = x_lo.float(), x_hi.float()
    _check(means, logweights, logstds, x_lo)
    lo, hi = _times(t_lo, x_lo), _times(t_hi, x_hi)
    alpha_lo, alpha_hi = 1.0 - lo, 1.0 - hi
    a = torch.where(alpha_lo <= 0, torch.ones_like(lo), alpha_hi / torch.where(alpha_lo <= 0, torch.ones_like(lo), alpha_lo))
    r = lo / hi.clamp_min(1e-12)
    b = (1.0 - (r * a).square()).clamp_min(0.0)
    c1, c2, c3 = r.square() * a, b * alpha_lo, b * lo.square()
    step = (c2 * hi).clamp_min(_SMALLEST_STEP)
    target = (x_hi * (c1 + c2) - x_lo) / step
    factor = step.unsqueeze(1)
    var = (2.0 * logstds).exp() * factor.square() + c3.clamp_min(_SMALLEST_VARIANCE).unsqueeze(1)
    log_std = _bounded(0.5 * var.log()) - factor.log()
    return _mixture_nll(means, logweights, log_std, target) + step.log().squeeze(1) * x_lo.shape[1]


def velocity_to_data(prediction: Any, x_t: Tensor, t: Any) -> dict:
    """A mixture over the velocity, predicted at `x_t` `[b c h w]` and `t`, as one over x0 = x_t - t u, with gradients."""
    means, logweights, logstds = _parts(prediction)
    t = _times(t, x_t).unsqueeze(1)
    return {"means": x_t.float().unsqueeze(1) - t * means, "logweights": logweights, "logstds": logstds + t.clamp_min(1e-6).log()}


def spectral_loss(log_power: Tensor, prediction: Any, x0: Tensor) -> Tensor:
    """The spectral loss (20): how a spectrum network learns the correlation of pixels that the mixtures leave out.

    Args:
        log_power: The logarithm of the power spectrum `[b c h w]`, or what broadcasts to it, from the spectrum network.
        prediction: The mixture over x0, as :func:`velocity_to_data` gives it. No gradient goes into it.
        x0: The data `[b c h w]`.

    Returns:
        The loss, summed over channels and averaged over frequencies and batch. Below 0 the spectrum explains the data better than white noise.
    """
    means, logweights, logstds = _parts(prediction)
    x0 = x0.float()
    _check(means, logweights, logstds, x0)
    power = _spectral_power(means.detach(), logweights.detach(), logstds.detach(), x0.detach())
    log_power = log_power.float()
    gain = power * (-log_power).exp() + log_power - power
    return gain.mean() * (0.5 * x0.shape[1])
