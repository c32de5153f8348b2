"""Times the Python package against PyTorch, eager and compiled, and writes book/src/benchmarks/python-speed.md.

    target/bench-python/bin/python benchsuite/python.py --wheel target/wheels/gmflow-*.whl [--rounds N] [--threads N] [--out FILE]

The interpreter has the wheel and torch installed (`scripts/check_python.sh` makes a wheel). Ours and PyTorch's take turns in one process,
on the same number of threads; the shortest and the median sample count.
"""

import argparse
import datetime
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
# This file is not the standard library's or the package's to import.
sys.path[0] = str(HERE / "rival")

import torch  # noqa: E402

import gmflow  # noqa: E402
import gmflow.torch as gt  # noqa: E402
import mixture as rival  # noqa: E402


def likelihood():
    """gm_nll forward and backward, [32, 8, 3, 32, 32]: ours, and the formula in PyTorch."""
    torch.manual_seed(0)
    inputs = [x.requires_grad_() for x in rival.prediction(32, 8, 3, 32, 32)]
    target = torch.randn(32, 3, 32, 32)

    def ours(means, logweights, logstds, target):
        return gt.gm_nll({"means": means, "logweights": logweights, "logstds": logstds}, target)

    def plain(means, logweights, logstds, target):
        square = (target[:, None] - means).square().sum(2, keepdim=True) * (-2 * logstds).exp()
        return -torch.logsumexp(logweights - 0.5 * square - means.shape[2] * logstds, 1)

    def step(loss):
        return lambda: torch.autograd.grad(loss(*inputs, target).mean(), inputs)

    return step(ours), step(plain), step(torch.compile(plain))


def guided_steps():
    """8 guided steps of GM-ODE 2, n = 4, batch 8, around a function that gives ready predictions."""
    torch.manual_seed(0)
    predictions = [rival.prediction(16, rival.K, *rival.SHAPE) for _ in range(rival.STEPS)]
    ready = [dict(zip(("means", "logweights", "logstds"), parts)) for parts in predictions]
    noise = torch.randn(8, *rival.SHAPE)

    def ours():
        given = iter(ready)
        gmflow.sample(
            lambda x, t, labels: next(given),
            rival.SHAPE,
            solver={"kind": "gm-ode", "order": 2, "substeps": 4},
            steps=rival.STEPS,
            class_labels=range(8),
            num_classes=1000,
            guidance_scale=rival.SCALE,
            noise=noise,
        )

    eager, compiled = (rival.sampling(4, 8, mode) for mode in (False, True))
    return ours, eager, compiled


def turns(functions, rounds, calls):
    """Seconds of samples of each function, which take turns. A sample is the mean of some calls."""
    for function in functions:
        for _ in range(3):
            function()
    samples = [[] for _ in functions]
    for _ in range(rounds):
        for function, times in zip(functions, samples):
            start = time.perf_counter()
            for _ in range(calls):
                function()
            times.append((time.perf_counter() - start) / calls)
    return samples


def import_seconds(rounds):
    """Seconds that `import gmflow` adds to the start of an interpreter: the difference of processes that take turns."""
    times = {"pass": [], "import gmflow": []}
    for _ in range(rounds):
        for program, samples in times.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", program], check=True)
            samples.append(time.perf_counter() - start)
    return min(times["import gmflow"]) - min(times["pass"])


def machine():
    model = next((line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")), platform.processor())
    return f"{os.cpu_count()} cores of {model}"


def commit():
    return subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()


def figures(samples):
    return f"{min(samples) * 1e3:.3f} / {statistics.median(samples) * 1e3:.3f}"


def row(title, target, samples):
    ours, eager, compiled = samples
    ratios = " / ".join(f"{min(other) / min(ours):.2f}" for other in (eager, compiled))
    return f"| {title} | {target} | {ratios} | {figures(ours)} | {figures(eager)} | {figures(compiled)} |"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheel", type=pathlib.Path, required=True)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "book/src/benchmarks/python-speed.md")
    arguments = parser.parse_args()
    threads, load = arguments.threads, os.getloadavg()[0]
    torch.set_num_threads(threads)
    gmflow.set_num_threads(threads)
    nll = turns(likelihood(), arguments.rounds, 10)
    steps = turns(guided_steps(), arguments.rounds, 3)
    seconds, size = import_seconds(arguments.rounds), arguments.wheel.stat().st_size
    python = f"Python {platform.python_version()}, PyTorch {torch.__version__.split('+')[0]}"
    text = f"""# Speed of the Python package

Written by `benchsuite/python.py`. Do not edit it.

- A cell has the shortest / the median sample in ms. Ratios are of shortest samples, PyTorch's over ours: eager / compiled.
- Ours and PyTorch's took turns in one process. First calls do not count.
- The 8 steps have ready predictions, so that they are the time beyond the network's. PyTorch's formulas are those of
  `benchsuite/rival/mixture.py`.
- Machine: {machine()}; {threads} threads on both sides; load average before it began: {load:.1f}
- Commit: {commit()}, {datetime.date.today()}
- {python}
- Command: `python benchsuite/python.py --wheel WHEEL --rounds {arguments.rounds} --threads {threads}`

| what | target | ratios | gmflow | PyTorch eager | compiled |
|---|---|---|---|---|---|
{row("`gm_nll` forward and backward, 32x8x3x32x32", "3 / 1", nll)}
{row("8 guided steps of GM-ODE 2, n = 4, batch 8, beyond the network", "5 / 4", steps)}

| what | target | measured |
|---|---|---|
| `import gmflow`, added to the start of Python | 100 ms | {seconds * 1e3:.0f} ms |
| the wheel | 25 MB | {size / 1e6:.1f} MB |
"""
    arguments.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
