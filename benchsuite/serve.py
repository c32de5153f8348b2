"""Loads `gmflow serve` and a FastAPI + PyTorch server with the same requests, and writes book/src/benchmarks/server.md's figures.

    python3 benchsuite/serve.py --gmflow target/release/gmflow [--rival-python PYTHON] [--seconds 20] [--overload 600] [--out FILE]

A request is one image of models/mnist: 4 steps of GM-ODE, order 1, without guidance, as PNG. The load is autocannon's (npx), on the same
machine. The rival needs torch, fastapi, uvicorn, safetensors and pillow.
"""

import argparse
import datetime
import json
import os
import pathlib
import platform
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
MODEL = ROOT / "models/mnist"
STEPS = 4
OURS = {"steps": STEPS, "order": 1, "solver": "gm-ode", "guidance": 0, "class": 7, "seed": 1}
THEIRS = {"steps": STEPS, "label": 7, "seed": 1}
CONNECTIONS = 32


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait(url, process):
    """Until a request is answered."""
    for _ in range(600):
        if process.poll() is not None:
            sys.exit("a server ended before it answered")
        try:
            return urllib.request.urlopen(url, timeout=2).read()
        except urllib.error.HTTPError as error:
            if error.code not in (404, 503):
                raise
            if error.code == 404:
                return None
        except OSError:
            pass
        time.sleep(0.1)
    sys.exit("a server did not answer")


def load(port, body, seconds, connections, rate=None):
    """What autocannon tells of a load."""
    command = ["npx", "--yes", "autocannon@9", "-j", "-n", "-c", str(connections), "-d", str(seconds), "-m", "POST"]
    command += ["-H", "accept=image/png", "-H", "content-type=application/json", "-b", json.dumps(body)]
    if rate:
        command += ["-R", str(rate)]
    done = subprocess.run([*command, f"http://127.0.0.1:{port}/v1/samples"], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return json.loads(done.stdout)


def told(result):
    """The figures that are kept."""
    codes = {code: count["count"] for code, count in result.get("statusCodeStats", {}).items()}
    latency = result["latency"]
    return {
        "images_per_s": round(codes.get("200", 0) / result["duration"], 1), "codes": codes, "errors": result["errors"],
        "timeouts": result["timeouts"], "p50_ms": latency["p50"], "p99_ms": latency["p99"], "max_ms": latency["max"],
    }


def resident(process):
    """Megabytes of memory of a process."""
    for line in pathlib.Path(f"/proc/{process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return round(int(line.split()[1]) / 1024, 1)
    return None


def alone(port, body, count=200):
    """The median time in ms of one request after the other."""
    times = []
    for _ in range(count):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/samples", json.dumps(body).encode(), {
            "content-type": "application/json", "accept": "image/png"})
        start = time.perf_counter()
        urllib.request.urlopen(request).read()
        times.append((time.perf_counter() - start) * 1e3)
    return round(statistics.median(times), 2)


def command_line(gmflow, count=4000):
    """Images per second of `gmflow sample --num`, the start left out by the difference of two calls."""
    def seconds(num):
        with tempfile.TemporaryDirectory() as folder:
            command = [gmflow, "sample", "--checkpoint", MODEL, "--num", num, "--steps", STEPS, "--order", 1, "--guidance", 0,
                       "--class", 7, "--out", pathlib.Path(folder) / "x.npz"]
            start = time.perf_counter()
            subprocess.run([str(part) for part in command], check=True, capture_output=True)
            return time.perf_counter() - start
    few = count // 8
    return round((count - few) / (min(seconds(count) for _ in range(3)) - min(seconds(few) for _ in range(3))), 1)


def first_preview(port, steps=30):
    """After which share of a stream's time the first preview is there."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/samples", json.dumps(
        OURS | {"steps": steps, "stream": True}).encode(), {"content-type": "application/json"})
    start, first = time.perf_counter(), None
    with urllib.request.urlopen(request) as stream:
        for line in stream:
            if line.startswith(b"event: step") and first is None:
                first = time.perf_counter() - start
            if line.startswith(b"event: completed"):
                return round(first / (time.perf_counter() - start), 3)
    return None


def ours(args):
    port = free_port()
    # The queue is short, so that overload is refused early and the time of what is admitted stays bounded.
    command = [args.gmflow, "serve", MODEL, "--bind", f"127.0.0.1:{port}", "--max-wait", "1"]
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
    try:
        wait(f"http://127.0.0.1:{port}/readyz", process)
        load(port, OURS, 3, CONNECTIONS)
        row = {"alone_ms": alone(port, OURS), "first_preview_share": first_preview(port)}
        row["load"] = told(load(port, OURS, args.seconds, CONNECTIONS))
        rate = row["load"]["images_per_s"]
        row["half"] = told(load(port, OURS, args.seconds, CONNECTIONS, max(1, round(rate / 2))))
        if args.overload:
            before = resident(process)
            row["overload"] = told(load(port, OURS, args.overload, 256, round(rate * 2)))
            row["overload"]["memory_mb"] = [before, resident(process)]
        return row
    finally:
        process.terminate()
        process.wait()


def theirs(args):
    port = free_port()
    command = [args.rival_python, HERE / "rival/serve.py", MODEL, port, "--threads", os.cpu_count()]
    process = subprocess.Popen([str(part) for part in command])
    try:
        wait(f"http://127.0.0.1:{port}/", process)
        load(port, THEIRS, 3, CONNECTIONS)
        row = {"alone_ms": alone(port, THEIRS)}
        row["load"] = told(load(port, THEIRS, args.seconds, CONNECTIONS))
        return row
    finally:
        process.terminate()
        process.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gmflow", default=ROOT / "target/release/gmflow")
    parser.add_argument("--rival-python")
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--overload", type=int, default=0, help="seconds at twice the rate of saturation")
    parser.add_argument("--out", type=pathlib.Path)
    args = parser.parse_args()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    cpu = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    row = {"time": datetime.datetime.now().isoformat(timespec="seconds"), "commit": commit, "cpu": cpu[0] if cpu else
           platform.processor(), "cores": os.cpu_count(), "load_average": os.getloadavg()[0],
           "command_line_images_per_s": command_line(args.gmflow), "gmflow": ours(args)}
    if args.rival_python:
        row["fastapi_torch"] = theirs(args)
    text = json.dumps(row, indent=1)
    print(text)
    if args.out:
        with args.out.open("a") as file:
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
