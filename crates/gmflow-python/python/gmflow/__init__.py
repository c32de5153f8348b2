"""Gaussian mixture flow matching: sample, train and measure, with NumPy and PyTorch.

    import gmflow

    pipe = gmflow.Pipeline.from_pretrained("models/mnist")
    pipe(class_labels=[7, 3], num_inference_steps=6).images[0]

- :class:`Pipeline`: trained models.
- :func:`sample`: samples with any Python function as the network.
- :class:`GaussianMixture`: the algebra of mixtures on arrays.
- :mod:`gmflow.torch`: losses for training in PyTorch.
- :mod:`gmflow.diffusers`: a scheduler for pipelines of diffusers.
- :mod:`gmflow.eval`: FID and other figures.
- :func:`train`, :class:`Trainer`: training as `gmflow train` does it.

Neither NumPy nor PyTorch is imported before it is needed.
"""

from __future__ import annotations

from typing import Any

from . import _native
from ._checks import whole
from ._errors import (
    Cancelled,
    ConfigError,
    DataError,
    FileError,
    GmflowError,
    HubError,
    NotFoundError,
    OutOfMemoryError,
    ShapeError,
)
from .mixture import GaussianMixture
from .pipeline import Pipeline, PipelineOutput
from .sampling import sample, solvers

__version__: str = _native.__version__

__all__ = [
    "Cancelled",
    "ConfigError",
    "DataError",
    "FileError",
    "GaussianMixture",
    "GmflowError",
    "HubError",
    "NotFoundError",
    "OutOfMemoryError",
    "Pipeline",
    "PipelineOutput",
    "ShapeError",
    "Trainer",
    "sample",
    "set_num_threads",
    "solvers",
    "train",
]

# Modules that need other packages.
_MODULES = ("torch", "diffusers", "eval")


def set_num_threads(threads: int) -> None:
    """Computes on so many threads, in place of one for each core. This has to come before the first computation."""
    _native.set_num_threads(whole("threads", threads, 1))


def __dir__() -> list[str]:
    # With the names that are imported when they are asked for.
    return sorted({*globals(), *__all__, *_MODULES})


def __getattr__(name: str) -> Any:
    # What needs other packages is imported when it is asked for.
    import importlib

    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    if name in ("train", "Trainer"):
        return getattr(importlib.import_module(".training", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
