"""Samples of any Python function."""

from __future__ import annotations

import json
from typing import Any, Callable

from . import _native
from ._arrays import from_native, is_torch, seeds_of, to_native, to_numpy
from ._checks import got, is_scalar, one_of, whole, whole_list
from ._settings import sampler_config


_EXPECTED = "a dict of means, logweights and logstds, or an array of velocities"


def _is_array(x: Any) -> bool:
    return any(hasattr(x, name) for name in ("shape", "__array__", "__dlpack__"))


def no_mixture(predicted: Any) -> TypeError:
    """The error for what is no mixture."""
    return TypeError(f"prediction: expected means, logweights and logstds, got {got(predicted)}")


def mixture_parts(predicted: Any) -> tuple[Any, Any, Any] | None:
    """The arrays of a mixture in any of its forms; `None` for a plain velocity."""
    if isinstance(predicted, dict):
        missing = [key for key in ("means", "logweights", "logstds") if key not in predicted]
        if missing:
            raise KeyError(f"prediction: expected means, logweights and logstds, got {', '.join(map(str, predicted)) or 'no keys'}")
        return predicted["means"], predicted["logweights"], predicted["logstds"]
    if all(hasattr(predicted, key) for key in ("means", "logweights", "logstds")):
        return predicted.means, predicted.logweights, predicted.logstds
    if isinstance(predicted, (tuple, list)):
        if len(predicted) == 3 and _is_array(predicted[0]):
            return tuple(predicted)
        if len(predicted) == 1 and not isinstance(predicted[0], list):
            return mixture_parts(predicted[0])
        of = f" {type(predicted[0]).__name__}" if predicted else ""
        raise TypeError(f"prediction: expected {_EXPECTED}, got a {type(predicted).__name__} of {len(predicted)}{of}")
    if hasattr(predicted, "sample") and not callable(predicted.sample):  # diffusers' model outputs
        return mixture_parts(predicted.sample)
    return None


def native_mixture(predicted: Any, plain: bool = True) -> tuple[Any, Any, Any]:
    """A prediction as the library takes it. A plain velocity `[b c h w]` is a mixture of one component with standard deviation 1."""
    import numpy as np

    parts = mixture_parts(predicted)
    if parts is not None:
        return to_native("means", parts[0]), to_native("logweights", parts[1]), to_native("logstds", parts[2])
    velocity = predicted
    if hasattr(predicted, "sample") and not callable(predicted.sample):
        velocity = predicted.sample
    if not _is_array(velocity):
        raise TypeError(f"prediction: expected {_EXPECTED}, got {got(velocity)}")
    if not plain:
        raise TypeError("solver: expected a name beside a function of plain velocities, such as 'euler', got none")
    velocity = to_numpy("velocity", velocity)
    if velocity.ndim != 4:
        raise _shape_error(f"velocity: expected shape [b, c, h, w], got {list(velocity.shape)}")
    b, _, h, w = velocity.shape
    return velocity[:, None], np.zeros((b, 1, 1, h, w), np.float32), np.zeros((b, 1, 1, 1, 1), np.float32)


def _shape_error(message: str) -> Exception:
    from ._errors import ShapeError

    return ShapeError(message)


def sample(
    denoise_fn: Callable[..., Any],
    shape: Any,
    *,
    solver: str | dict | None = None,
    steps: int = 8,
    seeds: Any = None,
    generator: Any = None,
    class_labels: Any = None,
    num_classes: int | None = None,
    guidance_scale: float = 0.0,
    noise: Any = None,
    draws: Callable[..., Any] | None = None,
    spectrum: Any = None,
    framework: str | None = None,
    device: Any = None,
    callback: Callable[[int, int], Any] | None = None,
    **settings: Any,
) -> Any:
    """Draws samples with a network that is any Python function.

    Args:
        denoise_fn: `denoise_fn(x, t)` with samples `x` `[b c h w]` and times `t` `[b]` in (0, 1], where 1 is noise. It returns a mixture over
            the velocity u = noise - x0: a dict with `means` `[b k c h w]`, `logweights` `[b k 1 h w]` (logits will do) and `logstds`
            `[b 1 1 1 1]`, as the authors' networks do; or the velocity itself `[b c h w]`. With `num_classes` it is called as
            `denoise_fn(x, t, class_labels)`, where the label `num_classes` means no class; with guidance, on a batch twice as large.
        shape: `(c, h, w)` of one sample, or `(b, c, h, w)`.
        solver: One of :func:`gmflow.solvers`, or a dict such as `{"kind": "gm-ode", "order": 2}`. Without it GM-ODE of order 2; a function
            of plain velocities needs a name here, such as `"euler"`.
        steps: Calls of the function for each sample; a guided call on a doubled batch counts as one.
        seeds: One seed for each sample, 0 to 2**64 - 1, or the first of them. A seed gives the same sample in any batch.
        generator: In place of seeds: a generator of NumPy or PyTorch, or a list of them, that seeds are drawn from.
        class_labels: One label for each sample.
        num_classes: How many classes the function knows.
        guidance_scale: Probabilistic guidance w in [0, 1), (7) and (8) of the paper; 0 is off. `cfg_scale` is classifier-free guidance.
        noise: The noise to start from, `[b c h w]`; drawn from the seeds where it is not given.
        draws: In place of the seeds' random numbers in steps: called as `draws(kind, index, shape)`, where the sub-steps of a run count from 0.
            It returns normals `[b c h w]` for the kinds `"transition"` and `"within-component"`, the numbers of components `[b h w]` for
            `"component"`, with a spectrum also normals `"spectral"` and eigenvectors `[b c c]`, in columns, for `"basis"`; or `None` for
            those of the seeds.
        spectrum: A :class:`gmflow.Pipeline` with a spectrum network, which then shapes the draws of GM-SDE.
        framework: `"numpy"` or `"torch"`: what the function takes. By default it is torch where that has been imported.
        device: Of torch: where the function wants its arguments. They go through the host.
        callback: Called with (steps done, steps) after each step; `False` stops with :class:`gmflow.Cancelled`.
        **settings: `order`, `substeps`, `cfg_scale`, `orthogonal`, `guidance_interval`, `shift`, `reweight_by`, `second_order`.

    Returns:
        Samples `[b c h w]`, an array or a tensor.

    Raises:
        gmflow.ConfigError: A setting out of range, which the message names.
        gmflow.ShapeError: Arrays of the wrong shape.
        ValueError: A prediction that is not finite.

    The interpreter is free for other threads meanwhile, but for the calls of the function. What the function raises is raised here.
    """
    dims = _dims(shape)
    if framework is not None:
        one_of("framework", framework, ("numpy", "torch"))
    count = dims[0] if len(dims) == 4 else None
    labels = None if class_labels is None else whole_list("class_labels", class_labels, 0)
    if count is None and labels is not None:
        count = len(labels)
    if count is None and seeds is None and noise is not None:
        count = len(noise)
    if count is None and seeds is not None and not is_scalar(seeds) and hasattr(seeds, "__len__"):
        count = len(seeds)
    wanted = seeds_of(seeds, count, generator)
    if not wanted:
        raise _shape_error("samples: expected at least 1, got 0")
    num_classes = None if num_classes is None else whole("num_classes", num_classes, 0)
    in_torch = framework == "torch" or framework is None and _torch_is_there(noise)
    plain = solver is not None
    config = sampler_config(solver or "gm-ode", steps, guidance_scale=guidance_scale, **settings)
    request = {
        "sampler": config,
        "seeds": wanted,
        "shape": dims[-3:],
        "classes": labels,
        "num_classes": num_classes,
    }
    if in_torch:
        import torch

        target = torch.device("cpu" if device is None else device)
        on_host = target.type == "cpu"

        def arguments(x: Any, t: Any) -> tuple[Any, Any]:
            x, t = torch.from_numpy(_asarray(x)), torch.from_numpy(_asarray(t))
            return (x, t) if on_host else (x.to(target), t.to(target))

        # The same at every step, but with guidance for a part of them.
        known: dict = {}

        def labels_of(classes: list[int] | None) -> Any:
            key = tuple(classes or ())
            if key not in known:
                known[key] = torch.tensor(classes, dtype=torch.long, device=target)
            return known[key].clone()
    else:
        import numpy as np

        def arguments(x: Any, t: Any) -> tuple[Any, Any]:
            return _asarray(x), _asarray(t)

        def labels_of(classes: list[int] | None) -> Any:
            return np.asarray(classes, dtype=np.int64)

    def function(x: Any, t: Any, classes: list[int] | None) -> tuple[Any, Any, Any]:
        x, t = arguments(x, t)
        predicted = denoise_fn(x, t) if num_classes is None else denoise_fn(x, t, labels_of(classes))
        return native_mixture(predicted, plain)

    noise = None if noise is None else to_numpy("noise", noise)
    shaped_by = None if spectrum is None else spectrum._model
    run = (function, json.dumps(request), noise, (_draws(draws), shaped_by), callback)
    if not in_torch:
        return from_native(_native.sample(*run))
    # For all calls of the function, which are on this thread.
    with torch.no_grad():
        drawn = _native.sample(*run)
    return torch.from_numpy(from_native(drawn)).to(target)


def _dims(shape: Any) -> list[int]:
    """The numbers of a shape."""
    from ._errors import ConfigError

    expected = "shape: expected (c, h, w) or (b, c, h, w)"
    if isinstance(shape, str) or not hasattr(shape, "__iter__"):
        raise _shape_error(f"{expected}, got {got(shape)}")
    dims = list(shape)
    if len(dims) not in (3, 4):
        raise _shape_error(f"{expected}, got {tuple(dims)}")
    try:
        return [whole(f"shape.{axis}", n, 1) for axis, n in enumerate(dims)]
    except ConfigError as error:
        raise _shape_error(str(error)) from None


def _draws(draws: Callable[..., Any] | None) -> Callable[..., Any] | None:
    """The same with arrays as the library takes them."""
    if draws is None:
        return None

    def given(kind: str, index: int, shape: list[int]) -> Any:
        import numpy as np

        values = draws(kind, index, tuple(shape))
        if values is None:
            return None
        if kind == "component":
            values = values.detach().cpu().numpy() if is_torch(values) else np.asarray(values)
            if values.dtype.kind not in "iu":
                raise TypeError(f"draws: expected integers for components, got {values.dtype}")
            return np.ascontiguousarray(values.reshape(shape), np.float32)
        return to_numpy("draws", values)

    return given


def _asarray(buffer: Any) -> Any:
    import numpy as np

    return np.asarray(buffer)


def _torch_is_there(noise: Any) -> bool:
    import sys

    if noise is not None:
        return is_torch(noise)
    return "torch" in sys.modules


def solvers() -> dict[str, str]:
    """The names of the solvers, with a few words about each."""
    return dict(_native.solvers())
