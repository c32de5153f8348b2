"""Times gmflow against PyTorch on this machine and adds a row per case to book/src/benchmarks.

    python3 benchsuite/run.py [--only CASE,...] [--quick | --rounds N] [--out book/src/benchmarks/speed.jsonl]
    python3 benchsuite/run.py --device cuda [--quick]          on an NVIDIA GPU, to book/src/benchmarks/speed-cuda.jsonl

Makes a Python environment of its own (benchsuite/.venv, or --python for one that is there), builds the benches and the binary
(or --bin-dir for ready ones), and for each case lets ours and PyTorch, eager and compiled, take turns, each in a process of its
own. Roofs are measured first. Rows are added as cases end; --resume skips the cases that have a row of this commit on this
machine. The table speed.md and the pictures are drawn anew from the newest rows.
"""

import argparse
import datetime
import json
import os
import pathlib
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

from cases import CASES, on_gpu

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent
BENCHES = ["networks", "mixture", "decode", "scaling"]
INSTRUCTIONS = ["avx2", "fma", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16"]
# The most seconds that a rival may take for one answer, compiling included.
PATIENCE = 900


def environment(threads):
    """What both sides are started with."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("OPENBLAS_")}
    return env | {"OMP_NUM_THREADS": str(threads), "RAYON_NUM_THREADS": str(threads)}


def python_environment():
    """The interpreter of benchsuite/.venv, made where it is missing."""
    python = HERE / ".venv/bin/python"
    wanted = (HERE / "requirements.txt").read_text()
    installed = HERE / ".venv/requirements.txt"
    if not installed.exists() or installed.read_text() != wanted:
        subprocess.run([sys.executable, "-m", "venv", HERE / ".venv"], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"], check=True)
        installed.write_text(wanted)
    return python


def build(device):
    """Executables by name."""
    if device != "cpu":
        command = ["cargo", "bench", "--package", "gmflow", "--features", device, "--no-run"]
        return executables([*command, "--bench", "networks", "--bench", "mixture"])
    benches = [argument for name in BENCHES for argument in ("--bench", name)]
    found = {}
    for command in (
        ["bench", "--workspace", "--no-run", *benches],
        ["build", "--release", "--workspace", "--bin", "gmflow", "--example", "random_checkpoint"],
    ):
        found |= executables(["cargo", *command])
    return found


def executables(command):
    """What a command of cargo builds."""
    command = [*command, "--message-format", "json-render-diagnostics"]
    out = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    messages = [json.loads(line) for line in out.splitlines()]
    return {m["target"]["name"]: pathlib.Path(m["executable"]) for m in messages if m.get("executable")}


def ready(folder, device):
    """The newest executables of a target folder such as target/release."""
    found, benches = {}, ["networks", "mixture"]
    if device == "cpu":
        found, benches = {"gmflow": folder / "gmflow", "random_checkpoint": folder / "examples/random_checkpoint"}, BENCHES
    for name in benches:
        places = [path for path in folder.glob(f"deps/{name}-*") if os.access(path, os.X_OK) and is_bench(path)]
        found[name] = max(places, key=lambda path: path.stat().st_mtime, default=folder / name)
    if missing := [str(path) for path in found.values() if not path.is_file()]:
        sys.exit(f"not there: {', '.join(missing)}")
    return found


def is_bench(path):
    """Whether an executable is a benchmark, not the test of the same name."""
    return subprocess.run([path, "--bench", "--noplot", "--list"], capture_output=True).returncode == 0


def run(command, env, stdout=subprocess.DEVNULL):
    """Seconds and peak memory in GB of a process from its start to its end."""
    with tempfile.TemporaryFile("w+") as errors:
        start = time.perf_counter()
        process = subprocess.Popen([str(part) for part in command], stdout=stdout, stderr=errors, env=env)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            message = " ".join(errors.read()[-300:].split())
            raise RuntimeError(f"{' '.join(map(str, command))}: {process.returncode}: {message}")
    return seconds, usage.ru_maxrss * 1024 / 1e9


class Worker:
    """A process of rival/worker.py."""

    def __init__(self, python, mode, threads, env, device):
        command = [python, HERE / "rival/worker.py", mode, "--threads", str(threads), "--device", device]
        self.log = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            [str(part) for part in command], env=env, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log,
        )  # fmt: skip

    def ask(self, request):
        try:
            print(json.dumps(request), file=self.process.stdin, flush=True)
            if not select.select([self.process.stdout], [], [], PATIENCE)[0]:
                self.process.kill()
                return {"error": f"no answer in {PATIENCE} s"}
            return json.loads(self.process.stdout.readline())
        except (OSError, ValueError):
            self.log.seek(0)
            return {"error": f"the process ended: {' '.join(self.log.read()[-300:].split())}"}

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.log.close()


class Suite:
    """What the cases need."""

    def __init__(self, args, python, binaries):
        self.args, self.python, self.binaries = args, python, binaries
        self.env = environment(args.threads)
        if args.device != "cpu":
            self.env["GMFLOW_BENCH_DEVICE"] = args.device
        self.scratch = ROOT / "target/benchsuite"
        self.scratch.mkdir(parents=True, exist_ok=True)
        self.group, self.workers = None, {}

    def rounds(self, case):
        return self.args.rounds or (case.quick_rounds if self.args.quick else 4)

    def workers_of(self, case):
        """The group's processes of PyTorch; those of the group before are ended."""
        if case.group != self.group:
            self.close()
            self.group = case.group
        for mode in case.modes:
            if mode not in self.workers:
                self.workers[mode] = Worker(self.python, mode, self.args.threads, self.env, self.args.device)
        return {mode: self.workers[mode] for mode in case.modes}

    def close(self):
        for worker in self.workers.values():
            worker.close()
        self.group, self.workers = None, {}

    def criterion(self, bench, pattern):
        """Runs benches: seconds per call of every sample, by benchmark, and peak memory."""
        home = self.scratch / "criterion"
        shutil.rmtree(home, ignore_errors=True)
        command = [self.binaries[bench], "--bench", "--noplot", "--sample-size", "20", pattern]
        _, peak = run(command, self.env | {"CRITERION_HOME": str(home)})
        found = {}
        for path in home.rglob("new/sample.json"):
            sample = json.loads(path.read_text())
            name = str(path.parent.parent.relative_to(home))
            found[name] = [t / n / 1e9 for t, n in zip(sample["times"], sample["iters"])]
        if not found:
            raise RuntimeError(f"no benchmark is called {pattern}")
        return found, peak

    def checkpoint(self, student):
        """A GM-DiT-XL/2, or a student of it, with random weights in the published layout."""
        folder = self.scratch / ("xl2-student" if student else "xl2-bf16")
        if not (folder / "model_index.json").exists():
            shutil.rmtree(folder, ignore_errors=True)
            run([self.binaries["random_checkpoint"], folder, "bf16", *(["student"] if student else [])], self.env)
        return folder

    def sample(self, checkpoint, out, *extra):
        command = [self.binaries["gmflow"], "sample", "--checkpoint", checkpoint, "--out", out, "--force", *extra]
        return run(command, self.env)

    # Each kind of case: the times of ours and of each rival, {"times", "peak_gb"} or {"error"}.

    def bench(self, case):
        workers = self.workers_of(case)
        quick = self.args.quick
        request = {"case": case.rival, "samples": 20, "least": 3 if quick else 6, "seconds": 1.0 if quick else 3.0}
        # Criterion never takes fewer than 10 samples of ours: where the rival took fewer, only as many of the first count.
        results = {side: {"times": []} for side in ("ours", *workers)}
        for _ in range(self.rounds(case)):
            calls = 0
            for mode, worker in workers.items():
                if "error" in results[mode]:
                    continue
                answer = worker.ask(request)
                if "error" in answer:
                    results[mode] = answer
                    continue
                calls = max(calls, len(answer["times"]))
                results[mode]["times"] += answer["times"]
                results[mode]["peak_gb"] = answer["peak_gb"]
            found, peak = self.criterion(case.bench, f"^{case.ours}$")
            results["ours"]["times"] += found[case.ours][: calls or None]
            results["ours"]["peak_gb"] = max(peak, results["ours"].get("peak_gb", 0))
        return results

    def end_to_end(self, case):
        checkpoint = self.checkpoint(case.student)
        out = self.scratch / "samples"
        results = {side: {"times": [], "peak_gb": 0} for side in ("ours", *case.modes)}
        # A student knows its steps, and its guidance is built in.
        guided = [] if case.student else ["--steps", "6", "--guidance", "0.45"]
        settings = ["--class", "207", "--num", "1", *guided]
        for _ in range(self.rounds(case)):
            self.add(results, "ours", lambda: self.sample(checkpoint, out, *settings, "--precision", case.precision))
            for precision in case.modes:
                command = [self.python, HERE / "rival/sample.py", checkpoint, self.scratch / "rival.png"]
                command += ["--precision", precision, "--threads", self.args.threads]
                command += ["--student"] if case.student else []
                self.add(results, precision, lambda: run(command, self.env))
        return results

    @staticmethod
    def add(results, side, measure):
        """One more run of a side, unless one has failed."""
        if "error" in results[side]:
            return
        try:
            seconds, peak = measure()
        except RuntimeError as error:
            results[side] = {"error": str(error)}
            return
        results[side]["times"].append(seconds)
        results[side]["peak_gb"] = max(peak, results[side]["peak_gb"])

    def help(self, _case):
        binary, times = self.binaries["gmflow"], []
        for _ in range(10):
            with open(binary, "rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            times.append(run([binary, "--help"], self.env)[0] * 1e3)
        return {"ours": {"times": times}}

    def size(self, _case):
        return {"ours": {"times": [self.binaries["gmflow"].stat().st_size / 1e6]}}

    def mnist(self, _case):
        out = self.scratch / "digits.png"
        runs = [self.sample(ROOT / "models/mnist", out, "--num", "16", "--grid") for _ in range(5)]
        return {"ours": {"times": [seconds for seconds, _ in runs]}}

    def scaling(self, _case):
        found, _ = self.criterion("scaling", "^scaling")
        points = {}
        for name, times in found.items():
            axis, x = name.rsplit("/", 1)
            points.setdefault(axis.removeprefix("scaling-"), {})[int(x)] = min(times)
        return {"points": {axis: dict(sorted(values.items())) for axis, values in sorted(points.items())}}


def summary(side, memory):
    """Minimum and median over all calls of a side."""
    if "error" in side:
        return side
    times = side["times"]
    row = {"min": min(times), "median": statistics.median(times), "samples": len(times)}
    return row | ({"peak_gb": side["peak_gb"]} if memory else {})


def ratios(case, ours, rivals):
    """The better rival over ours; with no rival, the bound over ours."""
    if "error" in ours:
        return {}
    if not case.modes or case.kind in ("help", "size", "mnist"):
        return {"ratio_min": case.target / ours["min"], "ratio_median": case.target / ours["median"]}
    valid = [rival for rival in rivals.values() if "error" not in rival]
    if not valid:
        return {}
    return {f"ratio_{of}": min(rival[of] for rival in valid) / ours[of] for of in ("min", "median")}


def measure(suite, case):
    kinds = {"sample": "end_to_end"}
    results = getattr(suite, kinds.get(case.kind, case.kind))(case)
    if "points" in results:
        return results
    sides = {side: summary(result, case.memory) for side, result in results.items()}
    ours = sides.pop("ours")
    speeds = {"gflop": case.gflop, "roof": case.roof} if case.gflop else {}
    return {"unit": case.unit, "target": case.target, **speeds, "ours": ours, "rivals": sides, **ratios(case, ours, sides)}


def output(*command):
    return subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def machine():
    info = pathlib.Path("/proc/cpuinfo").read_text()
    fields = dict(line.split(":", 1) for line in info.split("\n\n")[0].splitlines() if ":" in line)
    fields = {key.strip(): value.strip() for key, value in fields.items()}
    family = f"family {fields['cpu family']} model {fields['model']}"
    flags = fields["flags"].split()
    return {
        "cpu": f"{fields['model name']} ({family})",
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
    }


def gpu(python):
    """What the GPU is, as PyTorch and its driver say."""
    code = "import torch; p = torch.cuda.get_device_properties(0); print(p.name, round(p.total_memory / 1e9), sep='|')"
    name, memory = output(str(python), "-c", code).split("|")
    driver = optional("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    return {"gpu": name, "memory_gb": int(memory), "driver": driver}


def optional(*command):
    """The same of a program that may not be there, or not in a place where it can tell."""
    try:
        return output(*command)
    except (OSError, subprocess.CalledProcessError):
        return ""


def commit():
    """The commit, marked where files of the program differ from it."""
    changed = optional("git", "status", "--porcelain", "--", "crates", "Cargo.toml", "Cargo.lock", "benchsuite")
    known = optional("git", "rev-parse", "--short", "HEAD") or os.environ.get("GMFLOW_COMMIT", "unknown")
    return known + ("+dirty" if changed else "")


def versions(python):
    code = (
        "import importlib.metadata as m, platform\n"
        "for name in ('torch', 'diffusers'): print(name, next((d.version for d in m.distributions(name=name)), 'none'))\n"
        "print('python', platform.python_version())"
    )
    found = dict(line.split() for line in output(str(python), "-c", code).splitlines())
    return found | {"rustc": (optional("rustc", "--version").split() + ["", "unknown"])[1]}


def brief(row):
    if "points" in row:
        return f"{sum(map(len, row['points'].values()))} points"
    sides = {"ours": row["ours"], **row["rivals"]}
    text = [f"{name} {s['min']:.4g}" if "min" in s else f"{name} failed: {s['error'][:90]}" for name, s in sides.items()]
    if "gflop" in row and "min" in row["ours"]:
        text[0] += f" ({row['gflop'] / row['ours']['min'] / 1e3:.2f} TFLOP/s)"
    ratio = f"; ratio {row['ratio_min']:.2f} (median {row['ratio_median']:.2f})" if "ratio_min" in row else ""
    return f"{', '.join(text)} {row['unit']}{ratio}" + (f", to reach {row['target']}" if row["target"] else "")


def chosen(only, device):
    """Cases whose name begins with one of the words."""
    words = [word for word in only.split(",") if word]
    cases = CASES if device == "cpu" else on_gpu()
    found = [case for case in cases if not words or any(case.name.startswith(word) for word in words)]
    if not found:
        sys.exit(f"no case begins with {only}; there are: {', '.join(case.name for case in cases)}")
    return found


def measured(out, about):
    """Names of the cases that have a row of this commit on this machine."""
    rows = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    return {row["case"] for row in rows if all(row[key] == about[key] for key in ("commit", "machine"))}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="beginnings of the names of cases, with commas")
    parser.add_argument("--quick", action="store_true", help="two rounds of few calls: the table in half an hour")
    parser.add_argument("--rounds", type=int, help="how many times ours and the rival take turns (4; with --quick 2)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where both sides compute")
    parser.add_argument("--out", type=pathlib.Path, help="book/src/benchmarks/speed.jsonl, or speed-cuda.jsonl there")
    parser.add_argument("--python", type=pathlib.Path, help="an interpreter that has what requirements.txt names")
    parser.add_argument("--bin-dir", type=pathlib.Path, help="ready executables, such as target/release; nothing is built")
    parser.add_argument("--resume", action="store_true", help="skip cases that have a row of this commit on this machine")
    parser.add_argument("--draw", action="store_true", help="only draw the table and the pictures")
    args = parser.parse_args()
    suffix = "" if args.device == "cpu" else f"-{args.device}"
    args.out = args.out or ROOT / f"book/src/benchmarks/speed{suffix}.jsonl"
    return args


def main():
    args = arguments()
    python = args.python or python_environment()
    if not args.draw:
        suite = Suite(args, python, ready(args.bin_dir, args.device) if args.bin_dir else build(args.device))
        record(suite, chosen(args.only, args.device))
    if args.device != "cpu":
        return
    subprocess.run([str(python), str(HERE / "report.py"), str(args.out)], check=True, env=environment(args.threads))


def roofs(suite):
    """What the machine can do at most with as many threads as the cases have, as `gmflow info --machine` measures it in seconds: the most
    of three times, so that a process beside it does not lower a roof."""
    command = [str(suite.binaries["gmflow"]), "info", "--machine", "--json"]
    told = [
        json.loads(subprocess.run(command, env=suite.env, check=True, stdout=subprocess.PIPE, text=True).stdout)
        for _ in range(3)
    ]
    return {key: most([one[key] for one in told]) for key in ("roofs", "rates")} | {key: told[0][key] for key in ("caches", "auto")}


def most(values):
    """The largest of each of the numbers in objects that are alike."""
    if isinstance(values[0], dict):
        return {key: most([value[key] for value in values]) for key in values[0]}
    return None if values[0] is None else max(values)


def record(suite, cases):
    args = suite.args
    about = {"machine": machine(), "threads": args.threads, "commit": commit(), "versions": versions(suite.python)}
    if args.device != "cpu":
        about["device"] = gpu(suite.python)
    options = [f"--device {args.device}"] * (args.device != "cpu")
    options += ["--quick"] * args.quick + [f"--rounds {args.rounds}"] * bool(args.rounds)
    about["command"] = " ".join(["python3 benchsuite/run.py", *options])
    done = measured(args.out, about) if args.resume else set()
    if args.device == "cpu" and "roofs" not in done:
        date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        with open(args.out, "a") as file:
            print(json.dumps({"case": "roofs", "title": "roofs", "date": date, **about, **roofs(suite)}), file=file)
    start = time.monotonic()
    try:
        for i, case in enumerate(cases, 1):
            if case.name in done:
                continue
            minutes, seconds = divmod(int(time.monotonic() - start), 60)
            print(f"{minutes:3}:{seconds:02} [{i}/{len(cases)}] {case.title} ...", flush=True)
            date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            try:
                row = {"case": case.name, "title": case.title, "date": date, **about, **measure(suite, case)}
            except RuntimeError as error:
                print(f"       no row: {error}", flush=True)
                continue
            with open(args.out, "a") as file:
                print(json.dumps(row), file=file)
            print(f"       {brief(row)}", flush=True)
    finally:
        suite.close()


if __name__ == "__main__":
    main()
