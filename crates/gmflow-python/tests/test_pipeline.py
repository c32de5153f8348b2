"""`gmflow.Pipeline` against the program."""

import io
import json
import threading

import numpy as np
import pytest

import gmflow
from conftest import ROOT

PIL = pytest.importorskip("PIL.Image")


def test_what_is_chosen_is_one_of_two_and_is_said(binary, tmp_path):
    drawn = gmflow.Pipeline.from_pretrained(ROOT / "models" / "mnist")(1, num_inference_steps=1)
    chosen = drawn.made_by["precision"]
    assert chosen in ("f32", "bf16")
    binary("sample", "--checkpoint", "models/mnist", "--class", 1, "--num", 1, "--steps", 1, "--precision", chosen, "--out", tmp_path / "out")
    with PIL.open(tmp_path / "out" / "000000.png") as picture:
        np.testing.assert_array_equal(np.asarray(drawn.images[0]), np.asarray(picture))


@pytest.mark.parametrize("precision", ["f32", "bf16"])
def test_pictures_are_those_of_the_program_pixel_for_pixel(precision, binary, tmp_path):
    mnist = gmflow.Pipeline.from_pretrained(ROOT / "models" / "mnist", precision=precision)
    for options, settings in [
        ((), {}),
        (("--steps", 4, "--guidance", 0.3, "--class", 7), dict(num_inference_steps=4, guidance_scale=0.3, class_labels=7)),
        (("--solver", "gm-sde", "--steps", 3, "--seed", 5), dict(solver="gm-sde", num_inference_steps=3, seeds=range(5, 8))),
        (("--solver", "euler", "--cfg", 2.0), dict(solver="euler", cfg=2.0)),
    ]:
        out = tmp_path / str(len(list(tmp_path.iterdir())))
        binary("sample", "--checkpoint", "models/mnist", "--precision", precision, "--num", 3, "--out", out, *options)
        drawn = mnist(num_samples=3, **settings)
        for seed, image in zip(drawn.seeds, drawn.images):
            with PIL.open(out / f"{seed:06}.png") as picture:
                np.testing.assert_array_equal(np.asarray(image), np.asarray(picture))
        drawn.save(out / "ours")
        drawn.save(out / "grid.png", grid=True)
        drawn.save(out / "samples.npz")
        assert sorted(file.name for file in (out / "ours").iterdir()) == [f"{seed:06}.png" for seed in drawn.seeds]
        np.testing.assert_array_equal(np.load(out / "samples.npz")["samples"], mnist(num_samples=3, output_type="raw", **settings).images)


def test_the_forms_of_output_agree(mnist):
    settings = dict(class_labels=[3, 8], num_inference_steps=2)
    raw = mnist(output_type="raw", **settings).images
    assert raw.shape == (2, 1, 28, 28) and raw.dtype == np.float32
    unit = mnist(output_type="np", **settings).images
    assert unit.shape == (2, 28, 28, 1) and unit.min() >= 0 and unit.max() <= 1
    np.testing.assert_allclose(unit[..., 0], np.clip(raw[:, 0] / 2 + 0.5, 0, 1))
    output = mnist(**settings)
    np.testing.assert_allclose(np.asarray(output.images[1]), 255 * unit[1, :, :, 0], atol=0.51)
    assert output.class_labels == [3, 8] and output.seeds == [0, 1]
    assert output.made_by["steps"] == 2 and output["images"] is output.images
    assert mnist(return_dict=False, output_type="raw", **settings)[0].shape == raw.shape
    with PIL.open(io.BytesIO(output._repr_png_())) as grid:
        assert grid.size[0] > 28


def test_seeds_names_and_generators(mnist):
    settings = dict(num_inference_steps=2, output_type="raw")
    both = mnist(["7", 3], seeds=[2**64 - 1, 4], **settings)
    assert both.class_labels == [7, 3] and both.seeds == [2**64 - 1, 4]
    np.testing.assert_allclose(mnist(3, seeds=[4], **settings).images, both.images[1:], atol=1e-5)
    generators = [np.random.default_rng(i) for i in range(2)]
    assert len(set(mnist([1, 2], generator=generators, **settings).seeds)) == 2


def test_a_callback_follows_and_stops(mnist):
    steps = []
    mnist(1, num_inference_steps=3, callback_on_step_end=lambda pipe, step, t, kwargs: steps.append(step) or kwargs)
    assert steps == [0, 1, 2]

    def interrupt(pipe, step, t, kwargs):
        pipe._interrupt = step == 1
        return kwargs

    with pytest.raises(gmflow.Cancelled):
        mnist(1, num_inference_steps=4, callback_on_step_end=interrupt)
    mnist(1, num_inference_steps=1)

    def failing(*_):
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        mnist(1, num_inference_steps=4, callback_on_step_end=failing)


def test_noise_may_be_given(mnist):
    settings = dict(num_inference_steps=2, output_type="raw")
    noise = np.asarray(gmflow._native.initial_noise([5, 6, 7], [1, 28, 28]))
    expected = mnist([1, 2, 3], seeds=[5, 6, 7], **settings).images
    drawn = mnist([1, 2, 3], noise=noise, batch_size=2, **settings)
    np.testing.assert_allclose(drawn.images, expected, atol=1e-5)
    assert "array" in str(drawn.made_by)
    assert len(mnist(4, noise=noise, **settings).images) == 3
    with pytest.raises(gmflow.ShapeError, match="noise"):
        mnist([1, 2], noise=noise, num_samples=2, **settings)
    with pytest.raises(ValueError, match="finite"):
        mnist([1, 2, 3], noise=noise * np.nan, **settings)


def test_a_callback_sees_and_replaces_latents(mnist):
    settings = dict(class_labels=[1, 2], num_inference_steps=3, output_type="raw")
    plain = mnist(**settings).images
    seen = []

    def look(pipe, step, t, kwargs):
        seen.append((step, t, np.array(kwargs["latents"])))
        return kwargs

    np.testing.assert_array_equal(mnist(callback_on_step_end=look, **settings).images, plain)
    assert [(step, round(t)) for step, t, _ in seen] == [(0, 1000), (1, 667), (2, 333)]
    assert seen[0][2].shape == (2, 1, 28, 28)
    np.testing.assert_array_equal(seen[-1][2], plain)

    def swap(pipe, step, t, kwargs):
        return {"latents": kwargs["latents"] * 0} if step == 1 else None

    swapped = mnist(callback_on_step_end=swap, **settings).images
    assert np.abs(swapped - plain).max() > 0.1
    # In place.
    def write(pipe, step, t, kwargs):
        kwargs["latents"][:] = 0.25
        return kwargs

    np.testing.assert_array_equal(mnist(callback_on_step_end=write, **settings).images, np.full_like(plain, 0.25))
    mnist(callback_on_step_end=lambda *a: seen.append(a[3]), callback_on_step_end_tensor_inputs=[], **settings)
    assert seen[-1] == {}
    with pytest.raises(gmflow.ShapeError, match="latents"):
        mnist(callback_on_step_end=lambda *a: {"latents": np.zeros((1, 1, 28, 28), np.float32)}, **settings)
    with pytest.raises(ValueError, match="tensor_inputs"):
        mnist(callback_on_step_end=look, callback_on_step_end_tensor_inputs=["prompt"], **settings)


def test_the_network_as_a_function_gives_the_samples_of_the_pipeline(mnist):
    for solver in ("gm-ode", "euler"):
        x = gmflow.sample(
            lambda x, t, labels: mnist.predict(x, t, labels).as_dict(),
            (1, 28, 28),
            class_labels=[7, 2],
            num_classes=10,
            seeds=[5, 6],
            steps=4,
            solver=solver,
            guidance_scale=0.2,
            reweight_by="pixel",
            framework="numpy",
            second_order=mnist.info.get("second_order"),
        )
        expected = mnist([7, 2], seeds=[5, 6], num_inference_steps=4, solver=solver, output_type="raw").images
        np.testing.assert_allclose(x, expected, atol=1e-5)


def test_errors_say_what_is_wrong(mnist, tmp_path):
    with pytest.raises(gmflow.NotFoundError):
        gmflow.Pipeline.from_pretrained(tmp_path / "nothing" / "here" / "at all")
    with pytest.raises(FileNotFoundError):
        gmflow.Pipeline.from_pretrained("/nowhere/at/all")
    broken = tmp_path / "model.json"
    broken.write_text("{")
    with pytest.raises(gmflow.FileError, match="model.json"):
        gmflow.Pipeline.from_pretrained(tmp_path)
    for settings, words in [
        (dict(guidance_scale=2.0), "guidance"),
        (dict(num_inference_steps=0), "steps"),
        (dict(solver="magic"), "gm-ode"),
        (dict(class_labels="eleven"), "eleven"),
        (dict(class_labels=10), "10"),
        (dict(nonsense=3), "nonsense"),
        (dict(batch_size=0), "batch"),
    ]:
        with pytest.raises(gmflow.ConfigError, match=words):
            mnist(**settings)
    with pytest.raises(ValueError, match="output_type"):
        mnist(output_type="gif")
    with pytest.raises(gmflow.ConfigError, match="ema"):
        gmflow.Pipeline.from_pretrained(ROOT / "models" / "mnist", ema="nothing")
    with pytest.raises(gmflow.ShapeError):
        mnist.predict(np.zeros((2, 1, 28, 28), np.float32), np.zeros(3, np.float32))
    with pytest.raises(gmflow.ConfigError, match="class_labels"):
        mnist.predict(np.zeros((1, 1, 28, 28), np.float32), 0.5, [11])


def test_repr(mnist):
    assert "gm-dit" in repr(mnist) and "8 components" in repr(mnist)
    assert "2 images" in repr(mnist([1, 2], num_inference_steps=1))
    assert json.dumps(mnist.info)


def test_eight_threads_draw_what_one_draws(mnist):
    expected = [mnist(i, seeds=[i], num_inference_steps=2, output_type="raw").images for i in range(8)]
    got, errors = [None] * 8, []

    def draw(i):
        try:
            for _ in range(3):
                got[i] = mnist(i, seeds=[i], num_inference_steps=2, output_type="raw").images
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=draw, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    for one, other in zip(got, expected):
        np.testing.assert_array_equal(one, other)


def test_another_thread_runs_meanwhile(mnist):
    """The interpreter is free while samples are drawn: another thread counts in the meantime."""
    counted, done = 0, threading.Event()

    def draw():
        mnist([1] * 16, num_inference_steps=8)
        done.set()

    thread = threading.Thread(target=draw)
    thread.start()
    while not done.is_set():
        counted += 1
        done.wait(1e-4)
    thread.join()
    assert counted > 3
