"""Figures of samples against real data, as `gmflow eval` computes them.

Sets of images are arrays `[n c h w]` of numbers in [-1, 1], arrays `[n h w c]` of bytes, lists of `PIL.Image`, folders of pictures, or files
that `gmflow sample` and `gmflow stats` write. Figures of Inception features are called FID and KID; of others they are not.
"""

from __future__ import annotations

import functools
import json
import os
from typing import Any

from . import _native
from ._arrays import from_native, is_torch, to_numpy
from ._checks import existing

__all__ = ["FeatureSet", "compare", "features", "frechet_distance", "inception_score", "kernel_distance", "manifolds"]


class FeatureSet:
    """What is known of a set of images: the vectors that they are compared by, their moments, their colours."""

    def __init__(self, native: Any):
        self._native = native

    @property
    def vectors(self) -> Any:
        """The vectors `[n d]`, or `None` where only their moments are known."""
        vectors = self._native.vectors()
        return None if vectors is None else from_native(vectors)

    @property
    def info(self) -> dict:
        """Count, data, features, shape and colours."""
        return json.loads(self._native.info())

    def save(self, path: str | os.PathLike) -> None:
        """Writes a .safetensors file, which stands for the set in later comparisons."""
        self._native.save(os.fspath(path))

    def __len__(self) -> int:
        return len(self._native)

    def __repr__(self) -> str:
        info = self.info
        return f"<gmflow.eval.FeatureSet of {len(self)}: {info['data']}, {info['features']['network']}>"


@functools.lru_cache(maxsize=4)
def _network(name: str) -> Any:
    cache = os.environ.get("GMFLOW_CACHE") or os.path.join(os.path.expanduser("~"), ".cache", "gmflow")
    return _native.Features(name, os.path.join(cache, "features"))


def _pixels(images: Any) -> Any:
    import numpy as np

    if isinstance(images, (list, tuple)) and images and hasattr(images[0], "getbands"):
        images = np.stack([np.asarray(image) for image in images])
        images = images[..., None] if images.ndim == 3 else images
    if is_torch(images):
        images = images.detach().cpu().numpy()
    images = np.asarray(images)
    if images.dtype == np.uint8:
        if images.ndim != 4:
            raise ValueError(f"images: expected bytes [n h w c], got shape {list(images.shape)}")
        return np.ascontiguousarray(images.transpose(0, 3, 1, 2), np.float32) / np.float32(127.5) - np.float32(1)
    return to_numpy("images", images)


def features(
    images: Any,
    network: str = "inception",
    *,
    size: int | None = None,
    limit: int | None = None,
    like: Any = None,
) -> FeatureSet:
    """The vectors of a set of images.

    Args:
        images: As the module says.
        network: `"inception"` (downloaded once, with a checksum), `"inception=FILE"`, `"inception-pytorch-fid"`, `"classifier=FILE"` or
            `"pixels"`.
        size: Height and width that pictures of a folder are brought to.
        limit: How many of the images of a folder or file are taken.
        like: (c, h, w) of the images that a folder or file is compared with: where c is 1, pictures of a folder are read as grey. Without
            it they are read as colour, as `gmflow eval` does. :func:`compare` takes the shape of the real images.
    """
    return _features("images", images, network, size, limit, like)


def _features(name: str, images: Any, network: str, size: int | None, limit: int | None, like: Any) -> FeatureSet:
    if isinstance(images, FeatureSet):
        return images
    if isinstance(images, (str, os.PathLike)):
        shape = None if like is None else [int(n) for n in like]
        return FeatureSet(_network(network).of_path(existing(name, images), size, limit, shape))
    return FeatureSet(_network(network).of_images(_pixels(images), "array"))


def _set(name: str, vectors: Any) -> Any:
    if isinstance(vectors, FeatureSet):
        return vectors._native
    if isinstance(vectors, (str, os.PathLike)):
        return _native.set_of_vectors(existing(name, vectors), os.fspath(vectors))
    return _native.set_of_vectors(to_numpy(name, vectors), "array")


def compare(
    real: Any,
    fake: Any,
    network: str = "inception",
    *,
    size: int | None = None,
    limit: int | None = None,
    moments_only: bool = False,
    neighbours: int = 3,
    kid_subsets: int = 100,
    kid_subset_size: int = 1000,
    kid_seed: int = 2020,
) -> dict:
    """All figures of fake images against real ones: Fréchet and kernel distance, precision, recall, density, coverage, Inception Score,
    colours, by the names that `gmflow eval --json` gives them.

    Args:
        real, fake: Sets of images as the module says, or :class:`FeatureSet`.
        network, size, limit: As for :func:`features`; `limit` is of the real images.
        moments_only: Leaves out what needs all vectors.
        neighbours: Of precision and recall.
        kid_subsets, kid_subset_size, kid_seed: Of the kernel distance, as torch-fidelity's.
    """
    config = {
        "kernel": {"subsets": kid_subsets, "subset_size": kid_subset_size, "seed": kid_seed},
        "neighbours": {"precision": neighbours},
        "moments_only": moments_only,
    }
    if isinstance(fake, (str, os.PathLike)):
        existing("fake", fake)  # Before the work on the real images.
    of_real = _features("real", real, network, size, limit, None)
    of_fake = _features("fake", fake, network, size, None, of_real.info.get("shape"))
    return json.loads(_native.compare_sets(of_real._native, of_fake._native, json.dumps(config)))


def _figures(real: Any, fake: Any, **config: Any) -> dict:
    return json.loads(_native.compare_sets(_set("real", real), _set("fake", fake), json.dumps(config)))


def frechet_distance(real: Any, fake: Any) -> float:
    """The Fréchet distance of two sets of vectors `[n d]`; of Inception's it is the FID."""
    figures = _figures(real, fake, moments_only=True)
    return figures["fid"] if "fid" in figures else figures["frechet_distance"]


def kernel_distance(real: Any, fake: Any, *, subsets: int = 100, subset_size: int = 1000, seed: int = 2020) -> tuple[float, float]:
    """Mean and standard deviation of the kernel distance of two sets of vectors `[n d]` over subsets; of Inception's it is the KID."""
    figures = _figures(real, fake, kernel={"subsets": subsets, "subset_size": subset_size, "seed": seed})
    distance = figures["kid"] if "kid" in figures else figures["kernel_distance"]
    return distance["mean"], distance["std"]


def manifolds(real: Any, fake: Any, *, precision_neighbours: int = 3, density_neighbours: int = 5) -> dict:
    """Precision, recall, density and coverage of two sets of vectors `[n d]`."""
    neighbours = {"precision": precision_neighbours, "density": density_neighbours}
    figures = _figures(real, fake, neighbours=neighbours)
    return {name: figures[name] for name in ("precision", "recall", "density", "coverage")}


def inception_score(logits: Any, *, splits: int = 10, seed: int = 2020) -> tuple[float, float]:
    """Mean and standard deviation of the Inception Score of logits `[n classes]` over splits."""
    return _native.score_of_logits(to_numpy("logits", logits), splits, seed)
