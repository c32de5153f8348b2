"""Loads `gmflow serve` and a FastAPI + PyTorch server with the same requests, and writes book/src/benchmarks/server.md.

    python3 benchsuite/serve.py [--overload 600]           everything, 10 minutes of overload among it
    python3 benchsuite/serve.py --python PYTHON            with a Python that has torch, fastapi and uvicorn
    python3 benchsuite/serve.py --seconds 3 --overload 5 --out /tmp/server.jsonl     a short try

Builds the program (or takes --gmflow), makes the Python environment of run.py (or takes --python), and installs the browser's driver
for the time of the page where npm and Chromium are there. A request is one image of models/mnist: 4 steps of GM-ODE, order 1, without
guidance, as PNG. The load is that of loads.py, on the same machine. A row is added to --out, and the page beside it is written anew.
"""

import argparse
import datetime
import json
import os
import pathlib
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request

import run as speed
from serve_page import page

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
MODEL = ROOT / "models/mnist"
STEPS = 4
OURS = {"steps": STEPS, "order": 1, "solver": "gm-ode", "guidance": 0, "class": 7, "seed": 1}
THEIRS = {"steps": STEPS, "label": 7, "seed": 1}
CONNECTIONS = 32
# Connections that a load at a rate may open; more requests than the queue of the server holds.
MANY = 400
# The steps of the stream whose first preview is timed: the model's own number.
PREVIEW_STEPS = 8


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class Server:
    """A server for the time of a block."""

    def __init__(self, command, port, ready):
        self.command, self.port, self.ready = [str(part) for part in command], port, ready

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        for _ in range(1200):
            if self.process.poll() is not None:
                sys.exit(f"ended before it answered: {' '.join(self.command)}")
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}{self.ready}", timeout=2).read()
                return self
            except OSError:
                time.sleep(0.1)
        sys.exit(f"did not answer: {' '.join(self.command)}")

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def memory(self):
        """Megabytes that the process has in memory."""
        lines = pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(round(int(line.split()[1]) / 1024, 1) for line in lines if line.startswith("VmRSS:"))


def load(ports, body, seconds, connections, rate=None, spaced="evenly"):
    """What loads.py tells of a load."""
    asked = {"ports": ports, "body": body, "seconds": seconds, "connections": connections, "rate": rate,
             "random": spaced == "randomly"}
    command = [sys.executable, str(HERE / "loads.py"), json.dumps(asked)]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def ask(port, body, accept="image/png"):
    """An answer that is open."""
    headers = {"content-type": "application/json", "accept": accept}
    return urllib.request.urlopen(
        urllib.request.Request(f"http://127.0.0.1:{port}/v1/samples", json.dumps(body).encode(), headers)
    )


def command_line(gmflow, count):
    """Images per second of `gmflow sample --num`, the start left out by the difference of two calls."""

    def seconds(num):
        with tempfile.TemporaryDirectory() as folder:
            command = [gmflow, "sample", "--checkpoint", MODEL, "--num", num, "--steps", STEPS, "--order", 1]
            command += ["--guidance", 0, "--class", 7, "--out", pathlib.Path(folder) / "x.npz"]
            start = time.perf_counter()
            subprocess.run([str(part) for part in command], check=True, capture_output=True)
            return time.perf_counter() - start

    few = count // 8
    return round((count - few) / (min(seconds(count) for _ in range(3)) - min(seconds(few) for _ in range(3))), 1)


def first_preview(port, times=15):
    """After which share of a stream's time the first picture has come, the median and the largest."""
    shares = []
    for seed in range(times):
        body = OURS | {"steps": PREVIEW_STEPS, "seed": seed, "stream": True}
        start, first, event = time.perf_counter(), None, ""
        with ask(port, body) as stream:
            for line in stream:
                if line.startswith(b"event: "):
                    event = line[7:].strip()
                if event == b"step" and first is None and line.startswith(b"data: "):
                    picture = json.loads(line[6:])["x0"][0]
                    urllib.request.urlopen(f"http://127.0.0.1:{port}{picture}").read()
                    first = time.perf_counter() - start
                if event == b"completed":
                    shares.append(first / (time.perf_counter() - start))
                    break
    return [round(statistics.median(shares), 3), round(max(shares), 3)]


def first_digit(port, times=9):
    """Milliseconds from the page's first paint to the first digit, the median and the longest; a text where they cannot be had."""
    tests = ROOT / "crates/gmflow-server/tests/page"
    if not (shutil.which("npm") and shutil.which("node") and shutil.which("chromium")):
        return "not measured: Node, npm or Chromium is missing"
    if not (tests / "node_modules/playwright-core").exists():
        subprocess.run(["npm", "ci", "--no-audit", "--no-fund"], cwd=tests, check=True, stdout=subprocess.DEVNULL)
    command = ["node", str(HERE / "first_digit.mjs"), f"http://127.0.0.1:{port}", str(times)]
    waits = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    waits = sorted(max(0.0, wait["digit"] - wait["paint"]) for wait in waits)
    return [round(statistics.median(waits)), round(waits[-1])]


def overload(server, rate, seconds):
    """A load of twice the rate; the memory of the server by tenths of the time, and before and after it."""
    memory, ended = [], threading.Event()

    def watch():
        while not ended.wait(min(1.0, seconds / 50)):
            memory.append(server.memory())

    before, watching = server.memory(), threading.Thread(target=watch)
    watching.start()
    told = load([server.port], OURS, seconds, MANY, rate)
    ended.set()
    watching.join()
    tenths = [memory[len(memory) * part // 10 : len(memory) * (part + 1) // 10] for part in range(10)]
    told["memory_mb"] = {"before": before, "tenths": [max(part) for part in tenths if part], "after": server.memory()}
    return told | {"seconds": seconds, "rate": rate}


def ours(args):
    port = free_port()
    # The queue is short, so that overload is refused early and the time of what is admitted stays bounded.
    command = [args.gmflow, "serve", MODEL, "--bind", f"127.0.0.1:{port}", "--max-wait", args.max_wait]
    with Server(command, port, "/readyz") as server:
        load([port], OURS, 2, CONNECTIONS)
        row = {"alone": load([port], OURS, min(args.seconds, 10), 1), "first_preview": first_preview(port)}
        row["first_digit_ms"] = first_digit(port)
        row["load"] = load([port], OURS, args.seconds, CONNECTIONS)
        rate = row["load"]["images_per_s"]
        row["half"] = {spaced: load([port], OURS, args.seconds, MANY, rate / 2, spaced) for spaced in ("evenly", "randomly")}
        if args.overload:
            row["overload"] = overload(server, 2 * rate, args.overload)
        return row


def theirs(args):
    """The rival in one process on all threads, and in as many processes as there are cores, each with a thread."""
    rows = {}
    for name, processes in {"one process": 1, "a process for each core": os.cpu_count()}.items():
        ports = [free_port() for _ in range(processes)]
        threads = os.cpu_count() // processes
        server = lambda port: Server(
            [args.python, HERE / "rival/serve.py", MODEL, port, "--threads", threads], port, "/openapi.json"
        )
        servers = [server(port).__enter__() for port in ports]
        try:
            load(ports, THEIRS, 2, CONNECTIONS)
            alone = load(ports, THEIRS, min(args.seconds, 10), 1)
            rows[name] = {"alone": alone, "load": load(ports, THEIRS, args.seconds, CONNECTIONS)}
        finally:
            for started in servers:
                started.__exit__()
    return rows


def output(*command):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gmflow", type=pathlib.Path, help="the program, in place of one that is built")
    parser.add_argument("--python", help="a Python with torch, fastapi and uvicorn, in place of benchsuite/.venv")
    parser.add_argument("--seconds", type=int, default=30, help="of a load")
    parser.add_argument("--overload", type=int, default=600, help="seconds at twice the rate of saturation; 0 for none")
    parser.add_argument("--max-wait", type=int, default=1, help="of our server, in seconds")
    parser.add_argument("--images", type=int, default=4000, help="that gmflow sample draws")
    parser.add_argument("--out", type=pathlib.Path, default=ROOT / "book/src/benchmarks/server.jsonl")
    args = parser.parse_args()
    if args.gmflow is None:
        subprocess.run(["cargo", "build", "--release", "--bin", "gmflow"], cwd=ROOT, check=True)
        args.gmflow = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/gmflow"
    args.python = args.python or speed.python_environment()
    versions = "import fastapi, platform, torch; print(platform.python_version(), torch.__version__, fastapi.__version__)"
    row = {
        "date": datetime.date.today().isoformat(),
        "commit": output("git", "rev-parse", "--short", "HEAD"),
        "changed": bool(output("git", "status", "--porcelain", "--untracked-files=no")),
        "command": "python3 benchsuite/serve.py" + "".join(
            f" --{name.replace('_', '-')} {getattr(args, name)}" for name in ("seconds", "overload", "max_wait")
            if getattr(args, name) != parser.get_default(name)
        ),
        "machine": speed.machine(),
        "load_average": os.getloadavg()[0],
        "versions": dict(zip(("python", "torch", "fastapi"), output(args.python, "-c", versions).split())),
        "settings": {"steps": STEPS, "connections": CONNECTIONS, "preview_steps": PREVIEW_STEPS, "max_wait": args.max_wait},
        "sample_images_per_s": command_line(args.gmflow, args.images),
        "gmflow": ours(args),
        "fastapi_torch": theirs(args),
    }
    with args.out.open("a") as file:
        file.write(json.dumps(row) + "\n")
    written = args.out.with_suffix(".md")
    written.write_text(page(row))
    print(page(row))
    print(f"written: {written}", file=sys.stderr)


if __name__ == "__main__":
    main()
