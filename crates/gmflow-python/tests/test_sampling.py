"""`gmflow.sample` with functions of Python."""

import numpy as np
import pytest

import gmflow
from conftest import ROOT, gaussian_data, gaussian_mixture_data


def test_samples_have_the_distribution_that_the_function_knows():
    x = gmflow.sample(gaussian_mixture_data, (1, 40, 50), seeds=[3, 4], steps=8, framework="numpy")
    assert x.shape == (2, 1, 40, 50) and x.dtype == np.float32
    # 4,000 draws of a normal: three standard errors of mean and deviation.
    assert abs(x.mean() - 0.5) < 3 * 0.3 / 4000**0.5
    assert abs(x.std() - 0.3) < 3 * 0.3 / 8000**0.5


def test_a_plain_velocity_is_integrated():
    def velocity(x, t):
        return gaussian_data(x, t)[0]

    x = gmflow.sample(velocity, (1, 40, 50), seeds=[3, 4], steps=64, solver="euler", framework="numpy")
    assert abs(x.std() - 0.3) < 0.02
    with pytest.raises(TypeError, match="solver: expected a name"):
        gmflow.sample(velocity, (1, 2, 2), framework="numpy")


@pytest.mark.parametrize("solver", sorted(set(gmflow.solvers()) - {"pi-flow"}))
def test_every_solver_takes_a_function(solver):
    x = gmflow.sample(gaussian_mixture_data, (1, 4, 4), seeds=[0], steps=4, solver=solver, framework="numpy")
    assert x.shape == (1, 1, 4, 4) and np.isfinite(x).all()


def test_a_seed_gives_the_same_sample_in_any_batch():
    many = gmflow.sample(gaussian_mixture_data, (1, 4, 4), seeds=[5, 6, 2**64 - 1], solver="gm-sde", framework="numpy")
    one = gmflow.sample(gaussian_mixture_data, (1, 4, 4), seeds=[2**64 - 1], solver="gm-sde", framework="numpy")
    np.testing.assert_array_equal(many[2:], one)
    shape = gmflow.sample(gaussian_mixture_data, (3, 1, 4, 4), solver="gm-sde", framework="numpy")
    np.testing.assert_array_equal(
        shape, gmflow.sample(gaussian_mixture_data, (1, 4, 4), seeds=[0, 1, 2], solver="gm-sde", framework="numpy")
    )


def test_a_generator_gives_seeds_and_can_be_shared():
    def draw(generator):
        return gmflow.sample(gaussian_mixture_data, (2, 1, 4, 4), generator=generator, framework="numpy")

    generator = np.random.default_rng(1)
    first, second = draw(generator), draw(generator)
    np.testing.assert_array_equal(first, draw(np.random.default_rng(1)))
    assert not np.array_equal(first, second)
    with pytest.raises(TypeError, match="seeds"):
        gmflow.sample(gaussian_mixture_data, (1, 4, 4), seeds=[1], generator=generator)


def test_classes_and_guidance_reach_the_function():
    calls = []

    def function(x, t, labels):
        calls.append((len(x), t.tolist(), labels.tolist()))
        out = gaussian_mixture_data(x, t)
        out["means"] = out["means"] + 0.1 * labels.reshape(-1, 1, 1, 1, 1).astype(np.float32)
        return out

    gmflow.sample(function, (1, 2, 2), class_labels=[1, 2], num_classes=10, guidance_scale=0.3, steps=2, framework="numpy")
    assert calls == [(4, [1.0] * 4, [1, 2, 10, 10]), (4, [0.5] * 4, [1, 2, 10, 10])]
    calls.clear()
    gmflow.sample(function, (1, 2, 2), class_labels=[1], num_classes=10, steps=1, framework="numpy")
    assert calls == [(1, [1.0], [1])]


def test_what_a_function_raises_comes_out():
    calls = []

    def function(x, t):
        calls.append(t)
        if len(calls) == 2:
            raise KeyError("mine")
        return gaussian_mixture_data(x, t)

    with pytest.raises(KeyError, match="mine"):
        gmflow.sample(function, (1, 2, 2), steps=8, framework="numpy")
    assert len(calls) == 2


def test_a_callback_follows_stops_and_raises():
    told = []
    gmflow.sample(gaussian_mixture_data, (1, 2, 2), steps=3, framework="numpy", callback=lambda *a: told.append(a))
    assert told == [(1, 3), (2, 3), (3, 3)]
    with pytest.raises(gmflow.Cancelled):
        gmflow.sample(gaussian_mixture_data, (1, 2, 2), steps=3, framework="numpy", callback=lambda *a: False)

    def failing(done, of):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        gmflow.sample(gaussian_mixture_data, (1, 2, 2), steps=3, framework="numpy", callback=failing)


def test_a_function_may_sample_itself():
    def outer(x, t):
        inner = gmflow.sample(gaussian_mixture_data, (1, 2, 2), steps=2, framework="numpy")
        assert inner.shape == (1, 1, 2, 2)
        return gaussian_mixture_data(x, t)

    gmflow.sample(outer, (1, 2, 2), steps=2, framework="numpy")


@pytest.mark.parametrize(
    "settings, error, words",
    [
        (dict(steps=0), gmflow.ConfigError, "steps: expected"),
        (dict(solver="magic"), gmflow.ConfigError, "gm-ode"),
        (dict(guidance_scale=1.5), gmflow.ConfigError, "guidance"),
        (dict(order=3), gmflow.ConfigError, "order"),
        (dict(solver="euler", order=2), gmflow.ConfigError, "order"),
        (dict(seeds=[-1]), ValueError, "seeds"),
        (dict(seeds=[2**64]), ValueError, "seeds"),
        (dict(guidance_scale=0.3), gmflow.ConfigError, "guidance"),
        (dict(noise=np.zeros((1, 1, 3, 3), np.float32)), gmflow.ShapeError, "noise"),
        (dict(noise=np.full((1, 1, 2, 2), np.nan, np.float32)), ValueError, "noise: expected finite"),
        (dict(noise=np.zeros((1, 1, 2, 2), int)), TypeError, "noise: expected floating-point"),
        (dict(nonsense=1), TypeError, "nonsense"),
    ],
)
def test_wrong_settings_are_named(settings, error, words):
    with pytest.raises(error, match=words):
        gmflow.sample(gaussian_mixture_data, (1, 2, 2), framework="numpy", **settings)


def broken(change):
    def function(x, t):
        out = gaussian_mixture_data(x, t)
        change(out)
        return out

    return function


def nan(out):
    out["means"][0, 0, 0, 1, 0] = np.nan


def spoil(name, value):
    def change(out):
        out[name] = np.concatenate([out[name]] * 3, 1) if name != "logstds" else out[name].copy()
        if name != "logstds":
            out.update({other: np.concatenate([out[other]] * 3, 1) for other in ("means", "logweights") if other != name})
        out[name][(0, -1) + (0,) * (out[name].ndim - 2)] = value

    return change


@pytest.mark.parametrize("steps", [1, 2, 8])
@pytest.mark.parametrize("name", ["means", "logweights", "logstds"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("solver", ["gm-ode", "gm-sde", "euler"])
def test_no_prediction_that_is_not_finite_is_taken(steps, name, value, solver):
    with pytest.raises(ValueError, match=f"{name}: expected finite numbers"):
        gmflow.sample(broken(spoil(name, value)), (1, 2, 2), steps=steps, solver=solver, framework="numpy")


@pytest.mark.parametrize(
    "change, error, words",
    [
        (nan, ValueError, r"means: expected finite numbers, got NaN at \[0, 0, 0, 1, 0\]"),
        (lambda out: out.update(means=out["means"][:, :, :, :1]), gmflow.ShapeError, "expected shape"),
        (lambda out: out.update(means=out["means"][0]), gmflow.ShapeError, "means: expected 5 axes"),
        (lambda out: out.update(logstds=out["logstds"][0]), gmflow.ShapeError, "logstds"),
        (lambda out: out.update(logweights=out["logweights"][..., :1]), gmflow.ShapeError, "logweights"),
        (lambda out: out.update(means=out["means"].astype(int)), TypeError, "means: expected floating-point"),
        (lambda out: out.update(means=out["means"].astype(complex)), TypeError, "complex"),
        (lambda out: out.update(means="text"), TypeError, "means"),
        (lambda out: out.update(means=out["means"][:, :0]), gmflow.ShapeError, "no empty axis"),
        (lambda out: out.pop("logstds"), KeyError, "logstds"),
    ],
)
def test_wrong_predictions_are_named(change, error, words):
    with pytest.raises(error, match=words):
        gmflow.sample(broken(change), (1, 2, 2), framework="numpy")


def test_other_floats_and_orders_are_converted():
    def other(x, t):
        out = gaussian_mixture_data(x, t)
        out["means"] = np.asfortranarray(out["means"].astype(np.float64))
        out["logweights"] = out["logweights"].astype(np.float16)
        out["logstds"] = out["logstds"].astype(">f4")
        return out

    args = dict(shape=(1, 3, 4), seeds=[1], steps=2, framework="numpy")
    np.testing.assert_allclose(gmflow.sample(other, **args), gmflow.sample(gaussian_mixture_data, **args), atol=1e-6)


def test_weights_may_be_logits():
    def logits(x, t):
        out = gaussian_mixture_data(x, t)
        return {"means": np.concatenate([out["means"]] * 2, 1), "logweights": np.concatenate([out["logweights"] + 3] * 2, 1), "logstds": out["logstds"]}

    args = dict(shape=(1, 3, 4), seeds=[1], steps=2, framework="numpy")
    np.testing.assert_allclose(gmflow.sample(logits, **args), gmflow.sample(gaussian_mixture_data, **args), atol=1e-5)


def test_torch_functions_get_tensors():
    torch = pytest.importorskip("torch")

    def function(x, t):
        assert isinstance(x, torch.Tensor) and not torch.is_grad_enabled()
        return gaussian_mixture_data(x, t)

    x = gmflow.sample(function, (1, 3, 4), seeds=[1], steps=2)
    assert isinstance(x, torch.Tensor)
    expected = gmflow.sample(gaussian_mixture_data, (1, 3, 4), seeds=[1], steps=2, framework="numpy")
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-6)
    half = gmflow.sample(lambda x, t: {k: v.bfloat16() for k, v in function(x, t).items()}, (1, 3, 4), seeds=[1], steps=2)
    np.testing.assert_allclose(half.numpy(), expected, atol=0.05)


def test_recorded_runs_of_the_published_pipeline(golden):
    """The deterministic runs of the published pipeline, with the network called from Python. The step from the last sample to latents is the
    published pipeline's own."""
    pipe = gmflow.Pipeline.from_pretrained(golden.folder / "checkpoint_tiny", precision="f32")
    names = [name for name, case in golden.cases.items() if case["op"] == "GMDiTPipeline" and len(case["draws"]) == 1]
    assert len(names) > 10
    for name in names:
        case = golden.cases[name]
        params = case["params"]
        if params["scheduler"] != "FlowEulerODE":
            continue
        labels = golden.tensor(case, case["inputs"]["class_labels"]).astype(int)
        noise = golden.tensor(case, case["draws"][0])
        ca, cb = params["gm2_coefs"]
        x = gmflow.sample(
            lambda x, t, labels: pipe.predict(x, t, labels).as_dict(),
            noise.shape[1:],
            solver={"kind": "gm-ode", "order": params["order"], "substeps": params["num_inference_substeps"]},
            steps=params["num_inference_steps"],
            guidance_scale=params["guidance_scale"],
            orthogonal=params["orthogonal_guidance"],
            shift=params["shift"],
            second_order={"ca": ca, "cb": cb, "corrections": params["gm2_correction_steps"]},
            class_labels=labels,
            num_classes=pipe.info["network"]["num_embeds_ada_norm"],
            noise=noise,
            framework="numpy",
        )
        steps = golden.tensor(case, case["outputs"]["x_steps"])
        expected = steps[-1].reshape(x.shape)
        entry = case["outputs"]["x_steps"]
        most = 20 * max(entry["f64_maxabs_err"], 1e-6 * entry["maxabs"])
        assert np.abs(x - expected).max() <= most, (name, np.abs(x - expected).max(), most)


def test_draws_may_be_given():
    kinds = []

    def draws(kind, index, shape):
        kinds.append((kind, index, shape))
        return np.zeros(shape, int if kind == "component" else np.float32)

    args = dict(shape=(1, 2, 3), seeds=[3, 4], steps=2, solver="gm-sde", framework="numpy")
    seeded = gmflow.sample(gaussian_mixture_data, **args)
    given = gmflow.sample(gaussian_mixture_data, draws=draws, **args)
    assert kinds == [
        ("component", 0, (2, 2, 3)),
        ("within-component", 0, (2, 1, 2, 3)),
        ("transition", 0, (2, 1, 2, 3)),
        ("component", 1, (2, 2, 3)),
        ("within-component", 1, (2, 1, 2, 3)),
    ]
    assert np.abs(given - seeded).max() > 1e-3
    np.testing.assert_array_equal(gmflow.sample(gaussian_mixture_data, draws=lambda *_: None, **args), seeded)

    def failing(kind, index, shape):
        raise LookupError("mine")

    for wrong, error, words in [
        (failing, LookupError, "mine"),
        (lambda kind, index, shape: np.zeros(shape), TypeError, "integers"),
        (lambda kind, index, shape: np.full(shape, 7, int), gmflow.ConfigError, "components 0 to 0"),
        (lambda kind, index, shape: None if kind == "component" else np.zeros(3), gmflow.ShapeError, "draws"),
        (lambda kind, index, shape: None if kind == "component" else np.full(shape, np.nan), ValueError, "finite"),
    ]:
        with pytest.raises(error, match=words):
            gmflow.sample(gaussian_mixture_data, draws=wrong, **args)
    with pytest.raises(gmflow.ConfigError, match="spectrum"):
        gmflow.sample(gaussian_mixture_data, spectrum=gmflow.Pipeline.from_pretrained(ROOT / "models" / "mnist-1step"), **args)


def replayed(golden, case):
    """Draws that hand out what was recorded, in its order."""
    left = iter(case["draws"])
    names = {"randn": ("transition", "within-component", "spectral"), "multinomial": ("component",), "eigvecs_desc": ("basis",)}

    def draws(kind, index, shape):
        draw = next(left)
        assert kind in names[draw["kind"]]
        values = golden.tensor(case, draw).reshape(shape)
        return values.astype(int) if kind == "component" else values

    return draws, left


def test_recorded_runs_of_the_published_pipeline_that_draw(golden):
    """Runs with recorded random numbers, to the sample before the last step's end where that adds noise of its own there."""
    pipe = gmflow.Pipeline.from_pretrained(golden.folder / "checkpoint_tiny", precision="f32")
    checked = []
    for name, case in golden.cases.items():
        params = case["params"]
        solver = {("sample", None): "gm-sde", ("sample", "small"): "gm-sde", ("sample", "large"): "gm-sde", ("mean", "small"): "ddpm-small"}
        kind = solver.get((params.get("output_mode"), params.get("variance_mode")))
        sde = "GMFlowSDE" in (params.get("scheduler"), params.get("sampler"))
        if case["op"] not in ("GMDiTPipeline", "GMFlow.forward_test") or not sde or kind is None or "network" in params:
            continue
        draws, left = replayed(golden, case)
        noise = golden.tensor(case, case["inputs"]["noise"] if "noise" in case["inputs"] else next(left))
        # Recorded either alone or behind as many null labels.
        labels = golden.tensor(case, case["inputs"]["class_labels"]).astype(int)[-len(noise) :]
        ca, cb = params.get("gm2_coefs", (0.005, 1.0))
        spectral = kind == "gm-sde" and params.get("use_spectrum_net", case["op"] == "GMDiTPipeline")
        table = {"kind": kind, "order": params["order"]}
        if kind != "gm-sde":
            table["substeps"] = params["num_inference_substeps"]
        x = gmflow.sample(
            lambda x, t, labels: pipe.predict(x, t, labels).as_dict(),
            noise.shape[1:],
            solver=table,
            steps=params.get("num_inference_steps") or params["num_timesteps"],
            guidance_scale=params["guidance_scale"],
            orthogonal=params.get("orthogonal_guidance", 1.0),
            shift=params["shift"],
            second_order={"ca": ca, "cb": cb, "corrections": params.get("gm2_correction_steps", 0)},
            class_labels=labels,
            num_classes=pipe.info["network"]["num_embeds_ada_norm"],
            noise=noise,
            draws=draws,
            spectrum=pipe if spectral else None,
            framework="numpy",
        )
        entry = case["outputs"]["x_steps"]
        expected = golden.tensor(case, entry)[-1].reshape(x.shape)
        most = 20 * max(entry["f64_maxabs_err"], 1e-6 * entry["maxabs"])
        off = np.abs(x - expected).max()
        print(name, kind, off, most)
        assert off <= most, (name, off, most)
        checked.append(name)
    assert len(checked) >= 8, checked
