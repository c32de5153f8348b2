"""Trained models."""

from __future__ import annotations

import json
import os
import sys
from typing import Any, Callable

from . import _native
from ._arrays import from_native, seeds_of, to_numpy
from ._checks import as_list, guidance, is_scalar, one_of, plain, whole, whole_list, wrong
from ._errors import ConfigError, FileError
from .mixture import GaussianMixture


# Endings of pictures, which no folder has.
_PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".bmp", ".webp", ".tif", ".tiff")


class PipelineOutput:
    """Samples with what is known of them.

    Attributes:
        images: As `output_type` says: a list of `PIL.Image`, or values.
    """

    def __init__(self, images: Any, drawn: Any):
        self.images = images
        self._drawn = drawn

    @property
    def seeds(self) -> list[int]:
        """The seed of each sample."""
        return self._drawn.seeds

    @property
    def class_labels(self) -> list[int] | None:
        """The class of each sample; `None` of models without classes."""
        return self._drawn.classes

    @property
    def made_by(self) -> dict:
        """How the samples were made."""
        return json.loads(self._drawn.made_by())

    def save(self, path: str | os.PathLike, *, grid: bool = False, force: bool = False) -> None:
        """Writes the files that `gmflow sample` writes: arrays where `path` ends in .npz or .safetensors, else a folder of PNG; with
        `grid` one PNG.

        Nothing that exists is overwritten, but an empty folder is filled. With `force` files are overwritten; other files of a folder stay.
        """
        path = os.fspath(path)
        name = os.path.basename(path)
        ending = os.path.splitext(name)[1].lower()
        if not grid and ending in _PICTURES:
            raise ConfigError(f"path: expected a folder, or grid=True for one picture, got {name}")
        if grid and ending in (".npz", ".safetensors"):
            raise ConfigError(f"path: expected a name such as grid.png with grid=True, got {name}")
        if not force and os.path.lexists(path) and not (os.path.isdir(path) and not os.listdir(path)):
            raise FileError(f"{path}: exists already; force=True overwrites it")
        self._drawn.save(path, grid)

    def __len__(self) -> int:
        return len(self._drawn)

    def __getitem__(self, key: Any) -> Any:
        # Diffusers' outputs are read by position and by name.
        if key in (0, "images"):
            return self.images
        raise KeyError(key)

    def __repr__(self) -> str:
        what = "points" if self._drawn.points else "images"
        return f"<{len(self)} {what}, seeds {_short(self.seeds)}, {json.dumps(self.made_by.get('solver'))}>"

    def _repr_png_(self) -> bytes | None:
        return None if self._drawn.points else self._drawn.grid_png()


def _short(values: list[int]) -> str:
    return str(values) if len(values) <= 4 else f"[{values[0]}, {values[1]}, ..., {values[-1]}]"


class Pipeline:
    """A trained model, ready to sample from. :meth:`from_pretrained` opens one.

    The picture of a seed is the one that `gmflow sample` draws, pixel for pixel.
    """

    def __init__(self, model: Any, name: str):
        self._model = model
        self.name = name
        self.info: dict = {**json.loads(model.info()), "precision": json.loads(model.precision())}
        self._interrupt = False

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike,
        *,
        ema: str | None = None,
        precision: str = "auto",
        variant: str | None = None,
        revision: str | None = None,
        vae: str | os.PathLike | None = None,
    ) -> "Pipeline":
        """Opens a model.

        Args:
            name: A model's folder, ours or in the layout of diffusers; a training run, whose latest checkpoint counts; or `owner/name` of a
                repository on the Hugging Face hub, which is downloaded to its standard cache.
            ema: The moving average of the weights; the first by name where none is given, `"none"` for the weights themselves.
            precision: `"f32"`, `"bf16"` or `"int8"`: the arithmetic of large layers. `"auto"` is the faster of the first two on this processor,
                as `gmflow sample` takes it. `"f32"` is the same on every machine.
            variant: Of published checkpoints, such as `"bf16"`.
            revision: A branch, tag or commit on the hub.
            vae: The folder of the autoencoder of a model of latents; its own where none is given.

        Raises:
            gmflow.NotFoundError: There is no such folder.
            gmflow.FileError: A file is not what it should be.
            gmflow.HubError: The repository cannot be had.
        """
        one_of("precision", precision, ("auto", "f32", "bf16", "int8"))
        name = os.fspath(name)
        options = {"ema": ema, "precision": precision, "variant": variant, "revision": revision}
        options["vae"] = None if vae is None else os.fspath(vae)
        return cls(_native.Model.open(name, json.dumps(options)), name)

    @property
    def folder(self) -> str:
        """The folder of the weights."""
        return str(self._model.folder)

    @property
    def class_names(self) -> list[str] | None:
        """The names of the classes, where the model has them."""
        return self.info.get("classes")

    @property
    def shape(self) -> tuple[int, int, int]:
        """(c, h, w) of what the network predicts."""
        data = self.info["data"]
        return data["channels"], data["height"], data["width"]

    def __call__(
        self,
        class_labels: Any = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        *,
        num_samples: int | None = None,
        seeds: Any = None,
        generator: Any = None,
        noise: Any = None,
        solver: str | dict | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., Any] | None = None,
        callback_on_step_end_tensor_inputs: Any = ("latents",),
        batch_size: int | None = None,
        **settings: Any,
    ) -> Any:
        """Draws samples. What is not asked for is the model's own choice.

        Args:
            class_labels: A label, synonym or number, or a list of them, one for each sample (in turn where there are more samples).
            num_inference_steps: Calls of the network for each sample.
            guidance_scale: Probabilistic guidance in [0, 1); 0 is off.
            num_samples: How many; as many as there are labels or seeds where it is not given, or 1.
            seeds: One seed for each sample, or the first of them; from 0 on where none are given. A seed gives the same sample in any batch.
            generator: In place of seeds: a generator of PyTorch or NumPy, or a list of them, that seeds are drawn from.
            noise: The noise `[n c h w]` to start from, one for each sample; that of the seeds where none is given.
            solver: One of :func:`gmflow.solvers`.
            output_type: `"pil"`: a list of `PIL.Image`. `"np"`: `[n h w c]` in [0, 1]. `"pt"`: a tensor `[n c h w]` in [0, 1]. `"raw"`: an
                array `[n c h w]` as the model gives it, in about [-1, 1]; of models of points `[n 2]`. `"latent"`: the latents.
            return_dict: Without it a tuple of the images alone.
            callback_on_step_end: As in diffusers: called as `callback(pipeline, step, timestep, {"latents": latents})` after each step, with
                the step's number, the timestep 1000 t that it began at, and the samples `[n c h w]` where it ended (of a batch at a time). It
                may return a dict with other latents, from which the run then goes on. It stops with :class:`gmflow.Cancelled` by returning
                `False`, or by setting `pipeline._interrupt`.
            callback_on_step_end_tensor_inputs: What the callback gets: `["latents"]`, or nothing.
            batch_size: Samples that are computed at once. The samples do not depend on it.
            **settings: `order`, `substeps`, `cfg`, `orthogonal`, `guidance_interval`, `spectral`, `reweight_by`, `second_order`, `renoise`,
                `temperature`, as the options of `gmflow sample`.

        Raises:
            gmflow.ConfigError: A setting that is out of range, or that the model has no use for.
        """
        if output_type not in ("pil", "np", "pt", "raw", "latent"):
            raise ValueError(f"output_type: expected pil, np, pt, raw or latent, got {output_type}")
        labels = _labels(class_labels)
        count = None if num_samples is None else whole("num_samples", num_samples, 1)
        if count is None and seeds is not None and not is_scalar(seeds) and hasattr(seeds, "__len__"):
            count = len(seeds)
        if count is None and noise is not None:
            count = len(noise)
        if count is None:
            count = len(labels) if labels else 1
        wanted = seeds_of(seeds, count, generator)
        if not wanted:
            raise ConfigError("samples: expected at least 1, got 0")
        sampler = {
            "steps": None if num_inference_steps is None else whole("num_inference_steps", num_inference_steps, 1),
            "guidance": None if guidance_scale is None else guidance(guidance_scale),
            "solver": plain("solver", solver),
            **{name: plain(name, value) for name, value in settings.items()},
        }
        request = {
            "sampler": {key: value for key, value in sampler.items() if value is not None},
            "classes": labels,
            "seeds": wanted,
            "batch": None if batch_size is None else whole("batch_size", batch_size, 1),
            "latents": output_type == "latent",
        }
        start = None if noise is None else to_numpy("noise", noise)
        on_step = self._on_step(callback_on_step_end, callback_on_step_end_tensor_inputs)
        drawn = self._model.draw(json.dumps(request), start, on_step)
        output = PipelineOutput(_images(drawn, output_type), drawn)
        return output if return_dict else (output.images,)

    def predict(self, x: Any, t: Any, class_labels: Any = None) -> GaussianMixture:
        """The network's prediction: a mixture over the velocity.

        Args:
            x: Samples `[b c h w]`.
            t: Their times `[b]` in (0, 1], or a number.
            class_labels: Numbers of classes; without them, and for the number of classes itself, no class.

        It is a function that :func:`gmflow.sample` takes.
        """
        import numpy as np

        array, times = to_numpy("x", x), to_numpy("t", t)
        if times.ndim == 0:
            times = np.full(len(array), times, np.float32)
        outside = (times <= 0) | (times > 1)
        if outside.any() and times.shape == array.shape[:1]:  # The library refuses other shapes.
            raise wrong("t", "times in (0, 1]", times[outside][0])
        classes = None if class_labels is None else whole_list("class_labels", class_labels, 0)
        return GaussianMixture._of_native(self._model.predict(array, times, classes), x)

    def _on_step(self, callback: Callable[..., Any] | None, inputs: Any) -> Callable[..., Any] | None:
        self._interrupt = False
        unknown = [name for name in inputs if name != "latents"]
        if unknown:
            raise ValueError(f"callback_on_step_end_tensor_inputs: expected latents or nothing, got {', '.join(unknown)}")
        if callback is None:
            return None

        def on_step(done: int, of: int, t: float, x: Any) -> Any:
            import numpy as np

            arguments = {}
            if "latents" in inputs:
                arguments["latents"] = from_native(x) if "torch" not in sys.modules else _tensor(np.asarray(x))
            answer = callback(self, done - 1, 1000.0 * t, arguments)
            if answer is False or self._interrupt:
                return False
            unknown = [str(key) for key in answer if key != "latents"] if isinstance(answer, dict) else []
            if unknown:
                raise ConfigError(f"callback_on_step_end: expected latents or nothing back, got {', '.join(unknown)}")
            latents = answer.get("latents") if isinstance(answer, dict) else None
            return True if latents is None else to_numpy("latents", latents)

        return on_step

    def __repr__(self) -> str:
        network, data = self.info["network"], self.info["data"]
        classes = len(self.class_names or [])
        of_classes = f", {classes} classes" if classes else ""
        size = f"{data['channels']}x{data['height']}x{data['width']}"
        return f"<gmflow.Pipeline {self.name}: {network['type']}, {network.get('num_gaussians')} components, {size}{of_classes}, {self.info['precision']}>"


def _tensor(array: Any) -> Any:
    import torch

    return torch.from_numpy(array)


def _labels(class_labels: Any) -> list[str] | None:
    if class_labels is None:
        return None
    labels = as_list("class_labels", class_labels, "labels")
    if not labels:
        raise ConfigError("class_labels: expected at least one label, got an empty list")
    return [label if isinstance(label, str) else str(whole("class_labels", label, 0)) for label in labels]


def _images(drawn: Any, output_type: str) -> Any:
    import numpy as np

    values = np.asarray(drawn.values())
    if drawn.points:
        return values.reshape(len(drawn), -1)
    if output_type in ("raw", "latent"):
        return values
    if output_type == "pil":
        from PIL import Image

        pictures = [np.asarray(drawn.picture(index)) for index in range(len(drawn))]
        return [Image.fromarray(picture[:, :, 0] if picture.shape[2] == 1 else picture) for picture in pictures]
    unit = np.clip(values / 2 + 0.5, 0, 1)
    if output_type == "np":
        return unit.transpose(0, 2, 3, 1)
    import torch

    return torch.from_numpy(unit)
