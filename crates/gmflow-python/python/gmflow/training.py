"""Training, as `gmflow train` does it."""

from __future__ import annotations

import os
from typing import Any, Callable

from . import _native
from .pipeline import Pipeline


def _config(config: Any, overrides: Any) -> tuple[str | None, str, list[str]]:
    """Text and place of a configuration, and what is set beside it."""
    settings = [f"{key}={_toml(value)}" for key, value in overrides.items()] if isinstance(overrides, dict) else list(overrides or [])
    if isinstance(config, dict):
        return "\n".join(_tables(config)), "config.toml", settings
    text = os.fspath(config)
    if "\n" in text:
        return text, "config.toml", settings
    return None, text, settings


def _toml(value: Any) -> str:
    """A value as TOML writes it."""
    import json

    if hasattr(value, "tolist"):  # Numbers and arrays of NumPy and PyTorch.
        value = value.tolist()
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (str, os.PathLike)):
        return json.dumps(os.fspath(value), ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items() if item is not None) + "}"
    raise TypeError(f"config: expected numbers, text, lists and dicts, got {type(value).__name__}")


def _tables(config: dict) -> list[str]:
    return [f"{key} = {_toml(value)}" for key, value in config.items() if value is not None]


def train(
    config: Any,
    out: str | os.PathLike,
    *,
    on_step: Callable[[dict], Any] | None = None,
    overrides: Any = (),
    resume: bool = False,
    force: bool = False,
    device: str = "cpu",
) -> bool:
    """Trains in a folder with logs, checkpoints and pictures.

    Args:
        config: A configuration: the path of a TOML file, its text, or a dict of its tables.
        out: The folder of the run. `Pipeline.from_pretrained` opens it.
        on_step: Called with a dict of `step`, `images`, `loss`, `grad_norm`, `lr` after each step. The run stops with a checkpoint where it
            returns `False` or raises; what it raises is raised here. So does Ctrl-C.
        overrides: Settings that replace those of the configuration: a dict such as `{"train.steps": 100}`, or a list of `"train.steps=100"`.
        resume: Goes on with the run in the folder.
        force: Removes an earlier run in the folder.
        device: `"cpu"`.

    Returns:
        Whether all steps were taken.
    """
    return _native.train(_config(config, overrides), os.fspath(out), (resume, force), device, on_step)


class Trainer:
    """A network in training without a folder, one step at a time.

    Args:
        config, overrides, device: As for :func:`train`.
    """

    def __init__(self, config: Any, *, overrides: Any = (), device: str = "cpu"):
        text, path, settings = _config(config, overrides)
        self._native = _native.Trainer(text, path, settings, device)

    def step(self) -> dict:
        """Takes one optimiser step, and returns what it did: `step`, `images`, `loss`, `grad_norm`, `lr`."""
        return self._native.step()

    @property
    def steps_taken(self) -> int:
        """Optimiser steps so far."""
        return self._native.progress()[0]

    @property
    def total_steps(self) -> int:
        """Steps that the configuration asks for."""
        return self._native.progress()[2]

    @property
    def config(self) -> str:
        """The resolved configuration, as TOML."""
        return self._native.config()

    @property
    def averages(self) -> list[str]:
        """The names of the moving averages of the weights."""
        return self._native.averages()

    def pipeline(self, average: str | None = None) -> Pipeline:
        """The model of the weights as they are now, or of the moving average with this name."""
        return Pipeline(self._native.model(average), "trainer")

    def save(self, folder: str | os.PathLike) -> None:
        """Writes a model folder with the weights and their moving averages."""
        self._native.save(os.fspath(folder))

    def __iter__(self) -> "Trainer":
        return self

    def __next__(self) -> dict:
        """Steps until the configuration's end: `for done in trainer`."""
        if self.steps_taken >= self.total_steps:
            raise StopIteration
        return self.step()

    def __repr__(self) -> str:
        step, images, total = self._native.progress()
        return f"<gmflow.Trainer at step {step} of {total}, {images} samples seen>"
