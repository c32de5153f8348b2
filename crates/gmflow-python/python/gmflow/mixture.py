"""Gaussian mixtures, one at every pixel, and what is known of them in closed form."""

from __future__ import annotations

from typing import Any

from . import _native
from ._arrays import from_native, seeds_of, to_numpy
from ._checks import whole
from .sampling import mixture_parts, no_mixture


class GaussianMixture:
    """One isotropic mixture of K Gaussians at every pixel, (4) of the paper.

    Args:
        means: `[b k c h w]`.
        logweights: `[b k 1 h w]`; normalised over k here.
        logstds: The natural logarithm of the standard deviation, `[b 1 1 1 1]`; axes k, h and w may be full where a method says so.

    Arrays of NumPy, or tensors of PyTorch; results are of the same kind and on the same device. What is `float32` in C order on the CPU is
    not copied. Gradients are not recorded: :mod:`gmflow.torch` has the losses that record them.
    """

    def __init__(self, means: Any, logweights: Any, logstds: Any):
        self._like = means
        parts = [to_numpy(name, x) for name, x in (("means", means), ("logweights", logweights), ("logstds", logstds))]
        parts[1] = _normalised(parts[1])
        self._parts = tuple(parts)
        _native.mixture_check(self._parts)

    @classmethod
    def of(cls, prediction: Any) -> "GaussianMixture":
        """The mixture of a network's output: a dict or an object with `means`, `logweights` and `logstds`."""
        parts = mixture_parts(prediction)
        if parts is None:
            raise no_mixture(prediction)
        return cls(*parts)

    @classmethod
    def _of_native(cls, parts: Any, like: Any) -> "GaussianMixture":
        self = cls.__new__(cls)
        self._like = like
        self._parts = tuple(from_native(part) for part in parts)
        return self

    def _out(self, buffer: Any) -> Any:
        return from_native(buffer, self._like)

    @property
    def means(self) -> Any:
        """Component means `[b k c h w]`."""
        return self._out(self._parts[0])

    @property
    def logweights(self) -> Any:
        """Normalised log weights `[b k 1 h w]`."""
        return self._out(self._parts[1])

    @property
    def logstds(self) -> Any:
        """The logarithm of the standard deviation, `[b 1 1 1 1]`."""
        return self._out(self._parts[2])

    @property
    def num_components(self) -> int:
        """K."""
        return self._parts[0].shape[1]

    def as_dict(self) -> dict:
        """`means`, `logweights` and `logstds`, as the authors' networks return them."""
        return {"means": self.means, "logweights": self.logweights, "logstds": self.logstds}

    def mean(self, power: float = 1.0) -> Any:
        """The mean `[b c h w]`, (11); with `power`, of the mixture whose weights are raised to it and renormalised."""
        return self._out(_native.mixture_mean(self._parts, float(power)))

    def surrogate(self) -> tuple[Any, Any]:
        """Mean `[b c h w]` and variance `[b 1 h w]` of the isotropic Gaussian with the mixture's moments, (11) and (12)."""
        mean, var = _native.mixture_surrogate(self._parts)
        return self._out(mean), self._out(var)

    def covariance(self) -> Any:
        """The covariance of every pixel `[b h w c c]`."""
        return self._out(_native.mixture_covariance(self._parts))

    def log_prob(self, samples: Any) -> Any:
        """The log density at samples `[b c h w]` or `[b n c h w]`, summed over channels: `[b h w]` or `[b n h w]`, in nats."""
        array, single = _draws("samples", samples)
        out = self._out(_native.mixture_log_prob(self._parts, array))
        return out[:, 0] if single else out

    def sample(self, n: int | None = None, *, seeds: Any = None, generator: Any = None) -> Any:
        """Draws `[b c h w]`, or `[b n c h w]`, every pixel by itself. Each of the batch has a seed, from 0 on where none are given."""
        wanted = seeds_of(seeds, self._parts[0].shape[0], generator)
        out = self._out(_native.mixture_sample(self._parts, wanted, 1 if n is None else whole("n", n, 0)))
        return out[:, 0] if n is None else out

    def entropy(self, n: int = 64, *, seeds: Any = None, generator: Any = None, samples: Any = None) -> Any:
        """The entropy of every pixel in nats, `[b 1 h w]`: the mean over `n` draws, or over `samples` `[b n c h w]` of this mixture."""
        samples = self.sample(whole("n", n, 1), seeds=seeds, generator=generator) if samples is None else samples
        return self._out(_native.mixture_entropy(self._parts, to_numpy("samples", samples)))

    def kl_divergence(self, other: "GaussianMixture", n: int = 64, *, seeds: Any = None, generator: Any = None, samples: Any = None) -> Any:
        """The Kullback-Leibler divergence from `other` in nats, `[b 1 h w]`: the mean over `n` draws of this mixture."""
        samples = self.sample(whole("n", n, 1), seeds=seeds, generator=generator) if samples is None else samples
        return self._out(_native.mixture_kl(self._parts, other._parts, to_numpy("samples", samples)))

    def to_data(self, x_t: Any, t: Any) -> "GaussianMixture":
        """A mixture over the velocity, predicted at `x_t` `[b c h w]` and `t` (a number or `[b]`), as one over x0 = x_t - t u."""
        import numpy as np

        times = to_numpy("t", t)
        times = np.ascontiguousarray(np.broadcast_to(times, (self._parts[0].shape[0],)), np.float32) if times.ndim == 0 else times
        return self._of_native(_native.mixture_to_data(self._parts, to_numpy("x_t", x_t), times), self._like)

    def at(self, x_t: Any, t: float, x: Any, tau: float) -> "GaussianMixture":
        """The posterior over x0 at another point `x` `[b c h w]` and an earlier time `tau` <= t, of a mixture over x0 that was predicted at
        `x_t` and `t`, without the network, (10)."""
        start, end = (to_numpy("x_t", x_t), float(t)), (to_numpy("x", x), float(tau))
        return self._of_native(_native.mixture_at(self._parts, start, end), self._like)

    def conflate(self, mean: Any, variance: Any, power: float = 1.0, gaussian_power: float = 1.0) -> "GaussianMixture":
        """The mixture m with m^power = this^power times the Gaussian^gaussian_power, (43) to (50), for a Gaussian with mean `[b c h w]` and
        variance `[b 1 h w]`. A negative power divides."""
        gaussian = (to_numpy("mean", mean), to_numpy("variance", variance))
        return self._of_native(_native.mixture_conflate(self._parts, gaussian, float(power), float(gaussian_power)), self._like)

    def __mul__(self, other: "GaussianMixture") -> "GaussianMixture":
        """The product of the densities, renormalised: K times K' components."""
        if not isinstance(other, GaussianMixture):
            return NotImplemented
        return self._of_native(_native.mixture_product(self._parts, other._parts), self._like)

    def tempered(self, temperature: float) -> "GaussianMixture":
        """The mixture at a temperature in (0, 1]: log weights are divided by it, variances multiplied."""
        return self._of_native(_native.mixture_tempered(self._parts, float(temperature)), self._like)

    def from_normals(self, normals: Any, *, per_pixel: bool = False) -> Any:
        """Standard normals `[b c h w]` to points of the mixture by the Knothe-Rosenblatt transport: along the eigenvectors of the sample's
        covariance, or of each pixel's own where `per_pixel` says so."""
        return self._out(_native.mixture_transport(self._parts, to_numpy("normals", normals), False, per_pixel))

    def to_normals(self, points: Any, *, per_pixel: bool = False) -> Any:
        """Points `[b c h w]` to the standard normals that they come from: the inverse of :meth:`from_normals`."""
        return self._out(_native.mixture_transport(self._parts, to_numpy("points", points), True, per_pixel))

    def __repr__(self) -> str:
        b, k, c, h, w = self._parts[0].shape
        return f"<gmflow.GaussianMixture of {k} components in {c} dimensions, batch {b}, {h}x{w} pixels>"


def _draws(what: str, samples: Any) -> tuple[Any, bool]:
    array = to_numpy(what, samples)
    return (array[:, None], True) if array.ndim == 4 else (array, False)


def _normalised(logweights: Any) -> Any:
    """Log weights with a log-sum-exp of 0 over k; the same array where it has it already."""
    import numpy as np

    if logweights.ndim != 5 or not np.isfinite(logweights).all():
        return logweights  # Refused by the library, which says why.
    top = logweights.max(axis=1, keepdims=True)
    total = np.log(np.exp(logweights - top).sum(axis=1, keepdims=True)) + top
    return logweights if np.abs(total).max() < 1e-5 else logweights - total
