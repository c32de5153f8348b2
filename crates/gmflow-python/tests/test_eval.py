"""Figures, against NumPy and against the program."""

import json

import numpy as np
import pytest

import gmflow
import gmflow.eval as ge


def vectors(n, shift, seed):
    return (np.random.default_rng(seed).normal(size=(n, 6)) + shift).astype(np.float32)


def test_frechet_distance_is_the_formula():
    a, b = vectors(300, 0.0, 1).astype(np.float64), vectors(400, 0.3, 2).astype(np.float64)
    ca, cb = np.cov(a.T), np.cov(b.T)
    values, basis = np.linalg.eigh(ca)
    root = basis * np.sqrt(values)
    trace = np.sqrt(np.maximum(np.linalg.eigvalsh(root.T @ cb @ root), 0)).sum()
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(ca) + np.trace(cb) - 2 * trace
    assert ge.frechet_distance(a, b) == pytest.approx(expected, rel=1e-5)


def test_other_figures_of_vectors():
    a, b = vectors(300, 0.0, 1), vectors(300, 0.0, 2)
    near, far = ge.kernel_distance(a, b, subset_size=100), ge.kernel_distance(a, vectors(300, 2.0, 3), subset_size=100)
    assert abs(near[0]) < 0.05 and far[0] > 1
    same = ge.manifolds(a, a)
    assert same["precision"] == same["recall"] == same["coverage"] == 1.0
    assert ge.manifolds(a, vectors(300, 9.0, 3))["precision"] == 0.0
    score, spread = ge.inception_score(np.eye(10, dtype=np.float32)[np.arange(1000) % 10] * 50, splits=2)
    assert score == pytest.approx(10.0, rel=0.02) and spread < 0.2


def test_images_as_arrays_bytes_folders_and_pictures(tmp_path):
    PIL = pytest.importorskip("PIL.Image")
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, size=(40, 8, 8, 3), dtype=np.uint8)
    floats = pixels.transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
    for index, image in enumerate(pixels):
        PIL.fromarray(image).save(tmp_path / f"{index:03}.png")
    sets = [
        ge.features(floats, "pixels"),
        ge.features(pixels, "pixels"),
        ge.features([PIL.fromarray(image) for image in pixels], "pixels"),
        ge.features(tmp_path, "pixels"),
    ]
    for one in sets:
        assert len(one) == 40
        np.testing.assert_allclose(one.vectors, sets[0].vectors, atol=1e-6)
    sets[0].save(tmp_path / "set.safetensors")
    figures = ge.compare(tmp_path / "set.safetensors", tmp_path, "pixels", kid_subset_size=10)
    assert figures["frechet_distance"] == pytest.approx(0.0, abs=1e-6) and figures["precision"] == 1.0
    assert "40" in repr(sets[0])


def test_grey_folders_are_read_like_what_they_are_compared_with(tmp_path):
    PIL = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 256, size=(40, 8, 8), dtype=np.uint8)
    (tmp_path / "fake").mkdir()
    for index, image in enumerate(pixels):
        PIL.fromarray(image).save(tmp_path / "fake" / f"{index:03}.png")
    grey = pixels[:, None].astype(np.float32) / 127.5 - 1
    assert ge.features(tmp_path / "fake", "pixels").vectors.shape == (40, 3 * 64)
    np.testing.assert_allclose(ge.features(tmp_path / "fake", "pixels", like=(1, 8, 8)).vectors, grey.reshape(40, -1), atol=1e-6)
    figures = ge.compare(grey, tmp_path / "fake", "pixels", kid_subset_size=10)
    assert figures["frechet_distance"] == pytest.approx(0.0, abs=1e-6) and figures["precision"] == 1.0


def test_grey_folders_have_the_figures_of_the_program(mnist, binary, tmp_path):
    pytest.importorskip("PIL")
    real, fake = mnist(num_samples=30, num_inference_steps=2), mnist(num_samples=30, seeds=100, num_inference_steps=1)
    real.save(tmp_path / "real.safetensors")
    fake.save(tmp_path / "fake")
    arguments = ("--real", tmp_path / "real.safetensors", "--fake", tmp_path / "fake", "--features", "pixels", "--kid-subset-size", 10, "--json")
    theirs = json.loads(binary("eval", *arguments))[0]["metrics"]
    ours = ge.compare(tmp_path / "real.safetensors", tmp_path / "fake", "pixels", kid_subset_size=10)
    assert ours["frechet_distance"] == pytest.approx(theirs["frechet_distance"], rel=1e-6)
    assert (ours["precision"], ours["recall"]) == (theirs["precision"], theirs["recall"])


def test_figures_are_those_of_the_program(mnist, binary, tmp_path):
    real, fake = mnist(num_samples=60, num_inference_steps=4), mnist(num_samples=50, seeds=100, num_inference_steps=1)
    real.save(tmp_path / "real.npz")
    fake.save(tmp_path / "fake.npz")
    arguments = ("--real", tmp_path / "real.npz", "--fake", tmp_path / "fake.npz", "--features", "pixels", "--kid-subset-size", 20, "--json")
    theirs = json.loads(binary("eval", *arguments))[0]["metrics"]
    ours = ge.compare(tmp_path / "real.npz", tmp_path / "fake.npz", "pixels", kid_subset_size=20)
    assert ours["frechet_distance"] == pytest.approx(theirs["frechet_distance"], rel=1e-6)
    assert ours["kernel_distance"]["mean"] == pytest.approx(theirs["kernel_distance"]["mean"], rel=1e-6)
    assert (ours["precision"], ours["recall"], ours["coverage"]) == (theirs["precision"], theirs["recall"], theirs["coverage"])
    arrays = ge.compare(real.images, fake.images, "pixels", kid_subset_size=20)
    assert arrays["frechet_distance"] == pytest.approx(theirs["frechet_distance"], rel=1e-4)


def test_wrong_sets_are_named(tmp_path):
    a = vectors(30, 0.0, 1)
    with pytest.raises(gmflow.ConfigError, match="columns"):
        ge.frechet_distance(a, a[:, :3])
    with pytest.raises(gmflow.ConfigError, match="finite"):
        ge.frechet_distance(a, a * np.nan)
    with pytest.raises(gmflow.ConfigError, match="features"):
        ge.features(np.zeros((2, 1, 4, 4), np.float32), "magic")
    with pytest.raises(gmflow.ShapeError, match="images"):
        ge.features(np.zeros((2, 4, 4), np.float32), "pixels")
    with pytest.raises((gmflow.FileError, gmflow.DataError)):
        ge.features(tmp_path / "nothing.npz", "pixels")
