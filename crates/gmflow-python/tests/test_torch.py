"""The operators for PyTorch against formulas in plain PyTorch, in float64."""

import math
import sys

import numpy as np
import pytest

import gmflow
from conftest import toy_mixture

torch = pytest.importorskip("torch")
gt = gmflow.torch


def tensors(seed=0, dtype=torch.float32, **sizes):
    means, logweights, logstds = (torch.from_numpy(part).to(dtype).requires_grad_() for part in toy_mixture(seed, **sizes))
    b, _, c, h, w = means.shape
    generator = torch.Generator().manual_seed(seed)
    target = torch.randn(b, c, h, w, generator=generator).to(dtype).requires_grad_()
    return {"means": means, "logweights": logweights, "logstds": logstds}, target


def plain_nll(prediction, target):
    """-log sum_k A_k N(target; mean_k, s^2), without the constant."""
    means, logweights, logstds = prediction["means"], prediction["logweights"], prediction["logstds"]
    c = means.shape[2]
    squares = (target[:, None] - means).square().sum(2, keepdim=True) * (-2 * logstds).exp()
    return -(logweights - 0.5 * squares - c * logstds).logsumexp(1)[:, 0]


def in_double(prediction, target):
    double = {name: x.detach().double().requires_grad_() for name, x in prediction.items()}
    return double, target.detach().double().requires_grad_()


def grads(value, inputs):
    weight = torch.linspace(0.5, 1.5, value.numel(), dtype=value.dtype).reshape(value.shape)
    return torch.autograd.grad((value * weight).sum(), inputs)


def assert_near(got, expected, most=1e-6):
    scale = max(1.0, expected.abs().max().item())
    assert (got.double() - expected).abs().max().item() <= most * scale


@pytest.mark.parametrize("sizes", [dict(), dict(b=1, k=1, c=1, h=1, w=1), dict(b=3, k=8, c=3, h=17, w=9), dict(b=65, k=4, c=2, h=1, w=1)])
def test_nll_and_its_gradients(sizes):
    prediction, target = tensors(1, **sizes)
    value = gt.gm_nll(prediction, target)
    double, target64 = in_double(prediction, target)
    expected = plain_nll(double, target64)
    assert_near(value, expected)
    got = grads(value, [*prediction.values(), target])
    for got, expected in zip(got, grads(expected, [*double.values(), target64])):
        assert got.shape == expected.shape
        # Gradients add up over a sample's pixels and channels.
        assert_near(got, expected, 3e-6)


def test_transition_nll_and_its_gradients():
    prediction, x_lo = tensors(2)
    x_hi = torch.randn(x_lo.shape, generator=torch.Generator().manual_seed(9)).requires_grad_()
    t_hi, ratio = torch.tensor([0.9, 0.4]), 0.5

    def plain(prediction, x_lo, x_hi):
        hi = t_hi.to(x_lo.dtype).reshape(-1, 1, 1, 1)
        lo = hi * (1 - ratio)
        a, r = (1 - hi) / (1 - lo), lo / hi
        b = 1 - (r * a) ** 2
        c1, c2, c3 = r * r * a, b * (1 - lo), b * lo * lo
        # The mixture over x_lo itself: means c1 x + c2 (x - t mean), variance c3 + (c2 t s)^2.
        means = ((c1 + c2) * x_hi)[:, None] - (c2 * hi)[:, None] * prediction["means"]
        var = c3[:, None] + ((c2 * hi)[:, None] * prediction["logstds"].exp()) ** 2
        return plain_nll({"means": means, "logweights": prediction["logweights"], "logstds": 0.5 * var.log()}, x_lo)

    value = gt.transition_nll(prediction, x_lo, t_hi * (1 - ratio), x_hi, t_hi)
    double, lo64 = in_double(prediction, x_lo)
    hi64 = x_hi.detach().double().requires_grad_()
    expected = plain(double, lo64, hi64)
    assert_near(value, expected, 2e-6)
    for got, wanted in zip(grads(value, [*prediction.values(), x_lo, x_hi]), grads(expected, [*double.values(), lo64, hi64])):
        assert_near(got, wanted, 5e-6)
    # With t_lo = 0 it is the likelihood of x0, less a constant.
    at_zero = gt.transition_nll(prediction, x_lo, 0.0, x_hi, t_hi)
    assert torch.isfinite(at_zero).all()


def test_recorded_losses(golden):
    """The transition losses of the published implementation, and their gradients."""
    checked = 0
    for name, case in golden.cases.items():
        if not name.startswith("losses/nll_") or case["op"] != "gaussian_mixture_nll_loss" or "fullstd" in name:
            continue
        entry = {key: torch.from_numpy(golden.tensor(case, value).copy()) for key, value in case["inputs"].items()}
        names = {"means": ("means", "pred_means"), "logweights": ("logweights", "pred_logweights"), "logstds": ("logstds", "pred_logstds")}
        prediction = {ours: next(entry[theirs] for theirs in keys if theirs in entry) for ours, keys in names.items()}
        target = next(entry[key] for key in ("target", "x", "sample") if key in entry)
        if prediction["logstds"].min() < -9:  # Bounded in another way there.
            continue
        output = next(key for key in case["outputs"] if not key.startswith("grad"))
        expected = torch.from_numpy(golden.tensor(case, case["outputs"][output]).copy())
        got = gt.gm_nll(prediction, target)
        got = got.mean() if expected.numel() == 1 else got
        error = case["outputs"][output].get("f64_maxabs_err", 0.0)
        most = 20 * max(error, 1e-6 * case["outputs"][output]["maxabs"])
        assert (got.reshape(-1) - expected.reshape(-1)).abs().max() <= most, name
        checked += 1
    assert checked >= 4


def test_spectral_loss_and_its_gradient():
    prediction, x0 = tensors(3)
    log_power = torch.zeros(2, 2, 4, 5).requires_grad_()
    loss = gt.spectral_loss(log_power, prediction, x0)
    loss.backward()
    assert loss.item() == 0.0 and prediction["means"].grad is None
    # At S = 1 the derivative with respect to log S is (1 - z^2)/2.
    mixture = gmflow.GaussianMixture.of({name: x.detach() for name, x in prediction.items()})
    normals = mixture.to_normals(x0.detach()).double()
    z = torch.fft.fft2(normals, norm="ortho")
    z2 = (z.real + z.imag).square()
    expected = 0.5 * (1 - z2) * 2 / z2.numel()
    assert_near(log_power.grad, expected, 1e-5)


def all_inputs(seed, **sizes):
    """Those of the three operators, by their names."""
    prediction, target = tensors(seed, **sizes)
    b = len(target)
    generator = torch.Generator().manual_seed(seed)
    x_hi = torch.randn(target.shape, generator=generator).requires_grad_()
    times = torch.linspace(0.2, 0.5, b), torch.linspace(0.6, 0.9, b)
    log_power = (0.3 * torch.randn(1, *target.shape[1:], generator=generator)).requires_grad_()
    parts = tuple(prediction.values())
    return {
        "mixture_nll": (*parts, target),
        "transition_nll": (*parts, target, x_hi, *times),
        "spectral_loss": (log_power, *(x.detach() for x in parts), target.detach()),
    }


def test_the_operators_pass_the_checks_of_pytorch():
    inputs = all_inputs(4, b=2, k=2, c=2, h=2, w=3)
    detached = {name: tuple(x.detach() for x in given) for name, given in inputs.items()}
    for name, given in inputs.items():
        torch.library.opcheck(getattr(torch.ops.gmflow, name).default, given)
    result = torch.ops.gmflow.mixture_nll(*detached["mixture_nll"])
    ones = torch.ones_like(result)
    torch.library.opcheck(torch.ops.gmflow.mixture_nll_backward.default, (*detached["mixture_nll"], result, ones))
    torch.library.opcheck(torch.ops.gmflow.transition_nll_backward.default, (*detached["transition_nll"], ones))
    _, power = torch.ops.gmflow.spectral_loss(*detached["spectral_loss"])
    of_spectrum = (detached["spectral_loss"][0], power, torch.tensor(1.0))
    torch.library.opcheck(torch.ops.gmflow.spectral_loss_backward.default, of_spectrum)


def test_the_gradients_are_those_of_differences():
    inputs = all_inputs(4, b=2, k=2, c=2, h=2, w=3)
    names = ("means", "logweights", "logstds")
    *parts, x_lo, x_hi, t_lo, t_hi = inputs["transition_nll"]
    log_power, *mixture, x0 = inputs["spectral_loss"]
    checks = [
        (lambda *x: gt.gm_nll(dict(zip(names, x)), x[3]), inputs["mixture_nll"]),
        (torch.ops.gmflow.mixture_nll, inputs["mixture_nll"]),
        (lambda *x: gt.transition_nll(dict(zip(names, x)), x[3], t_lo, x[4], t_hi), (*parts, x_lo, x_hi)),
        (lambda *x: torch.ops.gmflow.transition_nll(*x, t_lo, t_hi), (*parts, x_lo, x_hi)),
        (lambda x: gt.spectral_loss(x, dict(zip(names, mixture)), x0), (log_power,)),
    ]
    for check, given in checks:
        # The operators are in float32: differences over 1e-2 of values that are right to about 1e-6.
        assert torch.autograd.gradcheck(check, given, eps=1e-2, atol=1e-2, rtol=1e-2, nondet_tol=0.0)


def test_the_way_without_the_dispatcher_gives_the_same_bits():
    inputs = all_inputs(11)
    names = ("means", "logweights", "logstds")
    *_, t_lo, t_hi = inputs["transition_nll"]
    for direct, operator, given in [
        (lambda *x: gt.gm_nll(dict(zip(names, x)), x[3]), torch.ops.gmflow.mixture_nll, inputs["mixture_nll"]),
        (
            lambda *x: gt.transition_nll(dict(zip(names, x)), x[3], t_lo, x[4], t_hi),
            lambda *x: torch.ops.gmflow.transition_nll(*x, t_lo, t_hi),
            inputs["transition_nll"][:5],
        ),
    ]:
        one, other = direct(*given), operator(*given)
        assert torch.equal(one, other)
        for got, expected in zip(grads(one, given), grads(other, given)):
            assert torch.equal(got, expected)


def test_under_compile():
    if not _has_compiler():
        pytest.skip("torch.compile needs a C++ compiler")
    inputs = all_inputs(5)
    names = ("means", "logweights", "logstds")
    *parts, x_lo, x_hi, t_lo, t_hi = inputs["transition_nll"]
    log_power, *mixture, x0 = inputs["spectral_loss"]

    def nll(means, logweights, logstds, target):
        return gt.gm_nll(dict(zip(names, (2 * means, logweights, logstds))), target).mean()

    def transition(means, logweights, logstds, x_lo, x_hi):
        return gt.transition_nll(dict(zip(names, (2 * means, logweights, logstds))), x_lo, t_lo, x_hi, t_hi).mean()

    def spectral(log_power):
        return gt.spectral_loss(2 * log_power, dict(zip(names, mixture)), x0)

    for loss, given in [(nll, inputs["mixture_nll"]), (transition, (*parts, x_lo, x_hi)), (spectral, (log_power,))]:
        expected = torch.autograd.grad(loss(*given), given)
        got = torch.autograd.grad(torch.compile(loss, fullgraph=True)(*given), given)
        for one, other in zip(got, expected):
            assert_near(one, other.double())


def _has_compiler():
    import shutil

    return shutil.which("c++") is not None or shutil.which("g++") is not None


def test_other_precisions_and_layouts():
    prediction, target = tensors(6)
    value = gt.gm_nll(prediction, target)
    half = {name: x.detach().bfloat16().requires_grad_() for name, x in prediction.items()}
    other = gt.gm_nll(half, target.detach())
    assert other.dtype == torch.float32
    other.mean().backward()
    assert half["means"].grad.dtype == torch.bfloat16
    strided = {name: x.detach().transpose(3, 4).contiguous().transpose(3, 4) for name, x in prediction.items()}
    torch.testing.assert_close(gt.gm_nll(strided, target), value)
    double, target64 = in_double(prediction, target)
    assert gt.gm_nll(double, target64).dtype == torch.float32


def test_a_network_that_is_certain_of_everything_has_a_finite_loss():
    prediction, target = tensors(7)
    sure = dict(prediction, logstds=torch.full((2, 1, 1, 1, 1), -50.0).requires_grad_())
    value = gt.gm_nll(sure, target).mean()
    assert torch.isfinite(value)
    value.backward()
    assert sure["logstds"].grad.abs().max() < 1e3 and math.isfinite(value.item())


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_thousand_steps_keep_no_memory():
    from test_robust import resident

    prediction, target = tensors(10, b=4, k=4, c=3, h=16, w=16)

    def steps(n):
        for _ in range(n):
            for x in (*prediction.values(), target):
                x.grad = None
            gt.gm_nll(prediction, target).mean().backward()

    steps(100)
    before = resident()
    steps(1000)
    # The gradients of the means alone would be 49 MB.
    assert resident() - before < 20e6


def test_wrong_shapes_are_named():
    prediction, target = tensors(8)
    for change, words in [
        (dict(means=prediction["means"][0]), "means: expected shape"),
        (dict(logweights=prediction["logweights"][:, :1]), "logweights: expected shape"),
        (dict(logstds=prediction["logstds"].expand(2, 3, 1, 1, 1)), "logstds: expected shape"),
    ]:
        with pytest.raises(gmflow.ShapeError, match=words):
            gt.gm_nll(dict(prediction, **change), target)
    with pytest.raises(gmflow.ShapeError, match="target"):
        gt.gm_nll(prediction, target[:, :1])
    with pytest.raises(gmflow.ShapeError, match="x_hi"):
        gt.transition_nll(prediction, target, 0.1, target[:, :1], 0.5)
    with pytest.raises(gmflow.ShapeError, match="log_power"):
        gt.spectral_loss(torch.zeros(3, 1, 1), prediction, target)
    with pytest.raises(TypeError, match="prediction"):
        gt.gm_nll(target, target)


def test_a_training_loop_learns():
    torch.manual_seed(0)
    net = torch.nn.Linear(1, 2 * 3)
    optimiser = torch.optim.Adam(net.parameters(), 0.05)
    losses = []
    for _ in range(150):
        target = torch.randn(64, 1, 1, 1).sign() * 2
        out = net(torch.ones(64, 1))
        prediction = {
            "means": out[:, :2].reshape(64, 2, 1, 1, 1),
            "logweights": out[:, 2:4].log_softmax(1).reshape(64, 2, 1, 1, 1),
            "logstds": out[:, 4:5].reshape(64, 1, 1, 1, 1),
        }
        loss = gt.gm_nll(prediction, target).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[-10:]) < losses[0] - 1
