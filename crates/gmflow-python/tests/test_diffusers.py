"""The scheduler in loops and pipelines of diffusers."""

import numpy as np
import pytest

import gmflow
from conftest import gaussian_mixture_data

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")

from gmflow.diffusers import GMFlowScheduler  # noqa: E402


def loop(scheduler, steps, noise, predict, **settings):
    """A stock loop."""
    scheduler.set_timesteps(steps, **settings)
    x = noise * scheduler.init_noise_sigma
    for t in scheduler.timesteps:
        model_input = scheduler.scale_model_input(x, t)
        x = scheduler.step(predict(model_input, t), t, x).prev_sample
    return x


def noise_of(seeds, shape):
    return torch.from_numpy(np.asarray(gmflow._native.initial_noise(seeds, shape)))


@pytest.mark.parametrize(
    "settings",
    [
        dict(solver="gm-ode", order=2),
        dict(solver="gm-ode", order=1, substeps=3),
        dict(solver="gm-sde", order=1),
        dict(solver="gm-sde", order=2),
        dict(solver="gm-ode", order=2, shift=3.0),
        dict(solver="gm-ode", order=2, second_order={"carry": "translate"}),
        dict(solver="euler"),
        dict(solver="dpmpp-2m"),
    ],
)
def test_a_loop_draws_the_samples_of_the_library(settings):
    def predict(x, t):
        return gaussian_mixture_data(x, (t / 1000).expand(len(x)))

    seeds = [3, 2**64 - 1]
    scheduler = GMFlowScheduler(**settings)
    scheduler.set_seeds(seeds)
    x = loop(scheduler, 5, noise_of(seeds, [1, 6, 7]), predict)
    expected = gmflow.sample(gaussian_mixture_data, (1, 6, 7), seeds=seeds, steps=5, framework="numpy", **settings)
    np.testing.assert_allclose(x.numpy(), expected, atol=2e-6)


def test_a_guided_loop_draws_the_samples_of_the_pipeline(mnist):
    labels = torch.tensor([7, 2])
    scheduler = GMFlowScheduler(guidance_scale=0.2, reweight_by="pixel")

    def predict(x, t):
        doubled = torch.cat([x, x])
        return mnist.predict(doubled, float(t) / 1000, torch.cat([labels, torch.full((2,), 10)]))

    second = mnist.info.get("second_order")
    if second and second.get("carry", "reweight") != "reweight":
        pytest.skip("the model carries out steps of order 2 in its own way")
    x = loop(scheduler, 4, noise_of([5, 6], [1, 28, 28]), predict)
    expected = mnist([7, 2], seeds=[5, 6], num_inference_steps=4, output_type="raw").images
    np.testing.assert_allclose(x.numpy(), expected, atol=2e-5)
    with pytest.raises(gmflow.ConfigError, match="guidance_scale"):
        loop(scheduler, 4, noise_of([5, 6], [1, 28, 28]), lambda x, t: mnist.predict(x, float(t) / 1000))


def test_timesteps_are_a_thousand_sigmas():
    scheduler = GMFlowScheduler()
    scheduler.set_timesteps(4)
    torch.testing.assert_close(scheduler.timesteps, torch.tensor([1000.0, 750.0, 500.0, 250.0]))
    torch.testing.assert_close(scheduler.sigmas, torch.tensor([1.0, 0.75, 0.5, 0.25, 0.0]))
    shifted = GMFlowScheduler(shift=3.0)
    shifted.set_timesteps(2)
    torch.testing.assert_close(shifted.sigmas, torch.tensor([1.0, 0.75, 0.0]))
    shifted.set_timesteps(sigmas=[1.0, 0.5])
    torch.testing.assert_close(shifted.sigmas, torch.tensor([1.0, 0.75, 0.0]))
    scheduler.set_timesteps(2, mu=float(np.log(3.0)))
    torch.testing.assert_close(scheduler.sigmas, torch.tensor([1.0, 0.75, 0.0]))
    scheduler.set_timesteps(timesteps=[900, 300])
    torch.testing.assert_close(scheduler.sigmas, torch.tensor([0.9, 0.3, 0.0]))
    with pytest.raises(ValueError, match="set_timesteps"):
        scheduler.set_timesteps()
    with pytest.raises(ValueError, match="expected set_timesteps"):
        GMFlowScheduler().step(torch.zeros(1, 1, 2, 2), 1000.0, torch.zeros(1, 1, 2, 2))
    with pytest.raises(gmflow.ConfigError, match="sigmas"):
        scheduler.set_timesteps(sigmas=[0.5, 0.9])
        scheduler.step(torch.zeros(1, 1, 2, 2), 500.0, torch.zeros(1, 1, 2, 2))


def test_scale_noise_and_image_to_image():
    scheduler = GMFlowScheduler()
    scheduler.set_timesteps(8)
    x0, noise = torch.full((2, 1, 2, 2), 2.0), torch.full((2, 1, 2, 2), -1.0)
    torch.testing.assert_close(scheduler.scale_noise(x0, torch.tensor([250.0]), noise), 0.75 * x0 + 0.25 * noise)
    torch.testing.assert_close(scheduler.add_noise(x0, noise, torch.tensor([0.0, 1000.0])), torch.cat([x0[:1], noise[:1]]))
    begin = 4
    scheduler.set_begin_index(begin)
    x = scheduler.scale_noise(x0, scheduler.timesteps[begin : begin + 1], noise)
    for t in scheduler.timesteps[begin:]:
        x = scheduler.step(gaussian_mixture_data(x, (t / 1000).expand(2)), t, x, return_dict=False)[0]
    assert scheduler.step_index == 8 and torch.isfinite(x).all()


def test_configurations_are_saved_and_loaded(tmp_path):
    scheduler = GMFlowScheduler(solver="gm-sde", order=1, shift=2.0, guidance_scale=0.3)
    scheduler.save_config(tmp_path)
    loaded = GMFlowScheduler.from_pretrained(tmp_path)
    own = lambda config: {name: value for name, value in config.items() if not name.startswith("_")}
    assert own(loaded.config) == own(scheduler.config)
    other = GMFlowScheduler.from_config(scheduler.config, order=2)
    assert other.config.order == 2 and other.config.solver == "gm-sde"


def test_a_generator_seeds_the_draws():
    def run(seed):
        scheduler = GMFlowScheduler(solver="gm-sde")
        scheduler.set_timesteps(2)
        x, generator = torch.ones(2, 1, 3, 3), torch.Generator().manual_seed(seed)
        for t in scheduler.timesteps:
            x = scheduler.step(gaussian_mixture_data(x, (t / 1000).expand(2)), t, x, generator=generator).prev_sample
        return x

    torch.testing.assert_close(run(1), run(1), rtol=0, atol=0)
    assert not torch.equal(run(1), run(2))


def test_a_stock_pipeline_takes_the_scheduler():
    """DiTPipeline of diffusers with a tiny network that predicts velocities."""
    from diffusers import AutoencoderKL, DiTPipeline, DiTTransformer2DModel

    torch.manual_seed(0)
    transformer = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=4, num_layers=1, sample_size=8, num_embeds_ada_norm=1000
    )
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    pipe = DiTPipeline(transformer=transformer, vae=vae, scheduler=GMFlowScheduler(solver="euler"))
    pipe.set_progress_bar_config(disable=True)
    out = pipe(class_labels=[1], guidance_scale=1.0, num_inference_steps=3, generator=torch.Generator().manual_seed(0), output_type="np")
    assert out.images.shape[0] == 1 and np.isfinite(out.images).all()


def test_samples_keep_their_precision():
    scheduler = GMFlowScheduler()
    scheduler.set_timesteps(2)
    x = torch.ones(1, 1, 2, 2, dtype=torch.bfloat16)
    out = scheduler.step(gaussian_mixture_data(x.float(), torch.ones(1)), scheduler.timesteps[0], x).prev_sample
    assert out.dtype == torch.bfloat16
