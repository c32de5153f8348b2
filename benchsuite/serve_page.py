"""The page of the server's figures, of a row that serve.py measured."""

TEXT = """# Speed of the server

Written by `benchsuite/serve.py` from its last measurement in [server.jsonl](server.jsonl). Do not edit it.

- Machine: {cores} cores of {cpu}, {memory_gb} GB; client and server share them
- Commit: {commit}, {date}
- Python {python}, PyTorch {torch}, FastAPI {fastapi}
- Command: `{command}`

A request is one image of `models/mnist` in {steps} steps of GM-ODE of order 1, without guidance, as PNG. The server is
`gmflow serve models/mnist --max-wait {max_wait}`. The rival has the same network and the same solver behind FastAPI and
PyTorch, eager; of its two forms the faster one counts. The client is `benchsuite/loads.py`. At saturation every one of
{connections} connections sends its next request when it has its answer. Below and above it, requests come whether or not
earlier ones were answered, and their time counts from the moment that they come: evenly spaced, and once at random
moments, as those of many users do. A bold figure misses what was to be reached.

| what | to reach | figure |
|---|---|---|
{rows}

| load | images/s | p50 | p99 | longest | answers | failures |
|---|---|---|---|---|---|---|
{loads}
"""


def ratio(value):
    return f"{value:.2f}"


def marked(text, reached):
    return text if reached else f"**{text}**"


def load_row(name, told):
    codes = ", ".join(f"{count} x {code}" for code, count in told["codes"].items())
    times = " | ".join("-" if told[key] is None else f"{told[key]:.1f} ms" for key in ("p50_ms", "p99_ms", "max_ms"))
    return f"| {name} | {told['images_per_s']} | {times} | {codes} | {told['errors']} |"


def overload_rows(told, max_wait):
    failures = told["errors"] + sum(count for code, count in told["codes"].items() if code not in ("200", "429"))
    minutes = f"{told['seconds'] / 60:.0f} minutes" if told["seconds"] >= 60 else f"{told['seconds']} s"
    what = f"{minutes} at twice saturation"
    memory = told["memory_mb"]
    # From the first tenth on; before it the load's own buffers come into being.
    tenths = memory["tenths"]
    growth = tenths[-1] / tenths[0] - 1
    p99 = told["p99_ms"] / 1e3
    tenths = ", ".join(f"{tenth:.0f}" for tenth in tenths)
    return [
        f"| {what}: failures but 429 | 0 | {marked(str(failures), failures == 0)} |",
        f"| the same: memory, the last tenth of the time against the first | at most 5 % more | "
        f"{marked(f'{100 * growth:+.1f} %', growth <= 0.05)}; {memory['before']:.0f} MB before, by tenths {tenths}, "
        f"{memory['after']:.0f} after |",
        f"| the same: p99 of what is admitted | bounded by the queue, `--max-wait` {max_wait} s | "
        f"{marked(f'{p99:.2f} s', p99 <= 2 * max_wait)} |",
    ]


def page(row):
    ours, machine = row["gmflow"], row["machine"]
    rivals = row["fastapi_torch"]
    best = max(rivals, key=lambda name: rivals[name]["load"]["images_per_s"])
    rate = ours["load"]["images_per_s"]
    of_sample = rate / row["sample_images_per_s"]
    of_rival = rate / rivals[best]["load"]["images_per_s"]
    half = ours["half"]
    tail = {spaced: told["p99_ms"] / ours["alone"]["p50_ms"] for spaced, told in half.items()}
    preview, digit = ours["first_preview"], ours["first_digit_ms"]
    steps = row["settings"]["preview_steps"]
    rows = [
        f"| images/s at {row['settings']['connections']} connections, against `gmflow sample` "
        f"({row['sample_images_per_s']}/s) | 0.8 | {marked(ratio(of_sample), of_sample >= 0.8)} |",
        f"| the same, against the rival ({best}) | 3 | {marked(ratio(of_rival), of_rival >= 3)} |",
        f"| p99 at half of saturation, against one image alone ({ours['alone']['p50_ms']:.1f} ms) | at most 3 | "
        f"{marked(ratio(tail['evenly']), tail['evenly'] <= 3)}; at random moments {ratio(tail['randomly'])} |",
        f"| first preview of a stream of {steps} steps, as a share of its time, median / longest | less than 0.33 | "
        f"{marked(f'{preview[0]} / {preview[1]}', preview[1] < 1 / 3)} |",
        "| page, from the first paint to the first digit, median / longest | at most 1 s | "
        + (digit if isinstance(digit, str) else marked(f"{digit[0]} / {digit[1]} ms", digit[1] <= 1000))
        + " |",
    ]
    loads = [
        load_row("one after the other", ours["alone"]),
        load_row("half of saturation, evenly spaced", half["evenly"]),
        load_row("half of saturation, at random moments", half["randomly"]),
        load_row("saturation", ours["load"]),
    ]
    if "overload" in ours:
        rows += overload_rows(ours["overload"], row["settings"]["max_wait"])
        loads.append(load_row("twice saturation", ours["overload"]))
    for name, rival in rivals.items():
        loads.append(load_row(f"rival, {name}, one after the other", rival["alone"]))
        loads.append(load_row(f"rival, {name}, saturation", rival["load"]))
    return TEXT.format(
        cores=machine["cores"], cpu=machine["cpu"], memory_gb=machine["memory_gb"], date=row["date"],
        commit=row["commit"] + (", with changes" if row["changed"] else ""), command=row["command"],
        rows="\n".join(rows), loads="\n".join(loads), **row["versions"], **row["settings"],
    )
