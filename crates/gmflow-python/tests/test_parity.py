"""A copy of our model in PyTorch, sampled through `gmflow.sample`, against the pipeline."""

import numpy as np
import pytest

import gmflow
from conftest import ROOT

torch = pytest.importorskip("torch")


@pytest.mark.parametrize("solver, steps", [("gm-ode", 8), ("gm-ode", 2), ("euler", 8)])
def test_a_copy_in_pytorch_draws_the_samples_of_the_pipeline(mnist, solver, steps):
    from gm_dit import GmDit

    network = GmDit(ROOT / "models" / "mnist", mnist.info["network"])
    labels, seeds = [7, 0, 3], [1, 2, 2**63]
    ours = mnist(labels, seeds=seeds, num_inference_steps=steps, solver=solver, output_type="raw").images
    theirs = gmflow.sample(
        network,
        (1, 28, 28),
        class_labels=labels,
        num_classes=10,
        seeds=seeds,
        steps=steps,
        solver=solver,
        guidance_scale=mnist.info["guidance"]["scale"],
        reweight_by=mnist.info["reweight_by"],
    )
    # The networks' sums in float32 go in another order, which is 1e-6. Where two components of a pixel are about as likely, following the mixture
    # through a step enlarges that: in 99.9 % of the pixels to at most 2e-5, in single ones to 3e-4.
    off = np.abs(theirs.numpy() - ours)
    assert np.sqrt(np.mean(off**2)) < 1e-5 and np.quantile(off, 0.99) < 1e-5 and off.max() < 1e-3
    if solver == "euler":
        assert off.max() < 2e-5


def test_the_networks_agree(mnist):
    from gm_dit import GmDit

    network = GmDit(ROOT / "models" / "mnist", mnist.info["network"])
    x = torch.randn(2, 1, 28, 28, generator=torch.Generator().manual_seed(1))
    t, labels = torch.tensor([0.9, 0.2]), torch.tensor([3, 10])
    ours, theirs = mnist.predict(x, t, labels).as_dict(), network(x, t, labels)
    for name, expected in theirs.items():
        scale = expected.abs().max().item()
        np.testing.assert_allclose(ours[name].numpy(), expected.numpy(), atol=2e-6 * max(scale, 1))
