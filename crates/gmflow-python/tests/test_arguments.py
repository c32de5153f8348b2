"""Arguments that are not what they should be, and those that look unusual but are right."""

import numpy as np
import pytest

import gmflow
import gmflow.eval
from conftest import ROOT, gaussian_mixture_data, toy_mixture

ONE = dict(num_inference_steps=1, output_type="raw")
MIXTURE = gmflow.GaussianMixture(*toy_mixture())


def refused(words, call, error=gmflow.ConfigError):
    with pytest.raises(error) as raised:
        call()
    assert words in str(raised.value), str(raised.value)


def draw(function=gaussian_mixture_data, shape=(1, 2, 2), **settings):
    return gmflow.sample(function, shape, **{"framework": "numpy", "steps": 1, **settings})


@pytest.mark.parametrize(
    "shape, words",
    [
        ((0, 8, 8), "shape.0: expected at least 1, got 0"),
        ((2, 1, -8, 8), "shape.2: expected at least 1, got -8"),
        ((1.5, 8, 8), "shape.0: expected a whole number of at least 1, got 1.5"),
        ((8, 8), "shape: expected (c, h, w) or (b, c, h, w), got (8, 8)"),
        (8, "shape: expected (c, h, w) or (b, c, h, w), got 8"),
    ],
)
def test_shapes(shape, words):
    refused(words, lambda: draw(lambda x, t: x, shape, seeds=[1], solver="euler"), gmflow.ShapeError)


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(seeds=-1), "seeds: expected at least 0 and at most 2**64 - 1, got -1"),
        (dict(seeds=2**64), "seeds: expected at least 0 and at most 2**64 - 1, got 18446744073709551616"),
        (dict(seeds=2**64 - 1, num_samples=3), "seeds: expected at most 2**64 - 3 as the first of 3"),
        (dict(seeds=[1.5]), "seeds: expected a whole number of at least 0 and at most 2**64 - 1, got 1.5"),
        (dict(seeds=[True]), "got True"),
        (dict(seeds="12"), "seeds: expected a whole number or a list of them, got the text '12'"),
        (dict(seeds=[]), "samples: expected at least 1, got 0"),
        (dict(seeds=[1, 2], num_samples=3), "seeds: expected 3, one for each sample, got 2"),
        (dict(class_labels=[1.5]), "class_labels: expected a whole number of at least 0, got 1.5"),
        (dict(class_labels=[True]), "class_labels: expected a whole number of at least 0, got True"),
        (dict(class_labels={1: 2}), "class_labels: expected a whole number of at least 0, got a dict"),
        (dict(class_labels=-1), "class_labels: expected at least 0, got -1"),
        (dict(class_labels=[]), "class_labels: expected at least one label"),
        (dict(class_labels=[1, 2], seeds=[1]), "class_labels: expected at most 1, one for each sample, got 2"),
        (dict(class_labels="1,2", seeds=[1]), "class_labels: expected at most 1, one for each sample, got 2"),
        (dict(class_labels=[1, 2, 3], num_samples=2), "class_labels: expected at most 2, one for each sample, got 3"),
        (dict(num_samples=-1), "num_samples: expected at least 1, got -1"),
        (dict(num_inference_steps=-1), "num_inference_steps: expected at least 1, got -1"),
        (dict(num_inference_steps=1.5), "num_inference_steps: expected a whole number of at least 1, got 1.5"),
        (dict(batch_size=0), "batch_size: expected at least 1, got 0"),
        (dict(guidance_scale=np.nan), "guidance_scale: expected a number in [0, 1), got nan"),
        (dict(guidance_scale=1), "guidance_scale: expected a number in [0, 1), got 1"),
        (dict(cfg=np.inf), "cfg: expected a finite number, got inf"),
        (dict(generator=5), "generator: expected a numpy.random.Generator, a torch.Generator or a list of them, got 5"),
        (dict(generator=np.random.RandomState(1)), "got a RandomState"),
    ],
)
def test_settings_of_a_pipeline(settings, words, mnist):
    refused(words, lambda: mnist(**{**ONE, **settings}))


def test_numbers_of_numpy_are_numbers(mnist):
    plain = mnist([1, 2], seeds=[5, 6], num_inference_steps=2, guidance_scale=0.25, order=1, output_type="raw")
    for seeds in (np.arange(5, 7), np.int64(5), np.array(5), (np.uint64(5), 6), range(5, 7)):
        labels = np.array([1, 2], np.int32)
        numbers = dict(num_inference_steps=np.int64(2), guidance_scale=np.float32(0.25), order=np.int64(1), batch_size=np.int32(2))
        same = mnist(labels, seeds=seeds, output_type="raw", num_samples=np.int64(2), **numbers)
        assert same.seeds == [5, 6] and same.class_labels == [1, 2]
        np.testing.assert_array_equal(same.images, plain.images)
    assert mnist(seeds=np.uint64(2**64 - 1), **ONE).seeds == [2**64 - 1]
    assert mnist(seeds=np.array(7), **ONE).seeds == [7] and draw(seeds=np.array(7)).shape == (1, 1, 2, 2)
    x = draw(seeds=[1], steps=np.int64(2), order=np.int32(2), shift=np.float32(1.0), shape=np.array([1, 2, 2]))
    np.testing.assert_array_equal(x, draw(seeds=[1], steps=2, order=2))


def test_numbers_of_numpy_in_a_configuration():
    from test_training import CONFIG

    train = dict(batch_size=np.int64(64), steps=np.int32(5), seed=np.uint8(3))
    plain, same = gmflow.Trainer(CONFIG), gmflow.Trainer(dict(CONFIG, train=train), overrides={"train.steps": np.int64(5)})
    assert plain.config == same.config


def test_files_are_not_overwritten(mnist, tmp_path):
    pytest.importorskip("PIL")
    drawn = mnist([1, 2], num_inference_steps=1)
    refused("path: expected a folder, or grid=True for one picture, got ab.png", lambda: drawn.save(tmp_path / "ab.png"))
    refused("path: expected a name such as grid.png with grid=True, got ab.npz", lambda: drawn.save(tmp_path / "ab.npz", grid=True))
    assert not list(tmp_path.iterdir())
    for name, grid in (("ab.png", True), ("ab.npz", False), ("ab", False)):
        drawn.save(tmp_path / name, grid=grid)
        refused("exists already; force=True overwrites it", lambda: drawn.save(tmp_path / name, grid=grid), gmflow.FileError)
        drawn.save(tmp_path / name, grid=grid, force=True)
    (tmp_path / "empty").mkdir()
    drawn.save(tmp_path / "empty")
    assert len(list((tmp_path / "empty").iterdir())) == 2


def test_the_precision_is_said(mnist):
    assert mnist.info["precision"] == "f32" and "f32" in repr(mnist)
    assert gmflow.Pipeline.from_pretrained(ROOT / "models" / "mnist").info["precision"] in ("f32", "bf16")
    for precision in (None, 16, "f16"):
        refused(
            "precision: expected auto, f32, bf16 or int8, got",
            lambda: gmflow.Pipeline.from_pretrained(ROOT / "models" / "mnist", precision=precision),
        )


@pytest.mark.parametrize(
    "settings, words",
    [
        (dict(steps=-1), "steps: expected at least 1, got -1"),
        (dict(guidance_scale=np.nan), "guidance_scale: expected a number in [0, 1), got nan"),
        (dict(shift=np.nan), "shift: expected a finite number, got nan"),
        (dict(framework="jax"), "framework: expected numpy or torch, got the text 'jax'"),
        (dict(class_labels=[1.5], num_classes=3), "class_labels: expected a whole number of at least 0, got 1.5"),
        (dict(class_labels="12", num_classes=3), "class_labels: expected a whole number of at least 0, got the text '12'"),
        (dict(num_classes=-1), "num_classes: expected at least 0, got -1"),
        (dict(seeds=2**64), "seeds"),
        (dict(seeds=[]), "seeds"),
    ],
)
def test_settings_of_sample(settings, words):
    try:
        draw(**settings)
    except (gmflow.ConfigError, gmflow.ShapeError) as error:
        assert words in str(error) or settings == dict(seeds=[]), str(error)
    else:
        pytest.fail("expected an error")


@pytest.mark.parametrize(
    "predicted, error, words",
    [
        (None, TypeError, "prediction: expected a dict of means, logweights and logstds, or an array of velocities, got None"),
        ("text", TypeError, "got the text 'text'"),
        ([1.0, 2.0], TypeError, "got a list of 2 float"),
        ([[[[0.0] * 2] * 2]], TypeError, "got a list of 1 list"),
        ({"means": 0, "logits": 0}, KeyError, "prediction: expected means, logweights and logstds, got means, logits"),
    ],
)
def test_what_a_function_returns(predicted, error, words):
    for solver in (None, "euler"):
        refused(words, lambda: draw(lambda x, t: predicted, solver=solver), error)
    if error is TypeError:
        refused("prediction: expected", lambda: gmflow.GaussianMixture.of(predicted), error)


def test_a_callback_that_returns_what_is_not_known(mnist):
    refused(
        "callback_on_step_end: expected latents or nothing back, got prompt_embeds",
        lambda: mnist(callback_on_step_end=lambda *_: {"prompt_embeds": 0}, **ONE),
    )


def test_times_of_predictions(mnist):
    x = np.zeros((2, 1, 28, 28), np.float32)
    mnist.predict(x, 1)
    for t, got in ((0, "0.0"), (1.5, "1.5"), (np.array([0.5, -1]), "-1.0")):
        refused(f"t: expected times in (0, 1], got {got}", lambda: mnist.predict(x, t))
    refused("class_labels: expected a whole number of at least 0, got 1.5", lambda: mnist.predict(x, 0.5, [1.5, 1]))


def test_counts():
    assert {"train", "Trainer", "eval", "sample"} <= set(dir(gmflow))
    refused("n: expected at least 0, got -1", lambda: MIXTURE.sample(-1))
    refused("n: expected at least 1, got 0", lambda: MIXTURE.entropy(0))
    refused("threads: expected at least 1, got -1", lambda: gmflow.set_num_threads(-1))


def test_sets_that_are_not_there(tmp_path):
    images, nothing = np.zeros((4, 1, 4, 4), np.float32), tmp_path / "nothing"
    refused("real: expected a file or folder", lambda: gmflow.eval.compare(nothing, images, "pixels"), gmflow.NotFoundError)
    refused("fake: expected a file or folder", lambda: gmflow.eval.compare(images, nothing, "pixels"), gmflow.NotFoundError)
    refused("fake: expected a file or folder", lambda: gmflow.eval.frechet_distance(images[:, 0, 0], nothing), gmflow.NotFoundError)
