"""Training from Python."""

import numpy as np
import pytest

import gmflow

CONFIG = {
    "data": {"source": {"kind": "density", "name": "checkerboard"}},
    "network": {"type": "mlp2d", "num_gaussians": 4, "embed_dim": 8, "hidden_dim": 16},
    "train": {"batch_size": 64, "steps": 5, "seed": 3},
}


def test_a_trainer_steps_and_its_model_draws(tmp_path):
    trainer = gmflow.Trainer(CONFIG)
    reports = list(trainer)
    assert [report["step"] for report in reports] == [1, 2, 3, 4, 5] and trainer.steps_taken == 5
    assert all(np.isfinite(report["loss"]) for report in reports)
    points = trainer.pipeline()(num_samples=20, num_inference_steps=2).images
    assert points.shape == (20, 2)
    trainer.save(tmp_path / "model")
    saved = gmflow.Pipeline.from_pretrained(tmp_path / "model", ema="none", precision="f32")
    np.testing.assert_array_equal(saved(num_samples=20, num_inference_steps=2).images, points)
    assert "step 5 of 5" in repr(trainer) and "checkerboard" in trainer.config
    again = gmflow.Trainer(CONFIG)
    assert [report["loss"] for report in again] == [report["loss"] for report in reports]


def test_a_run_in_a_folder_tells_stops_and_resumes(tmp_path):
    told = []
    assert gmflow.train(CONFIG, tmp_path / "run", on_step=told.append) is True
    assert [report["step"] for report in told] == [1, 2, 3, 4, 5]
    assert gmflow.Pipeline.from_pretrained(tmp_path / "run")(num_samples=4, num_inference_steps=1).images.shape == (4, 2)

    stops = lambda report: report["step"] < 2
    assert gmflow.train(CONFIG, tmp_path / "stopped", on_step=stops) is False
    assert gmflow.train(CONFIG, tmp_path / "stopped", resume=True) is True

    def failing(report):
        raise OverflowError("mine")

    with pytest.raises(OverflowError, match="mine"):
        gmflow.train(CONFIG, tmp_path / "failed", on_step=failing)
    longer = []
    assert gmflow.train(CONFIG, tmp_path / "failed", resume=True, overrides={"train.steps": 7}, on_step=longer.append)
    assert longer[-1]["step"] == 7


def test_wrong_configurations_are_named(tmp_path):
    for change, words in [
        ({"train.steps": 0}, "steps"),
        ({"train.nonsense": 1}, "nonsense"),
        ({"train.batch_size": "many"}, "batch_size"),
    ]:
        with pytest.raises(gmflow.ConfigError, match=words):
            gmflow.Trainer(CONFIG, overrides=change)
    with pytest.raises((gmflow.FileError, gmflow.ConfigError)):
        gmflow.train(tmp_path / "nothing.toml", tmp_path / "run")
    with pytest.raises(gmflow.GmflowError, match="run"):
        gmflow.train(CONFIG, tmp_path / "twice")
        gmflow.train(CONFIG, tmp_path / "twice")
