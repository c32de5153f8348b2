"""Memory, signals and imports."""

import os
import pathlib
import signal
import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest

import gmflow
from conftest import ROOT, gaussian_mixture_data, toy_mixture


def resident():
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_ten_thousand_calls_keep_no_memory():
    parts = toy_mixture(b=2, k=4, c=3, h=16, w=16)
    small = toy_mixture(b=1, k=2, c=1, h=2, w=2)
    points = np.zeros((2, 1, 3, 16, 16), np.float32)

    def calls(n):
        for i in range(n):
            mixture = gmflow.GaussianMixture(*parts)
            mixture.mean(), mixture.log_prob(points), mixture.tempered(0.5)
            if i % 10 == 0:
                gmflow.sample(gaussian_mixture_data, (1, 4, 4), steps=1, framework="numpy")
            try:
                gmflow.GaussianMixture(small[0] * np.nan, *small[1:])
            except ValueError:
                pass

    calls(500)
    before = resident()
    calls(10_000)
    # One array of the mixture in each call would be 245 MB.
    assert resident() - before < 20e6


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="sends a signal")
@pytest.mark.parametrize("what", ["sample", "pipeline", "train", "manifolds", "features"])
def test_ctrl_c_stops_within_a_step(what):
    program = f"""
    import sys, signal, threading
    sys.path.insert(0, {str(pathlib.Path(__file__).parent)!r})
    import gmflow
    signal.signal(signal.SIGINT, signal.default_int_handler)
    def told(*_):
        print("step", flush=True)
    try:
        if {what!r} == "sample":
            from conftest import gaussian_mixture_data
            gmflow.sample(gaussian_mixture_data, (3, 64, 64), seeds=list(range(64)), steps=1000, framework="numpy", callback=told)
        elif {what!r} == "pipeline":
            gmflow.Pipeline.from_pretrained({str(ROOT / "models" / "mnist")!r})([1] * 16, 1000, callback_on_step_end=told)
        elif {what!r} == "manifolds":
            import gmflow.eval, numpy
            vectors = numpy.random.default_rng(0).normal(size=(40_000, 512)).astype(numpy.float32)
            threading.Timer(0.5, told).start()
            gmflow.eval.manifolds(vectors, vectors[::-1].copy())
        elif {what!r} == "features":
            import gmflow.eval, numpy
            images = numpy.zeros((400_000, 1, 28, 28), numpy.float32)
            threading.Timer(0.5, told).start()
            gmflow.eval.features(images, "pixels")
        else:
            import tempfile
            from test_training import CONFIG
            gmflow.train(CONFIG, tempfile.mkdtemp() + "/run", overrides={{"train.steps": 10**6, "train.batch_size": 4096}}, on_step=told)
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "step\n"
        process.send_signal(signal.SIGINT)
        rest = process.communicate(timeout=120)[0]
    finally:
        process.kill()
    assert rest.endswith("interrupted\n") and rest.count("step") < 900
    assert process.returncode == 0


def test_nothing_else_is_imported():
    program = "import sys, gmflow; print(sorted({'numpy', 'torch', 'PIL', 'diffusers'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert out.strip() == "[]"


def test_functions_of_eight_threads_do_not_mix():
    errors = []

    def run(i):
        try:
            for _ in range(5):
                x = gmflow.sample(gaussian_mixture_data, (1, 4, 4), seeds=[i], solver="gm-sde", steps=3, framework="numpy")
                np.testing.assert_array_equal(x, expected[i])
        except BaseException as error:
            errors.append(error)

    expected = [gmflow.sample(gaussian_mixture_data, (1, 4, 4), seeds=[i], solver="gm-sde", steps=3, framework="numpy") for i in range(8)]
    threads = [threading.Thread(target=run, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def test_exceptions_are_pythons_own():
    assert issubclass(gmflow.ConfigError, ValueError) and issubclass(gmflow.NotFoundError, FileNotFoundError)
    assert issubclass(gmflow.OutOfMemoryError, MemoryError) and issubclass(gmflow.HubError, ConnectionError)
    assert all(issubclass(getattr(gmflow, name), gmflow.GmflowError) for name in gmflow.__all__ if name.endswith("Error"))


def test_warnings_go_to_logging(tmp_path, caplog):
    from test_training import CONFIG

    network = dict(CONFIG["network"], num_layers=1)
    config = dict(CONFIG, network=network, train=dict(CONFIG["train"], steps=1, precision="bf16"))
    with caplog.at_level("INFO", logger="gmflow"):
        gmflow.Trainer(config).step()
    said = [record.getMessage() for record in caplog.records if record.name == "gmflow"]
    # A perceptron of one hidden layer has no layers for bf16, on any processor.
    assert any("precision" in line for line in said), said
