"""A scheduler for pipelines of diffusers."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils import BaseOutput

from . import _native
from ._arrays import from_native, seeds_of, to_numpy
from ._checks import whole
from ._settings import sampler_config
from .sampling import native_mixture

__all__ = ["GMFlowScheduler", "GMFlowSchedulerOutput"]


@dataclass
class GMFlowSchedulerOutput(BaseOutput):
    """The sample at the end of a step.

    Attributes:
        prev_sample: `[b c h w]`.
    """

    prev_sample: torch.Tensor


class GMFlowScheduler(SchedulerMixin, ConfigMixin):
    """GM-ODE, GM-SDE and the baselines as a scheduler.

    The model's output is a mixture over the velocity u = noise - x0 (a dict with `means`, `logweights` and `logstds`, as the authors' networks
    return it), or the velocity itself. Timesteps are 1000 sigma, where sigma = t in (0, 1] and 1 is noise, as in diffusers' flow matching.

    Args:
        num_train_timesteps: What a timestep is multiplied by.
        solver: One of :func:`gmflow.solvers` with one network call in a step.
        order: 1 or 2, of GM-ODE and GM-SDE.
        substeps: Sub-steps of GM-ODE in a step; without it 128 shared among the steps, and 8 for 4 and 6 steps.
        shift: The shift of the time grid.
        guidance_scale: Probabilistic guidance in [0, 1). The model's output is then that of the doubled batch, the conditional half first,
            as in `DiTPipeline`.
        cfg_scale: Classifier-free guidance of at least 1, in its place.
        orthogonal: The share of the guidance along the prediction that is removed.
        guidance_interval: The times [low, high] between which there is guidance.
        reweight_by: `"image"` or `"pixel"`: the variance that guidance divides by.
        second_order: Details of steps of order 2: a dict of `ca`, `cb`, `corrections`, `convert`, `carry`.
    """

    _compatibles: list = []
    order = 1

    @register_to_config
    def __init__(
        self,
        num_train_timesteps: int = 1000,
        solver: str = "gm-ode",
        order: int | None = None,
        substeps: int | None = None,
        shift: float = 1.0,
        guidance_scale: float = 0.0,
        cfg_scale: float | None = None,
        orthogonal: float | None = None,
        guidance_interval: list | None = None,
        reweight_by: str = "image",
        second_order: dict | None = None,
    ):
        self.init_noise_sigma = 1.0
        self.num_inference_steps: int | None = None
        self.sigmas = torch.tensor(_native.time_grid(num_train_timesteps, shift), dtype=torch.float32)
        self.timesteps = self.sigmas[:-1] * num_train_timesteps
        self._seeds: list[int] | None = None
        self._stepper: Any = None
        self._step_index: int | None = None
        self._begin_index: int | None = None

    @property
    def step_index(self) -> int | None:
        """The step that comes next."""
        return self._step_index

    @property
    def begin_index(self) -> int | None:
        """The step that a run starts with, as :meth:`set_begin_index` says."""
        return self._begin_index

    def set_begin_index(self, begin_index: int = 0) -> None:
        """Starts a run with this step, as image-to-image does."""
        self._begin_index = begin_index

    def set_seeds(self, seeds: Any) -> None:
        """One seed for each sample, for solvers that draw. A seed gives the same draws in any batch."""
        self._seeds = seeds_of(seeds, None)
        self._stepper = None

    def set_timesteps(
        self,
        num_inference_steps: int | None = None,
        device: Any = None,
        sigmas: list[float] | None = None,
        mu: float | None = None,
        timesteps: list[float] | None = None,
    ) -> None:
        """Begins a run.

        Args:
            num_inference_steps: Network calls.
            device: Where `timesteps` and `sigmas` are.
            sigmas: Falling times in (0, 1] at which steps begin, before the shift, in place of the even grid.
            mu: The logarithm of the shift, where a pipeline computes it.
            timesteps: Timesteps in place of sigmas, without a shift.
        """
        scale = self.config.num_train_timesteps
        shift = self.config.shift if mu is None else math.exp(mu)
        if timesteps is not None:
            times = [float(t) / scale for t in timesteps] + [0.0]
        elif sigmas is not None:
            times = [shift * float(s) / (1.0 + (shift - 1.0) * float(s)) for s in sigmas] + [0.0]
        elif num_inference_steps is not None:
            times = _native.time_grid(whole("num_inference_steps", num_inference_steps, 1), shift)
        else:
            raise ValueError("set_timesteps: expected num_inference_steps, sigmas or timesteps, got none")
        self.num_inference_steps = len(times) - 1
        self._times, self._shift = times, shift
        self.sigmas = torch.tensor(times, dtype=torch.float32, device=device)
        self.timesteps = self.sigmas[:-1] * scale
        self._stepper = None
        self._step_index = None
        self._begin_index = None

    def scale_model_input(self, sample: torch.Tensor, timestep: Any = None) -> torch.Tensor:
        """The sample itself."""
        return sample

    def scale_noise(self, sample: torch.Tensor, timestep: Any, noise: torch.Tensor) -> torch.Tensor:
        """x_t = (1 - t) x0 + t noise, with t = timestep / 1000."""
        t = torch.as_tensor(timestep, dtype=torch.float32, device=sample.device) / self.config.num_train_timesteps
        t = t.reshape(-1, *[1] * (sample.ndim - 1)).to(sample.dtype)
        return (1.0 - t) * sample + t * noise

    def add_noise(self, original_samples: torch.Tensor, noise: torch.Tensor, timesteps: Any) -> torch.Tensor:
        """:meth:`scale_noise` with the arguments of diffusers' other schedulers."""
        return self.scale_noise(original_samples, timesteps, noise)

    def index_for_timestep(self, timestep: Any) -> int:
        """The step that begins at a timestep."""
        distance = (self.timesteps - torch.as_tensor(timestep, device=self.timesteps.device)).abs()
        return int(distance.argmin())

    def step(
        self,
        model_output: Any,
        timestep: Any,
        sample: torch.Tensor,
        generator: Any = None,
        return_dict: bool = True,
        **unused: Any,
    ) -> GMFlowSchedulerOutput | tuple:
        """From a timestep to the next one.

        Args:
            model_output: The mixture over the velocity at (sample, timestep), or the velocity; with guidance of the doubled batch.
            timestep: The timestep that the model has seen.
            sample: `[b c h w]`.
            generator: Where no seeds are set: what they are drawn from, for solvers that draw.
            return_dict: Without it a tuple.
        """
        if self.num_inference_steps is None:
            raise ValueError("step: expected set_timesteps before it")
        if self._step_index is None:
            self._step_index = self.index_for_timestep(timestep) if self._begin_index is None else self._begin_index
        x = to_numpy("sample", sample)
        if self._stepper is None:
            seeds = seeds_of(None, len(x), generator) if self._seeds is None else self._seeds
            if len(seeds) != len(x):
                raise ValueError(f"seeds: expected {len(x)}, one for each sample, got {len(seeds)}")
            config = self.config
            settings = sampler_config(
                config.solver,
                self.num_inference_steps,
                order=config.order,
                substeps=config.substeps,
                guidance_scale=config.guidance_scale,
                cfg_scale=config.cfg_scale,
                orthogonal=config.orthogonal,
                guidance_interval=config.guidance_interval,
                shift=self._shift,
                reweight_by=config.reweight_by,
                second_order=config.second_order,
            )
            self._stepper = _native.Stepper(json.dumps(settings), self._times, seeds)
        out = self._stepper.step(self._step_index, native_mixture(model_output), x)
        self._step_index += 1
        prev_sample = from_native(out, sample).to(sample.dtype)
        return GMFlowSchedulerOutput(prev_sample=prev_sample) if return_dict else (prev_sample,)

    def __len__(self) -> int:
        return self.config.num_train_timesteps
