"""A process of PyTorch that times cases when it is told to.

    python worker.py MODE [--threads N] [--device cuda]     MODE: eager, autocast or compile

Reads one request a line, {"case", "samples", "least", "seconds"}: so many samples in about so many seconds, fewer but at least
`least` where calls are long. A sample is the mean of some calls, planned as criterion does. Answers one line, {"times": [...],
"peak_gb": ...} in seconds and the most memory that the process has had, or {"error": "..."}. The first call of every request is
not counted; what a case has compiled is kept until another case is asked for.
"""

import argparse
import gc
import json
import math
import os
import resource
import sys
import time

import torch

import mixture
import networks


def plan(call, samples, least, seconds):
    """How many calls each sample takes, when a call takes so long: as many more for each, or equally many."""
    step = math.ceil(seconds / call / (samples * (samples + 1) / 2))
    if step * call * samples * (samples + 1) / 2 <= 2 * seconds:
        return [step * i for i in range(1, samples + 1)]
    if call * samples <= seconds:
        return [math.ceil(seconds / samples / call)] * samples
    return [1] * max(least, min(samples, int(seconds / call)))


def timed(step, samples, least, seconds):
    """The time of a call in each sample."""
    wait = torch.cuda.synchronize if torch.get_default_device().type == "cuda" else lambda: None
    step()
    wait()
    start = time.perf_counter()
    step()
    wait()
    first = time.perf_counter() - start
    calls = plan(first, samples, least, seconds)
    times = [first] if calls[-1] == 1 else []
    for n in calls[len(times) :]:
        start = time.perf_counter()
        for _ in range(n):
            step()
            wait()
        times.append((time.perf_counter() - start) / n)
    return times


def forget():
    """Gives back what the case before has taken."""
    torch._dynamo.reset()
    gc.collect()


def answer(request, mode, cases, kept):
    name = request["case"]
    try:
        if name not in kept:
            kept.clear()
            forget()
            kept[name] = cases[name](mode)
        times = timed(kept[name], request["samples"], request["least"], request["seconds"])
        return {"times": times, "peak_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}
    except Exception as error:
        return {"error": " ".join(f"{type(error).__name__}: {error}".split())[:300]}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mode", choices=["eager", "autocast", "compile"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_default_device(args.device)
    # What a library prints must not reach whoever reads the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    cases, kept = networks.cases() | mixture.cases(), {}
    for line in sys.stdin:
        print(json.dumps(answer(json.loads(line), args.mode, cases, kept)), file=answers, flush=True)


if __name__ == "__main__":
    main()
