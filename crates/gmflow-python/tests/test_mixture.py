"""The algebra of mixtures on arrays, against formulas in float64."""

import numpy as np
import pytest

import gmflow
from conftest import toy_mixture


def density(parts, x):
    """The log density of every pixel in float64, [b n c h w] to [b n h w]."""
    means, logweights, logstds = (part.astype(np.float64) for part in parts)
    squares = ((x[:, :, None].astype(np.float64) - means[:, None]) ** 2).sum(3)
    std = logstds[:, None, :, 0]
    c = means.shape[2]
    terms = logweights[:, None, :, 0] - 0.5 * squares * np.exp(-2 * std) - c * std - 0.5 * c * np.log(2 * np.pi)
    top = terms.max(2, keepdims=True)
    return (np.log(np.exp(terms - top).sum(2, keepdims=True)) + top)[:, :, 0]


def close(got, expected, most=2e-5):
    assert np.abs(np.asarray(got) - expected).max() <= most


PARTS = toy_mixture()
MIXTURE = gmflow.GaussianMixture(*PARTS)
POINTS = np.random.default_rng(5).normal(size=(2, 6, 2, 4, 5)).astype(np.float32)


def test_moments():
    means, weights = PARTS[0].astype(np.float64), np.exp(PARTS[1].astype(np.float64))
    mean = (means * weights).sum(1)
    close(MIXTURE.mean(), mean)
    offset = means - mean[:, None]
    var = np.exp(2 * PARTS[2].astype(np.float64))
    covariance = np.einsum("bkihw,bkjhw,bkhw->bhwij", offset, offset, weights[:, :, 0]) + np.eye(2) * var.reshape(2, 1, 1, 1, 1)
    close(MIXTURE.covariance(), covariance)
    of_mean, of_var = MIXTURE.surrogate()
    close(of_mean, mean)
    close(of_var[:, 0], np.trace(covariance, axis1=3, axis2=4) / 2)
    raised = weights**2 / (weights**2).sum(1, keepdims=True)
    close(MIXTURE.mean(power=2), (means * raised).sum(1))


def test_density_entropy_and_divergence():
    expected = density(PARTS, POINTS)
    close(MIXTURE.log_prob(POINTS), expected)
    close(MIXTURE.log_prob(POINTS[:, 0]), expected[:, 0])
    other = toy_mixture(1)
    close(MIXTURE.entropy(samples=POINTS), -expected.mean(1, keepdims=True))
    divergence = (expected - density(other, POINTS)).mean(1, keepdims=True)
    close(MIXTURE.kl_divergence(gmflow.GaussianMixture(*other), samples=POINTS), divergence)
    # One Gaussian: the entropy is known. 4,096 draws, three standard errors of 2 channels.
    one = gmflow.GaussianMixture(PARTS[0][:, :1], np.zeros_like(PARTS[1][:, :1]), PARTS[2])
    known = 2 * (0.5 * np.log(2 * np.pi * np.e) - 0.7)
    assert np.abs(one.entropy(4096, seeds=[1, 2]) - known).max() < 4 / 4096**0.5


def test_draws_have_the_moments_and_depend_on_the_seed_alone():
    draws = MIXTURE.sample(4000, seeds=[7, 8])
    assert draws.shape == (2, 4000, 2, 4, 5)
    scale = np.sqrt(np.trace(MIXTURE.covariance(), axis1=3, axis2=4)).max()
    assert np.abs(draws.mean(1) - MIXTURE.mean()).max() < 5 * scale / 4000**0.5
    second = gmflow.GaussianMixture(*(part[1:] for part in PARTS))
    np.testing.assert_array_equal(second.sample(3, seeds=[8]), MIXTURE.sample(3, seeds=[7, 8])[1:])
    np.testing.assert_array_equal(MIXTURE.sample(seeds=[7, 8]), draws[:, 0])


def test_products_and_powers_of_densities():
    def constant(x):
        # Over the draws of a pixel: the two sides differ by a constant of the pixel.
        assert np.abs(x - x[:, :1]).max() < 2e-4

    rng = np.random.default_rng(2)
    mean, var = rng.normal(size=(2, 2, 4, 5)).astype(np.float32), np.full((2, 1, 4, 5), 1.7, np.float32)
    gaussian = -0.5 * ((POINTS - mean[:, None]) ** 2).sum(2) / 1.7
    for power, of_gaussian in [(1, 1), (2, 1), (1, -0.05)]:
        joint = MIXTURE.conflate(mean, var, power, of_gaussian)
        constant(power * joint.log_prob(POINTS) - power * density(PARTS, POINTS) - of_gaussian * gaussian)
    other = toy_mixture(3, k=4)
    product = MIXTURE * gmflow.GaussianMixture(*other)
    assert product.num_components == 12
    constant(product.log_prob(POINTS) - density(PARTS, POINTS) - density(other, POINTS))


def test_posterior_at_another_point():
    rng = np.random.default_rng(4)
    x_t, x = (rng.normal(size=(2, 2, 4, 5)).astype(np.float32) for _ in range(2))
    t, tau = 0.8, 0.5
    data = MIXTURE.to_data(x_t, t)
    close(data.means, x_t[:, None] - t * PARTS[0])
    close(data.logstds, PARTS[2] + np.log(t))
    same = data.at(x_t, t, x_t, t)
    close(same.mean(), data.mean())
    # p(x0 | x_tau) goes with p(x0 | x_t) N(x_tau; alpha x0, tau) / N(x_t; alpha x0, t).
    moved = data.at(x_t, t, x, tau)

    def evidence(x, t):
        return -0.5 * ((x[:, None] - (1 - t) * POINTS) ** 2).sum(2) / t**2

    both = density([data.means, data.logweights, data.logstds], POINTS) + evidence(x, tau) - evidence(x_t, t)
    left = moved.log_prob(POINTS) - both
    assert np.abs(left - left[:, :1]).max() < 2e-3
    close(data.at(x_t, t, x, 0.0).mean(), x, 1e-4)
    with pytest.raises(gmflow.ConfigError, match="tau"):
        data.at(x_t, t, x, 0.9)


def test_the_transport_is_its_own_inverse():
    normals = np.random.default_rng(6).normal(size=(2, 2, 4, 5)).astype(np.float32)
    for per_pixel in (False, True):
        points = MIXTURE.from_normals(normals, per_pixel=per_pixel)
        close(MIXTURE.to_normals(points, per_pixel=per_pixel), normals, 1e-3)


def test_tempered():
    cold = MIXTURE.tempered(0.5)
    weights = np.exp(2.0 * PARTS[1])
    close(np.exp(cold.logweights), weights / weights.sum(1, keepdims=True))
    close(cold.logstds, PARTS[2] + 0.5 * np.log(0.5))


def test_logits_are_normalised_and_arrays_are_not_copied():
    from gmflow import _arrays

    shifted = gmflow.GaussianMixture(PARTS[0], PARTS[1] + 2, PARTS[2])
    close(shifted.logweights, PARTS[1])
    before = _arrays.copies
    mixture = gmflow.GaussianMixture(*PARTS)
    for got, given in zip((mixture.means, mixture.logweights, mixture.logstds), PARTS):
        assert np.shares_memory(got, given)
    mixture.mean()
    assert _arrays.copies == before
    gmflow.GaussianMixture(PARTS[0].astype(np.float64), *PARTS[1:])
    assert _arrays.copies == before + 1


def test_dlpack_is_taken_without_a_copy():
    class Foreign:
        """An array of a library that NumPy does not know."""

        def __init__(self, array):
            self.array = array

        def __dlpack__(self, **settings):
            return self.array.__dlpack__(**settings)

        def __dlpack_device__(self):
            return self.array.__dlpack_device__()

    mixture = gmflow.GaussianMixture(Foreign(PARTS[0]), *PARTS[1:])
    assert np.shares_memory(mixture.means, PARTS[0])
    close(mixture.mean(), MIXTURE.mean())


def test_what_is_given_is_never_written_to():
    parts = tuple(part.copy() for part in PARTS)
    for part in parts:
        part.setflags(write=False)
    mixture = gmflow.GaussianMixture(*parts)
    mean = mixture.mean()
    mean += 1
    mixture.tempered(0.5), mixture.surrogate(), mixture.covariance(), mixture.sample(2)
    for part, given in zip(parts, PARTS):
        np.testing.assert_array_equal(part, given)
    close(mixture.mean(), mean - 1)


def test_results_outlive_the_mixture():
    import gc

    mean = gmflow.GaussianMixture(*toy_mixture(9)).mean()
    gc.collect()
    junk = [np.full(40, 7.0, np.float32) for _ in range(1000)]
    close(mean, gmflow.GaussianMixture(*toy_mixture(9)).mean())
    del junk


def test_wrong_arrays_are_named():
    means, logweights, logstds = PARTS
    for parts, error, words in [
        ((means[0], logweights, logstds), gmflow.ShapeError, "means: expected 5 axes"),
        ((means, logweights[:, :1], logstds), gmflow.ShapeError, "logweights: expected shape"),
        ((means, logweights, logstds[0]), gmflow.ShapeError, "logstds"),
        ((means * np.inf, logweights, logstds), ValueError, "means: expected finite"),
        ((means, logweights * np.nan, logstds), ValueError, "logweights: expected finite"),
        ((means.astype(np.int32), logweights, logstds), TypeError, "means"),
        ((means.astype(object), logweights, logstds), TypeError, "means"),
    ]:
        with pytest.raises(error, match=words):
            gmflow.GaussianMixture(*parts)
    with pytest.raises(gmflow.ShapeError, match="samples"):
        MIXTURE.log_prob(POINTS[:, :, :1])
    with pytest.raises(gmflow.ConfigError, match="temperature"):
        MIXTURE.tempered(0.0)
    with pytest.raises(gmflow.ConfigError, match="variance"):
        MIXTURE.conflate(np.zeros((2, 2, 4, 5), np.float32), np.zeros((2, 1, 4, 5), np.float32))


def test_tensors_in_tensors_out():
    torch = pytest.importorskip("torch")
    mixture = gmflow.GaussianMixture(*map(torch.from_numpy, PARTS))
    mean = mixture.mean()
    assert isinstance(mean, torch.Tensor)
    close(mean.numpy(), MIXTURE.mean())
    assert mixture.means.data_ptr() == torch.from_numpy(PARTS[0]).data_ptr()
    assert mixture.sample(generator=torch.Generator().manual_seed(1)).shape == (2, 2, 4, 5)
    with pytest.raises(NotImplementedError):
        gmflow.GaussianMixture(torch.zeros(PARTS[0].shape, device="meta"), *map(torch.from_numpy, PARTS[1:]))
