"""Records diffusers_solvers.json beside this file, which tests/diffusers_solvers.rs compares with.

    pip install diffusers==0.42.1 torch==2.15.0 numpy==2.4.6
    python diffusers_solvers.py

Every multistep solver of diffusers walks a grid of n steps with a shift, in f64, once for each kind of prediction. The data is an even mixture
of N(-0.8, 0.3^2) and N(0.8, 0.3^2), so that the mean of x0 given x_t is known in closed form. The noise of step i is a sine of i, the same
for both programs. Recorded are the last three states of three samples; predictions that lead to the same states share an entry.

The grid is the flow's, from t = 1 to 0. diffusers takes logarithms at both ends, so alpha is 1e-6 at t = 1, and DEIS and SA-Solver end at
sigma = 1e-12. `flow_prediction` runs on flow sigmas; the others run on the scale of variance-preserving diffusions, x / sqrt(alpha^2 + sigma^2).
"""

import json
import math
import pathlib
import platform

import diffusers
import numpy as np
import torch
from diffusers.schedulers import scheduling_sasolver

STEPS = [1, 2, 3, 5, 14, 15, 16, 40]
SHIFTS = [1.0, 3.0]
PREDICTIONS = ["flow_prediction", "sample", "epsilon", "v_prediction"]
START = [-1.7, 0.35, 1.1]
MEAN, STD = 0.8, 0.3
SMALL, LAST = 1e-6, 1e-12
KEPT = 3


def solvers():
    """Name, constructor, and whether the last sigma may be 0."""
    d = diffusers
    return [
        ("dpmpp-2m", lambda **k: d.DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", **k), True),
        ("dpmpp-2m-sde", lambda **k: d.DPMSolverMultistepScheduler(algorithm_type="sde-dpmsolver++", **k), True),
        ("dpmpp-2s", lambda **k: d.DPMSolverSinglestepScheduler(algorithm_type="dpmsolver++", **k), True),
        ("unipc", lambda **k: d.UniPCMultistepScheduler(**k), True),
        ("deis", lambda **k: d.DEISMultistepScheduler(**k), False),
        ("sa-solver", lambda **k: d.SASolverScheduler(**k), False),
    ]


def grid(n, shift):
    """Falling times, in f32 as published schedules are tabulated, without the final 0."""
    one = np.float32(1)
    u = one - np.arange(n, dtype=np.float32) / np.float32(n)
    s = np.float32(shift)
    return (s * u / (one + (s - one) * u)).astype(np.float64)


def noise(step):
    """The noise of a step, the same for both programs."""
    values = [1.4 * math.sin(1.3 * (step + 1) + 2.1 * (j + 1)) for j in range(len(START))]
    return torch.tensor([values], dtype=torch.float64)


def denoised(x, t):
    """E[x0 | x_t = x] under the mixture."""
    a = 1 - t
    var = a * a * STD * STD + t * t
    weight = torch.tanh(a * MEAN * x / var)
    return weight * MEAN + a * STD * STD / var * (x - a * MEAN * weight)


def run(make, ends_on_zero, n, shift, prediction):
    flow = prediction == "flow_prediction"
    times = grid(n, shift)
    # SA-Solver has noise for 200 <= timestep <= 800. diffusers' own timesteps are whole numbers: none may lie where that would decide.
    assert not any(0.8 + 1e-6 < t < 0.801 for t in times), times
    scheduler = make(prediction_type=prediction, use_flow_sigmas=flow)
    scheduler.set_timesteps(n)
    alphas = [max(1 - t, SMALL) for t in times]
    sigmas = [min(t, 1 - SMALL) if flow else t / a for t, a in zip(times, alphas)]
    scheduler.sigmas = torch.tensor(sigmas + [0.0 if ends_on_zero else LAST], dtype=torch.float64)
    scheduler.timesteps = torch.tensor([float(np.float32(t) * np.float32(1000)) for t in times], dtype=torch.float64)
    scheduler.set_begin_index(0)
    # y = x / scale is what the scheduler knows.
    scale = [1.0 if flow else math.hypot(a, t) for a, t in zip(alphas, times)] + [1.0]
    y = torch.tensor([START], dtype=torch.float64) / scale[0]
    states = []
    for i, t in enumerate(times):
        x = y * scale[i]
        x0 = denoised(x, t)
        a, s = alphas[i] / scale[i], t / scale[i]
        epsilon = (y - a * x0) / s
        output = {
            "flow_prediction": (x - x0) / sigmas[i],
            "sample": x0,
            "epsilon": epsilon,
            "v_prediction": a * epsilon - s * x0,
        }[prediction]
        drawn = noise(i)
        scheduling_sasolver.randn_tensor = lambda *_, **__: drawn
        extra = {"variance_noise": drawn} if isinstance(scheduler, diffusers.DPMSolverMultistepScheduler) else {}
        y = scheduler.step(output, scheduler.timesteps[i], y, return_dict=False, **extra)[0]
        states.append([float(f"{v:.8g}") for v in (y * scale[i + 1])[0].tolist()])
    return states[-KEPT:]


def main():
    cases = []
    for name, make, ends_on_zero in solvers():
        for n in STEPS:
            for shift in SHIFTS:
                found = []
                for prediction in PREDICTIONS:
                    states = run(make, ends_on_zero, n, shift, prediction)
                    assert np.isfinite(states).all(), (name, n, shift, prediction)
                    same = next((entry for entry in found if entry["states"] == states), None)
                    if same:
                        same["predictions"].append(prediction)
                    else:
                        found.append({"predictions": [prediction], "states": states})
                case = {"solver": name, "steps": n, "shift": shift, "results": found}
                cases.append(json.dumps(case, separators=(",", ":")))
    made_with = {"diffusers": diffusers.__version__, "torch": torch.__version__.split("+")[0], "numpy": np.__version__}
    made_with["python"] = platform.python_version()
    head = json.dumps({"made_with": made_with, "start": START, "mean": MEAN, "std": STD})[:-1]
    path = pathlib.Path(__file__).with_name("diffusers_solvers.json")
    path.write_text(head + ',"cases":[\n' + ",\n".join(cases) + "\n]}\n")


main()
