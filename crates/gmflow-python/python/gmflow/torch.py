"""Losses for training mixtures in PyTorch, as custom operators with gradients.

They take the place of the formulas in a training loop, and work under `torch.compile`. Arithmetic is in `float32`, whatever the network's
precision; tensors on another device than the CPU go through the host. Gradients are of first order.

Where nothing compiles or traces the program the same functions are called without PyTorch's dispatcher, which takes longer than the
arithmetic of a small batch. `torch.func` takes neither.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from . import _native
from ._arrays import from_native, to_native
from .sampling import mixture_parts, no_mixture

__all__ = ["gm_nll", "spectral_loss", "transition_nll", "velocity_to_data"]

_NLL = ("means", "logweights", "logstds", "target")
_TRANSITION = ("means", "logweights", "logstds", "x_lo", "x_hi", "t_lo", "t_hi")


def _nll_values(*tensors: Tensor) -> Tensor:
    return from_native(_native.nll([to_native(name, x) for name, x in zip(_NLL, tensors)]), tensors[0])


def _nll_gradients(*tensors: Tensor) -> tuple[Tensor, ...]:
    *inputs, result, grad = tensors
    arrays = [to_native(name, x) for name, x in zip(_NLL, inputs)]
    grads = _native.nll_gradient(arrays, to_native("result", result), to_native("grad", grad))
    return tuple(from_native(x, inputs[0]) for x in grads)


def _transition_values(*tensors: Tensor) -> Tensor:
    return from_native(_native.transition_nll([to_native(name, x) for name, x in zip(_TRANSITION, tensors)]), tensors[0])


def _transition_gradients(*tensors: Tensor) -> tuple[Tensor, ...]:
    *inputs, grad = tensors
    arrays = [to_native(name, x) for name, x in zip(_TRANSITION, inputs)]
    return tuple(from_native(x, inputs[0]) for x in _native.transition_nll_gradient(arrays, to_native("grad", grad)))


def _empty_like(*tensors: Tensor) -> tuple[Tensor, ...]:
    return tuple(x.new_empty(x.shape, dtype=torch.float32) for x in tensors)


@torch.library.custom_op("gmflow::mixture_nll", mutates_args=())
def _mixture_nll(means: Tensor, logweights: Tensor, logstds: Tensor, target: Tensor) -> Tensor:
    return _nll_values(means, logweights, logstds, target)


@_mixture_nll.register_fake
def _(means: Tensor, logweights: Tensor, logstds: Tensor, target: Tensor) -> Tensor:
    b, _, h, w = target.shape
    return means.new_empty((b, h, w), dtype=torch.float32)


@torch.library.custom_op("gmflow::mixture_nll_backward", mutates_args=())
def _mixture_nll_backward(
    means: Tensor, logweights: Tensor, logstds: Tensor, target: Tensor, result: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _nll_gradients(means, logweights, logstds, target, result, grad)  # type: ignore[return-value]


@_mixture_nll_backward.register_fake
def _(
    means: Tensor, logweights: Tensor, logstds: Tensor, target: Tensor, result: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _empty_like(means, logweights, logstds, target)  # type: ignore[return-value]


def _nll_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs, output)


def _nll_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
    return _mixture_nll_backward(*ctx.saved_tensors, grad.contiguous())


_mixture_nll.register_autograd(_nll_backward, setup_context=_nll_context)


@torch.library.custom_op("gmflow::transition_nll", mutates_args=())
def _transition_nll(
    means: Tensor, logweights: Tensor, logstds: Tensor, x_lo: Tensor, x_hi: Tensor, t_lo: Tensor, t_hi: Tensor
) -> Tensor:
    return _transition_values(means, logweights, logstds, x_lo, x_hi, t_lo, t_hi)


@_transition_nll.register_fake
def _(
    means: Tensor, logweights: Tensor, logstds: Tensor, x_lo: Tensor, x_hi: Tensor, t_lo: Tensor, t_hi: Tensor
) -> Tensor:
    b, _, h, w = x_lo.shape
    return means.new_empty((b, h, w), dtype=torch.float32)


@torch.library.custom_op("gmflow::transition_nll_backward", mutates_args=())
def _transition_nll_backward(
    means: Tensor, logweights: Tensor, logstds: Tensor, x_lo: Tensor, x_hi: Tensor, t_lo: Tensor, t_hi: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _transition_gradients(means, logweights, logstds, x_lo, x_hi, t_lo, t_hi, grad)  # type: ignore[return-value]


@_transition_nll_backward.register_fake
def _(
    means: Tensor, logweights: Tensor, logstds: Tensor, x_lo: Tensor, x_hi: Tensor, t_lo: Tensor, t_hi: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    return _empty_like(means, logweights, logstds, x_lo, x_hi)  # type: ignore[return-value]


def _transition_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _transition_backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    return *_transition_nll_backward(*ctx.saved_tensors, grad.contiguous()), None, None


_transition_nll.register_autograd(_transition_backward, setup_context=_transition_context)


@torch.library.custom_op("gmflow::spectral_loss", mutates_args=())
def _spectral_loss(
    log_power: Tensor, means: Tensor, logweights: Tensor, logstds: Tensor, x0: Tensor
) -> tuple[Tensor, Tensor]:
    """The loss, and the squared frequencies of the data, which the gradient is made of."""
    mixture = (to_native("means", means), to_native("logweights", logweights), to_native("logstds", logstds))
    power = from_native(_native.spectral_power(mixture, to_native("x0", x0)), log_power)
    gain = power * (-log_power).exp() + log_power - power
    return gain.mean() * (0.5 * x0.shape[1]), power


@_spectral_loss.register_fake
def _(
    log_power: Tensor, means: Tensor, logweights: Tensor, logstds: Tensor, x0: Tensor
) -> tuple[Tensor, Tensor]:
    return log_power.new_empty((), dtype=torch.float32), log_power.new_empty(x0.shape, dtype=torch.float32)


@torch.library.custom_op("gmflow::spectral_loss_backward", mutates_args=())
def _spectral_loss_backward(log_power: Tensor, power: Tensor, grad: Tensor) -> Tensor:
    scale = grad * (0.5 * power.shape[1] / power.numel())
    return ((1.0 - power * (-log_power).exp()) * scale).sum_to_size(log_power.shape).contiguous()


@_spectral_loss_backward.register_fake
def _(log_power: Tensor, power: Tensor, grad: Tensor) -> Tensor:
    return log_power.new_empty(log_power.shape, dtype=torch.float32)


def _spectral_context(ctx: Any, inputs: tuple[Tensor, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(inputs[0], output[1])


def _spectral_backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Any, ...]:
    return _spectral_loss_backward(*ctx.saved_tensors, grad), None, None, None, None


_spectral_loss.register_autograd(_spectral_backward, setup_context=_spectral_context)


class _DirectNll(torch.autograd.Function):
    """`_mixture_nll` without the dispatcher."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        result = _nll_values(*inputs)
        ctx.save_for_backward(*inputs, result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return _nll_gradients(*ctx.saved_tensors, grad)


class _DirectTransition(torch.autograd.Function):
    """`_transition_nll` without the dispatcher."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*inputs)
        return _transition_values(*inputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        return *_transition_gradients(*ctx.saved_tensors, grad), None, None


def _plain(*tensors: Tensor) -> bool:
    """Whether numbers are computed here and now: nothing traces or compiles the program."""
    if torch.compiler.is_compiling() or any(type(x) not in (Tensor, torch.nn.Parameter) for x in tensors):
        return False
    # One of PyTorch's own parts; where it is not there, the operators are the sure way.
    modes = getattr(torch._C, "_len_torch_dispatch_stack", None)
    return modes is not None and modes() == 0


def _parts(prediction: Any) -> tuple[Tensor, Tensor, Tensor]:
    parts = mixture_parts(prediction)
    if parts is None:
        raise no_mixture(prediction)
    means, logweights, logstds = (x.float() for x in parts)
    return means, logweights, logstds


def _check(means: Tensor, logweights: Tensor, logstds: Tensor, target: Tensor, name: str = "target") -> None:
    if means.ndim != 5:
        raise _shape_error(f"means: expected shape [b, k, c, h, w], got {list(means.shape)}")
    b, k, c, h, w = means.shape
    if logweights.shape != (b, k, 1, h, w):
        raise _shape_error(f"logweights: expected shape {[b, k, 1, h, w]}, got {list(logweights.shape)}")
    if logstds.shape != (b, 1, 1, 1, 1):
        raise _shape_error(f"logstds: expected shape {[b, 1, 1, 1, 1]}, got {list(logstds.shape)}")
    if target.shape != (b, c, h, w):
        raise _shape_error(f"{name}: expected shape {[b, c, h, w]}, got {list(target.shape)}")


def _shape_error(message: str) -> Exception:
    from ._errors import ShapeError

    return ShapeError(message)


def gm_nll(prediction: Any, target: Tensor) -> Tensor:
    """The negative log-likelihood of a target under a mixture at every pixel, (6).

    Args:
        prediction: A dict with `means` `[b k c h w]`, `logweights` `[b k 1 h w]` and `logstds` `[b 1 1 1 1]`, or an object with these.
            The standard deviation is bounded from below at exp(-10) with a smooth knee, so that a network that is certain of everything
            gets a finite loss.
        target: `[b c h w]`: the velocity noise - x0.

    Returns:
        `[b h w]` in nats, without the constant c/2 log(2 pi), with gradients into all four. Its mean is the loss.
    """
    means, logweights, logstds = _parts(prediction)
    target = target.float()
    _check(means, logweights, logstds, target)
    if _plain(means, logweights, logstds, target):
        return _DirectNll.apply(means, logweights, logstds, target)
    return _mixture_nll(means, logweights, logstds, target)


def _times(t: Any, like: Tensor) -> Tensor:
    """`[b]`."""
    t = torch.as_tensor(t, dtype=torch.float32, device=like.device).detach()
    return t.expand(like.shape[0]).contiguous()


def transition_nll(prediction: Any, x_lo: Tensor, t_lo: Any, x_hi: Tensor, t_hi: Any) -> Tensor:
    """-log q(x_lo | x_hi) of the reverse transition (9) under a prediction that was made at `x_hi` and `t_hi`.

    Args:
        prediction: The mixture over the velocity at (x_hi, t_hi), as for :func:`gm_nll`.
        x_lo: The sample `[b c h w]` at the earlier time.
        t_lo: Its time in [0, t_hi], `[b]` or a number: (1 - transition_ratio) t_hi.
        x_hi: The sample `[b c h w]` that the network has seen.
        t_hi: Its time in (0, 1].

    Returns:
        `[b h w]` in nats, without the constant c/2 log(2 pi), with gradients into the prediction and both samples. Its mean is the
        transition loss of the paper.
    """
    means, logweights, logstds = _parts(prediction)
    x_lo, x_hi = x_lo.float(), x_hi.float()
    _check(means, logweights, logstds, x_lo, "x_lo")
    _check(means, logweights, logstds, x_hi, "x_hi")
    inputs = (means, logweights, logstds, x_lo, x_hi, _times(t_lo, x_lo), _times(t_hi, x_lo))
    if _plain(*inputs):
        return _DirectTransition.apply(*inputs)
    return _transition_nll(*inputs)


def velocity_to_data(prediction: Any, x_t: Tensor, t: Any) -> dict:
    """A mixture over the velocity, predicted at `x_t` `[b c h w]` and `t`, as one over x0 = x_t - t u, with gradients."""
    means, logweights, logstds = _parts(prediction)
    t = _times(t, x_t).reshape(-1, 1, 1, 1, 1)
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
    means, logweights, logstds = (x.detach() for x in _parts(prediction))
    x0 = x0.detach().float()
    _check(means, logweights, logstds, x0, "x0")
    try:
        fits = torch.broadcast_shapes(log_power.shape, x0.shape) == x0.shape
    except RuntimeError:
        fits = False
    if not fits:
        raise _shape_error(f"log_power: expected shape {list(x0.shape)}, or one that broadcasts to it, got {list(log_power.shape)}")
    return _spectral_loss(log_power.float(), means, logweights, logstds, x0)[0]
